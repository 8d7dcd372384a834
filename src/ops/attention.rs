//! Attention of whole prefixes and pictures; generated tokens have `cached_attention`. Neither holds the
//! scores of more than a tile of keys: a running softmax carries greatest score and sum from tile to tile.

use std::ops::Range;

use gemmule_quant::kernels::{FloatPanels, FloatRows, TileOut};
use gemmule_quant::matrix_unit::{AlignedFloats, Operand, Pieces, TILE_ROWS};
use gemmule_quant::{Kernels, MatrixUnit, PANEL_ROWS};

use super::{Compute, WorkerScratch};
use crate::sched::{Block, Output};

/// Queries that share one pass over the keys; half as many where tasks would be few. A query's result does not depend on it.
const QUERY_TILE: usize = 192;
/// Queries that share one pass in a matrix unit: two strips.
const UNIT_QUERIES: usize = 2 * TILE_ROWS;
/// Keys in a tile: their panels and the scores stay in the second-level cache.
const KEY_TILE: usize = 256;
const _: () = assert!(KEY_TILE.is_multiple_of(2), "tokens in pairs share a tile");

/// The shape and scaling of an attention layer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AttentionShape {
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
    /// bf16 terms that a matrix unit splits each number into.
    pub pieces: Pieces,
}

/// Queries, `[queries][heads · head_dim]`, and keys and values, `[tokens][kv_heads · head_dim]`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Qkv<'a> {
    /// Queries.
    pub q: &'a [f32],
    /// Keys.
    pub k: &'a [f32],
    /// Values.
    pub v: &'a [f32],
}

/// Keys and values laid out for the product form.
#[derive(Debug, Default)]
pub(crate) struct AttentionBuffer {
    /// `[kv_heads][padded tokens / 16][head_dim][16]`.
    keys: AlignedFloats,
    /// `[kv_heads]`, each as [`ValuePanels`] lays them out.
    values: AlignedFloats,
    /// The same for a matrix unit, heads one behind the other: keys as rows, values as a matrix.
    key_tiles: Operand,
    value_tiles: Operand,
}

/// Attention without a mask: every query sees all tokens. `out` is as the queries.
pub(crate) fn attend_all(
    compute: &Compute,
    shape: &AttentionShape,
    inputs: Qkv<'_>,
    buffer: &mut AttentionBuffer,
    out: &mut [f32],
) {
    match compute.kernels.matrix_unit() {
        Some(unit) => attend_in_unit(compute, unit, shape, inputs, buffer, out),
        None => attend_in_panels(compute, shape, inputs, buffer, out),
    }
}

