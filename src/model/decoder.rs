//! The Gemma decoder: a whole prefix at once (every position sees all of it), then one token after another.

use crate::Result;
use crate::config::TextConfig;
use crate::gguf::keys::tensor;
use crate::ops::Compute;
use crate::ops::attention::{AttentionBuffer, AttentionShape, CachedHead, attend_all, attend_cached};
use crate::ops::embedding::embed;
use crate::ops::input::{Hidden, InputBuffer, Needs};
use crate::ops::linear::{Product, Tail, gated, linear};
use crate::ops::norm::{add_rms_norm, add_rows};
use crate::weights::{Matrix, Store, Vector};

#[derive(Debug)]
struct Layer {
    attention_norm: Vector,
    query: Matrix,
    key: Matrix,
    value: Matrix,
    output: Matrix,
    post_attention_norm: Option<Vector>,
    feed_forward_norm: Vector,
    gate: Matrix,
    up: Matrix,
    down: Matrix,
    post_feed_forward_norm: Option<Vector>,
}

/// Where the decoder's tensors lie.
#[derive(Debug)]
pub(crate) struct DecoderWeights {
    embedding: Matrix,
    layers: Vec<Layer>,
    output_norm: Vector,
}

impl DecoderWeights {
    /// Looks up and checks every tensor.
    ///
    /// # Errors
    /// When one is missing or of the wrong shape.
    pub(crate) fn find(store: &Store, config: &TextConfig) -> Result<Self> {
        let (hidden, inner) = (config.hidden, config.feed_forward);
        let (q_len, kv_len) = (config.heads * config.head_dim, config.kv_heads * config.head_dim);
        let layer = |index: usize| -> Result<Layer> {
            let matrix = |part: &str, rows, columns| store.matrix(&tensor::layer(index, part), rows, columns);
            let norm = |part: &str| store.vector(&tensor::layer(index, part), hidden);
            let post_norm = |part: &str| config.family.has_post_norms().then(|| norm(part)).transpose();
            Ok(Layer {
                attention_norm: norm("attn_norm")?,
                query: matrix("attn_q", q_len, hidden)?,
                key: matrix("attn_k", kv_len, hidden)?,
                value: matrix("attn_v", kv_len, hidden)?,
                output: matrix("attn_output", hidden, q_len)?,
                post_attention_norm: post_norm("post_attention_norm")?,
                feed_forward_norm: norm("ffn_norm")?,
                gate: matrix("ffn_gate", inner, hidden)?,
                up: matrix("ffn_up", inner, hidden)?,
                down: matrix("ffn_down", hidden, inner)?,
                post_feed_forward_norm: post_norm("post_ffw_norm")?,
            })
        };
        Ok(Self {
            embedding: store.matrix(tensor::TOKEN_EMBEDDING, config.vocabulary, hidden)?,
            layers: (0..config.layers).map(layer).collect::<Result<_>>()?,
            output_norm: store.vector(tensor::OUTPUT_NORM, hidden)?,
        })
    }

    /// Every matrix. A generated token reads each of them once, the embedding as its last product.
    pub(crate) fn matrices(&self) -> impl Iterator<Item = &Matrix> {
        let layers = self.layers.iter().flat_map(|layer| {
            [&layer.query, &layer.key, &layer.value, &layer.output, &layer.gate, &layer.up, &layer.down]
        });
        layers.chain([&self.embedding])
    }
}

/// The attention of every layer.
fn attention_shape(config: &TextConfig) -> AttentionShape {
    AttentionShape {
        heads: config.heads,
        kv_heads: config.kv_heads,
        head_dim: config.head_dim,
        scale: config.attention_scale,
        softcap: config.attention_softcap,
    }
}

/// Keys and values of the tokens so far, for each layer and head.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct KvCache {
    layers: Vec<Vec<CachedHead>>,
    tokens: usize,
}

impl KvCache {
    /// Empties the cache and makes room for `capacity` tokens.
    pub(crate) fn reset(&mut self, config: &TextConfig, capacity: usize) {
        self.layers.resize_with(config.layers, Vec::new);
        self.tokens = 0;
        for heads in &mut self.layers {
            heads.resize_with(config.kv_heads, CachedHead::default);
            for CachedHead { keys, values } in heads {
                for buffer in [keys, values] {
                    buffer.clear();
                    buffer.reserve_exact(capacity * config.head_dim);
                }
            }
        }
    }

    /// Forgets all but the first `tokens`.
    pub(crate) fn truncate(&mut self, config: &TextConfig, tokens: usize) {
        for CachedHead { keys, values } in self.layers.iter_mut().flatten() {
            keys.truncate(tokens * config.head_dim);
            values.truncate(tokens * config.head_dim);
        }
        self.tokens = self.tokens.min(tokens);
    }

