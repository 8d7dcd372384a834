//! Functions on `f32` rows. Each body is plain Rust that the compiler vectorizes; an instruction set's kernels
//! instantiate it with that set enabled. No fused multiply-adds are formed and sums run over sixteen fixed lanes, so
//! every instantiation gives the same bits. AVX-512 has a GELU, a softcap and a softmax of its own, and a quantizer that gives
//! the same bits.

const LANES: usize = 16;

/// What a layer norm multiplies with and adds, a value each for every value of a row.
#[derive(Clone, Copy, Debug)]
pub struct Affine<'a> {
    /// The factors.
    pub weight: &'a [f32],
    /// What is added.
    pub bias: &'a [f32],
}

/// 1.5 · 2²³: added to a number below 2²² it rounds to an integer (ties to even) and leaves the integer in the low mantissa bits;
/// branch-free, so that loops over it vectorize.
pub(crate) const ROUND: f32 = 12_582_912.0;
/// ln 2 less what single precision leaves of the second part, and that part: a reduced argument keeps all its bits.
pub(crate) const LN_2_PARTS: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];
/// Polynomials, their highest coefficients first: `e^r = 1 + r + r² · EXP(r)` for |r| ≤ ln 2 / 2, and
/// `tanh x = x + x³ · TANH(x²)` for |x| < [`SMALL_TANGENT`].
pub(crate) const EXP: [f32; 6] = [1.987_569_1e-4, 1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5];
pub(crate) const TANH: [f32; 5] = [-5.704_988_7e-3, 2.063_909e-2, -5.373_971_6e-2, 1.333_144_2e-1, -3.333_328e-1];
pub(crate) const SMALL_TANGENT: f32 = 0.625;

/// A polynomial's value.
#[inline(always)]
fn polynomial<const N: usize>(coefficients: [f32; N], x: f32) -> f32 {
    let mut sum = coefficients[0];
    for coefficient in &coefficients[1..] {
        sum = sum * x + coefficient;
    }
    sum
}

/// The nearest integer of |x| < 2²², as the low bits of an `i32`.
#[inline(always)]
pub(crate) fn nearest_integer(x: f32) -> i32 {
    ((x + ROUND).to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32)
}

/// e^x with a relative error of about 1e-7; x is clamped to what single precision can hold.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    let x = x.clamp(-87.0, 88.0);
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = x - n * LN_2_PARTS[0];
    let r = r - n * LN_2_PARTS[1];
    let p = polynomial(EXP, r);
    let y = p * r * r + r + 1.0;
    y * f32::from_bits(shifted.to_bits().wrapping_add(127) << 23)
}

/// tanh x with an absolute error of about 1e-7.
#[inline(always)]
pub fn tanh(x: f32) -> f32 {
    let magnitude = x.abs();
    let square = x * x;
    let p = polynomial(TANH, square);
    let small = p * square * x + x;
    let e = exp(-2.0 * magnitude);
    let large = ((1.0 - e) / (1.0 + e)).copysign(x);
    if magnitude < SMALL_TANGENT { small } else { large }
}

/// `gelu(x) = x / 2 · (1 + tanh(GELU[0] · (x + GELU[1] · x³)))`: √(2/π) and the cubic's coefficient.
pub(crate) const GELU: [f32; 2] = [0.797_884_6, 0.044_715];

#[inline(always)]
fn gelu_one(x: f32) -> f32 {
    0.5 * x * (1.0 + tanh(GELU[0] * (x + GELU[1] * x * x * x)))
}

/// Sum over lanes of a fixed width: the same bits whatever the vector width.
#[inline(always)]
fn sum_of(x: &[f32], term: impl Fn(f32) -> f32) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let (chunks, rest) = x.as_chunks::<LANES>();
    for chunk in chunks {
        for lane in 0..LANES {
            lanes[lane] += term(chunk[lane]);
        }
    }
    let mut sum: f32 = lanes.iter().sum();
    for x in rest {
        sum += term(*x);
    }
    sum
}

#[inline(always)]
pub(crate) fn gelu(x: &mut [f32]) {
    for x in x {
        *x = gelu_one(*x);
    }
}

