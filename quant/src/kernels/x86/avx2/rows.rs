//! Row dots with AVX2.

use super::super::rows::define_row_dots;

/// Bytes multiplied and neighbouring fours added.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn products(unsigned: __m256i, signed: __m256i) -> __m256i {
    _mm256_madd_epi16(_mm256_maddubs_epi16(unsigned, signed), _mm256_set1_epi16(1))
}
/// Two products of four-bit codes, whose sum of four fits in 16 bits.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn two_products(codes: __m256i, x: __m256i, more_codes: __m256i, more_x: __m256i) -> __m256i {
    let sums = _mm256_add_epi16(_mm256_maddubs_epi16(codes, x), _mm256_maddubs_epi16(more_codes, more_x));
    _mm256_madd_epi16(sums, _mm256_set1_epi16(1))
}
define_row_dots!("avx2,fma,f16c", products, two_products);
