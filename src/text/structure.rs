//! The structure that a `tokenizer.json` may have: that of Gemma's, and what others of its kind differ in. The library that
//! reads it panics or hangs on some that are well-formed JSON, so nothing reaches it that is not named here.

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use serde_json::error::Category;
use serde_json::value::RawValue;

/// Most bytes of a normalizer, pre-tokenizer, post-processor or decoder.
const LARGEST_PART: usize = 1 << 16;
/// Most steps that one of them is made of.
const MOST_STEPS: usize = 8;
/// Most bytes that a step puts in the place of a pattern, or before a text.
const LONGEST_REPLACEMENT: usize = 4;
/// No vocabulary has more tokens.
const LARGEST_ID: u64 = 1 << 24;

#[derive(Deserialize)]
struct Structure<'a> {
    #[serde(borrow, default)]
    normalizer: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pre_tokenizer: Option<&'a RawValue>,
    #[serde(borrow, default)]
    post_processor: Option<&'a RawValue>,
    #[serde(borrow, default)]
    decoder: Option<&'a RawValue>,
    #[serde(borrow, default)]
    added_tokens: Vec<AddedToken<'a>>,
    #[serde(borrow)]
    model: Model<'a>,
}

#[derive(Deserialize)]
struct AddedToken<'a> {
    id: u64,
    #[serde(borrow)]
    content: Cow<'a, str>,
}

#[derive(Deserialize)]
struct Model<'a> {
    #[serde(borrow, default, rename = "type")]
    kind: Option<Cow<'a, str>>,
    #[serde(default)]
    dropout: Option<f64>,
    #[serde(borrow, default)]
    continuing_subword_prefix: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    end_of_word_suffix: Option<Cow<'a, str>>,
    vocab: Vocabulary,
    #[serde(default)]
    merges: LongestMerge,
}

/// What is to be known of a vocabulary, without keeping it.
struct Vocabulary {
    longest: usize,
    largest_id: u64,
}

impl<'de> Deserialize<'de> for Vocabulary {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Tokens;
        impl<'de> Visitor<'de> for Tokens {
            type Value = Vocabulary;

            fn expecting(&self, out: &mut std::fmt::Formatter) -> std::fmt::Result {
                out.write_str("a map from tokens to their ids")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Vocabulary, A::Error> {
                let mut found = Vocabulary { longest: 0, largest_id: 0 };
                while let Some((Text(length), id)) = map.next_entry::<Text, u64>()? {
                    found.longest = found.longest.max(length);
                    found.largest_id = found.largest_id.max(id);
                }
                Ok(found)
            }
        }
        deserializer.deserialize_map(Tokens)
    }
}

/// Bytes of the longest text that a merge makes.
#[derive(Default)]
struct LongestMerge(usize);

impl<'de> Deserialize<'de> for LongestMerge {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Merges;
        impl<'de> Visitor<'de> for Merges {
            type Value = LongestMerge;

            fn expecting(&self, out: &mut std::fmt::Formatter) -> std::fmt::Result {
                out.write_str("a list of merges")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut merges: A) -> Result<LongestMerge, A::Error> {
                let mut longest = 0;
                while let Some(Merge(length)) = merges.next_element()? {
                    longest = longest.max(length);
                }
                Ok(LongestMerge(longest))
            }
        }
        deserializer.deserialize_seq(Merges)
    }
}

/// Bytes of what a merge makes.
struct Merge(usize);

impl<'de> Deserialize<'de> for Merge {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Parts;
        impl<'de> Visitor<'de> for Parts {
            type Value = Merge;

            fn expecting(&self, out: &mut std::fmt::Formatter) -> std::fmt::Result {
                out.write_str("a merge: two strings, or one with a space between its parts")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Merge, E> {
                Ok(Merge(text.len().saturating_sub(1)))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<Merge, A::Error> {
                let mut length = 0;
                while let Some(Text(part)) = parts.next_element()? {
                    length += part;
                }
                Ok(Merge(length))
            }
        }
        deserializer.deserialize_any(Parts)
    }
}

/// Bytes of a string.
struct Text(usize);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Length;
        impl Visitor<'_> for Length {
            type Value = Text;