#[inline(always)]
pub(crate) fn gelu_multiply(gate: &mut [f32], up: &[f32]) {
    for (gate, up) in gate.iter_mut().zip(up) {
        *gate = gelu_one(*gate) * up;
    }
}

#[inline(always)]
pub(crate) fn softcap(x: &mut [f32], cap: f32) {
    let inverse = 1.0 / cap;
    for x in x {
        *x = cap * tanh(*x * inverse);
    }
}

/// The greatest value.
#[inline(always)]
fn largest_of(x: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (chunks, rest) = x.as_chunks::<LANES>();
    for chunk in chunks {
        for lane in 0..LANES {
            lanes[lane] = if chunk[lane] > lanes[lane] { chunk[lane] } else { lanes[lane] };
        }
    }
    lanes.iter().chain(rest).copied().fold(f32::NEG_INFINITY, f32::max)
}

#[inline(always)]
pub(crate) fn softmax_tile(x: &mut [f32], largest: f32) -> (f32, f32) {
    let largest = largest_of(x).max(largest);
    let mut lanes = [0.0f32; LANES];
    let (chunks, rest) = x.as_chunks_mut::<LANES>();
    for chunk in chunks {
        for lane in 0..LANES {
            chunk[lane] = exp(chunk[lane] - largest);
            lanes[lane] += chunk[lane];
        }
    }
    let mut sum: f32 = lanes.iter().sum();
    for x in rest {
        *x = exp(*x - largest);
        sum += *x;
    }
    (largest, sum)
}

#[inline(always)]
pub(crate) fn add(x: &mut [f32], y: &[f32]) {
    for (x, y) in x.iter_mut().zip(y) {
        *x += y;
    }
}

#[inline(always)]
pub(crate) fn add_multiple(factor: f32, y: &[f32], x: &mut [f32]) {
    for (x, y) in x.iter_mut().zip(y) {
        *x += factor * y;
    }
}

#[inline(always)]
pub(crate) fn scale(x: &mut [f32], factor: f32) {
    for x in x {
        *x *= factor;
    }
}

