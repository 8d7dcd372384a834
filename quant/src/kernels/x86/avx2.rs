//! x86-64 with AVX2, FMA and F16C.

use std::arch::x86_64::*;
use std::ops::Range;

use super::avx2_tiles::tile;
use super::floats::{add_scaled, dot_float, float_tile};
use super::pairs::Pairs256;
use super::panels::pack_for_avx2;
use super::rows::avx2::dot_integer;
use crate::activation::QuantizedRow;
use crate::formats::{self, with_block, with_float};
use crate::isa::{Avx2Token, Isa};
use crate::kernels::{FloatPanel, FloatRows, IntegerPanel, IntegerRows, Kernels, PANEL_ROWS, TileOut, portable};
use crate::{EncodeError, Format, MatrixView, StridedRows, vector};

/// The kernels; holding one proves that the CPU runs them.
#[derive(Clone, Copy, Debug)]
pub struct Avx2 {
    proof: Avx2Token,
}

impl Avx2 {
    /// The kernels, given the proof.
    pub fn new(proof: Avx2Token) -> Self {
        Self { proof }
    }
}

/// Calls a `target_feature` function of this module.
macro_rules! proven {
    ($call:expr) => {
        // SAFETY: `self` holds an `Avx2Token`, which exists only where AVX2, FMA and F16C were detected.
        unsafe { $call }
    };
}

impl Kernels for Avx2 {
    fn isa(&self) -> Isa {
        Isa::Avx2
    }
    fn encode_row(&self, format: Format, values: &[f32], out: &mut [u8]) -> Result<(), EncodeError> {
        proven!(encode_row(Pairs256(self.proof), format, values, out))
    }
    fn decode_row(&self, format: Format, bytes: &[u8], out: &mut [f32]) {
        proven!(decode_row(format, bytes, out));
    }
    fn squared_error(&self, format: Format, bytes: &[u8], values: &[f32]) -> (f64, f64) {
        proven!(squared_error(format, bytes, values))
    }
    fn dot_float(&self, rows: StridedRows<'_>, x: &[f32], out: &mut [f32]) {
        with_float!(rows.format(), E => proven!(dot_float::<E>(rows, x, out)),
            else portable::dot_float(rows, x, out));
    }
    fn dot_integer(&self, weights: MatrixView<'_>, rows: Range<usize>, x: &[QuantizedRow<'_>], out: &mut [f32]) {
        with_block!(weights.format(), B => proven!(dot_integer::<B>(weights, rows, x, out)),
            else portable::dot_integer(weights, rows, x, out));
    }
    fn add_scaled(&self, factors: &[f32], rows: StridedRows<'_>, out: &mut [f32]) {
        with_float!(rows.format(), E => proven!(add_scaled::<E>(factors, rows, out)),
            else portable::add_scaled(factors, rows, out));
    }
    fn pack_float(&self, format: Format, rows: &[&[u8]], k: usize, panel: &mut FloatPanel) {
        proven!(pack_float(format, rows, k, panel));
    }
    fn pack_integer(&self, format: Format, rows: &[&[u8]], k: usize, panel: &mut IntegerPanel) {
        with_block!(format, B => proven!(pack_for_avx2::<B>(rows, k, panel)),
            else portable::pack_integer(format, rows, k, panel));
    }
    fn float_tile(&self, panel: &[f32], stride: usize, x: FloatRows<'_>, out: TileOut<'_>) {
        proven!(float_tile::<1>(panel, stride, x, out));
    }
    fn pair_tile(&self, panel: &[f32], x: FloatRows<'_>, out: TileOut<'_>) {
        proven!(float_tile::<2>(panel, PANEL_ROWS, x, out));
    }
    fn integer_tile(&self, panel: &IntegerPanel, x: IntegerRows<'_>, out: TileOut<'_>) {
        proven!(integer_tile(panel, x, out));
    }
    vector_methods!();
    fn softcap(&self, x: &mut [f32], cap: f32) {
        proven!(softcap(x, cap));
    }
    fn softmax_tile(&self, x: &mut [f32], largest: f32) -> (f32, f32) {
        proven!(softmax_tile(x, largest))
    }
    fn to_half(&self, x: &[f32], out: &mut [u16]) {
        assert_eq!(x.len(), out.len());
        proven!(to_half(x, out));
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
fn integer_tile(panel: &IntegerPanel, x: IntegerRows<'_>, out: TileOut<'_>) {
    match (panel.group, panel.bits, panel.biases.is_empty()) {
        (32, 4, true) => tile::<32, 4, false>(panel, x, out),
        (32, 4, false) => tile::<32, 4, true>(panel, x, out),
        (32, 5, true) => tile::<32, 5, false>(panel, x, out),
        (32, 5, false) => tile::<32, 5, true>(panel, x, out),
        (16, 6, true) => tile::<16, 6, false>(panel, x, out),
        (32, 8, true) => tile::<32, 8, false>(panel, x, out),
        _ => unreachable!("no format has this shape"),
    }
}

instantiate! {
    "avx2,fma,f16c";
    encode_row(pairs: Pairs256, format: Format, values: &[f32], out: &mut [u8]) -> Result<(), EncodeError> = formats::encode_row_with;
    decode_row(format: Format, bytes: &[u8], out: &mut [f32]) = formats::decode_row;
    squared_error(format: Format, bytes: &[u8], values: &[f32]) -> (f64, f64) = formats::squared_error;
    pack_float(format: Format, rows: &[&[u8]], k: usize, panel: &mut FloatPanel) = portable::pack_float;
    softcap(x: &mut [f32], cap: f32) = vector::softcap;
    softmax_tile(x: &mut [f32], largest: f32) -> (f32, f32) = vector::softmax_tile;
}

instantiate_narrow_vectors!("avx2,fma,f16c");
instantiate_vectors!("avx2,fma,f16c");

/// Half-precision bits, with the instruction for it.
#[target_feature(enable = "avx2,fma,f16c")]
fn to_half(x: &[f32], out: &mut [u16]) {
    let (chunks, rest) = x.as_chunks::<8>();
    let (halves, rest_out) = out.as_chunks_mut::<8>();
    for (x, out) in chunks.iter().zip(halves) {
        // SAFETY: eight values are read and eight half-precision ones written.
        unsafe {
            let bits = _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(_mm256_loadu_ps(x.as_ptr()));
            _mm_storeu_si128(out.as_mut_ptr().cast(), bits);
        }
    }
    vector::to_half(rest, rest_out);
}
