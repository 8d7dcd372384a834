//! What is probably wrong where something is missing, and what to do about it.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail, ensure};
use safetensors::tensor::Dtype;
use serde_json::Value;

use crate::hub::ModelName;

/// Whether a path means a checkpoint to be converted rather than a GGUF file: a directory, an `.npz` or `.safetensors` file, or a path
/// that does not exist and looks like a model's name or a URL.
pub fn is_checkpoint(path: &Path) -> bool {
    let is_weights = path.extension().is_some_and(|ending| ending == "npz" || ending == "safetensors");
    path.is_dir() || is_weights || (!path.exists() && (is_url(path) || name_of(path).is_some()))
}

/// The directory of a checkpoint. `path` is that directory, the root of an entry of Hugging Face's cache, or the name of a model in
/// that cache (`google/paligemma2-3b-mix-224`); the latter two give the entry's snapshot.
///
/// # Errors
/// When it is something else; the message says what, and what to name in its place.
pub fn directory(path: &Path) -> Result<PathBuf> {
    let shown = path.display();
    ensure!(
        path.exists() || !is_url(path),
        "{shown}: it is a URL, which is not fetched: download the checkpoint (`hf download NAME --local-dir DIRECTORY`) and name its \
         directory"
    );
    let cached = name_of(path).filter(|_| !path.exists()).map(ModelName::folder).transpose()?;
    let path = cached.as_deref().unwrap_or(path);
    ensure!(path.exists(), "{shown}: there is no such directory; give that of a Hugging Face checkpoint");
    if path.is_file() {
        let parent = path.parent().filter(|parent| *parent != Path::new("")).unwrap_or(Path::new("."));
        let beside = format!("give the directory that it lies in, {}", parent.display());
        match path.extension().and_then(|ending| ending.to_str()) {
            Some("safetensors" | "json") => bail!("{shown}: it is a file of a checkpoint: {beside}"),
            Some("gguf") => bail!("{shown}: it is a GGUF file already: run it with `gemmule run -m {shown}`"),
            Some("bin" | "pt" | "pth" | "ckpt") => bail!("{shown}: {}", PICKLED),
            _ => bail!("{shown}: it is a file, no directory of a Hugging Face checkpoint"),
        }
    }
    match snapshots(path)?.as_slice() {
        [] => Ok(path.to_owned()),
        [one] => Ok(one.clone()),
        several => {
            // The branch `main` points at what was fetched last.
            let main = std::fs::read_to_string(path.join("refs/main")).unwrap_or_default();
            let main = path.join("snapshots").join(main.trim());
            ensure!(
                several.contains(&main),
                "{shown}: this cache entry has {} snapshots: give one of them, such as {}",
                several.len(),
                several[0].display()
            );
            Ok(main)
        }
    }
}

fn is_url(path: &Path) -> bool {
    path.to_str().is_some_and(|text| text.contains("://") || text.starts_with("hf:"))
}

fn name_of(path: &Path) -> Option<ModelName<'_>> {
    path.to_str().and_then(ModelName::of)
}

/// The directory of an adapter: what `path` names, or the only one in it that holds one.
///
/// # Errors
/// When there is none.
pub(crate) fn adapter(path: &Path) -> Result<PathBuf> {
    let shown = path.display();
    ensure!(path.exists(), "{shown}: there is no such directory; give that of an adapter (adapter_config.json)");
    ensure!(path.is_dir(), "{shown}: it is a file: give the directory that it lies in");
    let has = |path: &Path| path.join("adapter_config.json").exists();
    if has(path) {
        return Ok(path.to_owned());
    }
    if let [snapshot] = snapshots_with(path, "adapter_config.json").as_slice() {
        return Ok(snapshot.clone());
    }
    let inner: Vec<PathBuf> = std::fs::read_dir(path)?
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.is_dir() && has(path))
        .collect();
    match inner.as_slice() {
        [] if path.join("adapters.safetensors").exists() => bail!("{}", no_weights(path)),
        [] => bail!("{shown}: adapter_config.json is not here; give the directory of an adapter in PEFT's layout"),
        inner => bail!(
            "{shown}: adapter_config.json is not here; give the directory of the adapter, such as {}",
            inner[0].display()
        ),
    }
}

