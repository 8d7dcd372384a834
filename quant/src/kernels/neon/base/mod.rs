//! 64-bit ARM with NEON, which every processor has (Cortex-A53, A72: Raspberry Pi 3 and 4).

mod rows;
mod tiles;

use super::{floats, panels};
use crate::kernels::operands::Arrangement;
use crate::kernels::portable;
use crate::kernels::table::{Codec, FloatProducts, IntegerProducts, RowProducts, Table};

/// The kernels.
pub(crate) const TABLE: Table = Table {
    codec: Codec { to_half: floats::to_half, ..portable::TABLE.codec },
    rows: RowProducts { dot_float: floats::dot_float, dot_integer: rows::dot_integer, add_scaled: floats::add_scaled },
    float: FloatProducts { tile: floats::float_tile::<1>, pair_tile: floats::float_tile::<2>, ..portable::TABLE.float },
    integer: IntegerProducts {
        pack: panels::pack_integer::<4>,
        arrangement: |_| Arrangement::SignedQuads,
        tile: tiles::integer_tile,
        two_tiles: None,
    },
    ..portable::TABLE
};
