//! From a checkpoint to an answer, stage by stage, against what `transformers` computed in float32
//! (`tools/reference/goldens.py`).

use std::path::{Path, PathBuf};
use std::process::Command;

use gemmule::{GenerateOptions, Model, Picture, Session, SessionOptions};
use safetensors::SafeTensors;

fn goldens() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/goldens")
}

/// As in `tools/reference/goldens.py`.
const CHOICES: [&str; 4] = ["yes", "no", "yes it is", "yes it was a café"];

const CASES: [&str; 5] = ["sharded-bf16", "odd-f16", "uncapped-f32", "window-f32", "first-f32"];

/// Converts a case and returns the file, in a directory that the caller keeps.
fn convert(case: &str, directory: &Path, arguments: &[&str]) -> PathBuf {
    let output = directory.join(format!("{case}.gguf"));
    let run = Command::new(env!("CARGO_BIN_EXE_gemmule-quantize"))
        .arg(goldens().join(case))
        .arg(&output)
        .args(arguments)
        .output()
        .unwrap();
    assert!(run.status.success(), "{case}: {}", String::from_utf8_lossy(&run.stderr));
    output
}

struct Golden {
    pictures: Vec<Picture>,
    files: Vec<String>,
    prompt: String,
    pixel_values: Vec<f32>,
    image_features: Vec<f32>,
    input_ids: Vec<u32>,
    logits: Vec<f32>,
    tokens: Vec<u32>,
    last_hidden_state: Vec<f32>,
    choices: Vec<f32>,
}

fn load(case: &str) -> Vec<Golden> {
    let folder = goldens().join(case);
    let bytes = std::fs::read(folder.join("golden.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let floats = |name: String| -> Vec<f32> {
        let data = tensors.tensor(&name).unwrap();
        data.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
    };
    let ids = |name: String| -> Vec<u32> {
        let data = tensors.tensor(&name).unwrap();
        data.data().chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().unwrap()) as u32).collect()
    };
    let requests: serde_json::Value =
        serde_json::from_slice(&std::fs::read(folder.join("requests.json")).unwrap()).unwrap();
    let requests = requests.as_array().unwrap();
    assert!(!requests.is_empty());
    requests
        .iter()
        .enumerate()
        .map(|(index, request)| {
            let files: Vec<String> =
                request["pictures"].as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned()).collect();
            Golden {
                pictures: files
                    .iter()
                    .map(|name| Picture::open(goldens().join("pictures").join(name)).unwrap())
                    .collect(),
                files,
                prompt: request["prompt"].as_str().unwrap().to_owned(),
                pixel_values: floats(format!("{index}.pixel_values")),
                image_features: floats(format!("{index}.image_features")),
                input_ids: ids(format!("{index}.input_ids")),
                logits: floats(format!("{index}.logits_last")),
                tokens: ids(format!("{index}.tokens")),
                last_hidden_state: floats(format!("{index}.last_hidden_state")),
                choices: floats(format!("{index}.choices")),
            }
        })
        .collect()
}

/// ‖got − expected‖ / ‖expected‖.
fn relative_error(got: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(got.len(), expected.len());
    let square = |values: &mut dyn Iterator<Item = f64>| values.map(|value| value * value).sum::<f64>();
    let difference = square(&mut got.iter().zip(expected).map(|(a, b)| f64::from(a - b)));
    (difference / square(&mut expected.iter().map(|b| f64::from(*b)))).sqrt()
}

fn session(model: &Model, threads: usize, isa: Option<&str>) -> Session {
    let options = SessionOptions::new().threads(threads).isa(isa);
    Session::new(model, &options).unwrap()
}

#[test]
fn pixel_values_are_those_of_pil() {
    let directory = tempfile::tempdir().unwrap();
    for case in CASES {
        let model = Model::open(convert(case, directory.path(), &["--type", "f32"])).unwrap();
        for golden in load(case) {
            let mut session = session(&model, 1, None);
            let trace = session.trace(&golden.pictures, &golden.prompt).unwrap();
            let differences =
                || trace.pixel_values.iter().zip(&golden.pixel_values).map(|(a, b)| (a - b).abs() * 127.5);
            let worst = differences().fold(0.0, f32::max);
            let mean = differences().sum::<f32>() / trace.pixel_values.len() as f32;
            println!("{case}: {:?}: worst difference {worst:.3} levels, mean {mean:.3}", golden.files);
            assert!(worst <= 0.01, "{case}: {:?}: {worst} levels, mean {mean}", golden.files);
        }
    }
}

#[test]
fn float32_reproduces_every_stage() {
    let directory = tempfile::tempdir().unwrap();
    for case in CASES {
        let model = Model::open(convert(case, directory.path(), &["--type", "f32"])).unwrap();
        for golden in load(case) {
            for isa in gemmule_quant::isa::available() {
                let mut session = session(&model, 2, Some(isa.name()));
                let trace = session.trace_pixel_values(&golden.pixel_values, &golden.prompt).unwrap();
                assert_eq!(trace.input_ids, golden.input_ids, "{case}: {:?}", golden.prompt);
                let features = relative_error(&trace.image_features, &golden.image_features);
                let logits = relative_error(&trace.logits, &golden.logits);
                println!("{case} {isa}: features {features:.2e}, logits {logits:.2e}");
                assert!(features < 1e-4 && logits < 1e-4, "{case} {isa}: features {features:e}, logits {logits:e}");
            }
        }
    }
}