/// [`attend_all`] in panels.
fn attend_in_panels(
    compute: &Compute,
    shape: &AttentionShape,
    Qkv { q, k, v }: Qkv<'_>,
    buffer: &mut AttentionBuffer,
    out: &mut [f32],
) {
    let &AttentionShape { heads, kv_heads, head_dim, .. } = shape;
    let (row_len, kv_len) = (heads * head_dim, kv_heads * head_dim);
    let tokens = k.len() / kv_len;
    let padded_tokens = tokens.next_multiple_of(PANEL_ROWS);
    let layout = ValuePanels::new(tokens, head_dim);
    let padded_dim = layout.padded_dim;
    buffer.keys.resize(kv_heads * padded_tokens * head_dim);
    buffer.values.resize(kv_heads * layout.len());
    compute.pool.rows(&mut buffer.keys, head_dim * PANEL_ROWS, |index, panel| {
        let panels = padded_tokens / PANEL_ROWS;
        let (head, first) = (index / panels, index % panels * PANEL_ROWS);
        for lane in 0..PANEL_ROWS {
            let key = (first + lane < tokens).then(|| &k[(first + lane) * kv_len + head * head_dim..][..head_dim]);
            for (i, values) in panel.chunks_exact_mut(PANEL_ROWS).enumerate() {
                values[lane] = key.map_or(0.0, |key| key[i]);
            }
        }
    });
    compute.pool.rows(&mut buffer.values, layout.stride(), |index, panel| {
        let panels = padded_dim / PANEL_ROWS;
        let (head, first) = (index / panels, index % panels * PANEL_ROWS);
        layout.fill(panel, first, |token| &v[token * kv_len + head * head_dim..][..head_dim]);
    });
    let (keys, values) = (&buffer.keys[..], &buffer.values[..]);
    let few = (out.len() / row_len).div_ceil(QUERY_TILE) * heads < 4 * compute.pool.threads();
    let query_tile = if few { QUERY_TILE / 2 } else { QUERY_TILE };
    let out = Output::new(out, row_len).divided(heads, head_dim);
    compute.pool.blocks([out], query_tile, |worker, _, mut block| {
        let scratch = &mut *compute.scratch.of(worker);
        let head = block.columns().start / head_dim;
        let kv_head = head / (heads / kv_heads);
        let rows = block.rows().len();
        scratch.scaled.clear();
        for row in block.rows() {
            let query = &q[row * row_len + head * head_dim..][..head_dim];
            scratch.scaled.extend(query.iter().map(|q| q * shape.scale));
        }
        let queries = FloatRows { values: &scratch.scaled, stride: head_dim, rows, k: head_dim };
        scratch.tile.resize(rows * padded_dim);
        scratch.tile.fill(0.0);
        scratch.scores.resize(QUERY_TILE * KEY_TILE);
        let mut running = [(f32::NEG_INFINITY, 0.0f32); QUERY_TILE];
        for first in (0..tokens).step_by(KEY_TILE) {
            let count = KEY_TILE.min(tokens - first);
            let panels = FloatPanels {
                values: &keys[(kv_head * padded_tokens + first) * head_dim..],
                stride: head_dim * PANEL_ROWS,
                count: count.div_ceil(PANEL_ROWS),
            };
            let out = TileOut { values: &mut scratch.scores, stride: KEY_TILE, accumulate: false };
            compute.kernels.float_tiles(panels, queries, out);
            let results = scratch.tile.chunks_exact_mut(padded_dim);
            fold_rows(compute.kernels, shape, &mut scratch.scores, count, running[..rows].iter_mut().zip(results));
            let panels = &values[kv_head * layout.len()..][..layout.len()];
            layout.add_products(compute.kernels, panels, first..first + count, &mut scratch.scores, &mut scratch.tile);
        }
        layout.join_pairs(&mut scratch.tile);
        store(compute.kernels, running.iter().zip(scratch.tile.chunks_exact_mut(padded_dim)), &mut block);
    });
}

/// How the values of a head lie in panels: `[padded head_dim / 16][tokens, an even number][16]`. Where the last panel would hold no
/// more than eight columns, its first half has two tokens in a line, `[tokens / 2][8][2]`, and takes half as many products.
#[derive(Clone, Copy)]
struct ValuePanels {
    tokens: usize,
    head_dim: usize,
    padded_dim: usize,
    /// Columns before those in pairs; all where there are none.
    whole: usize,
}

impl ValuePanels {
    fn new(tokens: usize, head_dim: usize) -> Self {
        let padded_dim = head_dim.next_multiple_of(PANEL_ROWS);
        let paired = padded_dim - head_dim >= PANEL_ROWS / 2;
        let whole = if paired { padded_dim - PANEL_ROWS } else { padded_dim };
        Self { tokens, head_dim, padded_dim, whole }
    }

    /// Numbers from a panel to the next.
    fn stride(&self) -> usize {
        self.tokens.next_multiple_of(2) * PANEL_ROWS
    }

    /// Numbers of a head.
    fn len(&self) -> usize {
        self.padded_dim / PANEL_ROWS * self.stride()
    }

