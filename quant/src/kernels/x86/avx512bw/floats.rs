//! Floating-point rows in AVX-512: the weights of float models, and cached keys and values.

use std::arch::x86_64::*;

use super::super::registers::prefetch;
use super::super::rows::define_float_rows;
use crate::StridedRows;
use crate::formats::{Float, float, with_float};

/// Sixteen elements of a floating-point format.
pub(in super::super) trait Load16: Float {
    /// # Safety
    /// The elements of `mask` are readable at `bytes`.
    unsafe fn load16(bytes: *const u8, mask: u16) -> __m512;
}

impl Load16 for float::F32 {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    unsafe fn load16(bytes: *const u8, mask: u16) -> __m512 {
        // SAFETY: the caller's promise.
        unsafe { _mm512_maskz_loadu_ps(mask, bytes.cast()) }
    }
}

impl Load16 for float::F16 {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    unsafe fn load16(bytes: *const u8, mask: u16) -> __m512 {
        // SAFETY: the caller's promise.
        _mm512_cvtph_ps(unsafe { _mm256_maskz_loadu_epi16(mask, bytes.cast()) })
    }
}

impl Load16 for float::Bf16 {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    unsafe fn load16(bytes: *const u8, mask: u16) -> __m512 {
        // SAFETY: the caller's promise.
        widen(unsafe { _mm256_maskz_loadu_epi16(mask, bytes.cast()) })
    }
}

/// bf16 to f32.
#[inline]
#[target_feature(enable = "avx512f")]
pub(in super::super) fn widen(halves: __m256i) -> __m512 {
    _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(halves)))
}

const ALL: u16 = u16::MAX;

/// The lanes that up to sixteen values take.
fn lanes(count: usize) -> u16 {
    ALL >> (16 - count)
}

/// `ROWS` rows, each times `x`. A result does not depend on `ROWS`. Prefetches the rows that lie `ahead` bytes farther.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn dot_rows<E: Load16, const ROWS: usize>(rows: [&[u8]; ROWS], ahead: usize, x: &[f32]) -> [f32; ROWS] {
    assert!(rows.iter().all(|row| row.len() == x.len() * E::BYTES));
    let mut sums = [[_mm512_setzero_ps(); 2]; ROWS];
    let (chunks, rest) = x.as_chunks::<32>();
    for (index, chunk) in chunks.iter().enumerate() {
        // SAFETY: every row has as many values as `x`, of which `chunk` is 32.
        unsafe {
            let x = [_mm512_loadu_ps(chunk.as_ptr()), _mm512_loadu_ps(chunk.as_ptr().add(16))];
            for (row, sums) in rows.iter().zip(&mut sums) {
                let bytes = row.as_ptr().add(index * 32 * E::BYTES);
                prefetch(bytes, 32 * E::BYTES, ahead);
                sums[0] = _mm512_fmadd_ps(E::load16(bytes, ALL), x[0], sums[0]);
                sums[1] = _mm512_fmadd_ps(E::load16(bytes.add(16 * E::BYTES), ALL), x[1], sums[1]);
            }
        }
    }
    for (index, part) in rest.chunks(16).enumerate() {
        let (at, mask) = (chunks.len() * 32 + index * 16, lanes(part.len()));
        // SAFETY: every row has as many values as `x`; `part` is those of the mask, from `at` on.
        unsafe {
            let x = _mm512_maskz_loadu_ps(mask, part.as_ptr());
            for (row, sums) in rows.iter().zip(&mut sums) {
                sums[index] = _mm512_fmadd_ps(E::load16(row.as_ptr().add(at * E::BYTES), mask), x, sums[index]);
            }
        }
    }
    let mut results = [0.0; ROWS];
    for row in 0..ROWS {
        results[row] = _mm512_reduce_add_ps(_mm512_add_ps(sums[row][0], sums[row][1]));
    }
    results
}

/// Adds `ROWS` rows to `out`, one after the other. Prefetches those that lie `ahead` bytes farther.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn add_rows<E: Load16, const ROWS: usize>(factors: [f32; ROWS], rows: [&[u8]; ROWS], ahead: usize, out: &mut [f32]) {
    assert!(rows.iter().all(|row| row.len() == out.len() * E::BYTES));
    for (index, out) in out.chunks_mut(16).enumerate() {
        let mask = lanes(out.len());
        // SAFETY: every row has as many values as there are results, of which `out` is those of the mask. A prefetch reads
        // nothing.
        unsafe {
            let mut sum = _mm512_maskz_loadu_ps(mask, out.as_ptr());
            for (row, factor) in rows.iter().zip(factors) {
                let bytes = row.as_ptr().add(index * 16 * E::BYTES);
                if (index * 16 * E::BYTES).is_multiple_of(64) {
                    _mm_prefetch::<_MM_HINT_T0>(bytes.wrapping_add(ahead).cast());
                }
                sum = _mm512_fmadd_ps(_mm512_set1_ps(factor), E::load16(bytes, mask), sum);
            }
            _mm512_mask_storeu_ps(out.as_mut_ptr(), mask, sum);
        }
    }
}

define_float_rows!("avx512f,avx512bw,avx512vl", Load16);

/// As [`Kernels::dot_float`](crate::Kernels::dot_float).
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub(super) fn dot_float(rows: StridedRows<'_>, x: &[f32], out: &mut [f32]) {
    with_float!(rows.format(), E => dot_float_of::<E>(rows, x, out), else unreachable!("strided rows are floating-point"));
}

/// As [`Kernels::add_scaled`](crate::Kernels::add_scaled).
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub(super) fn add_scaled(factors: &[f32], rows: StridedRows<'_>, out: &mut [f32]) {
    with_float!(rows.format(), E => add_scaled_of::<E>(factors, rows, out), else unreachable!("strided rows are floating-point"));
}
