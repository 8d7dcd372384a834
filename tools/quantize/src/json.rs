//! JSON files as Python's tools write and read them.

use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result};
use gemmule_common::platform::open_regular;
use serde_json::Value;

/// A file's text, without the mark that some editors put before it.
pub(crate) fn read_text(path: &Path) -> Result<String> {
    let mut bytes = Vec::new();
    open_regular(path).and_then(|mut file| file.read_to_end(&mut bytes)).with_context(|| path.display().to_string())?;
    anyhow::ensure!(
        !bytes.starts_with(&[0xff, 0xfe]) && !bytes.starts_with(&[0xfe, 0xff]),
        "{}: it is UTF-16; save it as UTF-8, as `iconv -f utf-16 -t utf-8` does",
        path.display()
    );
    let text = String::from_utf8(bytes).ok().with_context(|| format!("{}: it is not UTF-8", path.display()))?;
    anyhow::ensure!(
        !text.starts_with("version https://git-lfs"),
        "{}: it is a pointer of Git LFS, not the file: fetch that with `git lfs pull`",
        path.display()
    );
    Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
}

/// A file's value.
pub(crate) fn read(path: &Path) -> Result<Value> {
    serde_json::from_str(&plain(&read_text(path)?)).with_context(|| format!("{}: not JSON", path.display()))
}

/// A file's value as a type that keeps what [`Value`] does not, such as the order of keys.
pub(crate) fn read_as<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T> {
    serde_json::from_str(&plain(&read_text(path)?)).with_context(|| path.display().to_string())
}

/// As [`read`]; none where the file is absent.
pub(crate) fn read_optional(path: &Path) -> Result<Option<Value>> {
    if path.exists() { read(path).map(Some) } else { Ok(None) }
}

/// An object in its file's order. A key that comes again changes the value and keeps its place, as in Python.
pub(crate) type Ordered = indexmap::IndexMap<String, Value>;

/// Turns Python's `NaN` and `Infinity`, which are not JSON, into strings, which are refused where a number is wanted.
fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(['"', 'N', 'I', '-']) {
        let (before, found) = rest.split_at(at);
        out += before;
        let len = if found.starts_with('"') {
            string_len(found)
        } else if let Some(word) = ["NaN", "Infinity", "-Infinity"].into_iter().find(|word| found.starts_with(word)) {
            out += "\"";
            out += word;
            out += "\"";
            rest = &found[word.len()..];
            continue;
        } else {
            1
        };
        out += &found[..len];
        rest = &found[len..];
    }
    out + rest
}

/// Bytes of the string that a text begins with, quotes included.
fn string_len(text: &str) -> usize {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::plain;

    #[test]
    fn pythons_numbers_become_their_names() {
        for (text, expected) in [
            (r#"{"a": NaN, "b": [-Infinity, Infinity, -1]}"#, r#"{"a": "NaN", "b": ["-Infinity", "Infinity", -1]}"#),
            (r#"{"NaN": "a NaN \" Infinity"}"#, r#"{"NaN": "a NaN \" Infinity"}"#),
            (r#""open NaN"#, r#""open NaN"#),
            ("Nothing", "Nothing"),
            ("", ""),
        ] {
            assert_eq!(plain(text), expected);
        }
    }
}
