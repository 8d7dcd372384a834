//! The tables that the tiers fill. A tier writes down what it does better and takes the rest from the tier below it:
//! `Table { dot_integer, ..avx2::TABLE }`.
//!
//! Every function may be called only
//! - on a CPU that has the tier's features, as [`isa`](crate::isa) detects them, and
//! - with arguments that the front door ([`Kernels`](super::Kernels)) has checked: what the functions `check_…` of
//!   [`operands`](super::operands) assert, and slices as long as the front door says.

use std::ops::Range;

use super::matrix_unit::{OperandView, Pieces, Tile};
use super::operands::{Arrangement, FloatPanel, FloatPanels, FloatRows, IntegerPanel, IntegerRows, Shape, TileOut};
use crate::activation::{QuantizedRow, QuantizedRowMut};
use crate::vector::Affine;
use crate::{BlockToRound, EncodeError, Format, MatrixView, StridedRows};

/// The kernels of a tier.
#[derive(Clone, Copy)]
pub(crate) struct Table {
    pub(crate) codec: Codec,
    pub(crate) rows: RowProducts,
    pub(crate) float: FloatProducts,
    pub(crate) integer: IntegerProducts,
    pub(crate) vector: Vector,
    /// The CPU's matrix unit.
    pub(crate) unit: Option<UnitTable>,
}

/// Between `f32` and blocks; the same results on every tier.
#[derive(Clone, Copy)]
#[expect(clippy::type_complexity, reason = "functions, as they are")]
pub(crate) struct Codec {
    pub(crate) encode_row: unsafe fn(Format, &[f32], &mut [u8]) -> Result<(), EncodeError>,
    pub(crate) round_block: unsafe fn(Format, &BlockToRound<'_>, &mut [u8], &mut [f32]),
    pub(crate) decode_row: unsafe fn(Format, &[u8], &mut [f32]),
    pub(crate) squared_error: unsafe fn(Format, &[u8], &[f32]) -> (f64, f64),
    pub(crate) quantize: unsafe fn(&[f32], QuantizedRowMut<'_>),
    pub(crate) to_half: unsafe fn(&[f32], &mut [u16]),
}

/// Rows as they lie.
#[derive(Clone, Copy)]
pub(crate) struct RowProducts {
    pub(crate) dot_float: unsafe fn(StridedRows<'_>, &[f32], &mut [f32]),
    pub(crate) dot_integer: unsafe fn(MatrixView<'_>, Range<usize>, &[QuantizedRow<'_>], &mut [f32]),
    pub(crate) add_scaled: unsafe fn(&[f32], StridedRows<'_>, &mut [f32]),
}

/// Panels of floating-point numbers.
#[derive(Clone, Copy)]
pub(crate) struct FloatProducts {
    pub(crate) pack: unsafe fn(Format, &[&[u8]], usize, &mut FloatPanel),
    /// A panel of lines of [`PANEL_ROWS`](super::PANEL_ROWS) columns.
    pub(crate) tile: unsafe fn(&[f32], FloatRows<'_>, TileOut<'_>),
    /// Two panels at once, where that is faster than one after the other.
    pub(crate) two_tiles: Option<unsafe fn(FloatPanels<'_>, FloatRows<'_>, TileOut<'_>)>,
    /// A panel of lines that hold two neighbours of the depth.
    pub(crate) pair_tile: unsafe fn(&[f32], FloatRows<'_>, TileOut<'_>),
}

/// Panels of quantized numbers. Packing and products belong together: the products read what `pack` writes.
#[derive(Clone, Copy)]
pub(crate) struct IntegerProducts {
    pub(crate) pack: unsafe fn(Format, &[&[u8]], usize, &mut IntegerPanel),
    /// How the products read the codes of panels of a shape; they are not given panels of [`Arrangement::Portable`].
    pub(crate) arrangement: fn(Shape) -> Arrangement,
    pub(crate) tile: unsafe fn(&IntegerPanel, IntegerRows<'_>, TileOut<'_>),
    /// Two panels of one shape and depth at once, where that is faster than one after the other.
    pub(crate) two_tiles: Option<unsafe fn([&IntegerPanel; 2], IntegerRows<'_>, TileOut<'_>)>,
}

/// Functions on `f32` rows.
#[derive(Clone, Copy)]
pub(crate) struct Vector {
    pub(crate) read: unsafe fn(&[u8]) -> u64,
    pub(crate) gelu: unsafe fn(&mut [f32]),
    pub(crate) gelu_multiply: unsafe fn(&mut [f32], &[f32]),
    pub(crate) softcap: unsafe fn(&mut [f32], f32),
    pub(crate) softmax_tile: unsafe fn(&mut [f32], f32) -> (f32, f32),
    pub(crate) add: unsafe fn(&mut [f32], &[f32]),
    pub(crate) add_multiple: unsafe fn(f32, &[f32], &mut [f32]),
    pub(crate) scale: unsafe fn(&mut [f32], f32),
    pub(crate) rms_norm: unsafe fn(&[f32], &[f32], f32, &mut [f32]),
    pub(crate) add_rms_norm: unsafe fn(&[f32], &[f32], f32, &mut [f32]),
    pub(crate) layer_norm: unsafe fn(&[f32], Affine<'_>, f32, &mut [f32]),
    pub(crate) rotate: unsafe fn(&mut [f32], &[(f32, f32)]),
}

/// A unit of the CPU that multiplies tiles.
#[derive(Clone, Copy)]
pub(crate) struct UnitTable {
    pub(crate) pack_left: unsafe fn(FloatRows<'_>, Pieces, &mut [Tile]),
    pub(crate) pack_weights: unsafe fn(Format, &[&[u8]], usize, &mut [Tile]),
    pub(crate) pack_right: unsafe fn(FloatRows<'_>, Pieces, &mut [Tile]),
    pub(crate) pack_right_columns: unsafe fn(FloatRows<'_>, Pieces, &mut [Tile]),
    pub(crate) multiply: unsafe fn(OperandView<'_>, OperandView<'_>, TileOut<'_>),
    pub(crate) transpose: unsafe fn(FloatRows<'_>, TileOut<'_>),
}
