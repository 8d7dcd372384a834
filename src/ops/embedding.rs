//! Looking up embedding rows.

use gemmule_quant::{MatrixView, decode_row};

/// `out[i] = scale · table[token[i]]`; Gemma scales text embeddings by sqrt(hidden).
///
/// # Panics
/// When a token has no row.
pub(crate) fn embed(table: MatrixView<'_>, tokens: &[u32], scale: f32, out: &mut [f32]) {
    for (token, out) in tokens.iter().zip(out.chunks_exact_mut(table.columns())) {
        decode_row(table.format(), table.row(*token as usize), out);
        for value in out {
            *value *= scale;
        }
    }
}
