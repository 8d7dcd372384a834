//! Products with weight matrices: what is computed together, how it is divided, and what becomes of the results.

use gemmule_quant::matrix_unit::{Operand, Pieces, TILE_DEPTH, TILE_ROWS};
use gemmule_quant::{Kernels, MatrixUnit, MatrixView, PANEL_ROWS, prefetch_for_writing};

use super::Compute;
use super::input::{Hidden, Input, Needs};
use super::multiply::{Area, UNIT_ROWS, multiply, panels_at_once};
use crate::ops::WorkerScratch;
use crate::sched::{Block, Output};

/// Most columns of a task. They share a K block of the activations, which stays in the second-level cache.
const TASK_COLUMNS: usize = 8 * PANEL_ROWS;

/// As [`TASK_COLUMNS`] for a matrix unit: so fast that a task's activations must not come from farther away more often than
/// this.
const UNIT_COLUMNS: usize = 9 * UNIT_ROWS;

/// What a task costs beside its products, in columns: its activations are read anew.
const TASK_COST: usize = 10;

/// Most rows of activations in a task: with the depth of a panel this bounds what the second-level cache has to hold.
const TASK_ROWS: usize = 384;

/// A row of the output is prefetched so many rows before it is stored: another core may have read or written it last.
const ROWS_AHEAD: usize = 4;

/// What becomes of a product before it is stored.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Epilogue<'a> {
    /// Added to every row.
    pub bias: Option<&'a [f32]>,
    /// Then the tanh form of GELU is taken.
    pub gelu: bool,
    /// Then what lies in the output already is added.
    pub add: bool,
    /// Then values become `cap · tanh(value / cap)`.
    pub softcap: Option<f32>,
}

/// One of several products of the same input: `out[i][j] = epilogue(Σ_k input[i][k] · weight[j][k])`.
#[derive(Debug)]
pub(crate) struct Product<'a> {
    /// `[columns of out][k]`.
    pub weight: MatrixView<'a>,
    /// The end of the computation.
    pub epilogue: Epilogue<'a>,
    /// `[rows of the input][rows of the weight]`.
    pub out: &'a mut [f32],
}

/// Several products of one input, in one parallel region.
///
/// # Panics
/// When shapes do not fit, or a quantized weight meets an input that was not prepared for integer products.
pub(crate) fn linear<const N: usize>(compute: &Compute, input: Input<'_>, products: [Product<'_>; N]) {
    let rows = input.rows;
    let parts = products.each_ref().map(|product| (product.weight, product.epilogue));
    for product in &products {
        let Product { weight, epilogue, out } = product;
        assert!(weight.columns() == input.k && out.len() == rows * weight.rows(), "shapes of a product");
        assert!(epilogue.bias.is_none_or(|bias| bias.len() == weight.rows()), "length of a bias");
    }
    let division = Division::new(compute, input, &parts.map(|(weight, _)| weight.rows()));
    let outputs = products.map(|product| division.output(product.out, product.weight.rows(), 1));
    compute.pool.blocks(outputs, division.height, |worker, index, mut block| {
        let (weight, epilogue) = parts[index];
        let scratch = &mut *compute.scratch.of(worker);
        multiply(compute.kernels, weight, input, &Area::of(&block), scratch);
        finish(compute.kernels, &mut block, scratch, epilogue);
    });
}

