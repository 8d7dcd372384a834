//! A part of a JSON file, whose keys are asked for by name and kind.

use std::cell::RefCell;
use std::collections::BTreeSet;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Map, Value};

/// Keys that say nothing about what is computed.
pub(super) const OF_EVERY_CONFIG: [&str; 30] = [
    "architectures",
    "attn_implementation",
    "chunk_size_feed_forward",
    "cross_attention_hidden_size",
    "dtype",
    "id2label",
    "ignore_index",
    "initializer_range",
    "label2id",
    "name_or_path",
    "output_attentions",
    "output_hidden_states",
    "problem_type",
    "pruned_heads",
    "return_dict",
    "tf_legacy_loss",
    "torch_dtype",
    "torchscript",
    "transformers_version",
    "use_bfloat16",
    "use_cache",
    "attention_dropout",
    "finetuning_task",
    "task_specific_params",
    "tokenizer_class",
    "prefix",
    "auto_map",
    "is_decoder",
    "add_cross_attention",
    "tie_encoder_decoder",
];

/// A JSON object and where it came from. Keys that nobody asks for are found at the end.
pub(super) struct Section<'a> {
    map: &'a Map<String, Value>,
    pub(super) name: String,
    asked: RefCell<BTreeSet<String>>,
}

/// What a JSON value is, in words.
fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

impl<'a> Section<'a> {
    pub(super) fn new(value: &'a Value, name: String) -> Result<Self> {
        let map = value.as_object().with_context(|| format!("{name}: it is {}, no object", kind(value)))?;
        Ok(Self { map, name, asked: RefCell::default() })
    }

    /// A value as it is, if the key is there.
    pub(super) fn value(&self, key: &str) -> Option<&'a Value> {
        self.asked.borrow_mut().insert(key.to_owned());
        self.map.get(key)
    }

    /// As [`value`](Self::value); null counts as absent.
    pub(super) fn given(&self, key: &str) -> Option<&'a Value> {
        self.value(key).filter(|value| !value.is_null())
    }

    /// An error about a key's value.
    pub(super) fn wrong(&self, key: &str, value: &Value, wanted: &str) -> anyhow::Error {
        let shown = value.to_string();
        let shown = if shown.chars().count() > 60 {
            format!("{}…", shown.chars().take(60).collect::<String>())
        } else {
            shown
        };
        anyhow::anyhow!("{}: '{key}' is {shown}, {wanted}", self.name)
    }

    /// A whole number from 1 to 2²⁴; `default` where the key is absent or null.
    pub(super) fn size(&self, key: &str, default: Option<usize>) -> Result<usize> {
        match (self.given(key), default) {
            (None, Some(default)) => Ok(default),
            (None, None) => bail!("{}: '{key}' is missing", self.name),
            (Some(value), _) => {
                let size = whole(value).filter(|value| (1..=1 << 24).contains(value));
                size.map(|value| value as usize).ok_or_else(|| self.wrong(key, value, "no possible size"))
            }
        }
    }

    pub(super) fn float(&self, key: &str, default: f64) -> Result<f32> {
        self.given(key).map_or(Ok(default as f32), |value| self.as_float(key, value))
    }

    pub(super) fn as_float(&self, key: &str, value: &Value) -> Result<f32> {
        let number = value.as_f64().map(|value| value as f32).filter(|value| value.is_finite());
        number.ok_or_else(|| self.wrong(key, value, "no number"))
    }

    /// A softcap, which null turns off. Its sign makes no difference; zero is refused, since it would divide by zero.
    pub(super) fn cap(&self, key: &str, default: Option<f64>) -> Result<Option<f32>> {
        let cap = match self.value(key) {
            None => default.map(|default| default as f32),
            Some(Value::Null) => None,
            Some(value) => Some(self.as_float(key, value)?.abs()),
        };
        ensure!(cap != Some(0.0), "{}: '{key}' is 0, which divides by zero; null is no cap", self.name);
        Ok(cap)
    }

    /// A switch: `default` where the key is absent, off where it is null, as in Python.
    pub(super) fn switch(&self, key: &str, default: bool) -> Result<bool> {
        match self.value(key) {
            None => Ok(default),
            Some(Value::Null) => Ok(false),
            Some(Value::Bool(value)) => Ok(*value),
            Some(value) => Err(self.wrong(key, value, "neither true nor false")),
        }
    }

    /// Keys that must have a value that changes nothing, or be absent.
    pub(super) fn neutral(&self, keys: &[&str]) -> Result<()> {
        for key in keys {
            let Some(value) = self.value(key) else { continue };
            let is_neutral = match value {
                Value::Null | Value::Bool(false) => true,
                Value::Array(list) => list.is_empty(),
                Value::Object(map) => map.is_empty(),
                _ => false,
            };
            if !is_neutral {
                return Err(self.wrong(key, value, "which changes what is computed and is not supported"));
            }
        }
        Ok(())
    }

    /// Keys that change nothing here, whatever they say.
    pub(super) fn irrelevant(&self, keys: &[&str]) {
        self.asked.borrow_mut().extend(keys.iter().map(|key| (*key).to_owned()));
    }

    /// An object within this one; none where it is absent or null.
    pub(super) fn optional_section(&self, key: &str) -> Result<Option<Section<'a>>> {
        let section = |value| Section::new(value, format!("{} ({key})", self.name));
        self.given(key).map(section).transpose()
    }

    pub(super) fn section(&self, key: &str) -> Result<Section<'a>> {
        self.optional_section(key)?.with_context(|| format!("{}: '{key}' is missing", self.name))
    }

    /// Names the keys that nobody has asked for: they may mean something to a newer transformers.
    pub(super) fn warn_of_others(&self) {
        let asked = self.asked.borrow();
        let is_private = |key: &str| key.starts_with('_');
        let others: Vec<&str> =
            self.map.keys().map(String::as_str).filter(|key| !asked.contains(*key) && !is_private(key)).collect();
        if !others.is_empty() {
            let (keys, are) = if others.len() == 1 { ("key", "is") } else { ("keys", "are") };
            log::warn!("{}: unknown {keys} {} {are} not looked at", self.name, others.join(", "));
        }
    }
}

/// A whole number, which Python writes with a point at times.
pub(super) fn whole(value: &Value) -> Option<u64> {
    const LARGEST: f64 = 9e15;
    let of_float = |value: f64| (value.fract() == 0.0 && (0.0..LARGEST).contains(&value)).then_some(value as u64);
    value.as_u64().or_else(|| value.as_f64().and_then(of_float))
}

/// A token's id as Python converts it: a fraction is cut off.
pub(super) fn token(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| value.as_f64().filter(|value| value.abs() < 1e9).map(|value| value as i64))
}

/// Checks that a key names GELU's tanh form (all of these names mean the same), or is one of `others`.
pub(super) fn check_activation(section: &Section<'_>, key: &str, others: &[&str]) -> Result<()> {
    const TANH: [&str; 5] = ["gelu_pytorch_tanh", "gelu_new", "gelu_fast", "gelu_python_tanh", "gelu_accurate"];
    let Some(value) = section.value(key) else { return Ok(()) };
    let name = value.as_str().unwrap_or_default();
    if TANH.contains(&name) || others.contains(&name) {
        return Ok(());
    }
    Err(section.wrong(key, value, "only gelu_pytorch_tanh is supported"))
}
