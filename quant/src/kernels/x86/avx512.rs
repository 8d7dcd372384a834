//! x86-64 with AVX-512 (F, BW, VL) and VNNI: a register holds all sixteen columns of a panel.

use std::arch::asm;
use std::arch::x86_64::*;
use std::ops::Range;

use super::avx2::Avx2;
use super::avx512_tiles::{PANELS, integer_tile, integer_tiles};
use super::pairs::Pairs512;
use super::panels::pack;
use super::rows::avx512::dot_integer;
use super::wide_floats::{add_scaled, dot_float};
use super::wide_panels;
use super::wide_rows;
use super::wide_vectors::{gelu, gelu_multiply, quantize, read, softcap, softmax_tile};
use crate::activation::QuantizedRow;
use crate::formats::{self, with_block, with_float};
use crate::isa::{Avx512Token, Isa};
use crate::kernels::{FloatRows, IntegerPanel, IntegerRows, Kernels, PANEL_ROWS, TileOut, fits, portable};
use crate::{EncodeError, Format, MatrixView, StridedRows};

/// The kernels; holding one proves that the CPU runs them.
#[derive(Clone, Copy, Debug)]
pub struct Avx512 {
    base: Avx2,
    proof: Avx512Token,
}

impl Avx512 {
    /// The kernels, given the proof.
    pub fn new(proof: Avx512Token) -> Self {
        Self { base: Avx2::new(proof.avx2()), proof }
    }
}

/// Calls a `target_feature` function of this module.
macro_rules! proven {
    ($call:expr) => {
        // SAFETY: `self` holds an `Avx512Token`, which exists only where AVX-512 F, BW, VL, VNNI and AVX2 were detected.
        unsafe { $call }
    };
}

impl Kernels for Avx512 {
    fn isa(&self) -> Isa {
        Isa::Avx512
    }
    fn base(&self) -> Option<&dyn Kernels> {
        Some(&self.base)
    }
    fn encode_row(&self, format: Format, values: &[f32], out: &mut [u8]) -> Result<(), EncodeError> {
        proven!(encode_row(Pairs512(self.proof), format, values, out))
    }
    fn squared_error(&self, format: Format, bytes: &[u8], values: &[f32]) -> (f64, f64) {
        proven!(squared_error(format, bytes, values))
    }
    fn dot_float(&self, rows: StridedRows<'_>, x: &[f32], out: &mut [f32]) {
        with_float!(rows.format(), E => proven!(dot_float::<E>(rows, x, out)),
            else portable::dot_float(rows, x, out));
    }
    fn add_scaled(&self, factors: &[f32], rows: StridedRows<'_>, out: &mut [f32]) {
        with_float!(rows.format(), E => proven!(add_scaled::<E>(factors, rows, out)),
            else portable::add_scaled(factors, rows, out));
    }
    fn dot_integer(&self, weights: MatrixView<'_>, rows: Range<usize>, x: &[QuantizedRow<'_>], out: &mut [f32]) {
        match weights.format() {
            Format::Q4K => proven!(wide_rows::dot_integer::<formats::Q4K>(weights, rows, x, out)),
            Format::Q5K => proven!(wide_rows::dot_integer::<formats::Q5K>(weights, rows, x, out)),
            Format::Q6K => proven!(wide_rows::dot_integer::<formats::Q6K>(weights, rows, x, out)),
            format => with_block!(format, B => proven!(dot_integer::<B>(weights, rows, x, out)),
                else portable::dot_integer(weights, rows, x, out)),
        }
    }
    fn pack_integer(&self, format: Format, rows: &[&[u8]], k: usize, panel: &mut IntegerPanel) {
        match format {
            Format::Q4_0 => proven!(wide_panels::pack::<formats::Q4_0>(rows, k, panel)),
            Format::Q4_1 => proven!(wide_panels::pack::<formats::Q4_1>(rows, k, panel)),
            Format::Q8_0 => proven!(wide_panels::pack::<formats::Q8_0>(rows, k, panel)),
            Format::Q4K => proven!(wide_panels::pack::<formats::Q4K>(rows, k, panel)),
            format => with_block!(format, B => proven!(pack::<B>(rows, k, panel)),
                else portable::pack_integer(format, rows, k, panel)),
        }
    }
    fn float_tile(&self, panel: &[f32], stride: usize, x: FloatRows<'_>, out: TileOut<'_>) {
        proven!(float_tile::<1>(panel, stride, x, out));
    }
    fn pair_tile(&self, panel: &[f32], x: FloatRows<'_>, out: TileOut<'_>) {
        proven!(float_tile::<2>(panel, PANEL_ROWS, x, out));
    }
    fn float_tiles(&self, (panels, panel_stride): (&[f32], usize), columns: usize, x: FloatRows<'_>, out: TileOut<'_>) {
        assert!(columns.is_multiple_of(PANEL_ROWS), "whole panels");
        let TileOut { values, stride, accumulate } = out;
        for column in (0..columns).step_by(2 * PANEL_ROWS) {
            let panels = &panels[column / PANEL_ROWS * panel_stride..];
            let out = TileOut { values: &mut values[column..], stride, accumulate };
            if column + PANEL_ROWS < columns {
                proven!(two_float_tiles((panels, panel_stride), x, out));
            } else {
                proven!(float_tile::<1>(&panels[..x.k * PANEL_ROWS], PANEL_ROWS, x, out));
            }
        }
    }
    fn integer_tile(&self, panel: &IntegerPanel, x: IntegerRows<'_>, out: TileOut<'_>) {
        proven!(integer_tile(panel, x, out));
    }
    fn integer_panels(&self) -> usize {
        PANELS
    }
    fn integer_tiles(&self, panels: &[IntegerPanel], x: IntegerRows<'_>, out: TileOut<'_>) {
        proven!(integer_tiles(panels, x, out));
    }
    vector_methods!();
    fn softcap(&self, x: &mut [f32], cap: f32) {
        proven!(softcap(x, cap));
    }
    fn softmax_tile(&self, x: &mut [f32], largest: f32) -> (f32, f32) {
        proven!(softmax_tile(x, largest))
    }
}

