//! big_vision's layout against Hugging Face's: the same weights become the same file
//! (`tools/reference/big_vision_goldens.py`).

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use flate2::Compression;
use flate2::read::DeflateDecoder;
use flate2::write::DeflateEncoder;
use rawzip::{CompressionMethod, ZipArchive, ZipArchiveWriter};

fn goldens() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/goldens")
}

fn case() -> PathBuf {
    goldens().join("sharded-bf16")
}

fn convert(checkpoint: &Path, output: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gemmule-quantize"));
    command.arg(checkpoint).arg(output).args(arguments).output().unwrap()
}

/// What becomes of an array's name and bytes; none drops it.
type Change<'a> = dyn Fn(&str, Vec<u8>) -> Option<(String, Vec<u8>)> + 'a;

/// A copy of the archive with other arrays: `change` gets each name and its bytes, and may rename or drop it.
fn rewrite(target: &Path, method: CompressionMethod, change: impl Fn(&str, Vec<u8>) -> Option<(String, Vec<u8>)>) {
    let source = std::fs::read(goldens().join("big-vision/checkpoint.npz")).unwrap();
    let archive = ZipArchive::from_slice(&source[..]).unwrap();
    let mut writer = ZipArchiveWriter::new(std::fs::File::create(target).unwrap());
    for header in archive.entries() {
        let header = header.unwrap();
        let packed = archive.get_entry(header.wayfinder()).unwrap().data();
        let mut bytes = packed.to_vec();
        if header.compression_method() == CompressionMethod::DEFLATE {
            bytes.clear();
            DeflateDecoder::new(packed).read_to_end(&mut bytes).unwrap();
        }
        let name = String::from_utf8(header.file_path().as_bytes().to_vec()).unwrap();
        if let Some((name, bytes)) = change(&name, bytes) {
            let (mut entry, config) = writer.new_file(&name).compression_method(method).start().unwrap();
            let output = if method == CompressionMethod::STORE {
                let mut stored = config.wrap(&mut entry);
                stored.write_all(&bytes).unwrap();
                stored.finish().unwrap().1
            } else {
                let mut deflated = config.wrap(DeflateEncoder::new(&mut entry, Compression::default()));
                deflated.write_all(&bytes).unwrap();
                let (encoder, output) = deflated.finish().unwrap();
                encoder.finish().unwrap();
                output
            };
            entry.finish(output).unwrap();
        }
    }
    writer.finish().unwrap();
}

#[test]
fn the_same_weights_become_the_same_file() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let packed = at("packed.npz");
    // Without the prefix of a training state, as published checkpoints are.
    rewrite(&packed, CompressionMethod::DEFLATE, |name, bytes| Some((name.replace("params/", ""), bytes)));
    let config = case();
    for kind in ["bf16", "q8_0", "q4_0"] {
        let run = convert(&case(), &at("expected.gguf"), &["--type", kind, "--force"]);
        assert!(run.status.success());
        let expected = std::fs::read(at("expected.gguf")).unwrap();
        for checkpoint in [&goldens().join("big-vision/checkpoint.npz"), &packed] {
            let arguments = ["--type", kind, "--force", "--config", config.to_str().unwrap()];
            let run = convert(checkpoint, &at("found.gguf"), &arguments);
            assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
            assert!(std::fs::read(at("found.gguf")).unwrap() == expected, "{kind}: {}", checkpoint.display());
        }
    }
    // Nothing that was unpacked stays.
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 3);
}

#[test]
fn an_embedding_without_the_later_tokens_is_filled_with_zeros() {
    let directory = tempfile::tempdir().unwrap();
    let (short, output) = (directory.path().join("short.npz"), directory.path().join("out.gguf"));
    rewrite(&short, CompressionMethod::STORE, |name, bytes| {
        if !name.contains("input_embedding") {
            return Some((name.to_owned(), bytes));
        }
        // 1856 rows become 1800; the header keeps its length.
        let header = String::from_utf8_lossy(&bytes[..128]).replace("(1856, 64)", "(1800, 64)");
        let mut shorter = bytes[..10].to_vec();
        shorter.extend_from_slice(&header.as_bytes()[header.len() - 118..]);
        shorter.extend_from_slice(&bytes[128..128 + 1800 * 64 * 2]);
        Some((name.to_owned(), shorter))
    });
    let run = convert(&short, &output, &["--type", "f32", "--config", case().to_str().unwrap()]);
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    let file = gemmule::gguf::GgufFile::open(&output).unwrap();
    let tensor = file.gguf().tensors().iter().find(|tensor| tensor.name == "token_embd.weight").unwrap();
    let rows = &file.bytes()[tensor.range.clone()];
    assert_eq!((tensor.dimensions.as_slice(), rows.len()), (&[64, 1856][..], 1856 * 64 * 4));
    assert!(
        rows[1800 * 256..].iter().all(|byte| *byte == 0) && rows[1799 * 256..1800 * 256].iter().any(|byte| *byte != 0)
    );
}

#[test]
fn checkpoints_that_do_not_fit_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let (bad, output) = (directory.path().join("bad.npz"), directory.path().join("out.gguf"));
    let check = |parts: &[&str], arguments: &[&str]| {
        let run = convert(&bad, &output, arguments);
        let message = String::from_utf8_lossy(&run.stderr);
        assert_eq!(run.status.code(), Some(1), "{message}");
        assert_eq!(message.trim_end().lines().count(), 1, "{message}");
        for part in parts {
            assert!(message.contains(part), "no '{part}' in: {message}");
        }
        assert!(!output.exists());
    };
    let config = case();
    let config = ["--config", config.to_str().unwrap()];
    let change = |method, change: &Change<'_>| rewrite(&bad, method, change);
    change(CompressionMethod::STORE, &|name, bytes| Some((name.to_owned(), bytes)));
    check(&["config.json"], &[]);
    change(CompressionMethod::STORE, &|name, bytes| (!name.contains("gating")).then(|| (name.to_owned(), bytes)));
    check(&["array 'params/llm/layers/mlp/gating_einsum'", "missing"], &config);
    for method in [CompressionMethod::STORE, CompressionMethod::DEFLATE] {
        change(method, &|name, mut bytes| {
            if name.contains("q_einsum") {
                bytes.truncate(bytes.len() - 2);
            }
            Some((name.to_owned(), bytes))
        });
        check(&["q_einsum/w'", "do not fit its shape [3, 4, 64, 16]"], &config);
    }
    // Another model's configuration.
    change(CompressionMethod::STORE, &|name, bytes| Some((name.to_owned(), bytes)));
    let other = goldens().join("window-f32");
    check(&["img/embedding/kernel", "has shape [14, 14, 3, 48]"], &["--config", other.to_str().unwrap()]);
    std::fs::write(&bad, b"PK\x03\x04 nothing").unwrap();
    check(&["not a sound .npz"], &config);
}
