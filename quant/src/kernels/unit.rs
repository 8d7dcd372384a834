//! The front door of matrix units.

use super::matrix_unit::{OperandView, Pieces, TILE_DEPTH, TILE_ROWS, Tile};
use super::operands::{FloatRows, TileOut, check_packed, fits};
use super::table::UnitTable;
use crate::Format;

/// A unit of this CPU that multiplies tiles. Packing takes up to [`TILE_ROWS`] rows for one strip and fills the strip, zeros
/// included.
#[derive(Clone, Copy)]
pub struct MatrixUnit(pub(super) &'static UnitTable);

impl std::fmt::Debug for MatrixUnit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MatrixUnit")
    }
}

/// Checks that a strip has room for `depth` values of each row.
fn check_strip(strip: &[Tile], pieces: Pieces, depth: usize) {
    let tiles = pieces.count().checked_mul(depth.div_ceil(TILE_DEPTH));
    assert!(tiles.is_some_and(|tiles| tiles <= strip.len()), "a strip lacks tiles");
}

impl MatrixUnit {
    /// Rows for the left side.
    ///
    /// # Panics
    /// When there are more than [`TILE_ROWS`] rows, they lack values, or `strip` lacks tiles for them.
    pub fn pack_left(self, rows: FloatRows<'_>, pieces: Pieces, strip: &mut [Tile]) {
        assert!(rows.rows <= TILE_ROWS && fits(rows.values.len(), rows.rows, rows.stride, rows.k), "rows of a strip");
        check_strip(strip, pieces, rows.k);
        // SAFETY: a unit exists only where its tier's features were detected; arguments are checked above.
        unsafe { (self.0.pack_left)(rows, pieces, strip) }
    }

    /// Rows of weights, `k` values each, for the left side, in [`Pieces::of_weights`].
    ///
    /// # Panics
    /// When there are more than [`TILE_ROWS`] rows, they lack values, or `strip` lacks tiles for them.
    pub fn pack_weights(self, format: Format, rows: &[&[u8]], k: usize, strip: &mut [Tile]) {
        check_packed(format, rows, k);
        check_strip(strip, Pieces::of_weights(format), k);
        // SAFETY: a unit exists only where its tier's features were detected; arguments are checked above.
        unsafe { (self.0.pack_weights)(format, rows, k, strip) }
    }

    /// Columns for the right side, given as rows.
    ///
    /// # Panics
    /// When there are more than [`TILE_ROWS`] columns, they lack values, or `strip` lacks tiles for them.
    pub fn pack_right(self, columns: FloatRows<'_>, pieces: Pieces, strip: &mut [Tile]) {
        let FloatRows { values, stride, rows, k } = columns;
        assert!(rows <= TILE_ROWS && fits(values.len(), rows, stride, k), "columns of a strip");
        check_strip(strip, pieces, k);
        // SAFETY: a unit exists only where its tier's features were detected; arguments are checked above.
        unsafe { (self.0.pack_right)(columns, pieces, strip) }
    }

    /// Columns for the right side, given as a matrix of `depth` rows and up to [`TILE_ROWS`] columns.
    ///
    /// # Panics
    /// When there are more than [`TILE_ROWS`] columns, rows lack values, or `strip` lacks tiles for them.
    pub fn pack_right_columns(self, matrix: FloatRows<'_>, pieces: Pieces, strip: &mut [Tile]) {
        let FloatRows { values, stride, rows, k } = matrix;
        assert!(k <= TILE_ROWS && fits(values.len(), rows, stride, k), "columns of a strip");
        check_strip(strip, pieces, rows);
        // SAFETY: a unit exists only where its tier's features were detected; arguments are checked above.
        unsafe { (self.0.pack_right_columns)(matrix, pieces, strip) }
    }

    /// `out[i][j] (+)= Σ_k left[i][k] · right[j][k]`, for whole strips on both sides.
    ///
    /// # Panics
    /// When the sides differ in depth, or the results do not fit.
    pub fn multiply(self, left: OperandView<'_>, right: OperandView<'_>, out: TileOut<'_>) {
        let lines =
            |side: OperandView<'_>| side.height.checked_mul(TILE_ROWS).expect("as many lines as memory has room for");
        assert!(left.steps == right.steps, "two sides of different depth");
        assert!(fits(out.values.len(), lines(left), out.stride, lines(right)), "the results do not fit");
        // SAFETY: a unit exists only where its tier's features were detected; arguments are checked above.
        unsafe { (self.0.multiply)(left, right, out) }
    }

    /// `out[j][i] = x[i][j]`; rows and columns are multiples of [`TILE_ROWS`].
    ///
    /// # Panics
    /// When they are not, values lack, results do not fit, or `out` accumulates.
    pub fn transpose(self, x: FloatRows<'_>, out: TileOut<'_>) {
        assert!(x.rows.is_multiple_of(TILE_ROWS) && x.k.is_multiple_of(TILE_ROWS) && !out.accumulate, "whole tiles");
        assert!(fits(x.values.len(), x.rows, x.stride, x.k), "rows lack values");
        assert!(fits(out.values.len(), x.k, out.stride, x.rows), "the results do not fit");
        // SAFETY: a unit exists only where its tier's features were detected; arguments are checked above.
        unsafe { (self.0.transpose)(x, out) }
    }
}
