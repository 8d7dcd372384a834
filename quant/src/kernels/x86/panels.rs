//! Packing weight rows into panels with AVX2, for every x86 tier.

use std::arch::x86_64::*;

use super::blocks::Blocks;
use crate::formats::MAX_GROUPS;
use crate::kernels::{Arrangement, IntegerPanel, Line, PANEL_ROWS};

/// Eight rows of eight groups of four codes, turned: `out[group]` holds that group of all rows.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn transpose(rows: [__m256i; 8]) -> [__m256i; 8] {
    let [a, b, c, d, e, f, g, h] = rows;
    let low = |a, b| _mm256_unpacklo_epi32(a, b);
    let high = |a, b| _mm256_unpackhi_epi32(a, b);
    let (ab0, ab1, cd0, cd1) = (low(a, b), high(a, b), low(c, d), high(c, d));
    let (ef0, ef1, gh0, gh1) = (low(e, f), high(e, f), low(g, h), high(g, h));
    let low = |a, b| _mm256_unpacklo_epi64(a, b);
    let high = |a, b| _mm256_unpackhi_epi64(a, b);
    let left = [low(ab0, cd0), high(ab0, cd0), low(ab1, cd1), high(ab1, cd1)];
    let right = [low(ef0, gh0), high(ef0, gh0), low(ef1, gh1), high(ef1, gh1)];
    let mut out = [_mm256_setzero_si256(); 8];
    for i in 0..4 {
        out[i] = _mm256_permute2x128_si256::<0x20>(left[i], right[i]);
        out[i + 4] = _mm256_permute2x128_si256::<0x31>(left[i], right[i]);
    }
    out
}

/// Packs rows as [`Arrangement::StoredQuads`], or with `SPLIT` as [`Arrangement::Nibbles`].
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn pack<B: Blocks, const SPLIT: bool>(rows: &[&[u8]], k: usize, panel: &mut IntegerPanel) {
    assert!(k.is_multiple_of(B::LEN) && rows.len() <= PANEL_ROWS);
    assert!(rows.iter().all(|row| row.len() >= k / B::LEN * B::BYTES));
    let (arrangement, bytes) = if SPLIT { (Arrangement::Nibbles, 2) } else { (Arrangement::StoredQuads, 1) };
    panel.prepare::<B>(arrangement, k, bytes);
    if rows.len() < PANEL_ROWS {
        panel.codes.fill(Line([0; 64]));
        panel.scales.fill(0.0);
        panel.biases.fill(0.0);
    }
    let (mut scales, mut biases) = ([0.0f32; MAX_GROUPS], [0.0f32; MAX_GROUPS]);
    let groups = B::LEN / B::GROUP;
    let steps = k / 4;
    assert!(panel.codes.len() * 64 >= k * PANEL_ROWS * bytes);
    for (half, rows) in rows.chunks(8).enumerate() {
        for index in 0..k / B::LEN {
            for (j, row) in rows.iter().enumerate() {
                // SAFETY: row lengths are asserted above.
                unsafe { B::read_scales(row.as_ptr().add(index * B::BYTES), &mut scales, &mut biases) };
                for group in 0..groups {
                    let at = (index * groups + group) * PANEL_ROWS + half * 8 + j;
                    panel.scales[at] = scales[group];
                    if B::BIASED {
                        panel.biases[at] = biases[group];
                    }
                }
            }
            for part in 0..B::LEN / 32 {
                let mut codes = [_mm256_setzero_si256(); 8];
                for (codes, row) in codes.iter_mut().zip(rows) {
                    // SAFETY: row lengths are asserted above, and `part` counts the block's parts.
                    *codes = unsafe { B::stored32(row.as_ptr().add(index * B::BYTES), part) };
                }
                let first = (index * B::LEN + part * 32) / 4;
                for (step, codes) in transpose(codes).into_iter().enumerate() {
                    let mask = _mm256_set1_epi8(15);
                    let high = _mm256_and_si256(_mm256_srli_epi16::<4>(codes), mask);
                    // SAFETY: the line lies in the panel, whose size is asserted above; `first + step < steps`.
                    unsafe {
                        let lines = panel.codes.as_mut_ptr().cast::<__m256i>();
                        if SPLIT {
                            let line = lines.add((half * steps + first + step) * 2);
                            _mm256_store_si256(line, _mm256_and_si256(codes, mask));
                            _mm256_store_si256(line.add(1), high);
                        } else {
                            _mm256_store_si256(lines.add((first + step) * 2 + half), codes);
                        }
                    }
                }
            }
        }
    }
}
