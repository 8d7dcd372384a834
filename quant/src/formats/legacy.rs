//! The formats with blocks of 32: Q4_0, Q4_1, Q5_0, Q5_1, Q8_0.
//!
//! Four-bit codes lie 16 to a half block: byte `i` holds value `i` in its low and value `i + 16` in its high nibble.

use std::hint::select_unpredictable as select;

use super::search::{Groups, LANES, Lanes, to_half, turn};
use super::{Block, MAX_BLOCK, MAX_GROUPS, half_at, put_half};

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

/// Where among the codes the largest value is tried. ggml's choice is the lower end: with it among the candidates the result
/// is not worse. Of the others, these explain most of Gaussian and of heavy-tailed weights.
const Q4_0_PLACES: [f32; 4] = [-8.0, -8.48, -7.2, -8.8];

#[inline(always)]
pub(super) fn encode_q4_0(values: &[f32], out: &mut [u8]) {
    let blocks = values.chunks(Q4_0::LEN * LANES).zip(out.chunks_mut(Q4_0::BYTES * LANES));
    for (x, blocks) in blocks {
        let x = Groups::<{ Q4_0::LEN }>::new(x);
        let scales = x.symmetric_scales(&Q4_0_PLACES, -8.0, 7.0).map(to_half);
        let codes = x.symmetric_codes(&scales, -8.0, 7.0);
        let mut pairs = [[0; LANES]; 16];
        for (i, pairs) in pairs.iter_mut().enumerate() {
            for lane in 0..LANES {
                pairs[lane] = (codes[i][lane] + 8) as u8 | ((codes[i + 16][lane] + 8) as u8) << 4;
            }
        }
        turn(pairs.as_flattened_mut(), [[0; LANES]; 16].as_flattened_mut());
        for ((block, scale), pairs) in blocks.chunks_exact_mut(Q4_0::BYTES).zip(scales).zip(&pairs) {
            put_half(scale, block);
            block[2..].copy_from_slice(pairs);
        }
    }
}

/// At eight bits the scale's own rounding to half precision is what a search can still win back.
#[inline(always)]
fn q8_0_scales(x: &Groups<{ Q8_0::LEN }>) -> Lanes {
    let (mut best, mut best_errors) = ([0.0; LANES], [f32::INFINITY; LANES]);
    let nearest = x.largest.map(|largest| half::f16::from_f32((largest / 127.0).min(65504.0)).to_bits());
    for step in [0, -1, 1] {
        let scales = nearest.map(|bits| {
            let bits = bits.saturating_add_signed(step).min(half::f16::MAX.to_bits());
            half::f16::from_bits(bits).to_f32()
        });
        let errors = x.symmetric_errors(&scales, -127.0, 127.0);
        for lane in 0..LANES {
            let better = errors[lane] < best_errors[lane];
            best_errors[lane] = select(better, errors[lane], best_errors[lane]);
            best[lane] = select(better, scales[lane], best[lane]);
        }
    }
    best
}

#[inline(always)]
pub(super) fn encode_q8_0(values: &[f32], out: &mut [u8]) {
    let blocks = values.chunks(Q8_0::LEN * LANES).zip(out.chunks_mut(Q8_0::BYTES * LANES));
    for (x, blocks) in blocks {
        let x = Groups::<{ Q8_0::LEN }>::new(x);
        let scales = q8_0_scales(&x);
        let mut codes = x.symmetric_codes(&scales, -127.0, 127.0);
        let halves = codes.as_chunks_mut::<16>().0;
        halves.iter_mut().for_each(|half| turn(half.as_flattened_mut(), [[0; LANES]; 16].as_flattened_mut()));
        for (lane, block) in blocks.chunks_exact_mut(Q8_0::BYTES).enumerate() {
            put_half(scales[lane], block);
            for (bytes, half) in block[2..].as_chunks_mut::<16>().0.iter_mut().zip(&*halves) {
                *bytes = half[lane].map(i8::cast_unsigned);
            }
        }
    }
}
