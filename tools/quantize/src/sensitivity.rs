//! How far errors of a model's matrices move its answers, measured: some matrices at a time are rounded to 4 bits, and what that does to the
//! probabilities of answers is divided by how large the errors of the matrices' outputs are. Small errors act in proportion to their squares,
//! and those of different matrices add up (HIGGS, arXiv 2411.17525, theorem 1), so that this tells what other types would do.

use std::collections::BTreeMap;
use std::ops::Range;

use anyhow::{Context, Result};
use gemmule::gguf::TensorInfo;
use gemmule_quant::{Format, Kernels, decode_row};
use rayon::prelude::*;

use crate::rounding::{Moments, relative_error};
use crate::statistics::Statistics;

/// What matrices are rounded to.
const FORMAT: Format = Format::Q4_0;
/// The depths that are told apart.
const DEPTHS: usize = 3;
/// Rows of a matrix that errors are measured on, in parts of so many.
const ROWS: usize = 64;
const PART: usize = 8;

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

/// A matrix's rows as they are when they are rounded.
fn rounded(kernels: &Kernels, weights: &[f32], columns: usize) -> Result<Vec<f32>> {
    let bytes = FORMAT.row_bytes(columns).context("a row is no whole number of blocks")?;
    let mut rounded = vec![0.0; weights.len()];
    let rows = weights.par_chunks_exact(columns).zip(rounded.par_chunks_exact_mut(columns));
    rows.try_for_each(|(row, out)| {
        let mut encoded = vec![0; bytes];
        kernels.encode_row(FORMAT, row, &mut encoded)?;
        decode_row(FORMAT, &encoded, out);
        Ok::<_, anyhow::Error>(())
    })?;
    Ok(rounded)
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

/// Rounds a matrix where it is stored; one whose rows are no whole blocks stays.
///
/// # Errors
/// When it holds values that are no numbers.
pub fn round_in_place(tensor: &TensorInfo, bytes: &mut [u8]) -> Result<()> {
    let Some(Stored { format, columns, row_bytes, name }) = Stored::of(tensor) else { return Ok(()) };
    let kernels = Kernels::select(None)?;
    bytes
        .par_chunks_mut(PART * row_bytes)
        .try_for_each(|part| {
            let mut weights = vec![0.0; part.len() / row_bytes * columns];
            for (row, weights) in part.chunks_exact(row_bytes).zip(weights.chunks_exact_mut(columns)) {
                decode_row(format, row, weights);
            }
            let rounded = rounded(&kernels, &weights, columns)?;
            for (row, rounded) in part.chunks_exact_mut(row_bytes).zip(rounded.chunks_exact(columns)) {
                kernels.encode_row(format, rounded, row)?;
            }
            anyhow::Ok(())
        })
        .with_context(|| format!("tensor '{name}'"))
}

/// What rounding a matrix does to its outputs: the mean square of their errors as a share of theirs, from some of its rows. None where its rows
/// are no whole blocks.
///
/// # Errors
/// When it holds values that are no numbers, or the moments are not those of its inputs.
pub fn error_of_rounding(tensor: &TensorInfo, bytes: &[u8], moments: &Moments) -> Result<Option<f64>> {
    let Some(Stored { format, columns, row_bytes, name }) = Stored::of(tensor) else { return Ok(None) };
    let mut weights = Vec::new();
    for rows in sample(bytes.len() / row_bytes) {
        for row in bytes[rows.start * row_bytes..rows.end * row_bytes].chunks_exact(row_bytes) {
            let start = weights.len();
            weights.resize(start + columns, 0.0);
            decode_row(format, row, &mut weights[start..]);
        }
    }
    let rounded = rounded(&Kernels::select(None)?, &weights, columns).with_context(|| format!("tensor '{name}'"))?;
    relative_error(moments, &weights, &rounded).with_context(|| format!("tensor '{name}'")).map(Some)
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
