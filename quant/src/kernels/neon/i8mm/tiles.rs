//! The panel product with products of small matrices of bytes.

use std::arch::aarch64::*;
use std::arch::asm;

use super::super::tiles::{GroupOfRow, Tile, add_group, in_tiles, load, store};
use crate::kernels::operands::{ActivationPointers, IntegerPanel, IntegerRows, TileOut};

/// With products of 2×8 by 8×2 matrices.
///
/// # Safety
/// The operands are what [`check_integer_tile`](crate::kernels::operands::check_integer_tile) asserts, and the panel's arrangement is
/// the one of this tier's table.
#[target_feature(enable = "neon,i8mm")]
pub(super) unsafe fn integer_tile(panel: &IntegerPanel, x: IntegerRows<'_>, mut out: TileOut<'_>) {
    in_tiles!(panel, x, out, 4, i8mm_rows);
}

/// # Safety
/// As [`integer_tile`], for `ROWS` rows.
#[inline]
#[target_feature(enable = "neon,i8mm")]
unsafe fn i8mm_rows<const ROWS: usize>(panel: &IntegerPanel, tile: Tile) {
    // SAFETY: the caller's promise covers every read and write; `smmla` belongs to the set that this function is for.
    unsafe {
        let mut totals = load::<ROWS>(&tile);
        for group in 0..panel.k / panel.shape.group {
            // `sums[pair of rows][pair of columns]` is a 2×2 matrix; an odd last row is paired with itself.
            let mut sums = [[vdupq_n_s32(0); 8]; 2];
            for step in group * panel.shape.group / 8..(group + 1) * panel.shape.group / 8 {
                let line = panel.codes.as_ptr().add(step * 2).cast::<i8>();
                for pair in 0..ROWS.div_ceil(2) {
                    let row = |i: usize| vld1_s8(tile.x.codes.add(i.min(ROWS - 1) * tile.x.row_len + step * 8));
                    let x = vcombine_s8(row(pair * 2), row(pair * 2 + 1));
                    for columns in 0..8 {
                        let weights = vld1q_s8(line.add(columns * 16));
                        let mut sum = sums[pair][columns];
                        asm!("smmla {sum:v}.4s, {x:v}.16b, {weights:v}.16b", sum = inout(vreg) sum, x = in(vreg) x,
                            weights = in(vreg) weights, options(pure, nomem, nostack, preserves_flags));
                        sums[pair][columns] = sum;
                    }
                }
            }
            for i in 0..ROWS {
                let mut rows = [vdupq_n_s32(0); 4];
                for side in 0..4 {
                    let [a, b] = [sums[i / 2][side * 2], sums[i / 2][side * 2 + 1]].map(|x| vreinterpretq_s64_s32(x));
                    let both = if i % 2 == 0 { vtrn1q_s64(a, b) } else { vtrn2q_s64(a, b) };
                    rows[side] = vreinterpretq_s32_s64(both);
                }
                add_group(panel, &tile, GroupOfRow { group, row: i }, rows, &mut totals[i]);
            }
        }
        store(&tile, &totals);
    }
}
