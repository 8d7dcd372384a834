//! The model: configuration, weights by name, and one forward pass for the tower and one for the decoder.

pub mod config;
pub mod decoder;
pub mod vision;

use std::path::Path;
use std::sync::{Arc, OnceLock};

pub use config::Config;

use crate::gguf::keys;
use crate::text::Tokenizer;
use crate::weights::{GgufFile, Store};
use crate::{Error, Result};

/// An opened model: configuration, tokenizer and mapped weights. Immutable and shared freely between sessions.
#[derive(Debug)]
pub struct Model {
    pub(crate) config: Config,
    tokenizer: Arc<OnceLock<std::result::Result<Tokenizer, String>>>,
    pub(crate) store: Arc<Store>,
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
        let store = Arc::new(Store::new(files)?);
        let config = Config::from_files(store.files())?;
        tokenizer_json(&store)?;
        let vision = vision::VisionWeights::find(&store, &config.vision, config.text.hidden)?;
        let decoder = decoder::DecoderWeights::find(&store, &config.text)?;
        let model = Self { config, tokenizer: Arc::default(), store, vision, decoder };
        model.start_tokenizer();
        Ok(model)
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The tokenizer. A large vocabulary takes most of a second to read; that goes on behind the first pictures, and this
    /// waits for its end.
    ///
    /// # Errors
    /// When the file's tokenizer is damaged, or lacks the tokens that the configuration names.
    pub fn tokenizer(&self) -> Result<&Tokenizer> {
        let read = self.tokenizer.get_or_init(|| read_tokenizer(&self.store, &self.config));
        read.as_ref().map_err(|reason| Error::model(self.store.files()[0].gguf().name(), reason))
    }

    /// Reads the tokenizer on a thread of its own. Where the system has none to give, the first use reads it.
    fn start_tokenizer(&self) {
        let (cell, store, config) = (Arc::clone(&self.tokenizer), Arc::clone(&self.store), self.config.clone());
        let read = move || {
            cell.get_or_init(|| read_tokenizer(&store, &config));
        };
        let _ = std::thread::Builder::new().name("gemmule-tokenizer".to_owned()).spawn(read);
    }

    /// The files and tensors.
    pub fn store(&self) -> &Store {
        &self.store
    }
}

fn tokenizer_json(store: &Store) -> Result<&str> {
    let file = &store.files()[0];
    file.string(keys::tokenizer::HUGGINGFACE)?.ok_or_else(|| {
        let reason =
            format!("key '{}' is missing: convert the checkpoint with gemmule-quantize", keys::tokenizer::HUGGINGFACE);
        Error::model(file.gguf().name(), reason)
    })
}

fn read_tokenizer(store: &Store, config: &Config) -> std::result::Result<Tokenizer, String> {
    let json = tokenizer_json(store).map_err(|error| error.to_string())?;
    Tokenizer::from_json(json, &config.special).map_err(|error| error.to_string())
}