instantiate! {
    "avx512f,avx512bw,avx512vl,avx2,fma,f16c";
    encode_row(pairs: Pairs512, format: Format, values: &[f32], out: &mut [u8]) -> Result<(), EncodeError> = formats::encode_row_with;
    squared_error(format: Format, bytes: &[u8], values: &[f32]) -> (f64, f64) = formats::squared_error;
}

instantiate_vectors!("avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c");

/// Rows of a register tile: as many independent chains of additions as hide their latency at two a cycle.
const TILE_ROWS: usize = 12;

/// Rows of activations times a panel, whose lines hold `TOGETHER` neighbours of the depth, one or two.
#[target_feature(enable = "avx512f")]
fn float_tile<const TOGETHER: usize>(panel: &[f32], stride: usize, x: FloatRows<'_>, out: TileOut<'_>) {
    let lines = x.k / TOGETHER;
    assert!(x.k.is_multiple_of(TOGETHER) && fits(panel.len(), lines, stride, PANEL_ROWS));
    assert!(fits(x.values.len(), x.rows, x.stride, x.k));
    assert!(fits(out.values.len(), x.rows, out.stride, PANEL_ROWS));
    let mut row = 0;
    while row < x.rows {
        // SAFETY: sizes are asserted above for all rows.
        unsafe {
            let values = (x.values.as_ptr().add(row * x.stride), x.stride, lines);
            let target = (out.values.as_mut_ptr().add(row * out.stride), out.stride, out.accumulate);
            let weights = (panel.as_ptr(), stride);
            row += match x.rows - row {
                TILE_ROWS.. => float_rows::<TILE_ROWS, TOGETHER>(weights, values, target),
                4.. => float_rows::<4, TOGETHER>(weights, values, target),
                _ => float_rows::<1, TOGETHER>(weights, values, target),
            };
        }
    }
}

