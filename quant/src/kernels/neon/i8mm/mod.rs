//! 64-bit ARM with dot products and products of small matrices of bytes (Neoverse V1 and newer).

mod tiles;

use super::{dotprod, panels};
use crate::kernels::operands::Arrangement;
use crate::kernels::table::{IntegerProducts, Table};

/// The kernels.
pub(crate) const TABLE: Table = Table {
    integer: IntegerProducts {
        pack: panels::pack_integer::<8>,
        arrangement: |_| Arrangement::SignedOctets,
        tile: tiles::integer_tile,
        two_tiles: None,
    },
    ..dotprod::TABLE
};
