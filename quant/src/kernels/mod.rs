//! The arithmetic, one implementation per instruction set.
//!
//! [`Kernels`] is an overlay table: an instruction set overrides what it does better than the set it builds on, down to
//! the portable code. All implementations of a method agree up to the rounding of sums, and of exponentials and tangents in
//! softmax, softcap and GELU; each one alone gives the same bits for an output element however the work around it is divided.

pub mod matrix_unit;
#[cfg(target_arch = "aarch64")]
pub mod neon;
pub mod portable;
pub(crate) mod prefetch;
#[cfg(target_arch = "x86_64")]
pub mod x86;

use std::ops::Range;

use crate::activation::{QuantizedRow, QuantizedRowMut, QuantizedRows};
use crate::isa::Isa;
use crate::{EncodeError, Format, MatrixUnit, MatrixView, StridedRows, vector};

/// Weight rows in a panel: the width of the register tile of every panel product.
pub const PANEL_ROWS: usize = 16;

/// Rows of a floating-point matrix unpacked and interleaved: `values[k][PANEL_ROWS]`.
#[derive(Debug, Default)]
pub struct FloatPanel {
    /// The interleaved values.
    pub values: Vec<f32>,
}

/// How a panel's codes lie; an instruction set reads the arrangement that its own packing writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Arrangement {
    /// `[k / 4][16 rows][4]` signed codes.
    #[default]
    SignedQuads,
    /// `[k / 4][16 rows][4]` stored codes, unsigned.
    #[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "an arrangement of x86"))]
    StoredQuads,
    /// As `StoredQuads`; products take half the codes' range off, and biases make up for it.
    #[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "an arrangement of x86"))]
    CenteredQuads,
    /// `[k / 2][16 rows][2]` signed codes of 16 bits.
    #[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "an arrangement of x86"))]
    SignedPairs,
    /// `[k / 8][16 rows][8]` signed codes.
    #[cfg_attr(not(target_arch = "aarch64"), expect(dead_code, reason = "an arrangement of ARM"))]
    SignedOctets,
}

/// A cache line, so that vector loads from panels cross none.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(crate) struct Line(pub(crate) [u8; 64]);

/// Rows of a quantized matrix unpacked and interleaved for integer products.
#[derive(Debug, Default)]
pub struct IntegerPanel {
    pub(crate) arrangement: Arrangement,
    pub(crate) codes: Vec<Line>,
    /// `[k / group][PANEL_ROWS]` scales.
    pub(crate) scales: Vec<f32>,
    /// `[k / group][PANEL_ROWS]` biases; empty where the format has none.
    pub(crate) biases: Vec<f32>,
    /// Values of a row in this panel.
    pub(crate) k: usize,
    /// Values that share a scale: 16 or 32.
    pub(crate) group: usize,
    /// Bits of a stored code.
    pub(crate) bits: u32,
}

impl IntegerPanel {
    /// Makes room for `k` values of a row of format `B`, with `bytes` bytes for each code.
    pub(crate) fn prepare<B: crate::formats::Block>(&mut self, arrangement: Arrangement, k: usize, bytes: usize) {
        (self.arrangement, self.k, self.group, self.bits) = (arrangement, k, B::GROUP, B::BITS);
        self.codes.resize((k * PANEL_ROWS * bytes).div_ceil(64), Line([0; 64]));
        self.scales.resize(k / B::GROUP * PANEL_ROWS, 0.0);
        self.biases.resize(if B::BIASED { self.scales.len() } else { 0 }, 0.0);
    }
}

/// The left-hand side of a floating-point tile: `rows` rows of `k` values, `stride` apart.
#[derive(Clone, Copy, Debug)]
pub struct FloatRows<'a> {
    /// The first row starts at index 0.
    pub values: &'a [f32],
    /// Distance between rows.
    pub stride: usize,
    /// Number of rows.
    pub rows: usize,
    /// Values of a row that take part.
    pub k: usize,
}

