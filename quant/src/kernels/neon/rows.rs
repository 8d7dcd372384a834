//! Row dots: blocks are unpacked in registers as they lie and multiplied with one to four rows of activations.

/// Defines `dot_integer` for one instruction set: `$features`, and `$products`, which multiplies 16 with 16 signed bytes
/// and adds them up in four sums.
macro_rules! define_row_dots {
    ($features:literal, $products:path) => {
        use super::super::blocks::{Blocks, read_scales};
        use crate::activation::{ACTIVATION_BLOCK, QuantizedRow};
        use crate::formats::MAX_GROUPS;

        #[target_feature(enable = $features)]
        fn dot_row<B: Blocks, const TOKENS: usize>(row: &[u8], x: [QuantizedRow<'_>; TOKENS]) -> [f32; TOKENS] {
            let blocks = row.len() / B::BYTES;
            for x in &x {
                let k = blocks * B::LEN;
                assert!(x.codes.len() == k && x.scales.len() * ACTIVATION_BLOCK == k && x.sums.len() == x.scales.len());
            }
            // Two chains of additions hide the latency of one.
            let mut sums = [[vdupq_n_f32(0.0); 2]; TOKENS];
            let mut corrections = [0.0f32; TOKENS];
            let (mut scales, mut biases) = ([0.0f32; MAX_GROUPS], [0.0f32; MAX_GROUPS]);
            for (index, block) in row.chunks_exact(B::BYTES).enumerate() {
                let block = block.as_ptr();
                // SAFETY: `chunks_exact` gave `BYTES` bytes; activations have `LEN / 32` blocks for each weight block
                // (asserted above).
                unsafe {
                    read_scales::<B>(block, &mut scales, &mut biases);
                    for part in 0..B::LEN / 32 {
                        let at = index * (B::LEN / 32) + part;
                        let codes = B::codes32(block, part);
                        for t in 0..TOKENS {
                            let x_codes = x[t].codes.as_ptr().add(at * 32);
                            let scale = *x[t].scales.get_unchecked(at);
                            let low = $products(vdupq_n_s32(0), codes[0], vld1q_s8(x_codes));
                            if B::GROUP == 16 {
                                let high = $products(vdupq_n_s32(0), codes[1], vld1q_s8(x_codes.add(16)));
                                let (first, second) = (scales[part * 2] * scale, scales[part * 2 + 1] * scale);
                                sums[t][0] = vfmaq_n_f32(sums[t][0], vcvtq_f32_s32(low), first);
                                sums[t][1] = vfmaq_n_f32(sums[t][1], vcvtq_f32_s32(high), second);
                            } else {
                                let both = $products(low, codes[1], vld1q_s8(x_codes.add(16)));
                                let side = at % 2;
                                sums[t][side] = vfmaq_n_f32(sums[t][side], vcvtq_f32_s32(both), scales[part] * scale);
                            }
                            if B::BIASED {
                                corrections[t] += biases[part] * *x[t].sums.get_unchecked(at);
                            }
                        }
                    }
                }
            }
            let mut out = [0.0; TOKENS];
            for t in 0..TOKENS {
                out[t] = vaddvq_f32(vaddq_f32(sums[t][0], sums[t][1])) + corrections[t];
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
            for (j, row) in rows.enumerate() {
                let row = weights.row(row);
                for (chunk, x) in x.chunks(4).enumerate() {
                    let mut put = |results: &[f32]| {
                        for (t, result) in results.iter().enumerate() {
                            out[(chunk * 4 + t) * count + j] = *result;
                        }
                    };
                    match *x {
                        [a] => put(&dot_row::<B, 1>(row, [a])),
                        [a, b] => put(&dot_row::<B, 2>(row, [a, b])),
                        [a, b, c] => put(&dot_row::<B, 3>(row, [a, b, c])),
                        [a, b, c, d] => put(&dot_row::<B, 4>(row, [a, b, c, d])),
                        _ => unreachable!("chunks of one to four"),
                    }
                }
            }
        }
    };
}

pub(super) mod plain {
    use std::arch::aarch64::*;

    /// Codes of eight bits fit: 2 · 128 · 127 < 2¹⁵.
    #[inline]
    #[target_feature(enable = "neon")]
    fn products(sums: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
        let pairs = vmull_s8(vget_low_s8(a), vget_low_s8(b));
        vpadalq_s16(sums, vmlal_high_s8(pairs, a, b))
    }
    define_row_dots!("neon", products);
}

pub(super) mod dotprod {
    use std::arch::aarch64::*;
    use std::arch::asm;

    #[inline]
    #[target_feature(enable = "neon,dotprod")]
    fn products(sums: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
        let mut out = sums;
        // SAFETY: one instruction on registers, of the set that this function is for.
        unsafe {
            asm!("sdot {out:v}.4s, {a:v}.16b, {b:v}.16b", out = inout(vreg) out, a = in(vreg) a, b = in(vreg) b,
                options(pure, nomem, nostack, preserves_flags));
        }
        out
    }
    define_row_dots!("neon,dotprod", products);
}
