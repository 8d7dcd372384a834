//! The program as a user meets it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn gemmule(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_gemmule"))
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap()
}

fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

const PICTURE: &str = "examples/pictures/shape.png";

#[test]
fn the_bundled_model_answers_right() {
    for (prompt, answer) in [
        ("answer en what color is the shape?", "yellow\n"),
        ("answer en is there a circle in the image?", "yes\n"),
        ("caption en", "a yellow circle\n"),
    ] {
        for isa in gemmule::quant::isa::available() {
            assert_eq!(stdout(&gemmule(&["run", "-i", PICTURE, "-p", prompt, "--isa", isa.name()])), answer, "{isa}");
        }
    }
}

#[test]
fn json_has_what_the_manual_promises() {
    let output = stdout(&gemmule(&["run", "-i", PICTURE, "-p", "caption en", "--json"]));
    let value: serde_json::Value = serde_json::from_str(&output).unwrap();
    assert_eq!(value["text"], "a yellow circle");
    assert_eq!(value["finish"], "end_token");
    let tokens = value["tokens"].as_array().unwrap();
    assert_eq!(tokens.last().unwrap(), 1, "the end token is included");
    assert!(value["prompt_tokens"].as_u64().unwrap() > 25);
    assert_eq!(value["probabilities"].as_array().unwrap().len(), tokens.len());
    assert_eq!((&value["objects"], &value["malformed"]), (&serde_json::json!([]), &serde_json::json!([])));
    for stage in ["load", "image", "vision", "prefill", "generate"] {
        assert!(value["timings"][stage].as_f64().unwrap() >= 0.0, "{stage}");
    }
}

#[test]
fn detection_is_data() {
    let found = |pictures: &[&str]| -> serde_json::Value {
        let arguments = [&["run", "-p", "detect circle", "--json"], pictures].concat();
        serde_json::from_str(&stdout(&gemmule(&arguments))).unwrap()
    };
    let value = found(&["-i", PICTURE]);
    let object = &value["objects"][0];
    assert_eq!(object["label"], "circle");
    let numbers = |key: &str| -> Vec<f64> {
        object[key].as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
    };
    let (width, height) = image::image_dimensions(Path::new(env!("CARGO_MANIFEST_DIR")).join(PICTURE)).unwrap();
    for (index, (pixels, share)) in numbers("box").into_iter().zip(numbers("normalized_box")).enumerate() {
        assert!((pixels - share * f64::from([width, height][index % 2])).abs() < 1e-3);
    }
    assert!((0.0..=1.0).contains(&object["score"].as_f64().unwrap()));
    let value = found(&["-i", PICTURE, "-i", PICTURE]);
    for object in value["objects"].as_array().unwrap() {
        assert!(object["box"].is_null(), "of two pictures the box could be in either");
    }
}

#[test]
fn several_pictures_and_sampling_work() {
    let sampled = |seed: &str| {
        let arguments =
            ["run", "-i", PICTURE, "-i", PICTURE, "-p", "caption en", "--temperature", "30", "--seed", seed, "-n", "9"];
        stdout(&gemmule(&arguments))
    };
    assert_eq!(sampled("1"), sampled("1"));
    assert_ne!(sampled("1"), sampled("2"));
}

#[test]
fn inspect_lists_configuration_and_tensors() {
    let model = "models/easy-vqa-q8_0.gguf";
    let text = stdout(&gemmule(&["inspect", model]));
    assert!(text.contains("gemma2.block_count") && text.contains("blk.0.attn_q.weight") && text.contains("q8_0"));
    let value: serde_json::Value = serde_json::from_str(&stdout(&gemmule(&["inspect", model, "--json"]))).unwrap();
    assert_eq!(value["metadata"]["general.architecture"], "paligemma2");
    assert!(value["tensors"].as_array().unwrap().len() > 50);
}

#[test]
fn trace_writes_every_stage() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("trace.safetensors");
    stdout(&gemmule(&["trace", "-i", PICTURE, "-p", "caption en", "-o", path.to_str().unwrap()]));
    let bytes = std::fs::read(&path).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let shape = |name: &str| tensors.tensor(name).unwrap().shape().to_vec();
    assert_eq!(shape("pixel_values"), [1, 3, 70, 70]);
    assert_eq!(shape("image_features"), [1, 25, 256]);
    assert_eq!(shape("logits_last"), [1856]);
    assert_eq!(shape("input_ids").len(), 1);
}

#[test]
fn bench_reports_every_stage() {
    let output = stdout(&gemmule(&["bench", "-n", "2", "--repeat", "1", "--json"]));
    let value: serde_json::Value = serde_json::from_str(&output).unwrap();
    for stage in ["load", "vision", "prefill", "generate"] {
        assert!(value[stage]["median_ms"].as_f64().unwrap() > 0.0, "{stage}");
    }
    assert!(value["threads"].as_u64().unwrap() >= 1 && value["isa"].is_string());
}

/// Exit code 1, nothing on stdout, one line on stderr that names what matters.
#[track_caller]
fn assert_fails(arguments: &[&str], parts: &[&str]) {
    let output = gemmule(arguments);
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(output.stdout.is_empty());
    assert_eq!(message.trim_end().lines().count(), 1, "{message}");
    for part in parts {
        assert!(message.contains(part), "no '{part}' in: {message}");
    }
}

fn damaged(directory: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = directory.join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

#[test]
fn bad_input_is_one_clear_error() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: &[u8]| damaged(directory.path(), name, bytes).to_str().unwrap().to_owned();
    assert_fails(&["run", "-i", "nowhere.png", "-p", "x"], &["nowhere.png"]);
    let text = file("note.png", b"this is no picture");
    assert_fails(&["run", "-i", &text, "-p", "x"], &["note.png", "JPEG"]);
    let picture = std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join(PICTURE)).unwrap();
    let cut = file("cut.png", &picture[..picture.len() / 2]);
    assert_fails(&["run", "-i", &cut, "-p", "x"], &["cut.png"]);
    let empty = file("empty.gguf", b"");
    assert_fails(&["run", "-m", &empty, "-i", PICTURE, "-p", "x"], &["empty.gguf"]);
    assert_fails(&["inspect", PICTURE], &["shape.png", "GGUF"]);
    assert_fails(&["run", "-i", PICTURE, "-p", "a <image> b"], &["<image>"]);
    assert_fails(&["run", "-i", PICTURE, "-p", "x", "--isa", "mmx"], &["mmx", "portable"]);
    assert_fails(&["run", "-i", PICTURE, "-p", "x", "-t", "0"], &["threads"]);
    assert_fails(&["run", "-i", PICTURE, "-p", "x", "-n", "9999999"], &["context"]);
    assert_eq!(gemmule(&["run", "-p", "x"]).status.code(), Some(2));
}
