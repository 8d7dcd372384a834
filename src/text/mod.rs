//! The checkpoint's own tokenizer, the prompt's layout, and text that grows token by token.

mod kind;
mod structure;
pub mod table;

use std::sync::OnceLock;

pub use kind::{FAR_EDGE, LOCATIONS, SEGMENT_CODES, SEGMENTS, TokenKind};

use crate::config::SpecialTokens;
use crate::memory::check_room;
use crate::{Error, Result};

/// Memory that a part of a tokenizer's JSON text takes.
const BYTES_OF_A_PART: usize = 160;

/// Hugging Face's tokenizer with the kind of model that Gemma has. The type that takes any kind reads a vocabulary three times
/// over to find out which, which takes twice as long.
type BytePairTokenizer = tokenizers::TokenizerImpl<
    tokenizers::models::bpe::BPE,
    tokenizers::NormalizerWrapper,
    tokenizers::PreTokenizerWrapper,
    tokenizers::PostProcessorWrapper,
    tokenizers::DecoderWrapper,
>;

/// A tokenizer with the roles of its special tokens.
#[derive(Debug)]
pub struct Tokenizer {
    inner: BytePairTokenizer,
    special: SpecialTokens,
    bos_text: String,
    used_vocabulary: usize,
    /// In bytes; known when a long prompt comes.
    longest_token: OnceLock<usize>,
    /// Made when it is first needed: constrained answers look at every token.
    pieces: OnceLock<Pieces>,
}

/// What each token adds to a text.
#[derive(Debug)]
struct Pieces {
    bytes: Vec<u8>,
    /// Where each token's bytes end, and its kind.
    tokens: Vec<(usize, TokenKind)>,
}

impl Tokenizer {
    /// Reads Hugging Face's `tokenizer.json`.
    ///
    /// # Errors
    /// When it is not one for byte-pair encoding, or lacks the tokens that the configuration names.
    pub fn from_json(json: &str, special: &SpecialTokens) -> Result<Self> {
        // What the parts of the JSON text become, on the way to the vocabulary's tables: up to 150 bytes each, as measured with Gemma's.
        let parts = json.bytes().filter(|byte| *byte == b',').count();
        check_room(parts.saturating_mul(BYTES_OF_A_PART).saturating_add(json.len()), "the tokenizer's tables")?;
        structure::check(json).map_err(Error::Tokenizer)?;
        let mut inner: BytePairTokenizer =
            serde_json::from_str(json).map_err(|error| Error::Tokenizer(error.to_string()))?;
        // A file keeps what its trainer cut or filled up batches to; a prompt alone is neither cut nor filled up.
        inner.with_padding(None).with_truncation(None).map_err(|error| Error::Tokenizer(error.to_string()))?;
        let bos_text = inner
            .id_to_token(special.bos)
            .ok_or_else(|| Error::Tokenizer(format!("it has no token {} (begin of text)", special.bos)))?;
        let used_vocabulary = used_vocabulary(&inner);
        Ok(Self {
            inner,
            special: special.clone(),
            bos_text,
            used_vocabulary,
            longest_token: OnceLock::new(),
            pieces: OnceLock::new(),
        })
    }

    /// Ids from here on belong to no token.
    pub fn used_vocabulary(&self) -> usize {
        self.used_vocabulary
    }

    /// Special tokens.
    pub fn special(&self) -> &SpecialTokens {
        &self.special
    }

