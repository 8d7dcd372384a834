//! Floating-point rows and panels with AVX2, FMA and F16C.

use std::arch::x86_64::*;

use super::super::registers::{horizontal_sum, prefetch};
use super::super::rows::define_float_rows;
use crate::StridedRows;
use crate::formats::{Float, float, with_float};
use crate::kernels::operands::{FloatRows, PANEL_ROWS, TileOut};
use crate::kernels::portable;

/// Eight values of a floating-point row.
pub(super) trait Load8: Float {
    /// # Safety
    /// `8 * Self::BYTES` bytes are readable at `bytes`.
    unsafe fn load8(bytes: *const u8) -> __m256;
}

impl Load8 for float::F32 {
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn load8(bytes: *const u8) -> __m256 {
        // SAFETY: the caller's promise.
        unsafe { _mm256_loadu_ps(bytes.cast()) }
    }
}

impl Load8 for float::F16 {
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn load8(bytes: *const u8) -> __m256 {
        // SAFETY: the caller's promise.
        _mm256_cvtph_ps(unsafe { _mm_loadu_si128(bytes.cast()) })
    }
}

impl Load8 for float::Bf16 {
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn load8(bytes: *const u8) -> __m256 {
        // SAFETY: the caller's promise.
        let halves = unsafe { _mm_loadu_si128(bytes.cast()) };
        _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(halves)))
    }
}

/// `ROWS` rows, each times `x`. A result does not depend on `ROWS`. Prefetches the rows that lie `ahead` bytes farther.
#[target_feature(enable = "avx2,fma,f16c")]
fn dot_rows<E: Load8, const ROWS: usize>(rows: [&[u8]; ROWS], ahead: usize, x: &[f32]) -> [f32; ROWS] {
    assert!(rows.iter().all(|row| row.len() == x.len() * E::BYTES));
    let mut sums = [[_mm256_setzero_ps(); 2]; ROWS];
    let (chunks, rest) = x.as_chunks::<16>();
    for (index, chunk) in chunks.iter().enumerate() {
        // SAFETY: every row has as many values as `x`, of which `chunk` is 16.
        unsafe {
            let x = [_mm256_loadu_ps(chunk.as_ptr()), _mm256_loadu_ps(chunk.as_ptr().add(8))];
            for (row, sums) in rows.iter().zip(&mut sums) {
                let bytes = row.as_ptr().add(index * 16 * E::BYTES);
                prefetch(bytes, 16 * E::BYTES, ahead);
                sums[0] = _mm256_fmadd_ps(E::load8(bytes), x[0], sums[0]);
                sums[1] = _mm256_fmadd_ps(E::load8(bytes.add(8 * E::BYTES)), x[1], sums[1]);
            }
        }
    }
    let mut results = [0.0; ROWS];
    for (row, result) in results.iter_mut().enumerate() {
        *result = horizontal_sum(_mm256_add_ps(sums[row][0], sums[row][1]));
        for (x, bytes) in rest.iter().zip(rows[row][chunks.len() * 16 * E::BYTES..].chunks_exact(E::BYTES)) {
            *result += x * E::load(bytes);
        }
    }
    results
}

/// Adds `ROWS` rows to `out`, one after the other. Prefetches those that lie `ahead` bytes farther.
#[target_feature(enable = "avx2,fma,f16c")]
fn add_rows<E: Load8, const ROWS: usize>(factors: [f32; ROWS], rows: [&[u8]; ROWS], ahead: usize, out: &mut [f32]) {
    assert!(rows.iter().all(|row| row.len() == out.len() * E::BYTES));
    let vectors = factors.map(|factor| _mm256_set1_ps(factor));
    let (chunks, rest) = out.as_chunks_mut::<8>();
    let done = chunks.len() * 8 * E::BYTES;
    for (index, out) in chunks.iter_mut().enumerate() {
        // SAFETY: every row has as many values as there are results, of which `out` is 8. A prefetch reads nothing.
        unsafe {
            let mut sum = _mm256_loadu_ps(out.as_ptr());
            for (row, factor) in rows.iter().zip(vectors) {
                let bytes = row.as_ptr().add(index * 8 * E::BYTES);
                if (index * 8 * E::BYTES).is_multiple_of(64) {
                    _mm_prefetch::<_MM_HINT_T0>(bytes.wrapping_add(ahead).cast());
                }
                sum = _mm256_fmadd_ps(factor, E::load8(bytes), sum);
            }
            _mm256_storeu_ps(out.as_mut_ptr(), sum);
        }
    }
    if !rest.is_empty() {
        for (row, factor) in rows.iter().zip(factors) {
            portable::add_scaled_row::<E>(factor, &row[done..], rest);
        }
    }
}

