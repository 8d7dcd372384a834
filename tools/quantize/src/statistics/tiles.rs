//! Sums of products of inputs: the half of a symmetric matrix that tells the rest.

use ndarray::linalg::general_mat_mul;
use ndarray::{ArrayView2, ArrayViewMut2, s};
use rayon::prelude::*;

/// Rows and columns of a tile.
pub(crate) const TILE: usize = 256;

/// Rows of a part of the products between samples.
const ROWS: usize = 64;

/// Sums of the products of so many inputs with each other.
#[derive(Debug)]
pub(crate) struct Tiles {
    width: usize,
    /// `[tiles on and above the diagonal, row by row][TILE][TILE]`, with zeros behind the last column.
    values: Vec<f32>,
}

/// How many tiles lie on and above the diagonal.
pub(crate) fn count(width: usize) -> usize {
    let across = width.div_ceil(TILE);
    across * (across + 1) / 2
}

/// The rows and columns that each tile begins at.
fn places(width: usize) -> impl Iterator<Item = (usize, usize)> {
    let starts = move |from: usize| (from..width).step_by(TILE);
    starts(0).flat_map(move |row| starts(row).map(move |column| (row, column)))
}

impl Tiles {
    pub(crate) fn new(width: usize) -> Self {
        Self { width, values: vec![0.0; count(width) * TILE * TILE] }
    }

    /// Those that [`values`](Self::values) were.
    pub(crate) fn of(width: usize, values: Vec<f32>) -> Self {
        assert_eq!(values.len(), count(width) * TILE * TILE, "a tile for each place");
        Self { width, values }
    }

    pub(crate) fn values(&self) -> &[f32] {
        &self.values
    }

    /// Adds the products of the columns of `rows`, `[rows][width]`.
    pub(crate) fn add(&mut self, rows: &ArrayView2<'_, f32>) {
        assert_eq!(rows.ncols(), self.width, "the inputs of a row");
        let places: Vec<_> = places(self.width).collect();
        self.values.par_chunks_exact_mut(TILE * TILE).zip(places).for_each(|(tile, (row, column))| {
            let part = |start: usize| rows.slice(s![.., start..self.width.min(start + TILE)]);
            let (left, right) = (part(row), part(column));
            let mut tile = ArrayViewMut2::from_shape((TILE, TILE), tile).expect("a whole tile");
            let mut tile = tile.slice_mut(s![..left.ncols(), ..right.ncols()]);
            general_mat_mul(1.0, &left.t(), &right, 1.0, &mut tile);
        });
    }
}

/// What the products of the columns of `rows` come to off the diagonal, squared and summed: of as many rows as there are, not of the columns, which
/// costs less.
pub(crate) fn off_diagonal(rows: &ArrayView2<'_, f32>) -> f64 {
    let (count, width) = rows.dim();
    let all: f64 = (0..count)
        .step_by(ROWS)
        .collect::<Vec<_>>()
        .into_par_iter()
        .map(|first| {
            let some = rows.slice(s![first..count.min(first + ROWS), ..]);
            some.dot(&rows.t()).iter().map(|x| f64::from(*x).powi(2)).sum::<f64>()
        })
        .collect::<Vec<_>>()
        .iter()
        .sum();
    let mut squares = vec![0.0f64; width];
    for row in rows.rows() {
        squares.iter_mut().zip(row).for_each(|(sum, x)| *sum += f64::from(*x).powi(2));
    }
    (all - squares.iter().map(|sum| sum * sum).sum::<f64>()).max(0.0)
}

/// A matrix, `[width][width]`, of the sums in `values`: those off the diagonal times `share`, and all divided by `total`.
pub(crate) fn square(width: usize, values: &[f32], share: f32, total: f32) -> Vec<f32> {
    let mut square = vec![0.0; width * width];
    for (tile, (first, column)) in values.chunks_exact(TILE * TILE).zip(places(width)) {
        for (row, line) in (first..width).zip(tile.chunks_exact(TILE)) {
            for (column, value) in (column..width).zip(line) {
                let value = if row == column { *value } else { value * share } / total;
                square[row * width + column] = value;
                square[column * width + row] = value;
            }
        }
    }
    square
}

/// The squares of the sums off the diagonal, both halves.
pub(crate) fn off_diagonal_of(width: usize, values: &[f32]) -> f64 {
    let mut sum = 0.0;
    for (tile, (first, column)) in values.chunks_exact(TILE * TILE).zip(places(width)) {
        for (row, line) in (first..width).zip(tile.chunks_exact(TILE)) {
            let above = (column..width).zip(line).filter(|(column, _)| *column > row);
            sum += above.map(|(_, value)| 2.0 * f64::from(*value).powi(2)).sum::<f64>();
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_are_the_products_of_all_columns() {
        for (count, width) in [(1, 1), (7, 5), (90, 256), (130, 300), (3, 700)] {
            let values: Vec<f32> = (0..count * width).map(|i| ((i * 37 % 101) as f32 - 50.0) / 50.0).collect();
            let rows = ArrayView2::from_shape((count, width), &values).unwrap();
            let mut tiles = Tiles::new(width);
            tiles.add(&rows);
            tiles.add(&rows);
            let square = square(width, tiles.values(), 0.5, 2.0);
            let mut off = 0.0;
            for i in 0..width {
                for j in 0..width {
                    let expected: f64 = rows.rows().into_iter().map(|x| f64::from(x[i]) * f64::from(x[j])).sum();
                    let shared = if i == j { expected } else { 0.5 * expected };
                    assert!((f64::from(square[i * width + j]) - shared).abs() < 1e-3, "{count} × {width}: {i}, {j}");
                    off += if i == j { 0.0 } else { expected * expected };
                }
            }
            let near = |found: f64, times: f64| (found - times * off).abs() < 1e-4 * (times * off + 1.0);
            assert!(near(off_diagonal(&rows), 1.0), "{count} × {width}: {} for {off}", off_diagonal(&rows));
            assert!(near(off_diagonal_of(width, tiles.values()), 4.0), "{count} × {width}");
        }
    }
}
