//! Files of rows, one JSON object on each line, that ask about pictures.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::{Scope, ScopedJoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use gemmule::{CancelHandle, Picture, Session};
use gemmule_common::platform::open_at_once;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Deserialize;
use serde_json::Value;

/// Longest line, in bytes.
const LONGEST_LINE: u64 = 1 << 20;

/// What a row asks.
pub(super) struct Row {
    images: Vec<PathBuf>,
    pub(super) prompt: String,
    pub(super) max_tokens: Option<usize>,
}

/// A row's keys that count; each may be there once.
#[derive(Deserialize)]
struct Keys {
    image: Option<Value>,
    images: Option<Value>,
    prompt: Option<Value>,
    /// The prompt's name in big_vision's data.
    prefix: Option<Value>,
    max_tokens: Option<Value>,
}

impl Row {
    /// # Errors
    /// Which key is wrong, and how.
    fn read(text: &[u8]) -> Result<Self> {
        ensure!(text.starts_with(b"{"), "it is no JSON object");
        let keys: Keys =
            serde_json::from_slice(text).map_err(|error| match error.to_string().split_once("duplicate field") {
                Some((_, rest)) => anyhow::anyhow!("{} is there twice", rest.split('`').nth(1).unwrap_or("a key")),
                None => anyhow::anyhow!("it is no JSON: {error}"),
            })?;
        let path = |key: &str, value: Value| match value {
            Value::String(path) if !path.is_empty() => Ok(PathBuf::from(path)),
            value => bail!("\"{key}\" is {value}, no path of a picture"),
        };
        let images = keys.images.filter(|images| images.as_array().is_none_or(|list| !list.is_empty()));
        let images = match (keys.image, images) {
            (Some(image), None) => vec![path("image", image)?],
            (None, Some(Value::Array(list))) => {
                list.into_iter().map(|image| path("images", image)).collect::<Result<_>>()?
            }
            (None, Some(value)) => bail!("\"images\" is {value}, no list of paths"),
            _ => bail!("give either \"image\" or \"images\""),
        };
        let prompt = match (keys.prompt, keys.prefix) {
            (Some(Value::String(prompt)), None) | (None, Some(Value::String(prompt))) => prompt,
            (Some(value), None) | (None, Some(value)) => bail!("\"prompt\" is {value}, no text"),
            (None, None) => bail!("\"prompt\" is missing"),
            (Some(_), Some(_)) => bail!("give either \"prompt\" or \"prefix\""),
        };
        let count = |value: Value| match value.as_u64().and_then(|count| usize::try_from(count).ok()) {
            Some(count) => Ok(count),
            None => bail!("\"max_tokens\" is {value}, no number of tokens"),
        };
        Ok(Self { images, prompt, max_tokens: keys.max_tokens.map(count).transpose()? })
    }

    pub(super) fn paths(&self, directory: &Path) -> Vec<PathBuf> {
        self.images.iter().map(|path| directory.join(path)).collect()
    }
}

/// A row with its pictures.
pub(super) struct Work {
    pub(super) row: Row,
    pub(super) pictures: Arc<Vec<Picture>>,
}

/// A line as JSON, and what it asks.
pub(super) type Asked = (Value, Result<Work>);

/// The right answers that a row brings; none where it brings none.
///
/// # Errors
/// When they are no texts.
pub(super) fn answers(row: &Value) -> Result<Option<Vec<String>>> {
    // big_vision's data calls it the suffix.
    let given = |key: &&'static str| Some((*key, row.get(key).filter(|given| !given.is_null())?));
    let given = ["answers", "answer", "suffix"].iter().find_map(given);
    let Some((key, given)) = given else { return Ok(None) };
    let list = if key == "answers" { given.as_array().map(Vec::as_slice) } else { Some(std::slice::from_ref(given)) };
    let texts = list.and_then(|list| list.iter().map(|answer| answer.as_str().map(str::to_owned)).collect());
    let texts = texts.filter(|texts: &Vec<String>| !texts.is_empty());
    texts.with_context(|| format!("\"{key}\" is {given}: {WANTED_ANSWERS}")).map(Some)
}

