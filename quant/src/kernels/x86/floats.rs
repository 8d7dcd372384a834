//! Floating-point rows and panels with AVX2, FMA and F16C.

use std::arch::x86_64::*;

use crate::formats::Float;
use crate::kernels::{FloatRows, PANEL_ROWS, TileOut, fits, portable};

/// Eight values of a floating-point row.
pub(super) trait Load8: Float {
    /// # Safety
    /// `8 * Self::BYTES` bytes are readable at `bytes`.
    unsafe fn load8(bytes: *const u8) -> __m256;
}

impl Load8 for crate::formats::F32 {
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn load8(bytes: *const u8) -> __m256 {
        // SAFETY: the caller's promise.
        unsafe { _mm256_loadu_ps(bytes.cast()) }
    }
}

impl Load8 for crate::formats::F16 {
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn load8(bytes: *const u8) -> __m256 {
        // SAFETY: the caller's promise.
        _mm256_cvtph_ps(unsafe { _mm_loadu_si128(bytes.cast()) })
    }
}

impl Load8 for crate::formats::Bf16 {
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn load8(bytes: *const u8) -> __m256 {
        // SAFETY: the caller's promise.
        let halves = unsafe { _mm_loadu_si128(bytes.cast()) };
        _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(halves)))
    }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn horizontal_sum(x: __m256) -> f32 {
    let x = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
    let x = _mm_add_ps(x, _mm_movehl_ps(x, x));
    _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)))
}

#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn dot_float<E: Load8>(row: &[u8], x: &[f32]) -> f32 {
    let mut sums = [_mm256_setzero_ps(); 4];
    let (chunks, rest) = x.as_chunks::<32>();
    for (index, chunk) in chunks.iter().enumerate() {
        let bytes = row[index * 32 * E::BYTES..][..32 * E::BYTES].as_ptr();
        for (part, sum) in sums.iter_mut().enumerate() {
            // SAFETY: `bytes` has 32 elements and `chunk` 32 values; parts of 8 stay inside both.
            let (w, x) =
                unsafe { (E::load8(bytes.add(part * 8 * E::BYTES)), _mm256_loadu_ps(chunk.as_ptr().add(part * 8))) };
            *sum = _mm256_fmadd_ps(w, x, *sum);
        }
    }
    let tail = rest.iter().zip(row[chunks.len() * 32 * E::BYTES..].chunks_exact(E::BYTES));
    let tail: f32 = tail.map(|(x, bytes)| x * E::load(bytes)).sum();
    horizontal_sum(_mm256_add_ps(_mm256_add_ps(sums[0], sums[1]), _mm256_add_ps(sums[2], sums[3]))) + tail
}

#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn add_scaled_half(weight: f32, row: &[u8], out: &mut [f32]) {
    let factor = _mm256_set1_ps(weight);
    let (bytes, bytes_rest) = row.as_chunks::<16>();
    let (chunks, rest) = out.as_chunks_mut::<8>();
    for (bytes, out) in bytes.iter().zip(chunks) {
        // SAFETY: `bytes` is 8 half-precision values and `out` 8 values.
        unsafe {
            let values = crate::formats::F16::load8(bytes.as_ptr());
            _mm256_storeu_ps(out.as_mut_ptr(), _mm256_fmadd_ps(factor, values, _mm256_loadu_ps(out.as_ptr())));
        }
    }
    portable::add_scaled_half(weight, bytes_rest, rest);
}

#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn float_tile<const ROWS: usize>(panel: &[f32], stride: usize, x: FloatRows<'_>, out: TileOut<'_>) {
    let mut sums = [[_mm256_setzero_ps(); 2]; ROWS];
    let x_rows: [&[f32]; ROWS] = std::array::from_fn(|i| &x.values[i * x.stride..][..x.k]);
    assert!(fits(panel.len(), x.k, stride, PANEL_ROWS));
    if out.accumulate {
        for (i, sums) in sums.iter_mut().enumerate() {
            let row = &out.values[i * out.stride..][..PANEL_ROWS];
            // SAFETY: `row` has 16 values.
            unsafe { *sums = [_mm256_loadu_ps(row.as_ptr()), _mm256_loadu_ps(row.as_ptr().add(8))] };
        }
    }
    for k in 0..x.k {
        // SAFETY: `k < x.k`: the assertion above keeps the panel reads inside, and each x row has `x.k` values.
        unsafe {
            let weights = panel.as_ptr().add(k * stride);
            let weights = [_mm256_loadu_ps(weights), _mm256_loadu_ps(weights.add(8))];
            for i in 0..ROWS {
                let x = _mm256_broadcast_ss(x_rows[i].get_unchecked(k));
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
