//! Statistics of a model, a conversion by them, and what it has changed.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use gemmule::Session;
use gemmule_quantize::statistics::{About, Gatherer, Settings, Statistics};
use gemmule_quantize::{Budget, Conversion, Machine, Target, Watcher};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn gemmule(arguments: &[&str], folder: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_gemmule")).args(arguments).current_dir(folder).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn convert(out: &Path, body: &str, statistics: Option<&Path>, threads: usize) -> anyhow::Result<()> {
    let body = gemmule_quantize::parse_format(body).unwrap();
    let conversion = Conversion::of(root().join("models/easy-vqa"));
    let conversion = conversion.body(body).embedding(body).vision(body).threads(threads);
    let conversion = conversion.calibration(statistics.map(Path::to_owned));
    conversion.run(&Target::file(out).replace(true), &mut Watcher::default()).map(drop)
}

/// Rows about the pictures of shapes.
fn write_rows(folder: &Path) {
    let picture = root().join("examples/pictures/shape.png").canonicalize().unwrap();
    let prompts = ["answer en what color is the shape?", "caption en", "detect circle", "describe en"];
    let rows = prompts.map(|prompt| serde_json::json!({ "image": picture, "prompt": prompt }).to_string());
    std::fs::write(folder.join("rows.jsonl"), rows.join("\n")).unwrap();
}

#[test]
fn a_calibrated_conversion_changes_less() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    write_rows(folder.path());
    convert(&at("f32.gguf"), "f32", None, 2).unwrap();
    for (name, more) in [("full.gguf", Some("--full=256")), ("squares.gguf", None)] {
        let arguments = ["calibrate", "-m", "f32.gguf", "--manifest", "rows.jsonl", "-o", name].into_iter().chain(more);
        let done = gemmule(&arguments.collect::<Vec<_>>(), folder.path());
        assert!(done.status.success(), "{}", text(&done.stderr));
        assert!(text(&done.stderr).contains("MB of memory"), "{}", text(&done.stderr));
        assert!(!at(&format!("{name}.partial")).exists());
    }
    convert(&at("plain.gguf"), "q4_0", None, 2).unwrap();
    convert(&at("squared.gguf"), "q4_0", Some(&at("squares.gguf")), 2).unwrap();
    convert(&at("compensated.gguf"), "q4_0", Some(&at("full.gguf")), 2).unwrap();
    convert(&at("again.gguf"), "q4_0", Some(&at("full.gguf")), 1).unwrap();
    assert!(std::fs::read(at("compensated.gguf")).unwrap() == std::fs::read(at("again.gguf")).unwrap(), "threads");

    let divergence = |name: &str| {
        let arguments = ["compare", "f32.gguf", name, "--manifest", "rows.jsonl", "--json"];
        let done = gemmule(&arguments, folder.path());
        assert!(done.status.success(), "{}", text(&done.stderr));
        let found: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap();
        assert_eq!(found["rows"].as_array().unwrap().len(), 4);
        found["all"]["divergence"]["value"].as_f64().unwrap()
    };
    assert_eq!(divergence("f32.gguf"), 0.0);
    let (plain, compensated) = (divergence("plain.gguf"), divergence("compensated.gguf"));
    println!("{plain} plain, {} squares, {compensated} products", divergence("squared.gguf"));
    assert!(compensated < plain, "{compensated} beside {plain}");
    let shown = gemmule(&["compare", "f32.gguf", "plain.gguf", "--manifest", "rows.jsonl"], folder.path());
    assert!(text(&shown.stdout).contains("of 4 rows"), "{}", text(&shown.stdout));
    let again = gemmule(&["calibrate", "--manifest", "rows.jsonl", "-o", "full.gguf"], folder.path());
    assert!(text(&again.stderr).contains("exists already; --force replaces it"), "{}", text(&again.stderr));
}

