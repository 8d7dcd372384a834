//! Checkpoints of big_vision, which PaliGemma was trained with: one `.npz` with JAX's names and orders of dimensions, the
//! layers of each half stacked. (Names and orders: `transformers`, `convert_paligemma2_weights_to_hf.py`.)

use std::path::Path;

use anyhow::{Context, Result, ensure};
use gemmule::config::Config;
use gemmule::config::Family;

use crate::checkpoint::{Checkpoint, Place};
use crate::npz::{Npz, Stored};

/// A reader of arrays whose shapes are known.
struct Reader<'a> {
    npz: Npz,
    /// What comes before the names: checkpoints of a whole training state have `params/`.
    prefix: &'static str,
    scratch: &'a Path,
    checkpoint: Checkpoint,
}

impl Reader<'_> {
    fn find(&mut self, name: &str, shape: &[usize]) -> Result<Stored> {
        let stored = self.npz.locate(&format!("{}{name}", self.prefix), self.scratch)?;
        ensure!(
            stored.shape == shape,
            "{}: array '{name}' has shape {:?}, config.json asks for {shape:?}",
            self.npz.path().display(),
            stored.shape
        );
        Ok(stored)
    }

    /// An array of one part for each layer. `places` gives for each name and shape in Hugging Face's layout where its values
    /// begin within a layer's part, and their order.
    fn layers(
        &mut self,
        array: &str,
        shape: &[usize],
        name: impl Fn(usize, &str) -> String,
        places: &[(&str, Vec<usize>, usize, Order)],
    ) -> Result<()> {
        let stored = self.find(array, shape)?;
        let part: usize = shape[1..].iter().product();
        let file = self.checkpoint.add_opened(self.npz.path(), self.npz.file(&stored)?);
        for layer in 0..shape[0] {
            for (target, shape, start, order) in places {
                let place = order.at(&stored, layer * part + start);
                self.checkpoint.insert(name(layer, target), shape.clone(), file, stored.format, place)?;
            }
        }
        Ok(())
    }

    /// A single array.
    fn single(&mut self, array: &str, stored: &[usize], name: &str, shape: &[usize], order: Order) -> Result<()> {
        let stored = self.find(array, stored)?;
        let file = self.checkpoint.add_opened(self.npz.path(), self.npz.file(&stored)?);
        let place = order.at(&stored, 0);
        self.checkpoint.insert(name.to_owned(), shape.to_vec(), file, stored.format, place)
    }
}

/// How the values of a matrix or vector lie, in numbers of values.
#[derive(Clone, Copy)]
enum Order {
    /// As in Hugging Face's layout.
    Straight,
    /// Column after column, in groups of `inner` rows: within a group, columns lie `column` values apart; groups lie `outer` values
    /// apart.
    Turned { inner: usize, outer: usize, column: usize },
}

impl Order {
    /// The transposed matrix.
    fn transposed(rows: usize) -> Self {
        Self::Turned { inner: rows, outer: 0, column: rows }
    }

    fn at(self, stored: &Stored, start: usize) -> Place {
        let width = stored.format.info().block_bytes as u64;
        let offset = stored.offset + start as u64 * width;
        match self {
            Self::Straight => Place::Straight(offset),
            Self::Turned { inner, outer, column } => Place::Turned { offset, inner, outer, column },
        }
    }
}

/// Opens a checkpoint. The second result is the number of the embedding's rows, which may be fewer than the model has: the
/// rest are tokens that came later. Compressed arrays are unpacked into unnamed files in `scratch`.
pub(crate) fn open(path: &Path, config: &Config, scratch: &Path) -> Result<(Checkpoint, usize)> {
    let npz = Npz::open(path)?;
    let prefix = if npz.contains("params/llm/embedder/input_embedding") { "params/" } else { "" };
    let mut reader = Reader { npz, prefix, scratch, checkpoint: Checkpoint::empty() };
    add_vision(&mut reader, config)?;
    let rows = add_text(&mut reader, config)?;
    Ok((reader.checkpoint, rows))
}

