//! What attention spends its time on beside products, in AVX-512: exponentials and tangents with fused multiply-adds, as
//! accurate as those of [`vector`](crate::vector), though not the same in their last bits.

use std::arch::x86_64::*;

use crate::vector::{EXP, LN_2_PARTS, ROUND, SMALL_TANGENT, TANH};

/// A polynomial with its highest coefficient first.
#[inline]
#[target_feature(enable = "avx512f")]
fn polynomial<const N: usize>(coefficients: [f32; N], x: __m512) -> __m512 {
    let mut sum = _mm512_set1_ps(coefficients[0]);
    for coefficient in &coefficients[1..] {
        sum = _mm512_fmadd_ps(sum, x, _mm512_set1_ps(*coefficient));
    }
    sum
}

/// e^x for x ≤ 0, at least −87. What is no number stays none: of such operands `max` takes the second.
#[inline]
#[target_feature(enable = "avx512f")]
fn exp_of_negative(x: __m512) -> __m512 {
    let x = _mm512_max_ps(_mm512_set1_ps(-87.0), x);
    let round = _mm512_set1_ps(ROUND);
    let n = _mm512_sub_ps(_mm512_fmadd_ps(x, _mm512_set1_ps(std::f32::consts::LOG2_E), round), round);
    let r = _mm512_fnmadd_ps(n, _mm512_set1_ps(LN_2_PARTS[0]), x);
    let r = _mm512_fnmadd_ps(n, _mm512_set1_ps(LN_2_PARTS[1]), r);
    let y = _mm512_fmadd_ps(polynomial(EXP, r), _mm512_mul_ps(r, r), r);
    _mm512_scalef_ps(_mm512_add_ps(y, _mm512_set1_ps(1.0)), n)
}

#[inline]
#[target_feature(enable = "avx512f")]
fn tanh(x: __m512) -> __m512 {
    let square = _mm512_mul_ps(x, x);
    let small = _mm512_fmadd_ps(_mm512_mul_ps(polynomial(TANH, square), square), x, x);
    let magnitude = _mm512_abs_ps(x);
    let large = _mm512_cmp_ps_mask::<_CMP_GE_OQ>(magnitude, _mm512_set1_ps(SMALL_TANGENT));
    if large == 0 {
        return small;
    }
    let one = _mm512_set1_ps(1.0);
    let e = exp_of_negative(_mm512_mul_ps(magnitude, _mm512_set1_ps(-2.0)));
    let positive = _mm512_div_ps(_mm512_sub_ps(one, e), _mm512_add_ps(one, e));
    let sign = _mm512_and_si512(_mm512_castps_si512(x), _mm512_set1_epi32(i32::MIN));
    let signed = _mm512_castsi512_ps(_mm512_or_si512(_mm512_castps_si512(positive), sign));
    _mm512_mask_mov_ps(small, large, signed)
}

/// Replaces sixteen values at a time by `$body` of them; at the end fewer, with `$outside` in the lanes behind them.
macro_rules! for_each_register {
    ($x:expr, $outside:expr, |$values:ident, $mask:ident| $body:expr) => {
        for part in $x.chunks_mut(16) {
            let $mask = u16::MAX >> (16 - part.len());
            // SAFETY: the mask has a bit for each value of the part.
            let $values = unsafe { _mm512_mask_loadu_ps($outside, $mask, part.as_ptr()) };
            let result = $body;
            // SAFETY: as above.
            unsafe { _mm512_mask_storeu_ps(part.as_mut_ptr(), $mask, result) };
        }
    };
}

/// As [`Kernels::softcap`](crate::Kernels::softcap).
#[target_feature(enable = "avx512f")]
pub(super) fn softcap(x: &mut [f32], cap: f32) {
    let (inverse, cap) = (_mm512_set1_ps(1.0 / cap), _mm512_set1_ps(cap));
    for_each_register!(x, _mm512_setzero_ps(), |values, _mask| {
        _mm512_mul_ps(cap, tanh(_mm512_mul_ps(values, inverse)))
    });
}

/// As [`Kernels::softmax_tile`](crate::Kernels::softmax_tile).
#[target_feature(enable = "avx512f")]
pub(super) fn softmax_tile(x: &mut [f32], largest: f32) -> (f32, f32) {
    let least = _mm512_set1_ps(f32::NEG_INFINITY);
    let mut lanes = least;
    for part in x.chunks(16) {
        // SAFETY: the mask has a bit for each value of the part.
        let values = unsafe { _mm512_mask_loadu_ps(least, u16::MAX >> (16 - part.len()), part.as_ptr()) };
        // What is no number is no greatest value: of such operands `max` takes the second.
        lanes = _mm512_max_ps(values, lanes);
    }
    let largest = _mm512_reduce_max_ps(lanes).max(largest);
    let mut sum = _mm512_setzero_ps();
    for_each_register!(x, least, |values, mask| {
        let weights = exp_of_negative(_mm512_sub_ps(values, _mm512_set1_ps(largest)));
        sum = _mm512_mask_add_ps(sum, mask, sum, weights);
        weights
    });
    (largest, _mm512_reduce_add_ps(sum))
}
