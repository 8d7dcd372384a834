//! x86-64 with AVX-512 (F, BW, VL) and VNNI: dot products of bytes in 512 bits.

mod panels;
mod rows;
mod rows32;
mod six_rows;
mod tiles;

use super::avx512bw;
use crate::kernels::operands::Arrangement;
use crate::kernels::table::{IntegerProducts, RowProducts, Table};

/// The kernels.
pub(crate) const TABLE: Table = Table {
    rows: RowProducts { dot_integer: rows::dot_integer, ..avx512bw::TABLE.rows },
    integer: IntegerProducts {
        pack: panels::pack_integer,
        arrangement: |_| Arrangement::StoredQuads,
        tile: tiles::integer_tile,
        two_tiles: Some(tiles::two_integer_tiles),
    },
    ..avx512bw::TABLE
};
