//! Row dots: blocks are unpacked in registers as they lie and multiplied with one to four rows of activations.
//!
//! A product of bytes takes an unsigned and a signed operand. Codes of four and five bits enter as stored, and what their
//! offset adds is taken off at the end (Σ scale · offset · Σ activations). Codes of six and eight bits enter as
//! magnitudes, with their sign moved to the activations.

/// Defines `dot_rows` for one instruction set: `$features`, and `$products`, which multiplies 32 unsigned with 32 signed
/// bytes and adds neighbouring fours.
macro_rules! define_row_dots {
    ($features:literal, $products:path) => {
        use std::arch::x86_64::*;

        use super::super::blocks::{Blocks, half};
        use crate::activation::{ACTIVATION_BLOCK, QuantizedRow, SUM_BLOCK};
        use crate::formats::MAX_GROUPS;

        #[inline]
        #[target_feature(enable = $features)]
        fn horizontal_sum(x: __m256) -> f32 {
            let x = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
            let x = _mm_add_ps(x, _mm_movehl_ps(x, x));
            _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)))
        }

        /// Products of 32 codes with 32 activations, in eight partial sums.
        ///
        /// # Safety
        /// `block` and `part` as [`Blocks::stored32`] asks.
        #[inline]
        #[target_feature(enable = $features)]
        unsafe fn block_products<B: Blocks>(block: *const u8, part: usize, x: __m256i) -> __m256 {
            // SAFETY: the caller's promise.
            let sums = unsafe {
                if B::BITS <= 5 {
                    $products(B::stored32(block, part), x)
                } else {
                    let codes = B::signed32(block, part);
                    $products(_mm256_abs_epi8(codes), _mm256_sign_epi8(x, codes))
                }
            };
            _mm256_cvtepi32_ps(sums)
        }

        /// `ROWS` weight rows times `TOKENS` rows of activations; `out[token][row]`.
        #[target_feature(enable = $features)]
        fn dot_rows<B: Blocks, const ROWS: usize, const TOKENS: usize>(
            rows: [&[u8]; ROWS],
            x: [QuantizedRow<'_>; TOKENS],
        ) -> [[f32; ROWS]; TOKENS] {
            let blocks = rows[0].len() / B::BYTES;
            for row in rows {
                assert!(row.len() == blocks * B::BYTES);
            }
            for x in &x {
                let k = blocks * B::LEN;
                assert!(x.codes.len() == k && x.scales.len() * ACTIVATION_BLOCK == k);
                assert!(x.sums.len() * ACTIVATION_BLOCK == k && x.half_sums.len() * SUM_BLOCK == k);
            }
            let mut sums = [[_mm256_setzero_ps(); ROWS]; TOKENS];
            // Σ scale · Σ activations, or Σ bias · Σ activations: block by block, or eight blocks at once.
            let mut corrections = [[_mm_setzero_ps(); ROWS]; TOKENS];
            let mut wide_corrections = [[_mm256_setzero_ps(); ROWS]; TOKENS];
            let (mut scales, mut biases) = ([0.0f32; MAX_GROUPS], [0.0f32; MAX_GROUPS]);
            let pairs = _mm256_set_epi32(1, 1, 1, 1, 0, 0, 0, 0);
            for index in 0..blocks {
                for r in 0..ROWS {
                    // SAFETY: `index < blocks`, so the block lies in the row; activations have `LEN / 32` blocks for each
                    // weight block (asserted above).
                    unsafe {
                        let block = rows[r].as_ptr().add(index * B::BYTES);
                        // The rows after these: the hardware's own prefetching stops at every page, and loses the thread
                        // where two rows are read at once. A prefetch reads nothing and may point anywhere.
                        let ahead = block.wrapping_add(ROWS * blocks * B::BYTES);
                        for line in 0..B::BYTES.div_ceil(64) {
                            _mm_prefetch::<_MM_HINT_T0>(ahead.wrapping_add(line * 64).cast());
                        }
                        if B::LEN == 32 {
                            let scale = _mm256_set1_ps(half(block));
                            for t in 0..TOKENS {
                                let codes = _mm256_loadu_si256(x[t].codes.as_ptr().add(index * 32).cast());
                                let factor =
                                    _mm256_mul_ps(scale, _mm256_broadcast_ss(x[t].scales.get_unchecked(index)));
                                let products = block_products::<B>(block, 0, codes);
                                sums[t][r] = _mm256_fmadd_ps(products, factor, sums[t][r]);
                                if B::BITS <= 5 {
                                    let by = if B::BIASED {
                                        _mm_set_ss(half(block.add(2)))
                                    } else {
                                        _mm256_castps256_ps128(scale)
                                    };
                                    let sum = _mm_load_ss(x[t].sums.as_ptr().add(index));
                                    corrections[t][r] = _mm_fmadd_ss(by, sum, corrections[t][r]);
                                }
                            }
                            continue;
                        }
                        B::read_scales(block, &mut scales, &mut biases);
                        for part in 0..B::LEN / 32 {
                            let at = index * (B::LEN / 32) + part;
                            let scale = if B::GROUP == 16 {
                                // Lanes 0..4 hold the products of the first 16 codes, lanes 4..8 those of the others.
                                let two = _mm_castsi128_ps(_mm_loadl_epi64(scales.as_ptr().add(part * 2).cast()));
                                _mm256_permutevar8x32_ps(_mm256_castps128_ps256(two), pairs)
                            } else {
                                _mm256_broadcast_ss(&scales[part])
                            };
                            for t in 0..TOKENS {
                                let codes = _mm256_loadu_si256(x[t].codes.as_ptr().add(at * 32).cast());
                                let factor = _mm256_mul_ps(scale, _mm256_broadcast_ss(x[t].scales.get_unchecked(at)));
                                let products = block_products::<B>(block, part, codes);
                                sums[t][r] = _mm256_fmadd_ps(products, factor, sums[t][r]);
                            }
                        }
                        if B::BIASED {
                            let biases = _mm256_loadu_ps(biases.as_ptr());
                            for t in 0..TOKENS {
                                let activations = _mm256_loadu_ps(x[t].sums.as_ptr().add(index * 8));
                                wide_corrections[t][r] = _mm256_fmadd_ps(biases, activations, wide_corrections[t][r]);
                            }
                        }
                    }
                }
            }
            let mut out = [[0.0; ROWS]; TOKENS];
            for t in 0..TOKENS {
                for r in 0..ROWS {
                    out[t][r] = horizontal_sum(sums[t][r]);
                    if B::BITS <= 5 {
                        let correction = _mm_cvtss_f32(corrections[t][r]) + horizontal_sum(wide_corrections[t][r]);
                        out[t][r] += if B::BIASED { correction } else { -f32::from(B::OFFSET) * correction };
                    }
                }
            }
            out
        }

        /// As [`Kernels::dot_integer`](crate::Kernels::dot_integer).
        #[target_feature(enable = $features)]
        pub(in super::super) fn dot_integer<B: Blocks>(
            weights: crate::MatrixView<'_>,
            rows: std::ops::Range<usize>,
            x: &[QuantizedRow<'_>],
            out: &mut [f32],
        ) {
            let count = rows.len();
            let first = rows.start;
            for (chunk, x) in x.chunks(4).enumerate() {
                let out = &mut out[chunk * 4 * count..];
                let mut j = 0;
                if let ([x], 4) = (x, B::BITS) {
                    // Two rows at a time share the activations and hide each other's latencies; blocks of more bits leave
                    // the memory less time to spare, and a single stream then reads faster.
                    while j + 2 <= count {
                        let [pair] = dot_rows::<B, 2, 1>([weights.row(first + j), weights.row(first + j + 1)], [*x]);
                        out[j..j + 2].copy_from_slice(&pair);
                        j += 2;
                    }
                }
                while j < count {
                    let row = [weights.row(first + j)];
                    let mut put = |results: &[[f32; 1]]| {
                        for (t, [result]) in results.iter().enumerate() {
                            out[t * count + j] = *result;
                        }
                    };
                    match *x {
                        [a] => put(&dot_rows::<B, 1, 1>(row, [a])),
                        [a, b] => put(&dot_rows::<B, 1, 2>(row, [a, b])),
                        [a, b, c] => put(&dot_rows::<B, 1, 3>(row, [a, b, c])),
                        [a, b, c, d] => put(&dot_rows::<B, 1, 4>(row, [a, b, c, d])),
                        _ => unreachable!("chunks of one to four"),
                    }
                    j += 1;
                }
            }
        }
    };
}

pub(super) mod avx2 {
    /// Bytes multiplied and neighbouring fours added.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    fn products(unsigned: __m256i, signed: __m256i) -> __m256i {
        _mm256_madd_epi16(_mm256_maddubs_epi16(unsigned, signed), _mm256_set1_epi16(1))
    }
    define_row_dots!("avx2,fma,f16c", products);
}

pub(super) mod vnni {
    /// As in AVX2, in one instruction.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c,avxvnni")]
    fn products(unsigned: __m256i, signed: __m256i) -> __m256i {
        _mm256_dpbusd_avx_epi32(_mm256_setzero_si256(), unsigned, signed)
    }
    define_row_dots!("avx2,fma,f16c,avxvnni", products);
}

pub(super) mod avx512 {
    /// As in AVX2, in one instruction.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512vl,avx512vnni")]
    fn products(unsigned: __m256i, signed: __m256i) -> __m256i {
        _mm256_dpbusd_epi32(_mm256_setzero_si256(), unsigned, signed)
    }
    define_row_dots!("avx2,fma,f16c,avx512f,avx512vl,avx512vnni", products);
}
