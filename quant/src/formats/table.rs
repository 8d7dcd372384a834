//! The table of block formats: the one place that knows names and identifiers. A format is a file that implements
//! [`Block`](super::Block) or [`Float`](super::Float), and a row here.

use super::block::Block;
use super::float::Float;

/// One row of the format table.
#[derive(Clone, Copy, Debug)]
pub struct FormatInfo {
    /// The format this row describes.
    pub format: Format,
    /// Lower-case name as command lines spell it.
    pub name: &'static str,
    /// ggml's tensor type number, as GGUF files store it.
    pub ggml_id: u32,
    /// llama.cpp's `general.file_type` for a file mostly of this format.
    pub file_type: u32,
    /// Values in one block.
    pub block_len: usize,
    /// Bytes in one block.
    pub block_bytes: usize,
    /// Whether products take activations quantized to 8 bits (else `f32`).
    pub integer: bool,
}

/// Defines [`Format`], [`FORMATS`] and the macros that go from a format to its type, from the rows below. `$d` is a dollar sign, for
/// the macros that this one defines.
macro_rules! formats {
    ($d:tt
        floats { $($(#[$float_doc:meta])* $float:ident = $float_name:literal, ggml $float_id:literal, file $float_file:literal, $float_family:ident::$element:ident;)* }
        blocks { $($(#[$block_doc:meta])* $block:ident = $block_name:literal, ggml $block_id:literal, file $block_file:literal, $family:ident::$type:ident;)* }
        plain { $($(#[$plain_doc:meta])* $plain:ident = $plain_name:literal, ggml $plain_id:literal, file $plain_file:literal, $plain_family:ident::$plain_type:ident;)* }
    ) => {
        /// A storage format of weights, laid out byte for byte as ggml lays it out.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum Format {
            $($(#[$float_doc])* $float,)*
            $($(#[$block_doc])* $block,)*
            $($(#[$plain_doc])* $plain,)*
        }

        /// Every format, in the order of [`Format`]'s variants.
        pub const FORMATS: &[FormatInfo] = &[
            $(FormatInfo {
                format: Format::$float, name: $float_name, ggml_id: $float_id, file_type: $float_file,
                block_len: 1, block_bytes: <$crate::formats::$float_family::$element as Float>::BYTES, integer: false,
            },)*
            $(FormatInfo::of_block::<$crate::formats::$family::$type>(Format::$block, $block_name, $block_id, $block_file),)*
            $(FormatInfo::of_block::<$crate::formats::$plain_family::$plain_type>(Format::$plain, $plain_name, $plain_id, $plain_file),)*
        ];

        /// Runs `$body` with `$block` bound to the [`Block`](crate::formats::Block) type of a quantized format.
        macro_rules! with_block {
            ($d format:expr, $d block:ident => $d body:expr, else $d other:expr) => {{
                match $d format {
                    $($d crate::Format::$block => {
                        type $d block = $d crate::formats::$family::$type;
                        $d body
                    })*
                    $($d crate::Format::$plain => {
                        type $d block = $d crate::formats::$plain_family::$plain_type;
                        $d body
                    })*
                    _ => $d other,
                }
            }};
        }

        /// Runs `$body` with `$element` bound to the [`Float`](crate::formats::Float) type of a floating-point format.
        macro_rules! with_float {
            ($d format:expr, $d element:ident => $d body:expr, else $d other:expr) => {{
                match $d format {
                    $($d crate::Format::$float => {
                        type $d element = $d crate::formats::$float_family::$element;
                        $d body
                    })*
                    _ => $d other,
                }
            }};
        }

        /// Gives a macro the types of the formats without SIMD unpacking.
        macro_rules! plain_blocks {
            ($d callback:ident) => {
                $d callback! { $($d crate::formats::$plain_family::$plain_type;)* }
            };
        }
    };
}

formats! { $
    floats {
        /// IEEE single precision.
        F32 = "f32", ggml 0, file 0, float::F32;
        /// IEEE half precision.
        F16 = "f16", ggml 1, file 1, float::F16;
        /// The upper half of single precision.
        BF16 = "bf16", ggml 30, file 32, float::Bf16;
    }
    // Quantized formats that every tier unpacks in registers: kernels/x86/blocks.rs and kernels/neon/blocks.rs.
    blocks {
        /// 4-bit codes around 8, one scale for 32.
        Q4_0 = "q4_0", ggml 2, file 2, legacy::Q4_0;
        /// 4-bit codes, scale and minimum for 32.
        Q4_1 = "q4_1", ggml 3, file 3, legacy::Q4_1;
        /// 5-bit codes around 16, one scale for 32.
        Q5_0 = "q5_0", ggml 6, file 8, legacy::Q5_0;
        /// 5-bit codes, scale and minimum for 32.
        Q5_1 = "q5_1", ggml 7, file 9, legacy::Q5_1;
        /// 8-bit codes, one scale for 32.
        Q8_0 = "q8_0", ggml 8, file 7, legacy::Q8_0;
        /// 4-bit codes, 6-bit scales and minima for 32, in super-blocks of 256.
        Q4K = "q4_k", ggml 12, file 15, k_quants::Q4K;
        /// 5-bit codes, 6-bit scales and minima for 32, in super-blocks of 256.
        Q5K = "q5_k", ggml 13, file 17, k_quants::Q5K;
        /// 6-bit codes around 32, 8-bit scales for 16, in super-blocks of 256.
        Q6K = "q6_k", ggml 14, file 18, k_quants::Q6K;
    }
    // Quantized formats that are unpacked by their plain decoder; products are those of the format's shape all the same.
    plain {
        /// 4-bit indices into a table of 16 uneven levels, one scale for 32.
        Iq4Nl = "iq4_nl", ggml 20, file 25, iq4_nl::Iq4Nl;
    }
}
pub(crate) use {plain_blocks, with_block, with_float};

impl FormatInfo {
    /// The row of a block format.
    const fn of_block<B: Block>(format: Format, name: &'static str, ggml_id: u32, file_type: u32) -> Self {
        let (block_len, block_bytes) = (B::LEN, B::BYTES);
        Self { format, name, ggml_id, file_type, block_len, block_bytes, integer: true }
    }
}

impl Format {
    /// This format's row of the table.
    pub fn info(self) -> &'static FormatInfo {
        &FORMATS[self as usize]
    }

    /// Lower-case name, such as `q4_k`.
    pub fn name(self) -> &'static str {
        self.info().name
    }

    /// The format with ggml's number `id`, if this crate computes with it.
    pub fn from_ggml_id(id: u32) -> Option<Self> {
        FORMATS.iter().find(|row| row.ggml_id == id).map(|row| row.format)
    }

    /// The format named `name` (case ignored).
    pub fn from_name(name: &str) -> Option<Self> {
        FORMATS.iter().find(|row| row.name.eq_ignore_ascii_case(name)).map(|row| row.format)
    }

    /// Bytes of a row of `len` values; `None` when `len` is no whole number of blocks or the size overflows.
    pub fn row_bytes(self, len: usize) -> Option<usize> {
        let info = self.info();
        if !len.is_multiple_of(info.block_len) {
            return None;
        }
        (len / info.block_len).checked_mul(info.block_bytes)
    }

    /// Average bits that one value takes.
    pub fn bits_per_weight(self) -> f64 {
        let info = self.info();
        info.block_bytes as f64 * 8.0 / info.block_len as f64
    }
}

impl std::fmt::Display for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// ggml's names for tensor types that this crate does not compute with, for error messages.
pub fn ggml_type_name(id: u32) -> &'static str {
    const OTHERS: &[(u32, &str)] = &[
        (9, "q8_1"),
        (10, "q2_k"),
        (11, "q3_k"),
        (15, "q8_k"),
        (16, "iq2_xxs"),
        (17, "iq2_xs"),
        (18, "iq3_xxs"),
        (19, "iq1_s"),
        (21, "iq3_s"),
        (22, "iq2_s"),
        (23, "iq4_xs"),
        (24, "i8"),
        (25, "i16"),
        (26, "i32"),
        (27, "i64"),
        (28, "f64"),
        (29, "iq1_m"),
        (34, "tq1_0"),
        (35, "tq2_0"),
        (39, "mxfp4"),
        (31, "q4_0_4_4"),
        (32, "q4_0_4_8"),
        (33, "q4_0_8_8"),
    ];
    match Format::from_ggml_id(id) {
        Some(format) => format.name(),
        None => OTHERS.iter().find(|row| row.0 == id).map_or("unknown", |row| row.1),
    }
}
