//! Resampling as Pillow 13 does it, or as torchvision does, bit for bit: one direction after the other, rounded to bytes in
//! between, with fixed-point coefficients. (Pillow, `Resample.c` and `Geometry.c`; PyTorch, `UpSampleKernelAVXAntialias.h`;
//! docs/dependencies.md tells why no library does it.)

use super::size::Size;
use crate::config::ResizeRule;

/// Fraction bits of Pillow's coefficients: 32, less 8 for the result and 2 for overshoot. PyTorch's coefficients have 16 bits; their
/// fraction takes as many as the largest one leaves, up to this number.
const PRECISION: u32 = 22;

/// A resampling filter, by PIL's numbering.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Filter {
    Nearest,
    Lanczos,
    Bilinear,
    Bicubic,
    Box,
    Hamming,
}

impl Filter {
    pub(super) fn from_pil(number: u32) -> Option<Self> {
        const FILTERS: [Filter; 6] =
            [Filter::Nearest, Filter::Lanczos, Filter::Bilinear, Filter::Bicubic, Filter::Box, Filter::Hamming];
        FILTERS.get(number as usize).copied()
    }

    /// Half the filter's width at its own scale.
    fn support(self) -> f64 {
        match self {
            Self::Nearest | Self::Box => 0.5,
            Self::Bilinear | Self::Hamming => 1.0,
            Self::Bicubic => 2.0,
            Self::Lanczos => 3.0,
        }
    }

    /// PyTorch's form of the cubic, which rounds in other places.
    fn torch_weight(self, x: f64) -> f64 {
        const A: f64 = -0.5;
        let x = x.abs();
        match self {
            Self::Bicubic if x < 1.0 => ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0,
            Self::Bicubic if x < 2.0 => ((A * x - 5.0 * A) * x + 8.0 * A) * x - 4.0 * A,
            Self::Bicubic => 0.0,
            Self::Lanczos if x >= 3.0 => 0.0,
            other => other.weight(x),
        }
    }

    /// Whether a rule has this filter.
    pub(crate) fn is_of(self, rule: ResizeRule) -> bool {
        rule == ResizeRule::Pillow || !matches!(self, Self::Box | Self::Hamming)
    }

    fn weight(self, x: f64) -> f64 {
        let distance = x.abs();
        let sinc = |x: f64| if x == 0.0 { 1.0 } else { (x * std::f64::consts::PI).sin() / (x * std::f64::consts::PI) };
        match self {
            Self::Nearest | Self::Box => f64::from(x > -0.5 && x <= 0.5),
            Self::Bilinear => (1.0 - distance).max(0.0),
            Self::Bicubic => {
                const A: f64 = -0.5;
                if distance < 1.0 {
                    ((A + 2.0) * distance - (A + 3.0)) * distance * distance + 1.0
                } else if distance < 2.0 {
                    (((distance - 5.0) * distance + 8.0) * distance - 4.0) * A
                } else {
                    0.0
                }
            }
            Self::Lanczos if (-3.0..3.0).contains(&x) => sinc(x) * sinc(x / 3.0),
            Self::Hamming if x == 0.0 => 1.0,
            // Pillow's constants are floats.
            Self::Hamming if distance < 1.0 => {
                sinc(x) * (f64::from(0.54f32) + f64::from(0.46f32) * (x * std::f64::consts::PI).cos())
            }
            Self::Lanczos | Self::Hamming => 0.0,
        }
    }
}

/// What one output position takes: `weights` of the inputs from `first` on.
struct Tap<Weight> {
    first: usize,
    weights: Vec<Weight>,
}

