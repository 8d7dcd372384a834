//! `tokenizer.json` as transformers completes it: with the tokens that only the files beside it name, and the locations and segments
//! that PaliGemma's processor makes whole tokens.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use gemmule::model::Config;
use gemmule::text::{FAR_EDGE, SEGMENT_CODES};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::{json, note};

/// A token that is matched before a text is parted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Token {
    id: u64,
    content: String,
    #[serde(default)]
    single_word: bool,
    #[serde(default)]
    lstrip: bool,
    #[serde(default)]
    rstrip: bool,
    #[serde(default)]
    normalized: bool,
    #[serde(default)]
    special: bool,
}

impl Token {
    /// As Python's `AddedToken(content)` is; its id is to be found.
    fn new(content: &str, special: bool) -> Self {
        let content = content.to_owned();
        Self { id: u64::MAX, content, single_word: false, lstrip: false, rstrip: false, normalized: !special, special }
    }
}

/// The added tokens of `tokenizer.json`; the vocabulary is read over.
#[derive(Deserialize)]
struct Head<'a> {
    #[serde(borrow, default)]
    added_tokens: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Whole {
    model: VocabularyOnly,
}

#[derive(Deserialize)]
struct VocabularyOnly {
    vocab: HashMap<String, u64>,
}

/// What the files beside `tokenizer.json` say.
#[derive(Default)]
struct Beside {
    /// Tokens with all that is to know of them, by `added_tokens_decoder`.
    decoder: Option<Vec<Token>>,
    /// Further tokens.
    added: Vec<String>,
    special: Vec<String>,
    bos: Option<String>,
    /// The class takes no added tokens from `tokenizer.json` where there is a decoder.
    is_gemma: bool,
}

/// A token's text: a string, or an object that holds it.
fn text_of(value: &Value) -> Option<&str> {
    value.as_str().or_else(|| value["content"].as_str())
}

