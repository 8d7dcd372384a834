//! Which tensor of the checkpoint becomes which tensor of the file, in which format.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Result;
use gemmule::config::Config;
use gemmule::config::Family;
use gemmule::gguf::DEFAULT_ALIGNMENT;
use gemmule::gguf::keys::{self, own, tensor};
use gemmule::gguf::writer::{MetadataValue, TensorPlan};
use gemmule_quant::Format;

use crate::checkpoint::{Checkpoint, HEAD, Source};
use crate::hf_config::HfModel;
use crate::mask_decoder;

/// The formats asked for.
#[derive(Clone, Debug)]
pub(crate) struct Types {
    pub(crate) body: Format,
    pub(crate) embedding: Format,
    pub(crate) vision: Format,
}

impl Types {
    /// The type of the body; embedding and vision tower are more sensitive and get a larger one unless told otherwise.
    pub(crate) fn new(body: Format, embedding: Option<Format>, vision: Option<Format>) -> Self {
        let defaults = match body {
            format if format.info().integer && format.bits_per_weight() < 6.0 => (Format::Q6K, Format::Q8_0),
            format if format.info().integer => (Format::Q8_0, Format::Q8_0),
            float => (float, float),
        };
        Self { body, embedding: embedding.unwrap_or(defaults.0), vision: vision.unwrap_or(defaults.1) }
    }
}

/// What a tensor is, for the table at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Class {
    Embedding,
    Body,
    Vision,
    Projector,
    Small,
}

impl Class {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Embedding => "embedding",
            Self::Body => "decoder",
            Self::Vision => "vision",
            Self::Projector => "projector",
            Self::Small => "norms, tables",
        }
    }
}

/// One tensor of the file.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    /// Name in the file.
    pub(crate) name: String,
    /// Canonical name in the checkpoint.
    pub(crate) source: String,
    /// Shape in the checkpoint, the contiguous dimension last.
    pub(crate) shape: Vec<usize>,
    /// Rows and columns in the file, zero padding included.
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    /// Sizes in the file, the contiguous dimension first.
    pub(crate) dimensions: Vec<u64>,
    pub(crate) format: Format,
    pub(crate) class: Class,
    /// RMSNorm weights are stored as w + 1.
    pub(crate) plus_one: bool,
    vision_half: bool,
}

impl Item {
    /// Rows and columns that the checkpoint fills; the rest is zero.
    pub(crate) fn filled(&self) -> (usize, usize) {
        match self.shape.as_slice() {
            [len] => (1, *len),
            [rows, columns @ ..] => (*rows, columns.iter().product()),
            [] => (0, 0),
        }
    }
}

/// All tensors of the file.
#[derive(Debug)]
pub(crate) struct Plan {
    items: Vec<Item>,
    types: Types,
    /// Which matrices have which type, where that is no matter of their class.
    table: Option<String>,
}

/// One output file.
pub(crate) struct OutputFile {
    pub(crate) path: PathBuf,
    pub(crate) metadata: Vec<(String, MetadataValue)>,
    pub(crate) items: Vec<Item>,
}

impl OutputFile {
    /// Says something in the file.
    pub(crate) fn note(&mut self, key: &str, text: &str) {
        self.metadata.push((key.to_owned(), MetadataValue::String(text.to_owned())));
    }
}

/// The wanted format, or the next larger one whose blocks divide a row.
fn fit(format: Format, columns: usize) -> Format {
    let candidates = [format, Format::Q8_0, Format::F16];
    candidates.into_iter().find(|format| format.row_bytes(columns).is_some()).unwrap_or(Format::F32)
}

/// A tensor's name in the file, and the checkpoint's.
struct Names {
    name: String,
    source: String,
}

impl Names {
    fn new(name: impl Into<String>, source: impl Into<String>) -> Self {
        Self { name: name.into(), source: source.into() }
    }

    /// The names of its `.weight` or `.bias`.
    fn part(&self, part: &str) -> Self {
        Self { name: format!("{}.{part}", self.name), source: format!("{}.{part}", self.source) }
    }
}

/// A matrix with a bias: its sizes in the checkpoint, and with the zeros that blocks need.
#[derive(Clone, Copy)]
struct Dense {
    class: Class,
    rows: usize,
    columns: usize,
    padded_rows: usize,
    padded_columns: usize,
}

