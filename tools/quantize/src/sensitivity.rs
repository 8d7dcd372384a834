//! How far errors of a model's matrices move its answers, measured: some matrices at a time are rounded to 4 bits, and what that does to the
//! probabilities of answers is divided by how large the errors of the matrices' outputs are. Small errors act in proportion to their squares,
//! and those of different matrices add up (HIGGS, arXiv 2411.17525, theorem 1), so that this tells what other types would do.

use std::collections::BTreeMap;
use std::ops::Range;

use anyhow::{Context, Result, ensure};
use gemmule::CancelHandle;
use gemmule::gguf::keys::tensor::TOKEN_EMBEDDING;
use gemmule::gguf::{Gguf, TensorInfo};
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

/// A matrix's name without its layer, and the layer if it has one: `blk.3.attn_q.weight` is `attn_q` and 3, with a `v.` before it in the tower.
pub(crate) fn without_layer(tensor: &str) -> (String, Option<usize>) {
    let name = tensor.trim_end_matches(".weight");
    let parts = name.split_once("blk.").and_then(|(half, rest)| Some((half, rest.split_once('.')?)));
    match parts.and_then(|(half, (layer, part))| Some((half, layer.parse().ok()?, part))) {
        Some((half, layer, part)) => (format!("{half}{part}"), Some(layer)),
        None => (name.to_owned(), None),
    }
}

/// Matrices of one kind act alike.
fn kind(name: &str) -> String {
    let (half, part) = name.split_at(if name.starts_with("v.") { 2 } else { 0 });
    let kind = match part {
        "attn_q" | "attn_k" => "query and key",
        "attn_v" | "attn_output" | "attn_out" => "value and output",
        "ffn_gate" | "ffn_up" => "up",
        other => other,
    };
    format!("{half}{kind}")
}

/// The matrices that statistics are of, in groups.
pub fn groups(statistics: &Statistics) -> Vec<Group> {
    let half = |tensor: &str| tensor.starts_with("v.");
    let mut layers = [1; 2];
    for tensor in statistics.tensors() {
        if let (_, Some(layer)) = without_layer(tensor) {
            let count = &mut layers[usize::from(half(tensor))];
            *count = layer.saturating_add(1).max(*count);
        }
    }
    let mut groups: BTreeMap<(String, usize), Vec<String>> = BTreeMap::new();
    for tensor in statistics.tensors() {
        let (name, layer) = without_layer(tensor);
        let depth = layer.map_or(0, |layer| layer.saturating_mul(DEPTHS) / layers[usize::from(half(tensor))]);
        groups.entry((kind(&name), depth)).or_default().push(tensor.to_owned());
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
enum Rounder {
    /// Each by itself.
    Plain(Kernels),
    Calibrated(Rounding),
}

impl Rounder {
    /// Rows of `columns` values, whole blocks, as they are when they are rounded.
    fn round(&self, weights: &[f32], columns: usize) -> Result<Vec<f32>> {
        let row_bytes = FORMAT.row_bytes(columns).context("a row is no whole number of blocks")?;
        let mut encoded = vec![0; weights.len() / columns * row_bytes];
        match self {
            Self::Calibrated(rounding) => rounding.round(FORMAT, weights, &mut encoded)?,
            Self::Plain(kernels) => kernels.encode_row(FORMAT, weights, &mut encoded)?,
        }
        Ok(decoded(FORMAT, &encoded, columns))
    }
}

/// Rows as numbers.
pub(crate) fn decoded(format: Format, bytes: &[u8], columns: usize) -> Vec<f32> {
    let row_bytes = format.row_bytes(columns).expect("whole blocks");
    let mut values = vec![0.0; bytes.len() / row_bytes * columns];
    for (row, values) in bytes.chunks_exact(row_bytes).zip(values.chunks_exact_mut(columns)) {
        decode_row(format, row, values);
    }
    values
}

/// Checks that a model's file has more bits than are taken from it.
///
/// # Errors
/// When a matrix has fewer than 8.
pub fn check(file: &Gguf) -> Result<()> {
    file.tensors().iter().try_for_each(|tensor| fine_format(tensor).map(drop))
}

fn fine_format(tensor: &TensorInfo) -> Result<Format> {
    let format = tensor.format.filter(|format| format.bits_per_weight() >= 8.0);
    format.with_context(|| {
        format!("tensor '{}' is {}: take a bf16, f32 or q8_0 file to measure on", tensor.name, tensor.type_name())
    })
}

/// Rounds a matrix where it is stored, and says what that does to its outputs: the mean square of their errors as a share of theirs, from some
/// of its rows.
///
/// # Errors
/// When it holds values that are no numbers or too few bits, the statistics are of another matrix, or `stop` is cancelled.
pub fn round_in_place(
    tensor: &TensorInfo,
    bytes: &mut [u8],
    statistics: &Statistics,
    stop: &CancelHandle,
) -> Result<f64> {
    let name = &tensor.name;
    let columns = usize::try_from(tensor.dimensions.first().copied().unwrap_or(0))?;
    let format = fine_format(tensor)?;
    let row_bytes = format.row_bytes(columns).with_context(|| format!("tensor '{name}' has no whole rows"))?;
    // A row is filled with zeros up to whole blocks.
    let wide = columns.next_multiple_of(FORMAT.info().block_len);
    let moments = statistics.moments(name)?.padded(wide);
    let kernels = Kernels::select(None)?;
    // The embedding has a second use, which its rounding must not forget.
    let rounder = match name == TOKEN_EMBEDDING {
        true => Rounder::Calibrated(statistics.rounding(name, &moments)?),
        false => Rounder::Plain(kernels),
    };
    let filled = |rows: &[u8]| -> Vec<f32> {
        let narrow = decoded(format, rows, columns);
        let rows = narrow.chunks_exact(columns);
        rows.flat_map(|row| row.iter().copied().chain(std::iter::repeat_n(0.0, wide - columns))).collect()
    };
    let context = || format!("tensor '{name}'");
    let rows = sample(bytes.len() / row_bytes);
    let weights: Vec<f32> =
        rows.flat_map(|rows| filled(&bytes[rows.start * row_bytes..rows.end * row_bytes])).collect();
    let rounded = rounder.round(&weights, wide).with_context(context)?;
    let error = relative_error(&moments, &weights, &rounded).with_context(context)?;
    let task = |part: &mut [u8]| -> Result<()> {
        ensure!(!stop.is_cancelled(), "interrupted");
        let rounded = rounder.round(&filled(part), wide)?;
        for (row, rounded) in part.chunks_exact_mut(row_bytes).zip(rounded.chunks_exact(wide)) {
            kernels.encode_row(format, &rounded[..columns], row)?;
        }
        Ok(())
    };
    bytes.par_chunks_mut(TASK * row_bytes).try_for_each(task).with_context(context)?;
    Ok(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_and_layers_are_told_apart() {
        let of = |tensor| {
            let (name, layer) = without_layer(tensor);
            (kind(&name), layer)
        };
        assert_eq!(of("blk.7.attn_q.weight"), of("blk.7.attn_k.weight"));
        assert_ne!(of("blk.7.attn_q.weight").0, of("v.blk.7.attn_q.weight").0);
        assert_eq!(of("blk.25.ffn_down.weight"), ("ffn_down".to_owned(), Some(25)));
        assert_eq!(of("token_embd.weight"), ("token_embd".to_owned(), None));
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
