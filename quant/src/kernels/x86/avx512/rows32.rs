//! Row dots with AVX-512 and VNNI of the formats with blocks of 32, in registers of 256 bits; blocks of 256 have `rows`.

use super::super::rows::define_row_dots;

/// As in AVX2, in one instruction.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512vl,avx512vnni")]
fn products(unsigned: __m256i, signed: __m256i) -> __m256i {
    _mm256_dpbusd_epi32(_mm256_setzero_si256(), unsigned, signed)
}
/// Two products of four-bit codes.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512vl,avx512vnni")]
fn two_products(codes: __m256i, x: __m256i, more_codes: __m256i, more_x: __m256i) -> __m256i {
    _mm256_dpbusd_epi32(products(codes, x), more_codes, more_x)
}
define_row_dots!("avx2,fma,f16c,avx512f,avx512vl,avx512vnni", products, two_products);