impl Plan {
    /// Lists the tensors; sets the padding of the vision MLP in `config`.
    pub(crate) fn new(config: &mut Config, types: &Types) -> Self {
        if types.vision.info().integer {
            config.vision.padded_feed_forward =
                config.vision.feed_forward.next_multiple_of(Format::Q8_0.info().block_len);
        }
        let mut plan = Self { items: Vec::new(), types: types.clone(), table: None };
        plan.add_text(config);
        plan.add_vision(config);
        plan
    }

    /// The checkpoint's embedding has fewer rows than the model; the rest become zero.
    pub(crate) fn shorten_embedding(&mut self, rows: usize) {
        for item in self.items.iter_mut().filter(|item| item.class == Class::Embedding) {
            item.shape[0] = rows;
        }
    }

    /// Adds the decoder of masks; its tensors have the same name in the checkpoint and in the file, and stay f32.
    pub(crate) fn add_masks(&mut self, tensors: &[mask_decoder::Tensor]) {
        for (name, shape, _) in tensors {
            let names = Names::new(name, name);
            match shape[..] {
                [rows, columns] => self.matrix(names, rows, columns, Format::F32, Class::Small),
                _ => self.vector(names, shape[0], false, true),
            }
            if let Some(item) = self.items.last_mut() {
                item.vision_half = true;
            }
        }
    }

    fn matrix(&mut self, names: Names, rows: usize, columns: usize, format: Format, class: Class) {
        self.items.push(Item {
            name: names.name,
            source: names.source,
            shape: vec![rows, columns],
            rows,
            columns,
            dimensions: vec![columns as u64, rows as u64],
            format: fit(format, columns),
            class,
            plus_one: false,
            vision_half: matches!(class, Class::Vision | Class::Projector),
        });
    }

    fn vector(&mut self, names: Names, len: usize, plus_one: bool, vision_half: bool) {
        self.items.push(Item {
            name: names.name,
            source: names.source,
            shape: vec![len],
            rows: 1,
            columns: len,
            dimensions: vec![len as u64],
            format: Format::F32,
            class: Class::Small,
            plus_one,
            vision_half,
        });
    }

    fn add_text(&mut self, config: &Config) {
        let t = &config.text;
        let (q_len, kv_len) = (t.heads * t.head_dim, t.kv_heads * t.head_dim);
        let embedding = Names::new(tensor::TOKEN_EMBEDDING, "language_model.embed_tokens.weight");
        self.matrix(embedding, t.vocabulary, t.hidden, self.types.embedding, Class::Embedding);
        for layer in 0..t.layers {
            let names = |part: &str, source: &str| {
                Names::new(tensor::layer(layer, part), format!("language_model.layers.{layer}.{source}.weight"))
            };
            // Gemma 1 calls the MLP's norm by what comes before it.
            let norms: &[(&str, &str)] = match t.family {
                Family::Gemma => &[("attn_norm", "input_layernorm"), ("ffn_norm", "post_attention_layernorm")],
                Family::Gemma2 => &[
                    ("attn_norm", "input_layernorm"),
                    ("post_attention_norm", "post_attention_layernorm"),
                    ("ffn_norm", "pre_feedforward_layernorm"),
                    ("post_ffw_norm", "post_feedforward_layernorm"),
                ],
            };
            for (part, source) in norms {
                self.vector(names(part, source), t.hidden, true, false);
            }
            for (part, source, rows, columns) in [
                ("attn_q", "self_attn.q_proj", q_len, t.hidden),
                ("attn_k", "self_attn.k_proj", kv_len, t.hidden),
                ("attn_v", "self_attn.v_proj", kv_len, t.hidden),
                ("attn_output", "self_attn.o_proj", t.hidden, q_len),
                ("ffn_gate", "mlp.gate_proj", t.feed_forward, t.hidden),
                ("ffn_up", "mlp.up_proj", t.feed_forward, t.hidden),
                ("ffn_down", "mlp.down_proj", t.hidden, t.feed_forward),
            ] {
                self.matrix(names(part, source), rows, columns, self.types.body, Class::Body);
            }
        }
        let norm = Names::new(tensor::OUTPUT_NORM, "language_model.norm.weight");
        self.vector(norm, t.hidden, true, false);
    }

