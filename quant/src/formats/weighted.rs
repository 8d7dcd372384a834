//! Rounding whose errors have weights: scales for the smallest `Σ weight · (value − decoded)²`, and codes one value at a time, each after what
//! the ones before it owe. What encodes with statistics of a matrix's inputs is built on it; [`encode_row`](super::encode_row) is faster where
//! all errors count the same.

use super::block::{Block, MAX_BLOCK, MAX_GROUPS, half_at, put_halves};
use super::k_quants::pack_scales;
use super::parts::{block_scales, set_codes};
use super::rule::{Codes, Fit};
use super::search::{code, from_half_bits, half_bits, inverse};
use super::table::{Format, with_block};

/// `value ≈ scale · code + bias`.
#[derive(Clone, Copy, Debug, Default)]
struct Line {
    scale: f32,
    bias: f32,
}

/// Lanes of the sums below, which a compiler makes registers of.
const LANES: usize = 16;

/// The values of a group in units of their largest magnitude, and how much their errors count in units of the largest weight.
struct Group<const N: usize> {
    values: [f32; N],
    weights: [f32; N],
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

impl<const N: usize> Group<N> {
    #[inline(always)]
    fn new(x: &[f32], w: &[f32]) -> Self {
        let extreme = x.iter().fold(0.0f32, |extreme, x| if x.abs() > extreme.abs() { *x } else { extreme });
        let largest_weight = w.iter().copied().fold(0.0, f32::max);
        let (unit, unit_weight) = (inverse(extreme.abs()), inverse(largest_weight));
        let (mut values, mut weights) = ([0.0; N], [1.0; N]);
        for i in 0..N {
            values[i] = x[i] * unit;
            // Where no input ever was, any value is as good; then the plain error decides.
            weights[i] = if unit_weight > 0.0 { (w[i] * unit_weight).max(1e-8) } else { 1.0 };
        }
        let least = values.iter().copied().fold(f32::INFINITY, f32::min);
        let most = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        Self { values, weights, extreme, largest_weight, least, most }
    }

    /// The weighted squared error of a line.
    #[inline(always)]
    fn error(&self, codes: Codes, line: Line) -> f32 {
        let inverse_scale = inverse(line.scale);
        let mut errors = [0.0; LANES];
        for first in (0..N).step_by(LANES) {
            for lane in 0..LANES {
                let (x, w) = (self.values[first + lane], self.weights[first + lane]);
                let code = f32::from(codes.nearest((x - line.bias) * inverse_scale));
                let difference = x - (line.scale * code + line.bias);
                errors[lane] += w * difference * difference;
            }
        }
        errors.iter().sum()
    }

    /// An [`error`](Self::error) in units of the values and weights themselves.
    fn whole_error(&self, error: f32) -> f64 {
        f64::from(error) * f64::from(self.extreme).powi(2) * f64::from(self.largest_weight)
    }

    #[inline(always)]
    fn sums(&self, codes: Codes, line: Line) -> Sums {
        let inverse_scale = inverse(line.scale);
        let [mut weight, mut code_sum, mut square, mut value, mut product] = [[0.0; LANES]; 5];
        for first in (0..N).step_by(LANES) {
            for lane in 0..LANES {
                let (x, w) = (self.values[first + lane], self.weights[first + lane]);
                let code = f32::from(codes.nearest((x - line.bias) * inverse_scale));
                weight[lane] += w;
                code_sum[lane] += w * code;
                square[lane] += w * code * code;
                value[lane] += w * x;
                product[lane] += w * x * code;
            }
        }
        let sum = |lanes: [f32; LANES]| lanes.iter().sum();
        Sums { weight: sum(weight), code: sum(code_sum), square: sum(square), value: sum(value), product: sum(product) }
    }

    /// The scale without a bias that has a small weighted error, in units of the values themselves. Candidates put the extreme value near
    /// either end of the codes, clipped or not; the scale that is best for the codes they give, `Σ wxc / Σ wc²`, is a candidate again.
    #[inline(always)]
    fn scale(&self, codes: Codes) -> f32 {
        if self.extreme == 0.0 {
            return 0.0;
        }
        let (low, high) = codes.ends();
        // At eight bits only the rounding of the scale itself is left to be won back.
        let fine = matches!(codes, Codes::Range(_, 127));
        let steps = if fine { 3 } else { 18 };
        let (mut best, mut explained) = (0.0, -1.0);
        for step in 0..2 * steps + 2 {
            let end = if step % 2 == 0 { low } else { high };
            // From a sixth beyond the end, which clips the value, to three tenths before it.
            let share = if fine { 0.997 + 0.004 * (step / 2) as f32 } else { 1.16 - 0.027 * (step / 2) as f32 };
            let scale = if step < 2 * steps { self.extreme.signum() / (end * share) } else { best };
            let sums = self.sums(codes, Line { scale, bias: 0.0 });
            if sums.square > 0.0 && sums.product * sums.product / sums.square > explained {
                (best, explained) = (sums.product / sums.square, sums.product * sums.product / sums.square);
            }
        }
        best * self.extreme.abs()
    }

