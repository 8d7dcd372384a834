//! Products with weight matrices: what is computed together, how it is divided, and what becomes of the results.

use gemmule_quant::matrix_unit::TILE_ROWS;
use gemmule_quant::{Kernels, MatrixView, PANEL_ROWS, prefetch_for_writing};

use super::Compute;
use super::input::Input;
use super::multiply::{PANEL_FROM, UNIT_ROWS, multiply, panels_at_once};
use crate::ops::WorkerScratch;
use crate::sched::{Block, Output};

/// Most columns of a task. They share the stretch of activations, which stays in the second-level cache.
const TASK_COLUMNS: usize = 8 * PANEL_ROWS;

/// As [`TASK_COLUMNS`] for a matrix unit: so fast that a task's activations must not come from farther away more often than
/// this.
const UNIT_COLUMNS: usize = 9 * UNIT_ROWS;

/// What a task costs beside its products, in columns: its activations are read anew.
const TASK_COST: usize = 10;

/// Most rows of activations in a task: with the depth of a panel this bounds what the second-level cache has to hold.
const TASK_ROWS: usize = 384;

/// How many rows before it is stored a row of the output is asked for: another core may have read or written it last.
const ROWS_AHEAD: usize = 4;

/// What becomes of a product before it is stored.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tail<'a> {
    /// Added to every row.
    pub bias: Option<&'a [f32]>,
    /// Then the tanh form of GELU is taken.
    pub gelu: bool,
    /// Then what lies in the output already is added.
    pub add: bool,
    /// Then values become `cap · tanh(value / cap)`.
    pub softcap: Option<f32>,
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
    let shape = task_shape(compute, rows, &parts.map(|(weight, _)| weight.rows()));
    let outputs = products.map(|product| Output::new(product.out, product.weight.rows()));
    compute.pool.blocks(outputs, shape, |worker, index, mut block| {
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
    let shape = task_shape(compute, rows, &[columns]);
    compute.pool.blocks([Output::new(out, columns)], shape, |worker, _, mut block| {
        let scratch = &mut *compute.scratch.of(worker);
        multiply(compute.kernels, gate, input, &block, scratch);
        std::mem::swap(&mut scratch.results, &mut scratch.gate);
        multiply(compute.kernels, up, input, &block, scratch);
        let WorkerScratch { results, gate, strips: [strip, other], .. } = scratch;
        let (rows, width) = (block.rows(), block.columns().len());
        for first in rows.clone().step_by(TILE_ROWS) {
            let (gate, stride) = gate.strip(compute.kernels, first - rows.start, strip);
            let (up, _) = results.strip(compute.kernels, first - rows.start, other);
            for (index, row) in (first..rows.end.min(first + TILE_ROWS)).enumerate() {
                ask_ahead(&mut block, row);
                let gate = &mut gate[index * stride..][..width];
                compute.kernels.gelu_multiply(gate, &up[index * stride..][..width]);
                block.row_mut(row).copy_from_slice(gate);
            }
        }
    });
}

/// Rows and columns of a task of products with so many columns each.
fn task_shape(compute: &Compute, rows: usize, columns: &[usize]) -> (usize, usize) {
    let threads = compute.pool.threads();
    if rows < PANEL_FROM {
        // A few tasks per thread even out threads of different speed.
        let columns: usize = columns.iter().sum();
        return (rows, columns.div_ceil(threads * 8).next_multiple_of(PANEL_ROWS));
    }
    let down = rows.div_ceil(TASK_ROWS);
    let height = rows.div_ceil(down).next_multiple_of(TILE_ROWS);
    let (step, most) = match compute.kernels.matrix_unit() {
        Some(_) => (UNIT_ROWS, UNIT_COLUMNS),
        None => (panels_at_once(compute.kernels) * PANEL_ROWS, TASK_COLUMNS),
    };
    // What the worker with the most tasks has to do, in columns.
    let longest = |width: usize| {
        let tasks: usize = columns.iter().map(|columns| down * columns.div_ceil(width)).sum();
        tasks.div_ceil(threads) * (width + TASK_COST)
    };
    let widths = (1..=most / step).rev().map(|steps| steps * step);
    let width = widths.min_by_key(|&width| longest(width)).expect("some width");
    (height, width)
}

/// Asks for the memory of a row of the output that is stored some rows after `row`.
fn ask_ahead(block: &mut Block<'_>, row: usize) {
    let row = row + ROWS_AHEAD;
    if row < block.rows().end {
        prefetch_for_writing(block.row_mut(row));
    }
}

/// Applies the tail to the results and stores them.
fn finish(kernels: &dyn Kernels, block: &mut Block<'_>, scratch: &mut WorkerScratch, tail: Tail<'_>) {
    let (rows, columns) = (block.rows(), block.columns());
    for first in rows.clone().step_by(TILE_ROWS) {
        let (strip, stride) = scratch.results.strip(kernels, first - rows.start, &mut scratch.strips[0]);
        for (index, row) in (first..rows.end.min(first + TILE_ROWS)).enumerate() {
            ask_ahead(block, row);
            let result = &mut strip[index * stride..][..columns.len()];
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
            if let Some(cap) = tail.softcap {
                kernels.softcap(out, cap);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use gemmule_quant::{Format, isa};

    use super::super::input::{InputBuffer, Needs};
    use super::*;

    const K: usize = 768;

    fn wave(count: usize, step: f32) -> Vec<f32> {
        (0..count).map(|i| (i as f32 * step).sin() * (1.0 + (i % 7) as f32)).collect()
    }

    fn norm(values: &[f32]) -> f32 {
        values.iter().map(|x| x * x).sum::<f32>().sqrt()
    }

    /// A product and a gated one of the first `rows` of the values.
    fn products(compute: &Compute, values: &[f32], rows: usize, weight: MatrixView<'_>) -> [Vec<f32>; 2] {
        let mut buffer = InputBuffer::default();
        let input = buffer.prepare(compute, &values[..rows * K], K, Needs::of([weight.format()]));
        let [mut plain, mut both] = [const { Vec::new() }; 2].map(|mut out: Vec<f32>| {
            out.resize(rows * weight.rows(), 0.0);
            out
        });
        linear(compute, input, [Product { weight, tail: Tail::default(), out: &mut plain }]);
        gated(compute, input, (weight, weight), &mut both);
        [plain, both]
    }

    /// More rows than a portion and than a task, two stretches of the depth, and columns that fill no panel: the same bits for
    /// any number of threads and whatever rows come behind, and what a row alone gives.
    #[test]
    fn products_do_not_depend_on_their_division() {
        for isa in isa::available() {
            let [one, three] = [1, 3].map(|threads| Compute::new(Some(isa.name()), threads).unwrap());
            for format in [Format::F32, Format::Q4_0, Format::Q4K, Format::Q6K, Format::Q8_0] {
                for (rows, columns) in [(8, 17), (98, 130), (390, 48)] {
                    let what = format!("{isa}: {format}, {rows} × {columns}");
                    let mut bytes = vec![0; columns * format.row_bytes(K).unwrap()];
                    let weights = wave(columns * K, 0.37);
                    for (values, row) in weights.chunks(K).zip(bytes.chunks_exact_mut(format.row_bytes(K).unwrap())) {
                        one.kernels.encode_row(format, values, row).unwrap();
                    }
                    let weight = MatrixView::new(format, columns, K, &bytes).unwrap();
                    let values = wave(rows * K, 1.13);
                    let all = products(&one, &values, rows, weight);
                    assert_eq!(products(&three, &values, rows, weight), all, "{what}: three threads");
                    let fewer = rows.max(9) - 1;
                    for (fewer, all) in products(&one, &values, fewer, weight).iter().zip(&all).take(rows - fewer) {
                        assert_eq!(fewer[..], all[..fewer.len()], "{what}: without the last row");
                    }
                    for row in [0, 7, rows / 2, rows - 1] {
                        let [alone, _] = products(&one, &values[row * K..], 1, weight);
                        // What a sum of random signs would be.
                        let size = norm(&values[row * K..][..K]) * norm(&weights[..K]) / (K as f32).sqrt();
                        let tolerance = if format == Format::F32 { 1e-5 } else { 2e-2 };
                        for (got, expected) in all[0][row * columns..].iter().zip(&alone) {
                            let error = (got - expected).abs();
                            assert!(error <= tolerance * size, "{what}, row {row}: {got} instead of {expected}");
                        }
                    }
                }
            }
        }
    }
}
