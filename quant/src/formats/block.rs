//! What every family of quantized blocks says of itself.

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
    /// The block's `LEN` codes.
    fn codes(block: &[u8], codes: &mut [i8; MAX_BLOCK]);
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