    fn add_vision(&mut self, config: &Config) {
        let v = &config.vision;
        let (hidden, inner, padded) = (v.hidden, v.feed_forward, v.padded_feed_forward);
        let patch_names = Names::new(tensor::PATCH_WEIGHT, "vision_tower.embeddings.patch_embedding.weight");
        self.matrix(patch_names, hidden, v.patch_len(), Format::F32, Class::Vision);
        if let Some(patch) = self.items.last_mut() {
            patch.class = Class::Small;
            patch.shape = vec![hidden, 3, v.patch_size, v.patch_size];
            patch.dimensions = patch.shape.iter().rev().map(|size| *size as u64).collect();
        }
        let patch_bias = Names::new(tensor::PATCH_BIAS, "vision_tower.embeddings.patch_embedding.bias");
        self.vector(patch_bias, hidden, false, true);
        let position = Names::new(tensor::POSITION, "vision_tower.embeddings.position_embedding.weight");
        self.matrix(position, v.tokens(), hidden, Format::F32, Class::Vision);
        if let Some(position) = self.items.last_mut() {
            position.class = Class::Small;
        }
        for layer in 0..v.layers {
            let names = |part: &str, source: &str| {
                Names::new(tensor::vision(layer, part), format!("vision_tower.encoder.layers.{layer}.{source}"))
            };
            for (part, source) in [("ln1", "layer_norm1"), ("ln2", "layer_norm2")] {
                self.affine(&names(part, source), hidden);
            }
            let square = Dense {
                class: Class::Vision,
                rows: hidden,
                columns: hidden,
                padded_rows: hidden,
                padded_columns: hidden,
            };
            let up = Dense { rows: inner, padded_rows: padded, ..square };
            let down = Dense { columns: inner, padded_columns: padded, ..square };
            for (part, source, dense) in [
                ("attn_q", "self_attn.q_proj", square),
                ("attn_k", "self_attn.k_proj", square),
                ("attn_v", "self_attn.v_proj", square),
                ("attn_out", "self_attn.out_proj", square),
                ("ffn_up", "mlp.fc1", up),
                ("ffn_down", "mlp.fc2", down),
            ] {
                self.dense(&names(part, source), dense);
            }
        }
        self.affine(&Names::new(tensor::POST_NORM, "vision_tower.post_layernorm"), hidden);
        let rows = config.text.hidden;
        let projector =
            Dense { class: Class::Projector, rows, columns: hidden, padded_rows: rows, padded_columns: hidden };
        self.dense(&Names::new(tensor::PROJECTOR, "multi_modal_projector.linear"), projector);
    }

    /// A norm with its bias.
    fn affine(&mut self, names: &Names, len: usize) {
        self.vector(names.part("weight"), len, false, true);
        self.vector(names.part("bias"), len, false, true);
    }

    /// A matrix with its bias, both padded.
    fn dense(&mut self, names: &Names, dense: Dense) {
        let Dense { class, rows, columns, padded_rows, padded_columns } = dense;
        self.matrix(names.part("weight"), rows, columns, Format::F32, class);
        let format = fit(self.types.vision, padded_columns);
        if let Some(item) = self.items.last_mut() {
            (item.rows, item.columns, item.format) = (padded_rows, padded_columns, format);
            item.dimensions = vec![padded_columns as u64, padded_rows as u64];
        }
        self.vector(names.part("bias"), rows, false, true);
        if let Some(bias) = self.items.last_mut() {
            (bias.columns, bias.dimensions) = (padded_rows, vec![padded_rows as u64]);
        }
    }

    /// The tensors.
    pub(crate) fn items(&self) -> &[Item] {
        &self.items
    }

    /// Takes tensors that differ in their formats alone; `table` is what the files say of these.
    pub(crate) fn set_formats(&mut self, items: Vec<Item>, table: String) {
        (self.items, self.table) = (items, Some(table));
    }

    /// The type of most weights of a class.
    fn most_used(&self, class: Class) -> Option<Format> {
        let mut weights: BTreeMap<Format, usize> = BTreeMap::new();
        for item in self.items.iter().filter(|item| item.class == class) {
            *weights.entry(item.format).or_default() += item.rows * item.columns;
        }
        weights.into_iter().max_by_key(|(_, count)| *count).map(|(format, _)| format)
    }

