//! Searching signed scales in whole numbers, for sixteen groups of values at once. Values are 16-bit fractions of their
//! group's largest; sums of whole numbers are the same in any order and of any width, so every instruction set finds the
//! same codes.

use std::hint::{black_box, select_unpredictable as select};

use super::search::{LANES, Lanes, each_lane, inverse, nearest_bits, transpose};

/// Two values of each group side by side: `pairs[2 * lane]` and `pairs[2 * lane + 1]`.
pub(crate) type Pairs = [i16; 2 * LANES];
/// A sum for each group.
pub(crate) type Sums = [i32; LANES];

/// The one step of the search that a compiler does not find an instruction for by itself. A value proves that the processor has the
/// implementation's instructions.
pub(crate) trait PairProducts: Copy {
    /// `sums[lane] += a[2 * lane] * b[2 * lane] + a[2 * lane + 1] * b[2 * lane + 1]`
    fn add(self, sums: &mut Sums, a: &Pairs, b: &Pairs);
}

/// In plain Rust.
#[derive(Clone, Copy)]
pub(crate) struct PortablePairs;

impl PairProducts for PortablePairs {
    #[inline(always)]
    fn add(self, sums: &mut Sums, a: &Pairs, b: &Pairs) {
        let product = |at: usize| i32::from(a[at]) * i32::from(b[at]);
        for (lane, sum) in sums.iter_mut().enumerate() {
            *sum += product(2 * lane) + product(2 * lane + 1);
        }
    }
}

/// What the largest value of a group becomes.
const ONE: f32 = 32767.0;

/// Up to sixteen groups of `N = 2 * PAIRS` values, to be given codes of `BITS` bits from `LOW` on.
pub(super) struct FixedGroups<const N: usize, const PAIRS: usize, const BITS: u32, const LOW: i16> {
    values: [Pairs; PAIRS],
    /// The largest magnitude of each group.
    pub(super) largest: Lanes,
}

impl<const N: usize, const PAIRS: usize, const BITS: u32, const LOW: i16> FixedGroups<N, PAIRS, BITS, LOW> {
    const HIGH: i16 = (1 << (BITS - 1)) - 1;
    /// Bits behind the point of a factor: what is left of fifteen, so that the largest value may become twice the largest code.
    const FRACTION: u32 = 15 - BITS;

    /// Groups that lie one behind the other; lanes without one are zero.
    #[inline(always)]
    pub(super) fn new(x: &[f32]) -> Self {
        const { assert!(N == 2 * PAIRS && N.is_multiple_of(LANES)) }
        // What a compiler cannot see through keeps it from taking the same element of several groups together, which it
        // would have to gather.
        let x = x.as_chunks::<N>().0;
        let mut parts = [[0u32; LANES]; LANES];
        for (x, parts) in x.iter().zip(&mut parts) {
            for x in black_box(x).as_chunks::<LANES>().0 {
                // The bits of magnitudes are in the magnitudes' order.
                parts.iter_mut().zip(x).for_each(|(part, x)| *part = x.abs().to_bits().max(*part));
            }
        }
        let bits = largest_of_each(&parts);
        let largest = each_lane(|lane| f32::from_bits(bits[lane]));
        let factors = each_lane(|lane| inverse(largest[lane] / ONE));
        let mut values = [[0; 2 * LANES]; PAIRS];
        let groups = values.as_flattened_mut().as_chunks_mut::<N>().0;
        for ((x, values), factor) in x.iter().zip(groups).zip(factors) {
            for (value, x) in values.iter_mut().zip(*black_box(x)) {
                *value = nearest_bits(x * factor) as i16;
            }
        }
        let mut scratch = values;
        transpose(values.as_flattened_mut().as_chunks_mut::<2>().0, scratch.as_flattened_mut().as_chunks_mut::<2>().0);
        Self { values, largest }
    }

    /// What values are multiplied by, for codes of `x` over `largest / factor`.
    #[inline(always)]
    fn fixed(factors: &Lanes) -> Pairs {
        let unit = (1 << Self::FRACTION) as f32 * (32768.0 / ONE);
        let mut fixed = [0; 2 * LANES];
        for lane in 0..LANES {
            let factor = factors[lane] * unit;
            let factor = if factor > f32::from(i16::MIN) { factor } else { f32::from(i16::MIN) };
            let factor = if factor < f32::from(i16::MAX) { factor } else { f32::from(i16::MAX) };
            fixed[2 * lane] = nearest_bits(factor) as i16;
            fixed[2 * lane + 1] = fixed[2 * lane];
        }
        fixed
    }

    /// What values are multiplied by, for codes of `x` over `scales`.
    #[inline(always)]
    fn factors(&self, scales: &Lanes) -> Pairs {
        Self::fixed(&each_lane(|lane| self.largest[lane] * inverse(scales[lane])))
    }

    #[inline(always)]
    fn codes_of(values: &Pairs, factors: &Pairs) -> Pairs {
        // The upper half of a product of two 16-bit numbers has one bit behind the point fewer than the factor.
        const { assert!(Self::FRACTION >= 2) }
        let shift = Self::FRACTION - 1;
        let mut codes = [0; 2 * LANES];
        for at in 0..2 * LANES {
            let code = ((i32::from(values[at]) * i32::from(factors[at])) >> 16) as i16;
            codes[at] = ((code + (1 << (shift - 1))) >> shift).max(LOW).min(Self::HIGH);
        }
        codes
    }

