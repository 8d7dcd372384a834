//! Small things that every x86 tier does with registers and the cache.

use std::arch::x86_64::*;

/// How far ahead of their use weights and activations are prefetched.
pub(super) const AHEAD: usize = 2048;

/// Bytes of weights that are multiplied with one group of activations after the other.
const CACHED: usize = 16 << 10;

/// How many of `rows` rows of weights are multiplied together with `x` rows of activations: all with one group of these.
pub(super) fn rows_together(weights: &crate::MatrixView<'_>, x: usize, rows: usize) -> usize {
    if x <= 4 { rows } else { (CACHED / (weights.bytes().len() / weights.rows().max(1)).max(1)).clamp(1, rows.max(1)) }
}

/// Prefetches the bytes that follow `ahead` bytes later: the hardware's own prefetching stops at every page.
#[inline(always)]
pub(super) fn prefetch(block: *const u8, bytes: usize, ahead: usize) {
    for line in 0..bytes.div_ceil(64) {
        // SAFETY: a prefetch reads nothing and may point anywhere; every x86-64 processor has it.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(block.wrapping_add(ahead + line * 64).cast()) };
    }
}

/// Has values that are read one by one come from memory: the compiler would rather shuffle them out of a register, with units
/// that unpacking keeps busy.
#[inline(always)]
pub(super) fn keep_in_memory<T>(values: &mut T) {
    let values: *mut T = values;
    // SAFETY: nothing is done.
    unsafe { std::arch::asm!("/* {} */", in(reg) values, options(nostack, preserves_flags)) };
}

/// The sum of eight values.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn horizontal_sum(x: __m256) -> f32 {
    let x = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
    let x = _mm_add_ps(x, _mm_movehl_ps(x, x));
    _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)))
}
