//! Checkpoints that are converted when they are first named, and kept.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use gemmule::CancelHandle;
use gemmule::gguf::{GgufFile, keys};
use gemmule_common::progress::BytesBar;
use gemmule_quant::Format;
use gemmule_quantize::{Conversion, Progress, Target, Watcher, find_checkpoint};

use crate::interrupt;
use crate::output::print_note;

/// Raised when files that were converted before have to be converted again.
const VERSION: u32 = 1;

/// A checkpoint, and the file that it becomes in the cache.
pub(super) struct Cached {
    /// As it was named.
    given: PathBuf,
    /// Its directory, or its `.npz` file.
    checkpoint: PathBuf,
    /// Where its files lie.
    directory: PathBuf,
    body: Format,
    /// Where the file lies.
    path: PathBuf,
    /// What the file is made from: kept in it, and compared.
    source: String,
}

impl Cached {
    /// The place of a checkpoint, converted with this type of the decoder's matrices.
    ///
    /// # Errors
    /// When there is no such checkpoint, or no place to keep files in.
    pub(super) fn of(given: &Path, body: Format) -> Result<Self> {
        let is_npz = given.extension().is_some_and(|ending| ending == "npz");
        let checkpoint = if is_npz { given.to_owned() } else { find_checkpoint(given)? };
        let whole = checkpoint.canonicalize().with_context(|| given.display().to_string())?;
        let directory = if is_npz { whole.parent().unwrap_or(&whole) } else { &whole }.to_owned();
        let source = source_of(&directory, body)?;
        // Its name, for people, and what tells it from others of that name.
        let mut names = whole.components().rev().filter_map(|part| part.as_os_str().to_str());
        let name = names.find(|name| !is_commit(name) && *name != "snapshots").unwrap_or("checkpoint");
        let folder = format!(
            "{}-{:08x}",
            name.trim_start_matches("models--"),
            crc32fast::hash(whole.as_os_str().as_encoded_bytes())
        );
        let path = root()?.join(folder).join(format!("{body}.gguf"));
        Ok(Self { given: given.to_owned(), checkpoint, directory, body, path, source })
    }

    /// The file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Opens the file, which is made first where it is not there or the checkpoint has changed.
    ///
    /// # Errors
    /// When the checkpoint cannot be converted, or there is no room.
    pub(super) fn open(&self) -> Result<GgufFile> {
        if let Some(file) = self.found() {
            return Ok(file);
        }
        self.convert()?;
        self.found().with_context(|| format!("{}: the checkpoint changes while it is read", self.given.display()))
    }

