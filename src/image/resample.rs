//! Resampling as PIL does it, bit for bit: one direction after the other, rounded to bytes in between, with 22-bit
//! fixed-point coefficients. (Pillow, `Resample.c`; docs/dependencies.md tells why no library does it.)

/// Bits of a coefficient behind the binary point: 32, less 8 for the result and 2 for overshoot.
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
            Self::Hamming if distance < 1.0 => sinc(x) * (0.54 + 0.46 * (x * std::f64::consts::PI).cos()),
            Self::Lanczos | Self::Hamming => 0.0,
        }
    }
}

/// What one output position takes: `weights` of the inputs from `first` on.
struct Tap<Weight> {
    first: usize,
    weights: Vec<Weight>,
}

fn taps(filter: Filter, from: usize, to: usize) -> impl Iterator<Item = Tap<f64>> {
    let scale = from as f64 / to as f64;
    let filter_scale = scale.max(1.0);
    let support = filter.support() * filter_scale;
    (0..to).map(move |position| {
        let center = (position as f64 + 0.5) * scale;
        if filter == Filter::Nearest {
            return Tap { first: (center as usize).min(from - 1), weights: vec![1.0] };
        }
        let first = (center - support + 0.5).max(0.0) as usize;
        let end = ((center + support + 0.5) as usize).min(from);
        let weight = |input| filter.weight((input as f64 - center + 0.5) / filter_scale);
        let mut weights: Vec<f64> = (first..end).map(weight).collect();
        let total: f64 = weights.iter().sum();
        if total != 0.0 {
            weights.iter_mut().for_each(|weight| *weight /= total);
        }
        Tap { first, weights }
    })
}

/// As [`taps`], with weights in fixed point.
fn fixed_taps(filter: Filter, from: usize, to: usize) -> Vec<Tap<i32>> {
    let fixed = |weight: &f64| {
        let scaled = weight * f64::from(1 << PRECISION);
        (scaled + 0.5f64.copysign(scaled)) as i32
    };
    taps(filter, from, to)
        .map(|tap| Tap { first: tap.first, weights: tap.weights.iter().map(fixed).collect() })
        .collect()
}

fn to_byte(sum: i32) -> u8 {
    (sum >> PRECISION).clamp(0, 255) as u8
}

const HALF: i32 = 1 << (PRECISION - 1);

/// Stretches `width × height` RGB pixels to `size × size`.
pub(super) fn to_square(rgb: &[u8], (width, height): (usize, usize), size: usize, filter: Filter) -> Vec<u8> {
    // Pillow starts with the columns where that direction shrinks and the other grows.
    if width < size && height > size {
        let flat = stretch_columns(rgb, (width, height), size, filter);
        return stretch_rows(&flat, width, size, filter);
    }
    let narrow = stretch_rows(rgb, width, size, filter);
    stretch_columns(&narrow, (size, height), size, filter)
}

/// Every row of `width` pixels to `size`.
fn stretch_rows(rgb: &[u8], width: usize, size: usize, filter: Filter) -> Vec<u8> {
    let taps = fixed_taps(filter, width, size);
    let mut result = vec![0u8; rgb.len() / width * size];
    for (source, target) in rgb.chunks_exact(width * 3).zip(result.chunks_exact_mut(size * 3)) {
        let pixels = source.as_chunks::<3>().0;
        for (tap, out) in taps.iter().zip(target.as_chunks_mut::<3>().0) {
            let mut sums = [HALF; 3];
            for (pixel, weight) in pixels[tap.first..].iter().zip(&tap.weights) {
                for channel in 0..3 {
                    sums[channel] += i32::from(pixel[channel]) * weight;
                }
            }
            *out = sums.map(to_byte);
        }
    }
    result
}

/// Every column of `height` pixels to `size`.
fn stretch_columns(rgb: &[u8], (width, height): (usize, usize), size: usize, filter: Filter) -> Vec<u8> {
    let row = width * 3;
    let mut result = vec![0u8; size * row];
    let mut sums = vec![0i32; row];
    for (tap, target) in fixed_taps(filter, height, size).iter().zip(result.chunks_exact_mut(row)) {
        sums.fill(HALF);
        for (source, weight) in rgb[tap.first * row..].chunks_exact(row).zip(&tap.weights) {
            for (sum, sample) in sums.iter_mut().zip(source) {
                *sum += i32::from(*sample) * weight;
            }
        }
        for (out, sum) in target.iter_mut().zip(&sums) {
            *out = to_byte(*sum);
        }
    }
    result
}

/// One channel of numbers, `[height][width]`, to another size: PIL's mode "F", whose sums run in double precision.
pub(crate) fn numbers(
    values: &[f32],
    (width, height): (usize, usize),
    (to_width, to_height): (usize, usize),
    filter: Filter,
) -> Vec<f32> {
    let sum = |tap: &Tap<f64>, value: &dyn Fn(usize) -> f32| -> f32 {
        tap.weights.iter().zip(tap.first..).map(|(weight, at)| f64::from(value(at)) * weight).sum::<f64>() as f32
    };
    let horizontal: Vec<Tap<f64>> = taps(filter, width, to_width).collect();
    let rows = values.chunks_exact(width);
    let narrow: Vec<f32> = rows.flat_map(|row| horizontal.iter().map(move |tap| sum(tap, &|at| row[at]))).collect();
    taps(filter, height, to_height)
        .flat_map(|tap| {
            let narrow = &narrow;
            let column = move |column| sum(&tap, &|at| narrow[at * to_width + column]);
            (0..to_width).map(column)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_picture_stays_plain_at_every_size_and_filter() {
        for number in 0..6 {
            let filter = Filter::from_pil(number).unwrap();
            for (width, height) in [(1, 1), (3, 7), (64, 1), (100, 33)] {
                let rgb = [9, 200, 255].repeat(width * height);
                assert_eq!(to_square(&rgb, (width, height), 28, filter), [9, 200, 255].repeat(28 * 28), "{filter:?}");
            }
        }
        assert!(Filter::from_pil(6).is_none());
    }

    #[test]
    fn the_same_size_is_the_same_picture() {
        let rgb: Vec<u8> = (0..28 * 28 * 3).map(|i| (i * 7 % 256) as u8).collect();
        assert_eq!(to_square(&rgb, (28, 28), 28, Filter::Bicubic), rgb);
    }
}
