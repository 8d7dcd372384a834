//! LoRA adapters in PEFT's layout, merged while weights are read, as PEFT's `merge_and_unload` merges them: W + s · B · A, and
//! with magnitudes (DoRA) m / ‖W + s · B · A‖ times that. (peft 0.21, `tuners/lora`.)

mod patterns;
mod settings;
mod targets;

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use crate::advice;
use crate::changes::{Change, Delta};
use crate::checkpoint::{Checkpoint, EMBEDDING, HEAD, canonical};

use self::targets::Targets;

pub(crate) use settings::Config;

/// The names of one module's tensors in the adapter's file.
#[derive(Default)]
struct Parts {
    down: Option<String>,
    up: Option<String>,
    bias: Option<String>,
    magnitude: Option<String>,
    /// The matrices are those of an embedding, which lie the other way around.
    of_embedding: bool,
}

/// What a tensor of an adapter is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Down,
    Up,
    DownOfEmbedding,
    UpOfEmbedding,
    Bias,
    Magnitude,
    /// Rows of the embedding.
    Tokens,
    /// It matters in training only.
    Training,
    /// A tensor that was trained whole.
    Whole,
}

/// A tensor's module and what the tensor is; none for a kind of adapter that is not known. Keys of a saved adapter do not name the
/// adapter; those taken from a model in use do ("default").
fn role(name: &str) -> Option<(&str, Role)> {
    let Some((module, end)) = name.split_once(".lora_") else {
        let tokens =
            name.strip_suffix(".default").unwrap_or(name).strip_suffix(".token_adapter.trainable_tokens_delta");
        return Some(tokens.map_or((name, Role::Whole), |module| (module, Role::Tokens)));
    };
    if end.starts_with("velora_embed") || end.starts_with("monteclora_sampler") {
        return Some((module, Role::Training));
    }
    let (end, is_bias) = match end.strip_suffix(".bias") {
        Some(end) => (end, true),
        None => (end.strip_suffix(".weight").unwrap_or(end), false),
    };
    let role = match (end.strip_suffix(".default").unwrap_or(end), is_bias) {
        ("A", false) => Role::Down,
        ("B", false) => Role::Up,
        ("B", true) => Role::Bias,
        ("embedding_A", false) => Role::DownOfEmbedding,
        ("embedding_B", false) => Role::UpOfEmbedding,
        ("magnitude_vector", false) => Role::Magnitude,
        _ => return None,
    };
    Some((module, role))
}

/// An adapter's files, sorted by what they do.
struct Adapter {
    config: Config,
    tensors: Checkpoint,
    /// Name of the file with the tensors.
    file: String,
    modules: BTreeMap<String, Parts>,
    /// Tensors that take the place of the checkpoint's, by the canonical names of these.
    whole: BTreeMap<String, String>,
    tokens: Option<String>,
}

impl Adapter {
    fn read(directory: &Path) -> Result<Self> {
        let config = Config::read(directory)?;
        let path = directory.join("adapter_model.safetensors");
        let pickled = directory.join("adapter_model.bin");
        ensure!(path.exists() || !pickled.exists(), "{}: {}", pickled.display(), advice::PICKLED_ADAPTER);
        let tensors = Checkpoint::open_file(&path)?;
        let file = path.display().to_string();
        if let Some(name) = tensors.unread_names().next() {
            bail!("{file}: tensor '{name}' is of a type that is not read; F32, F16 and BF16 are");
        }
        let mut adapter =
            Self { config, tensors, file, modules: BTreeMap::new(), whole: BTreeMap::new(), tokens: None };
        let mut names: Vec<String> = adapter.tensors.stored_names().map(str::to_owned).collect();
        names.sort_unstable();
        for name in names {
            adapter.sort(&name)?;
        }
        let targets = Targets::new(&adapter.config)?;
        for module in adapter.modules.keys() {
            ensure!(
                targets.have(module)?,
                "{}: it changes '{module}', which is none of the modules that {} names, so PEFT would leave it out; mend \
                 'target_modules', 'exclude_modules' or 'layers_to_transform'",
                adapter.file,
                adapter.config.name
            );
        }
        let empty = adapter.modules.is_empty() && adapter.whole.is_empty() && adapter.tokens.is_none();
        ensure!(!empty, "{}: it holds no lora_A and lora_B", adapter.file);
        Ok(adapter)
    }

    fn sort(&mut self, name: &str) -> Result<()> {
        let file = &self.file;
        let module = name.strip_prefix("base_model.model.").unwrap_or(name);
        let Some((module, role)) = role(module) else {
            bail!("{file}: '{name}' is no part of an adapter that is supported (LoRA and DoRA are)");
        };
        let target = |parts: &mut Parts, role| {
            parts.of_embedding |= matches!(role, Role::DownOfEmbedding | Role::UpOfEmbedding);
            let place = match role {
                Role::Down | Role::DownOfEmbedding => &mut parts.down,
                Role::Up | Role::UpOfEmbedding => &mut parts.up,
                Role::Bias => &mut parts.bias,
                _ => &mut parts.magnitude,
            };
            place.replace(name.to_owned())
        };
        let before = match role {
            Role::Training => None,
            Role::Tokens => self.tokens.replace(name.to_owned()),
            Role::Whole if module.contains(".original_module.") => None,
            Role::Whole => {
                let plain = module.replace(".base_layer.", ".").replace(".token_adapter.", ".");
                let plain = plain.replace(".modules_to_save.default.", ".").replace(".modules_to_save.", ".");
                self.whole.insert(canonical(&plain), name.to_owned())
            }
            _ => target(self.modules.entry(module.to_owned()).or_default(), role),
        };
        match before {
            Some(before) => bail!("{file}: '{before}' and '{name}' mean the same"),
            None => Ok(()),
        }
    }

