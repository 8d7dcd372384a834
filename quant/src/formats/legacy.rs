//! The formats with blocks of 32: Q4_0, Q4_1, Q5_0, Q5_1, Q8_0.
//!
//! Four-bit codes lie 16 to a half block: byte `i` holds value `i` in its low and value `i + 16` in its high nibble.

use super::search::{code, inverse, symmetric_error, symmetric_scale, to_half};
use super::{Block, MAX_BLOCK, MAX_GROUPS, half_at};

pub(crate) struct Q4_0;
pub(crate) struct Q4_1;
pub(crate) struct Q5_0;
pub(crate) struct Q5_1;
pub(crate) struct Q8_0;

#[inline(always)]
fn nibbles(bytes: &[u8], offset: i8, codes: &mut [i8; MAX_BLOCK]) {
    for (i, byte) in bytes[..16].iter().enumerate() {
        codes[i] = (byte & 15) as i8 - offset;
        codes[i + 16] = (byte >> 4) as i8 - offset;
    }
}

/// Adds the fifth bits: bit `i` of `bits` belongs to value `i`.
#[inline(always)]
fn fifth_bits(bytes: &[u8], codes: &mut [i8; MAX_BLOCK]) {
    let bits = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    for (i, code) in codes[..32].iter_mut().enumerate() {
        *code += ((bits >> i & 1) << 4) as i8;
    }
}

impl Block for Q4_0 {
    const LEN: usize = 32;
    const BYTES: usize = 18;
    const GROUP: usize = 32;
    const BIASED: bool = false;
    const BITS: u32 = 4;
    #[inline(always)]
    fn scales(block: &[u8], scales: &mut [f32; MAX_GROUPS], _: &mut [f32; MAX_GROUPS]) {
        scales[0] = half_at(block, 0);
    }
    #[inline(always)]
    fn codes(block: &[u8], codes: &mut [i8; MAX_BLOCK]) {
        nibbles(&block[2..], 8, codes);
    }
}

impl Block for Q4_1 {
    const LEN: usize = 32;
    const BYTES: usize = 20;
    const GROUP: usize = 32;
    const BIASED: bool = true;
    const BITS: u32 = 4;
    #[inline(always)]
    fn scales(block: &[u8], scales: &mut [f32; MAX_GROUPS], biases: &mut [f32; MAX_GROUPS]) {
        (scales[0], biases[0]) = (half_at(block, 0), half_at(block, 2));
    }
    #[inline(always)]
    fn codes(block: &[u8], codes: &mut [i8; MAX_BLOCK]) {
        nibbles(&block[4..], 0, codes);
    }
}

impl Block for Q5_0 {
    const LEN: usize = 32;
    const BYTES: usize = 22;
    const GROUP: usize = 32;
    const BIASED: bool = false;
    const BITS: u32 = 5;
    #[inline(always)]
    fn scales(block: &[u8], scales: &mut [f32; MAX_GROUPS], _: &mut [f32; MAX_GROUPS]) {
        scales[0] = half_at(block, 0);
    }
    #[inline(always)]
    fn codes(block: &[u8], codes: &mut [i8; MAX_BLOCK]) {
        nibbles(&block[6..], 16, codes);
        fifth_bits(&block[2..6], codes);
    }
}

impl Block for Q5_1 {
    const LEN: usize = 32;
    const BYTES: usize = 24;
    const GROUP: usize = 32;
    const BIASED: bool = true;
    const BITS: u32 = 5;
    #[inline(always)]
    fn scales(block: &[u8], scales: &mut [f32; MAX_GROUPS], biases: &mut [f32; MAX_GROUPS]) {
        (scales[0], biases[0]) = (half_at(block, 0), half_at(block, 2));
    }
    #[inline(always)]
    fn codes(block: &[u8], codes: &mut [i8; MAX_BLOCK]) {
        nibbles(&block[8..], 0, codes);
        fifth_bits(&block[4..8], codes);
    }
}

impl Block for Q8_0 {
    const LEN: usize = 32;
    const BYTES: usize = 34;
    const GROUP: usize = 32;
    const BIASED: bool = false;
    const BITS: u32 = 8;
    #[inline(always)]
    fn scales(block: &[u8], scales: &mut [f32; MAX_GROUPS], _: &mut [f32; MAX_GROUPS]) {
        scales[0] = half_at(block, 0);
    }
    #[inline(always)]
    fn codes(block: &[u8], codes: &mut [i8; MAX_BLOCK]) {
        for (code, byte) in codes.iter_mut().zip(&block[2..34]) {
            *code = *byte as i8;
        }
    }
}

#[inline(always)]
fn put_half(value: f32, bytes: &mut [u8]) {
    bytes.copy_from_slice(&half::f16::from_f32(value).to_le_bytes());
}

#[inline(always)]
pub(super) fn encode_q4_0(values: &[f32], out: &mut [u8]) {
    for (x, block) in values.as_chunks::<{ Q4_0::LEN }>().0.iter().zip(out.chunks_exact_mut(Q4_0::BYTES)) {
        let scale = to_half(symmetric_scale(x, -8.0, 7.0));
        let inverse_scale = inverse(scale);
        put_half(scale, &mut block[..2]);
        for i in 0..16 {
            let low = code(x[i], inverse_scale, -8.0, 7.0) as i8 + 8;
            let high = code(x[i + 16], inverse_scale, -8.0, 7.0) as i8 + 8;
            block[2 + i] = low as u8 | (high as u8) << 4;
        }
    }
}

/// At eight bits the scale's own rounding to half precision is what a search can still win back.
#[inline(always)]
fn q8_0_scale(x: &[f32; 32]) -> f32 {
    let largest = x.iter().fold(0.0f32, |a, b| a.max(b.abs()));
    let nearest = half::f16::from_f32((largest / 127.0).min(65504.0)).to_bits();
    let mut best = (f32::INFINITY, 0.0);
    for bits in nearest.saturating_sub(1)..=nearest.saturating_add(1).min(half::f16::MAX.to_bits()) {
        let scale = half::f16::from_bits(bits).to_f32();
        let error = symmetric_error(x, scale, -127.0, 127.0);
        if error < best.0 {
            best = (error, scale);
        }
    }
    best.1
}

#[inline(always)]
pub(super) fn encode_q8_0(values: &[f32], out: &mut [u8]) {
    for (x, block) in values.as_chunks::<{ Q8_0::LEN }>().0.iter().zip(out.chunks_exact_mut(Q8_0::BYTES)) {
        let scale = q8_0_scale(x);
        let inverse_scale = inverse(scale);
        put_half(scale, &mut block[..2]);
        for (x, byte) in x.iter().zip(&mut block[2..]) {
            *byte = code(*x, inverse_scale, -127.0, 127.0) as i8 as u8;
        }
    }
}
