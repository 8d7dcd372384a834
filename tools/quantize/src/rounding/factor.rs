//! The factor of a matrix of second moments that error compensation needs.

use ndarray::linalg::general_mat_mul;
use ndarray::{ArrayView2, ArrayViewMut2, s};
use rayon::prelude::*;

/// Columns that are factored together.
const PANEL: usize = 128;
/// Rows and columns of a part of the rest that one task updates.
const TILE: usize = 512;

/// A symmetric positive matrix `H` as `(U + 1) · D · (U + 1)ᵀ`, `U` strictly upper triangular and `D` diagonal.
pub(crate) struct Factor {
    /// How many rows and columns.
    pub(crate) n: usize,
    /// `U`, `[n][n]`; zero on and below the diagonal.
    pub(crate) u: Vec<f32>,
    /// `D`, `[n]`: how much an error counts in a column when all columns before it have been paid for.
    pub(crate) d: Vec<f32>,
}

impl Factor {
    /// Factors `h`, `[n][n]`, of which only the upper triangle is read. None where it is not positive: some pivot is zero, below it, or no
    /// number. The result does not depend on the number of threads.
    pub(crate) fn new(mut h: Vec<f32>, n: usize) -> Option<Self> {
        assert_eq!(h.len(), n * n, "a square matrix");
        // R · Rᵀ = H with R upper triangular, from the last columns to the first.
        for start in (0..n).step_by(PANEL).rev() {
            let end = n.min(start + PANEL);
            factor_panel(&mut h, n, start, end)?;
            update(&mut h, n, start, end);
        }
        let roots: Vec<f32> = (0..n).map(|i| h[i * n + i]).collect();
        h.par_chunks_exact_mut(n).enumerate().for_each(|(row, values)| {
            values[..=row].fill(0.0);
            for (value, root) in values[row + 1..].iter_mut().zip(&roots[row + 1..]) {
                *value /= root;
            }
        });
        Some(Self { n, u: h, d: roots.iter().map(|root| root * root).collect() })
    }
}

/// Columns `start..end` of `R`: first the triangle at the diagonal, then what lies above it.
fn factor_panel(h: &mut [f32], n: usize, start: usize, end: usize) -> Option<()> {
    let width = end - start;
    let mut triangle = vec![0.0; width * width];
    for (row, line) in triangle.chunks_exact_mut(width).enumerate() {
        line.copy_from_slice(&h[(start + row) * n + start..][..width]);
    }
    for j in (0..width).rev() {
        let (above, below) = triangle.split_at_mut(j * width);
        let pivot = &mut below[..width];
        let square = pivot[j] - dot(&pivot[j + 1..], &pivot[j + 1..]);
        if !(square > 0.0 && square.is_finite()) {
            return None;
        }
        pivot[j] = square.sqrt();
        for line in above.chunks_exact_mut(width) {
            line[j] = (line[j] - dot(&line[j + 1..], &pivot[j + 1..])) / pivot[j];
        }
    }
    for (row, line) in triangle.chunks_exact(width).enumerate() {
        h[(start + row) * n + start..][..width].copy_from_slice(line);
    }
    h[..start * n].par_chunks_exact_mut(n).for_each(|line| {
        let line = &mut line[start..end];
        for j in (0..width).rev() {
            let pivot = &triangle[j * width..][..width];
            line[j] = (line[j] - dot(&line[j + 1..], &pivot[j + 1..])) / pivot[j];
        }
    });
    Some(())
}

/// Takes the products of the new columns `start..end` from the upper triangle of what is left.
fn update(h: &mut [f32], n: usize, start: usize, end: usize) {
    if start == 0 {
        return;
    }
    let width = end - start;
    let mut panel = vec![0.0; start * width];
    for (line, from) in panel.chunks_exact_mut(width).zip(h.chunks_exact(n)) {
        line.copy_from_slice(&from[start..end]);
    }
    let panel = ArrayView2::from_shape((start, width), &panel).expect("rows of the panel");
    h[..start * n].par_chunks_mut(TILE * n).enumerate().for_each(|(index, rows)| {
        let (first, count) = (index * TILE, rows.len() / n);
        let mut rows = ArrayViewMut2::from_shape((count, n), rows).expect("whole rows");
        let left = panel.slice(s![first..first + count, ..]);
        for column in (first..start).step_by(TILE) {
            let columns = column..start.min(column + TILE);
            let right = panel.slice(s![columns.clone(), ..]);
            general_mat_mul(-1.0, &left, &right.t(), 1.0, &mut rows.slice_mut(s![.., columns]));
        }
    });
}

/// Sums in sixteen lanes, which a compiler makes registers of.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<16>(), b.as_chunks::<16>());
    let mut lanes = [0.0; 16];
    for (a, b) in a.iter().zip(b) {
        for lane in 0..16 {
            lanes[lane] += a[lane] * b[lane];
        }
    }
    lanes.iter().sum::<f32>() + a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum::<f32>()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Moments of noise with `n` columns that depend on each other.
    fn moments(n: usize) -> Vec<f32> {
        let value = |i: usize, j: usize| {
            let wave = ((i * 37 + j * 101) as f32 * 0.713).sin();
            wave + 0.5 * ((i * 3 + j / 5) as f32 * 0.37).cos()
        };
        let samples = 2 * n;
        let mut h = vec![0.0; n * n];
        for s in 0..samples {
            for i in 0..n {
                for j in i..n {
                    h[i * n + j] += value(s, i) * value(s, j) / samples as f32;
                }
            }
        }
        for i in 0..n {
            h[i * n + i] += 0.05;
        }
        h
    }

    #[test]
    fn factors_give_the_matrix_again() {
        for n in [1, 5, 128, 129, 300] {
            let h = moments(n);
            let Factor { u, d, .. } = Factor::new(h.clone(), n).unwrap();
            let at = |i: usize, j: usize| {
                if i == j {
                    1.0
                } else if j > i {
                    f64::from(u[i * n + j])
                } else {
                    0.0
                }
            };
            for i in 0..n {
                for j in i..n {
                    let sum: f64 = (j..n).map(|k| at(i, k) * f64::from(d[k]) * at(j, k)).sum();
                    let expected = f64::from(h[i * n + j]);
                    assert!((sum - expected).abs() < 2e-4, "{n}: {i}, {j}: {sum} in place of {expected}");
                }
            }
        }
    }

    #[test]
    fn factors_do_not_depend_on_threads() {
        let h = moments(300);
        let with = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let factor = pool.install(|| Factor::new(h.clone(), 300)).unwrap();
            (factor.u, factor.d)
        };
        assert!(with(1) == with(3));
    }

    #[test]
    fn what_is_not_positive_has_no_factor() {
        let mut h = moments(40);
        h[3 * 40 + 3] = -1.0;
        assert!(Factor::new(h.clone(), 40).is_none());
        h[3 * 40 + 3] = f32::NAN;
        assert!(Factor::new(h, 40).is_none());
        assert!(Factor::new(vec![0.0; 4], 2).is_none());
    }
}