    /// Plain text to ids, nothing added.
    ///
    /// # Errors
    /// When the tokenizer fails.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let encoding = self.inner.encode(text, false).map_err(|error| Error::Tokenizer(error.to_string()))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The prefix of a request: the image tokens of `pictures`, begin-of-text, the prompt, a newline. A prompt may begin with
    /// the mark of each picture (`<image>`), as model cards print it.
    ///
    /// # Errors
    /// When the prompt has other marks than one for each picture at its beginning.
    pub fn prefix(&self, pictures: usize, tokens_of_picture: usize, prompt: &str) -> Result<Vec<u32>> {
        let mark = self.inner.id_to_token(self.special.image).unwrap_or_default();
        let mut rest = prompt;
        let mut marks = 0;
        while let Some(after) = rest.strip_prefix(&mark).filter(|_| !mark.is_empty()) {
            (rest, marks) = (after, marks + 1);
        }
        if marks > 0 && marks != pictures {
            return Err(Error::Request(format!(
                "the prompt begins with '{mark}' × {marks}; pictures given: {pictures}. Leave '{mark}' out"
            )));
        }
        let text = self.encode(&format!("{}{rest}\n", self.bos_text))?;
        if text.contains(&self.special.image) {
            return Err(Error::Request(format!(
                "'{mark}' stands within the prompt: pictures are given beside it and come first; leave '{mark}' out"
            )));
        }
        let mut ids = vec![self.special.image; pictures * tokens_of_picture];
        ids.extend(text);
        Ok(ids)
    }

    /// The fewest tokens that so long a text can have, without looking at it: its bytes by those of the longest token. One where the
    /// tokenizer may leave parts of a text out.
    pub(crate) fn fewest_tokens(&self, bytes: usize) -> usize {
        bytes.div_ceil(*self.longest_token.get_or_init(|| self.longest_token().unwrap_or(usize::MAX)))
    }

    /// Bytes of a text that one token can stand for; none where there is no bound.
    fn longest_token(&self) -> Option<usize> {
        let keeps_length = match self.inner.get_normalizer().map(serde_json::to_value) {
            None => true,
            Some(Ok(step)) => {
                let len = |text: &serde_json::Value| text.as_str().map_or(0, str::len);
                step["type"] == "Replace" && len(&step["pattern"]["String"]) <= len(&step["content"])
            }
            Some(Err(_)) => false,
        };
        let keeps_spaces = self.inner.get_added_tokens_decoder().values().all(|token| !token.lstrip && !token.rstrip);
        // Unknown characters in a row are one token where they are not spelled in bytes.
        let spells = (0..=u8::MAX).all(|byte| self.inner.token_to_id(&format!("<0x{byte:02X}>")).is_some());
        let all_is_kept = keeps_length && keeps_spaces && spells && self.inner.get_model().byte_fallback;
        let lengths = (0..self.used_vocabulary as u32).filter_map(|id| self.token(id)).map(|text| text.len());
        if all_is_kept { lengths.max() } else { None }
    }

    /// A token's text as the vocabulary has it.
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// The bytes that a token adds to a text; a character may be spread over several. None for begin, end, padding and
    /// image tokens.
    pub fn bytes(&self, id: u32) -> &[u8] {
        let (pieces, id) = (self.pieces(), id as usize);
        let Some((end, _)) = pieces.tokens.get(id) else { return &[] };
        let start = id.checked_sub(1).map_or(0, |before| pieces.tokens[before].0);
        &pieces.bytes[start..*end]
    }

    /// Whether the vocabulary has location tokens.
    pub(crate) fn has_codes(&self) -> bool {
        self.inner.token_to_id("<loc0000>").is_some()
    }

    /// What a token is in an answer about objects.
    pub fn kind(&self, id: u32) -> TokenKind {
        // A few tokens are no reason to make the table of all.
        match self.pieces.get() {
            Some(pieces) => pieces.tokens.get(id as usize).map_or(TokenKind::Text, |token| token.1),
            None => self.token(id).map_or(TokenKind::Text, |text| TokenKind::of(&text)),
        }
    }

