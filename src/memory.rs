//! Memory that is asked for before it is needed: an allocation that is refused in the middle of the work ends the program.

use crate::{Error, Result};

/// Whether so much more memory is available, as far as the system tells: one that promises more than it has says yes.
pub(crate) fn is_there(bytes: u64) -> bool {
    usize::try_from(bytes).is_ok_and(|bytes| Vec::<u8>::new().try_reserve_exact(bytes).is_ok())
}

/// Whether there is memory for what is named.
///
/// # Errors
/// When there is not.
pub(crate) fn check_room(bytes: usize, what: impl Into<String>) -> Result<()> {
    if is_there(bytes as u64) { Ok(()) } else { Err(Error::Memory { what: what.into(), bytes }) }
}