    /// The line for codes from 0 to `high` that has a small weighted error, in units of the values themselves; its bias is not above zero
    /// unless `any_bias`.
    #[inline(always)]
    fn line(&self, high: f32, any_bias: bool) -> Line {
        let codes = Codes::Range(0, high as i8);
        let least = if any_bias { self.least } else { self.least.min(0.0) };
        let most = if any_bias { self.most } else { self.most.max(0.0) };
        let magnitude = self.extreme.abs();
        if most <= least {
            return Line { scale: 0.0, bias: least * magnitude };
        }
        let (mut best, mut best_error) = (Line { scale: (most - least) / high, bias: least }, f32::INFINITY);
        for step in 0..34 {
            let mut line = best;
            if step < 32 {
                line.scale = (most - least) / (high * (0.92 + 0.028 * (step / 2) as f32));
                let place = if step % 2 == 0 { 0.0 } else { 0.5 };
                line.bias = least + place * ((most - least) - high * line.scale).max(-line.scale);
                line = self.refit(codes, line, any_bias);
            }
            line = self.refit(codes, line, any_bias);
            let error = self.error(codes, line);
            if error < best_error {
                (best, best_error) = (line, error);
            }
        }
        Line { scale: best.scale * magnitude, bias: best.bias * magnitude }
    }

