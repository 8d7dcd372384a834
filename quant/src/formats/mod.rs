//! One file per family of formats: layout, scalar decode and encode. These are the reference that every kernel is
//! tested against.

mod block;
mod fixed;
pub(crate) mod float;
pub(crate) mod iq4_nl;
pub(crate) mod k_quants;
pub(crate) mod legacy;
mod parts;
mod rule;
mod search;
mod table;
mod weighted;

pub(crate) use block::Block;
pub use block::{MAX_BLOCK, MAX_GROUPS};
pub(crate) use fixed::{PairProducts, PortablePairs};
#[cfg(target_arch = "x86_64")]
pub(crate) use fixed::{Pairs, Sums};
pub(crate) use float::Float;
pub use parts::{BlockParts, block_codes, block_parts, block_scales, codes, set_codes, set_scales};
pub use rule::Codes;
pub use table::{FORMATS, Format, FormatInfo, ggml_type_name};
pub(crate) use table::{plain_blocks, with_block, with_float};
pub use weighted::{BlockToRound, round_block};

/// Why a row could not be encoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EncodeError {
    /// The row is not a whole number of blocks, or the output has another size.
    Length(Format, usize),
    /// A value is infinite or not a number; its index in the row.
    NotFinite(usize),
}

impl std::fmt::Display for EncodeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Length(format, len) => write!(f, "a row of {len} values is no whole number of {format} blocks"),
            Self::NotFinite(index) => write!(f, "value {index} of the row is infinite or not a number"),
        }
    }
}

impl std::error::Error for EncodeError {}

#[inline(always)]
fn decode_blocks<B: Block>(bytes: &[u8], out: &mut [f32]) {
    let (mut scales, mut biases) = ([0.0; MAX_GROUPS], [0.0; MAX_GROUPS]);
    let mut codes = [0; MAX_BLOCK];
    for (block, out) in bytes.chunks_exact(B::BYTES).zip(out.chunks_exact_mut(B::LEN)) {
        B::scales(block, &mut scales, &mut biases);
        B::codes(block, &mut codes);
        for (i, (out, code)) in out.iter_mut().zip(&codes).enumerate() {
            let value = scales[i / B::GROUP] * f32::from(*code);
            *out = if B::BIASED { value + biases[i / B::GROUP] } else { value };
        }
    }
}

/// Decodes one row of `out.len()` values, bit for bit as the `gguf` Python package does.
///
/// # Panics
/// When `bytes` is not exactly the row's size ([`Format::row_bytes`]).
#[inline(always)]
pub fn decode_row(format: Format, bytes: &[u8], out: &mut [f32]) {
    assert_eq!(Some(bytes.len()), format.row_bytes(out.len()), "row size of {format}");
    with_block!(format, B => decode_blocks::<B>(bytes, out), else
        with_float!(format, E => float::decode::<E>(bytes, out), else unreachable!()));
}

/// Sum of the squared differences between `values` and what `bytes` decode to, and sum of the values' squares.
///
/// # Panics
/// As [`decode_row`].
#[inline(always)]
pub fn squared_error(format: Format, bytes: &[u8], values: &[f32]) -> (f64, f64) {
    assert_eq!(Some(bytes.len()), format.row_bytes(values.len()), "row size of {format}");
    let mut decoded = [0.0; MAX_BLOCK];
    // A compiler that sees single lanes used, or all of them one by one, does not make registers of them.
    let (mut errors, mut squares) = ([0.0f32; 16], [0.0f32; 16]);
    let (mut rest_error, mut rest_square) = (0.0, 0.0);
    let part_bytes = MAX_BLOCK / format.info().block_len * format.info().block_bytes;
    for (values, bytes) in values.chunks(MAX_BLOCK).zip(bytes.chunks(part_bytes)) {
        let decoded = &mut decoded[..values.len()];
        decode_row(format, bytes, decoded);
        let ((values, rest), (decoded, decoded_rest)) = (values.as_chunks::<16>(), decoded.as_chunks::<16>());
        for (values, decoded) in values.iter().zip(decoded) {
            let mut error = *decoded;
            error.iter_mut().zip(values).for_each(|(decoded, value)| *decoded -= value);
            add_squares(&error, &mut errors);
            add_squares(values, &mut squares);
        }
        for (value, decoded) in rest.iter().zip(decoded_rest) {
            rest_error += (decoded - value) * (decoded - value);
            rest_square += value * value;
        }
    }
    let sum = |lanes, rest: f32| {
        let lanes: [f32; 16] = std::hint::black_box(lanes);
        lanes.iter().chain([&rest]).map(|value| f64::from(*value)).sum()
    };
    (sum(errors, rest_error), sum(squares, rest_square))
}

