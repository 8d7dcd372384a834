//! Rounding with weights: what is stored comes back, and the weighted error is smaller than that of rounding without them.

mod support;

use gemmule_quant::{
    BlockToRound, EncodeError, FORMATS, FormatInfo, Kernels, MAX_BLOCK, block_parts, decode_row, encode_row,
    encode_row_weighted, round_block, set_codes,
};
use proptest::prelude::*;
use support::{Random, all_kernels};

const LEN: usize = 512;

fn blocks() -> impl Iterator<Item = &'static FormatInfo> {
    FORMATS.iter().filter(|info| info.integer)
}

fn weighted_error(info: &FormatInfo, bytes: &[u8], values: &[f32], weights: &[f32]) -> f64 {
    let mut decoded = vec![0.0; values.len()];
    decode_row(info.format, bytes, &mut decoded);
    let parts = decoded.iter().zip(values).zip(weights);
    parts.map(|((d, x), w)| f64::from(*w) * f64::from(d - x).powi(2)).sum()
}

fn encode(info: &FormatInfo, values: &[f32], weights: &[f32]) -> Vec<u8> {
    let mut bytes = vec![0; info.format.row_bytes(values.len()).unwrap()];
    encode_row_weighted(info.format, values, weights, &mut bytes).unwrap();
    bytes
}

/// Bell-shaped values, some of them far out.
fn values(seed: u64) -> Vec<f32> {
    let mut random = Random(seed);
    (0..LEN).map(|i| (random.value() + random.value() + random.value()) * if i % 61 == 7 { 4.0 } else { 1.0 }).collect()
}

/// Inputs of very different size, as those of trained models are.
fn weights(seed: u64) -> Vec<f32> {
    let mut random = Random(seed ^ 0x5555);
    (0..LEN).map(|_| (3.0 * random.value()).exp()).collect()
}

#[test]
fn stored_codes_come_back() {
    for info in blocks() {
        for seed in 0..20 {
            let mut random = Random(seed + 99);
            // Half-precision scales are finite where their upper bits are not all ones.
            let block: Vec<u8> = random.bytes(info.block_bytes).iter().map(|byte| byte & 0xbb).collect();
            let parts = block_parts(info.format, &block).unwrap();
            let mut codes = [0; MAX_BLOCK];
            codes[..info.block_len].copy_from_slice(&parts.codes);
            // Q8_0 has −128 in its bytes and not among the codes that are written.
            let mut again = block.clone();
            set_codes(info.format, &codes, &mut again);
            assert_eq!(again, block, "{}", info.name);
            again.iter_mut().for_each(|byte| *byte ^= 0x11);
            set_codes(info.format, &codes, &mut again);
            assert_eq!(block_parts(info.format, &again).unwrap().codes, parts.codes, "{}", info.name);
        }
    }
}

/// With equal weights the error is that of the usual encoder, or less; with weights theirs is clearly less.
#[test]
fn weights_count() {
    for info in blocks() {
        let (mut ours, mut plain, mut weighted, mut unweighted) = (0.0, 0.0, 0.0, 0.0);
        for seed in 0..16 {
            let (x, w, ones) = (values(seed), weights(seed), vec![1.0; LEN]);
            let equal = encode(info, &x, &ones);
            ours += weighted_error(info, &equal, &x, &ones);
            weighted += weighted_error(info, &encode(info, &x, &w), &x, &w);
            let mut bytes = vec![0; equal.len()];
            encode_row(info.format, &x, &mut bytes).unwrap();
            plain += weighted_error(info, &bytes, &x, &ones);
            unweighted += weighted_error(info, &bytes, &x, &w);
        }
        println!("{}: {:.4} of the plain error, {:.3} of the weighted", info.name, ours / plain, weighted / unweighted);
        assert!(ours <= 1.002 * plain, "{}: {ours} beside {plain}", info.name);
        let bar = if info.block_bytes * 8 / info.block_len >= 8 { 1.0 } else { 0.93 };
        assert!(weighted <= bar * unweighted, "{}: {weighted} beside {unweighted}", info.name);
    }
}

