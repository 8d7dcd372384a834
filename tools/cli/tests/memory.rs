//! Memory that is short: rows and frames fail, programs end, and nothing waits for ever.
#![cfg(target_os = "linux")]

mod support;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use support::ROOT;

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
    ends(command, input)
}

/// What a program that ends by itself says.
fn ends(mut command: Command, input: &[u8]) -> Output {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // It may end before it has read everything.
    let _ = child.stdin.take().unwrap().write_all(input);
    let started = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if started.elapsed() > Duration::from_secs(60) {
            let _ = child.kill();
            panic!("it waits for ever: {command:?}");
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
    let small = Path::new(ROOT).join("examples/pictures/shape.png");
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

/// A small picture, and a row about it.
fn small(folder: &Path) -> (String, PathBuf) {
    let picture = format!("{ROOT}/examples/pictures/shape.png");
    let rows = folder.join("small.jsonl");
    std::fs::write(&rows, serde_json::json!({ "image": picture, "prompt": "caption en", "answer": "x" }).to_string())
        .unwrap();
    (picture, rows)
}

/// All commands that answer, about a picture and rows.
fn commands<'a>(picture: &'a str, rows: &'a str, out: &'a str) -> [Vec<&'a str>; 7] {
    [
        vec!["run", "-i", picture, "-p", "caption en"],
        vec!["batch", rows, "-o", out, "--force"],
        vec!["eval", rows, "--metric", "exact"],
        vec!["score", "-i", picture, "-p", "caption en", "--choice", "a", "--choice", "b"],
        vec!["embed", "-i", picture, "-o", out],
        vec!["trace", "-i", picture, "-p", "caption en", "-o", out],
        vec!["watch", "-", "-p", "caption en"],
    ]
}

/// A stream of one frame.
fn frames(width: usize, height: usize) -> Vec<u8> {
    let mut frames = format!("YUV4MPEG2 W{width} H{height} C420\nFRAME\n").into_bytes();
    frames.resize(frames.len() + width * height * 3 / 2, 128);
    frames
}

/// Kilobytes below which Rust's library itself gives up, as it starts threads.
const LEAST: u64 = 36_000;

/// Whatever the limit, each command ends by itself, and says why; with an exit code of its own where it gets so far.
#[test]
fn every_command_ends_under_every_limit() {
    let folder = tempfile::tempdir().unwrap();
    let large = large_picture(folder.path());
    let large = large.to_str().unwrap();
    let rows = folder.path().join("rows.jsonl");
    std::fs::write(&rows, serde_json::json!({ "image": large, "prompt": "caption en", "answer": "x" }).to_string())
        .unwrap();
    let (picture, small_rows) = small(folder.path());
    let out = folder.path().join("out");
    let (rows, small_rows, out) = (rows.to_str().unwrap(), small_rows.to_str().unwrap(), out.to_str().unwrap());
    let limits = [22_000, 28_000, LEAST, 40_000, 44_000, 60_000, 80_000, 120_000, 160_000, 240_000, 400_000];
    for (commands, frames) in
        [(commands(large, rows, out), frames(4000, 3000)), (commands(&picture, small_rows, out), frames(40, 30))]
    {
        for command in commands {
            for kilobytes in limits {
                let output = run(kilobytes, &command, if command[0] == "watch" { &frames } else { b"" });
                let told = message(&output);
                let is_own = output.status.code().is_some_and(|code| code < 3);
                assert!(is_own || kilobytes < LEAST, "{command:?} {kilobytes}: {told}");
                assert!(output.status.success() || !told.is_empty(), "{command:?} {kilobytes}: {}", output.status);
            }
        }
    }
}

/// The same with few files and few threads, the latter where this is root: others' processes would count, too.
#[test]
fn every_command_ends_with_few_files_and_threads() {
    let folder = tempfile::tempdir().unwrap();
    // The commands below run as nobody.
    std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let (picture, rows) = small(folder.path());
    let out = folder.path().join("out");
    let frames = frames(40, 30);
    let program = env!("CARGO_BIN_EXE_gemmule");
    let with = |arguments: &[&str]| {
        let mut command = Command::new(arguments[0]);
        command.args(&arguments[1..]);
        command
    };
    let as_nobody = ["setpriv", "--reuid=65534", "--clear-groups"];
    let is_root =
        with(&[&as_nobody[..], &[program, "--version"]].concat()).output().is_ok_and(|run| run.status.success());
    if !is_root {
        println!("not run: limits on threads, which need setpriv and a program that nobody may run");
    }
    for command in commands(&picture, rows.to_str().unwrap(), out.to_str().unwrap()) {
        let input: &[u8] = if command[0] == "watch" { &frames } else { b"" };
        let check = |limit: String, mut shell: Command| {
            shell.args(&command);
            let output = ends(shell, input);
            let told = message(&output);
            assert!(output.status.code().is_some_and(|code| code < 3), "{command:?} {limit}: {told}");
            assert!(output.status.success() || !told.is_empty(), "{command:?} {limit}: {}", output.status);
        };
        for files in [4, 5, 6, 8, 12] {
            check(format!("{files} files"), with(&["prlimit", &format!("--nofile={files}"), program]));
        }
        // A file that may not grow so far is an error, and leaves nothing behind.
        for bytes in [0, 1000, 20_000] {
            let _ = std::fs::remove_file(&out);
            check(format!("files of {bytes} bytes"), with(&["prlimit", &format!("--fsize={bytes}"), program]));
            let left = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name());
            let left: Vec<_> = left.filter(|name| name.to_string_lossy().starts_with('.')).collect();
            assert!(left.is_empty(), "{command:?} with files of {bytes} bytes leaves {left:?}");
        }
        for threads in if is_root { 1..7 } else { 0..0 } {
            let limit = format!("--nproc={threads}");
            check(format!("{threads} threads"), with(&[&as_nobody[..], &["prlimit", &limit, program]].concat()));
        }
    }
}