/// What was saved in the middle and gone on with is what one run gathers.
#[test]
fn gathering_goes_on_where_it_ended() {
    let folder = tempfile::tempdir().unwrap();
    let model = gemmule::Model::bundled().unwrap();
    let picture = gemmule::Picture::open(root().join("examples/pictures/shape.png")).unwrap();
    let about = About { dataset: "rows".into(), rows: 1, image_tokens: 25, settings: "same".into() };
    let gather = |parts: &[&[&str]]| {
        let path = folder.path().join("stats.gguf");
        for (index, prompts) in parts.iter().enumerate() {
            let gatherer = Gatherer::new(Settings::new().block(256).text_weight(2.0), 2).unwrap();
            if index > 0 {
                gatherer.restore(&Statistics::open(&path).unwrap()).unwrap();
            }
            let gatherer = std::sync::Arc::new(gatherer);
            let options = gemmule::SessionOptions::new().threads(2).observer(gatherer.clone());
            let mut session = Session::new(&model, &options).unwrap();
            for prompt in *prompts {
                gatherer.begin(model.config().vision.tokens());
                session.generate(std::slice::from_ref(&picture), prompt, &gemmule::GenerateOptions::new()).unwrap();
                gatherer.end().unwrap();
            }
            gatherer.save(&path, &about).unwrap();
        }
        let statistics = Statistics::open(&path).unwrap();
        assert_eq!(statistics.progress().unwrap(), ("same", 1));
        statistics
    };
    let values = |statistics: &Statistics| -> Vec<f32> {
        let moments = statistics.tensors().map(|tensor| statistics.moments(tensor).unwrap());
        let parts = moments.flat_map(|moments| match moments {
            gemmule_quantize::rounding::Moments::Diagonal(diagonal) => diagonal,
            gemmule_quantize::rounding::Moments::Blocks(blocks) => blocks.concat(),
        });
        parts.collect()
    };
    let whole = values(&gather(&[&["caption en", "detect circle", "describe en"]]));
    let parts = values(&gather(&[&["caption en"], &["detect circle", "describe en"]]));
    assert_eq!(whole.len(), parts.len());
    let largest = whole.iter().fold(0.0f32, |most, value| most.max(value.abs()));
    let near = whole.iter().zip(&parts).all(|(a, b)| (a - b).abs() <= 1e-4 * largest);
    assert!(near, "they differ");
}

#[test]
fn foreign_and_damaged_statistics_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    write_rows(folder.path());
    let done = gemmule(&["calibrate", "--manifest", "rows.jsonl", "-o", "sound.gguf"], folder.path());
    assert!(done.status.success(), "{}", text(&done.stderr));
    let sound = std::fs::read(at("sound.gguf")).unwrap();
    let refused = |bytes: &[u8]| {
        std::fs::write(at("bad.gguf"), bytes).unwrap();
        let error = convert(&at("out.gguf"), "q4_0", Some(&at("bad.gguf")), 1).unwrap_err();
        assert!(!at("out.gguf").exists());
        format!("{error:#}")
    };
    let with = |from: &str, to: &str| {
        let place = sound.windows(from.len()).position(|part| part == from.as_bytes()).unwrap();
        let mut bytes = sound.clone();
        bytes[place..place + to.len()].copy_from_slice(to.as_bytes());
        bytes
    };
    assert!(
        refused(&with("blk.0.attn_output.weight.in_sum2", "blk.9.")).contains("blk.9.attn_output"),
        "another layer"
    );
    assert!(refused(&with("imatrix", "nothing")).contains("holds no statistics"));
    for end in [0, 3, 4, 100, sound.len() / 2, sound.len() - 40] {
        refused(&sound[..end]);
    }
    let mut nan = sound.clone();
    let end = nan.len() - 64;
    nan[end - 512..end].fill(0xff);
    refused(&nan);
    refused(&std::fs::read(root().join("models/easy-vqa-q8_0.gguf")).unwrap());
    assert!(convert(&at("out.gguf"), "q4_0", Some(&at("sound.gguf")), 1).is_ok());
}

