//! The formats with super-blocks of 256: Q4_K, Q5_K, Q6_K.

use super::search::{affine_error, affine_scale, code, inverse, symmetric_error, symmetric_scale, to_half};
use super::{Block, MAX_BLOCK, MAX_GROUPS, half_at};

/// `d`, `dmin` (half), 12 bytes of 6-bit scales and minima, 128 bytes of nibbles.
pub(crate) struct Q4K;
/// `d`, `dmin` (half), 12 bytes of 6-bit scales and minima, 32 bytes of fifth bits, 128 bytes of nibbles.
pub(crate) struct Q5K;
/// 128 bytes of low nibbles, 64 bytes of high pairs, 16 signed scales, `d` (half).
pub(crate) struct Q6K;

/// The 6-bit scale and minimum of group `j` in 12 packed bytes.
#[inline(always)]
fn scale_and_minimum(packed: &[u8], j: usize) -> (u8, u8) {
    if j < 4 {
        (packed[j] & 63, packed[j + 4] & 63)
    } else {
        (packed[j + 4] & 15 | packed[j - 4] >> 6 << 4, packed[j + 4] >> 4 | packed[j] >> 6 << 4)
    }
}

#[inline(always)]
fn pack_scales(scales: &[u8; 8], minima: &[u8; 8], packed: &mut [u8]) {
    for j in 0..4 {
        packed[j] = scales[j] | scales[j + 4] >> 4 << 6;
        packed[j + 4] = minima[j] | minima[j + 4] >> 4 << 6;
        packed[j + 8] = scales[j + 4] & 15 | (minima[j + 4] & 15) << 4;
    }
}

#[inline(always)]
fn affine_scales(block: &[u8], scales: &mut [f32; MAX_GROUPS], biases: &mut [f32; MAX_GROUPS]) {
    let (d, dmin) = (half_at(block, 0), half_at(block, 2));
    for j in 0..8 {
        let (scale, minimum) = scale_and_minimum(&block[4..16], j);
        scales[j] = d * f32::from(scale);
        biases[j] = -(dmin * f32::from(minimum));
    }
}

impl Block for Q4K {
    const LEN: usize = 256;
    const BYTES: usize = 144;
    const GROUP: usize = 32;
    const BIASED: bool = true;
    const BITS: u32 = 4;
    #[inline(always)]
    fn scales(block: &[u8], scales: &mut [f32; MAX_GROUPS], biases: &mut [f32; MAX_GROUPS]) {
        affine_scales(block, scales, biases);
    }
    #[inline(always)]
    fn codes(block: &[u8], codes: &mut [i8; MAX_BLOCK]) {
        for (chunk, bytes) in block[16..144].chunks_exact(32).enumerate() {
            for (i, byte) in bytes.iter().enumerate() {
                codes[chunk * 64 + i] = (byte & 15) as i8;
                codes[chunk * 64 + 32 + i] = (byte >> 4) as i8;
            }
        }
    }
}

impl Block for Q5K {
    const LEN: usize = 256;
    const BYTES: usize = 176;
    const GROUP: usize = 32;
    const BIASED: bool = true;
    const BITS: u32 = 5;
    #[inline(always)]
    fn scales(block: &[u8], scales: &mut [f32; MAX_GROUPS], biases: &mut [f32; MAX_GROUPS]) {
        affine_scales(block, scales, biases);
    }
    #[inline(always)]
    fn codes(block: &[u8], codes: &mut [i8; MAX_BLOCK]) {
        let high = &block[16..48];
        for (chunk, bytes) in block[48..176].chunks_exact(32).enumerate() {
            for (i, byte) in bytes.iter().enumerate() {
                let pair = high[i] >> (2 * chunk);
                codes[chunk * 64 + i] = (byte & 15 | (pair & 1) << 4) as i8;
                codes[chunk * 64 + 32 + i] = (byte >> 4 | (pair & 2) << 3) as i8;
            }
        }
    }
}

