//! Merged adapters against `peft` (`tools/reference/lora_goldens.py`).

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use gemmule::{Model, Session, SessionOptions};
use safetensors::SafeTensors;
use serde_json::{Value, json};

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

/// The norm of the difference by that of the values expected.
fn relative_error(found: &[f32], expected: &[f32]) -> f64 {
    let square = |values: &mut dyn Iterator<Item = f32>| values.map(|value| f64::from(value).powi(2)).sum::<f64>();
    let difference = square(&mut found.iter().zip(expected).map(|(a, b)| a - b));
    (difference / square(&mut expected.iter().copied())).sqrt()
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
        let mut session = Session::new(&model, &SessionOptions::new()).unwrap();
        // The first request of the case, whose prompt is in its list.
        let trace = session.trace_pixel_values(&floats(&request, "0.pixel_values"), "caption en").unwrap();
        let expected = floats(&golden, name);
        let error = relative_error(&trace.logits, &expected);
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
    check(&|| edit("\"use_dora\": false", "\"use_dora\": true"), &["'lora_magnitude_vector'", "missing"]);
    check(&|| edit("\"q_proj\": 5", "\"q_proj\": 6"), &["rank for", "q_proj", "is 6"]);
    check(&|| edit("\"q_proj\": 5", "\"q_(\": 5"), &["'q_('", "regular expression"]);
    // What PEFT would leave out, or refuse.
    let set = |values: &[(&str, Value)]| {
        let mut object: Value = serde_json::from_str(&std::fs::read_to_string(&config).unwrap()).unwrap();
        for (key, value) in values {
            object[*key] = value.clone();
        }
        std::fs::write(&config, object.to_string()).unwrap();
    };
    check(&|| set(&[("bias", json!("weird"))]), &["'bias'", "weird"]);
    check(&|| set(&[("exclude_modules", json!(["q_proj"]))]), &["q_proj'", "'exclude_modules'"]);
    check(&|| set(&[("exclude_modules", json!(".*layers\\.0\\..*"))]), &["layers.0.", "'exclude_modules'"]);
    check(&|| set(&[("target_modules", json!(["v_proj"]))]), &["none of the modules", "'target_modules'"]);
    check(&|| set(&[("target_modules", json!("nothing"))]), &["none of the modules"]);
    check(&|| set(&[("target_modules", json!("("))]), &["'target_modules'", "regular expression"]);
    check(&|| set(&[("target_modules", json!([1]))]), &["'target_modules'", "list of texts"]);
    let both = |names: Value, numbers: Value| set(&[("target_modules", names), ("layers_to_transform", numbers)]);
    check(&|| both(json!(".*"), json!([0])), &["'layers_to_transform' needs a list"]);
    check(&|| set(&[("layers_to_transform", json!([0]))]), &["none of the modules", "layers.1."]);
    check(&|| set(&[("layers_to_transform", json!("x"))]), &["'layers_to_transform'", "list of numbers"]);
    check(&|| set(&[("layers_pattern", json!("blocks"))]), &["'layers_pattern' needs 'layers_to_transform'"]);
    check(&|| std::fs::remove_file(&weights).unwrap(), &["adapter_model.safetensors"]);
    let bytes = std::fs::read(source.join("adapter_model.safetensors")).unwrap();
    check(&|| std::fs::write(&weights, &bytes[..bytes.len() - 9]).unwrap(), &["truncated"]);
    // Not a number, in the adapter and not in what it is added to.
    let mut spoiled = bytes.clone();
    let end = spoiled.len();
    spoiled[end - 4..].copy_from_slice(&[0xff; 4]);
    check(&|| std::fs::write(&weights, &spoiled).unwrap(), &["adapter_model.safetensors", "NaN"]);
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

/// Every kind of adapter that is taken (`tools/reference/lora_more_goldens.py`), by itself and after others.
#[test]
fn adapters_of_every_kind_merge_as_peft_merges_them() {
    let directory = tempfile::tempdir().unwrap();
    let output = directory.path().join("merged.gguf");
    let folder = goldens().join("lora-more");
    let read = |path: PathBuf| std::fs::read(path).unwrap();
    let (golden, request) =
        (read(folder.join("golden.safetensors")), read(goldens().join(CASE).join("golden.safetensors")));
    let (golden, request) = (SafeTensors::deserialize(&golden).unwrap(), SafeTensors::deserialize(&request).unwrap());
    let path = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    let alone = [
        "dora",
        "dora_embedding",
        "embedding",
        "rslora",
        "patterns",
        "regex",
        "layers",
        "lora_bias",
        "bias_lora_only",
        "bias_all",
        "patch_embedding",
        "tokens",
        "head",
        "dora_head",
        "head_and_embedding",
        "dora_head_and_embedding",
    ];
    let mut cases: Vec<(String, Vec<String>)> =
        alone.iter().map(|name| ((*name).to_owned(), vec!["--lora".to_owned(), path(name)])).collect();
    let pair = |one: &str, other: &str| ["--lora".to_owned(), path(one), "--lora".to_owned(), path(other)].to_vec();
    cases.push(("dora_then_rslora".to_owned(), pair("dora", "rslora")));
    cases.push(("rslora_then_dora".to_owned(), pair("rslora", "dora")));
    cases.push(("dora_twice".to_owned(), pair("dora", "dora")));
    for name in ["dora", "lora_bias"] {
        cases.push((format!("{name}_half"), ["--lora-scaled".to_owned(), path(name), "0.5".to_owned()].to_vec()));
    }
    for (name, arguments) in cases {
        let run = convert(&output, &arguments.iter().map(String::as_str).collect::<Vec<_>>());
        let message = String::from_utf8_lossy(&run.stderr);
        assert!(run.status.success(), "{name}: {message}");
        let changes_both = name != "patch_embedding" && ["embedding", "head"].iter().any(|part| name.contains(part));
        assert_eq!(message.contains("changes both, as in PEFT's merge"), changes_both, "{message}");
        let model = Model::open(&output).unwrap();
        let mut session = Session::new(&model, &SessionOptions::new()).unwrap();
        let trace = session.trace_pixel_values(&floats(&request, "0.pixel_values"), "caption en").unwrap();
        let mut compared = vec![(trace.logits, name.clone())];
        if golden.tensor(&format!("{name}.image_features")).is_ok() {
            compared.push((trace.image_features, format!("{name}.image_features")));
        }
        for (found, name) in compared {
            let expected = floats(&golden, &name);
            let error = relative_error(&found, &expected);
            println!("{name}: relative error {error:.1e}");
            assert!(error < 1e-5, "{name}: {error}");
        }
    }
}

/// Embedding and head that were both trained whole: equal, they are still one.
#[test]
fn an_embedding_and_a_head_that_stay_equal_are_tied() {
    let directory = tempfile::tempdir().unwrap();
    let output = directory.path().join("merged.gguf");
    let folder = goldens().join("lora-more");
    let base = goldens().join(CASE);
    let embedding = std::fs::read_dir(&base)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "safetensors"))
        .find_map(|path| {
            let bytes = std::fs::read(path).unwrap();
            let tensors = SafeTensors::deserialize(&bytes).unwrap();
            let name = tensors.names().into_iter().find(|name| name.ends_with("embed_tokens.weight"))?.to_owned();
            let view = tensors.tensor(&name).unwrap();
            let values = view
                .data()
                .as_chunks()
                .0
                .iter()
                .map(|bytes| f32::from_bits(u32::from(u16::from_le_bytes(*bytes)) << 16));
            Some((view.shape().to_vec(), values.collect::<Vec<f32>>()))
        });
    let (shape, mut values) = embedding.unwrap();
    for (row, values) in values.chunks_exact_mut(shape[1]).enumerate() {
        values.iter_mut().for_each(|value| *value *= [0.5, 1.0, 2.0][row % 3]);
    }
    let adapter = directory.path().join("adapter");
    std::fs::create_dir(&adapter).unwrap();
    std::fs::copy(folder.join("modules_to_save/adapter_config.json"), adapter.join("adapter_config.json")).unwrap();
    let small = std::fs::read(folder.join("modules_to_save/adapter_model.safetensors")).unwrap();
    let small = SafeTensors::deserialize(&small).unwrap();
    let write = |head: &[f32]| {
        let bytes = |values: &[f32]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
        let (one, other) = (bytes(&values), bytes(head));
        let view = |data| safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape.clone(), data).unwrap();
        let mut all = small.tensors();
        all.push(("base_model.model.model.language_model.embed_tokens.weight".to_owned(), view(&one)));
        all.push(("base_model.model.lm_head.weight".to_owned(), view(&other)));
        std::fs::write(adapter.join("adapter_model.safetensors"), safetensors::serialize(all, None).unwrap()).unwrap();
    };
    write(&values);
    let run = convert(&output, &["--lora", adapter.to_str().unwrap()]);
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    let request = std::fs::read(base.join("golden.safetensors")).unwrap();
    let request = SafeTensors::deserialize(&request).unwrap();
    let golden = std::fs::read(folder.join("golden.safetensors")).unwrap();
    let expected = floats(&SafeTensors::deserialize(&golden).unwrap(), "modules_to_save");
    let model = Model::open(&output).unwrap();
    let mut session = Session::new(&model, &SessionOptions::new()).unwrap();
    let found = session.trace_pixel_values(&floats(&request, "0.pixel_values"), "caption en").unwrap().logits;
    let worst = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst < 1e-4, "{worst}");
    drop(model);

    let mut other = values.clone();
    other[7] += 1.0;
    write(&other);
    let run = convert(&output, &["--lora", adapter.to_str().unwrap()]);
    assert!(String::from_utf8_lossy(&run.stderr).contains("not the same any more"));
}
