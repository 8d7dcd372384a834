//! The arithmetic: one table of functions per instruction set ("tier"), and one front door to them.
//!
//! [`Kernels`] checks the arguments of a call once and calls the tier's function. All tiers agree up to the rounding of sums, and
//! of exponentials and tangents in softmax, softcap and GELU; each one alone gives the same bits for an output element however the
//! work around it is divided.
//!
//! From the ground up: `operands` and `matrix_unit` (what products take, and the checks), `table` (what a tier fills), `portable`
//! and one folder per tier, [`isa`](crate::isa) (which tiers there are and which this CPU has), and the front door. A file imports
//! from below it only.

pub mod matrix_unit;
#[cfg(target_arch = "aarch64")]
pub(crate) mod neon;
pub(crate) mod operands;
pub(crate) mod portable;
pub(crate) mod prefetch;
pub(crate) mod table;
pub(crate) mod unit;
#[cfg(target_arch = "x86_64")]
pub(crate) mod x86;

use std::ops::Range;

pub use operands::{FloatPanel, FloatPanels, FloatRows, IntegerPanel, IntegerRows, PANEL_ROWS, TileOut};
pub use unit::MatrixUnit;

use crate::activation::{QuantizedRow, QuantizedRowMut};
use crate::isa::{Isa, IsaError};
use crate::vector::Affine;
use crate::{BlockToRound, EncodeError, Format, MatrixView, StridedRows, formats};
use operands::{Arrangement, check_float_tile, check_integer_rows, check_integer_tile, check_packed, check_rows};
use table::Table;

/// The arithmetic of one instruction set that this CPU has. A handle, cheap to copy.
#[derive(Clone, Copy)]
pub struct Kernels {
    isa: Isa,
    table: &'static Table,
}

impl std::fmt::Debug for Kernels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Kernels").field(&self.isa).finish()
    }
}

/// Calls a function of the table.
macro_rules! call {
    ($self:ident.$room:ident.$function:ident($($argument:expr),*)) => {
        // SAFETY: `Kernels::of` makes kernels of a tier only where its features were detected, and the method that this stands in has
        // checked what the table asks for.
        unsafe { ($self.table.$room.$function)($($argument),*) }
    };
}

impl Kernels {
    /// The kernels of an instruction set, if this CPU has it.
    pub fn of(isa: Isa) -> Option<Self> {
        isa.is_available().then(|| Self { isa, table: isa.table() })
    }

    /// Those of every instruction set that this build and this CPU have, the most general first.
    pub fn available() -> impl Iterator<Item = Self> {
        Isa::COMPILED.iter().copied().filter_map(Self::of)
    }

    /// The kernels of the instruction set named `request`, or without a request the best that the CPU has.
    ///
    /// # Errors
    /// When `request` names no instruction set, or one that this build or CPU lacks.
    pub fn select(request: Option<&str>) -> Result<Self, IsaError> {
        let portable = Self { isa: Isa::Portable, table: Isa::Portable.table() };
        match request {
            None => Ok(Self::available().last().unwrap_or(portable)),
            Some(name) => {
                Self::available().find(|kernels| kernels.isa.name() == name).ok_or_else(|| IsaError::unavailable(name))
            }
        }
    }

    /// The instruction set.
    pub fn isa(self) -> Isa {
        self.isa
    }

    /// The CPU's matrix unit, where products of many rows are made in place of panel products.
    pub fn matrix_unit(self) -> Option<MatrixUnit> {
        self.table.unit.as_ref().map(MatrixUnit)
    }

    /// As [`encode_row`](crate::encode_row), with the same result.
    ///
    /// # Errors
    /// As [`encode_row`](crate::encode_row).
    pub fn encode_row(self, format: Format, values: &[f32], out: &mut [u8]) -> Result<(), EncodeError> {
        call!(self.codec.encode_row(format, values, out))
    }

    /// As [`encode_row_weighted`](crate::encode_row_weighted), with the same result.
    ///
    /// # Errors
    /// As [`encode_row_weighted`](crate::encode_row_weighted).
    ///
    /// # Panics
    /// As [`encode_row_weighted`](crate::encode_row_weighted).
    pub fn encode_row_weighted(
        self,
        format: Format,
        values: &[f32],
        weights: &[f32],
        out: &mut [u8],
    ) -> Result<(), EncodeError> {
        formats::encode_row_weighted_with(format, values, weights, out, |part, block, decoded| {
            self.round_block(format, part, block, decoded);
        })
    }