    /// Fills the panel of the columns from `first` on with those of each token's values.
    fn fill<'a>(&self, panel: &mut [f32], first: usize, values: impl Fn(usize) -> &'a [f32]) {
        let columns = first..self.head_dim.min(first + PANEL_ROWS);
        let together = if first < self.whole { 1 } else { 2 };
        panel.fill(0.0);
        for token in 0..self.tokens {
            let line = &mut panel[token / together * PANEL_ROWS..][..PANEL_ROWS];
            for (place, value) in line.chunks_exact_mut(together).zip(&values(token)[columns.clone()]) {
                place[token % together] = *value;
            }
        }
    }

    /// Adds to `tile`, `[rows][padded_dim]`, the products of scores, `KEY_TILE` apart, with the values of `tokens`.
    fn add_products(
        &self,
        kernels: Kernels,
        panels: &[f32],
        tokens: Range<usize>,
        scores: &mut [f32],
        tile: &mut [f32],
    ) {
        let (first, count, rows) = (tokens.start, tokens.len(), tile.len() / self.padded_dim);
        let (stride, even) = (self.stride(), count.next_multiple_of(2));
        let x = FloatRows { values: scores, stride: KEY_TILE, rows, k: count };
        let out = TileOut { values: tile, stride: self.padded_dim, accumulate: true };
        let whole = FloatPanels { values: &panels[first * PANEL_ROWS..], stride, count: self.whole / PANEL_ROWS };
        kernels.float_tiles(whole, x, out);
        if self.whole == self.padded_dim {
            return;
        }
        if count < even {
            scores.chunks_exact_mut(KEY_TILE).for_each(|scores| scores[count] = 0.0);
        }
        let panel = &panels[self.whole / PANEL_ROWS * stride + first / 2 * PANEL_ROWS..][..even / 2 * PANEL_ROWS];
        let x = FloatRows { values: scores, stride: KEY_TILE, rows, k: even };
        let out = TileOut { values: &mut tile[self.whole..], stride: self.padded_dim, accumulate: true };
        kernels.pair_tile(panel, x, out);
    }

    /// Makes one sum of the two that each column in pairs has.
    fn join_pairs(&self, tile: &mut [f32]) {
        for result in tile.chunks_exact_mut(self.padded_dim) {
            let paired = &mut result[self.whole..];
            for column in 0..self.head_dim.saturating_sub(self.whole) {
                paired[column] = paired[2 * column] + paired[2 * column + 1];
            }
        }
    }
}

/// [`attend_all`] in a matrix unit.
fn attend_in_unit(
    compute: &Compute,
    unit: MatrixUnit,
    shape: &AttentionShape,
    Qkv { q, k, v }: Qkv<'_>,
    buffer: &mut AttentionBuffer,
    out: &mut [f32],
) {
    let &AttentionShape { heads, kv_heads, head_dim, pieces, .. } = shape;
    let (row_len, kv_len) = (heads * head_dim, kv_heads * head_dim);
    let tokens = k.len() / kv_len;
    let (key_strips, value_strips) = (tokens.div_ceil(TILE_ROWS), head_dim.div_ceil(TILE_ROWS));
    let padded_dim = value_strips * TILE_ROWS;
    let AttentionBuffer { key_tiles, value_tiles, .. } = buffer;
    key_tiles.resize(kv_heads * key_strips * TILE_ROWS, head_dim, pieces);
    value_tiles.resize(kv_heads * padded_dim, tokens, pieces);
    compute.pool.each(key_tiles.strips_mut(), |index, strip| {
        let (head, first) = (index / key_strips, index % key_strips * TILE_ROWS);
        let rows = TILE_ROWS.min(tokens - first);
        let keys = FloatRows { values: &k[first * kv_len + head * head_dim..], stride: kv_len, rows, k: head_dim };
        unit.pack_right(keys, pieces, strip);
    });
    compute.pool.each(value_tiles.strips_mut(), |index, strip| {
        let (head, first) = (index / value_strips, index % value_strips * TILE_ROWS);
        let width = TILE_ROWS.min(head_dim - first);
        let values = FloatRows { values: &v[head * head_dim + first..], stride: kv_len, rows: tokens, k: width };
        unit.pack_right_columns(values, pieces, strip);
    });
    let out = Output::new(out, row_len).divided(heads, head_dim);
    compute.pool.blocks([out], UNIT_QUERIES, |worker, _, mut block| {
        let scratch = &mut *compute.scratch.of(worker);
        let WorkerScratch { queries, scores, tile, weights, .. } = scratch;
        let head = block.columns().start / head_dim;
        let kv_head = head / (heads / kv_heads);
        let keys = key_tiles.view(kv_head * key_strips, key_strips);
        let values = value_tiles.view(kv_head * value_strips, value_strips);
        let rows = block.rows().len();
        let strips = rows.div_ceil(TILE_ROWS);
        scores.resize(UNIT_QUERIES * KEY_TILE.max(head_dim));
        for (row, scaled) in block.rows().zip(scores.chunks_exact_mut(head_dim)) {
            scaled.copy_from_slice(&q[row * row_len + head * head_dim..][..head_dim]);
            compute.kernels.scale(scaled, shape.scale);
        }
        let scaled = FloatRows { values: scores, stride: head_dim, rows, k: head_dim };
        pack_rows(unit, scaled, pieces, queries);
        tile.resize(strips * TILE_ROWS * padded_dim);
        tile.fill(0.0);
        let mut running = [(f32::NEG_INFINITY, 0.0f32); UNIT_QUERIES];
        for first in (0..tokens).step_by(KEY_TILE) {
            let count = KEY_TILE.min(tokens - first);
            let tile_of_keys = keys.strips(first / TILE_ROWS, count.div_ceil(TILE_ROWS));
            let target = TileOut { values: scores, stride: KEY_TILE, accumulate: false };
            unit.multiply(queries.view(0, strips), tile_of_keys, target);
            let results = tile.chunks_exact_mut(padded_dim);
            fold_rows(compute.kernels, shape, scores, count, running[..rows].iter_mut().zip(results));
            pack_rows(unit, FloatRows { values: scores, stride: KEY_TILE, rows, k: count }, pieces, weights);
            let target = TileOut { values: tile, stride: padded_dim, accumulate: true };
            unit.multiply(weights.view(0, strips), values.k_block(first, count), target);
        }
        store(compute.kernels, running.iter().zip(tile.chunks_exact_mut(padded_dim)), &mut block);
    });
}

