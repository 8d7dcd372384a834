//! An adapter's ranks and factors by patterns of module names, in PEFT's layout.

use anyhow::Result;
use fancy_regex::Regex;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;

/// A map in its file's order: of several patterns that fit, the first counts.
#[derive(Default)]
pub(crate) struct Ordered(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Ordered {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Ordered;

            fn expecting(&self, out: &mut std::fmt::Formatter) -> std::fmt::Result {
                out.write_str("a map from patterns to numbers")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Ordered, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Ordered(entries))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

#[derive(serde::Deserialize)]
pub(crate) struct PatternMaps {
    #[serde(default)]
    pub(crate) rank_pattern: Option<Ordered>,
    #[serde(default)]
    pub(crate) alpha_pattern: Option<Ordered>,
}

/// Numbers for the modules whose names a pattern fits.
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
        entries.unwrap_or_default().0.into_iter().map(compile).collect::<Result<_>>().map(Self)
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
