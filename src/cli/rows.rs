//! Files of rows, one JSON object on each line, that ask about pictures.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::Scope;

use anyhow::{Context, Result, ensure};
use gemmule::{Picture, Session};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Deserialize;
use serde_json::Value;

/// Longest line, in bytes.
const LONGEST_LINE: u64 = 1 << 20;

/// What a row asks.
#[derive(Deserialize)]
pub(super) struct Row {
    image: Option<PathBuf>,
    #[serde(default)]
    images: Vec<PathBuf>,
    pub(super) prompt: String,
    pub(super) max_tokens: Option<usize>,
}

impl Row {
    fn paths(&self, directory: &Path) -> Result<Vec<PathBuf>> {
        ensure!(self.image.is_some() == self.images.is_empty(), "give either \"image\" or \"images\"");
        Ok(self.image.iter().chain(&self.images).map(|path| directory.join(path)).collect())
    }
}

/// A row with its pictures.
pub(super) struct Work {
    pub(super) row: Row,
    pub(super) pictures: Arc<Vec<Picture>>,
    /// The pictures are those of the row before.
    same: bool,
}

/// A line as JSON, and what it asks.
pub(super) type Asked = (Value, Result<Work>);

/// The lines of a file that are not blank; an error is the last.
pub(super) fn lines(path: &Path) -> Result<impl Iterator<Item = Result<Vec<u8>>>> {
    let context = || path.display().to_string();
    let file = File::open(path).with_context(context)?;
    // It is read twice: to count, then to answer.
    let regular = file.metadata().with_context(context)?.is_file();
    ensure!(regular, "{}: it is no regular file; write the rows to one", path.display());
    let mut reader = BufReader::new(file);
    let mut failed = false;
    let mut next = move || -> Result<Option<Vec<u8>>> {
        loop {
            let mut line = Vec::new();
            (&mut reader).take(LONGEST_LINE).read_until(b'\n', &mut line)?;
            ensure!((line.len() as u64) < LONGEST_LINE, "a line has {LONGEST_LINE} bytes or more");
            if line.is_empty() || !line.trim_ascii().is_empty() {
                return Ok(Some(line).filter(|line| !line.is_empty()));
            }
        }
    };
    let path = path.to_owned();
    Ok(std::iter::from_fn(move || {
        let line = if failed { None } else { next().with_context(|| path.display().to_string()).transpose() };
        failed = matches!(line, Some(Err(_)));
        line
    }))
}

/// The number of rows, which is not zero.
pub(super) fn count(path: &Path) -> Result<usize> {
    let count = lines(path)?.try_fold(0, |count, line| line.map(|_| count + 1))?;
    ensure!(count > 0, "{}: it has no rows", path.display());
    Ok(count)
}

/// A progress bar over rows.
pub(super) fn progress(total: usize, done: usize) -> Result<ProgressBar> {
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {per_sec} {eta} left  {msg}")?;
    let bar = ProgressBar::new(total as u64).with_style(style).with_position(done as u64);
    bar.reset_eta();
    Ok(bar)
}

/// A line as JSON, or as a string where it is none.
pub(super) fn as_value(line: &[u8]) -> Value {
    serde_json::from_slice(line).unwrap_or_else(|_| String::from_utf8_lossy(line).trim_end().into())
}

/// Reads the rows of a file from row `first` on in a thread of `scope`, so that one row's pictures are decoded while the row
/// before is answered.
pub(super) fn read<'scope, 'env>(
    scope: &'scope Scope<'scope, 'env>,
    path: &'env Path,
    first: usize,
) -> Result<Receiver<Asked>> {
    let (lines, directory) = (lines(path)?.skip(first), path.parent().unwrap_or(Path::new("")));
    let (send, receive) = sync_channel(1);
    scope.spawn(move || {
        let mut last: Option<(Vec<PathBuf>, Arc<Vec<Picture>>)> = None;
        for line in lines {
            let input = line.as_ref().map_or(Value::Null, |line| as_value(line));
            // Nobody takes more rows: the work has failed.
            if send.send((input, line.and_then(|line| ask(&line, directory, &mut last)))).is_err() {
                return;
            }
        }
    });
    Ok(receive)
}

fn ask(line: &[u8], directory: &Path, last: &mut Option<(Vec<PathBuf>, Arc<Vec<Picture>>)>) -> Result<Work> {
    let row: Row =
        serde_json::from_slice(line).context("not a row such as {\"image\": \"a.jpg\", \"prompt\": \"caption en\"}")?;
    let paths = row.paths(directory)?;
    if let Some((_, pictures)) = last.as_ref().filter(|(known, _)| *known == paths) {
        return Ok(Work { row, pictures: Arc::clone(pictures), same: true });
    }
    *last = None;
    let pictures = paths.iter().map(|path| Picture::open(path)).collect::<gemmule::Result<_>>()?;
    let pictures = Arc::new(pictures);
    *last = Some((paths, Arc::clone(&pictures)));
    Ok(Work { row, pictures, same: false })
}

/// A session that shows a row's pictures unless it shows them already.
pub(super) struct Shown<'m> {
    pub(super) session: Session<'m>,
    is_shown: bool,
}

impl<'m> Shown<'m> {
    pub(super) fn new(session: Session<'m>) -> Self {
        Self { session, is_shown: false }
    }

    pub(super) fn show(&mut self, work: &Work) -> Result<&mut Session<'m>> {
        if !(work.same && self.is_shown) {
            self.is_shown = false;
            self.session.show(&work.pictures)?;
            self.is_shown = true;
        }
        Ok(&mut self.session)
    }
}
