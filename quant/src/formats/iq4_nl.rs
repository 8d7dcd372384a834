//! IQ4_NL: a scale for 32 values, whose 4-bit codes are places in a table of 16 uneven levels.
//!
//! Half-precision scale, then 16 bytes: byte `i` holds value `i` in its low and value `i + 16` in its high half.

use super::block::{Block, MAX_BLOCK, MAX_GROUPS, half_at, put_halves, put_values, with_sign};
use super::fixed::PairProducts;
use super::rule::{Codes, Fit};
use super::search::{from_half_bits, half_bits, inverse};

pub(crate) struct Iq4Nl;

/// ggml's `kvalues_iq4nl`.
const LEVELS: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

impl Block for Iq4Nl {
    const LEN: usize = 32;
    const BYTES: usize = 18;
    const GROUP: usize = 32;
    const BIASED: bool = false;
    /// Of a level: what products meet.
    const BITS: u32 = 8;
    #[inline(always)]
    fn scales(block: &[u8], scales: &mut [f32; MAX_GROUPS], _: &mut [f32; MAX_GROUPS]) {
        scales[0] = half_at(block, 0);
    }
    #[inline(always)]
    fn codes(block: &[u8], codes: &mut [i8; MAX_BLOCK]) {
        for (i, byte) in block[2..18].iter().enumerate() {
            codes[i] = LEVELS[usize::from(byte & 15)];
            codes[i + 16] = LEVELS[usize::from(byte >> 4)];
        }
    }
    const CODES: Codes = Codes::Levels(&LEVELS);
    const FIT: Fit = Fit::Scale;
    fn set_codes(codes: &[i8; MAX_BLOCK], block: &mut [u8]) {
        let place = |code: i8| LEVELS.iter().position(|level| *level == code).expect("a level") as u8;
        for (i, byte) in block[2..18].iter_mut().enumerate() {
            *byte = place(codes[i]) | place(codes[i + 16]) << 4;
        }
    }
    fn set_scales(block: &mut [u8], spread: f32) {
        let square = LEVELS.iter().map(|level| f32::from(*level).powi(2)).sum::<f32>() / 16.0;
        put_values(&[with_sign(block, spread / square.sqrt())], block);
    }
    const SEARCHES: bool = true;
    #[inline(always)]
    fn encode(_: impl PairProducts, values: &[f32], out: &mut [u8]) {
        for (x, block) in values.as_chunks::<32>().0.iter().zip(out.chunks_exact_mut(Self::BYTES)) {
            encode_block(x, block);
        }
    }
}

/// Where among the levels the largest value is tried: at both ends, before them, and beyond, which clips it.
const PLACES: [f32; 10] = [-127.0, 113.0, -120.0, 106.0, -112.0, 99.0, -134.0, 120.0, -142.0, 92.0];

/// The place in the table of the level nearest to `value`.
#[inline(always)]
fn nearest(value: f32) -> usize {
    let below = |pair: &[i8]| value > (f32::from(pair[0]) + f32::from(pair[1])) / 2.0;
    LEVELS.windows(2).filter(|pair| below(pair)).count()
}

/// Searches the scale with a small squared error of `x ≈ scale · level`. For given codes the best scale is `Σxl / Σl²`, and what it
/// leaves of the squares is `Σx² − (Σxl)² / Σl²`.
#[inline(always)]
fn encode_block(x: &[f32; 32], block: &mut [u8]) {
    let largest = x.iter().fold(0.0f32, |largest, x| if x.abs() > largest.abs() { *x } else { largest });
    // In units of the largest value, so that no square is beyond what a number holds.
    let unit = inverse(largest);
    let x = x.map(|x| x * unit);
    let refit = |factor: f32| {
        let (mut product, mut square) = (0.0, 0.0);
        for x in x {
            let level = f32::from(LEVELS[nearest(x * factor)]);
            product += x * level;
            square += level * level;
        }
        (product / square, product * product / square)
    };
    let (mut scale, mut explained) = (0.0, 0.0);
    // The last candidate is what the best of the others leads to.
    for round in 0..=PLACES.len() {
        let factor = if round < PLACES.len() { PLACES[round] } else { inverse(scale) };
        let found = refit(factor);
        if found.1 > explained {
            (scale, explained) = found;
        }
    }
    let half = half_bits(scale * largest);
    let factor = largest * inverse(from_half_bits(half));
    put_halves(&[half], block);
    for (byte, i) in block[2..].iter_mut().zip(0..16) {
        *byte = (nearest(x[i] * factor) | nearest(x[i + 16] * factor) << 4) as u8;
    }
}
