//! Products with floating-point panels in AVX-512: a register holds all sixteen columns of a panel.

use std::arch::asm;
use std::arch::x86_64::*;

use crate::kernels::operands::{FloatPanels, FloatRows, OutPointer, PANEL_ROWS, TileOut};

/// [`FloatRows`] as pointers.
#[derive(Clone, Copy)]
struct RowsPointer {
    values: *const f32,
    /// Distance between rows.
    stride: usize,
}

impl RowsPointer {
    fn of(x: &FloatRows<'_>) -> Self {
        Self { values: x.values.as_ptr(), stride: x.stride }
    }

    /// The rows from `row` on.
    fn at_row(self, row: usize) -> Self {
        Self { values: self.values.wrapping_add(row * self.stride), ..self }
    }
}

/// Rows of a register tile: as many independent chains of additions as hide their latency at two a cycle.
const TILE_ROWS: usize = 12;

/// Rows of activations times a panel, whose lines hold `TOGETHER` neighbours of the depth, one or two.
///
/// # Safety
/// The operands are what [`check_float_tile`](crate::kernels::operands::check_float_tile) asserts.
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn float_tile<const TOGETHER: usize>(panel: &[f32], x: FloatRows<'_>, mut out: TileOut<'_>) {
    let (lines, values, out) = (x.k / TOGETHER, RowsPointer::of(&x), out.pointer());
    let mut row = 0;
    while row < x.rows {
        let (values, target) = (values.at_row(row), out.at_row(row));
        // SAFETY: the caller's promise, of these rows.
        unsafe {
            row += match x.rows - row {
                TILE_ROWS.. => float_rows::<TILE_ROWS, TOGETHER>(panel.as_ptr(), lines, values, target),
                4.. => float_rows::<4, TOGETHER>(panel.as_ptr(), lines, values, target),
                _ => float_rows::<1, TOGETHER>(panel.as_ptr(), lines, values, target),
            };
        }
    }
}

/// `ROWS` rows of them, and `lines` lines of the panel; returns `ROWS`.
///
/// # Safety
/// - `lines` lines of [`PANEL_ROWS`] numbers are readable at `panel`, each behind the one before it.
/// - `TOGETHER * lines` numbers are readable at each of `ROWS` rows of `x`.
/// - [`PANEL_ROWS`] numbers are writable at each of `ROWS` rows of `out`.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn float_rows<const ROWS: usize, const TOGETHER: usize>(
    panel: *const f32,
    lines: usize,
    x: RowsPointer,
    out: OutPointer,
) -> usize {
    let mut sums = [_mm512_setzero_ps(); ROWS];
    // SAFETY: the caller's promise.
    unsafe {
        if out.accumulate {
            for i in 0..ROWS {
                sums[i] = _mm512_loadu_ps(out.values.add(i * out.stride));
            }
        }
        for line in 0..lines {
            let weights = _mm512_loadu_ps(panel.add(line * PANEL_ROWS));
            add_float_products::<ROWS, TOGETHER>(
                &mut sums,
                weights,
                RowsPointer { values: x.values.add(line * TOGETHER), ..x },
            );
        }
        for i in 0..ROWS {
            _mm512_storeu_ps(out.values.add(i * out.stride), sums[i]);
        }
    }
    ROWS
}

/// As [`float_tile`] for two panels: a value that is read serves both, while each product of one panel reads its own, and reading
/// bounds it.
///
/// # Safety
/// The operands are what [`check_float_tile`](crate::kernels::operands::check_float_tile) asserts, for each of two panels.
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn two_float_tiles(panels: FloatPanels<'_>, x: FloatRows<'_>, mut out: TileOut<'_>) {
    let (values, out) = (RowsPointer::of(&x), out.pointer());
    let first = panels.values.as_ptr();
    let panels = [first, first.wrapping_add(panels.stride)];
    let mut row = 0;
    while row < x.rows {
        let (values, target) = (values.at_row(row), out.at_row(row));
        // SAFETY: the caller's promise, of these rows.
        unsafe {
            row += match x.rows - row {
                TILE_ROWS.. => two_panels_of_rows::<3>(panels, x.k, values, target),
                4.. => two_panels_of_rows::<1>(panels, x.k, values, target),
                _ => {
                    for (index, panel) in panels.into_iter().enumerate() {
                        let column = target.values.wrapping_add(index * PANEL_ROWS);
                        float_rows::<1, 1>(panel, x.k, values, OutPointer { values: column, ..target });
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
/// As [`float_rows`] for each panel and for `4 * FOURS` rows; twice as many results of a row are writable.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn two_panels_of_rows<const FOURS: usize>(
    [first, second]: [*const f32; 2],
    depth: usize,
    x: RowsPointer,
    out: OutPointer,
) -> usize {
    let mut sums = [[_mm512_setzero_ps(); 8]; FOURS];
    // SAFETY: the caller's promise.
    unsafe {
        let target =
            |four: usize, index: usize| out.values.add((four * 4 + index / 2) * out.stride + index % 2 * PANEL_ROWS);
        if out.accumulate {
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
                    x = in(reg) x.values.add(four * 4 * x.stride + k),
                    stride = in(reg) x.stride,
                    thrice = in(reg) 3 * x.stride,
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

/// Adds the products of one line of a panel and `TOGETHER` values of each row.
///
/// # Safety
/// `TOGETHER` numbers are readable at each of `ROWS` rows of `x`.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn add_float_products<const ROWS: usize, const TOGETHER: usize>(
    sums: &mut [__m512; ROWS],
    weights: __m512,
    x: RowsPointer,
) {
    let RowsPointer { values: x, stride } = x;
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
