//! A batch's notes beside its answers, which tell whether a later run may go on: what the answers depend on, which pictures each row was
//! answered about, and which row is being answered.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::UNIX_EPOCH;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// How often the program may die while it answers one row; after that the row fails.
const DEATHS: usize = 2;

/// One line.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Line {
    /// What a run was begun with.
    Settings(Value),
    /// The pictures of a row are read.
    Reads(usize),
    /// The pictures of a row have been read, and what they were.
    Has(usize, Vec<Option<Stamp>>),
    /// A row is answered.
    Asks(usize),
    /// A run has ended in order.
    Ended(()),
}

/// What identifies a picture file. Files that cannot be read twice, such as pipes, have none.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Stamp {
    bytes: u64,
    /// When it was changed, in nanoseconds since 1970.
    changed: u64,
    crc32: u32,
}

impl Stamp {
    /// The stamp of a file; none for one that cannot be read twice.
    pub(super) fn of(path: &Path) -> Option<Self> {
        let (bytes, changed) = Self::outside(path)?;
        Some(Self { bytes, changed, crc32: crc32fast::hash(&std::fs::read(path).ok()?) })
    }

    fn outside(path: &Path) -> Option<(u64, u64)> {
        let file = std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file)?;
        let changed = file.modified().ok()?.duration_since(UNIX_EPOCH).unwrap_or_default();
        Some((file.len(), changed.as_nanos() as u64))
    }

    /// Whether a file is still the same. Its contents are read only where it may be another.
    fn is_of(&self, path: &Path) -> bool {
        Self::outside(path) == Some((self.bytes, self.changed))
            || Self::of(path).is_some_and(|now| (now.bytes, now.crc32) == (self.bytes, self.crc32))
    }
}

/// The file that is written while a batch runs.
pub(super) struct Journal {
    file: Mutex<File>,
    path: PathBuf,
}

/// What an earlier run has noted.
#[derive(Default)]
pub(super) struct Noted {
    settings: Option<Value>,
    pictures: HashMap<usize, Vec<Option<Stamp>>>,
    /// The row whose pictures were being read when the program died.
    reading: Option<usize>,
    /// How often it died while a row was answered.
    asked: HashMap<usize, usize>,
}

impl Journal {
    /// Opens the file and reads what is there. A last line that a kill has cut is passed over.
    pub(super) fn open(path: &Path, anew: bool) -> Result<(Self, Noted)> {
        let context = || path.display().to_string();
        let mut file = OpenOptions::new().create(true).read(true).append(true).open(path).with_context(context)?;
        if anew {
            file.set_len(0).with_context(context)?;
        }
        let (mut noted, mut length) = (Noted::default(), 0);
        let mut reader = BufReader::new(&mut file);
        loop {
            let mut line = Vec::new();
            let read = reader.read_until(b'\n', &mut line).with_context(context)?;
            if !line.ends_with(b"\n") {
                break;
            }
            let line = serde_json::from_slice(&line);
            noted.add(line.with_context(|| format!("{}: it is damaged; --force begins anew", path.display()))?);
            length += read as u64;
        }
        file.set_len(length).with_context(context)?;
        Ok((Self { file: Mutex::new(file), path: path.to_owned() }, noted))
    }

    fn write(&self, line: &Line) -> Result<()> {
        let text = serde_json::to_string(line)? + "\n";
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.write_all(text.as_bytes()).with_context(|| self.path.display().to_string())
    }

    pub(super) fn begins(&self, settings: Value) -> Result<()> {
        self.write(&Line::Settings(settings))
    }

    pub(super) fn reads(&self, row: usize) -> Result<()> {
        self.write(&Line::Reads(row))
    }

    pub(super) fn has(&self, row: usize, pictures: Vec<Option<Stamp>>) -> Result<()> {
        self.write(&Line::Has(row, pictures))
    }

    pub(super) fn asks(&self, row: usize) -> Result<()> {
        self.write(&Line::Asks(row))
    }

    pub(super) fn ended(&self) -> Result<()> {
        self.write(&Line::Ended(()))
    }
}

impl Noted {
    fn add(&mut self, line: Line) {
        match line {
            Line::Settings(settings) => self.settings = Some(settings),
            Line::Reads(row) => self.reading = Some(row),
            Line::Has(row, pictures) => {
                self.reading = None;
                self.pictures.insert(row, pictures);
            }
            Line::Asks(row) => *self.asked.entry(row).or_default() += 1,
            Line::Ended(()) => {
                self.reading = None;
                self.asked.clear();
            }
        }
    }

    /// Compares the settings with those that an earlier run was begun with.
    ///
    /// # Errors
    /// When they differ, or the earlier ones are not known.
    pub(super) fn check_settings(&self, settings: &Value, journal: &Path) -> Result<()> {
        let Some(noted) = &self.settings else {
            bail!("{} is missing, so nobody knows what it was begun with; --force begins anew", journal.display())
        };
        if noted == settings {
            return Ok(());
        }
        let keys = settings.as_object().into_iter().flatten().filter(|(key, value)| noted.get(key) != Some(value));
        let keys: Vec<&str> = keys.map(|(key, _)| key.as_str()).collect();
        bail!(
            "it was begun with another model or other options ({}); --force begins anew, or choose another --output",
            keys.join(", ")
        )
    }

    /// Compares the pictures that a row was answered about.
    ///
    /// # Errors
    /// When one has changed.
    pub(super) fn check_pictures(&self, row: usize, paths: &[PathBuf]) -> Result<()> {
        let Some(stamps) = self.pictures.get(&row) else { return Ok(()) };
        for (path, stamp) in paths.iter().zip(stamps) {
            ensure!(
                stamp.as_ref().is_none_or(|stamp| stamp.is_of(path)),
                "{} is not the picture any more that row {row} was answered about; --force begins anew, or choose another --output",
                path.display()
            );
        }
        Ok(())
    }

    /// Why a row is not asked again.
    pub(super) fn fatal(&self, row: usize) -> Option<String> {
        if self.reading == Some(row) {
            return Some(
                "the program died while it read the row's pictures: they may take more memory than there is".to_owned(),
            );
        }
        let deaths = self.asked.get(&row).copied().unwrap_or(0);
        (deaths >= DEATHS)
            .then(|| format!("the program died {deaths} times while it answered the row: memory may be short"))
    }
}
