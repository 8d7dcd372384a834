//! Everything that differs between models, read from and written to GGUF metadata.

mod generation;
pub mod masks;
mod picture;
mod read;

pub use generation::GenerationRules;
pub use picture::{PreprocessConfig, ResizeRule};
use read::{Reader, read_generation, read_rescale, read_resize_rule, read_special, read_text, read_vision};

use crate::gguf::GgufFile;
use crate::gguf::keys::{self, own, text, tokenizer, vision};
use crate::gguf::writer::MetadataValue;
use crate::{Error, Result};

/// A model's configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The decoder.
    pub text: TextConfig,
    /// The vision tower.
    pub vision: VisionConfig,
    /// How pictures become numbers.
    pub preprocess: PreprocessConfig,
    /// Tokens with a meaning of their own.
    pub special: SpecialTokens,
    /// Rules for the next token.
    pub generation: GenerationRules,
}

/// The decoder's generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// PaliGemma 1: the branches of a layer are added as they are.
    Gemma,
    /// PaliGemma 2: they are normalized first.
    Gemma2,
}

impl Family {
    /// Architecture of the text half of a pair; the text keys begin with it.
    pub fn architecture(self) -> &'static str {
        match self {
            Self::Gemma => keys::GEMMA,
            Self::Gemma2 => keys::GEMMA2,
        }
    }

    /// Architecture of the single file.
    pub fn single_architecture(self) -> &'static str {
        match self {
            Self::Gemma => keys::PALIGEMMA,
            Self::Gemma2 => keys::PALIGEMMA2,
        }
    }

    /// Whether attention's and the MLP's results are normalized before they are added.
    pub fn has_post_norms(self) -> bool {
        self == Self::Gemma2
    }

    fn key(self, key: &str) -> String {
        format!("{}.{key}", self.architecture())
    }
}

/// The text of the token that stands for one image position, where a file does not give its number.
pub const IMAGE_TEXT: &str = "<image>";

/// Most layers of a half.
pub const MOST_LAYERS: usize = 1024;

/// The Gemma decoder.
#[derive(Clone, Debug, PartialEq)]
pub struct TextConfig {
    /// Its generation.
    pub family: Family,
    /// Longest sequence the model was made for.
    pub context: usize,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Layers.
    pub layers: usize,
    /// Inner width of the MLP.
    pub feed_forward: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Values of a head.
    pub head_dim: usize,
    /// Added to the mean square in normalization.
    pub rms_epsilon: f32,
    /// Cap on attention scores.
    pub attention_softcap: Option<f32>,
    /// Cap on logits.
    pub final_softcap: Option<f32>,
    /// Keys that a generated token sees on layers with a window.
    pub sliding_window: Option<usize>,
    /// For each layer: whether it has the window.
    pub sliding_layers: Vec<bool>,
    /// Factor on attention scores: query_pre_attn_scalar^-0.5.
    pub attention_scale: f32,
    /// Base of the rotary embedding.
    pub rope_base: f32,
    /// Rows of the embedding.
    pub vocabulary: usize,
}

/// The SigLIP tower.
#[derive(Clone, Debug, PartialEq)]
pub struct VisionConfig {
    /// Pixels of a side.
    pub image_size: usize,
    /// Pixels of a patch's side.
    pub patch_size: usize,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Inner width of the MLP.
    pub feed_forward: usize,
    /// The same with the zero padding that quantized blocks need.
    pub padded_feed_forward: usize,
    /// Layers.
    pub layers: usize,
    /// Heads.
    pub heads: usize,
    /// Added to the variance in normalization.
    pub epsilon: f32,
}

/// Tokens with a meaning of their own.
#[derive(Clone, Debug, PartialEq)]
pub struct SpecialTokens {
    /// Stands for one image position.
    pub image: u32,
    /// Begins the text.
    pub bos: u32,
    /// Any of them ends the answer.
    pub eos: Vec<u32>,
    /// Fills batches; never printed.
    pub pad: u32,
}

