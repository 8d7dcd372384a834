//! Sums of products of 16-bit pairs: one instruction, which encoding spends most of its time on.

use std::arch::x86_64::*;

use crate::formats::{PairProducts, Pairs, Sums};

/// With AVX2. A value proves that the CPU has it.
#[derive(Clone, Copy)]
pub(super) struct Pairs256(());
/// With AVX-512 F and BW. A value proves that the CPU has both.
#[derive(Clone, Copy)]
pub(super) struct Pairs512(());

impl Pairs256 {
    /// Only code that is compiled for AVX2, and therefore runs where it is, calls this without `unsafe`.
    #[target_feature(enable = "avx2")]
    pub(super) fn new() -> Self {
        Self(())
    }
}

impl Pairs512 {
    /// Only code that is compiled for AVX-512, and therefore runs where it is, calls this without `unsafe`.
    #[target_feature(enable = "avx512f,avx512bw")]
    pub(super) fn new() -> Self {
        Self(())
    }
}

impl PairProducts for Pairs256 {
    #[inline(always)]
    fn add(self, sums: &mut Sums, a: &Pairs, b: &Pairs) {
        let parts = sums.as_chunks_mut::<8>().0.iter_mut().zip(a.as_chunks::<16>().0).zip(b.as_chunks::<16>().0);
        for ((sums, a), b) in parts {
            // SAFETY: the value proves AVX2; the arrays are as long as the registers.
            unsafe {
                let products =
                    _mm256_madd_epi16(_mm256_loadu_si256(a.as_ptr().cast()), _mm256_loadu_si256(b.as_ptr().cast()));
                let sums = sums.as_mut_ptr().cast();
                _mm256_storeu_si256(sums, _mm256_add_epi32(_mm256_loadu_si256(sums), products));
            }
        }
    }
}

impl PairProducts for Pairs512 {
    #[inline(always)]
    fn add(self, sums: &mut Sums, a: &Pairs, b: &Pairs) {
        // SAFETY: the value proves AVX-512 with BW; the arrays are as long as the registers.
        unsafe {
            let products =
                _mm512_madd_epi16(_mm512_loadu_si512(a.as_ptr().cast()), _mm512_loadu_si512(b.as_ptr().cast()));
            let sums = sums.as_mut_ptr().cast();
            _mm512_storeu_si512(sums, _mm512_add_epi32(_mm512_loadu_si512(sums), products));
        }
    }
}
