//! Normalization and residual sums over rows.

use super::Compute;

/// `out[i] = rms_norm(x[i])`, rows as long as `weight`.
pub fn rms_norm(compute: &Compute, x: &[f32], weight: &[f32], epsilon: f32, out: &mut [f32]) {
    let width = weight.len();
    compute
        .pool
        .rows(out, width, |row, out| compute.kernels.rms_norm(&x[row * width..][..width], weight, epsilon, out));
}

/// `x[i] += rms_norm(branch[i])`: the end of a Gemma 2 block, which normalizes before it adds. `normalized` is scratch as
/// long as `x`.
pub fn add_rms_norm(
    compute: &Compute,
    x: &mut [f32],
    branch: &[f32],
    (weight, epsilon): (&[f32], f32),
    normalized: &mut [f32],
) {
    let width = weight.len();
    let rows = x.chunks_exact_mut(width).zip(branch.chunks_exact(width)).zip(normalized.chunks_exact_mut(width));
    compute.pool.each(rows, |_, ((x, branch), normalized)| {
        compute.kernels.rms_norm(branch, weight, epsilon, normalized);
        add(x, normalized);
    });
}

/// `out[i] = layer_norm(x[i])`, rows as long as the weight; `affine` is (weight, bias).
pub fn layer_norm(compute: &Compute, x: &[f32], affine: (&[f32], &[f32]), epsilon: f32, out: &mut [f32]) {
    let width = affine.0.len();
    compute
        .pool
        .rows(out, width, |row, out| compute.kernels.layer_norm(&x[row * width..][..width], affine, epsilon, out));
}

/// x ← x + y.
pub fn add(x: &mut [f32], y: &[f32]) {
    for (x, y) in x.iter_mut().zip(y) {
        *x += y;
    }
}
