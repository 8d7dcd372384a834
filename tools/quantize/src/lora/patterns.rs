//! An adapter's ranks and factors by patterns of module names, in PEFT's layout.

use anyhow::Result;
use fancy_regex::Regex;
use serde_json::Value;

use crate::json::Ordered;

#[derive(serde::Deserialize)]
pub(crate) struct PatternMaps {
    #[serde(default)]
    pub(crate) rank_pattern: Option<Ordered>,
    #[serde(default)]
    pub(crate) alpha_pattern: Option<Ordered>,
}

/// Numbers for the modules whose names a pattern fits; of several patterns, the file's first counts.
pub(crate) struct Patterns(Vec<(Regex, Value)>);

impl Patterns {
    /// PEFT takes a pattern as a regular expression for the end of a name, from a dot on.
    pub(crate) fn new(entries: Option<Ordered>, key: &str, name: &str) -> Result<Self> {
        let compile = |(pattern, value): (String, Value)| {
            let regex = Regex::new(&format!(r"\A(?:.*\.)?(?:{pattern})\z"));
            let regex = regex.map_err(|error| {
                anyhow::anyhow!("{name}: '{key}': '{pattern}' is no regular expression that can be used: {error}")
            })?;
            Ok((regex, value))
        };
        entries.unwrap_or_default().into_iter().map(compile).collect::<Result<_>>().map(Self)
    }

    pub(crate) fn of(&self, module: &str) -> Result<Option<&Value>> {
        for (regex, value) in &self.0 {
            if regex.is_match(module)? {
                return Ok(Some(value));
            }
        }
        Ok(None)
    }
}
