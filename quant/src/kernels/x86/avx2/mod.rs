//! x86-64 with AVX2, FMA and F16C.

mod floats;
mod rows;
mod tiles;

use std::arch::x86_64::*;

use super::pairs::Pairs256;
use crate::formats;
use crate::kernels::operands::FloatPanel;
use crate::kernels::portable;
use crate::kernels::table::{Codec, FloatProducts, IntegerProducts, RowProducts, Table, Vector};
use crate::{BlockToRound, EncodeError, Format, vector};

/// The kernels.
pub(crate) const TABLE: Table = Table {
    codec: Codec { encode_row, round_block, decode_row, squared_error, quantize, to_half },
    rows: RowProducts { dot_float: floats::dot_float, dot_integer: rows::dot_integer, add_scaled: floats::add_scaled },
    float: FloatProducts {
        pack: pack_float,
        tile: floats::float_tile::<1>,
        two_tiles: None,
        pair_tile: floats::float_tile::<2>,
    },
    integer: IntegerProducts {
        pack: tiles::pack_integer,
        arrangement: tiles::arrangement,
        tile: tiles::integer_tile,
        two_tiles: None,
    },
    vector: Vector {
        read,
        gelu,
        gelu_multiply,
        softcap,
        softmax_tile,
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
#[target_feature(enable = "avx2,fma,f16c")]
fn encode_row(format: Format, values: &[f32], out: &mut [u8]) -> Result<(), EncodeError> {
    formats::encode_row_with(Pairs256::new(), format, values, out)
}

instantiate! {
    "avx2,fma,f16c";
    round_block(format: Format, part: &BlockToRound<'_>, block: &mut [u8], decoded: &mut [f32]) = formats::round_block;
    decode_row(format: Format, bytes: &[u8], out: &mut [f32]) = formats::decode_row;
    squared_error(format: Format, bytes: &[u8], values: &[f32]) -> (f64, f64) = formats::squared_error;
    pack_float(format: Format, rows: &[&[u8]], k: usize, panel: &mut FloatPanel) = portable::pack_float;
    softcap(x: &mut [f32], cap: f32) = vector::softcap;
    softmax_tile(x: &mut [f32], largest: f32) -> (f32, f32) = vector::softmax_tile;
}

instantiate_narrow_vectors!("avx2,fma,f16c");
instantiate_vectors!("avx2,fma,f16c");

/// Half-precision bits, with the instruction for it.
#[target_feature(enable = "avx2,fma,f16c")]
fn to_half(x: &[f32], out: &mut [u16]) {
    let (chunks, rest) = x.as_chunks::<8>();
    let (halves, rest_out) = out.as_chunks_mut::<8>();
    for (x, out) in chunks.iter().zip(halves) {
        // SAFETY: eight values are read and eight half-precision ones written.
        unsafe {
            let bits = _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(_mm256_loadu_ps(x.as_ptr()));
            _mm_storeu_si128(out.as_mut_ptr().cast(), bits);
        }
    }
    vector::to_half(rest, rest_out);
}
