//! Block formats in AVX2 registers: what row dots and packing are made of, for every x86 tier.

use std::arch::asm;
use std::arch::x86_64::*;

use super::super::operands::Shape;
use crate::formats::k_quants::{Q4K, Q5K, Q6K};
use crate::formats::legacy::{Q4_0, Q4_1, Q5_0, Q5_1, Q8_0};
use crate::formats::{Block, MAX_BLOCK, MAX_GROUPS, plain_blocks};

/// A block format, thirty-two codes at a time.
pub(super) trait Blocks: Block + Sized {
    /// Whether the format is unpacked in registers here, so that what this file says of its layout holds.
    const UNPACKED: bool;
    /// Whether a block begins with its scale in half precision, and its bias after it.
    const HALF_SCALES: bool = Self::UNPACKED && Self::LEN == 32;
    /// Where in a block sixteen bytes hold the block's first sixteen codes in their low halves and the others in their high
    /// ones, and nothing else is there but scale and bias.
    const NIBBLES: Option<usize> = if Self::HALF_SCALES && Self::BITS == 4 { Some(Self::BYTES - 16) } else { None };
    /// Whether the row products of this folder know the format; the others are multiplied by the portable code.
    const ROW_PRODUCTS: bool =
        Shape::of::<Self>().is_common() && matches!(Self::LEN, 32 | 256) && (Self::UNPACKED || Self::GROUP == 32);

    /// Stored codes `32 * part .. 32 * part + 32`, unsigned: the signed codes plus `Self::OFFSET`.
    ///
    /// # Safety
    /// `block` points to `Self::BYTES` readable bytes and `part < Self::LEN / 32`.
    unsafe fn stored32(block: *const u8, part: usize) -> __m256i;

    /// The codes of [`stored32`](Self::stored32) without the offset.
    ///
    /// # Safety
    /// As [`stored32`](Self::stored32).
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn signed32(block: *const u8, part: usize) -> __m256i {
        // SAFETY: the caller's promise.
        let stored = unsafe { Self::stored32(block, part) };
        _mm256_sub_epi8(stored, _mm256_set1_epi8(Self::OFFSET as i8))
    }

    /// Scales and biases of the block's groups, `scales[group]`.
    ///
    /// # Safety
    /// `block` points to `Self::BYTES` readable bytes.
    unsafe fn read_scales(block: *const u8, scales: &mut [f32; MAX_GROUPS], biases: &mut [f32; MAX_GROUPS]);
}

/// Half precision to single. The bits go to a register of their own by instruction: what the compiler would take for it
/// leaves the rest of the register as it was, and so waits for whatever used it last.
///
/// # Safety
/// 2 bytes are readable.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn half(bytes: *const u8) -> f32 {
    // SAFETY: the caller's promise.
    let bits = unsafe { bytes.cast::<u16>().read_unaligned() };
    let halves: __m128i;
    // SAFETY: moves a register.
    unsafe {
        asm!("vmovd {halves}, {bits:e}", halves = lateout(xmm_reg) halves, bits = in(reg) u32::from(bits),
            options(pure, nomem, nostack, preserves_flags));
    }
    _mm_cvtss_f32(_mm_cvtph_ps(halves))
}

/// Sixteen bytes as 32 nibbles: the low ones, then the high ones.
///
/// # Safety
/// 16 bytes are readable.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn nibbles(bytes: *const u8) -> __m256i {
    // SAFETY: the caller's promise.
    let packed = unsafe { _mm_loadu_si128(bytes.cast()) };
    let both = _mm256_set_m128i(_mm_srli_epi16::<4>(packed), packed);
    _mm256_and_si256(both, _mm256_set1_epi8(15))
}

