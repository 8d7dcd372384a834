//! What the team is built on; `tests/team` builds it on loom's in their place.

pub(super) use std::hint::spin_loop;
pub(super) use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize};
pub(super) use std::sync::{Condvar, Mutex};
pub(super) use std::thread::yield_now;