            fn expecting(&self, out: &mut std::fmt::Formatter) -> std::fmt::Result {
                out.write_str("a string")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Text, E> {
                Ok(Text(text.len()))
            }
        }
        deserializer.deserialize_str(Length)
    }
}

/// Whether the library can be given this `tokenizer.json`.
///
/// # Errors
/// What is not as it must be, by name.
pub(super) fn check(json: &str) -> Result<(), String> {
    let structure: Structure<'_> = serde_json::from_str(json).map_err(|error| match error.classify() {
        Category::Data => error.to_string(),
        _ => format!("it is not JSON: {error}"),
    })?;
    check_model(&structure.model)?;
    if let Some(token) = structure.added_tokens.iter().find(|token| token.id >= LARGEST_ID || token.content.is_empty())
    {
        return Err(format!("the added token {:?} has the id {}", token.content, token.id));
    }
    for (name, part, list, check) in [
        ("normalizer", structure.normalizer, "normalizers", normalizer as fn(&Value) -> Checked),
        ("pre_tokenizer", structure.pre_tokenizer, "pretokenizers", pre_tokenizer),
        ("post_processor", structure.post_processor, "processors", post_processor),
        ("decoder", structure.decoder, "decoders", decoder),
    ] {
        let Some(part) = part else { continue };
        check_steps(part.get(), list, check).map_err(|reason| format!("its {name} {reason}"))?;
    }
    Ok(())
}

fn check_model(model: &Model<'_>) -> Result<(), String> {
    if let Some(kind) = model.kind.as_deref().filter(|kind| *kind != "BPE") {
        return Err(format!("its model is of the kind {kind}; only BPE is supported"));
    }
    if model.dropout.is_some_and(|dropout| dropout != 0.0) {
        return Err("its model has a 'dropout', so that a text has other tokens each time".to_owned());
    }
    let affixes = [
        ("continuing_subword_prefix", &model.continuing_subword_prefix),
        ("end_of_word_suffix", &model.end_of_word_suffix),
    ];
    for (name, affix) in affixes {
        if affix.as_deref().is_some_and(|affix| !affix.is_empty()) {
            return Err(format!("its model has a '{name}', which is not supported"));
        }
    }
    if model.merges.0 > model.vocab.longest {
        return Err(format!(
            "a merge makes {} bytes, the longest token has {}: it is damaged",
            model.merges.0, model.vocab.longest
        ));
    }
    if model.vocab.largest_id >= LARGEST_ID {
        return Err(format!("its ids go up to {}, beyond any known vocabulary", model.vocab.largest_id));
    }
    Ok(())
}

/// Nothing where a step is admitted, else what is wrong with it.
type Checked = Result<(), String>;

/// Checks each step of a part, which is null, a step or a sequence of them under a name of its own.
fn check_steps(json: &str, list: &str, check: fn(&Value) -> Checked) -> Checked {
    if json.len() > LARGEST_PART {
        return Err(format!("has {} bytes, more than {LARGEST_PART}", json.len()));
    }
    let part: Value = serde_json::from_str(json).map_err(|error| format!("cannot be read: {error}"))?;
    let mut steps = vec![&part];
    let mut seen = 0;
    while let Some(step) = steps.pop() {
        seen += 1;
        if seen > MOST_STEPS {
            return Err(format!("has more than {MOST_STEPS} steps"));
        }
        match (kind(step), step[list].as_array()) {
            ("Sequence", Some(list)) => steps.extend(list),
            _ => check(step)?,
        }
    }
    Ok(())
}

fn kind(step: &Value) -> &str {
    step["type"].as_str().unwrap_or_default()
}

fn unsupported(step: &Value, known: &str) -> Checked {
    let name = match kind(step) {
        "" => "has a step without a type".to_owned(),
        kind => format!("is or holds '{kind}'"),
    };
    Err(format!("{name}, which is not supported; known are {known}"))
}

