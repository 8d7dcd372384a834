//! Damaged and hostile GGUF and picture files: an error, never a panic, an abort or a huge allocation.

use gemmule::gguf::Gguf;
use gemmule::{Model, Picture, gguf::GgufFile};

fn model_bytes() -> Vec<u8> {
    std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/models/easy-vqa-q8_0.gguf")).unwrap()
}

/// The header's length: where the first tensor's data begins.
fn header_len(bytes: &[u8]) -> usize {
    Gguf::parse("sound", bytes).unwrap().tensors().iter().map(|tensor| tensor.range.start).min().unwrap()
}

#[test]
fn every_truncation_is_an_error() {
    let bytes = model_bytes();
    let header = header_len(&bytes);
    for len in (0..2000).chain((2000..header).step_by(991)).chain([header, bytes.len() - 1]) {
        let error = Gguf::parse("cut", &bytes[..len]).err().unwrap_or_else(|| panic!("{len} bytes were accepted"));
        assert!(error.to_string().starts_with("cut: "), "{error}");
    }
}

#[test]
fn damaged_headers_never_panic() {
    let bytes = model_bytes();
    let header = header_len(&bytes);
    let mut state = 1u64;
    let mut random = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("damaged.gguf");
    let (mut refused, rounds) = (0, 60);
    for round in 0..rounds {
        let mut damaged = bytes.clone();
        // The first bytes and the tensor directory at the end hold lengths, types and offsets; damage goes there.
        for _ in 0..1 + round % 5 {
            let at = if random(2) == 0 { random(1500) } else { header - 1 - random(6000) };
            damaged[at] = random(256) as u8;
        }
        std::fs::write(&path, &damaged).unwrap();
        refused += usize::from(GgufFile::open(&path).and_then(|file| Model::from_files(vec![file])).is_err());
    }
    assert!(refused > rounds / 4, "only {refused} of {rounds} damaged files were refused");
}

fn header(tensors: u64, keys: u64, rest: &[u8]) -> Vec<u8> {
    let mut bytes = b"GGUF".to_vec();
    bytes.extend(3u32.to_le_bytes());
    bytes.extend(tensors.to_le_bytes());
    bytes.extend(keys.to_le_bytes());
    bytes.extend(rest);
    bytes
}

#[test]
fn lengths_that_lie_are_errors() {
    let key = |name: &str, kind: u32, payload: &[u8]| {
        let mut bytes = (name.len() as u64).to_le_bytes().to_vec();
        bytes.extend(name.as_bytes());
        bytes.extend(kind.to_le_bytes());
        bytes.extend(payload);
        bytes
    };
    let array = |element: u32, count: u64| [element.to_le_bytes().to_vec(), count.to_le_bytes().to_vec()].concat();
    let tensor = |dimensions: &[u64], kind: u32, offset: u64| {
        let mut bytes = 1u64.to_le_bytes().to_vec();
        bytes.push(b't');
        bytes.extend((dimensions.len() as u32).to_le_bytes());
        dimensions.iter().for_each(|size| bytes.extend(size.to_le_bytes()));
        bytes.extend(kind.to_le_bytes());
        bytes.extend(offset.to_le_bytes());
        bytes
    };
    let cases = [
        ("key count", header(0, u64::MAX, &[])),
        ("tensor count", header(u64::MAX, 0, &[])),
        ("key length", header(0, 1, &u64::MAX.to_le_bytes())),
        ("string length", header(0, 1, &key("k", 8, &(1u64 << 30).to_le_bytes()))),
        ("array length", header(0, 1, &key("k", 9, &array(0, 1 << 40)))),
        ("array of strings", header(0, 1, &key("k", 9, &array(8, u64::MAX)))),
        ("array size overflow", header(0, 1, &key("k", 9, &array(12, u64::MAX / 4)))),
        ("nested array", header(0, 1, &key("k", 9, &array(9, 1)))),
        ("value type", header(0, 1, &key("k", 77, &[]))),
        ("dimensions", header(1, 0, &tensor(&[1; 5], 0, 0))),
        ("no dimensions", header(1, 0, &tensor(&[], 0, 0))),
        ("zero size", header(1, 0, &tensor(&[0, 4], 0, 0))),
        ("size overflow", header(1, 0, &tensor(&[1 << 40, 1 << 40], 0, 0))),
        ("data outside", header(1, 0, &tensor(&[64], 0, 0))),
        ("offset overflow", header(1, 0, &tensor(&[8], 0, u64::MAX - 31))),
        ("partial block", header(1, 0, &tensor(&[33], 8, 0))),
        ("tensor type 40", header(1, 0, &tensor(&[8], 40, 0))),
        ("tensor type", header(1, 0, &tensor(&[8], u32::MAX, 0))),
        ("twice", header(2, 0, &[tensor(&[1], 24, 0), tensor(&[1], 24, 0)].concat())),
    ];
    for (what, bytes) in cases {
        assert!(Gguf::parse("lie", &bytes).is_err(), "{what}");
    }
}

