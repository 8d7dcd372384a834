//! Integer panel products with AVX-512 and VNNI: a register holds all sixteen columns of a panel.

use std::arch::asm;
use std::arch::x86_64::*;

use super::six_rows::{self, Activations, Groups, Panels};
use crate::activation::{ACTIVATION_BLOCK, SUM_BLOCK};
use crate::kernels::operands::{ActivationPointers, IntegerPanel, IntegerRows, OutPointer, PANEL_ROWS, Shape, TileOut};

/// Groups whose sums' first values are made together: the offset of unsigned codes, taken off before the products are added.
const STARTS: usize = six_rows::GROUPS;

/// As [`Kernels::integer_tile`](crate::Kernels::integer_tile).
///
/// # Safety
/// The operands are what [`check_integer_tile`](crate::kernels::operands::check_integer_tile) asserts, and the panel's arrangement
/// is [`StoredQuads`](crate::kernels::operands::Arrangement::StoredQuads).
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub(super) unsafe fn integer_tile(panel: &IntegerPanel, x: IntegerRows<'_>, out: TileOut<'_>) {
    // SAFETY: the caller's promise.
    unsafe { panels_of_a_shape([panel], x, out) }
}

/// As [`integer_tile`] for two panels: four activations that are read serve both, while each product of one panel reads its own, and
/// reading bounds it.
///
/// # Safety
/// As [`integer_tile`] for each panel, the second's results behind the first's; both are of one shape and depth.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub(super) unsafe fn two_integer_tiles(panels: [&IntegerPanel; 2], x: IntegerRows<'_>, out: TileOut<'_>) {
    // SAFETY: the caller's promise.
    unsafe { panels_of_a_shape(panels, x, out) }
}

/// # Safety
/// As [`integer_tile`] for each panel.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn panels_of_a_shape<const PANELS: usize>(
    panels: [&IntegerPanel; PANELS],
    x: IntegerRows<'_>,
    out: TileOut<'_>,
) {
    // SAFETY: the caller's promise.
    unsafe {
        match panels[0].shape {
            Shape { group: 32, biased: true, .. } => tile::<PANELS, 32, 0, true>(panels, x, out),
            Shape { group: 32, bits: 4, .. } => tile::<PANELS, 32, 4, false>(panels, x, out),
            Shape { group: 32, bits: 5, .. } => tile::<PANELS, 32, 5, false>(panels, x, out),
            Shape { group: 16, bits: 6, .. } => tile::<PANELS, 16, 6, false>(panels, x, out),
            Shape { group: 32, bits: 8, .. } => tile::<PANELS, 32, 8, false>(panels, x, out),
            _ => unreachable!("panels of other shapes are portable"),
        }
    }
}

/// All of `x` times panels of one shape. `BITS` are those of a stored code without biases: its offset is half its range.
///
/// # Safety
/// As [`integer_tile`] for each panel.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn tile<const PANELS: usize, const GROUP: usize, const BITS: u32, const BIASED: bool>(
    panels: [&IntegerPanel; PANELS],
    x: IntegerRows<'_>,
    mut out: TileOut<'_>,
) {
    let (all, out) = (ActivationPointers::new(&x), out.pointer());
    let mut row = 0;
    while row < x.rows {
        let (activations, target) = (all.at_row(row), out.at_row(row));
        // SAFETY: the caller's promise, of these rows.
        unsafe {
            // As many independent sums as hide the latency of two products a cycle.
            row += match (PANELS, x.rows - row) {
                (1, 12..) => rows_of_tile::<12, PANELS, GROUP, BITS, BIASED>(panels, activations, target),
                (1, 4..) => rows_of_tile::<4, PANELS, GROUP, BITS, BIASED>(panels, activations, target),
                (2, six_rows::ROWS..) => six_rows_of_tile::<GROUP, BITS, BIASED>(&panels, activations, target),
                (_, 3..) => rows_of_tile::<3, PANELS, GROUP, BITS, BIASED>(panels, activations, target),
                _ => rows_of_tile::<1, PANELS, GROUP, BITS, BIASED>(panels, activations, target),
            };
        }
    }
}

/// `x` times the offset of a symmetric format's stored codes.
#[inline]
#[target_feature(enable = "avx512f")]
fn times_offset<const BITS: u32>(x: __m512i) -> __m512i {
    match BITS {
        4 => _mm512_slli_epi32::<3>(x),
        5 => _mm512_slli_epi32::<4>(x),
        6 => _mm512_slli_epi32::<5>(x),
        _ => _mm512_slli_epi32::<7>(x),
    }
}

