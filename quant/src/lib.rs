//! ggml block formats and the arithmetic on them: decoding, encoding, row dots and panel products, with one
//! implementation per instruction set. No threads, no files, no knowledge of models.
//!
//! - [`Format`] and [`FORMATS`]: names, identifiers, sizes.
//! - [`decode_row`], [`encode_row`]: between `f32` and blocks.
//! - [`Kernels`]: the arithmetic; [`isa::select`] picks the best implementation that the CPU has.
//! - [`vector`]: normalization, softmax, GELU and rotary embedding on `f32`.

pub mod activation;
pub mod format;
pub mod formats;
pub mod isa;
pub mod kernels;
pub mod matrix;
pub mod vector;

pub use activation::{QuantizedRow, QuantizedRows};
pub use format::{FORMATS, Format, FormatInfo, ggml_type_name};
pub use formats::{EncodeError, decode_row, encode_row, squared_error};
pub use kernels::matrix_unit::{self, MatrixUnit, Operand};
pub use kernels::prefetch::{prefetch, prefetch_for_writing};
pub use kernels::{FloatPanel, IntegerPanel, Kernels, PANEL_ROWS};
pub use matrix::{MatrixView, StridedRows};