/// How a row gives its right answers.
pub(super) const WANTED_ANSWERS: &str = "\"answers\" must be a list of texts, or \"answer\" (or \"suffix\") a text";

/// A line of a file of rows, without its end.
pub(super) enum Line {
    /// What it says.
    Text(Vec<u8>),
    /// The line was longer than a row may be, and was skipped.
    TooLong,
}

impl Line {
    /// The line as JSON, or as a string where it is none.
    pub(super) fn value(&self) -> Value {
        match self {
            Self::Text(text) => serde_json::from_slice(text).unwrap_or_else(|_| String::from_utf8_lossy(text).into()),
            Self::TooLong => Value::Null,
        }
    }

    /// The line as a row; an error where it is none.
    pub(super) fn row(&self) -> Result<Row> {
        let Self::Text(text) = self else {
            bail!("the line has {LONGEST_LINE} bytes or more: name pictures by their paths, and shorten the prompt")
        };
        Row::read(text).context("not a row such as {\"image\": \"a.jpg\", \"prompt\": \"caption en\"}")
    }
}

/// The lines of a file that are not blank.
pub(super) struct Lines {
    reader: BufReader<File>,
    path: PathBuf,
    is_first: bool,
    count: usize,
    sum: crc32fast::Hasher,
}

/// A file as it was when it was read.
#[derive(Clone, Copy, PartialEq)]
pub(super) struct Seen {
    /// Its rows.
    pub(super) count: usize,
    sum: u32,
}

impl std::fmt::Display for Seen {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{}-{:08x}", self.count, self.sum)
    }
}

impl Lines {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let context = || path.display().to_string();
        let file = File::open(path).with_context(context)?;
        // It is read twice: to count, then to answer.
        let regular = file.metadata().with_context(context)?.is_file();
        ensure!(regular, "{}: it is no regular file; write the rows to one", path.display());
        let mut reader = BufReader::new(file);
        skip_mark(&mut reader).with_context(context)?;
        Ok(Self { reader, path: path.to_owned(), is_first: true, count: 0, sum: crc32fast::Hasher::new() })
    }

    /// The next line; none at the end.
    ///
    /// # Errors
    /// When the file cannot be read, or does not hold rows.
    pub(super) fn next(&mut self) -> Result<Option<Line>> {
        let line = self.read().with_context(|| self.path.display().to_string())?;
        self.count += usize::from(line.is_some());
        Ok(line)
    }

    fn read(&mut self) -> Result<Option<Line>> {
        loop {
            let mut line = Vec::new();
            (&mut self.reader).take(LONGEST_LINE).read_until(b'\n', &mut line)?;
            self.sum.update(&line);
            if line.len() as u64 == LONGEST_LINE && !line.ends_with(b"\n") {
                self.reader.skip_until(b'\n')?;
                return Ok(Some(Line::TooLong));
            }
            if line.is_empty() {
                return Ok(None);
            }
            let text = line.trim_ascii();
            if text.is_empty() {
                continue;
            }
            let is_array = std::mem::take(&mut self.is_first) && text.starts_with(b"[");
            ensure!(!is_array, "it is a JSON array; write one object on each line, as `jq -c '.[]'` does");
            return Ok(Some(Line::Text(text.to_owned())));
        }
    }

    /// What was read so far.
    pub(super) fn seen(&self) -> Seen {
        Seen { count: self.count, sum: self.sum.clone().finalize() }
    }
}

/// Reads a file of rows once; an error where it has none.
pub(super) fn look_at(path: &Path) -> Result<Seen> {
    look(path, |_| Ok(()))
}

/// Reads a file of rows once, with a check of each.
fn look(path: &Path, check: impl Fn(&Line) -> Result<()>) -> Result<Seen> {
    let mut lines = Lines::open(path)?;
    while let Some(line) = lines.next()? {
        check(&line).with_context(|| format!("{}: row {}", path.display(), lines.seen().count - 1))?;
    }
    let seen = lines.seen();
    ensure!(seen.count > 0, "{}: it has no rows", path.display());
    Ok(seen)
}

