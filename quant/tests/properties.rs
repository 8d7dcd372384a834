//! What holds for any input; where it does not, the smallest one that shows it is printed.

mod support;

use gemmule_quant::{FORMATS, Format, decode_row, encode_row, squared_error};
use proptest::prelude::*;
use support::all_kernels;

fn format() -> impl Strategy<Value = Format> {
    let formats: Vec<Format> = FORMATS.iter().map(|row| row.format).collect();
    proptest::sample::select(formats)
}

/// Values of every magnitude that 16-bit scales can have, zeros among them.
fn values() -> impl Strategy<Value = f32> {
    let scaled = (-1.0f32..1.0, -6i32..=4).prop_map(|(value, power)| value * 10f32.powi(power));
    prop_oneof![8 => scaled, 1 => Just(0.0), 1 => Just(-0.0), 1 => -1e4f32..1e4]
}

fn row(blocks: std::ops::Range<usize>) -> impl Strategy<Value = (Format, Vec<f32>)> {
    (format(), blocks).prop_flat_map(|(format, blocks)| {
        (Just(format), proptest::collection::vec(values(), blocks * format.info().block_len))
    })
}

fn bytes() -> impl Strategy<Value = (Format, Vec<u8>)> {
    (format(), 1usize..4).prop_flat_map(|(format, blocks)| {
        (Just(format), proptest::collection::vec(any::<u8>(), blocks * format.info().block_bytes))
    })
}

proptest! {
    /// The search for scales never ends with more than a step of error for each value, a step being the largest value's share.
    #[test]
    fn any_values_come_back_within_a_step((format, values) in row(1..4)) {
        let info = format.info();
        let mut bytes = vec![0; format.row_bytes(values.len()).unwrap()];
        encode_row(format, &values, &mut bytes).unwrap();
        let blocks = values.chunks_exact(info.block_len).zip(bytes.chunks_exact(info.block_bytes));
        for (values, bytes) in blocks.filter(|_| info.integer) {
            let largest = values.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
            // Scales are 16-bit floats, whose smallest steps are 6e-8; those of K-quants count 6 bits of these.
            let step = f64::from(largest) * 2.0 / 2f64.powf(format.bits_per_weight().floor()) + 1e-4;
            let (error, _) = squared_error(format, bytes, values);
            prop_assert!(error <= values.len() as f64 * step * step, "{} {error} {step}", info.name);
        }
    }

    #[test]
    fn any_values_are_the_same_bytes_on_every_instruction_set((format, values) in row(1..20)) {
        let mut expected = vec![0; format.row_bytes(values.len()).unwrap()];
        encode_row(format, &values, &mut expected).unwrap();
        for kernels in all_kernels() {
            let mut bytes = vec![0xff; expected.len()];
            kernels.encode_row(format, &values, &mut bytes).unwrap();
            prop_assert_eq!(&bytes, &expected, "{} with {}", format, kernels.isa());
        }
    }

    #[test]
    fn any_bytes_are_the_same_values_on_every_instruction_set((format, bytes) in bytes()) {
        let count = bytes.len() / format.info().block_bytes * format.info().block_len;
        let mut expected = vec![0.0; count];
        decode_row(format, &bytes, &mut expected);
        for kernels in all_kernels() {
            let mut values = vec![1.0; count];
            kernels.decode_row(format, &bytes, &mut values);
            for (value, expected) in values.iter().zip(&expected) {
                let same = value.to_bits() == expected.to_bits() || (value.is_nan() && expected.is_nan());
                prop_assert!(same, "{format} with {}: {value} {expected}", kernels.isa());
            }
        }
    }
}