    /// As [`round_block`](crate::round_block), with the same result.
    ///
    /// # Panics
    /// As [`round_block`](crate::round_block).
    pub fn round_block(self, format: Format, part: &BlockToRound<'_>, block: &mut [u8], decoded: &mut [f32]) {
        call!(self.codec.round_block(format, part, block, decoded))
    }

    /// As [`decode_row`](crate::decode_row), with the same result.
    ///
    /// # Panics
    /// As [`decode_row`](crate::decode_row).
    pub fn decode_row(self, format: Format, bytes: &[u8], out: &mut [f32]) {
        call!(self.codec.decode_row(format, bytes, out))
    }

    /// As [`squared_error`](crate::squared_error), with the same result.
    ///
    /// # Panics
    /// As [`squared_error`](crate::squared_error).
    pub fn squared_error(self, format: Format, bytes: &[u8], values: &[f32]) -> (f64, f64) {
        call!(self.codec.squared_error(format, bytes, values))
    }

    /// Quantizes a row of activations.
    ///
    /// # Panics
    /// When `x.len()` is no multiple of 32, or `row` is of another length.
    pub fn quantize(self, x: &[f32], row: QuantizedRowMut<'_>) {
        row.check(x.len());
        call!(self.codec.quantize(x, row))
    }

    /// Half-precision bits of `x`, rounded to nearest even.
    ///
    /// # Panics
    /// When `out` is of another length.
    pub fn to_half(self, x: &[f32], out: &mut [u16]) {
        assert_eq!(x.len(), out.len(), "as many results as values");
        call!(self.codec.to_half(x, out))
    }

    /// `out[j]` = dot product of row `j` with `x`.
    ///
    /// # Panics
    /// When there is not a value of `x` for each column and one of `out` for each row.
    pub fn dot_float(self, rows: StridedRows<'_>, x: &[f32], out: &mut [f32]) {
        check_rows(&rows, x, out);
        call!(self.rows.dot_float(rows, x, out))
    }