/// A text in the place of another, such as the mark ▁ in the place of a space.
fn replace(step: &Value) -> Checked {
    let (pattern, content) = (step["pattern"]["String"].as_str(), step["content"].as_str());
    match (pattern, content) {
        (Some(pattern), Some(content)) if !pattern.is_empty() && content.len() <= LONGEST_REPLACEMENT => Ok(()),
        _ => Err(format!(
            "replaces {} by {}; only a text by one of up to {LONGEST_REPLACEMENT} bytes is supported",
            step["pattern"], step["content"]
        )),
    }
}

fn normalizer(step: &Value) -> Checked {
    match kind(step) {
        "Replace" => replace(step),
        "Prepend" => match step["prepend"].as_str() {
            Some(text) if (1..=LONGEST_REPLACEMENT).contains(&text.len()) => Ok(()),
            _ => Err(format!(
                "puts {} before a text; only up to {LONGEST_REPLACEMENT} bytes are supported",
                step["prepend"]
            )),
        },
        "NFC" | "NFD" | "NFKC" | "NFKD" | "Lowercase" | "Strip" => Ok(()),
        _ if step.is_null() => Ok(()),
        _ => unsupported(step, "Replace, Prepend, NFC, NFD, NFKC, NFKD, Lowercase and Strip"),
    }
}

fn pre_tokenizer(step: &Value) -> Checked {
    match kind(step) {
        "Split" if step["pattern"]["String"].as_str().is_some_and(|text| !text.is_empty()) => Ok(()),
        "Split" => Err(format!("splits at {}; only at a text is supported", step["pattern"])),
        "Metaspace" | "WhitespaceSplit" => Ok(()),
        _ if step.is_null() => Ok(()),
        _ => unsupported(step, "Split, Metaspace and WhitespaceSplit"),
    }
}

/// What is put around a text is not asked for here, but it is read.
fn post_processor(step: &Value) -> Checked {
    match kind(step) {
        "TemplateProcessing" => template(step),
        _ if step.is_null() => Ok(()),
        _ => unsupported(step, "TemplateProcessing"),
    }
}

fn template(step: &Value) -> Checked {
    let damaged = |what: &str| Err(format!("is damaged: {what}"));
    let Some(tokens) = step["special_tokens"].as_object() else { return damaged("it has no special_tokens") };
    for (name, token) in tokens {
        let count = |key: &str| token[key].as_array().map(Vec::len);
        if count("ids").is_none_or(|ids| ids == 0 || count("tokens") != Some(ids)) {
            return damaged(&format!("the special token '{name}' has not as many ids as tokens"));
        }
    }
    for (list, sequences) in [("single", &["A"][..]), ("pair", &["A", "B"])] {
        let Some(pieces) = step[list].as_array() else { return damaged(&format!("'{list}' is no list")) };
        let mut found = Vec::new();
        for piece in pieces {
            if let Some(name) = piece["SpecialToken"]["id"].as_str() {
                if !tokens.contains_key(name) {
                    return damaged(&format!("'{list}' names the unknown special token '{name}'"));
                }
            } else {
                found.push(piece["Sequence"]["id"].as_str().unwrap_or_default());
            }
        }
        // A template for pairs may be left out; no text is ever one of a pair.
        if found != sequences && !(list == "pair" && pieces.is_empty()) {
            return damaged(&format!("'{list}' puts together {found:?} in place of {sequences:?}"));
        }
    }
    Ok(())
}

