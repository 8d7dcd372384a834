//! x86-64 with AVX2, FMA and F16C.
//!
//! Row dots multiply bytes: |w| (unsigned) with x carrying w's sign, so that `vpmaddubsw` never saturates
//! (2 · 128 · 127 < 2¹⁵). Panel products multiply codes widened to 16 bits with `vpmaddwd`, which is exact.

use std::arch::x86_64::*;

use super::{FloatPanel, FloatRows, IntegerPanel, IntegerRows, Kernels, PANEL_ROWS, TileOut, portable};
use crate::activation::{ACTIVATION_BLOCK, QuantizedRow, QuantizedRowMut, SUM_BLOCK};
use crate::formats::{Block, Float, MAX_GROUPS, Q4_0, Q4_1, Q4K, Q5_0, Q5_1, Q5K, Q6K, Q8_0, with_block};
use crate::isa::{Avx2Token, Isa};
use crate::{Format, vector};

/// The kernels; holding one proves that the CPU runs them.
#[derive(Clone, Copy, Debug)]
pub struct Avx2 {
    _proof: Avx2Token,
}

impl Avx2 {
    /// The kernels, given the proof.
    pub fn new(proof: Avx2Token) -> Self {
        Self { _proof: proof }
    }
}

/// Calls a `target_feature` function of this module.
macro_rules! proven {
    ($call:expr) => {
        // SAFETY: `self` holds an `Avx2Token`, which exists only where AVX2, FMA and F16C were detected.
        unsafe { $call }
    };
}

impl Kernels for Avx2 {
    fn isa(&self) -> Isa {
        Isa::Avx2
    }
    fn quantize(&self, x: &[f32], row: QuantizedRowMut<'_>) {
        proven!(quantize(x, row));
    }
    fn dot_float(&self, format: Format, row: &[u8], x: &[f32]) -> f32 {
        assert_eq!(format.row_bytes(x.len()), Some(row.len()));
        match format {
            Format::F32 => proven!(dot_float::<crate::formats::F32>(row, x)),
            Format::F16 => proven!(dot_float::<crate::formats::F16>(row, x)),
            Format::BF16 => proven!(dot_float::<crate::formats::Bf16>(row, x)),
            _ => portable::dot_float(format, row, x),
        }
    }
    fn dot_integer(&self, format: Format, row: &[u8], x: QuantizedRow<'_>) -> f32 {
        assert_eq!(format.row_bytes(x.codes.len()), Some(row.len()));
        assert_eq!(x.scales.len() * ACTIVATION_BLOCK, x.codes.len());
        assert_eq!(x.sums.len() * SUM_BLOCK, x.codes.len());
        with_block!(format, B => proven!(dot_integer::<B>(row, x)), else portable::dot_integer(format, row, x))
    }
    fn add_scaled_half(&self, weight: f32, row: &[u8], out: &mut [f32]) {
        assert_eq!(row.len(), out.len() * 2);
        proven!(add_scaled_half(weight, row, out));
    }
    fn pack_float(&self, format: Format, rows: &[&[u8]], k: usize, panel: &mut FloatPanel) {
        proven!(pack_float(format, rows, k, panel));
    }
    fn pack_integer(&self, format: Format, rows: &[&[u8]], k: usize, panel: &mut IntegerPanel) {
        proven!(pack_integer(format, rows, k, panel));
    }
    fn float_tile(&self, panel: &[f32], stride: usize, x: FloatRows<'_>, out: TileOut<'_>) {
        let mut first = 0;
        while first < x.rows {
            let rows = (x.rows - first).min(6);
            let part = FloatRows { values: &x.values[first * x.stride..], rows, ..x };
            let target = &mut out.values[first * out.stride..];
            let part_out = TileOut { values: target, stride: out.stride, accumulate: out.accumulate };
            match rows {
                6 => proven!(float_tile::<6>(panel, stride, part, part_out)),
                5 => proven!(float_tile::<5>(panel, stride, part, part_out)),
                4 => proven!(float_tile::<4>(panel, stride, part, part_out)),
                3 => proven!(float_tile::<3>(panel, stride, part, part_out)),
                2 => proven!(float_tile::<2>(panel, stride, part, part_out)),
                _ => proven!(float_tile::<1>(panel, stride, part, part_out)),
            }
            first += rows;
        }
    }
    fn integer_tile(&self, panel: &IntegerPanel, x: IntegerRows<'_>, out: TileOut<'_>) {
        let mut first = 0;
        while first < x.rows {
            let rows = (x.rows - first).min(4);
            let part = IntegerRows { first: x.first + first, rows, ..x };
            let target = &mut out.values[first * out.stride..];
            let part_out = TileOut { values: target, stride: out.stride, accumulate: out.accumulate };
            match rows {
                4 => proven!(integer_tile::<4>(panel, part, part_out)),
                3 => proven!(integer_tile::<3>(panel, part, part_out)),
                2 => proven!(integer_tile::<2>(panel, part, part_out)),
                _ => proven!(integer_tile::<1>(panel, part, part_out)),
            }
            first += rows;
        }
    }
    fn gelu(&self, x: &mut [f32]) {
        proven!(gelu(x));
    }
    fn gelu_multiply(&self, gate: &mut [f32], up: &[f32]) {
        proven!(gelu_multiply(gate, up));
    }
    fn softcap(&self, x: &mut [f32], cap: f32) {
        proven!(softcap(x, cap));
    }
    fn softmax(&self, x: &mut [f32]) {
        proven!(softmax(x));
    }
    fn rms_norm(&self, x: &[f32], weight: &[f32], epsilon: f32, out: &mut [f32]) {
        proven!(rms_norm(x, weight, epsilon, out));
    }
    fn layer_norm(&self, x: &[f32], affine: (&[f32], &[f32]), epsilon: f32, out: &mut [f32]) {
        proven!(layer_norm(x, affine, epsilon, out));
    }
}

