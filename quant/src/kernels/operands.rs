//! What products take and give, and the checks that the kernels rely on.
//!
//! The kernels follow pointers. What they may assume is what the functions `check_…` of this module assert; the front door
//! ([`Kernels`](super::Kernels)) calls these once before it calls a kernel.

use std::ops::Range;

use crate::activation::{ACTIVATION_BLOCK, QuantizedRow, QuantizedRows, SUM_BLOCK};
use crate::formats::Block;
use crate::{Format, MatrixView, StridedRows};

/// Weight rows in a panel: the width of the register tile of every panel product.
pub const PANEL_ROWS: usize = 16;

/// Rows of a floating-point matrix unpacked and interleaved: `values[k][PANEL_ROWS]`.
#[derive(Debug, Default)]
pub struct FloatPanel {
    /// The interleaved values.
    pub values: Vec<f32>,
}

/// How the codes of an integer panel lie. A tier's table says which arrangements its products read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Arrangement {
    /// `[k / 4][16 rows][4]` signed codes, for the portable product: formats whose shape a tier has no product for.
    #[default]
    Portable,
    /// `[k / 4][16 rows][4]` signed codes.
    #[cfg_attr(not(target_arch = "aarch64"), expect(dead_code, reason = "an arrangement of ARM"))]
    SignedQuads,
    /// `[k / 8][16 rows][8]` signed codes.
    #[cfg_attr(not(target_arch = "aarch64"), expect(dead_code, reason = "an arrangement of ARM"))]
    SignedOctets,
    /// `[k / 4][16 rows][4]` stored codes, unsigned.
    #[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "an arrangement of x86"))]
    StoredQuads,
    /// As `StoredQuads`; the products subtract half the codes' range, and biases make up for it.
    #[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "an arrangement of x86"))]
    CenteredQuads,
    /// `[k / 2][16 rows][2]` signed codes of 16 bits.
    SignedPairs,
}

impl Arrangement {
    /// Bytes that a code takes.
    fn code_bytes(self) -> usize {
        if self == Self::SignedPairs { 2 } else { 1 }
    }
}

/// What the products of a block format depend on beside its codes: formats of one shape share their products.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Shape {
    /// Values that share a scale: 16 or 32.
    pub(crate) group: usize,
    /// Bits of a stored code.
    pub(crate) bits: u32,
    /// Whether the format has biases.
    pub(crate) biased: bool,
}

impl Shape {
    /// The shape of a format.
    pub(crate) const fn of<B: Block>() -> Self {
        const { assert!(B::GROUP == SUM_BLOCK || B::GROUP == ACTIVATION_BLOCK, "groups that have a sum of activations") };
        Self { group: B::GROUP, bits: B::BITS, biased: B::BIASED }
    }

    /// Whether the SIMD products know the shape. The products of other shapes are the portable ones.
    pub(crate) const fn is_common(self) -> bool {
        matches!(
            self,
            Self { group: 32, bits: 4 | 5, .. }
                | Self { group: 16, bits: 6, biased: false }
                | Self { group: 32, bits: 8, biased: false }
        )
    }
}

/// A cache line, so that vector loads from panels cross none.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(crate) struct Line(pub(crate) [u8; 64]);

/// Rows of a quantized matrix unpacked and interleaved for integer products.
#[derive(Debug, Default)]
pub struct IntegerPanel {
    pub(crate) arrangement: Arrangement,
    pub(crate) shape: Shape,
    pub(crate) codes: Vec<Line>,
    /// `[k / group][PANEL_ROWS]` scales.
    pub(crate) scales: Vec<f32>,
    /// `[k / group][PANEL_ROWS]` biases; empty where the format has none.
    pub(crate) biases: Vec<f32>,
    /// Values of a row in this panel.
    pub(crate) k: usize,
}

impl IntegerPanel {
    /// Makes room for `rows` rows of `k` values of format `B`, a multiple of its block's length. Where rows are missing, all
    /// codes, scales and biases are zero; otherwise contents are unspecified.
    pub(crate) fn prepare<B: Block>(&mut self, arrangement: Arrangement, rows: usize, k: usize) {
        (self.arrangement, self.shape, self.k) = (arrangement, Shape::of::<B>(), k);
        self.codes.resize((k * PANEL_ROWS * arrangement.code_bytes()).div_ceil(64), Line([0; 64]));
        self.scales.resize(k / B::GROUP * PANEL_ROWS, 0.0);
        self.biases.resize(if B::BIASED { self.scales.len() } else { 0 }, 0.0);
        if rows < PANEL_ROWS {
            self.codes.fill(Line([0; 64]));
            self.scales.fill(0.0);
            self.biases.fill(0.0);
        }
    }
}

