//! The program with the files that people have: rows, predictions, damaged pictures, models that are none.

mod support;

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use support::{PICTURE, ROOT, assert_fails, gemmule, stdout};

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        let picture = Path::new(ROOT).join(PICTURE);
        std::fs::copy(picture, folder.path("a.png")).unwrap();
        folder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> String {
        std::fs::write(self.path(name), bytes).unwrap();
        self.path(name).to_str().unwrap().to_owned()
    }

    /// The lines that a batch makes of rows.
    fn batch(&self, rows: impl AsRef<[u8]>, arguments: &[&str]) -> (Option<i32>, Vec<Value>) {
        let (rows, out) = (self.write("rows.jsonl", rows), self.path("out.jsonl"));
        let run = gemmule(&[&["batch", &rows, "-o", out.to_str().unwrap(), "--force"][..], arguments].concat());
        let text = std::fs::read_to_string(out).unwrap_or_default();
        (run.status.code(), text.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
    }
}

#[test]
fn rows_are_read_as_other_tools_write_them() {
    let folder = Folder::new();
    let row = r#"{"image": "a.png", "prompt": "describe en"}"#;
    let answer = "a yellow circle at the top";
    for rows in [
        format!("\u{feff}{row}"),
        format!("{row}\r\n"),
        row.replace("prompt", "prefix").replace('}', ", \"suffix\": \"x\"}"),
        row.replace("describe en", "<image>describe en"),
    ] {
        let (code, lines) = folder.batch(&rows, &[]);
        assert_eq!((code, &lines[0]["text"]), (Some(0), &answer.into()), "{rows}");
    }
    // A line that is too long fails by itself.
    let long = format!("{row}\n{{\"prompt\": \"{}\"}}\n{row}\n", "x".repeat(1 << 21));
    let (code, lines) = folder.batch(&long, &[]);
    assert_eq!((code, lines.len(), &lines[2]["text"]), (Some(1), 3, &answer.into()));
    assert!(lines[1]["error"].as_str().unwrap().contains("bytes or more") && lines[1]["row"] == 1);

    let out = folder.path("none.jsonl");
    for (rows, part) in
        [(&b"[{\"image\": \"a.png\"}]"[..], "jq -c"), (b"\xff\xfe{\0}\0", "UTF-16"), (b"\n\n", "no rows")]
    {
        let rows = folder.write("bad.jsonl", rows);
        assert_fails(&["batch", &rows, "-o", out.to_str().unwrap()], &["bad.jsonl", part]);
    }
}

#[test]
fn marks_of_pictures_are_as_many_as_pictures() {
    let ask = |prompt: &str| stdout(&gemmule(&["run", "-i", PICTURE, "-p", prompt]));
    assert_eq!(ask("<image>describe en"), ask("describe en"));
    assert_fails(&["run", "-i", PICTURE, "-p", "<image><image>x"], &["'<image>' × 2; pictures given: 1"]);
    assert_fails(&["run", "-i", PICTURE, "-p", "what <image> is"], &["within the prompt"]);
    let two = ["run", "-i", PICTURE, "-i", PICTURE, "-p"];
    assert_eq!(
        stdout(&gemmule(&[&two[..], &["<image><image>caption en"]].concat())),
        stdout(&gemmule(&[&two[..], &["caption en"]].concat()))
    );
}

#[test]
fn forced_codes_are_tokens_and_not_spelled() {
    let choice = "<loc0100><loc0200><loc0300><loc0400> cat";
    let arguments = ["run", "-i", PICTURE, "-p", "describe en", "--json", "--choice", choice];
    let value: Value = serde_json::from_str(&stdout(&gemmule(&arguments))).unwrap();
    let by_pattern =
        ["run", "-i", PICTURE, "-p", "describe en", "--json", "--pattern", "(<loc0[0-9]{3}>){4} (cat|dog)"];
    let other: Value = serde_json::from_str(&stdout(&gemmule(&by_pattern))).unwrap();
    for value in [value, other] {
        // Four locations, a label, the end: spelled out it would be some forty.
        assert!(value["tokens"].as_array().unwrap().len() < 10, "{value}");
        assert!(value["objects"].as_array().unwrap().len() == 1, "{value}");
    }
    // What is no code stays text, however it begins.
    for text in ["<b> <loc2000>", "<lovely>", "a < b <seg999>"] {
        assert_eq!(stdout(&gemmule(&["run", "-i", PICTURE, "-p", "describe en", "--choice", text])).trim_end(), text);
    }
}