/// As [`look_at`]; an error, too, where a row asks nothing, names a picture that is not there, or has right answers that are no texts: for work
/// that a wrong row ends.
pub(super) fn look_at_all(path: &Path) -> Result<Seen> {
    let directory = path.parent().unwrap_or(Path::new(""));
    look(path, |line| {
        for picture in line.row()?.paths(directory) {
            picture.metadata().with_context(|| picture.display().to_string())?;
        }
        answers(&line.value()).map(drop)
    })
}

/// Whether a row is about the pictures of the row before it.
pub(super) fn is_about_the_same(path: &Path, row: usize) -> Result<bool> {
    let mut lines = Lines::open(path)?;
    let mut before = None;
    for index in 0..=row {
        let Some(line) = lines.next()? else { return Ok(false) };
        if index + 1 >= row {
            let images = line.row()?.images;
            if index == row {
                return Ok(before == Some(images));
            }
            before = Some(images);
        }
    }
    Ok(false)
}

/// Skips the byte order mark that some editors put before UTF-8; an error for UTF-16.
fn skip_mark(reader: &mut impl BufRead) -> Result<()> {
    let start = reader.fill_buf()?;
    ensure!(
        !start.starts_with(&[0xff, 0xfe]) && !start.starts_with(&[0xfe, 0xff]),
        "it is UTF-16; save it as UTF-8, as `iconv -f utf-16 -t utf-8` does"
    );
    let mark = if start.starts_with(b"\xef\xbb\xbf") { 3 } else { 0 };
    reader.consume(mark);
    Ok(())
}

/// A progress bar over rows.
pub(super) fn progress(total: usize, done: usize) -> Result<ProgressBar> {
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {per_sec} {eta} left  {msg}")?;
    let bar = ProgressBar::new(total as u64).with_style(style).with_position(done as u64);
    bar.reset_eta();
    Ok(bar)
}

/// Which rows are read, and how.
pub(super) struct Reading<'a> {
    pub(super) path: &'a Path,
    /// The file as it was when it was looked at.
    pub(super) seen: Seen,
    /// The first row that is wanted.
    pub(super) first: usize,
    /// Damaged pictures are refused.
    pub(super) strict: bool,
    /// Who is told before a row's pictures are read, and after.
    pub(super) watcher: &'a (dyn Watcher + Sync),
}

/// Who is told of pictures that are read.
pub(super) trait Watcher {
    /// A row's pictures are about to be read.
    fn reads(&self, _row: usize, _paths: &[PathBuf]) -> Result<Told> {
        Ok(Told::Go)
    }

    /// They have been.
    fn has(&self, _row: usize) -> Result<()> {
        Ok(())
    }
}

/// What a watcher says of a row.
pub(super) enum Told {
    Go,
    /// The row fails without being asked.
    Fail(String),
}

/// A watcher that does nothing.
pub(super) struct Nobody;

impl Watcher for Nobody {}

/// Rows that are read in a thread of their own.
pub(super) struct Rows<'scope> {
    asked: Receiver<Asked>,
    end: ScopedJoinHandle<'scope, Result<()>>,
}

