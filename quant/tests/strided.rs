//! Rows that lie apart, against double precision.

mod support;

use gemmule_quant::{Format, StridedRows, decode_row};
use support::{Random, all_kernels, random_row};

#[test]
fn scaled_rows_are_added() {
    let mut random = Random(6);
    for kernels in all_kernels() {
        for format in [Format::F16, Format::BF16, Format::F32] {
            for (length, count) in [(1, 1), (8, 3), (13, 8), (64, 9), (72, 21), (256, 0)] {
                let stride = length * 4 + 8;
                let mut bytes = vec![0xff; count * stride];
                let factors = random.values(count);
                let mut expected = vec![1.0f64; length];
                for (at, factor) in bytes.chunks_exact_mut(stride).zip(&factors) {
                    let row = random_row(format, length, &mut random);
                    let mut decoded = vec![0.0; length];
                    decode_row(format, &row, &mut decoded);
                    at[..row.len()].copy_from_slice(&row);
                    let scaled = decoded.iter().map(|value| f64::from(*value) * f64::from(*factor));
                    expected.iter_mut().zip(scaled).for_each(|(sum, value)| *sum += value);
                }
                let rows = StridedRows::new(format, count, length, stride, &bytes).unwrap();
                let mut out = vec![1.0; length];
                kernels.add_scaled(&factors, rows, &mut out);
                for (out, expected) in out.iter().zip(&expected) {
                    let what = format!("{} {format} {count} × {length}", kernels.isa());
                    assert!(
                        (f64::from(*out) - expected).abs() < 1e-5 * (1.0 + expected.abs()),
                        "{what}: {out} {expected}"
                    );
                }
            }
        }
    }
}

#[test]
fn strided_rows_lie_inside_their_bytes() {
    let bytes = [0u8; 20];
    assert!(StridedRows::new(Format::F16, 3, 2, 8, &bytes).is_some(), "the last row ends with the bytes");
    assert!(StridedRows::new(Format::F16, 3, 3, 8, &bytes).is_none());
    assert!(StridedRows::new(Format::F16, usize::MAX, 2, 8, &bytes).is_none());
    assert!(StridedRows::new(Format::Q8_0, 0, 32, 34, &bytes).is_none(), "quantized");
}
