//! The tokens that the files beside `tokenizer.json` name, gathered as transformers 5.23 gathers them
//! (`tokenization_utils_base.py`, `tokenization_utils_tokenizers.py`, `models/gemma/tokenization_gemma.py`).

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use indexmap::IndexMap;
use serde::Deserialize;
use serde_json::Value;

use super::token::Token;
use crate::json::{self, Ordered};

const CONFIG: &str = "tokenizer_config.json";
const MAP: &str = "special_tokens_map.json";
const ADDED: &str = "added_tokens.json";

/// Keys of tokens that every tokenizer has, in the order in which transformers adds them.
const STANDARD: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// What Gemma's tokenizer takes where no file has the key.
const OF_GEMMA: [(&str, &str); 5] = [
    ("bos_token", "<bos>"),
    ("eos_token", "<eos>"),
    ("unk_token", "<unk>"),
    ("pad_token", "<pad>"),
    ("mask_token", "<mask>"),
];

/// Classes that take `tokenizer.json` as it is.
const PLAIN: [&str; 3] = ["PreTrainedTokenizer", "TokenizersBackend", "PythonBackend"];

const EXTRA: &str = "extra_special_tokens";
const ADDITIONAL: &str = "additional_special_tokens";

/// Arguments of Python's `AddedToken`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub(super) struct Given {
    pub(super) content: String,
    #[serde(default)]
    single_word: bool,
    #[serde(default)]
    lstrip: bool,
    #[serde(default)]
    rstrip: bool,
    #[serde(default)]
    normalized: Option<bool>,
    #[serde(default)]
    special: bool,
}

impl Given {
    /// `AddedToken(content, special=special)`.
    pub(super) fn new(content: &str, special: bool) -> Self {
        let content = content.to_owned();
        Self { content, single_word: false, lstrip: false, rstrip: false, normalized: None, special }
    }

    /// With the id that it gets. A token is found in the normalized text unless it is special or says otherwise.
    pub(super) fn token(self, id: u64) -> Token {
        let Self { content, single_word, lstrip, rstrip, normalized, special } = self;
        Token { id, content, single_word, lstrip, rstrip, normalized: normalized.unwrap_or(!special), special }
    }
}

impl From<&Token> for Given {
    fn from(token: &Token) -> Self {
        let Token { content, single_word, lstrip, rstrip, normalized, special, .. } = token.clone();
        Self { content, single_word, lstrip, rstrip, normalized: Some(normalized), special }
    }
}

/// What the files beside `tokenizer.json` say.
pub(super) struct Beside {
    /// Whether the class keeps the added tokens of `tokenizer.json`. Gemma's makes its tokenizer anew.
    pub(super) keeps_own: bool,
    /// Tokens to add, in order.
    pub(super) tokens: Vec<Given>,
    pub(super) bos: Option<String>,
    /// Whether a token is named for the pictures' places; the processor adds `<image>` otherwise.
    pub(super) names_image: bool,
}

impl Beside {
    /// `own` are the added tokens of `tokenizer.json`.
    pub(super) fn read(directory: &Path, own: &[Token]) -> Result<Self> {
        let mut config = Source::read(directory, CONFIG)?;
        let split = config.entries.get("split_special_tokens");
        ensure!(
            split.is_none_or(|split| split.is_null() || *split == false),
            "{}: 'split_special_tokens' is {}, which is not supported",
            config.name,
            split.unwrap_or(&Value::Null)
        );
        let class = config.entries.shift_remove("tokenizer_class");
        let class = class.as_ref().and_then(Value::as_str).map(|class| class.trim_end_matches("Fast"));
        let is_gemma = class == Some("GemmaTokenizer");
        if let Some(class) = class.filter(|class| !is_gemma && !PLAIN.contains(class)) {
            log::warn!("{}: '{class}' is taken for a plain tokenizer, which tokenizer.json tells", config.name);
        }
        let mut keys = Keys::of_configuration(&mut config);
        let decoder = match config.entries.shift_remove("added_tokens_decoder") {
            None | Some(Value::Null) => {
                let map = Source::read(directory, MAP)?;
                keys.merge(&mut config, map)?;
                let added = Source::read(directory, ADDED)?;
                let mut decoder = keys.added_tokens(&config, added)?;
                decoder
                    .extend(own.iter().map(|token| (i64::try_from(token.id).unwrap_or(i64::MAX), Given::from(token))));
                decoder
            }
            Some(decoder) => decoder_of(&decoder)
                .with_context(|| format!("{}: 'added_tokens_decoder' is not understood", config.name))?,
        };
        let named = keys.named(&config, &decoder, is_gemma)?;
        let extra = keys.extra(&mut config)?;
        let bos = named.iter().find(|(key, _)| key == "bos_token").map(|(_, token)| token.content.clone());
        let names_image = named.iter().any(|(key, _)| key == "image_token");
        let names: HashSet<&str> = named.iter().map(|(_, token)| token.content.as_str()).collect();
        let own = own.iter().filter(|_| !is_gemma).map(|token| token.content.as_str());
        let there: HashSet<String> =
            decoder.values().map(|token| token.content.as_str()).chain(own).map(str::to_owned).collect();
        let mut tokens: Vec<Given> = decoder.into_values().collect();
        // One that comes twice gets the properties of the later one.
        let further = named.iter().map(|(_, token)| token.clone()).chain(extra);
        tokens.extend(further.filter(|token| !there.contains(&token.content)));
        for token in &mut tokens {
            token.special |= names.contains(token.content.as_str());
        }
        Ok(Self { keeps_own: !is_gemma, tokens, bos, names_image })
    }
}

