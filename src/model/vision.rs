//! The SigLIP tower and the projector: pixels in, image features out.

use super::observe::observe;
use crate::Result;
use crate::config::VisionConfig;
use crate::gguf::keys::tensor;
use crate::ops::Compute;
use crate::ops::attention::{AttentionBuffer, AttentionShape, Qkv, attend_all};
use crate::ops::input::{Hidden, InputBuffer, Needs};
use crate::ops::linear::{Epilogue, Product, activated, linear};
use crate::weights::{Matrix, Store, Vector};

#[derive(Debug)]
struct LayerNorm {
    weight: Vector,
    bias: Vector,
}

#[derive(Debug)]
struct Dense {
    weight: Matrix,
    bias: Vector,
}

#[derive(Debug)]
struct Layer {
    norm1: LayerNorm,
    query: Dense,
    key: Dense,
    value: Dense,
    output: Dense,
    norm2: LayerNorm,
    up: Dense,
    down: Dense,
}

/// Where the tower's and the projector's tensors lie.
#[derive(Debug)]
pub(crate) struct VisionWeights {
    patch: Dense,
    position: Vector,
    layers: Vec<Layer>,
    post_norm: LayerNorm,
    projector: Dense,
}

fn affine(store: &Store, name: &str, len: usize) -> Result<LayerNorm> {
    let part = |part: &str| store.vector(&format!("{name}.{part}"), len);
    Ok(LayerNorm { weight: part("weight")?, bias: part("bias")? })
}

fn dense(store: &Store, name: &str, rows: usize, columns: usize) -> Result<Dense> {
    let weight = store.matrix(&format!("{name}.weight"), rows, columns)?;
    Ok(Dense { weight, bias: store.vector(&format!("{name}.bias"), rows)? })
}

impl VisionWeights {
    /// Looks up and checks every tensor.
    ///
    /// # Errors
    /// When one is missing or of the wrong shape.
    pub(crate) fn find(store: &Store, config: &VisionConfig, text_hidden: usize) -> Result<Self> {
        let (hidden, inner) = (config.hidden, config.padded_feed_forward);
        let layer = |index: usize| -> Result<Layer> {
            let name = |part: &str| tensor::vision(index, part);
            Ok(Layer {
                norm1: affine(store, &name("ln1"), hidden)?,
                query: dense(store, &name("attn_q"), hidden, hidden)?,
                key: dense(store, &name("attn_k"), hidden, hidden)?,
                value: dense(store, &name("attn_v"), hidden, hidden)?,
                output: dense(store, &name("attn_out"), hidden, hidden)?,
                norm2: affine(store, &name("ln2"), hidden)?,
                up: dense(store, &name("ffn_up"), inner, hidden)?,
                down: dense(store, &name("ffn_down"), hidden, inner)?,
            })
        };
        Ok(Self {
            patch: Dense {
                weight: store.matrix(tensor::PATCH_WEIGHT, hidden, config.patch_len())?,
                bias: store.vector(tensor::PATCH_BIAS, hidden)?,
            },
            position: store.vector(tensor::POSITION, config.tokens() * hidden)?,
            layers: (0..config.layers).map(layer).collect::<Result<_>>()?,
            post_norm: affine(store, tensor::POST_NORM, hidden)?,
            projector: dense(store, tensor::PROJECTOR, text_hidden, hidden)?,
        })
    }
}

/// The tower's memory between layers.
#[derive(Debug, Default)]
pub(crate) struct VisionScratch {
    patches: Vec<f32>,
    x: Vec<f32>,
    normalized: Vec<f32>,
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    attended: Vec<f32>,
    feed_forward: Hidden,
    input: InputBuffer,
    attention: AttentionBuffer,
}

/// A tower with its projector: its sizes, and its weights where they lie.
#[derive(Clone, Copy, Debug)]
pub(crate) struct VisionTower<'m> {
    /// Its sizes.
    pub(crate) config: &'m VisionConfig,
    /// Where its tensors lie.
    pub(crate) weights: &'m VisionWeights,
    /// What they lie in.
    pub(crate) store: &'m Store,
}

