//! The panel product with AVX-VNNI: four products of bytes are added to 32-bit sums by one instruction, without saturation.

use std::arch::x86_64::*;

use super::super::panels;
use super::super::registers::keep_in_memory;
use crate::Format;
use crate::activation::{ACTIVATION_BLOCK, SUM_BLOCK};
use crate::kernels::operands::{
    ActivationPointers, Arrangement, IntegerPanel, IntegerRows, OutPointer, PANEL_ROWS, Shape, TileOut,
};

/// As [`Kernels::pack_integer`](crate::Kernels::pack_integer).
///
/// # Safety
/// The rows are what [`check_packed`](crate::kernels::operands::check_packed) asserts.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn pack_integer(format: Format, rows: &[&[u8]], k: usize, panel: &mut IntegerPanel) {
    // SAFETY: the caller's promise; the arrangements are those of x86.
    unsafe { panels::pack_format(format, |_| Arrangement::StoredQuads, rows, k, panel) }
}

/// As [`Kernels::integer_tile`](crate::Kernels::integer_tile).
///
/// # Safety
/// The operands are what [`check_integer_tile`](crate::kernels::operands::check_integer_tile) asserts, and the panel's arrangement
/// is [`Arrangement::StoredQuads`].
#[target_feature(enable = "avx2,fma,f16c,avxvnni")]
pub(super) unsafe fn integer_tile(panel: &IntegerPanel, x: IntegerRows<'_>, out: TileOut<'_>) {
    // SAFETY: the caller's promise.
    unsafe {
        match panel.shape {
            Shape { group: 32, biased: true, .. } => tile::<32, 0, true>(panel, x, out),
            Shape { group: 32, bits: 4, .. } => tile::<32, 4, false>(panel, x, out),
            Shape { group: 32, bits: 5, .. } => tile::<32, 5, false>(panel, x, out),
            Shape { group: 16, bits: 6, .. } => tile::<16, 6, false>(panel, x, out),
            Shape { group: 32, bits: 8, .. } => tile::<32, 8, false>(panel, x, out),
            _ => unreachable!("panels of other shapes are portable"),
        }
    }
}

/// A tile's results so far; kept in memory, aligned, rather than spilled.
#[repr(C, align(64))]
struct Totals<const ROWS: usize>([[__m256; 2]; ROWS]);

/// All of `x` times a panel. `BITS` are those of a stored code without biases: its offset is half its range.
///
/// # Safety
/// As [`integer_tile`]; the panel is of that shape.
#[target_feature(enable = "avx2,fma,f16c,avxvnni")]
unsafe fn tile<const GROUP: usize, const BITS: u32, const BIASED: bool>(
    panel: &IntegerPanel,
    x: IntegerRows<'_>,
    mut out: TileOut<'_>,
) {
    let (all, out) = (ActivationPointers::new(&x), out.pointer());
    for row in (0..x.rows).step_by(4) {
        let (activations, target) = (all.at_row(row), out.at_row(row));
        // SAFETY: the caller's promise, of these rows.
        unsafe {
            match x.rows - row {
                1 => rows_of_tile::<1, GROUP, BITS, BIASED>(panel, activations, target),
                2 => rows_of_tile::<2, GROUP, BITS, BIASED>(panel, activations, target),
                3 => rows_of_tile::<3, GROUP, BITS, BIASED>(panel, activations, target),
                _ => rows_of_tile::<4, GROUP, BITS, BIASED>(panel, activations, target),
            }
        }
    }
}

/// `x` times the offset of a symmetric format's stored codes, half their range.
#[inline]
#[target_feature(enable = "avx2")]
fn times_offset<const BITS: u32>(x: __m256i) -> __m256i {
    match BITS {
        4 => _mm256_slli_epi32::<3>(x),
        5 => _mm256_slli_epi32::<4>(x),
        6 => _mm256_slli_epi32::<5>(x),
        _ => _mm256_slli_epi32::<7>(x),
    }
}

/// `ROWS` rows of activations, of which `x` is the first, times a panel.
///
/// # Safety
/// As [`integer_tile`], for `ROWS` rows; the panel is of that shape.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avxvnni")]
unsafe fn rows_of_tile<const ROWS: usize, const GROUP: usize, const BITS: u32, const BIASED: bool>(
    panel: &IntegerPanel,
    x: ActivationPointers,
    out: OutPointer,
) {
    let blocks = x.row_blocks();
    // SAFETY: the caller's promise covers every read and write below.
    unsafe {
        let lines = panel.codes.as_ptr().cast::<__m256i>();
        let mut totals = Totals([[_mm256_setzero_ps(); 2]; ROWS]);
        if out.accumulate {
            for i in 0..ROWS {
                for side in 0..2 {
                    totals.0[i][side] = _mm256_loadu_ps(out.values.add(i * out.stride + side * 8));
                }
            }
        }
        for group in 0..panel.k / GROUP {
            keep_in_memory(&mut totals);
            let mut sums = [[_mm256_setzero_si256(); 2]; ROWS];
            for step in group * (GROUP / 4)..(group + 1) * (GROUP / 4) {
                let weights = [_mm256_load_si256(lines.add(step * 2)), _mm256_load_si256(lines.add(step * 2 + 1))];
                for i in 0..ROWS {
                    let four = x.codes.add(i * x.row_len + step * 4).cast::<i32>().read_unaligned();
                    for side in 0..2 {
                        sums[i][side] = _mm256_dpbusd_avx_epi32(sums[i][side], weights[side], _mm256_set1_epi32(four));
                    }
                }
            }
            let block = group * GROUP / ACTIVATION_BLOCK;
            for i in 0..ROWS {
                let scale = _mm256_broadcast_ss(&*x.scales.add(i * blocks + block));
                for side in 0..2 {
                    if !BIASED {
                        let code_sum = if GROUP == SUM_BLOCK {
                            *x.half_sums.add(i * blocks * 2 + group)
                        } else {
                            *x.block_sums.add(i * blocks + block)
                        };
                        let offset = times_offset::<BITS>(_mm256_set1_epi32(code_sum));
                        sums[i][side] = _mm256_sub_epi32(sums[i][side], offset);
                    }
                    let at = group * PANEL_ROWS + side * 8;
                    let factor = _mm256_mul_ps(_mm256_loadu_ps(panel.scales.as_ptr().add(at)), scale);
                    let total = &mut totals.0[i][side];
                    *total = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sums[i][side]), factor, *total);
                    if BIASED {
                        let bias = _mm256_loadu_ps(panel.biases.as_ptr().add(at));
                        let sum = _mm256_broadcast_ss(&*x.sums.add(i * blocks + block));
                        *total = _mm256_fmadd_ps(bias, sum, *total);
                    }
                }
            }
        }
        for i in 0..ROWS {
            for side in 0..2 {
                _mm256_storeu_ps(out.values.add(i * out.stride + side * 8), totals.0[i][side]);
            }
        }
    }
}
