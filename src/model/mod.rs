//! The model: configuration, weights by name, and one forward pass for the tower and one for the decoder.

pub mod config;
pub mod decoder;
pub mod vision;

use std::path::Path;

pub use config::Config;

use crate::gguf::keys;
use crate::text::Tokenizer;
use crate::weights::{GgufFile, Store};
use crate::{Error, Result};

/// An opened model: configuration, tokenizer and mapped weights. Immutable and shared freely between sessions.
#[derive(Debug)]
pub struct Model {
    pub(crate) config: Config,
    pub(crate) tokenizer: Tokenizer,
    pub(crate) store: Store,
    pub(crate) vision: vision::VisionWeights,
    pub(crate) decoder: decoder::DecoderWeights,
}

/// The bundled model, aligned as mapped files are.
#[cfg(feature = "bundled-model")]
#[repr(C, align(64))]
struct Aligned<Bytes: ?Sized>(Bytes);

#[cfg(feature = "bundled-model")]
static BUNDLED: &Aligned<[u8]> = &Aligned(*include_bytes!("../../models/easy-vqa-q8_0.gguf"));

impl Model {
    /// Opens a single file.
    ///
    /// # Errors
    /// When the file cannot be read, is damaged, or is no PaliGemma 2 model.
    pub fn open(path: &Path) -> Result<Self> {
        Self::from_files(vec![GgufFile::open(path)?])
    }

    /// Opens a pair: the text half and the vision half (`mmproj`).
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_pair(text: &Path, vision: &Path) -> Result<Self> {
        Self::from_files(vec![GgufFile::open(text)?, GgufFile::open(vision)?])
    }

    /// The small model that is part of the program: it answers questions about easy-VQA's pictures of shapes.
    ///
    /// # Errors
    /// None in a sound build.
    #[cfg(feature = "bundled-model")]
    pub fn bundled() -> Result<Self> {
        Self::from_files(vec![GgufFile::from_static("the bundled model", &BUNDLED.0)?])
    }

    /// A model over opened files, the text half first.
    ///
    /// # Errors
    /// When a key or tensor is missing, or does not fit the others.
    pub fn from_files(files: Vec<GgufFile>) -> Result<Self> {
        let store = Store::new(files)?;
        let config = Config::from_files(store.files())?;
        let tokenizer = load_tokenizer(&store, &config)?;
        let vision = vision::VisionWeights::find(&store, &config.vision, config.text.hidden)?;
        let decoder = decoder::DecoderWeights::find(&store, &config.text)?;
        Ok(Self { config, tokenizer, store, vision, decoder })
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The files and tensors.
    pub fn store(&self) -> &Store {
        &self.store
    }
}

fn load_tokenizer(store: &Store, config: &Config) -> Result<Tokenizer> {
    let file = &store.files()[0];
    let json = file.string(keys::tokenizer::HUGGINGFACE)?.ok_or_else(|| {
        let reason =
            format!("key '{}' is missing: convert the checkpoint with gemmule-quantize", keys::tokenizer::HUGGINGFACE);
        Error::model(file.gguf().name(), reason)
    })?;
    Tokenizer::from_json(json, &config.special)
}
