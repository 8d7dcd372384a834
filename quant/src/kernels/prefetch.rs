//! Hints to the memory system.

/// Asks for bytes that will be read soon: into the second-level cache where that can be said, otherwise into the nearest.
/// Weights whose rows are read in pieces come in an order that no processor guesses.
#[inline]
pub fn prefetch(bytes: &[u8]) {
    for line in (0..bytes.len()).step_by(64).map(|at| &raw const bytes[at]) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a hint; every x86-64 processor has it.
        unsafe {
            std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T1 }>(line.cast());
        }
        #[cfg(target_arch = "aarch64")]
        // SAFETY: a hint; it reads nothing and changes no registers.
        unsafe {
            std::arch::asm!("prfm pldl2keep, [{}]", in(reg) line, options(readonly, nostack, preserves_flags));
        }
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        let _ = line;
    }
}

/// Asks for the memory of values that will soon be written, which may lie in another core's cache.
#[inline]
pub fn prefetch_for_writing(values: &[f32]) {
    for line in (0..values.len()).step_by(64 / size_of::<f32>()).map(|at| &raw const values[at]) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a hint; processors that do not have it take it for no operation.
        unsafe {
            std::arch::asm!("prefetchw [{}]", in(reg) line, options(readonly, nostack, preserves_flags));
        }
        #[cfg(target_arch = "aarch64")]
        // SAFETY: a hint; it reads nothing and changes no registers.
        unsafe {
            std::arch::asm!("prfm pstl1keep, [{}]", in(reg) line, options(readonly, nostack, preserves_flags));
        }
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        let _ = line;
    }
}