/// `ROWS` rows of them, and `lines` of the panel; returns `ROWS`.
///
/// # Safety
/// Pointers, strides and lengths describe readable panels and rows, and writable results.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn float_rows<const ROWS: usize, const TOGETHER: usize>(
    (panel, panel_stride): (*const f32, usize),
    (x, x_stride, lines): (*const f32, usize, usize),
    (out, stride, accumulate): (*mut f32, usize, bool),
) -> usize {
    let mut sums = [_mm512_setzero_ps(); ROWS];
    // SAFETY: the caller's promise.
    unsafe {
        if accumulate {
            for i in 0..ROWS {
                sums[i] = _mm512_loadu_ps(out.add(i * stride));
            }
        }
        for line in 0..lines {
            let weights = _mm512_loadu_ps(panel.add(line * panel_stride));
            add_float_products::<ROWS, TOGETHER>(&mut sums, weights, x.add(line * TOGETHER), x_stride);
        }
        for i in 0..ROWS {
            _mm512_storeu_ps(out.add(i * stride), sums[i]);
        }
    }
    ROWS
}

/// As [`float_tile`] for two panels, `panel_stride` values apart: a value that is read serves both, while each product of one
/// panel reads its own, and reading bounds it.
#[target_feature(enable = "avx512f")]
fn two_float_tiles((panels, panel_stride): (&[f32], usize), x: FloatRows<'_>, out: TileOut<'_>) {
    assert!(fits(panels.len(), 2, panel_stride, x.k * PANEL_ROWS) && fits(x.values.len(), x.rows, x.stride, x.k));
    assert!(fits(out.values.len(), x.rows, out.stride, 2 * PANEL_ROWS));
    let mut row = 0;
    while row < x.rows {
        // SAFETY: sizes are asserted above for all rows.
        unsafe {
            let values = (x.values.as_ptr().add(row * x.stride), x.stride, x.k);
            let target = (out.values.as_mut_ptr().add(row * out.stride), out.stride, out.accumulate);
            let weights = (panels.as_ptr(), panels.as_ptr().add(panel_stride));
            row += match x.rows - row {
                TILE_ROWS.. => two_panels_of_rows::<3>(weights, values, target),
                4.. => two_panels_of_rows::<1>(weights, values, target),
                _ => {
                    for (panel, column) in [(weights.0, 0), (weights.1, PANEL_ROWS)] {
                        let (out, stride, accumulate) = target;
                        float_rows::<1, 1>((panel, PANEL_ROWS), values, (out.add(column), stride, accumulate));
                    }
                    1
                }
            };
        }
    }
}

