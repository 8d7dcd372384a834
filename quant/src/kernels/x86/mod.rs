//! x86-64: what its instruction sets share, and one file for each.

pub mod amx;
pub mod avx2;
mod avx2_tiles;
pub mod avx512;
mod blocks;
mod floats;
mod panels;
mod rows;
pub mod vnni;