/// Each matrix gets a type of its own: within the size, and better than one type for all.
#[test]
fn a_budget_goes_where_answers_change_most() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    write_rows(folder.path());
    convert(&at("f32.gguf"), "f32", None, 2).unwrap();
    let before = std::fs::read(at("f32.gguf")).unwrap();
    let calibrate = ["calibrate", "-m", "f32.gguf", "--manifest", "rows.jsonl"];
    for (name, more) in [("stats.gguf", "--sensitivity=3"), ("squares.gguf", "--strict")] {
        let done = gemmule(&[&calibrate[..], &["-o", name, more]].concat(), folder.path());
        assert!(done.status.success(), "{}", text(&done.stderr));
    }
    assert!(std::fs::read(at("f32.gguf")).unwrap() == before, "the model was changed");
    let statistics = Statistics::open(at("stats.gguf")).unwrap();
    for tensor in statistics.tensors() {
        assert!(statistics.sensitivity(tensor).unwrap().is_some_and(|found| found > 0.0), "{tensor}");
    }

    let allot = |budget: Budget, stats: &str, threads: usize| {
        let conversion = Conversion::of(root().join("models/easy-vqa")).calibration(at(stats)).threads(threads);
        let conversion = conversion.budget(budget).machine(Machine::Avx512);
        conversion.run(&Target::file(at("allotted.gguf")).replace(true), &mut Watcher::default())
    };
    let size = || std::fs::metadata(at("allotted.gguf")).unwrap().len();
    let error = |budget: Budget, stats: &str| format!("{:#}", allot(budget, stats, 2).unwrap_err());
    assert!(error(Budget::Bits(6.0), "squares.gguf").contains("gemmule calibrate --sensitivity"));
    // What an error names as the least is enough.
    let least: f64 = error(Budget::Bits(2.0), "stats.gguf").rsplit(' ').next().unwrap().parse().unwrap();
    allot(Budget::Bits(least), "stats.gguf", 2).unwrap();
    let smallest = size();
    let refusal = error(Budget::Bytes(1000), "stats.gguf");
    let least: u64 = refusal.rsplit(' ').next().unwrap().trim_end_matches("kB").parse().unwrap();
    allot(Budget::Bytes(1000 * least), "stats.gguf", 2).unwrap();
    assert!(size() >= smallest && size() <= 1000 * least);
    for budget in [smallest + 100_000, smallest + 200_000] {
        let summary = allot(Budget::Bytes(budget), "stats.gguf", 2).unwrap().to_string();
        assert!(size() <= budget && size() + 50_000 > budget, "{} of {budget}", size());
        assert!(summary.contains("\n  token_embd: "), "{summary}");
        let file = gemmule::gguf::GgufFile::open(at("allotted.gguf")).unwrap();
        let kept = file.string(gemmule::gguf::keys::own::CONVERSION).unwrap().unwrap();
        assert!(kept.contains("token_embd: ") && kept.contains("attn_q, attn_k, attn_v: "), "{kept}");
    }
    let bytes = std::fs::read(at("allotted.gguf")).unwrap();
    allot(Budget::Bytes(smallest + 200_000), "stats.gguf", 1).unwrap();
    assert!(bytes == std::fs::read(at("allotted.gguf")).unwrap(), "threads");
    assert!(gemmule::Model::open(at("allotted.gguf")).is_ok());
    // A budget that everything fits in.
    allot(Budget::Bits(32.0), "stats.gguf", 2).unwrap();
    assert!(size() < smallest * 2);
}

