//! The Gemma decoder: a whole prefix at once (every position sees all of it), then one token after another, of one sequence or of
//! several at once.

use std::ops::Range;

use super::observe::observe;
use crate::Result;
use crate::config::TextConfig;
use crate::gguf::keys::tensor;
use crate::ops::Compute;
use crate::ops::attention::{AttentionBuffer, AttentionShape, Qkv, attend_all};
use crate::ops::cached_attention::{CachedAttentionBuffer, CachedHead, Seen, attend_cached};
use crate::ops::embedding::embed;
use crate::ops::input::{Hidden, InputBuffer, Needs};
use crate::ops::linear::{Epilogue, Product, gated, linear};
use crate::ops::norm::{add_rms_norm, add_rows};
use crate::ops::rope::Rotations;
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

/// Keys and values of the tokens so far, for each layer and head.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct KvCache {
    layers: Vec<Vec<CachedHead>>,
    tokens: usize,
    head_dim: usize,
}

impl KvCache {
    /// Empties the cache and makes room for `capacity` tokens.
    pub(crate) fn reset(&mut self, config: &TextConfig, capacity: usize) {
        self.layers.resize_with(config.layers, Vec::new);
        (self.tokens, self.head_dim) = (0, config.head_dim);
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

    /// Bytes that it has room for.
    pub(crate) fn bytes(&self) -> usize {
        let buffers = self.layers.iter().flatten().flat_map(|head| [&head.keys, &head.values]);
        buffers.map(|buffer| buffer.capacity() * size_of::<u16>()).sum()
    }

    /// How many tokens it holds.
    pub(crate) fn tokens(&self) -> usize {
        self.tokens
    }

    /// Forgets all but the first `tokens`.
    pub(crate) fn truncate(&mut self, tokens: usize) {
        for CachedHead { keys, values } in self.layers.iter_mut().flatten() {
            keys.truncate(tokens * self.head_dim);
            values.truncate(tokens * self.head_dim);
        }
        self.tokens = self.tokens.min(tokens);
    }

    /// What a token whose keys and values were appended to a layer's part sees there: the last `window` tokens.
    fn seen(&self, layer: usize, window: usize) -> Seen<'_> {
        Seen { heads: &self.layers[layer], first: (self.tokens + 1).saturating_sub(window) }
    }

    /// Appends keys and values, `[tokens][kv_heads · head_dim]`, to a layer's part.
    fn append(&mut self, compute: &Compute, layer: usize, keys: &[f32], values: &[f32]) {
        let (heads, head_dim) = (&mut self.layers[layer], self.head_dim);
        let kv_len = heads.len() * head_dim;
        let append = |head: usize, cached: &mut CachedHead| {
            for (from, to) in [(keys, &mut cached.keys), (values, &mut cached.values)] {
                let held = to.len();
                to.resize(held + from.len() / kv_len * head_dim, 0);
                for (from, to) in from.chunks_exact(kv_len).zip(to[held..].chunks_exact_mut(head_dim)) {
                    compute.kernels.to_half(&from[head * head_dim..][..head_dim], to);
                }
            }
        };
        if keys.len() == kv_len {
            // A parallel region costs more than one token's heads.
            heads.iter_mut().enumerate().for_each(|(head, cached)| append(head, cached));
        } else {
            compute.pool.each(heads.iter_mut(), append);
        }
    }
}

/// What a decoder keeps of a sequence, and its memory between layers.
#[derive(Debug, Default)]
pub(crate) struct DecoderState {
    /// The tokens so far.
    pub(crate) cache: KvCache,
    /// What sequences that take turns may share.
    pub(crate) scratch: DecoderScratch,
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
    rotations: Rotations,
    input: InputBuffer,
    attention: AttentionBuffer,
    cached_attention: CachedAttentionBuffer,
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

/// A decoder: its sizes, and its weights where they lie.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Decoder<'m> {
    /// Its sizes.
    pub(crate) config: &'m TextConfig,
    /// Where its tensors lie.
    pub(crate) weights: &'m DecoderWeights,
    /// What they lie in.
    pub(crate) store: &'m Store,
}

/// The sequences that rows of the decoder's input belong to.
enum Rows<'a, 'c> {
    /// All rows are the prefix of one sequence, whose cache is empty until the last layer is done.
    Prefix { cache: &'a mut KvCache, positions: Positions },
    /// Each row is the next token of a sequence of its own.
    Tokens(&'a mut [&'c mut KvCache]),
}

impl Rows<'_, '_> {
    /// How many tokens come before a row in its sequence.
    fn before(&self, row: usize) -> usize {
        match self {
            Self::Prefix { .. } => row,
            Self::Tokens(caches) => caches[row].tokens,
        }
    }