impl Rows<'_> {
    /// The next row; none when there are no more, they cannot be read, or `stop` is set.
    pub(super) fn next(&self, stop: &CancelHandle) -> Option<Asked> {
        // A signal does not wake us.
        const LOOK: Duration = Duration::from_millis(50);
        loop {
            match self.asked.recv_timeout(LOOK) {
                _ if stop.is_cancelled() => return None,
                Ok(asked) => return Some(asked),
                Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    /// Ends reading.
    ///
    /// # Errors
    /// When the rows could not be read to their end, or are not those that were looked at.
    pub(super) fn finish(self) -> Result<()> {
        drop(self.asked);
        self.end.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

/// Reads rows in a thread of `scope`, so that one row's pictures are decoded while the row before is answered.
pub(super) fn read<'scope, 'env>(scope: &'scope Scope<'scope, 'env>, reading: Reading<'env>) -> Result<Rows<'scope>> {
    let lines = Lines::open(reading.path)?;
    let (send, asked) = sync_channel(1);
    let end = std::thread::Builder::new()
        .spawn_scoped(scope, move || reading.run(lines, &send))
        .context("cannot start a thread that reads the pictures")?;
    Ok(Rows { asked, end })
}

impl Reading<'_> {
    fn run(&self, mut lines: Lines, send: &SyncSender<Asked>) -> Result<()> {
        let directory = self.path.parent().unwrap_or(Path::new(""));
        let mut last = None;
        for index in 0..self.seen.count {
            let Some(line) = lines.next()? else { break };
            if index < self.first {
                continue;
            }
            let row = line.row();
            let asked = match row {
                Ok(row) => self.ask(index, row, directory, &mut last)?,
                Err(error) => Err(error),
            };
            // Nobody takes more rows: the work has ended.
            if send.send((line.value(), asked)).is_err() {
                return Ok(());
            }
        }
        while lines.next()?.is_some() {}
        ensure!(
            lines.seen() == self.seen,
            "{} changed while its rows were answered: do not change it meanwhile, and begin anew",
            self.path.display()
        );
        Ok(())
    }

    /// A row with its pictures, or why it fails.
    fn ask(&self, index: usize, row: Row, directory: &Path, last: &mut Option<Pictures>) -> Result<Result<Work>> {
        let paths = row.paths(directory);
        if let Some(known) = last.as_ref().filter(|known| known.paths == paths) {
            return Ok(Ok(Work { row, pictures: Arc::clone(&known.pictures) }));
        }
        *last = None;
        if let Told::Fail(reason) = self.watcher.reads(index, &paths)? {
            return Ok(Err(anyhow::anyhow!(reason)));
        }
        let pictures = self.open(&paths);
        self.watcher.has(index)?;
        Ok(pictures.map(|pictures| {
            let pictures = Arc::new(pictures);
            *last = Some(Pictures { paths, pictures: Arc::clone(&pictures) });
            Work { row, pictures }
        }))
    }

    fn open(&self, paths: &[PathBuf]) -> Result<Vec<Picture>> {
        let pictures = paths.iter().map(|path| open_regular(path)).collect::<Result<Vec<_>>>()?;
        for (picture, path) in pictures.iter().zip(paths) {
            if let (true, Some(reason)) = (self.strict, picture.damage()) {
                bail!("{}: it is damaged: {reason}", path.display());
            }
        }
        Ok(pictures)
    }
}

/// The pictures of the row before.
struct Pictures {
    paths: Vec<PathBuf>,
    pictures: Arc<Vec<Picture>>,
}

/// Opens a picture that is a regular file, or a link to one. Anything else of that name (a pipe, a device) might never send a byte, and
/// waiting for it could not be interrupted.
pub(super) fn open_regular(path: &Path) -> Result<Picture> {
    let Ok(file) = open_at_once(path) else {
        return Ok(Picture::open(path)?);
    };
    let kind = file.metadata().with_context(|| path.display().to_string())?;
    ensure!(kind.is_file() || kind.is_dir(), "{}: it is no regular file, and so no picture here", path.display());
    Ok(Picture::open(path)?)
}

/// A session that shows a row's pictures unless it shows them already.
pub(super) struct Shown {
    pub(super) session: Session,
    shown: Option<Arc<Vec<Picture>>>,
}

impl Shown {
    pub(super) fn new(session: Session) -> Self {
        Self { session, shown: None }
    }

    pub(super) fn show(&mut self, work: &Work) -> Result<&mut Session> {
        if !self.shown.as_ref().is_some_and(|shown| Arc::ptr_eq(shown, &work.pictures)) {
            self.shown = None;
            self.session.show(&work.pictures)?;
            self.shown = Some(Arc::clone(&work.pictures));
        }
        Ok(&mut self.session)
    }
}