    /// Rotates queries and keys to their positions and appends keys and values to a layer's part.
    fn append(
        &mut self,
        compute: &Compute,
        config: &TextConfig,
        layer: usize,
        (q, k, v): (&mut [f32], &mut [f32], &[f32]),
        rotation: &[(f32, f32)],
    ) {
        let head_dim = config.head_dim;
        let (q_len, kv_len) = (config.heads * head_dim, config.kv_heads * head_dim);
        let rows = q.chunks_exact_mut(q_len).zip(k.chunks_exact_mut(kv_len));
        compute.pool.each(rows, |row, (q, k)| {
            let rotation = &rotation[row * head_dim / 2..][..head_dim / 2];
            for head in q.chunks_exact_mut(head_dim).chain(k.chunks_exact_mut(head_dim)) {
                compute.kernels.rotate(head, rotation);
            }
        });
        let k = &*k;
        let append = |head: usize, CachedHead { keys, values }: &mut CachedHead| {
            for (from, to) in [(k, keys), (v, values)] {
                let held = to.len();
                to.resize(held + from.len() / config.kv_heads, 0);
                for (from, to) in from.chunks_exact(kv_len).zip(to[held..].chunks_exact_mut(head_dim)) {
                    compute.kernels.to_half(&from[head * head_dim..][..head_dim], to);
                }
            }
        };
        let heads = self.layers[layer].iter_mut();
        if k.len() == kv_len {
            // A parallel region costs more than one token's heads.
            heads.enumerate().for_each(|(head, cached)| append(head, cached));
        } else {
            compute.pool.each(heads, append);
        }
    }
}

/// The decoder's memory between layers.
#[derive(Debug, Default)]
pub(crate) struct DecoderScratch {
    normalized: Vec<f32>,
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    attended: Vec<f32>,
    feed_forward: Hidden,
    branch: Vec<f32>,
    rotation: Vec<(f32, f32)>,
    input: InputBuffer,
    attention: AttentionBuffer,
}

/// Scaled embeddings of text tokens into `out`, `[tokens][hidden]`.
pub(crate) fn embed_tokens(
    store: &Store,
    (config, weights): (&TextConfig, &DecoderWeights),
    tokens: &[u32],
    out: &mut [f32],
) {
    embed(store.view(&weights.embedding), tokens, (config.hidden as f32).sqrt(), out);
}

/// The positions whose output is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Positions {
    /// All.
    All,
    /// The last, which is all that a next token depends on. The last layer computes it as it computes a generated token's: row
    /// dots in place of panel products, which round differently.
    Last,
}