    /// Canonical name and shape of every tensor of the checkpoint.
    pub(crate) fn sources(&self) -> Vec<(String, Vec<usize>)> {
        self.items.iter().map(|item| (item.source.clone(), item.shape.clone())).collect()
    }

    /// Finds every tensor in the checkpoint, with the shape that the configuration asks for.
    pub(crate) fn check(&self, checkpoint: &Checkpoint) -> Result<()> {
        self.items.iter().try_for_each(|item| source_of(checkpoint, item).map(|_| ()))
    }

    /// Warns of tensors of the checkpoint that the configuration does not ask for: a wrong number of layers leaves some over.
    pub(crate) fn note_surplus(&self, checkpoint: &Checkpoint) {
        let used: std::collections::HashSet<&str> = self.items.iter().map(|item| item.source.as_str()).collect();
        let is_table = |name: &str| name.ends_with(".inv_freq") || name.ends_with(".position_ids");
        let mut surplus: Vec<&str> = checkpoint
            .canonical_names()
            .filter(|name| !used.contains(name) && *name != HEAD && !is_table(name) && !name.contains(".lora_"))
            .collect();
        surplus.sort_unstable();
        if let Some(first) = surplus.first() {
            log::warn!(
                "{} tensors of the checkpoint are not used, as the configuration does not ask for them, such as '{first}'",
                surplus.len()
            );
        }
    }

    /// The output files: one, or the text half and the vision half.
    pub(crate) fn files(
        self,
        model: &HfModel,
        vocabulary: Vec<(String, MetadataValue)>,
        paths: &[PathBuf],
    ) -> Vec<OutputFile> {
        let Types { body, embedding, vision } = &self.types;
        let by_class = || format!("body {body}, embedding {embedding}, vision {vision}");
        let conversion = self.table.clone().unwrap_or_else(by_class);
        let [body, vision] = [(Class::Body, body), (Class::Vision, vision)]
            .map(|(class, format)| self.most_used(class).filter(|_| self.table.is_some()).unwrap_or(*format));
        let general = |architecture: &str, format: Format| {
            let text = |key: &str, value: &str| (key.to_owned(), MetadataValue::String(value.to_owned()));
            let number = |key: &str, value: u32| (key.to_owned(), MetadataValue::Uint32(value));
            vec![
                text(keys::ARCHITECTURE, architecture),
                text(keys::TYPE, if architecture == keys::CLIP { "mmproj" } else { "model" }),
                text(keys::NAME, &model.name),
                number(keys::FILE_TYPE, format.info().file_type),
                number(keys::QUANTIZATION_VERSION, 2),
                number(keys::ALIGNMENT, DEFAULT_ALIGNMENT as u32),
                text(own::CONVERSION, &conversion),
            ]
        };
        let family = model.config.text.family;
        let ignored = |text: &String| (own::GENERATION_IGNORED.to_owned(), MetadataValue::String(text.clone()));
        let text_metadata =
            model.config.text_metadata().into_iter().chain(model.not_obeyed.as_ref().map(ignored)).chain(vocabulary);
        let vision_metadata = model.config.vision_metadata();
        if let [text_path, vision_path] = paths {
            let (vision_items, text_items) = self.items.into_iter().partition(|item| item.vision_half);
            let (text, vision) = (general(family.architecture(), body), general(keys::CLIP, vision));
            return vec![
                OutputFile {
                    path: text_path.clone(),
                    metadata: text.into_iter().chain(text_metadata).collect(),
                    items: text_items,
                },
                OutputFile {
                    path: vision_path.clone(),
                    metadata: vision.into_iter().chain(vision_metadata).collect(),
                    items: vision_items,
                },
            ];
        }
        let metadata = general(family.single_architecture(), body)
            .into_iter()
            .chain(text_metadata)
            .chain(vision_metadata)
            .collect();
        vec![OutputFile { path: paths[0].clone(), metadata, items: self.items }]
    }
}

/// The tensor that an item is made from.
pub(crate) fn source_of<'a>(checkpoint: &'a Checkpoint, item: &Item) -> Result<&'a Source> {
    checkpoint.find(&item.source, &item.shape)
}

impl From<&Item> for TensorPlan {
    fn from(item: &Item) -> Self {
        Self { name: item.name.clone(), dimensions: item.dimensions.clone(), format: item.format }
    }
}
