//! What prompts and pictures spend their time on beside products, in AVX-512. Exponentials and tangents have fused
//! multiply-adds and are as accurate as those of [`vector`](crate::vector), though not the same in their last bits; activations
//! are quantized to the same ones.

use std::arch::x86_64::*;

use super::super::registers::{AHEAD, prefetch};
use crate::activation::QuantizedRowMut;
use crate::vector::{self, EXP, GELU, LN_2_PARTS, ROUND, SMALL_TANGENT, TANH, activation_scale};

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
        let (registers, rest) = $x.as_chunks_mut::<16>();
        for register in registers {
            // Known here, so that the compiler leaves it out.
            let $mask = u16::MAX;
            // SAFETY: a register's values.
            let $values = unsafe { _mm512_loadu_ps(register.as_ptr()) };
            let result = $body;
            // SAFETY: a register's values.
            unsafe { _mm512_storeu_ps(register.as_mut_ptr(), result) };
        }
        if !rest.is_empty() {
            let $mask = u16::MAX >> (16 - rest.len());
            // SAFETY: the mask has a bit for each value of the rest.
            let $values = unsafe { _mm512_mask_loadu_ps($outside, $mask, rest.as_ptr()) };
            let result = $body;
            // SAFETY: the mask has a bit for each value of the rest.
            unsafe { _mm512_mask_storeu_ps(rest.as_mut_ptr(), $mask, result) };
        }
    };
}

/// gelu(x), as `x / (1 + e^−2u)` for the tangent's argument u: one exponential of a negative number and one division.
#[inline]
#[target_feature(enable = "avx512f")]
fn gelu_of(x: __m512) -> __m512 {
    let one = _mm512_set1_ps(1.0);
    let cubic = _mm512_fmadd_ps(_mm512_mul_ps(x, x), _mm512_set1_ps(GELU[0] * GELU[1]), _mm512_set1_ps(GELU[0]));
    let u = _mm512_mul_ps(x, cubic);
    let e = exp_of_negative(_mm512_mul_ps(_mm512_abs_ps(u), _mm512_set1_ps(-2.0)));
    // Below zero both sides of the fraction are multiplied with e^2u.
    let negative = _mm512_cmplt_epi32_mask(_mm512_castps_si512(u), _mm512_setzero_si512());
    let numerator = _mm512_mask_mov_ps(one, negative, e);
    _mm512_div_ps(_mm512_mul_ps(x, numerator), _mm512_add_ps(one, e))
}

/// As [`Kernels::gelu`](crate::Kernels::gelu).
#[target_feature(enable = "avx512f")]
pub(super) fn gelu(x: &mut [f32]) {
    for_each_register!(x, _mm512_setzero_ps(), |values, _mask| gelu_of(values));
}

/// As [`Kernels::gelu_multiply`](crate::Kernels::gelu_multiply).
#[target_feature(enable = "avx512f")]
pub(super) fn gelu_multiply(gate: &mut [f32], up: &[f32]) {
    assert_eq!(gate.len(), up.len(), "a factor for each of the gate's values");
    let mut parts = up.chunks(16);
    for_each_register!(gate, _mm512_setzero_ps(), |values, mask| {
        let part = parts.next().expect("as many as the gate's");
        // SAFETY: the mask has a bit for each value of the part, which is as long as the gate's.
        let up = unsafe { _mm512_maskz_loadu_ps(mask, part.as_ptr()) };
        _mm512_mul_ps(gelu_of(values), up)
    });
}

/// As [`Kernels::quantize`](crate::Kernels::quantize).
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2")]
pub(super) fn quantize(x: &[f32], row: QuantizedRowMut<'_>) {
    let blocks = x.as_chunks::<32>().0.iter().zip(row.codes.as_chunks_mut::<32>().0);
    let halves = row.half_sums.as_chunks_mut::<2>().0.iter_mut().zip(row.pair_offsets);
    let outputs = row.scales.iter_mut().zip(row.sums).zip(row.block_sums.iter_mut().zip(halves));
    for ((x, codes), ((scale, sum), (block_sum, (half_sums, offsets)))) in blocks.zip(outputs) {
        // Another core may have made the values, and the hardware's own prefetching stops at every page.
        prefetch(x.as_ptr().cast(), size_of_val(x), AHEAD);
        // SAFETY: a block holds two registers of values.
        let x = unsafe { [_mm512_loadu_ps(x.as_ptr()), _mm512_loadu_ps(x[16..].as_ptr())] };
        let [first, second] = x.map(|x| _mm512_castps_si512(_mm512_abs_ps(x)));
        let inverse;
        (*scale, inverse) = activation_scale(_mm512_reduce_max_epu32(_mm512_max_epu32(first, second)));
        // No product is beyond ±127 by more than rounding. What is not finite meets 0 and has no code.
        let [first, second] = x.map(|x| {
            let integers = _mm512_cvtps_epi32(_mm512_mul_ps(x, _mm512_set1_ps(inverse)));
            _mm512_cvtepi32_epi8(integers)
        });
        let block = if scale.is_nan() { _mm256_setzero_si256() } else { _mm256_set_m128i(second, first) };
        // SAFETY: 32 bytes are writable.
        unsafe { _mm256_storeu_si256(codes.as_mut_ptr().cast(), block) };
        // Sums of pairs, of which each half holds eight; then at positions 0 and 1 of each four, and at positions 2 and 3.
        let pairs = _mm256_maddubs_epi16(_mm256_set1_epi8(1), block);
        let pairs = _mm256_add_epi16(pairs, _mm256_shuffle_epi32::<0b01_00_11_10>(pairs));
        let pairs = _mm256_add_epi16(pairs, _mm256_shuffle_epi32::<0b10_11_00_01>(pairs));
        let (first, second) = (_mm256_castsi256_si128(pairs), _mm256_extracti128_si256::<1>(pairs));
        let ones = _mm_set1_epi16(1);
        *half_sums = [first, second].map(|pairs| _mm_cvtsi128_si32(_mm_madd_epi16(pairs, ones)));
        *offsets = [_mm_add_epi16(first, second), first].map(|pairs| {
            let both = _mm_cvtsi128_si32(_mm_sub_epi16(_mm_setzero_si128(), _mm_slli_epi16::<3>(pairs)));
            [both as i16, (both >> 16) as i16]
        });
        *block_sum = half_sums[0] + half_sums[1];
        *sum = *scale * *block_sum as f32;
    }
}

