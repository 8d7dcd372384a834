//! Integer panel products with AVX-512 without dot products of bytes. A register holds all sixteen columns of a panel.
//!
//! Codes lie as the AVX2 products have them (`avx2/tiles.rs`, which shows why no sum leaves 16 bits): codes of up to six bits are
//! multiplied as bytes whose products are added in 16 bits over a whole group, codes of eight bits in pairs of 16 bits.

use std::arch::x86_64::*;

use crate::activation::ACTIVATION_BLOCK;
use crate::kernels::operands::{ActivationPointers, IntegerPanel, IntegerRows, OutPointer, PANEL_ROWS, Shape, TileOut};

/// As [`Kernels::integer_tile`](crate::Kernels::integer_tile).
///
/// # Safety
/// The operands are what [`check_integer_tile`](crate::kernels::operands::check_integer_tile) asserts, and the panel was packed as
/// AVX2 packs.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub(super) unsafe fn integer_tile(panel: &IntegerPanel, x: IntegerRows<'_>, out: TileOut<'_>) {
    // SAFETY: the caller's promise.
    unsafe {
        match panel.shape {
            Shape { group: 32, bits: 4, biased: false } => tile::<32, 4, false>(panel, x, out),
            Shape { group: 32, bits: 4, biased: true } => tile::<32, 4, true>(panel, x, out),
            Shape { group: 32, bits: 5, biased: false } => tile::<32, 5, false>(panel, x, out),
            Shape { group: 32, bits: 5, biased: true } => tile::<32, 5, true>(panel, x, out),
            Shape { group: 16, bits: 6, biased: false } => tile::<16, 6, false>(panel, x, out),
            Shape { group: 32, bits: 8, biased: false } => tile::<32, 8, false>(panel, x, out),
            _ => unreachable!("panels of other shapes are portable"),
        }
    }
}

/// All of `x` times a panel.
///
/// # Safety
/// As [`integer_tile`]; the panel is of that shape.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn tile<const GROUP: usize, const BITS: u32, const BIASED: bool>(
    panel: &IntegerPanel,
    x: IntegerRows<'_>,
    mut out: TileOut<'_>,
) {
    let (all, out) = (ActivationPointers::new(&x), out.pointer());
    let mut row = 0;
    while row < x.rows {
        let (activations, target) = (all.at_row(row), out.at_row(row));
        // SAFETY: the caller's promise, of these rows.
        unsafe {
            row += match x.rows - row {
                8.. => rows_of_tile::<8, GROUP, BITS, BIASED>(panel, activations, target),
                4.. => rows_of_tile::<4, GROUP, BITS, BIASED>(panel, activations, target),
                _ => rows_of_tile::<1, GROUP, BITS, BIASED>(panel, activations, target),
            };
        }
    }
}

/// `ROWS` rows of activations, of which `x` is the first, times a panel; returns `ROWS`.
///
/// # Safety
/// As [`integer_tile`], for `ROWS` rows; the panel is of that shape.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn rows_of_tile<const ROWS: usize, const GROUP: usize, const BITS: u32, const BIASED: bool>(
    panel: &IntegerPanel,
    x: ActivationPointers,
    out: OutPointer,
) -> usize {
    // Whether sums are in 16 bits until a group's end, and begin with what codes stored around half their range add too much.
    let narrow = BITS < 8;
    let offset = narrow && (BITS == 5 || !BIASED);
    let blocks = x.row_blocks();
    // SAFETY: the caller's promise: codes, scales and biases of the panel's groups, `panel.k` codes of each row and what
    // belongs to their blocks, and sixteen results of each row.
    unsafe {
        let lines = panel.codes.as_ptr().cast::<__m512i>();
        let mut totals = [_mm512_setzero_ps(); ROWS];
        if out.accumulate {
            for i in 0..ROWS {
                totals[i] = _mm512_loadu_ps(out.values.add(i * out.stride));
            }
        }
        for group in 0..panel.k / GROUP {
            let block = group * GROUP / ACTIVATION_BLOCK;
            let mut sums = [_mm512_setzero_si512(); ROWS];
            if offset {
                for i in 0..ROWS {
                    sums[i] = first_sums::<GROUP, BITS>(
                        x,
                        i * blocks + block,
                        !(group * GROUP).is_multiple_of(ACTIVATION_BLOCK),
                    );
                }
            }
            if narrow {
                for step in group * (GROUP / 4)..(group + 1) * (GROUP / 4) {
                    let weights = _mm512_load_si512(lines.add(step));
                    for i in 0..ROWS {
                        let four = x.codes.add(i * x.row_len + step * 4).cast::<i32>().read_unaligned();
                        let products = _mm512_maddubs_epi16(weights, _mm512_set1_epi32(four));
                        sums[i] = _mm512_add_epi16(sums[i], products);
                    }
                }
                for sums in &mut sums {
                    *sums = _mm512_madd_epi16(*sums, _mm512_set1_epi16(1));
                }
            } else {
                for step in group * (GROUP / 2)..(group + 1) * (GROUP / 2) {
                    let weights = _mm512_load_si512(lines.add(step));
                    for i in 0..ROWS {
                        let pair = x.codes.add(i * x.row_len + step * 2).cast::<[i8; 2]>().read_unaligned();
                        let pair = i32::from(pair[1]) << 16 | i32::from(pair[0]) & 0xffff;
                        let products = _mm512_madd_epi16(weights, _mm512_set1_epi32(pair));
                        sums[i] = _mm512_add_epi32(sums[i], products);
                    }
                }
            }
            let scales = _mm512_loadu_ps(panel.scales.as_ptr().add(group * PANEL_ROWS));
            for i in 0..ROWS {
                let factor = _mm512_mul_ps(scales, _mm512_set1_ps(*x.scales.add(i * blocks + block)));
                totals[i] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sums[i]), factor, totals[i]);
                if BIASED {
                    let biases = _mm512_loadu_ps(panel.biases.as_ptr().add(group * PANEL_ROWS));
                    totals[i] = _mm512_fmadd_ps(biases, _mm512_set1_ps(*x.sums.add(i * blocks + block)), totals[i]);
                }
            }
        }
        for i in 0..ROWS {
            _mm512_storeu_ps(out.values.add(i * out.stride), totals[i]);
        }
    }
    ROWS
}

/// What codes stored around half their range add too much, taken negative, in pairs of 16 bits.
///
/// # Safety
/// The block's [`pair_offsets`](crate::QuantizedRow::pair_offsets) are readable.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn first_sums<const GROUP: usize, const BITS: u32>(
    x: ActivationPointers,
    block: usize,
    second_half: bool,
) -> __m512i {
    // SAFETY: the caller's promise.
    let [all, first] = unsafe { *x.pair_offsets.add(block) };
    let pair = |pair: [i16; 2]| _mm512_set1_epi32(i32::from(pair[1]) << 16 | i32::from(pair[0]) & 0xffff);
    let offsets = match (GROUP == ACTIVATION_BLOCK, second_half) {
        (true, _) => pair(all),
        (false, false) => pair(first),
        // Of the second half: the block's less the first half's.
        (false, true) => _mm512_sub_epi16(pair(all), pair(first)),
    };
    // They are those of 4-bit codes.
    match BITS {
        4 => offsets,
        5 => _mm512_slli_epi16::<1>(offsets),
        _ => _mm512_slli_epi16::<2>(offsets),
    }
}
