//! Files of models and adapters.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use gemmule::Model;
use gemmule::gguf::Gguf;
use gemmule::gguf::GgufFile;
use gemmule_quantize::Conversion;

/// A small sound checkpoint.
fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/goldens/window-f32")
}

/// A copy of the checkpoint in which `file` is replaced; all other files are links.
fn checkpoint_with(folder: &str, file: &str, data: &[u8]) -> PathBuf {
    let directory = super::scratch(folder);
    for entry in std::fs::read_dir(&directory).expect("it was made").flatten() {
        let _ = std::fs::remove_file(entry.path());
    }
    for entry in std::fs::read_dir(golden()).expect("the golden checkpoint").flatten() {
        if entry.file_name() != *file {
            let _ = std::os::unix::fs::symlink(
                entry.path().canonicalize().expect("it exists"),
                directory.join(entry.file_name()),
            );
        }
    }
    std::fs::write(directory.join(file), data).expect("a file");
    directory
}

pub(super) fn gguf(data: &[u8]) {
    // Two readers of one header: what the parser behind makes of tensors is what our scan has let through.
    if let Ok(file) = Gguf::parse("fuzz", data) {
        for tensor in file.tensors() {
            assert!(tensor.range.end <= data.len(), "{}: outside of the file", tensor.name);
            assert!(tensor.elements() > 0);
        }
    }
    let path = super::scratch("gguf").join("fuzz.gguf");
    std::fs::write(&path, data).expect("a file");
    if let Ok(model) = GgufFile::open(&path).and_then(|file| Model::from_files(vec![file])) {
        let _ = model.tokenizer();
    }
}

pub(super) fn safetensors(data: &[u8]) {
    let _ = Conversion::of(checkpoint_with("safetensors", "model.safetensors", data)).prepare(&std::env::temp_dir());
}

pub(super) fn index(data: &[u8]) {
    let directory = checkpoint_with("index", "model.safetensors.index.json", data);
    let single = directory.join("model.safetensors");
    let _ = std::fs::rename(&single, directory.join("model-00001-of-00001.safetensors"));
    let _ = Conversion::of(directory).prepare(&std::env::temp_dir());
}

/// The first byte chooses the file.
pub(super) fn settings(data: &[u8]) {
    const FILES: [&str; 8] = [
        "config.json",
        "generation_config.json",
        "preprocessor_config.json",
        "processor_config.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "added_tokens.json",
        "tokenizer.json",
    ];
    let Some((first, rest)) = data.split_first() else { return };
    let file = FILES[usize::from(*first) % FILES.len()];
    let _ = Conversion::of(checkpoint_with("settings", file, rest)).prepare(&std::env::temp_dir());
}

pub(super) fn npz(data: &[u8]) {
    let directory = checkpoint_with("npz", "checkpoint.npz", data);
    let _ = Conversion::of(directory.join("checkpoint.npz")).prepare(&std::env::temp_dir());
    let _ = gemmule_quantize::read_mask_decoder(&directory.join("checkpoint.npz"));
}

/// The first byte chooses: the adapter's settings, or its tensors.
pub(super) fn lora(data: &[u8]) {
    static ADAPTER: LazyLock<[Vec<u8>; 2]> = LazyLock::new(|| {
        let folder = golden().join("../lora/plain");
        ["adapter_config.json", "adapter_model.safetensors"]
            .map(|name| std::fs::read(folder.join(name)).expect("the golden"))
    });
    let Some((first, rest)) = data.split_first() else { return };
    let adapter = super::scratch("adapter");
    let (config, tensors) = if first % 2 == 0 { (rest, &ADAPTER[1][..]) } else { (&ADAPTER[0][..], rest) };
    std::fs::write(adapter.join("adapter_config.json"), config).expect("a file");
    std::fs::write(adapter.join("adapter_model.safetensors"), tensors).expect("a file");
    let _ = Conversion::of(golden()).adapter(adapter, 1.0).prepare(&std::env::temp_dir());
}