/// As [`Kernels::read`](crate::Kernels::read): the compiler makes gathers of the portable loop.
#[target_feature(enable = "avx512f")]
pub(super) fn read(bytes: &[u8]) -> u64 {
    let lines = bytes.as_chunks::<64>().0;
    let quarter = lines.len() / 4;
    let mut sums = [_mm512_setzero_si512(); 4];
    for index in 0..quarter {
        for (stream, sum) in sums.iter_mut().enumerate() {
            // SAFETY: a line is a register, and four quarters are no more than all lines.
            let line = unsafe { _mm512_loadu_si512(lines.as_ptr().add(stream * quarter + index).cast()) };
            *sum = _mm512_xor_si512(*sum, line);
        }
    }
    let [a, b, c, d] = sums;
    let sum = _mm512_xor_si512(_mm512_xor_si512(a, b), _mm512_xor_si512(c, d));
    let halves = _mm256_xor_si256(_mm512_castsi512_si256(sum), _mm512_extracti64x4_epi64::<1>(sum));
    let quarters = _mm_xor_si128(_mm256_castsi256_si128(halves), _mm256_extracti128_si256::<1>(halves));
    let sum = _mm_extract_epi64::<0>(quarters) ^ _mm_extract_epi64::<1>(quarters);
    sum as u64 ^ vector::read(&bytes[4 * quarter * 64..])
}

/// As [`Kernels::softcap`](crate::Kernels::softcap).
#[target_feature(enable = "avx512f")]
pub(super) fn softcap(x: &mut [f32], cap: f32) {
    let (inverse, cap) = (_mm512_set1_ps(1.0 / cap), _mm512_set1_ps(cap));
    for_each_register!(x, _mm512_setzero_ps(), |values, _mask| {
        _mm512_mul_ps(cap, tanh(_mm512_mul_ps(values, inverse)))
    });
}

/// As [`Kernels::softmax_tile`](crate::Kernels::softmax_tile). Maxima and sums of four registers at a time: one after the other
/// they would take longer than the exponentials.
#[target_feature(enable = "avx512f")]
pub(super) fn softmax_tile(x: &mut [f32], largest: f32) -> (f32, f32) {
    let least = _mm512_set1_ps(f32::NEG_INFINITY);
    let mut maxima = [least; 4];
    let (fours, rest) = x.as_chunks::<64>();
    for four in fours {
        for (part, maximum) in four.as_chunks::<16>().0.iter().zip(&mut maxima) {
            // What is no number is no greatest value: of such operands `max` takes the second.
            // SAFETY: a register's values.
            *maximum = _mm512_max_ps(unsafe { _mm512_loadu_ps(part.as_ptr()) }, *maximum);
        }
    }
    for (part, maximum) in rest.chunks(16).zip(&mut maxima) {
        // SAFETY: the mask has a bit for each value of the part.
        let values = unsafe { _mm512_mask_loadu_ps(least, u16::MAX >> (16 - part.len()), part.as_ptr()) };
        *maximum = _mm512_max_ps(values, *maximum);
    }
    let [a, b, c, d] = maxima;
    let maximum = _mm512_max_ps(_mm512_max_ps(a, b), _mm512_max_ps(c, d));
    let largest = _mm512_reduce_max_ps(maximum).max(largest);
    let mut sums = [_mm512_setzero_ps(); 4];
    let (fours, rest) = x.as_chunks_mut::<64>();
    for four in fours {
        for (part, sum) in four.as_chunks_mut::<16>().0.iter_mut().zip(&mut sums) {
            // SAFETY: a register's values.
            let values = unsafe { _mm512_loadu_ps(part.as_ptr()) };
            let weights = exp_of_negative(_mm512_sub_ps(values, _mm512_set1_ps(largest)));
            *sum = _mm512_add_ps(*sum, weights);
            // SAFETY: a register's values.
            unsafe { _mm512_storeu_ps(part.as_mut_ptr(), weights) };
        }
    }
    let mut last = sums[3];
    for_each_register!(rest, least, |values, mask| {
        let weights = exp_of_negative(_mm512_sub_ps(values, _mm512_set1_ps(largest)));
        last = _mm512_mask_add_ps(last, mask, last, weights);
        weights
    });
    let [a, b, c, _] = sums;
    (largest, _mm512_reduce_add_ps(_mm512_add_ps(_mm512_add_ps(a, b), _mm512_add_ps(c, last))))
}
