//! Packing both sides of a product into tiles, and transposing results.

use std::arch::x86_64::*;

use super::super::avx512bw::floats::{Load16, widen};
use super::super::blocks::Blocks;
use crate::Format;
use crate::formats::{MAX_GROUPS, float, with_block, with_float};
use crate::kernels::matrix_unit::{Pieces, TILE_DEPTH, TILE_ROWS, Tile};
use crate::kernels::operands::{FloatRows, TileOut};

/// Thirty-two values of a row, as two registers.
type Values = [__m512; 2];

/// The lanes of `values` values of a row of which `taken` come before.
#[inline]
fn lanes(values: usize, taken: usize) -> u16 {
    let rest = values.saturating_sub(taken).min(16) as u32;
    ((1u32 << rest) - 1) as u16
}

/// The values in bf16; they become what that leaves of them.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
fn take_piece(values: &mut Values) -> __m512i {
    // SAFETY: both are 512 bits without invalid values.
    let piece: __m512i = unsafe { std::mem::transmute(_mm512_cvtne2ps_pbh(values[1], values[0])) };
    values[0] = _mm512_sub_ps(values[0], widen(_mm512_castsi512_si256(piece)));
    values[1] = _mm512_sub_ps(values[1], widen(_mm512_extracti64x4_epi64::<1>(piece)));
    piece
}

/// Rows of `k` elements for the left side.
///
/// # Safety
/// There are at most [`TILE_ROWS`] rows of `k` elements or more, and `strip` has tiles for `k` values in so many pieces.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
unsafe fn pack_floats<E: Load16>(rows: &[&[u8]], k: usize, pieces: Pieces, strip: &mut [Tile]) {
    let steps = k.div_ceil(TILE_DEPTH);
    let lines = strip.as_mut_ptr().cast::<__m512i>();
    for row in 0..TILE_ROWS {
        for step in 0..steps {
            let first = step * TILE_DEPTH;
            let mut values = [_mm512_setzero_ps(); 2];
            if let Some(row) = rows.get(row) {
                for (half, values) in values.iter_mut().enumerate() {
                    let at = first + half * 16;
                    // SAFETY: the mask leaves out what lies behind the row's `k` elements.
                    *values = unsafe { E::load16(row.as_ptr().wrapping_add(at * E::BYTES), lanes(k, at)) };
                }
            }
            for piece in 0..pieces.count() {
                // SAFETY: the strip has `pieces * steps` tiles of sixteen lines, the caller's promise.
                unsafe { lines.add((piece * steps + step) * TILE_ROWS + row).write(take_piece(&mut values)) };
            }
        }
    }
}

/// Rows for the left side.
///
/// # Safety
/// The arguments are what [`MatrixUnit::pack_left`](crate::MatrixUnit::pack_left) checks.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
pub(super) unsafe fn pack_left(x: FloatRows<'_>, pieces: Pieces, strip: &mut [Tile]) {
    let mut rows = [&[][..]; TILE_ROWS];
    for (index, row) in rows[..x.rows].iter_mut().enumerate() {
        let values = &x.values[index * x.stride..][..x.k];
        // SAFETY: any bytes of numbers are bytes.
        *row = unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values)) };
    }
    // SAFETY: the caller's promise.
    unsafe { pack_floats::<float::F32>(&rows[..x.rows], x.k, pieces, strip) };
}

/// Rows of weights for the left side.
///
/// # Safety
/// The arguments are what [`MatrixUnit::pack_weights`](crate::MatrixUnit::pack_weights) checks.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16,avx2,fma,f16c")]
pub(super) unsafe fn pack_weights(format: Format, rows: &[&[u8]], k: usize, strip: &mut [Tile]) {
    let pieces = Pieces::of_weights(format);
    // SAFETY: the caller's promise.
    unsafe {
        with_block!(format, B => pack_blocks::<B>(rows, k, strip),
            else with_float!(format, E => pack_floats::<E>(rows, k, pieces, strip), else unreachable!()));
    }
}