    /// The folder in the cache.
    fn folder(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("."))
    }

    /// The file, if it is there, sound, and made from what the checkpoint is now.
    fn found(&self) -> Option<GgufFile> {
        let file = GgufFile::open(&self.path).ok()?;
        let source = file.string(keys::own::SOURCE).ok()??;
        (source == self.source).then_some(file)
    }

    fn convert(&self) -> Result<()> {
        let conversion = Conversion::of(&self.checkpoint).body(self.body).source(self.source.clone());
        // Errors show before anything is written. (An .npz file is read later, since it is unpacked into the cache.)
        let read = || conversion.prepare(&std::env::temp_dir());
        let early = self.checkpoint.is_dir().then(read).transpose()?;
        let stop = CancelHandle::default();
        let _guard = interrupt::end_for_now(&stop)?;
        let _lock = self.lock(&stop).with_context(|| {
            let folder = self.folder().display();
            format!("{folder}: no place for what checkpoints are converted to; GEMMULE_CACHE names another")
        })?;
        if self.found().is_some() {
            // Somebody else has made it.
            return Ok(());
        }
        self.remove_leftovers();
        let bar = BytesBar::default();
        let mut begun = false;
        let mut show = |progress: Progress<'_>| {
            if !begun {
                let (given, body, path) = (self.given.display(), self.body, self.path.display());
                print_note(&format!("gemmule: {given} is converted to {body} once, into {path}"));
                begun = true;
            }
            bar.show(progress.done, progress.total, progress.tensor);
        };
        let mut watcher = Watcher { cancel: stop, progress: Some(&mut show) };
        let target = Target::file(&self.path).replace(true);
        let prepared = early.map_or_else(|| conversion.prepare(self.folder()), Ok)?;
        prepared.write(&target, &mut watcher).inspect_err(|_| bar.abandon())?;
        bar.finish();
        if source_of(&self.directory, self.body)? != self.source {
            // The file may mix weights from before and after the change.
            std::fs::remove_file(&self.path)?;
            bail!(
                "{}: the checkpoint has changed while it was converted: try again when it is whole",
                self.given.display()
            );
        }
        Ok(())
    }

    /// Waits until nobody else converts into this directory.
    fn lock(&self, stop: &CancelHandle) -> Result<File> {
        const WAIT: Duration = Duration::from_millis(100);
        std::fs::create_dir_all(self.folder())?;
        let file = File::create(self.folder().join("lock"))?;
        let mut told = false;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::WouldBlock) => {}
                // Some file systems have no locks: two at once then do the work twice, and both files are whole.
                Err(TryLockError::Error(error)) if error.kind() == std::io::ErrorKind::Unsupported => return Ok(file),
                Err(TryLockError::Error(error)) => return Err(error.into()),
            }
            if !told {
                print_note(&format!("gemmule: another process converts {}: waiting for it", self.given.display()));
                told = true;
            }
            ensure!(!stop.is_cancelled(), "interrupted; nothing is written");
            std::thread::sleep(WAIT);
        }
    }

    /// Removes what killed conversions have left. Only the process that holds the lock writes here.
    fn remove_leftovers(&self) {
        let entries = std::fs::read_dir(self.folder()).into_iter().flatten().flatten();
        for entry in entries.filter(|entry| entry.file_name().to_string_lossy().ends_with(".partial")) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

/// Where converted checkpoints are kept.
fn root() -> Result<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(root) = variable("GEMMULE_CACHE") {
        return Ok(root);
    }
    let cache = if cfg!(windows) {
        variable("LOCALAPPDATA")
    } else if cfg!(target_os = "macos") {
        std::env::home_dir().map(|home| home.join("Library/Caches"))
    } else {
        variable("XDG_CACHE_HOME").or_else(|| std::env::home_dir().map(|home| home.join(".cache")))
    };
    let Some(cache) = cache else {
        bail!("no HOME to keep converted checkpoints in: set GEMMULE_CACHE to a directory")
    };
    Ok(cache.join("gemmule"))
}

/// What a file is made from: the program's version, the type, and each file of the directory that may be read, by its name, length and
/// time of change.
fn source_of(directory: &Path, body: Format) -> Result<String> {
    let mut files = Vec::new();
    let context = || directory.display().to_string();
    for entry in std::fs::read_dir(directory).with_context(context)? {
        let entry = entry.with_context(context)?;
        // What links lead to; Hugging Face's snapshots consist of links.
        let Ok(found) = entry.path().metadata() else { continue };
        let path = entry.path();
        let ending = path.extension().and_then(|ending| ending.to_str());
        let is_read = matches!(ending, Some("safetensors" | "json" | "model" | "npz"));
        if found.is_file() && is_read {
            let changed = found.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
            files.push(format!("{} {} {changed}", entry.file_name().to_string_lossy(), found.len()));
        }
    }
    files.sort();
    let (version, files) = (env!("CARGO_PKG_VERSION"), files.join("\n"));
    Ok(format!("gemmule {version} {VERSION} {body} {}\n{files}", directory.display()))
}

/// Whether a folder is named as snapshots are: by the hash of a commit.
fn is_commit(name: &str) -> bool {
    name.len() == 40 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}
