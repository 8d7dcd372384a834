//! `adapter_config.json`: what counts, what is refused, what changes nothing.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::patterns::{PatternMaps, Patterns};
use crate::json;

/// Keys of `adapter_config.json` that change what is computed in ways that are not supported, and whether an empty value turns
/// them on, too.
const UNSUPPORTED: [(&str, bool); 8] = [
    ("use_qalora", false),
    ("use_bdlora", true),
    ("arrow_config", true),
    ("kasa_config", true),
    ("megatron_config", true),
    ("layer_replication", false),
    ("target_parameters", false),
    ("alora_invocation_tokens", false),
];

/// Keys that are looked at elsewhere, or that change nothing in an adapter that is trained.
const KNOWN: [&str; 38] = [
    "alpha_pattern",
    "auto_mapping",
    "base_model_name_or_path",
    "bias",
    "corda_config",
    "ensure_weight_tying",
    "eva_config",
    "exclude_modules",
    "fan_in_fan_out",
    "inference_mode",
    "init_lora_weights",
    "layers_pattern",
    "layers_to_transform",
    "loftq_config",
    "lora_alpha",
    "lora_bias",
    "lora_dropout",
    "lora_ga_config",
    "megatron_core",
    "modules_to_save",
    "monteclora_config",
    "peft_type",
    "peft_version",
    "qalora_group_size",
    "r",
    "rank_pattern",
    "revision",
    "runtime_config",
    "target_modules",
    "task_type",
    "trainable_token_indices",
    "use_dora",
    "use_rslora",
    "velora_config",
    "bdlora_config",
    "enable_lora",
    "merge_weights",
    "_commit_hash",
];

/// Initializations that leave the base weights as they are. Others change the weights that the adapter is added to.
const NEUTRAL_BEGINNINGS: [&str; 4] = ["gaussian", "eva", "orthogonal", "mica"];

/// What PEFT takes where 'r' or 'lora_alpha' is absent.
const DEFAULT_RANK: f64 = 8.0;

/// `adapter_config.json`.
pub(crate) struct Config {
    pub(crate) json: Value,
    pub(crate) name: String,
    pub(super) ranks: Patterns,
    pub(super) alphas: Patterns,
}

impl Config {
    pub(super) fn read(directory: &Path) -> Result<Self> {
        let path = directory.join("adapter_config.json");
        let name = path.display().to_string();
        let json = json::read(&path)?;
        ensure!(json.is_object(), "{name}: it is no JSON object");
        if json.get("peft_type").is_none()
            && (json.get("fine_tune_type").is_some() || json.get("lora_parameters").is_some())
        {
            bail!("{name}: it is an adapter of MLX, which is not read: fuse it with `mlx_lm.fuse`, or train with PEFT");
        }
        let kind = json["peft_type"].as_str().unwrap_or("unknown");
        ensure!(kind == "LORA", "{name}: adapters of type '{kind}' are not supported, only LORA");
        for (key, when_empty) in UNSUPPORTED {
            let value = &json[key];
            let empty = match value {
                Value::Array(list) => list.is_empty() && !when_empty,
                Value::Object(map) => map.is_empty() && !when_empty,
                value => value.is_null() || *value == false,
            };
            ensure!(empty, "{name}: '{key}' is {value}, which is not supported");
        }
        let start = &json["init_lora_weights"];
        let neutral = start.is_null() || start.is_boolean() || NEUTRAL_BEGINNINGS.iter().any(|way| start == way);
        ensure!(
            neutral,
            "{name}: 'init_lora_weights' is {start}, which changes the base weights; convert the adapter first"
        );
        let bias = &json["bias"];
        let is_known = bias.is_null() || ["none", "all", "lora_only"].iter().any(|way| bias == way);
        ensure!(is_known, "{name}: 'bias' is {bias}; PEFT knows none, all and lora_only");
        let is_unknown =
            |key: &&str| !KNOWN.contains(key) && UNSUPPORTED.iter().all(|(unsupported, _)| unsupported != key);
        let keys = json.as_object().into_iter().flat_map(|map| map.keys().map(String::as_str));
        let unknown: Vec<&str> = keys.filter(is_unknown).collect();
        if !unknown.is_empty() {
            log::warn!("{name}: unknown keys, which are not looked at: {}", unknown.join(", "));
        }
        let maps: PatternMaps = json::read_as(&path)?;
        let ranks = Patterns::new(maps.rank_pattern, "rank_pattern", &name)?;
        let alphas = Patterns::new(maps.alpha_pattern, "alpha_pattern", &name)?;
        Ok(Self { json, name, ranks, alphas })
    }