impl TextConfig {
    /// Checks that the numbers fit together, and are of a size that can be.
    ///
    /// # Errors
    /// What is wrong.
    pub fn check(&self) -> std::result::Result<(), String> {
        let Self { layers, heads, kv_heads, head_dim, .. } = *self;
        if !heads.is_multiple_of(kv_heads) || !head_dim.is_multiple_of(2) || self.sliding_layers.len() != layers {
            return Err(format!(
                "{heads} heads, {kv_heads} key-value heads, a head dimension of {head_dim} and {layers} layers do not fit together"
            ));
        }
        if layers > MOST_LAYERS || heads > 1024 || head_dim > 8192 {
            return Err(format!(
                "{layers} layers, {heads} heads or a head dimension of {head_dim} are beyond any known model"
            ));
        }
        Ok(())
    }

    /// Gemma 2's rule where a file does not say: even layers have the window.
    pub fn alternating_layers(layers: usize, window: Option<usize>) -> Vec<bool> {
        (0..layers).map(|layer| window.is_some() && layer % 2 == 0).collect()
    }
}

impl VisionConfig {
    /// Checks that the numbers fit together, and are of a size that can be.
    ///
    /// # Errors
    /// What is wrong.
    pub fn check(&self) -> std::result::Result<(), String> {
        let fits = self.hidden.is_multiple_of(self.heads)
            && self.patch_size <= self.image_size
            && self.image_size <= 8192
            && self.layers <= MOST_LAYERS
            && self.padded_feed_forward >= self.feed_forward;
        if fits { Ok(()) } else { Err("the vision tower's sizes do not fit together".to_owned()) }
    }

    /// Tokens that one image takes.
    pub fn tokens(&self) -> usize {
        (self.image_size / self.patch_size).pow(2)
    }

    /// Values of one patch.
    pub fn patch_len(&self) -> usize {
        3 * self.patch_size * self.patch_size
    }
}

impl Config {
    /// Reads the configuration from the text half and (for a pair) the vision half.
    ///
    /// # Errors
    /// When a key is missing or impossible, or the files are of another architecture.
    pub fn from_files(files: &[GgufFile]) -> Result<Self> {
        let text_file = &files[0];
        let architecture = text_file.string(keys::ARCHITECTURE)?.unwrap_or("unknown");
        let families = [Family::Gemma, Family::Gemma2];
        let family =
            |name: fn(Family) -> &'static str| families.into_iter().find(|family| name(*family) == architecture);
        let (family, vision_file) = match (
            family(Family::single_architecture),
            family(Family::architecture),
            files.get(1),
        ) {
            (Some(family), _, None) => (family, text_file),
            (_, Some(family), Some(file)) if file.string(keys::ARCHITECTURE)? == Some(keys::CLIP) => (family, file),
            (_, Some(_), Some(file)) => {
                return Err(Error::model(file.gguf().name(), "not a vision file (architecture 'clip')"));
            }
            (_, Some(_), None) => {
                let reason = "this file holds the text half only; name the vision half with --mmproj";
                return Err(Error::model(text_file.gguf().name(), reason));
            }
            _ => {
                let reason = format!(
                    "architecture '{architecture}' is not supported; Gemmule runs PaliGemma 1 and 2 (paligemma, paligemma2, or \
                     gemma, gemma2 with clip)"
                );
                return Err(Error::model(text_file.gguf().name(), reason));
            }
        };
        let (text_reader, vision_reader) = (Reader(text_file.gguf()), Reader(vision_file.gguf()));
        let text = read_text(&text_reader, family)?;
        let vision = read_vision(&vision_reader)?;
        if vision_reader.size(vision::PROJECTION)? != text.hidden {
            return Err(
                vision_reader.error("its projection does not fit the text half: these files are no pair".to_owned())
            );
        }
        let preprocess = PreprocessConfig {
            resample: vision_reader.token(own::RESAMPLE)?.unwrap_or(3),
            resize_rule: read_resize_rule(&vision_reader, vision_file)?,
            rescale: read_rescale(&vision_reader)?,
            mean: vision_reader.channels(vision::IMAGE_MEAN)?,
            deviation: vision_reader.channels(vision::IMAGE_STD)?,
        };
        preprocess.check().map_err(|reason| vision_reader.error(reason))?;
        let special = read_special(&text_reader, text_file, text.vocabulary)?;
        let generation = read_generation(&text_reader, text_file, text.vocabulary)?;
        Ok(Self { text, vision, preprocess, special, generation })
    }