impl Block for Q6K {
    const LEN: usize = 256;
    const BYTES: usize = 210;
    const GROUP: usize = 16;
    const BIASED: bool = false;
    const BITS: u32 = 6;
    #[inline(always)]
    fn scales(block: &[u8], scales: &mut [f32; MAX_GROUPS], _: &mut [f32; MAX_GROUPS]) {
        let d = half_at(block, 208);
        for (scale, byte) in scales.iter_mut().zip(&block[192..208]) {
            *scale = d * f32::from(*byte as i8);
        }
    }
    #[inline(always)]
    fn codes(block: &[u8], codes: &mut [i8; MAX_BLOCK]) {
        for half in 0..2 {
            let (low, high) = (&block[half * 64..half * 64 + 64], &block[128 + half * 32..160 + half * 32]);
            let codes = &mut codes[half * 128..half * 128 + 128];
            for i in 0..32 {
                codes[i] = (low[i] & 15 | (high[i] & 3) << 4) as i8 - 32;
                codes[i + 32] = (low[i + 32] & 15 | (high[i] >> 2 & 3) << 4) as i8 - 32;
                codes[i + 64] = (low[i] >> 4 | (high[i] >> 4 & 3) << 4) as i8 - 32;
                codes[i + 96] = (low[i + 32] >> 4 | (high[i] >> 6) << 4) as i8 - 32;
            }
        }
    }
}

/// A super-block of an affine format, chosen for a small squared error.
struct Affine {
    d: f32,
    dmin: f32,
    scales: [u8; 8],
    minima: [u8; 8],
    codes: [u8; 256],
}

/// The integers around `value / step` in `0..=63`.
#[inline(always)]
fn around(value: f32, step: f32) -> std::ops::RangeInclusive<u8> {
    let nearest = code(value, inverse(step), 0.0, 63.0) as u8;
    nearest.saturating_sub(1)..=(nearest + 1).min(63)
}

/// For fixed `d` and `dmin`: the best integer scales and minima, and the squared error.
#[inline(always)]
fn choose_integers(x: &[[f32; 32]], ideal: &[(f32, f32); 8], d: f32, dmin: f32, high: f32) -> (f32, [u8; 8], [u8; 8]) {
    let (mut total, mut scales, mut minima) = (0.0, [0; 8], [0; 8]);
    for j in 0..8 {
        let mut best = f32::INFINITY;
        for scale in around(ideal[j].0, d) {
            for minimum in around(ideal[j].1, dmin) {
                let error = affine_error(&x[j], d * f32::from(scale), dmin * f32::from(minimum), high);
                if error < best {
                    (best, scales[j], minima[j]) = (error, scale, minimum);
                }
            }
        }
        total += best;
    }
    (total, scales, minima)
}

#[inline(always)]
fn affine_super_block(x: &[f32], high: f32) -> Affine {
    let x = x.as_chunks::<32>().0;
    let mut ideal = [(0.0, 0.0); 8];
    for (ideal, x) in ideal.iter_mut().zip(x) {
        *ideal = affine_scale(x, high);
    }
    let largest = ideal.iter().fold((0.0f32, 0.0f32), |a, b| (a.0.max(b.0), a.1.max(b.1)));
    let mut best = (f32::INFINITY, [0; 8], [0; 8], 0.0, 0.0);
    for shrink in [63.0, 61.5] {
        let (d, dmin) = (to_half(largest.0 / shrink), to_half(largest.1 / shrink));
        let (error, scales, minima) = choose_integers(x, &ideal, d, dmin, high);
        if error < best.0 {
            best = (error, scales, minima, d, dmin);
        }
    }
    let (_, scales, minima, d, dmin) = best;
    let mut codes = [0; 256];
    for (j, x) in x.iter().enumerate() {
        let (scale, minimum) = (d * f32::from(scales[j]), dmin * f32::from(minima[j]));
        let inverse_scale = inverse(scale);
        for (code_out, x) in codes[j * 32..].iter_mut().zip(x) {
            *code_out = code(x + minimum, inverse_scale, 0.0, high) as u8;
        }
    }
    Affine { d, dmin, scales, minima, codes }
}

