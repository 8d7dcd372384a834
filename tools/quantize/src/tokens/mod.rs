//! `tokenizer.json` as transformers completes it: with the tokens that only the files beside it name, and the locations and segments
//! that PaliGemma's processor makes whole tokens.

mod beside;
mod token;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use gemmule::config::Config;
use gemmule::config::IMAGE_TEXT;
use gemmule::text::{FAR_EDGE, SEGMENT_CODES};
use serde::Deserialize;
use serde_json::value::RawValue;

use self::beside::{Beside, Given};
use self::token::Token;
use crate::json;

/// The parts of `tokenizer.json` that count here.
#[derive(Deserialize)]
struct Head<'a> {
    #[serde(borrow, default)]
    added_tokens: Option<&'a RawValue>,
    model: VocabularyOnly,
}

#[derive(Deserialize)]
struct VocabularyOnly {
    vocab: HashMap<String, u64>,
}

/// Texts of all locations and segments.
fn codes() -> impl Iterator<Item = String> {
    (0..=FAR_EDGE).map(|code| format!("<loc{code:04}>")).chain((0..SEGMENT_CODES).map(|code| format!("<seg{code:03}>")))
}

/// The text of `tokenizer.json`, completed. Where other files name the token that begins a text, the configuration gets it.
pub(crate) fn read(directory: &Path, config: &mut Config) -> Result<String> {
    let path = directory.join("tokenizer.json");
    let shown = path.display();
    if !path.exists() {
        let model = directory.join("tokenizer.model");
        ensure!(
            !model.exists(),
            "{shown}: it is missing, and {} is SentencePiece's, which is not read: make it with transformers \
             (`AutoTokenizer.from_pretrained(DIRECTORY).save_pretrained(DIRECTORY)`)",
            model.display()
        );
        bail!("{shown}: it is missing: fetch it from where the checkpoint is from");
    }
    let text = json::read_text(&path)?;
    let head: Head<'_> = serde_json::from_str(&text).with_context(|| format!("{shown}: it cannot be read"))?;
    let raw = head.added_tokens.map_or("[]", RawValue::get);
    let own: Vec<Token> =
        serde_json::from_str(raw).with_context(|| format!("{shown}: 'added_tokens' is not understood"))?;
    let beside = Beside::read(directory, &own)?;
    let settled =
        settle(&head.model.vocab, &own, &beside, config.text.vocabulary).with_context(|| shown.to_string())?;
    if let Some(bos) = &beside.bos
        && let Some(token) = settled.iter().find(|token| token.content == *bos)
        && token.id != u64::from(config.special.bos)
    {
        log::warn!(
            "{}: texts begin with '{bos}', token {}, as the tokenizer's files say",
            directory.display(),
            token.id
        );
        config.special.bos = token.id as u32;
    }
    let mut ordered = own;
    ordered.sort_by_key(|token| token.id);
    if settled == ordered {
        return Ok(text);
    }
    let list = serde_json::to_string(&settled)?;
    let raw = head.added_tokens.with_context(|| {
        format!("{shown}: 'added_tokens' is missing, and other files name tokens: save the tokenizer with transformers once more")
    })?;
    let start = raw.get().as_ptr() as usize - text.as_ptr() as usize;
    Ok([&text[..start], &list, &text[start + raw.get().len()..]].concat())
}

/// The added tokens in the order of their ids, as the class and then PaliGemma's processor add them.
fn settle(vocabulary: &HashMap<String, u64>, own: &[Token], beside: &Beside, rows: usize) -> Result<Vec<Token>> {
    let mut added = Added { vocabulary, ids: HashMap::new(), tokens: BTreeMap::new() };
    if beside.keeps_own {
        added.extend(own.iter().map(Given::from));
    }
    added.extend(beside.tokens.iter().cloned());
    if !beside.names_image {
        added.extend([Given::new(IMAGE_TEXT, true)]);
    }
    // Locations and segments become new tokens only where the embedding has rows for all of them.
    let is_known = |code: &String| vocabulary.contains_key(code) || added.ids.contains_key(code);
    let unknown = codes().filter(|code| !is_known(code)).count() as u64;
    let has_rows = added.next() + unknown <= rows as u64;
    let new: Vec<Given> =
        codes().filter(|code| has_rows || is_known(code)).map(|code| Given::new(&code, false)).collect();
    added.extend(new);
    if let Some(Token { id, content, .. }) = added.tokens.values().find(|token| token.id >= rows as u64) {
        bail!("the token '{content}' gets the id {id}, the embedding has {rows} rows");
    }
    Ok(added.tokens.into_values().collect())
}

/// The added tokens of a tokenizer, which get their ids as `tokenizers` gives them (`added_vocabulary.rs`).
struct Added<'a> {
    vocabulary: &'a HashMap<String, u64>,
    ids: HashMap<String, u64>,
    tokens: BTreeMap<u64, Token>,
}

impl Added<'_> {
    /// The id that the next new token gets.
    fn next(&self) -> u64 {
        let size = self.vocabulary.len() as u64;
        self.tokens.last_key_value().map_or(size, |(id, _)| size.max(id.saturating_add(1)))
    }

    /// Adds tokens in one call. One that is there already gets new properties.
    fn extend(&mut self, tokens: impl IntoIterator<Item = Given>) {
        let mut next = self.next();
        for token in tokens {
            let known = self.ids.get(&token.content).or_else(|| self.vocabulary.get(&token.content)).copied();
            let id = known.unwrap_or(next);
            next += u64::from(known.is_none());
            self.ids.insert(token.content.clone(), id);
            self.tokens.insert(id, token.token(id));
        }
    }
}
