//! The decoder of masks: sixteen codes to 64 × 64 values (big_vision, `segmentation.py`; the VQ-VAE of
//! <https://arxiv.org/abs/2301.02229>). Convolutions are products with patches, pictures lie as `[pixels][channels]`.

use gemmule_quant::Kernels;

use crate::config::masks::{BLOCK_KERNELS, BLOCKS, CODEBOOK, CODES, CODES_SIDE, MOST_CHANNELS, UP_KERNEL, Widths};
use crate::gguf::keys::tensor::mask;
use crate::ops::Compute;
use crate::ops::input::{InputBuffer, Needs};
use crate::ops::linear::{Epilogue, Product, linear};
use crate::weights::{Matrix, Store, Vector};
use crate::{Error, Result};

#[derive(Debug)]
struct Convolution {
    weight: Matrix,
    bias: Vector,
}

/// Where the mask decoder's tensors lie.
#[derive(Debug)]
pub(crate) struct MaskWeights {
    codebook: Vector,
    input: Convolution,
    blocks: Vec<[Convolution; 3]>,
    /// Transposed convolutions: their matrices have `kernel · kernel · outputs` rows.
    up: Vec<Convolution>,
    output: Convolution,
}

impl MaskWeights {
    /// Looks up and checks every tensor; none where the file has no mask decoder.
    ///
    /// # Errors
    /// When a part is missing or of the wrong shape.
    pub(crate) fn find(store: &Store) -> Result<Option<Self>> {
        if !store.contains(mask::CODEBOOK) {
            return Ok(None);
        }
        let widths = widths(store)?;
        let convolution = |name: &str, rows: usize, columns: usize, outputs: usize| -> Result<Convolution> {
            let weight = store.matrix(&format!("{name}.weight"), rows, columns)?;
            if weight.format().info().integer {
                let file = store.files()[0].gguf().name();
                return Err(Error::model(file, format!("tensor '{name}.weight' must not be quantized")));
            }
            Ok(Convolution { weight, bias: store.vector(&format!("{name}.bias"), outputs)? })
        };
        let block = |block: usize| -> Result<[Convolution; 3]> {
            let part = |part: usize| {
                let columns = BLOCK_KERNELS[part].pow(2) * widths.blocks;
                convolution(&mask::block(block, part), widths.blocks, columns, widths.blocks)
            };
            Ok([part(0)?, part(1)?, part(2)?])
        };
        let up = |(index, outputs): (usize, usize)| {
            let inputs = if index == 0 { widths.blocks } else { widths.upsampled[index - 1] };
            convolution(&mask::up(index), UP_KERNEL.pow(2) * outputs, inputs, outputs)
        };
        Ok(Some(Self {
            codebook: store.vector(mask::CODEBOOK, CODEBOOK * widths.code)?,
            input: convolution(mask::INPUT, widths.blocks, widths.code, widths.blocks)?,
            blocks: (0..BLOCKS).map(block).collect::<Result<_>>()?,
            up: widths.upsampled.into_iter().enumerate().map(up).collect::<Result<_>>()?,
            output: convolution(mask::OUTPUT, 1, widths.upsampled[3], 1)?,
        }))
    }
}

/// The widths that the tensors have. Only their elements are counted here: [`MaskWeights::find`] checks the shapes.
fn widths(store: &Store) -> Result<Widths> {
    let width = |name: &str, rows: usize| {
        let width = store.elements(name)? / rows;
        if !(1..=MOST_CHANNELS).contains(&width) {
            let reason = format!("tensor '{name}' has {width} channels, and can have from 1 to {MOST_CHANNELS}");
            return Err(Error::model(store.files()[0].gguf().name(), reason));
        }
        Ok(width)
    };
    let bias = |name: &str| width(&format!("{name}.bias"), 1);
    let mut upsampled = [0; 4];
    for (index, width) in upsampled.iter_mut().enumerate() {
        *width = bias(&mask::up(index))?;
    }
    Ok(Widths { code: width(mask::CODEBOOK, CODEBOOK)?, blocks: bias(mask::INPUT)?, upsampled })
}

