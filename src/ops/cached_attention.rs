//! Attention of generated tokens over their caches, in tiles of cached tokens whose results are put together at the end.

use gemmule_quant::{Format, Kernels, StridedRows};

use super::Compute;
use super::attention::{AttentionShape, fold_tile};
use crate::sched::Output;

/// Cached tokens in one task of the row form: all query heads of a key head find the keys, and then the values, in a core's own
/// cache. A fixed number: results must not depend on the number of threads.
const CACHE_TILE: usize = 256;

/// Partial results of the sequences' tiles.
#[derive(Debug, Default)]
pub(crate) struct CachedAttentionBuffer {
    /// `[tiles of cached tokens][heads][head_dim + 2]`, each sequence's behind the other: unscaled results, greatest score, sum.
    partial: Vec<f32>,
    /// Which sequence each of these tiles belongs to, and which of its tiles it is.
    tiles: Vec<(usize, usize)>,
}

/// Keys and values of one head for later tokens, each `[tokens][head_dim]` in half precision: a token's attention reads them one
/// behind the other.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct CachedHead {
    /// Rotated keys.
    pub keys: Vec<u16>,
    /// Values.
    pub values: Vec<u16>,
}

/// What a token sees of a layer's cache: the tokens from `first` on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen<'a> {
    /// `[kv_heads]`.
    pub heads: &'a [CachedHead],
    /// The first token.
    pub first: usize,
}

impl Seen<'_> {
    /// How many tiles of tokens they are.
    fn tiles(&self, head_dim: usize) -> usize {
        (self.heads[0].keys.len() / head_dim - self.first).div_ceil(CACHE_TILE)
    }
}

/// Attention of one token of each sequence over the cached keys and values that it sees. `q` and `out` are
/// `[sequences][heads · head_dim]`. A sequence's results depend on no other.
pub(crate) fn attend_cached(
    compute: &Compute,
    shape: &AttentionShape,
    q: &[f32],
    seen: &[Seen<'_>],
    buffer: &mut CachedAttentionBuffer,
    out: &mut [f32],
) {
    let &AttentionShape { heads, kv_heads, head_dim, .. } = shape;
    let (group, row_len, part_len) = (heads / kv_heads, heads * head_dim, head_dim + 2);
    let CachedAttentionBuffer { partial, tiles } = buffer;
    tiles.clear();
    for (sequence, seen) in seen.iter().enumerate() {
        tiles.extend((0..seen.tiles(head_dim)).map(|tile| (sequence, tile)));
    }
    partial.resize(tiles.len() * heads * part_len, 0.0);
    // A task: one tile of tokens and one key head, for all the query heads that share it.
    let parts = Output::new(partial, heads * part_len).divided(kv_heads, group * part_len);
    compute.pool.blocks([parts], 1, |worker, _, mut block| {
        let scratch = &mut *compute.scratch.of(worker);
        let (row, kv_head) = (block.rows().start, block.columns().start / (group * part_len));
        let (sequence, tile) = tiles[row];
        let Seen { heads: cached, first } = seen[sequence];
        let CachedHead { keys, values } = &cached[kv_head];
        let [keys, values] = [keys, values].map(|cached| {
            let tile = cached[first * head_dim..].chunks(CACHE_TILE * head_dim).nth(tile).expect("a tile of tokens");
            let count = tile.len() / head_dim;
            StridedRows::new(Format::F16, count, head_dim, 2 * head_dim, bytemuck::cast_slice(tile))
                .expect("whole tokens")
        });
        let count = keys.rows();
        let queries = q[sequence * row_len + kv_head * group * head_dim..].chunks_exact(head_dim);
        scratch.scores.resize(group * count);
        for (query, scores) in queries.zip(scratch.scores.chunks_exact_mut(count)) {
            compute.kernels.dot_float(keys, query, scores);
        }
        let parts = block.row_mut(row).chunks_exact_mut(part_len);
        for (scores, part) in scratch.scores.chunks_exact_mut(count).zip(parts) {
            compute.kernels.scale(scores, shape.scale);
            part.fill(0.0);
            let mut running = (f32::NEG_INFINITY, 0.0);
            fold_tile(compute.kernels, shape, scores, &mut running, &mut part[..head_dim]);
            compute.kernels.add_scaled(scores, values, &mut part[..head_dim]);
            (part[head_dim], part[head_dim + 1]) = running;
        }
    });
    compute.pool.rows(out, row_len, |sequence, out| {
        let first = tiles.partition_point(|(other, _)| *other < sequence);
        let parts = &partial[first * heads * part_len..][..seen[sequence].tiles(head_dim) * heads * part_len];
        for (head, out) in out.chunks_exact_mut(head_dim).enumerate() {
            join_tiles(compute.kernels, parts.chunks_exact(part_len).skip(head).step_by(heads), out);
        }
    });
}

/// One head's result of those of its tiles.
fn join_tiles<'a>(kernels: Kernels, parts: impl Iterator<Item = &'a [f32]> + Clone, out: &mut [f32]) {
    let head_dim = out.len();
    let largest = parts.clone().fold(f32::NEG_INFINITY, |largest, part| largest.max(part[head_dim]));
    out.fill(0.0);
    let mut sum = 0.0;
    for part in parts {
        let weight = gemmule_quant::vector::exp(part[head_dim] - largest);
        sum += weight * part[head_dim + 1];
        for (out, value) in out.iter_mut().zip(part) {
            *out += weight * value;
        }
    }
    kernels.scale(out, 1.0 / sum);
}

