//! A task's product: a few rows as they lie, many rows in panels or in a matrix unit.

use std::ops::Range;

use gemmule_quant::kernels::{FloatRows, IntegerRows, TileOut};
use gemmule_quant::matrix_unit::{Operand, Pieces, TILE_ROWS};
use gemmule_quant::{Kernels, MatrixUnit, MatrixView, PANEL_ROWS, QuantizedRow, prefetch};

use super::input::{Input, MOST_GENERATED, Prepared};
use super::scratch::{MOST_PANELS, WorkerScratch};
use crate::sched::Block;

/// Values of a row in a K block (a multiple of every format's block length): a panel of so many, or the two panels that are multiplied
/// at once, stay in the first-level cache.
const PANEL_DEPTH: usize = 512;

/// Rows of activations that are multiplied between two prefetches of weights (a multiple of every register tile's rows): prefetched
/// all at once, the weights would delay the product's own loads.
const PREFETCH_ROWS: usize = 96;

/// Weight rows that a matrix unit multiplies at once: two strips.
pub(super) const UNIT_ROWS: usize = 2 * TILE_ROWS;

/// A part of an output: rows of the input, and rows of the weight, which are columns of the output.
#[derive(Clone, Debug)]
pub(super) struct Area {
    /// Rows of the output.
    pub(super) rows: Range<usize>,
    /// Columns of the output.
    pub(super) columns: Range<usize>,
}

impl Area {
    /// The place of a task's block.
    pub(super) fn of<T>(block: &Block<'_, T>) -> Self {
        Self { rows: block.rows(), columns: block.columns() }
    }
}

/// A K block of up to `ROWS` rows of weights.
struct Part<'a, const ROWS: usize> {
    /// The first row.
    first: usize,
    /// Where in the rows the K block begins.
    start: usize,
    /// Its values in a row.
    depth: usize,
    bytes: [&'a [u8]; ROWS],
    rows: usize,
}

impl<'a, const ROWS: usize> Part<'a, ROWS> {
    /// The parts of `columns` rows of weights, `most` at once: all rows of a K block, then those of the next.
    fn all(weight: MatrixView<'a>, columns: &Range<usize>, most: usize) -> impl Iterator<Item = Self> {
        let (columns, k) = (columns.clone(), weight.columns());
        (0..k).step_by(PANEL_DEPTH).flat_map(move |start| {
            let depth = PANEL_DEPTH.min(k - start);
            columns.clone().step_by(most).map(move |first| {
                let rows = most.min(columns.end - first);
                let mut bytes = [&[][..]; ROWS];
                for (bytes, row) in bytes.iter_mut().zip(first..first + rows) {
                    *bytes = weight.row_part(row, start, depth);
                }
                Self { first, start, depth, bytes, rows }
            })
        })
    }

    fn bytes(&self) -> &[&'a [u8]] {
        &self.bytes[..self.rows]
    }

    /// Prefetches a part of its rows.
    fn prefetch(&self, part: usize, parts: usize) {
        let rows = self.rows * part / parts..self.rows * (part + 1) / parts;
        self.bytes[rows].iter().for_each(|bytes| prefetch(bytes));
    }
}

/// Multiplies rows of the input with rows of the weight into `scratch.results`.
pub(super) fn multiply(
    kernels: Kernels,
    weight: MatrixView<'_>,
    input: Input<'_>,
    area: &Area,
    scratch: &mut WorkerScratch,
) {
    if let (Prepared::Tiles(tiles), Some(unit)) = (input.prepared, kernels.matrix_unit()) {
        unit_product(unit, weight, tiles, area, scratch);
    } else if input.row_dots {
        row_product(kernels, weight, input, area.columns.clone(), scratch);
    } else {
        panel_product(kernels, weight, input, area, scratch);
    }
}

/// How many panels are unpacked and multiplied together.
pub(super) fn panels_at_once(kernels: Kernels) -> usize {
    kernels.integer_panels().min(MOST_PANELS)
}

