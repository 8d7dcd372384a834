//! What the panel products of the ARM tiers share.

use std::arch::aarch64::*;

use super::super::operands::{ActivationPointers, IntegerPanel, OutPointer, PANEL_ROWS};
use crate::activation::ACTIVATION_BLOCK;

/// The rows of a tile: activations, and results.
#[derive(Clone, Copy)]
pub(super) struct Tile {
    pub(super) x: ActivationPointers,
    pub(super) out: OutPointer,
}

/// A group of a row of activations.
#[derive(Clone, Copy)]
pub(super) struct GroupOfRow {
    pub(super) group: usize,
    pub(super) row: usize,
}

/// Calls `$tile::<ROWS>` for at most four rows at a time.
macro_rules! in_tiles {
    ($panel:ident, $x:ident, $out:ident, $most:literal, $tile:ident) => {
        let (mut row, all, out) = (0, ActivationPointers::new(&$x), $out.pointer());
        while row < $x.rows {
            let tile = Tile { x: all.at_row(row), out: out.at_row(row) };
            let rows = ($x.rows - row).min($most);
            // SAFETY: the caller's promise, of these rows.
            unsafe {
                match rows {
                    4 => $tile::<4>($panel, tile),
                    3 => $tile::<3>($panel, tile),
                    2 => $tile::<2>($panel, tile),
                    _ => $tile::<1>($panel, tile),
                }
            }
            row += rows;
        }
    };
}
pub(super) use in_tiles;

/// Adds a group's sums, times scales, to a row's totals.
///
/// # Safety
/// The panel has the group, and the tile's activations have the row and what belongs to the group.
#[inline]
#[target_feature(enable = "neon")]
pub(super) unsafe fn add_group(
    panel: &IntegerPanel,
    tile: &Tile,
    GroupOfRow { group, row }: GroupOfRow,
    sums: [int32x4_t; 4],
    totals: &mut [float32x4_t; 4],
) {
    // SAFETY: the caller's promise.
    unsafe {
        let block = row * tile.x.row_blocks() + group * panel.shape.group / ACTIVATION_BLOCK;
        let scale = *tile.x.scales.add(block);
        for side in 0..4 {
            let weights = vld1q_f32(panel.scales.as_ptr().add(group * PANEL_ROWS + side * 4));
            totals[side] = vfmaq_f32(totals[side], vcvtq_f32_s32(sums[side]), vmulq_n_f32(weights, scale));
        }
        if !panel.biases.is_empty() {
            let sum = *tile.x.sums.add(block);
            for side in 0..4 {
                let biases = vld1q_f32(panel.biases.as_ptr().add(group * PANEL_ROWS + side * 4));
                totals[side] = vfmaq_n_f32(totals[side], biases, sum);
            }
        }
    }
}

/// # Safety
/// `ROWS` rows of [`PANEL_ROWS`] results are readable and writable.
#[inline]
#[target_feature(enable = "neon")]
pub(super) unsafe fn load<const ROWS: usize>(tile: &Tile) -> [[float32x4_t; 4]; ROWS] {
    let mut totals = [[vdupq_n_f32(0.0); 4]; ROWS];
    if tile.out.accumulate {
        for i in 0..ROWS {
            for side in 0..4 {
                // SAFETY: the caller's promise.
                totals[i][side] = unsafe { vld1q_f32(tile.out.values.add(i * tile.out.stride + side * 4)) };
            }
        }
    }
    totals
}

/// # Safety
/// As [`load`].
#[inline]
#[target_feature(enable = "neon")]
pub(super) unsafe fn store<const ROWS: usize>(tile: &Tile, totals: &[[float32x4_t; 4]; ROWS]) {
    for i in 0..ROWS {
        for side in 0..4 {
            // SAFETY: the caller's promise.
            unsafe { vst1q_f32(tile.out.values.add(i * tile.out.stride + side * 4), totals[i][side]) };
        }
    }
}
