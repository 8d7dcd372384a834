//! Who imports whom: the picture of docs/architecture.md, read from the syntax of every crate, and what else holds of every file.

mod imports;
mod signatures;

use std::path::Path;

use self::imports::Imports;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// A room, and the rooms of its crate that it imports from. Rooms are the folders and files beside a crate's root file.
type Rooms = &'static [(&'static str, &'static [&'static str])];

const LIBRARY: Rooms = &[
    ("answer", &["config", "error", "image", "session", "text"]),
    ("config", &["error", "gguf"]),
    ("error", &[]),
    ("gguf", &["error", "platform"]),
    ("image", &["config", "error", "memory"]),
    ("memory", &["error"]),
    ("model", &["config", "error", "gguf", "memory", "ops", "text", "weights"]),
    ("ops", &["error", "sched"]),
    ("platform", &[]),
    ("sched", &["error", "platform"]),
    ("session", &["config", "error", "image", "memory", "model", "ops", "platform", "sched", "text"]),
    ("text", &["config", "error", "memory"]),
    ("weights", &["error", "gguf"]),
];

const QUANT: Rooms = &[
    ("activation", &[]),
    ("formats", &["vector"]),
    ("isa", &["kernels"]),
    ("kernels", &["activation", "formats", "isa", "matrix", "vector"]),
    ("matrix", &["formats"]),
    ("vector", &["activation"]),
];

const CAPI: Rooms = &[
    ("answer", &["border"]),
    ("border", &["types"]),
    ("frame", &["border", "lib", "request", "types"]),
    ("lib", &["border", "request"]),
    ("request", &["border", "types"]),
    ("types", &[]),
];

const PROGRAM: Rooms = &[
    ("answers", &[]),
    ("arguments", &["cache", "output"]),
    ("batch", &["answers", "arguments", "interrupt", "output", "rows"]),
    ("bench", &["arguments", "interrupt", "output"]),
    ("cache", &["interrupt", "output"]),
    ("calibrate", &["answers", "arguments", "compare", "interrupt", "output", "rows"]),
    ("compare", &["arguments", "output", "rows"]),
    ("embed", &["answers", "arguments", "tensors"]),
    ("eval", &["answers", "arguments", "output", "rows"]),
    ("inspect", &["arguments", "output"]),
    ("interrupt", &["output"]),
    (
        "lib",
        &[
            "arguments",
            "batch",
            "bench",
            "calibrate",
            "compare",
            "embed",
            "eval",
            "inspect",
            "output",
            "run",
            "score",
            "trace",
            "watch",
        ],
    ),
    ("output", &[]),
    ("rows", &[]),
    ("run", &["answers", "arguments", "output"]),
    ("score", &["arguments", "output"]),
    ("tensors", &["answers"]),
    ("trace", &["answers", "arguments", "tensors"]),
    ("watch", &["answers", "arguments", "interrupt", "output", "rows"]),
];

const METRICS: Rooms =
    &[("captions", &["penn"]), ("interval", &[]), ("objects", &[]), ("penn", &[]), ("precision", &[]), ("text", &[])];

const COMMON: Rooms = &[("files", &[]), ("memory", &[]), ("platform", &[]), ("process", &[]), ("progress", &[])];

const CONVERTER: Rooms = &[
    ("advice", &["hub", "json"]),
    ("allot", &["convert", "plan", "rounding", "sensitivity", "statistics", "summary"]),
    ("big_vision", &["checkpoint", "npz"]),
    ("calibrated", &["convert", "plan", "rounding", "statistics"]),
    ("changes", &[]),
    ("checkpoint", &["advice", "changes", "json"]),
    (
        "conversion",
        &[
            "advice",
            "allot",
            "big_vision",
            "calibrated",
            "checkpoint",
            "convert",
            "hf_config",
            "lora",
            "mask_decoder",
            "plan",
            "statistics",
            "summary",
            "target",
            "tokens",
            "vocabulary",
        ],
    ),
    ("convert", &["checkpoint", "plan", "rounding", "summary"]),
    ("hf_config", &["advice", "json"]),
    ("hub", &[]),
    ("json", &[]),
    ("lib", &[]),
    ("lora", &["advice", "changes", "checkpoint", "json"]),
    ("made", &["convert", "hf_config", "plan", "summary", "target", "vocabulary"]),
    ("mask_decoder", &["npz"]),
    ("npz", &[]),
    ("plan", &["checkpoint", "hf_config", "mask_decoder"]),
    ("program", &["allot", "conversion", "convert", "target", "types"]),
    ("rounding", &[]),
    ("sensitivity", &["rounding", "statistics"]),
    ("statistics", &["rounding"]),
    ("summary", &["plan"]),
    ("target", &[]),
    ("tokens", &["json"]),
    ("types", &[]),
    ("vocabulary", &[]),
];

