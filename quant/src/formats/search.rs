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

/// The code of `x` for a given inverse scale. Comparisons written so are one instruction each.
#[inline(always)]
pub(super) fn code(x: f32, inverse_scale: f32, low: f32, high: f32) -> f32 {
    let code = x * inverse_scale;
    let code = if code > low { code } else { low };
    round(if code < high { code } else { high })
}

/// Sum of a multiple of eight terms in eight lanes: a few additions of registers instead of a chain.
#[inline(always)]
fn total<const N: usize>(terms: &[f32; N]) -> f32 {
    let mut lanes = [0.0f32; 8];
    for terms in terms.as_chunks::<8>().0 {
        for lane in 0..8 {
            lanes[lane] += terms[lane];
        }
    }
    let [a, b, c, d, e, f, g, h] = lanes;
    ((a + e) + (c + g)) + ((b + f) + (d + h))
}

/// Squared error of `x ≈ scale · code`.
#[inline(always)]
pub(super) fn symmetric_error<const N: usize>(x: &[f32; N], scale: f32, low: f32, high: f32) -> f32 {
    error_of(x, (scale, inverse(scale)), low, high)
}

/// Squared error of `x ≈ scale · code`, for a scale and its inverse.
#[inline(always)]
fn error_of<const N: usize>(x: &[f32; N], (scale, inverse_scale): (f32, f32), low: f32, high: f32) -> f32 {
    let mut squares = [0.0f32; N];
    for i in 0..N {
        let difference = x[i] - scale * code(x[i], inverse_scale, low, high);
        squares[i] = difference * difference;
    }
    total(&squares)
}

/// The scale that is best for the codes that `scale` gives.
#[inline(always)]
fn symmetric_refit<const N: usize>(x: &[f32; N], scale: f32, low: f32, high: f32) -> f32 {
    let inverse_scale = inverse(scale);
    let (mut dot, mut norm) = ([0.0f32; N], [0.0f32; N]);
    for i in 0..N {
        let code = code(x[i], inverse_scale, low, high);
        dot[i] = x[i] * code;
        norm[i] = code * code;
    }
    let norm = total(&norm);
    if norm > 0.0 { total(&dot) / norm } else { 0.0 }
}

/// The signed scale with a small squared error of `x ≈ scale · code`, codes in `low..=high`, low < 0 < high. `N` is a
/// multiple of 8.
#[inline(always)]
pub(super) fn symmetric_scale<const N: usize>(x: &[f32; N], low: f32, high: f32) -> f32 {
    let largest = x.iter().copied().fold(0.0f32, |a, b| if b.abs() > a.abs() { b } else { a });
    if largest == 0.0 {
        return 0.0;
    }
    // The largest value at the lower end of the codes is ggml's choice: with it among the candidates the result is
    // never worse. The others clip it a little, or leave it room.
    let inverse_largest = inverse(largest);
    let mut best = (f32::INFINITY, 0.0);
    let steps: &[f32] = if high < 16.0 { &[1.0, 0.78, 0.86, 0.93, 1.07, 1.15] } else { &[1.0, 0.96, 0.98, 1.02] };
    for step in steps {
        for end in [low, high] {
            // No division for each candidate: the ends and the steps are known to the compiler.
            let pair = (largest * (1.0 / (end * step)), inverse_largest * (end * step));
            let error = error_of(x, pair, low, high);
            if error < best.0 {
                best = (error, pair.0);
            }
        }
    }
    for _ in 0..2 {
        let scale = symmetric_refit(x, best.1, low, high);
        let error = symmetric_error(x, scale, low, high);
        if error >= best.0 {
            break;
        }
        best = (error, scale);
    }
    best.1
}

/// Squared error of `x ≈ scale · code − minimum`, codes in `0..=high`.
#[inline(always)]
pub(super) fn affine_error(x: &[f32; 32], scale: f32, minimum: f32, high: f32) -> f32 {
    let inverse_scale = inverse(scale);
    let mut squares = [0.0f32; 32];
    for i in 0..32 {
        let difference = x[i] - (scale * code(x[i] + minimum, inverse_scale, 0.0, high) - minimum);
        squares[i] = difference * difference;
    }
    total(&squares)
}

/// The best `scale ≥ 0` and `minimum ≥ 0` for the codes that a given pair produces.
#[inline(always)]
fn affine_refit(x: &[f32; 32], scale: f32, minimum: f32, high: f32) -> (f32, f32) {
    let inverse_scale = inverse(scale);
    let (mut codes, mut products, mut squares) = ([0.0f32; 32], [0.0f32; 32], [0.0f32; 32]);
    for i in 0..32 {
        codes[i] = code(x[i] + minimum, inverse_scale, 0.0, high);
        products[i] = x[i] * codes[i];
        squares[i] = codes[i] * codes[i];
    }
    let (x, c, xc, cc) = (total(x), total(&codes), total(&products), total(&squares));
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
