//! What is computed value by value, of every instruction set, held against plain arithmetic in double precision.

mod support;

use gemmule_quant::{Affine, Kernels, vector};
use support::{Random, all_kernels};

#[test]
fn instruction_sets_agree_bit_for_bit_on_vector_functions() {
    let mut random = Random(5);
    let x: Vec<f32> = random.values(147).iter().map(|x| x * 9.0).chain([0.0, 40.0, -40.0, 1e-9]).collect();
    let weight = random.values(x.len());
    let rotation: Vec<(f32, f32)> = (0..65).map(|i| (i as f32 * 0.1).sin_cos()).map(|(sin, cos)| (cos, sin)).collect();
    let apply = |kernels: Kernels| {
        let mut results = vec![x.clone(); 6];
        kernels.rms_norm(&x, &weight, 1e-6, &mut results[0]);
        kernels.layer_norm(&x, Affine { weight: &weight, bias: &weight }, 1e-6, &mut results[1]);
        kernels.add(&mut results[2], &weight);
        kernels.scale(&mut results[3], 0.3);
        kernels.add_rms_norm(&x, &weight, 1e-6, &mut results[4]);
        results[5].truncate(130);
        kernels.rotate(&mut results[5], &rotation);
        // AVX-512 has these of its own.
        if !["avx512bw", "avx512", "amx"].contains(&kernels.isa().name()) {
            results.extend(vec![x.clone(); 4]);
            let [.., gelu, product, capped, softmax] = &mut results[..] else { unreachable!("ten") };
            kernels.gelu(gelu);
            kernels.gelu_multiply(product, &weight);
            kernels.softcap(capped, 5.0);
            let (largest, sum) = kernels.softmax_tile(softmax, 0.1);
            softmax.extend([largest, sum]);
        }
        results.iter().map(|row| row.iter().map(|x| x.to_bits()).collect()).collect::<Vec<Vec<u32>>>()
    };
    let reference = apply(all_kernels()[0]);
    for kernels in all_kernels() {
        let results = apply(kernels);
        assert_eq!(results, reference[..results.len()], "{}", kernels.isa());
    }
}

/// A head is rotated pair by pair, and norms are added to what is there.
#[test]
fn rotations_and_added_norms_are_accurate() {
    let mut random = Random(31);
    for kernels in all_kernels() {
        for half in [1, 3, 4, 8, 17, 36, 128] {
            let (head, out) = (random.values(2 * half), random.values(2 * half));
            let rotation: Vec<(f32, f32)> =
                random.values(half).iter().map(|angle| (angle.cos(), angle.sin())).collect();
            let mut rotated = head.clone();
            kernels.rotate(&mut rotated, &rotation);
            let mut sum = out.clone();
            kernels.add_rms_norm(&head, &rotated, 1e-6, &mut sum);
            let squares: f64 = head.iter().map(|x| f64::from(*x).powi(2)).sum();
            let root = (squares / head.len() as f64 + 1e-6).sqrt();
            for (i, (cos, sin)) in rotation.iter().enumerate() {
                let [a, b] = [head[i], head[half + i]].map(f64::from);
                let (cos, sin) = (f64::from(*cos), f64::from(*sin));
                for (place, expected) in [(i, a * cos - b * sin), (half + i, b * cos + a * sin)] {
                    let error = (f64::from(rotated[place]) - expected).abs();
                    assert!(error < 1e-6, "{}: value {place} of {}", kernels.isa(), 2 * half);
                    let normal = f64::from(out[place]) + f64::from(head[place]) / root * f64::from(rotated[place]);
                    let error = (f64::from(sum[place]) - normal).abs();
                    assert!(error < 1e-5, "{}: sum {place} of {}", kernels.isa(), 2 * half);
                }
            }
        }
    }
}

/// Half-precision numbers are those of the `half` package: ties to even, what has no exponent left, what is too large.
#[test]
fn halves_are_rounded_to_nearest_even() {
    let mut random = Random(32);
    let special =
        [0.0, -0.0, 1.0, 65504.0, 65519.9, 65520.0, -1e9, f32::INFINITY, f32::NEG_INFINITY, 6e-8, 2.9e-8, 3e-8, 6.1e-5];
    let ties =
        (0..64).flat_map(|step| [2049.0, 2051.0, 1e-6].map(|start: f32| f32::from_bits(start.to_bits() + step - 32)));
    let values: Vec<f32> =
        special.into_iter().chain(ties).chain(random.values(200).into_iter().map(|x| x * 1e-4)).collect();
    let expected: Vec<u16> = values.iter().map(|x| half::f16::from_f32(*x).to_bits()).collect();
    for kernels in all_kernels() {
        for length in [1, 7, 8, 15, 16, 33, values.len()] {
            for first in [0, 5, values.len() - length] {
                let length = length.min(values.len() - first);
                let mut bits = vec![0; length];
                kernels.to_half(&values[first..][..length], &mut bits);
                assert_eq!(bits, expected[first..][..length], "{}: {length} from {first} on", kernels.isa());
            }
        }
        let mut bits = [0; 17];
        kernels.to_half(&[f32::NAN; 17], &mut bits);
        assert!(bits.iter().all(|bits| half::f16::from_bits(*bits).is_nan()), "{}", kernels.isa());
    }
}

#[test]
fn exponential_and_tangent_are_accurate() {
    for step in -40_000..=40_000 {
        let x = step as f32 * 0.002;
        let (got, expected) = (f64::from(vector::exp(x)), f64::from(x).exp());
        assert!((got / expected - 1.0).abs() < 3e-7, "exp({x}) = {got}, not {expected}");
        let (got, expected) = (f64::from(vector::tanh(x)), f64::from(x).tanh());
        assert!((got - expected).abs() < 2e-7, "tanh({x}) = {got}, not {expected}");
    }
    assert!(vector::exp(f32::NAN).is_nan() && vector::tanh(f32::NAN).is_nan());
    assert_eq!(vector::tanh(1e4), 1.0);
}

