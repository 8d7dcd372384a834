//! `tokenizer.json` as it is, and the token table that llama.cpp's tools read.

use std::collections::HashMap;

use anyhow::{Context, Result, ensure};
use gemmule::gguf::keys::tokenizer as keys;
use gemmule::gguf::writer::MetadataValue;
use gemmule::model::Config;
use gemmule::text::Tokenizer;
use serde_json::Value;

/// llama.cpp's kinds of tokens.
mod kind {
    pub(super) const NORMAL: i32 = 1;
    pub(super) const UNKNOWN: i32 = 2;
    pub(super) const CONTROL: i32 = 3;
    pub(super) const USER_DEFINED: i32 = 4;
    pub(super) const UNUSED: i32 = 5;
    pub(super) const BYTE: i32 = 6;
}

/// Score of a token that no merge makes: behind every merge.
const LAST: f32 = -1e6;

/// The metadata that `tokenizer.json`, given as text, becomes.
pub(crate) fn metadata(text: String, config: &Config) -> Result<Vec<(String, MetadataValue)>> {
    let rows = config.text.vocabulary;
    // Each takes a second with 256,000 tokens.
    let (tokenizer, table) = rayon::join(|| Tokenizer::from_json(&text, &config.special), || token_table(&text, rows));
    let (tokenizer, mut metadata) = (tokenizer?, table?);
    ensure!(
        tokenizer.used_vocabulary() <= rows,
        "its ids go up to {}, the embedding has {rows} rows",
        tokenizer.used_vocabulary() - 1
    );
    for (key, value) in [(keys::MODEL, "llama"), (keys::PRE, "default")] {
        metadata.push((key.to_owned(), MetadataValue::String(value.to_owned())));
    }
    for (key, value) in [(keys::ADD_BOS, true), (keys::ADD_EOS, false), (keys::ADD_SPACE_PREFIX, false)] {
        metadata.push((key.to_owned(), MetadataValue::Bool(value)));
    }
    metadata.push((keys::HUGGINGFACE.to_owned(), MetadataValue::String(text)));
    Ok(metadata)
}

/// Texts, scores and kinds of `rows` tokens, and the unknown one. A token's score is minus the rank of the merge that makes
/// it, which is how SentencePiece orders merges.
fn token_table(text: &str, rows: usize) -> Result<Vec<(String, MetadataValue)>> {
    let json: Value = serde_json::from_str(text)?;
    let model = &json["model"];
    let vocabulary =
        model["vocab"].as_object().context("'model.vocab' is no object: only BPE tokenizers are supported")?;
    let mut ranks: HashMap<String, usize> = HashMap::new();
    for (rank, merge) in model["merges"].as_array().map(Vec::as_slice).unwrap_or_default().iter().enumerate() {
        let merged = match merge {
            Value::Array(parts) => parts.iter().filter_map(Value::as_str).collect(),
            other => other.as_str().unwrap_or_default().replacen(' ', "", 1),
        };
        ranks.entry(merged).or_insert(rank);
    }
    let mut tokens: Vec<String> = (0..rows).map(|row| format!("<unused_row_{row}>")).collect();
    let mut scores = vec![LAST; rows];
    let mut kinds = vec![kind::UNUSED; rows];
    let unknown = model["unk_token"].as_str();
    let mut set = |id: &Value, text: &str, kind: i32| -> Result<()> {
        let id = id.as_u64().map(|id| id as usize).filter(|id| *id < rows);
        let id = id.with_context(|| format!("the id of token '{text}' is not below {rows}"))?;
        tokens[id] = text.to_owned();
        scores[id] = ranks.get(text).map_or(LAST, |rank| -(*rank as f32));
        kinds[id] = kind;
        Ok(())
    };
    for (text, id) in vocabulary {
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
    for token in json["added_tokens"].as_array().map(Vec::as_slice).unwrap_or_default() {
        let text = token["content"].as_str().unwrap_or_default();
        let kind = match (unknown == Some(text), token["special"].as_bool()) {
            (true, _) => kind::UNKNOWN,
            (_, Some(true)) => kind::CONTROL,
            _ => kind::USER_DEFINED,
        };
        set(&token["id"], text, kind)?;
    }
    let unknown = unknown.and_then(|token| vocabulary.get(token)?.as_u64()).unwrap_or(3) as u32;
    let array = |key: &str, values: Vec<MetadataValue>| (key.to_owned(), MetadataValue::Array(values));
    Ok(vec![
        array(keys::TOKENS, tokens.into_iter().map(MetadataValue::String).collect()),
        array(keys::SCORES, scores.into_iter().map(MetadataValue::Float32).collect()),
        array(keys::TOKEN_TYPE, kinds.into_iter().map(MetadataValue::Int32).collect()),
        (keys::UNKNOWN.to_owned(), MetadataValue::Uint32(unknown)),
    ])
}