#[test]
fn types_that_cannot_be_computed_are_named_at_load() {
    // Tensor `output_norm.weight` of the sound file becomes q2_k; the file stays readable, the model is refused.
    let mut bytes = model_bytes();
    let name = b"output_norm.weight";
    let at = bytes.windows(name.len()).position(|window| window == name).unwrap();
    bytes[at + name.len() + 4 + 8] = 10;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("q2_k.gguf");
    std::fs::write(&path, &bytes).unwrap();
    let error = Model::open(&path).unwrap_err().to_string();
    assert!(error.contains("output_norm.weight") && error.contains("q2_k"), "{error}");
}

/// Values that are small one by one, and would take a hundred times their bytes once they are read.
#[test]
fn many_small_values_are_refused() {
    let file = |keys: u32| {
        let mut bytes = b"GGUF".to_vec();
        bytes.extend(3u32.to_le_bytes());
        bytes.extend(0u64.to_le_bytes());
        bytes.extend(u64::from(keys).to_le_bytes());
        for key in 0..keys {
            let name = format!("key{key:05}");
            bytes.extend((name.len() as u64).to_le_bytes());
            bytes.extend(name.as_bytes());
            // An array of bytes.
            bytes.extend(9u32.to_le_bytes());
            bytes.extend(0u32.to_le_bytes());
            bytes.extend(60_000u64.to_le_bytes());
            bytes.extend(vec![7; 60_000]);
        }
        bytes
    };
    assert_eq!(Gguf::parse("few", &file(5)).unwrap().keys().count(), 5);
    let error = Gguf::parse("many", &file(20)).unwrap_err().to_string();
    assert!(error.contains("more than 1048576"), "{error}");
}

#[test]
fn damaged_pictures_never_panic() {
    let folders = ["pictures", "jpeg"].map(|folder| format!("{}/tests/goldens/{folder}", env!("CARGO_MANIFEST_DIR")));
    let mut files = 0;
    for entry in folders.iter().flat_map(|folder| std::fs::read_dir(folder).unwrap()) {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        files += 1;
        for len in (0..bytes.len()).step_by(bytes.len() / 40 + 1) {
            // Some decoders show what arrived, as browsers do; none may panic.
            let _ = Picture::from_bytes("cut", &bytes[..len]);
            let mut damaged = bytes.clone();
            damaged[len] ^= 0x5a;
            let _ = Picture::from_bytes("damaged", &damaged);
        }
    }
    assert!(files >= 17);
}

#[test]
fn a_decompression_bomb_is_refused() {
    // PNG files of a few pixels whose headers promise more: RGB of 10.8 GB, and grey of 0.8 that are 2.4 as RGB.
    for (width, height, colors, checksum) in
        [(60_000u32, 60_000u32, 2, 0x0fb0_e215u32), (40_000, 20_000, 0, 0x40cf_4cef)]
    {
        let mut png = vec![0x89, b'P', b'N', b'G', 13, 10, 26, 10, 0, 0, 0, 13];
        png.extend(b"IHDR");
        png.extend(width.to_be_bytes());
        png.extend(height.to_be_bytes());
        png.extend([8, colors, 0, 0, 0]);
        png.extend(checksum.to_be_bytes());
        png.extend(
            b"\0\0\0\x0cIDAT\x78\x9c\x63\x60\xa0\x0c\0\0\0\x40\0\x01\xb7\x34\x7c\xef\0\0\0\0IEND\xae\x42\x60\x82",
        );
        let error = Picture::from_bytes("bomb", &png).unwrap_err().to_string();
        assert!(error.contains("more than"), "{error}");
    }
    assert!(Picture::from_rgb(0, 5, Vec::new()).is_err());
    assert!(Picture::from_rgb(u32::MAX, u32::MAX, vec![0; 12]).is_err());
}
