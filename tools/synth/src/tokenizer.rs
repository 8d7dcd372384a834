//! A tokenizer of the real vocabulary's size and layout; its pieces are made up.

use serde_json::{Map, Value, json};

/// Rows before the location tokens.
const BASE: usize = 256_000;
/// The newline's id in the real vocabulary.
const NEWLINE: usize = 108;
const ALPHABET: &str = "▁abcdefghijklmnopqrstuvwxyz";

/// `tokenizer.json` for an embedding of `rows` rows.
pub(crate) fn json(rows: usize) -> Value {
    let special = ["<pad>", "<eos>", "<bos>", "<unk>"];
    let mut names: Vec<String> = special.iter().map(|name| (*name).to_owned()).collect();
    names.extend((0..NEWLINE - special.len()).map(|index| format!("<unused{index}>")));
    names.push("\n".to_owned());
    names.extend((0..=255).map(|byte| format!("<0x{byte:02X}>")));
    let mut merges = Vec::new();
    let mut level: Vec<String> = ALPHABET.chars().map(String::from).collect();
    names.extend(('!'..='~').filter(|c| !c.is_ascii_lowercase()).map(String::from));
    names.extend(level.iter().cloned());
    // All strings of two characters, of three, and so on: each is the merge of any of its beginnings and what is left, as in
    // the real vocabulary, which has as many merges.
    'full: loop {
        let mut next = Vec::with_capacity(level.len() * 27);
        for prefix in &level {
            for last in ALPHABET.chars() {
                if names.len() == BASE {
                    break 'full;
                }
                let name = format!("{prefix}{last}");
                merges.extend(name.char_indices().skip(1).map(|(at, _)| json!([&name[..at], &name[at..]])));
                names.push(name.clone());
                next.push(name);
            }
        }
        level = next;
    }
    names.extend((0..1024).map(|n| format!("<loc{n:04}>")));
    names.extend((0..128).map(|n| format!("<seg{n:03}>")));
    names.push("<image>".to_owned());
    names.truncate(rows);
    let is_special = |id: usize| id < special.len() || names[id] == "<image>";
    let added: Vec<Value> = (0..=NEWLINE)
        .chain(BASE..names.len())
        .map(|id| {
            json!({ "id": id, "content": names[id], "single_word": false, "lstrip": false, "rstrip": false,
                    "normalized": false, "special": is_special(id) })
        })
        .collect();
    let vocabulary: Map<String, Value> = names.iter().enumerate().map(|(id, name)| (name.clone(), json!(id))).collect();
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added,
        "normalizer": { "type": "Replace", "pattern": { "String": " " }, "content": "▁" },
        "pre_tokenizer": { "type": "Split", "pattern": { "String": " " }, "behavior": "MergedWithPrevious", "invert": false },
        "post_processor": null,
        "decoder": { "type": "Sequence", "decoders": [
            { "type": "Replace", "pattern": { "String": "▁" }, "content": " " }, { "type": "ByteFallback" }, { "type": "Fuse" }
        ] },
        "model": { "type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null,
                   "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true, "ignore_merges": false,
                   "vocab": vocabulary, "merges": merges },
    })
}

#[cfg(test)]
mod tests {
    use gemmule::config::SpecialTokens;
    use gemmule::text::Tokenizer;

    #[test]
    fn special_rows_lie_where_the_real_vocabulary_has_them() {
        let special = SpecialTokens { image: crate::sizes::IMAGE_TOKEN, bos: 2, eos: vec![1], pad: 0 };
        let tokenizer = Tokenizer::from_json(&super::json(257_216).to_string(), &special).unwrap();
        assert_eq!(tokenizer.used_vocabulary(), 257_153);
        assert_eq!(
            tokenizer.encode("<loc0000><loc1023><seg000><seg127>").unwrap(),
            [256_000, 257_023, 257_024, 257_151]
        );
        let prefix = tokenizer.prefix(1, 2, "caption en").unwrap();
        assert_eq!((&prefix[..3], prefix.last()), (&[257_152, 257_152, 2][..], Some(&108)));
    }
}