#[inline(always)]
pub(crate) fn rotate(head: &mut [f32], rotation: &[(f32, f32)]) {
    let (first, second) = head.split_at_mut(head.len() / 2);
    for ((a, b), (cos, sin)) in first.iter_mut().zip(second).zip(rotation) {
        (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
    }
}

#[inline(always)]
pub(crate) fn to_half(x: &[f32], out: &mut [u16]) {
    for (out, x) in out.iter_mut().zip(x) {
        *out = half::f16::from_f32(*x).to_bits();
    }
}

#[inline(always)]
fn rms_scale(x: &[f32], epsilon: f32) -> f32 {
    1.0 / (sum_of(x, |x| x * x) / x.len() as f32 + epsilon).sqrt()
}

#[inline(always)]
pub(crate) fn add_rms_norm(x: &[f32], weight: &[f32], epsilon: f32, out: &mut [f32]) {
    let scale = rms_scale(x, epsilon);
    for ((out, x), weight) in out.iter_mut().zip(x).zip(weight) {
        *out += x * scale * weight;
    }
}

#[inline(always)]
pub(crate) fn rms_norm(x: &[f32], weight: &[f32], epsilon: f32, out: &mut [f32]) {
    let scale = rms_scale(x, epsilon);
    for ((out, x), weight) in out.iter_mut().zip(x).zip(weight) {
        *out = x * scale * weight;
    }
}

#[inline(always)]
pub(crate) fn layer_norm(x: &[f32], affine: Affine<'_>, epsilon: f32, out: &mut [f32]) {
    let mean = sum_of(x, |x| x) / x.len() as f32;
    let scale = 1.0 / (sum_of(x, |x| (x - mean) * (x - mean)) / x.len() as f32 + epsilon).sqrt();
    for (((out, x), weight), bias) in out.iter_mut().zip(x).zip(affine.weight).zip(affine.bias) {
        *out = (x - mean) * scale * weight + bias;
    }
}

/// Scale of a block of activations and what they are multiplied with, given the bits of the greatest magnitude; the scale is no
/// number where a value is not finite.
#[inline(always)]
pub(crate) fn activation_scale(largest: u32) -> (f32, f32) {
    if largest >= f32::INFINITY.to_bits() {
        return (f32::NAN, 0.0);
    }
    let scale = f32::from_bits(largest) / 127.0;
    (scale, if scale > f32::MIN_POSITIVE { 1.0 / scale } else { 0.0 })
}

/// Quantizes a row to 8 bits per [`ACTIVATION_BLOCK`](crate::activation::ACTIVATION_BLOCK) values.
#[inline(always)]
pub(crate) fn quantize(x: &[f32], row: crate::activation::QuantizedRowMut<'_>) {
    let blocks = x.as_chunks::<32>().0.iter().zip(row.codes.as_chunks_mut::<32>().0);
    let halves = row.half_sums.as_chunks_mut::<2>().0.iter_mut().zip(row.pair_offsets);
    let outputs = row.scales.iter_mut().zip(row.sums).zip(row.block_sums.iter_mut().zip(halves));
    for ((x, codes), ((scale, sum), (block_sum, (half_sums, offsets)))) in blocks.zip(outputs) {
        // Comparing bits orders magnitudes as integers do, and puts what is not finite on top.
        let largest = x.iter().fold(0u32, |largest, x| largest.max(x.to_bits() & 0x7fff_ffff));
        let inverse;
        (*scale, inverse) = activation_scale(largest);
        if scale.is_nan() {
            (*sum, *block_sum, *half_sums, *offsets) = (f32::NAN, 0, [0; 2], [[0; 2]; 2]);
            codes.fill(0);
            continue;
        }
        let mut wide = [0i32; 32];
        for i in 0..32 {
            wide[i] = nearest_integer((x[i] * inverse).clamp(-127.0, 127.0));
            codes[i] = wide[i] as i8;
        }
        // Of each half: at positions 0 and 1 of each four, and at positions 2 and 3.
        let mut pairs = [[0i32; 2]; 2];
        for (pairs, wide) in pairs.iter_mut().zip(wide.as_chunks::<16>().0) {
            let mut places = [0i32; 4];
            for four in wide.as_chunks::<4>().0 {
                for place in 0..4 {
                    places[place] += four[place];
                }
            }
            *pairs = [places[0] + places[1], places[2] + places[3]];
        }
        let [first, second] = pairs;
        *half_sums = [first[0] + first[1], second[0] + second[1]];
        let block = [first[0] + second[0], first[1] + second[1]];
        *offsets = [block, first].map(|sums| sums.map(|sum| (-8 * sum) as i16));
        *block_sum = half_sums[0] + half_sums[1];
        *sum = *scale * *block_sum as f32;
    }
}

/// The exclusive or of all words of eight bytes, as they lie in memory; missing bytes of the last are zero. Memory answers four
/// streams that lie apart faster than one.
#[inline(always)]
pub(crate) fn read(bytes: &[u8]) -> u64 {
    let (lines, rest) = bytes.as_chunks::<64>();
    let quarter = lines.len() / 4;
    let stream = |index: usize| &lines[index * quarter..][..quarter];
    // A word for each place in a line of each stream: whole registers are combined.
    let mut mixed = [[0; 8]; 4];
    for (((a, b), c), d) in stream(0).iter().zip(stream(1)).zip(stream(2)).zip(stream(3)) {
        let [first, second, third, fourth] = &mut mixed;
        mix(first, a);
        mix(second, b);
        mix(third, c);
        mix(fourth, d);
    }
    let mut last = [0; 64];
    last[..rest.len()].copy_from_slice(rest);
    lines[4 * quarter..].iter().chain([&last]).for_each(|line| mix(&mut mixed[0], line));
    mixed.as_flattened().iter().fold(0, |mixed, word| mixed ^ word)
}

#[inline(always)]
fn mix(mixed: &mut [u64; 8], line: &[u8; 64]) {
    for (mixed, word) in mixed.iter_mut().zip(line.as_chunks::<8>().0) {
        *mixed ^= u64::from_ne_bytes(*word);
    }
}
