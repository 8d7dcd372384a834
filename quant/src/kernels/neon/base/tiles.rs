//! The panel product with NEON alone.

use std::arch::aarch64::*;

use super::super::tiles::{GroupOfRow, Tile, add_group, in_tiles, load, store};
use crate::kernels::operands::{ActivationPointers, IntegerPanel, IntegerRows, TileOut};

/// With byte products widened to 16 bits.
///
/// # Safety
/// The operands are what [`check_integer_tile`](crate::kernels::operands::check_integer_tile) asserts, and the panel's arrangement is
/// the one of this tier's table.
#[target_feature(enable = "neon")]
pub(super) unsafe fn integer_tile(panel: &IntegerPanel, x: IntegerRows<'_>, mut out: TileOut<'_>) {
    in_tiles!(panel, x, out, 2, plain_rows);
}

/// Products are added in 16 bits before they are widened: codes of up to six bits for all steps of a group (8 · 31 · 127
/// and 4 · 32 · 127 are below 2¹⁵), codes of eight bits for two steps.
///
/// # Safety
/// As [`integer_tile`], for `ROWS` rows.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn plain_rows<const ROWS: usize>(panel: &IntegerPanel, tile: Tile) {
    // SAFETY: the caller's promise covers every read and write.
    unsafe {
        let mut totals = load::<ROWS>(&tile);
        let steps = panel.shape.group / 4;
        let together = if panel.shape.bits > 6 { 2 } else { steps };
        for group in 0..panel.k / panel.shape.group {
            let mut sums = [[[vdupq_n_s32(0); 2]; 4]; ROWS];
            for start in (0..steps).step_by(together) {
                let mut narrow = [[[vdupq_n_s16(0); 2]; 4]; ROWS];
                for step in group * steps + start..group * steps + start + together {
                    let line = panel.codes.as_ptr().add(step).cast::<i8>();
                    let mut weights = [vdupq_n_s8(0); 4];
                    for side in 0..4 {
                        weights[side] = vld1q_s8(line.add(side * 16));
                    }
                    for i in 0..ROWS {
                        let x = tile.x.codes.add(i * tile.x.row_len + step * 4).cast::<i32>().read_unaligned();
                        let x = vreinterpretq_s8_s32(vdupq_n_s32(x));
                        for side in 0..4 {
                            let [low, high] = &mut narrow[i][side];
                            *low = vmlal_s8(*low, vget_low_s8(weights[side]), vget_low_s8(x));
                            *high = vmlal_high_s8(*high, weights[side], x);
                        }
                    }
                }
                for i in 0..ROWS {
                    for side in 0..4 {
                        for half in 0..2 {
                            sums[i][side][half] = vpadalq_s16(sums[i][side][half], narrow[i][side][half]);
                        }
                    }
                }
            }
            for i in 0..ROWS {
                let mut rows = [vdupq_n_s32(0); 4];
                for side in 0..4 {
                    rows[side] = vpaddq_s32(sums[i][side][0], sums[i][side][1]);
                }
                add_group(panel, &tile, GroupOfRow { group, row: i }, rows, &mut totals[i]);
            }
        }
        store(&tile, &totals);
    }
}
