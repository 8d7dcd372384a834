//! Floating-point rows in AVX-512: the weights of float models, and cached keys and values.

use std::arch::x86_64::*;

use super::floats::Load8;
use super::rows::{define_float_rows, prefetch};
use crate::kernels::portable;

/// Sixteen values of a floating-point row.
pub(super) trait Load16: Load8 {
    /// # Safety
    /// `16 * Self::BYTES` bytes are readable at `bytes`.
    unsafe fn load16(bytes: *const u8) -> __m512;
}

impl Load16 for crate::formats::F32 {
    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn load16(bytes: *const u8) -> __m512 {
        // SAFETY: the caller's promise.
        unsafe { _mm512_loadu_ps(bytes.cast()) }
    }
}

impl Load16 for crate::formats::F16 {
    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn load16(bytes: *const u8) -> __m512 {
        // SAFETY: the caller's promise.
        _mm512_cvtph_ps(unsafe { _mm256_loadu_si256(bytes.cast()) })
    }
}

impl Load16 for crate::formats::Bf16 {
    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn load16(bytes: *const u8) -> __m512 {
        // SAFETY: the caller's promise.
        let halves = unsafe { _mm256_loadu_si256(bytes.cast()) };
        _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(halves)))
    }
}

/// `ROWS` rows, each times `x`. A result does not depend on `ROWS`. Asks for the rows that lie `ahead` bytes farther.
#[target_feature(enable = "avx512f")]
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
                sums[0] = _mm512_fmadd_ps(E::load16(bytes), x[0], sums[0]);
                sums[1] = _mm512_fmadd_ps(E::load16(bytes.add(16 * E::BYTES)), x[1], sums[1]);
            }
        }
    }
    let mut results = [0.0; ROWS];
    for (row, result) in results.iter_mut().enumerate() {
        *result = _mm512_reduce_add_ps(_mm512_add_ps(sums[row][0], sums[row][1]));
        for (x, bytes) in rest.iter().zip(rows[row][chunks.len() * 32 * E::BYTES..].chunks_exact(E::BYTES)) {
            *result += x * E::load(bytes);
        }
    }
    results
}

/// Adds `ROWS` rows to `out`, one after the other. Asks for those that lie `ahead` bytes farther.
#[target_feature(enable = "avx512f")]
fn add_rows<E: Load16, const ROWS: usize>(factors: [f32; ROWS], rows: [&[u8]; ROWS], ahead: usize, out: &mut [f32]) {
    assert!(rows.iter().all(|row| row.len() == out.len() * E::BYTES));
    let vectors = factors.map(|factor| _mm512_set1_ps(factor));
    let (chunks, rest) = out.as_chunks_mut::<16>();
    let done = chunks.len() * 16 * E::BYTES;
    for (index, out) in chunks.iter_mut().enumerate() {
        // SAFETY: every row has as many values as there are results, of which `out` is 16. A prefetch reads nothing.
        unsafe {
            let mut sum = _mm512_loadu_ps(out.as_ptr());
            for (row, factor) in rows.iter().zip(vectors) {
                let bytes = row.as_ptr().add(index * 16 * E::BYTES);
                if (index * 16 * E::BYTES).is_multiple_of(64) {
                    _mm_prefetch::<_MM_HINT_T0>(bytes.wrapping_add(ahead).cast());
                }
                sum = _mm512_fmadd_ps(factor, E::load16(bytes), sum);
            }
            _mm512_storeu_ps(out.as_mut_ptr(), sum);
        }
    }
    if !rest.is_empty() {
        for (row, factor) in rows.iter().zip(factors) {
            portable::add_scaled_row::<E>(factor, &row[done..], rest);
        }
    }
}

define_float_rows!("avx512f", Load16);