#[test]
fn probabilities_are_over_what_is_asked_for() {
    let sums = |base: &str| -> Vec<f64> {
        let arguments =
            ["run", "-i", PICTURE, "-p", "caption en", "--json", "--logprobs", "5000", "--probabilities", base];
        let arguments = [&arguments[..], &["--choice", "a yellow circle", "--choice", "a red square"]].concat();
        let value: Value = serde_json::from_str(&stdout(&gemmule(&arguments))).unwrap();
        assert_eq!(value["probabilities_over"], base);
        let places = value["logprobs"].as_array().unwrap().clone();
        let sum = |place: &Value| {
            place.as_array().unwrap().iter().filter_map(|one| one["logprob"].as_f64()).map(f64::exp).sum::<f64>()
        };
        places.iter().map(sum).collect()
    };
    for base in ["used", "form"] {
        assert!(sums(base).iter().all(|sum| (sum - 1.0).abs() < 1e-4), "{base}: {:?}", sums(base));
    }
    let full = sums("full");
    assert!(full.iter().all(|sum| *sum < 1.0 + 1e-5), "padding rows have a share: {full:?}");
    assert_eq!(gemmule(&["run", "-i", PICTURE, "-p", "x", "--probabilities", "some"]).status.code(), Some(2));
}

#[test]
fn damaged_pictures_are_read_and_said_to_be() {
    let damaged = "tests/goldens/cases/damaged-420.jpg";
    let run = gemmule(&["run", "-i", damaged, "-p", "describe en", "--json"]);
    let value: Value = serde_json::from_str(&stdout(&run)).unwrap();
    assert!(value["damaged"][0].is_string() && String::from_utf8_lossy(&run.stderr).contains("--strict"), "{value}");
    assert_fails(&["run", "-i", damaged, "-p", "x", "--strict"], &["damaged-420.jpg", "it is damaged"]);
    let value: Value = serde_json::from_str(&stdout(&gemmule(&["run", "-i", PICTURE, "-p", "x", "--json"]))).unwrap();
    assert!(value.get("damaged").is_none());
    let folder = Folder::new();
    std::fs::copy(Path::new(ROOT).join(damaged), folder.path("d.jpg")).unwrap();
    let rows =
        "{\"image\": \"d.jpg\", \"prompt\": \"describe en\"}\n{\"image\": \"a.png\", \"prompt\": \"describe en\"}";
    let (code, lines) = folder.batch(rows, &[]);
    assert!(code == Some(0) && lines[0]["damaged"][0].is_string() && lines[1].get("damaged").is_none(), "{lines:?}");
    let (code, lines) = folder.batch(rows, &["--strict"]);
    assert!(code == Some(1) && lines[0]["error"].as_str().unwrap().contains("damaged") && lines[1]["text"].is_string());
}

#[test]
fn models_that_are_none_are_named() {
    let folder = Folder::new();
    let fails = |path: &str, parts: &[&str]| assert_fails(&["run", "-m", path, "-i", PICTURE, "-p", "x"], parts);
    let safetensors = [&2u64.to_le_bytes()[..], b"{}"].concat();
    fails(&folder.write("model.safetensors", safetensors), &["it is a file of a checkpoint: give the directory"]);
    fails("docs", &["docs: neither model.safetensors", "give the directory of a Hugging Face checkpoint"]);
    fails(&folder.write("a.gguf", "version https://git-lfs.github.com/spec/v1\n"), &["git lfs pull"]);
    fails(&folder.write("b.gguf", "<!DOCTYPE html>"), &["web page"]);
    fails(&folder.write("c.gguf", b"PK\x03\x04"), &["gemmule-quantize"]);
    fails(&folder.write("d.gguf", "something else"), &["does not begin with 'GGUF'"]);
}

