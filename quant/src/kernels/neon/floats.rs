//! Floating-point rows and panels with NEON.

use std::arch::aarch64::*;
use std::arch::asm;

use crate::StridedRows;
use crate::formats::{Float, float, with_float};
use crate::kernels::operands::{FloatRows, PANEL_ROWS, TileOut};
use crate::kernels::portable;

/// Four values of a floating-point row.
pub(super) trait Load4: Float {
    /// # Safety
    /// `4 * Self::BYTES` bytes are readable at `bytes`.
    unsafe fn load4(bytes: *const u8) -> float32x4_t;
}

impl Load4 for float::F32 {
    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn load4(bytes: *const u8) -> float32x4_t {
        // SAFETY: the caller's promise.
        vreinterpretq_f32_u8(unsafe { vld1q_u8(bytes) })
    }
}

impl Load4 for float::F16 {
    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn load4(bytes: *const u8) -> float32x4_t {
        let out;
        // SAFETY: the caller's promise; conversion from half precision is part of every ARMv8 processor.
        unsafe {
            asm!("ldr {out:d}, [{bytes}]", "fcvtl {out:v}.4s, {out:v}.4h", out = out(vreg) out, bytes = in(reg) bytes,
                options(pure, readonly, nostack));
        }
        out
    }
}

impl Load4 for float::Bf16 {
    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn load4(bytes: *const u8) -> float32x4_t {
        // SAFETY: the caller's promise.
        let halves = vreinterpret_u16_u8(unsafe { vld1_u8(bytes) });
        vreinterpretq_f32_u32(vshll_n_u16::<16>(halves))
    }
}

#[target_feature(enable = "neon")]
fn dot_row<E: Load4>(row: &[u8], x: &[f32]) -> f32 {
    let mut sums = [vdupq_n_f32(0.0); 4];
    let (chunks, rest) = x.as_chunks::<16>();
    for (index, chunk) in chunks.iter().enumerate() {
        let bytes = row[index * 16 * E::BYTES..][..16 * E::BYTES].as_ptr();
        for (part, sum) in sums.iter_mut().enumerate() {
            // SAFETY: `bytes` has 16 elements and `chunk` 16 values; parts of 4 stay inside both.
            let (w, x) = unsafe { (E::load4(bytes.add(part * 4 * E::BYTES)), vld1q_f32(chunk.as_ptr().add(part * 4))) };
            *sum = vfmaq_f32(*sum, w, x);
        }
    }
    let tail = rest.iter().zip(row[chunks.len() * 16 * E::BYTES..].chunks_exact(E::BYTES));
    let tail: f32 = tail.map(|(x, bytes)| x * E::load(bytes)).sum();
    vaddvq_f32(vaddq_f32(vaddq_f32(sums[0], sums[1]), vaddq_f32(sums[2], sums[3]))) + tail
}

/// As [`Kernels::dot_float`](crate::Kernels::dot_float).
#[target_feature(enable = "neon")]
pub(super) fn dot_float(rows: StridedRows<'_>, x: &[f32], out: &mut [f32]) {
    with_float!(rows.format(), E => dot_float_of::<E>(rows, x, out), else unreachable!("strided rows are floating-point"));
}

#[target_feature(enable = "neon")]
fn dot_float_of<E: Load4>(rows: StridedRows<'_>, x: &[f32], out: &mut [f32]) {
    for (row, out) in out.iter_mut().enumerate() {
        *out = dot_row::<E>(rows.row(row), x);
    }
}

/// Adds `ROWS` rows to `out`, one after the other.
#[target_feature(enable = "neon")]
fn add_rows<E: Load4, const ROWS: usize>(factors: [f32; ROWS], rows: [&[u8]; ROWS], out: &mut [f32]) {
    assert!(rows.iter().all(|row| row.len() == out.len() * E::BYTES));
    let (chunks, rest) = out.as_chunks_mut::<4>();
    let done = chunks.len() * 4 * E::BYTES;
    for (index, out) in chunks.iter_mut().enumerate() {
        // SAFETY: every row has as many values as there are results, of which `out` is 4.
        unsafe {
            let mut sum = vld1q_f32(out.as_ptr());
            for (row, factor) in rows.iter().zip(factors) {
                sum = vfmaq_n_f32(sum, E::load4(row.as_ptr().add(index * 4 * E::BYTES)), factor);
            }
            vst1q_f32(out.as_mut_ptr(), sum);
        }
    }
    for (row, factor) in rows.iter().zip(factors) {
        portable::add_scaled_row::<E>(factor, &row[done..], rest);
    }
}

