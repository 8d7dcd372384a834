//! The Gemma 2 decoder: a whole prefix at once (every position sees all of it), then one token after another.

use half::f16;

use super::config::TextConfig;
use crate::Result;
use crate::gguf::keys::tensor;
use crate::ops::Compute;
use crate::ops::attention::{AttentionBuffer, attend_all, attend_cached};
use crate::ops::embedding::embed;
use crate::ops::linear::{InputBuffer, linear};
use crate::ops::norm::{add_rms_norm, rms_norm};
use crate::weights::{Matrix, Store, Vector};

#[derive(Debug)]
struct Layer {
    attention_norm: Vector,
    query: Matrix,
    key: Matrix,
    value: Matrix,
    output: Matrix,
    post_attention_norm: Vector,
    feed_forward_norm: Vector,
    gate: Matrix,
    up: Matrix,
    down: Matrix,
    post_feed_forward_norm: Vector,
}

/// Where the decoder's tensors lie.
#[derive(Debug)]
pub struct DecoderWeights {
    embedding: Matrix,
    layers: Vec<Layer>,
    output_norm: Vector,
}

impl DecoderWeights {
    /// Looks up and checks every tensor.
    ///
    /// # Errors
    /// When one is missing or of the wrong shape.
    pub fn find(store: &Store, config: &TextConfig) -> Result<Self> {
        let (hidden, inner) = (config.hidden, config.feed_forward);
        let (q_len, kv_len) = (config.heads * config.head_dim, config.kv_heads * config.head_dim);
        let layer = |index: usize| -> Result<Layer> {
            let matrix = |part: &str, rows, columns| store.matrix(&tensor::layer(index, part), rows, columns);
            let norm = |part: &str| store.vector(&tensor::layer(index, part), hidden);
            Ok(Layer {
                attention_norm: norm("attn_norm")?,
                query: matrix("attn_q", q_len, hidden)?,
                key: matrix("attn_k", kv_len, hidden)?,
                value: matrix("attn_v", kv_len, hidden)?,
                output: matrix("attn_output", hidden, q_len)?,
                post_attention_norm: norm("post_attention_norm")?,
                feed_forward_norm: norm("ffn_norm")?,
                gate: matrix("ffn_gate", inner, hidden)?,
                up: matrix("ffn_up", inner, hidden)?,
                down: matrix("ffn_down", hidden, inner)?,
                post_feed_forward_norm: norm("post_ffw_norm")?,
            })
        };
        Ok(Self {
            embedding: store.matrix(tensor::TOKEN_EMBEDDING, config.vocabulary, hidden)?,
            layers: (0..config.layers).map(layer).collect::<Result<_>>()?,
            output_norm: store.vector(tensor::OUTPUT_NORM, hidden)?,
        })
    }
}

/// Keys and values of the tokens so far, `[tokens][kv_heads · head_dim]` per layer, in half precision.
#[derive(Debug, Default)]
pub struct KvCache {
    layers: Vec<(Vec<u16>, Vec<u16>)>,
    tokens: usize,
}

impl KvCache {
    /// Empties the cache and makes room for `capacity` tokens.
    pub fn reset(&mut self, config: &TextConfig, capacity: usize) {
        self.layers.resize_with(config.layers, Default::default);
        self.tokens = 0;
        for (keys, values) in &mut self.layers {
            for buffer in [keys, values] {
                buffer.clear();
                buffer.reserve_exact(capacity * config.kv_heads * config.head_dim);
            }
        }
    }

    /// Tokens held.
    pub fn tokens(&self) -> usize {
        self.tokens
    }
}

/// The decoder's memory between layers.
#[derive(Debug, Default)]
pub struct DecoderScratch {
    normalized: Vec<f32>,
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    attended: Vec<f32>,
    gate: Vec<f32>,
    up: Vec<f32>,
    branch: Vec<f32>,
    rotation: Vec<(f32, f32)>,
    input: InputBuffer,
    attention: AttentionBuffer,
}

/// Scaled embeddings of text tokens into `out`, `[tokens][hidden]`.
pub fn embed_tokens(store: &Store, (config, weights): (&TextConfig, &DecoderWeights), tokens: &[u32], out: &mut [f32]) {
    embed(store.view(&weights.embedding), tokens, (config.hidden as f32).sqrt(), out);
}

