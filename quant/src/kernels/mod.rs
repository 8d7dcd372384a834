//! The arithmetic, one implementation per instruction set.
//!
//! [`Kernels`] is an overlay table: its provided methods are the portable code, and an instruction set overrides what
//! it does better. All implementations of a method agree up to the rounding of sums; each one alone gives the same
//! bits for an output element however the work around it is divided.

#[cfg(target_arch = "x86_64")]
pub mod avx2;
pub mod portable;

use crate::Format;
use crate::activation::{QuantizedRow, QuantizedRowMut, QuantizedRows};
use crate::isa::Isa;

/// Weight rows in a panel: the width of the register tile of every panel product.
pub const PANEL_ROWS: usize = 16;

/// Rows of a floating-point matrix unpacked and interleaved: `values[k][PANEL_ROWS]`.
#[derive(Debug, Default)]
pub struct FloatPanel {
    /// The interleaved values.
    pub values: Vec<f32>,
}

/// Rows of a quantized matrix unpacked and interleaved for integer products.
#[derive(Debug, Default)]
pub struct IntegerPanel {
    /// `[k / 2][PANEL_ROWS][2]` codes.
    pub codes: Vec<i16>,
    /// `[k / group][PANEL_ROWS]` scales.
    pub scales: Vec<f32>,
    /// `[k / group][PANEL_ROWS]` biases; empty where the format has none.
    pub biases: Vec<f32>,
    /// Values of a row in this panel.
    pub k: usize,
    /// Values that share a scale: 16 or 32.
    pub group: usize,
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

/// Where a tile's `rows × PANEL_ROWS` results go.
#[derive(Debug)]
pub struct TileOut<'a> {
    /// The first row starts at index 0.
    pub values: &'a mut [f32],
    /// Distance between rows.
    pub stride: usize,
    /// Whether to add to what is there.
    pub accumulate: bool,
}

/// The arithmetic of one instruction set.
pub trait Kernels: Send + Sync + std::fmt::Debug {
    /// The instruction set.
    fn isa(&self) -> Isa;

    /// Quantizes a row of activations; `x.len()` is a multiple of 32.
    fn quantize(&self, x: &[f32], row: QuantizedRowMut<'_>) {
        crate::vector::quantize(x, row);
    }

    /// Dot product of a row of a floating-point format with `x`.
    fn dot_float(&self, format: Format, row: &[u8], x: &[f32]) -> f32 {
        portable::dot_float(format, row, x)
    }

    /// Dot product of a row of a quantized format with quantized activations.
    fn dot_integer(&self, format: Format, row: &[u8], x: QuantizedRow<'_>) -> f32 {
        portable::dot_integer(format, row, x)
    }

    /// `out += weight · row` for a half-precision row.
    fn add_scaled_half(&self, weight: f32, row: &[u8], out: &mut [f32]) {
        portable::add_scaled_half(weight, row, out);
    }

    /// Unpacks up to [`PANEL_ROWS`] rows of `k` values of a floating-point format; missing rows become zero.
    fn pack_float(&self, format: Format, rows: &[&[u8]], k: usize, panel: &mut FloatPanel) {
        portable::pack_float(format, rows, k, panel);
    }

    /// Unpacks up to [`PANEL_ROWS`] rows of `k` values of a quantized format; missing rows become zero.
    fn pack_integer(&self, format: Format, rows: &[&[u8]], k: usize, panel: &mut IntegerPanel) {
        portable::pack_integer(format, rows, k, panel);
    }

    /// `out[i][j] (+)= Σ_k x[i][k] · panel[k · stride + j]` for `j < PANEL_ROWS`.
    fn float_tile(&self, panel: &[f32], stride: usize, x: FloatRows<'_>, out: TileOut<'_>) {
        portable::float_tile(panel, stride, x, out);
    }

    /// `out[i][j] (+)=` the product of quantized row `i` with the panel's row `j`.
    fn integer_tile(&self, panel: &IntegerPanel, x: IntegerRows<'_>, out: TileOut<'_>) {
        portable::integer_tile(panel, x, out);
    }

    /// x ← gelu(x), the tanh form.
    fn gelu(&self, x: &mut [f32]) {
        crate::vector::gelu(x);
    }

    /// gate ← gelu(gate) · up.
    fn gelu_multiply(&self, gate: &mut [f32], up: &[f32]) {
        crate::vector::gelu_multiply(gate, up);
    }

    /// x ← cap · tanh(x / cap).
    fn softcap(&self, x: &mut [f32], cap: f32) {
        crate::vector::softcap(x, cap);
    }

    /// x ← softmax(x).
    fn softmax(&self, x: &mut [f32]) {
        crate::vector::softmax(x);
    }

    /// out = x / sqrt(mean(x²) + epsilon) · weight.
    fn rms_norm(&self, x: &[f32], weight: &[f32], epsilon: f32, out: &mut [f32]) {
        crate::vector::rms_norm(x, weight, epsilon, out);
    }

    /// out = (x − mean) / sqrt(variance + epsilon) · weight + bias; `affine` is (weight, bias).
    fn layer_norm(&self, x: &[f32], affine: (&[f32], &[f32]), epsilon: f32, out: &mut [f32]) {
        crate::vector::layer_norm(x, affine, epsilon, out);
    }
}
