//! Rounding that knows what a matrix's inputs are like.

mod compensate;
mod factor;

use std::ops::Range;

use anyhow::{Context, Result, ensure};
use gemmule_quant::{EncodeError, Format, Kernels, decode_row};
use ndarray::{ArrayView1, ArrayView2, s};
use rayon::prelude::*;

use compensate::Rounder;
use factor::Factor;

/// Second moments of a matrix's inputs: means of `x_i · x_j` over what it was multiplied with.
#[derive(Clone, Debug)]
pub enum Moments {
    /// `[columns]`: those of each input with itself.
    Diagonal(Vec<f32>),
    /// Square matrices along the diagonal, `[width][width]` each, whose widths together are the columns. One matrix is all moments; of several,
    /// those of inputs in different blocks are taken for zero.
    Blocks(Vec<Vec<f32>>),
}

/// Some columns of a matrix, whose errors make up for each other.
struct Part {
    columns: Range<usize>,
    factor: Factor,
    /// What was factored.
    moments: Vec<f32>,
}

impl Part {
    /// `ridge`, `mean` times, is added to the diagonal: more, where the moments have no factor otherwise.
    fn new(columns: Range<usize>, moments: &[f32], mut ridge: f32, mean: f32) -> Result<Self> {
        let width = columns.len();
        let mut h = moments.to_vec();
        loop {
            for i in 0..width {
                h[i * width + i] = moments[i * width + i] + ridge * mean;
            }
            match Factor::new(h.clone(), width) {
                Some(factor) => return Ok(Self { columns, factor, moments: h }),
                None if ridge < 1.0 => ridge = (ridge * 10.0).max(1e-6),
                None => anyhow::bail!("the moments of the inputs are not those of any inputs"),
            }
        }
    }
}

/// What moments come to, ready for all matrices with these inputs.
enum Ready {
    Diagonal(Vec<f32>),
    Parts(Vec<Part>),
}

/// How matrices with the same inputs are rounded, so that their outputs change little. With the diagonal alone each block's scales are chosen for
/// the smallest weighted error; with more moments the columns after a rounded one make up for its error.
pub struct Rounding {
    kernels: Kernels,
    columns: usize,
    ready: Ready,
}

impl std::fmt::Debug for Rounding {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Rounding").field("columns", &self.columns).finish_non_exhaustive()
    }
}

impl Moments {
    /// The inputs that they are of.
    fn columns(&self) -> usize {
        match self {
            Self::Diagonal(diagonal) => diagonal.len(),
            Self::Blocks(blocks) => blocks.iter().map(|block| block.len().isqrt()).sum(),
        }
    }

    /// What the outputs of `rows`, `[rows][columns]`, come to, squared and summed, for an input.
    fn energy(&self, rows: &[f32]) -> Result<f64> {
        let columns = self.columns();
        ensure!(columns > 0 && rows.len().is_multiple_of(columns), "the moments are of {columns} inputs");
        let count = rows.len() / columns;
        let rows = ArrayView2::from_shape((count, columns), rows)?;
        let blocks = match self {
            Self::Diagonal(diagonal) => {
                let square = |row: ArrayView1<'_, f32>| -> f64 {
                    row.iter().zip(diagonal).map(|(x, moment)| f64::from(*moment) * f64::from(*x).powi(2)).sum()
                };
                return Ok(rows.rows().into_iter().map(square).sum());
            }
            Self::Blocks(blocks) => blocks,
        };
        let (mut first, mut sum) = (0, 0.0);
        for block in blocks {
            let width = block.len().isqrt();
            let part = rows.slice(s![.., first..first + width]);
            let outputs = part.dot(&ArrayView2::from_shape((width, width), block)?);
            sum += outputs.iter().zip(part).map(|(y, x)| f64::from(*y) * f64::from(*x)).sum::<f64>();
            first += width;
        }
        // Rounding may leave a little less than nothing.
        Ok(if sum < 0.0 { 0.0 } else { sum })
    }

    /// With zeros for inputs that are always zero, up to so many columns.
    #[must_use]
    pub fn padded(self, columns: usize) -> Self {
        match self {
            Self::Diagonal(mut diagonal) => {
                diagonal.resize(diagonal.len().max(columns), 0.0);
                Self::Diagonal(diagonal)
            }
            Self::Blocks(mut blocks) => {
                let held: usize = blocks.iter().map(|block| block.len().isqrt()).sum();
                if let Some(last) = blocks.last_mut().filter(|_| columns > held) {
                    let width = last.len().isqrt();
                    let wider = width + columns - held;
                    let mut padded = vec![0.0; wider * wider];
                    for (row, from) in padded.chunks_exact_mut(wider).zip(last.chunks_exact(width)) {
                        row[..width].copy_from_slice(from);
                    }
                    *last = padded;
                }
                Self::Blocks(blocks)
            }
        }
    }
}