/// A range of quantized rows and columns, the left-hand side of an integer tile.
#[derive(Clone, Copy, Debug)]
pub struct IntegerRows<'a> {
    /// The buffer.
    pub values: &'a QuantizedRows,
    /// First row.
    pub first: usize,
    /// Number of rows.
    pub rows: usize,
    /// First column, a multiple of 32; the panel's `k` says how many.
    pub column: usize,
}

/// Where the results of a tile of `rows × PANEL_ROWS`, or of several side by side, go.
#[derive(Debug)]
pub struct TileOut<'a> {
    /// The first row starts at index 0.
    pub values: &'a mut [f32],
    /// Distance between rows.
    pub stride: usize,
    /// Whether to add to what is there.
    pub accumulate: bool,
}

/// Checks that there is a value of `x` for each column and one of `y` for each row.
///
/// # Panics
/// When there is not.
pub(crate) fn check_rows(rows: &StridedRows<'_>, x: &[f32], y: &[f32]) {
    assert!(x.len() == rows.columns() && y.len() == rows.rows(), "a value for each column and for each row");
}

/// Whether `len` values hold `rows` rows of `width`, `stride` apart.
pub(crate) fn fits(len: usize, rows: usize, stride: usize, width: usize) -> bool {
    let end = rows.checked_sub(1).map(|last| last.checked_mul(stride).and_then(|start| start.checked_add(width)));
    end.is_none_or(|end| end.is_some_and(|end| end <= len))
}

/// Checks that scales and biases, activations and results have what a product with `panel` touches. How many bytes the codes
/// take is each arrangement's own.
///
/// # Panics
/// When they have not.
pub(crate) fn check_product(panel: &IntegerPanel, x: &IntegerRows<'_>, out: &TileOut<'_>) {
    let groups = panel.k / panel.group;
    assert!(panel.scales.len() >= groups * PANEL_ROWS, "a panel lacks scales");
    assert!(panel.biases.is_empty() || panel.biases.len() >= groups * PANEL_ROWS, "a panel lacks biases");
    let (k, rows) = (x.values.k(), x.values.rows());
    assert!(x.column.is_multiple_of(crate::activation::ACTIVATION_BLOCK), "a product starts between blocks");
    assert!(x.column.checked_add(panel.k).is_some_and(|end| end <= k), "a panel is deeper than the activations");
    assert!(x.first.checked_add(x.rows).is_some_and(|end| end <= rows), "more rows asked for than there are");
    assert!(fits(out.values.len(), x.rows, out.stride, PANEL_ROWS), "the results do not fit");
}

/// Calls the set that `$self` builds on, or the portable function.
macro_rules! overlay {
    ($self:ident.$method:ident($($argument:expr),*), $portable:path) => {
        match $self.base() {
            Some(base) => base.$method($($argument),*),
            None => $portable($($argument),*),
        }
    };
}

/// The arithmetic of one instruction set.
pub trait Kernels: Send + Sync + std::fmt::Debug {
    /// The instruction set.
    fn isa(&self) -> Isa;

    /// The kernels of the set that this one builds on: they do what this one does not override.
    fn base(&self) -> Option<&dyn Kernels> {
        None
    }

    /// The CPU's matrix unit, where products of many rows are made in place of panel products.
    fn matrix_unit(&self) -> Option<&dyn MatrixUnit> {
        None
    }

    /// As [`encode_row`](crate::encode_row), with the same result.
    ///
    /// # Errors
    /// As [`encode_row`](crate::encode_row).
    fn encode_row(&self, format: Format, values: &[f32], out: &mut [u8]) -> Result<(), EncodeError> {
        overlay!(self.encode_row(format, values, out), crate::formats::encode_row)
    }

    /// As [`decode_row`](crate::decode_row), with the same result.
    fn decode_row(&self, format: Format, bytes: &[u8], out: &mut [f32]) {
        overlay!(self.decode_row(format, bytes, out), crate::formats::decode_row);
    }

