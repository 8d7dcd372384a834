//! Rounding that knows what a matrix's inputs are like.

mod compensate;
mod factor;

use anyhow::{Context, Result, ensure};
use gemmule_quant::{Format, Kernels, decode_row};
use rayon::prelude::*;

use compensate::Rounder;
use factor::Factor;

/// Second moments of a matrix's inputs: means of `x_i · x_j` over what it was multiplied with.
#[derive(Clone, Debug)]
pub enum Moments {
    /// `[columns]`: those of each input with itself.
    Diagonal(Vec<f32>),
    /// `[columns][columns]`: all of them.
    Full(Vec<f32>),
}

/// Rounds a matrix, `[rows][columns]`, to whole blocks of a quantized format so that its outputs change little; the bytes of its rows one behind
/// the other, the same for any number of threads. With the diagonal alone each block's scales are chosen for the smallest weighted error; with all
/// moments the columns after a rounded one make up for its error.
///
/// `ridge` is added to the diagonal, as a share of its mean: what few samples say of dependence is believed the less.
///
/// # Errors
/// When sizes do not fit, or a value is not finite.
pub fn round_matrix(format: Format, weights: &[f32], columns: usize, moments: &Moments, ridge: f32) -> Result<Vec<u8>> {
    ensure!(columns > 0 && weights.len().is_multiple_of(columns), "the matrix has no whole rows of {columns}");
    let Some(row_bytes) = format.row_bytes(columns).filter(|_| format.info().integer) else {
        anyhow::bail!("rows of {columns} are no whole blocks of {format}");
    };
    ensure!(weights.iter().all(|weight| weight.is_finite()), "a weight is infinite or not a number");
    let kernels = Kernels::select(None)?;
    match moments {
        Moments::Diagonal(diagonal) => {
            ensure!(diagonal.len() == columns, "{} moments of {columns} inputs", diagonal.len());
            let mut out = vec![0; weights.len() / columns * row_bytes];
            let rows = weights.par_chunks_exact(columns).zip(out.par_chunks_exact_mut(row_bytes));
            rows.try_for_each(|(row, out)| kernels.encode_row_weighted(format, row, diagonal, out))?;
            Ok(out)
        }
        Moments::Full(moments) => {
            ensure!(moments.len() == columns * columns, "{} moments of {columns} inputs", moments.len());
            let mut h = moments.clone();
            let mean = (0..columns).map(|i| f64::from(h[i * columns + i])).sum::<f64>() / columns as f64;
            ensure!(mean > 0.0 && mean.is_finite(), "the moments of the inputs are all zero, or no numbers");
            let mut ridge = ridge;
            let factor = loop {
                for i in 0..columns {
                    h[i * columns + i] = moments[i * columns + i] + ridge * mean as f32;
                }
                match Factor::new(h.clone(), columns) {
                    Some(factor) => break factor,
                    None if ridge < 1.0 => ridge = (ridge * 10.0).max(1e-6),
                    None => anyhow::bail!("the moments of the inputs are not those of any inputs"),
                }
            };
            Ok(Rounder { kernels, format, factor: &factor, moments: &h }.round(weights))
        }
    }
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
        let full = Moments::Full(h.clone());
        for info in FORMATS.iter().filter(|info| info.integer) {
            let round =
                |moments| error(info.format, &round_matrix(info.format, &w, COLUMNS, moments, 0.01).unwrap(), &w, &h);
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
        let (full, w) = (Moments::Full(moments()), weights());
        let with = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| round_matrix(Format::Q4K, &w, COLUMNS, &full, 0.01)).unwrap()
        };
        assert!(with(1) == with(3));
    }

    #[test]
    fn what_cannot_be_rounded_is_refused() {
        let (h, w) = (moments(), weights());
        let full = Moments::Full(h);
        let refused = |format, w: &[f32], columns, moments: &Moments| {
            round_matrix(format, w, columns, moments, 0.01).unwrap_err().to_string()
        };
        assert!(refused(Format::Q4_0, &w[1..], COLUMNS, &full).contains("whole rows"));
        assert!(refused(Format::F16, &w, COLUMNS, &full).contains("whole blocks of f16"));
        assert!(refused(Format::Q4K, &w[..320], 32, &full).contains("whole blocks of q4_k"));
        assert!(refused(Format::Q4_0, &w, COLUMNS, &Moments::Diagonal(vec![1.0; 5])).contains("5 moments"));
        assert!(refused(Format::Q4_0, &w, COLUMNS, &Moments::Full(vec![0.0; COLUMNS * COLUMNS])).contains("all zero"));
        let mut bad = w.clone();
        bad[7] = f32::NAN;
        assert!(refused(Format::Q4_0, &bad, COLUMNS, &full).contains("not a number"));
        assert!(
            refused(Format::Q4_0, &w, COLUMNS, &Moments::Diagonal(vec![f32::NAN; COLUMNS])).contains("not a number")
        );
        let mut nan = vec![1.0; COLUMNS * COLUMNS];
        nan[3] = f32::NAN;
        assert!(refused(Format::Q4_0, &w, COLUMNS, &Moments::Full(nan)).contains("not those of any inputs"));
    }
}
