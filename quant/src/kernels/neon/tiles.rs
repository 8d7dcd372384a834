//! The panel product in the three ways that ARM processors multiply bytes.

use std::arch::aarch64::*;
use std::arch::asm;

use crate::activation::{ACTIVATION_BLOCK, QuantizedRow};
use crate::kernels::{Arrangement, IntegerPanel, IntegerRows, PANEL_ROWS, TileOut, check_product};

/// What a tile reads and writes, as pointers: rows of activations follow each other at fixed distances.
#[derive(Clone, Copy)]
struct Tile {
    codes: *const i8,
    row_len: usize,
    scales: *const f32,
    sums: *const f32,
    blocks: usize,
    out: *mut f32,
    stride: usize,
    accumulate: bool,
}

impl Tile {
    /// Rows `row ..` of the activations and of the results.
    ///
    /// # Panics
    /// When the panel, the activations or the results are smaller than they say.
    fn new(
        panel: &IntegerPanel,
        arrangement: Arrangement,
        x: &IntegerRows<'_>,
        out: &mut TileOut<'_>,
        row: usize,
    ) -> Self {
        assert!(panel.arrangement == arrangement, "a panel of other kernels");
        assert!(panel.codes.len() * 64 >= panel.k * PANEL_ROWS);
        check_product(panel, x, out);
        assert!(row < x.rows);
        let QuantizedRow { codes, scales, sums, .. } = x.values.rows_from(x.first + row);
        let block = x.column / ACTIVATION_BLOCK;
        Self {
            codes: codes[x.column..].as_ptr(),
            row_len: x.values.k(),
            scales: scales[block..].as_ptr(),
            sums: sums[block..].as_ptr(),
            blocks: x.values.k() / ACTIVATION_BLOCK,
            out: out.values[row * out.stride..].as_mut_ptr(),
            stride: out.stride,
            accumulate: out.accumulate,
        }
    }
}