/// A few rows: every row of the weight is multiplied as it lies, a quantized one with all while it is read once.
fn row_product(
    kernels: Kernels,
    weight: MatrixView<'_>,
    input: Input<'_>,
    columns: Range<usize>,
    scratch: &mut WorkerScratch,
) {
    let rows = input.rows;
    scratch.results.resize(rows, columns.len(), false);
    let results = &mut scratch.results.values;
    if weight.format().info().integer {
        let quantized = input.quantized();
        let mut x = [quantized.row(0); MOST_GENERATED];
        for (row, x) in x[..rows].iter_mut().enumerate() {
            *x = quantized.row(row);
        }
        let x: &[QuantizedRow<'_>] = &x[..rows];
        kernels.dot_integer(weight, columns, x, results);
        return;
    }
    let weight = weight.strided_rows(columns).expect("not quantized");
    for (values, results) in input.values.chunks_exact(input.k).zip(results.chunks_exact_mut(weight.rows())) {
        kernels.dot_float(weight, values, results);
    }
}

/// Many rows: a K block of the weight's rows is unpacked into panels, which all rows of the input are multiplied with before the
/// next.
fn panel_product(kernels: Kernels, weight: MatrixView<'_>, input: Input<'_>, area: &Area, scratch: &mut WorkerScratch) {
    let (Area { rows, columns }, k) = (area, input.k);
    let stride = columns.len().next_multiple_of(PANEL_ROWS);
    scratch.results.resize(rows.len(), stride, false);
    let integer = weight.format().info().integer;
    let WorkerScratch { integer_panels, float_panel, results, .. } = scratch;
    let panels = if integer { panels_at_once(kernels) } else { 1 };
    let mut all = Part::<{ MOST_PANELS * PANEL_ROWS }>::all(weight, columns, panels * PANEL_ROWS).peekable();
    while let Some(part) = all.next() {
        let panels = part.rows.div_ceil(PANEL_ROWS);
        if integer {
            for (rows, panel) in part.bytes().chunks(PANEL_ROWS).zip(&mut *integer_panels) {
                kernels.pack_integer(weight.format(), rows, part.depth, panel);
            }
        } else {
            kernels.pack_float(weight.format(), part.bytes(), part.depth, float_panel);
        }
        let parts = rows.len().div_ceil(PREFETCH_ROWS);
        for (index, first) in rows.clone().step_by(PREFETCH_ROWS).enumerate() {
            // Each part of the product prefetches as large a part of the next weights.
            if let Some(next) = all.peek() {
                next.prefetch(index, parts);
            }
            let rows = first..rows.end.min(first + PREFETCH_ROWS);
            let values = &mut results.values[(first - area.rows.start) * stride + part.first - columns.start..];
            let out = TileOut { values, stride, accumulate: part.start > 0 };
            if integer {
                let x = IntegerRows { values: input.quantized(), first, rows: rows.len(), column: part.start };
                kernels.integer_tiles(&integer_panels[..panels], x, out);
            } else {
                let values = &input.values[first * k + part.start..];
                let x = FloatRows { values, stride: k, rows: rows.len(), k: part.depth };
                kernels.float_tile(&float_panel.values, x, out);
            }
        }
    }
}

/// Many rows in a matrix unit, on whose right side they are: a K block of two strips of weights is unpacked and multiplied
/// with all of them before the next. The results come out transposed, a row for each row of weights.
fn unit_product(unit: MatrixUnit, weight: MatrixView<'_>, input: &Operand, area: &Area, scratch: &mut WorkerScratch) {
    let pieces = Pieces::of_weights(weight.format());
    let Area { rows, columns } = area;
    let width = rows.len().next_multiple_of(TILE_ROWS);
    let height = columns.len().next_multiple_of(TILE_ROWS);
    let WorkerScratch { weights, results, .. } = scratch;
    results.resize(height, width, true);
    let mut right = input.view(rows.start / TILE_ROWS, width / TILE_ROWS);
    if weight.format().info().integer {
        right = right.rounded(Pieces::One);
    }
    let mut all = Part::<UNIT_ROWS>::all(weight, columns, UNIT_ROWS).peekable();
    while let Some(part) = all.next() {
        weights.resize(part.rows, part.depth, pieces);
        for (rows, strip) in part.bytes().chunks(TILE_ROWS).zip(weights.strips_mut()) {
            unit.pack_weights(weight.format(), rows, part.depth, strip);
        }
        if let Some(next) = all.peek() {
            next.prefetch(0, 1);
        }
        let values = &mut results.values[(part.first - columns.start) * width..];
        let out = TileOut { values, stride: width, accumulate: part.start > 0 };
        let left = weights.view(0, part.rows.div_ceil(TILE_ROWS));
        unit.multiply(left, right.k_block(part.start, part.depth), out);
    }
}
