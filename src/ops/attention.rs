//! Attention: the product form for whole prefixes and pictures, the row form for one generated token.

use gemmule_quant::kernels::{FloatRows, TileOut};
use gemmule_quant::{Format, PANEL_ROWS};

use super::Compute;

/// Queries that share one pass over the keys.
const QUERY_TILE: usize = 24;

/// The shape and scaling of an attention layer.
#[derive(Clone, Copy, Debug)]
pub struct AttentionShape {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; query heads share them in groups.
    pub kv_heads: usize,
    /// Values of a head.
    pub head_dim: usize,
    /// Factor on the scores.
    pub scale: f32,
    /// Scores become `cap · tanh(score / cap)`.
    pub softcap: Option<f32>,
}

/// Keys and values laid out for the product form.
#[derive(Debug, Default)]
pub struct AttentionBuffer {
    /// `[kv_heads][head_dim][padded tokens]`.
    keys: Vec<f32>,
    /// `[kv_heads][tokens][padded head_dim]`.
    values: Vec<f32>,
}

/// Attention without a mask: every one of the tokens sees all of them. `q` is `[tokens][heads · head_dim]`, `k` and `v`
/// `[tokens][kv_heads · head_dim]`, `out` as `q`.
pub fn attend_all(
    compute: &Compute,
    shape: &AttentionShape,
    (q, k, v): (&[f32], &[f32], &[f32]),
    buffer: &mut AttentionBuffer,
    out: &mut [f32],
) {
    let &AttentionShape { heads, kv_heads, head_dim, .. } = shape;
    let tokens = q.len() / (heads * head_dim);
    let padded_tokens = tokens.next_multiple_of(PANEL_ROWS);
    let padded_dim = head_dim.next_multiple_of(PANEL_ROWS);
    buffer.keys.resize(kv_heads * head_dim * padded_tokens, 0.0);
    buffer.values.resize(kv_heads * tokens * padded_dim, 0.0);
    compute.pool.rows(&mut buffer.keys, padded_tokens, |index, row| {
        for (token, out) in row.iter_mut().enumerate() {
            *out = if token < tokens { k[token * kv_heads * head_dim + index] } else { 0.0 };
        }
    });
    compute.pool.rows(&mut buffer.values, padded_dim, |index, row| {
        let (head, token) = (index / tokens, index % tokens);
        row[..head_dim].copy_from_slice(&v[(token * kv_heads + head) * head_dim..][..head_dim]);
        row[head_dim..].fill(0.0);
    });
    let buffer = &*buffer;
    compute.pool.blocks(out, heads * head_dim, (QUERY_TILE, head_dim), |worker, mut block| {
        let scratch = &mut *compute.scratch.of(worker);
        let head = block.columns().start / head_dim;
        let kv_head = head / (heads / kv_heads);
        let rows = block.rows().len();
        scratch.queries.clear();
        for row in block.rows() {
            let query = &q[row * heads * head_dim + head * head_dim..][..head_dim];
            scratch.queries.extend(query.iter().map(|q| q * shape.scale));
        }
        scratch.scores.resize(rows * padded_tokens, 0.0);
        let keys = &buffer.keys[kv_head * head_dim * padded_tokens..][..head_dim * padded_tokens];
        let queries = FloatRows { values: &scratch.queries, stride: head_dim, rows, k: head_dim };
        for token in (0..padded_tokens).step_by(PANEL_ROWS) {
            let out = TileOut { values: &mut scratch.scores[token..], stride: padded_tokens, accumulate: false };
            compute.kernels.float_tile(&keys[token..], padded_tokens, queries, out);
        }
        for scores in scratch.scores.chunks_exact_mut(padded_tokens) {
            let scores = &mut scores[..tokens];
            if let Some(cap) = shape.softcap {
                compute.kernels.softcap(scores, cap);
            }
            compute.kernels.softmax(scores);
        }
        scratch.tile.resize(rows * padded_dim, 0.0);
        let values = &buffer.values[kv_head * tokens * padded_dim..][..tokens * padded_dim];
        let scores = FloatRows { values: &scratch.scores, stride: padded_tokens, rows, k: tokens };
        for column in (0..padded_dim).step_by(PANEL_ROWS) {
            let out = TileOut { values: &mut scratch.tile[column..], stride: padded_dim, accumulate: false };
            compute.kernels.float_tile(&values[column..], padded_dim, scores, out);
        }
        for (row, result) in block.rows().zip(scratch.tile.chunks_exact(padded_dim)) {
            block.row_mut(row).copy_from_slice(&result[..head_dim]);
        }
    });
}

/// Attention of one token over cached keys and values, each `[tokens][kv_heads · head_dim]` in half precision. `q` and
/// `out` are `[heads · head_dim]`.
pub fn attend_cached(compute: &Compute, shape: &AttentionShape, q: &[f32], (k, v): (&[u16], &[u16]), out: &mut [f32]) {
    let &AttentionShape { heads, kv_heads, head_dim, .. } = shape;
    let row_len = kv_heads * head_dim;
    compute.pool.blocks(out, heads * head_dim, (1, head_dim), |worker, mut block| {
        let scratch = &mut *compute.scratch.of(worker);
        let columns = block.columns();
        let kv_head = columns.start / head_dim / (heads / kv_heads);
        let query = &q[columns];
        let head = kv_head * head_dim..(kv_head + 1) * head_dim;
        scratch.scores.clear();
        for row in k.chunks_exact(row_len) {
            let key = bytemuck::cast_slice(&row[head.clone()]);
            scratch.scores.push(compute.kernels.dot_float(Format::F16, key, query) * shape.scale);
        }
        if let Some(cap) = shape.softcap {
            compute.kernels.softcap(&mut scratch.scores, cap);
        }
        compute.kernels.softmax(&mut scratch.scores);
        let out = block.row_mut(0);
        out.fill(0.0);
        for (row, weight) in v.chunks_exact(row_len).zip(&scratch.scores) {
            compute.kernels.add_scaled_half(*weight, bytemuck::cast_slice(&row[head.clone()]), out);
        }
    });
}
