//! ggml block formats and the arithmetic on them: decoding, encoding, row dots and panel products, with one
//! implementation per instruction set. No threads, no files, no knowledge of models.
//!
//! - [`Format`] and [`FORMATS`]: names, identifiers, sizes.
//! - [`decode_row`], [`encode_row`]: between `f32` and blocks.
//! - [`Kernels`]: the arithmetic; [`Kernels::select`] picks the best instruction set that the CPU has.
//! - [`vector`]: normalization, softmax, GELU and rotary embedding on `f32`.

// What only kernels with an instruction set of their own use.
#![cfg_attr(not(any(target_arch = "x86_64", target_arch = "aarch64")), allow(dead_code, unused_imports, unused_macros))]

pub mod activation;
pub mod formats;
pub mod isa;
pub mod kernels;
pub mod matrix;
pub mod vector;

pub use activation::{QuantizedRow, QuantizedRows};
pub use formats::{
    BlockParts, BlockToRound, Codes, EncodeError, FORMATS, Format, FormatInfo, MAX_BLOCK, MAX_GROUPS, block_codes,
    block_parts, block_scales, codes, decode_row, encode_row, encode_row_weighted, ggml_type_name, round_block,
    set_codes, set_scales, squared_error,
};
pub use kernels::matrix_unit::{self, Operand, Pieces};
pub use kernels::prefetch::{prefetch, prefetch_for_writing};
pub use kernels::{FloatPanel, IntegerPanel, Kernels, MatrixUnit, PANEL_ROWS};
pub use matrix::{MatrixView, StridedRows};
pub use vector::Affine;
