//! x86-64 with AVX-512 (F, BW, VL), without dot products of bytes.

mod float_tiles;
pub(super) mod floats;
mod tiles;
mod vectors;

use super::avx2;
use super::pairs::Pairs512;
use crate::formats;
use crate::kernels::table::{Codec, FloatProducts, IntegerProducts, RowProducts, Table, Vector};
use crate::{EncodeError, Format};

/// The kernels.
pub(crate) const TABLE: Table = Table {
    codec: Codec { encode_row, squared_error, quantize: vectors::quantize, ..avx2::TABLE.codec },
    rows: RowProducts { dot_float: floats::dot_float, add_scaled: floats::add_scaled, ..avx2::TABLE.rows },
    float: FloatProducts {
        tile: float_tiles::float_tile::<1>,
        two_tiles: Some(float_tiles::two_float_tiles),
        pair_tile: float_tiles::float_tile::<2>,
        ..avx2::TABLE.float
    },
    integer: IntegerProducts { tile: tiles::integer_tile, ..avx2::TABLE.integer },
    vector: Vector {
        read: vectors::read,
        gelu: vectors::gelu,
        gelu_multiply: vectors::gelu_multiply,
        softcap: vectors::softcap,
        softmax_tile: vectors::softmax_tile,
        add,
        add_multiple,
        scale,
        rms_norm,
        add_rms_norm,
        layer_norm,
        rotate,
    },
    unit: None,
};

/// As [`encode_row`](crate::encode_row).
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma,f16c")]
fn encode_row(format: Format, values: &[f32], out: &mut [u8]) -> Result<(), EncodeError> {
    formats::encode_row_with(Pairs512::new(), format, values, out)
}

instantiate! {
    "avx512f,avx512bw,avx512vl,avx2,fma,f16c";
    squared_error(format: Format, bytes: &[u8], values: &[f32]) -> (f64, f64) = formats::squared_error;
}

instantiate_vectors!("avx512f,avx512bw,avx512vl,avx2,fma,f16c");
