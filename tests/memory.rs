//! Memory that is short: rows and frames fail, programs end, and nothing waits for ever.
#![cfg(target_os = "linux")]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// A PNG file of a few kilobytes whose 108 million pixels take 108 MB, and 324 MB as RGB.
fn large_picture(folder: &Path) -> PathBuf {
    let path = folder.join("large.png");
    let (width, height) = (12_000, 9_000);
    let pixels = image::GrayImage::from_pixel(width, height, image::Luma([255]));
    pixels.save(&path).unwrap();
    assert!(std::fs::metadata(&path).unwrap().len() < 1_000_000);
    path
}

/// Runs the program with so many kilobytes of addresses. Backtraces take memory, and once made the program wait for itself.
fn run(kilobytes: u64, arguments: &[&str], input: &[u8]) -> Output {
    let mut command = Command::new("sh");
    command.arg("-c").arg(format!("ulimit -v {kilobytes}; exec \"$0\" \"$@\"")).arg(env!("CARGO_BIN_EXE_gemmule"));
    command.args(arguments).args(["-t", "2"]).env("RUST_BACKTRACE", "1");
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // It may end before it has read everything.
    let _ = child.stdin.take().unwrap().write_all(input);
    let started = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if started.elapsed() > Duration::from_secs(60) {
            let _ = child.kill();
            panic!("it waits for ever: {arguments:?} with {kilobytes} kB");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    child.wait_with_output().unwrap()
}

fn message(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_picture_that_needs_more_memory_than_there_is_fails() {
    let folder = tempfile::tempdir().unwrap();
    let large = large_picture(folder.path());
    let large = large.to_str().unwrap();
    let output = run(300_000, &["run", "-i", large, "-p", "caption en"], b"");
    let told = message(&output);
    assert!(output.status.code() == Some(1) && told.contains("432 MB, more memory than there is"), "{told}");
    // In a batch a row, in a stream a frame; the others are answered.
    let small = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/pictures/shape.png");
    let (rows, out) = (folder.path().join("rows.jsonl"), folder.path().join("out.jsonl"));
    let row = |path: &str| serde_json::json!({ "image": path, "prompt": "caption en" }).to_string();
    let small = small.to_str().unwrap();
    std::fs::write(&rows, [row(small), row(large), row(small)].join("\n")).unwrap();
    let output = run(300_000, &["batch", rows.to_str().unwrap(), "-o", out.to_str().unwrap()], b"");
    assert!(output.status.code() == Some(1) && message(&output).contains("1 of 3 rows failed"), "{}", message(&output));
    let lines = std::fs::read_to_string(out).unwrap();
    let lines: Vec<serde_json::Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines[0]["text"] == "a yellow circle" && lines[2]["text"] == "a yellow circle", "{lines:?}");
    assert!(lines[1]["error"].as_str().unwrap().contains("more memory than there is"));
}

/// Whatever the limit, each command ends by itself, and says why.
#[test]
fn every_command_ends_under_every_limit() {
    let folder = tempfile::tempdir().unwrap();
    let large = large_picture(folder.path());
    let large = large.to_str().unwrap();
    let rows = folder.path().join("rows.jsonl");
    std::fs::write(&rows, serde_json::json!({ "image": large, "prompt": "caption en", "answer": "x" }).to_string())
        .unwrap();
    let (rows, out) = (rows.to_str().unwrap(), folder.path().join("out"));
    let out = out.to_str().unwrap();
    let mut frames = b"YUV4MPEG2 W4000 H3000 C420\n".to_vec();
    frames.extend_from_slice(b"FRAME\n");
    frames.resize(frames.len() + 4000 * 3000 * 3 / 2, 128);
    let commands: [&[&str]; 7] = [
        &["run", "-i", large, "-p", "caption en"],
        &["batch", rows, "-o", out, "--force"],
        &["eval", rows, "--metric", "exact"],
        &["score", "-i", large, "-p", "caption en", "--choice", "a", "--choice", "b"],
        &["embed", "-i", large, "-o", out],
        &["trace", "-i", large, "-p", "caption en", "-o", out],
        &["watch", "-", "-p", "caption en"],
    ];
    for command in commands {
        for kilobytes in [40_000, 60_000, 80_000, 120_000, 160_000, 240_000, 400_000] {
            let output = run(kilobytes, command, if command[0] == "watch" { &frames } else { b"" });
            assert!(output.status.success() || !output.stderr.is_empty(), "{command:?} {kilobytes}: {}", output.status);
        }
    }
}