impl Beside {
    fn read(directory: &Path) -> Result<Self> {
        let object = |name: &str| -> Result<Value> {
            let path = directory.join(name);
            let value = json::read_optional(&path)?.unwrap_or(Value::Null);
            ensure!(value.is_object() || value.is_null(), "{}: it is no JSON object", path.display());
            Ok(value)
        };
        let config = object("tokenizer_config.json")?;
        let name = directory.join("tokenizer_config.json").display().to_string();
        let split = &config["split_special_tokens"];
        ensure!(
            split.is_null() || *split == false,
            "{name}: 'split_special_tokens' is {split}, which is not supported"
        );
        let mut beside = Self {
            is_gemma: config["tokenizer_class"].as_str().is_some_and(|class| class.starts_with("GemmaTokenizer")),
            ..Self::default()
        };
        if let Some(decoder) = config["added_tokens_decoder"].as_object() {
            let token = |(id, value): (&String, &Value)| -> Option<Token> {
                let mut value = value.clone();
                value.as_object_mut()?.insert("id".to_owned(), id.parse::<u64>().ok()?.into());
                serde_json::from_value(value).ok()
            };
            let tokens: Option<Vec<Token>> = decoder.iter().map(token).collect();
            let mut tokens = tokens.with_context(|| format!("{name}: 'added_tokens_decoder' is not understood"))?;
            tokens.sort_by_key(|token| token.id);
            beside.decoder = Some(tokens);
        }
        let mut places = vec![config];
        if beside.decoder.is_none() {
            // The older files count only without it; the map before the configuration.
            places.insert(0, object("special_tokens_map.json")?);
            if let Some(added) = object("added_tokens.json")?.as_object() {
                let mut added: Vec<(&String, i64)> =
                    added.iter().map(|(text, id)| (text, id.as_i64().unwrap_or(i64::MAX))).collect();
                added.sort_by_key(|(_, id)| *id);
                beside.added = added.into_iter().map(|(text, _)| text.clone()).collect();
            }
        }
        for key in
            ["bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token", "image_token"]
        {
            let found = places.iter().find_map(|place| text_of(&place[key])).map(str::to_owned);
            if key == "bos_token" {
                beside.bos.clone_from(&found);
            }
            beside.special.extend(found);
        }
        for key in ["additional_special_tokens", "extra_special_tokens"] {
            for place in &places {
                let list: Vec<&Value> = match &place[key] {
                    Value::Array(list) => list.iter().collect(),
                    Value::Object(map) => map.values().collect(),
                    _ => continue,
                };
                beside.special.extend(list.into_iter().filter_map(text_of).map(str::to_owned));
                break;
            }
        }
        beside.special.retain(|text| !text.is_empty());
        Ok(beside)
    }
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
    let beside = Beside::read(directory)?;
    let head: Head<'_> = serde_json::from_str(&text).with_context(|| format!("{shown}: it cannot be read"))?;
    let raw = head.added_tokens.map_or("[]", RawValue::get);
    let own: Vec<Token> =
        serde_json::from_str(raw).with_context(|| format!("{shown}: 'added_tokens' is not understood"))?;
    let settled = settle(&text, &own, &beside, config.text.vocabulary).with_context(|| shown.to_string())?;
    if let Some(bos) = &beside.bos
        && let Some(token) = settled.iter().find(|token| token.content == *bos)
        && token.id != u64::from(config.special.bos)
    {
        note(&format!(
            "{}: texts begin with '{bos}', token {}, as the tokenizer's files say",
            directory.display(),
            token.id
        ));
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

/// The added tokens in the order of their ids.
fn settle(text: &str, own: &[Token], beside: &Beside, rows: usize) -> Result<Vec<Token>> {
    let mut tokens: Vec<Token> = match &beside.decoder {
        Some(_) if beside.is_gemma => Vec::new(),
        _ => own.to_vec(),
    };
    let mut place: HashMap<String, usize> =
        tokens.iter().zip(0..).map(|(token, at)| (token.content.clone(), at)).collect();
    let mut put = |token: Token, replaces: bool| match place.get(&token.content) {
        Some(at) if replaces => tokens[*at] = Token { id: tokens[*at].id, ..token },
        Some(_) => {}
        None => {
            place.insert(token.content.clone(), tokens.len());
            tokens.push(token);
        }
    };
    for token in beside.decoder.iter().flatten() {
        put(Token { id: u64::MAX, ..token.clone() }, true);
    }
    for content in &beside.added {
        put(Token::new(content, beside.special.contains(content)), false);
    }
    for content in &beside.special {
        put(Token::new(content, true), false);
    }
    let known: HashMap<&str, u64> = own.iter().map(|token| (token.content.as_str(), token.id)).collect();
    let is_complete = tokens.iter().all(|token| known.contains_key(token.content.as_str()));
    let mut vocabulary = HashMap::new();
    if !is_complete || codes().any(|code| !known.contains_key(code.as_str())) {
        // Only where something is to be found: it takes a while with 256,000 tokens.
        vocabulary = serde_json::from_str::<Whole>(text).context("its vocabulary is not understood")?.model.vocab;
        let there: HashSet<String> = tokens.iter().map(|token| token.content.clone()).collect();
        let missing = codes().filter(|code| vocabulary.contains_key(code) && !there.contains(code));
        tokens.extend(missing.map(|code| Token::new(&code, false)));
    }
    let largest = vocabulary.values().copied().chain(own.iter().map(|token| token.id)).max();
    let mut next = largest.map_or(0, |id| id.saturating_add(1));
    for token in &mut tokens {
        // What is written beside a token does not count: a token of the vocabulary has its id there.
        let id = vocabulary.get(&token.content).or_else(|| known.get(token.content.as_str())).copied();
        token.id = id.unwrap_or_else(|| {
            next = next.saturating_add(1);
            next - 1
        });
        ensure!(
            (token.id as usize) < rows,
            "the token '{}' gets the id {}, the embedding has {rows} rows",
            token.content,
            token.id
        );
        // The processor adds them once more, without these.
        if is_code(&token.content) {
            (token.single_word, token.lstrip, token.rstrip) = (false, false, false);
        }
    }
    tokens.sort_by_key(|token| token.id);
    Ok(tokens)
}

fn is_code(text: &str) -> bool {
    let kind = gemmule::text::TokenKind::of(text);
    kind.location().is_some() || kind.segment().is_some()
}
