//! A small checkpoint whose files a test changes.

// Each of the tests that include this uses what it needs.
#![allow(dead_code)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use gemmule::Model;
use gemmule::config::Config;
use serde_json::{Value, json};

/// A checkpoint that a test may change, all of whose files are links but those that are written.
pub(crate) struct Checkpoint {
    pub(crate) directory: tempfile::TempDir,
}

impl Checkpoint {
    pub(crate) fn new(case: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let source =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/goldens").join(case).canonicalize().unwrap();
        for entry in std::fs::read_dir(source).unwrap() {
            let entry = entry.unwrap();
            std::os::unix::fs::symlink(entry.path(), directory.path().join(entry.file_name())).unwrap();
        }
        Self { directory }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        let _ = std::fs::remove_file(self.path(name));
        std::fs::write(self.path(name), bytes).unwrap();
    }

    pub(crate) fn json(&self, name: &str) -> Value {
        std::fs::read(self.path(name)).map_or_else(|_| json!({}), |bytes| serde_json::from_slice(&bytes).unwrap())
    }

    /// Sets a key, by a pointer.
    pub(crate) fn set(&self, name: &str, pointer: &str, value: Value) {
        let mut json = self.json(name);
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        json.pointer_mut(parent).unwrap()[key] = value;
        self.write(name, json.to_string());
    }

    pub(crate) fn convert(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gemmule-quantize"));
        let output = self.path("model.gguf");
        command
            .arg(self.directory.path())
            .arg(output)
            .args(["--type", "f32", "--force"])
            .args(arguments)
            .output()
            .unwrap()
    }

    #[track_caller]
    pub(crate) fn model(&self, arguments: &[&str]) -> (Model, String) {
        let run = self.convert(arguments);
        let message = String::from_utf8_lossy(&run.stderr).into_owned();
        assert!(run.status.success(), "{message}");
        (Model::open(self.path("model.gguf")).unwrap(), message)
    }

    #[track_caller]
    pub(crate) fn config(&self) -> (Config, String) {
        let (model, message) = self.model(&[]);
        (model.config().clone(), message)
    }

    #[track_caller]
    pub(crate) fn fails(&self, parts: &[&str]) {
        let run = self.convert(&[]);
        let message = String::from_utf8_lossy(&run.stderr);
        assert_eq!(run.status.code(), Some(1), "{message}");
        let last = message.trim_end().lines().last().unwrap_or_default();
        for part in parts {
            assert!(last.contains(part), "no '{part}' in: {message}");
        }
        assert!(!last.contains("Some(") && !last.contains("panicked"), "{message}");
    }
}