fn add_text(reader: &mut Reader<'_>, config: &Config) -> Result<usize> {
    let t = &config.text;
    let (layers, hidden, inner, head_dim) = (t.layers, t.hidden, t.feed_forward, t.head_dim);
    let rows = reader.npz.locate(&format!("{}llm/embedder/input_embedding", reader.prefix), reader.scratch)?.shape;
    let rows = rows.first().copied().filter(|rows| *rows <= t.vocabulary).with_context(|| {
        format!("{}: the embedding has shape {rows:?}, the model {} rows", reader.npz.path().display(), t.vocabulary)
    })?;
    let name = |layer: usize, part: &str| format!("language_model.layers.{layer}.{part}.weight");
    reader.single(
        "llm/embedder/input_embedding",
        &[rows, hidden],
        "language_model.embed_tokens.weight",
        &[rows, hidden],
        Order::Straight,
    )?;
    reader.single("llm/final_norm/scale", &[hidden], "language_model.norm.weight", &[hidden], Order::Straight)?;
    // Gemma 1 calls the MLP's norm by what comes before it.
    let norms: &[(&str, &str)] = match t.family {
        Family::Gemma => &[("pre_attention_norm", "input_layernorm"), ("pre_ffw_norm", "post_attention_layernorm")],
        Family::Gemma2 => &[
            ("pre_attention_norm", "input_layernorm"),
            ("post_attention_norm", "post_attention_layernorm"),
            ("pre_ffw_norm", "pre_feedforward_layernorm"),
            ("post_ffw_norm", "post_feedforward_layernorm"),
        ],
    };
    for (array, part) in norms {
        let place = (*part, vec![hidden], 0, Order::Straight);
        reader.layers(&format!("llm/layers/{array}/scale"), &[layers, hidden], name, &[place])?;
    }
    // Each head's [hidden][head_dim] becomes head_dim rows.
    let heads = Order::Turned { inner: head_dim, outer: hidden * head_dim, column: head_dim };
    let (q_len, kv_len) = (t.heads * head_dim, t.kv_heads * head_dim);
    reader.layers(
        "llm/layers/attn/q_einsum/w",
        &[layers, t.heads, hidden, head_dim],
        name,
        &[("self_attn.q_proj", vec![q_len, hidden], 0, heads)],
    )?;
    reader.layers(
        "llm/layers/attn/kv_einsum/w",
        &[layers, 2, t.kv_heads, hidden, head_dim],
        name,
        &[
            ("self_attn.k_proj", vec![kv_len, hidden], 0, heads),
            ("self_attn.v_proj", vec![kv_len, hidden], kv_len * hidden, heads),
        ],
    )?;
    let output = ("self_attn.o_proj", vec![hidden, q_len], 0, Order::transposed(hidden));
    reader.layers("llm/layers/attn/attn_vec_einsum/w", &[layers, t.heads, head_dim, hidden], name, &[output])?;
    reader.layers(
        "llm/layers/mlp/gating_einsum",
        &[layers, 2, hidden, inner],
        name,
        &[
            ("mlp.gate_proj", vec![inner, hidden], 0, Order::transposed(inner)),
            ("mlp.up_proj", vec![inner, hidden], hidden * inner, Order::transposed(inner)),
        ],
    )?;
    let down = ("mlp.down_proj", vec![hidden, inner], 0, Order::transposed(hidden));
    reader.layers("llm/layers/mlp/linear", &[layers, inner, hidden], name, &[down])?;
    Ok(rows)
}

