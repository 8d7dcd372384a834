//! How far errors of a model's matrices move its answers, measured: some matrices at a time are rounded to 4 bits, and what that does to the
//! probabilities of answers is divided by how large the errors of the matrices' outputs are. Small errors act in proportion to their squares,
//! and those of different matrices add up (HIGGS, arXiv 2411.17525, theorem 1), so that this tells what other types would do.

use std::collections::BTreeMap;
use std::ops::Range;

use anyhow::{Context, Result};
use gemmule::gguf::TensorInfo;
use gemmule::gguf::keys::tensor::TOKEN_EMBEDDING;
use gemmule_quant::{Format, Kernels, decode_row};
use rayon::prelude::*;

use crate::rounding::{Rounding, relative_error};
use crate::statistics::Statistics;

/// What matrices are rounded to.
const FORMAT: Format = Format::Q4_0;
/// The depths that are told apart.
const DEPTHS: usize = 3;
/// Rows of a matrix that errors are measured on, in parts of so many.
const ROWS: usize = 64;
const PART: usize = 8;
/// Rows that one task rounds.
const TASK: usize = 64;

/// Matrices of one kind, in neighbouring layers, that are rounded together.
#[derive(Clone, Debug)]
pub struct Group {
    /// Their names in the model's file.
    pub tensors: Vec<String>,
}

/// A matrix's kind, and its layer if it has one.
fn place(tensor: &str) -> (String, Option<usize>) {
    let Some((half, rest)) = tensor.split_once("blk.") else { return (tensor.to_owned(), None) };
    let (layer, part) = rest.split_once('.').unwrap_or((rest, ""));
    let kind = match part.trim_end_matches(".weight") {
        "attn_q" | "attn_k" => "query and key",
        "attn_v" | "attn_output" | "attn_out" => "value and output",
        "ffn_gate" | "ffn_up" => "up",
        other => other,
    };
    (format!("{half}{kind}"), layer.parse().ok())
}

/// The matrices that statistics are of, in groups.
pub fn groups(statistics: &Statistics) -> Vec<Group> {
    let half = |tensor: &str| tensor.starts_with("v.");
    let mut layers = [1; 2];
    for tensor in statistics.tensors() {
        if let (_, Some(layer)) = place(tensor) {
            let count = &mut layers[usize::from(half(tensor))];
            *count = layer.saturating_add(1).max(*count);
        }
    }
    let mut groups: BTreeMap<(String, usize), Vec<String>> = BTreeMap::new();
    for tensor in statistics.tensors() {
        let (kind, layer) = place(tensor);
        let depth = layer.map_or(0, |layer| layer.saturating_mul(DEPTHS) / layers[usize::from(half(tensor))]);
        groups.entry((kind, depth)).or_default().push(tensor.to_owned());
    }
    groups.into_values().map(|tensors| Group { tensors }).collect()
}

/// Rows of a matrix that stand for all.
pub(crate) fn sample(rows: usize) -> impl Iterator<Item = Range<usize>> {
    let parts = (ROWS / PART).min(rows.div_ceil(PART));
    (0..parts).map(move |part| {
        let first = rows * part / parts;
        first..rows.min(first + PART)
    })
}

/// How rows of a matrix are rounded.
struct Rounder {
    kernels: Kernels,
    /// None where each row is rounded by itself.
    rounding: Option<Rounding>,
    columns: usize,
}

impl Rounder {
    /// Rows, `[rows][columns]`, as they are when they are rounded.
    fn round(&self, weights: &[f32]) -> Result<Vec<f32>> {
        let columns = self.columns;
        let row_bytes = FORMAT.row_bytes(columns).context("a row is no whole number of blocks")?;
        let mut encoded = vec![0; weights.len() / columns * row_bytes];
        match &self.rounding {
            Some(rounding) => rounding.round(FORMAT, weights, &mut encoded)?,
            None => self.kernels.encode_row(FORMAT, weights, &mut encoded)?,
        }
        let mut rounded = vec![0.0; weights.len()];
        for (row, out) in encoded.chunks_exact(row_bytes).zip(rounded.chunks_exact_mut(columns)) {
            decode_row(FORMAT, row, out);
        }
        Ok(rounded)
    }
}

