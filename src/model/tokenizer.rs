//! A model's tokenizer, read in the background.

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Instant;

use crate::config::Config;
use crate::gguf::{GgufFile, keys};
use crate::text::{Tokenizer, table};
use crate::weights::Store;
use crate::{Error, Result, memory};

type Read = std::result::Result<Tokenizer, String>;
type TokenizerCell = OnceLock<Read>;

/// A tokenizer that a thread of its own reads. The thread reads the mapped file, so it ends before the model does: whoever
/// has dropped a model may rewrite its file.
#[derive(Debug)]
pub(super) struct BackgroundTokenizer {
    cell: Arc<TokenizerCell>,
    reader: Option<JoinHandle<()>>,
}

/// 64 MB, and as much before they are aligned.
const HEAP_OF_A_THREAD: u64 = 128 << 20;

impl BackgroundTokenizer {
    /// Starts reading. Where the system has no thread to give, or not the memory that glibc keeps for one's small allocations (without
    /// it each takes a page), the first use reads.
    pub(super) fn start(store: Arc<Store>, config: Config) -> Self {
        let cell = Arc::new(TokenizerCell::new());
        let shared = Arc::clone(&cell);
        let read = move || {
            shared.get_or_init(|| read_tokenizer(&store, &config));
        };
        let reader = memory::is_there(HEAP_OF_A_THREAD)
            .then(|| std::thread::Builder::new().name("gemmule-tokenizer".to_owned()).spawn(read).ok())
            .flatten();
        if reader.is_none() {
            log::warn!("no thread or no memory to read the tokenizer in the background: its first use reads it");
        }
        Self { cell, reader }
    }

    /// The tokenizer, or why there is none; waits for the reader.
    pub(super) fn get(&self, store: &Store, config: &Config) -> &Read {
        if let Some(read) = self.cell.get() {
            return read;
        }
        let start = Instant::now();
        let read = self.cell.get_or_init(|| read_tokenizer(store, config));
        log::debug!("waited {:.1?} for the tokenizer", start.elapsed());
        read
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

/// Fails at once where a file has no tokenizer; reading it comes later.
pub(super) fn check(file: &GgufFile) -> Result<()> {
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
    Ok(table::tokenizer_json(&tokens, &scores, &kinds, unknown).map_err(failed)?.to_string().into())
}

fn read_tokenizer(store: &Store, config: &Config) -> Read {
    let start = Instant::now();
    let json = tokenizer_json(store).map_err(|error| error.to_string())?;
    let tokenizer = Tokenizer::from_json(&json, &config.special).map_err(|error| error.to_string())?;
    let (used, rows) = (tokenizer.used_vocabulary(), config.text.vocabulary);
    if used > rows {
        return Err(format!("the tokenizer's ids go up to {}, the embedding has {rows} rows", used - 1));
    }
    log::debug!("a tokenizer of {used} tokens was read in {:.1?}", start.elapsed());
    Ok(tokenizer)
}