impl Rounding {
    /// By the moments of the inputs. `ridge` is added to the diagonal, as a share of its mean: what few samples say of dependence is believed
    /// the less. The diagonal alone needs none.
    ///
    /// # Errors
    /// When the moments are no moments: negative or no numbers, all zero, or blocks that are not square.
    pub fn new(moments: &Moments, ridge: f32) -> Result<Self> {
        let kernels = Kernels::select(None)?;
        let wrong = "the moments of the inputs are all zero, or no numbers";
        match moments {
            Moments::Diagonal(diagonal) => {
                ensure!(diagonal.iter().all(|moment| *moment >= 0.0 && moment.is_finite()), "{wrong}");
                ensure!(diagonal.iter().any(|moment| *moment > 0.0), "{wrong}");
                Ok(Self { kernels, columns: diagonal.len(), ready: Ready::Diagonal(diagonal.clone()) })
            }
            Moments::Blocks(blocks) => {
                let widths: Vec<usize> = blocks.iter().map(|block| block.len().isqrt()).collect();
                let square = blocks.iter().zip(&widths).all(|(block, width)| width * width == block.len());
                ensure!(square, "the moments are no square matrices");
                let columns: usize = widths.iter().sum();
                let diagonal = |(block, width): (&Vec<f32>, &usize)| -> f64 {
                    (0..*width).map(|i| f64::from(block[i * width + i])).sum()
                };
                let mean = blocks.iter().zip(&widths).map(diagonal).sum::<f64>() / columns as f64;
                ensure!(mean > 0.0 && mean.is_finite(), "{wrong}");
                let mut first = 0;
                let mut parts = Vec::new();
                for (block, width) in blocks.iter().zip(widths) {
                    parts.push(Part::new(first..first + width, block, ridge, mean as f32)?);
                    first += width;
                }
                Ok(Self { kernels, columns, ready: Ready::Parts(parts) })
            }
        }
    }

    /// The inputs of a matrix.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Rounds rows of a matrix, `[rows][columns]`, to whole blocks of a quantized format into `out`. A row's bytes do not depend on the others, nor
    /// on the number of threads.
    ///
    /// # Errors
    /// When rows, or parts of them that have moments of their own, are no whole blocks, `out` has another size, or a value is not finite.
    pub fn round(&self, format: Format, weights: &[f32], out: &mut [u8]) -> std::result::Result<(), EncodeError> {
        let columns = self.columns;
        let row_bytes = row_bytes(format, columns)?;
        if !weights.len().is_multiple_of(columns) || out.len() != weights.len() / columns * row_bytes {
            return Err(EncodeError::Length(format, weights.len()));
        }
        if let Some(index) = weights.iter().position(|weight| !weight.is_finite()) {
            return Err(EncodeError::NotFinite(index));
        }
        match &self.ready {
            Ready::Diagonal(diagonal) => {
                let rows = weights.par_chunks_exact(columns).zip(out.par_chunks_exact_mut(row_bytes));
                rows.try_for_each(|(row, out)| self.kernels.encode_row_weighted(format, row, diagonal, out))?;
            }
            Ready::Parts(parts) => {
                let kernels = self.kernels;
                for Part { columns: own, factor, moments } in parts {
                    let rows = weights.chunks_exact(columns);
                    let values: Vec<f32> = rows.flat_map(|row| &row[own.clone()]).copied().collect();
                    let (first, bytes) = (self::row_bytes(format, own.start)?, self::row_bytes(format, own.len())?);
                    let rounded = Rounder { kernels, format, factor, moments }.round(&values);
                    for (out, part) in out.chunks_exact_mut(row_bytes).zip(rounded.chunks_exact(bytes)) {
                        out[first..first + bytes].copy_from_slice(part);
                    }
                }
            }
        }
        Ok(())
    }
}

/// The bytes of so many columns of a quantized format.
fn row_bytes(format: Format, columns: usize) -> std::result::Result<usize, EncodeError> {
    format.row_bytes(columns).filter(|_| format.info().integer).ok_or(EncodeError::Length(format, columns))
}