    /// Puts the tensors that were trained whole in their places.
    fn replace_whole(&mut self, checkpoint: &mut Checkpoint) -> Result<()> {
        let (embedding, head) = (self.whole.remove(EMBEDDING), self.whole.remove(HEAD));
        let separate = || format!("{}: the embedding and the output head are not the same any more", self.file);
        if let Some(head) = &head {
            let values = self.tensors.values(head)?.1;
            let other = match &embedding {
                Some(embedding) => self.tensors.values(embedding)?.1,
                None => checkpoint.values(EMBEDDING)?.1,
            };
            ensure!(values == other, "{}, which is not supported", separate());
        }
        if let Some(name) = embedding {
            // An embedding that 'modules_to_save' does not list was trained in the tensor that both share.
            let shared = head.is_some()
                || name.contains(".base_layer.")
                || !self.config.lists("modules_to_save", "embed_tokens");
            ensure!(shared, "{}, which is not supported: 'modules_to_save' has one of them", separate());
            self.whole.insert(EMBEDDING.to_owned(), name);
        }
        for (target, name) in &self.whole {
            let replaced = checkpoint.replace(target, &self.tensors, name);
            replaced.with_context(|| format!("{}: '{name}'", self.file))?;
        }
        Ok(())
    }

    fn replace_tokens(&self, checkpoint: &mut Checkpoint) -> Result<()> {
        let (file, config) = (&self.file, &self.config.name);
        let (rows, name) = match (self.config.tokens()?, &self.tokens) {
            (None, None) => return Ok(()),
            (Some(rows), Some(name)) => (rows, name),
            (Some(_), None) => {
                bail!("{file}: 'trainable_tokens_delta' is missing, {config} has 'trainable_token_indices'")
            }
            (None, Some(name)) => bail!("{config}: 'trainable_token_indices' is missing, {file} has '{name}'"),
        };
        let (shape, values) = self.tensors.values(name)?;
        let (vocabulary, hidden) = checkpoint.shape(EMBEDDING)?;
        ensure!(
            shape == [rows.len(), hidden],
            "{file}: '{name}' has shape {shape:?}, {} tokens of {hidden} values are listed",
            rows.len()
        );
        if let Some(row) = rows.iter().find(|row| **row >= vocabulary) {
            bail!("{config}: token {row} lies outside the vocabulary of {vocabulary}");
        }
        let others = checkpoint.has_other_rows(EMBEDDING, rows.iter().copied());
        ensure!(!others, "{config}: another adapter replaces some of these tokens, too");
        let rows = rows.into_iter().zip(values.chunks_exact(hidden).map(<[f32]>::to_vec)).collect();
        checkpoint.change(EMBEDDING, Change::Rows(rows));
        Ok(())
    }

    /// A module's B · A with the factor on it, its rows and columns, and that factor.
    fn delta(&self, module: &str, parts: &Parts, strength: f32) -> Result<(Delta, (usize, usize), f32)> {
        let file = &self.file;
        let (Some(down), Some(up)) = (&parts.down, &parts.up) else {
            bail!("{file}: '{module}' has one of lora_A and lora_B only")
        };
        let (down_shape, down) = self.tensors.values(down)?;
        let (up_shape, mut up) = self.tensors.values(up)?;
        ensure!(
            down_shape.len() >= 2 && up_shape.len() >= 2,
            "{file}: '{module}': its lora_A has shape {down_shape:?}, its lora_B {up_shape:?}"
        );
        let rank = down_shape[0];
        ensure!(
            rank > 0 && up_shape[1] == rank && up_shape[2..].iter().all(|size| *size == 1),
            "{file}: the ranks of lora_A and lora_B of '{module}' differ"
        );
        let scale = self.config.scale(module, rank)? * strength;
        let (inner, outer) = (down.len() / rank, up_shape[0]);
        if parts.of_embedding {
            // A is [rank][rows], B [columns][rank]: what is added is the transpose of B · A.
            let rows = (0..inner).flat_map(|row| (0..rank).map(move |part| (row, part)));
            let rows = rows.map(|(row, part)| down[part * inner + row] * scale).collect();
            let columns = (0..rank).flat_map(|part| (0..outer).map(move |column| (part, column)));
            let columns = columns.map(|(part, column)| up[column * rank + part]).collect();
            return Ok((Delta { down: columns, up: rows, rank }, (inner, outer), scale));
        }
        up.iter_mut().for_each(|value| *value *= scale);
        Ok((Delta { down, up, rank }, (outer, inner), scale))
    }