/// The left-hand side of a floating-point tile: `rows` rows of `k` values, `stride` apart.
#[derive(Clone, Copy, Debug)]
pub struct FloatRows<'a> {
    /// The first row starts at index 0.
    pub values: &'a [f32],
    /// Distance between rows.
    pub stride: usize,
    /// Number of rows.
    pub rows: usize,
    /// Values of a row that take part.
    pub k: usize,
}

/// Panels of [`PANEL_ROWS`] columns each that begin at equal distances. The lines of a panel follow each other.
#[derive(Clone, Copy, Debug)]
pub struct FloatPanels<'a> {
    /// The first panel starts at index 0.
    pub values: &'a [f32],
    /// Distance between panels.
    pub stride: usize,
    /// Number of panels.
    pub count: usize,
}

/// A range of quantized rows and columns, the left-hand side of an integer tile.
#[derive(Clone, Copy, Debug)]
pub struct IntegerRows<'a> {
    /// The buffer.
    pub values: &'a QuantizedRows,
    /// First row.
    pub first: usize,
    /// Number of rows.
    pub rows: usize,
    /// First column, a multiple of 32; the panel's `k` says how many.
    pub column: usize,
}

/// Where the results of a tile of `rows × PANEL_ROWS`, or of several side by side, go.
#[derive(Debug)]
pub struct TileOut<'a> {
    /// The first row starts at index 0.
    pub values: &'a mut [f32],
    /// Distance between rows.
    pub stride: usize,
    /// Whether to add to what is there.
    pub accumulate: bool,
}

impl TileOut<'_> {
    /// The same rows from a later column on.
    pub(crate) fn at_column(&mut self, column: usize) -> TileOut<'_> {
        let values = self.values.get_mut(column..).unwrap_or_default();
        TileOut { values, stride: self.stride, accumulate: self.accumulate }
    }

    /// The results as a kernel writes them.
    pub(crate) fn pointer(&mut self) -> OutPointer {
        OutPointer { values: self.values.as_mut_ptr(), stride: self.stride, accumulate: self.accumulate }
    }
}

/// [`TileOut`] as a kernel writes it.
#[derive(Clone, Copy)]
pub(crate) struct OutPointer {
    pub(crate) values: *mut f32,
    /// Distance between rows.
    pub(crate) stride: usize,
    /// Whether to add to what is there.
    pub(crate) accumulate: bool,
}

impl OutPointer {
    /// The results from `row` on.
    #[inline]
    pub(crate) fn at_row(self, row: usize) -> Self {
        Self { values: self.values.wrapping_add(row * self.stride), ..self }
    }
}

/// Quantized rows as a kernel reads them: rows follow each other, `row_len` codes each.
#[derive(Clone, Copy)]
pub(crate) struct ActivationPointers {
    pub(crate) codes: *const i8,
    pub(crate) scales: *const f32,
    pub(crate) sums: *const f32,
    pub(crate) block_sums: *const i32,
    pub(crate) half_sums: *const i32,
    pub(crate) pair_offsets: *const [[i16; 2]; 2],
    /// Codes from a row to the next.
    pub(crate) row_len: usize,
}

impl ActivationPointers {
    /// The rows of `x`, from its column on.
    pub(crate) fn new(x: &IntegerRows<'_>) -> Self {
        let rows = x.values.rows_from(x.first);
        let block = x.column / ACTIVATION_BLOCK;
        Self {
            codes: rows.codes.as_ptr().wrapping_add(x.column),
            scales: rows.scales.as_ptr().wrapping_add(block),
            sums: rows.sums.as_ptr().wrapping_add(block),
            block_sums: rows.block_sums.as_ptr().wrapping_add(block),
            half_sums: rows.half_sums.as_ptr().wrapping_add(x.column / SUM_BLOCK),
            pair_offsets: rows.pair_offsets.as_ptr().wrapping_add(block),
            row_len: x.values.k(),
        }
    }

    /// The rows from `row` on.
    #[inline]
    pub(crate) fn at_row(self, row: usize) -> Self {
        let blocks = row * self.row_blocks();
        Self {
            codes: self.codes.wrapping_add(row * self.row_len),
            scales: self.scales.wrapping_add(blocks),
            sums: self.sums.wrapping_add(blocks),
            block_sums: self.block_sums.wrapping_add(blocks),
            half_sums: self.half_sums.wrapping_add(row * self.row_len / SUM_BLOCK),
            pair_offsets: self.pair_offsets.wrapping_add(blocks),
            row_len: self.row_len,
        }
    }