/// Instantiates plain-Rust bodies with this instruction set enabled.
macro_rules! instantiate {
    ($($name:ident($($argument:ident: $type:ty),*) = $body:path;)*) => {
        $(#[target_feature(enable = "avx2,fma,f16c")]
        fn $name($($argument: $type),*) {
            $body($($argument),*)
        })*
    };
}

instantiate! {
    quantize(x: &[f32], row: QuantizedRowMut<'_>) = vector::quantize;
    gelu(x: &mut [f32]) = vector::gelu;
    gelu_multiply(gate: &mut [f32], up: &[f32]) = vector::gelu_multiply;
    softcap(x: &mut [f32], cap: f32) = vector::softcap;
    softmax(x: &mut [f32]) = vector::softmax;
    rms_norm(x: &[f32], weight: &[f32], epsilon: f32, out: &mut [f32]) = vector::rms_norm;
    layer_norm(x: &[f32], affine: (&[f32], &[f32]), epsilon: f32, out: &mut [f32]) = vector::layer_norm;
    pack_integer(format: Format, rows: &[&[u8]], k: usize, panel: &mut IntegerPanel) = portable::pack_integer;
    pack_float(format: Format, rows: &[&[u8]], k: usize, panel: &mut FloatPanel) = portable::pack_float;
}

/// Eight values of a floating-point row.
trait Load8: Float {
    /// # Safety
    /// `8 * Self::BYTES` bytes are readable at `bytes`.
    unsafe fn load8(bytes: *const u8) -> __m256;
}

impl Load8 for crate::formats::F32 {
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn load8(bytes: *const u8) -> __m256 {
        // SAFETY: the caller's promise.
        unsafe { _mm256_loadu_ps(bytes.cast()) }
    }
}

impl Load8 for crate::formats::F16 {
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn load8(bytes: *const u8) -> __m256 {
        // SAFETY: the caller's promise.
        _mm256_cvtph_ps(unsafe { _mm_loadu_si128(bytes.cast()) })
    }
}

impl Load8 for crate::formats::Bf16 {
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn load8(bytes: *const u8) -> __m256 {
        // SAFETY: the caller's promise.
        let halves = unsafe { _mm_loadu_si128(bytes.cast()) };
        _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(halves)))
    }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn horizontal_sum(x: __m256) -> f32 {
    let x = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
    let x = _mm_add_ps(x, _mm_movehl_ps(x, x));
    _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)))
}

#[target_feature(enable = "avx2,fma,f16c")]
fn dot_float<E: Load8>(row: &[u8], x: &[f32]) -> f32 {
    let mut sums = [_mm256_setzero_ps(); 4];
    let (chunks, rest) = x.as_chunks::<32>();
    for (index, chunk) in chunks.iter().enumerate() {
        let bytes = row[index * 32 * E::BYTES..][..32 * E::BYTES].as_ptr();
        for (part, sum) in sums.iter_mut().enumerate() {
            // SAFETY: `bytes` has 32 elements and `chunk` 32 values; parts of 8 stay inside both.
            let (w, x) =
                unsafe { (E::load8(bytes.add(part * 8 * E::BYTES)), _mm256_loadu_ps(chunk.as_ptr().add(part * 8))) };
            *sum = _mm256_fmadd_ps(w, x, *sum);
        }
    }
    let tail = rest.iter().zip(row[chunks.len() * 32 * E::BYTES..].chunks_exact(E::BYTES));
    let tail: f32 = tail.map(|(x, bytes)| x * E::load(bytes)).sum();
    horizontal_sum(_mm256_add_ps(_mm256_add_ps(sums[0], sums[1]), _mm256_add_ps(sums[2], sums[3]))) + tail
}

