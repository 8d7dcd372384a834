//! The program as a process: how it is interrupted, and the memory it holds.

use std::process::exit;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use gemmule::CancelHandle;

/// The exit code of a process that an interruption ends at once, as shells give it.
const INTERRUPTED: i32 = 130;

/// What an interruption does, once somebody has asked to be told.
struct Handler {
    installed: bool,
    /// The work that it ends. Where there is none, it ends the program at once.
    stop: Option<CancelHandle>,
}

static HANDLER: Mutex<Handler> = Mutex::new(Handler { installed: false, stop: None });

/// The handler. After a panic it is still valid: its fields do not depend on each other.
fn handler() -> MutexGuard<'static, Handler> {
    HANDLER.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The first interruption ends the work in order, the second one ends the program at once. If the work does not end within three seconds
/// of the first one, because nobody reads stdout, say, the program ends as well.
///
/// # Errors
/// When interruptions cannot be watched for.
pub(super) fn end_with(stop: &CancelHandle) -> Result<()> {
    let mut handler = handler();
    handler.stop = Some(stop.clone());
    if !handler.installed {
        ctrlc::set_handler(interrupt)
            .context("cannot watch for interrupts: allow more threads or memory (ulimit -u, -v)")?;
        handler.installed = true;
    }
    Ok(())
}

/// As [`end_with`], until what is returned is dropped. From then on an interruption ends the program at once.
///
/// # Errors
/// When interruptions cannot be watched for.
pub(super) fn end_for_now(stop: &CancelHandle) -> Result<ForNow> {
    end_with(stop).map(|()| ForNow)
}

/// See [`end_for_now`].
pub(super) struct ForNow;

impl Drop for ForNow {
    fn drop(&mut self) {
        handler().stop = None;
    }
}

fn interrupt() {
    const PATIENCE: Duration = Duration::from_secs(3);
    let Some(stop) = handler().stop.clone() else { exit(INTERRUPTED) };
    if stop.is_cancelled() {
        exit(1);
    }
    stop.cancel();
    // Where there is no memory for it, the second signal has to do.
    let _ = std::thread::Builder::new().spawn(|| {
        std::thread::sleep(PATIENCE);
        exit(1);
    });
}

/// Memory of this process that does not hold pages of files, in bytes (Linux only).
pub(super) fn anonymous_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").context("no /proc").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
}
