//! Decoding and encoding against others' implementations: `tools/reference/quant_goldens.py` made the files.

use std::path::PathBuf;

use gemmule_quant::{EncodeError, FORMATS, Format, decode_row, encode_row};

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/goldens").join(name)
}

fn floats(name: &str) -> Vec<f32> {
    let bytes = std::fs::read(path(name)).unwrap();
    bytes.chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect()
}

#[test]
fn decoding_is_bit_equal_to_the_gguf_package() {
    for info in FORMATS {
        let blocks = std::fs::read(path(&format!("{}.blocks", info.name))).unwrap();
        let expected = floats(&format!("{}.f32", info.name));
        let mut decoded = vec![0.0; expected.len()];
        decode_row(info.format, &blocks, &mut decoded);
        for (index, (got, expected)) in decoded.iter().zip(&expected).enumerate() {
            assert_eq!(got.to_bits(), expected.to_bits(), "{} value {index}: {got} instead of {expected}", info.name);
        }
    }
}

fn squared_error(format: Format, values: &[f32], columns: usize) -> f64 {
    let mut error = 0.0;
    let mut bytes = vec![0; format.row_bytes(columns).unwrap()];
    let mut decoded = vec![0.0; columns];
    for row in values.chunks_exact(columns) {
        encode_row(format, row, &mut bytes).unwrap();
        decode_row(format, &bytes, &mut decoded);
        error += row.iter().zip(&decoded).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>();
    }
    error
}

#[test]
fn encoding_is_never_worse_than_ggml() {
    let text = std::fs::read_to_string(path("ggml_errors.json")).unwrap();
    let sets: serde_json::Value = serde_json::from_str(&text).unwrap();
    println!("| data | type | ggml | gemmule | gemmule / ggml (squared error) |\n|---|---|---|---|---|");
    for (name, set) in sets.as_object().unwrap() {
        let values = floats(&format!("{name}.data"));
        let columns = set["columns"].as_u64().unwrap() as usize;
        let total = set["squared"].as_f64().unwrap();
        for (kind, ggml) in set["ggml"].as_object().unwrap() {
            let ggml = ggml.as_f64().unwrap();
            let ours = squared_error(Format::from_name(kind).unwrap(), &values, columns);
            let percent = |error: f64| (error / total).sqrt() * 100.0;
            println!("| {name} | {kind} | {:.3} % | {:.3} % | {:.3} |", percent(ggml), percent(ours), ours / ggml);
            assert!(ours <= ggml, "{name} {kind}: squared error {ours} instead of {ggml}");
        }
    }
}

#[test]
fn encoding_survives_extreme_values() {
    for info in FORMATS {
        let columns = 512;
        let mut bytes = vec![0; info.format.row_bytes(columns).unwrap()];
        let mut decoded = vec![0.0f32; columns];
        let mut rows: Vec<Vec<f32>> = [0.0, 1.0, -1.0, 1e-30, -1e-40, 6e4, 1e30, f32::MAX, f32::MIN_POSITIVE]
            .iter()
            .map(|value| vec![*value; columns])
            .collect();
        rows.push((0..columns).map(|i| if i == 37 { 1e20 } else { -1e-20 }).collect());
        rows.push((0..columns).map(|i| if i % 2 == 0 { f32::MAX } else { f32::MIN }).collect());
        for row in rows {
            encode_row(info.format, &row, &mut bytes).unwrap();
            decode_row(info.format, &bytes, &mut decoded);
            assert!(decoded.iter().all(|value| value.is_finite()), "{}: {:?}…", info.name, &row[..2]);
            if row.iter().all(|value| value.abs() == 1.0 || *value == 0.0) {
                let worst = row.iter().zip(&decoded).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                assert!(worst < 0.01, "{}: constant rows become {:?}", info.name, &decoded[..2]);
            }
        }
        let mut bad = vec![0.5; columns];
        bad[3] = f32::NAN;
        assert_eq!(encode_row(info.format, &bad, &mut bytes), Err(EncodeError::NotFinite(3)));
        assert!(matches!(encode_row(info.format, &bad[..500], &mut bytes), Err(EncodeError::Length(..))));
    }
}

#[test]
fn every_format_is_listed_once() {
    for (index, info) in FORMATS.iter().enumerate() {
        assert_eq!(info.format as usize, index);
        assert_eq!(Format::from_name(info.name), Some(info.format));
        assert_eq!(Format::from_ggml_id(info.ggml_id), Some(info.format));
        assert_eq!(info.format.row_bytes(info.block_len * 3), Some(info.block_bytes * 3));
        assert_eq!(info.format.row_bytes(info.block_len * 3 + 1).is_some(), info.block_len == 1);
    }
    assert_eq!(Format::F32.row_bytes(usize::MAX), None);
}
