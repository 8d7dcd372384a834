//! Row dots with dot products of bytes.

use super::super::rows::define_row_dots;
use std::arch::aarch64::*;
use std::arch::asm;

#[inline]
#[target_feature(enable = "neon,dotprod")]
fn products(sums: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
    let mut out = sums;
    // SAFETY: one instruction on registers, of the set that this function is for.
    unsafe {
        asm!("sdot {out:v}.4s, {a:v}.16b, {b:v}.16b", out = inout(vreg) out, a = in(vreg) a, b = in(vreg) b,
            options(pure, nomem, nostack, preserves_flags));
    }
    out
}
define_row_dots!("neon,dotprod", products);
