//! Block formats in NEON registers: what row dots and packing are made of, for every ARM tier.

use std::arch::aarch64::*;
use std::arch::asm;

use super::super::operands::Shape;
use crate::formats::k_quants::{Q4K, Q5K, Q6K};
use crate::formats::legacy::{Q4_0, Q4_1, Q5_0, Q5_1, Q8_0};
use crate::formats::{Block, MAX_BLOCK, MAX_GROUPS, plain_blocks};

/// A block format, thirty-two codes at a time.
pub(super) trait Blocks: Block + Sized {
    /// Whether the format is unpacked in registers here, so that what this file says of its layout holds.
    const UNPACKED: bool;
    /// Whether the products of this folder know the format; the others are multiplied by the portable code.
    const PRODUCTS: bool = Shape::of::<Self>().is_common();

    /// Codes `32 * part .. 32 * part + 32`, signed.
    ///
    /// # Safety
    /// `block` points to `Self::BYTES` readable bytes and `part < Self::LEN / 32`.
    unsafe fn codes32(block: *const u8, part: usize) -> [int8x16_t; 2];
}

/// Half precision to single.
///
/// # Safety
/// 2 bytes are readable.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn half(bytes: *const u8) -> f32 {
    let value: f32;
    // SAFETY: the caller's promise.
    unsafe {
        asm!("ldr {value:h}, [{bytes}]", "fcvt {value:s}, {value:h}", value = out(vreg) value, bytes = in(reg) bytes,
            options(pure, readonly, nostack));
    }
    value
}

/// Scales and biases of a block's groups, with the conversion from half precision in hardware where it counts.
///
/// # Safety
/// `block` points to `B::BYTES` readable bytes.
#[inline]
#[target_feature(enable = "neon")]
pub(super) unsafe fn read_scales<B: Blocks>(
    block: *const u8,
    scales: &mut [f32; MAX_GROUPS],
    biases: &mut [f32; MAX_GROUPS],
) {
    const {
        assert!(
            !B::UNPACKED || B::LEN == 32 || B::BIASED == (B::GROUP == 32),
            "the formats with blocks of 256 that there are"
        );
    }
    // SAFETY: the caller's promise.
    unsafe {
        if !B::UNPACKED {
            B::scales(std::slice::from_raw_parts(block, B::BYTES), scales, biases);
        } else if B::LEN == 32 {
            scales[0] = half(block);
            if B::BIASED {
                biases[0] = half(block.add(2));
            }
        } else if B::BIASED {
            affine_scales(block, scales, biases);
        } else {
            signed_scales(block, scales);
        }
    }
}

/// Scales and biases of Q4_K and Q5_K: `d`, `dmin`, then 6-bit pairs in 12 bytes.
///
/// # Safety
/// 16 bytes are readable.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn affine_scales(block: *const u8, scales: &mut [f32; MAX_GROUPS], biases: &mut [f32; MAX_GROUPS]) {
    // SAFETY: the caller's promise; both arrays have room for eight values.
    unsafe {
        let word = |index: usize| block.add(4 + 4 * index).cast::<u32>().read_unaligned();
        let (first, second, third) = (word(0), word(1), word(2));
        let high = |word: u32| (word >> 6 & 0x0303_0303) << 4;
        let put = |low: u32, high: u32, factor: f32, out: &mut [f32; MAX_GROUPS]| {
            let wide = vmovl_u8(vcreate_u8(u64::from(high) << 32 | u64::from(low)));
            let halves = [vmovl_u16(vget_low_u16(wide)), vmovl_high_u16(wide)];
            for (index, half) in halves.into_iter().enumerate() {
                vst1q_f32(out.as_mut_ptr().add(index * 4), vmulq_n_f32(vcvtq_f32_u32(half), factor));
            }
        };
        put(first & 0x3f3f_3f3f, third & 0x0f0f_0f0f | high(first), half(block), scales);
        put(second & 0x3f3f_3f3f, third >> 4 & 0x0f0f_0f0f | high(second), -half(block.add(2)), biases);
    }
}

/// Scales of Q6_K: 16 signed bytes, then `d`.
///
/// # Safety
/// 210 bytes are readable.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn signed_scales(block: *const u8, scales: &mut [f32; MAX_GROUPS]) {
    // SAFETY: the caller's promise; the array has room for sixteen values.
    unsafe {
        let bytes = vld1q_s8(block.add(192).cast());
        let d = half(block.add(208));
        for (index, wide) in [vmovl_s8(vget_low_s8(bytes)), vmovl_high_s8(bytes)].into_iter().enumerate() {
            let out = scales.as_mut_ptr().add(index * 8);
            vst1q_f32(out, vmulq_n_f32(vcvtq_f32_s32(vmovl_s16(vget_low_s16(wide))), d));
            vst1q_f32(out.add(4), vmulq_n_f32(vcvtq_f32_s32(vmovl_high_s16(wide)), d));
        }
    }
}

/// Sixteen bytes as 32 nibbles: the low ones, then the high ones.
///
/// # Safety
/// 16 bytes are readable.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn nibbles(bytes: *const u8) -> [uint8x16_t; 2] {
    // SAFETY: the caller's promise.
    let packed = unsafe { vld1q_u8(bytes) };
    [vandq_u8(packed, vdupq_n_u8(15)), vshrq_n_u8::<4>(packed)]
}

