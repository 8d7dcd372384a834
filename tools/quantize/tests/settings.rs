//! Keys of every file: used, or refused by name (what transformers 5.23 does with each was tried there).

mod checkpoint;

use std::path::Path;
use std::process::Command;

use gemmule::config::Config;
use gemmule::config::ResizeRule;
use serde_json::{Value, json};

use checkpoint::Checkpoint;

const PROCESSOR: &str = "processor_config.json";
const PREPROCESSOR: &str = "preprocessor_config.json";

#[test]
fn picture_settings_of_transformers_5_are_read() {
    let checkpoint = Checkpoint::new("window-f32");
    let section = |change: Value| {
        let mut section = checkpoint.json(PREPROCESSOR);
        section.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        json!({ "image_processor": section, "processor_class": "PaliGemmaProcessor" })
    };
    checkpoint.write(PROCESSOR, section(json!({ "image_mean": [0.1, 0.2, 0.3], "resample": 2 })).to_string());
    let (config, message) = checkpoint.config();
    assert_eq!((config.preprocess.mean, config.preprocess.resample), ([0.1, 0.2, 0.3], 2));
    assert!(message.contains("processor_config.json is followed"), "{message}");
    // Alone, as transformers 5 saves it; and no section at all.
    std::fs::remove_file(checkpoint.path(PREPROCESSOR)).unwrap();
    assert_eq!(checkpoint.config().0.preprocess.mean, [0.1, 0.2, 0.3]);
    checkpoint.write(PROCESSOR, json!({ "image_processor": null }).to_string());
    let (config, message) = checkpoint.config();
    assert_eq!(config.preprocess.mean, [0.5; 3]);
    assert!(message.contains("neither processor_config.json nor"), "{message}");
}

#[test]
fn picture_settings_are_used_or_refused() {
    type Check = fn(&Config) -> bool;
    let used: &[(&str, Value, Check)] = &[
        ("do_rescale", json!(null), |config| config.preprocess.rescale == 1.0),
        ("do_rescale", json!(false), |config| config.preprocess.rescale == 1.0),
        ("do_normalize", json!(null), |config| {
            config.preprocess.mean == [0.0; 3] && config.preprocess.deviation == [1.0; 3]
        }),
        ("resample", json!("bilinear"), |config| config.preprocess.resample == 2),
        ("resample", json!("LANCZOS"), |config| config.preprocess.resample == 1),
        ("resample", json!(0), |config| config.preprocess.resample == 0),
        ("resample", json!(null), |config| config.preprocess.resample == 3),
        ("image_mean", json!(0.25), |config| config.preprocess.mean == [0.25; 3]),
        ("size", json!([56, 56]), |config| config.vision.image_size == 56),
        ("size", json!({ "height": 56.0, "width": 56 }), |config| config.vision.image_size == 56),
        ("rescale_factor", json!(0.5), |config| config.preprocess.rescale == 0.5),
        ("image_processor_type", json!("SiglipImageProcessorFast"), |config| {
            config.preprocess.resize_rule == ResizeRule::Torchvision
        }),
    ];
    for (key, value, check) in used {
        let checkpoint = Checkpoint::new("window-f32");
        checkpoint.set(PREPROCESSOR, &format!("/{key}"), value.clone());
        let (config, _) = checkpoint.config();
        assert!(check(&config), "{key} = {value}: {:?}", config.preprocess);
    }
    for (key, value, part) in [
        ("do_resize", json!(false), "do_resize"),
        ("do_resize", json!(null), "do_resize"),
        ("do_rescale", json!("yes"), "neither true nor false"),
        ("do_center_crop", json!(true), "do_center_crop"),
        ("do_pad", json!(true), "do_pad"),
        ("resample", json!("2"), "no filter"),
        ("resample", json!(2.0), "no filter"),
        ("resample", json!(true), "no filter"),
        ("resample", json!(6), "no filter"),
        ("image_std", json!([0.5, 0.0, 0.5]), "zero"),
        ("image_std", json!([0.5, 0.5]), "three numbers"),
        ("rescale_factor", json!(0), "rescale_factor"),
        ("rescale_factor", json!(1e300), "no numbers of pixels"),
        ("image_std", json!(1e-45), "no numbers of pixels"),
        ("size", json!(56), "size"),
        ("size", json!({ "shortest_edge": 56 }), "size"),
        ("image_seq_length", json!(7), "image_seq_length"),
        ("image_processor_type", json!("CLIPImageProcessor"), "CLIPImageProcessor"),
    ] {
        let checkpoint = Checkpoint::new("window-f32");
        checkpoint.set(PREPROCESSOR, &format!("/{key}"), value);
        checkpoint.fails(&[PREPROCESSOR, part]);
    }
    let checkpoint = Checkpoint::new("window-f32");
    assert_eq!(
        checkpoint.model(&["--resize", "torchvision"]).0.config().preprocess.resize_rule,
        ResizeRule::Torchvision
    );
    checkpoint.set(PREPROCESSOR, "/new_trick", json!(7));
    assert!(checkpoint.config().1.contains("unknown key new_trick"));
}

