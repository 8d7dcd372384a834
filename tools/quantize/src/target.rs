//! The files that a conversion writes.

use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

/// Where a model is written, and in which form.
#[derive(Clone, Debug)]
pub struct Target {
    path: PathBuf,
    split: bool,
    replace: bool,
}

impl Target {
    /// A new file.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), split: false, replace: false }
    }

    /// Whether to write the pair that llama.cpp's tools expect: `NAME.gguf` (text) and `NAME-mmproj.gguf` (vision).
    #[must_use]
    pub fn split(mut self, split: bool) -> Self {
        self.split = split;
        self
    }

    /// Whether GGUF files may be replaced.
    #[must_use]
    pub fn replace(mut self, replace: bool) -> Self {
        self.replace = replace;
        self
    }

    /// The directory that the files will lie in.
    pub(crate) fn directory(&self) -> &Path {
        gemmule_common::files::directory_of(&self.path)
    }

    /// The files: one, or the text half and the vision half.
    pub(crate) fn paths(&self) -> Result<Vec<PathBuf>> {
        let mut paths = vec![self.path.clone()];
        if self.split {
            let stem = self.path.file_stem().context("the output has no file name")?;
            paths.push(self.path.with_file_name(format!("{}-mmproj.gguf", stem.to_string_lossy())));
        }
        paths.into_iter().map(|path| checked_output(&path, self.replace)).collect()
    }
}

/// Where an output will lie. Only an empty file or a GGUF file may be replaced: no picture, no checkpoint.
///
/// # Errors
/// When something else is there, or a file that is not to be replaced.
pub fn checked_output(path: &Path, replace: bool) -> Result<PathBuf> {
    let path = gemmule_common::files::destination(path).with_context(|| path.display().to_string())?;
    if path.exists() {
        let mut start = Vec::new();
        let read = std::fs::File::open(&path).and_then(|file| file.take(4).read_to_end(&mut start));
        read.with_context(|| path.display().to_string())?;
        ensure!(
            start.is_empty() || start == b"GGUF",
            "{} exists, is no GGUF file and is not replaced: name another output, or remove it",
            path.display()
        );
        ensure!(replace, "{} exists already; --force replaces it", path.display());
    }
    Ok(path)
}