/// A JSON object and the file that it is from.
struct Source {
    name: String,
    entries: Ordered,
    /// The entries that are objects, in their order.
    objects: IndexMap<String, Object>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Object {
    Entries(Ordered),
    Other(serde::de::IgnoredAny),
}

impl Source {
    /// Without entries where the file is absent.
    fn read(directory: &Path, name: &str) -> Result<Self> {
        let path = directory.join(name);
        let name = path.display().to_string();
        if !path.exists() {
            return Ok(Self { name, entries: Ordered::default(), objects: IndexMap::default() });
        }
        Ok(Self { name, entries: json::read_as(&path)?, objects: json::read_as(&path)? })
    }

    /// Takes the further special tokens where they have names.
    fn take_extra_by_name(&mut self) -> Ordered {
        if !self.entries.get(EXTRA).is_some_and(Value::is_object) {
            return Ordered::default();
        }
        self.entries.shift_remove(EXTRA);
        // Under the older name the other is absent, or no object.
        let objects = [EXTRA, ADDITIONAL].into_iter().filter_map(|key| self.objects.shift_remove(key));
        let entries = objects.filter_map(|object| match object {
            Object::Entries(entries) => Some(entries),
            Object::Other(_) => None,
        });
        entries.into_iter().find(|entries| !entries.is_empty()).unwrap_or_default()
    }
}

/// `added_tokens_decoder`: tokens by their ids.
fn decoder_of(value: &Value) -> Option<BTreeMap<i64, Given>> {
    let token = |(id, value): (&String, &Value)| Some((id.parse().ok()?, Given::deserialize(value).ok()?));
    value.as_object()?.iter().map(token).collect()
}

/// Whether a value is absent, or false in Python.
fn is_empty(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null | Value::Bool(false)) => true,
        Some(Value::String(text)) => text.is_empty(),
        Some(Value::Array(list)) => list.is_empty(),
        Some(Value::Object(map)) => map.is_empty(),
        Some(_) => false,
    }
}

/// Whether a key names a token that is no standard one.
fn is_specific(key: &str) -> bool {
    key.ends_with("_token") && !STANDARD.contains(&key)
}

fn is_added_token(value: &Value) -> bool {
    value["__type"] == "AddedToken"
}

/// Named tokens that are no standard ones: those that take part explicitly.
struct Keys {
    explicit: Ordered,
}

impl Keys {
    /// Takes them from `tokenizer_config.json`.
    fn of_configuration(config: &mut Source) -> Self {
        if is_empty(config.entries.get(EXTRA))
            && let Some(additional) = config.entries.shift_remove(ADDITIONAL)
        {
            config.entries.insert(EXTRA.to_owned(), additional);
        }
        let mut explicit = Ordered::default();
        config.entries.retain(|key, value| {
            let moves = is_specific(key) && value.is_string();
            if moves {
                explicit.insert(key.clone(), value.take());
            }
            !moves
        });
        explicit.extend(config.take_extra_by_name());
        Self { explicit }
    }