/// Runs `x`, `[tokens][hidden]`, through all layers in place and appends its keys and values to the cache.
///
/// On an empty cache the tokens are a prefix and all see each other, on every layer and past its window. Otherwise `x`
/// is one generated token, which sees the cache, or its last `sliding_window` tokens on layers that have the window.
pub fn forward(
    compute: &Compute,
    store: &Store,
    (config, weights): (&TextConfig, &DecoderWeights),
    x: &mut [f32],
    (scratch, cache): (&mut DecoderScratch, &mut KvCache),
) {
    let tokens = x.len() / config.hidden;
    let prefix = cache.tokens == 0;
    assert!(prefix || tokens == 1, "after the prefix, tokens come one at a time");
    let (q_len, kv_len) = (config.heads * config.head_dim, config.kv_heads * config.head_dim);
    let DecoderScratch { normalized, q, k, v, attended, gate, up, branch, rotation, input, attention } = scratch;
    for (buffer, width) in [(&mut *normalized, config.hidden), (q, q_len), (k, kv_len), (v, kv_len), (attended, q_len)]
    {
        buffer.resize(tokens * width, 0.0);
    }
    for (buffer, width) in [(&mut *gate, config.feed_forward), (up, config.feed_forward), (branch, config.hidden)] {
        buffer.resize(tokens * width, 0.0);
    }
    // PaliGemma counts positions from one.
    rotations(config, cache.tokens + 1, tokens, rotation);

    for (index, layer) in weights.layers.iter().enumerate() {
        rms_norm(compute, x, store.values(&layer.attention_norm), config.rms_epsilon, normalized);
        let source = (&normalized[..], config.hidden);
        apply(compute, store, input, source, [(&layer.query, &mut *q), (&layer.key, k), (&layer.value, v)]);
        rotate(compute, q, config, rotation);
        rotate(compute, k, config, rotation);
        let (keys, values) = &mut cache.layers[index];
        keys.extend(k.iter().map(|value| f16::from_f32(*value).to_bits()));
        values.extend(v.iter().map(|value| f16::from_f32(*value).to_bits()));
        if prefix {
            attend_all(compute, &config.attention(), (q, k, v), attention, attended);
        } else {
            let window = config.sliding_window.filter(|_| config.sliding_layers[index]).unwrap_or(usize::MAX);
            let seen = (cache.tokens + 1).saturating_sub(window) * kv_len;
            attend_cached(compute, &config.attention(), q, (&keys[seen..], &values[seen..]), attended);
        }
        apply(compute, store, input, (attended, q_len), [(&layer.output, &mut *branch)]);
        let post_norm = (store.values(&layer.post_attention_norm), config.rms_epsilon);
        add_rms_norm(compute, x, branch, post_norm, normalized);

        rms_norm(compute, x, store.values(&layer.feed_forward_norm), config.rms_epsilon, normalized);
        apply(compute, store, input, (normalized, config.hidden), [(&layer.gate, &mut *gate), (&layer.up, &mut *up)]);
        compute.pool.rows(gate, config.feed_forward, |row, gate| {
            compute.kernels.gelu_multiply(gate, &up[row * config.feed_forward..][..config.feed_forward]);
        });
        apply(compute, store, input, (gate, config.feed_forward), [(&layer.down, &mut *branch)]);
        let post_norm = (store.values(&layer.post_feed_forward_norm), config.rms_epsilon);
        add_rms_norm(compute, x, branch, post_norm, normalized);
    }
    cache.tokens += tokens;
}

/// The logits, `[vocabulary]`, of one position of the last layer's output.
pub fn logits(
    compute: &Compute,
    store: &Store,
    (config, weights): (&TextConfig, &DecoderWeights),
    x: &[f32],
    (scratch, out): (&mut DecoderScratch, &mut [f32]),
) {
    scratch.normalized.resize(config.hidden, 0.0);
    rms_norm(compute, x, store.values(&weights.output_norm), config.rms_epsilon, &mut scratch.normalized);
    let source = (&scratch.normalized[..], config.hidden);
    apply(compute, store, &mut scratch.input, source, [(&weights.embedding, &mut *out)]);
    if let Some(cap) = config.final_softcap {
        let part = config.vocabulary.div_ceil(compute.pool.threads());
        compute.pool.rows(out, part, |_, out| compute.kernels.softcap(out, cap));
    }
}

/// Products of one input (values, width) with several matrices; it is quantized once for all that need it.
fn apply<const N: usize>(
    compute: &Compute,
    store: &Store,
    input: &mut InputBuffer,
    (source, width): (&[f32], usize),
    products: [(&Matrix, &mut [f32]); N],
) {
    let integer = products.iter().any(|(matrix, _)| matrix.format().info().integer);
    let prepared = input.prepare(compute, source, width, integer);
    for (matrix, out) in products {
        linear(compute, store.view(matrix), None, prepared, out);
    }
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

/// Rotary embedding in the halves layout: value `i` of a head pairs with value `i + head_dim / 2`.
fn rotate(compute: &Compute, x: &mut [f32], config: &TextConfig, rotation: &[(f32, f32)]) {
    let half = config.head_dim / 2;
    let row_len = x.len() / (rotation.len() / half);
    compute.pool.rows(x, row_len, |row, x| {
        for head in x.chunks_exact_mut(config.head_dim) {
            let (first, second) = head.split_at_mut(half);
            for ((a, b), (cos, sin)) in first.iter_mut().zip(second).zip(&rotation[row * half..]) {
                (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
            }
        }
    });
}
