//! Row dots of the formats with blocks of 256 in AVX-512: sixty-four codes at a time, all of them as stored. What an offset adds
//! comes off in integers, once for all rows that are multiplied with the same activations.

use std::arch::x86_64::*;

use super::super::blocks::Blocks;
use super::super::registers::{AHEAD, horizontal_sum, prefetch};
use super::super::rows::define_streams;
use super::rows32;
use crate::Format;
use crate::activation::{ACTIVATION_BLOCK, QuantizedRow};
use crate::formats::MAX_GROUPS;
use crate::formats::k_quants::{Q4K, Q5K, Q6K};

/// Pairs of 32 codes in a block.
const PAIRS: usize = 4;

/// A format with blocks of 256 and groups of 32, or of 16 without biases.
pub(super) trait WideBlocks: Blocks {
    /// Stored codes `64 * pair .. 64 * pair + 64`, unsigned: the signed codes plus `Self::OFFSET`.
    ///
    /// # Safety
    /// `block` points to `Self::BYTES` readable bytes and `pair < PAIRS`.
    unsafe fn stored64(block: *const u8, pair: usize) -> __m512i;
}

/// Thirty-two bytes twice, the first copy shifted right by `low` bits and the second by `high`; each byte masked.
///
/// # Safety
/// 32 bytes are readable.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn bits_twice(bytes: *const u8, low: usize, high: usize, mask: i8) -> __m512i {
    // SAFETY: the caller's promise.
    let both = _mm512_broadcast_i64x4(unsafe { _mm256_loadu_si256(bytes.cast()) });
    let counts = _mm512_inserti64x4::<1>(_mm512_set1_epi16(low as i16), _mm256_set1_epi16(high as i16));
    _mm512_and_si512(_mm512_srlv_epi16(both, counts), _mm512_set1_epi8(mask))
}

impl WideBlocks for Q4K {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn stored64(block: *const u8, pair: usize) -> __m512i {
        // SAFETY: the caller's promise; 128 bytes of codes follow 16 of scales.
        unsafe { bits_twice(block.add(16 + pair * 32), 0, 4, 15) }
    }
}

impl WideBlocks for Q5K {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn stored64(block: *const u8, pair: usize) -> __m512i {
        // SAFETY: the caller's promise; 16 bytes of scales, 32 of fifth bits, 128 of codes.
        unsafe {
            let low = bits_twice(block.add(48 + pair * 32), 0, 4, 15);
            let fifth = bits_twice(block.add(16), 2 * pair, 2 * pair + 1, 1);
            _mm512_or_si512(low, _mm512_slli_epi16::<4>(fifth))
        }
    }
}

impl WideBlocks for Q6K {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn stored64(block: *const u8, pair: usize) -> __m512i {
        let (half, upper) = (pair / 2, pair % 2);
        // SAFETY: the caller's promise; for each half of the block 64 bytes of low and 32 of high bits, all low ones first.
        unsafe {
            let low = _mm512_loadu_si512(block.add(half * 64).cast());
            let low = if upper == 0 { low } else { _mm512_srli_epi16::<4>(low) };
            let high = bits_twice(block.add(128 + half * 32), 4 * upper, 4 * upper + 2, 3);
            _mm512_or_si512(_mm512_and_si512(low, _mm512_set1_epi8(15)), _mm512_slli_epi16::<4>(high))
        }
    }
}