/// 16 in every byte whose bit is set.
///
/// # Safety
/// 4 bytes are readable.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn fifth_bits(bytes: *const u8) -> __m256i {
    // SAFETY: the caller's promise.
    let bits = unsafe { bytes.cast::<i32>().read_unaligned() };
    let spread = _mm256_set_epi64x(0x0303_0303_0303_0303, 0x0202_0202_0202_0202, 0x0101_0101_0101_0101, 0);
    let bytes = _mm256_shuffle_epi8(_mm256_set1_epi32(bits), spread);
    let select = _mm256_set1_epi64x(0x8040_2010_0804_0201u64 as i64);
    let set = _mm256_cmpeq_epi8(_mm256_and_si256(bytes, select), select);
    _mm256_and_si256(set, _mm256_set1_epi8(16))
}

/// Bytes shifted right by `count` bits and masked.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn bits_of(bytes: __m256i, count: i32, mask: i8) -> __m256i {
    _mm256_and_si256(_mm256_srl_epi16(bytes, _mm_cvtsi32_si128(count)), _mm256_set1_epi8(mask))
}

/// Scales and biases of a format with blocks of 32: one half-precision number each, at the front.
///
/// # Safety
/// 4 bytes are readable.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn legacy_scales<B: Block>(block: *const u8, scales: &mut [f32; MAX_GROUPS], biases: &mut [f32; MAX_GROUPS]) {
    // SAFETY: the caller's promise.
    unsafe {
        scales[0] = half(block);
        if B::BIASED {
            biases[0] = half(block.add(2));
        }
    }
}

/// Scales and biases of Q4_K and Q5_K: `d`, `dmin`, then 6-bit pairs in 12 bytes.
///
/// # Safety
/// 16 bytes are readable.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn affine_scales(block: *const u8, scales: &mut [f32; MAX_GROUPS], biases: &mut [f32; MAX_GROUPS]) {
    // SAFETY: the caller's promise; both arrays have room for eight values.
    unsafe {
        let word = |index: usize| block.add(4 + 4 * index).cast::<u32>().read_unaligned();
        let (first, second, third) = (word(0), word(1), word(2));
        let high = |word: u32| (word >> 6 & 0x0303_0303) << 4;
        let both = |low: u32, high: u32| {
            let bytes = _mm_cvtsi64_si128((u64::from(high) << 32 | u64::from(low)) as i64);
            _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(bytes))
        };
        let steps = both(first & 0x3f3f_3f3f, third & 0x0f0f_0f0f | high(first));
        let minima = both(second & 0x3f3f_3f3f, third >> 4 & 0x0f0f_0f0f | high(second));
        _mm256_storeu_ps(scales.as_mut_ptr(), _mm256_mul_ps(steps, _mm256_set1_ps(half(block))));
        let dmin = _mm256_set1_ps(-half(block.add(2)));
        _mm256_storeu_ps(biases.as_mut_ptr(), _mm256_mul_ps(minima, dmin));
    }
}

/// Scales of Q6_K: 16 signed bytes, then `d`.
///
/// # Safety
/// 210 bytes are readable.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn signed_scales(block: *const u8, scales: &mut [f32; MAX_GROUPS]) {
    // SAFETY: the caller's promise; the array has room for sixteen values.
    unsafe {
        let bytes = _mm_loadu_si128(block.add(192).cast());
        let d = _mm256_set1_ps(half(block.add(208)));
        let low = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes));
        let high = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128::<8>(bytes)));
        _mm256_storeu_ps(scales.as_mut_ptr(), _mm256_mul_ps(low, d));
        _mm256_storeu_ps(scales.as_mut_ptr().add(8), _mm256_mul_ps(high, d));
    }
}

macro_rules! blocks {
    ($($block:ty: $scales:expr, |$pointer:ident, $part:ident| $stored:expr $(, signed $signed:expr)?;)*) => {
        $(impl Blocks for $block {
            const UNPACKED: bool = true;
            #[inline]
            #[target_feature(enable = "avx2,fma,f16c")]
            unsafe fn stored32($pointer: *const u8, $part: usize) -> __m256i {
                let _ = $part;
                // SAFETY: the caller's promise; the offsets are those of the format's layout.
                unsafe { $stored }
            }
            $(#[inline]
            #[target_feature(enable = "avx2,fma,f16c")]
            unsafe fn signed32($pointer: *const u8, _: usize) -> __m256i {
                // SAFETY: the caller's promise; the offsets are those of the format's layout.
                unsafe { $signed }
            })?
            #[inline]
            #[target_feature(enable = "avx2,fma,f16c")]
            unsafe fn read_scales(
                block: *const u8,
                scales: &mut [f32; MAX_GROUPS],
                biases: &mut [f32; MAX_GROUPS],
            ) {
                // SAFETY: the caller's promise; the offsets are those of the format's layout.
                unsafe { $scales(block, scales, biases) }
            }
        })*
    };
}

