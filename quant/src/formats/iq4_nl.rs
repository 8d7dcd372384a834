//! IQ4_NL: a scale for 32 values, whose 4-bit codes are places in a table of 16 uneven levels.
//!
//! Half-precision scale, then 16 bytes: byte `i` holds value `i` in its low and value `i + 16` in its high half.

use super::block::{Block, MAX_BLOCK, MAX_GROUPS, half_at, put_values, with_sign};

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
    fn set_scales(block: &mut [u8], spread: f32) {
        let square = LEVELS.iter().map(|level| f32::from(*level).powi(2)).sum::<f32>() / 16.0;
        put_values(&[with_sign(block, spread / square.sqrt())], block);
    }
}