/// `gelu(input · gateᵀ) · (input · upᵀ)`, the first half of a gated MLP, for a product that needs `needs`.
///
/// # Panics
/// As [`linear`].
pub(crate) fn gated<'a>(
    compute: &Compute,
    input: Input<'_>,
    gate: MatrixView<'_>,
    up: MatrixView<'_>,
    hidden: &'a mut Hidden,
    needs: Needs,
) -> Input<'a> {
    let (rows, inner) = (input.rows, gate.rows());
    assert!(gate.columns() == input.k && up.columns() == input.k && up.rows() == inner, "shapes of a gated product");
    let multiply_both = |scratch: &mut WorkerScratch, area: &Area| {
        multiply(compute.kernels, up, input, area, scratch);
        std::mem::swap(&mut scratch.results, &mut scratch.up);
        multiply(compute.kernels, gate, input, area, scratch);
    };
    if let Some((unit, tiles)) = hidden.tiles(compute, rows, inner, needs) {
        fill_tiles(compute, unit, Area { rows: 0..rows, columns: 0..inner }, tiles, |scratch, area| {
            multiply_both(scratch, area);
            for column in 0..area.columns.len() {
                compute.kernels.gelu_multiply(scratch.results.line(column), scratch.up.line(column));
            }
        });
        return hidden.input_of_tiles(rows, inner);
    }
    let division = Division::new(compute, input, &[inner]);
    let outputs = [division.output(hidden.values(rows * inner), inner, 1)];
    compute.pool.blocks(outputs, division.height, |worker, _, mut block| {
        let scratch = &mut *compute.scratch.of(worker);
        multiply_both(scratch, &Area::of(&block));
        let WorkerScratch { results: gate, up, strips: [strip, other], .. } = scratch;
        let (rows, width) = (block.rows(), block.columns().len());
        for first in rows.clone().step_by(TILE_ROWS) {
            let (gate, stride) = gate.strip(compute.kernels, first - rows.start, strip);
            let (up, _) = up.strip(compute.kernels, first - rows.start, other);
            for (index, row) in (first..rows.end.min(first + TILE_ROWS)).enumerate() {
                prefetch_ahead(&mut block, row, ROWS_AHEAD);
                let gate = &mut gate[index * stride..][..width];
                compute.kernels.gelu_multiply(gate, &up[index * stride..][..width]);
                block.row_mut(row).copy_from_slice(gate);
            }
        }
    });
    hidden.input_of_values(compute, rows, inner, needs)
}

/// `gelu(input · weightᵀ + bias)`, the first half of an MLP, for a product that needs `needs`.
///
/// # Panics
/// As [`linear`].
pub(crate) fn activated<'a>(
    compute: &Compute,
    input: Input<'_>,
    weight: MatrixView<'_>,
    bias: &[f32],
    hidden: &'a mut Hidden,
    needs: Needs,
) -> Input<'a> {
    let (rows, inner) = (input.rows, weight.rows());
    assert!(weight.columns() == input.k && bias.len() == inner, "shapes of an activated product");
    if let Some((unit, tiles)) = hidden.tiles(compute, rows, inner, needs) {
        fill_tiles(compute, unit, Area { rows: 0..rows, columns: 0..inner }, tiles, |scratch, area| {
            multiply(compute.kernels, weight, input, area, scratch);
            for (column, bias) in bias[area.columns.clone()].iter().enumerate() {
                let line = scratch.results.line(column);
                line.iter_mut().for_each(|value| *value += bias);
                compute.kernels.gelu(line);
            }
        });
        return hidden.input_of_tiles(rows, inner);
    }
    let epilogue = Epilogue { bias: Some(bias), gelu: true, ..Epilogue::default() };
    linear(compute, input, [Product { weight, epilogue, out: hidden.values(rows * inner) }]);
    hidden.input_of_values(compute, rows, inner, needs)
}

/// Fills tiles with what `compute_block(scratch, area)` leaves in a worker's results for parts of the `whole` output, so that it neither
/// is transposed nor goes through memory once more.
fn fill_tiles(
    compute: &Compute,
    unit: MatrixUnit,
    whole: Area,
    tiles: &mut Operand,
    compute_block: impl Fn(&mut WorkerScratch, &Area) + Sync,
) {
    let (rows, columns) = (whole.rows.len(), whole.columns.len());
    const { assert!(UNIT_ROWS.is_multiple_of(TILE_DEPTH), "tasks are whole tiles wide") };
    let division = Division::of_panels(compute, rows, &[columns]);
    let (tiles, strip_len) = tiles.tiles_mut();
    assert_eq!(strip_len, columns.div_ceil(TILE_DEPTH), "tiles of one piece");
    let outputs = [division.output(tiles, columns, TILE_DEPTH)];
    compute.pool.blocks(outputs, division.height / TILE_ROWS, |worker, _, mut block| {
        let scratch = &mut *compute.scratch.of(worker);
        let (strips, steps) = (block.rows(), block.columns());
        let area = Area {
            rows: strips.start * TILE_ROWS..rows.min(strips.end * TILE_ROWS),
            columns: steps.start * TILE_DEPTH..columns.min(steps.end * TILE_DEPTH),
        };
        compute_block(scratch, &area);
        for strip in strips {
            prefetch_ahead(&mut block, strip, 1);
            let first = strip * TILE_ROWS - area.rows.start;
            let lines = scratch.results.lines(first, TILE_ROWS.min(area.rows.len() - first));
            unit.pack_right_columns(lines, Pieces::One, block.row_mut(strip));
        }
    });
}