/// Adds squares in sixteen lanes, which are registers.
#[inline(always)]
fn add_squares(values: &[f32; 16], sums: &mut [f32; 16]) {
    sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += value * value);
}

/// Encodes a row, or several one behind the other, into `out`. Scales are searched for the smallest squared error.
///
/// # Errors
/// [`EncodeError`]: a length that is no whole number of blocks, or a value that is not finite.
pub fn encode_row(format: Format, values: &[f32], out: &mut [u8]) -> Result<(), EncodeError> {
    encode_row_with(PortablePairs, format, values, out)
}

/// [`encode_row`] with an instruction set's [`PairProducts`].
#[inline(always)]
pub(crate) fn encode_row_with(
    pairs: impl PairProducts,
    format: Format,
    values: &[f32],
    out: &mut [u8],
) -> Result<(), EncodeError> {
    if format.row_bytes(values.len()) != Some(out.len()) {
        return Err(EncodeError::Length(format, values.len()));
    }
    // All of a chunk are tested before any is looked at, so that the loop vectorizes.
    for (chunk, values) in values.chunks(64).enumerate() {
        if values.iter().fold(false, |found, value| found | !value.is_finite()) {
            let index = values.iter().position(|value| !value.is_finite()).unwrap_or(0);
            return Err(EncodeError::NotFinite(chunk * 64 + index));
        }
    }
    with_block!(format, B => {
        if B::SEARCHES {
            B::encode(pairs, values, out);
        } else {
            encode_evenly(format, values, out);
        }
    }, else with_float!(format, E => float::encode::<E>(values, out), else unreachable!()));
    Ok(())
}

/// As [`encode_row`], with scales for the smallest `Σ weight · (value − decoded)²`: `weights` are those of the row's values, not negative. Every
/// block format can be written so.
///
/// # Errors
/// As [`encode_row`]; weights that are not finite or below zero count as values that are not finite.
///
/// # Panics
/// When there are not as many weights as values.
pub fn encode_row_weighted(format: Format, values: &[f32], weights: &[f32], out: &mut [u8]) -> Result<(), EncodeError> {
    encode_row_weighted_with(format, values, weights, out, |part, block, decoded| {
        round_portably(format, part, block, decoded);
    })
}

/// [`encode_row_weighted`] with an instruction set's [`round_block`].
pub(crate) fn encode_row_weighted_with(
    format: Format,
    values: &[f32],
    weights: &[f32],
    out: &mut [u8],
    round: impl Fn(&BlockToRound<'_>, &mut [u8], &mut [f32]),
) -> Result<(), EncodeError> {
    assert_eq!(values.len(), weights.len(), "a weight for each value");
    if format.row_bytes(values.len()) != Some(out.len()) {
        return Err(EncodeError::Length(format, values.len()));
    }
    let sound = |(value, weight): (&f32, &f32)| value.is_finite() && weight.is_finite() && *weight >= 0.0;
    if let Some(index) = values.iter().zip(weights).position(|pair| !sound(pair)) {
        return Err(EncodeError::NotFinite(index));
    }
    if !format.info().integer {
        return encode_row(format, values, out);
    }
    round_blocks(format, values, weights.chunks_exact(format.info().block_len), out, round);
    Ok(())
}

/// Encodes finite values by [`round_block`], all errors counting the same: plain Rust on every instruction set, since it is large.
#[inline(never)]
fn encode_evenly(format: Format, values: &[f32], out: &mut [u8]) {
    let weights = std::iter::repeat(&[1.0; MAX_BLOCK][..format.info().block_len]);
    round_blocks(format, values, weights, out, |part, block, decoded| {
        round_portably(format, part, block, decoded);
    });
}

/// Rounds whole blocks without coupling; `weights` has those of each block's values.
fn round_blocks<'a>(
    format: Format,
    values: &[f32],
    weights: impl Iterator<Item = &'a [f32]>,
    out: &mut [u8],
    round: impl Fn(&BlockToRound<'_>, &mut [u8], &mut [f32]),
) {
    let info = format.info();
    let blocks = values.chunks_exact(info.block_len).zip(out.chunks_exact_mut(info.block_bytes));
    for ((values, out), weights) in blocks.zip(weights) {
        let part = BlockToRound { values, wanted: values, weights, coupling: &[], stride: 0 };
        round(&part, out, &mut [0.0; MAX_BLOCK][..info.block_len]);
    }
}

/// [`round_block`] once, in plain Rust.
#[inline(never)]
pub(crate) fn round_portably(format: Format, part: &BlockToRound<'_>, block: &mut [u8], decoded: &mut [f32]) {
    round_block(format, part, block, decoded);
}
