//! The panel product with dot products of bytes.

use std::arch::aarch64::*;
use std::arch::asm;

use super::super::tiles::{GroupOfRow, Tile, add_group, in_tiles, load, store};
use crate::kernels::operands::{ActivationPointers, IntegerPanel, IntegerRows, TileOut};

/// With four-way dot products.
///
/// # Safety
/// The operands are what [`check_integer_tile`](crate::kernels::operands::check_integer_tile) asserts, and the panel's arrangement is
/// the one of this tier's table.
#[target_feature(enable = "neon,dotprod")]
pub(super) unsafe fn integer_tile(panel: &IntegerPanel, x: IntegerRows<'_>, mut out: TileOut<'_>) {
    in_tiles!(panel, x, out, 4, dotprod_rows);
}

/// `$sum += $weights · x[$lane]`, where a lane is four codes.
macro_rules! sdot_lane {
    ($sum:expr, $weights:expr, $x:expr, $lane:literal) => {{
        let mut sum = $sum;
        asm!(concat!("sdot {sum:v}.4s, {weights:v}.16b, {x:v}.4b[", $lane, "]"), sum = inout(vreg) sum,
            weights = in(vreg) $weights, x = in(vreg) $x, options(pure, nomem, nostack, preserves_flags));
        $sum = sum;
    }};
}

/// # Safety
/// As [`integer_tile`], for `ROWS` rows.
#[inline]
#[target_feature(enable = "neon,dotprod")]
unsafe fn dotprod_rows<const ROWS: usize>(panel: &IntegerPanel, tile: Tile) {
    // SAFETY: the caller's promise covers every read and write; `sdot` belongs to the set that this function is for.
    unsafe {
        let mut totals = load::<ROWS>(&tile);
        for group in 0..panel.k / panel.shape.group {
            let mut sums = [[vdupq_n_s32(0); 4]; ROWS];
            for quad in 0..panel.shape.group / 16 {
                let first = group * panel.shape.group + quad * 16;
                let mut x = [vdupq_n_s8(0); ROWS];
                for i in 0..ROWS {
                    x[i] = vld1q_s8(tile.x.codes.add(i * tile.x.row_len + first));
                }
                macro_rules! step {
                    ($lane:literal) => {
                        let line = panel.codes.as_ptr().add(first / 4 + $lane).cast::<i8>();
                        let mut weights = [vdupq_n_s8(0); 4];
                        for side in 0..4 {
                            weights[side] = vld1q_s8(line.add(side * 16));
                        }
                        for i in 0..ROWS {
                            for side in 0..4 {
                                sdot_lane!(sums[i][side], weights[side], x[i], $lane);
                            }
                        }
                    };
                }
                step!(0);
                step!(1);
                step!(2);
                step!(3);
            }
            for i in 0..ROWS {
                add_group(panel, &tile, GroupOfRow { group, row: i }, sums[i], &mut totals[i]);
            }
        }
        store(&tile, &totals);
    }
}
