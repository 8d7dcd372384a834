//! Floating-point rows and panels with NEON.

use std::arch::aarch64::*;
use std::arch::asm;

use crate::formats::Float;
use crate::kernels::{FloatRows, PANEL_ROWS, TileOut, fits, portable};

/// Four values of a floating-point row.
pub(super) trait Load4: Float {
    /// # Safety
    /// `4 * Self::BYTES` bytes are readable at `bytes`.
    unsafe fn load4(bytes: *const u8) -> float32x4_t;
}

impl Load4 for crate::formats::F32 {
    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn load4(bytes: *const u8) -> float32x4_t {
        // SAFETY: the caller's promise.
        vreinterpretq_f32_u8(unsafe { vld1q_u8(bytes) })
    }
}

impl Load4 for crate::formats::F16 {
    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn load4(bytes: *const u8) -> float32x4_t {
        let out;
        // SAFETY: the caller's promise; conversion from half precision is part of every ARMv8 processor.
        unsafe {
            asm!("ldr {out:d}, [{bytes}]", "fcvtl {out:v}.4s, {out:v}.4h", out = out(vreg) out, bytes = in(reg) bytes,
                options(pure, readonly, nostack));
        }
        out
    }
}

impl Load4 for crate::formats::Bf16 {
    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn load4(bytes: *const u8) -> float32x4_t {
        // SAFETY: the caller's promise.
        let halves = vreinterpret_u16_u8(unsafe { vld1_u8(bytes) });
        vreinterpretq_f32_u32(vshll_n_u16::<16>(halves))
    }
}

#[target_feature(enable = "neon")]
pub(super) fn dot_float<E: Load4>(row: &[u8], x: &[f32]) -> f32 {
    let mut sums = [vdupq_n_f32(0.0); 4];
    let (chunks, rest) = x.as_chunks::<16>();
    for (index, chunk) in chunks.iter().enumerate() {
        let bytes = row[index * 16 * E::BYTES..][..16 * E::BYTES].as_ptr();
        for (part, sum) in sums.iter_mut().enumerate() {
            // SAFETY: `bytes` has 16 elements and `chunk` 16 values; parts of 4 stay inside both.
            let (w, x) = unsafe { (E::load4(bytes.add(part * 4 * E::BYTES)), vld1q_f32(chunk.as_ptr().add(part * 4))) };
            *sum = vfmaq_f32(*sum, w, x);
        }
    }
    let tail = rest.iter().zip(row[chunks.len() * 16 * E::BYTES..].chunks_exact(E::BYTES));
    let tail: f32 = tail.map(|(x, bytes)| x * E::load(bytes)).sum();
    vaddvq_f32(vaddq_f32(vaddq_f32(sums[0], sums[1]), vaddq_f32(sums[2], sums[3]))) + tail
}

#[target_feature(enable = "neon")]
pub(super) fn add_scaled_half(weight: f32, row: &[u8], out: &mut [f32]) {
    let (bytes, bytes_rest) = row.as_chunks::<8>();
    let (chunks, rest) = out.as_chunks_mut::<4>();
    for (bytes, out) in bytes.iter().zip(chunks) {
        // SAFETY: `bytes` is four half-precision values and `out` four values.
        unsafe {
            let values = crate::formats::F16::load4(bytes.as_ptr());
            vst1q_f32(out.as_mut_ptr(), vfmaq_n_f32(vld1q_f32(out.as_ptr()), values, weight));
        }
    }
    portable::add_scaled_half(weight, bytes_rest, rest);
}

/// Half-precision bits, with the instruction for it.
#[target_feature(enable = "neon")]
pub(super) fn to_half(x: &[f32], out: &mut [u16]) {
    let (chunks, rest) = x.as_chunks::<4>();
    let (halves, rest_out) = out.as_chunks_mut::<4>();
    for (x, out) in chunks.iter().zip(halves) {
        // SAFETY: four values are read and four half-precision ones written.
        unsafe {
            let mut value = vld1q_f32(x.as_ptr());
            asm!("fcvtn {value:v}.4h, {value:v}.4s", "str {value:d}, [{out}]", value = inout(vreg) value,
                out = in(reg) out.as_mut_ptr(), options(nostack));
            let _ = value;
        }
    }
    crate::vector::to_half(rest, rest_out);
}

/// `ROWS` rows of activations times a panel; 16 columns are four registers.
#[target_feature(enable = "neon")]
pub(super) fn float_tile<const ROWS: usize>(panel: &[f32], stride: usize, x: FloatRows<'_>, out: TileOut<'_>) {
    assert!(fits(panel.len(), x.k, stride, PANEL_ROWS));
    let x_rows: [&[f32]; ROWS] = std::array::from_fn(|i| &x.values[i * x.stride..][..x.k]);
    assert!(fits(out.values.len(), ROWS, out.stride, PANEL_ROWS));
    let mut sums = [[vdupq_n_f32(0.0); 4]; ROWS];
    // SAFETY: the assertions above: `k < x.k` keeps panel and rows inside, and each result row has 16 values.
    unsafe {
        if out.accumulate {
            for i in 0..ROWS {
                for side in 0..4 {
                    sums[i][side] = vld1q_f32(out.values.as_ptr().add(i * out.stride + side * 4));
                }
            }
        }
        for k in 0..x.k {
            let weights = panel.as_ptr().add(k * stride);
            let mut w = [vdupq_n_f32(0.0); 4];
            for side in 0..4 {
                w[side] = vld1q_f32(weights.add(side * 4));
            }
            for i in 0..ROWS {
                let x = *x_rows[i].get_unchecked(k);
                for side in 0..4 {
                    sums[i][side] = vfmaq_n_f32(sums[i][side], w[side], x);
                }
            }
        }
        for i in 0..ROWS {
            for side in 0..4 {
                vst1q_f32(out.values.as_mut_ptr().add(i * out.stride + side * 4), sums[i][side]);
            }
        }
    }
}