/// Runs `x`, `[tokens][hidden]`, through all layers in place and appends its keys and values to the cache. With
/// [`Positions::Last`] the last layer computes only the last row of `x`; the others are left as they entered it.
///
/// On an empty cache the tokens are a prefix and all see each other, on every layer and past its window. Otherwise `x`
/// is one generated token, which sees the cache, or its last `sliding_window` tokens on layers that have the window.
///
/// # Errors
/// When it is cancelled; the cache has to be reset then.
pub(crate) fn forward(
    compute: &Compute,
    store: &Store,
    (config, weights): (&TextConfig, &DecoderWeights),
    (x, positions): (&mut [f32], Positions),
    (scratch, cache): (&mut DecoderScratch, &mut KvCache),
) -> Result<()> {
    let tokens = x.len() / config.hidden;
    assert!(tokens > 0, "a token at least");
    let prefix = cache.tokens == 0;
    assert!(prefix || tokens == 1, "after the prefix, tokens come one at a time");
    let (q_len, kv_len) = (config.heads * config.head_dim, config.kv_heads * config.head_dim);
    let DecoderScratch { normalized, q, k, v, attended, feed_forward, branch, rotation, input, attention } = scratch;
    for (buffer, width) in [(&mut *normalized, config.hidden), (q, q_len), (k, kv_len), (v, kv_len), (attended, q_len)]
    {
        buffer.resize(tokens * width, 0.0);
    }
    branch.resize(tokens * config.hidden, 0.0);
    let shape = attention_shape(config);
    // PaliGemma counts positions from one.
    rotations(config, cache.tokens + 1, tokens, rotation);

    let add_branch = |norm: &Option<Vector>, x: &mut [f32], branch: &[f32]| match norm {
        Some(norm) => add_rms_norm(compute, x, branch, (store.values(norm), config.rms_epsilon)),
        None => add_rows(compute, x, branch, config.hidden),
    };
    for (index, layer) in weights.layers.iter().enumerate() {
        compute.cancel.check()?;
        let view = |matrix: &Matrix| store.view(matrix);
        let norm_input = |norm: &Vector, x: &[f32], row: usize, out: &mut [f32]| {
            let row = &x[row * config.hidden..][..config.hidden];
            compute.kernels.rms_norm(row, store.values(norm), config.rms_epsilon, out);
        };

        let needed = needs([&layer.query, &layer.key, &layer.value]);
        let prepared = input.prepare_with(compute, (&mut *normalized, config.hidden), needed, |row, out| {
            norm_input(&layer.attention_norm, x, row, out);
        });
        let products = [(&layer.query, &mut *q), (&layer.key, &mut *k), (&layer.value, &mut *v)];
        linear(compute, prepared, products.map(|(matrix, out)| product(store, matrix, out)));
        cache.append(compute, config, index, (q, k, v), rotation);
        let last_layer = index + 1 == weights.layers.len();
        let first = if last_layer && positions == Positions::Last { tokens - 1 } else { 0 };
        let (q, x) = (&q[first * q_len..], &mut x[first * config.hidden..]);
        let attended = &mut attended[first * q_len..];
        let [normalized, branch] = [&mut *normalized, branch].map(|buffer| &mut buffer[first * config.hidden..]);
        if prefix {
            attend_all(compute, (&shape, needed.attention_pieces()), (q, k, v), attention, attended);
        } else {
            let window = config.sliding_window.filter(|_| config.sliding_layers[index]).unwrap_or(usize::MAX);
            let first_seen = (cache.tokens + 1).saturating_sub(window);
            attend_cached(compute, &shape, (q, &cache.layers[index], first_seen), attention, attended);
        }
        let prepared = input.prepare(compute, attended, q_len, needs([&layer.output]));
        linear(compute, prepared, [product(store, &layer.output, branch)]);
        add_branch(&layer.post_attention_norm, x, branch);

        let needed = needs([&layer.gate, &layer.up]);
        let prepared = input.prepare_with(compute, (normalized, config.hidden), needed, |row, out| {
            norm_input(&layer.feed_forward_norm, x, row, out);
        });
        let both = (view(&layer.gate), view(&layer.up));
        let prepared = gated(compute, prepared, both, (feed_forward, needs([&layer.down])));
        linear(compute, prepared, [product(store, &layer.down, branch)]);
        add_branch(&layer.post_feed_forward_norm, x, branch);
    }
    cache.tokens += tokens;
    Ok(())
}

fn product<'a>(store: &'a Store, matrix: &Matrix, out: &'a mut [f32]) -> Product<'a> {
    Product { weight: store.view(matrix), tail: Tail::default(), out }
}

/// What products with these ask of their input.
fn needs<const N: usize>(matrices: [&Matrix; N]) -> Needs {
    Needs::of(matrices.map(Matrix::format))
}

/// The last norm over `x`, `[tokens][hidden]`, into `out`.
pub(crate) fn normalize_output(
    compute: &Compute,
    store: &Store,
    (config, weights): (&TextConfig, &DecoderWeights),
    x: &[f32],
    out: &mut [f32],
) {
    let weight = store.values(&weights.output_norm);
    compute.pool.rows(out, config.hidden, |row, out| {
        compute.kernels.rms_norm(&x[row * config.hidden..][..config.hidden], weight, config.rms_epsilon, out);
    });
}

/// The logits, `[vocabulary]`, of one position of the last layer's output.
pub(crate) fn logits(
    compute: &Compute,
    store: &Store,
    (config, weights): (&TextConfig, &DecoderWeights),
    x: &[f32],
    (scratch, out): (&mut DecoderScratch, &mut [f32]),
) {
    scratch.normalized.resize(config.hidden, 0.0);
    normalize_output(compute, store, (config, weights), x, &mut scratch.normalized);
    let needed = needs([&weights.embedding]);
    let prepared = scratch.input.prepare(compute, &scratch.normalized, config.hidden, needed);
    let tail = Tail { softcap: config.final_softcap, ..Tail::default() };
    linear(compute, prepared, [Product { weight: store.view(&weights.embedding), tail, out }]);
}

/// Cosine and sine for `tokens` positions from `first` on, `[tokens][head_dim / 2]`.
fn rotations(config: &TextConfig, first: usize, tokens: usize, out: &mut Vec<(f32, f32)>) {
    out.clear();
    for position in first..first + tokens {
        for pair in 0..config.head_dim / 2 {
            let inverse_frequency = 1.0 / config.rope_base.powf((2 * pair) as f32 / config.head_dim as f32);
            let angle = position as f32 * inverse_frequency;
            out.push((angle.cos(), angle.sin()));
        }
    }
}
