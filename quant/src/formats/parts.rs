//! Blocks taken apart and put together.

use super::block::{Block, MAX_BLOCK, MAX_GROUPS};
use super::rule::Codes;
use super::table::{Format, with_block};

/// What a block of a quantized format is made of: `value[i] = scales[i / group] · codes[i] + biases[i / group]`.
#[derive(Clone, Debug, PartialEq)]
pub struct BlockParts {
    /// Values that share a scale.
    pub group: usize,
    /// A scale for each group.
    pub scales: Vec<f32>,
    /// A bias for each group; zero where the format has none.
    pub biases: Vec<f32>,
    /// A code for each value.
    pub codes: Vec<i8>,
}

/// Takes a block apart; `None` for a floating-point format.
///
/// # Panics
/// When `block` is not one block.
pub fn block_parts(format: Format, block: &[u8]) -> Option<BlockParts> {
    let info = format.info();
    assert_eq!(block.len(), info.block_bytes, "a block of {format}");
    if !info.integer {
        return None;
    }
    let (mut scales, mut biases, mut codes) = ([0.0; MAX_GROUPS], [0.0; MAX_GROUPS], [0; MAX_BLOCK]);
    let group = block_scales(format, block, &mut scales, &mut biases);
    block_codes(format, block, &mut codes);
    let groups = info.block_len / group;
    Some(BlockParts {
        group,
        scales: scales[..groups].to_vec(),
        biases: biases[..groups].to_vec(),
        codes: codes[..info.block_len].to_vec(),
    })
}

/// Gives a block of random bytes, of a quantized format, the scales with which its values spread by `spread` around zero: weights for
/// measurements, made without encoding any.
///
/// # Panics
/// When `block` is not one block of a quantized format.
pub fn set_scales(format: Format, block: &mut [u8], spread: f32) {
    assert_eq!(block.len(), format.info().block_bytes, "a block of {format}");
    with_block!(format, B => B::set_scales(block, spread), else panic!("{format} is no quantized format"));
}

/// The codes that a quantized format has; `None` for a floating-point format.
pub fn codes(format: Format) -> Option<Codes> {
    with_block!(format, B => Some(B::CODES), else None)
}

/// The scales and biases of a block's groups; returns how many values a group has. Biases are zero where the format has none.
///
/// # Panics
/// When `block` is not one block of a quantized format.
#[inline(always)]
pub fn block_scales(
    format: Format,
    block: &[u8],
    scales: &mut [f32; MAX_GROUPS],
    biases: &mut [f32; MAX_GROUPS],
) -> usize {
    assert_eq!(block.len(), format.info().block_bytes, "a block of {format}");
    biases.fill(0.0);
    with_block!(format, B => {
        B::scales(block, scales, biases);
        B::GROUP
    }, else panic!("{format} is no quantized format"))
}

/// The codes of a block's values; what lies behind them is left as it is.
///
/// # Panics
/// When `block` is not one block of a quantized format.
pub fn block_codes(format: Format, block: &[u8], codes: &mut [i8; MAX_BLOCK]) {
    assert_eq!(block.len(), format.info().block_bytes, "a block of {format}");
    with_block!(format, B => B::codes(block, codes), else panic!("{format} is no quantized format"));
}

/// Stores a block's codes.
///
/// # Panics
/// When `block` is not one block of a quantized format, or a code is none of its [`codes`].
pub fn set_codes(format: Format, codes: &[i8; MAX_BLOCK], block: &mut [u8]) {
    assert_eq!(block.len(), format.info().block_bytes, "a block of {format}");
    with_block!(format, B => B::set_codes(codes, block), else panic!("{format} is no quantized format"));
}
