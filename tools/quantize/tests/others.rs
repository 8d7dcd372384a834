//! Pairs whose text half other tools made: llama.cpp's keys and token table only.

use std::path::{Path, PathBuf};
use std::process::Command;

use gemmule::session::Constraint;
use gemmule::{GenerateOptions, Model, Picture, Session, SessionOptions};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The bundled model as a pair, the keys of our own taken away from the text half.
fn pair(directory: &Path) -> (PathBuf, PathBuf) {
    let text = directory.join("pair.gguf");
    let mut command = Command::new(env!("CARGO_BIN_EXE_gemmule-quantize"));
    let run =
        command.arg(root().join("models/easy-vqa")).arg(&text).args(["--type", "q8_0", "--split"]).output().unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    let mut bytes = std::fs::read(&text).unwrap();
    for key in [
        "tokenizer.huggingface.json",
        "paligemma.image_token_id",
        "paligemma.eos_token_ids",
        "paligemma.sliding_layers",
        "paligemma.conversion",
        "gemma2.vocab_size",
    ] {
        let at = bytes.windows(key.len()).position(|window| window == key.as_bytes());
        let at = at.unwrap_or_else(|| panic!("no key {key}"));
        // Another key of the same length: nobody reads it.
        bytes[at..at + key.len()].copy_from_slice("x".repeat(key.len()).as_bytes());
        bytes[at] = key.as_bytes()[key.len() - 1];
    }
    std::fs::write(&text, bytes).unwrap();
    (text, directory.join("pair-mmproj.gguf"))
}

#[test]
fn a_text_half_with_llama_cpps_keys_answers_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let (text, vision) = pair(directory.path());
    let (other, bundled) = (Model::open_pair(&text, &vision).unwrap(), Model::bundled().unwrap());
    let (mut config, expected) = (other.config().clone(), bundled.config());
    // The padding of the tower's MLP is the vision half's affair.
    config.vision.padded_feed_forward = expected.vision.padded_feed_forward;
    assert_eq!(&config, expected);
    let picture = [Picture::open(root().join("examples/pictures/shape.png")).unwrap()];
    for prompt in ["caption en", "answer en is there a circle in the image?", "detect circle"] {
        let answer = |model| {
            let mut session = Session::new(model, &SessionOptions::new()).unwrap();
            session.generate(&picture, prompt, &GenerateOptions::new()).unwrap().text
        };
        assert_eq!(answer(&other), answer(&bundled));
    }
}

#[test]
fn its_token_table_parts_texts_as_llama_cpp_does() {
    let directory = tempfile::tempdir().unwrap();
    let (text, vision) = pair(directory.path());
    let model = Model::open_pair(&text, &vision).unwrap();
    let tokenizer = model.tokenizer().unwrap();
    let cases = std::fs::read_to_string(root().join("tests/goldens/llama_tokenizer.jsonl")).unwrap();
    assert!(cases.lines().count() > 50);
    for line in cases.lines() {
        let case: serde_json::Value = serde_json::from_str(line).unwrap();
        let (text, ids): (String, Vec<u32>) =
            serde_json::from_value(serde_json::json!([case["text"], case["ids"]])).unwrap();
        assert_eq!(tokenizer.encode(&text).unwrap(), ids, "{text:?}");
        assert_eq!(tokenizer.decode(&ids).unwrap(), text.replace("<bos>", "").replace('▁', " "), "{text:?}");
    }
}

/// SpatialVLA's number of rows, and a token of its own behind Gemma's.
#[test]
fn a_derived_vocabulary_is_taken_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let (config, output) = (directory.path().join("config"), directory.path().join("derived.gguf"));
    std::fs::create_dir(&config).unwrap();
    let case = root().join("tests/goldens/sharded-bf16");
    for name in ["config.json", "tokenizer.json", "preprocessor_config.json", "generation_config.json"] {
        let mut json: serde_json::Value = serde_json::from_slice(&std::fs::read(case.join(name)).unwrap()).unwrap();
        if name == "config.json" {
            json["text_config"]["vocab_size"] = 265_347.into();
        } else if name == "tokenizer.json" {
            let token = serde_json::json!({ "id": 265_346, "content": "<ACTION8193>", "single_word": false, "lstrip": false,
                "rstrip": false, "normalized": false, "special": false });
            json["added_tokens"].as_array_mut().unwrap().push(token);
            let vocabulary = json["model"]["vocab"].as_object_mut().unwrap();
            let first = vocabulary.values().map(|id| id.as_u64().unwrap()).max().unwrap() + 1;
            vocabulary.extend((first..265_346).map(|id| (format!("<between_{id}>"), id.into())));
        }
        std::fs::write(config.join(name), json.to_string()).unwrap();
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_gemmule-quantize"));
    let checkpoint = root().join("tests/goldens/big-vision/checkpoint.npz");
    let run = command.arg(checkpoint).arg(&output).arg("--config").arg(&config).output().unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    let model = Model::open(&output).unwrap();
    assert_eq!(model.config().text.vocabulary, 265_347);
    assert_eq!(model.tokenizer().unwrap().encode("<ACTION8193>").unwrap(), [265_346]);
    let mut session = Session::new(&model, &SessionOptions::new()).unwrap();
    let choice = Constraint::Choices(vec!["<ACTION8193>".to_owned()]);
    let options = GenerateOptions::new().constraint(choice).max_tokens(20);
    let answer = session.generate(&[], "act <ACTION8193>", &options).unwrap();
    assert_eq!(answer.text, "<ACTION8193>");
}

#[test]
fn a_text_half_without_pictures_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let (text, vision) = pair(directory.path());
    let mut bytes = std::fs::read(&text).unwrap();
    let at = bytes.windows(7).position(|window| window == b"<image>").unwrap();
    bytes[at..at + 7].copy_from_slice(b"<unuse>");
    std::fs::write(&text, &bytes).unwrap();
    let error = Model::open_pair(&text, &vision).unwrap_err().to_string();
    assert!(error.contains("no token is '<image>'"), "{error}");
    let at = bytes.windows(21).position(|window| window == b"tokenizer.ggml.tokens").unwrap();
    bytes[at] = b'T';
    std::fs::write(&text, &bytes).unwrap();
    let error = Model::open_pair(&text, &vision).unwrap_err().to_string();
    assert!(error.contains("pair.gguf"), "{error}");
}
