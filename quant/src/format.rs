//! The table of block formats: the one place that knows names, identifiers and sizes.

/// A storage format of weights, laid out byte for byte as ggml lays it out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Format {
    /// IEEE single precision.
    F32,
    /// IEEE half precision.
    F16,
    /// The upper half of single precision.
    BF16,
    /// 4-bit codes around 8, one scale for 32.
    Q4_0,
    /// 4-bit codes, scale and minimum for 32.
    Q4_1,
    /// 5-bit codes around 16, one scale for 32.
    Q5_0,
    /// 5-bit codes, scale and minimum for 32.
    Q5_1,
    /// 8-bit codes, one scale for 32.
    Q8_0,
    /// 4-bit codes, 6-bit scales and minima for 32, in super-blocks of 256.
    Q4K,
    /// 5-bit codes, 6-bit scales and minima for 32, in super-blocks of 256.
    Q5K,
    /// 6-bit codes around 32, 8-bit scales for 16, in super-blocks of 256.
    Q6K,
}

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
    /// Whether this crate can encode to the format.
    pub encodes: bool,
}

const fn row(
    format: Format,
    name: &'static str,
    ids: (u32, u32),
    block: (usize, usize),
    integer: bool,
    encodes: bool,
) -> FormatInfo {
    FormatInfo {
        format,
        name,
        ggml_id: ids.0,
        file_type: ids.1,
        block_len: block.0,
        block_bytes: block.1,
        integer,
        encodes,
    }
}

/// Every format, in the order of [`Format`]'s variants.
pub const FORMATS: [FormatInfo; 11] = [
    row(Format::F32, "f32", (0, 0), (1, 4), false, true),
    row(Format::F16, "f16", (1, 1), (1, 2), false, true),
    row(Format::BF16, "bf16", (30, 32), (1, 2), false, true),
    row(Format::Q4_0, "q4_0", (2, 2), (32, 18), true, true),
    row(Format::Q4_1, "q4_1", (3, 3), (32, 20), true, false),
    row(Format::Q5_0, "q5_0", (6, 8), (32, 22), true, false),
    row(Format::Q5_1, "q5_1", (7, 9), (32, 24), true, false),
    row(Format::Q8_0, "q8_0", (8, 7), (32, 34), true, true),
    row(Format::Q4K, "q4_k", (12, 15), (256, 144), true, true),
    row(Format::Q5K, "q5_k", (13, 17), (256, 176), true, true),
    row(Format::Q6K, "q6_k", (14, 18), (256, 210), true, true),
];

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
    const OTHERS: [(u32, &str); 24] = [
        (9, "q8_1"),
        (10, "q2_k"),
        (11, "q3_k"),
        (15, "q8_k"),
        (16, "iq2_xxs"),
        (17, "iq2_xs"),
        (18, "iq3_xxs"),
        (19, "iq1_s"),
        (20, "iq4_nl"),
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