/// A matrix of a model's file that can be rounded.
struct Stored<'a> {
    format: Format,
    columns: usize,
    row_bytes: usize,
    name: &'a str,
}

impl<'a> Stored<'a> {
    /// None where its rows are no whole blocks.
    fn of(tensor: &'a TensorInfo) -> Option<Self> {
        let columns = usize::try_from(*tensor.dimensions.first()?).ok()?;
        FORMAT.row_bytes(columns)?;
        let format = tensor.format?;
        Some(Self { format, columns, row_bytes: format.row_bytes(columns)?, name: &tensor.name })
    }
}

/// Rounds a matrix where it is stored, and says what that does to its outputs: the mean square of their errors as a share of theirs, from some
/// of its rows. One whose rows are no whole blocks stays, and has no errors.
///
/// # Errors
/// When it holds values that are no numbers, or the statistics are of another matrix.
pub fn round_in_place(tensor: &TensorInfo, bytes: &mut [u8], statistics: &Statistics) -> Result<f64> {
    let Some(Stored { format, columns, row_bytes, name }) = Stored::of(tensor) else { return Ok(0.0) };
    let moments = statistics.moments(name)?;
    let rounder = Rounder {
        kernels: Kernels::select(None)?,
        // It has a second use, which its rounding must not forget.
        rounding: (name == TOKEN_EMBEDDING).then(|| statistics.rounding(name, &moments)).transpose()?,
        columns,
    };
    let decoded = |rows: &[u8]| {
        let mut weights = vec![0.0; rows.len() / row_bytes * columns];
        for (row, weights) in rows.chunks_exact(row_bytes).zip(weights.chunks_exact_mut(columns)) {
            decode_row(format, row, weights);
        }
        weights
    };
    let error = || -> Result<f64> {
        let rows = sample(bytes.len() / row_bytes);
        let weights: Vec<f32> =
            rows.flat_map(|rows| decoded(&bytes[rows.start * row_bytes..rows.end * row_bytes])).collect();
        relative_error(&moments, &weights, &rounder.round(&weights)?)
    };
    let error = error().with_context(|| format!("tensor '{name}'"))?;
    bytes
        .par_chunks_mut(TASK * row_bytes)
        .try_for_each(|part| {
            let rounded = rounder.round(&decoded(part))?;
            for (row, rounded) in part.chunks_exact_mut(row_bytes).zip(rounded.chunks_exact(columns)) {
                rounder.kernels.encode_row(format, rounded, row)?;
            }
            anyhow::Ok(())
        })
        .with_context(|| format!("tensor '{name}'"))?;
    Ok(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_and_layers_are_told_apart() {
        let of = |tensor| place(tensor);
        assert_eq!(of("blk.7.attn_q.weight"), of("blk.7.attn_k.weight"));
        assert_ne!(of("blk.7.attn_q.weight").0, of("v.blk.7.attn_q.weight").0);
        assert_eq!(of("blk.25.ffn_down.weight"), ("ffn_down".to_owned(), Some(25)));
        assert_eq!(of("token_embd.weight"), ("token_embd.weight".to_owned(), None));
        assert_eq!(of("v.blk.3.attn_out.weight").0, of("v.blk.0.attn_v.weight").0);
    }

    #[test]
    fn samples_are_rows_of_the_matrix() {
        for rows in [1, 7, 8, 9, 64, 65, 1000] {
            let parts: Vec<_> = sample(rows).collect();
            assert!(parts.iter().all(|part| part.start < part.end && part.end <= rows), "{rows}: {parts:?}");
            assert!(parts.windows(2).all(|pair| pair[0].start < pair[1].start), "{rows}: {parts:?}");
            let count: usize = parts.iter().map(Range::len).sum();
            assert!(count >= rows.min(8) && count <= ROWS, "{rows}: {count}");
        }
    }
}
