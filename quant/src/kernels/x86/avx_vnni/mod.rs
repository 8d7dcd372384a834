//! x86-64 with AVX-VNNI: AVX2 and the dot products of bytes.

mod rows;
mod tiles;

use super::avx2;
use crate::kernels::operands::Arrangement;
use crate::kernels::table::{IntegerProducts, RowProducts, Table};

/// The kernels.
pub(crate) const TABLE: Table = Table {
    rows: RowProducts { dot_integer: rows::dot_integer, ..avx2::TABLE.rows },
    integer: IntegerProducts {
        pack: tiles::pack_integer,
        arrangement: |_| Arrangement::StoredQuads,
        tile: tiles::integer_tile,
        two_tiles: None,
    },
    ..avx2::TABLE
};