/// `FOURS` times four rows of activations times two panels; returns how many rows.
///
/// # Safety
/// As [`float_rows`].
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn two_panels_of_rows<const FOURS: usize>(
    (first, second): (*const f32, *const f32),
    (x, x_stride, depth): (*const f32, usize, usize),
    (out, stride, accumulate): (*mut f32, usize, bool),
) -> usize {
    let mut sums = [[_mm512_setzero_ps(); 8]; FOURS];
    // SAFETY: the caller's promise.
    unsafe {
        let target = |four: usize, index: usize| out.add((four * 4 + index / 2) * stride + index % 2 * PANEL_ROWS);
        if accumulate {
            for four in 0..FOURS {
                for index in 0..8 {
                    sums[four][index] = _mm512_loadu_ps(target(four, index));
                }
            }
        }
        for k in 0..depth {
            let left = _mm512_loadu_ps(first.add(k * PANEL_ROWS));
            let right = _mm512_loadu_ps(second.add(k * PANEL_ROWS));
            for (four, [a, b, c, d, e, f, g, h]) in sums.iter_mut().enumerate() {
                asm!(
                    "vbroadcastss {s}, dword ptr [{x}]",
                    "vbroadcastss {t}, dword ptr [{x} + 4*{stride}]",
                    "vfmadd231ps {a}, {left}, {s}",
                    "vfmadd231ps {b}, {right}, {s}",
                    "vbroadcastss {s}, dword ptr [{x} + 8*{stride}]",
                    "vfmadd231ps {c}, {left}, {t}",
                    "vfmadd231ps {d}, {right}, {t}",
                    "vbroadcastss {t}, dword ptr [{x} + 4*{thrice}]",
                    "vfmadd231ps {e}, {left}, {s}",
                    "vfmadd231ps {f}, {right}, {s}",
                    "vfmadd231ps {g}, {left}, {t}",
                    "vfmadd231ps {h}, {right}, {t}",
                    a = inout(zmm_reg) *a,
                    b = inout(zmm_reg) *b,
                    c = inout(zmm_reg) *c,
                    d = inout(zmm_reg) *d,
                    e = inout(zmm_reg) *e,
                    f = inout(zmm_reg) *f,
                    g = inout(zmm_reg) *g,
                    h = inout(zmm_reg) *h,
                    s = out(zmm_reg) _,
                    t = out(zmm_reg) _,
                    left = in(zmm_reg) left,
                    right = in(zmm_reg) right,
                    x = in(reg) x.add(four * 4 * x_stride + k),
                    stride = in(reg) x_stride,
                    thrice = in(reg) 3 * x_stride,
                    options(readonly, nostack),
                );
            }
        }
        for four in 0..FOURS {
            for index in 0..8 {
                _mm512_storeu_ps(target(four, index), sums[four][index]);
            }
        }
    }
    FOURS * 4
}

/// As [`add_products`], of one line of a panel and `TOGETHER` values of each row.
///
/// # Safety
/// So many values lie at every row.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn add_float_products<const ROWS: usize, const TOGETHER: usize>(
    sums: &mut [__m512; ROWS],
    weights: __m512,
    x: *const f32,
    stride: usize,
) {
    let (fours, rest) = sums.as_chunks_mut::<4>();
    for (four, [a, b, c, d]) in fours.iter_mut().enumerate() {
        macro_rules! four_rows {
            ($broadcast:literal) => {
                asm!(
                    concat!($broadcast, " {s}, [{x}]"),
                    concat!($broadcast, " {t}, [{x} + 4*{stride}]"),
                    "vfmadd231ps {a}, {weights}, {s}",
                    concat!($broadcast, " {s}, [{x} + 8*{stride}]"),
                    "vfmadd231ps {b}, {weights}, {t}",
                    concat!($broadcast, " {t}, [{x} + 4*{thrice}]"),
                    "vfmadd231ps {c}, {weights}, {s}",
                    "vfmadd231ps {d}, {weights}, {t}",
                    a = inout(zmm_reg) *a,
                    b = inout(zmm_reg) *b,
                    c = inout(zmm_reg) *c,
                    d = inout(zmm_reg) *d,
                    s = out(zmm_reg) _,
                    t = out(zmm_reg) _,
                    weights = in(zmm_reg) weights,
                    x = in(reg) x.add(four * 4 * stride),
                    stride = in(reg) stride,
                    thrice = in(reg) 3 * stride,
                    options(readonly, nostack),
                )
            };
        }
        // SAFETY: reads `TOGETHER` values of each of four rows, the caller's promise.
        unsafe {
            match TOGETHER {
                1 => four_rows!("vbroadcastss"),
                _ => four_rows!("vbroadcastsd"),
            }
        }
    }
    for (i, sum) in rest.iter_mut().enumerate() {
        // SAFETY: reads `TOGETHER` values of each row after the fours, the caller's promise.
        unsafe {
            let x = x.add((ROWS / 4 * 4 + i) * stride);
            let x = match TOGETHER {
                1 => _mm512_set1_ps(*x),
                _ => _mm512_castpd_ps(_mm512_set1_pd(x.cast::<f64>().read_unaligned())),
            };
            *sum = _mm512_fmadd_ps(weights, x, *sum);
        }
    }
}
