//! 64-bit ARM with four-way dot products of bytes (Cortex-A76, A78AE: Raspberry Pi 5, Jetson Orin).

mod rows;
mod tiles;

use super::base;
use crate::kernels::table::{IntegerProducts, RowProducts, Table};

/// The kernels.
pub(crate) const TABLE: Table = Table {
    rows: RowProducts { dot_integer: rows::dot_integer, ..base::TABLE.rows },
    integer: IntegerProducts { tile: tiles::integer_tile, ..base::TABLE.integer },
    ..base::TABLE
};