#[test]
fn reading_reads_every_byte() {
    let mut random = Random(20);
    for kernels in all_kernels() {
        for length in [0, 1, 8, 63, 64, 65, 255, 256, 319, 320, 511, 512, 767, 1000, 1023, 4096, 5003] {
            let bytes = random.bytes(length);
            let words = bytes.chunks(8).map(|word| {
                let mut whole = [0; 8];
                whole[..word.len()].copy_from_slice(word);
                u64::from_ne_bytes(whole)
            });
            assert_eq!(kernels.read(&bytes), words.fold(0, |sum, word| sum ^ word), "{}: {length}", kernels.isa());
        }
    }
}

#[test]
fn gelus_are_accurate() {
    let mut random = Random(17);
    for kernels in all_kernels() {
        for (length, range) in [(1, 1.0), (15, 4.0), (16, 10.0), (33, 1e-3), (300, 8.0), (70, 1e5)] {
            let x: Vec<f32> = random.values(length).iter().map(|x| x * range).collect();
            let up = random.values(length);
            let (mut alone, mut times) = (x.clone(), x.clone());
            kernels.gelu(&mut alone);
            kernels.gelu_multiply(&mut times, &up);
            for (((x, up), alone), times) in x.iter().zip(&up).zip(&alone).zip(&times) {
                let wide = f64::from(*x);
                let expected = 0.5
                    * wide
                    * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (wide + 0.044715 * wide.powi(3))).tanh());
                let tolerance = 3e-7 * wide.abs();
                assert!((f64::from(*alone) - expected).abs() <= tolerance, "{}: {x} became {alone}", kernels.isa());
                assert_eq!(*times, alone * up, "{}: {x} times {up}", kernels.isa());
            }
        }
        let mut x = [1.0, f32::NAN, f32::INFINITY, -0.0];
        kernels.gelu(&mut x);
        assert!(!x[0].is_nan() && x[1].is_nan() && x[2] == f32::INFINITY, "{}: {x:?}", kernels.isa());
        assert_eq!(x[3].to_bits(), (-0.0f32).to_bits(), "{}", kernels.isa());
    }
}

/// A value becomes the same in a whole register and in the rest of a row: how rows are cut depends on the number of threads.
#[test]
fn values_do_not_depend_on_their_place_in_a_row() {
    let x: Vec<f32> = Random(21).values(70).iter().map(|x| x * 6.0).collect();
    for kernels in all_kernels() {
        let apply = |x: &[f32]| {
            let (mut gelu, mut times, mut capped) = (x.to_vec(), x.to_vec(), x.to_vec());
            kernels.gelu(&mut gelu);
            kernels.gelu_multiply(&mut times, x);
            kernels.softcap(&mut capped, 5.0);
            [gelu, times, capped]
        };
        let all = apply(&x);
        for (index, &value) in x.iter().enumerate() {
            assert_eq!(apply(&[value]).map(|one| one[0]), all.each_ref().map(|all| all[index]), "{}", kernels.isa());
        }
    }
}

#[test]
fn softcaps_and_softmaxes_are_accurate() {
    let mut random = Random(15);
    for kernels in all_kernels() {
        for (length, range) in [(1, 10.0), (15, 100.0), (16, 20.0), (17, 1e4), (128, 9.0), (300, 60.0), (1000, 30.0)] {
            let x: Vec<f32> = random.values(length).iter().map(|x| x * range).collect();
            let mut capped = x.clone();
            kernels.softcap(&mut capped, 50.0);
            for (x, got) in x.iter().zip(&capped) {
                let expected = 50.0 * (f64::from(*x) / 50.0).tanh();
                assert!((f64::from(*got) - expected).abs() < 2e-5, "{}: {x} became {got}", kernels.isa());
            }
            let mut weights = x.clone();
            let (largest, sum) = kernels.softmax_tile(&mut weights, range / 2.0);
            assert_eq!(largest, x.iter().copied().fold(range / 2.0, f32::max));
            let expected: Vec<f64> = x.iter().map(|x| f64::from(x - largest).max(-87.0).exp()).collect();
            for (got, expected) in weights.iter().zip(&expected) {
                assert!((f64::from(*got) / expected - 1.0).abs() < 4e-7, "{}: {got}, not {expected}", kernels.isa());
            }
            let expected: f64 = expected.iter().sum();
            assert!((f64::from(sum) / expected - 1.0).abs() < 2e-6, "{}: {sum}, not {expected}", kernels.isa());
        }
        // What is no number is not hidden.
        let mut x = [1.0, f32::NAN, 2.0];
        kernels.softcap(&mut x, 50.0);
        assert!(x[1].is_nan() && !x[2].is_nan(), "{}", kernels.isa());
        assert!(kernels.softmax_tile(&mut x, 0.0).1.is_nan(), "{}", kernels.isa());
    }
}

#[test]
fn a_softmax_survives_extremes() {
    for kernels in all_kernels() {
        for length in [1usize, 7, 8, 9, 300] {
            let mut x: Vec<f32> = (0..length).map(|i| if i % 3 == 0 { 1e30 } else { -1e30 + i as f32 }).collect();
            let (largest, sum) = kernels.softmax_tile(&mut x, f32::NEG_INFINITY);
            assert_eq!((largest, sum), (1e30, length.div_ceil(3) as f32), "{}", kernels.isa());
            assert!(x.iter().all(|x| (0.0..=1.0).contains(x)), "{}", kernels.isa());
        }
    }
}
