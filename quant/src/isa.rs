//! The instruction sets. A row below is one of them: its name, the CPU features that its kernels are compiled for, and their table.

use std::sync::OnceLock;

#[cfg(target_arch = "aarch64")]
use crate::kernels::neon;
use crate::kernels::portable;
use crate::kernels::table::Table;
#[cfg(target_arch = "x86_64")]
use crate::kernels::x86;

/// Defines [`Isa`] from its rows, from the most general to the most specific.
macro_rules! instruction_sets {
    ($($(#[doc = $doc:literal])* $(#[cfg($($condition:tt)*)])? $variant:ident = $name:literal, [$($feature:tt),*] $(and $check:path)?, $table:path;)*) => {
        /// An instruction set with kernels of its own, from the most general to the most specific.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Isa {
            $($(#[doc = $doc])* $(#[cfg($($condition)*)])? $variant,)*
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

            /// The kernels, which run only where the instruction set [is available](Self::is_available).
            pub(crate) fn table(self) -> &'static Table {
                match self {
                    $($(#[cfg($($condition)*)])? Self::$variant => &$table,)*
                }
            }

            /// Asks the CPU, and the system.
            fn detect(self) -> bool {
                match self {
                    $($(#[cfg($($condition)*)])? Self::$variant => true $(&& detected!($feature))* $(&& $check())?,)*
                }
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
macro_rules! detected {
    ($feature:tt) => {
        std::arch::is_x86_feature_detected!($feature)
    };
}
#[cfg(target_arch = "aarch64")]
macro_rules! detected {
    ($feature:tt) => {
        std::arch::is_aarch64_feature_detected!($feature)
    };
}

instruction_sets! {
    /// Plain Rust, the reference.
    Portable = "portable", [], portable::TABLE;
    /// x86-64 with AVX2, FMA and F16C.
    #[cfg(target_arch = "x86_64")]
    Avx2 = "avx2", ["avx2", "fma", "f16c"], x86::avx2::TABLE;
    /// AVX2 and the 256-bit dot products of bytes (AVX-VNNI).
    #[cfg(target_arch = "x86_64")]
    AvxVnni = "avx-vnni", ["avx2", "fma", "f16c", "avxvnni"], x86::avx_vnni::TABLE;
    /// AVX-512 (F, BW, VL) without dot products of bytes (Skylake-X and Skylake-SP).
    #[cfg(target_arch = "x86_64")]
    Avx512Bw = "avx512bw", ["avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512vl"], x86::avx512bw::TABLE;
    /// AVX-512 (F, BW, VL) with the 512-bit dot products of bytes (VNNI).
    #[cfg(target_arch = "x86_64")]
    Avx512 = "avx512", ["avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512vl", "avx512vnni"], x86::avx512::TABLE;
    /// AVX-512 and the matrix unit for bf16 (AMX).
    #[cfg(target_arch = "x86_64")]
    Amx = "amx", ["avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512vl", "avx512vnni", "avx512bf16"] and x86::amx::permission::request, x86::amx::TABLE;
    /// 64-bit ARM.
    #[cfg(target_arch = "aarch64")]
    Neon = "neon", ["neon"], neon::base::TABLE;
    /// 64-bit ARM with dot products of bytes.
    #[cfg(target_arch = "aarch64")]
    Dotprod = "dotprod", ["neon", "dotprod"], neon::dotprod::TABLE;
    /// 64-bit ARM with dot products and matrix products of bytes.
    #[cfg(target_arch = "aarch64")]
    I8mm = "i8mm", ["neon", "dotprod", "i8mm"], neon::i8mm::TABLE;
}

impl Isa {
    /// Whether this CPU has the instruction set, and the system lets this process use it.
    pub fn is_available(self) -> bool {
        static FOUND: [OnceLock<bool>; Isa::COMPILED.len()] = [const { OnceLock::new() }; Isa::COMPILED.len()];
        *FOUND[self as usize].get_or_init(|| self.detect())
    }
}

impl std::fmt::Display for Isa {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// Every instruction set that is compiled in and that this CPU has.
pub fn available() -> impl Iterator<Item = Isa> {
    Isa::COMPILED.iter().copied().filter(|isa| isa.is_available())
}

/// Why an instruction set cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IsaError(String);

impl IsaError {
    /// This build or CPU lacks the instruction set of that name.
    pub(crate) fn unavailable(name: &str) -> Self {
        Self(name.to_owned())
    }
}

impl std::fmt::Display for IsaError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let have: Vec<_> = available().map(Isa::name).collect();
        write!(f, "instruction set '{}' is not available; this machine and build have: {}", self.0, have.join(", "))
    }
}

impl std::error::Error for IsaError {}