/// Where the sums of up to [`STARTS`] groups begin, of which `first` is the first: the offset of the stored codes taken off.
///
/// # Safety
/// There are so many groups.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn starts<const GROUP: usize, const BITS: u32>(x: ActivationPointers, first: usize, count: usize) -> __m512i {
    // SAFETY: the mask has a bit for each of the caller's groups.
    let code_sums = unsafe {
        let code_sums = if GROUP == SUM_BLOCK { x.half_sums } else { x.block_sums };
        _mm512_maskz_loadu_epi32(u16::MAX >> (STARTS - count), code_sums.add(first))
    };
    _mm512_sub_epi32(_mm512_setzero_si512(), times_offset::<BITS>(code_sums))
}

/// What up to sixteen groups have of the blocks of activations that they belong to, the first of which is at `of_blocks`.
///
/// # Safety
/// The blocks of so many groups lie there.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn load_of_groups<const GROUP: usize>(of_blocks: *const f32, count: usize) -> __m512 {
    let blocks = (count * GROUP).div_ceil(ACTIVATION_BLOCK);
    // SAFETY: the mask has a bit for each of the caller's blocks.
    let values = unsafe { _mm512_maskz_loadu_ps(u16::MAX >> (16 - blocks), of_blocks) };
    if GROUP == ACTIVATION_BLOCK {
        return values;
    }
    // Two groups share a block.
    _mm512_permutexvar_ps(_mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7), values)
}

/// Adds the products of a line of each panel and four codes of each of `ROWS` rows, `stride` apart.
///
/// Four rows at a time of one panel are written as instructions: from intrinsics the compiler takes row after row, a chain of sums
/// that takes longer than the products.
///
/// # Safety
/// Four codes are readable at each of `ROWS` rows, `stride` bytes apart, and an aligned line at every pointer of `lines`.
#[inline]
#[target_feature(enable = "avx512f,avx512vnni")]
unsafe fn add_products<const ROWS: usize, const PANELS: usize>(
    sums: &mut [[__m512i; PANELS]; ROWS],
    lines: [*const __m512i; PANELS],
    x: *const i8,
    stride: usize,
) {
    // SAFETY: reads of what the caller promises.
    unsafe {
        match (&lines[..], sums.as_flattened_mut()) {
            (&[line], sums) if ROWS.is_multiple_of(4) => {
                let weights = _mm512_load_si512(line);
                for (four, [a, b, c, d]) in sums.as_chunks_mut::<4>().0.iter_mut().enumerate() {
                    asm!(
                        "vpdpbusd {a}, {weights}, dword ptr [{x}]{{1to16}}",
                        "vpdpbusd {b}, {weights}, dword ptr [{x} + {stride}]{{1to16}}",
                        "vpdpbusd {c}, {weights}, dword ptr [{x} + 2*{stride}]{{1to16}}",
                        "vpdpbusd {d}, {weights}, dword ptr [{x} + {thrice}]{{1to16}}",
                        a = inout(zmm_reg) *a,
                        b = inout(zmm_reg) *b,
                        c = inout(zmm_reg) *c,
                        d = inout(zmm_reg) *d,
                        weights = in(zmm_reg) weights,
                        x = in(reg) x.add(four * 4 * stride),
                        stride = in(reg) stride,
                        thrice = in(reg) 3 * stride,
                        options(readonly, nostack, preserves_flags),
                    );
                }
            }
            (_, sums) => {
                for (index, sum) in sums.iter_mut().enumerate() {
                    let x = x.add(index / PANELS * stride).cast::<i32>().read_unaligned();
                    let weights = _mm512_load_si512(lines[index % PANELS]);
                    *sum = _mm512_dpbusd_epi32(*sum, weights, _mm512_set1_epi32(x));
                }
            }
        }
    }
}

/// `ROWS` rows of activations, of which `x` is the first, times panels; returns `ROWS`.
///
/// # Safety
/// As [`integer_tile`] for each panel, for `ROWS` rows.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn rows_of_tile<
    const ROWS: usize,
    const PANELS: usize,
    const GROUP: usize,
    const BITS: u32,
    const BIASED: bool,
