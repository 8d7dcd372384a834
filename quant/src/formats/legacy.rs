//! The formats with blocks of 32: Q4_0, Q4_1, Q5_0, Q5_1, Q8_0.
//!
//! Four-bit codes lie 16 to a half block: byte `i` holds value `i` in its low and value `i + 16` in its high nibble.

use std::hint::select_unpredictable as select;

use half::f16;

use super::block::{Block, MAX_BLOCK, MAX_GROUPS, code_step, half_at, put_halves, put_values, with_sign};
use super::fixed::{FixedGroups, PairProducts};
use super::rule::{Codes, Fit};
use super::search::{LANES, each_lane, from_half_bits, half_bits, transpose, transpose_eight};

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

/// Codes of 0 to 15 as nibbles; higher bits are left out.
fn put_nibbles(codes: &[i8; MAX_BLOCK], offset: i8, bytes: &mut [u8]) {
    for (i, byte) in bytes[..16].iter_mut().enumerate() {
        *byte = ((codes[i] + offset) & 15 | ((codes[i + 16] + offset) & 15) << 4) as u8;
    }
}

fn put_fifth_bits(codes: &[i8; MAX_BLOCK], offset: i8, bytes: &mut [u8]) {
    let bits = codes[..32].iter().rev().fold(0, |bits, code| bits << 1 | u32::from((code + offset) as u8 >> 4 & 1));
    bytes[..4].copy_from_slice(&bits.to_le_bytes());
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
    const FIT: Fit = Fit::Scale;
    fn set_codes(codes: &[i8; MAX_BLOCK], block: &mut [u8]) {
        put_nibbles(codes, 8, &mut block[2..]);
    }
    fn set_scales(block: &mut [u8], spread: f32) {
        put_values(&[with_sign(block, code_step(16.0, spread))], block);
    }
    const SEARCHES: bool = true;
    #[inline(always)]
    fn encode(pairs: impl PairProducts, values: &[f32], out: &mut [u8]) {
        encode_q4_0(pairs, values, out);
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
    const FIT: Fit = Fit::Line;
    fn set_codes(codes: &[i8; MAX_BLOCK], block: &mut [u8]) {
        put_nibbles(codes, 0, &mut block[4..]);
    }
    fn set_scales(block: &mut [u8], spread: f32) {
        let step = code_step(16.0, spread);
        put_values(&[step, -7.5 * step], block);
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
    const FIT: Fit = Fit::Scale;
    fn set_codes(codes: &[i8; MAX_BLOCK], block: &mut [u8]) {
        put_fifth_bits(codes, 16, &mut block[2..6]);
        put_nibbles(codes, 16, &mut block[6..]);
    }
    fn set_scales(block: &mut [u8], spread: f32) {
        put_values(&[with_sign(block, code_step(32.0, spread))], block);
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
    const FIT: Fit = Fit::Line;
    fn set_codes(codes: &[i8; MAX_BLOCK], block: &mut [u8]) {
        put_fifth_bits(codes, 0, &mut block[4..8]);
        put_nibbles(codes, 0, &mut block[8..]);
    }
    fn set_scales(block: &mut [u8], spread: f32) {
        let step = code_step(32.0, spread);
        put_values(&[step, -15.5 * step], block);
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
    /// ggml's: the same reach either way.
    const CODES: Codes = Codes::Range(-127, 127);
    const FIT: Fit = Fit::Scale;
    fn set_codes(codes: &[i8; MAX_BLOCK], block: &mut [u8]) {
        for (byte, code) in block[2..34].iter_mut().zip(codes) {
            *byte = *code as u8;
        }
    }
    fn set_scales(block: &mut [u8], spread: f32) {
        put_values(&[with_sign(block, code_step(256.0, spread))], block);
    }
    const SEARCHES: bool = true;
    #[inline(always)]
    fn encode(pairs: impl PairProducts, values: &[f32], out: &mut [u8]) {
        encode_q8_0(pairs, values, out);
    }
}

/// Where among the codes the largest value is tried. ggml's choice is the lower end: with it among the candidates the result
/// is not worse. Of the others, these explain most of Gaussian and of heavy-tailed weights.
const Q4_0_PLACES: [f32; 4] = [-8.0, -8.48, -7.2, -8.8];

#[inline(always)]
fn encode_q4_0(pairs: impl PairProducts, values: &[f32], out: &mut [u8]) {
    let blocks = values.chunks(Q4_0::LEN * LANES).zip(out.chunks_mut(Q4_0::BYTES * LANES));
    for (x, blocks) in blocks {
        let x = FixedGroups::<{ Q4_0::LEN }, 16, 4, -8>::new(x);
        let scales = x.scales(pairs, &Q4_0_PLACES);
        let halves = each_lane(|lane| half_bits(scales[lane]));
        let codes = x.codes(&each_lane(|lane| from_half_bits(halves[lane])), Q4_0::OFFSET);
        let (mut rows, mut transposed) = ([[0; LANES]; 8], [[0; 8]; LANES]);
        for (i, row) in rows.iter_mut().enumerate() {
            *row = each_lane(|lane| codes[i][lane] | codes[i + 8][lane] << 4);
        }
        transpose_eight(rows.as_flattened_mut(), transposed.as_flattened_mut());
        for ((block, half), codes) in blocks.chunks_exact_mut(Q4_0::BYTES).zip(halves).zip(&transposed) {
            put_halves(&[half], block);
            put_halves(codes, &mut block[2..]);
        }
    }
}

/// At eight bits the scale's own rounding to half precision is what a search can still win back.
#[inline(always)]
fn encode_q8_0(pairs: impl PairProducts, values: &[f32], out: &mut [u8]) {
    let blocks = values.chunks(Q8_0::LEN * LANES).zip(out.chunks_mut(Q8_0::BYTES * LANES));
    for (x, blocks) in blocks {
        let x = FixedGroups::<{ Q8_0::LEN }, 16, 8, -127>::new(x);
        let nearest = each_lane(|lane| half_bits(x.largest[lane] / 127.0));
        let (mut best, mut best_explained) = ([0; LANES], [f64::NEG_INFINITY; LANES]);
        for step in [0, -1, 1] {
            let halves = each_lane(|lane| nearest[lane].saturating_add_signed(step).min(f16::MAX.to_bits()));
            let explained = x.explained(pairs, &each_lane(|lane| from_half_bits(halves[lane])));
            for lane in 0..LANES {
                let better = explained[lane] > best_explained[lane];
                best_explained[lane] = select(better, explained[lane], best_explained[lane]);
                best[lane] = select(better, halves[lane], best[lane]);
            }
        }
        let mut codes = x.codes(&each_lane(|lane| from_half_bits(best[lane])), 0);
        transpose(codes.as_flattened_mut(), [[0; LANES]; 16].as_flattened_mut());
        for ((block, half), codes) in blocks.chunks_exact_mut(Q8_0::BYTES).zip(best).zip(&codes) {
            put_halves(&[half], block);
            put_halves(codes, &mut block[2..]);
        }
    }
}