    /// `out[t][j]` = dot product of row `rows.start + j` of a quantized matrix with the quantized activations `x[t]`; the
    /// weights are read once for all of them.
    ///
    /// # Panics
    /// When the matrix is not quantized, lacks the rows, or activations or results are of other lengths.
    pub fn dot_integer(self, weights: MatrixView<'_>, rows: Range<usize>, x: &[QuantizedRow<'_>], out: &mut [f32]) {
        check_integer_rows(&weights, &rows, x, out);
        call!(self.rows.dot_integer(weights, rows, x, out))
    }

    /// `out += Σ_j factors[j] · row j`.
    ///
    /// # Panics
    /// When there is not a factor for each row and a value of `out` for each column.
    pub fn add_scaled(self, factors: &[f32], rows: StridedRows<'_>, out: &mut [f32]) {
        check_rows(&rows, out, factors);
        call!(self.rows.add_scaled(factors, rows, out))
    }

    /// Unpacks up to [`PANEL_ROWS`] rows of `k` values of a floating-point format; missing rows become zero.
    ///
    /// # Panics
    /// When the format is not floating-point, there are more rows, or they lack values.
    pub fn pack_float(self, format: Format, rows: &[&[u8]], k: usize, panel: &mut FloatPanel) {
        assert!(!format.info().integer, "{format} is no floating-point format");
        check_packed(format, rows, k);
        call!(self.float.pack(format, rows, k, panel))
    }

    /// Unpacks up to [`PANEL_ROWS`] rows of `k` values of a quantized format; missing rows become zero.
    ///
    /// # Panics
    /// When the format is not quantized, there are more rows, they lack values, or `k` is no whole number of blocks.
    pub fn pack_integer(self, format: Format, rows: &[&[u8]], k: usize, panel: &mut IntegerPanel) {
        assert!(format.info().integer, "{format} is no quantized format");
        check_packed(format, rows, k);
        call!(self.integer.pack(format, rows, k, panel))
    }

    /// `out[i][j] (+)= Σ_k x[i][k] · panel[k][j]` for `j < PANEL_ROWS`.
    ///
    /// # Panics
    /// When panel, rows or results are smaller than they say.
    pub fn float_tile(self, panel: &[f32], x: FloatRows<'_>, out: TileOut<'_>) {
        check_float_tile(panel, 1, &x, &out);
        call!(self.float.tile(panel, x, out))
    }

    /// [`float_tile`](Self::float_tile) for several panels: the results of panel `p` begin at column `p · PANEL_ROWS`.
    ///
    /// # Panics
    /// As [`float_tile`](Self::float_tile).
    pub fn float_tiles(self, panels: FloatPanels<'_>, x: FloatRows<'_>, mut out: TileOut<'_>) {
        let mut index = 0;
        while index < panels.count {
            let start = index.checked_mul(panels.stride).filter(|start| *start <= panels.values.len());
            let values = &panels.values[start.expect("panels lack values")..];
            let mut out = out.at_column(index * PANEL_ROWS);
            if let Some(two_tiles) = self.table.float.two_tiles.filter(|_| panels.count - index > 1) {
                check_float_tile(values, 1, &x, &out);
                let second = values.get(panels.stride..).expect("panels lack values");
                check_float_tile(second, 1, &x, &out.at_column(PANEL_ROWS));
                // SAFETY: as in `call!`: the checks are those of both panels.
                unsafe { two_tiles(FloatPanels { values, count: 2, ..panels }, x, out) };
                index += 2;
            } else {
                self.float_tile(values, x, out);
                index += 1;
            }
        }
    }

    /// As [`float_tile`](Self::float_tile) for a panel of half as many columns, whose lines hold two neighbours of the depth
    /// each: `panel[k / 2][PANEL_ROWS / 2][2]`. Results `2 · j` and `2 · j + 1` of a row are the sums of column `j` over even
    /// and over odd `k`; column `j`'s is the sum of both.
    ///
    /// # Panics
    /// When the depth is odd, beside what does not fit.
    pub fn pair_tile(self, panel: &[f32], x: FloatRows<'_>, out: TileOut<'_>) {
        check_float_tile(panel, 2, &x, &out);
        call!(self.float.pair_tile(panel, x, out))
    }

    /// `out[i][j] (+)=` the product of quantized row `i` with the row `j` of a panel that these kernels packed.
    ///
    /// # Panics
    /// When panel, activations or results are smaller than they say, or other kernels packed the panel.
    pub fn integer_tile(self, panel: &IntegerPanel, x: IntegerRows<'_>, out: TileOut<'_>) {
        self.check_panel(panel, &x, &out);
        if panel.arrangement == Arrangement::Portable {
            return portable::integer_tile(panel, x, out);
        }
        call!(self.integer.tile(panel, x, out))
    }

    /// [`integer_tile`](Self::integer_tile) for several panels: the results of panel `p` begin at column `p · PANEL_ROWS`.
    ///
    /// # Panics
    /// As [`integer_tile`](Self::integer_tile).
    pub fn integer_tiles(self, panels: &[IntegerPanel], x: IntegerRows<'_>, mut out: TileOut<'_>) {
        let alike = |left: &IntegerPanel, right: &IntegerPanel| {
            let kind = |panel: &IntegerPanel| (panel.arrangement, panel.shape, panel.k);
            kind(left) == kind(right) && left.arrangement != Arrangement::Portable
        };
        let mut rest = panels;
        while let [left, others @ ..] = rest {
            let mut out = out.at_column((panels.len() - rest.len()) * PANEL_ROWS);
            match (self.table.integer.two_tiles, others) {
                (Some(two_tiles), [right, others @ ..]) if alike(left, right) => {
                    self.check_panel(left, &x, &out);
                    self.check_panel(right, &x, &out.at_column(PANEL_ROWS));
                    // SAFETY: as in `call!`: the checks are those of both panels.
                    unsafe { two_tiles([left, right], x, out) };
                    rest = others;
                }
                _ => {
                    self.integer_tile(left, x, out);
                    rest = others;
                }
            }
        }
    }

    /// How many panels [`integer_tiles`](Self::integer_tiles) multiplies at once, faster than one after the other.
    pub fn integer_panels(self) -> usize {
        if self.table.integer.two_tiles.is_some() { 2 } else { 1 }
    }

    fn check_panel(self, panel: &IntegerPanel, x: &IntegerRows<'_>, out: &TileOut<'_>) {
        check_integer_tile(panel, x, out);
        let readable = panel.arrangement == (self.table.integer.arrangement)(panel.shape);
        assert!(readable || panel.arrangement == Arrangement::Portable, "a panel of other kernels");
    }

    /// Reads all bytes with loads as wide as the instruction set has, in four streams that lie apart, and returns the exclusive or of
    /// their words of eight bytes in native order, the last filled up with zeros: to measure what reading alone takes.
    pub fn read(self, bytes: &[u8]) -> u64 {
        call!(self.vector.read(bytes))
    }

    /// x ← gelu(x), the tanh form.
    pub fn gelu(self, x: &mut [f32]) {
        call!(self.vector.gelu(x))
    }

    /// gate ← gelu(gate) · up.
    ///
    /// # Panics
    /// When `up` is of another length.
    pub fn gelu_multiply(self, gate: &mut [f32], up: &[f32]) {
        assert_eq!(gate.len(), up.len(), "a factor for each of the gate's values");
        call!(self.vector.gelu_multiply(gate, up))
    }

    /// x ← cap · tanh(x / cap).
    pub fn softcap(self, x: &mut [f32], cap: f32) {
        call!(self.vector.softcap(x, cap))
    }

    /// One step of a softmax over tiles: x ← e^(x − m) for the greatest value m of `x` and of `largest`. Returns m and the
    /// sum of the new x.
    pub fn softmax_tile(self, x: &mut [f32], largest: f32) -> (f32, f32) {
        call!(self.vector.softmax_tile(x, largest))
    }

    /// x ← x + y.
    ///
    /// # Panics
    /// When `y` is of another length.
    pub fn add(self, x: &mut [f32], y: &[f32]) {
        assert_eq!(x.len(), y.len(), "rows of one length");
        call!(self.vector.add(x, y))
    }

    /// Adds a multiple of `y` to `x`: `x[i] += factor · y[i]`.
    ///
    /// # Panics
    /// When the lengths differ.
    pub fn add_multiple(self, factor: f32, y: &[f32], x: &mut [f32]) {
        assert_eq!(x.len(), y.len(), "as many summands as values");
        call!(self.vector.add_multiple(factor, y, x))
    }

    /// x ← x · factor.
    pub fn scale(self, x: &mut [f32], factor: f32) {
        call!(self.vector.scale(x, factor))
    }

    /// out = x / sqrt(mean(x²) + epsilon) · weight.
    ///
    /// # Panics
    /// When the rows are of different lengths.
    pub fn rms_norm(self, x: &[f32], weight: &[f32], epsilon: f32, out: &mut [f32]) {
        assert!(x.len() == weight.len() && x.len() == out.len(), "rows of one length");
        call!(self.vector.rms_norm(x, weight, epsilon, out))
    }

    /// out += x / sqrt(mean(x²) + epsilon) · weight.
    ///
    /// # Panics
    /// When the rows are of different lengths.
    pub fn add_rms_norm(self, x: &[f32], weight: &[f32], epsilon: f32, out: &mut [f32]) {
        assert!(x.len() == weight.len() && x.len() == out.len(), "rows of one length");
        call!(self.vector.add_rms_norm(x, weight, epsilon, out))
    }

    /// out = (x − mean) / sqrt(variance + epsilon) · weight + bias.
    ///
    /// # Panics
    /// When the rows are of different lengths.
    pub fn layer_norm(self, x: &[f32], affine: Affine<'_>, epsilon: f32, out: &mut [f32]) {
        let affine_len = affine.weight.len() == x.len() && affine.bias.len() == x.len();
        assert!(affine_len && x.len() == out.len(), "rows of one length");
        call!(self.vector.layer_norm(x, affine, epsilon, out))
    }

    /// Rotates a head in the halves layout: value `i` pairs with value `i + head_dim / 2`, `rotation[i]` is (cos, sin).
    ///
    /// # Panics
    /// When there is not a rotation for each pair.
    pub fn rotate(self, head: &mut [f32], rotation: &[(f32, f32)]) {
        assert_eq!(head.len(), 2 * rotation.len(), "a rotation for each pair");
        call!(self.vector.rotate(head, rotation))
    }
}
