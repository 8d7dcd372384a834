//! The panel product with AVX2, which multiplies unsigned by signed bytes and adds neighbours in 16 bits.
//!
//! Several such steps are added in 16 bits before they are widened: as many as cannot overflow. With activations within
//! ±127 a step adds at most 2 · 127 · code: eight steps of 4-bit codes (30,480), four of 5-bit (31,496) and two of 6-bit
//! ones (32,004) stay below 2¹⁵. Codes of eight bits are multiplied as two 4-bit halves.

use std::arch::x86_64::*;

use crate::activation::{ACTIVATION_BLOCK, QuantizedRow, SUM_BLOCK};
use crate::kernels::{Arrangement, IntegerPanel, IntegerRows, PANEL_ROWS, TileOut, check_product};

/// Rows of activations in a register tile.
const TILE_ROWS: usize = 4;

/// `x` times the offset of a symmetric format's stored codes, half their range.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn times_offset<const BITS: u32>(x: __m256i) -> __m256i {
    match BITS {
        4 => _mm256_slli_epi32::<3>(x),
        5 => _mm256_slli_epi32::<4>(x),
        6 => _mm256_slli_epi32::<5>(x),
        _ => _mm256_slli_epi32::<7>(x),
    }
}

/// Adds the products of neighbouring bytes of `STEPS` steps, in 16 bits: two vectors of weights a step times four codes of
/// each row. Assembly keeps the order of the additions and the accumulators in registers; from intrinsics the compiler
/// finishes one row after another and spills the weights. The totals are named, though not touched, so that they stay in
/// memory, aligned, instead of being spilled around this.
macro_rules! add_steps {
    ($steps:expr, $weights:expr, $totals:expr, [$($row:ident $low:ident $high:ident = $index:literal),*], $codes:ident, $sums:ident) => {{
        $(let $row = $codes[$index];
        let [mut $low, mut $high] = $sums[$index];)*
        std::arch::asm!(
            "/* {totals} stay in memory */",
            ".set gemmule_step, 0",
            ".rept {steps}",
            "vmovdqa {first}, ymmword ptr [{weights} + 64 * gemmule_step]",
            "vmovdqa {second}, ymmword ptr [{weights} + 64 * gemmule_step + 32]",
            $(
                concat!("vpbroadcastd {x}, dword ptr [{", stringify!($row), "} + 4 * gemmule_step]"),
                "vpmaddubsw {products}, {first}, {x}",
                concat!("vpaddw {", stringify!($low), "}, {", stringify!($low), "}, {products}"),
                "vpmaddubsw {x}, {second}, {x}",
                concat!("vpaddw {", stringify!($high), "}, {", stringify!($high), "}, {x}"),
            )*
            ".set gemmule_step, gemmule_step + 1",
            ".endr",
            steps = const $steps,
            totals = in(reg) $totals,
            weights = in(reg) $weights,
            first = out(ymm_reg) _,
            second = out(ymm_reg) _,
            x = out(ymm_reg) _,
            products = out(ymm_reg) _,
            $($row = in(reg) $row, $low = inout(ymm_reg) $low, $high = inout(ymm_reg) $high,)*
            options(nostack, preserves_flags),
        );
        $($sums[$index] = [$low, $high];)*
    }};
}

/// A tile's results so far.
#[repr(C, align(64))]
struct Totals<const ROWS: usize>([[__m256; 2]; ROWS]);

/// Adds `STEPS` steps of a tile to `sums`, in 16 bits.
///
/// # Safety
/// `64 * STEPS` bytes, aligned to 32, are readable at `weights`, and `4 * STEPS` at each of `codes`.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn add_narrow<const ROWS: usize, const STEPS: usize>(
    weights: *const __m256i,
    codes: [*const i8; ROWS],
    mut sums: [[__m256i; 2]; ROWS],
    totals: &mut Totals<ROWS>,
) -> [[__m256i; 2]; ROWS] {
    // SAFETY: the caller's promise; only AVX2 instructions on registers and those bytes.
    unsafe {
        let totals: *mut Totals<ROWS> = totals;
        match ROWS {
            1 => add_steps!(STEPS, weights, totals, [a a0 a1 = 0], codes, sums),
            2 => add_steps!(STEPS, weights, totals, [a a0 a1 = 0, b b0 b1 = 1], codes, sums),
            3 => add_steps!(STEPS, weights, totals, [a a0 a1 = 0, b b0 b1 = 1, c c0 c1 = 2], codes, sums),
            _ => add_steps!(STEPS, weights, totals, [a a0 a1 = 0, b b0 b1 = 1, c c0 c1 = 2, d d0 d1 = 3], codes, sums),
        }
    }
    sums
}

/// All of `x` times a panel. `BITS` are those of a stored code; a symmetric format's offset is half its range.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn tile<const GROUP: usize, const BITS: u32, const BIASED: bool>(
    panel: &IntegerPanel,
    x: IntegerRows<'_>,
    out: TileOut<'_>,
) {
    let split = BITS == 8;
    assert!(panel.arrangement == if split { Arrangement::Nibbles } else { Arrangement::StoredQuads });
    assert!(panel.codes.len() * 64 >= panel.k * PANEL_ROWS * if split { 2 } else { 1 });
    check_product(panel, &x, &out);
    let mut row = 0;
    while row < x.rows {
        let first = (x.values.rows_from(x.first + row), x.values.k(), x.column);
        // Without a split, one pass makes all sixteen columns; with it, each pass makes eight.
        for pass in 0..if split { 2 } else { 1 } {
            // SAFETY: sizes are asserted above; `pass` is below the number of passes.
            unsafe {
                let target = out.values.as_mut_ptr().add(row * out.stride + pass * 8);
                let target = (target, out.stride, out.accumulate);
                match x.rows - row {
                    1 => rows_of_tile::<1, GROUP, BITS, BIASED>(panel, pass, first, target),
                    2 => rows_of_tile::<2, GROUP, BITS, BIASED>(panel, pass, first, target),
                    3 => rows_of_tile::<3, GROUP, BITS, BIASED>(panel, pass, first, target),
                    _ => rows_of_tile::<4, GROUP, BITS, BIASED>(panel, pass, first, target),
                }
            }
        }
        row += TILE_ROWS;
    }
}

