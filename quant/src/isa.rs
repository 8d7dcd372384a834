//! Instruction sets. This module holds the only CPU detection of the project: an implementation that needs an
//! instruction set carries a proof token, and a token exists only where detection found the set.

use crate::kernels::{Kernels, portable::Portable};

/// An instruction set with kernels of its own, from the most general to the most specific.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Isa {
    /// Plain Rust, the reference.
    Portable,
    /// x86-64 with AVX2, FMA and F16C.
    Avx2,
}

impl Isa {
    /// Every instruction set this program was compiled with, on this target.
    pub const COMPILED: &'static [Isa] = &[
        Isa::Portable,
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2,
    ];

    /// The name that `--isa` takes.
    pub fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Avx2 => "avx2",
        }
    }
}

impl std::fmt::Display for Isa {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// Proof that the CPU has AVX2, FMA and F16C.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy, Debug)]
pub struct Avx2Token(());

#[cfg(target_arch = "x86_64")]
impl Avx2Token {
    /// The token, if this CPU has all three.
    pub fn detect() -> Option<Self> {
        let found =
            is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c");
        found.then_some(Self(()))
    }
}

/// The kernels of one instruction set, if this CPU has it.
pub fn kernels(isa: Isa) -> Option<&'static dyn Kernels> {
    match isa {
        Isa::Portable => Some(&Portable),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => {
            static AVX2: std::sync::OnceLock<Option<crate::kernels::avx2::Avx2>> = std::sync::OnceLock::new();
            AVX2.get_or_init(|| Avx2Token::detect().map(crate::kernels::avx2::Avx2::new))
                .as_ref()
                .map(|kernels| kernels as &dyn Kernels)
        }
        #[cfg(not(target_arch = "x86_64"))]
        Isa::Avx2 => None,
    }
}

/// Every instruction set that is compiled in and that this CPU has.
pub fn available() -> impl Iterator<Item = Isa> {
    Isa::COMPILED.iter().copied().filter(|isa| kernels(*isa).is_some())
}

/// Why an instruction set cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IsaError(String);

impl std::fmt::Display for IsaError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let have: Vec<_> = available().map(Isa::name).collect();
        write!(
            f,
            "instruction set '{}' is not to be had here; this machine and build have: {}",
            self.0,
            have.join(", ")
        )
    }
}

impl std::error::Error for IsaError {}

/// The kernels named `request`, or without a request the best that the CPU has.
///
/// # Errors
/// When `request` names no instruction set, or one that this build or CPU lacks.
pub fn select(request: Option<&str>) -> Result<&'static dyn Kernels, IsaError> {
    match request {
        None => Ok(available().last().and_then(kernels).unwrap_or(&Portable)),
        Some(name) => {
            available().find(|isa| isa.name() == name).and_then(kernels).ok_or_else(|| IsaError(name.to_owned()))
        }
    }
}
