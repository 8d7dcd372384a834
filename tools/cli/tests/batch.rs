//! Batches: whole, interrupted, and about things that change.

mod support;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::{PICTURE, ROOT, json_lines};

/// A directory with a manifest and a picture.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new(rows: &[&str]) -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        std::fs::copy(Path::new(ROOT).join(PICTURE), folder.at("shape.png")).unwrap();
        std::fs::write(folder.at("rows.jsonl"), rows.join("\n")).unwrap();
        folder
    }

    /// So many rows about the same picture.
    fn of(count: usize) -> Self {
        let row = |id: usize| json!({ "image": "shape.png", "prompt": "caption en", "id": id }).to_string();
        let rows: Vec<String> = (0..count).map(row).collect();
        Self::new(&rows.iter().map(String::as_str).collect::<Vec<_>>())
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.at(name)).unwrap()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gemmule"));
        command.arg("batch").arg(self.at("rows.jsonl")).arg("-o").arg(self.at("out.jsonl")).args(arguments);
        command.stderr(Stdio::piped());
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    #[track_caller]
    fn fails(&self, arguments: &[&str], part: &str) {
        let output = self.run(arguments);
        let message = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(1) && message.contains(part), "no '{part}' in: {message}");
    }

    /// Begins, and waits until some rows are answered.
    fn begin(&self, arguments: &[&str]) -> Child {
        let child = self.command(arguments).spawn().unwrap();
        let started = Instant::now();
        while std::fs::metadata(self.at("out.jsonl.partial")).map_or(0, |file| file.len()) < 5_000 {
            assert!(started.elapsed().as_secs() < 60, "no rows");
            std::thread::sleep(Duration::from_millis(1));
        }
        child
    }

    /// Begins, and kills it.
    fn killed(&self, arguments: &[&str]) {
        let mut child = self.begin(arguments);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!self.at("out.jsonl").exists());
    }

    /// Ids of the rows and what was answered.
    fn answers(&self) -> Vec<(u64, String)> {
        let one = |value: &Value| {
            let text = value["text"].as_str().or(value["error"].as_str()).unwrap();
            (value["input"]["id"].as_u64().unwrap(), text.to_owned())
        };
        json_lines(&self.read("out.jsonl")).iter().map(one).collect()
    }
}

#[test]
fn batches_answer_every_row() {
    let rows = [
        r#"{"image": "shape.png", "prompt": "caption en", "id": 7}"#,
        r#"{"image": "shape.png", "prompt": "answer en what color is the shape?"}"#,
        r#"{"image": "broken.png", "prompt": "caption en"}"#,
        r#"{"images": ["shape.png", "shape.png"], "prompt": "caption en", "max_tokens": 2}"#,
        r#"{"prompt": "caption en"}"#,
        "",
        "nonsense",
        r#"{"image": "shape.png", "prompt": "detect circle"}"#,
        r#"{"image": "pipe.png", "prompt": "caption en"}"#,
    ];
    let folder = Folder::new(&rows);
    assert!(Command::new("mkfifo").arg(folder.at("pipe.png")).status().unwrap().success());
    std::fs::write(folder.at("broken.png"), b"no picture").unwrap();
    folder.fails(&[], "4 of 8 rows failed");
    let values = json_lines(&folder.read("out.jsonl"));
    assert_eq!(values.len(), 8);
    for (index, value) in values.iter().enumerate() {
        assert_eq!(value["row"], index);
    }
    assert_eq!((&values[0]["text"], &values[0]["input"]["id"]), (&"a yellow circle".into(), &7.into()));
    assert_eq!(values[1]["text"], "yellow");
    assert!(values[2]["error"].as_str().unwrap().contains("broken.png"));
    assert_eq!(values[3]["tokens"].as_array().unwrap().len(), 2);
    assert!(values[4]["error"].as_str().unwrap().contains("\"image\" or \"images\""));
    assert!(values[5]["error"].as_str().unwrap().contains("not a row") && values[5]["input"] == "nonsense");
    assert_eq!(values[6]["objects"][0]["label"], "circle");
    assert!(values[7]["error"].as_str().unwrap().contains("no regular file"));
    assert!(!folder.at("out.jsonl.partial").exists() && !folder.at("out.jsonl.partial.journal").exists());
    folder.fails(&[], "--force");
    folder.fails(&["--force"], "4 of 8 rows failed");
    assert_eq!(json_lines(&folder.read("out.jsonl")), values);
    // The manifest and what is no regular file are no outputs or inputs.
    let manifest = folder.at("rows.jsonl");
    let refused = |manifest: &Path, output: &Path, part: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gemmule"));
        let output = command.arg("batch").arg(manifest).arg("--force").arg("-o").arg(output).output().unwrap();
        let message = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(1) && message.contains(part), "no '{part}' in: {message}");
    };
    refused(&manifest, &manifest, "is read, too");
    refused(Path::new("/dev/null"), &folder.at("x"), "no regular file");
    refused(folder.0.path(), &folder.at("x"), "no regular file");
    std::fs::write(&manifest, "\n").unwrap();
    folder.fails(&["--force"], "no rows");
}

