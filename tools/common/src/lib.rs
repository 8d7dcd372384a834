//! What Gemmule's programs share, and its library does without.

pub mod files;
pub mod memory;
pub mod platform;
pub mod process;
pub mod progress;