/// Pillow's taps in double precision, and PyTorch's.
fn taps(filter: Filter, from: usize, to: usize, rule: ResizeRule) -> Vec<Tap<f64>> {
    if filter == Filter::Nearest {
        let places = match rule {
            ResizeRule::Pillow => pillow_nearest(from, to),
            ResizeRule::Torchvision => torch_nearest(from, to),
        };
        return places.into_iter().map(|first| Tap { first, weights: vec![1.0] }).collect();
    }
    let scale = from as f64 / to as f64;
    let filter_scale = scale.max(1.0);
    let (support, inverse) = (filter.support() * filter_scale, 1.0 / filter_scale);
    let tap = |position: usize| {
        let center = (position as f64 + 0.5) * scale;
        let first = (center - support + 0.5).max(0.0) as usize;
        let end = ((center + support + 0.5) as usize).min(from);
        let weight = |input| {
            let x = (input as f64 - center + 0.5) * inverse;
            match rule {
                ResizeRule::Pillow => filter.weight(x),
                ResizeRule::Torchvision => filter.torch_weight(x),
            }
        };
        let mut weights: Vec<f64> = (first..end).map(weight).collect();
        let total: f64 = weights.iter().sum();
        if total != 0.0 {
            weights.iter_mut().for_each(|weight| *weight /= total);
        }
        Tap { first, weights }
    };
    (0..to).map(tap).collect()
}

/// Pillow adds the step again and again, and its rounding errors with it (`ImagingScaleAffine`).
fn pillow_nearest(from: usize, to: usize) -> Vec<usize> {
    let step = from as f64 / to as f64;
    let mut at = step * 0.5;
    let next = |_| {
        let place = (at as usize).min(from - 1);
        at += step;
        place
    };
    (0..to).map(next).collect()
}

/// PyTorch's "nearest-exact", in single precision as it computes it for both sides of a square: up to 64 pixels in one way,
/// beyond in another.
fn torch_nearest(from: usize, to: usize) -> Vec<usize> {
    if from == to {
        return (0..to).collect();
    }
    let scale = from as f32 / to as f32;
    let place = |position: usize| {
        let middle = f64::from(position as f32 + 0.5);
        let place = if 2 * to <= 128 {
            (middle * f64::from(scale)) as f32
        } else {
            let source = (f64::from(scale) * middle - 0.5) as f32;
            (f64::from(source.max(0.0)) + 0.5) as f32
        };
        (place.floor() as usize).min(from - 1)
    };
    (0..to).map(place).collect()
}

/// Weights in fixed point, and their bits behind the binary point.
struct FixedTaps {
    taps: Vec<Tap<i32>>,
    precision: u32,
}

impl FixedTaps {
    fn new(filter: Filter, from: usize, to: usize, rule: ResizeRule) -> Self {
        let taps = taps(filter, from, to, rule);
        let precision = match rule {
            ResizeRule::Pillow => PRECISION,
            ResizeRule::Torchvision => {
                let largest = taps.iter().flat_map(|tap| &tap.weights).copied().fold(0.0, f64::max);
                let fits = |precision: &u32| ((0.5 + largest * f64::from(1 << (precision + 1))) as i64) < 1 << 15;
                (0..PRECISION).find(|precision| !fits(precision)).unwrap_or(PRECISION)
            }
        };
        let fixed = |weight: &f64| {
            let scaled = weight * f64::from(1 << precision);
            (scaled + 0.5f64.copysign(scaled)) as i32
        };
        let taps = taps.iter().map(|tap| Tap { first: tap.first, weights: tap.weights.iter().map(fixed).collect() });
        Self { taps: taps.collect(), precision }
    }

    fn half(&self) -> i32 {
        1 << self.precision >> 1
    }

    fn to_byte(&self, sum: i32) -> u8 {
        (sum >> self.precision).clamp(0, 255) as u8
    }
}

/// Whether columns are stretched before rows: where they shrink, and by more than twice what rows do (Pillow 13's
/// `ImagingResample`; earlier ones never did). PyTorch never does.
fn columns_first(from: Size, to: Size, rule: ResizeRule) -> bool {
    let shrinks = |from: u32, to: u32| i64::from(from) - i64::from(to);
    let (rows, columns) = (shrinks(from.width, to.width), shrinks(from.height, to.height));
    rule == ResizeRule::Pillow && columns > 0 && columns > 2 * rows
}

