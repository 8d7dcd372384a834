//! Which modules an adapter's configuration names. (peft 0.21, `check_target_module_exists`.)

use anyhow::{Context, Result, bail, ensure};
use fancy_regex::Regex;
use serde_json::Value;

use super::settings::Config;

/// Modules by their names: whole ones that a regular expression fits, or names and ends of names.
enum Names {
    All,
    Pattern(Regex),
    Ends(Vec<String>),
}

impl Names {
    fn new(config: &Config, key: &str) -> Result<Option<Self>> {
        Ok(Some(match &config.json[key] {
            Value::Null => return Ok(None),
            Value::String(word) if word.eq_ignore_ascii_case("all-linear") => Self::All,
            Value::String(pattern) => Self::Pattern(regex(config, key, &format!(r"\A(?:{pattern})\z"))?),
            value => Self::Ends(texts(value).with_context(|| wrong(config, key, "a text or a list of texts"))?),
        }))
    }

    fn have(&self, module: &str) -> Result<bool> {
        Ok(match self {
            Self::All => true,
            Self::Pattern(regex) => regex.is_match(module)?,
            Self::Ends(ends) => ends.iter().any(|end| {
                module.strip_suffix(end.as_str()).is_some_and(|before| before.is_empty() || before.ends_with('.'))
            }),
        })
    }
}

/// The modules that an adapter changes.
pub(crate) struct Targets {
    /// None where the configuration leaves them to PEFT's table of models.
    names: Option<Names>,
    excluded: Option<Names>,
    layers: Option<Layers>,
}

/// The only layers that are changed.
struct Layers {
    numbers: Vec<u64>,
    /// Each finds a layer's number in a module's name.
    patterns: Vec<Regex>,
}

fn regex(config: &Config, key: &str, pattern: &str) -> Result<Regex> {
    Regex::new(pattern)
        .map_err(|error| anyhow::anyhow!("{}: '{key}' is no regular expression that can be used: {error}", config.name))
}

fn wrong(config: &Config, key: &str, wanted: &str) -> String {
    format!("{}: '{key}' is {}, not {wanted}", config.name, config.json[key])
}

fn texts(value: &Value) -> Option<Vec<String>> {
    value.as_array()?.iter().map(|text| text.as_str().map(str::to_owned)).collect()
}

impl Layers {
    fn new(config: &Config) -> Result<Option<Self>> {
        let (key, pattern_key) = ("layers_to_transform", "layers_pattern");
        let numbers = match &config.json[key] {
            Value::Null => Vec::new(),
            Value::Array(list) => list.iter().map(Value::as_u64).collect::<Option<_>>().unwrap_or_default(),
            value => value.as_u64().into_iter().collect(),
        };
        let is_empty = |value: &Value| value.is_null() || value.as_array().is_some_and(Vec::is_empty) || value == "";
        let (layers, pattern) = (&config.json[key], &config.json[pattern_key]);
        if is_empty(layers) {
            ensure!(is_empty(pattern), "{}: '{pattern_key}' needs '{key}'", config.name);
            return Ok(None);
        }
        ensure!(!numbers.is_empty(), "{}", wrong(config, key, "a number or a list of numbers"));
        if config.json["target_modules"].is_string() {
            bail!("{}: '{key}' needs a list as 'target_modules'", config.name);
        }
        let patterns = match pattern {
            pattern if is_empty(pattern) => vec!["[^.]*".to_owned()],
            Value::String(pattern) => vec![pattern.clone()],
            list => texts(list).with_context(|| wrong(config, pattern_key, "a text or a list of texts"))?,
        };
        let patterns = patterns.iter().map(|one| regex(config, pattern_key, &format!(r"\A.*\.(?:{one})\.([0-9]+)\.")));
        Ok(Some(Self { numbers, patterns: patterns.collect::<Result<_>>()? }))
    }

    fn have(&self, module: &str) -> Result<bool> {
        for pattern in &self.patterns {
            if let Some(found) = pattern.captures(module)? {
                let number = found.iter().last().flatten().and_then(|number| number.as_str().parse().ok());
                return Ok(number.is_some_and(|number| self.numbers.contains(&number)));
            }
        }
        Ok(false)
    }
}

impl Targets {
    pub(crate) fn new(config: &Config) -> Result<Self> {
        Ok(Self {
            names: Names::new(config, "target_modules")?,
            excluded: Names::new(config, "exclude_modules")?,
            layers: Layers::new(config)?,
        })
    }

    pub(crate) fn have(&self, module: &str) -> Result<bool> {
        let is_excluded = self.excluded.as_ref().map_or(Ok(false), |names| names.have(module))?;
        let is_named = self.names.as_ref().map_or(Ok(true), |names| names.have(module))?;
        let in_layer = self.layers.as_ref().map_or(Ok(true), |layers| layers.have(module))?;
        Ok(!is_excluded && is_named && in_layer)
    }
}
