//! Searching scales for the smallest squared error.

use half::f16;

/// Rounds to the nearest integer, ties to even, for |x| < 2²²; branch-free, so that loops over it vectorize.
#[inline(always)]
pub(super) fn round(x: f32) -> f32 {
    const SHIFT: f32 = 12_582_912.0; // 1.5 · 2²³
    (x + SHIFT) - SHIFT
}

/// `1 / x`, or zero where `x` is zero or so small that the quotient is not finite.
#[inline(always)]
pub(super) fn inverse(x: f32) -> f32 {
    let inverse = 1.0 / x;
    if inverse.is_finite() { inverse } else { 0.0 }
}

/// The nearest half-precision number, clamped to the finite ones.
#[inline(always)]
pub(super) fn to_half(x: f32) -> f32 {
    f16::from_f32(x.clamp(-65504.0, 65504.0)).to_f32()
}

/// The code of `x` for a given inverse scale.
#[inline(always)]
pub(super) fn code(x: f32, inverse_scale: f32, low: f32, high: f32) -> f32 {
    round((x * inverse_scale).clamp(low - 0.5, high + 0.5)).clamp(low, high)
}

/// Squared error of `x ≈ scale · code`, and the scale that is best for the same codes.
#[inline(always)]
fn symmetric_error(x: &[f32], scale: f32, low: f32, high: f32) -> (f32, f32) {
    let inverse_scale = inverse(scale);
    let (mut error, mut dot, mut norm) = ([0.0f32; 8], [0.0f32; 8], [0.0f32; 8]);
    for x in x.as_chunks::<8>().0 {
        for lane in 0..8 {
            let code = code(x[lane], inverse_scale, low, high);
            let difference = x[lane] - scale * code;
            error[lane] += difference * difference;
            dot[lane] += x[lane] * code;
            norm[lane] += code * code;
        }
    }
    let norm: f32 = norm.iter().sum();
    let better = if norm > 0.0 { dot.iter().sum::<f32>() / norm } else { 0.0 };
    (error.iter().sum(), better)
}

/// The signed scale, passed through `store` (the precision it will be kept in), with the smallest squared error of
/// `x ≈ scale · code`, codes in `low..=high`, low < 0 < high. The length of `x` is a multiple of 8.
#[inline(always)]
pub(super) fn symmetric_scale(x: &[f32], low: f32, high: f32, store: impl Fn(f32) -> f32) -> f32 {
    let largest = x.iter().copied().fold(0.0f32, |a, b| if b.abs() > a.abs() { b } else { a });
    if largest == 0.0 {
        return 0.0;
    }
    // The largest value at the lower end of the codes is ggml's choice: with it among the candidates the result is
    // never worse. The others clip it a little, or leave it room.
    let start = store(largest / low);
    let (mut best_scale, (mut best_error, mut refined)) = (start, symmetric_error(x, start, low, high));
    let steps: &[f32] = if high < 16.0 { &[0.78, 0.86, 0.93, 1.07, 1.15] } else { &[0.96, 0.98, 1.02] };
    let others = steps.iter().map(|step| largest / (low * step));
    let mirrored = steps.iter().chain(&[1.0]).map(|step| largest / (high * step));
    for candidate in others.chain(mirrored) {
        let scale = store(candidate);
        let (error, better) = symmetric_error(x, scale, low, high);
        if error < best_error {
            (best_scale, best_error, refined) = (scale, error, better);
        }
    }
    for _ in 0..2 {
        let scale = store(refined);
        let (error, better) = symmetric_error(x, scale, low, high);
        if error >= best_error {
            break;
        }
        (best_scale, best_error, refined) = (scale, error, better);
    }
    best_scale
}

/// Squared error of `x ≈ scale · code − minimum`, codes in `0..=high`.
#[inline(always)]
pub(super) fn affine_error(x: &[f32; 32], scale: f32, minimum: f32, high: f32) -> f32 {
    let inverse_scale = inverse(scale);
    let mut error = [0.0f32; 8];
    for x in x.as_chunks::<8>().0 {
        for lane in 0..8 {
            let code = code(x[lane] + minimum, inverse_scale, 0.0, high);
            let difference = x[lane] - (scale * code - minimum);
            error[lane] += difference * difference;
        }
    }
    error.iter().sum()
}

/// The best `scale ≥ 0` and `minimum ≥ 0` for the codes that a given pair produces.
#[inline(always)]
fn affine_refit(x: &[f32; 32], scale: f32, minimum: f32, high: f32) -> (f32, f32) {
    let inverse_scale = inverse(scale);
    let (mut sum_x, mut sum_c, mut sum_xc, mut sum_cc) = ([0.0f32; 8], [0.0f32; 8], [0.0f32; 8], [0.0f32; 8]);
    for x in x.as_chunks::<8>().0 {
        for lane in 0..8 {
            let code = code(x[lane] + minimum, inverse_scale, 0.0, high);
            sum_x[lane] += x[lane];
            sum_c[lane] += code;
            sum_xc[lane] += x[lane] * code;
            sum_cc[lane] += code * code;
        }
    }
    let [x, c, xc, cc] = [sum_x, sum_c, sum_xc, sum_cc].map(|sums| sums.iter().sum::<f32>());
    let determinant = 32.0 * cc - c * c;
    if determinant > 0.0 {
        let scale = (32.0 * xc - x * c) / determinant;
        let minimum = (xc * c - x * cc) / determinant;
        if minimum >= 0.0 && scale >= 0.0 {
            return (scale, minimum);
        }
    }
    if cc > 0.0 { ((xc / cc).max(0.0), 0.0) } else { (scale, minimum) }
}

/// Scale and minimum (both ≥ 0) with a small squared error of `x ≈ scale · code − minimum`, codes in `0..=high`.
#[inline(always)]
pub(super) fn affine_scale(x: &[f32; 32], high: f32) -> (f32, f32) {
    let low_x = x.iter().copied().fold(0.0f32, f32::min);
    let high_x = x.iter().copied().fold(f32::MIN, f32::max);
    if high_x <= low_x {
        return (0.0, -low_x);
    }
    let mut best = (f32::INFINITY, 0.0, 0.0);
    // Ends a little inside the data's range clip its extremes for a finer grid.
    for step in 0..9 {
        let shrink = 1.0 - 0.04 * step as f32;
        let (mut scale, mut minimum) = ((high_x - low_x) * shrink / high, -low_x * shrink);
        for _ in 0..2 {
            let error = affine_error(x, scale, minimum, high);
            if error < best.0 {
                best = (error, scale, minimum);
            }
            (scale, minimum) = affine_refit(x, scale, minimum, high);
        }
        let error = affine_error(x, scale, minimum, high);
        if error < best.0 {
            best = (error, scale, minimum);
        }
    }
    (best.1, best.2)
}
