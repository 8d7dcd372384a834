//! Rounding whose errors have weights: scales for the smallest `Σ weight · (value − decoded)²`, and codes one value at a time. What encodes with
//! statistics of a matrix's inputs is built on it; [`encode_row`](super::encode_row) is faster where all errors count the same.

use super::block::{Block, MAX_BLOCK, MAX_GROUPS};
use super::search::{from_half_bits, half_bits, inverse};

/// The codes that a format has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codes {
    /// All integers from the first to the second.
    Range(i8, i8),
    /// These, in ascending order.
    Levels(&'static [i8]),
}

impl Codes {
    /// The code nearest to `value`, which counts in units of the scale; zero for what is no number.
    #[inline(always)]
    pub fn nearest(self, value: f32) -> i8 {
        match self {
            Self::Range(low, high) => value.round_ties_even().clamp(f32::from(low), f32::from(high)) as i8,
            Self::Levels(levels) => {
                let above = |pair: &[i8]| value > (f32::from(pair[0]) + f32::from(pair[1])) / 2.0;
                levels[levels.windows(2).filter(|pair| above(pair)).count()]
            }
        }
    }

    /// The smallest and the largest.
    fn ends(self) -> (f32, f32) {
        let (low, high) = match self {
            Self::Range(low, high) => (low, high),
            Self::Levels(levels) => (levels[0], levels[levels.len() - 1]),
        };
        (f32::from(low), f32::from(high))
    }
}

/// A scale and a bias: `value ≈ scale · code + bias`.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Line {
    pub(super) scale: f32,
    pub(super) bias: f32,
}

/// Values of a group and how much their errors count, both in units of their largest.
pub(super) struct Group {
    values: [f32; MAX_BLOCK],
    weights: [f32; MAX_BLOCK],
    len: usize,
    /// The value of largest magnitude, with its sign.
    extreme: f32,
    largest_weight: f32,
    least: f32,
    most: f32,
}

/// Sums over a group for given codes.
#[derive(Default)]
struct Sums {
    weight: f32,
    code: f32,
    square: f32,
    value: f32,
    product: f32,
}

impl Group {
    pub(super) fn new(x: &[f32], w: &[f32]) -> Self {
        let extreme = x.iter().fold(0.0f32, |extreme, x| if x.abs() > extreme.abs() { *x } else { extreme });
        let largest_weight = w.iter().copied().fold(0.0, f32::max);
        let (values, weights) = ([0.0; MAX_BLOCK], [0.0; MAX_BLOCK]);
        let mut group = Self { values, weights, len: x.len(), extreme, largest_weight, least: 0.0, most: 0.0 };
        let (unit, unit_weight) = (inverse(extreme.abs()), inverse(largest_weight));
        for i in 0..x.len() {
            group.values[i] = x[i] * unit;
            // Where no input ever was, any value is as good; then the plain error decides.
            group.weights[i] = if unit_weight > 0.0 { (w[i] * unit_weight).max(1e-8) } else { 1.0 };
        }
        group.least = group.values[..x.len()].iter().copied().fold(f32::INFINITY, f32::min);
        group.most = group.values[..x.len()].iter().copied().fold(f32::NEG_INFINITY, f32::max);
        group
    }

    fn pairs(&self) -> impl Iterator<Item = (f32, f32)> {
        self.values[..self.len].iter().copied().zip(self.weights[..self.len].iter().copied())
    }

    /// The values' magnitude, which scales that the search finds are to be multiplied by.
    pub(super) fn magnitude(&self) -> f32 {
        self.extreme.abs()
    }

    /// The weighted squared error of a line in units of the group's largest value.
    pub(super) fn error(&self, codes: Codes, line: Line) -> f32 {
        let inverse_scale = inverse(line.scale);
        let mut error = 0.0;
        for (x, w) in self.pairs() {
            let code = f32::from(codes.nearest((x - line.bias) * inverse_scale));
            let difference = x - (line.scale * code + line.bias);
            error += w * difference * difference;
        }
        error
    }

    /// An [`error`](Self::error) in units of the values and weights themselves.
    pub(super) fn whole_error(&self, error: f32) -> f64 {
        f64::from(error) * f64::from(self.extreme).powi(2) * f64::from(self.largest_weight)
    }

    fn sums(&self, codes: Codes, line: Line) -> Sums {
        let inverse_scale = inverse(line.scale);
        let mut sums = Sums::default();
        for (x, w) in self.pairs() {
            let code = f32::from(codes.nearest((x - line.bias) * inverse_scale));
            sums.weight += w;
            sums.code += w * code;
            sums.square += w * code * code;
            sums.value += w * x;
            sums.product += w * x * code;
        }
        sums
    }

