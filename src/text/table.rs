//! A tokenizer from the token table that llama.cpp's tools write, for files without Hugging Face's own.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

/// llama.cpp's kinds of tokens.
pub mod kind {
    /// Part of a text.
    pub const NORMAL: i32 = 1;
    /// What stands for text that no token covers.
    pub const UNKNOWN: i32 = 2;
    /// Never part of a text; matched as a whole where it is asked for.
    pub const CONTROL: i32 = 3;
    /// Matched as a whole before the text is parted.
    pub const USER_DEFINED: i32 = 4;
    /// A row that no text becomes.
    pub const UNUSED: i32 = 5;
    /// One byte.
    pub const BYTE: i32 = 6;
}

/// Longest token that is parted, in bytes: Gemma's longest has 93.
const LONGEST_TOKEN: usize = 1 << 10;

/// Most bytes of all merges: Gemma's have some 10 million.
const LARGEST_MERGES: usize = 1 << 26;

/// `tokenizer.json` for a table of SentencePiece's BPE: texts, scores and kinds of tokens, as Gemma's vocabulary has them
/// (byte fallback, no space before the text).
///
/// # Errors
/// Where tokens are so long, or can be parted in so many ways, that no text is what they were made of.
pub fn tokenizer_json(tokens: &[&str], scores: &[f32], kinds: &[i32], unknown: Option<usize>) -> Result<Value, String> {
    let used = |id: &usize| kinds[*id] != kind::UNUSED;
    let whole = |id: &usize| [kind::CONTROL, kind::USER_DEFINED].contains(&kinds[*id]);
    let ids = || (0..tokens.len()).filter(used);
    let vocabulary: Map<String, Value> = ids().map(|id| (tokens[id].to_owned(), json!(id))).collect();
    let added = ids().filter(whole).map(|id| {
        json!({
            "id": id, "content": tokens[id], "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
            "special": kinds[id] == kind::CONTROL,
        })
    });
    let added: Vec<Value> = added.collect();
    Ok(json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added,
        "normalizer": { "type": "Replace", "pattern": { "String": " " }, "content": "▁" },
        "pre_tokenizer": null, "post_processor": null,
        "decoder": { "type": "Sequence", "decoders": [
            { "type": "Replace", "pattern": { "String": "▁" }, "content": " " }, { "type": "ByteFallback" }, { "type": "Fuse" },
        ] },
        "model": {
            "type": "BPE", "dropout": null, "unk_token": unknown.map(|id| tokens[id]), "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true, "ignore_merges": false,
            "vocab": vocabulary, "merges": merges(tokens, scores, ids().filter(|id| kinds[*id] != kind::CONTROL))?,
        },
    }))
}

/// SentencePiece joins the neighbours whose whole has the highest score: every way to part a token is a merge, and their order
/// is that of the scores. Runs of spaces are matched as wholes only where a text has them as marks, so they are merged too.
fn merges(tokens: &[&str], scores: &[f32], ids: impl Iterator<Item = usize>) -> Result<Vec<Value>, String> {
    let ids: Vec<usize> = ids.collect();
    let known: HashMap<&str, usize> = ids.iter().map(|id| (tokens[*id], *id)).collect();
    let (mut merges, mut bytes) = (Vec::new(), 0);
    for &id in &ids {
        let token = tokens[id];
        if token.len() > LONGEST_TOKEN {
            return Err(format!("token {id} has {} bytes, more than {LONGEST_TOKEN}", token.len()));
        }
        for (at, _) in token.char_indices().skip(1) {
            let (start, end) = token.split_at(at);
            if let (Some(first), Some(second)) = (known.get(start), known.get(end)) {
                merges.push((id, *first, *second));
                bytes += token.len();
                if bytes > LARGEST_MERGES {
                    return Err(format!("its tokens can be parted in more ways than {LARGEST_MERGES} bytes hold"));
                }
            }
        }
    }
    merges.sort_by(|a, b| scores[b.0].total_cmp(&scores[a.0]).then(a.cmp(b)));
    Ok(merges.into_iter().map(|(_, first, second)| json!([tokens[first], tokens[second]])).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A table whose tokens are runs of one letter, up to so many.
    fn runs(longest: usize) -> Result<Value, String> {
        let tokens: Vec<String> = (1..=longest).map(|len| "a".repeat(len)).collect();
        let tokens: Vec<&str> = tokens.iter().map(String::as_str).collect();
        tokenizer_json(&tokens, &vec![0.0; longest], &vec![kind::NORMAL; longest], None)
    }

    #[test]
    fn hostile_tables_are_refused_before_they_fill_the_memory() {
        let sound = runs(100).unwrap();
        assert_eq!(sound["model"]["merges"].as_array().unwrap().len(), 100 * 99 / 2);
        let long = "a".repeat(1025);
        let error = tokenizer_json(&["a", &long], &[0.0; 2], &[kind::NORMAL; 2], None).unwrap_err();
        assert!(error.contains("token 1 has 1025 bytes"), "{error}");
        assert!(runs(1000).unwrap_err().contains("ways"));
    }
}
