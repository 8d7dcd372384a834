//! Tensors for a safetensors file.

use std::collections::HashMap;

use anyhow::Result;
use safetensors::Dtype;
use safetensors::tensor::TensorView;

use crate::answers;

/// Tensors for a safetensors file.
#[derive(Default)]
pub(super) struct Tensors<'a>(HashMap<&'a str, (Dtype, Vec<usize>, &'a [u8])>);

impl<'a> Tensors<'a> {
    pub(super) fn floats(&mut self, name: &'a str, shape: Vec<usize>, values: &'a [f32]) {
        self.0.insert(name, (Dtype::F32, shape, bytemuck::cast_slice(values)));
    }

    pub(super) fn integers(&mut self, name: &'a str, values: &'a [i64]) {
        self.0.insert(name, (Dtype::I64, vec![values.len()], bytemuck::cast_slice(values)));
    }

    pub(super) fn write(self, output: &answers::Output<'_>) -> Result<()> {
        let views =
            self.0.into_iter().map(|(name, (kind, shape, bytes))| Ok((name, TensorView::new(kind, shape, bytes)?)));
        let bytes = safetensors::serialize(views.collect::<Result<HashMap<_, _>>>()?, None)?;
        output.write(&bytes)
    }
}
