//! Rounding one column after the other, each with what the ones before it owe: GPTQ (arXiv 2210.17323) in the form of LDLQ (arXiv 2307.13304,
//! theorem 6), whose results are the same and which needs no inverse; then each code once more, with all the others as they are.
//!
//! For a row `w` that becomes `q`, with `e = w − q` and the inputs' second moments `H = (U + 1) · D · (U + 1)ᵀ`, the error of the outputs is
//! `e · H · eᵀ = Σ_j D_j · (e_j + Σ_{i<j} e_i · U_ij)²`. So column `j` is best the nearest code to `w_j + Σ_{i<j} e_i · U_ij`. Afterwards the
//! error has the slope `−2 · (e · H)_j` in `q_j`, and its least value along that column where `q_j` grows by `(e · H)_j / H_jj`.

use gemmule_quant::{
    BlockToRound, Codes, Format, Kernels, MAX_BLOCK, MAX_GROUPS, block_codes, block_scales, codes, set_codes,
};
use ndarray::linalg::general_mat_mul;
use ndarray::{ArrayView2, ArrayViewMut2, s};
use rayon::prelude::*;

use super::factor::Factor;

/// Columns whose rounding is paid for before the next ones begin; whole blocks of every format.
const COLUMNS: usize = MAX_BLOCK;
/// Rows of a task.
const ROWS: usize = 32;
/// How often each code is looked at again.
const SWEEPS: usize = 2;

/// How a matrix is rounded.
pub(crate) struct Rounder<'a> {
    pub(crate) kernels: Kernels,
    pub(crate) format: Format,
    /// The factor of `moments`.
    pub(crate) factor: &'a Factor,
    /// Second moments of the inputs, `[n][n]`.
    pub(crate) moments: &'a [f32],
}

impl Rounder<'_> {
    /// Rounds a matrix, `[rows][n]`, `n` being whole blocks: its rows' bytes one behind the other. The result does not depend on the number of
    /// threads.
    pub(crate) fn round(&self, values: &[f32]) -> Vec<u8> {
        let n = self.factor.n;
        let row_bytes = self.format.row_bytes(n).expect("whole blocks");
        let mut out = vec![0; values.len() / n * row_bytes];
        let tasks = values.par_chunks(ROWS * n).zip(out.par_chunks_mut(ROWS * row_bytes));
        tasks.for_each(|(values, out)| {
            let errors = self.compensate(values, out);
            self.descend(errors, out);
        });
        out
    }

    /// Rounds a few rows; returns their errors.
    fn compensate(&self, values: &[f32], out: &mut [u8]) -> Vec<f32> {
        let Factor { n, u, d } = self.factor;
        let (n, rows, info) = (*n, values.len() / n, self.format.info());
        let row_bytes = out.len() / rows;
        let mut errors = vec![0.0; values.len()];
        let mut wanted = vec![0.0; rows * COLUMNS];
        let mut decoded = [0.0; MAX_BLOCK];
        let decoded = &mut decoded[..info.block_len];
        for start in (0..n).step_by(COLUMNS) {
            let end = n.min(start + COLUMNS);
            for (wanted, values) in wanted.chunks_exact_mut(COLUMNS).zip(values.chunks_exact(n)) {
                wanted[..end - start].copy_from_slice(&values[start..end]);
            }
            let mut sums = ArrayViewMut2::from_shape((rows, COLUMNS), &mut wanted).expect("a row for each");
            general_mat_mul(
                1.0,
                &matrix(&errors, n).slice(s![.., ..start]),
                &matrix(u, n).slice(s![..start, start..end]),
                1.0,
                &mut sums.slice_mut(s![.., ..end - start]),
            );
            for (row, wanted) in wanted.chunks_exact_mut(COLUMNS).enumerate() {
                let (values, errors) = (&values[row * n..][..n], &mut errors[row * n..][..n]);
                let out = &mut out[row * row_bytes..][start / info.block_len * info.block_bytes..];
                let blocks = (start..end).step_by(info.block_len).zip(out.chunks_exact_mut(info.block_bytes));
                for (first, block) in blocks {
                    let after = first + info.block_len;
                    let part = BlockToRound {
                        values: &values[first..after],
                        wanted: &wanted[first - start..after - start],
                        weights: &d[first..after],
                        coupling: &u[first * n + first..],
                        stride: n,
                    };
                    self.kernels.round_block(self.format, &part, block, decoded);
                    for (column, decoded) in (first..after).zip(&*decoded) {
                        let error = values[column] - decoded;
                        errors[column] = error;
                        self.kernels.add_multiple(
                            error,
                            &u[column * n..][after..end],
                            &mut wanted[after - start..end - start],
                        );
                    }
                }
            }
        }
        errors
    }

    /// Looks at each code of a few rows again, with their errors as they are.
    fn descend(&self, errors: Vec<f32>, out: &mut [u8]) {
        let (n, info) = (self.factor.n, self.format.info());
        let rows = errors.len() / n;
        let mut slopes = vec![0.0; errors.len()];
        let mut product = ArrayViewMut2::from_shape((rows, n), &mut slopes).expect("a row for each");
        general_mat_mul(1.0, &matrix(&errors, n), &matrix(self.moments, n), 1.0, &mut product);
        let row_bytes = out.len() / rows;
        let codes = codes(self.format).expect("a quantized format");
        for (slopes, out) in slopes.chunks_exact_mut(n).zip(out.chunks_exact_mut(row_bytes)) {
            for _ in 0..SWEEPS {
                for (index, block) in out.chunks_exact_mut(info.block_bytes).enumerate() {
                    self.descend_block(codes, slopes, index * info.block_len, block);
                }
            }
        }
    }

    /// Looks at the codes of the block that begins at column `first`; `slopes` are those of its row.
    fn descend_block(&self, codes: Codes, slopes: &mut [f32], first: usize, block: &mut [u8]) {
        let (n, info) = (self.factor.n, self.format.info());
        let (mut scales, mut biases) = ([0.0; MAX_GROUPS], [0.0; MAX_GROUPS]);
        let group = block_scales(self.format, block, &mut scales, &mut biases);
        let mut chosen = [0; MAX_BLOCK];
        block_codes(self.format, block, &mut chosen);
        let mut changed = false;
        for (at, chosen) in chosen[..info.block_len].iter_mut().enumerate() {
            let (column, scale) = (first + at, scales[at / group]);
            if scale == 0.0 {
                continue;
            }
            let line = &self.moments[column * n..][..n];
            let code = codes.nearest(f32::from(*chosen) + slopes[column] / line[column] / scale);
            if code != *chosen {
                let change = scale * (f32::from(code) - f32::from(*chosen));
                self.kernels.add_multiple(-change, line, slopes);
                (*chosen, changed) = (code, true);
            }
        }
        if changed {
            set_codes(self.format, &chosen, block);
        }
    }
}

/// Rows of `n` values.
fn matrix(values: &[f32], n: usize) -> ArrayView2<'_, f32> {
    ArrayView2::from_shape((values.len() / n, n), values).expect("whole rows")
}
