//! LoRA adapters in PEFT's layout, merged while weights are read: W + scale · B · A.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::checkpoint::{Checkpoint, canonical};

/// A product of low rank that is added to a matrix.
#[derive(Debug)]
pub(crate) struct Delta {
    /// `[rank][columns]`.
    pub(crate) down: Vec<f32>,
    /// `[rows][rank]`, with the scale.
    pub(crate) up: Vec<f32>,
    pub(crate) rank: usize,
}

impl Delta {
    /// Adds the part that belongs to `values`, which begin with value `start` of the matrix.
    pub(crate) fn add_to(&self, values: &mut [f32], start: usize) {
        let columns = self.down.len() / self.rank;
        let mut at = start;
        let mut rest = values;
        while !rest.is_empty() {
            let (row, column) = (at / columns, at % columns);
            let (part, after) = rest.split_at_mut((columns - column).min(rest.len()));
            for (factor, down) in self.up[row * self.rank..][..self.rank].iter().zip(self.down.chunks_exact(columns)) {
                for (value, down) in part.iter_mut().zip(&down[column..]) {
                    *value += factor * down;
                }
            }
            at += part.len();
            rest = after;
        }
    }
}

/// Keys of `adapter_config.json` that change what is computed, and the values at which they change nothing.
const NEUTRAL: [(&str, &[Value]); 9] = [
    ("fan_in_fan_out", &[Value::Null, Value::Bool(false)]),
    ("use_dora", &[Value::Null, Value::Bool(false)]),
    ("use_qalora", &[Value::Null, Value::Bool(false)]),
    ("use_bdlora", &[Value::Null, Value::Bool(false)]),
    ("megatron_config", &[Value::Null]),
    ("layer_replication", &[Value::Null]),
    ("trainable_token_indices", &[Value::Null]),
    ("target_parameters", &[Value::Null]),
    ("alora_invocation_tokens", &[Value::Null]),
];

/// `adapter_config.json`.
struct Config {
    json: Value,
    name: String,
}

impl Config {
    fn read(directory: &Path) -> Result<Self> {
        let path = directory.join("adapter_config.json");
        let name = path.display().to_string();
        let text = std::fs::read_to_string(&path).with_context(|| name.clone())?;
        let json: Value = serde_json::from_str(&text).with_context(|| format!("{name}: not JSON"))?;
        let kind = json["peft_type"].as_str().unwrap_or("unknown");
        ensure!(kind == "LORA", "{name}: adapters of type '{kind}' are not supported, only LORA");
        for (key, values) in NEUTRAL {
            let value = &json[key];
            let empty = value.as_array().is_some_and(Vec::is_empty);
            ensure!(values.contains(value) || empty, "{name}: '{key}' is {value}, which is not supported");
        }
        // Other ways to begin change the weights that the adapter is added to.
        let start = &json["init_lora_weights"];
        let neutral =
            start.is_null() || start.is_boolean() || ["gaussian", "eva", "orthogonal"].iter().any(|way| start == way);
        ensure!(
            neutral,
            "{name}: 'init_lora_weights' is {start}, which changes the base weights; convert the adapter first"
        );
        Ok(Self { json, name })
    }

    /// The factor on B · A for a module and the rank that it has.
    fn scale(&self, module: &str, rank: usize) -> Result<f32> {
        let expected = self.for_module("rank_pattern", module)?.unwrap_or(&self.json["r"]);
        ensure!(
            expected.as_u64() == Some(rank as u64),
            "{}: the rank for '{module}' is {expected}, its matrices have {rank}",
            self.name
        );
        let alpha = self.for_module("alpha_pattern", module)?.unwrap_or(&self.json["lora_alpha"]);
        let alpha = alpha.as_f64().with_context(|| format!("{}: 'lora_alpha' is no number", self.name))?;
        // Rank-stabilized adapters (rsLoRA) divide by the square root.
        let divisor = if self.json["use_rslora"] == true { (rank as f64).sqrt() } else { rank as f64 };
        Ok((alpha / divisor) as f32)
    }

