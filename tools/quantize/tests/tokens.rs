//! Tokens that other files than `tokenizer.json` name.

mod checkpoint;

use std::path::Path;

use checkpoint::Checkpoint;
use indexmap::IndexMap;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

/// A line of `tokens.json`; the order of keys counts.
#[derive(Debug, Deserialize)]
struct Golden {
    files: IndexMap<String, Option<IndexMap<String, Box<RawValue>>>>,
    #[serde(default)]
    own: Map<String, Value>,
    #[serde(default)]
    vocabulary: Map<String, Value>,
    changed: Vec<Value>,
    gone: Vec<String>,
}

/// Added tokens of the tokenizer that a conversion writes, by their contents.
fn added(checkpoint: &Checkpoint, name: &str) -> Map<String, Value> {
    let run = checkpoint.convert(&[]);
    assert!(run.status.success(), "{name}: {}", String::from_utf8_lossy(&run.stderr));
    let file = gemmule::gguf::GgufFile::open(checkpoint.path("model.gguf")).unwrap();
    let text = file.string("tokenizer.huggingface.json").unwrap().unwrap().to_owned();
    let json: Value = serde_json::from_str(&text).unwrap();
    let content = |token: &Value| (token["content"].as_str().unwrap().to_owned(), token.clone());
    json["added_tokens"].as_array().unwrap().iter().map(content).collect()
}

/// Against transformers 5.23 (`tools/reference/token_goldens.py`).
#[test]
fn added_tokens_are_those_of_transformers() {
    let goldens = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/goldens/tokens.json");
    let goldens: Vec<Golden> = serde_json::from_slice(&std::fs::read(goldens).unwrap()).unwrap();
    assert!(goldens.len() > 90);
    let base = added(&Checkpoint::new("window-f32"), "base");
    let mut wrong = Vec::new();
    for golden in &goldens {
        let checkpoint = Checkpoint::new("window-f32");
        for (file, edits) in &golden.files {
            let Some(edits) = edits else {
                std::fs::remove_file(checkpoint.path(file)).unwrap();
                continue;
            };
            let mut json: IndexMap<String, Box<RawValue>> = serde_json::from_value(checkpoint.json(file)).unwrap();
            for (key, value) in edits {
                json.shift_remove(key);
                if value.get() != "\"(gone)\"" {
                    json.insert(key.clone(), value.clone());
                }
            }
            checkpoint.write(file, serde_json::to_string(&json).unwrap());
        }
        if !golden.own.is_empty() || !golden.vocabulary.is_empty() {
            let mut json = checkpoint.json("tokenizer.json");
            let tokens = json["added_tokens"].as_array_mut().unwrap();
            for (content, entry) in &golden.own {
                let before = tokens.iter().position(|token| token["content"] == *content).map(|at| tokens.remove(at));
                if entry.is_object() {
                    let mut entry = entry.clone();
                    if let Some(before) = before {
                        entry["id"] = before["id"].clone();
                    }
                    tokens.push(entry);
                }
            }
            json["model"]["vocab"].as_object_mut().unwrap().extend(golden.vocabulary.clone());
            checkpoint.write("tokenizer.json", json.to_string());
        }
        let found = added(&checkpoint, &format!("{golden:?}"));
        let mut expected = base.clone();
        for name in &golden.gone {
            expected.remove(name).unwrap();
        }
        for token in &golden.changed {
            expected.insert(token["content"].as_str().unwrap().to_owned(), token.clone());
        }
        let differing: Vec<_> = found.iter().filter(|(name, token)| expected.get(*name) != Some(token)).collect();
        if found != expected {
            wrong.push(format!("{golden:?}\nfound: {differing:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn tokens_of_other_files_are_tokens() {
    let checkpoint = Checkpoint::new("window-f32");
    let config = checkpoint.json("tokenizer_config.json");
    let mut plain = config.clone();
    plain
        .as_object_mut()
        .unwrap()
        .retain(|key, _| !["added_tokens_decoder", "extra_special_tokens"].contains(&key.as_str()));
    plain["extra_special_tokens"] = json!(["<extra>"]);
    checkpoint.write("tokenizer_config.json", plain.to_string());
    checkpoint.write("added_tokens.json", json!({ "<added>": 9 }).to_string());
    let (model, _) = checkpoint.model(&[]);
    let tokenizer = model.tokenizer().unwrap();
    for token in ["<extra>", "<added>"] {
        let ids = tokenizer.encode(&format!("a{token}b")).unwrap();
        assert!(ids.iter().any(|id| tokenizer.token(*id).as_deref() == Some(token)), "{token}: {ids:?}");
    }
    // Locations that stand in the vocabulary only are whole tokens, too: the processor adds them.
    let checkpoint = Checkpoint::new("window-f32");
    let mut tokenizer = checkpoint.json("tokenizer.json");
    let is_code = |token: &Value| {
        token["content"].as_str().is_some_and(|text| text.starts_with("<loc") || text.starts_with("<seg"))
    };
    let codes: Vec<Value> =
        tokenizer["added_tokens"].as_array().unwrap().iter().filter(|token| is_code(token)).cloned().collect();
    assert!(!codes.is_empty());
    tokenizer["added_tokens"].as_array_mut().unwrap().retain(|token| !is_code(token));
    for token in &codes {
        tokenizer["model"]["vocab"][token["content"].as_str().unwrap()] = token["id"].clone();
    }
    checkpoint.write("tokenizer.json", tokenizer.to_string());
    let mut config = config;
    config.as_object_mut().unwrap().remove("added_tokens_decoder");
    checkpoint.write("tokenizer_config.json", config.to_string());
    let (model, _) = checkpoint.model(&[]);
    let name = codes[0]["content"].as_str().unwrap();
    assert_eq!(model.tokenizer().unwrap().encode(name).unwrap(), [codes[0]["id"].as_u64().unwrap() as u32]);
    // The token that texts begin with is the one that the maps name.
    let checkpoint = Checkpoint::new("window-f32");
    checkpoint.set("special_tokens_map.json", "/bos_token", json!("<eos>"));
    let (config, message) = checkpoint.config();
    assert!(config.special.bos == 1 && message.contains("'<eos>'"), "{message}");
}
