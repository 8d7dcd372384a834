//! 64-bit ARM: a folder for each of its instruction sets, and what they share.

pub(crate) mod base;
mod blocks;
pub(crate) mod dotprod;
mod floats;
pub(crate) mod i8mm;
mod panels;
mod rows;
mod tiles;