    /// As [`squared_error`](crate::formats::squared_error), with the same result.
    fn squared_error(&self, format: Format, bytes: &[u8], values: &[f32]) -> (f64, f64) {
        overlay!(self.squared_error(format, bytes, values), crate::formats::squared_error)
    }

    /// Quantizes a row of activations; `x.len()` is a multiple of 32.
    fn quantize(&self, x: &[f32], row: QuantizedRowMut<'_>) {
        overlay!(self.quantize(x, row), vector::quantize);
    }

    /// `out[j]` = dot product of row `j` with `x`.
    fn dot_float(&self, rows: StridedRows<'_>, x: &[f32], out: &mut [f32]) {
        overlay!(self.dot_float(rows, x, out), portable::dot_float);
    }

    /// `out[t][j]` = dot product of row `rows.start + j` of a quantized matrix with the quantized activations `x[t]`; the
    /// weights are read once for all of them.
    fn dot_integer(&self, weights: MatrixView<'_>, rows: Range<usize>, x: &[QuantizedRow<'_>], out: &mut [f32]) {
        overlay!(self.dot_integer(weights, rows, x, out), portable::dot_integer);
    }

    /// `out += Σ_j factors[j] · row j`.
    fn add_scaled(&self, factors: &[f32], rows: StridedRows<'_>, out: &mut [f32]) {
        overlay!(self.add_scaled(factors, rows, out), portable::add_scaled);
    }

    /// Unpacks up to [`PANEL_ROWS`] rows of `k` values of a floating-point format; missing rows become zero.
    fn pack_float(&self, format: Format, rows: &[&[u8]], k: usize, panel: &mut FloatPanel) {
        overlay!(self.pack_float(format, rows, k, panel), portable::pack_float);
    }

    /// Unpacks up to [`PANEL_ROWS`] rows of `k` values of a quantized format; missing rows become zero.
    fn pack_integer(&self, format: Format, rows: &[&[u8]], k: usize, panel: &mut IntegerPanel) {
        overlay!(self.pack_integer(format, rows, k, panel), portable::pack_integer);
    }

    /// `out[i][j] (+)= Σ_k x[i][k] · panel[k · stride + j]` for `j < PANEL_ROWS`.
    fn float_tile(&self, panel: &[f32], stride: usize, x: FloatRows<'_>, out: TileOut<'_>) {
        overlay!(self.float_tile(panel, stride, x, out), portable::float_tile);
    }

    /// [`float_tile`](Self::float_tile) for panels that begin `panel_stride` values apart, one for every [`PANEL_ROWS`] of
    /// `columns`, which is a multiple of it; a panel's lines follow each other. A set that has its own `float_tile` has this, too, or no base.
    fn float_tiles(&self, (panels, panel_stride): (&[f32], usize), columns: usize, x: FloatRows<'_>, out: TileOut<'_>) {
        if let Some(base) = self.base() {
            return base.float_tiles((panels, panel_stride), columns, x, out);
        }
        assert!(columns.is_multiple_of(PANEL_ROWS), "whole panels");
        for column in (0..columns).step_by(PANEL_ROWS) {
            let panel = &panels[column / PANEL_ROWS * panel_stride..][..x.k * PANEL_ROWS];
            self.float_tile(panel, PANEL_ROWS, x, TileOut { values: &mut out.values[column..], ..out });
        }
    }

    /// As [`float_tile`](Self::float_tile) for a panel of half as many columns, whose lines hold two neighbours of the depth
    /// each: `panel[k / 2][PANEL_ROWS / 2][2]`. Results `2 · j` and `2 · j + 1` of a row are the sums of column `j` over even
    /// and over odd `k`; column `j`'s is the sum of both.
    ///
    /// # Panics
    /// When the depth is odd, beside what does not fit.
    fn pair_tile(&self, panel: &[f32], x: FloatRows<'_>, out: TileOut<'_>) {
        overlay!(self.pair_tile(panel, x, out), portable::pair_tile);
    }

    /// `out[i][j] (+)=` the product of quantized row `i` with the row `j` of a panel that these kernels packed.
    fn integer_tile(&self, panel: &IntegerPanel, x: IntegerRows<'_>, out: TileOut<'_>) {
        overlay!(self.integer_tile(panel, x, out), portable::integer_tile);
    }

    /// [`integer_tile`](Self::integer_tile) for several panels: the results of panel `p` begin at column `p · PANEL_ROWS`. The
    /// default multiplies one panel after the other with the `integer_tile` of this set; a set that leaves that to its base
    /// passes this on, too.
    fn integer_tiles(&self, panels: &[IntegerPanel], x: IntegerRows<'_>, out: TileOut<'_>) {
        if x.rows == 0 {
            return;
        }
        for (index, panel) in panels.iter().enumerate() {
            self.integer_tile(panel, x, TileOut { values: &mut out.values[index * PANEL_ROWS..], ..out });
        }
    }

    /// How many panels [`integer_tiles`](Self::integer_tiles) multiplies at once, faster than one after the other.
    fn integer_panels(&self) -> usize {
        1
    }

    /// Reads all bytes with loads as wide as the set has, in four streams that lie apart, and returns the exclusive or of their
    /// words of eight bytes in native order, the last filled up with zeros: to measure what reading alone takes.
    fn read(&self, bytes: &[u8]) -> u64 {
        overlay!(self.read(bytes), vector::read)
    }

    /// x ← gelu(x), the tanh form.
    fn gelu(&self, x: &mut [f32]) {
        overlay!(self.gelu(x), vector::gelu);
    }

    /// gate ← gelu(gate) · up, which is as long.
    fn gelu_multiply(&self, gate: &mut [f32], up: &[f32]) {
        overlay!(self.gelu_multiply(gate, up), vector::gelu_multiply);
    }

    /// x ← cap · tanh(x / cap).
    fn softcap(&self, x: &mut [f32], cap: f32) {
        overlay!(self.softcap(x, cap), vector::softcap);
    }

    /// One step of a softmax over tiles: x ← e^(x − m) for the greatest value m of `x` and of `largest`. Returns m and the
    /// sum of the new x.
    fn softmax_tile(&self, x: &mut [f32], largest: f32) -> (f32, f32) {
        overlay!(self.softmax_tile(x, largest), vector::softmax_tile)
    }

    /// x ← x + y, which is as long.
    fn add(&self, x: &mut [f32], y: &[f32]) {
        overlay!(self.add(x, y), vector::add);
    }

    /// x ← x · factor.
    fn scale(&self, x: &mut [f32], factor: f32) {
        overlay!(self.scale(x, factor), vector::scale);
    }

    /// out = x / sqrt(mean(x²) + epsilon) · weight.
    fn rms_norm(&self, x: &[f32], weight: &[f32], epsilon: f32, out: &mut [f32]) {
        overlay!(self.rms_norm(x, weight, epsilon, out), vector::rms_norm);
    }

    /// out += x / sqrt(mean(x²) + epsilon) · weight.
    fn add_rms_norm(&self, x: &[f32], weight: &[f32], epsilon: f32, out: &mut [f32]) {
        overlay!(self.add_rms_norm(x, weight, epsilon, out), vector::add_rms_norm);
    }

    /// out = (x − mean) / sqrt(variance + epsilon) · weight + bias; `affine` is (weight, bias).
    fn layer_norm(&self, x: &[f32], affine: (&[f32], &[f32]), epsilon: f32, out: &mut [f32]) {
        overlay!(self.layer_norm(x, affine, epsilon, out), vector::layer_norm);
    }

    /// Rotates a head in the halves layout: value `i` pairs with value `i + head_dim / 2`, `rotation[i]` is (cos, sin).
    fn rotate(&self, head: &mut [f32], rotation: &[(f32, f32)]) {
        overlay!(self.rotate(head, rotation), vector::rotate);
    }

    /// Half-precision bits of `x`, rounded to nearest even.
    fn to_half(&self, x: &[f32], out: &mut [u16]) {
        overlay!(self.to_half(x, out), vector::to_half);
    }
}