#[target_feature(enable = "avx2,fma,f16c")]
fn add_scaled_half(weight: f32, row: &[u8], out: &mut [f32]) {
    let factor = _mm256_set1_ps(weight);
    let (bytes, bytes_rest) = row.as_chunks::<16>();
    let (chunks, rest) = out.as_chunks_mut::<8>();
    for (bytes, out) in bytes.iter().zip(chunks) {
        // SAFETY: `bytes` is 8 half-precision values and `out` 8 values.
        unsafe {
            let values = crate::formats::F16::load8(bytes.as_ptr());
            _mm256_storeu_ps(out.as_mut_ptr(), _mm256_fmadd_ps(factor, values, _mm256_loadu_ps(out.as_ptr())));
        }
    }
    portable::add_scaled_half(weight, bytes_rest, rest);
}

#[target_feature(enable = "avx2,fma,f16c")]
fn float_tile<const ROWS: usize>(panel: &[f32], stride: usize, x: FloatRows<'_>, out: TileOut<'_>) {
    let mut sums = [[_mm256_setzero_ps(); 2]; ROWS];
    let x_rows: [&[f32]; ROWS] = std::array::from_fn(|i| &x.values[i * x.stride..][..x.k]);
    if x.k > 0 {
        assert!(panel.len() >= (x.k - 1) * stride + PANEL_ROWS);
    }
    if out.accumulate {
        for (i, sums) in sums.iter_mut().enumerate() {
            let row = &out.values[i * out.stride..][..PANEL_ROWS];
            // SAFETY: `row` has 16 values.
            unsafe { *sums = [_mm256_loadu_ps(row.as_ptr()), _mm256_loadu_ps(row.as_ptr().add(8))] };
        }
    }
    for k in 0..x.k {
        // SAFETY: `k < x.k`: the assertion above keeps the panel reads inside, and each x row has `x.k` values.
        unsafe {
            let weights = panel.as_ptr().add(k * stride);
            let weights = [_mm256_loadu_ps(weights), _mm256_loadu_ps(weights.add(8))];
            for i in 0..ROWS {
                let x = _mm256_broadcast_ss(x_rows[i].get_unchecked(k));
                sums[i][0] = _mm256_fmadd_ps(x, weights[0], sums[i][0]);
                sums[i][1] = _mm256_fmadd_ps(x, weights[1], sums[i][1]);
            }
        }
    }
    for (i, sums) in sums.iter().enumerate() {
        let row = &mut out.values[i * out.stride..][..PANEL_ROWS];
        // SAFETY: `row` has 16 values.
        unsafe {
            _mm256_storeu_ps(row.as_mut_ptr(), sums[0]);
            _mm256_storeu_ps(row.as_mut_ptr().add(8), sums[1]);
        }
    }
}

/// Thirty-two codes of a block as bytes.
trait Codes32: Block {
    /// Codes `32 * part .. 32 * part + 32`.
    ///
    /// # Safety
    /// `block` points to `Self::BYTES` readable bytes and `part < Self::LEN / 32`.
    unsafe fn codes32(block: *const u8, part: usize) -> __m256i;
}

/// Sixteen bytes as 32 nibbles: the low ones, then the high ones.
///
/// # Safety
/// 16 bytes are readable.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn nibbles(bytes: *const u8) -> __m256i {
    // SAFETY: the caller's promise.
    let packed = unsafe { _mm_loadu_si128(bytes.cast()) };
    let both = _mm256_set_m128i(_mm_srli_epi16::<4>(packed), packed);
    _mm256_and_si256(both, _mm256_set1_epi8(15))
}

