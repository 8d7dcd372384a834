//! F32, F16, BF16: one value after another, little-endian.

use half::{bf16, f16};

/// An element of a floating-point format.
pub(crate) trait Float {
    const BYTES: usize;
    /// In how many bf16 numbers an element is held without loss, or nearly.
    const PIECES: usize;
    fn load(bytes: &[u8]) -> f32;
    fn store(value: f32, bytes: &mut [u8]);
}

pub(crate) struct F32;
pub(crate) struct F16;
pub(crate) struct Bf16;

impl Float for F32 {
    const PIECES: usize = 3;
    const BYTES: usize = 4;
    #[inline(always)]
    fn load(bytes: &[u8]) -> f32 {
        f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
    }
    fn store(value: f32, bytes: &mut [u8]) {
        bytes.copy_from_slice(&value.to_le_bytes());
    }
}

impl Float for F16 {
    const PIECES: usize = 2;
    const BYTES: usize = 2;
    #[inline(always)]
    fn load(bytes: &[u8]) -> f32 {
        f16::from_le_bytes([bytes[0], bytes[1]]).to_f32()
    }
    /// Values beyond half precision's range become its largest number, not infinity.
    fn store(value: f32, bytes: &mut [u8]) {
        bytes.copy_from_slice(&f16::from_f32(value.clamp(-65504.0, 65504.0)).to_le_bytes());
    }
}

impl Float for Bf16 {
    const PIECES: usize = 1;
    const BYTES: usize = 2;
    #[inline(always)]
    fn load(bytes: &[u8]) -> f32 {
        bf16::from_le_bytes([bytes[0], bytes[1]]).to_f32()
    }
    /// Values beyond the format's range become its largest number, not infinity.
    fn store(value: f32, bytes: &mut [u8]) {
        let largest = bf16::MAX.to_f32();
        bytes.copy_from_slice(&bf16::from_f32(value.clamp(-largest, largest)).to_le_bytes());
    }
}

#[inline(always)]
pub(super) fn decode<E: Float>(bytes: &[u8], out: &mut [f32]) {
    for (bytes, out) in bytes.chunks_exact(E::BYTES).zip(out) {
        *out = E::load(bytes);
    }
}

#[inline(always)]
pub(super) fn encode<E: Float>(values: &[f32], out: &mut [u8]) {
    for (value, out) in values.iter().zip(out.chunks_exact_mut(E::BYTES)) {
        E::store(*value, out);
    }
}
