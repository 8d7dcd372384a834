//! What commands print and write: results to stdout, notes to stderr.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use gemmule_common::files::{beside, destination, same_file};

/// Where long work is written, and what an interrupted run leaves for the next one.
pub(super) struct Resumable {
    /// What appears when all is done.
    pub(super) output: PathBuf,
    /// What is done so far.
    pub(super) partial: PathBuf,
    /// Notes for a run that goes on.
    pub(super) journal: PathBuf,
}

impl Resumable {
    /// # Errors
    /// When one of the files is among the `inputs`, or the output exists and is not to be replaced.
    pub(super) fn new<'a>(path: &Path, inputs: impl Iterator<Item = &'a Path>, replace: bool) -> Result<Self> {
        let output = destination(path).with_context(|| path.display().to_string())?;
        let partial = beside(&output, ".partial");
        let journal = beside(&partial, ".journal");
        for input in inputs {
            let written = [&output, &partial, &journal].into_iter().find(|written| same_file(input, written));
            if let Some(written) = written {
                bail!("{} is read, too: name another --output", written.display());
            }
        }
        ensure!(replace || !output.exists(), "{} exists already; --force replaces it", output.display());
        Ok(Self { output, partial, journal })
    }
}

/// Whether the reader of stdout has closed it, which is no failure.
pub(super) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

/// Prints one JSON object on a line of stdout.
pub(super) fn print_json(value: &serde_json::Value) -> Result<()> {
    let mut out = std::io::stdout().lock();
    serde_json::to_writer(&mut out, value).map_err(std::io::Error::from)?;
    writeln!(out)?;
    Ok(out.flush()?)
}

/// Prints a line of text to stdout.
pub(super) fn print_line(text: &str) -> Result<()> {
    Ok(writeln!(std::io::stdout(), "{text}")?)
}

/// Prints a line to stderr; that it cannot be written is no failure.
pub(super) fn print_note(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}
