//! Hints to the memory system.

/// Defines a function that hints at each cache line of a slice, with `prefetcht1` or the like on x86-64 and `prfm` on ARM.
macro_rules! hint {
    ($(#[$doc:meta])* $name:ident, $x86:literal, $arm:literal) => {
        $(#[$doc])*
        #[inline]
        pub fn $name<T>(values: &[T]) {
            const LINE: usize = 64;
            let range = values.as_ptr_range();
            let (start, end) = (range.start.cast::<u8>(), range.end.cast::<u8>());
            // From the first line's beginning, so that the last line is hinted at wherever the slice begins in its first.
            let mut line = start.wrapping_sub(start.addr() % LINE);
            while !values.is_empty() && line < end {
                #[cfg(target_arch = "x86_64")]
                // SAFETY: a hint, which reads nothing, may point anywhere, and changes no registers; processors that lack
                // `prefetchw` take it for no operation.
                unsafe {
                    std::arch::asm!(concat!($x86, " [{}]"), in(reg) line, options(readonly, nostack, preserves_flags));
                }
                #[cfg(target_arch = "aarch64")]
                // SAFETY: a hint, which reads nothing, may point anywhere, and changes no registers.
                unsafe {
                    std::arch::asm!(concat!("prfm ", $arm, ", [{}]"), in(reg) line, options(readonly, nostack, preserves_flags));
                }
                line = line.wrapping_add(LINE);
            }
        }
    };
}

hint! {
    /// Prefetches values that will be read soon: into the second-level cache where that can be said, otherwise into the nearest.
    /// Weights whose rows are read in pieces come in an order that no processor guesses.
    prefetch, "prefetcht1", "pldl2keep"
}

hint! {
    /// Prefetches the memory of values that will soon be written, which may lie in another core's cache.
    prefetch_for_writing, "prefetchw", "pstl1keep"
}