    /// Blocks from a row to the next.
    #[inline]
    pub(crate) fn row_blocks(&self) -> usize {
        self.row_len / ACTIVATION_BLOCK
    }
}

/// Whether `len` values hold `rows` rows of `width`, `stride` apart.
pub(crate) fn fits(len: usize, rows: usize, stride: usize, width: usize) -> bool {
    let end = rows.checked_sub(1).map(|last| last.checked_mul(stride).and_then(|start| start.checked_add(width)));
    end.is_none_or(|end| end.is_some_and(|end| end <= len))
}

/// Checks that there is a value of `x` for each column and one of `y` for each row.
///
/// # Panics
/// When there is not.
pub(crate) fn check_rows(rows: &StridedRows<'_>, x: &[f32], y: &[f32]) {
    assert!(x.len() == rows.columns() && y.len() == rows.rows(), "a value for each column and for each row");
}

/// Checks rows of weights to be packed: at most [`PANEL_ROWS`], `k` values each, which are whole blocks.
///
/// # Panics
/// When they are not.
pub(crate) fn check_packed(format: Format, rows: &[&[u8]], k: usize) {
    let bytes = format.row_bytes(k).expect("whole blocks of values");
    assert!(rows.len() <= PANEL_ROWS && rows.iter().all(|row| row.len() >= bytes), "rows of a panel");
}

/// Checks a product of quantized rows: `rows` are rows of the weights, every row of activations is as long as they are, and there is
/// a result for each of both.
///
/// # Panics
/// When that is not so.
pub(crate) fn check_integer_rows(weights: &MatrixView<'_>, rows: &Range<usize>, x: &[QuantizedRow<'_>], out: &[f32]) {
    let (k, blocks) = (weights.columns(), weights.columns() / ACTIVATION_BLOCK);
    assert!(weights.format().info().integer, "{} is no quantized format", weights.format());
    assert!(rows.start <= rows.end && rows.end <= weights.rows(), "rows of a matrix");
    assert!(rows.len().checked_mul(x.len()) == Some(out.len()), "a result for each pair of rows");
    for x in x {
        let sums = x.sums.len() == blocks && x.block_sums.len() == blocks && x.pair_offsets.len() == blocks;
        assert!(x.codes.len() == k && x.scales.len() == blocks && sums, "activations of another length");
        assert!(x.half_sums.len() * SUM_BLOCK == k, "activations of another length");
    }
}

/// Checks a product of floating-point rows with a panel of lines that hold `together` neighbours of the depth each.
///
/// # Panics
/// When panel, rows or results are smaller than they say.
pub(crate) fn check_float_tile(panel: &[f32], together: usize, x: &FloatRows<'_>, out: &TileOut<'_>) {
    assert!(x.k.is_multiple_of(together), "a depth of whole lines");
    assert!(fits(panel.len(), x.k / together, PANEL_ROWS, PANEL_ROWS), "a panel lacks lines");
    assert!(fits(x.values.len(), x.rows, x.stride, x.k), "rows lack values");
    assert!(fits(out.values.len(), x.rows, out.stride, PANEL_ROWS), "the results do not fit");
}

/// Checks a product of quantized rows with a panel.
///
/// # Panics
/// When panel, activations or results are smaller than they say.
pub(crate) fn check_integer_tile(panel: &IntegerPanel, x: &IntegerRows<'_>, out: &TileOut<'_>) {
    let scales = panel.k / panel.shape.group.max(1) * PANEL_ROWS;
    assert!(panel.k.is_multiple_of(ACTIVATION_BLOCK), "a panel ends within a block");
    assert!(panel.codes.len() * 64 >= panel.k * PANEL_ROWS * panel.arrangement.code_bytes(), "a panel lacks codes");
    assert!(panel.scales.len() >= scales, "a panel lacks scales");
    assert!(panel.biases.len() >= if panel.shape.biased { scales } else { 0 }, "a panel lacks biases");
    let (k, rows) = (x.values.k(), x.values.rows());
    assert!(x.column.is_multiple_of(ACTIVATION_BLOCK), "a product starts between blocks");
    assert!(x.column.checked_add(panel.k).is_some_and(|end| end <= k), "a panel is deeper than the activations");
    assert!(x.first.checked_add(x.rows).is_some_and(|end| end <= rows), "more rows asked for than there are");
    assert!(fits(out.values.len(), x.rows, out.stride, PANEL_ROWS), "the results do not fit");
}