#[test]
fn decoder_settings_are_used_or_refused() {
    type Check = fn(&Config) -> bool;
    let used: &[(&str, Value, Check)] = &[
        ("rope_scaling", json!({ "rope_type": "default", "rope_theta": 5000.0 }), |config| {
            config.text.rope_base == 5000.0
        }),
        ("rope_parameters", json!({ "type": "default", "rope_theta": 700.0 }), |config| config.text.rope_base == 700.0),
        ("rope_scaling", json!({ "type": "linear", "factor": 1.0 }), |config| config.text.rope_base == 10_000.0),
        ("rope_scaling", json!(null), |config| config.text.rope_base == 10_000.0),
        ("final_logit_softcapping", json!(-30.0), |config| config.text.final_softcap == Some(30.0)),
        ("attn_logit_softcapping", json!(null), |config| config.text.attention_softcap.is_none()),
        ("hidden_activation", json!("gelu_new"), |config| config.text.layers == 4),
        ("hidden_activation", json!("gelu_fast"), |config| config.text.layers == 4),
        ("tie_word_embeddings", json!(false), |config| config.text.layers == 4),
    ];
    for (key, value, check) in used {
        let checkpoint = Checkpoint::new("window-f32");
        checkpoint.set("config.json", &format!("/text_config/{key}"), value.clone());
        let (config, _) = checkpoint.config();
        assert!(check(&config), "{key} = {value}: {:?}", config.text);
    }
    for (key, value, part) in [
        ("rope_scaling", json!({ "type": "linear", "factor": 2.0 }), "linear"),
        ("rope_parameters", json!({ "type": "linear", "factor": 2.0 }), "linear"),
        ("rope_parameters", json!({ "rope_type": "yarn", "factor": 2.0 }), "yarn"),
        ("final_logit_softcapping", json!(0.0), "final_logit_softcapping"),
        ("final_logit_softcapping", json!("30"), "no number"),
        ("hidden_activation", json!("gelu"), "gelu"),
        ("hidden_size", json!("64"), "no possible size"),
        ("hidden_size", json!([64]), "no possible size"),
        ("layer_types", json!(["sliding_attention"]), "entries"),
        ("attention_bias", json!(true), "attention_bias"),
        ("is_causal", json!(false), "is_causal"),
    ] {
        let checkpoint = Checkpoint::new("window-f32");
        checkpoint.set("config.json", &format!("/text_config/{key}"), value);
        checkpoint.fails(&["config.json", part]);
    }
    for (pointer, value, part) in [
        ("/text_config", json!("gemma2"), "a text"),
        ("/vision_config", json!([1]), "a list"),
        ("/tie_word_embeddings", json!(false), "lm_head"),
        ("/quantization_config", json!({ "quant_method": "bitsandbytes" }), "bitsandbytes"),
        ("/quantization_config", json!({ "quant_method": "gptq", "bits": 4 }), "gptq"),
        ("/quantization", json!({ "group_size": 64, "bits": 4 }), "MLX"),
        ("/image_token_id", json!(9999), "outside the vocabulary"),
        ("/transformers_weights", json!("other.safetensors"), "other.safetensors"),
    ] {
        let checkpoint = Checkpoint::new("window-f32");
        checkpoint.set("config.json", pointer, value);
        checkpoint.fails(&[part]);
    }
    let checkpoint = Checkpoint::new("window-f32");
    let text = std::fs::read_to_string(checkpoint.path("config.json")).unwrap();
    // Python's numbers, a mark before the text, Windows' line ends, and a key that nobody knows.
    let text = format!(
        "\u{feff}{}",
        text.replacen('{', "{\"loss\": NaN, \"other\": [Infinity, -Infinity],", 1).replace('\n', "\r\n")
    );
    checkpoint.write("config.json", text);
    let message = checkpoint.config().1;
    assert!(message.contains("unknown keys loss, other"), "{message}");
}

