//! What the converter does when something is wrong: one clear error, and nothing under the output's name.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn quantize(checkpoint: &Path, output: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_gemmule-quantize")).arg(checkpoint).arg(output).args(arguments).output().unwrap()
}

/// A copy of a golden checkpoint that a test may damage.
fn checkpoint(directory: &Path, case: &str) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/goldens").join(case);
    let target = directory.join("checkpoint");
    std::fs::create_dir_all(&target).unwrap();
    for entry in std::fs::read_dir(source).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), target.join(entry.file_name())).unwrap();
    }
    target
}

/// Runs a conversion that must fail; an existing output stays as it was and nothing else is left behind.
#[track_caller]
fn assert_fails(case: &str, damage: impl Fn(&Path), parts: &[&str]) {
    let directory = tempfile::tempdir().unwrap();
    let source = checkpoint(directory.path(), case);
    damage(&source);
    let target = directory.path().join("out");
    std::fs::create_dir(&target).unwrap();
    let output = target.join("model.gguf");
    std::fs::write(&output, b"GGUF precious").unwrap();
    let run = quantize(&source, &output, &["--force"]);
    let message = String::from_utf8_lossy(&run.stderr);
    assert_eq!(run.status.code(), Some(1), "{message}");
    for part in parts {
        assert!(message.contains(part), "no '{part}' in: {message}");
    }
    assert_eq!(std::fs::read(&output).unwrap(), b"GGUF precious");
    assert_eq!(std::fs::read_dir(&target).unwrap().count(), 1, "something was left behind");
}

fn edit(path: &Path, from: &str, to: &str) {
    let text = std::fs::read_to_string(path).unwrap();
    assert!(text.contains(from), "{from}");
    std::fs::write(path, text.replace(from, to)).unwrap();
}

#[test]
fn damaged_checkpoints_are_named() {
    let shard = "model-00002-of-00003.safetensors";
    let truncate = |path: PathBuf| {
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(path, &bytes[..bytes.len() - 7]).unwrap();
    };
    assert_fails("sharded-bf16", |at| truncate(at.join(shard)), &[shard, "truncated"]);
    assert_fails("sharded-bf16", |at| std::fs::remove_file(at.join(shard)).unwrap(), &[shard]);
    let index = |at: &Path| at.join("model.safetensors.index.json");
    assert_fails("sharded-bf16", |at| edit(&index(at), "\"weight_map\"", "\"weights\""), &["index.json", "weight_map"]);
    assert_fails("sharded-bf16", |at| edit(&index(at), shard, "../../etc/passwd"), &["no plain file name"]);
    assert_fails("window-f32", |at| truncate(at.join("model.safetensors")), &["model.safetensors", "truncated"]);
    assert_fails(
        "window-f32",
        |at| std::fs::write(at.join("model.safetensors"), [255; 64]).unwrap(),
        &["model.safetensors"],
    );
    assert_fails("window-f32", |at| std::fs::remove_file(at.join("model.safetensors")).unwrap(), &["Hugging"]);
}

#[test]
fn configurations_that_do_not_fit_are_named() {
    let config = |at: &Path| at.join("config.json");
    assert_fails("window-f32", |at| edit(&config(at), "\"paligemma\"", "\"llava\""), &["llava"]);
    assert_fails("window-f32", |at| edit(&config(at), "\"gemma2\"", "\"gemma3\""), &["gemma3", "PaliGemma 1 and 2"]);
    assert_fails(
        "window-f32",
        |at| edit(&config(at), "\"num_hidden_layers\": 4", "\"num_hidden_layers\": 5"),
        &["layers.4", "missing"],
    );
    assert_fails(
        "window-f32",
        |at| edit(&config(at), "\"intermediate_size\": 128", "\"intermediate_size\": 96"),
        &["mlp", "shape"],
    );
    assert_fails("window-f32", |at| edit(&config(at), "gelu_pytorch_tanh", "relu"), &["relu"]);
    assert_fails("window-f32", |at| std::fs::remove_file(config(at)).unwrap(), &["config.json"]);
    assert_fails("window-f32", |at| std::fs::write(config(at), "{").unwrap(), &["config.json", "JSON"]);
    assert_fails("window-f32", |at| std::fs::remove_file(at.join("tokenizer.json")).unwrap(), &["tokenizer.json"]);
    assert_fails("window-f32", |at| std::fs::write(at.join("tokenizer.json"), "{}").unwrap(), &["tokenizer.json"]);
    assert_fails("window-f32", |at| edit(&at.join("preprocessor_config.json"), "56", "64"), &["preprocessor", "56"]);
}

