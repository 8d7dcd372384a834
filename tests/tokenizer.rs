//! Ids and text against the Python `tokenizers` (made by `tools/reference/tokenizer_cases.py`).

use std::path::{Path, PathBuf};

use gemmule::config::SpecialTokens;
use gemmule::text::{TextStream, Tokenizer};

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

/// The bundled model's, changed by `change`.
fn bundled(change: impl FnOnce(&mut serde_json::Value)) -> Tokenizer {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/easy-vqa/tokenizer.json");
    let mut json = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    change(&mut json);
    Tokenizer::from_json(&json.to_string(), &SpecialTokens { image: 3, bos: 2, eos: vec![1], pad: 0 }).unwrap()
}

/// Characters that no token has are runs of byte tokens, in which no part may begin anywhere.
#[test]
fn text_that_grows_is_the_whole_text() {
    let tokenizer = bundled(|_| ());
    for text in
        ["ꀀꀁꀂꀃꀄꀅꀆꀇꀈꀉꀊ", "a red ꀀ and 🦀🦀🦀🦀🦀🦀🦀🦀 then é and more words than settle at once", "ß"]
    {
        let ids = tokenizer.encode(text).unwrap();
        let mut stream = TextStream::new();
        let mut grown: String = ids.iter().map(|id| stream.push(&tokenizer, *id).unwrap()).collect();
        assert!(!grown.contains('\u{fffd}'), "half a character of {text:?}: {grown:?}");
        grown += &stream.finish(&tokenizer).unwrap();
        assert_eq!((grown.as_str(), tokenizer.decode(&ids).unwrap().as_str()), (text, text));
    }
}

/// A byte that is no part of a character spoils the run it is in, not what comes behind.
#[test]
fn a_stray_byte_spoils_no_words() {
    let tokenizer = bundled(|_| ());
    let (crab, word) = (tokenizer.encode("🦀").unwrap(), tokenizer.encode(" red circle").unwrap());
    let ids = [&crab[..], &crab[..1], &word].concat();
    let mut stream = TextStream::new();
    let mut grown: String = ids.iter().map(|id| stream.push(&tokenizer, *id).unwrap()).collect();
    grown += &stream.finish(&tokenizer).unwrap();
    assert!(grown.starts_with('🦀') && grown.ends_with(" red circle"), "{grown:?}");
}

/// What a trainer's batches were cut or filled up to stands in the file, and is nothing to a prompt.
#[test]
fn a_prompt_is_neither_cut_nor_filled_up() {
    let text = "what color is the shape in the picture?";
    let expected = bundled(|_| ()).encode(text).unwrap();
    for length in [4, 1u64 << 40] {
        let tokenizer = bundled(|json| {
            json["truncation"] = serde_json::json!({
                "direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": length
            });
            json["padding"] = serde_json::json!({
                "strategy": { "Fixed": length }, "direction": "Right", "pad_to_multiple_of": null, "pad_id": 0,
                "pad_type_id": 0, "pad_token": "<pad>"
            });
        });
        assert_eq!(tokenizer.encode(text).unwrap(), expected);
    }
}

#[test]
#[ignore = "needs the folder that tools/reference/tokenizer_cases.py --gemma fills, in GEMMULE_TOKENIZER_CASES"]
fn a_real_gemma_vocabulary_agrees() {
    let folder = PathBuf::from(std::env::var("GEMMULE_TOKENIZER_CASES").unwrap());
    let count = check(&folder.join("tokenizer.json"), &folder.join("cases.jsonl"), u32::MAX);
    println!("{count} texts agree");
}
