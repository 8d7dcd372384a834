//! The model: configuration, weights by name, and one forward pass for the tower and one for the decoder.

pub mod config;
#[doc(hidden)]
pub mod decoder;
mod generation;
#[doc(hidden)]
pub mod mask_decoder;
#[doc(hidden)]
pub mod vision;

use std::borrow::Cow;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;

pub use config::Config;
pub use generation::GenerationRules;

use crate::gguf::keys;
use crate::text::Tokenizer;
use crate::weights::{GgufFile, Store};
use crate::{Error, Result, memory};

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
    pub(crate) vision: vision::VisionWeights,
    pub(crate) decoder: decoder::DecoderWeights,
    pub(crate) masks: Option<mask_decoder::MaskWeights>,
}

type TokenizerCell = OnceLock<std::result::Result<Tokenizer, String>>;

/// A tokenizer that a thread of its own reads. The thread reads the mapped file, so it ends before the model does: whoever
/// has dropped a model may rewrite its file.
#[derive(Debug)]
struct BackgroundTokenizer {
    cell: Arc<TokenizerCell>,
    reader: Option<JoinHandle<()>>,
}

/// 64 MB, and as much before they are aligned.
const HEAP_OF_A_THREAD: u64 = 128 << 20;

impl BackgroundTokenizer {
    /// Starts reading. Where the system has no thread to give, or not the memory that glibc keeps for one's small allocations (without
    /// it each takes a page), the first use reads.
    fn start(store: Arc<Store>, config: Config) -> Self {
        let cell = Arc::new(TokenizerCell::new());
        let shared = Arc::clone(&cell);
        let read = move || {
            shared.get_or_init(|| read_tokenizer(&store, &config));
        };
        let reader = memory::is_there(HEAP_OF_A_THREAD)
            .then(|| std::thread::Builder::new().name("gemmule-tokenizer".to_owned()).spawn(read).ok())
            .flatten();
        Self { cell, reader }
    }
}

impl Drop for BackgroundTokenizer {
    fn drop(&mut self) {
        if let Some(reader) = self.reader.take() {
            // A panic there left the cell empty; there is nothing to report at this point.
            let _ = reader.join();
        }
    }
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
        Self::from_files(vec![GgufFile::open(path.as_ref())?])
    }

    /// Opens a pair: the text half and the vision half (`mmproj`).
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_pair(text: impl AsRef<Path>, vision: impl AsRef<Path>) -> Result<Self> {
        Self::from_files(vec![GgufFile::open(text.as_ref())?, GgufFile::open(vision.as_ref())?])
    }

    /// Opens a model's files, a single one or the text half and the vision half, and reads them into memory. Files that are opened
    /// otherwise are mapped: they must not be written to or shortened while the model is open.
    ///
    /// # Errors
    /// As [`open`](Self::open), and when there is not so much memory.
    pub fn copy(files: &[impl AsRef<Path>]) -> Result<Self> {
        let files = files.iter().map(|path| GgufFile::copy(path.as_ref())).collect::<Result<Vec<_>>>()?;
        if !(1..=2).contains(&files.len()) {
            return Err(crate::Error::Request(format!("a model has one file or two, not {}", files.len())));
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
    #[doc(hidden)]
    pub fn from_files(files: Vec<GgufFile>) -> Result<Self> {
        let store = Arc::new(Store::new(files)?);
        let config = Config::from_files(store.files())?;
        check_tokenizer(&store.files()[0])?;
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
        let read = self.parts.tokenizer.cell.get_or_init(|| read_tokenizer(&self.parts.store, &self.parts.config));
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

    /// The bytes of the decoder's matrices, all of which a generated token reads once.
    #[doc(hidden)]
    pub fn decoder_bytes(&self) -> impl Iterator<Item = &[u8]> {
        self.parts.decoder.matrices().map(|matrix| self.parts.store.view(matrix).bytes())
    }

    /// The files and tensors.
    #[doc(hidden)]
    pub fn store(&self) -> &Store {
        &self.parts.store
    }
}

/// Fails at once where a file has no tokenizer; reading it comes later.
fn check_tokenizer(file: &GgufFile) -> Result<()> {
    let has = |wanted: &str| file.gguf().keys().any(|(key, ..)| key == wanted);
    if has(keys::tokenizer::HUGGINGFACE) || has(keys::tokenizer::TOKENS) {
        return Ok(());
    }
    let reason = format!(
        "it has neither the key '{}' nor a token table: convert the checkpoint with gemmule-quantize",
        keys::tokenizer::HUGGINGFACE
    );
    Err(Error::model(file.gguf().name(), reason))
}

/// Hugging Face's `tokenizer.json`, or one made of the token table where the file has that only.
fn tokenizer_json(store: &Store) -> Result<Cow<'_, str>> {
    use keys::tokenizer::{HUGGINGFACE, MODEL, SCORES, TOKEN_TYPE, TOKENS, UNKNOWN};
    let file = &store.files()[0];
    if let Some(json) = file.string(HUGGINGFACE)? {
        return Ok(json.into());
    }
    let (gguf, bytes) = (file.gguf(), file.bytes());
    let failed = |reason: String| Error::model(gguf.name(), reason);
    let kind = file.string(MODEL)?.unwrap_or("none");
    let table =
        (gguf.strings(TOKENS, bytes)?, gguf.long_floats(SCORES, bytes)?, gguf.long_integers(TOKEN_TYPE, bytes)?);
    let (Some(tokens), Some(scores), Some(kinds)) = table else {
        return Err(failed(format!(
            "it has neither the key '{HUGGINGFACE}' nor a token table: convert the checkpoint with gemmule-quantize"
        )));
    };
    if kind != "llama" {
        return Err(failed(format!(
            "its tokenizer is of the kind '{kind}', only 'llama' (SentencePiece) is supported"
        )));
    }
    let unknown = gguf.unsigned(UNKNOWN)?.map(|id| id as usize);
    if scores.len() != tokens.len() || kinds.len() != tokens.len() || unknown.is_some_and(|id| id >= tokens.len()) {
        return Err(failed("the parts of its token table differ in length".to_owned()));
    }
    Ok(crate::text::json_of_table(&tokens, &scores, &kinds, unknown).map_err(failed)?.to_string().into())
}

fn read_tokenizer(store: &Store, config: &Config) -> std::result::Result<Tokenizer, String> {
    let json = tokenizer_json(store).map_err(|error| error.to_string())?;
    let tokenizer = Tokenizer::from_json(&json, &config.special).map_err(|error| error.to_string())?;
    let (used, rows) = (tokenizer.used_vocabulary(), config.text.vocabulary);
    if used > rows {
        return Err(format!("the tokenizer's ids go up to {}, the embedding has {rows} rows", used - 1));
    }
    Ok(tokenizer)
}
