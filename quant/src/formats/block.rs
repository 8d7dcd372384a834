//! What every family of quantized blocks says of itself.

use super::fixed::PairProducts;
use super::rule::{Codes, Fit};

/// Most groups (values that share a scale) in a block of any format: Q6_K has 16.
pub const MAX_GROUPS: usize = 16;
/// Values in the longest block.
pub const MAX_BLOCK: usize = 256;

/// A quantized block: `value[i] = scale[i / GROUP] * code[i] (+ bias[i / GROUP] if BIASED)`.
pub(crate) trait Block {
    /// Values in one block.
    const LEN: usize;
    /// Bytes in one block.
    const BYTES: usize;
    /// Values that share one scale.
    const GROUP: usize;
    /// Whether a bias is added.
    const BIASED: bool;
    /// Bits of a stored code.
    const BITS: u32;
    /// What is subtracted from a stored, unsigned code: half its range, unless the format has biases.
    const OFFSET: u8 = if Self::BIASED { 0 } else { 1 << (Self::BITS - 1) };
    /// Scales and biases of the block's `LEN / GROUP` groups. Biases are left alone unless `BIASED`.
    fn scales(block: &[u8], scales: &mut [f32; MAX_GROUPS], biases: &mut [f32; MAX_GROUPS]);
    /// The block's `LEN` codes, each at most 127 in magnitude, or 128 where it is negative.
    fn codes(block: &[u8], codes: &mut [i8; MAX_BLOCK]);
    /// Gives a block of random codes the scales, and biases, with which its values spread by `spread` around zero (a standard deviation).
    /// [`code_step`] is what equally likely codes take.
    fn set_scales(block: &mut [u8], spread: f32);
    /// The codes that [`set_codes`](Self::set_codes) takes.
    const CODES: Codes = if Self::BIASED {
        Codes::Range(0, ((1 << Self::BITS) - 1) as i8)
    } else {
        Codes::Range((-(1i32 << (Self::BITS - 1))) as i8, ((1i32 << (Self::BITS - 1)) - 1) as i8)
    };
    /// How scales are found that suit weights, and where they lie.
    const FIT: Fit;
    /// Stores the block's `LEN` codes.
    fn set_codes(codes: &[i8; MAX_BLOCK], block: &mut [u8]);
    /// Whether [`encode`](Self::encode) is there: a search that is faster than one with weights, or better.
    const SEARCHES: bool = false;
    /// Encodes any number of whole blocks of finite values for a small squared error; `out` has their bytes. A block does not depend on its
    /// neighbours, and decodes to finite values whatever the magnitude of its own.
    #[inline(always)]
    fn encode(_pairs: impl PairProducts, _values: &[f32], _out: &mut [u8]) {}
}

/// The distance between neighbours of `codes` equally likely codes that spread by `spread`: n of them spread by n / √12 steps.
pub(super) fn code_step(codes: f32, spread: f32) -> f32 {
    spread * 12f32.sqrt() / codes
}

/// A scale with a sign that the block's first byte chooses, before a scale is written there. Codes without a bias reach farther on one
/// side of zero than on the other; scales of both signs, as quantizers write them, keep the mean at zero.
pub(super) fn with_sign(block: &[u8], scale: f32) -> f32 {
    if block[0] & 1 == 0 { scale } else { -scale }
}

/// Stores numbers in half precision at the start of `block`.
pub(super) fn put_values<const N: usize>(values: &[f32; N], block: &mut [u8]) {
    put_halves(&values.map(|value| half::f16::from_f32(value).to_bits()), block);
}

/// A half-precision number at `offset`.
#[inline(always)]
pub(crate) fn half_at(block: &[u8], offset: usize) -> f32 {
    half::f16::from_bits(u16::from_le_bytes([block[offset], block[offset + 1]])).to_f32()
}

/// Stores 16-bit words, of which half-precision numbers are some, at the start of `out`.
#[inline(always)]
pub(super) fn put_halves(words: &[u16], out: &mut [u8]) {
    for (word, out) in words.iter().zip(out.as_chunks_mut::<2>().0) {
        *out = word.to_le_bytes();
    }
}