/// Stretches RGB pixels of a size to `side × side`.
pub(super) fn to_square(rgb: &[u8], from: Size, side: usize, filter: Filter, rule: ResizeRule) -> Vec<u8> {
    let (width, height) = (from.width as usize, from.height as usize);
    let rows = |rgb: &[u8]| {
        if width == side { rgb.to_vec() } else { stretch_rows(rgb, width, &FixedTaps::new(filter, width, side, rule)) }
    };
    let columns = |rgb: &[u8], width| {
        if height == side {
            rgb.to_vec()
        } else {
            stretch_columns(rgb, width, &FixedTaps::new(filter, height, side, rule))
        }
    };
    if columns_first(from, Size::new(side as u32, side as u32), rule) {
        rows(&columns(rgb, width))
    } else {
        columns(&rows(rgb), side)
    }
}

/// Every row of `width` pixels.
fn stretch_rows(rgb: &[u8], width: usize, fixed: &FixedTaps) -> Vec<u8> {
    let size = fixed.taps.len();
    let mut result = vec![0u8; rgb.len() / width * size];
    for (source, target) in rgb.chunks_exact(width * 3).zip(result.chunks_exact_mut(size * 3)) {
        let pixels = source.as_chunks::<3>().0;
        for (tap, out) in fixed.taps.iter().zip(target.as_chunks_mut::<3>().0) {
            let mut sums = [fixed.half(); 3];
            for (pixel, weight) in pixels[tap.first..].iter().zip(&tap.weights) {
                for channel in 0..3 {
                    sums[channel] += i32::from(pixel[channel]) * weight;
                }
            }
            *out = sums.map(|sum| fixed.to_byte(sum));
        }
    }
    result
}

/// Every column of rows of `width` pixels.
fn stretch_columns(rgb: &[u8], width: usize, fixed: &FixedTaps) -> Vec<u8> {
    let row = width * 3;
    let mut result = vec![0u8; fixed.taps.len() * row];
    let mut sums = vec![0i32; row];
    for (tap, target) in fixed.taps.iter().zip(result.chunks_exact_mut(row)) {
        sums.fill(fixed.half());
        for (source, weight) in rgb[tap.first * row..].chunks_exact(row).zip(&tap.weights) {
            for (sum, sample) in sums.iter_mut().zip(source) {
                *sum += i32::from(*sample) * weight;
            }
        }
        for (out, sum) in target.iter_mut().zip(&sums) {
            *out = fixed.to_byte(*sum);
        }
    }
    result
}