impl VisionTower<'_> {
    /// The embeddings of the patches of a picture, `[3][size][size]`. Then comes each [`layer`](Self::layer), and at last
    /// [`project`](Self::project); `scratch` carries everything between them.
    pub(crate) fn embed(&self, compute: &Compute, pixels: &[f32], scratch: &mut VisionScratch) {
        let Self { config, weights, store } = *self;
        let VisionScratch { patches, x, input, .. } = scratch;
        x.resize(config.tokens() * config.hidden, 0.0);
        patches.resize(config.tokens() * config.patch_len(), 0.0);
        cut_patches(config, pixels, patches);
        let prepared = input.prepare(compute, patches, config.patch_len(), needs(&[&weights.patch]));
        observe(compute, store, [&weights.patch.weight], prepared, None);
        linear(compute, prepared, [product(store, &weights.patch, x, false)]);
        compute.kernels.add(x, store.values(&weights.position));
    }

    /// One layer.
    ///
    /// # Errors
    /// When it is cancelled.
    pub(crate) fn layer(&self, compute: &Compute, index: usize, scratch: &mut VisionScratch) -> Result<()> {
        compute.cancel.check()?;
        let Self { config, weights, store } = *self;
        let hidden = config.hidden;
        let VisionScratch { x, normalized, q, k, v, attended, feed_forward, input, attention, .. } = scratch;
        for buffer in [&mut *normalized, q, k, v, attended] {
            buffer.resize(x.len(), 0.0);
        }
        let layer = &weights.layers[index];
        let all = needs(&[&layer.query, &layer.key, &layer.value]);
        let prepared = input.prepare_with(compute, &mut *normalized, hidden, all, |row, out| {
            self.norm_input(compute, &layer.norm1, x, row, out);
        });
        let shared = [&layer.query, &layer.key, &layer.value].map(|dense| &dense.weight);
        observe(compute, store, shared, prepared, None);
        let products = [(&layer.query, &mut *q), (&layer.key, &mut *k), (&layer.value, &mut *v)];
        linear(compute, prepared, products.map(|(dense, out)| product(store, dense, out, false)));
        attend_all(compute, &self.attention(all), Qkv { q, k, v }, attention, attended);
        let prepared = input.prepare(compute, attended, hidden, needs(&[&layer.output]));
        observe(compute, store, [&layer.output.weight], prepared, None);
        linear(compute, prepared, [product(store, &layer.output, x, true)]);

        let prepared = input.prepare_with(compute, &mut *normalized, hidden, needs(&[&layer.up]), |row, out| {
            self.norm_input(compute, &layer.norm2, x, row, out);
        });
        observe(compute, store, [&layer.up.weight], prepared, None);
        let (up, bias) = (store.view(&layer.up.weight), store.values(&layer.up.bias));
        let prepared = activated(compute, prepared, up, bias, &mut *feed_forward, needs(&[&layer.down]));
        observe(compute, store, [&layer.down.weight], prepared, None);
        linear(compute, prepared, [product(store, &layer.down, x, true)]);
        Ok(())
    }

    /// The last norm and the projector, into `out`, `[tokens][text_hidden]`.
    pub(crate) fn project(&self, compute: &Compute, scratch: &mut VisionScratch, out: &mut [f32]) {
        let Self { config, weights, store } = *self;
        let VisionScratch { x, normalized, input, .. } = scratch;
        normalized.resize(x.len(), 0.0);
        let needed = needs(&[&weights.projector]);
        let prepared = input.prepare_with(compute, &mut *normalized, config.hidden, needed, |row, out| {
            self.norm_input(compute, &weights.post_norm, x, row, out);
        });
        observe(compute, store, [&weights.projector.weight], prepared, None);
        linear(compute, prepared, [product(store, &weights.projector, out, false)]);
    }

    fn norm_input(&self, compute: &Compute, norm: &LayerNorm, x: &[f32], row: usize, out: &mut [f32]) {
        let hidden = self.config.hidden;
        let (weight, bias) = (self.store.values(&norm.weight), self.store.values(&norm.bias));
        let affine = gemmule_quant::Affine { weight, bias };
        compute.kernels.layer_norm(&x[row * hidden..][..hidden], affine, self.config.epsilon, out);
    }

    /// The attention of a layer whose products need `needed` of their input.
    fn attention(&self, needed: Needs) -> AttentionShape {
        let heads = self.config.heads;
        let head_dim = self.config.hidden / heads;
        AttentionShape {
            heads,
            kv_heads: heads,
            head_dim,
            scale: (head_dim as f32).powf(-0.5),
            softcap: None,
            pieces: needed.attention_pieces(),
        }
    }
}

/// What products with these ask of their input.
fn needs(dense: &[&Dense]) -> Needs {
    Needs::of(dense.iter().map(|dense| dense.weight.format()))
}

/// A product with its bias, and perhaps the sum with what is there.
fn product<'a>(store: &'a Store, dense: &Dense, out: &'a mut [f32], add: bool) -> Product<'a> {
    let epilogue = Epilogue { bias: Some(store.values(&dense.bias)), add, ..Epilogue::default() };
    Product { weight: store.view(&dense.weight), epilogue, out }
}

/// Patches row by row, each `[3][patch][patch]` as the convolution's kernel is laid out.
fn cut_patches(config: &VisionConfig, pixels: &[f32], patches: &mut [f32]) {
    let (size, patch) = (config.image_size, config.patch_size);
    let across = size / patch;
    for (index, out) in patches.chunks_exact_mut(config.patch_len()).enumerate() {
        let (top, left) = (index / across * patch, index % across * patch);
        for (line, out) in out.chunks_exact_mut(patch).enumerate() {
            let (channel, y) = (line / patch, top + line % patch);
            out.copy_from_slice(&pixels[(channel * size + y) * size + left..][..patch]);
        }
    }
}
