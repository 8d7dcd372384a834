//! x86-64 with AMX: a matrix unit that multiplies tiles of 16 × 32 bf16 numbers, eight tile registers of its own.

use std::arch::x86_64::*;

use super::amx_products::multiply;
use super::avx512::Avx512;
use super::blocks::Blocks;
use super::wide_floats::{Load16, widen};
use crate::Format;
use crate::formats::{MAX_GROUPS, with_block};
use crate::isa::{AmxToken, Isa};
use crate::kernels::matrix_unit::{MatrixUnit, OperandView, TILE_DEPTH, TILE_ROWS, Tile, weight_pieces};
use crate::kernels::{FloatRows, IntegerPanel, IntegerRows, Kernels, TileOut, fits};

/// The kernels; holding one proves that the CPU runs them.
#[derive(Clone, Copy, Debug)]
pub struct Amx {
    base: Avx512,
    _proof: AmxToken,
}

impl Amx {
    /// The kernels, given the proof.
    pub fn new(proof: AmxToken) -> Self {
        Self { base: Avx512::new(proof.avx512()), _proof: proof }
    }
}

/// Whether the CPU has tiles and bf16 products, and the system gives them to this process: Linux does so when asked, for
/// all threads from then on.
#[cfg(target_os = "linux")]
pub(crate) fn is_usable() -> bool {
    const ARCH_REQ_XCOMP_PERM: libc::c_ulong = 0x1023;
    const XFEATURE_XTILEDATA: libc::c_ulong = 18;
    const AMX_BF16: u32 = 1 << 22;
    const AMX_TILE: u32 = 1 << 24;
    let features = __cpuid_count(7, 0).edx;
    if features & AMX_BF16 == 0 || features & AMX_TILE == 0 {
        return false;
    }
    // SAFETY: the call takes two numbers and touches no memory of this process.
    unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0 }
}

/// Elsewhere nobody knows how to ask.
#[cfg(not(target_os = "linux"))]
pub(crate) fn is_usable() -> bool {
    false
}

/// Calls a `target_feature` function of this module.
macro_rules! proven {
    ($call:expr) => {
        // SAFETY: `self` holds an `AmxToken`, which exists only where AVX-512 with bf16, AVX2 and AMX were detected.
        unsafe { $call }
    };
}

impl Kernels for Amx {
    fn isa(&self) -> Isa {
        Isa::Amx
    }
    fn base(&self) -> Option<&dyn Kernels> {
        Some(&self.base)
    }
    fn matrix_unit(&self) -> Option<&dyn MatrixUnit> {
        Some(self)
    }
    fn integer_panels(&self) -> usize {
        self.base.integer_panels()
    }
    fn integer_tiles(&self, panels: &[IntegerPanel], x: IntegerRows<'_>, out: TileOut<'_>) {
        self.base.integer_tiles(panels, x, out);
    }
}

impl MatrixUnit for Amx {
    fn pack_left(&self, rows: FloatRows<'_>, pieces: usize, strip: &mut [Tile]) {
        proven!(pack_left(rows, pieces, strip));
    }
    fn pack_weights(&self, format: Format, rows: &[&[u8]], k: usize, strip: &mut [Tile]) {
        let pieces = weight_pieces(format);
        match format {
            Format::F32 => proven!(pack_floats::<crate::formats::F32>(rows, k, pieces, strip)),
            Format::F16 => proven!(pack_floats::<crate::formats::F16>(rows, k, pieces, strip)),
            Format::BF16 => proven!(pack_floats::<crate::formats::Bf16>(rows, k, pieces, strip)),
            _ => with_block!(format, B => proven!(pack_blocks::<B>(rows, k, strip)), else unreachable!()),
        }
    }
    fn pack_right(&self, columns: FloatRows<'_>, pieces: usize, strip: &mut [Tile]) {
        proven!(pack_right(columns, pieces, strip));
    }
    fn pack_right_columns(&self, matrix: FloatRows<'_>, pieces: usize, strip: &mut [Tile]) {
        proven!(pack_right_columns(matrix, pieces, strip));
    }
    fn multiply(&self, left: OperandView<'_>, right: OperandView<'_>, out: TileOut<'_>) {
        proven!(multiply(left, right, out));
    }
    fn transpose(&self, x: FloatRows<'_>, out: TileOut<'_>) {
        proven!(transpose(x, out));
    }
}

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

/// The lines of a strip's tiles, `[pieces][steps][16]`.
#[inline]
fn lines(strip: &mut [Tile], pieces: usize, steps: usize) -> *mut __m512i {
    assert!(pieces.checked_mul(steps).is_some_and(|tiles| tiles <= strip.len()), "a strip lacks tiles");
    strip.as_mut_ptr().cast()
}

