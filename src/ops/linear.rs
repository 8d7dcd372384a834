//! Products with weight matrices.

use gemmule_quant::activation::ACTIVATION_BLOCK;
use gemmule_quant::kernels::{FloatRows, IntegerRows, TileOut};
use gemmule_quant::{Kernels, MatrixView, PANEL_ROWS, QuantizedRows};

use super::{Compute, WorkerScratch};

/// From so many rows on, weights are unpacked into panels; below, they are multiplied as they lie.
const PANEL_FROM: usize = 8;

/// Longest stretch of a row that one panel holds (a multiple of every block length): panels stay in the second-level
/// cache.
const PANEL_DEPTH: usize = 4096;

/// The left-hand side of products: `rows × k` activations, quantized once for all products that share them.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    values: &'a [f32],
    quantized: Option<&'a QuantizedRows>,
    k: usize,
}

/// A reusable buffer of quantized activations.
#[derive(Debug, Default)]
pub struct InputBuffer(QuantizedRows);

impl InputBuffer {
    /// Prepares `values` (rows of `k`) for products; quantizes them where `integer` products will follow.
    pub fn prepare<'a>(&'a mut self, compute: &Compute, values: &'a [f32], k: usize, integer: bool) -> Input<'a> {
        let integer = integer && k.is_multiple_of(ACTIVATION_BLOCK);
        if integer {
            self.0.resize(values.len() / k, k);
            let rows = self.0.rows_mut();
            compute.pool.each(rows, |index, row| compute.kernels.quantize(&values[index * k..][..k], row));
        }
        Input { values, quantized: integer.then_some(&self.0), k }
    }
}

/// `out[i][j] = Σ_k input[i][k] · weight[j][k] (+ bias[j])`.
///
/// # Panics
/// When shapes do not fit, or a quantized weight meets an input that was not prepared for integer products.
pub fn linear(compute: &Compute, weight: MatrixView<'_>, bias: Option<&[f32]>, input: Input<'_>, out: &mut [f32]) {
    let (rows, columns) = (input.values.len() / input.k, weight.rows());
    assert!(weight.columns() == input.k && out.len() == rows * columns, "shapes of a product");
    assert!(bias.is_none_or(|bias| bias.len() == columns), "length of a bias");
    if rows < PANEL_FROM {
        // A few tasks per thread even out threads of different speed; whole tiles keep rows of weights together.
        let tasks = compute.pool.threads() * 4;
        let width = columns.div_ceil(tasks).next_multiple_of(PANEL_ROWS);
        compute.pool.blocks(out, columns, (rows, width), |_, mut block| {
            for column in block.columns() {
                let start = block.columns().start;
                for row in 0..rows {
                    let product = dot(compute.kernels, weight, column, input, row);
                    block.row_mut(row)[column - start] = product + bias.map_or(0.0, |bias| bias[column]);
                }
            }
        });
        return;
    }
    compute.pool.blocks(out, columns, (rows, PANEL_ROWS), |worker, mut block| {
        let scratch = &mut *compute.scratch.of(worker);
        panel_product(compute.kernels, weight, input, block.columns(), scratch);
        for row in 0..rows {
            let out = block.row_mut(row);
            out.copy_from_slice(&scratch.tile[row * PANEL_ROWS..][..out.len()]);
        }
        if let Some(bias) = bias {
            let columns = block.columns();
            for row in 0..rows {
                for (out, bias) in block.row_mut(row).iter_mut().zip(&bias[columns.clone()]) {
                    *out += bias;
                }
            }
        }
    });
}

fn dot(kernels: &dyn Kernels, weight: MatrixView<'_>, column: usize, input: Input<'_>, row: usize) -> f32 {
    if weight.format().info().integer {
        let quantized = input.quantized.expect("input prepared for integer products");
        kernels.dot_integer(weight.format(), weight.row(column), quantized.row(row))
    } else {
        kernels.dot_float(weight.format(), weight.row(column), &input.values[row * input.k..][..input.k])
    }
}

/// Multiplies all rows of the input with up to 16 rows of the weight; the result is in `scratch.tile`.
fn panel_product(
    kernels: &dyn Kernels,
    weight: MatrixView<'_>,
    input: Input<'_>,
    columns: std::ops::Range<usize>,
    scratch: &mut WorkerScratch,
) {
    let (k, rows) = (input.k, input.values.len() / input.k);
    scratch.tile.resize(rows * PANEL_ROWS, 0.0);
    for start in (0..k).step_by(PANEL_DEPTH) {
        let depth = PANEL_DEPTH.min(k - start);
        let mut parts = [&[][..]; PANEL_ROWS];
        for (part, column) in parts.iter_mut().zip(columns.clone()) {
            *part = weight.row_part(column, start, depth);
        }
        let parts = &parts[..columns.len()];
        let out = TileOut { values: &mut scratch.tile, stride: PANEL_ROWS, accumulate: start > 0 };
        if weight.format().info().integer {
            let quantized = input.quantized.expect("input prepared for integer products");
            kernels.pack_integer(weight.format(), parts, depth, &mut scratch.integer_panel);
            let rows = IntegerRows { values: quantized, first: 0, rows, column: start };
            kernels.integer_tile(&scratch.integer_panel, rows, out);
        } else {
            kernels.pack_float(weight.format(), parts, depth, &mut scratch.float_panel);
            let rows = FloatRows { values: &input.values[start..], stride: k, rows, k: depth };
            kernels.float_tile(&scratch.float_panel.values, PANEL_ROWS, rows, out);
        }
    }
}