    /// The line that is best for the codes that `line` gives.
    #[inline(always)]
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

/// Stores the scales, and biases, that have a small `Σ weight · (value − decoded)²` over the block; its codes are left as they are.
#[inline(always)]
fn choose(fit: Fit, codes: Codes, values: &[f32], weights: &[f32], block: &mut [u8]) {
    match fit {
        Fit::Scale => put_halves(&[half_bits(Group::<32>::new(values, weights).scale(codes))], block),
        Fit::Line => {
            let line = Group::<32>::new(values, weights).line(codes.ends().1, true);
            put_halves(&[half_bits(line.scale), half_bits(line.bias)], block);
        }
        Fit::AffineGroups => choose_affine(codes, values, weights, block),
        Fit::ScaledGroups(scales_at, unit_at) => {
            let groups: [Group<16>; 16] =
                std::array::from_fn(|j| Group::new(&values[j * 16..][..16], &weights[j * 16..][..16]));
            let ideal = groups.each_ref().map(|group| group.scale(codes));
            let largest = ideal.iter().fold(0.0f32, |most, scale| most.max(scale.abs()));
            let bits = half_bits(largest / 127.0);
            let d = from_half_bits(bits);
            put_halves(&[bits], &mut block[unit_at..]);
            for ((group, scale), byte) in groups.iter().zip(ideal).zip(&mut block[scales_at..][..16]) {
                let (unit, nearest) = (inverse(group.extreme.abs()), code(scale, inverse(d), -127.0, 127.0));
                let mut least = f32::INFINITY;
                for step in [0.0, -1.0, 1.0] {
                    let integer = (nearest + step).clamp(-127.0, 127.0);
                    let error = group.error(codes, Line { scale: d * integer * unit, bias: 0.0 });
                    if error < least {
                        (least, *byte) = (error, integer as i8 as u8);
                    }
                }
            }
        }
    }
}

/// [`choose`] for [`Fit::AffineGroups`].
#[inline(always)]
fn choose_affine(codes: Codes, values: &[f32], weights: &[f32], block: &mut [u8]) {
    let groups: [Group<32>; 8] = std::array::from_fn(|j| Group::new(&values[j * 32..][..32], &weights[j * 32..][..32]));
    let lines = groups.each_ref().map(|group| group.line(codes.ends().1, false));
    let largest = |part: fn(&Line) -> f32| lines.iter().fold(0.0f32, |most, line| most.max(part(line)));
    let (largest_scale, largest_minimum) = (largest(|line| line.scale), largest(|line| -line.bias));
    let mut best_error = f64::INFINITY;
    for shrink in [63.0, 61.0, 59.0] {
        let halves = [half_bits(largest_scale / shrink), half_bits(largest_minimum / shrink)];
        let [d, dmin] = halves.map(from_half_bits);
        let (mut scales, mut minima, mut total) = ([0; 8], [0; 8], 0.0);
        for (j, group) in groups.iter().enumerate() {
            let unit = inverse(group.extreme.abs());
            let (nearest_scale, nearest_minimum) =
                (code(lines[j].scale, inverse(d), 0.0, 63.0), code(-lines[j].bias, inverse(dmin), 0.0, 63.0));
            let mut least = f32::INFINITY;
            for step in 0..9 {
                let scale = (nearest_scale + (step / 3) as f32 - 1.0).clamp(0.0, 63.0);
                let minimum = (nearest_minimum + (step % 3) as f32 - 1.0).clamp(0.0, 63.0);
                let error = group.error(codes, Line { scale: d * scale * unit, bias: -dmin * minimum * unit });
                if error < least {
                    (least, scales[j], minima[j]) = (error, scale as u8, minimum as u8);
                }
            }
            total += group.whole_error(least);
        }
        if total < best_error {
            best_error = total;
            put_halves(&halves, block);
            pack_scales(&scales, &minima, &mut block[4..16]);
        }
    }
}

/// One block of a row that is rounded value by value.
#[derive(Clone, Copy, Debug)]
pub struct BlockToRound<'a> {
    /// The block's values.
    pub values: &'a [f32],
    /// What they are to be rounded to: the values, and what errors in earlier columns ask for.
    pub wanted: &'a [f32],
    /// How much an error counts in each column; not negative.
    pub weights: &'a [f32],
    /// `coupling[i · stride + j]`: the share of the error in column `i` that is to be added to what is wanted of column `j`; zero unless `j > i`.
    /// Empty where errors are not paid for.
    pub coupling: &'a [f32],
    /// The distance between rows of `coupling`.
    pub stride: usize,
}

/// With coupling, these shares of the scale that is best without it are tried beside it.
const SHARES: [f32; 6] = [0.96, 0.92, 0.88, 1.04, 1.08, 0.84];

/// A block's codes and what they cost.
struct Trial {
    cost: f32,
    codes: [i8; MAX_BLOCK],
    decoded: [f32; MAX_BLOCK],
}

impl Trial {
    /// Rounds with the scales that are in `block`.
    #[inline(always)]
    fn new(format: Format, range: Codes, part: &BlockToRound<'_>, block: &[u8]) -> Self {
        let (mut scales, mut biases) = ([0.0; MAX_GROUPS], [0.0; MAX_GROUPS]);
        let group = block_scales(format, block, &mut scales, &mut biases);
        let inverses = scales.map(inverse);
        let mut trial = Self { cost: 0.0, codes: [0; MAX_BLOCK], decoded: [0.0; MAX_BLOCK] };
        let mut wanted = [0.0; MAX_BLOCK];
        let len = part.values.len();
        wanted[..len].copy_from_slice(part.wanted);
        for at in 0..len {
            let (scale, bias) = (scales[at / group], biases[at / group]);
            let code = range.nearest((wanted[at] - bias) * inverses[at / group]);
            let decoded = scale * f32::from(code) + bias;
            (trial.codes[at], trial.decoded[at]) = (code, decoded);
            let due = wanted[at] - decoded;
            trial.cost += part.weights[at] * due * due;
            if !part.coupling.is_empty() {
                let error = part.values[at] - decoded;
                let coupling = &part.coupling[at * part.stride..][..len];
                // Whole registers from the one on that holds the next column; what is before that is zero.
                let from = at / LANES * LANES;
                let (wanted, coupling) =
                    (wanted[from..len].as_chunks_mut::<LANES>().0, coupling[from..].as_chunks::<LANES>().0);
                for (wanted, coupling) in wanted.iter_mut().zip(coupling) {
                    for lane in 0..LANES {
                        wanted[lane] += error * coupling[lane];
                    }
                }
            }
        }
        trial
    }
}

/// Encodes a block of a quantized format for the smallest `Σ weight · (wanted − decoded)²`, where what is wanted of a column depends on the
/// errors in those before it. `decoded` gets the block's values.
///
/// # Panics
/// When slices are not those of one block of a quantized format.
#[inline(always)]
pub fn round_block(format: Format, part: &BlockToRound<'_>, block: &mut [u8], decoded: &mut [f32]) {
    let (info, len) = (format.info(), part.values.len());
    let fits = len == info.block_len && block.len() == info.block_bytes && decoded.len() == len;
    assert!(fits && part.wanted.len() == len && part.weights.len() == len, "one block of {format}");
    let (fit, codes) = with_block!(format, B => (B::FIT, B::CODES), else panic!("{format} is no quantized format"));
    choose(fit, codes, part.wanted, part.weights, block);
    let mut best = Trial::new(format, codes, part, block);
    if !part.coupling.is_empty() {
        let at = fit.unit_at();
        let unit = half_at(block, at);
        let mut best_unit = half_bits(unit);
        for share in SHARES {
            let bits = half_bits(unit * share);
            put_halves(&[bits], &mut block[at..]);
            let trial = Trial::new(format, codes, part, block);
            if trial.cost < best.cost {
                (best, best_unit) = (trial, bits);
            }
        }
        put_halves(&[best_unit], &mut block[at..]);
    }
    set_codes(format, &best.codes, block);
    decoded.copy_from_slice(&best.decoded[..len]);
}