    /// What products with these matrices ask of their input.
    fn needs<const N: usize>(&self, matrices: [&Matrix; N]) -> Needs {
        match self {
            Self::Prefix { .. } => needs(matrices),
            Self::Tokens(_) => needs(matrices).of_generated(),
        }
    }
}

impl Decoder<'_> {
    /// Scaled embeddings of text tokens into `out`, `[tokens][hidden]`.
    pub(crate) fn embed(&self, tokens: &[u32], out: &mut [f32]) {
        embed(self.store.view(&self.weights.embedding), tokens, (self.config.hidden as f32).sqrt(), out);
    }

    /// Runs a prefix `x`, `[tokens][hidden]`, through some layers in place and appends its keys and values to the cache, which is empty
    /// before the first layer. All tokens see each other, on every layer and past its window. With [`Positions::Last`] the last layer
    /// computes only the last row of `x`; the others are left as they entered it. Between two calls `x` and the cache carry everything.
    ///
    /// # Errors
    /// When it is cancelled; the cache has to be reset then.
    pub(crate) fn prefix(
        &self,
        compute: &Compute,
        x: &mut [f32],
        positions: Positions,
        layers: Range<usize>,
        DecoderState { cache, scratch }: &mut DecoderState,
    ) -> Result<()> {
        let (tokens, is_last) = (x.len() / self.config.hidden, layers.end == self.config.layers);
        assert!(tokens > 0 && cache.tokens == 0, "a token at least, and none before it");
        self.layers(compute, x, layers, &mut Rows::Prefix { cache, positions }, scratch)?;
        if is_last {
            cache.tokens = tokens;
        }
        Ok(())
    }

    /// Runs one token of each sequence, `x`, `[sequences][hidden]`, through all layers in place and appends its keys and values to the
    /// sequence's cache. A token sees its cache, or the last `sliding_window` tokens of it on layers that have the window. Its result
    /// depends on no other sequence.
    ///
    /// # Errors
    /// When it is cancelled; the caches have to be reset then.
    pub(crate) fn step(
        &self,
        compute: &Compute,
        x: &mut [f32],
        caches: &mut [&mut KvCache],
        scratch: &mut DecoderScratch,
    ) -> Result<()> {
        assert!(x.len() == caches.len() * self.config.hidden, "a token of each sequence");
        assert!(caches.iter().all(|cache| cache.tokens > 0), "a prefix comes before");
        self.layers(compute, x, 0..self.config.layers, &mut Rows::Tokens(caches), scratch)?;
        caches.iter_mut().for_each(|cache| cache.tokens += 1);
        Ok(())
    }

    fn layers(
        &self,
        compute: &Compute,
        x: &mut [f32],
        layers: Range<usize>,
        rows: &mut Rows<'_, '_>,
        scratch: &mut DecoderScratch,
    ) -> Result<()> {
        let Self { config, weights, store } = *self;
        let tokens = x.len() / config.hidden;
        let (q_len, kv_len) = (config.heads * config.head_dim, config.kv_heads * config.head_dim);
        let DecoderScratch { normalized, q, k, v, attended, feed_forward, branch, rotations, input, .. } = scratch;
        let (attention, cached_attention) = (&mut scratch.attention, &mut scratch.cached_attention);
        for (buffer, width) in
            [(&mut *normalized, config.hidden), (q, q_len), (k, kv_len), (v, kv_len), (attended, q_len)]
        {
            buffer.resize(tokens * width, 0.0);
        }
        branch.resize(tokens * config.hidden, 0.0);
        // PaliGemma counts positions from one.
        rotations.set(config.rope_base, config.head_dim, (0..tokens).map(|row| rows.before(row) + 1));

        let add_branch = |norm: &Option<Vector>, x: &mut [f32], branch: &[f32]| match norm {
            Some(norm) => add_rms_norm(compute, x, branch, store.values(norm), config.rms_epsilon),
            None => add_rows(compute, x, branch, config.hidden),
        };
        for index in layers {
            compute.cancel.check()?;
            let layer = &weights.layers[index];
            let norm_input = |norm: &Vector, x: &[f32], row: usize, out: &mut [f32]| {
                let row = &x[row * config.hidden..][..config.hidden];
                compute.kernels.rms_norm(row, store.values(norm), config.rms_epsilon, out);
            };

            let needed = rows.needs([&layer.query, &layer.key, &layer.value]);
            let prepared = input.prepare_with(compute, &mut *normalized, config.hidden, needed, |row, out| {
                norm_input(&layer.attention_norm, x, row, out);
            });
            observe(compute, store, [&layer.query, &layer.key, &layer.value], prepared, Some(rows.before(0)));
            let products = [(&layer.query, &mut *q), (&layer.key, &mut *k), (&layer.value, &mut *v)];
            linear(compute, prepared, products.map(|(matrix, out)| product(store, matrix, out)));
            rotations.apply(compute, q, k);
            let is_last = index + 1 == weights.layers.len();
            let shape = self.attention(needed);
            // The first row that the rest of the layer computes.
            let first = match rows {
                Rows::Prefix { cache, positions } => {
                    cache.append(compute, index, k, v);
                    let first = if is_last && *positions == Positions::Last { tokens - 1 } else { 0 };
                    let inputs = Qkv { q: &q[first * q_len..], k, v };
                    attend_all(compute, &shape, inputs, attention, &mut attended[first * q_len..]);
                    first
                }
                Rows::Tokens(caches) => {
                    let rows = k.chunks_exact(kv_len).zip(v.chunks_exact(kv_len));
                    for (cache, (k, v)) in caches.iter_mut().zip(rows) {
                        cache.append(compute, index, k, v);
                    }
                    let window = config.sliding_window.filter(|_| config.sliding_layers[index]).unwrap_or(usize::MAX);
                    let seen: Vec<_> = caches.iter().map(|cache| cache.seen(index, window)).collect();
                    attend_cached(compute, &shape, q, &seen, cached_attention, attended);
                    0
                }
            };
            let x = &mut x[first * config.hidden..];
            let attended = &attended[first * q_len..];
            let [normalized, branch] = [&mut *normalized, branch].map(|buffer| &mut buffer[first * config.hidden..]);
            let prepared = input.prepare(compute, attended, q_len, rows.needs([&layer.output]));
            let position = Some(rows.before(first));
            observe(compute, store, [&layer.output], prepared, position);
            linear(compute, prepared, [product(store, &layer.output, branch)]);
            add_branch(&layer.post_attention_norm, x, branch);

            let needed = rows.needs([&layer.gate, &layer.up]);
            let prepared = input.prepare_with(compute, normalized, config.hidden, needed, |row, out| {
                norm_input(&layer.feed_forward_norm, x, row, out);
            });
            observe(compute, store, [&layer.gate, &layer.up], prepared, position);
            let (gate, up) = (store.view(&layer.gate), store.view(&layer.up));
            let prepared = gated(compute, prepared, gate, up, feed_forward, rows.needs([&layer.down]));
            observe(compute, store, [&layer.down], prepared, position);
            linear(compute, prepared, [product(store, &layer.down, branch)]);
            add_branch(&layer.post_feed_forward_norm, x, branch);
        }
        Ok(())
    }

    /// The last norm over `x`, `[tokens][hidden]`, into `out`.
    pub(crate) fn normalize_output(&self, compute: &Compute, x: &[f32], out: &mut [f32]) {
        let (hidden, weight) = (self.config.hidden, self.store.values(&self.weights.output_norm));
        compute.pool.rows(out, hidden, |row, out| {
            compute.kernels.rms_norm(&x[row * hidden..][..hidden], weight, self.config.rms_epsilon, out);
        });
    }

    /// The logits, `[sequences][vocabulary]`, of the last layer's output for one token of each sequence, `[sequences][hidden]`. An observer
    /// is told that the first stands at `position`.
    pub(crate) fn logits(
        &self,
        compute: &Compute,
        x: &[f32],
        position: usize,
        DecoderScratch { normalized, input, .. }: &mut DecoderScratch,
        out: &mut [f32],
    ) {
        normalized.resize(x.len(), 0.0);
        self.normalize_output(compute, x, normalized);
        let needed = needs([&self.weights.embedding]).of_generated();
        let prepared = input.prepare(compute, normalized, self.config.hidden, needed);
        observe(compute, self.store, [&self.weights.embedding], prepared, Some(position));
        let epilogue = Epilogue { softcap: self.config.final_softcap, ..Epilogue::default() };
        linear(compute, prepared, [Product { weight: self.store.view(&self.weights.embedding), epilogue, out }]);
    }

    /// The attention of a layer whose products need `needed` of their input.
    fn attention(&self, needed: Needs) -> AttentionShape {
        AttentionShape {
            heads: self.config.heads,
            kv_heads: self.config.kv_heads,
            head_dim: self.config.head_dim,
            scale: self.config.attention_scale,
            softcap: self.config.attention_softcap,
            pieces: needed.attention_pieces(),
        }
    }
}

fn product<'a>(store: &'a Store, matrix: &Matrix, out: &'a mut [f32]) -> Product<'a> {
    Product { weight: store.view(matrix), epilogue: Epilogue::default(), out }
}

/// What products with these ask of their input.
fn needs<const N: usize>(matrices: [&Matrix; N]) -> Needs {
    Needs::of(matrices.map(Matrix::format))
}