/// The snapshots of a Hugging Face cache entry that have a file.
fn snapshots_with(path: &Path, file: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(path.join("snapshots")).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(|path| path.join(file).exists()).collect();
    found.sort();
    found
}

/// The snapshots in the root of a Hugging Face cache entry (`models--…`).
fn snapshots(path: &Path) -> Result<Vec<PathBuf>> {
    let inner = path.join("snapshots");
    if path.join("config.json").exists() || !inner.is_dir() {
        return Ok(Vec::new());
    }
    let found = snapshots_with(path, "config.json");
    ensure!(
        !found.is_empty(),
        "{}: no snapshot of this cache entry is whole: fetch it again with `hf download`",
        path.display()
    );
    Ok(found)
}

const PICKLED: &str = "weights that PyTorch has pickled are not read: load the model in Python and write safetensors with \
                       `model.save_pretrained(DIRECTORY, safe_serialization=True)`";

pub(crate) const PICKLED_ADAPTER: &str = "adapters that PyTorch has pickled are not read: load it in Python and write safetensors \
                                          with `model.save_pretrained(DIRECTORY)`";

/// Why a directory holds no weights that can be read.
pub(crate) fn no_weights(directory: &Path) -> String {
    let shown = directory.display();
    let has = |name: &str| directory.join(name).exists();
    let names: Vec<String> = std::fs::read_dir(directory)
        .map(|entries| entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect())
        .unwrap_or_default();
    let ends = |endings: &[&str]| names.iter().find(|name| endings.iter().any(|ending| name.ends_with(ending)));
    if has("adapter_config.json") {
        let config = crate::json::read(&directory.join("adapter_config.json")).unwrap_or(Value::Null);
        let base = config["base_model_name_or_path"].as_str().unwrap_or("its base model");
        return format!(
            "{shown}: it holds an adapter, no model: convert {base} with `--lora {shown}` (`gemmule-quantize BASE OUT.gguf --lora {shown}`)"
        );
    }
    if has("adapters.safetensors") {
        return format!(
            "{shown}: it holds adapters of MLX, which are not read: fuse them with `mlx_lm.fuse` or train with PEFT"
        );
    }
    if let Some(name) = ends(&[".bin", ".pt", ".pth", ".ckpt"]) {
        return format!("{shown}: the weights are {name}: {PICKLED}");
    }
    if let Some(name) = ends(&[".npz"]) {
        return format!(
            "{shown}: the weights are {name}, of big_vision: name that file, with --config {shown} for its settings"
        );
    }
    if let Some(name) = ends(&[".gguf"]) {
        return format!(
            "{shown}: the weights are {name}, GGUF already: run it with `gemmule run -m {}`",
            directory.join(name).display()
        );
    }
    if let Some(name) = ends(&[".msgpack", ".h5"]) {
        return format!(
            "{shown}: the weights are {name}, of JAX or TensorFlow: write safetensors with transformers first"
        );
    }
    if let Some(name) = ends(&[".safetensors"]) {
        return format!(
            "{shown}: neither model.safetensors nor model.safetensors.index.json is here; {name} is not looked at under that \
             name: in Hugging Face's layout a shard needs its index, and a whole model is called model.safetensors"
        );
    }
    format!(
        "{shown}: neither model.safetensors nor model.safetensors.index.json is here; give the directory of a Hugging Face checkpoint"
    )
}

