//! Frames as they come: a thread reads the source, and the newest frame waits for whoever answers.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail, ensure};
#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
use gemmule::image::{Camera, CameraOptions};
use gemmule::image::{FrameStream, StreamFormat, StreamFrame, pictures_in};
use gemmule::{CancelHandle, Picture};

#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
use crate::output::print_note;
use crate::rows::open_regular;

/// A frame that has come.
pub(super) struct Arrived {
    pub(super) number: u64,
    pub(super) at: Instant,
    pub(super) time: SystemTime,
    pub(super) frame: Source,
}

impl Arrived {
    pub(super) fn now(number: u64, frame: Source) -> Self {
        Self { number, at: Instant::now(), time: SystemTime::now(), frame }
    }
}

pub(super) enum Source {
    Stream(StreamFrame),
    File(PathBuf),
}

impl Source {
    pub(super) fn to_picture(&self) -> Result<Picture> {
        match self {
            Self::Stream(frame) => Ok(frame.to_picture()?),
            Self::File(path) => open_regular(path),
        }
    }
}

/// Between the reader and the one who answers: room for the newest frame.
#[derive(Default)]
pub(super) struct Slot {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) newest: Option<Arrived>,
    pub(super) dropped: u64,
    /// The source has ended, in order or not.
    pub(super) over: Option<Result<()>>,
}

impl Slot {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says that no more frames will come, and why.
    pub(super) fn end(&self, result: Result<()>) {
        self.lock().over = Some(result);
        self.changed.notify_all();
    }

    /// Puts the newest frame in the place of the one before; with `wait`, only once that was taken.
    pub(super) fn put(&self, arrived: Arrived, wait: bool) {
        let mut state = self.lock();
        while wait && state.newest.is_some() {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.dropped += u64::from(state.newest.is_some());
        state.newest = Some(arrived);
        self.changed.notify_all();
    }

    /// The newest frame and how many were dropped so far; none when the source has ended or `stop` is set.
    pub(super) fn take(&self, stop: &CancelHandle) -> Option<(Arrived, u64)> {
        let mut state = self.lock();
        loop {
            if stop.is_cancelled() {
                return None;
            }
            if let Some(arrived) = state.newest.take() {
                self.changed.notify_all();
                return Some((arrived, state.dropped));
            }
            if state.over.is_some() {
                return None;
            }
            // A signal does not wake us.
            let waited = self.changed.wait_timeout(state, Duration::from_millis(50));
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// Reads a stream to its end.
pub(super) fn read(path: &Path, format: Option<StreamFormat>, slot: &Slot, every: bool) -> Result<()> {
    let context = || path.display().to_string();
    let reader: Box<dyn BufRead> = if path == Path::new("-") {
        Box::new(std::io::stdin().lock())
    } else {
        Box::new(BufReader::with_capacity(1 << 16, File::open(path).with_context(context)?))
    };
    // With a wrong size, each frame would begin in the wrong place.
    if let (Some(len), Ok(file)) = (format.as_ref().and_then(StreamFormat::frame_len), std::fs::metadata(path))
        && file.is_file()
    {
        ensure!(
            file.len().is_multiple_of(len as u64),
            "{}: its {} bytes are no whole number of frames of {len}: check --size, --format and --layout",
            path.display(),
            file.len()
        );
    }
    let mut stream = FrameStream::new(reader, format).with_context(context)?;
    while let Some(frame) = stream.next_frame().with_context(context)? {
        slot.put(Arrived::now(frame.number(), Source::Stream(frame)), every);
    }
    Ok(())
}

/// A camera that sends nothing for so long has failed.
#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
const SILENCE: Duration = Duration::from_secs(10);

/// Takes frames from a camera until it is gone.
#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
pub(super) fn film(path: &Path, options: &CameraOptions, slot: &Slot) -> Result<()> {
    let mut camera = Camera::open(path, options)?;
    print_note(&format!("{}: {}", path.display(), camera.description()));
    loop {
        let frame = camera.next_frame(SILENCE)?;
        let frame = frame.with_context(|| {
            format!("{}: no usable frame for {} seconds: plug the camera in again", path.display(), SILENCE.as_secs())
        })?;
        slot.put(Arrived::now(frame.number(), Source::Stream(frame)), false);
    }
}

/// How often a directory is looked at, and for how many looks a file must stay unchanged to count as whole.
const LOOK: Duration = Duration::from_millis(20);
const SETTLED: u32 = 5;

/// Watches a directory for newer pictures, until it is gone.
pub(super) fn follow(directory: &Path, slot: &Slot, every: bool) -> Result<()> {
    /// When a file was changed, its length, and for how many looks it has been so.
    type Seen = (SystemTime, u64, u32);
    let mut known: HashMap<PathBuf, Seen> = HashMap::new();
    let (mut number, mut first) = (0, true);
    loop {
        let paths = match pictures_in(directory) {
            // None yet is no error here.
            Err(gemmule::Error::Picture { .. }) => Vec::new(),
            paths => paths?,
        };
        let mut settled = Vec::new();
        for path in &paths {
            let file = std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file);
            let Some((changed, length)) = file.and_then(|file| Some((file.modified().ok()?, file.len()))) else {
                continue;
            };
            let looks = known.get(path).filter(|seen| (seen.0, seen.1) == (changed, length));
            let seen = (changed, length, looks.map_or(0, |seen| seen.2.saturating_add(1)));
            known.insert(path.clone(), seen);
            if seen.2 == SETTLED {
                settled.push((changed, path.clone()));
            }
        }
        known.retain(|path, _| paths.binary_search(path).is_ok());
        settled.sort();
        // Of the pictures that were there before, only the newest counts.
        if std::mem::take(&mut first) && !every {
            let newest = paths.iter().filter_map(|path| known.get(path).map(|seen| (seen.0, path.clone()))).max();
            for (path, seen) in &mut known {
                let is_newest = newest.as_ref().is_some_and(|newest| newest.1 == *path);
                seen.2 = if is_newest { 0 } else { SETTLED };
            }
        }
        for (_, path) in settled {
            slot.put(Arrived::now(number, Source::File(path)), every);
            number += 1;
        }
        if !directory.is_dir() {
            bail!("{}: the directory is gone", directory.display());
        }
        std::thread::sleep(LOOK);
    }
}