#[test]
fn ends_and_rules_of_generation_are_those_of_the_file() {
    let generation = "generation_config.json";
    let checkpoint = |value: Value| {
        let checkpoint = Checkpoint::new("window-f32");
        checkpoint.write(generation, value.to_string());
        checkpoint
    };
    let ends = |value: Value| {
        let (config, message) = checkpoint(json!({ "eos_token_id": value })).config();
        (config.special.eos, message)
    };
    assert_eq!(ends(json!([1, 7])).0, [1, 7]);
    assert_eq!(ends(json!(5.0)).0, [5]);
    let (none, message) = ends(json!(null));
    assert!(none.is_empty() && message.contains("go on to the limit"), "{message}");
    let (some, message) = ends(json!([1, -1, 99_999]));
    assert!(some == [1] && message.contains("99999"), "{message}");
    for bad in [json!([1, null]), json!(["1"]), json!({})] {
        checkpoint(json!({ "eos_token_id": bad })).fails(&[generation, "eos_token_id"]);
    }
    let (_, message) = checkpoint(json!({ "bos_token_id": 2 })).config();
    assert!(message.contains("no 'eos_token_id'"), "{message}");
    for (key, value) in [
        ("repetition_penalty", json!(-1.0)),
        ("no_repeat_ngram_size", json!("2")),
        ("suppress_tokens", json!(["a"])),
        ("bad_words_ids", json!([5])),
        ("bad_words_ids", json!([[99_999]])),
        ("sequence_bias", json!({ "[5]": 1.0 })),
        ("exponential_decay_length_penalty", json!([3])),
    ] {
        checkpoint(json!({ "eos_token_id": 1, key: value })).fails(&[generation]);
    }
    let others =
        json!({ "eos_token_id": 1, "do_sample": true, "temperature": 0.7, "num_beams": 4, "guidance_scale": 2.0 });
    let checkpoint = checkpoint(others);
    let (_, message) = checkpoint.model(&[]);
    assert!(message.contains("not obeyed: do_sample = true"), "{message}");
    for key in ["temperature", "num_beams", "guidance_scale"] {
        assert!(message.contains(key), "{message}");
    }
    let file = gemmule::gguf::GgufFile::open(checkpoint.path("model.gguf")).unwrap();
    assert!(file.string("paligemma.generation_ignored").unwrap().unwrap().contains("\"num_beams\":4"));
}

#[test]
fn weights_are_found_as_transformers_finds_them() {
    // A stale index does no harm beside the single file.
    let checkpoint = Checkpoint::new("window-f32");
    checkpoint.write("model.safetensors.index.json", json!({ "weight_map": { "x": "gone.safetensors" } }).to_string());
    checkpoint.model(&[]);
    // An adapter beside the weights is merged, and that is said.
    let checkpoint = Checkpoint::new("sharded-bf16");
    let adapter = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/goldens/lora/plain");
    for name in ["adapter_config.json", "adapter_model.safetensors"] {
        checkpoint.write(name, std::fs::read(adapter.join(name)).unwrap());
    }
    let (_, message) = checkpoint.model(&[]);
    assert!(message.contains("adapter beside the weights is merged"), "{message}");
    let beside = std::fs::read(checkpoint.path("model.gguf")).unwrap();
    let other = Checkpoint::new("sharded-bf16");
    other.model(&["--lora", adapter.to_str().unwrap()]);
    let merged = std::fs::read(other.path("model.gguf")).unwrap();
    assert_eq!(beside.len(), merged.len());
    assert!(beside[beside.len() / 2..] == merged[merged.len() / 2..], "the same weights");
    std::fs::remove_file(checkpoint.path("adapter_model.safetensors")).unwrap();
    checkpoint.fails(&["adapter_model.safetensors"]);
    // The root of a cache entry.
    let checkpoint = Checkpoint::new("window-f32");
    let root = checkpoint.path("models--a--b");
    std::fs::create_dir_all(root.join("snapshots")).unwrap();
    std::os::unix::fs::symlink(checkpoint.directory.path(), root.join("snapshots/0123")).unwrap();
    let output = checkpoint.path("out.gguf");
    let run = Command::new(env!("CARGO_BIN_EXE_gemmule-quantize")).arg(&root).arg(&output).output().unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
}