/// The mean square of the errors of a matrix's outputs as a share of theirs: of rows `weights`, `[rows][columns]`, that became `rounded`.
///
/// # Errors
/// When the moments are of other inputs.
pub fn relative_error(moments: &Moments, weights: &[f32], rounded: &[f32]) -> Result<f64> {
    let errors: Vec<f32> = weights.iter().zip(rounded).map(|(weight, rounded)| weight - rounded).collect();
    let (error, whole) = (moments.energy(&errors)?, moments.energy(weights)?);
    ensure!(error.is_finite() && whole.is_finite(), "the moments of the inputs are too large, or no numbers");
    Ok(if whole > 0.0 { error / whole } else { 0.0 })
}

/// What rounding costs a matrix's outputs: `Σ e · H · eᵀ` over the rows, `e` being a row's errors and `H` all second moments of its inputs,
/// `[columns][columns]`.
///
/// # Errors
/// When sizes do not fit.
pub fn output_error(format: Format, bytes: &[u8], weights: &[f32], moments: &[f32]) -> Result<f64> {
    let columns = moments.len().isqrt();
    ensure!(columns > 0 && columns * columns == moments.len(), "the moments are no square matrix");
    let row_bytes = format.row_bytes(columns).filter(|row| bytes.len() * columns == row * weights.len());
    let row_bytes = row_bytes.context("the matrix has other rows than its moments")?;
    let rows = weights.par_chunks_exact(columns).zip(bytes.par_chunks_exact(row_bytes));
    let errors: Vec<f64> = rows
        .map(|(row, bytes)| {
            let mut decoded = vec![0.0; columns];
            decode_row(format, bytes, &mut decoded);
            let errors: Vec<f64> = row.iter().zip(&decoded).map(|(w, q)| f64::from(w - q)).collect();
            let sum = |line: &[f32]| line.iter().zip(&errors).map(|(h, e)| f64::from(*h) * e).sum::<f64>();
            errors.iter().zip(moments.chunks_exact(columns)).map(|(error, line)| error * sum(line)).sum()
        })
        .collect();
    Ok(errors.iter().sum())
}

#[cfg(test)]
mod tests {
    use gemmule_quant::{FORMATS, encode_row};

    use super::*;

    const COLUMNS: usize = 512;
    const ROWS: usize = 40;

    fn noise(seed: u32) -> impl FnMut() -> f32 {
        let mut state = seed.wrapping_mul(0x9e37_79b9) | 1;
        move || {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            (state >> 8) as f32 / (1u32 << 23) as f32 - 1.0
        }
    }

    /// Second moments of inputs that depend on each other and are of very different size.
    fn moments() -> Vec<f32> {
        let mut next = noise(5);
        let hidden = 48;
        let mix: Vec<f32> = (0..COLUMNS * hidden).map(|_| next()).collect();
        let sizes: Vec<f32> = (0..COLUMNS).map(|_| (1.5 * next()).exp()).collect();
        let mut h = vec![0.0; COLUMNS * COLUMNS];
        for (i, line) in h.chunks_exact_mut(COLUMNS).enumerate() {
            for (j, value) in line.iter_mut().enumerate() {
                let shared: f32 = (0..hidden).map(|k| mix[i * hidden + k] * mix[j * hidden + k]).sum();
                *value = (shared + if i == j { 2.0 } else { 0.0 }) * sizes[i] * sizes[j];
            }
        }
        h
    }

    fn weights() -> Vec<f32> {
        let mut next = noise(9);
        (0..ROWS * COLUMNS).map(|_| next() + next() + next()).collect()
    }

    fn error(format: Format, bytes: &[u8], weights: &[f32], h: &[f32]) -> f64 {
        output_error(format, bytes, weights, h).unwrap()
    }

    #[test]
    fn each_way_is_better_than_the_one_before() {
        let (h, w) = (moments(), weights());
        let diagonal = Moments::Diagonal((0..COLUMNS).map(|i| h[i * COLUMNS + i]).collect());
        let full = Moments::Blocks(vec![h.clone()]);
        for info in FORMATS.iter().filter(|info| info.integer) {
            let round = |moments| error(info.format, &rounded(info.format, &w, moments).unwrap(), &w, &h);
            let (weighted, compensated) = (round(&diagonal), round(&full));
            println!("{}: compensated / weighted {:.3}", info.name, compensated / weighted);
            assert!(compensated < 0.6 * weighted, "{}: {compensated} beside {weighted}", info.name);
            let mut plain = vec![0; info.format.row_bytes(w.len()).unwrap()];
            encode_row(info.format, &w, &mut plain).unwrap();
            let plain = error(info.format, &plain, &w, &h);
            assert!(weighted < plain, "{}: {weighted} beside {plain}", info.name);
        }
    }

