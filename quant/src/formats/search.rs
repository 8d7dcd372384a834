//! Searching scales and minima for the smallest squared error, for sixteen groups of values at once: one in each lane, so that no
//! sum crosses lanes and a compiler makes registers of them. Results do not depend on what lies in the other lanes.

use std::hint::select_unpredictable as select;

use crate::vector::ROUND;

/// Groups that are searched together.
pub(super) const LANES: usize = 16;
/// A number for each group.
pub(super) type Lanes = [f32; LANES];

/// What `make` makes for each lane; unlike the library's own functions on arrays it never becomes a call.
#[inline(always)]
pub(super) fn each_lane<T: Copy + Default>(make: impl Fn(usize) -> T) -> [T; LANES] {
    let mut lanes = [T::default(); LANES];
    for lane in 0..LANES {
        lanes[lane] = make(lane);
    }
    lanes
}

/// `1 / x`, or zero where `x` is zero or so small that the quotient is not finite.
#[inline(always)]
pub(super) fn inverse(x: f32) -> f32 {
    let inverse = 1.0 / x;
    select(inverse.is_finite(), inverse, 0.0)
}

/// The bits of the nearest half-precision number, ties to even, clamped to the finite ones; `x` is a number.
#[inline(always)]
pub(super) fn half_bits(x: f32) -> u16 {
    /// The smallest normal number in half precision.
    const NORMAL: f32 = 1.0 / 16384.0;
    let magnitude = x.abs();
    let magnitude = if magnitude < 65504.0 { magnitude } else { 65504.0 };
    let bits = magnitude.to_bits();
    // Thirteen bits go; the exponent's zero is 112 further up.
    let normal = ((bits + 0xfff + (bits >> 13 & 1)) >> 13).wrapping_sub(112 << 10);
    // At 0.5 the last bit of a number is worth the last bit of half precision's smallest.
    let subnormal = (magnitude + 0.5).to_bits() - 0.5f32.to_bits();
    (select(magnitude < NORMAL, subnormal, normal) | x.to_bits() >> 16 & 0x8000) as u16
}

/// What the bits of a finite half-precision number mean.
#[inline(always)]
pub(super) fn from_half_bits(bits: u16) -> f32 {
    const EXPONENTS: f32 = f32::from_bits((127 + 112) << 23);
    let magnitude = f32::from_bits(u32::from(bits & 0x7fff) << 13) * EXPONENTS;
    f32::from_bits(magnitude.to_bits() | u32::from(bits & 0x8000) << 16)
}

/// The nearest half-precision number, clamped to the finite ones.
#[inline(always)]
pub(super) fn to_half(x: f32) -> f32 {
    from_half_bits(half_bits(x))
}

/// The integer nearest to `x`, below 2²², as the low bits of a number in two's complement.
#[inline(always)]
pub(super) fn nearest_bits(x: f32) -> u32 {
    (x + ROUND).to_bits()
}

/// The code of `x` for a given inverse scale, plus [`ROUND`]. Comparisons written so are one instruction each.
#[inline(always)]
fn shifted_code(x: f32, inverse_scale: f32, low: f32, high: f32) -> f32 {
    let code = x * inverse_scale;
    let code = if code > low { code } else { low };
    (if code < high { code } else { high }) + ROUND
}

/// The code of `x` for a given inverse scale.
#[inline(always)]
pub(super) fn code(x: f32, inverse_scale: f32, low: f32, high: f32) -> f32 {
    shifted_code(x, inverse_scale, low, high) - ROUND
}

/// A small integer as a byte in two's complement.
#[inline(always)]
pub(super) fn to_byte(integer: f32) -> i8 {
    nearest_bits(integer) as i8
}

/// The code of `x` for a given inverse scale as a byte in two's complement.
#[inline(always)]
pub(super) fn byte_code(x: f32, inverse_scale: f32, low: f32, high: f32) -> i8 {
    shifted_code(x, inverse_scale, low, high).to_bits() as i8
}

/// Turns sixteen rows of equal length into columns, `to[i * 16 + row] = from[row * length + i]`, both flat: each time the two
/// halves are interleaved, a bit of the row's number moves from the top of the index to its bottom.
#[inline(always)]
pub(super) fn transpose<T: Copy>(rows: &mut [T], scratch: &mut [T]) {
    for _ in 0..2 {
        interleave(rows, scratch);
        interleave(scratch, rows);
    }
}

/// As [`transpose`], for eight rows.
#[inline(always)]
pub(super) fn transpose_eight<T: Copy>(rows: &mut [T], transposed: &mut [T]) {
    interleave(rows, transposed);
    interleave(transposed, rows);
    interleave(rows, transposed);
}