#[test]
fn answers_made_elsewhere_are_measured() {
    let folder = Folder::new();
    let write =
        |name: &str, rows: &[Value]| folder.write(name, rows.iter().map(|row| format!("{row}\n")).collect::<String>());
    let eval = |data: &str, metric: &str, files: &[&str]| -> Value {
        let mut arguments = vec!["eval", data, "--metric", metric, "--json"];
        files.iter().for_each(|file| arguments.extend(["--predictions", file]));
        serde_json::from_str(&stdout(&gemmule(&arguments))).unwrap()
    };
    let data = write(
        "data.jsonl",
        &[json!({ "answer": "red" }), json!({ "answers": ["blue", "navy"] }), json!({ "suffix": "two" })],
    );
    let one = write("one.jsonl", &[json!({ "text": "Red" }), json!({ "text": "navy" }), json!({ "text": "three" })]);
    let two = write(
        "two.jsonl",
        &[
            json!({ "row": 2, "prediction": "two" }),
            json!({ "row": 0, "prediction": "red" }),
            json!({ "row": 1, "answer": "x" }),
        ],
    );
    let value = eval(&data, "exact", &[&one, &two]);
    let measure = &value["measures"][0];
    assert!((measure["values"][0]["value"].as_f64().unwrap() - 2.0 / 3.0).abs() < 1e-12);
    assert!(
        measure["values"][0]["low"].as_f64().unwrap() < 0.3 && measure["values"][0]["high"].as_f64().unwrap() < 1.0
    );
    assert_eq!(measure["difference"]["value"], 0.0);

    // Boxes as objects, and as the tokens of a text; a crowd, and an answer without a label.
    let there = json!({ "objects": [
        { "label": "cat", "box": [10, 10, 50, 60] }, { "label": "cat", "box": [60, 0, 100, 100], "iscrowd": 1 },
    ], "width": 100, "height": 100 });
    let data =
        write("boxes.jsonl", &[there, json!({ "objects": [{ "box": [0, 0, 50, 100] }], "width": 100, "height": 100 })]);
    let found = write(
        "boxes-found.jsonl",
        &[
            json!({ "text": "", "objects": [
            { "label": "cat", "box": [10.0, 10.0, 50.0, 60.0], "score": 0.9 }, { "label": "cat", "box": [60, 0, 80, 50], "score": 0.8 },
        ] }),
            json!({ "objects": [{ "label": "", "box": [0, 0, 50, 100], "score": 0.5 }] }),
        ],
    );
    let value = eval(&data, "boxes", &[&found]);
    for measure in value["measures"].as_array().unwrap() {
        assert!((measure["values"][0]["value"].as_f64().unwrap() - 1.0).abs() < 1e-9, "{measure}");
    }
    assert!(value.to_string().contains("\"ap50\"") && !value.to_string().contains("-0.0"), "{value}");
    let texts = write(
        "boxes-texts.jsonl",
        &[
            json!({ "text": "<loc0102><loc0102><loc0614><loc0512> cat" }),
            json!({ "text": "<loc0000><loc0000><loc1023><loc0511>" }),
        ],
    );
    let value = eval(&data, "boxes", &[&texts]);
    assert_eq!(value["measures"][0]["values"][0]["value"], 1.0, "{value}");

    let fails = |data: &str, metric: &str, file: &str, parts: &[&str]| {
        assert_fails(&["eval", data, "--metric", metric, "--predictions", file], parts);
    };
    let short = write("short.jsonl", &[json!({ "text": "" })]);
    fails(&data, "boxes", &short, &["row 1 of the data has no answer"]);
    let twice = write("twice.jsonl", &[json!({ "row": 0, "text": "" }), json!({ "row": 0, "text": "" })]);
    fails(&data, "boxes", &twice, &["row 0 is answered twice"]);
    let failed = write("failed.jsonl", &[json!({ "row": 0, "error": "gone" })]);
    fails(&data, "boxes", &failed, &["row 0", "gone"]);
    for (object, part) in [
        (json!({ "label": 5, "box": [0, 0, 9, 9] }), "\"label\" is no text"),
        (json!({ "label": "a", "box": [0, 0, 9, 9], "score": "x" }), "\"score\" is no number"),
    ] {
        let wrong = write("wrong.jsonl", &[json!({ "objects": [object] }), json!({ "objects": [] })]);
        fails(&data, "boxes", &wrong, &["row 0", part]);
    }
    let words = write("words.jsonl", &[json!({ "answers": ["", "x"] })]);
    let objects = write("objects.jsonl", &[json!({ "objects": [] })]);
    fails(&words, "exact", &objects, &["row 0", "no \"text\""]);
    for (text, part) in [(json!(null), "null"), (json!(["a"]), "no text")] {
        let wrong = write("wrong-text.jsonl", &[json!({ "text": text })]);
        fails(&words, "exact", &wrong, &["row 0", part]);
    }
    assert_eq!(
        gemmule(&["eval", &data, "--metric", "boxes", "--predictions", &short, "-m", "models/easy-vqa-q8_0.gguf"])
            .status
            .code(),
        Some(2)
    );
}

#[test]
fn a_row_without_an_answer_shows_before_the_first_is_asked() {
    let folder = Folder::new();
    let mut rows = String::new();
    for _ in 0..300 {
        rows += "{\"image\": \"a.png\", \"prompt\": \"describe en\", \"answer\": \"x\"}\n";
    }
    rows += "{\"image\": \"a.png\", \"prompt\": \"describe en\"}\n";
    let data = folder.write("data.jsonl", rows);
    let start = std::time::Instant::now();
    assert_fails(&["eval", &data, "--metric", "exact"], &["row 300", "\"answers\""]);
    assert!(start.elapsed().as_secs_f64() < 2.0);
}
