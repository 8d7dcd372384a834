//! What adapters do to a tensor's values, while these are read.

use std::collections::BTreeMap;

/// A product of low rank that is added to a matrix.
#[derive(Debug, PartialEq)]
pub(crate) struct Delta {
    /// `[rank][columns]`.
    pub(crate) down: Vec<f32>,
    /// `[rows][rank]`, with the scale.
    pub(crate) up: Vec<f32>,
    pub(crate) rank: usize,
}

impl Delta {
    /// Whether another product is the same matrix, but for rounding.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        let columns = self.down.len() / self.rank;
        let rows = self.up.len() / self.rank;
        let (mut one, mut two) = (vec![0.0; columns], vec![0.0; columns]);
        (0..rows).all(|row| {
            one.fill(0.0);
            two.fill(0.0);
            self.add_to(&mut one, row * columns);
            other.add_to(&mut two, row * columns);
            one.iter().zip(&two).all(|(a, b)| (a - b).abs() <= 1e-5 * a.abs().max(b.abs()).max(1e-6))
        })
    }

    fn add_to(&self, values: &mut [f32], start: usize) {
        let columns = self.down.len() / self.rank;
        each_row(values, start, columns, |row, column, part| {
            for (factor, down) in self.up[row * self.rank..][..self.rank].iter().zip(self.down.chunks_exact(columns)) {
                for (value, down) in part.iter_mut().zip(&down[column..]) {
                    *value += factor * down;
                }
            }
        });
    }
}

/// One step on the way from a checkpoint's values to those of the merged model.
#[derive(Debug)]
pub(crate) enum Change {
    /// Adds a product.
    Product(Delta),
    /// Adds values.
    Values(Vec<f32>),
    /// Multiplies each row by its factor.
    ScaledRows(Vec<f32>),
    /// Multiplies each column by its factor.
    ScaledColumns(Vec<f32>),
    /// Replaces some rows.
    Rows(BTreeMap<usize, Vec<f32>>),
}

impl Change {
    /// Applies the change to `values`, which begin with value `start` of a matrix of `columns` columns.
    pub(crate) fn apply(&self, values: &mut [f32], start: usize, columns: usize) {
        match self {
            Self::Product(delta) => delta.add_to(values, start),
            Self::Values(added) => values.iter_mut().zip(&added[start..]).for_each(|(value, added)| *value += added),
            Self::ScaledRows(factors) => each_row(values, start, columns, |row, _, part| {
                part.iter_mut().for_each(|value| *value *= factors[row]);
            }),
            Self::ScaledColumns(factors) => each_row(values, start, columns, |_, column, part| {
                part.iter_mut().zip(&factors[column..]).for_each(|(value, factor)| *value *= factor);
            }),
            Self::Rows(rows) => each_row(values, start, columns, |row, column, part| {
                if let Some(row) = rows.get(&row) {
                    part.copy_from_slice(&row[column..column + part.len()]);
                }
            }),
        }
    }
}

/// Hands each row's part of `values` to `change`, with the row and its first column.
fn each_row(values: &mut [f32], start: usize, columns: usize, mut change: impl FnMut(usize, usize, &mut [f32])) {
    let mut at = start;
    let mut rest = values;
    while !rest.is_empty() {
        let (row, column) = (at / columns, at % columns);
        let (part, after) = rest.split_at_mut((columns - column).min(rest.len()));
        change(row, column, part);
        at += part.len();
        rest = after;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_made_from_any_place_on() {
        let delta =
            Delta { down: vec![1.0, 2.0, 3.0, 10.0, 20.0, 30.0], up: vec![1.0, 0.0, 0.0, 1.0, 1.0, 1.0], rank: 2 };
        let before: Vec<f32> = (0..9).map(|value| value as f32).collect();
        for (change, whole) in [
            (Change::Product(delta), [1.0, 3.0, 5.0, 13.0, 24.0, 35.0, 17.0, 29.0, 41.0]),
            (Change::Values(vec![100.0; 9]), [100.0, 101.0, 102.0, 103.0, 104.0, 105.0, 106.0, 107.0, 108.0]),
            (Change::ScaledRows(vec![0.0, 1.0, 2.0]), [0.0, 0.0, 0.0, 3.0, 4.0, 5.0, 12.0, 14.0, 16.0]),
            (Change::ScaledColumns(vec![0.0, 1.0, 2.0]), [0.0, 1.0, 4.0, 0.0, 4.0, 10.0, 0.0, 7.0, 16.0]),
            (Change::Rows([(1, vec![7.0, 8.0, 9.0])].into()), [0.0, 1.0, 2.0, 7.0, 8.0, 9.0, 6.0, 7.0, 8.0]),
        ] {
            for start in 0..9 {
                for end in start..=9 {
                    let mut values = before[start..end].to_vec();
                    change.apply(&mut values, start, 3);
                    assert_eq!(values, whole[start..end], "{change:?} {start} {end}");
                }
            }
        }
    }
}