    fn pieces(&self) -> &Pieces {
        self.pieces.get_or_init(|| {
            let (mut bytes, mut tokens) = (Vec::new(), Vec::with_capacity(self.used_vocabulary));
            for id in 0..self.used_vocabulary as u32 {
                let text = self.token(id).unwrap_or_default();
                // SentencePiece's byte fallback: <0x00> … <0xFF>.
                let byte = text.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>'));
                if let Some(byte) = byte.filter(|hex| hex.len() == 2).and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
                    bytes.push(byte);
                } else if !self.is_hidden(id) {
                    bytes.extend_from_slice(text.replace('▁', " ").as_bytes());
                }
                tokens.push((bytes.len(), TokenKind::of(&text)));
            }
            Pieces { bytes, tokens }
        })
    }

    /// Begin, end, padding and image tokens show no text.
    fn is_hidden(&self, id: u32) -> bool {
        let SpecialTokens { image, bos, pad, .. } = self.special;
        [image, bos, pad].contains(&id) || self.is_end(id)
    }

    /// Whether `id` ends an answer.
    pub fn is_end(&self, id: u32) -> bool {
        self.special.eos.contains(&id)
    }

    /// Ids to text. Begin, end, padding and image tokens are left out; location and segment tokens stay.
    ///
    /// # Errors
    /// When the tokenizer fails.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        let visible: Vec<u32> = ids.iter().copied().filter(|id| !self.is_hidden(*id)).collect();
        self.inner.decode(&visible, false).map_err(|error| Error::Tokenizer(error.to_string()))
    }
}

/// One more than the largest id.
fn used_vocabulary(inner: &BytePairTokenizer) -> usize {
    let count = inner.get_vocab_size(true);
    // Where so many tokens have the ids below, there is no other; making the table of all takes three times as long.
    if (0..count as u32).all(|id| inner.id_to_token(id).is_some()) {
        return count;
    }
    inner.get_vocab(true).values().max().map_or(0, |id| *id as usize + 1)
}

/// What of a text stands behind its first `shown` bytes. A stray byte makes replacement characters of a run that was shown as
/// characters; the next whole one is then the first.
fn behind(text: &str, shown: usize) -> &str {
    let start = (shown..text.len()).find(|place| text.is_char_boundary(*place)).unwrap_or(text.len());
    &text[start..]
}

/// Text that grows token by token and never shows half a character.
///
/// ```no_run
/// # fn show(tokenizer: &gemmule::text::Tokenizer, ids: &[u32]) -> gemmule::Result<()> {
/// let mut text = gemmule::text::TextStream::new();
/// for id in ids {
///     print!("{}", text.push(tokenizer, *id)?);
/// }
/// println!("{}", text.finish(tokenizer)?);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Default)]
pub struct TextStream {
    ids: Vec<u32>,
    /// Tokens before this one are settled: later tokens cannot change their text.
    settled: usize,
    /// Bytes of the text of `ids[settled..]` that were handed out.
    shown: usize,
}

/// Settled tokens that are decoded again as context for the next ones, since a decoder may look at neighbours.
const CONTEXT: usize = 8;

/// Most byte tokens of one character.
const LONGEST_CHARACTER: usize = 4;

impl TextStream {
    /// An empty text.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a token of `tokenizer`, the same for all; returns the text that became certain with it.
    ///
    /// # Errors
    /// When the tokenizer fails.
    pub fn push(&mut self, tokenizer: &Tokenizer, id: u32) -> Result<String> {
        self.ids.push(id);
        let text = tokenizer.decode(&self.ids[self.settled..])?;
        // The replacement character at the end is a character that is still missing bytes.
        let certain = text.trim_end_matches('\u{fffd}').len();
        let piece = behind(&text[..certain], self.shown).to_owned();
        self.shown = self.shown.max(certain);
        if certain == text.len() && self.ids.len() - self.settled > 2 * CONTEXT {
            // Byte tokens in a row are decoded as one: only from where a character begins do they have the same text.
            let from = self.ids.len() - CONTEXT;
            for settled in from..from + LONGEST_CHARACTER {
                let rest = tokenizer.decode(&self.ids[settled..])?;
                if text.ends_with(&rest) {
                    (self.settled, self.shown) = (settled, rest.len());
                    break;
                }
            }
        }
        Ok(piece)
    }

    /// What was held back, for the end of the text.
    ///
    /// # Errors
    /// When the tokenizer fails.
    pub fn finish(&mut self, tokenizer: &Tokenizer) -> Result<String> {
        let text = tokenizer.decode(&self.ids[self.settled..])?;
        let piece = behind(&text, self.shown).to_owned();
        self.shown = text.len();
        Ok(piece)
    }
}