blocks! {
    Q4_0: legacy_scales::<Self>, |block, part| nibbles(block.add(2));
    Q4_1: legacy_scales::<Self>, |block, part| nibbles(block.add(4));
    Q5_0: legacy_scales::<Self>, |block, part| _mm256_or_si256(nibbles(block.add(6)), fifth_bits(block.add(2)));
    Q5_1: legacy_scales::<Self>, |block, part| _mm256_or_si256(nibbles(block.add(8)), fifth_bits(block.add(4)));
    Q8_0: legacy_scales::<Self>,
        |block, part| _mm256_xor_si256(_mm256_loadu_si256(block.add(2).cast()), _mm256_set1_epi8(-128)),
        signed _mm256_loadu_si256(block.add(2).cast());
    Q4K: affine_scales, |block, part| {
        let packed = _mm256_loadu_si256(block.add(16 + part / 2 * 32).cast());
        bits_of(packed, (part % 2 * 4) as i32, 15)
    };
    Q5K: affine_scales, |block, part| {
        let packed = _mm256_loadu_si256(block.add(48 + part / 2 * 32).cast());
        let fifth = bits_of(_mm256_loadu_si256(block.add(16).cast()), part as i32, 1);
        _mm256_or_si256(bits_of(packed, (part % 2 * 4) as i32, 15), _mm256_slli_epi16::<4>(fifth))
    };
    Q6K: |block, scales, _: &mut _| signed_scales(block, scales), |block, part| {
        let (half, quarter) = (part / 4, part % 4);
        let low = _mm256_loadu_si256(block.add(half * 64 + quarter % 2 * 32).cast());
        let high = _mm256_loadu_si256(block.add(128 + half * 32).cast());
        let low = bits_of(low, (quarter / 2 * 4) as i32, 15);
        let high = _mm256_slli_epi16::<4>(bits_of(high, (quarter * 2) as i32, 3));
        _mm256_or_si256(low, high)
    };
}

/// Formats that only their plain decoder unpacks.
macro_rules! plain {
    ($($block:ty;)*) => {
        $(impl Blocks for $block {
            const UNPACKED: bool = false;
            #[inline]
            #[target_feature(enable = "avx2,fma,f16c")]
            unsafe fn stored32(block: *const u8, part: usize) -> __m256i {
                let mut codes = [0i8; MAX_BLOCK];
                // SAFETY: `block` points to `BYTES` readable bytes, as the trait asks.
                Self::codes(unsafe { std::slice::from_raw_parts(block, Self::BYTES) }, &mut codes);
                let codes: &[i8; 32] = codes[part * 32..].first_chunk().expect("a part of a block");
                // SAFETY: 32 codes are read.
                let codes = unsafe { _mm256_loadu_si256(codes.as_ptr().cast()) };
                _mm256_add_epi8(codes, _mm256_set1_epi8(Self::OFFSET as i8))
            }
            #[inline]
            #[target_feature(enable = "avx2,fma,f16c")]
            unsafe fn read_scales(
                block: *const u8,
                scales: &mut [f32; MAX_GROUPS],
                biases: &mut [f32; MAX_GROUPS],
            ) {
                // SAFETY: `block` points to `BYTES` readable bytes, as the trait asks.
                Self::scales(unsafe { std::slice::from_raw_parts(block, Self::BYTES) }, scales, biases);
            }
        })*
    };
}
plain_blocks!(plain);