/// `ROWS` rows of activations, of which `x` is the first, times 16 columns of a panel, or 8 where codes are split.
///
/// # Safety
/// The panel holds what its `k` says, `ROWS` rows of activations follow each other in their buffer, `column + k` values
/// lie in each, and `ROWS` rows of results at `out`, `stride` apart.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn rows_of_tile<const ROWS: usize, const GROUP: usize, const BITS: u32, const BIASED: bool>(
    panel: &IntegerPanel,
    pass: usize,
    (x, row_len, column): (QuantizedRow<'_>, usize, usize),
    (out, stride, accumulate): (*mut f32, usize, bool),
) {
    let split = BITS == 8;
    let sides = if split { 1 } else { 2 };
    let (k, blocks) = (panel.k, row_len / ACTIVATION_BLOCK);
    let first_block = column / ACTIVATION_BLOCK;
    let ones = _mm256_set1_epi16(1);
    // SAFETY: the caller's promise covers every read and write below.
    unsafe {
        let lines = panel.codes.as_ptr().cast::<__m256i>().add(pass * (k / 4) * 2);
        let codes = x.codes.as_ptr().add(column);
        let scales = x.scales.as_ptr().add(first_block);
        let mut totals = Totals([[_mm256_setzero_ps(); 2]; ROWS]);
        if accumulate {
            for i in 0..ROWS {
                for side in 0..sides {
                    totals.0[i][side] = _mm256_loadu_ps(out.add(i * stride + side * 8));
                }
            }
        }
        for group in 0..k / GROUP {
            let block = group * GROUP / ACTIVATION_BLOCK;
            let mut sums = [[_mm256_setzero_si256(); 2]; ROWS];
            let stretch = match BITS {
                6 => 2,
                5 => 4,
                _ => 8,
            };
            for start in (0..GROUP / 4).step_by(stretch) {
                let at = group * (GROUP / 4) + start;
                let mut narrow = [[_mm256_setzero_si256(); 2]; ROWS];
                let mut parts = [std::ptr::null(); ROWS];
                for i in 0..ROWS {
                    parts[i] = codes.add(i * row_len + at * 4);
                    // Halves of eight bits are offset in the upper half only: 16 · (high − 8) + low.
                    if !BIASED && (BITS == 4 || split) {
                        let offsets = x.nibble_offsets.as_ptr().add(first_block + i * blocks + block);
                        let offsets = _mm256_set1_epi32(offsets.cast::<i32>().read_unaligned());
                        narrow[i] = [if split { _mm256_setzero_si256() } else { offsets }, offsets];
                    }
                }
                let weights = lines.add(at * 2);
                narrow = match BITS {
                    6 => add_narrow::<ROWS, 2>(weights, parts, narrow, &mut totals),
                    5 => add_narrow::<ROWS, 4>(weights, parts, narrow, &mut totals),
                    _ => add_narrow::<ROWS, 8>(weights, parts, narrow, &mut totals),
                };
                for i in 0..ROWS {
                    for side in 0..2 {
                        sums[i][side] = _mm256_add_epi32(sums[i][side], _mm256_madd_epi16(narrow[i][side], ones));
                    }
                }
            }
            for i in 0..ROWS {
                if split {
                    sums[i][0] = _mm256_add_epi32(sums[i][0], _mm256_slli_epi32::<4>(sums[i][1]));
                }
                let scale = _mm256_broadcast_ss(&*scales.add(i * blocks + block));
                for side in 0..sides {
                    if !BIASED && (BITS == 5 || BITS == 6) {
                        let code_sum = if GROUP == SUM_BLOCK {
                            *x.half_sums.as_ptr().add((first_block + i * blocks) * 2 + group)
                        } else {
                            *x.block_sums.as_ptr().add(first_block + i * blocks + block)
                        };
                        let offset = times_offset::<BITS>(_mm256_set1_epi32(code_sum));
                        sums[i][side] = _mm256_sub_epi32(sums[i][side], offset);
                    }
                    let at = group * PANEL_ROWS + (pass + side) * 8;
                    let factor = _mm256_mul_ps(_mm256_loadu_ps(panel.scales.as_ptr().add(at)), scale);
                    totals.0[i][side] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sums[i][side]), factor, totals.0[i][side]);
                    if BIASED {
                        let bias = _mm256_loadu_ps(panel.biases.as_ptr().add(at));
                        let sum = _mm256_broadcast_ss(&*x.sums.as_ptr().add(first_block + i * blocks + block));
                        totals.0[i][side] = _mm256_fmadd_ps(bias, sum, totals.0[i][side]);
                    }
                }
            }
        }
        for i in 0..ROWS {
            for side in 0..sides {
                _mm256_storeu_ps(out.add(i * stride + side * 8), totals.0[i][side]);
            }
        }
    }
}
