//! Packing weight rows into panels with NEON, for every ARM tier.

use std::arch::aarch64::*;

use super::super::operands::{Arrangement, IntegerPanel, PANEL_ROWS};
use super::super::portable;
use super::blocks::{Blocks, read_scales};
use crate::Format;
use crate::formats::{MAX_GROUPS, with_block};

/// As [`Kernels::pack_integer`](crate::Kernels::pack_integer), for products that take `DEPTH` codes of a row at once: 4 or 8.
///
/// # Safety
/// The rows are what [`check_packed`](crate::kernels::operands::check_packed) asserts.
#[target_feature(enable = "neon")]
pub(super) unsafe fn pack_integer<const DEPTH: usize>(
    format: Format,
    rows: &[&[u8]],
    k: usize,
    panel: &mut IntegerPanel,
) {
    with_block!(format, B => if B::PRODUCTS {
        // SAFETY: the caller's promise.
        unsafe { pack::<B, DEPTH>(rows, k, panel) };
    } else {
        portable::pack_integer(format, rows, k, panel);
    }, else unreachable!("the front door lets quantized formats through only"));
}

/// Packs rows as [`Arrangement::SignedQuads`] or, with a `DEPTH` of 8, as [`Arrangement::SignedOctets`].
///
/// # Safety
/// As [`pack_integer`].
#[target_feature(enable = "neon")]
unsafe fn pack<B: Blocks, const DEPTH: usize>(rows: &[&[u8]], k: usize, panel: &mut IntegerPanel) {
    let arrangement = if DEPTH == 8 { Arrangement::SignedOctets } else { Arrangement::SignedQuads };
    panel.prepare::<B>(arrangement, rows.len(), k);
    let (mut scales, mut biases) = ([0.0f32; MAX_GROUPS], [0.0f32; MAX_GROUPS]);
    let groups = B::LEN / B::GROUP;
    let base = panel.codes.as_mut_ptr().cast::<i8>();
    for (four, rows) in rows.chunks(4).enumerate() {
        for index in 0..k / B::LEN {
            for (j, row) in rows.iter().enumerate() {
                // SAFETY: every row has `k / LEN` blocks.
                unsafe { read_scales::<B>(row.as_ptr().add(index * B::BYTES), &mut scales, &mut biases) };
                for group in 0..groups {
                    let at = (index * groups + group) * PANEL_ROWS + four * 4 + j;
                    panel.scales[at] = scales[group];
                    if B::BIASED {
                        panel.biases[at] = biases[group];
                    }
                }
            }
            for part in 0..B::LEN / 32 {
                let mut codes = [[vdupq_n_s8(0); 2]; 4];
                for (codes, row) in codes.iter_mut().zip(rows) {
                    // SAFETY: every row has `k / LEN` blocks, and `part` counts the block's parts.
                    *codes = unsafe { B::codes32(row.as_ptr().add(index * B::BYTES), part) };
                }
                for half in 0..2 {
                    let [a, b, c, d] = [codes[0][half], codes[1][half], codes[2][half], codes[3][half]];
                    let first = (index * B::LEN + part * 32 + half * 16) / DEPTH;
                    // SAFETY: every step of `DEPTH` codes has `16 · DEPTH` bytes in the panel, for which `prepare` made room; of them
                    // four rows take a quarter.
                    unsafe {
                        let to = base.add(first * PANEL_ROWS * DEPTH + four * 4 * DEPTH);
                        if DEPTH == 8 {
                            let wide = |x| vreinterpretq_s64_s8(x);
                            let (a, b, c, d) = (wide(a), wide(b), wide(c), wide(d));
                            let put = |at: usize, x| vst1q_s8(to.add(at), vreinterpretq_s8_s64(x));
                            put(0, vtrn1q_s64(a, b));
                            put(16, vtrn1q_s64(c, d));
                            put(PANEL_ROWS * 8, vtrn2q_s64(a, b));
                            put(PANEL_ROWS * 8 + 16, vtrn2q_s64(c, d));
                        } else {
                            let wide = |x| vreinterpretq_s32_s8(x);
                            let (ab0, ab1) = (vtrn1q_s32(wide(a), wide(b)), vtrn2q_s32(wide(a), wide(b)));
                            let (cd0, cd1) = (vtrn1q_s32(wide(c), wide(d)), vtrn2q_s32(wide(c), wide(d)));
                            let double = |x| vreinterpretq_s64_s32(x);
                            let put = |step: usize, x| vst1q_s8(to.add(step * PANEL_ROWS * 4), vreinterpretq_s8_s64(x));
                            put(0, vtrn1q_s64(double(ab0), double(cd0)));
                            put(1, vtrn1q_s64(double(ab1), double(cd1)));
                            put(2, vtrn2q_s64(double(ab0), double(cd0)));
                            put(3, vtrn2q_s64(double(ab1), double(cd1)));
                        }
                    }
                }
            }
        }
    }
}
