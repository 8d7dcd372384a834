//! The program as a process: how it is interrupted, and the memory it holds.

use std::process::exit;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use gemmule::CancelHandle;

use crate::output::print_note;

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

/// Parts of the work that an interruption waits for.
static UNDER_WAY: AtomicUsize = AtomicUsize::new(0);

/// Until what is returned is dropped, the first interruption waits for the work, however long it takes: a part of it would be lost otherwise.
pub(super) fn finish_first() -> FinishFirst {
    UNDER_WAY.fetch_add(1, Ordering::SeqCst);
    FinishFirst
}

/// See [`finish_first`].
pub(super) struct FinishFirst;

impl Drop for FinishFirst {
    fn drop(&mut self) {
        UNDER_WAY.fetch_sub(1, Ordering::SeqCst);
    }
}

fn interrupt() {
    const PATIENCE: Duration = Duration::from_secs(3);
    const LOOK: Duration = Duration::from_millis(100);
    let Some(stop) = handler().stop.clone() else { exit(INTERRUPTED) };
    if stop.is_cancelled() {
        exit(1);
    }
    stop.cancel();
    // Where there is no memory for it, the second signal has to do.
    let _ = std::thread::Builder::new().spawn(|| {
        std::thread::sleep(PATIENCE);
        if UNDER_WAY.load(Ordering::SeqCst) > 0 {
            print_note("gemmule: what was begun is finished first; interrupt again to end at once");
        }
        while UNDER_WAY.load(Ordering::SeqCst) > 0 {
            std::thread::sleep(LOOK);
        }
        exit(1);
    });
}

/// Memory of this process that does not hold pages of files, in bytes (Linux only).
pub(super) fn anonymous_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").context("no /proc").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
}