/// A block with coupling costs less than its codes rounded one by one do, and is the same on every instruction set.
#[test]
fn errors_are_paid_for_within_a_block() {
    for info in blocks() {
        let len = info.block_len;
        let (mut coupled, mut alone) = (0.0, 0.0);
        for seed in 0..12 {
            let (x, w) = (values(seed), weights(seed + 3));
            let (x, w) = (&x[..len], &w[..len]);
            let coupling: Vec<f32> = (0..len * len)
                .map(|at| if at % len > at / len { 0.6 / (1 + at % len - at / len) as f32 } else { 0.0 })
                .collect();
            let part = BlockToRound { values: x, wanted: x, weights: w, coupling: &coupling, stride: len };
            let round = |kernels: Option<Kernels>| {
                let (mut block, mut decoded) = (vec![0; info.block_bytes], vec![0.0; len]);
                match kernels {
                    Some(kernels) => kernels.round_block(info.format, &part, &mut block, &mut decoded),
                    None => round_block(info.format, &part, &mut block, &mut decoded),
                }
                (block, decoded)
            };
            let (block, decoded) = round(None);
            let mut again = vec![0.0; len];
            decode_row(info.format, &block, &mut again);
            assert_eq!(again, decoded, "{}", info.name);
            for kernels in all_kernels() {
                assert_eq!(
                    round(Some(kernels)),
                    (block.clone(), decoded.clone()),
                    "{} on {}",
                    info.name,
                    kernels.isa()
                );
                let mut bytes = block.clone();
                kernels.encode_row_weighted(info.format, x, w, &mut bytes).unwrap();
                assert_eq!(bytes, encode(info, x, w), "{} on {}", info.name, kernels.isa());
            }
            let cost = |decoded: &[f32]| -> f64 {
                let error = |i: usize| f64::from(x[i] - decoded[i]);
                (0..len)
                    .map(|j| {
                        f64::from(w[j])
                            * (error(j) + (0..j).map(|i| error(i) * f64::from(coupling[i * len + j])).sum::<f64>())
                                .powi(2)
                    })
                    .sum()
            };
            coupled += cost(&decoded);
            decode_row(info.format, &encode(info, x, w), &mut again);
            alone += cost(&again);
        }
        println!("{}: {:.3} of the cost without paying", info.name, coupled / alone);
        assert!(coupled < alone, "{}: {coupled} beside {alone}", info.name);
    }
}

#[test]
fn extreme_rows_are_encoded_or_refused() {
    for info in blocks() {
        let ones = vec![1.0; LEN];
        for x in [vec![0.0; LEN], vec![1e30; LEN], vec![-1e-30; LEN], vec![f32::MAX; LEN], vec![3.0; LEN]] {
            for w in [&ones, &vec![0.0; LEN], &vec![f32::MAX; LEN], &vec![1e-40; LEN]] {
                let mut decoded = vec![0.0; LEN];
                decode_row(info.format, &encode(info, &x, w), &mut decoded);
                assert!(decoded.iter().all(|value| value.is_finite()), "{}", info.name);
                assert!(x[0] != 3.0 || decoded.iter().all(|value| (value - 3.0).abs() < 0.2), "{}", info.name);
            }
        }
        let mut bytes = vec![0; info.format.row_bytes(LEN).unwrap()];
        for bad in [f32::NAN, f32::INFINITY, -1.0] {
            let mut w = ones.clone();
            w[77] = bad;
            let refused = encode_row_weighted(info.format, &ones, &w, &mut bytes);
            assert_eq!(refused, Err(EncodeError::NotFinite(77)), "{}", info.name);
        }
        let short = encode_row_weighted(info.format, &ones, &ones, &mut bytes[1..]);
        assert_eq!(short, Err(EncodeError::Length(info.format, LEN)));
    }
}

proptest! {
    /// Whatever the values and weights, what comes out is finite, and no block is worse than zeros would be by more than rounding.
    #[test]
    fn no_block_is_worse_than_zero(x in prop::collection::vec(-1e3f32..1e3, 256), w in prop::collection::vec(0f32..1e3, 256)) {
        for info in blocks() {
            let error = weighted_error(info, &encode(info, &x, &w), &x, &w);
            let zero: f64 = x.iter().zip(&w).map(|(x, w)| f64::from(*w) * f64::from(*x).powi(2)).sum();
            prop_assert!(error <= zero * 1.01 + 1e-3, "{}: {error} beside {zero}", info.name);
        }
    }
}