/// How products are divided into tasks.
struct Division {
    /// Most rows of a task.
    height: usize,
    /// As many tasks share the columns evenly as would each have so many.
    width: usize,
    /// Tasks begin at multiples of so many columns.
    step: usize,
}

impl Division {
    /// That of products with so many columns each.
    fn new(compute: &Compute, input: Input<'_>, columns: &[usize]) -> Self {
        if !input.row_dots {
            return Self::of_panels(compute, input.rows, columns);
        }
        // A few tasks per thread even out threads of different speed.
        let width = columns.iter().sum::<usize>().div_ceil(compute.pool.threads() * 8).next_multiple_of(PANEL_ROWS);
        Self { height: input.rows, width, step: PANEL_ROWS }
    }

    /// That of panel products, or of a matrix unit's.
    fn of_panels(compute: &Compute, rows: usize, columns: &[usize]) -> Self {
        let threads = compute.pool.threads();
        let total: usize = columns.iter().sum();
        let down = rows.div_ceil(TASK_ROWS);
        let height = rows.div_ceil(down).next_multiple_of(TILE_ROWS);
        let (step, most) = match compute.kernels.matrix_unit() {
            Some(_) => (UNIT_ROWS, UNIT_COLUMNS),
            None => (panels_at_once(compute.kernels) * PANEL_ROWS, TASK_COLUMNS),
        };
        // What the worker with the most tasks has to do, in columns.
        let longest = |width: usize| {
            let tasks: usize = columns.iter().map(|columns| down * columns.div_ceil(width)).sum();
            tasks.div_ceil(threads) * (down * total + tasks * TASK_COST) / tasks
        };
        let width = (step..=most).rev().step_by(PANEL_ROWS).min_by_key(|&width| longest(width)).expect("some width");
        Self { height, width, step }
    }

    /// An output of so many columns, divided into tasks; its own columns are `unit` of these.
    fn output<'a, T>(&self, values: &'a mut [T], columns: usize, unit: usize) -> Output<'a, T> {
        Output::new(values, columns.div_ceil(unit)).divided(columns.div_ceil(self.width), self.step / unit)
    }
}

/// Prefetches the row of the output that lies so many rows after `row`.
fn prefetch_ahead<T>(block: &mut Block<'_, T>, row: usize, ahead: usize) {
    let row = row + ahead;
    if row < block.rows().end {
        prefetch_for_writing(block.row_mut(row));
    }
}