/// Rows of `k` elements for the left side.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
fn pack_floats<E: Load16>(rows: &[&[u8]], k: usize, pieces: usize, strip: &mut [Tile]) {
    let steps = k.div_ceil(TILE_DEPTH);
    let lines = lines(strip, pieces, steps);
    assert!(rows.len() <= TILE_ROWS && rows.iter().all(|row| row.len() / E::BYTES >= k));
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
            for piece in 0..pieces {
                // SAFETY: the strip has `pieces * steps` tiles of sixteen lines.
                unsafe { lines.add((piece * steps + step) * TILE_ROWS + row).write(take_piece(&mut values)) };
            }
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
fn pack_left(x: FloatRows<'_>, pieces: usize, strip: &mut [Tile]) {
    let mut rows = [&[][..]; TILE_ROWS];
    for (index, row) in rows[..x.rows].iter_mut().enumerate() {
        let values = &x.values[index * x.stride..][..x.k];
        // SAFETY: any bytes of numbers are bytes.
        *row = unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values)) };
    }
    pack_floats::<crate::formats::F32>(&rows[..x.rows], x.k, pieces, strip);
}

/// Rows of quantized weights for the left side: decoded as [`decode_row`](crate::decode_row) does, and rounded.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16,avx2,fma,f16c")]
fn pack_blocks<B: Blocks>(rows: &[&[u8]], k: usize, strip: &mut [Tile]) {
    let steps = k / TILE_DEPTH;
    let lines = lines(strip, 1, steps);
    assert!(k.is_multiple_of(B::LEN) && rows.len() <= TILE_ROWS);
    assert!(rows.iter().all(|row| row.len() / B::BYTES >= k / B::LEN));
    if rows.len() < TILE_ROWS {
        // SAFETY: the strip has that many lines.
        unsafe { lines.write_bytes(0, steps * TILE_ROWS) };
    }
    let (mut scales, mut biases) = ([0.0f32; MAX_GROUPS], [0.0f32; MAX_GROUPS]);
    for (row, bytes) in rows.iter().enumerate() {
        for index in 0..k / B::LEN {
            // SAFETY: row lengths are asserted above, and `part` counts the block's parts; the strip has `steps` tiles of
            // sixteen lines.
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

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
fn pack_right(x: FloatRows<'_>, pieces: usize, strip: &mut [Tile]) {
    let steps = x.k.div_ceil(TILE_DEPTH);
    let lines = lines(strip, pieces, steps);
    assert!(x.rows <= TILE_ROWS && fits(x.values.len(), x.rows, x.stride, x.k));
    for step in 0..steps {
        let mut values = [[_mm512_setzero_ps(); 2]; TILE_ROWS];
        for (row, values) in values[..x.rows].iter_mut().enumerate() {
            for (half, values) in values.iter_mut().enumerate() {
                let at = step * TILE_DEPTH + half * 16;
                let start = x.values.as_ptr().wrapping_add(row * x.stride + at);
                // SAFETY: the row's size is asserted above, and the mask leaves out what lies behind it.
                *values = unsafe { _mm512_maskz_loadu_ps(lanes(x.k, at), start) };
            }
        }
        for piece in 0..pieces {
            let mut rows = [_mm512_setzero_si512(); TILE_ROWS];
            for (row, values) in rows.iter_mut().zip(&mut values) {
                *row = take_piece(values);
            }
            let tile = transpose_lines(rows);
            for pair in 0..TILE_DEPTH / 2 {
                // SAFETY: the strip has `pieces * steps` tiles of sixteen lines.
                unsafe { lines.add((piece * steps + step) * TILE_ROWS + pair).write(tile[pair]) };
            }
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
fn pack_right_columns(x: FloatRows<'_>, pieces: usize, strip: &mut [Tile]) {
    let steps = x.rows.div_ceil(TILE_DEPTH);
    let lines = lines(strip, pieces, steps);
    assert!(x.k <= TILE_ROWS && fits(x.values.len(), x.rows, x.stride, x.k));
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
            // SAFETY: the row's size is asserted above.
            *values = unsafe { _mm512_maskz_loadu_ps(lanes(x.k, 0), x.values.as_ptr().add(row * x.stride)) };
        }
        for piece in 0..pieces {
            let line = _mm512_permutexvar_epi16(in_turn, take_piece(&mut values));
            // SAFETY: the strip has `pieces * steps` tiles of sixteen lines.
            unsafe { lines.add(piece * steps * TILE_ROWS + pair).write(line) };
        }
    }
}

#[target_feature(enable = "avx512f")]
fn transpose(x: FloatRows<'_>, out: TileOut<'_>) {
    assert!(x.rows.is_multiple_of(16) && x.k.is_multiple_of(16) && !out.accumulate);
    assert!(fits(x.values.len(), x.rows, x.stride, x.k) && fits(out.values.len(), x.k, out.stride, x.rows));
    for row in (0..x.rows).step_by(16) {
        for column in (0..x.k).step_by(16) {
            let mut lines = [_mm512_setzero_si512(); 16];
            // SAFETY: sixteen rows and columns from here on are inside both matrices, as asserted above.
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
