//! x86-64 with AVX-VNNI: four products of bytes are added to 32-bit sums by one 256-bit instruction, without saturation.

use std::arch::x86_64::*;
use std::ops::Range;

use super::avx2::Avx2;
use super::panels::pack;
use super::rows::keep_in_memory;
use super::rows::vnni::dot_integer;
use crate::activation::{ACTIVATION_BLOCK, QuantizedRow, SUM_BLOCK};
use crate::formats::with_block;
use crate::isa::{AvxVnniToken, Isa};
use crate::kernels::{Arrangement, IntegerPanel, IntegerRows, Kernels, PANEL_ROWS, TileOut, check_product, portable};
use crate::{Format, MatrixView};

/// The kernels; holding one proves that the CPU runs them.
#[derive(Clone, Copy, Debug)]
pub struct AvxVnni {
    base: Avx2,
    _proof: AvxVnniToken,
}

impl AvxVnni {
    /// The kernels, given the proof.
    pub fn new(proof: AvxVnniToken) -> Self {
        Self { base: Avx2::new(proof.avx2()), _proof: proof }
    }
}

/// Calls a `target_feature` function of this module.
macro_rules! proven {
    ($call:expr) => {
        // SAFETY: `self` holds an `AvxVnniToken`, which exists only where AVX-VNNI and AVX2 were detected.
        unsafe { $call }
    };
}

impl Kernels for AvxVnni {
    fn isa(&self) -> Isa {
        Isa::AvxVnni
    }
    fn base(&self) -> Option<&dyn Kernels> {
        Some(&self.base)
    }
    fn dot_integer(&self, weights: MatrixView<'_>, rows: Range<usize>, x: &[QuantizedRow<'_>], out: &mut [f32]) {
        with_block!(weights.format(), B => proven!(dot_integer::<B>(weights, rows, x, out)),
            else portable::dot_integer(weights, rows, x, out));
    }
    fn pack_integer(&self, format: Format, rows: &[&[u8]], k: usize, panel: &mut IntegerPanel) {
        with_block!(format, B => proven!(pack::<B>(rows, k, panel)),
            else portable::pack_integer(format, rows, k, panel));
    }
    fn integer_tile(&self, panel: &IntegerPanel, x: IntegerRows<'_>, out: TileOut<'_>) {
        proven!(integer_tile(panel, x, out));
    }
}

#[target_feature(enable = "avx2,fma,f16c,avxvnni")]
fn integer_tile(panel: &IntegerPanel, x: IntegerRows<'_>, out: TileOut<'_>) {
    match (panel.group, panel.bits, panel.biases.is_empty()) {
        (32, _, false) => tile::<32, 0, true>(panel, x, out),
        (32, 4, true) => tile::<32, 4, false>(panel, x, out),
        (32, 5, true) => tile::<32, 5, false>(panel, x, out),
        (16, 6, true) => tile::<16, 6, false>(panel, x, out),
        (32, 8, true) => tile::<32, 8, false>(panel, x, out),
        _ => unreachable!("no format has this shape"),
    }
}

/// A tile's results so far; kept in memory, aligned, rather than spilled.
#[repr(C, align(64))]
struct Totals<const ROWS: usize>([[__m256; 2]; ROWS]);

/// All of `x` times a panel. `BITS` are those of a stored code without biases: its offset is half its range.
#[target_feature(enable = "avx2,fma,f16c,avxvnni")]
fn tile<const GROUP: usize, const BITS: u32, const BIASED: bool>(
    panel: &IntegerPanel,
    x: IntegerRows<'_>,
    out: TileOut<'_>,
) {
    check(panel, &x, &out);
    let mut row = 0;
    while row < x.rows {
        let first = (x.values.rows_from(x.first + row), x.values.k(), x.column);
        // SAFETY: sizes are checked above.
        unsafe {
            let target = (out.values.as_mut_ptr().add(row * out.stride), out.stride, out.accumulate);
            match x.rows - row {
                1 => rows_of_tile::<1, GROUP, BITS, BIASED>(panel, first, target),
                2 => rows_of_tile::<2, GROUP, BITS, BIASED>(panel, first, target),
                3 => rows_of_tile::<3, GROUP, BITS, BIASED>(panel, first, target),
                _ => rows_of_tile::<4, GROUP, BITS, BIASED>(panel, first, target),
            }
        }
        row += 4;
    }
}

/// Checks the sizes that the products of byte codes with 32-bit sums rely on.
///
/// # Panics
/// When panel, activations or results are smaller than they say, or the panel was packed for other kernels.
pub(super) fn check(panel: &IntegerPanel, x: &IntegerRows<'_>, out: &TileOut<'_>) {
    assert!(panel.arrangement == Arrangement::StoredQuads, "a panel of other kernels");
    assert!(panel.codes.len() * 64 >= panel.k * PANEL_ROWS);
    check_product(panel, x, out);
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
/// Sizes were checked for `ROWS` rows.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avxvnni")]
unsafe fn rows_of_tile<const ROWS: usize, const GROUP: usize, const BITS: u32, const BIASED: bool>(
    panel: &IntegerPanel,
    (x, row_len, column): (QuantizedRow<'_>, usize, usize),
    (out, stride, accumulate): (*mut f32, usize, bool),
) {
    let (blocks, first_block) = (row_len / ACTIVATION_BLOCK, column / ACTIVATION_BLOCK);
    // SAFETY: the caller's promise covers every read and write below.
    unsafe {
        let lines = panel.codes.as_ptr().cast::<__m256i>();
        let codes = x.codes.as_ptr().add(column);
        let mut totals = Totals([[_mm256_setzero_ps(); 2]; ROWS]);
        if accumulate {
            for i in 0..ROWS {
                for side in 0..2 {
                    totals.0[i][side] = _mm256_loadu_ps(out.add(i * stride + side * 8));
                }
            }
        }
        for group in 0..panel.k / GROUP {
            keep_in_memory(&mut totals);
            let mut sums = [[_mm256_setzero_si256(); 2]; ROWS];
            for step in group * (GROUP / 4)..(group + 1) * (GROUP / 4) {
                let weights = [_mm256_load_si256(lines.add(step * 2)), _mm256_load_si256(lines.add(step * 2 + 1))];
                for i in 0..ROWS {
                    let x = codes.add(i * row_len + step * 4).cast::<i32>().read_unaligned();
                    for side in 0..2 {
                        sums[i][side] = _mm256_dpbusd_avx_epi32(sums[i][side], weights[side], _mm256_set1_epi32(x));
                    }
                }
            }
            let block = first_block + group * GROUP / ACTIVATION_BLOCK;
            for i in 0..ROWS {
                let scale = _mm256_broadcast_ss(&*x.scales.as_ptr().add(i * blocks + block));
                for side in 0..2 {
                    if !BIASED {
                        let code_sum = if GROUP == SUM_BLOCK {
                            *x.half_sums.as_ptr().add((i * blocks + first_block) * 2 + group)
                        } else {
                            *x.block_sums.as_ptr().add(i * blocks + block)
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
                        let sum = _mm256_broadcast_ss(&*x.sums.as_ptr().add(i * blocks + block));
                        *total = _mm256_fmadd_ps(bias, sum, *total);
                    }
                }
            }
        }
        for i in 0..ROWS {
            for side in 0..2 {
                _mm256_storeu_ps(out.add(i * stride + side * 8), totals.0[i][side]);
            }
        }
    }
}
