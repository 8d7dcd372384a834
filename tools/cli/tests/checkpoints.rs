//! Checkpoints in place of GGUF files: converted once, found again.

mod support;

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use gemmule_quant::Format;
use gemmule_quantize::{Conversion, Target, Watcher};
use support::{PICTURE, ROOT, stdout};

const NAME: &str = "somebody/some-model";
const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// A small checkpoint in a Hugging Face cache of its own, and a place for what is converted.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        std::fs::create_dir_all(place.snapshot()).unwrap();
        for entry in std::fs::read_dir(Path::new(ROOT).join("tests/goldens/first-f32")).unwrap() {
            let path = entry.unwrap().path();
            std::fs::copy(&path, place.snapshot().join(path.file_name().unwrap())).unwrap();
        }
        let references = place.0.path().join("hub/models--somebody--some-model/refs");
        std::fs::create_dir_all(&references).unwrap();
        std::fs::write(references.join("main"), COMMIT).unwrap();
        place
    }

    fn snapshot(&self) -> PathBuf {
        self.0.path().join("hub/models--somebody--some-model/snapshots").join(COMMIT)
    }

    fn cache(&self) -> PathBuf {
        self.0.path().join("cache")
    }

    /// The files that lie in the cache, without their folders.
    fn cached(&self) -> Vec<String> {
        let folders = std::fs::read_dir(self.cache()).into_iter().flatten().flatten();
        let files = folders.flat_map(|folder| std::fs::read_dir(folder.path()).unwrap().flatten());
        let mut names: Vec<_> = files.map(|file| file.file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn command(&self, model: &str, more: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gemmule"));
        command.current_dir(ROOT).env("HF_HUB_CACHE", self.0.path().join("hub")).env("GEMMULE_CACHE", self.cache());
        command.args(["run", "-i", PICTURE, "-p", "caption en", "-n", "4", "--json", "-m", model]).args(more);
        command
    }

    fn run(&self, model: &str, more: &[&str]) -> Output {
        self.command(model, more).output().unwrap()
    }

    /// Takes the lock that conversions of the checkpoint take.
    fn lock(&self) -> File {
        let folder = std::fs::read_dir(self.cache()).unwrap().flatten().next().unwrap().path();
        let file = File::create(folder.join("lock")).unwrap();
        file.lock().unwrap();
        file
    }
}

/// The tokens of an answer with their probabilities, and what was said beside it.
#[track_caller]
fn tokens(output: &Output) -> (serde_json::Value, String) {
    let answer: serde_json::Value = serde_json::from_str(&stdout(output)).unwrap();
    (serde_json::json!([answer["tokens"], answer["probabilities"]]), String::from_utf8(output.stderr.clone()).unwrap())
}

#[test]
fn a_checkpoint_is_converted_once() {
    let place = Place::new();
    let directory = place.snapshot();
    for (body, more) in [(Format::Q4_0, &[][..]), (Format::Q8_0, &["--type", "q8_0"])] {
        let file = place.0.path().join(format!("{body}.gguf"));
        Conversion::of(&directory).body(body).run(&Target::file(&file), &mut Watcher::default()).unwrap();
        let (expected, _) = tokens(&place.run(file.to_str().unwrap(), &[]));
        let (first, said) = tokens(&place.run(NAME, more));
        assert_eq!(first, expected);
        assert!(said.contains(&format!("{NAME} is converted to {body} once, into ")), "{said}");
        // By each of its names, without a word.
        let root = place.0.path().join("hub/models--somebody--some-model");
        let revision = format!("{NAME}@{COMMIT}");
        for name in [NAME, &revision, directory.to_str().unwrap(), root.to_str().unwrap()] {
            assert_eq!(tokens(&place.run(name, more)), (expected.clone(), String::new()), "{name}");
        }
        assert_eq!(tokens(&place.run(NAME, &[more, &["--no-mmap"]].concat())).0, expected);
    }
    assert_eq!(place.cached(), ["lock", "q4_0.gguf", "q8_0.gguf"]);
}

#[test]
fn a_checkpoint_that_has_changed_is_converted_again() {
    let place = Place::new();
    let (first, _) = tokens(&place.run(NAME, &[]));
    let weights = place.snapshot().join("model.safetensors");
    let mut bytes = std::fs::read(&weights).unwrap();
    // Other values of some tensor.
    let half = bytes.len() / 2;
    bytes[half..].rotate_left(64);
    std::fs::write(&weights, bytes).unwrap();
    let (second, said) = tokens(&place.run(NAME, &[]));
    assert!(said.contains("is converted to q4_0 once"), "{said}");
    assert_ne!(first, second);
    // A file that is cut off is as none.
    let file = std::fs::read_dir(place.cache()).unwrap().flatten().next().unwrap().path().join("q4_0.gguf");
    File::options().write(true).open(&file).unwrap().set_len(1000).unwrap();
    let (third, said) = tokens(&place.run(NAME, &[]));
    assert!(said.contains("is converted to q4_0 once"), "{said}");
    assert_eq!(third, second);
    // What is no part of it changes nothing.
    std::fs::write(place.snapshot().join("README.md"), "words").unwrap();
    assert_eq!(tokens(&place.run(NAME, &[])), (second, String::new()));
}

/// A child that waits for the lock.
fn waiting(place: &Place) -> (Child, BufReader<std::process::ChildStderr>) {
    let mut command = place.command(NAME, &["--type", "q8_0"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    stderr.read_line(&mut line).unwrap();
    assert!(line.contains("another process converts"), "{line}");
    (child, stderr)
}

#[test]
fn of_two_at_once_one_converts() {
    let place = Place::new();
    stdout(&place.run(NAME, &[]));
    let lock = place.lock();
    let children = [waiting(&place), waiting(&place)];
    drop(lock);
    let mut said = String::new();
    let mut answers = Vec::new();
    for (child, stderr) in children {
        stderr.lines().for_each(|line| said.push_str(&line.unwrap()));
        answers.push(stdout(&child.wait_with_output().unwrap()));
    }
    assert_eq!(said.matches("is converted to q8_0 once").count(), 1, "{said}");
    let tokens = |text: &String| serde_json::from_str::<serde_json::Value>(text).unwrap()["tokens"].clone();
    assert_eq!(tokens(&answers[0]), tokens(&answers[1]));
}

#[test]
fn an_interruption_leaves_nothing() {
    let place = Place::new();
    stdout(&place.run(NAME, &[]));
    let lock = place.lock();
    let (child, _stderr) = waiting(&place);
    Command::new("kill").arg("-INT").arg(child.id().to_string()).status().unwrap();
    assert_eq!(child.wait_with_output().unwrap().status.code(), Some(1));
    drop(lock);
    assert_eq!(place.cached(), ["lock", "q4_0.gguf"]);
    // What was killed leaves a part, which the next one removes.
    let folder = std::fs::read_dir(place.cache()).unwrap().flatten().next().unwrap().path();
    std::fs::write(folder.join("q8_0.gguf.x.partial"), "part").unwrap();
    stdout(&place.run(NAME, &["--type", "q8_0"]));
    assert_eq!(place.cached(), ["lock", "q4_0.gguf", "q8_0.gguf"]);
}

#[test]
fn what_is_no_checkpoint_is_told() {
    let place = Place::new();
    stdout(&place.run(NAME, &[]));
    let file = std::fs::read_dir(place.cache()).unwrap().flatten().next().unwrap().path().join("q4_0.gguf");
    let file = file.to_str().unwrap();
    let weights = place.snapshot().join("model.safetensors");
    let empty = place.0.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    let half = place.0.path().join("hub/models--somebody--half/snapshots").join("main");
    std::fs::create_dir_all(&half).unwrap();
    std::fs::copy(place.snapshot().join("config.json"), half.join("config.json")).unwrap();
    let cases: [(&str, &[&str], i32, &str); 11] = [
        ("somebody/half", &[], 1, "its weights are not in"),
        ("somebody/other", &[], 1, "`hf download somebody/other`"),
        ("somebody/some-model@v2", &[], 1, "`hf download somebody/some-model --revision v2`"),
        ("https://huggingface.co/somebody/some-model", &[], 1, "it is a URL"),
        ("nothing.gguf", &[], 1, "nothing.gguf: No such file or directory (os error 2)\n"),
        (weights.to_str().unwrap(), &[], 1, "give the directory that it lies in"),
        (empty.to_str().unwrap(), &[], 1, "give the directory of a Hugging Face checkpoint"),
        (file, &["--type", "q8_0"], 2, "--type says what a checkpoint is converted to"),
        (NAME, &["--mmproj", file], 2, "a checkpoint has both halves"),
        (NAME, &["--type", "mxfp4"], 2, "the nearest is q4_0"),
        (NAME, &["--type", "q5_k", "--isa", "none"], 2, "--isa"),
    ];
    for (model, more, code, part) in cases {
        let output = place.run(model, more);
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{model}: {message}");
        assert!(message.contains(part), "{model}: {message}");
        assert!(output.stdout.is_empty());
    }
    // Nothing was made for what is no checkpoint.
    assert_eq!(std::fs::read_dir(place.cache()).unwrap().count(), 1);
    // No place: a file where the folder would be.
    std::fs::write(place.0.path().join("file"), "").unwrap();
    let output = place.command(NAME, &[]).env("GEMMULE_CACHE", place.0.path().join("file")).output().unwrap();
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(message.contains("GEMMULE_CACHE names another"), "{message}");
}

/// What is made of two states of a checkpoint is of neither.
#[test]
fn a_checkpoint_that_changes_meanwhile_is_not_taken() {
    let place = Place::new();
    stdout(&place.run(NAME, &[]));
    let lock = place.lock();
    let (child, stderr) = waiting(&place);
    std::fs::write(place.snapshot().join("added_tokens.json"), "{}").unwrap();
    drop(lock);
    let said: Vec<_> = stderr.lines().map(|line| line.unwrap()).collect();
    assert_eq!(child.wait_with_output().unwrap().status.code(), Some(1));
    assert!(said.last().unwrap().contains("has changed while it was converted"), "{said:?}");
    assert_eq!(place.cached(), ["lock", "q4_0.gguf"]);
    stdout(&place.run(NAME, &["--type", "q8_0"]));
}
