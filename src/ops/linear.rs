//! Products with weight matrices.

use std::ops::Range;

use gemmule_quant::activation::ACTIVATION_BLOCK;
use gemmule_quant::kernels::{FloatRows, IntegerRows, TileOut};
use gemmule_quant::{Kernels, MatrixView, PANEL_ROWS, QuantizedRow, QuantizedRows};

use super::{Compute, WorkerScratch};
use crate::sched::{Block, Output};

/// From so many rows on, weights are unpacked into panels; below, they are multiplied as they lie.
const PANEL_FROM: usize = 8;

/// Longest stretch of a row that one panel holds (a multiple of every block length): a panel of it stays in the first-level
/// cache.
const PANEL_DEPTH: usize = 512;

/// Most panels that a task unpacks at once. They share the stretch of activations, which stays in the second-level cache.
const PANELS: usize = 4;

/// Most rows of activations in a task; with [`PANEL_DEPTH`] this bounds what the second-level cache has to hold.
const TASK_ROWS: usize = 384;

/// The left-hand side of products: `rows × k` activations, quantized once for all products that share them.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    values: &'a [f32],
    quantized: Option<&'a QuantizedRows>,
    k: usize,
}

impl<'a> Input<'a> {
    fn rows(&self) -> usize {
        self.values.len() / self.k
    }

    fn quantized(&self) -> &'a QuantizedRows {
        self.quantized.expect("input prepared for integer products")
    }
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
            let rows = values.chunks_exact(k).zip(self.0.rows_mut());
            compute.pool.each(rows, |_, (values, row)| compute.kernels.quantize(values, row));
        }
        Input { values, quantized: integer.then_some(&self.0), k }
    }

    /// As [`prepare`](Self::prepare), where `fill(row, values)` first computes each row of `values`.
    pub fn prepare_with<'a>(
        &'a mut self,
        compute: &Compute,
        (values, k): (&'a mut [f32], usize),
        integer: bool,
        fill: impl Fn(usize, &mut [f32]) + Sync + Send,
    ) -> Input<'a> {
        let integer = integer && k.is_multiple_of(ACTIVATION_BLOCK);
        if integer {
            self.0.resize(values.len() / k, k);
            let rows = values.chunks_exact_mut(k).zip(self.0.rows_mut());
            compute.pool.each(rows, |index, (values, row)| {
                fill(index, values);
                compute.kernels.quantize(values, row);
            });
        } else {
            compute.pool.rows(values, k, fill);
        }
        Input { values, quantized: integer.then_some(&self.0), k }
    }
}

/// What becomes of a product before it is stored.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tail<'a> {
    /// Added to every row.
    pub bias: Option<&'a [f32]>,
    /// Then the tanh form of GELU is taken.
    pub gelu: bool,
    /// Then what lies in the output already is added.
    pub add: bool,
}

/// One of several products of the same input: `out[i][j] = tail(Σ_k input[i][k] · weight[j][k])`.
#[derive(Debug)]
pub struct Product<'a> {
    /// `[columns of out][k]`.
    pub weight: MatrixView<'a>,
    /// The end of the computation.
    pub tail: Tail<'a>,
    /// `[rows of the input][rows of the weight]`.
    pub out: &'a mut [f32],
}

/// Several products of one input, in one parallel region.
///
/// # Panics
/// When shapes do not fit, or a quantized weight meets an input that was not prepared for integer products.
pub fn linear<const N: usize>(compute: &Compute, input: Input<'_>, products: [Product<'_>; N]) {
    let rows = input.rows();
    let parts = products.each_ref().map(|product| (product.weight, product.tail));
    for product in &products {
        let Product { weight, tail, out } = product;
        assert!(weight.columns() == input.k && out.len() == rows * weight.rows(), "shapes of a product");
        assert!(tail.bias.is_none_or(|bias| bias.len() == weight.rows()), "length of a bias");
    }
    let columns: usize = parts.iter().map(|(weight, _)| weight.rows()).sum();
    let outputs = products.map(|product| Output::new(product.out, product.weight.rows()));
    compute.pool.blocks(outputs, task_shape(compute, rows, columns), |worker, index, mut block| {
        let (weight, tail) = parts[index];
        let scratch = &mut *compute.scratch.of(worker);
        multiply(compute.kernels, weight, input, &block, scratch);
        finish(compute.kernels, &mut block, scratch, tail);
    });
}

/// `out = gelu(input · gateᵀ) · (input · upᵀ)`, the first half of a gated MLP.
///
/// # Panics
/// As [`linear`].
pub fn gated(compute: &Compute, input: Input<'_>, (gate, up): (MatrixView<'_>, MatrixView<'_>), out: &mut [f32]) {
    let (rows, columns) = (input.rows(), gate.rows());
    assert!(gate.columns() == input.k && up.columns() == input.k && up.rows() == columns, "shapes of a gated product");
    assert!(out.len() == rows * columns, "shape of a gated product's output");
    compute.pool.blocks([Output::new(out, columns)], task_shape(compute, rows, columns), |worker, _, mut block| {
        let scratch = &mut *compute.scratch.of(worker);
        multiply(compute.kernels, gate, input, &block, scratch);
        std::mem::swap(&mut scratch.tile, &mut scratch.gate);
        multiply(compute.kernels, up, input, &block, scratch);
        let stride = scratch.stride;
        let width = block.columns().len();
        for (index, row) in block.rows().enumerate() {
            let gate = &mut scratch.gate[index * stride..][..width];
            compute.kernels.gelu_multiply(gate, &scratch.tile[index * stride..][..width]);
            block.row_mut(row).copy_from_slice(gate);
        }
    });
}

