//! Packing weight rows into panels with AVX2, for every x86 tier; AVX-512 packs whole panels of some formats itself.

use std::arch::x86_64::*;

use super::super::operands::{Arrangement, IntegerPanel, PANEL_ROWS, Shape};
use super::super::portable;
use super::blocks::Blocks;
use crate::Format;
use crate::formats::{MAX_GROUPS, with_block};

/// Eight rows of eight groups of four codes, transposed: `out[group]` holds that group of all rows.
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

/// Packs rows of any quantized format, as `arrangement` says for its shape; a shape that the products do not know goes to the portable
/// code.
///
/// # Safety
/// The rows are what [`check_packed`](super::super::operands::check_packed) asserts, and the arrangements are those of x86.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn pack_format(
    format: Format,
    arrangement: impl Fn(Shape) -> Arrangement,
    rows: &[&[u8]],
    k: usize,
    panel: &mut IntegerPanel,
) {
    with_block!(format, B => if Shape::of::<B>().is_common() {
        // SAFETY: the caller's promise.
        unsafe { pack::<B>(arrangement(Shape::of::<B>()), rows, k, panel) };
    } else {
        portable::pack_integer(format, rows, k, panel);
    }, else unreachable!("the front door lets quantized formats through only"));
}

/// Packs rows as bytes or as pairs of 16 bits; as [`Arrangement::CenteredQuads`], with what the products subtract put into the
/// biases.
///
/// # Safety
/// The rows are what [`check_packed`](super::super::operands::check_packed) asserts, and `arrangement` is one of x86.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn pack<B: Blocks>(arrangement: Arrangement, rows: &[&[u8]], k: usize, panel: &mut IntegerPanel) {
    // SAFETY: the caller's promise on the rows.
    unsafe {
        match arrangement {
            Arrangement::SignedPairs => pack_as::<B, true>(arrangement, rows, k, panel),
            _ => pack_as::<B, false>(arrangement, rows, k, panel),
        }
    }
    if arrangement == Arrangement::CenteredQuads {
        let middle = f32::from(1u8 << (B::BITS - 1));
        panel.biases.iter_mut().zip(&panel.scales).for_each(|(bias, scale)| *bias += middle * scale);
    }
}

/// Packs rows as bytes, or with `PAIRS` as pairs of 16 bits.
///
/// # Safety
/// As [`pack`].
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn pack_as<B: Blocks, const PAIRS: bool>(
    arrangement: Arrangement,
    rows: &[&[u8]],
    k: usize,
    panel: &mut IntegerPanel,
) {
    let bytes = if PAIRS { 2 } else { 1 };
    panel.prepare::<B>(arrangement, rows.len(), k);
    let (mut scales, mut biases) = ([0.0f32; MAX_GROUPS], [0.0f32; MAX_GROUPS]);
    let groups = B::LEN / B::GROUP;
    for (half, rows) in rows.chunks(8).enumerate() {
        for index in 0..k / B::LEN {
            for (j, row) in rows.iter().enumerate() {
                // SAFETY: every row has `k / LEN` blocks.
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
                // A line holds four bytes of each row.
                let first = (index * B::LEN + part * 32) * bytes / 4;
                // SAFETY: every row has `k / LEN` blocks, and `part` counts the block's parts; `prepare` made room for all lines.
                unsafe {
                    let block = |row: &[u8]| row.as_ptr().add(index * B::BYTES);
                    let lines = panel.codes.as_mut_ptr().cast::<__m256i>().add(first * 2 + half);
                    let mut codes = [_mm256_setzero_si256(); 8];
                    if PAIRS {
                        let mut high = codes;
                        for ((low, high), row) in codes.iter_mut().zip(&mut high).zip(rows) {
                            let signed = B::signed32(block(row), part);
                            *low = _mm256_cvtepi8_epi16(_mm256_castsi256_si128(signed));
                            *high = _mm256_cvtepi8_epi16(_mm256_extracti128_si256::<1>(signed));
                        }
                        store_lines(lines.add(16), high);
                    } else {
                        for (codes, row) in codes.iter_mut().zip(rows) {
                            *codes = B::stored32(block(row), part);
                        }
                    }
                    store_lines(lines, codes);
                }
            }
        }
    }
}

/// Eight rows, transposed, as halves of eight lines.
///
/// # Safety
/// Eight lines are writable, aligned.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn store_lines(lines: *mut __m256i, rows: [__m256i; 8]) {
    for (step, codes) in transpose(rows).into_iter().enumerate() {
        // SAFETY: the caller's promise.
        unsafe { _mm256_store_si256(lines.add(step * 2), codes) };
    }
}