fn add_vision(reader: &mut Reader<'_>, config: &Config) -> Result<()> {
    let v = &config.vision;
    let (layers, hidden, inner, patch) = (v.layers, v.hidden, v.feed_forward, v.patch_size);
    let vector = |len: usize| vec![len];
    let name = |layer: usize, part: &str| format!("vision_tower.encoder.layers.{layer}.{part}");
    // Patches lie as [row][column][channel][output]: few enough to be put in order at once.
    let stored = reader.npz.array(&format!("{}img/embedding/kernel", reader.prefix), &[patch, patch, 3, hidden])?;
    let value = |at: usize| {
        let (output, channel, place) = (at / (3 * patch * patch), at / (patch * patch) % 3, at % (patch * patch));
        stored[(place * 3 + channel) * hidden + output]
    };
    let kernel = (0..stored.len()).map(value).collect();
    let path = reader.npz.path().to_owned();
    reader.checkpoint.add_values(
        &path,
        [("vision_tower.embeddings.patch_embedding.weight".to_owned(), vec![hidden, 3, patch, patch], kernel)],
    )?;
    let straight = Order::Straight;
    reader.single(
        "img/embedding/bias",
        &[hidden],
        "vision_tower.embeddings.patch_embedding.bias",
        &[hidden],
        straight,
    )?;
    let position = "vision_tower.embeddings.position_embedding.weight";
    reader.single("img/pos_embedding", &[1, v.tokens(), hidden], position, &[v.tokens(), hidden], straight)?;
    let block = "img/Transformer/encoderblock";
    for (array, part) in [("LayerNorm_0", "layer_norm1"), ("LayerNorm_1", "layer_norm2")] {
        for (kind, target) in [("scale", "weight"), ("bias", "bias")] {
            let target = format!("{part}.{target}");
            let place = (target.as_str(), vector(hidden), 0, straight);
            reader.layers(&format!("{block}/{array}/{kind}"), &[layers, hidden], name, &[place])?;
        }
    }
    for (array, part, inputs, outputs) in [("Dense_0", "mlp.fc1", hidden, inner), ("Dense_1", "mlp.fc2", inner, hidden)]
    {
        let (weight, bias) = (format!("{part}.weight"), format!("{part}.bias"));
        let place = (weight.as_str(), vec![outputs, inputs], 0, Order::transposed(outputs));
        reader.layers(&format!("{block}/MlpBlock_0/{array}/kernel"), &[layers, inputs, outputs], name, &[place])?;
        let place = (bias.as_str(), vector(outputs), 0, straight);
        reader.layers(&format!("{block}/MlpBlock_0/{array}/bias"), &[layers, outputs], name, &[place])?;
    }
    let head = hidden / v.heads;
    for (array, part) in [("query", "q_proj"), ("key", "k_proj"), ("value", "v_proj"), ("out", "out_proj")] {
        let array = format!("{block}/MultiHeadDotProductAttention_0/{array}");
        let (weight, bias) = (format!("self_attn.{part}.weight"), format!("self_attn.{part}.bias"));
        let (kernel, biases) = if part == "out_proj" {
            (vec![layers, v.heads, head, hidden], vec![layers, hidden])
        } else {
            (vec![layers, hidden, v.heads, head], vec![layers, v.heads, head])
        };
        let place = (weight.as_str(), vec![hidden, hidden], 0, Order::transposed(hidden));
        reader.layers(&format!("{array}/kernel"), &kernel, name, &[place])?;
        reader.layers(&format!("{array}/bias"), &biases, name, &[(bias.as_str(), vector(hidden), 0, straight)])?;
    }
    for (kind, target) in [("scale", "weight"), ("bias", "bias")] {
        let target = format!("vision_tower.post_layernorm.{target}");
        reader.single(&format!("img/Transformer/encoder_norm/{kind}"), &[hidden], &target, &[hidden], straight)?;
    }
    let (outputs, projector) = (config.text.hidden, "multi_modal_projector.linear");
    let order = Order::transposed(outputs);
    reader.single("img/head/kernel", &[hidden, outputs], &format!("{projector}.weight"), &[outputs, hidden], order)?;
    reader.single("img/head/bias", &[outputs], &format!("{projector}.bias"), &[outputs], straight)
}
