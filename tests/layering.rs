//! Who may import whom: the picture of docs/architecture.md, enforced.

use std::path::Path;

/// Module, and the modules of this crate that it may name.
const ALLOWED: [(&str, &[&str]); 14] = [
    ("gguf", &[]),
    ("weights", &["gguf"]),
    ("sched", &[]),
    ("ops", &["sched"]),
    ("image", &["model::config", "memory"]),
    ("text", &["model::config", "memory"]),
    ("model", &["ops", "weights", "gguf", "text", "memory"]),
    ("answer", &["text", "image", "model::mask_decoder"]),
    ("metrics", &[]),
    ("session", &["model", "image", "text", "sched", "ops", "memory"]),
    ("files.rs", &[]),
    ("memory.rs", &[]),
    ("process.rs", &[]),
    ("error.rs", &[]),
];

fn sources(path: &Path, found: &mut Vec<(String, String)>) {
    if path.is_dir() {
        for entry in std::fs::read_dir(path).unwrap() {
            sources(&entry.unwrap().path(), found);
        }
    } else if path.extension().is_some_and(|extension| extension == "rs") {
        found.push((path.display().to_string(), std::fs::read_to_string(path).unwrap()));
    }
}

/// What stands behind `crate::`, each name in braces by itself, up to its end or to braces of its own.
fn own_paths(text: &str) -> Vec<&str> {
    let path = |rest: &str| rest.find([';', ' ', ',', '{', '}', '(', ')', '<', '>']).unwrap_or(rest.len());
    let mut paths = Vec::new();
    for (at, found) in text.match_indices("crate::") {
        let rest = &text[at + found.len()..];
        let Some(list) = rest.strip_prefix('{') else {
            paths.push(&rest[..path(rest)]);
            continue;
        };
        let (mut depth, mut start) = (1, 0);
        for (place, character) in list.char_indices() {
            depth += i32::from(character == '{') - i32::from(character == '}');
            if depth == 0 || (depth == 1 && character == ',') {
                let part = list[start..place].trim();
                paths.extend(Some(&part[..path(part)]).filter(|part| !part.is_empty()));
                start = place + 1;
            }
            if depth == 0 {
                break;
            }
        }
    }
    paths
}

#[test]
fn imports_are_found_in_braces() {
    let text = "use crate::{Error, model::{config::A, B},\n session};\nuse crate::sched::Pool; crate::ops::norm(x)";
    assert_eq!(own_paths(text), ["Error", "model::", "session", "sched::Pool", "ops::norm"]);
}

#[test]
fn imports_go_one_way() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for (module, allowed) in ALLOWED {
        let mut files = Vec::new();
        sources(&root.join(module), &mut files);
        assert!(!files.is_empty(), "{module} is gone: update this test and docs/architecture.md");
        for (name, text) in files {
            for path in own_paths(&text) {
                let own = module.trim_end_matches(".rs");
                let common = ["Error", "Result"].iter().any(|start| path.starts_with(start));
                let fine = common || path.starts_with(own) || allowed.iter().any(|prefix| path.starts_with(prefix));
                assert!(fine, "{name}: {module} must not import crate::{path}");
            }
        }
    }
}

#[test]
fn fronts_use_the_public_library_only() {
    let mut files = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cli"), &mut files);
    assert!(files.iter().all(|(_, text)| !text.contains("crate::")), "the command line goes through `gemmule::`");
}

#[test]
fn unsafe_stays_where_it_belongs() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for folder in ["src", "quant/src", "tools", "capi/src"] {
        sources(&root.join(folder), &mut files);
    }
    // A camera's buffers are mapped, and had by system calls that no safe interface has.
    let places = [
        // The allocator's one setting, see there.
        "src/process.rs",
        "src/sched/mod.rs",
        "src/sched/team.rs",
        "src/weights/mod.rs",
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

#[test]
fn files_are_short_enough_to_be_read() {
    const MOST_LINES: usize = 500;
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for folder in ["benches", "capi", "examples", "fuzz", "quant", "src", "tests", "tools"] {
        sources(&root.join(folder), &mut files);
    }
    // What cargo builds for workspaces of their own.
    let files = files.iter().filter(|(name, _)| !name.contains("/target/"));
    let long: Vec<_> = files.filter(|(_, text)| text.lines().count() > MOST_LINES).map(|(name, _)| name).collect();
    assert!(long.is_empty(), "more than {MOST_LINES} lines: {long:?}");
}