/// A kill at any byte: what is whole stays, what is cut is done again.
#[test]
fn a_killed_batch_goes_on() {
    let folder = Folder::of(150);
    folder.killed(&[]);
    let (partial, journal) = (folder.read("out.jsonl.partial"), folder.read("out.jsonl.partial.journal"));
    let first = partial.find('\n').unwrap() + 1;
    for length in [0, 1, first, first + 10, partial.len() / 2, partial.len() - 1, partial.len()] {
        let _ = std::fs::remove_file(folder.at("out.jsonl"));
        std::fs::write(folder.at("out.jsonl.partial"), &partial[..length]).unwrap();
        std::fs::write(folder.at("out.jsonl.partial.journal"), &journal).unwrap();
        let output = folder.run(&[]);
        let message = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{message}");
        assert_eq!(message.contains("of 150 rows are in"), length >= first, "{message}");
        let answers = folder.answers();
        let expected = answers[0].1.clone();
        assert!(expected == "a yellow circle" && answers.into_iter().eq((0..150).map(|id| (id, expected.clone()))));
    }
}

/// A line that is too long has failed once for all.
#[test]
fn a_batch_goes_on_behind_a_line_that_is_too_long() {
    let row = r#"{"image": "shape.png", "prompt": "caption en"}"#;
    let long = format!("{{\"prompt\": \"{}\"}}", "x".repeat(1 << 21));
    let rows: Vec<&str> = [row, &long].into_iter().chain([row; 100]).collect();
    let folder = Folder::new(&rows);
    folder.killed(&[]);
    folder.fails(&[], "1 of 102 rows failed");
    let values = json_lines(&folder.read("out.jsonl"));
    assert!(values.len() == 102 && values[1]["error"].as_str().unwrap().contains("bytes or more"));
}

/// A signal ends a batch in order, and it goes on.
#[test]
fn an_interrupted_batch_goes_on() {
    let folder = Folder::of(800);
    let child = folder.begin(&[]);
    Command::new("kill").arg("-TERM").arg(child.id().to_string()).status().unwrap();
    let output = child.wait_with_output().unwrap();
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && message.contains("interrupted: "), "{message}");
    let output = folder.run(&[]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(folder.answers().len(), 800);
}

/// Rows that come, go or change while others are answered.
#[test]
fn a_manifest_that_changes_is_no_complete_batch() {
    for change in ["grow", "shrink", "edit"] {
        let folder = Folder::of(1000);
        let child = folder.begin(&[]);
        let rows = folder.read("rows.jsonl");
        let changed = match change {
            "grow" => format!("{rows}\n{rows}"),
            "shrink" => rows.lines().take(900).collect::<Vec<_>>().join("\n"),
            _ => rows.replace("\"id\":999", "\"id\":998"),
        };
        assert_ne!(changed, rows);
        // In place, as editors and `>>` do.
        std::fs::write(folder.at("rows.jsonl"), changed).unwrap();
        let output = child.wait_with_output().unwrap();
        let message = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(1) && message.contains("changed while its rows"), "{change}: {message}");
        assert!(!folder.at("out.jsonl").exists() && folder.at("out.jsonl.partial").exists(), "{change}");
    }
}

/// Going on mixes no answers of other models, options or pictures.
#[test]
fn a_batch_goes_on_with_the_same_things_only() {
    let folder = Folder::of(150);
    folder.killed(&[]);
    let partial = folder.read("out.jsonl.partial");
    folder.fails(&["-n", "7"], "another model or other options (max_tokens)");
    // The same picture again is no other one.
    let picture = std::fs::read(folder.at("shape.png")).unwrap();
    std::fs::remove_file(folder.at("shape.png")).unwrap();
    folder.fails(&[], "shape.png is not the picture any more that row 0 was answered about");
    std::fs::write(folder.at("shape.png"), &picture).unwrap();
    let other = gemmule::Picture::from_rgb(3, 3, vec![0; 27]).unwrap().to_png();
    std::fs::write(folder.at("shape.png"), other).unwrap();
    folder.fails(&[], "shape.png is not the picture any more");
    std::fs::write(folder.at("shape.png"), &picture).unwrap();
    // Nor without what it was begun with.
    let journal = folder.read("out.jsonl.partial.journal");
    std::fs::remove_file(folder.at("out.jsonl.partial.journal")).unwrap();
    folder.fails(&[], "nobody knows what it was begun with");
    std::fs::write(folder.at("out.jsonl.partial.journal"), format!("nonsense\n{journal}")).unwrap();
    folder.fails(&[], "out.jsonl.partial.journal: it is damaged");
    // Nor with other rows.
    std::fs::write(folder.at("out.jsonl.partial.journal"), &journal).unwrap();
    let rows = folder.read("rows.jsonl");
    std::fs::write(folder.at("rows.jsonl"), rows.replace("\"id\":0", "\"id\":1")).unwrap();
    folder.fails(&[], "row 0 is not the manifest's");
    std::fs::write(folder.at("rows.jsonl"), &rows).unwrap();
    assert!(folder.read("out.jsonl.partial").starts_with(&partial), "nothing is lost");
    assert!(folder.run(&[]).status.success());
    assert_eq!(folder.answers().len(), 150);
}