/// Rows and columns of a task.
fn task_shape(compute: &Compute, rows: usize, columns: usize) -> (usize, usize) {
    let threads = compute.pool.threads();
    if rows < PANEL_FROM {
        // A few tasks per thread even out threads of different speed.
        return (rows, columns.div_ceil(threads * 8).next_multiple_of(PANEL_ROWS));
    }
    let height = rows.div_ceil(rows.div_ceil(TASK_ROWS));
    let panels = columns.div_ceil(PANEL_ROWS * threads * 4).clamp(1, PANELS);
    (height, panels * PANEL_ROWS)
}

/// Multiplies a block's rows of the input with its rows of the weight; `scratch.tile` then holds the results, rows
/// `scratch.stride` apart.
fn multiply(
    kernels: &dyn Kernels,
    weight: MatrixView<'_>,
    input: Input<'_>,
    block: &Block<'_>,
    scratch: &mut WorkerScratch,
) {
    if input.rows() < PANEL_FROM {
        row_product(kernels, weight, input, block.columns(), scratch);
    } else {
        panel_product(kernels, weight, input, (block.rows(), block.columns()), scratch);
    }
}

/// A few rows: every row of the weight is read once and multiplied with all of them.
fn row_product(
    kernels: &dyn Kernels,
    weight: MatrixView<'_>,
    input: Input<'_>,
    columns: Range<usize>,
    scratch: &mut WorkerScratch,
) {
    let rows = input.rows();
    scratch.stride = columns.len();
    scratch.tile.resize(rows * columns.len(), 0.0);
    if weight.format().info().integer {
        let quantized = input.quantized();
        let mut x = [quantized.row(0); PANEL_FROM];
        for (row, x) in x[..rows].iter_mut().enumerate() {
            *x = quantized.row(row);
        }
        let x: &[QuantizedRow<'_>] = &x[..rows];
        kernels.dot_integer(weight, columns, x, &mut scratch.tile);
        return;
    }
    for (index, column) in columns.clone().enumerate() {
        for (row, values) in input.values.chunks_exact(input.k).enumerate() {
            scratch.tile[row * columns.len() + index] = kernels.dot_float(weight.format(), weight.row(column), values);
        }
    }
}

/// Many rows: a stretch of the weight's rows is unpacked into panels, which all rows of the input are multiplied with
/// before the next stretch.
fn panel_product(
    kernels: &dyn Kernels,
    weight: MatrixView<'_>,
    input: Input<'_>,
    (rows, columns): (Range<usize>, Range<usize>),
    scratch: &mut WorkerScratch,
) {
    let k = input.k;
    let stride = columns.len().next_multiple_of(PANEL_ROWS);
    scratch.stride = stride;
    scratch.tile.resize(rows.len() * stride, 0.0);
    let integer = weight.format().info().integer;
    for start in (0..k).step_by(PANEL_DEPTH) {
        let depth = PANEL_DEPTH.min(k - start);
        for (panel, first) in columns.clone().step_by(PANEL_ROWS).enumerate() {
            let width = PANEL_ROWS.min(columns.end - first);
            let mut parts = [&[][..]; PANEL_ROWS];
            for (part, column) in parts.iter_mut().zip(first..first + width) {
                *part = weight.row_part(column, start, depth);
            }
            let values = &mut scratch.tile[panel * PANEL_ROWS..];
            let out = TileOut { values, stride, accumulate: start > 0 };
            if integer {
                kernels.pack_integer(weight.format(), &parts[..width], depth, &mut scratch.integer_panel);
                let x = IntegerRows { values: input.quantized(), first: rows.start, rows: rows.len(), column: start };
                kernels.integer_tile(&scratch.integer_panel, x, out);
            } else {
                kernels.pack_float(weight.format(), &parts[..width], depth, &mut scratch.float_panel);
                let values = &input.values[rows.start * k + start..];
                let x = FloatRows { values, stride: k, rows: rows.len(), k: depth };
                kernels.float_tile(&scratch.float_panel.values, PANEL_ROWS, x, out);
            }
        }
    }
}

/// Applies the tail to the results and stores them.
fn finish(kernels: &dyn Kernels, block: &mut Block<'_>, scratch: &mut WorkerScratch, tail: Tail<'_>) {
    let columns = block.columns();
    for (index, row) in block.rows().enumerate() {
        let result = &mut scratch.tile[index * scratch.stride..][..columns.len()];
        if let Some(bias) = tail.bias {
            super::norm::add(result, &bias[columns.clone()]);
        }
        if tail.gelu {
            kernels.gelu(result);
        }
        let out = block.row_mut(row);
        if tail.add {
            super::norm::add(out, result);
        } else {
            out.copy_from_slice(result);
        }
    }
}