#[inline(always)]
fn interleave<T: Copy>(from: &[T], to: &mut [T]) {
    let (first, second) = from.split_at(from.len() / 2);
    for ((pair, first), second) in to.as_chunks_mut::<2>().0.iter_mut().zip(first).zip(second) {
        *pair = [*first, *second];
    }
}

/// Keeps a compiler from making a register of the same element of several arrays, which it would have to gather.
#[inline(always)]
fn one_by_one<T, const N: usize>(array: &[T; N]) -> &[T; N] {
    std::hint::black_box(array)
}

/// Up to sixteen groups of `N` values, value by value: `values[i][lane]`. They are divided by the group's largest
/// magnitude, so that no square overflows.
pub(super) struct Groups<const N: usize> {
    values: [Lanes; N],
    /// The largest magnitude of each group.
    pub(super) largest: Lanes,
    inverse_largest: Lanes,
    /// The smallest and the largest value of each group, or zero, as `values` are.
    ends: (Lanes, Lanes),
}

impl<const N: usize> Groups<N> {
    /// Groups that lie one behind the other; lanes without one are zero.
    #[inline(always)]
    pub(super) fn new(x: &[f32]) -> Self {
        let mut values = [[0.0; LANES]; N];
        let (mut largest, mut inverse_largest) = ([0.0; LANES], [0.0; LANES]);
        let groups = values.as_flattened_mut().as_chunks_mut::<N>().0;
        for (lane, (x, values)) in x.as_chunks::<N>().0.iter().zip(groups).enumerate() {
            let x = *one_by_one(x);
            // The bits of magnitudes are in the magnitudes' order, and integers may be compared in any order.
            let bits = x.iter().fold(0, |largest, x| x.abs().to_bits().max(largest));
            largest[lane] = f32::from_bits(bits);
            inverse_largest[lane] = inverse(largest[lane]);
            for (value, x) in values.iter_mut().zip(x) {
                *value = x * inverse_largest[lane];
            }
        }
        transpose(values.as_flattened_mut(), [[0.0; LANES]; N].as_flattened_mut());
        let (mut least, mut most) = ([0.0f32; LANES], [0.0f32; LANES]);
        for values in &values {
            for lane in 0..LANES {
                let x = values[lane];
                least[lane] = if x < least[lane] { x } else { least[lane] };
                most[lane] = if x > most[lane] { x } else { most[lane] };
            }
        }
        Self { values, largest, inverse_largest, ends: (least, most) }
    }

    /// Codes of `x ≈ scale · code − minimum` in `0..=high`: `codes[i][lane]`.
    #[inline(always)]
    pub(super) fn affine_codes(&self, scales: &Lanes, minima: &Lanes, high: f32) -> [[i8; LANES]; N] {
        let (factors, shifts) = self.affine_factors(scales, minima);
        let mut codes = [[0; LANES]; N];
        for (codes, values) in codes.iter_mut().zip(&self.values) {
            let values = one_by_one(values);
            for lane in 0..LANES {
                codes[lane] = byte_code(values[lane] + shifts[lane], factors[lane], 0.0, high);
            }
        }
        codes
    }

    /// What turns values of this group into codes: what they are multiplied by once a shift was added.
    #[inline(always)]
    fn affine_factors(&self, scales: &Lanes, minima: &Lanes) -> (Lanes, Lanes) {
        let (mut factors, mut shifts) = ([0.0; LANES], [0.0; LANES]);
        for lane in 0..LANES {
            factors[lane] = self.largest[lane] * inverse(scales[lane]);
            shifts[lane] = minima[lane] * self.inverse_largest[lane];
        }
        (factors, shifts)
    }

    /// Squared errors of `x ≈ scale · code − minimum`, codes in `0..=high`, in units of the largest value's square.
    #[inline(always)]
    pub(super) fn affine_errors(&self, scales: &Lanes, minima: &Lanes, high: f32) -> Lanes {
        let (factors, shifts) = self.affine_factors(scales, minima);
        let (mut steps, mut errors) = ([0.0; LANES], [0.0; LANES]);
        for lane in 0..LANES {
            steps[lane] = scales[lane] * self.inverse_largest[lane];
        }
        for values in &self.values {
            for lane in 0..LANES {
                let shifted = values[lane] + shifts[lane];
                let difference = shifted - steps[lane] * code(shifted, factors[lane], 0.0, high);
                errors[lane] += difference * difference;
            }
        }
        errors
    }

