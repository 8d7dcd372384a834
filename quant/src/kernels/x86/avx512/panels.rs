//! Packing weight rows into panels with AVX-512: stored bytes of all sixteen rows are transposed as they lie, four codes or eight
//! half ones at a time, and unpacked afterwards.

use std::arch::x86_64::*;

use super::super::blocks::Blocks;
use super::super::panels;
use crate::Format;
use crate::formats::MAX_GROUPS;
use crate::formats::k_quants::Q4K;
use crate::formats::legacy::{Q4_0, Q4_1, Q8_0};
use crate::kernels::operands::{Arrangement, IntegerPanel, PANEL_ROWS};

/// As [`Kernels::pack_integer`](crate::Kernels::pack_integer).
///
/// # Safety
/// The rows are what [`check_packed`](crate::kernels::operands::check_packed) asserts.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma,f16c")]
pub(super) unsafe fn pack_integer(format: Format, rows: &[&[u8]], k: usize, panel: &mut IntegerPanel) {
    // SAFETY: the caller's promise.
    unsafe {
        match format {
            Format::Q4_0 => pack::<Q4_0>(rows, k, panel),
            Format::Q4_1 => pack::<Q4_1>(rows, k, panel),
            Format::Q8_0 => pack::<Q8_0>(rows, k, panel),
            Format::Q4K => pack::<Q4K>(rows, k, panel),
            _ => panels::pack_format(format, |_| Arrangement::StoredQuads, rows, k, panel),
        }
    }
}

/// What sixteen bytes of a block hold: where they begin, which of the block's codes is the first of their low halves, and which
/// that of their high ones.
type Packed = (usize, usize, usize);

/// A format whose codes are whole bytes, or halves of bytes.
pub(super) trait ByteBlocks: Blocks + Sized {
    /// Parts of sixteen bytes with two codes in each.
    const PACKED: &[Packed] = &[];
    /// Parts of sixteen signed codes: where they begin, and which of the block's codes is the first.
    const WHOLE: &[(usize, usize)] = &[];
    /// That parts lie inside a block and fill each of its lines once, as far as their number tells, and scales lie there, too.
    const CHECKED: () = {
        assert!(Self::LEN == 32 * Self::PACKED.len() + 16 * Self::WHOLE.len() && Self::BYTES >= 4);
        let mut index = 0;
        while index < Self::PACKED.len() {
            let (offset, low, high) = Self::PACKED[index];
            assert!(fits::<Self>(offset, low) && fits::<Self>(offset, high));
            index += 1;
        }
        index = 0;
        while index < Self::WHOLE.len() {
            assert!(fits::<Self>(Self::WHOLE[index].0, Self::WHOLE[index].1));
            index += 1;
        }
    };
}

/// Whether sixteen bytes from `offset` on, and sixteen codes from `first` on, lie inside a block, and the codes fill whole lines.
const fn fits<B: Blocks>(offset: usize, first: usize) -> bool {
    offset + 16 <= B::BYTES && first + 16 <= B::LEN && first.is_multiple_of(4)
}

impl ByteBlocks for Q4_0 {
    const PACKED: &[Packed] = &[(2, 0, 16)];
}

impl ByteBlocks for Q4_1 {
    const PACKED: &[Packed] = &[(4, 0, 16)];
}

impl ByteBlocks for Q8_0 {
    const WHOLE: &[(usize, usize)] = &[(2, 0), (18, 16)];
}

impl ByteBlocks for Q4K {
    const PACKED: &[Packed] = &{
        let mut parts = [(0, 0, 0); 8];
        let mut index = 0;
        while index < 8 {
            let low = index / 2 * 64 + index % 2 * 16;
            parts[index] = (16 + index * 16, low, low + 32);
            index += 1;
        }
        parts
    };
}