/// An interrupted measurement goes on, and comes to what one run does.
#[cfg(unix)]
#[test]
fn measuring_goes_on_where_it_was_interrupted() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    write_rows(folder.path());
    convert(&at("f32.gguf"), "f32", None, 2).unwrap();
    let arguments = |out: &'static str| {
        ["calibrate", "-m", "f32.gguf", "--manifest", "rows.jsonl", "-t", "1", "--sensitivity=4", "-o", out]
    };
    let whole = gemmule(&arguments("whole.gguf"), folder.path());
    assert!(whole.status.success(), "{}", text(&whole.stderr));

    let mut command = Command::new(env!("CARGO_BIN_EXE_gemmule"));
    command.args(arguments("parts.gguf")).current_dir(folder.path()).stderr(std::process::Stdio::piped());
    let child = command.spawn().unwrap();
    let journal = at("parts.gguf.partial.journal");
    while !journal.exists() {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    Command::new("kill").arg("-INT").arg(child.id().to_string()).status().unwrap();
    let ended = child.wait_with_output().unwrap();
    assert!(text(&ended.stderr).contains("kinds of matrices are measured"), "{}", text(&ended.stderr));
    assert_eq!(ended.status.code(), Some(1));
    assert!(journal.exists() && at("parts.gguf.partial").exists() && !at("parts.gguf").exists());
    let rest = gemmule(&arguments("parts.gguf"), folder.path());
    assert!(rest.status.success(), "{}", text(&rest.stderr));
    assert!(!journal.exists() && !at("parts.gguf.partial").exists());
    assert!(std::fs::read(at("whole.gguf")).unwrap() == std::fs::read(at("parts.gguf")).unwrap());

    // 4 bits of a model that has no more say nothing.
    convert(&at("q4_0.gguf"), "q4_0", None, 2).unwrap();
    let coarse = ["calibrate", "-m", "q4_0.gguf", "--manifest", "rows.jsonl", "--sensitivity", "-o", "coarse.gguf"];
    let refused = gemmule(&coarse, folder.path());
    assert!(text(&refused.stderr).contains("take a bf16, f32 or q8_0 file"), "{}", text(&refused.stderr));
}

/// Nothing that is read, or is somebody's picture, is written over; statistics that nothing is rounded by are refused.
#[test]
fn inputs_stay_as_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    std::fs::copy(root().join("examples/pictures/shape.png"), at("a.png")).unwrap();
    std::fs::write(at("rows.jsonl"), "{\"image\": \"a.png\", \"prompt\": \"caption en\"}\n").unwrap();
    let picture = std::fs::read(at("a.png")).unwrap();
    let calibrate = |out: &str, more: &str| {
        let done = gemmule(&["calibrate", "--manifest", "rows.jsonl", "-o", out, more], folder.path());
        (done.status.success(), text(&done.stderr))
    };
    let (done, message) = calibrate("a.png", "--force");
    assert!(!done && message.contains("is no GGUF file and is not replaced"), "{message}");
    assert!(std::fs::read(at("a.png")).unwrap() == picture);
    let (done, message) = calibrate("none/stats.gguf", "--force");
    assert!(!done && message.contains("none/stats.gguf"), "{message}");
    assert!(calibrate("stats.gguf", "--strict").0);
    let statistics = std::fs::read(at("stats.gguf")).unwrap();
    let onto = format!("{:#}", convert(&at("stats.gguf"), "q4_0", Some(&at("stats.gguf")), 1).unwrap_err());
    assert!(onto.contains("is read, too"), "{onto}");
    let unused = format!("{:#}", convert(&at("out.gguf"), "bf16", Some(&at("stats.gguf")), 1).unwrap_err());
    assert!(unused.contains("no matrix is rounded by it"), "{unused}");
    assert!(std::fs::read(at("stats.gguf")).unwrap() == statistics && !at("out.gguf").exists());

    // What another run has left stops this one, unless it is to be replaced.
    std::fs::write(at("new.gguf.partial"), "junk").unwrap();
    let (done, message) = calibrate("new.gguf", "--strict");
    assert!(!done && message.contains("--force begins anew"), "{message}");
    assert!(calibrate("new.gguf", "--force").0);
    // Wrong rows are told before the first one runs.
    std::fs::write(
        at("rows.jsonl"),
        "{\"image\": \"a.png\", \"prompt\": \"x\"}\n{\"image\": \"b.png\", \"prompt\": \"x\"}\n",
    )
    .unwrap();
    let (done, message) = calibrate("other.gguf", "--strict");
    assert!(!done && message.contains("row 1: b.png"), "{message}");
    assert!(!at("other.gguf.partial").exists());
}
