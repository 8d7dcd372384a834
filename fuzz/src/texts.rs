//! Tokenizers, answers, forms and rows.

use std::collections::HashSet;
use std::path::Path;
use std::sync::LazyLock;

use gemmule::GeneratedToken;
use gemmule::answer::{Mask, detections};
use gemmule::config::SpecialTokens;
use gemmule::session::Constraint;
use gemmule::text::{TextStream, Tokenizer, table};

fn special() -> SpecialTokens {
    SpecialTokens { image: 3, bos: 2, eos: vec![1], pad: 0 }
}

/// What a tokenizer does with some texts.
fn use_tokenizer(tokenizer: &Tokenizer) {
    for text in ["", " ", "detect cat ; <loc0100>", "a  b\n\u{1f980}\u{fffd}ß", "\0\u{7f}ꀀꀁ"] {
        let Ok(ids) = tokenizer.encode(text) else { continue };
        let _ = tokenizer.decode(&ids);
        let mut stream = TextStream::new();
        for id in ids {
            let _ = (stream.push(tokenizer, id), tokenizer.bytes(id), tokenizer.kind(id));
        }
        let _ = (stream.finish(tokenizer), tokenizer.prefix(1, 4, text));
    }
}

pub(super) fn tokenizer(data: &[u8]) {
    let Ok(json) = std::str::from_utf8(data) else { return };
    if let Ok(tokenizer) = Tokenizer::from_json(json, &special()) {
        use_tokenizer(&tokenizer);
    }
}

/// Lines of a kind, a score and a token.
pub(super) fn token_table(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (mut tokens, mut scores, mut kinds) = (Vec::new(), Vec::new(), Vec::new());
    for line in text.lines().take(512) {
        let (kind, rest) = line.split_at_checked(1).unwrap_or(("1", line));
        let (score, token) = rest.split_once(' ').unwrap_or(("0", rest));
        tokens.push(token);
        scores.push(score.parse().unwrap_or(0.0));
        kinds.push(kind.parse().unwrap_or(table::kind::NORMAL));
    }
    let unknown = (!tokens.is_empty()).then_some(0);
    let Ok(json) = table::tokenizer_json(&tokens, &scores, &kinds, unknown) else { return };
    if let Ok(tokenizer) = Tokenizer::from_json(&json.to_string(), &special()) {
        use_tokenizer(&tokenizer);
    }
}

/// The tokenizer of a file and the one made of its table part a text alike.
pub(super) fn table_and_tokenizer(data: &[u8]) {
    static FROM_TABLE: LazyLock<Tokenizer> = LazyLock::new(|| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/easy-vqa-q8_0.gguf");
        let file = gemmule::gguf::GgufFile::open(&path).expect("the bundled model");
        use gemmule::gguf::keys::tokenizer as keys;
        let (gguf, bytes) = (file.gguf(), file.bytes());
        let tokens = gguf.strings(keys::TOKENS, bytes).expect("sound").expect("there");
        let scores = gguf.long_floats(keys::SCORES, bytes).expect("sound").expect("there");
        let kinds = gguf.long_integers(keys::TOKEN_TYPE, bytes).expect("sound").expect("there");
        let json = table::tokenizer_json(&tokens, &scores, &kinds, Some(3)).expect("sound");
        Tokenizer::from_json(&json.to_string(), super::MODEL.tokenizer().expect("sound").special()).expect("sound")
    });
    let Ok(text) = std::str::from_utf8(data) else { return };
    // What stands for a token by itself is matched in another order.
    if text.contains(['<', '▁']) || text.len() > 200 {
        return;
    }
    let tokenizer = super::MODEL.tokenizer().expect("sound");
    let (one, other) = (tokenizer.encode(text).expect("it is text"), FROM_TABLE.encode(text).expect("it is text"));
    assert_eq!(tokenizer.decode(&one).ok(), FROM_TABLE.decode(&other).ok(), "{text:?}");
}

pub(super) fn mask_runs(data: &[u8]) {
    let Some(([width, height], rest)) = data.split_first_chunk() else { return };
    let text = String::from_utf8_lossy(rest);
    let Some(mask) = Mask::from_counts(&text, u32::from(*width), u32::from(*height)) else { return };
    assert_eq!(mask.pixels().len(), usize::from(*width) * usize::from(*height));
    let again = Mask::from_counts(&mask.counts(), mask.width(), mask.height());
    assert_eq!(again.as_ref(), Some(&mask));
}

pub(super) fn answer(data: &[u8]) {
    let tokenizer = super::MODEL.tokenizer().expect("sound");
    let Ok(tokens) = tokenizer.encode(&String::from_utf8_lossy(data)) else { return };
    let tokens: Vec<_> = tokens.into_iter().map(|id| GeneratedToken::new(id, 0.5)).collect();
    let found = detections(tokenizer, &tokens).expect("each has a probability");
    for object in &found.objects {
        assert!([0, 16].contains(&object.segments.len()) && object.score > 0.0);
        let _ = Mask::paste(&[1.0; 64 * 64], &object.bounds, 50, 30);
    }
}

/// A pattern on the first line, tokens of an answer in the bytes behind.
pub(super) fn form(data: &[u8]) {
    let at = data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len());
    let (pattern, rest) = data.split_at(at);
    let pattern = String::from_utf8_lossy(pattern).into_owned();
    let choices: Vec<String> = pattern.split('|').map(str::to_owned).collect();
    let unique: HashSet<&String> = choices.iter().collect();
    assert!(!unique.is_empty());
    let tokenizer = super::MODEL.tokenizer().expect("sound");
    let tokens: Vec<u32> = rest.as_chunks::<2>().0.iter().map(|pair| u32::from(u16::from_le_bytes(*pair))).collect();
    for constraint in [Constraint::Pattern(pattern.clone()), Constraint::Choices(choices), Constraint::Objects] {
        let _ = constraint.check();
        let _ = constraint.admits(tokenizer, &tokens[..tokens.len().min(32)]);
    }
}

pub(super) fn rows(data: &[u8]) {
    let path = super::scratch("rows").join("rows.jsonl");
    std::fs::write(&path, data).expect("a file");
    let _ = crate::rows::look_at(&path);
    let Ok(mut lines) = crate::rows::Lines::open(&path) else { return };
    while let Ok(Some(line)) = lines.next() {
        let _ = (line.value(), line.row());
    }
}