    /// Both ≥ 0, and small the squared error of `x ≈ scale · code − minimum`, codes in `0..=high`.
    ///
    /// Candidates begin a little inside the range of the values, which clips its ends for a finer grid, and take twice the
    /// scale and the minimum that are best for the codes they give.
    #[inline(always)]
    pub(super) fn affine_scales(&self, high: f32) -> AffineScales {
        let (least, most) = &self.ends;
        let mut sums = Sums { values: [0.0; LANES], squares: [0.0; LANES] };
        for values in &self.values {
            for lane in 0..LANES {
                sums.values[lane] += values[lane];
                sums.squares[lane] += values[lane] * values[lane];
            }
        }
        // Where all values are the same and not positive, the minimum is all there is.
        let mut best = AffineScales { scales: [0.0; LANES], minima: [0.0; LANES] };
        let mut best_errors = [f32::INFINITY; LANES];
        for lane in 0..LANES {
            best.minima[lane] = -least[lane];
        }
        for shrink in AFFINE_SHRINKS {
            let mut tried = AffineScales { scales: [0.0; LANES], minima: [0.0; LANES] };
            for lane in 0..LANES {
                tried.scales[lane] = (most[lane] - least[lane]) * shrink / high;
                tried.minima[lane] = -least[lane] * shrink;
            }
            for _ in 0..2 {
                let errors = self.affine_refit(&mut tried, &sums, high);
                for lane in 0..LANES {
                    let better = errors[lane] < best_errors[lane];
                    best_errors[lane] = select(better, errors[lane], best_errors[lane]);
                    best.scales[lane] = select(better, tried.scales[lane], best.scales[lane]);
                    best.minima[lane] = select(better, tried.minima[lane], best.minima[lane]);
                }
            }
        }
        for lane in 0..LANES {
            best.scales[lane] *= self.largest[lane];
            best.minima[lane] *= self.largest[lane];
        }
        best
    }

    /// Makes scales and minima the best ones for the codes that they give; returns the squared errors of these codes,
    /// infinite where all codes are zero. The sums are of the values.
    #[inline(always)]
    fn affine_refit(&self, fit: &mut AffineScales, sums: &Sums, high: f32) -> Lanes {
        let AffineScales { scales, minima } = fit;
        let mut factors = [0.0; LANES];
        for lane in 0..LANES {
            factors[lane] = inverse(scales[lane]);
        }
        let (mut c, mut xc, mut cc) = ([0.0; LANES], [0.0; LANES], [0.0; LANES]);
        for values in &self.values {
            for lane in 0..LANES {
                let code = code(values[lane] + minima[lane], factors[lane], 0.0, high);
                c[lane] += code;
                xc[lane] += values[lane] * code;
                cc[lane] += code * code;
            }
        }
        let mut errors = [0.0; LANES];
        for lane in 0..LANES {
            let (x, c, xc, cc) = (sums.values[lane], c[lane], xc[lane], cc[lane]);
            let inverse_determinant = inverse(N as f32 * cc - c * c);
            let scale = (N as f32 * xc - x * c) * inverse_determinant;
            let minimum = (xc * c - x * cc) * inverse_determinant;
            // At the border of what is allowed the minimum is zero.
            let inside = inverse_determinant > 0.0 && minimum >= 0.0 && scale >= 0.0;
            let alone = xc * inverse(cc);
            let alone = select(alone > 0.0, alone, 0.0);
            scales[lane] = select(inside, scale, alone);
            minima[lane] = select(inside, minimum, 0.0);
            let error = sums.squares[lane] - scales[lane] * xc + minima[lane] * x;
            errors[lane] = select(cc > 0.0, error, f32::INFINITY);
        }
        errors
    }
}

/// For each group: `x ≈ scale · code − minimum`.
pub(super) struct AffineScales {
    pub(super) scales: Lanes,
    pub(super) minima: Lanes,
}

/// Sums over each group.
struct Sums {
    values: Lanes,
    squares: Lanes,
}

/// Parts of the values' range that affine candidates begin with.
const AFFINE_SHRINKS: [f32; 6] = [1.0, 0.94, 0.88, 0.82, 0.76, 0.70];

#[cfg(test)]
mod tests {
    use half::f16;

    use super::{from_half_bits, half_bits};

    /// Every half-precision number, what lies between it and the next, and what lies just beside that.
    #[test]
    fn halves_are_those_of_the_half_package() {
        for bits in 0..f16::MAX.to_bits() {
            let (low, high) = (f16::from_bits(bits).to_f32(), f16::from_bits(bits + 1).to_f32());
            assert_eq!(from_half_bits(bits), low);
            let middle = (low + high) / 2.0;
            for x in [low, middle.next_down(), middle, middle.next_up(), high] {
                for x in [x, -x] {
                    assert_eq!(half_bits(x), f16::from_f32(x).to_bits(), "{x}");
                    assert_eq!(from_half_bits(half_bits(x)), f16::from_f32(x).to_f32());
                }
            }
        }
        for (x, expected) in [(f32::MAX, 65504.0), (-1e6, -65504.0), (65519.0, 65504.0), (1e-40, 0.0)] {
            assert_eq!(from_half_bits(half_bits(x)), expected);
        }
    }
}
