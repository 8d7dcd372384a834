//! x86-64: what its instruction sets share, and one file for each.

/// Instantiates plain-Rust bodies with an instruction set enabled.
macro_rules! instantiate {
    ($features:literal; $($name:ident($($argument:ident: $type:ty),*) $(-> $result:ty)? = $body:path;)*) => {
        $(#[target_feature(enable = $features)]
        fn $name($($argument: $type),*) $(-> $result)? {
            $body($($argument),*)
        })*
    };
}

pub mod amx;
pub mod avx2;
mod avx2_tiles;
pub mod avx512;
mod blocks;
mod floats;
mod panels;
mod rows;
pub mod vnni;
