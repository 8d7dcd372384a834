//! x86-64: a folder for each of its instruction sets, and what they share.

/// Instantiates plain-Rust bodies with an instruction set enabled.
macro_rules! instantiate {
    ($features:literal; $($name:ident($($argument:ident: $type:ty),*) $(-> $result:ty)? = $body:path;)*) => {
        $(#[target_feature(enable = $features)]
        fn $name($($argument: $type),*) $(-> $result)? {
            $body($($argument),*)
        })*
    };
}

/// Instantiates the vector functions that AVX-512 has of its own, for a tier's table.
macro_rules! instantiate_narrow_vectors {
    ($features:literal) => {
        instantiate! {
            $features;
            read(bytes: &[u8]) -> u64 = crate::vector::read;
            quantize(x: &[f32], row: crate::activation::QuantizedRowMut<'_>) = crate::vector::quantize;
            gelu(x: &mut [f32]) = crate::vector::gelu;
            gelu_multiply(gate: &mut [f32], up: &[f32]) = crate::vector::gelu_multiply;
        }
    };
}

/// Instantiates the other functions on `f32` rows, for a tier's table.
macro_rules! instantiate_vectors {
    ($features:literal) => {
        instantiate! {
            $features;
            rms_norm(x: &[f32], weight: &[f32], epsilon: f32, out: &mut [f32]) = crate::vector::rms_norm;
            add_rms_norm(x: &[f32], weight: &[f32], epsilon: f32, out: &mut [f32]) = crate::vector::add_rms_norm;
            layer_norm(x: &[f32], affine: crate::vector::Affine<'_>, epsilon: f32, out: &mut [f32]) = crate::vector::layer_norm;
            add(x: &mut [f32], y: &[f32]) = crate::vector::add;
            add_multiple(factor: f32, y: &[f32], x: &mut [f32]) = crate::vector::add_multiple;
            scale(x: &mut [f32], factor: f32) = crate::vector::scale;
            rotate(head: &mut [f32], rotation: &[(f32, f32)]) = crate::vector::rotate;
        }
    };
}

pub(crate) mod amx;
pub(crate) mod avx2;
pub(crate) mod avx512;
pub(crate) mod avx512bw;
pub(crate) mod avx_vnni;
mod blocks;
mod pairs;
mod panels;
mod registers;
mod rows;
mod rows_q6_k;