/// Packs rows as an operand's strips.
fn pack_rows(unit: MatrixUnit, x: FloatRows<'_>, pieces: Pieces, operand: &mut Operand) {
    operand.resize(x.rows, x.k, pieces);
    for (first, strip) in (0..x.rows).step_by(TILE_ROWS).zip(operand.strips_mut()) {
        let values = &x.values[first * x.stride..];
        unit.pack_left(FloatRows { values, rows: TILE_ROWS.min(x.rows - first), ..x }, pieces, strip);
    }
}

/// Greatest score and sum of a query so far.
pub(super) type Running = (f32, f32);

/// [`fold_tile`] for `count` scores of each of the queries, `KEY_TILE` apart.
fn fold_rows<'a>(
    kernels: Kernels,
    shape: &AttentionShape,
    scores: &mut [f32],
    count: usize,
    queries: impl Iterator<Item = (&'a mut Running, &'a mut [f32])>,
) {
    for (scores, (running, result)) in scores.chunks_exact_mut(KEY_TILE).zip(queries) {
        fold_tile(kernels, shape, &mut scores[..count], running, result);
    }
}

/// Scales the queries' results by their sums and stores them.
fn store<'a>(
    kernels: Kernels,
    queries: impl Iterator<Item = (&'a Running, &'a mut [f32])>,
    block: &mut Block<'_, f32>,
) {
    let head_dim = block.columns().len();
    for (row, ((_, sum), result)) in block.rows().zip(queries) {
        kernels.scale(&mut result[..head_dim], 1.0 / sum);
        block.row_mut(row).copy_from_slice(&result[..head_dim]);
    }
}

/// Turns a tile's scores into unscaled weights; a greater score than before shrinks the results so far.
pub(super) fn fold_tile(
    kernels: Kernels,
    shape: &AttentionShape,
    scores: &mut [f32],
    (largest, sum): &mut Running,
    result: &mut [f32],
) {
    if let Some(cap) = shape.softcap {
        kernels.softcap(scores, cap);
    }
    let (new_largest, tile_sum) = kernels.softmax_tile(scores, *largest);
    if new_largest > *largest && *sum > 0.0 {
        let shrink = gemmule_quant::vector::exp(*largest - new_largest);
        kernels.scale(result, shrink);
        *sum *= shrink;
    }
    (*largest, *sum) = (new_largest, *sum + tile_sum);
}