#[test]
fn weights_that_are_not_finite_are_named() {
    let spoil = |at: &Path| {
        let path = at.join("model.safetensors");
        let mut bytes = std::fs::read(&path).unwrap();
        let end = bytes.len();
        bytes[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
        std::fs::write(path, bytes).unwrap();
    };
    assert_fails("window-f32", spoil, &["tensor", "not a number"]);
}

#[test]
fn existing_files_are_kept_unless_forced() {
    let directory = tempfile::tempdir().unwrap();
    let source = checkpoint(directory.path(), "window-f32");
    let output = directory.path().join("model.gguf");
    let precious = b"GGUF precious";
    std::fs::write(&output, precious).unwrap();
    let fails = |output: &Path, arguments: &[&str], part: &str| {
        let run = quantize(&source, output, arguments);
        let message = String::from_utf8_lossy(&run.stderr);
        assert_eq!(run.status.code(), Some(1), "{message}");
        assert!(message.contains(part), "no '{part}' in: {message}");
    };
    fails(&output, &[], "--force");
    assert_eq!(std::fs::read(&output).unwrap(), precious);
    // What is no output of ours, an input for example, is never replaced.
    let input = source.join("config.json");
    let before = std::fs::read(&input).unwrap();
    fails(&input, &["--force"], "no GGUF file");
    assert_eq!(std::fs::read(&input).unwrap(), before);
    fails(Path::new("/dev/null"), &["--force"], "name a file");
    fails(directory.path(), &["--force"], "is a directory");
    assert!(quantize(&source, &output, &["--force"]).status.success());
    assert_ne!(std::fs::read(&output).unwrap(), precious);
}

#[test]
fn a_full_disk_leaves_nothing_behind() {
    // /dev/full's directory cannot hold files of ours; a limit on the file size stands for the full disk.
    let directory = tempfile::tempdir().unwrap();
    let source = checkpoint(directory.path(), "window-f32");
    let target = directory.path().join("out");
    std::fs::create_dir(&target).unwrap();
    let script = "trap '' XFSZ; ulimit -f 100; exec \"$0\" \"$1\" \"$2\"";
    let run = Command::new("bash")
        .args(["-c", script, env!("CARGO_BIN_EXE_gemmule-quantize")])
        .args([&source, &target.join("model.gguf")])
        .output()
        .unwrap();
    assert_eq!(run.status.code(), Some(1), "{}", String::from_utf8_lossy(&run.stderr));
    assert_eq!(std::fs::read_dir(&target).unwrap().count(), 0);
}

#[test]
fn a_killed_conversion_leaves_the_target_alone() {
    let directory = tempfile::tempdir().unwrap();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/easy-vqa");
    let output = directory.path().join("model.gguf");
    std::fs::write(&output, b"GGUF precious").unwrap();
    let partial = || std::fs::read_dir(directory.path()).unwrap().count() > 1;
    for signal in ["-KILL", "-TERM"] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_gemmule-quantize"))
            .arg(&source)
            .arg(&output)
            .args(["--type", "q4_k", "--force", "--threads", "1"])
            .stderr(std::process::Stdio::null())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        while !partial() {
            assert!(child.try_wait().unwrap().is_none(), "the conversion did not begin");
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
        assert!(!child.wait().unwrap().success(), "the conversion was over before {signal} came");
        assert_eq!(std::fs::read(&output).unwrap(), b"GGUF precious", "{signal}");
        let left: Vec<_> = std::fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        if signal == "-TERM" {
            assert_eq!(left, std::slice::from_ref(&output), "ending in order removes the unfinished file");
        }
        left.iter().filter(|path| **path != output).for_each(|path| std::fs::remove_file(path).unwrap());
    }
}