const SYNTH: Rooms =
    &[("blocks", &[]), ("main", &["blocks", "sizes", "tokenizer"]), ("sizes", &[]), ("tokenizer", &[])];

/// Every crate by its root file.
const CRATES: [(&str, Rooms); 8] = [
    ("src/lib.rs", LIBRARY),
    ("quant/src/lib.rs", QUANT),
    ("capi/src/lib.rs", CAPI),
    ("tools/cli/src/lib.rs", PROGRAM),
    ("tools/metrics/src/lib.rs", METRICS),
    ("tools/common/src/lib.rs", COMMON),
    ("tools/quantize/src/lib.rs", CONVERTER),
    ("tools/synth/src/main.rs", SYNTH),
];

/// What a room may import, for each.
fn check_rooms(root: &str, rooms: Rooms) {
    let found = Imports::of(&Path::new(ROOT).join(root)).rooms();
    // A crate's root may hand on whatever it has; what it imports itself is a direction as any other.
    for (room, imported) in &found {
        let allowed = rooms.iter().find(|row| row.0 == room).map_or(&[][..], |row| row.1);
        let new: Vec<_> = imported.iter().filter(|name| !allowed.contains(&name.as_str())).collect();
        assert!(new.is_empty(), "{root}: {room} must not import from {new:?}");
        let gone: Vec<_> = allowed.iter().filter(|name| !imported.contains(**name)).collect();
        assert!(gone.is_empty(), "{root}: {room} no longer imports from {gone:?}: take that out of this test");
    }
    let lost: Vec<_> = rooms.iter().filter(|row| !found.contains_key(row.0)).collect();
    assert!(lost.is_empty(), "{root}: {lost:?} are gone: take them out of this test and docs/architecture.md");
}

#[test]
fn rooms_import_one_way() {
    CRATES.iter().for_each(|(root, rooms)| check_rooms(root, rooms));
}

#[test]
fn no_files_import_each_other() {
    let circles = CRATES.iter().flat_map(|(root, _)| {
        Imports::of(&Path::new(ROOT).join(root)).circles().into_iter().map(move |files| (root, files))
    });
    let circles: Vec<_> = circles.collect();
    assert!(circles.is_empty(), "{circles:#?}");
}

fn sources(path: &Path, found: &mut Vec<(String, String)>) {
    if path.is_dir() {
        for entry in std::fs::read_dir(path).unwrap() {
            sources(&entry.unwrap().path(), found);
        }
    } else if path.extension().is_some_and(|extension| extension == "rs") {
        found.push((path.display().to_string(), std::fs::read_to_string(path).unwrap()));
    }
}

#[test]
fn unsafe_stays_where_it_belongs() {
    let root = Path::new(ROOT);
    let mut files = Vec::new();
    for folder in ["src", "quant/src", "tools", "capi/src"] {
        sources(&root.join(folder), &mut files);
    }
    // A camera's buffers are mapped, and had by system calls that no safe interface has.
    let places = [
        // The allocator's one setting, see there.
        "tools/common/src/process.rs",
        "src/sched/mod.rs",
        "src/sched/team.rs",
        "src/gguf/file.rs",
        "src/image/camera/mod.rs",
        "quant/src/kernels/",
        "capi/src/",
    ];
    for (name, text) in files {
        let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        let found = code.filter(|line| line.contains("unsafe ")).count();
        assert!(found == 0 || places.iter().any(|place| name.contains(place)), "{name} has unsafe code");
    }
}

/// Every Rust file of the repository but what cargo builds, with its text.
fn all_sources() -> Vec<(String, String)> {
    let root = Path::new(ROOT);
    let mut files = Vec::new();
    for folder in ["benches", "capi", "examples", "fuzz", "quant", "src", "tests", "tools"] {
        sources(&root.join(folder), &mut files);
    }
    // What cargo builds for workspaces of their own.
    files.retain(|(name, _)| !name.contains("/target/"));
    files
}

#[test]
fn files_are_short_enough_to_be_read() {
    const MOST_LINES: usize = 500;
    let files = all_sources();
    let long: Vec<_> =
        files.iter().filter(|(_, text)| text.lines().count() > MOST_LINES).map(|(name, _)| name).collect();
    assert!(long.is_empty(), "more than {MOST_LINES} lines: {long:?}");
}

#[test]
fn functions_say_what_they_take() {
    let files = all_sources();
    let bad: Vec<_> = files
        .iter()
        .flat_map(|(name, text)| {
            signatures::bad_signatures(text).into_iter().map(move |what| format!("{name}: {what}"))
        })
        .collect();
    assert!(bad.is_empty(), "{bad:#?}");
}
