//! The model: weights by name, and one forward pass each for the tower, the decoder and the decoder of masks.

pub(crate) mod decoder;
pub(crate) mod mask_decoder;
mod observe;
mod tokenizer;
pub(crate) mod vision;

use std::path::Path;
use std::sync::Arc;

use self::decoder::Decoder;
use self::tokenizer::BackgroundTokenizer;
use self::vision::VisionTower;
use crate::config::Config;
use crate::gguf::GgufFile;
use crate::text::Tokenizer;
use crate::weights::Store;
use crate::{Error, Result};

/// A handle of an opened model: configuration, tokenizer and mapped weights, which never change. A clone is another handle of the same
/// model; the files are closed with the last one, a session's included.
#[derive(Clone, Debug)]
pub struct Model {
    pub(crate) parts: Arc<Parts>,
}

const _: fn() = || {
    fn is_shared_by_threads<T: Send + Sync + 'static>() {}
    is_shared_by_threads::<Model>();
};

/// What all handles of a model share.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) config: Config,
    tokenizer: BackgroundTokenizer,
    pub(crate) store: Arc<Store>,
    vision: vision::VisionWeights,
    decoder: decoder::DecoderWeights,
    pub(crate) masks: Option<mask_decoder::MaskWeights>,
}

/// The bundled model, aligned as mapped files are.
#[cfg(feature = "bundled-model")]
#[repr(C, align(64))]
struct Aligned<Bytes: ?Sized>(Bytes);

#[cfg(feature = "bundled-model")]
static BUNDLED: &Aligned<[u8]> = &Aligned(*include_bytes!("../../models/easy-vqa-q8_0.gguf"));

impl Model {
    /// Opens a single file, which is mapped: it must not be written to or shortened while the model is open, see [`copy`](Self::copy).
    ///
    /// # Errors
    /// When the file cannot be read, is damaged, or is no PaliGemma model.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::from_files(vec![GgufFile::open(path)?])
    }

    /// Opens a pair: the text half and the vision half (`mmproj`).
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_pair(text: impl AsRef<Path>, vision: impl AsRef<Path>) -> Result<Self> {
        Self::from_files(vec![GgufFile::open(text)?, GgufFile::open(vision)?])
    }

    /// Opens a model's files, a single one or the text half and the vision half, and reads them into memory. Files that are opened
    /// otherwise are mapped: they must not be written to or shortened while the model is open.
    ///
    /// # Errors
    /// As [`open`](Self::open), and when there is not so much memory.
    pub fn copy(files: &[impl AsRef<Path>]) -> Result<Self> {
        let files = files.iter().map(GgufFile::copy).collect::<Result<Vec<_>>>()?;
        if !(1..=2).contains(&files.len()) {
            return Err(Error::Request(format!("a model has one file or two, not {}", files.len())));
        }
        Self::from_files(files)
    }

    /// The small model that is part of the program: it answers questions about easy-VQA's pictures of shapes.
    ///
    /// # Errors
    /// None in a sound build.
    #[cfg(feature = "bundled-model")]
    pub fn bundled() -> Result<Self> {
        Self::from_files(vec![GgufFile::from_static("the bundled model", &BUNDLED.0)?])
    }

    /// A model over opened files, the text half first. A damaged tokenizer shows only at its first use, see
    /// [`tokenizer`](Self::tokenizer).
    ///
    /// # Errors
    /// When a key or tensor is missing, or does not fit the others.
    pub fn from_files(files: Vec<GgufFile>) -> Result<Self> {
        let store = Arc::new(Store::new(files)?);
        let config = Config::from_files(store.files())?;
        tokenizer::check(&store.files()[0])?;
        let vision = vision::VisionWeights::find(&store, &config.vision, config.text.hidden)?;
        let decoder = decoder::DecoderWeights::find(&store, &config.text)?;
        let masks = mask_decoder::MaskWeights::find(&store)?;
        let tokenizer = BackgroundTokenizer::start(Arc::clone(&store), config.clone());
        Ok(Self { parts: Arc::new(Parts { config, tokenizer, store, vision, decoder, masks }) })
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.parts.config
    }

    /// The tokenizer. A large vocabulary takes most of a second to read; that goes on behind the first pictures, and this
    /// waits for its end.
    ///
    /// # Errors
    /// When the file's tokenizer is damaged, or lacks the tokens that the configuration names.
    pub fn tokenizer(&self) -> Result<&Tokenizer> {
        let read = self.parts.tokenizer.get(&self.parts.store, &self.parts.config);
        read.as_ref().map_err(|reason| Error::model(self.parts.store.files()[0].gguf().name(), reason))
    }

    /// Whether the file holds what turns the codes of `segment` answers into masks.
    pub fn decodes_masks(&self) -> bool {
        self.parts.masks.is_some()
    }

    /// Keeps the model's files in memory while it is open, so that a shortage of memory never makes an answer wait for the disk.
    ///
    /// # Errors
    /// When the system allows no process to hold so much.
    pub fn lock(&self) -> Result<()> {
        self.parts.store.files().iter().try_for_each(GgufFile::lock)
    }

    /// What tells this model's files from others, by their lengths, headers and a sample of every tensor: the same for copies.
    pub fn fingerprint(&self) -> String {
        self.parts.store.fingerprint()
    }

    pub(crate) fn decoder(&self) -> Decoder<'_> {
        let Parts { config, decoder, store, .. } = &*self.parts;
        Decoder { config: &config.text, weights: decoder, store }
    }

    pub(crate) fn tower(&self) -> VisionTower<'_> {
        let Parts { config, vision, store, .. } = &*self.parts;
        VisionTower { config: &config.vision, weights: vision, store }
    }

    /// The bytes of the decoder's matrices, all of which a generated token reads once.
    pub(crate) fn decoder_bytes(&self) -> impl Iterator<Item = &[u8]> {
        self.parts.decoder.matrices().map(|matrix| self.parts.store.view(matrix).bytes())
    }
}
