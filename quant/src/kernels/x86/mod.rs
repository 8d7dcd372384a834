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

/// Instantiates the vector functions that AVX-512 has of its own, for [`vector_methods`].
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

/// Instantiates the other functions on `f32` rows, for [`vector_methods`].
macro_rules! instantiate_vectors {
    ($features:literal) => {
        instantiate! {
            $features;
            rms_norm(x: &[f32], weight: &[f32], epsilon: f32, out: &mut [f32]) = crate::vector::rms_norm;
            add_rms_norm(x: &[f32], weight: &[f32], epsilon: f32, out: &mut [f32]) = crate::vector::add_rms_norm;
            layer_norm(x: &[f32], affine: (&[f32], &[f32]), epsilon: f32, out: &mut [f32]) = crate::vector::layer_norm;
            add(x: &mut [f32], y: &[f32]) = crate::vector::add;
            scale(x: &mut [f32], factor: f32) = crate::vector::scale;
            rotate(head: &mut [f32], rotation: &[(f32, f32)]) = crate::vector::rotate;
        }
    };
}

/// The methods of [`Kernels`](super::Kernels) that call the functions on `f32` rows, by the module's `proven!`.
macro_rules! vector_methods {
    () => {
        fn quantize(&self, x: &[f32], row: crate::activation::QuantizedRowMut<'_>) {
            proven!(quantize(x, row));
        }
        fn gelu(&self, x: &mut [f32]) {
            proven!(gelu(x));
        }
        fn gelu_multiply(&self, gate: &mut [f32], up: &[f32]) {
            proven!(gelu_multiply(gate, up));
        }
        fn read(&self, bytes: &[u8]) -> u64 {
            proven!(read(bytes))
        }
        fn rms_norm(&self, x: &[f32], weight: &[f32], epsilon: f32, out: &mut [f32]) {
            proven!(rms_norm(x, weight, epsilon, out));
        }
        fn add_rms_norm(&self, x: &[f32], weight: &[f32], epsilon: f32, out: &mut [f32]) {
            proven!(add_rms_norm(x, weight, epsilon, out));
        }
        fn layer_norm(&self, x: &[f32], affine: (&[f32], &[f32]), epsilon: f32, out: &mut [f32]) {
            proven!(layer_norm(x, affine, epsilon, out));
        }
        fn add(&self, x: &mut [f32], y: &[f32]) {
            proven!(add(x, y));
        }
        fn scale(&self, x: &mut [f32], factor: f32) {
            proven!(scale(x, factor));
        }
        fn rotate(&self, head: &mut [f32], rotation: &[(f32, f32)]) {
            proven!(rotate(head, rotation));
        }
    };
}

pub mod amx;
mod amx_products;
pub mod avx2;
mod avx2_tiles;
pub mod avx512;
mod avx512_six_rows;
mod avx512_tiles;
mod blocks;
mod floats;
mod pairs;
mod panels;
mod rows;
mod rows_q6_k;
pub mod vnni;
mod wide_floats;
mod wide_panels;
mod wide_rows;
mod wide_vectors;