>(
    panels: [&IntegerPanel; PANELS],
    x: ActivationPointers,
    out: OutPointer,
) -> usize {
    let (blocks, row_len) = (x.row_blocks(), x.row_len);
    // SAFETY: the caller's promise covers every read and write below.
    unsafe {
        let lines = panels.map(|panel| panel.codes.as_ptr().cast::<__m512i>());
        let codes = x.codes;
        let mut totals = [[_mm512_setzero_ps(); PANELS]; ROWS];
        if out.accumulate {
            for i in 0..ROWS {
                for j in 0..PANELS {
                    totals[i][j] = _mm512_loadu_ps(out.values.add(i * out.stride + j * PANEL_ROWS));
                }
            }
        }
        let groups = panels[0].k / GROUP;
        let mut starts = [[0; STARTS]; ROWS];
        for first in (0..groups).step_by(STARTS) {
            let last = groups.min(first + STARTS);
            if !BIASED {
                for i in 0..ROWS {
                    let start = self::starts::<GROUP, BITS>(x, i * row_len / GROUP + first, last - first);
                    _mm512_storeu_si512(starts[i].as_mut_ptr().cast(), start);
                }
            }
            for group in first..last {
                let mut sums = [[_mm512_setzero_si512(); PANELS]; ROWS];
                for i in 0..ROWS {
                    sums[i] = [_mm512_set1_epi32(starts[i][group - first]); PANELS];
                }
                if (group * GROUP).is_multiple_of(64) {
                    // The rows of the next tile: in the second-level cache, a line of them for two groups.
                    for i in 0..ROWS {
                        let next = codes.wrapping_add((ROWS + i) * row_len + group * GROUP);
                        _mm_prefetch::<_MM_HINT_T0>(next.cast());
                    }
                }
                for step in 0..GROUP / 4 {
                    let lines = lines.map(|lines| lines.add(group * (GROUP / 4) + step));
                    add_products(&mut sums, lines, codes.add(group * GROUP + step * 4), row_len);
                }
                let block = group * GROUP / ACTIVATION_BLOCK;
                let scales = panels.map(|panel| _mm512_loadu_ps(panel.scales.as_ptr().add(group * PANEL_ROWS)));
                for i in 0..ROWS {
                    let scale = _mm512_set1_ps(*x.scales.add(i * blocks + block));
                    for j in 0..PANELS {
                        let factor = _mm512_mul_ps(scales[j], scale);
                        totals[i][j] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sums[i][j]), factor, totals[i][j]);
                        if BIASED {
                            let biases = _mm512_loadu_ps(panels[j].biases.as_ptr().add(group * PANEL_ROWS));
                            let sum = _mm512_set1_ps(*x.sums.add(i * blocks + block));
                            totals[i][j] = _mm512_fmadd_ps(biases, sum, totals[i][j]);
                        }
                    }
                }
            }
        }
        for i in 0..ROWS {
            for j in 0..PANELS {
                _mm512_storeu_ps(out.values.add(i * out.stride + j * PANEL_ROWS), totals[i][j]);
            }
        }
    }
    ROWS
}

/// As [`rows_of_tile`] for six rows and two panels.
///
/// # Safety
/// As there; two panels.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn six_rows_of_tile<const GROUP: usize, const BITS: u32, const BIASED: bool>(
    panels: &[&IntegerPanel],
    x: ActivationPointers,
    out: OutPointer,
) -> usize {
    let &[left, right] = panels else { unreachable!("two panels") };
    let (blocks, row_len, all) = (x.row_blocks(), x.row_len, left.k / GROUP);
    // SAFETY: the caller's promise covers every read and write below.
    unsafe {
        let mut totals = [[_mm512_setzero_ps(); 2]; six_rows::ROWS];
        let target = |row: usize, panel: usize| out.values.add(row * out.stride + panel * PANEL_ROWS);
        if out.accumulate {
            for row in 0..six_rows::ROWS {
                totals[row] = [_mm512_loadu_ps(target(row, 0)), _mm512_loadu_ps(target(row, 1))];
            }
        }
        let mut groups = Groups { starts: Default::default(), scales: Default::default(), sums: Default::default() };
        for first in (0..all).step_by(six_rows::GROUPS) {
            let count = six_rows::GROUPS.min(all - first);
            for row in 0..six_rows::ROWS {
                let block = row * blocks + first * GROUP / ACTIVATION_BLOCK;
                let scales = load_of_groups::<GROUP>(x.scales.add(block), count);
                _mm512_storeu_ps(groups.scales[row].as_mut_ptr(), scales);
                if BIASED {
                    let sums = load_of_groups::<GROUP>(x.sums.add(block), count);
                    _mm512_storeu_ps(groups.sums[row].as_mut_ptr(), sums);
                } else {
                    let starts = starts::<GROUP, BITS>(x, row * row_len / GROUP + first, count);
                    _mm512_storeu_si512(groups.starts[row].as_mut_ptr().cast(), starts);
                }
            }
            let lines_of = |panel: &IntegerPanel| panel.codes.as_ptr().cast::<__m512i>().add(first * GROUP / 4);
            let here = Panels {
                codes: [left, right].map(lines_of),
                scales: [left, right].map(|panel| panel.scales.as_ptr().add(first * PANEL_ROWS)),
                // Of formats without biases nobody looks there.
                biases: [left, right].map(|panel| panel.biases.as_ptr().wrapping_add(first * PANEL_ROWS)),
            };
            let activations =
                Activations { codes: x.codes.add(first * GROUP), stride: row_len, groups: &groups, count };
            six_rows::add_products::<GROUP, BIASED>(&mut totals, here, activations);
        }
        for row in 0..six_rows::ROWS {
            for panel in 0..2 {
                _mm512_storeu_ps(target(row, panel), totals[row][panel]);
            }
        }
    }
    six_rows::ROWS
}