    /// Adds one module's part.
    fn add(&self, checkpoint: &mut Checkpoint, module: &str, parts: &Parts, strength: f32) -> Result<()> {
        let file = &self.file;
        let with_magnitude = self.config.is_on("use_dora")?;
        ensure!(
            with_magnitude || parts.magnitude.is_none(),
            "{file}: '{module}' has magnitudes, and 'use_dora' is off in {}",
            self.config.name
        );
        let (delta, sizes, scale) = self.delta(module, parts, strength)?;
        let target = canonical(&format!("{module}.weight"));
        let target = if target == HEAD { EMBEDDING.to_owned() } else { target };
        checkpoint.matrix(&target, sizes.0, sizes.1).with_context(|| file.clone())?;
        checkpoint.change(&target, Change::Product(delta));
        if with_magnitude {
            let name = parts.magnitude.as_ref();
            let name = name.with_context(|| format!("{file}: 'lora_magnitude_vector' of '{module}' is missing"))?;
            let magnitudes = self.tensors.values(name)?.1;
            let norms = checkpoint.norms(&target, !parts.of_embedding)?;
            ensure!(
                magnitudes.len() == norms.len(),
                "{file}: '{name}' has {} values in place of {}",
                magnitudes.len(),
                norms.len()
            );
            let factors = magnitudes.iter().zip(&norms).map(|(magnitude, norm)| (f64::from(*magnitude) / norm) as f32);
            let factors: Vec<f32> = factors.collect();
            ensure!(
                factors.iter().all(|factor| factor.is_finite()),
                "{file}: '{module}': a row of its weights is zero"
            );
            checkpoint.change(
                &target,
                if parts.of_embedding { Change::ScaledColumns(factors) } else { Change::ScaledRows(factors) },
            );
        }
        if let Some(name) = &parts.bias {
            let (shape, mut values) = self.tensors.values(name)?;
            let target = canonical(&format!("{module}.bias"));
            let fits = checkpoint.find(&target, &shape);
            fits.with_context(|| format!("{file}: '{name}' is to be added to the bias of '{module}'"))?;
            values.iter_mut().for_each(|value| *value *= scale);
            checkpoint.change(&target, Change::Values(values));
        }
        Ok(())
    }
}

/// Adds the adapter in `directory` to the checkpoint, its part multiplied by `strength`.
pub(crate) fn add(checkpoint: &mut Checkpoint, directory: &Path, strength: f32) -> Result<()> {
    let mut adapter = Adapter::read(directory)?;
    if let Some(name) = adapter.whole.values().chain(&adapter.tokens).next().filter(|_| strength != 1.0) {
        bail!("{}: '{name}' replaces a module, so the adapter can only be merged at its full strength", adapter.file);
    }
    let head_is_whole = adapter.whole.contains_key(HEAD);
    adapter.replace_whole(checkpoint)?;
    adapter.replace_tokens(checkpoint)?;
    let find =
        |target: &str| adapter.modules.iter().find(|(module, _)| canonical(&format!("{module}.weight")) == target);
    let (embedding, head) = (find(EMBEDDING), find(HEAD));
    let file = &adapter.file;
    // PEFT's merge adds to the tensor that both share, whichever was trained.
    let separated = || {
        log::warn!(
            "{file}: what it adds to the embedding or to the output head changes both, as in PEFT's merge: answers differ from those \
             in training"
        );
    };
    let mut once = None;
    match (embedding, head) {
        (Some(_), None) if head_is_whole => {
            bail!("{file}: it changes the embedding and replaces the output head, which separates the two")
        }
        (Some((one, parts)), Some((other, other_parts))) => {
            let is_same = parts.of_embedding && !other_parts.of_embedding && {
                let (delta, sizes, _) = adapter.delta(one, parts, strength)?;
                let (other, other_sizes, _) = adapter.delta(other, other_parts, strength)?;
                sizes == other_sizes && delta.is_same(&other)
            };
            if is_same {
                once = Some(other.clone());
            } else {
                separated();
            }
        }
        (Some(_), None) | (None, Some(_)) => separated(),
        (None, None) => {}
    }
    let has_either = embedding.is_some() || head.is_some();
    ensure!(
        !has_either || !adapter.config.is_on("ensure_weight_tying")?,
        "{}: 'ensure_weight_tying' for an adapter of the embedding or the output head is not supported: merge it with PEFT first",
        adapter.config.name
    );
    ensure!(
        head.is_none() || adapter.tokens.is_none(),
        "{file}: it replaces tokens and adapts the output head, which is not supported together: merge it with PEFT first"
    );
    // In the order of the model's modules, the head last: magnitudes depend on what was merged before.
    let is_head = |module: &str| canonical(&format!("{module}.weight")) == HEAD;
    let (last, first): (Vec<_>, Vec<_>) = adapter.modules.iter().partition(|(module, _)| is_head(module));
    let modules = first.into_iter().chain(last);
    for (module, parts) in modules.filter(|(module, _)| once.as_ref() != Some(*module)) {
        adapter.add(checkpoint, module, parts, strength)?;
    }
    Ok(())
}
