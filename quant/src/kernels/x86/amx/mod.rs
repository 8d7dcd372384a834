//! x86-64 with AMX: a matrix unit that multiplies tiles of 16 × 32 bf16 numbers, eight tile registers of its own.

mod packing;
pub(crate) mod permission;
mod products;

use super::avx512;
use crate::kernels::table::{Table, UnitTable};

/// The kernels.
pub(crate) const TABLE: Table = Table {
    unit: Some(UnitTable {
        pack_left: packing::pack_left,
        pack_weights: packing::pack_weights,
        pack_right: packing::pack_right,
        pack_right_columns: packing::pack_right_columns,
        multiply: products::multiply,
        transpose: packing::transpose,
    }),
    ..avx512::TABLE
};