/// 16 in every byte whose bit is set.
///
/// # Safety
/// 4 bytes are readable.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn fifth_bits(bytes: *const u8) -> [uint8x16_t; 2] {
    // SAFETY: the caller's promise.
    let bits = unsafe { bytes.cast::<[u8; 4]>().read_unaligned() };
    let select = vcombine_u8(vcreate_u8(0x8040_2010_0804_0201), vcreate_u8(0x8040_2010_0804_0201));
    let of = |low: u8, high: u8| vcombine_u8(vdup_n_u8(low), vdup_n_u8(high));
    let sixteen = vdupq_n_u8(16);
    [
        vandq_u8(vtstq_u8(of(bits[0], bits[1]), select), sixteen),
        vandq_u8(vtstq_u8(of(bits[2], bits[3]), select), sixteen),
    ]
}

#[inline]
#[target_feature(enable = "neon")]
fn or(a: [uint8x16_t; 2], b: [uint8x16_t; 2]) -> [uint8x16_t; 2] {
    [vorrq_u8(a[0], b[0]), vorrq_u8(a[1], b[1])]
}

/// Stored codes without their offset.
#[inline]
#[target_feature(enable = "neon")]
fn signed(stored: [uint8x16_t; 2], offset: u8) -> [int8x16_t; 2] {
    let offset = vdupq_n_u8(offset);
    [vreinterpretq_s8_u8(vsubq_u8(stored[0], offset)), vreinterpretq_s8_u8(vsubq_u8(stored[1], offset))]
}

/// The low or the high nibbles of 32 bytes.
///
/// # Safety
/// 32 bytes are readable.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn nibbles_of(bytes: *const u8, high: bool) -> [uint8x16_t; 2] {
    // SAFETY: the caller's promise.
    let (a, b) = unsafe { (vld1q_u8(bytes), vld1q_u8(bytes.add(16))) };
    if high {
        [vshrq_n_u8::<4>(a), vshrq_n_u8::<4>(b)]
    } else {
        [vandq_u8(a, vdupq_n_u8(15)), vandq_u8(b, vdupq_n_u8(15))]
    }
}

/// Bits `count ..` of 32 bytes under `mask`, moved to bit 4.
///
/// # Safety
/// 32 bytes are readable.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn bits_at_four(bytes: *const u8, count: usize, mask: u8) -> [uint8x16_t; 2] {
    let shift = vdupq_n_s8(-(count as i8));
    let mask = vdupq_n_u8(mask);
    // SAFETY: the caller's promise.
    let (a, b) = unsafe { (vld1q_u8(bytes), vld1q_u8(bytes.add(16))) };
    [vshlq_n_u8::<4>(vandq_u8(vshlq_u8(a, shift), mask)), vshlq_n_u8::<4>(vandq_u8(vshlq_u8(b, shift), mask))]
}

macro_rules! blocks {
    ($($block:ty: |$pointer:ident, $part:ident| $stored:expr;)*) => {
        $(impl Blocks for $block {
            const UNPACKED: bool = true;
            #[inline]
            #[target_feature(enable = "neon")]
            unsafe fn codes32($pointer: *const u8, $part: usize) -> [int8x16_t; 2] {
                let _ = $part;
                // SAFETY: the caller's promise; the offsets are those of the format's layout.
                signed(unsafe { $stored }, Self::OFFSET)
            }
        })*
    };
}

blocks! {
    Q4_0: |block, part| nibbles(block.add(2));
    Q4_1: |block, part| nibbles(block.add(4));
    Q5_0: |block, part| or(nibbles(block.add(6)), fifth_bits(block.add(2)));
    Q5_1: |block, part| or(nibbles(block.add(8)), fifth_bits(block.add(4)));
    Q4K: |block, part| nibbles_of(block.add(16 + part / 2 * 32), part % 2 == 1);
    Q5K: |block, part| {
        or(nibbles_of(block.add(48 + part / 2 * 32), part % 2 == 1), bits_at_four(block.add(16), part, 1))
    };
    Q6K: |block, part| {
        let (half, quarter) = (part / 4, part % 4);
        let low = nibbles_of(block.add(half * 64 + quarter % 2 * 32), quarter >= 2);
        or(low, bits_at_four(block.add(128 + half * 32), quarter * 2, 3))
    };
}

impl Blocks for Q8_0 {
    const UNPACKED: bool = true;
    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn codes32(block: *const u8, _: usize) -> [int8x16_t; 2] {
        // SAFETY: the caller's promise; the codes lie behind the scale.
        unsafe { [vld1q_s8(block.add(2).cast()), vld1q_s8(block.add(18).cast())] }
    }
}

/// Formats that only their plain decoder unpacks.
macro_rules! plain {
    ($($block:ty;)*) => {
        $(impl Blocks for $block {
            const UNPACKED: bool = false;
            #[inline]
            #[target_feature(enable = "neon")]
            unsafe fn codes32(block: *const u8, part: usize) -> [int8x16_t; 2] {
                let mut codes = [0i8; MAX_BLOCK];
                // SAFETY: `block` points to `BYTES` readable bytes, as the trait asks.
                Self::codes(unsafe { std::slice::from_raw_parts(block, Self::BYTES) }, &mut codes);
                let codes: &[i8; 32] = codes[part * 32..].first_chunk().expect("a part of a block");
                // SAFETY: 32 codes are read.
                unsafe { [vld1q_s8(codes.as_ptr()), vld1q_s8(codes.as_ptr().add(16))] }
            }
        })*
    };
}
plain_blocks!(plain);
