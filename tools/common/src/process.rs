//! What the programs ask of the process they run in.

use std::io::Write;

use log::{Level, LevelFilter};

/// The exit code for arguments, or an environment, that cannot be used; clap's.
const WRONG_USAGE: i32 = 2;

/// Gets a process ready whose messages begin with `name`; before any thread is started.
pub fn prepare(name: &'static str) {
    tell_of_panics(name);
    tell_what_is_logged(name);
    #[cfg(unix)]
    refuse_large_files();
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    have_one_heap_where_addresses_are_few();
}

/// What the library logs goes to stderr, as far as the environment's `GEMMULE_LOG` says: off, error, warn (the default), info, debug.
fn tell_what_is_logged(name: &str) {
    let level = std::env::var("GEMMULE_LOG").ok().filter(|level| !level.is_empty());
    let level = level.map_or(Ok(LevelFilter::Warn), |level| level.parse().map_err(|_| level));
    let level = level.unwrap_or_else(|level| {
        let _ = writeln!(std::io::stderr(), "{name}: GEMMULE_LOG is '{level}': choose off, error, warn, info or debug");
        std::process::exit(WRONG_USAGE)
    });
    let program = name.to_owned();
    env_logger::Builder::new()
        .filter_level(level)
        .format(move |out, record| {
            let kind = if record.level() <= Level::Warn { "note: " } else { "" };
            writeln!(out, "{program}: {kind}{}", record.args())
        })
        .init();
}

/// Reports a panic in one line. The standard library's backtrace holds a lock while it allocates: where memory is short, that would be
/// a deadlock. RUST_BACKTRACE=full brings the backtrace back.
fn tell_of_panics(name: &'static str) {
    if std::env::var_os("RUST_BACKTRACE").is_none_or(|style| style != "full") {
        std::panic::set_hook(Box::new(move |panic| {
            let _ = writeln!(std::io::stderr(), "{name}: a mistake in the program, please report it: {panic}");
        }));
    }
}

/// A file that grows beyond the process's limit is an error of the write, not the end of the process. Threads inherit that.
#[cfg(unix)]
fn refuse_large_files() {
    use nix::sys::signal::{SigSet, Signal};
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGXFSZ);
    // Where it fails, the process ends as it would have.
    let _ = signals.thread_block();
}

/// glibc gives each thread a heap of its own and keeps 64 MB of addresses for it, or maps a page for each small allocation where it
/// cannot. Where addresses are limited (`ulimit -v`), all threads share one.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn have_one_heap_where_addresses_are_few() {
    use nix::libc;
    use nix::sys::resource::{Resource, getrlimit};
    let is_limited = getrlimit(Resource::RLIMIT_AS).is_ok_and(|(limit, _)| limit != libc::RLIM_INFINITY);
    if is_limited {
        // SAFETY: the call sets a number of the allocator's, and takes no pointer.
        unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
    }
}
