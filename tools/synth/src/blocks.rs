//! Random weights made directly in their storage format: random codes under fixed scales, as fast as the disk takes them.

use gemmule_quant::{encode_row, set_scales};
use gemmule_quantize::RowsToMake;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// The rows' bytes. Values have the spread of trained weights, 1 / sqrt(columns).
pub(crate) fn random_rows(rows: &RowsToMake<'_>, seed: u64) -> Vec<u8> {
    // FNV-1a of the name: the same on every machine and with every compiler.
    let name = rows
        .tensor
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    let mut random = ChaCha8Rng::seed_from_u64(seed ^ name);
    random.set_stream(rows.first as u64);
    let info = rows.format.info();
    let spread = 1.0 / (rows.columns as f32).sqrt();
    let mut bytes = vec![0; rows.columns / info.block_len * info.block_bytes * rows.count];
    if info.block_len == 1 {
        let values: Vec<f32> = (0..rows.columns * rows.count)
            .map(|_| f32::from(rows.norm as u8) + (random.next_u32() as f32 / u32::MAX as f32 - 0.5) * 3.46 * spread)
            .collect();
        encode_row(rows.format, &values, &mut bytes).expect("finite values, and room for them");
        return bytes;
    }
    random.fill_bytes(&mut bytes);
    for block in bytes.chunks_exact_mut(info.block_bytes) {
        set_scales(rows.format, block, spread);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use gemmule_quant::{FORMATS, decode_row};

    use super::*;

    #[test]
    fn values_spread_as_trained_weights_do() {
        for info in FORMATS {
            let rows = RowsToMake { tensor: "x", format: info.format, columns: 1024, first: 0, count: 16, norm: false };
            let bytes = random_rows(&rows, 1);
            let mut values = vec![0.0; 1024 * 16];
            for (bytes, values) in bytes.chunks_exact(bytes.len() / 16).zip(values.chunks_exact_mut(1024)) {
                decode_row(info.format, bytes, values);
            }
            let mean = values.iter().sum::<f32>() / values.len() as f32;
            let spread = (values.iter().map(|x| x * x).sum::<f32>() / values.len() as f32).sqrt() * 32.0;
            // The mean of 16,384 values that spread by 1/32 has a standard error of 0.00025.
            assert!(mean.abs() < 0.001 && (0.93..1.07).contains(&spread), "{}: {mean}, {spread}", info.name);
        }
    }
}
