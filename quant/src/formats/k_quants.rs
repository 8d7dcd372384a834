//! The formats with super-blocks of 256: Q4_K, Q5_K, Q6_K.

use std::hint::select_unpredictable as select;

use super::block::{Block, MAX_BLOCK, MAX_GROUPS, code_step, half_at, put_halves, put_values, with_sign};
use super::fixed::{FixedGroups, PairProducts};
use super::rule::Fit;
use super::search::{
    AffineScales, Groups, LANES, Lanes, code, each_lane, from_half_bits, half_bits, inverse, to_byte, to_half,
    transpose, transpose_eight,
};

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
pub(super) fn pack_scales(scales: &[u8], minima: &[u8], packed: &mut [u8]) {
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

/// As [`Block::set_scales`], for `codes` codes with biases.
fn set_affine_scales(block: &mut [u8], codes: f32, spread: f32) {
    let step = code_step(codes, spread) / 32.0;
    put_values(&[step, step * (codes - 1.0) / 2.0], block);
    // Eight scales and eight minima of 32, in six bits each.
    block[4..12].fill(0xa0);
    block[12..16].fill(0);
}

/// The low four bits of codes, 64 in 32 bytes.
fn put_nibbles(codes: &[i8; MAX_BLOCK], bytes: &mut [u8]) {
    for (bytes, codes) in bytes.chunks_exact_mut(32).zip(codes.chunks_exact(64)) {
        for (i, byte) in bytes.iter_mut().enumerate() {
            *byte = (codes[i] & 15 | (codes[i + 32] & 15) << 4) as u8;
        }
    }
}

/// Stores codes of Q6_K, 0 to 63, but for their sign.
fn put_six_bits(codes: &[u8; MAX_BLOCK], block: &mut [u8]) {
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
    const FIT: Fit = Fit::AffineGroups;
    fn set_codes(codes: &[i8; MAX_BLOCK], block: &mut [u8]) {
        put_nibbles(codes, &mut block[16..144]);
    }
    fn set_scales(block: &mut [u8], spread: f32) {
        set_affine_scales(block, 16.0, spread);
    }
    const SEARCHES: bool = true;
    #[inline(always)]
    fn encode(_: impl PairProducts, values: &[f32], out: &mut [u8]) {
        encode_q4_k(values, out);
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
    const FIT: Fit = Fit::AffineGroups;
    fn set_codes(codes: &[i8; MAX_BLOCK], block: &mut [u8]) {
        let high = &mut block[16..48];
        high.fill(0);
        for (group, codes) in codes.chunks_exact(32).enumerate() {
            for (byte, code) in high.iter_mut().zip(codes) {
                *byte |= ((code >> 4) as u8) << group;
            }
        }
        put_nibbles(codes, &mut block[48..176]);
    }
    fn set_scales(block: &mut [u8], spread: f32) {
        set_affine_scales(block, 32.0, spread);
    }
    const SEARCHES: bool = true;
    #[inline(always)]
    fn encode(_: impl PairProducts, values: &[f32], out: &mut [u8]) {
        encode_q5_k(values, out);
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
    const FIT: Fit = Fit::ScaledGroups(192, 208);
    fn set_codes(codes: &[i8; MAX_BLOCK], block: &mut [u8]) {
        put_six_bits(&codes.map(|code| (code + 32) as u8), block);
    }
    fn set_scales(block: &mut [u8], spread: f32) {
        let step = with_sign(block, code_step(64.0, spread) / 64.0);
        put_values(&[step], &mut block[208..]);
        block[192..208].fill(64);
    }
    const SEARCHES: bool = true;
    #[inline(always)]
    fn encode(pairs: impl PairProducts, values: &[f32], out: &mut [u8]) {
        encode_q6_k(pairs, values, out);
    }
}

/// Super-blocks of an affine format that are encoded together.
const TOGETHER: usize = LANES / 8;

/// Super-blocks of an affine format, chosen for a small squared error: one number for each group of both.
struct Affine {
    /// For each super-block.
    d: [f32; TOGETHER],
    dmin: [f32; TOGETHER],
    scales: [u8; LANES],
    minima: [u8; LANES],
    /// The first and the second sixteen of each group's codes.
    codes: [[[i8; 16]; LANES]; 2],
}

/// `nearest + step`, in `0..=63`.
#[inline(always)]
fn beside(nearest: &Lanes, step: f32) -> Lanes {
    nearest.map(|nearest| (nearest + step).clamp(0.0, 63.0))
}

/// For each group the integers nearest to `values / steps`, in `0..=63`.
#[inline(always)]
fn nearest(values: &Lanes, steps: [f32; TOGETHER]) -> Lanes {
    std::array::from_fn(|lane| code(values[lane], inverse(steps[lane / 8]), 0.0, 63.0))
}

/// The largest number of each super-block.
#[inline(always)]
fn largest(values: &Lanes) -> [f32; TOGETHER] {
    let (halves, _) = values.as_chunks::<8>();
    std::array::from_fn(|index| halves[index].iter().copied().fold(0.0, f32::max))
}

/// What integer scales and minima count, in each super-block.
struct Units {
    d: [f32; TOGETHER],
    dmin: [f32; TOGETHER],
}

impl Affine {
    /// Encodes up to [`TOGETHER`] super-blocks.
    #[inline(always)]
    fn new(x: &[f32], high: f32) -> Self {
        let x = Groups::<32>::new(x);
        let ideal = x.affine_scales(high);
        let (largest_scale, largest_minimum, largest_value) =
            (largest(&ideal.scales), largest(&ideal.minima), largest(&x.largest));
        let mut best = Self {
            d: [0.0; TOGETHER],
            dmin: [0.0; TOGETHER],
            scales: [0; LANES],
            minima: [0; LANES],
            codes: [[[0; 16]; LANES]; 2],
        };
        let mut best_errors = [f32::INFINITY; TOGETHER];
        for shrink in [63.0, 61.5] {
            let (d, dmin) = (largest_scale.map(|s| to_half(s / shrink)), largest_minimum.map(|m| to_half(m / shrink)));
            let (errors, scales, minima) = Self::choose_integers(&x, &ideal, &Units { d, dmin }, high);
            for index in 0..TOGETHER {
                // Errors come in units of each group's largest value; together they count in units of the super-block's.
                let unit = inverse(largest_value[index]);
                let lanes = index * 8..index * 8 + 8;
                let error = lanes.clone().map(|lane| errors[lane] * (x.largest[lane] * unit).powi(2)).sum();
                if error < best_errors[index] {
                    (best_errors[index], best.d[index], best.dmin[index]) = (error, d[index], dmin[index]);
                    best.scales[lanes.clone()].copy_from_slice(&scales[lanes.clone()]);
                    best.minima[lanes.clone()].copy_from_slice(&minima[lanes]);
                }
            }
        }
        let scales = std::array::from_fn(|lane| best.d[lane / 8] * f32::from(best.scales[lane]));
        let minima = std::array::from_fn(|lane| best.dmin[lane / 8] * f32::from(best.minima[lane]));
        let codes = x.affine_codes(&scales, &minima, high);
        best.codes.as_flattened_mut().copy_from_slice(&codes);
        for half in &mut best.codes {
            transpose(half.as_flattened_mut(), [[0; LANES]; 16].as_flattened_mut());
        }
        best
    }

    /// For fixed `d` and `dmin`: the squared errors of the best integer scales and minima, and these.
    #[inline(always)]
    fn choose_integers(
        x: &Groups<32>,
        ideal: &AffineScales,
        Units { d, dmin }: &Units,
        high: f32,
    ) -> (Lanes, [u8; LANES], [u8; LANES]) {
        let (nearest_scales, nearest_minima) = (nearest(&ideal.scales, *d), nearest(&ideal.minima, *dmin));
        let (mut best, mut best_scales, mut best_minima) = ([f32::INFINITY; LANES], [0.0; LANES], [0.0; LANES]);
        for scale_step in [-1.0, 0.0, 1.0] {
            let scales = beside(&nearest_scales, scale_step);
            for minimum_step in [-1.0, 0.0, 1.0] {
                let minima = beside(&nearest_minima, minimum_step);
                let scaled = std::array::from_fn(|lane| d[lane / 8] * scales[lane]);
                let shifts = std::array::from_fn(|lane| dmin[lane / 8] * minima[lane]);
                let errors = x.affine_errors(&scaled, &shifts, high);
                for lane in 0..LANES {
                    let better = errors[lane] < best[lane];
                    best[lane] = select(better, errors[lane], best[lane]);
                    best_scales[lane] = select(better, scales[lane], best_scales[lane]);
                    best_minima[lane] = select(better, minima[lane], best_minima[lane]);
                }
            }
        }
        (best, best_scales.map(|scale| to_byte(scale) as u8), best_minima.map(|minimum| to_byte(minimum) as u8))
    }

    /// Scales and minima of super-block `index`.
    fn write_header(&self, index: usize, block: &mut [u8]) {
        put_halves(&[self.d[index], self.dmin[index]].map(half_bits), block);
        pack_scales(&self.scales[index * 8..], &self.minima[index * 8..], &mut block[4..16]);
    }

    #[inline(always)]
    fn write_nibbles(&self, index: usize, bytes: &mut [u8]) {
        for half in 0..2 {
            let groups = self.codes[half][index * 8..].as_chunks::<2>().0;
            for (bytes, [low, high]) in bytes[half * 16..].chunks_mut(32).zip(groups) {
                for (byte, (low, high)) in bytes.iter_mut().zip(low.iter().zip(high)) {
                    *byte = (low & 15 | (high & 15) << 4) as u8;
                }
            }
        }
    }
}

#[inline(always)]
fn encode_q4_k(values: &[f32], out: &mut [u8]) {
    for (x, blocks) in values.chunks(Q4K::LEN * TOGETHER).zip(out.chunks_mut(Q4K::BYTES * TOGETHER)) {
        let affine = Affine::new(x, 15.0);
        for (index, block) in blocks.chunks_exact_mut(Q4K::BYTES).enumerate() {
            affine.write_header(index, block);
            affine.write_nibbles(index, &mut block[16..]);
        }
    }
}

#[inline(always)]
fn encode_q5_k(values: &[f32], out: &mut [u8]) {
    for (x, blocks) in values.chunks(Q5K::LEN * TOGETHER).zip(out.chunks_mut(Q5K::BYTES * TOGETHER)) {
        let affine = Affine::new(x, 31.0);
        for (index, block) in blocks.chunks_exact_mut(Q5K::BYTES).enumerate() {
            affine.write_header(index, block);
            block[16..48].fill(0);
            for (bytes, codes) in block[16..48].as_chunks_mut::<16>().0.iter_mut().zip(&affine.codes) {
                for (group, codes) in codes[index * 8..][..8].iter().enumerate() {
                    for (byte, code) in bytes.iter_mut().zip(codes) {
                        *byte |= ((code >> 4) as u8) << group;
                    }
                }
            }
            affine.write_nibbles(index, &mut block[48..]);
        }
    }
}

/// Where among the codes the largest value is tried, as for Q4_0.
const Q6_K_PLACES: [f32; 4] = [-32.0, 31.0, -30.08, 29.14];

#[inline(always)]
fn encode_q6_k(pairs: impl PairProducts, values: &[f32], out: &mut [u8]) {
    for (x, block) in values.chunks_exact(Q6K::LEN).zip(out.chunks_exact_mut(Q6K::BYTES)) {
        let x = FixedGroups::<{ Q6K::GROUP }, 8, 6, -32>::new(x);
        let ideal = x.scales(pairs, &Q6_K_PLACES);
        // The bits of magnitudes are in the magnitudes' order.
        let largest = ideal.iter().fold(0, |largest, scale| scale.abs().to_bits().max(largest));
        let d = half_bits(f32::from_bits(largest) / 127.0);
        put_halves(&[d], &mut block[208..]);
        let d = from_half_bits(d);
        let inverse_d = inverse(d);
        let nearest = each_lane(|lane| code(ideal[lane], inverse_d, -127.0, 126.0));
        let (mut best, mut best_explained) = ([0.0; LANES], [f64::NEG_INFINITY; LANES]);
        for step in [-1.0, 0.0, 1.0] {
            let integers = each_lane(|lane| nearest[lane] + step);
            let explained = x.explained(pairs, &each_lane(|lane| d * integers[lane]));
            for lane in 0..LANES {
                let better = explained[lane] > best_explained[lane];
                best_explained[lane] = select(better, explained[lane], best_explained[lane]);
                best[lane] = select(better, integers[lane], best[lane]);
            }
        }
        for (byte, integer) in block[192..208].iter_mut().zip(best) {
            *byte = to_byte(integer) as u8;
        }
        let mut transposed = [[0; 8]; LANES];
        let mut rows = x.codes(&each_lane(|lane| d * best[lane]), Q6K::OFFSET);
        transpose_eight(rows.as_flattened_mut(), transposed.as_flattened_mut());
        let mut codes = [0; 256];
        put_halves(transposed.as_flattened(), &mut codes);
        put_six_bits(&codes, block);
    }
}
