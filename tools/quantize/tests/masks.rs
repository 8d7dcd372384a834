//! The decoder of masks against torch, PIL and pycocotools (`tools/reference/mask_goldens.py`).

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use gemmule::answer::{Bounds, Mask};
use gemmule::{Model, Session, SessionOptions};
use safetensors::SafeTensors;

const CASE: &str = "sharded-bf16";

fn goldens() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/goldens")
}

/// Converts a small checkpoint, with the mask decoder that is named.
fn convert(decoder: Option<&Path>, output: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gemmule-quantize"));
    command.arg(goldens().join(CASE)).arg(output).args(["--type", "q8_0"]);
    command.args(decoder.map(|decoder| [Path::new("--seg-vae"), decoder]).into_iter().flatten()).output().unwrap()
}

/// A model with the decoder of this name.
fn model(directory: &Path, decoder: &str) -> PathBuf {
    let path = directory.join("masks.gguf");
    let run = convert(Some(&goldens().join("masks").join(decoder)), &path);
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    path
}

#[test]
fn every_stage_is_that_of_torch() {
    let directory = tempfile::tempdir().unwrap();
    let model = Model::open(model(directory.path(), "vae.npz")).unwrap();
    assert!(model.decodes_masks());
    let bytes = std::fs::read(goldens().join("masks/golden.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let codes: Vec<u16> =
        tensors.tensor("codes").unwrap().data().as_chunks().0.iter().map(|b| i64::from_le_bytes(*b) as u16).collect();
    let masks: serde_json::Value =
        serde_json::from_slice(&std::fs::read(goldens().join("masks/masks.json")).unwrap()).unwrap();
    for isa in gemmule_quant::isa::available() {
        let options = SessionOptions::new().threads(2).isa(isa.name());
        let mut session = Session::new(&model, &options).unwrap();
        for (index, codes) in codes.chunks(16).enumerate() {
            let mut stages: Vec<Vec<f32>> = Vec::new();
            let values = session.trace_mask(codes, |stage| stages.push(stage.to_vec())).unwrap();
            assert_eq!((stages.len(), stages.last()), (9, Some(&values)));
            let mut compared = 0;
            for (number, stage) in stages.iter().enumerate() {
                let Ok(golden) = tensors.tensor(&format!("{index}.{number}")) else { continue };
                let golden: Vec<f32> = golden.data().as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
                assert_eq!(stage.len(), golden.len(), "stage {number}");
                let error = relative_error(stage, &golden);
                println!("{isa}, mask {index}, stage {number}: {error:.1e}");
                assert!(error < 1e-5, "{isa}, mask {index}, stage {number}: {error}");
                compared += 1;
            }
            assert_eq!(compared, if index == 0 { 9 } else { 1 });
            compare_mask(&values, &masks[index]);
        }
    }
}

/// The root of the differences' squares beside that of the golden's.
fn relative_error(values: &[f32], golden: &[f32]) -> f64 {
    let square = |values: &mut dyn Iterator<Item = f32>| values.map(|v| f64::from(v).powi(2)).sum::<f64>();
    let difference = square(&mut values.iter().zip(golden).map(|(a, b)| a - b));
    (difference / square(&mut golden.iter().copied())).sqrt()
}

#[test]
fn a_decoder_may_have_other_widths() {
    let directory = tempfile::tempdir().unwrap();
    let model = Model::open(model(directory.path(), "small.npz")).unwrap();
    let bytes = std::fs::read(goldens().join("masks/small.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let codes: Vec<u16> =
        tensors.tensor("codes").unwrap().data().as_chunks().0.iter().map(|b| i64::from_le_bytes(*b) as u16).collect();
    let golden: Vec<f32> =
        tensors.tensor("values").unwrap().data().as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
    for isa in gemmule_quant::isa::available() {
        let mut session = Session::new(&model, &SessionOptions::new().isa(isa.name())).unwrap();
        let values = session.decode_mask(&codes).unwrap();
        let error = relative_error(&values, &golden);
        assert!(values.len() == golden.len() && error < 1e-5, "{isa}: {error}");
    }
}

/// The mask in the picture, as PIL pastes it and pycocotools writes it.
fn compare_mask(values: &[f32], golden: &serde_json::Value) {
    let number = |value: &serde_json::Value| value.as_u64().unwrap() as u32;
    let share = |index: usize| golden["locations"][index].as_f64().unwrap() / 1023.0;
    let bounds = Bounds { y_min: share(0), x_min: share(1), y_max: share(2), x_max: share(3) };
    let mask = Mask::paste(values, &bounds, number(&golden["size"][1]), number(&golden["size"][0]));
    // Values within rounding of zero may fall to either side.
    let difference = mask.area().abs_diff(number(&golden["area"]) as usize);
    assert!(difference <= 2 && mask.area() > 100, "{} pixels in place of {}", mask.area(), golden["area"]);
    if difference == 0 {
        assert_eq!(mask.counts(), golden["counts"].as_str().unwrap());
    }
    let png = image::load_from_memory(&mask.to_png()).unwrap().to_luma8();
    assert_eq!((png.width(), png.height()), (mask.width(), mask.height()));
    assert!(png.pixels().zip(mask.pixels()).all(|(grey, inside)| (grey.0[0] == 255) == *inside));
}

#[test]
fn bad_decoders_are_named_and_nothing_is_written() {
    let directory = tempfile::tempdir().unwrap();
    let output = directory.path().join("out.gguf");
    let bytes = std::fs::read(goldens().join("masks/vae.npz")).unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = directory.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let mut flipped = bytes.clone();
    flipped[bytes.len() / 2] ^= 0x55;
    for (path, parts) in [
        (directory.path().join("nowhere.npz"), &["nowhere.npz"][..]),
        (file("note.npz", b"this is no archive"), &["note.npz", "not a sound .npz"]),
        (file("cut.npz", &bytes[..bytes.len() / 2]), &["cut.npz"]),
        (file("flipped.npz", &flipped), &["flipped.npz", "array 'decoder."]),
        (
            goldens().join("masks/other-shapes.npz"),
            &["array '_vq_vae._embedding'", "shape [64, 512] in place of [128, 512]"],
        ),
    ] {
        let run = convert(Some(&path), &output);
        let message = String::from_utf8_lossy(&run.stderr);
        assert_eq!(run.status.code(), Some(1), "{}: {message}", path.display());
        assert_eq!(message.trim_end().lines().count(), 1, "{message}");
        for part in parts {
            assert!(message.contains(part), "no '{part}' in: {message}");
        }
        assert!(!output.exists());
    }
}

#[test]
fn codes_without_a_decoder_are_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let model = Model::open(model(directory.path(), "vae.npz")).unwrap();
    let mut session = Session::new(&model, &SessionOptions::new()).unwrap();
    for codes in [&[0; 15][..], &[128; 16]] {
        assert!(session.decode_mask(codes).unwrap_err().to_string().contains("16 codes below 128"));
    }
    let path = directory.path().join("plain.gguf");
    assert!(convert(None, &path).status.success());
    let model = Model::open(&path).unwrap();
    assert!(!model.decodes_masks());
    let mut session = Session::new(&model, &SessionOptions::new()).unwrap();
    assert!(session.decode_mask(&[0; 16]).unwrap_err().to_string().contains("--seg-vae"));
}