/// Rows of quantized weights for the left side: decoded as [`decode_row`](crate::decode_row) does, and rounded.
///
/// # Safety
/// There are at most [`TILE_ROWS`] rows of `k` values or more, whole blocks, and `strip` has tiles for `k` values.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16,avx2,fma,f16c")]
unsafe fn pack_blocks<B: Blocks>(rows: &[&[u8]], k: usize, strip: &mut [Tile]) {
    let steps = k / TILE_DEPTH;
    let lines = strip.as_mut_ptr().cast::<__m512i>();
    if rows.len() < TILE_ROWS {
        // SAFETY: the strip has that many lines.
        unsafe { lines.write_bytes(0, steps * TILE_ROWS) };
    }
    let (mut scales, mut biases) = ([0.0f32; MAX_GROUPS], [0.0f32; MAX_GROUPS]);
    for (row, bytes) in rows.iter().enumerate() {
        for index in 0..k / B::LEN {
            // SAFETY: rows have `k / LEN` blocks and the strip `steps` tiles of sixteen lines, the caller's promise; `part` counts
            // the block's parts.
            unsafe {
                let block = bytes.as_ptr().add(index * B::BYTES);
                B::read_scales(block, &mut scales, &mut biases);
                for part in 0..B::LEN / 32 {
                    let codes = B::signed32(block, part);
                    let halves = [_mm256_castsi256_si128(codes), _mm256_extracti128_si256::<1>(codes)];
                    let mut values = [_mm512_setzero_ps(); 2];
                    for half in 0..2 {
                        let group = (part * 32 + half * 16) / B::GROUP;
                        let codes = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(halves[half]));
                        values[half] = _mm512_mul_ps(codes, _mm512_set1_ps(scales[group]));
                        if B::BIASED {
                            values[half] = _mm512_add_ps(values[half], _mm512_set1_ps(biases[group]));
                        }
                    }
                    let step = index * (B::LEN / 32) + part;
                    let line: __m512i = std::mem::transmute(_mm512_cvtne2ps_pbh(values[1], values[0]));
                    lines.add(step * TILE_ROWS + row).write(line);
                }
            }
        }
    }
}

/// Transposes 16 × 16 values of 32 bits.
#[inline]
#[target_feature(enable = "avx512f")]
fn transpose_lines(x: [__m512i; 16]) -> [__m512i; 16] {
    let mut pairs = x;
    for i in 0..8 {
        pairs[2 * i] = _mm512_unpacklo_epi32(x[2 * i], x[2 * i + 1]);
        pairs[2 * i + 1] = _mm512_unpackhi_epi32(x[2 * i], x[2 * i + 1]);
    }
    // Four rows each: lane l of `fours[4 * i + c]` holds column 4 l + c.
    let mut fours = x;
    for i in 0..4 {
        for side in 0..2 {
            let (a, b) = (pairs[4 * i + side], pairs[4 * i + 2 + side]);
            fours[4 * i + 2 * side] = _mm512_unpacklo_epi64(a, b);
            fours[4 * i + 2 * side + 1] = _mm512_unpackhi_epi64(a, b);
        }
    }
    let mut out = x;
    for c in 0..4 {
        let even = |a, b| _mm512_shuffle_i32x4::<0x88>(a, b);
        let odd = |a, b| _mm512_shuffle_i32x4::<0xdd>(a, b);
        let [a, b, c4, d] = [fours[c], fours[4 + c], fours[8 + c], fours[12 + c]];
        let (even_ab, even_cd) = (even(a, b), even(c4, d));
        let (odd_ab, odd_cd) = (odd(a, b), odd(c4, d));
        (out[c], out[8 + c]) = (even(even_ab, even_cd), odd(even_ab, even_cd));
        (out[4 + c], out[12 + c]) = (even(odd_ab, odd_cd), odd(odd_ab, odd_cd));
    }
    out
}

