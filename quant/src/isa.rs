//! Instruction sets. This module alone says which of them there are: an implementation that needs an instruction set
//! carries a proof token, and a token exists only where detection found the set.

use std::sync::OnceLock;

use crate::kernels::{Kernels, portable::Portable};

/// Defines [`Isa`] from the one table of instruction sets, from the most general to the most specific.
macro_rules! instruction_sets {
    ($(#[doc = $doc:literal] $(#[cfg($($condition:tt)*)])? $variant:ident = $name:literal;)*) => {
        /// An instruction set with kernels of its own, from the most general to the most specific.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Isa {
            $(#[doc = $doc] $(#[cfg($($condition)*)])? $variant,)*
        }

        impl Isa {
            /// Every instruction set this program was compiled with, on this target.
            pub const COMPILED: &'static [Isa] = &[$($(#[cfg($($condition)*)])? Isa::$variant,)*];

            /// The name that `--isa` takes.
            pub fn name(self) -> &'static str {
                match self {
                    $($(#[cfg($($condition)*)])? Self::$variant => $name,)*
                }
            }
        }
    };
}

instruction_sets! {
    /// Plain Rust, the reference.
    Portable = "portable";
    /// x86-64 with AVX2, FMA and F16C.
    #[cfg(target_arch = "x86_64")]
    Avx2 = "avx2";
    /// AVX2 and the 256-bit dot products of bytes (AVX-VNNI).
    #[cfg(target_arch = "x86_64")]
    AvxVnni = "avx-vnni";
    /// AVX-512 (F, BW, VL) with the 512-bit dot products of bytes (VNNI).
    #[cfg(target_arch = "x86_64")]
    Avx512 = "avx512";
    /// AVX-512 and the matrix unit for bf16 (AMX).
    #[cfg(target_arch = "x86_64")]
    Amx = "amx";
    /// 64-bit ARM.
    #[cfg(target_arch = "aarch64")]
    Neon = "neon";
    /// 64-bit ARM with dot products of bytes.
    #[cfg(target_arch = "aarch64")]
    Dotprod = "dotprod";
    /// 64-bit ARM with dot products and matrix products of bytes.
    #[cfg(target_arch = "aarch64")]
    I8mm = "i8mm";
}

impl std::fmt::Display for Isa {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// Defines a proof token: a value that exists only where all the features were detected, and that gives the tokens of the
/// sets it includes.
macro_rules! token {
    ($(#[$attributes:meta])* $token:ident: $detected:ident[$($feature:tt),*]
        $(, $part:ident: $included:ident)? $(, and $check:path)?) => {
        $(#[$attributes])*
        #[derive(Clone, Copy, Debug)]
        pub struct $token(());

        impl $token {
            /// The token, if this CPU has the set.
            pub fn detect() -> Option<Self> {
                let found = $(std::arch::$detected!($feature))&&* $(&& $included::detect().is_some())? $(&& $check())?;
                found.then_some(Self(()))
            }
            $(
                /// The token of the set that this one includes.
                pub fn $part(self) -> $included {
                    $included(())
                }
            )?
        }
    };
}

#[cfg(target_arch = "x86_64")]
token!(/// Proof that the CPU has AVX2, FMA and F16C.
    Avx2Token: is_x86_feature_detected["avx2", "fma", "f16c"]);
#[cfg(target_arch = "x86_64")]
token!(/// Proof that the CPU has AVX-VNNI beside AVX2.
    AvxVnniToken: is_x86_feature_detected["avxvnni"], avx2: Avx2Token);
#[cfg(target_arch = "x86_64")]
token!(/// Proof that the CPU has AVX-512 F, BW, VL and VNNI beside AVX2.
    Avx512Token: is_x86_feature_detected["avx512f", "avx512bw", "avx512vl", "avx512vnni"], avx2: Avx2Token);
#[cfg(target_arch = "x86_64")]
token!(/// Proof that the CPU has AMX tiles with bf16 beside AVX-512, and that the system lets this process use them.
    AmxToken: is_x86_feature_detected["avx512bf16"], avx512: Avx512Token, and crate::kernels::x86::amx::is_usable);
#[cfg(target_arch = "aarch64")]
token!(/// Proof that the CPU has NEON.
    NeonToken: is_aarch64_feature_detected["neon"]);
#[cfg(target_arch = "aarch64")]
token!(/// Proof that the CPU has dot products of bytes.
    DotprodToken: is_aarch64_feature_detected["dotprod"], neon: NeonToken);
#[cfg(target_arch = "aarch64")]
token!(/// Proof that the CPU has matrix products of bytes, and dot products.
    I8mmToken: is_aarch64_feature_detected["i8mm"], dotprod: DotprodToken);

/// The kernels of one instruction set, if this CPU has it.
pub fn kernels(isa: Isa) -> Option<&'static dyn Kernels> {
    /// Detects once.
    macro_rules! detected {
        ($token:ident, $kernels:path) => {{
            static KERNELS: OnceLock<Option<$kernels>> = OnceLock::new();
            let kernels = KERNELS.get_or_init(|| $token::detect().map(<$kernels>::new));
            kernels.as_ref().map(|kernels| kernels as &dyn Kernels)
        }};
    }
    match isa {
        Isa::Portable => Some(&Portable),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => detected!(Avx2Token, crate::kernels::x86::avx2::Avx2),
        #[cfg(target_arch = "x86_64")]
        Isa::AvxVnni => detected!(AvxVnniToken, crate::kernels::x86::vnni::AvxVnni),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => detected!(Avx512Token, crate::kernels::x86::avx512::Avx512),
        #[cfg(target_arch = "x86_64")]
        Isa::Amx => detected!(AmxToken, crate::kernels::x86::amx::Amx),
        #[cfg(target_arch = "aarch64")]
        Isa::Neon => detected!(NeonToken, crate::kernels::neon::Neon),
        #[cfg(target_arch = "aarch64")]
        Isa::Dotprod => detected!(DotprodToken, crate::kernels::neon::Dotprod),
        #[cfg(target_arch = "aarch64")]
        Isa::I8mm => detected!(I8mmToken, crate::kernels::neon::I8mm),
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