    /// The text half's keys.
    pub fn text_metadata(&self) -> Vec<(String, MetadataValue)> {
        let t = &self.text;
        let text_size = |key: &str, value| size(&t.family.key(key), value);
        let text_float = |key: &str, value| float(&t.family.key(key), value);
        let mut metadata = vec![
            text_size(text::CONTEXT_LENGTH, t.context),
            text_size(text::EMBEDDING_LENGTH, t.hidden),
            text_size(text::BLOCK_COUNT, t.layers),
            text_size(text::FEED_FORWARD_LENGTH, t.feed_forward),
            text_size(text::HEAD_COUNT, t.heads),
            text_size(text::HEAD_COUNT_KV, t.kv_heads),
            text_size(text::KEY_LENGTH, t.head_dim),
            text_size(text::VALUE_LENGTH, t.head_dim),
            text_float(text::RMS_EPSILON, t.rms_epsilon),
            // Zero, not absence: llama.cpp assumes Gemma 2's caps where the keys are absent.
            text_float(text::ATTENTION_SOFTCAP, t.attention_softcap.unwrap_or(0.0)),
            text_float(text::FINAL_SOFTCAP, t.final_softcap.unwrap_or(0.0)),
            text_float(text::ATTENTION_SCALE, t.attention_scale),
            text_float(text::ROPE_BASE, t.rope_base),
            text_size(text::VOCABULARY, t.vocabulary),
            boolean_array(own::SLIDING_LAYERS, &t.sliding_layers),
            size(own::IMAGE_TOKEN, self.special.image as usize),
            size(tokenizer::BOS, self.special.bos as usize),
            size(tokenizer::PADDING, self.special.pad as usize),
        ];
        let eos = self.special.eos.iter().map(|id| MetadataValue::Uint32(*id)).collect();
        metadata.push((own::EOS_TOKENS.to_owned(), MetadataValue::Array(eos)));
        if !self.generation.is_empty() {
            let rules = serde_json::to_string(&self.generation).expect("numbers have a form in JSON");
            metadata.push((own::GENERATION.to_owned(), MetadataValue::String(rules)));
        }
        metadata.extend(self.special.eos.first().map(|id| size(tokenizer::EOS, *id as usize)));
        metadata.extend(t.sliding_window.map(|window| text_size(text::SLIDING_WINDOW, window)));
        metadata
    }

    /// The vision half's keys.
    pub fn vision_metadata(&self) -> Vec<(String, MetadataValue)> {
        let (v, p) = (&self.vision, &self.preprocess);
        let channels = |key: &str, values: &[f32; 3]| {
            (key.to_owned(), MetadataValue::Array(values.iter().map(|value| MetadataValue::Float32(*value)).collect()))
        };
        vec![
            (vision::HAS_ENCODER.to_owned(), MetadataValue::Bool(true)),
            (vision::PROJECTOR_TYPE.to_owned(), MetadataValue::String("paligemma".to_owned())),
            (vision::USE_GELU.to_owned(), MetadataValue::Bool(true)),
            size(vision::IMAGE_SIZE, v.image_size),
            size(vision::PATCH_SIZE, v.patch_size),
            size(vision::EMBEDDING_LENGTH, v.hidden),
            size(vision::FEED_FORWARD_LENGTH, v.feed_forward),
            size(own::VISION_PADDED_FEED_FORWARD, v.padded_feed_forward),
            size(vision::BLOCK_COUNT, v.layers),
            size(vision::PROJECTION, self.text.hidden),
            size(vision::HEAD_COUNT, v.heads),
            float(vision::EPSILON, v.epsilon),
            channels(vision::IMAGE_MEAN, &p.mean),
            channels(vision::IMAGE_STD, &p.deviation),
            size(own::RESAMPLE, p.resample as usize),
            (own::RESIZE_RULE.to_owned(), MetadataValue::String(p.resize_rule.name().to_owned())),
            (own::RESCALE.to_owned(), MetadataValue::Float64(p.rescale)),
        ]
    }
}

fn size(key: &str, value: usize) -> (String, MetadataValue) {
    (key.to_owned(), MetadataValue::Uint32(u32::try_from(value).expect("sizes are checked to be below 2^24")))
}

fn float(key: &str, value: f32) -> (String, MetadataValue) {
    (key.to_owned(), MetadataValue::Float32(value))
}

fn boolean_array(key: &str, values: &[bool]) -> (String, MetadataValue) {
    (key.to_owned(), MetadataValue::Array(values.iter().map(|value| MetadataValue::Bool(*value)).collect()))
}