#[cfg(test)]
mod tests {
    use gemmule_quant::isa;
    use gemmule_quant::matrix_unit::Pieces;
    use half::f16;

    use super::super::attention::{AttentionBuffer, Qkv, attend_all};
    use super::*;

    /// A token's attention over the cache, of several tiles and from a later token on, is the last row of the product form's.
    /// Heads of whole panels, with columns in pairs behind them or alone, and with a panel that is not full.
    #[test]
    fn cached_tokens_are_attended_as_a_prefix_is() {
        for head_dim in [48, 40, 8, 13] {
            check_cached_tokens(head_dim);
        }
    }

    fn check_cached_tokens(head_dim: usize) {
        let shape =
            AttentionShape { heads: 4, kv_heads: 2, head_dim, scale: 0.3, softcap: Some(5.0), pieces: Pieces::Two };
        let tokens = 2 * CACHE_TILE + 77;
        let wave = |count: usize, step: f32| -> Vec<f32> {
            (0..count).map(|i| f16::from_f32((i as f32 * step).sin() * 2.0).to_f32()).collect()
        };
        let (q_len, kv_len) = (shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim);
        let (q, k, v) = (wave(tokens * q_len, 0.7), wave(tokens * kv_len, 1.3), wave(tokens * kv_len, 2.9));
        let head = |values: &[f32], head: usize| -> Vec<u16> {
            let rows = values.chunks_exact(kv_len).flat_map(|row| &row[head * shape.head_dim..][..shape.head_dim]);
            rows.map(|value| f16::from_f32(*value).to_bits()).collect()
        };
        let cached: Vec<CachedHead> =
            (0..shape.kv_heads).map(|index| CachedHead { keys: head(&k, index), values: head(&v, index) }).collect();
        for isa in isa::available() {
            // Used again for fewer tokens, as in a session.
            let mut buffer = AttentionBuffer::default();
            let mut cached_buffer = CachedAttentionBuffer::default();
            let mut run = |threads: usize, first: usize| {
                let compute = Compute::new(Some(isa.name()), threads).unwrap();
                let (mut all, mut one) = (vec![0.0; (tokens - first) * q_len], vec![0.0; q_len]);
                let inputs = Qkv { q: &q[first * q_len..], k: &k[first * kv_len..], v: &v[first * kv_len..] };
                attend_all(&compute, &shape, inputs, &mut buffer, &mut all);
                let last = &q[(tokens - 1) * q_len..];
                attend_all(&compute, &shape, Qkv { q: last, ..inputs }, &mut buffer, &mut one);
                assert_eq!(one, all[all.len() - q_len..], "{isa} from {first} on, {head_dim}: the last query alone");
                attend_cached(&compute, &shape, last, &[Seen { heads: &cached, first }], &mut cached_buffer, &mut one);
                (all[all.len() - q_len..].to_vec(), one)
            };
            for first in [0, 1, 300, tokens - 1] {
                let (expected, got) = run(1, first);
                for (got, expected) in got.iter().zip(&expected) {
                    assert!(
                        (got - expected).abs() < 2e-4,
                        "{isa} from {first} on, {head_dim}: {got} instead of {expected}"
                    );
                }
                assert_eq!(run(3, first).1, got, "{isa} with three threads");
            }
        }
    }
}
