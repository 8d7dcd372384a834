//! Encoding on every instruction set this machine has.

mod support;

use gemmule_quant::{FORMATS, decode_row, encode_row, squared_error};
use support::{Random, all_kernels};

#[test]
fn every_instruction_set_encodes_the_same() {
    let mut random = Random(17);
    for info in FORMATS {
        // One group, a few, a whole register of groups and some over; several magnitudes, zeros, equal and one-sided values.
        for blocks in [1, 2, 7, 8, 9, 16, 17, 41] {
            let mut values = random.values(blocks * info.block_len);
            for (index, part) in values.chunks_mut(16).enumerate() {
                let factor = [1.0, 1e-3, 0.0, 1e-9, 1e4, 1e30, -1.0, 1e-37][index % 8];
                part.iter_mut().for_each(|value| *value *= factor);
                match index % 5 {
                    1 => part.iter_mut().for_each(|value| *value = value.abs()),
                    2 => part.fill(-factor),
                    _ => {}
                }
            }
            let mut expected = vec![0; info.format.row_bytes(values.len()).unwrap()];
            encode_row(info.format, &values, &mut expected).unwrap();
            let errors = squared_error(info.format, &expected, &values);
            for kernels in all_kernels() {
                let mut bytes = vec![0xff; expected.len()];
                kernels.encode_row(info.format, &values, &mut bytes).unwrap();
                assert!(bytes == expected, "{} {blocks} blocks with {}", info.name, kernels.isa());
                assert_eq!(kernels.squared_error(info.format, &bytes, &values), errors, "{}", info.name);
            }
            // Blocks do not depend on those beside them.
            let last = &values[(blocks - 1) * info.block_len..];
            let mut alone = vec![0; info.block_bytes];
            encode_row(info.format, last, &mut alone).unwrap();
            assert!(expected.ends_with(&alone), "{} {blocks} blocks, the last alone", info.name);
        }
    }
}

#[test]
fn squared_errors_are_those_of_the_decoded_values() {
    let mut random = Random(18);
    for info in FORMATS {
        let values = random.values(info.block_len * 3);
        let mut bytes = vec![0; info.format.row_bytes(values.len()).unwrap()];
        encode_row(info.format, &values, &mut bytes).unwrap();
        let mut decoded = vec![0.0; values.len()];
        decode_row(info.format, &bytes, &mut decoded);
        let error: f64 = values.iter().zip(&decoded).map(|(a, b)| f64::from(a - b).powi(2)).sum();
        let square: f64 = values.iter().map(|a| f64::from(*a).powi(2)).sum();
        let (got_error, got_square) = squared_error(info.format, &bytes, &values);
        assert!((got_error - error).abs() <= 1e-5 * error, "{}: {got_error} instead of {error}", info.name);
        assert!((got_square - square).abs() <= 1e-5 * square, "{}: {got_square} instead of {square}", info.name);
    }
}
