//! Row dots of Q6_K. Its groups' scales are small integers: products are multiplied with them before anything is converted.

use std::arch::x86_64::*;

use super::blocks::half;
use super::registers::{AHEAD, horizontal_sum, keep_in_memory, prefetch};
use crate::activation::{ACTIVATION_BLOCK, QuantizedRow, SUM_BLOCK};
use crate::formats::Block;
use crate::formats::k_quants::Q6K;

/// Activation blocks in a block of weights.
const PARTS: usize = Q6K::LEN / ACTIVATION_BLOCK;

/// `ROWS` weight rows, each times `TOKENS` rows of activations. A result does not depend on `ROWS` or `TOKENS`.
///
/// Codes enter as stored, 0..=63: sums of two products stay below 2¹⁴, times a scale and added in pairs below 2²². What the
/// offset adds too much is taken off at the end: 32 · Σ_blocks d · scale of x · Σ_groups scale · Σ codes of x.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn dot_rows<const ROWS: usize, const TOKENS: usize>(
    rows: [&[u8]; ROWS],
    x: [QuantizedRow<'_>; TOKENS],
) -> [[f32; TOKENS]; ROWS] {
    let blocks = rows[0].len() / Q6K::BYTES;
    let k = blocks * Q6K::LEN;
    assert!(rows.iter().all(|row| row.len() == blocks * Q6K::BYTES));
    for x in &x {
        assert!(x.codes.len() == k && x.scales.len() * ACTIVATION_BLOCK == k && x.half_sums.len() * SUM_BLOCK == k);
    }
    // Two chains of additions halve the time that a row waits for.
    let mut sums = [[[_mm256_setzero_ps(); 2]; TOKENS]; ROWS];
    let mut corrections = [[_mm256_setzero_ps(); TOKENS]; ROWS];
    let (low_bits, high_bits) = (_mm256_set1_epi8(0x0f), _mm256_set1_epi8(0x30));
    // The scales of a part's first and second sixteen codes, each in a half of a register.
    let apart = _mm_setr_epi8(0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15);
    for index in 0..blocks {
        for r in 0..ROWS {
            // SAFETY: blocks of weights and what belongs to them in the activations are there, as asserted above. A prefetch
            // reads nothing and may point anywhere.
            unsafe {
                let block = rows[r].as_ptr().add(index * Q6K::BYTES);
                prefetch(block, Q6K::BYTES, AHEAD);
                let scales = _mm_loadu_si128(block.add(192).cast());
                let in_order = _mm256_cvtepi8_epi16(scales);
                let scales = _mm256_cvtepi8_epi16(_mm_shuffle_epi8(scales, apart));
                let d = _mm256_set1_ps(half(block.add(208)));
                let mut factors = [[0.0f32; PARTS]; TOKENS];
                for t in 0..TOKENS {
                    let factor = _mm256_mul_ps(d, _mm256_loadu_ps(x[t].scales.as_ptr().add(index * PARTS)));
                    _mm256_storeu_ps(factors[t].as_mut_ptr(), factor);
                    let halves = x[t].half_sums.as_ptr().add(index * PARTS * 2).cast();
                    let halves = _mm256_packs_epi32(_mm256_loadu_si256(halves), _mm256_loadu_si256(halves.add(1)));
                    let halves = _mm256_permute4x64_epi64::<0b11_01_10_00>(halves);
                    let parts = _mm256_cvtepi32_ps(_mm256_madd_epi16(halves, in_order));
                    corrections[r][t] = _mm256_fmadd_ps(parts, factor, corrections[r][t]);
                }
                keep_in_memory(&mut factors);
                for half in 0..2 {
                    let first = _mm256_loadu_si256(block.add(half * 64).cast());
                    let second = _mm256_loadu_si256(block.add(half * 64 + 32).cast());
                    let high = _mm256_loadu_si256(block.add(128 + half * 32).cast());
                    let code = |low: __m256i, high: __m256i| {
                        _mm256_or_si256(_mm256_and_si256(low, low_bits), _mm256_and_si256(high, high_bits))
                    };
                    let codes = [
                        code(first, _mm256_slli_epi16::<4>(high)),
                        code(second, _mm256_slli_epi16::<2>(high)),
                        code(_mm256_srli_epi16::<4>(first), high),
                        code(_mm256_srli_epi16::<4>(second), _mm256_srli_epi16::<2>(high)),
                    ];
                    for (quarter, codes) in codes.into_iter().enumerate() {
                        let part = half * 4 + quarter;
                        let scale = _mm256_shuffle_epi8(scales, _mm256_set1_epi16(0x0100 + 0x0202 * part as i16));
                        for t in 0..TOKENS {
                            let x = x[t].codes.as_ptr().add(index * Q6K::LEN + part * ACTIVATION_BLOCK);
                            let products = _mm256_maddubs_epi16(codes, _mm256_loadu_si256(x.cast()));
                            let products = _mm256_cvtepi32_ps(_mm256_madd_epi16(products, scale));
                            let sum = &mut sums[r][t][part % 2];
                            *sum = _mm256_fmadd_ps(products, _mm256_set1_ps(factors[t][part]), *sum);
                        }
                    }
                }
            }
        }
    }
    let offset = -f32::from(Q6K::OFFSET);
    let mut out = [[0.0; TOKENS]; ROWS];
    for r in 0..ROWS {
        for t in 0..TOKENS {
            out[r][t] = offset.mul_add(
                horizontal_sum(corrections[r][t]),
                horizontal_sum(_mm256_add_ps(sums[r][t][0], sums[r][t][1])),
            );
        }
    }
    out
}