/// Sixteen codes to `[64][64]` values around −1 (outside) … 1 (inside). Each stage's result, `[pixels][channels]`, is shown
/// to `stage`.
///
/// # Errors
/// When there are not sixteen codes below 128.
pub(crate) fn forward(
    compute: &Compute,
    store: &Store,
    weights: &MaskWeights,
    codes: &[u16],
    mut stage: impl FnMut(&[f32]),
) -> Result<Vec<f32>> {
    if codes.len() != CODES || codes.iter().any(|code| usize::from(*code) >= CODEBOOK) {
        return Err(Error::Request(format!("a mask needs {CODES} codes below {CODEBOOK}, not {codes:?}")));
    }
    let mut buffer = InputBuffer::default();
    let mut side = CODES_SIDE;
    let codebook = store.values(&weights.codebook);
    let len = codebook.len() / CODEBOOK;
    let x: Vec<f32> = codes.iter().flat_map(|code| &codebook[usize::from(*code) * len..][..len]).copied().collect();
    stage(&x);
    let mut convolve = |x: &[f32], side: usize, layer: &Convolution| {
        let channels = x.len() / (side * side);
        let kernel = (layer.weight.columns() / channels).isqrt();
        let patches = patches(x, side, channels, kernel);
        product(compute, store, &mut buffer, &patches, layer, Some(store.values(&layer.bias)))
    };
    let mut x = convolve(&x, side, &weights.input);
    rectify(&mut x);
    stage(&x);
    for [first, second, third] in &weights.blocks {
        let mut inner = convolve(&x, side, first);
        rectify(&mut inner);
        inner = convolve(&inner, side, second);
        rectify(&mut inner);
        inner = convolve(&inner, side, third);
        compute.kernels.add(&mut x, &inner);
        stage(&x);
    }
    let mut buffer = InputBuffer::default();
    for layer in &weights.up {
        let spread = product(compute, store, &mut buffer, &x, layer, None);
        x = gather(compute.kernels, &spread, side, store.values(&layer.bias));
        rectify(&mut x);
        side *= 2;
        stage(&x);
    }
    let x = product(compute, store, &mut buffer, &x, &weights.output, Some(store.values(&weights.output.bias)));
    stage(&x);
    Ok(x)
}

fn rectify(values: &mut [f32]) {
    values.iter_mut().for_each(|value| *value = value.max(0.0));
}

/// `[pixels][columns]` times the layer's matrix: `[pixels][rows]`.
fn product(
    compute: &Compute,
    store: &Store,
    buffer: &mut InputBuffer,
    values: &[f32],
    layer: &Convolution,
    bias: Option<&[f32]>,
) -> Vec<f32> {
    let (columns, rows) = (layer.weight.columns(), layer.weight.rows());
    let mut out = vec![0.0; values.len() / columns * rows];
    let prepared = buffer.prepare(compute, values, columns, Needs::of([layer.weight.format()]));
    let epilogue = Epilogue { bias, ..Epilogue::default() };
    linear(compute, prepared, [Product { weight: store.view(&layer.weight), epilogue, out: &mut out }]);
    out
}

/// For each pixel its neighbourhood, `[pixels][kernel · kernel][channels]`; zero beyond the edges.
fn patches(x: &[f32], side: usize, channels: usize, kernel: usize) -> Vec<f32> {
    if kernel == 1 {
        return x.to_vec();
    }
    let mut out = vec![0.0; side * side * kernel * kernel * channels];
    let mut places = out.chunks_exact_mut(channels);
    // In the order of `places`: pixel by pixel, tap by tap.
    for (row, column) in (0..side).flat_map(|row| (0..side).map(move |column| (row, column))) {
        for (y, x_tap) in (0..kernel).flat_map(|y| (0..kernel).map(move |x| (y, x))) {
            let place = places.next().expect("one for each tap of each pixel");
            let (from_row, from_column) =
                ((row + y).wrapping_sub(kernel / 2), (column + x_tap).wrapping_sub(kernel / 2));
            if from_row < side && from_column < side {
                place.copy_from_slice(&x[(from_row * side + from_column) * channels..][..channels]);
            }
        }
    }
    out
}

/// The sums of a transposed convolution of stride 2: each pixel's `[kernel · kernel][channels]` laid over a picture of twice
/// the side, one pixel beyond its upper left corner.
fn gather(kernels: Kernels, spread: &[f32], side: usize, bias: &[f32]) -> Vec<f32> {
    let channels = bias.len();
    let mut out = bias.repeat(4 * side * side);
    let mut parts = spread.chunks_exact(channels);
    for (row, column) in (0..side).flat_map(|row| (0..side).map(move |column| (row, column))) {
        for (y, x) in (0..UP_KERNEL).flat_map(|y| (0..UP_KERNEL).map(move |x| (y, x))) {
            let part = parts.next().expect("one for each tap of each pixel");
            let (to_row, to_column) = ((2 * row + y).wrapping_sub(1), (2 * column + x).wrapping_sub(1));
            if to_row < 2 * side && to_column < 2 * side {
                kernels.add(&mut out[(to_row * 2 * side + to_column) * channels..][..channels], part);
            }
        }
    }
    out
}
