//! Memory that is asked for before it is needed: an allocation that is refused in the middle of the work ends the program.

use std::io::{Error, ErrorKind, Result};

/// Checks that the system gives `bytes` more bytes of memory for `what`. A system that overcommits says yes to all.
///
/// # Errors
/// When it does not.
pub fn check_room(bytes: usize, what: &str) -> Result<()> {
    if Vec::<u8>::new().try_reserve_exact(bytes).is_ok() {
        return Ok(());
    }
    let megabytes = bytes.div_ceil(1_000_000);
    let reason = format!(
        "{what} need {megabytes} MB, more memory than there is: close other programs, or raise the limit (ulimit -v)"
    );
    Err(Error::new(ErrorKind::OutOfMemory, reason))
}
