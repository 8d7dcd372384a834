//! The program, run as a user runs it.
#![allow(dead_code)] // Each test program uses some of it.

use std::process::{Command, Output};

/// The repository.
pub(crate) const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// The picture that the examples are about.
pub(crate) const PICTURE: &str = "examples/pictures/shape.png";

/// Runs the program in the repository's folder.
pub(crate) fn gemmule(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_gemmule")).args(arguments).current_dir(ROOT).output().unwrap()
}

/// What a run that succeeded printed.
#[track_caller]
pub(crate) fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// The values of lines of JSON.
pub(crate) fn json_lines(text: &str) -> Vec<serde_json::Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Exit code 1, nothing on stdout, one line on stderr that names what matters.
#[track_caller]
pub(crate) fn assert_fails(arguments: &[&str], parts: &[&str]) {
    let output = gemmule(arguments);
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(output.stdout.is_empty());
    assert_eq!(message.trim_end().lines().count(), 1, "{message}");
    for part in parts {
        assert!(message.contains(part), "no '{part}' in: {message}");
    }
}