    #[test]
    fn threads_do_not_count() {
        let (full, w) = (Moments::Blocks(vec![moments()]), weights());
        let with = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| rounded(Format::Q4K, &w, &full)).unwrap()
        };
        assert!(with(1) == with(3));
    }

    fn rounded(format: Format, w: &[f32], moments: &Moments) -> Result<Vec<u8>> {
        let mut out = vec![0; format.row_bytes(w.len()).unwrap_or(0)];
        Rounding::new(moments, 0.01)?.round(format, w, &mut out)?;
        Ok(out)
    }

    /// Blocks of moments are matrices of their own.
    #[test]
    fn blocks_are_rounded_by_themselves() {
        let (h, w) = (moments(), weights());
        let block = |columns: Range<usize>| -> Vec<f32> {
            columns.clone().flat_map(|i| &h[i * COLUMNS..][columns.clone()]).copied().collect()
        };
        let blocks = vec![block(0..256), block(256..512)];
        let whole = rounded(Format::Q4K, &w, &Moments::Blocks(blocks.clone())).unwrap();
        let row_bytes = Format::Q4K.row_bytes(256).unwrap();
        for (half, block) in blocks.into_iter().enumerate() {
            let own: Vec<f32> = w.chunks(COLUMNS).flat_map(|row| &row[half * 256..][..256]).copied().collect();
            // The mean of its own diagonal would be another ridge.
            let mean =
                |moments: &[f32], n: usize| (0..n).map(|i| f64::from(moments[i * n + i])).sum::<f64>() / n as f64;
            let ridge = 0.01 * mean(&h, COLUMNS) / mean(&block, 256);
            let mut part = vec![0; whole.len() / 2];
            let rounding = Rounding::new(&Moments::Blocks(vec![block]), ridge as f32).unwrap();
            rounding.round(Format::Q4K, &own, &mut part).unwrap();
            let rows = whole.chunks_exact(2 * row_bytes).zip(part.chunks_exact(row_bytes));
            let same = rows.clone().filter(|(whole, part)| &whole[half * row_bytes..][..row_bytes] == *part).count();
            // The two ridges may differ in their last bit.
            assert!(same * 10 >= rows.len() * 9, "{half}: {same} of {}", rows.len());
        }
        let uneven = Moments::Blocks(vec![block(0..128), block(128..512)]);
        assert!(rounded(Format::Q4_0, &w, &uneven).is_ok());
        assert!(
            rounded(Format::Q4K, &w, &uneven)
                .unwrap_err()
                .to_string()
                .contains("128 values is no whole number of q4_k")
        );
    }

    #[test]
    fn what_cannot_be_rounded_is_refused() {
        let (h, w) = (moments(), weights());
        let full = Moments::Blocks(vec![h]);
        let refused = |format, w: &[f32], moments: &Moments| rounded(format, w, moments).unwrap_err().to_string();
        assert!(refused(Format::Q4_0, &w[1..], &full).contains("is no whole number of q4_0"));
        assert!(refused(Format::F16, &w, &full).contains("no whole number of f16"));
        let few = Moments::Diagonal(vec![1.0; 32]);
        assert!(refused(Format::Q4K, &w[..320], &few).contains("no whole number of q4_k"));
        assert!(refused(Format::Q4_0, &w, &Moments::Blocks(vec![vec![1.0; 5]])).contains("no square"));
        let zero = Moments::Blocks(vec![vec![0.0; COLUMNS * COLUMNS]]);
        assert!(refused(Format::Q4_0, &w, &zero).contains("all zero"));
        assert!(refused(Format::Q4_0, &w, &Moments::Diagonal(vec![0.0; COLUMNS])).contains("all zero"));
        assert!(refused(Format::Q4_0, &w, &Moments::Diagonal(vec![f32::NAN; COLUMNS])).contains("no numbers"));
        assert!(refused(Format::Q4_0, &w, &Moments::Diagonal(vec![-1.0; COLUMNS])).contains("no numbers"));
        let mut bad = w.clone();
        bad[7] = f32::NAN;
        assert!(refused(Format::Q4_0, &bad, &full).contains("not a number"));
        let mut nan = vec![1.0; COLUMNS * COLUMNS];
        nan[3] = f32::NAN;
        assert!(refused(Format::Q4_0, &w, &Moments::Blocks(vec![nan])).contains("not those of any inputs"));
    }
}
