//! What rounding has to know of a format: its codes, and how its scales are found.

use super::search::byte_code;

/// The codes that a format has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codes {
    /// All integers from the first to the second.
    Range(i8, i8),
    /// These, in ascending order.
    Levels(&'static [i8; 16]),
}

impl Codes {
    /// The code nearest to `value`, which counts in units of the scale; some code for what is no number.
    #[inline(always)]
    pub fn nearest(self, value: f32) -> i8 {
        match self {
            Self::Range(low, high) => byte_code(value, 1.0, f32::from(low), f32::from(high)),
            Self::Levels(levels) => {
                let above = |pair: &[i8]| value > (f32::from(pair[0]) + f32::from(pair[1])) / 2.0;
                levels[levels.windows(2).filter(|pair| above(pair)).count()]
            }
        }
    }

    /// The smallest and the largest.
    pub(super) fn ends(self) -> (f32, f32) {
        let (low, high) = match self {
            Self::Range(low, high) => (low, high),
            Self::Levels(levels) => (levels[0], levels[15]),
        };
        (f32::from(low), f32::from(high))
    }
}

/// How a block's scales are found and where they lie.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fit {
    /// One scale in half precision, first in the block.
    Scale,
    /// A scale and a bias in half precision, first in the block.
    Line,
    /// Eight groups of 32 with 6-bit scales and minima, which count in two half-precision units: Q4_K's and Q5_K's first 16 bytes.
    AffineGroups,
    /// Sixteen groups of 16 with signed 8-bit scales from the first place on, which count in a half-precision unit at the second.
    ScaledGroups(usize, usize),
}

impl Fit {
    /// Where the half-precision number lies that all scales are multiples of.
    pub(super) fn unit_at(self) -> usize {
        if let Self::ScaledGroups(_, at) = self { at } else { 0 }
    }
}
