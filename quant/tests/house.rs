//! What holds of this crate's own text: a format is a file and a row, an instruction set is a folder and a row.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use gemmule_quant::FORMATS;

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

fn quant() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// The files of the repository that name a word, relative to its root. Tests name what they like.
fn files_with(word: &str) -> Vec<String> {
    let root = quant().join("../..");
    let mut files: Vec<String> = ["quant/src", "src", "capi/src", "tools"]
        .iter()
        .flat_map(|folder| sources(&root.join(folder)))
        .filter(|path| {
            let text = std::fs::read_to_string(path).unwrap();
            let code = text.split("#[cfg(test)]").next().unwrap_or_default();
            code.split(|letter: char| !letter.is_alphanumeric() && letter != '_').any(|found| found == word)
        })
        .map(|path| path.strip_prefix(&root).unwrap().display().to_string())
        .filter(|path| !path.contains("/tests"))
        .collect();
    files.sort();
    files
}

#[test]
fn a_format_is_a_file_and_a_row() {
    // The newest one has nothing of its own but these: every tier unpacks it with its plain decoder.
    assert_eq!(files_with("Iq4Nl"), ["quant/src/formats/iq4_nl.rs", "quant/src/formats/table.rs"]);
    // The converter offers it where somebody asks for a type that it does not write.
    let named = ["quant/src/formats/mod.rs", "quant/src/formats/table.rs", "tools/quantize/src/types.rs"];
    assert_eq!(files_with("iq4_nl"), named);
    // Every format has its row in the table, and no other file gives it a name.
    for info in FORMATS {
        let table = std::fs::read_to_string(quant().join("formats/table.rs")).unwrap();
        let row = format!("{:?} = \"{}\", ggml {}, file {},", info.format, info.name, info.ggml_id, info.file_type);
        assert_eq!(table.matches(&row).count(), 1, "{row}");
    }
}

/// The features that a text asks for in `target_feature` attributes and in the macros that take them.
fn features_in(text: &str) -> Vec<String> {
    let quoted = text.split('"').skip(1).step_by(2);
    let is_list = |text: &&str| {
        let known = |name: &str| {
            matches!(name, "fma" | "f16c" | "neon" | "dotprod" | "i8mm")
                || name.starts_with("avx") && !name.contains(' ')
        };
        text.split(',').all(known)
    };
    quoted.filter(is_list).flat_map(|list| list.split(',').map(str::to_owned)).collect()
}

#[test]
fn a_tier_is_compiled_for_what_its_row_detects() {
    let isa = std::fs::read_to_string(quant().join("isa.rs")).unwrap();
    let mut tiers: BTreeMap<String, Vec<String>> = BTreeMap::new();
    // `Variant = "name", ["feature", …] …, path::to::TABLE;`
    for row in isa.split(';').filter(|row| row.contains("::TABLE")) {
        let list = row.split_once("\", [").unwrap().1.split_once(']').unwrap().0;
        let features: Vec<String> = list.split('"').skip(1).step_by(2).map(str::to_owned).collect();
        let table = row.rsplit_once(", ").unwrap().1.trim();
        tiers.insert(table.trim_end_matches("::TABLE").replace("::", "/"), features);
    }
    assert!(tiers.len() >= 9, "{tiers:?}");
    for (folder, features) in &tiers {
        let folder = quant().join("kernels").join(folder);
        if !folder.is_dir() {
            assert!(features.is_empty(), "the portable code asks for no features");
            continue;
        }
        for file in sources(&folder) {
            for feature in features_in(&std::fs::read_to_string(&file).unwrap()) {
                assert!(features.contains(&feature), "{}: {feature} is not detected: isa.rs", file.display());
            }
        }
    }
    // What an architecture's tiers share runs on the first of them.
    for (folder, first) in [("x86", "x86/avx2"), ("neon", "neon/base")] {
        for entry in std::fs::read_dir(quant().join("kernels").join(folder)).unwrap() {
            let path = entry.unwrap().path();
            // AVX-512's pair products are here beside those of AVX2, and prove it by a value of their own.
            if path.is_file() && !path.ends_with("pairs.rs") {
                for feature in features_in(&std::fs::read_to_string(&path).unwrap()) {
                    assert!(tiers[first].contains(&feature), "{}: {feature}", path.display());
                }
            }
        }
    }
}