/// Calls `$tile::<ROWS>` for stretches of at most four rows.
macro_rules! in_tiles {
    ($panel:ident, $arrangement:expr, $x:ident, $out:ident, $most:literal, $tile:ident) => {
        let mut row = 0;
        while row < $x.rows {
            let tile = Tile::new($panel, $arrangement, &$x, &mut $out, row);
            let rows = ($x.rows - row).min($most);
            // SAFETY: `Tile::new` checked all sizes for these rows.
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

/// Adds a group's sums, times scales, to a row's totals.
///
/// # Safety
/// The tile's sizes were checked; `group` and `i` lie inside.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn add_group(
    panel: &IntegerPanel,
    tile: &Tile,
    (group, i): (usize, usize),
    sums: [int32x4_t; 4],
    totals: &mut [float32x4_t; 4],
) {
    // SAFETY: the caller's promise.
    unsafe {
        let block = i * tile.blocks + group * panel.group / ACTIVATION_BLOCK;
        let scale = *tile.scales.add(block);
        for side in 0..4 {
            let weights = vld1q_f32(panel.scales.as_ptr().add(group * PANEL_ROWS + side * 4));
            totals[side] = vfmaq_f32(totals[side], vcvtq_f32_s32(sums[side]), vmulq_n_f32(weights, scale));
        }
        if !panel.biases.is_empty() {
            let sum = *tile.sums.add(block);
            for side in 0..4 {
                let biases = vld1q_f32(panel.biases.as_ptr().add(group * PANEL_ROWS + side * 4));
                totals[side] = vfmaq_n_f32(totals[side], biases, sum);
            }
        }
    }
}

/// # Safety
/// `ROWS` rows of results lie at the tile's output.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn load<const ROWS: usize>(tile: &Tile) -> [[float32x4_t; 4]; ROWS] {
    let mut totals = [[vdupq_n_f32(0.0); 4]; ROWS];
    if tile.accumulate {
        for i in 0..ROWS {
            for side in 0..4 {
                // SAFETY: the caller's promise.
                totals[i][side] = unsafe { vld1q_f32(tile.out.add(i * tile.stride + side * 4)) };
            }
        }
    }
    totals
}

/// # Safety
/// As [`load`].
#[inline]
#[target_feature(enable = "neon")]
unsafe fn store<const ROWS: usize>(tile: &Tile, totals: &[[float32x4_t; 4]; ROWS]) {
    for i in 0..ROWS {
        for side in 0..4 {
            // SAFETY: the caller's promise.
            unsafe { vst1q_f32(tile.out.add(i * tile.stride + side * 4), totals[i][side]) };
        }
    }
}

/// With byte products widened to 16 bits.
#[target_feature(enable = "neon")]
pub(super) fn plain(panel: &IntegerPanel, x: IntegerRows<'_>, mut out: TileOut<'_>) {
    in_tiles!(panel, Arrangement::SignedQuads, x, out, 2, plain_rows);
}

/// Products are added in 16 bits before they are widened: codes of up to six bits for all steps of a group (8 · 31 · 127
/// and 4 · 32 · 127 are below 2¹⁵), codes of eight bits for two steps.
///
/// # Safety
/// The tile's sizes were checked for `ROWS` rows.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn plain_rows<const ROWS: usize>(panel: &IntegerPanel, tile: Tile) {
    // SAFETY: the caller's promise covers every read and write.
    unsafe {
        let mut totals = load::<ROWS>(&tile);
        let steps = panel.group / 4;
        let stretch = if panel.bits > 6 { 2 } else { steps };
        for group in 0..panel.k / panel.group {
            let mut sums = [[[vdupq_n_s32(0); 2]; 4]; ROWS];
            for start in (0..steps).step_by(stretch) {
                let mut narrow = [[[vdupq_n_s16(0); 2]; 4]; ROWS];
                for step in group * steps + start..group * steps + start + stretch {
                    let line = panel.codes.as_ptr().add(step).cast::<i8>();
                    let mut weights = [vdupq_n_s8(0); 4];
                    for side in 0..4 {
                        weights[side] = vld1q_s8(line.add(side * 16));
                    }
                    for i in 0..ROWS {
                        let x = tile.codes.add(i * tile.row_len + step * 4).cast::<i32>().read_unaligned();
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
                add_group(panel, &tile, (group, i), rows, &mut totals[i]);
            }
        }
        store(&tile, &totals);
    }
}

/// With four-way dot products.
#[target_feature(enable = "neon,dotprod")]
pub(super) fn dotprod(panel: &IntegerPanel, x: IntegerRows<'_>, mut out: TileOut<'_>) {
    in_tiles!(panel, Arrangement::SignedQuads, x, out, 4, dotprod_rows);
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
/// The tile's sizes were checked for `ROWS` rows.
#[inline]
#[target_feature(enable = "neon,dotprod")]
unsafe fn dotprod_rows<const ROWS: usize>(panel: &IntegerPanel, tile: Tile) {
    // SAFETY: the caller's promise covers every read and write; `sdot` belongs to the set that this function is for.
    unsafe {
        let mut totals = load::<ROWS>(&tile);
        for group in 0..panel.k / panel.group {
            let mut sums = [[vdupq_n_s32(0); 4]; ROWS];
            for quad in 0..panel.group / 16 {
                let first = group * panel.group + quad * 16;
                let mut x = [vdupq_n_s8(0); ROWS];
                for i in 0..ROWS {
                    x[i] = vld1q_s8(tile.codes.add(i * tile.row_len + first));
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
                add_group(panel, &tile, (group, i), sums[i], &mut totals[i]);
            }
        }
        store(&tile, &totals);
    }
}

/// With products of 2×8 by 8×2 matrices.
#[target_feature(enable = "neon,i8mm")]
pub(super) fn i8mm(panel: &IntegerPanel, x: IntegerRows<'_>, mut out: TileOut<'_>) {
    in_tiles!(panel, Arrangement::SignedOctets, x, out, 4, i8mm_rows);
}

/// # Safety
/// The tile's sizes were checked for `ROWS` rows.
#[inline]
#[target_feature(enable = "neon,i8mm")]
unsafe fn i8mm_rows<const ROWS: usize>(panel: &IntegerPanel, tile: Tile) {
    // SAFETY: the caller's promise covers every read and write; `smmla` belongs to the set that this function is for.
    unsafe {
        let mut totals = load::<ROWS>(&tile);
        for group in 0..panel.k / panel.group {
            // `sums[pair of rows][pair of columns]` is a 2×2 matrix; an odd last row is paired with itself.
            let mut sums = [[vdupq_n_s32(0); 8]; 2];
            for step in group * panel.group / 8..(group + 1) * panel.group / 8 {
                let line = panel.codes.as_ptr().add(step * 2).cast::<i8>();
                for pair in 0..ROWS.div_ceil(2) {
                    let row = |i: usize| vld1_s8(tile.codes.add(i.min(ROWS - 1) * tile.row_len + step * 8));
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
                add_group(panel, &tile, (group, i), rows, &mut totals[i]);
            }
        }
        store(&tile, &totals);
    }
}