    /// The value of a pattern that fits a module. PEFT takes patterns as regular expressions that match at the end of a name,
    /// from a dot on; of those only plain names are understood here.
    fn for_module(&self, key: &str, module: &str) -> Result<Option<&Value>> {
        let Some(patterns) = self.json[key].as_object() else { return Ok(None) };
        for (pattern, value) in patterns {
            let plain = pattern.chars().all(|char| char.is_ascii_alphanumeric() || "_.".contains(char));
            ensure!(plain, "{}: '{key}' has the pattern '{pattern}'; only names are supported", self.name);
            let before = module.strip_suffix(pattern.as_str());
            if before.is_some_and(|before| before.is_empty() || before.ends_with('.')) {
                return Ok(Some(value));
            }
        }
        Ok(None)
    }
}

/// Adds the adapter in `directory` to the checkpoint, its part multiplied by `strength`.
pub(crate) fn add(checkpoint: &mut Checkpoint, directory: &Path, strength: f32) -> Result<()> {
    let config = Config::read(directory)?;
    let path = directory.join("adapter_model.safetensors");
    let adapter = Checkpoint::open_file(&path)?;
    let file = path.display().to_string();
    let mut pairs: BTreeMap<String, [Option<String>; 2]> = BTreeMap::new();
    let mut names: Vec<&str> = adapter.names().collect();
    names.sort_unstable();
    for name in names {
        let module = name.strip_prefix("base_model.model.").unwrap_or(name);
        // A saved adapter has no name in its keys, one taken from a model in use has.
        let part = [".lora_A.weight", ".lora_B.weight", ".lora_A.default.weight", ".lora_B.default.weight"]
            .iter()
            .enumerate()
            .find_map(|(index, ending)| module.strip_suffix(ending).map(|module| (module, index % 2)));
        if let Some((module, side)) = part {
            pairs.entry(module.to_owned()).or_default()[side] = Some(name.to_owned());
        } else if module.contains("lora_") {
            bail!("{file}: '{name}' is no part of an adapter that is supported (lora_A and lora_B of matrices are)");
        } else if strength == 1.0 {
            // A module that was trained whole (modules_to_save, bias).
            let target = canonical(&module.replace(".base_layer.", "."));
            checkpoint.replace(&target, &adapter, name).with_context(|| format!("{file}: '{name}'"))?;
        } else {
            bail!("{file}: '{name}' replaces a module, so the adapter can only be merged at its full strength");
        }
    }
    ensure!(!pairs.is_empty(), "{file}: it holds no lora_A and lora_B");
    for (module, sides) in pairs {
        let [Some(down), Some(up)] = sides else { bail!("{file}: '{module}' has one of lora_A and lora_B only") };
        let (down_shape, down) = adapter.values(&down)?;
        let (up_shape, mut up) = adapter.values(&up)?;
        let rank = down_shape[0];
        ensure!(
            rank > 0 && up_shape[1] == rank && up_shape[2..].iter().all(|size| *size == 1),
            "{file}: the ranks of lora_A and lora_B of '{module}' differ"
        );
        let scale = config.scale(&module, rank)? * strength;
        up.iter_mut().for_each(|value| *value *= scale);
        let target = canonical(&format!("{module}.weight"));
        let sizes = (up_shape[0], down.len() / rank);
        checkpoint.add_delta(&target, sizes, Arc::new(Delta { down, up, rank })).with_context(|| file.clone())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::Delta;

    #[test]
    fn a_delta_is_added_from_any_place_on() {
        let delta =
            Delta { down: vec![1.0, 2.0, 3.0, 10.0, 20.0, 30.0], up: vec![1.0, 0.0, 0.0, 1.0, 1.0, 1.0], rank: 2 };
        let whole = [1.0, 2.0, 3.0, 10.0, 20.0, 30.0, 11.0, 22.0, 33.0];
        for start in 0..9 {
            for end in start..=9 {
                let mut values = vec![100.0; end - start];
                delta.add_to(&mut values, start);
                assert!(values.iter().zip(&whole[start..]).all(|(value, added)| *value == 100.0 + added));
            }
        }
    }
}