    /// `special_tokens_map.json` goes before the configuration.
    fn merge(&mut self, config: &mut Source, mut map: Source) -> Result<()> {
        // Extra tokens with names replace a list of them.
        if map.entries.get(EXTRA).is_some_and(Value::is_object) {
            config.entries.shift_remove(EXTRA);
        }
        self.explicit.extend(map.take_extra_by_name());
        for (key, mut value) in map.entries {
            let is_fit = !STANDARD.contains(&key.as_str()) || value.is_null() || given(&value).is_some();
            ensure!(is_fit, "{}: '{key}' is {value}, no token", map.name);
            let mark = |token: &mut Value| {
                if let Some(token) = token.as_object_mut() {
                    token.insert("special".to_owned(), true.into());
                    token.insert("__type".to_owned(), "AddedToken".into());
                }
            };
            match &mut value {
                Value::Array(list) if key == EXTRA => {
                    list.iter_mut().for_each(mark);
                    if let Some(Value::Array(before)) = config.entries.get(EXTRA) {
                        list.retain(|token| !before.contains(token));
                        list.splice(..0, before.iter().cloned());
                    }
                }
                value => mark(value),
            }
            config.entries.insert(key, value);
        }
        Ok(())
    }

    /// The tokens of `added_tokens.json` by their ids.
    fn added_tokens(&self, config: &Source, added: Source) -> Result<BTreeMap<i64, Given>> {
        let extra = config.entries.get(EXTRA).and_then(Value::as_array).into_iter().flatten();
        let standard = STANDARD.iter().filter_map(|key| config.entries.get(*key));
        let special: HashSet<&str> = standard.chain(extra).filter_map(text_of).collect();
        let token = |(text, id): (&String, &Value)| {
            let id = id.as_i64().with_context(|| format!("{}: the id of '{text}' is {id}", added.name))?;
            Ok((id, Given::new(text, special.contains(text.as_str()))))
        };
        added.entries.iter().map(token).collect()
    }

    /// Named tokens: the standard ones, then those of the configuration's keys, then the others.
    fn named(
        &mut self,
        config: &Source,
        decoder: &BTreeMap<i64, Given>,
        is_gemma: bool,
    ) -> Result<Vec<(String, Given)>> {
        let known: HashMap<&str, &Given> = decoder.values().map(|token| (token.content.as_str(), token)).collect();
        let mut named = IndexMap::new();
        for key in STANDARD {
            let default = OF_GEMMA.iter().find(|(name, _)| *name == key && is_gemma);
            let token = match config.entries.get(key) {
                None => default.map(|(_, text)| Given::new(text, true)),
                Some(Value::Null) => None,
                Some(value) => {
                    let token = given(value).with_context(|| not_a_token(config, key, value))?;
                    Some(known.get(token.content.as_str()).map_or(token, |known| (*known).clone()))
                }
            };
            named.insert(key.to_owned(), token);
        }
        let automatic = config
            .entries
            .iter()
            .filter(|(key, value)| is_specific(key) && (value.is_string() || is_added_token(value)));
        let mut specific: Ordered = automatic.map(|(key, value)| (key.clone(), value.clone())).collect();
        specific.extend(std::mem::take(&mut self.explicit));
        for (key, value) in specific {
            let token = given(&value).with_context(|| not_a_token(config, &key, &value))?;
            named.insert(key, Some(token));
        }
        let is_there =
            |(key, token): (String, Option<Given>)| Some((key, token.filter(|token| !token.content.is_empty())?));
        Ok(named.into_iter().filter_map(is_there).collect())
    }

    /// Further special tokens, without names.
    fn extra(&self, config: &mut Source) -> Result<Vec<Given>> {
        if !config.entries.contains_key(EXTRA)
            && let Some(additional) = config.entries.shift_remove(ADDITIONAL)
        {
            config.entries.insert(EXTRA.to_owned(), additional);
        }
        match config.entries.get(EXTRA) {
            None | Some(Value::Null) => Ok(Vec::new()),
            Some(Value::Array(list)) => {
                let token = |value| given(value).with_context(|| not_a_token(config, EXTRA, value));
                list.iter()
                    .map(token)
                    .filter(|token| !token.as_ref().is_ok_and(|token| token.content.is_empty()))
                    .collect()
            }
            Some(value) => bail!("{}: '{EXTRA}' is {value}, no list of tokens", config.name),
        }
    }
}

fn not_a_token(config: &Source, key: &str, value: &Value) -> String {
    format!("{}: '{key}' is {value}, no token", config.name)
}

/// A token's text: a string, or an object that holds it.
fn text_of(value: &Value) -> Option<&str> {
    value.as_str().or_else(|| value["content"].as_str())
}

/// A token as a file gives it; a string is a special one.
fn given(value: &Value) -> Option<Given> {
    match value {
        Value::String(text) => Some(Given::new(text, true)),
        value => Given::deserialize(value).ok(),
    }
}