fn decoder(step: &Value) -> Checked {
    match kind(step) {
        "Replace" => replace(step),
        "Strip" if step["stop"].as_u64() == Some(0) => Ok(()),
        "Strip" => Err(format!("takes {} characters off a token's end, which is not supported", step["stop"])),
        "ByteFallback" | "Fuse" | "Metaspace" => Ok(()),
        _ if step.is_null() => Ok(()),
        _ => unsupported(step, "Replace, Strip, ByteFallback, Fuse and Metaspace"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn sound() -> Value {
        json!({
            "version": "1.0",
            "added_tokens": [{ "id": 0, "content": "<bos>" }],
            "normalizer": { "type": "Replace", "pattern": { "String": " " }, "content": "▁" },
            "pre_tokenizer": { "type": "Split", "pattern": { "String": " " }, "behavior": "MergedWithPrevious", "invert": false },
            "post_processor": {
                "type": "TemplateProcessing",
                "single": [{ "SpecialToken": { "id": "<bos>", "type_id": 0 } }, { "Sequence": { "id": "A", "type_id": 0 } }],
                "pair": [{ "Sequence": { "id": "A", "type_id": 0 } }, { "Sequence": { "id": "B", "type_id": 1 } }],
                "special_tokens": { "<bos>": { "id": "<bos>", "ids": [0], "tokens": ["<bos>"] } },
            },
            "decoder": { "type": "Sequence", "decoders": [
                { "type": "Replace", "pattern": { "String": "▁" }, "content": " " }, { "type": "ByteFallback" }, { "type": "Fuse" },
            ] },
            "model": { "type": "BPE", "dropout": null, "vocab": { "a": 1, "b": 2, "ab": 3 }, "merges": [["a", "b"], "a b"] },
        })
    }

    #[test]
    fn the_structure_of_gemmas_is_admitted() {
        check(&sound().to_string()).unwrap();
        let bare = json!({ "model": { "vocab": { "a": 0 }, "merges": [] }, "normalizer": null });
        check(&bare.to_string()).unwrap();
    }

    #[test]
    fn every_other_is_refused_by_name() {
        let chain = vec![json!({ "type": "Prepend", "prepend": "▁" }); 100];
        let long = "a".repeat(100);
        for (path, value, named) in [
            ("/model/merges/0", json!(["ab", "b"]), "makes 3 bytes"),
            ("/model/continuing_subword_prefix", json!("##"), "continuing_subword_prefix"),
            ("/model/end_of_word_suffix", json!("</w>"), "end_of_word_suffix"),
            ("/model/dropout", json!(0.1), "dropout"),
            ("/model/type", json!("Unigram"), "Unigram"),
            ("/model/vocab", json!({ "ab": 4_000_000_000u64 }), "4000000000"),
            ("/model/vocab", json!([["a", 0.0]]), "map"),
            ("/normalizer", json!({ "type": "Precompiled", "precompiled_charsmap": "AAAAAA==" }), "Precompiled"),
            ("/normalizer", json!({ "type": "Sequence", "normalizers": chain }), "more than 8 steps"),
            ("/normalizer", json!({ "type": "Prepend", "prepend": long }), "before a text"),
            ("/normalizer/content", json!(long), "replaces"),
            ("/normalizer/pattern", json!({ "Regex": "(a*)*b" }), "Regex"),
            ("/pre_tokenizer/pattern", json!({ "Regex": "(a*)*b" }), "Regex"),
            ("/pre_tokenizer", json!({ "type": "ByteLevel" }), "ByteLevel"),
            ("/post_processor/single/0/SpecialToken/id", json!("nope"), "nope"),
            ("/post_processor/single/1/Sequence/id", json!("B"), "puts together"),
            ("/post_processor/single", json!([]), "puts together"),
            ("/post_processor/special_tokens/<bos>/ids", json!([]), "as many ids"),
            ("/post_processor", json!({ "type": "RobertaProcessing" }), "RobertaProcessing"),
            ("/decoder", json!({ "type": "Strip", "content": " ", "start": 1, "stop": 1 }), "token's end"),
            ("/decoder", json!({ "type": "CTC" }), "CTC"),
            ("/decoder", json!({ "type": "Sequence", "normalizers": [], "decoders": [{ "type": "CTC" }] }), "CTC"),
            ("/decoder", json!({ "type": "Sequence", "normalizers": [] }), "Sequence"),
            ("/decoder", json!({}), "without a type"),
            ("/added_tokens/0/id", json!(1u64 << 40), "<bos>"),
        ] {
            let mut changed = sound();
            let (parent, key) = path.rsplit_once('/').unwrap();
            let parent = changed.pointer_mut(parent).unwrap();
            if let Some(list) = parent.as_array_mut() {
                list[key.parse::<usize>().unwrap()] = value;
            } else {
                parent[key] = value;
            }
            let error = check(&changed.to_string()).expect_err(path);
            assert!(error.contains(named), "{path}: {error}");
        }
        assert!(check("{").unwrap_err().contains("not JSON"));
    }
}