    pub(super) fn is_on(&self, key: &str) -> Result<bool> {
        match &self.json[key] {
            Value::Null => Ok(false),
            Value::Bool(value) => Ok(*value),
            value => bail!("{}: '{key}' is {value} in place of true or false", self.name),
        }
    }

    /// A number for a module: of the first pattern that fits, or of the key.
    pub(super) fn number(&self, patterns: &Patterns, key: &str, module: &str) -> Result<f64> {
        let value = patterns.of(module)?.or_else(|| self.json.get(key));
        let Some(value) = value else { return Ok(DEFAULT_RANK) };
        value.as_f64().with_context(|| format!("{}: '{key}' for '{module}' is {value}, no number", self.name))
    }

    /// The factor on B · A for a module and the rank that it has.
    pub(super) fn scale(&self, module: &str, rank: usize) -> Result<f32> {
        let expected = self.number(&self.ranks, "r", module)?;
        ensure!(
            expected == rank as f64,
            "{}: the rank for '{module}' is {expected}, its matrices have {rank}",
            self.name
        );
        let alpha = self.number(&self.alphas, "lora_alpha", module)?;
        // Rank-stabilized adapters (rsLoRA) divide by the square root.
        let divisor = if self.is_on("use_rslora")? { (rank as f64).sqrt() } else { rank as f64 };
        Ok((alpha / divisor) as f32)
    }

    pub(super) fn lists(&self, key: &str, module: &str) -> bool {
        let list = self.json[key].as_array().map(Vec::as_slice).unwrap_or_default();
        list.iter().filter_map(Value::as_str).any(|name| module.ends_with(name))
    }

    /// Rows of the embedding that the adapter replaces, in the order of its tensor. They are listed, or listed by module.
    pub(super) fn tokens(&self) -> Result<Option<Vec<usize>>> {
        let key = "trainable_token_indices";
        let value = &self.json[key];
        let lists: Vec<(&str, &Value)> = match value {
            Value::Null => return Ok(None),
            Value::Object(map) => map.iter().map(|(module, list)| (module.as_str(), list)).collect(),
            list => vec![("embed_tokens", list)],
        };
        for (module, list) in &lists {
            ensure!(
                module.ends_with("embed_tokens") || module.ends_with("lm_head"),
                "{}: '{key}' of '{module}' is not supported, only of the embedding",
                self.name
            );
            ensure!(
                *list == lists[0].1,
                "{}: '{key}' of the embedding and the output head differ, which separates the two",
                self.name
            );
        }
        ensure!(
            lists.iter().any(|(module, _)| module.ends_with("embed_tokens")),
            "{}: '{key}' of the output head alone separates it from the embedding",
            self.name
        );
        let rows: Option<Vec<usize>> = lists[0]
            .1
            .as_array()
            .and_then(|list| list.iter().map(|row| row.as_u64().map(|row| row as usize)).collect());
        let rows = rows.with_context(|| format!("{}: '{key}' is {value}, no list of tokens", self.name))?;
        let mut sorted = rows.clone();
        sorted.sort_unstable();
        if let Some(pair) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
            bail!("{}: '{key}' has the token {} twice", self.name, pair[0]);
        }
        Ok(Some(rows))
    }
}
