//! One program for all targets: the environment's `GEMMULE_FUZZ` names the one that is run.
#![no_main]

use std::sync::LazyLock;

static TARGET: LazyLock<fn(&[u8])> = LazyLock::new(|| {
    let name = std::env::var("GEMMULE_FUZZ").unwrap_or_default();
    let target = gemmule_fuzz::TARGETS.iter().find(|target| target.0 == name);
    target.unwrap_or_else(|| panic!("GEMMULE_FUZZ={name:?} names no target")).1
});

libfuzzer_sys::fuzz_target!(|data: &[u8]| TARGET(data));
