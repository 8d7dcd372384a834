//! The program as a process: how it is interrupted, and the memory it holds.

use anyhow::{Context, Result};
use gemmule::CancelHandle;

/// Ends work in order at the first interruption, and the program at the second: whoever asks twice does not want to wait. It ends soon
/// after the first one, too, where work does not: nobody reads stdout, say.
pub(super) fn end_with(stop: &CancelHandle) -> Result<()> {
    const PATIENCE: std::time::Duration = std::time::Duration::from_secs(3);
    let handle = stop.clone();
    let handler = move || {
        if handle.is_cancelled() {
            std::process::exit(1);
        }
        handle.cancel();
        // Where there is no memory for it, the second signal has to do.
        let _ = std::thread::Builder::new().spawn(|| {
            std::thread::sleep(PATIENCE);
            std::process::exit(1);
        });
    };
    ctrlc::set_handler(handler).context("cannot watch for interrupts: allow more threads or memory (ulimit -u, -v)")
}

/// The most physical memory this process has held, in bytes.
pub(super) fn peak_memory() -> Option<u64> {
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF).ok()?;
    Some(usage.max_rss() as u64 * 1024)
}

/// Memory of this process that is no file's pages, in bytes (Linux).
pub(super) fn anonymous_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").context("no /proc").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
}
