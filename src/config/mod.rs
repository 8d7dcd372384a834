//! Everything that differs between models, read from and written to GGUF metadata.

mod generation;
pub mod masks;
mod parts;
mod picture;
mod read;
mod write;

pub use generation::GenerationRules;
pub use parts::{Family, IMAGE_TEXT, MOST_LAYERS, SpecialTokens, TextConfig, VisionConfig};
pub use picture::{PreprocessConfig, ResizeRule};

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