/// Sixteen bytes of each of sixteen rows, `offset` bytes into them, transposed: `lines[i]` holds bytes `4 * i .. 4 * i + 4` of all
/// rows.
///
/// # Safety
/// 16 bytes are readable there in every row.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn transposed(rows: &[*const u8; PANEL_ROWS], offset: usize) -> [__m512i; 4] {
    let mut fours = [_mm512_setzero_si512(); 4];
    for (first, four) in fours.iter_mut().enumerate() {
        // SAFETY: the caller's promise. Four rows, four apart, side by side.
        unsafe {
            *four = _mm512_castsi128_si512(_mm_loadu_si128(rows[first].add(offset).cast()));
            let row = _mm_loadu_si128(rows[first + 4].add(offset).cast());
            *four = _mm512_mask_broadcast_i32x4(*four, 0x00f0, row);
            let row = _mm_loadu_si128(rows[first + 8].add(offset).cast());
            *four = _mm512_mask_broadcast_i32x4(*four, 0x0f00, row);
            let row = _mm_loadu_si128(rows[first + 12].add(offset).cast());
            *four = _mm512_mask_broadcast_i32x4(*four, 0xf000, row);
        }
    }
    let [a, b, c, d] = fours;
    let (ab0, ab1) = (_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
    let (cd0, cd1) = (_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
    [
        _mm512_unpacklo_epi64(ab0, cd0),
        _mm512_unpackhi_epi64(ab0, cd0),
        _mm512_unpacklo_epi64(ab1, cd1),
        _mm512_unpackhi_epi64(ab1, cd1),
    ]
}

/// Packs rows as [`panels::pack`] does.
///
/// # Safety
/// As [`pack_integer`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma,f16c")]
unsafe fn pack<B: ByteBlocks>(rows: &[&[u8]], k: usize, panel: &mut IntegerPanel) {
    let () = B::CHECKED;
    let Ok(rows) = <[&[u8]; PANEL_ROWS]>::try_from(rows) else {
        // SAFETY: the caller's promise.
        return unsafe { panels::pack::<B>(Arrangement::StoredQuads, rows, k, panel) };
    };
    let blocks = k / B::LEN;
    panel.prepare::<B>(Arrangement::StoredQuads, rows.len(), k);
    let rows = rows.map(<[u8]>::as_ptr);
    for index in 0..blocks {
        // SAFETY: rows have `blocks` blocks, parts lie inside a block, and each fills four lines of those that the block's
        // codes have in the panel (`CHECKED`), for which `prepare` made room.
        unsafe {
            let lines = panel.codes.as_mut_ptr().cast::<__m512i>().add(index * B::LEN / 4);
            let block = index * B::BYTES;
            for &(offset, low, high) in B::PACKED {
                let mask = _mm512_set1_epi8(15);
                for (i, codes) in transposed(&rows, block + offset).into_iter().enumerate() {
                    _mm512_store_si512(lines.add(low / 4 + i), _mm512_and_si512(codes, mask));
                    let codes = _mm512_and_si512(_mm512_srli_epi16::<4>(codes), mask);
                    _mm512_store_si512(lines.add(high / 4 + i), codes);
                }
            }
            for &(offset, first) in B::WHOLE {
                let unsigned = _mm512_set1_epi8(B::OFFSET as i8);
                for (i, codes) in transposed(&rows, block + offset).into_iter().enumerate() {
                    _mm512_store_si512(lines.add(first / 4 + i), _mm512_xor_si512(codes, unsigned));
                }
            }
        }
    }
    // SAFETY: each row holds `blocks` blocks, and the panel has room for the scales of `k` values of each, the caller's promise and `prepare`'s.
    unsafe {
        if B::LEN == 32 {
            scales_of_small_blocks::<B>(rows, blocks, panel);
        } else {
            scales_of_large_blocks::<B>(rows, blocks, panel);
        }
    }
}

/// Scales, and biases, of blocks of 32: half-precision numbers at their beginnings.
///
/// # Safety
/// Every row has `blocks` blocks, which begin with a half-precision number, or with two where the format has biases.
#[inline]
#[target_feature(enable = "avx512f,avx2,fma,f16c")]
unsafe fn scales_of_small_blocks<B: Blocks>(rows: [*const u8; PANEL_ROWS], blocks: usize, panel: &mut IntegerPanel) {
    // Blocks whose bits are collected before any is converted: a load just behind the stores that it covers waits for them.
    const TOGETHER: usize = 16;
    let targets = [&mut panel.scales, &mut panel.biases];
    for (offset, target) in [0, 2].into_iter().zip(targets).take(if B::BIASED { 2 } else { 1 }) {
        let mut bits = [[0u16; PANEL_ROWS]; TOGETHER];
        for first in (0..blocks).step_by(TOGETHER) {
            let count = TOGETHER.min(blocks - first);
            for (index, bits) in bits[..count].iter_mut().enumerate() {
                for (bits, row) in bits.iter_mut().zip(rows) {
                    // SAFETY: the caller's promise.
                    *bits = unsafe { row.add((first + index) * B::BYTES + offset).cast::<u16>().read_unaligned() };
                }
            }
            let target = target[first * PANEL_ROWS..].chunks_exact_mut(PANEL_ROWS);
            for (bits, target) in bits[..count].iter().zip(target) {
                // SAFETY: sixteen numbers each.
                unsafe {
                    let values = _mm512_cvtph_ps(_mm256_loadu_si256(bits.as_ptr().cast()));
                    _mm512_storeu_ps(target.as_mut_ptr(), values);
                }
            }
        }
    }
}

/// Scales, and biases, of blocks with several groups.
///
/// # Safety
/// Every row has `blocks` blocks.
#[inline]
#[target_feature(enable = "avx512f,avx2,fma,f16c")]
unsafe fn scales_of_large_blocks<B: Blocks>(rows: [*const u8; PANEL_ROWS], blocks: usize, panel: &mut IntegerPanel) {
    let groups = B::LEN / B::GROUP;
    let (mut scales, mut biases) = ([0.0f32; MAX_GROUPS], [0.0f32; MAX_GROUPS]);
    for index in 0..blocks {
        for (row, pointer) in rows.into_iter().enumerate() {
            // SAFETY: the caller's promise.
            unsafe { B::read_scales(pointer.add(index * B::BYTES), &mut scales, &mut biases) };
            for group in 0..groups {
                let at = (index * groups + group) * PANEL_ROWS + row;
                panel.scales[at] = scales[group];
                if B::BIASED {
                    panel.biases[at] = biases[group];
                }
            }
        }
    }
}