#[test]
fn float32_generates_the_same_tokens() {
    let directory = tempfile::tempdir().unwrap();
    for case in CASES {
        let model = Model::open(convert(case, directory.path(), &["--type", "f32"])).unwrap();
        for golden in load(case) {
            let mut session = session(&model, 2, None);
            let options = GenerateOptions::new().max_tokens(8);
            let answer = session.generate(&golden.pictures, &golden.prompt, &options).unwrap();
            assert_eq!(answer.token_ids(), golden.tokens, "{case}: {:?} {:?}", golden.files, golden.prompt);
            assert_eq!(answer.prompt_tokens, golden.input_ids.len());
        }
    }
}

#[test]
fn hidden_states_and_the_scores_of_choices_are_those_of_the_reference() {
    let directory = tempfile::tempdir().unwrap();
    for case in CASES {
        let model = Model::open(convert(case, directory.path(), &["--type", "f32"])).unwrap();
        for golden in load(case) {
            let mut session = session(&model, 2, None);
            session.show(&golden.pictures).unwrap();
            assert!(relative_error(session.image_features(), &golden.image_features) < 1e-4);
            let states = session.hidden_states(&golden.prompt).unwrap();
            let error = relative_error(&states, &golden.last_hidden_state);
            assert!(error < 1e-4, "{case}: {:?}: {error:e}", golden.prompt);
            let choices = session.score(&golden.prompt, &CHOICES).unwrap();
            let total: f32 = choices.iter().map(|choice| choice.probability).sum();
            assert!((total - 1.0).abs() < 1e-5);
            for (choice, expected) in choices.iter().zip(&golden.choices) {
                let difference = (choice.log_probability - expected).abs();
                println!(
                    "{case}: {:?} {}: {} (difference {difference:.1e})",
                    golden.prompt, choice.text, choice.log_probability
                );
                assert!(difference < 1e-3 * expected.abs(), "{case}: {:?}: {choice:?}, not {expected}", golden.prompt);
            }
            // One prefill each, in whatever order.
            let reversed: Vec<_> = CHOICES.iter().rev().collect();
            let again = session.score(&golden.prompt, &reversed).unwrap();
            assert!(again.iter().rev().eq(&choices));
        }
    }
}

#[test]
fn quantized_formats_stay_close() {
    let directory = tempfile::tempdir().unwrap();
    // Random weights are the hardest case: no format can hide behind structure. The bounds are what the formats' bits
    // allow, so that a mistake in a kernel or a layout is far outside.
    for info in gemmule_quant::FORMATS {
        let kind = info.name;
        let bound = match info.format.bits_per_weight() as u32 {
            16.. if kind == "bf16" => 0.02,
            16.. => 0.01,
            8.. => 0.04,
            6.. => 0.07,
            5.. => 0.12,
            _ => 0.25,
        };
        let mut worst = 0.0f64;
        for case in ["sharded-bf16", "uncapped-f32"] {
            let model = Model::open(convert(case, directory.path(), &["--type", kind, "--force"])).unwrap();
            for golden in load(case) {
                for isa in gemmule_quant::isa::available() {
                    let mut session = session(&model, 2, Some(isa.name()));
                    let trace = session.trace_pixel_values(&golden.pixel_values, &golden.prompt).unwrap();
                    worst = worst.max(relative_error(&trace.logits, &golden.logits));
                }
            }
        }
        println!("{kind}: worst relative error of logits {worst:.4}");
        assert!(worst < bound, "{kind}: {worst}");
    }
}

#[test]
fn threads_do_not_change_a_bit() {
    let directory = tempfile::tempdir().unwrap();
    for kind in ["q4_k", "iq4_nl", "q8_0", "f32"] {
        let model = Model::open(convert("uncapped-f32", directory.path(), &["--type", kind, "--force"])).unwrap();
        let golden = load("uncapped-f32").pop().unwrap();
        let bits_of = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
        let bits = |threads, generation_threads: Option<usize>| {
            let options = SessionOptions::new().threads(threads).generation_threads(generation_threads);
            let mut session = Session::new(&model, &options).unwrap();
            assert_eq!(session.generation_threads(), generation_threads.unwrap_or(threads));
            let trace = session.trace(&golden.pictures, &golden.prompt).unwrap();
            let options = GenerateOptions::new().max_tokens(8).ignore_end(true).probabilities(true);
            let answer = session.generate(&golden.pictures, &golden.prompt, &options).unwrap();
            assert_eq!(answer.tokens.len(), 8);
            let probabilities: Vec<f32> = answer.tokens.iter().map(|token| token.probability.unwrap()).collect();
            (bits_of(&trace.logits), bits_of(&probabilities))
        };
        let one = bits(1, None);
        for (threads, generation_threads) in [(2, None), (3, None), (8, None), (3, Some(1)), (2, Some(4))] {
            assert_eq!(one, bits(threads, generation_threads), "{kind} on {threads} threads, {generation_threads:?}");
        }
    }
}

#[test]
fn a_pair_gives_the_same_as_the_single_file() {
    let directory = tempfile::tempdir().unwrap();
    let single = Model::open(convert("odd-f16", directory.path(), &["--type", "q8_0"])).unwrap();
    let text = convert("odd-f16", directory.path(), &["--type", "q8_0", "--split", "--force"]);
    let vision = directory.path().join("odd-f16-mmproj.gguf");
    let pair = Model::open_pair(&text, &vision).unwrap();
    for golden in load("odd-f16") {
        let logits = |model| session(model, 2, None).trace(&golden.pictures, &golden.prompt).unwrap().logits;
        assert_eq!(logits(&single), logits(&pair));
    }
    assert!(Model::open(&text).unwrap_err().to_string().contains("--mmproj"));
    assert!(Model::open(&vision).unwrap_err().to_string().contains("architecture"));
}
