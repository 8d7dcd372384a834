//! The decoder of masks, `vae-oid.npz` of big_vision, which Hugging Face's checkpoints lack.

use std::path::Path;

use anyhow::{Result, ensure};
use gemmule::config::masks::{BLOCK_KERNELS, BLOCKS, CODEBOOK, MOST_CHANNELS, UP_KERNEL, Widths};
use gemmule::gguf::keys::tensor::mask;

use crate::npz::Npz;

/// The code book's array.
const BOOK: &str = "_vq_vae._embedding";

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

/// Reads the decoder's tensors, transposed so that input channels are innermost.
pub(crate) fn read(path: &Path) -> Result<Vec<Tensor>> {
    let archive = Npz::open(path)?;
    let code = width(&archive, BOOK)?;
    let shape = vec![CODEBOOK, code];
    let codebook = archive.array(BOOK, &shape)?;
    let mut upsampled = [0; 4];
    for (index, channels) in upsampled.iter_mut().enumerate() {
        *channels = width(&archive, &format!("{}.bias", up(index)))?;
    }
    let widths = Widths { code, blocks: width(&archive, "decoder.0.bias")?, upsampled };
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
    add(mask::INPUT, "decoder.0", (widths.blocks, widths.code, 1), Layout::Straight)?;
    for block in 0..BLOCKS {
        for (part, kernel) in BLOCK_KERNELS.into_iter().enumerate() {
            let source = format!("decoder.{}.net.{}", 2 + block, 2 * part);
            add(&mask::block(block, part), &source, (widths.blocks, widths.blocks, kernel), Layout::Straight)?;
        }
    }
    let mut inputs = widths.blocks;
    for (index, outputs) in widths.upsampled.into_iter().enumerate() {
        let source = up(index);
        add(&mask::up(index), &source, (outputs, inputs, UP_KERNEL), Layout::Transposed)?;
        inputs = outputs;
    }
    add(mask::OUTPUT, &up(widths.upsampled.len()), (1, inputs, 1), Layout::Straight)?;
    Ok(tensors)
}

/// The name of the layer that doubles the side for the `index`-th time; the output layer follows the last.
fn up(index: usize) -> String {
    format!("decoder.{}", 2 + BLOCKS + 2 * index)
}

/// The innermost dimension of an array, which is a number of channels.
fn width(archive: &Npz, name: &str) -> Result<usize> {
    let width = archive.shape(name)?.last().copied().unwrap_or(0);
    ensure!(
        (1..=MOST_CHANNELS).contains(&width),
        "{}: array '{name}': it has {width} channels, and can have from 1 to {MOST_CHANNELS}",
        archive.path().display()
    );
    Ok(width)
}

/// For each `outer` and `middle`, `inputs` values: `place` gives the first one's index and the distance between them.
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
