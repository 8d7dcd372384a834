//! Row dots: blocks are unpacked in registers as they lie and multiplied with one to four rows of activations.

/// Defines `dot_integer` for one instruction set: `$features`, and `$products`, which multiplies 16 with 16 signed bytes
/// and adds them up in four sums.
macro_rules! define_row_dots {
    ($features:literal, $products:path) => {
        use $crate::kernels::neon::blocks::{Blocks, read_scales};
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
        pub(super) fn dot_integer(
            weights: crate::MatrixView<'_>,
            rows: std::ops::Range<usize>,
            x: &[QuantizedRow<'_>],
            out: &mut [f32],
        ) {
            crate::formats::with_block!(weights.format(), B => if B::PRODUCTS {
                dot_integer_of::<B>(weights, rows, x, out);
            } else {
                crate::kernels::portable::dot_integer(weights, rows, x, out);
            }, else unreachable!("the front door lets quantized formats through only"));
        }

        #[target_feature(enable = $features)]
        fn dot_integer_of<B: Blocks>(
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
pub(super) use define_row_dots;
