//! Row dots with NEON alone.

use super::super::rows::define_row_dots;
use std::arch::aarch64::*;

/// Codes of eight bits fit: 2 · 128 · 127 < 2¹⁵.
#[inline]
#[target_feature(enable = "neon")]
fn products(sums: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
    let pairs = vmull_s8(vget_low_s8(a), vget_low_s8(b));
    vpadalq_s16(sums, vmlal_high_s8(pairs, a, b))
}
define_row_dots!("neon", products);