/// 16 in every byte whose bit is set.
///
/// # Safety
/// 4 bytes are readable.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn fifth_bits(bytes: *const u8) -> __m256i {
    // SAFETY: the caller's promise.
    let bits = unsafe { bytes.cast::<i32>().read_unaligned() };
    let spread = _mm256_set_epi64x(0x0303_0303_0303_0303, 0x0202_0202_0202_0202, 0x0101_0101_0101_0101, 0);
    let bytes = _mm256_shuffle_epi8(_mm256_set1_epi32(bits), spread);
    let select = _mm256_set1_epi64x(0x8040_2010_0804_0201u64 as i64);
    let set = _mm256_cmpeq_epi8(_mm256_and_si256(bytes, select), select);
    _mm256_and_si256(set, _mm256_set1_epi8(16))
}

/// Bytes shifted right by `count` bits and masked.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn bits_of(bytes: __m256i, count: i32, mask: i8) -> __m256i {
    _mm256_and_si256(_mm256_srl_epi16(bytes, _mm_cvtsi32_si128(count)), _mm256_set1_epi8(mask))
}

macro_rules! codes32 {
    ($($block:ty: |$pointer:ident, $part:ident| $body:expr;)*) => {
        $(impl Codes32 for $block {
            #[inline]
            #[target_feature(enable = "avx2,fma,f16c")]
            unsafe fn codes32($pointer: *const u8, $part: usize) -> __m256i {
                let _ = $part;
                // SAFETY: the caller's promise; the offsets are those of the format's layout.
                unsafe { $body }
            }
        })*
    };
}

codes32! {
    Q4_0: |block, part| _mm256_sub_epi8(nibbles(block.add(2)), _mm256_set1_epi8(8));
    Q4_1: |block, part| nibbles(block.add(4));
    Q5_0: |block, part| {
        _mm256_sub_epi8(_mm256_or_si256(nibbles(block.add(6)), fifth_bits(block.add(2))), _mm256_set1_epi8(16))
    };
    Q5_1: |block, part| _mm256_or_si256(nibbles(block.add(8)), fifth_bits(block.add(4)));
    Q8_0: |block, part| _mm256_loadu_si256(block.add(2).cast());
    Q4K: |block, part| {
        let packed = _mm256_loadu_si256(block.add(16 + part / 2 * 32).cast());
        bits_of(packed, (part % 2 * 4) as i32, 15)
    };
    Q5K: |block, part| {
        let packed = _mm256_loadu_si256(block.add(48 + part / 2 * 32).cast());
        let fifth = bits_of(_mm256_loadu_si256(block.add(16).cast()), part as i32, 1);
        _mm256_or_si256(bits_of(packed, (part % 2 * 4) as i32, 15), _mm256_slli_epi16::<4>(fifth))
    };
    Q6K: |block, part| {
        let (half, quarter) = (part / 4, part % 4);
        let low = _mm256_loadu_si256(block.add(half * 64 + quarter % 2 * 32).cast());
        let high = _mm256_loadu_si256(block.add(128 + half * 32).cast());
        let low = bits_of(low, (quarter / 2 * 4) as i32, 15);
        let high = _mm256_slli_epi16::<4>(bits_of(high, (quarter * 2) as i32, 3));
        _mm256_sub_epi8(_mm256_or_si256(low, high), _mm256_set1_epi8(32))
    };
}

#[target_feature(enable = "avx2,fma,f16c")]
fn dot_integer<B: Codes32>(row: &[u8], x: QuantizedRow<'_>) -> f32 {
    let (mut scales, mut biases) = ([0.0; MAX_GROUPS], [0.0; MAX_GROUPS]);
    let ones = _mm256_set1_epi16(1);
    let mut sum = _mm256_setzero_ps();
    let mut bias_sum = 0.0;
    for (index, block) in row.chunks_exact(B::BYTES).enumerate() {
        B::scales(block, &mut scales, &mut biases);
        for part in 0..B::LEN / 32 {
            let at = index * (B::LEN / 32) + part;
            // SAFETY: `block` has `B::BYTES` bytes and `part` counts its parts; the activations have as many blocks of
            // 32 as the row has parts (checked by the caller).
            let (w, codes, scale) = unsafe {
                (
                    B::codes32(block.as_ptr(), part),
                    _mm256_loadu_si256(x.codes.as_ptr().add(at * 32).cast()),
                    *x.scales.get_unchecked(at),
                )
            };
            let products = _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(codes, w));
            let products = _mm256_cvtepi32_ps(_mm256_madd_epi16(products, ones));
            let scale = if B::GROUP == 16 {
                // Lanes 0..4 hold the products of the first 16 codes, lanes 4..8 those of the others.
                _mm256_set_m128(_mm_set1_ps(scales[part * 2 + 1] * scale), _mm_set1_ps(scales[part * 2] * scale))
            } else {
                _mm256_set1_ps(scales[part] * scale)
            };
            sum = _mm256_fmadd_ps(products, scale, sum);
            if B::BIASED {
                bias_sum += biases[part] * (x.sums[at * 2] + x.sums[at * 2 + 1]);
            }
        }
    }
    horizontal_sum(sum) + bias_sum
}