/// Writes one safetensors file of all tensors of a case, renamed and retyped by `change`.
fn rewrite(checkpoint: &Checkpoint, change: impl Fn(&str) -> Option<String>) {
    let bytes = std::fs::read(checkpoint.path("model.safetensors")).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let renamed: Vec<_> =
        tensors.tensors().into_iter().filter_map(|(name, view)| change(&name).map(|name| (name, view))).collect();
    checkpoint.write("model.safetensors", safetensors::serialize(renamed, None).unwrap());
}

#[test]
fn a_head_alone_is_the_embedding() {
    let checkpoint = Checkpoint::new("window-f32");
    rewrite(&checkpoint, |name| {
        Some(if name.ends_with("embed_tokens.weight") { "lm_head.weight".to_owned() } else { name.to_owned() })
    });
    checkpoint.model(&[]);
    let other = Checkpoint::new("window-f32");
    other.model(&[]);
    let read = |checkpoint: &Checkpoint| std::fs::read(checkpoint.path("model.gguf")).unwrap();
    let (one, two) = (read(&checkpoint), read(&other));
    assert!(one.len() == two.len() && one[one.len() / 3..] == two[two.len() / 3..]);
}

#[test]
fn weights_that_nothing_asks_for_are_said() {
    let checkpoint = Checkpoint::new("window-f32");
    assert!(!checkpoint.config().1.contains("not used"));
    let layers = checkpoint.json("config.json")["vision_config"]["num_hidden_layers"].as_u64().unwrap();
    checkpoint.set("config.json", "/vision_config/num_hidden_layers", json!(layers - 1));
    let (_, message) = checkpoint.config();
    assert!(
        message.contains("tensors of the checkpoint are not used") && message.contains("'vision_tower."),
        "{message}"
    );
    checkpoint.set("generation_config.json", "/max_new_tokens", json!(2));
    assert!(checkpoint.config().1.contains("max_new_tokens = 2 is not carried"));
}

#[test]
fn what_tools_leave_in_names_is_said() {
    for (prefix, part) in [
        ("_orig_mod.", "torch.compile"),
        ("module.", "DistributedDataParallel"),
        ("base_model.model.", "merge_and_unload"),
    ] {
        let checkpoint = Checkpoint::new("window-f32");
        rewrite(&checkpoint, |name| Some(format!("{prefix}{name}")));
        checkpoint.fails(&["is missing", prefix, part]);
    }
    let checkpoint = Checkpoint::new("window-f32");
    rewrite(&checkpoint, |name| Some(name.replace("q_proj.weight", "q_proj.base_layer.weight")));
    checkpoint.fails(&["base_layer", "merge_and_unload"]);
}