/// Columns for the right side, given as rows.
///
/// # Safety
/// The arguments are what [`MatrixUnit::pack_right`](crate::MatrixUnit::pack_right) checks.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
pub(super) unsafe fn pack_right(x: FloatRows<'_>, pieces: Pieces, strip: &mut [Tile]) {
    let steps = x.k.div_ceil(TILE_DEPTH);
    let lines = strip.as_mut_ptr().cast::<__m512i>();
    for step in 0..steps {
        let mut values = [[_mm512_setzero_ps(); 2]; TILE_ROWS];
        for (row, values) in values[..x.rows].iter_mut().enumerate() {
            for (half, values) in values.iter_mut().enumerate() {
                let at = step * TILE_DEPTH + half * 16;
                let start = x.values.as_ptr().wrapping_add(row * x.stride + at);
                // SAFETY: the row has `x.k` values, the caller's promise, and the mask leaves out what lies behind it.
                *values = unsafe { _mm512_maskz_loadu_ps(lanes(x.k, at), start) };
            }
        }
        for piece in 0..pieces.count() {
            let mut rows = [_mm512_setzero_si512(); TILE_ROWS];
            for (row, values) in rows.iter_mut().zip(&mut values) {
                *row = take_piece(values);
            }
            let tile = transpose_lines(rows);
            for pair in 0..TILE_DEPTH / 2 {
                // SAFETY: the strip has `pieces * steps` tiles of sixteen lines, the caller's promise.
                unsafe { lines.add((piece * steps + step) * TILE_ROWS + pair).write(tile[pair]) };
            }
        }
    }
}

/// Columns for the right side, given as a matrix of `x.rows` rows.
///
/// # Safety
/// The arguments are what [`MatrixUnit::pack_right_columns`](crate::MatrixUnit::pack_right_columns) checks.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
pub(super) unsafe fn pack_right_columns(x: FloatRows<'_>, pieces: Pieces, strip: &mut [Tile]) {
    let steps = x.rows.div_ceil(TILE_DEPTH);
    let lines = strip.as_mut_ptr().cast::<__m512i>();
    // Values of two rows in turn: 0, 16, 1, 17, …
    let mut in_turn = [0u16; 32];
    for (index, from) in in_turn.iter_mut().enumerate() {
        *from = (index / 2 + index % 2 * 16) as u16;
    }
    // SAFETY: 64 bytes are read.
    let in_turn = unsafe { _mm512_loadu_si512(in_turn.as_ptr().cast()) };
    for pair in 0..steps * TILE_DEPTH / 2 {
        let mut values = [_mm512_setzero_ps(); 2];
        for (row, values) in (pair * 2..x.rows.min(pair * 2 + 2)).zip(&mut values) {
            // SAFETY: the row has `x.k` values, the caller's promise.
            *values = unsafe { _mm512_maskz_loadu_ps(lanes(x.k, 0), x.values.as_ptr().add(row * x.stride)) };
        }
        for piece in 0..pieces.count() {
            let line = _mm512_permutexvar_epi16(in_turn, take_piece(&mut values));
            // SAFETY: the strip has `pieces * steps` tiles of sixteen lines, the caller's promise.
            unsafe { lines.add(piece * steps * TILE_ROWS + pair).write(line) };
        }
    }
}

/// `out[j][i] = x[i][j]`.
///
/// # Safety
/// The arguments are what [`MatrixUnit::transpose`](crate::MatrixUnit::transpose) checks.
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn transpose(x: FloatRows<'_>, out: TileOut<'_>) {
    for row in (0..x.rows).step_by(16) {
        for column in (0..x.k).step_by(16) {
            let mut lines = [_mm512_setzero_si512(); 16];
            // SAFETY: sixteen rows and columns from here on are inside both matrices, the caller's promise.
            unsafe {
                for (i, line) in lines.iter_mut().enumerate() {
                    *line = _mm512_loadu_si512(x.values.as_ptr().add((row + i) * x.stride + column).cast());
                }
                let lines = transpose_lines(lines);
                for i in 0..16 {
                    _mm512_storeu_si512(out.values.as_mut_ptr().add((column + i) * out.stride + row).cast(), lines[i]);
                }
            }
        }
    }
}