impl Affine {
    fn write_header(&self, block: &mut [u8]) {
        block[..2].copy_from_slice(&half::f16::from_f32(self.d).to_le_bytes());
        block[2..4].copy_from_slice(&half::f16::from_f32(self.dmin).to_le_bytes());
        pack_scales(&self.scales, &self.minima, &mut block[4..16]);
    }

    fn write_nibbles(&self, bytes: &mut [u8]) {
        for (codes, bytes) in self.codes.chunks_exact(64).zip(bytes.chunks_exact_mut(32)) {
            for i in 0..32 {
                bytes[i] = codes[i] & 15 | (codes[i + 32] & 15) << 4;
            }
        }
    }
}

#[inline(always)]
pub(super) fn encode_q4_k(values: &[f32], out: &mut [u8]) {
    for (x, block) in values.chunks_exact(Q4K::LEN).zip(out.chunks_exact_mut(Q4K::BYTES)) {
        let affine = affine_super_block(x, 15.0);
        affine.write_header(block);
        affine.write_nibbles(&mut block[16..]);
    }
}

#[inline(always)]
pub(super) fn encode_q5_k(values: &[f32], out: &mut [u8]) {
    for (x, block) in values.chunks_exact(Q5K::LEN).zip(out.chunks_exact_mut(Q5K::BYTES)) {
        let affine = affine_super_block(x, 31.0);
        affine.write_header(block);
        block[16..48].fill(0);
        for (chunk, codes) in affine.codes.chunks_exact(64).enumerate() {
            for i in 0..32 {
                block[16 + i] |= (codes[i] >> 4 | codes[i + 32] >> 4 << 1) << (2 * chunk);
            }
        }
        affine.write_nibbles(&mut block[48..]);
    }
}

#[inline(always)]
pub(super) fn encode_q6_k(values: &[f32], out: &mut [u8]) {
    for (x, block) in values.chunks_exact(Q6K::LEN).zip(out.chunks_exact_mut(Q6K::BYTES)) {
        let mut ideal = [0.0f32; 16];
        for (ideal, x) in ideal.iter_mut().zip(x.as_chunks::<16>().0) {
            *ideal = symmetric_scale(x, -32.0, 31.0);
        }
        let d = to_half(ideal.iter().fold(0.0f32, |a, b| a.max(b.abs())) / 127.0);
        let mut codes = [0u8; 256];
        for (group, x) in x.as_chunks::<16>().0.iter().enumerate() {
            let nearest = code(ideal[group], inverse(d), -127.0, 127.0) as i8;
            let mut best = (f32::INFINITY, 0i8);
            for scale in nearest.saturating_sub(1)..=nearest.saturating_add(1) {
                let error = symmetric_error(x, d * f32::from(scale), -32.0, 31.0);
                if error < best.0 {
                    best = (error, scale);
                }
            }
            block[192 + group] = best.1 as u8;
            let inverse_scale = inverse(d * f32::from(best.1));
            for (code_out, x) in codes[group * 16..].iter_mut().zip(x) {
                *code_out = (code(*x, inverse_scale, -32.0, 31.0) as i8 + 32) as u8;
            }
        }
        block[208..210].copy_from_slice(&half::f16::from_f32(d).to_le_bytes());
        for half in 0..2 {
            let codes = &codes[half * 128..half * 128 + 128];
            for i in 0..32 {
                block[half * 64 + i] = codes[i] & 15 | (codes[i + 64] & 15) << 4;
                block[half * 64 + 32 + i] = codes[i + 32] & 15 | (codes[i + 96] & 15) << 4;
                block[128 + half * 32 + i] =
                    codes[i] >> 4 | codes[i + 32] >> 4 << 2 | codes[i + 64] >> 4 << 4 | codes[i + 96] >> 4 << 6;
            }
        }
    }
}