#[test]
fn other_layouts_and_files_are_named() {
    let weights = |checkpoint: &Checkpoint| std::fs::remove_file(checkpoint.path("model.safetensors")).unwrap();
    for (name, part) in [
        ("pytorch_model.bin", "safe_serialization"),
        ("model.pt", "safe_serialization"),
        ("checkpoint.npz", "--config"),
        ("adapter_config.json", "--lora"),
        ("adapters.safetensors", "MLX"),
        ("model.gguf", "gemmule run"),
    ] {
        let checkpoint = Checkpoint::new("window-f32");
        weights(&checkpoint);
        let value = if name.ends_with("json") { "{\"base_model_name_or_path\": \"google/x\"}" } else { "x" };
        let output = checkpoint.path("result.gguf");
        checkpoint.write(name, value);
        let run = Command::new(env!("CARGO_BIN_EXE_gemmule-quantize"))
            .arg(checkpoint.directory.path())
            .arg(output)
            .output()
            .unwrap();
        let message = String::from_utf8_lossy(&run.stderr);
        assert!(run.status.code() == Some(1) && message.contains(part), "{name}: {message}");
    }
    for (bytes, part) in [
        (&b"version https://git-lfs.github.com/spec/v1\n"[..], "git lfs pull"),
        (b"PK\x03\x04........", "pickled"),
        (b"GGUF............", "gemmule run"),
        (b"<!DOCTYPE html>.......", "web page"),
    ] {
        let checkpoint = Checkpoint::new("window-f32");
        checkpoint.write("model.safetensors", bytes);
        checkpoint.fails(&["model.safetensors", part]);
    }
    let checkpoint = Checkpoint::new("window-f32");
    checkpoint.write("config.json", "version https://git-lfs.github.com/spec/v1\n");
    checkpoint.fails(&["config.json", "git lfs pull"]);
    checkpoint.write("config.json", [0xff, 0xfe, b'{', 0]);
    checkpoint.fails(&["config.json", "UTF-16"]);
    let checkpoint = Checkpoint::new("window-f32");
    std::fs::remove_file(checkpoint.path("tokenizer.json")).unwrap();
    checkpoint.fails(&["tokenizer.json", "missing"]);
    checkpoint.write("tokenizer.model", "x");
    checkpoint.fails(&["tokenizer.model", "SentencePiece"]);
    let fails = |source: &Path, part: &str| {
        let output = checkpoint.path("none.gguf");
        let run = Command::new(env!("CARGO_BIN_EXE_gemmule-quantize")).arg(source).arg(output).output().unwrap();
        let message = String::from_utf8_lossy(&run.stderr);
        assert!(run.status.code() == Some(1) && message.contains(part), "{message}");
    };
    fails(Path::new("https://huggingface.co/google/paligemma2-3b-mix-224"), "URL");
    fails(Path::new("/nowhere/at/all"), "no such directory");
    fails(&checkpoint.path("model.safetensors"), "directory that it lies in");
    fails(&checkpoint.path("config.json"), "directory that it lies in");
    for (name, near) in [("Q4_K_M", "q4_k"), ("int8", "q8_0"), ("nf4", "q4_0"), ("fp16", "f16"), ("Q5_K_S", "q5_k")] {
        let run =
            Command::new(env!("CARGO_BIN_EXE_gemmule-quantize")).args(["a", "b", "--type", name]).output().unwrap();
        let message = String::from_utf8_lossy(&run.stderr);
        assert!(
            run.status.code() == Some(2) && message.contains(&format!("the nearest is {near}")),
            "{name}: {message}"
        );
    }
}

#[test]
fn weights_of_other_types_are_named() {
    let checkpoint = Checkpoint::new("window-f32");
    let bytes = std::fs::read(checkpoint.path("model.safetensors")).unwrap();
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let head: Value = serde_json::from_slice(&bytes[8..header]).unwrap();
    let name = head.as_object().unwrap().keys().find(|name| name.ends_with("norm.weight")).unwrap().clone();
    // Two integers, or half a double, in the place of a float each.
    for (kind, shape) in [("I8", 4), ("F64", 0), ("F8_E4M3", 4)] {
        let len = head[&name]["data_offsets"][1].as_u64().unwrap() - head[&name]["data_offsets"][0].as_u64().unwrap();
        let mut changed = head.clone();
        changed[&name]["dtype"] = json!(kind);
        changed[&name]["shape"] = json!([if shape == 0 { len / 8 } else { len }]);
        let text = changed.to_string();
        let file = [&(text.len() as u64).to_le_bytes()[..], text.as_bytes(), &bytes[header..]].concat();
        checkpoint.write("model.safetensors", file);
        checkpoint.fails(&[&name, kind.split('_').next().unwrap()]);
    }
}
