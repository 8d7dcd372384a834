//! Answers of a given form from random weights, which want to say anything but that.

use std::path::Path;
use std::process::Command;

use gemmule::answer::detections;
use gemmule::session::Constraint;
use gemmule::{Answer, FinishReason, GenerateOptions, Model, Session, SessionOptions};

fn model(directory: &Path) -> Model {
    let path = directory.join("random.gguf");
    let checkpoint = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/goldens/sharded-bf16");
    let run = Command::new(env!("CARGO_BIN_EXE_gemmule-quantize")).arg(checkpoint).arg(&path).output().unwrap();
    assert!(run.status.success());
    Model::open(&path).unwrap()
}

/// Answers with different seeds, the first one greedy.
fn answers(model: &Model, constraint: Constraint) -> Vec<Answer> {
    let mut session = Session::new(model, &SessionOptions::new()).unwrap();
    session.show(&[]).unwrap();
    let answer = |seed: u64| {
        let options = GenerateOptions::new()
            .max_tokens(80)
            .temperature(if seed == 0 { 0.0 } else { 3.0 })
            .seed(seed)
            .probabilities(true)
            .constraint(constraint.clone());
        session.ask("detect cat", &options).unwrap()
    };
    (0..24).map(answer).collect()
}

#[test]
fn objects_are_always_whole() {
    let directory = tempfile::tempdir().unwrap();
    let model = model(directory.path());
    let (mut objects, mut masks) = (0, 0);
    for answer in answers(&model, Constraint::Objects) {
        let found = detections(model.tokenizer().unwrap(), &answer.tokens).unwrap();
        // Only the limit of tokens may cut an object.
        let cut = usize::from(answer.finish == FinishReason::MaxTokens);
        assert!(found.malformed.len() <= cut, "{}: {found:?}", answer.text);
        objects += found.objects.len();
        assert!(found.objects.iter().all(|object| !object.label.contains("<seg")), "{}", answer.text);
        masks += found.objects.iter().filter(|object| !object.segments.is_empty()).count();
    }
    assert!(objects > 10 && masks > 0, "{objects} objects, {masks} masks");
}

#[test]
fn texts_match_their_pattern() {
    let directory = tempfile::tempdir().unwrap();
    let model = model(directory.path());
    let number = |text: &str| text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_digit());
    for answer in answers(&model, Constraint::Pattern("[0-9]{3}".to_owned())) {
        assert!(number(&answer.text) && answer.finish == FinishReason::EndToken, "{:?}", answer.text);
    }
    let choices = ["yes", "yesterday", "no (never)", "où? 日本 😀", "a|b.*"];
    let mut seen = std::collections::BTreeSet::new();
    for answer in answers(&model, Constraint::Choices(choices.map(str::to_owned).to_vec())) {
        assert!(choices.contains(&&answer.text[..]) && answer.finish == FinishReason::EndToken, "{:?}", answer.text);
        seen.insert(answer.text);
    }
    assert!(seen.len() > 2, "{seen:?}");
}

#[test]
fn forms_that_cannot_be_are_errors() {
    let directory = tempfile::tempdir().unwrap();
    let model = model(directory.path());
    let mut session = Session::new(&model, &SessionOptions::new()).unwrap();
    for (constraint, part) in [
        (Constraint::Choices(Vec::new()), "no choices"),
        (Constraint::Pattern("(".to_owned()), "unclosed group"),
        (Constraint::Pattern("a{1000}{1000}{1000}".to_owned()), "cannot be used"),
        (Constraint::Pattern("(?:a|b)*a(?:a|b){60}".to_owned()), "cannot be used"),
        (Constraint::Pattern(r"\bword".to_owned()), "cannot be used"),
    ] {
        let options = GenerateOptions::new().constraint(constraint);
        let error = session.generate(&[], "x", &options).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
    // An automaton that matches nothing leaves no token.
    let options = GenerateOptions::new().constraint(Constraint::Pattern("[a&&b]".to_owned()));
    assert!(session.generate(&[], "x", &options).unwrap_err().to_string().contains("no token"));
}