/// As [`Kernels::add_scaled`](crate::Kernels::add_scaled).
#[target_feature(enable = "neon")]
pub(super) fn add_scaled(factors: &[f32], rows: StridedRows<'_>, out: &mut [f32]) {
    with_float!(rows.format(), E => add_scaled_of::<E>(factors, rows, out), else unreachable!("strided rows are floating-point"));
}

#[target_feature(enable = "neon")]
fn add_scaled_of<E: Load4>(factors: &[f32], rows: StridedRows<'_>, out: &mut [f32]) {
    const TOGETHER: usize = 8;
    let (groups, rest) = factors.as_chunks::<TOGETHER>();
    for (index, factors) in groups.iter().enumerate() {
        add_rows::<E, TOGETHER>(*factors, std::array::from_fn(|row| rows.row(index * TOGETHER + row)), out);
    }
    for (row, factor) in rest.iter().enumerate() {
        add_rows::<E, 1>([*factor], [rows.row(groups.len() * TOGETHER + row)], out);
    }
}

/// Half-precision bits, with the instruction for it.
#[target_feature(enable = "neon")]
pub(super) fn to_half(x: &[f32], out: &mut [u16]) {
    let (chunks, rest) = x.as_chunks::<4>();
    let (halves, rest_out) = out.as_chunks_mut::<4>();
    for (x, out) in chunks.iter().zip(halves) {
        // SAFETY: four values are read and four half-precision ones written.
        unsafe {
            let mut value = vld1q_f32(x.as_ptr());
            asm!("fcvtn {value:v}.4h, {value:v}.4s", "str {value:d}, [{out}]", value = inout(vreg) value,
                out = in(reg) out.as_mut_ptr(), options(nostack));
            let _ = value;
        }
    }
    crate::vector::to_half(rest, rest_out);
}

/// Rows of activations times a panel, whose lines hold `TOGETHER` neighbours of the depth, one or two.
///
/// # Safety
/// The operands are what [`check_float_tile`](crate::kernels::operands::check_float_tile) asserts.
#[target_feature(enable = "neon")]
pub(super) unsafe fn float_tile<const TOGETHER: usize>(panel: &[f32], x: FloatRows<'_>, out: TileOut<'_>) {
    let mut first = 0;
    while first < x.rows {
        let rows = (x.rows - first).min(4);
        let part = FloatRows { values: &x.values[first * x.stride..], rows, ..x };
        let values = &mut out.values[first * out.stride..];
        let target = TileOut { values, stride: out.stride, accumulate: out.accumulate };
        // SAFETY: the caller's promise, of these rows.
        unsafe {
            match rows {
                4 => rows_of_tile::<4, TOGETHER>(panel, part, target),
                3 => rows_of_tile::<3, TOGETHER>(panel, part, target),
                2 => rows_of_tile::<2, TOGETHER>(panel, part, target),
                _ => rows_of_tile::<1, TOGETHER>(panel, part, target),
            }
        }
        first += rows;
    }
}

/// `ROWS` rows of them; a line is four registers.
///
/// # Safety
/// As [`float_tile`]; there are `ROWS` rows.
#[target_feature(enable = "neon")]
unsafe fn rows_of_tile<const ROWS: usize, const TOGETHER: usize>(panel: &[f32], x: FloatRows<'_>, out: TileOut<'_>) {
    let lines = x.k / TOGETHER;
    let x_rows: [&[f32]; ROWS] = std::array::from_fn(|i| &x.values[i * x.stride..][..x.k]);
    let mut sums = [[vdupq_n_f32(0.0); 4]; ROWS];
    // SAFETY: the panel has as many lines as `x.k` takes and each row of results 16 numbers, the caller's promise.
    unsafe {
        if out.accumulate {
            for i in 0..ROWS {
                for side in 0..4 {
                    sums[i][side] = vld1q_f32(out.values.as_ptr().add(i * out.stride + side * 4));
                }
            }
        }
        for line in 0..lines {
            let weights = panel.as_ptr().add(line * PANEL_ROWS);
            let mut w = [vdupq_n_f32(0.0); 4];
            for side in 0..4 {
                w[side] = vld1q_f32(weights.add(side * 4));
            }
            for i in 0..ROWS {
                let x = x_rows[i].as_ptr().add(line * TOGETHER);
                for side in 0..4 {
                    sums[i][side] = match TOGETHER {
                        1 => vfmaq_n_f32(sums[i][side], w[side], *x),
                        _ => vfmaq_f32(sums[i][side], w[side], vcombine_f32(vld1_f32(x), vld1_f32(x))),
                    };
                }
            }
        }
        for i in 0..ROWS {
            for side in 0..4 {
                vst1q_f32(out.values.as_mut_ptr().add(i * out.stride + side * 4), sums[i][side]);
            }
        }
    }
}
