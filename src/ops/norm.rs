//! Residual sums over rows.

use super::Compute;

/// `x[i] += rms_norm(branch[i])`: the end of a Gemma 2 block, which normalizes before it adds.
pub(crate) fn add_rms_norm(compute: &Compute, x: &mut [f32], branch: &[f32], weight: &[f32], epsilon: f32) {
    let width = weight.len();
    compute.pool.rows(x, width, |row, x| {
        compute.kernels.add_rms_norm(&branch[row * width..][..width], weight, epsilon, x);
    });
}

/// `x[i] += y[i]`, a row of `width` values in a task.
pub(crate) fn add_rows(compute: &Compute, x: &mut [f32], y: &[f32], width: usize) {
    compute.pool.rows(x, width, |row, x| compute.kernels.add(x, &y[row * width..][..width]));
}