/// Applies the epilogue to the results and stores them.
fn finish(kernels: Kernels, block: &mut Block<'_, f32>, scratch: &mut WorkerScratch, epilogue: Epilogue<'_>) {
    let (rows, columns) = (block.rows(), block.columns());
    for first in rows.clone().step_by(TILE_ROWS) {
        let (strip, stride) = scratch.results.strip(kernels, first - rows.start, &mut scratch.strips[0]);
        for (index, row) in (first..rows.end.min(first + TILE_ROWS)).enumerate() {
            prefetch_ahead(block, row, ROWS_AHEAD);
            let result = &mut strip[index * stride..][..columns.len()];
            if let Some(bias) = epilogue.bias {
                kernels.add(result, &bias[columns.clone()]);
            }
            if epilogue.gelu {
                kernels.gelu(result);
            }
            let out = block.row_mut(row);
            if epilogue.add {
                kernels.add(out, result);
            } else {
                out.copy_from_slice(result);
            }
            if let Some(cap) = epilogue.softcap {
                kernels.softcap(out, cap);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use gemmule_quant::{Format, isa};

    use super::super::input::{InputBuffer, MOST_GENERATED, Needs, PANEL_FROM};
    use super::*;

    const K: usize = 768;

    fn wave(count: usize, step: f32) -> Vec<f32> {
        (0..count).map(|i| (i as f32 * step).sin() * (1.0 + (i % 7) as f32)).collect()
    }

    fn norm(values: &[f32]) -> f32 {
        values.iter().map(|x| x * x).sum::<f32>().sqrt()
    }

    /// The first `rows` of the values times `weight`, and through MLPs of either kind with `inner` before it.
    fn products(
        compute: &Compute,
        values: &[f32],
        rows: usize,
        weight: MatrixView<'_>,
        inner: MatrixView<'_>,
    ) -> [Vec<f32>; 3] {
        let (mut buffer, mut hidden) = (InputBuffer::default(), Hidden::default());
        let needs = Needs::of([weight.format()]);
        let input = buffer.prepare(compute, &values[..rows * K], K, needs);
        let finish = |input: Input<'_>| {
            let mut out = vec![f32::NAN; rows * weight.rows()];
            linear(compute, input, [Product { weight, epilogue: Epilogue::default(), out: &mut out }]);
            out
        };
        let plain = finish(input);
        let gated = finish(gated(compute, input, inner, inner, &mut hidden, needs));
        let bias = wave(K, 0.5);
        [plain, gated, finish(activated(compute, input, inner, &bias, &mut hidden, needs))]
    }

    /// More rows than a portion and than a task, two K blocks, and columns that fill no panel: the same bits for
    /// any number of threads and whatever rows come behind, and what a row alone gives.
    #[test]
    fn products_do_not_depend_on_their_division() {
        for isa in isa::available() {
            let [one, three] = [1, 3].map(|threads| Compute::new(Some(isa.name()), threads).unwrap());
            for format in [Format::F32, Format::Q4_0, Format::Q4K, Format::Q6K, Format::Q8_0] {
                for (rows, columns) in [(8, 17), (98, 130), (390, 48)] {
                    let what = format!("{isa}: {format}, {rows} × {columns}");
                    let mut bytes = vec![0; K * format.row_bytes(K).unwrap()];
                    let weights = wave(K * K, 0.37);
                    for (values, row) in weights.chunks(K).zip(bytes.chunks_exact_mut(format.row_bytes(K).unwrap())) {
                        one.kernels.encode_row(format, values, row).unwrap();
                    }
                    let inner = MatrixView::new(format, K, K, &bytes).unwrap();
                    let bytes = &bytes[..columns * format.row_bytes(K).unwrap()];
                    let weight = MatrixView::new(format, columns, K, bytes).unwrap();
                    let values = wave(rows * K, 1.13);
                    let all = products(&one, &values, rows, weight, inner);
                    assert_eq!(products(&three, &values, rows, weight, inner), all, "{what}: three threads");
                    let fewer = rows.max(PANEL_FROM + 1) - 1;
                    for (fewer, all) in products(&one, &values, fewer, weight, inner).iter().zip(&all) {
                        assert_eq!(fewer[..], all[..fewer.len()], "{what}: without the last row");
                    }
                    for row in [0, 7, rows / 2, rows - 1] {
                        let [alone, ..] = products(&one, &values[row * K..], 1, weight, inner);
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

    /// Rows of generated tokens, however many, have each the bits that it has alone, in rows of weights that fill more than a
    /// part of the cache and in few.
    #[test]
    fn generated_rows_do_not_depend_on_each_other() {
        const COLUMNS: usize = 203;
        for isa in isa::available() {
            let [one, three] = [1, 3].map(|threads| Compute::new(Some(isa.name()), threads).unwrap());
            for format in [Format::F32, Format::BF16, Format::Q4_0, Format::Q8_0, Format::Q4K, Format::Q5K, Format::Q6K]
            {
                let row_bytes = format.row_bytes(K).unwrap();
                let mut bytes = vec![0; COLUMNS * row_bytes];
                for (values, row) in wave(COLUMNS * K, 0.37).chunks(K).zip(bytes.chunks_exact_mut(row_bytes)) {
                    one.kernels.encode_row(format, values, row).unwrap();
                }
                let weight = MatrixView::new(format, COLUMNS, K, &bytes).unwrap();
                let values = wave(MOST_GENERATED * K, 1.13);
                let multiply = |compute: &Compute, values: &[f32]| {
                    let mut buffer = InputBuffer::default();
                    let input = buffer.prepare(compute, values, K, Needs::of([format]).of_generated());
                    let mut out = vec![f32::NAN; values.len() / K * COLUMNS];
                    linear(compute, input, [Product { weight, epilogue: Epilogue::default(), out: &mut out }]);
                    out
                };
                let alone: Vec<f32> = values.chunks_exact(K).flat_map(|row| multiply(&one, row)).collect();
                for rows in 1..=MOST_GENERATED {
                    for compute in [&one, &three] {
                        let together = multiply(compute, &values[..rows * K]);
                        assert_eq!(together, alone[..rows * COLUMNS], "{isa}: {format}, {rows} rows");
                    }
                }
            }
        }
    }
}