/// Another model under the same name.
#[test]
fn a_batch_does_not_go_on_with_another_model() {
    let folder = Folder::of(150);
    let bundled = Path::new(ROOT).join("models/easy-vqa-q8_0.gguf");
    let (model, bytes) = (folder.at("model.gguf"), std::fs::read(bundled).unwrap());
    let with_model = ["-m", model.to_str().unwrap()];
    std::fs::write(&model, &bytes).unwrap();
    folder.killed(&with_model);
    // One weight of the last tensor, in a file of the same length.
    let mut other = bytes.clone();
    *other.last_mut().unwrap() ^= 1;
    std::fs::remove_file(&model).unwrap();
    std::fs::write(&model, other).unwrap();
    folder.fails(&with_model, "another model or other options (weights)");
    // A copy is the same.
    std::fs::remove_file(&model).unwrap();
    std::fs::write(&model, &bytes).unwrap();
    assert!(folder.run(&with_model).status.success());
}

/// A row at which the program has died is not tried for ever.
#[test]
fn a_row_that_kills_fails() {
    for (notes, part) in [
        (vec![json!({ "reads": 5 })], "died while it read the row's pictures"),
        (
            vec![json!({ "reads": 5 }), json!({ "has": [5, [null]] }), json!({ "asks": 5 }), json!({ "asks": 5 })],
            "died 2 times",
        ),
        (vec![json!({ "reads": 5 }), json!({ "has": [5, [null]] }), json!({ "asks": 5 })], ""),
        (vec![json!({ "reads": 5 }), json!({ "ended": null })], ""),
    ] {
        let folder = Folder::of(150);
        folder.killed(&[]);
        let partial = folder.read("out.jsonl.partial");
        let whole: String = partial.split_inclusive('\n').take(5).collect();
        assert!(partial.len() > whole.len());
        std::fs::write(folder.at("out.jsonl.partial"), whole).unwrap();
        let journal = folder.read("out.jsonl.partial.journal");
        let mut kept: Vec<String> = journal.lines().take(3).map(str::to_owned).collect();
        assert!(kept[0].contains("settings") && kept[2].contains("has"), "{kept:?}");
        kept.extend(notes.iter().map(Value::to_string));
        std::fs::write(folder.at("out.jsonl.partial.journal"), kept.join("\n") + "\n").unwrap();
        let output = folder.run(&[]);
        assert_eq!(output.status.success(), part.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
        let answers = folder.answers();
        assert_eq!(answers.len(), 150);
        for (id, text) in answers {
            let expected = if id == 5 && !part.is_empty() { part } else { "a yellow circle" };
            assert!(text.contains(expected), "{id}: {text}");
        }
    }
}

/// A signal leaves no half of an answer behind: interrupted again and again, the rows are those of a run that nobody disturbed.
#[test]
fn signals_cut_no_answer_off() {
    const ROWS: usize = 300;
    let undisturbed = Folder::of(ROWS);
    assert!(undisturbed.run(&[]).status.success());
    let folder = Folder::of(ROWS);
    let mut interrupted = 0;
    for attempt in 0u64.. {
        let mut child = folder.command(&["-t", "1"]).spawn().unwrap();
        // Once a row more is there, and then at another moment each time, so that some lie within answers.
        let len = || std::fs::metadata(folder.at("out.jsonl.partial")).map_or(0, |file| file.len());
        let (before, started) = (len(), Instant::now());
        while len() <= before && started.elapsed() < Duration::from_secs(5) && child.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_micros(300));
        }
        std::thread::sleep(Duration::from_micros(attempt * 1700 % 20_000));
        Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
        if child.wait().unwrap().success() {
            break;
        }
        interrupted += 1;
        assert!(interrupted < 400, "it does not go on");
    }
    assert!(interrupted > 5, "interrupted {interrupted} times");
    assert_eq!(folder.answers(), undisturbed.answers());
}
