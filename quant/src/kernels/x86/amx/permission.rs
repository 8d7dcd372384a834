//! Whether a process may use the tiles.

/// Whether the CPU has tiles and bf16 products, and the system gives them to this process: Linux does so when asked, for
/// all threads from then on.
#[cfg(target_os = "linux")]
pub(crate) fn request() -> bool {
    const ARCH_REQ_XCOMP_PERM: libc::c_ulong = 0x1023;
    const XFEATURE_XTILEDATA: libc::c_ulong = 18;
    const AMX_BF16: u32 = 1 << 22;
    const AMX_TILE: u32 = 1 << 24;
    // SAFETY: every processor of 64 bits has the instruction. (Newer compilers know that, and take the call for safe.)
    #[allow(unused_unsafe)]
    let features = unsafe { std::arch::x86_64::__cpuid_count(7, 0) }.edx;
    if features & AMX_BF16 == 0 || features & AMX_TILE == 0 {
        return false;
    }
    // SAFETY: the call takes two numbers and touches no memory of this process.
    unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0 }
}

/// Only Linux's way of asking is known here.
#[cfg(not(target_os = "linux"))]
pub(crate) fn request() -> bool {
    false
}
