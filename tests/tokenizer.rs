//! Ids and text against the Python `tokenizers` (made by `tools/reference/tokenizer_cases.py`).

use std::path::{Path, PathBuf};

use gemmule::model::config::SpecialTokens;
use gemmule::text::Tokenizer;

/// Compares every line of `cases`; returns how many there were.
fn check(tokenizer: &Path, cases: &Path, image: u32) -> usize {
    let special = SpecialTokens { image, bos: 2, eos: vec![1], pad: 0 };
    let tokenizer = Tokenizer::from_json(&std::fs::read_to_string(tokenizer).unwrap(), &special).unwrap();
    let cases = std::fs::read_to_string(cases).unwrap();
    for line in cases.lines() {
        let case: serde_json::Value = serde_json::from_str(line).unwrap();
        let text = case["text"].as_str().unwrap();
        let ids: Vec<u32> = serde_json::from_value(case["ids"].clone()).unwrap();
        assert_eq!(tokenizer.encode(text).unwrap(), ids, "{text:?}");
        assert_eq!(tokenizer.decode(&ids).unwrap(), case["decoded"].as_str().unwrap(), "{text:?}");
    }
    cases.lines().count()
}

#[test]
fn the_bundled_tokenizer_agrees_on_the_corpus() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let tokenizer = root.join("models/easy-vqa/tokenizer.json");
    let special: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(root.join("models/easy-vqa/config.json")).unwrap()).unwrap();
    let image = special["image_token_index"].as_u64().or(special["image_token_id"].as_u64()).unwrap();
    assert!(check(&tokenizer, &root.join("tests/goldens/tokenizer.jsonl"), image as u32) > 40);
}

#[test]
#[ignore = "needs the folder that tools/reference/tokenizer_cases.py --gemma fills, in GEMMULE_TOKENIZER_CASES"]
fn a_real_gemma_vocabulary_agrees() {
    let folder = PathBuf::from(std::env::var("GEMMULE_TOKENIZER_CASES").unwrap());
    let count = check(&folder.join("tokenizer.json"), &folder.join("cases.jsonl"), u32::MAX);
    println!("{count} texts agree");
}
