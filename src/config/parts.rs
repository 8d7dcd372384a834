//! What configurations are made of.

use crate::gguf::keys;

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

    pub(super) fn key(self, key: &str) -> String {
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
