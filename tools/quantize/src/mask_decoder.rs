//! The decoder of masks, `vae-oid.npz` of big_vision, which Hugging Face's checkpoints lack.

use std::path::Path;

use anyhow::Result;
use gemmule::config::masks::{BLOCK_KERNELS, BLOCKS, CHANNELS, CODE_LEN, CODEBOOK, UP_KERNEL, UPSAMPLED};
use gemmule::gguf::keys::tensor::mask;

use crate::npz::Npz;

/// A tensor: its name in the file, its shape (a vector's length, or rows and columns) and its values.
pub(crate) type Tensor = (String, Vec<usize>, Vec<f32>);

/// How a convolution's weights lie in the archive.
#[derive(Clone, Copy)]
enum Layout {
    /// `[outputs][inputs][kernel][kernel]`.
    Straight,
    /// `[inputs][outputs][kernel][kernel]`.
    Transposed,
}

/// Reads the decoder's tensors, input channels turned to the innermost place.
pub(crate) fn read(path: &Path) -> Result<Vec<Tensor>> {
    let archive = Npz::open(path)?;
    let shape = vec![CODEBOOK, CODE_LEN];
    let codebook = archive.array("_vq_vae._embedding", &shape)?;
    let mut tensors: Vec<Tensor> = vec![(mask::CODEBOOK.to_owned(), shape, codebook)];
    let mut add =
        |name: &str, source: &str, (outputs, inputs, kernel): (usize, usize, usize), layout: Layout| -> Result<()> {
            let weight = format!("{source}.weight");
            let area = kernel * kernel;
            let (rows, columns, values) = match layout {
                Layout::Straight => {
                    let values = archive.array(&weight, &[outputs, inputs, kernel, kernel])?;
                    (
                        outputs,
                        area * inputs,
                        turned(&values, inputs, outputs, area, |output, tap| (output * inputs * area + tap, area)),
                    )
                }
                Layout::Transposed => {
                    let values = archive.array(&weight, &[inputs, outputs, kernel, kernel])?;
                    // Rows by tap, then output: a pixel's contributions to a neighbour lie together.
                    let values =
                        turned(&values, inputs, area, outputs, |tap, output| (output * area + tap, outputs * area));
                    (area * outputs, inputs, values)
                }
            };
            tensors.push((format!("{name}.weight"), vec![rows, columns], values));
            let values = archive.array(&format!("{source}.bias"), &[outputs])?;
            tensors.push((format!("{name}.bias"), vec![outputs], values));
            Ok(())
        };
    add(mask::INPUT, "decoder.0", (CHANNELS, CODE_LEN, 1), Layout::Straight)?;
    for block in 0..BLOCKS {
        for (part, kernel) in BLOCK_KERNELS.into_iter().enumerate() {
            let source = format!("decoder.{}.net.{}", 2 + block, 2 * part);
            add(&mask::block(block, part), &source, (CHANNELS, CHANNELS, kernel), Layout::Straight)?;
        }
    }
    let mut inputs = CHANNELS;
    for (index, outputs) in UPSAMPLED.into_iter().enumerate() {
        let source = format!("decoder.{}", 2 + BLOCKS + 2 * index);
        add(&mask::up(index), &source, (outputs, inputs, UP_KERNEL), Layout::Transposed)?;
        inputs = outputs;
    }
    let source = format!("decoder.{}", 2 + BLOCKS + 2 * UPSAMPLED.len());
    add(mask::OUTPUT, &source, (1, inputs, 1), Layout::Straight)?;
    Ok(tensors)
}

/// For each `outer` and `middle` the `inputs` values from the place on and at the distance that `place` gives.
fn turned(
    values: &[f32],
    inputs: usize,
    outer: usize,
    middle: usize,
    place: impl Fn(usize, usize) -> (usize, usize),
) -> Vec<f32> {
    let lines = (0..outer).flat_map(|outer| (0..middle).map(move |middle| (outer, middle)));
    lines
        .flat_map(|(outer, middle)| {
            let (start, distance) = place(outer, middle);
            (0..inputs).map(move |input| values[start + input * distance])
        })
        .collect()
}
