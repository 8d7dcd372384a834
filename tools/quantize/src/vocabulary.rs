//! `tokenizer.json` as it is, and the token table that llama.cpp's tools read.

use std::borrow::{Borrow, Cow};
use std::collections::HashMap;
use std::fmt;

use anyhow::{Context, Result, ensure};
use gemmule::config::Config;
use gemmule::gguf::keys::tokenizer as keys;
use gemmule::gguf::writer::MetadataValue;
use gemmule::text::Tokenizer;
use gemmule::text::table::kind;
use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Unexpected, Visitor};

/// Score of a token that no merge makes: below that of every merge.
const LAST: f32 = -1e6;

/// What the token table is made of. The rest of `tokenizer.json` is skipped, and texts without escapes are borrowed: copies of the
/// 580,000 merges of Gemma's 256,000 tokens would take several times as long.
#[derive(serde::Deserialize)]
struct TokenizerJson<'a> {
    #[serde(borrow)]
    model: BytePairModel<'a>,
    #[serde(borrow, default)]
    added_tokens: Vec<AddedToken<'a>>,
}

#[derive(serde::Deserialize)]
struct BytePairModel<'a> {
    #[serde(borrow)]
    vocab: HashMap<Text<'a>, u64>,
    #[serde(borrow, default)]
    merges: Vec<Merge<'a>>,
    unk_token: Option<String>,
}

#[derive(serde::Deserialize)]
struct AddedToken<'a> {
    id: u64,
    #[serde(borrow)]
    content: Text<'a>,
    #[serde(default)]
    special: bool,
}

#[derive(serde::Deserialize, PartialEq, Eq, Hash)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl Borrow<str> for Text<'_> {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// Two tokens that become one.
struct Merge<'a>(Cow<'a, str>, Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Merge<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Parts;
        impl<'de> Visitor<'de> for Parts {
            type Value = Merge<'de>;

            fn expecting(&self, out: &mut fmt::Formatter) -> fmt::Result {
                out.write_str("a merge: two strings, or one with a space between its parts")
            }

            fn visit_str<E: Error>(self, text: &str) -> std::result::Result<Merge<'de>, E> {
                let (first, second) =
                    text.split_once(' ').ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))?;
                Ok(Merge(first.to_owned().into(), second.to_owned().into()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> std::result::Result<Merge<'de>, A::Error> {
                let mut part = |at| parts.next_element()?.ok_or_else(|| A::Error::invalid_length(at, &self));
                let (Text(first), Text(second)) = (part(0)?, part(1)?);
                Ok(Merge(first, second))
            }
        }
        deserializer.deserialize_any(Parts)
    }
}

/// Whether the program will be able to use `tokenizer.json`, given as text. That takes a second with 256,000 tokens.
pub(crate) fn check(text: &str, config: &Config) -> Result<()> {
    let (used, rows) = (Tokenizer::from_json(text, &config.special)?.used_vocabulary(), config.text.vocabulary);
    ensure!(used <= rows, "its ids go up to {}, the embedding has {rows} rows", used - 1);
    Ok(())
}

/// The metadata that `tokenizer.json`, given as text, becomes.
pub(crate) fn metadata(text: String, config: &Config) -> Result<Vec<(String, MetadataValue)>> {
    let mut metadata = token_table(&text, config.text.vocabulary)?;
    for (key, value) in [(keys::MODEL, "llama"), (keys::PRE, "default")] {
        metadata.push((key.to_owned(), MetadataValue::String(value.to_owned())));
    }
    for (key, value) in [(keys::ADD_BOS, true), (keys::ADD_EOS, false), (keys::ADD_SPACE_PREFIX, false)] {
        metadata.push((key.to_owned(), MetadataValue::Bool(value)));
    }
    metadata.push((keys::HUGGINGFACE.to_owned(), MetadataValue::String(text)));
    Ok(metadata)
}

/// Texts, scores and kinds of `rows` tokens, and the unknown one. A token's score is minus the rank of the first merge that
/// makes it, which is how SentencePiece orders merges.
fn token_table(text: &str, rows: usize) -> Result<Vec<(String, MetadataValue)>> {
    let TokenizerJson { model, added_tokens } =
        serde_json::from_str(text).context("it cannot be read as a tokenizer for byte-pair encoding")?;
    let mut tokens = vec![String::new(); rows];
    let mut kinds = vec![kind::UNUSED; rows];
    let unknown = model.unk_token.as_deref();
    let mut set = |id: u64, text: &str, kind: i32| -> Result<()> {
        let id = usize::try_from(id).ok().filter(|id| *id < rows);
        let id = id.with_context(|| format!("the id of token '{text}' is not below {rows}"))?;
        tokens[id] = text.to_owned();
        kinds[id] = kind;
        Ok(())
    };
    for (Text(text), &id) in &model.vocab {
        let is_byte = text.len() == 6 && text.starts_with("<0x") && text.ends_with('>');
        let kind = if unknown == Some(text) {
            kind::UNKNOWN
        } else if is_byte {
            kind::BYTE
        } else {
            kind::NORMAL
        };
        set(id, text, kind)?;
    }
    for AddedToken { id, content, special } in &added_tokens {
        let kind = match (unknown == Some(&content.0), special) {
            (true, _) => kind::UNKNOWN,
            (_, true) => kind::CONTROL,
            _ => kind::USER_DEFINED,
        };
        set(*id, &content.0, kind)?;
    }
    let mut scores = vec![None; rows];
    let mut merged = String::new();
    for (rank, Merge(first, second)) in model.merges.iter().enumerate() {
        merged.clear();
        merged.extend([&**first, &**second]);
        if let Some(&id) = model.vocab.get(merged.as_str()) {
            scores[id as usize].get_or_insert(-(rank as f32));
        }
    }
    for (row, token) in tokens.iter_mut().enumerate().filter(|(row, _)| kinds[*row] == kind::UNUSED) {
        *token = format!("<unused_row_{row}>");
    }
    let unknown = unknown.and_then(|token| model.vocab.get(token)).map_or(3, |id| *id as u32);
    let array = |key: &str, values: Vec<MetadataValue>| (key.to_owned(), MetadataValue::Array(values));
    Ok(vec![
        array(keys::TOKENS, tokens.into_iter().map(MetadataValue::String).collect()),
        array(keys::SCORES, scores.into_iter().map(|score| MetadataValue::Float32(score.unwrap_or(LAST))).collect()),
        array(keys::TOKEN_TYPE, kinds.into_iter().map(MetadataValue::Int32).collect()),
        (keys::UNKNOWN.to_owned(), MetadataValue::Uint32(unknown)),
    ])
}