/// What a file is that is no safetensors file, by its first eight bytes; none where they do not tell.
pub(crate) fn not_safetensors(path: &Path, start: &[u8; 8]) -> Option<String> {
    let is = |mark: &[u8]| start.starts_with(mark);
    if is(b"version ") {
        return Some("it is a pointer of Git LFS, not the weights: fetch them with `git lfs pull`".to_owned());
    }
    if is(b"PK\x03\x04") || is(b"\x80\x02") {
        return Some(PICKLED.to_owned());
    }
    if is(b"GGUF") {
        return Some(format!("it is a GGUF file under another name: run it with `gemmule run -m {}`", path.display()));
    }
    if is(b"<!DOCTYP") || is(b"<!doctyp") || is(b"<html") {
        return Some("it is a web page, not the weights: log in, accept the licence and fetch it again".to_owned());
    }
    None
}

/// What to do about a tensor of a type that is not read.
pub(crate) fn unread_type(name: &str, kind: Dtype) -> String {
    let what = match kind {
        Dtype::F64 => "write the model as float32 first (`model.float().save_pretrained(DIRECTORY)`)",
        Dtype::I8 | Dtype::U8 | Dtype::I32 | Dtype::U32 | Dtype::I64 => {
            "it is quantized already (bitsandbytes, GPTQ, AWQ, MLX …): convert the model it was made from"
        }
        _ => "write the model as bfloat16 or float32 first, or convert the one it was made from",
    };
    format!("tensor '{name}' is of type {kind:?}; F32, F16 and BF16 are read: {what}")
}

/// Prefixes and parts of names that a tool leaves in what it saves, and where they come from.
const LEFTOVERS: [(&str, &str); 6] = [
    ("_orig_mod.", "torch.compile's: save the model that it wraps (`model._orig_mod.save_pretrained`)"),
    (
        "base_model.model.",
        "PEFT's, before adapters were merged: save `model.merge_and_unload()`, or give the adapter with --lora",
    ),
    (
        ".base_layer.",
        "PEFT's, before adapters were merged: save `model.merge_and_unload()`, or give the adapter with --lora",
    ),
    ("module.", "DistributedDataParallel's: save the model that it wraps (`model.module.save_pretrained`)"),
    ("_fsdp_wrapped_module.", "FSDP's: save the full state of the model that it wraps"),
    ("paligemma.", "of a model around PaliGemma: save its PaliGemma alone (`model.paligemma.save_pretrained`)"),
];

/// Why the tensor of a canonical name is not among those of a checkpoint.
pub(crate) fn missing<'a>(name: &str, mut stored: impl Iterator<Item = &'a str>) -> String {
    // What stays the same in all layouts: the part behind the layers' prefix.
    let part = name.rsplit_once("_model.").map_or(name, |(_, part)| part);
    let part = part.strip_prefix("vision_tower.").unwrap_or(part);
    let mut looks_like = |stored: &str| {
        let leftover = LEFTOVERS.iter().find(|(leftover, _)| stored.contains(leftover))?;
        let clean = stored.replace(leftover.0.trim_start_matches('.'), "");
        clean.ends_with(part).then(|| (stored.to_owned(), *leftover))
    };
    match stored.find_map(&mut looks_like) {
        Some((stored, (leftover, source))) => {
            format!(
                "tensor '{name}' is missing; '{stored}' is there: '{}' is {source}",
                leftover.trim_start_matches('.')
            )
        }
        None => format!("tensor '{name}' is missing"),
    }
}

/// Fails for a checkpoint whose weights are quantized already.
pub(crate) fn check_quantization(config: &Value, name: &str) -> Result<()> {
    for key in ["quantization_config", "quantization", "compression_config"] {
        let value = &config[key];
        if value.is_null() {
            continue;
        }
        let method = value["quant_method"].as_str().or(value["quant_type"].as_str()).or(value["mode"].as_str());
        let by = method.map_or_else(
            || if key == "quantization" { "MLX".to_owned() } else { "some method".to_owned() },
            str::to_owned,
        );
        bail!(
            "{name}: '{key}': the weights are quantized already, by {by}; that is not read: convert the checkpoint it was made from"
        );
    }
    Ok(())
}