    /// The scale without a bias that has a small weighted error. Candidates put the extreme value near either end of the codes, clipped or
    /// not; the scale that is best for the codes they give, `Σ wxc / Σ wc²`, is tried again as a candidate.
    pub(super) fn scale(&self, codes: Codes) -> f32 {
        if self.extreme == 0.0 {
            return 0.0;
        }
        let (low, high) = codes.ends();
        // At eight bits only the rounding of the scale itself is left to be won back.
        let steps = if matches!(codes, Codes::Range(_, 127)) { 3 } else { 18 };
        let (mut best, mut explained) = (0.0, -1.0);
        let mut consider = |scale: f32| {
            let sums = self.sums(codes, Line { scale, bias: 0.0 });
            if sums.square > 0.0 && sums.product * sums.product / sums.square > explained {
                (best, explained) = (sums.product / sums.square, sums.product * sums.product / sums.square);
            }
        };
        let sign = self.extreme.signum();
        for end in [low, high] {
            for step in 0..steps {
                // From a sixth beyond the end, which clips the value, to three tenths before it.
                let share = if steps == 3 { 0.997 + 0.004 * step as f32 } else { 1.16 - 0.027 * step as f32 };
                consider(sign / (end * share));
            }
        }
        for _ in 0..2 {
            let again = best;
            let sums = self.sums(codes, Line { scale: again, bias: 0.0 });
            if sums.square > 0.0 && sums.product * sums.product / sums.square > explained {
                (best, explained) = (sums.product / sums.square, sums.product * sums.product / sums.square);
            }
        }
        best
    }

    /// The line with a small weighted error; its bias is not above zero unless `any_bias`.
    pub(super) fn line(&self, high: f32, any_bias: bool) -> Line {
        let codes = Codes::Range(0, high as i8);
        let least = if any_bias { self.least } else { self.least.min(0.0) };
        let most = if any_bias { self.most } else { self.most.max(0.0) };
        if most <= least {
            return Line { scale: 0.0, bias: least };
        }
        let (mut best, mut best_error) = (Line { scale: (most - least) / high, bias: least }, f32::INFINITY);
        let mut consider = |line: Line, best: &mut Line| {
            let error = self.error(codes, line);
            if error < best_error {
                (*best, best_error) = (line, error);
            }
        };
        for step in 0..16 {
            let scale = (most - least) / (high * (0.92 + 0.028 * step as f32));
            for place in [0.0, 0.5] {
                let mut line = Line { scale, bias: least + place * ((most - least) - high * scale).max(-scale) };
                for _ in 0..2 {
                    line = self.refit(codes, line, any_bias);
                }
                consider(line, &mut best);
            }
        }
        for _ in 0..2 {
            consider(self.refit(codes, best, any_bias), &mut best);
        }
        best
    }

    /// The line that is best for the codes that `line` gives.
    fn refit(&self, codes: Codes, line: Line, any_bias: bool) -> Line {
        let sums = self.sums(codes, line);
        let determinant = sums.weight * sums.square - sums.code * sums.code;
        let fitted = Line {
            scale: (sums.weight * sums.product - sums.value * sums.code) / determinant,
            bias: (sums.square * sums.value - sums.code * sums.product) / determinant,
        };
        if determinant > 0.0 && fitted.scale > 0.0 && (any_bias || fitted.bias <= 0.0) {
            fitted
        } else if !any_bias && sums.square > 0.0 && sums.product > 0.0 {
            Line { scale: sums.product / sums.square, bias: 0.0 }
        } else {
            line
        }
    }
}

/// The nearest half-precision number.
pub(super) fn rounded_half(x: f32) -> (u16, f32) {
    let bits = half_bits(x);
    (bits, from_half_bits(bits))
}

/// `x` in whole units, at most `most` of them either way.
pub(super) fn in_units(x: f32, unit: f32, most: f32) -> f32 {
    (x * inverse(unit)).round_ties_even().clamp(-most, most)
}

/// Encodes one block: its scales by the weights, each code the nearest.
pub(super) fn encode_block<B: Block>(values: &[f32], weights: &[f32], out: &mut [u8]) {
    B::choose(values, weights, out);
    let (mut scales, mut biases) = ([0.0; MAX_GROUPS], [0.0; MAX_GROUPS]);
    B::scales(out, &mut scales, &mut biases);
    let mut codes = [0; MAX_BLOCK];
    for (group, (x, codes)) in values.chunks(B::GROUP).zip(codes.chunks_mut(B::GROUP)).enumerate() {
        let inverse_scale = inverse(scales[group]);
        for (code, x) in codes.iter_mut().zip(x) {
            *code = B::CODES.nearest((x - biases[group]) * inverse_scale);
        }
    }
    B::set_codes(&codes, out);
}
