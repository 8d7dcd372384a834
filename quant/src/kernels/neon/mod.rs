//! 64-bit ARM: NEON, which every processor has, and the two extensions that multiply bytes faster.

mod blocks;
mod floats;
mod panels;
mod rows;
mod tiles;

use std::ops::Range;

use floats::{add_scaled, dot_float, float_tile, to_half};
use panels::pack;

use super::{FloatRows, IntegerPanel, IntegerRows, Kernels, PANEL_ROWS, TileOut, portable};
use crate::activation::QuantizedRow;
use crate::formats::{with_block, with_float};
use crate::isa::{DotprodToken, I8mmToken, Isa, NeonToken};
use crate::{Format, MatrixView, StridedRows};

/// Calls a `target_feature` function of this module.
macro_rules! proven {
    ($call:expr) => {
        // SAFETY: `self` holds the token of the instruction set, which exists only where the set was detected.
        unsafe { $call }
    };
}

/// NEON (Cortex-A53, A72: Raspberry Pi 3 and 4).
#[derive(Clone, Copy, Debug)]
pub struct Neon {
    _proof: NeonToken,
}

impl Neon {
    /// The kernels, given the proof.
    pub fn new(proof: NeonToken) -> Self {
        Self { _proof: proof }
    }
}

impl Kernels for Neon {
    fn isa(&self) -> Isa {
        Isa::Neon
    }
    fn dot_float(&self, rows: StridedRows<'_>, x: &[f32], out: &mut [f32]) {
        with_float!(rows.format(), E => proven!(dot_float::<E>(rows, x, out)),
            else portable::dot_float(rows, x, out));
    }
    fn dot_integer(&self, weights: MatrixView<'_>, rows: Range<usize>, x: &[QuantizedRow<'_>], out: &mut [f32]) {
        with_block!(weights.format(), B => proven!(rows::plain::dot_integer::<B>(weights, rows, x, out)),
            else portable::dot_integer(weights, rows, x, out));
    }
    fn add_scaled(&self, factors: &[f32], rows: StridedRows<'_>, out: &mut [f32]) {
        with_float!(rows.format(), E => proven!(add_scaled::<E>(factors, rows, out)),
            else portable::add_scaled(factors, rows, out));
    }
    fn pack_integer(&self, format: Format, rows: &[&[u8]], k: usize, panel: &mut IntegerPanel) {
        with_block!(format, B => proven!(pack::<B, 4>(rows, k, panel)),
            else portable::pack_integer(format, rows, k, panel));
    }
    fn float_tile(&self, panel: &[f32], stride: usize, x: FloatRows<'_>, out: TileOut<'_>) {
        proven!(float_tile::<1>(panel, stride, x, out));
    }
    fn pair_tile(&self, panel: &[f32], x: FloatRows<'_>, out: TileOut<'_>) {
        proven!(float_tile::<2>(panel, PANEL_ROWS, x, out));
    }
    fn integer_tile(&self, panel: &IntegerPanel, x: IntegerRows<'_>, out: TileOut<'_>) {
        proven!(tiles::plain(panel, x, out));
    }
    fn to_half(&self, x: &[f32], out: &mut [u16]) {
        assert_eq!(x.len(), out.len());
        proven!(to_half(x, out));
    }
}

/// NEON with four-way dot products (Cortex-A76, A78AE: Raspberry Pi 5, Jetson Orin).
#[derive(Clone, Copy, Debug)]
pub struct Dotprod {
    base: Neon,
    _proof: DotprodToken,
}

impl Dotprod {
    /// The kernels, given the proof.
    pub fn new(proof: DotprodToken) -> Self {
        Self { base: Neon::new(proof.neon()), _proof: proof }
    }
}

impl Kernels for Dotprod {
    fn isa(&self) -> Isa {
        Isa::Dotprod
    }
    fn base(&self) -> Option<&dyn Kernels> {
        Some(&self.base)
    }
    fn dot_integer(&self, weights: MatrixView<'_>, rows: Range<usize>, x: &[QuantizedRow<'_>], out: &mut [f32]) {
        with_block!(weights.format(), B => proven!(rows::dotprod::dot_integer::<B>(weights, rows, x, out)),
            else portable::dot_integer(weights, rows, x, out));
    }
    fn integer_tile(&self, panel: &IntegerPanel, x: IntegerRows<'_>, out: TileOut<'_>) {
        proven!(tiles::dotprod(panel, x, out));
    }
}

/// NEON with dot products and products of small matrices (Neoverse V1 and newer).
#[derive(Clone, Copy, Debug)]
pub struct I8mm {
    base: Dotprod,
    _proof: I8mmToken,
}

impl I8mm {
    /// The kernels, given the proof.
    pub fn new(proof: I8mmToken) -> Self {
        Self { base: Dotprod::new(proof.dotprod()), _proof: proof }
    }
}

impl Kernels for I8mm {
    fn isa(&self) -> Isa {
        Isa::I8mm
    }
    fn base(&self) -> Option<&dyn Kernels> {
        Some(&self.base)
    }
    fn pack_integer(&self, format: Format, rows: &[&[u8]], k: usize, panel: &mut IntegerPanel) {
        with_block!(format, B => proven!(pack::<B, 8>(rows, k, panel)),
            else portable::pack_integer(format, rows, k, panel));
    }
    fn integer_tile(&self, panel: &IntegerPanel, x: IntegerRows<'_>, out: TileOut<'_>) {
        proven!(tiles::i8mm(panel, x, out));
    }
}
