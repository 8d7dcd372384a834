//! Merged adapters against `peft` (`tools/reference/lora_goldens.py`).

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use gemmule::{Model, Session, SessionOptions};
use safetensors::SafeTensors;

const CASE: &str = "sharded-bf16";

fn goldens() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/goldens")
}

fn convert(output: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gemmule-quantize"));
    command.arg(goldens().join(CASE)).arg(output).args(["--type", "f32", "--force"]).args(arguments).output().unwrap()
}

fn floats(tensors: &SafeTensors<'_>, name: &str) -> Vec<f32> {
    tensors.tensor(name).unwrap().data().as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

#[test]
fn merged_adapters_give_the_logits_of_peft() {
    let directory = tempfile::tempdir().unwrap();
    let output = directory.path().join("merged.gguf");
    let path = |name: &str| goldens().join("lora").join(name).to_str().unwrap().to_owned();
    let (plain, stabilized) = (path("plain"), path("stabilized"));
    let read = |path: PathBuf| std::fs::read(path).unwrap();
    let (golden, request) =
        (read(goldens().join("lora/golden.safetensors")), read(goldens().join(CASE).join("golden.safetensors")));
    let (golden, request) = (SafeTensors::deserialize(&golden).unwrap(), SafeTensors::deserialize(&request).unwrap());
    for (name, arguments) in [
        ("plain", &["--lora", &plain][..]),
        ("stabilized", &["--lora", &stabilized]),
        ("both", &["--lora-scaled", &stabilized, "0.5", "--lora", &plain]),
    ] {
        let run = convert(&output, arguments);
        assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
        let model = Model::open(&output).unwrap();
        let mut session = Session::new(&model, &SessionOptions::default()).unwrap();
        // The first request of the case, whose prompt is in its list.
        let trace = session.trace_pixel_values(&floats(&request, "0.pixel_values"), "caption en").unwrap();
        let expected = floats(&golden, name);
        let square = |values: &mut dyn Iterator<Item = f32>| values.map(|value| f64::from(value).powi(2)).sum::<f64>();
        let difference = square(&mut trace.logits.iter().zip(&expected).map(|(a, b)| a - b));
        let error = (difference / square(&mut expected.iter().copied())).sqrt();
        println!("{name}: relative error of logits {error:.1e}");
        assert!(error < 1e-5, "{name}: {error}");
    }
}

#[test]
fn adapters_that_do_not_fit_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let output = directory.path().join("merged.gguf");
    let source = goldens().join("lora/stabilized");
    let adapter = directory.path().join("adapter");
    std::fs::create_dir(&adapter).unwrap();
    let (config, weights) = (adapter.join("adapter_config.json"), adapter.join("adapter_model.safetensors"));
    let check = |change: &dyn Fn(), parts: &[&str]| {
        for name in ["adapter_config.json", "adapter_model.safetensors"] {
            std::fs::copy(source.join(name), adapter.join(name)).unwrap();
        }
        change();
        let run = convert(&output, &["--lora", adapter.to_str().unwrap()]);
        let message = String::from_utf8_lossy(&run.stderr);
        assert_eq!(run.status.code(), Some(1), "{message}");
        assert_eq!(message.trim_end().lines().count(), 1, "{message}");
        for part in parts {
            assert!(message.contains(part), "no '{part}' in: {message}");
        }
        assert!(!output.exists());
    };
    let edit = |from: &str, to: &str| {
        let text = std::fs::read_to_string(&config).unwrap();
        assert!(text.contains(from), "{from} in {text}");
        std::fs::write(&config, text.replacen(from, to, 1)).unwrap();
    };
    check(&|| std::fs::remove_file(&config).unwrap(), &["adapter_config.json"]);
    check(&|| std::fs::write(&config, "{").unwrap(), &["adapter_config.json", "not JSON"]);
    check(&|| edit("\"LORA\"", "\"IA3\""), &["'IA3'", "only LORA"]);
    check(
        &|| edit("\"init_lora_weights\": true", "\"init_lora_weights\": \"pissa_niter_4\""),
        &["pissa_niter_4", "base weights"],
    );
    check(&|| edit("\"use_dora\": false", "\"use_dora\": true"), &["'use_dora'"]);
    check(&|| edit("\"q_proj\": 5", "\"q_proj\": 6"), &["rank for", "q_proj", "is 6"]);
    check(&|| edit("\"q_proj\": 5", "\"q_[a-z]+\": 5"), &["pattern", "q_[a-z]+"]);
    check(&|| std::fs::remove_file(&weights).unwrap(), &["adapter_model.safetensors"]);
    let bytes = std::fs::read(source.join("adapter_model.safetensors")).unwrap();
    check(&|| std::fs::write(&weights, &bytes[..bytes.len() - 9]).unwrap(), &["truncated"]);
    // The names of another model's layers; the header keeps its length.
    let other = String::from_utf8_lossy(&bytes[..4000]).contains("layers.2.");
    assert!(other);
    let mut renamed = bytes.clone();
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let text = String::from_utf8(bytes[8..header].to_vec()).unwrap().replace("layers.2.", "layers.7.");
    renamed[8..header].copy_from_slice(text.as_bytes());
    check(&|| std::fs::write(&weights, &renamed).unwrap(), &["no tensor 'language_model.layers.7."]);
    let run = convert(&output, &["--lora-scaled", source.to_str().unwrap(), "much"]);
    assert!(String::from_utf8_lossy(&run.stderr).contains("'much' is no number"));
}