#[target_feature(enable = "avx2,fma,f16c")]
fn integer_tile<const ROWS: usize>(panel: &IntegerPanel, x: IntegerRows<'_>, out: TileOut<'_>) {
    match (panel.group, panel.biases.is_empty()) {
        (16, true) => integer_tile_of::<ROWS, 16, false>(panel, x, out),
        (32, true) => integer_tile_of::<ROWS, 32, false>(panel, x, out),
        (32, false) => integer_tile_of::<ROWS, 32, true>(panel, x, out),
        _ => unreachable!("no format has this shape"),
    }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn integer_tile_of<const ROWS: usize, const GROUP: usize, const BIASED: bool>(
    panel: &IntegerPanel,
    x: IntegerRows<'_>,
    out: TileOut<'_>,
) {
    let groups = panel.k / GROUP;
    let rows: [QuantizedRow<'_>; ROWS] = std::array::from_fn(|i| x.values.row(x.first + i));
    let wide: [&[i16]; ROWS] = std::array::from_fn(|i| &x.values.wide(x.first + i)[x.column..][..panel.k]);
    assert!(panel.codes.len() >= panel.k * PANEL_ROWS && panel.scales.len() >= groups * PANEL_ROWS);
    assert!(!BIASED || panel.biases.len() >= groups * PANEL_ROWS);
    let mut totals = [[_mm256_setzero_ps(); 2]; ROWS];
    if out.accumulate {
        for (i, totals) in totals.iter_mut().enumerate() {
            let row = &out.values[i * out.stride..][..PANEL_ROWS];
            // SAFETY: `row` has 16 values.
            unsafe { *totals = [_mm256_loadu_ps(row.as_ptr()), _mm256_loadu_ps(row.as_ptr().add(8))] };
        }
    }
    for group in 0..groups {
        let mut sums = [[_mm256_setzero_si256(); 2]; ROWS];
        for pair in 0..GROUP / 2 {
            let at = group * (GROUP / 2) + pair;
            // SAFETY: `at < panel.k / 2`: the assertion above keeps the panel reads inside, and each wide row has
            // `panel.k` codes.
            unsafe {
                let weights: *const __m256i = panel.codes.as_ptr().add(at * 2 * PANEL_ROWS).cast();
                let weights = [_mm256_loadu_si256(weights), _mm256_loadu_si256(weights.add(1))];
                for i in 0..ROWS {
                    let x = _mm256_set1_epi32(wide[i].as_ptr().add(at * 2).cast::<i32>().read_unaligned());
                    sums[i][0] = _mm256_add_epi32(sums[i][0], _mm256_madd_epi16(weights[0], x));
                    sums[i][1] = _mm256_add_epi32(sums[i][1], _mm256_madd_epi16(weights[1], x));
                }
            }
        }
        let start = x.column + group * GROUP;
        for side in 0..2 {
            // SAFETY: the assertions above: `groups * 16` scales, and as many biases where there are any.
            let scales = unsafe { _mm256_loadu_ps(panel.scales.as_ptr().add(group * PANEL_ROWS + side * 8)) };
            for i in 0..ROWS {
                let scale = _mm256_mul_ps(scales, _mm256_set1_ps(rows[i].scales[start / ACTIVATION_BLOCK]));
                totals[i][side] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sums[i][side]), scale, totals[i][side]);
            }
            if BIASED {
                // SAFETY: as for the scales.
                let biases = unsafe { _mm256_loadu_ps(panel.biases.as_ptr().add(group * PANEL_ROWS + side * 8)) };
                for i in 0..ROWS {
                    let sum = rows[i].sums[start / SUM_BLOCK] + rows[i].sums[start / SUM_BLOCK + 1];
                    totals[i][side] = _mm256_fmadd_ps(biases, _mm256_set1_ps(sum), totals[i][side]);
                }
            }
        }
    }
    for (i, totals) in totals.iter().enumerate() {
        let row = &mut out.values[i * out.stride..][..PANEL_ROWS];
        // SAFETY: `row` has 16 values.
        unsafe {
            _mm256_storeu_ps(row.as_mut_ptr(), totals[0]);
            _mm256_storeu_ps(row.as_mut_ptr().add(8), totals[1]);
        }
    }
}