/// `ROWS` weight rows, each times `TOKENS` rows of activations. A result does not depend on `ROWS` or `TOKENS`.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512vnni")]
fn dot_rows<B: WideBlocks, const ROWS: usize, const TOKENS: usize>(
    rows: [&[u8]; ROWS],
    x: [QuantizedRow<'_>; TOKENS],
) -> [[f32; TOKENS]; ROWS] {
    let blocks = rows[0].len() / B::BYTES;
    assert!(B::LEN == 64 * PAIRS && B::LEN / B::GROUP <= MAX_GROUPS);
    assert!(rows.iter().all(|row| row.len() == blocks * B::BYTES));
    for x in &x {
        let k = blocks * B::LEN;
        assert!(x.codes.len() == k && x.scales.len() * ACTIVATION_BLOCK == k);
        assert!(x.sums.len() * ACTIVATION_BLOCK == k);
    }
    let lanes = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    // The group of a pair that each of sixteen partial sums belongs to, and the pair's groups.
    let (group, groups) =
        if B::GROUP == 16 { (_mm512_srli_epi32::<2>(lanes), 4) } else { (_mm512_srli_epi32::<3>(lanes), 2) };
    // Two chains of additions hide the latency of one.
    let mut sums = [[[_mm512_setzero_ps(); 2]; TOKENS]; ROWS];
    // Σ bias · Σ activations.
    let mut corrections = [[_mm256_setzero_ps(); TOKENS]; ROWS];
    let (mut scales, mut biases) = ([0.0f32; MAX_GROUPS], [0.0f32; MAX_GROUPS]);
    for index in 0..blocks {
        // SAFETY: `index < blocks` for every block that is read, activations have `LEN` codes and the scales and sums that go
        // with them for each weight block (asserted above). A prefetch reads nothing and may point anywhere.
        unsafe {
            let mut factors = [[_mm512_setzero_ps(); TOKENS]; ROWS];
            for r in 0..ROWS {
                let block = rows[r].as_ptr().add(index * B::BYTES);
                prefetch(block, B::BYTES, AHEAD);
                B::read_scales(block, &mut scales, &mut biases);
                for t in 0..TOKENS {
                    let activations = _mm256_loadu_ps(x[t].scales.as_ptr().add(index * 8));
                    if B::GROUP == 16 {
                        let twice =
                            _mm512_permutexvar_ps(_mm512_srli_epi32::<1>(lanes), _mm512_castps256_ps512(activations));
                        factors[r][t] = _mm512_mul_ps(_mm512_loadu_ps(scales.as_ptr()), twice);
                    } else {
                        let products = _mm256_mul_ps(_mm256_loadu_ps(scales.as_ptr()), activations);
                        factors[r][t] = _mm512_castps256_ps512(products);
                        let by = _mm256_loadu_ps(x[t].sums.as_ptr().add(index * 8));
                        let biases = _mm256_loadu_ps(biases.as_ptr());
                        corrections[r][t] = _mm256_fmadd_ps(biases, by, corrections[r][t]);
                    }
                }
            }
            for pair in 0..PAIRS {
                let of_pair = _mm512_add_epi32(group, _mm512_set1_epi32((pair * groups) as i32));
                for t in 0..TOKENS {
                    let codes = _mm512_loadu_si512(x[t].codes.as_ptr().add(index * B::LEN + pair * 64).cast());
                    let zero = _mm512_setzero_si512();
                    let offset = if B::BIASED {
                        zero
                    } else {
                        let added = _mm512_dpbusd_epi32(zero, _mm512_set1_epi8(B::OFFSET as i8), codes);
                        _mm512_sub_epi32(zero, added)
                    };
                    for r in 0..ROWS {
                        let stored = B::stored64(rows[r].as_ptr().add(index * B::BYTES), pair);
                        let products = _mm512_dpbusd_epi32(offset, stored, codes);
                        let factor = _mm512_permutexvar_ps(of_pair, factors[r][t]);
                        let sum = &mut sums[r][t][pair % 2];
                        *sum = _mm512_fmadd_ps(_mm512_cvtepi32_ps(products), factor, *sum);
                    }
                }
            }
        }
    }
    std::array::from_fn(|r| {
        std::array::from_fn(|t| {
            let sum = _mm512_add_ps(sums[r][t][0], sums[r][t][1]);
            _mm512_reduce_add_ps(sum) + horizontal_sum(corrections[r][t])
        })
    })
}

define_streams!("avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512vnni", WideBlocks);

/// As [`Kernels::dot_integer`](crate::Kernels::dot_integer).
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512vnni")]
pub(super) fn dot_integer(
    weights: crate::MatrixView<'_>,
    rows: std::ops::Range<usize>,
    x: &[QuantizedRow<'_>],
    out: &mut [f32],
) {
    match weights.format() {
        Format::Q4K => dot_integer_of::<Q4K>(weights, rows, x, out),
        Format::Q5K => dot_integer_of::<Q5K>(weights, rows, x, out),
        Format::Q6K => dot_integer_of::<Q6K>(weights, rows, x, out),
        _ => rows32::dot_integer(weights, rows, x, out),
    }
}