/// One channel of numbers, `[height][width]`, to another size: Pillow's mode "F", whose sums run in double precision.
pub(crate) fn numbers(values: &[f32], from: Size, to: Size, filter: Filter) -> Vec<f32> {
    let [(width, height), (to_width, to_height)] = [from, to].map(|size| (size.width as usize, size.height as usize));
    let rule = ResizeRule::Pillow;
    let sum = |tap: &Tap<f64>, value: &dyn Fn(usize) -> f32| -> f32 {
        tap.weights.iter().zip(tap.first..).map(|(weight, at)| f64::from(value(at)) * weight).sum::<f64>() as f32
    };
    let rows = |values: Vec<f32>| -> Vec<f32> {
        if width == to_width {
            return values;
        }
        let taps = taps(filter, width, to_width, rule);
        values.chunks_exact(width).flat_map(|row| taps.iter().map(move |tap| sum(tap, &|at| row[at]))).collect()
    };
    let columns = |values: Vec<f32>, width: usize| -> Vec<f32> {
        if height == to_height {
            return values;
        }
        let taps = taps(filter, height, to_height, rule);
        let row = |tap: &Tap<f64>| -> Vec<f32> {
            (0..width).map(|column| sum(tap, &|at| values[at * width + column])).collect()
        };
        taps.iter().flat_map(row).collect()
    };
    if columns_first(from, to, rule) {
        rows(columns(values.to_vec(), width))
    } else {
        columns(rows(values.to_vec()), to_width)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: [ResizeRule; 2] = [ResizeRule::Pillow, ResizeRule::Torchvision];

    #[test]
    fn a_plain_picture_stays_plain_at_every_size_and_filter() {
        for (number, rule) in (0..6).flat_map(|number| RULES.map(|rule| (number, rule))) {
            let filter = Filter::from_pil(number).unwrap();
            for (width, height) in [(1, 1), (3, 7), (64, 1), (100, 33)] {
                let rgb = [9, 200, 255].repeat(width * height);
                let found = to_square(&rgb, Size::new(width as u32, height as u32), 28, filter, rule);
                assert_eq!(found, [9, 200, 255].repeat(28 * 28), "{filter:?} {rule:?}");
            }
        }
        assert!(Filter::from_pil(6).is_none());
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(96))]

        /// Filters without negative weights stay between the darkest and the lightest value; all fill the square.
        #[test]
        fn any_picture_stays_within_its_values(
            width in 1u32..70,
            height in 1u32..70,
            side in 1usize..50,
            seed in proptest::prelude::any::<u8>(),
            low in 0u8..120,
        ) {
            let count = 3 * (width * height) as usize;
            let rgb: Vec<u8> = (0..count).map(|at| low + (at as u8).wrapping_mul(seed) % 100).collect();
            let (least, most) = (rgb.iter().min().unwrap(), rgb.iter().max().unwrap());
            for rule in [ResizeRule::Pillow, ResizeRule::Torchvision] {
                let made = to_square(&rgb, Size::new(width, height), side, Filter::Bilinear, rule);
                proptest::prop_assert_eq!(made.len(), 3 * side * side);
                proptest::prop_assert!(made.iter().all(|value| (least..=most).contains(&value)));
            }
        }
    }

    #[test]
    fn the_same_size_is_the_same_picture() {
        let rgb: Vec<u8> = (0..28 * 28 * 3).map(|i| (i * 7 % 256) as u8).collect();
        for rule in RULES {
            assert_eq!(to_square(&rgb, Size::new(28, 28), 28, Filter::Bicubic, rule), rgb);
        }
    }

    /// Against Pillow and torchvision themselves (`tools/reference/resize_goldens.py`): shapes, filters and sizes, both sides of
    /// where the order of the directions changes.
    #[test]
    fn pixels_are_those_of_pillow_and_torchvision() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/resize.json");
        let goldens: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        let cases = goldens["cases"].as_array().unwrap();
        for case in cases {
            let number = |at: usize| case[at].as_u64().unwrap() as usize;
            let (width, height, side) = (number(0), number(1), number(2));
            let filter = Filter::from_pil(number(3) as u32).unwrap();
            let sample = |at: usize| {
                let (x, y, c) = (at / 3 % width, at / 3 / width, at % 3);
                ((x * 7 + y * 13 + c * 29 + x * y % 251) % 256) as u8
            };
            let rgb: Vec<u8> = (0..width * height * 3).map(sample).collect();
            for (rule, column) in RULES.into_iter().zip([4, 6]) {
                let Some(expected) = case[column].as_u64() else {
                    assert!(!filter.is_of(rule));
                    continue;
                };
                let found = to_square(&rgb, Size::new(width as u32, height as u32), side, filter, rule);
                assert_eq!(
                    u64::from(crc32fast::hash(&found)),
                    expected,
                    "{rule:?} {case}: begins {:02x?}",
                    &found[..6]
                );
            }
        }
        assert!(cases.len() > 150, "{} cases", cases.len());
    }
}