define_float_rows!("avx2,fma,f16c", Load8);

/// As [`Kernels::dot_float`](crate::Kernels::dot_float).
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn dot_float(rows: StridedRows<'_>, x: &[f32], out: &mut [f32]) {
    with_float!(rows.format(), E => dot_float_of::<E>(rows, x, out), else unreachable!("strided rows are floating-point"));
}

/// As [`Kernels::add_scaled`](crate::Kernels::add_scaled).
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn add_scaled(factors: &[f32], rows: StridedRows<'_>, out: &mut [f32]) {
    with_float!(rows.format(), E => add_scaled_of::<E>(factors, rows, out), else unreachable!("strided rows are floating-point"));
}

/// Rows of activations times a panel, whose lines hold `TOGETHER` neighbours of the depth, one or two.
///
/// # Safety
/// The operands are what [`check_float_tile`](crate::kernels::operands::check_float_tile) asserts.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn float_tile<const TOGETHER: usize>(panel: &[f32], x: FloatRows<'_>, out: TileOut<'_>) {
    let mut first = 0;
    while first < x.rows {
        let rows = (x.rows - first).min(6);
        let part = FloatRows { values: &x.values[first * x.stride..], rows, ..x };
        let values = &mut out.values[first * out.stride..];
        let target = TileOut { values, stride: out.stride, accumulate: out.accumulate };
        // SAFETY: the caller's promise, of these rows.
        unsafe {
            match rows {
                6 => rows_of_tile::<6, TOGETHER>(panel, part, target),
                5 => rows_of_tile::<5, TOGETHER>(panel, part, target),
                4 => rows_of_tile::<4, TOGETHER>(panel, part, target),
                3 => rows_of_tile::<3, TOGETHER>(panel, part, target),
                2 => rows_of_tile::<2, TOGETHER>(panel, part, target),
                _ => rows_of_tile::<1, TOGETHER>(panel, part, target),
            }
        }
        first += rows;
    }
}

/// `ROWS` rows of them; a line is two registers.
///
/// # Safety
/// As [`float_tile`]; there are `ROWS` rows.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn rows_of_tile<const ROWS: usize, const TOGETHER: usize>(panel: &[f32], x: FloatRows<'_>, out: TileOut<'_>) {
    let mut sums = [[_mm256_setzero_ps(); 2]; ROWS];
    let x_rows: [&[f32]; ROWS] = std::array::from_fn(|i| &x.values[i * x.stride..][..x.k]);
    let lines = x.k / TOGETHER;
    if out.accumulate {
        for (i, sums) in sums.iter_mut().enumerate() {
            let row = &out.values[i * out.stride..][..PANEL_ROWS];
            // SAFETY: `row` has 16 values.
            unsafe { *sums = [_mm256_loadu_ps(row.as_ptr()), _mm256_loadu_ps(row.as_ptr().add(8))] };
        }
    }
    for line in 0..lines {
        // SAFETY: the panel has as many lines as `x.k` takes, the caller's promise, and each row has `TOGETHER` values for each.
        unsafe {
            let weights = panel.as_ptr().add(line * PANEL_ROWS);
            let weights = [_mm256_loadu_ps(weights), _mm256_loadu_ps(weights.add(8))];
            for i in 0..ROWS {
                let x = x_rows[i].as_ptr().add(line * TOGETHER);
                let x = match TOGETHER {
                    1 => _mm256_broadcast_ss(&*x),
                    _ => _mm256_castpd_ps(_mm256_set1_pd(x.cast::<f64>().read_unaligned())),
                };
                sums[i][0] = _mm256_fmadd_ps(x, weights[0], sums[i][0]);
                sums[i][1] = _mm256_fmadd_ps(x, weights[1], sums[i][1]);
            }
        }
    }
    for (i, sums) in sums.iter().enumerate() {
        let row = &mut out.values[i * out.stride..][..PANEL_ROWS];
        // SAFETY: `row` has 16 values.
        unsafe {
            _mm256_storeu_ps(row.as_mut_ptr(), sums[0]);
            _mm256_storeu_ps(row.as_mut_ptr().add(8), sums[1]);
        }
    }
}