    /// Sums over each group of value times code, in units of `largest / ONE`, and of squared codes.
    #[inline(always)]
    fn sums(&self, pairs: impl PairProducts, factors: &Pairs) -> (Sums, Sums) {
        let (mut products, mut squares) = ([0; LANES], [0; LANES]);
        for values in &self.values {
            let codes = Self::codes_of(values, factors);
            pairs.add(&mut products, values, &codes);
            pairs.add(&mut squares, &codes, &codes);
        }
        (products, squares)
    }

    /// Codes of `x ≈ scale · code`, plus `offset`: `codes[i][lane]` has those of values `2 i` and `2 i + 1` in its lower and its
    /// upper byte.
    #[inline(always)]
    pub(super) fn codes(&self, scales: &Lanes, offset: u8) -> [[u16; LANES]; PAIRS] {
        let factors = self.factors(scales);
        let mut bytes = [[0; LANES]; PAIRS];
        for (bytes, values) in bytes.iter_mut().zip(&self.values) {
            let codes = Self::codes_of(black_box(values), &factors);
            for lane in 0..LANES {
                let stored = |at: usize| (codes[2 * lane + at] + i16::from(offset)) as u16 & 0xff;
                bytes[lane] = stored(0) | stored(1) << 8;
            }
        }
        bytes
    }

    /// By how much codes of `x ≈ scale · code` lessen the squared error, `Σx² − Σ(x − s·c)² = s (2 Σxc − s Σc²)`, in units of
    /// the largest value's square. Where a scale is infinite in units of the largest value it is no number, which is not better
    /// than any.
    #[inline(always)]
    pub(super) fn explained(&self, pairs: impl PairProducts, scales: &Lanes) -> [f64; LANES] {
        let (products, squares) = self.sums(pairs, &self.factors(scales));
        each_lane(|lane| {
            let scale = f64::from(scales[lane] * inverse(self.largest[lane]));
            let product = f64::from(products[lane]) * f64::from(2.0 / ONE);
            scale * (product - scale * f64::from(squares[lane]))
        })
    }

    /// For given factors: the scale that is best for the codes they give, in units of `largest / ONE`, and how much of the
    /// square it explains; kept where that is more than what was `best`.
    #[inline(always)]
    fn refit(&self, pairs: impl PairProducts, factors: &Lanes, best: &mut Fit) {
        let (products, squares) = self.sums(pairs, &Self::fixed(factors));
        for lane in 0..LANES {
            let product = products[lane] as f32;
            // Where the squares are zero, so is the product.
            let scale = product / squares[lane].max(1) as f32;
            let explained = product * scale;
            let better = explained > best.explained[lane];
            best.scales[lane] = select(better, scale, best.scales[lane]);
            best.explained[lane] = select(better, explained, best.explained[lane]);
        }
    }

    /// Signed scales with a small squared error of `x ≈ scale · code`.
    ///
    /// Each candidate puts the largest value at one of `places` among the codes, at an end, beyond it, which clips the value, or
    /// before it, and takes the scale that is best for the codes it gives: of `Σ(x − s·c)²` that one leaves
    /// `Σx² − (Σxc)²/Σc²`.
    #[inline(always)]
    pub(super) fn scales(&self, pairs: impl PairProducts, places: &[f32]) -> Lanes {
        let (mut least, mut most) = ([0; 2 * LANES], [0; 2 * LANES]);
        for values in &self.values {
            for at in 0..2 * LANES {
                least[at] = values[at].min(least[at]);
                most[at] = values[at].max(most[at]);
            }
        }
        let signs = each_lane(|lane| {
            let least = least[2 * lane].min(least[2 * lane + 1]);
            let most = most[2 * lane].max(most[2 * lane + 1]);
            select(-least > most, -1.0, 1.0)
        });
        let mut best = Fit { scales: [0.0; LANES], explained: [0.0; LANES] };
        for place in places {
            self.refit(pairs, &each_lane(|lane| signs[lane] * place), &mut best);
        }
        self.refit(pairs, &each_lane(|lane| ONE * inverse(best.scales[lane])), &mut best);
        each_lane(|lane| best.scales[lane] * (self.largest[lane] / ONE))
    }
}

/// For each group a scale, and how much of the square it explains.
struct Fit {
    scales: Lanes,
    explained: Lanes,
}

/// The largest number of each row.
#[inline(always)]
fn largest_of_each(rows: &[[u32; LANES]; LANES]) -> [u32; LANES] {
    let (mut eighths, mut fourths, mut halves, mut largest) = ([0; 128], [0; 64], [0; 32], [0; LANES]);
    larger_of_pairs(rows.as_flattened(), &mut eighths);
    larger_of_pairs(&eighths, &mut fourths);
    larger_of_pairs(&fourths, &mut halves);
    larger_of_pairs(&halves, &mut largest);
    largest
}

#[inline(always)]
fn larger_of_pairs(from: &[u32], to: &mut [u32]) {
    for (to, [first, second]) in to.iter_mut().zip(from.as_chunks::<2>().0) {
        *to = *first.max(second);
    }
}
