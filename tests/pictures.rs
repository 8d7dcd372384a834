//! Pictures against PIL's own pixels (made by `tools/reference/goldens.py`).

use std::path::Path;

use gemmule::Picture;

#[test]
fn jpeg_pixels_are_those_of_pil() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/jpeg");
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "jpg") {
            let ours = Picture::open(&path).unwrap();
            let expected = Picture::open(path.with_extension("png")).unwrap();
            assert_eq!((ours.width(), ours.height()), (expected.width(), expected.height()), "{}", path.display());
            let worst = ours.rgb().iter().zip(expected.rgb()).map(|(a, b)| a.abs_diff(*b)).max();
            assert_eq!(worst, Some(0), "{}", path.display());
            seen += 1;
        }
    }
    assert_eq!(seen, 9);
}

/// Against ffmpeg (`tools/reference/yuv_goldens.sh`): every matrix, range and format; and without the last column and row, whose
/// colours stay where they are.
#[test]
fn colours_of_films_are_those_of_ffmpeg() {
    use gemmule::image::{Colours, Frame, FrameShape, Matrix, PixelFormat, Range, Size};
    fn find<T: Copy>(names: &[(&str, T)], name: &str) -> T {
        names.iter().find(|(known, _)| *known == name).unwrap().1
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/yuv");
    let (mut seen, mut wrong) = (0, Vec::new());
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|ending| ending != "raw") {
            continue;
        }
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let [format, size, matrix, range] = name.split('-').collect::<Vec<_>>().try_into().unwrap();
        let (width, height) = size.split_once('x').unwrap();
        let size = Size::new(width.parse().unwrap(), height.parse().unwrap());
        let colours = Colours { matrix: find(&Matrix::NAMES, matrix), range: find(&Range::NAMES, range) };
        let shape = FrameShape::tight(find(&PixelFormat::NAMES, format), size).unwrap();
        let (data, expected) = (std::fs::read(&path).unwrap(), std::fs::read(path.with_extension("rgb")).unwrap());
        assert_eq!(shape.whole_len(), Some(data.len()), "{name}");
        let picture = Frame::of(&data, FrameShape { colours, ..shape }).unwrap().to_picture();
        let worst = picture.rgb().iter().zip(&expected).map(|(ours, theirs)| ours.abs_diff(*theirs)).max().unwrap();
        if worst > 1 || picture.rgb().len() != expected.len() {
            wrong.push(format!("{name}: {worst} levels"));
        }
        seen += 1;
        if matches!(shape.format, PixelFormat::I420 | PixelFormat::Nv12) {
            let (width, height) = (size.width as usize, size.height as usize);
            let (luma, colour) = data.split_at(width * height);
            let luma = luma.chunks(width).take(height - 1).flat_map(|row| &row[..width - 1]);
            let less = Size::new(size.width - 1, size.height - 1);
            let odd: Vec<u8> = luma.chain(colour).copied().collect();
            let shape = FrameShape::tight(shape.format, less).unwrap();
            assert_eq!(shape.whole_len(), Some(odd.len()), "{name}");
            let cut = Frame::of(&odd, FrameShape { colours, ..shape }).unwrap().to_picture();
            let part = picture.crop(0, 0, less).unwrap();
            assert_eq!(cut.rgb(), part.rgb(), "{name}");
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(seen > 15);
}

/// Width, height, and the pixels' checksum.
type Pixels = (u32, u32, u32);

/// What PIL gives of a file: a picture, or the frames of a film.
#[derive(serde::Deserialize)]
#[serde(untagged)]
enum Expected {
    Picture(Pixels),
    Film(Vec<Pixels>),
}

fn pixels_of(picture: &Picture) -> Pixels {
    (picture.width(), picture.height(), crc32(picture.rgb()))
}

/// Damaged JPEG, PNG and GIF files against PIL (`tools/reference/damaged_goldens.py`): what it reads has its pixels; pictures are
/// said to be damaged.
#[test]
fn damaged_files_have_the_pixels_of_pil() {
    let path = std::env::var("GEMMULE_DAMAGED_GOLDENS").map_or_else(
        |_| Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/damaged.json"),
        std::path::PathBuf::from,
    );
    let rows: Vec<(String, String, Option<Expected>)> = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let film = tempfile::NamedTempFile::new().unwrap();
    let (mut read, mut more, mut films, mut wrong) = (0, 0, 0, Vec::new());
    for (name, file, expected) in &rows {
        let file = base64(file);
        if name.starts_with("gif") {
            std::fs::write(film.path(), &file).unwrap();
            match (gemmule::image::frames(film.path(), usize::MAX), expected) {
                (Ok(frames), Some(Expected::Film(expected))) => {
                    films += 1;
                    if frames.iter().map(pixels_of).ne(expected.iter().copied()) {
                        wrong.push(format!("{name}: other pixels"));
                    }
                }
                (Err(_), None) => {}
                (Ok(_), _) => wrong.push(format!("{name}: PIL refuses it")),
                (Err(error), Some(_)) => wrong.push(format!("{name}: {error}")),
            }
            continue;
        }
        match (Picture::from_bytes(name, &file), expected) {
            (Ok(picture), Some(Expected::Picture(expected))) => {
                if pixels_of(&picture) != *expected {
                    wrong.push(format!("{name}: other pixels"));
                }
                read += usize::from(picture.damage().is_some());
            }
            (Err(error), Some(_)) => wrong.push(format!("{error}")),
            // Files without their end are read here; they are said to be damaged, too.
            (Ok(_), _) => more += 1,
            (Err(_), None) => {}
        }
    }
    println!("{read} damaged files and {films} films read of {}; {more} pictures that PIL refuses", rows.len());
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), rows.len(), wrong.join("\n"));
    assert!(read > 60 && films > 20);
}

/// ISO 3309's CRC-32, as zlib computes it.
fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _: u32| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), step))
}

fn base64(text: &str) -> Vec<u8> {
    let value =
        |byte: u8| b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/".iter().position(|b| *b == byte);
    let values: Vec<u32> = text.bytes().filter_map(value).map(|value| value as u32).collect();
    let bytes = |group: &[u32]| {
        let bits = group.iter().fold(0, |bits, value| bits << 6 | value) << (6 * (4 - group.len()));
        bits.to_be_bytes()[1..group.len()].to_vec()
    };
    values.chunks(4).flat_map(bytes).collect()
}

/// Files that people have, with PIL's pixels: damaged ones, orientation in XMP alone and as a LONG, a scan.
#[test]
fn files_that_people_have_are_read() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/cases");
    let pixels: std::collections::BTreeMap<String, (u32, u32, u32)> =
        serde_json::from_slice(&std::fs::read(folder.join("pixels.json")).unwrap()).unwrap();
    for (name, expected) in &pixels {
        if name == "pixels.json" {
            continue;
        }
        let picture = Picture::open(folder.join(name)).unwrap();
        assert_eq!((picture.width(), picture.height(), crc32(picture.rgb())), *expected, "{name}");
        let damaged = ["badcrc", "noiend", "damaged"].iter().any(|start| name.starts_with(start));
        assert_eq!(picture.damage().is_some(), damaged, "{name}: {:?}", picture.damage());
    }
    assert!(pixels.len() > 6);
    for (name, part) in [("x.heic", "HEIC"), ("x.avif", "AVIF")] {
        let error = Picture::open(folder.join(name)).unwrap_err().to_string();
        assert!(error.contains(part) && error.contains("JPEG, PNG, WebP, GIF, BMP and TIFF"), "{error}");
    }
}

/// Where a file ends before it says it does, that is said, and a decoder's own types are not.
#[test]
fn cut_and_damaged_files_are_named_plainly() {
    let pixels = Picture::from_rgb(2, 2, vec![7; 12]).unwrap();
    let mut webp = Vec::new();
    let encoder = image::codecs::webp::WebPEncoder::new_lossless(&mut webp);
    encoder.encode(pixels.rgb(), 2, 2, image::ExtendedColorType::Rgb8).unwrap();
    // A chunk that no decoder needs, behind the pixels.
    webp.extend(b"XMP \x08\0\0\0damaged!");
    let len = (webp.len() - 8) as u32;
    webp[4..8].copy_from_slice(&len.to_le_bytes());
    assert!(Picture::from_bytes("whole", &webp).unwrap().damage().is_none());
    assert_eq!(Picture::from_bytes("cut", &webp[..webp.len() - 3]).unwrap().damage(), Some("its end is missing"));
    let mut png = pixels.to_png();
    png[18] ^= 1;
    let error = Picture::from_bytes("x.png", &png).unwrap_err().to_string();
    assert!(error.ends_with("the checksum of its IHDR chunk is wrong"), "{error}");
}

/// A file whose Huffman tables have sizes that no value has is refused, as PIL refuses it.
#[test]
fn huffman_tables_that_cannot_be_are_refused() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/cases");
    let path = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut tried = 0;
    for path in path.filter(|path| path.extension().is_some_and(|ending| ending == "jpg")) {
        let mut bytes = std::fs::read(&path).unwrap();
        let read = Picture::from_bytes("whole", &bytes);
        // A segment of tables whose first is for DC differences: marker, length, number, sixteen counts, symbols.
        let Some(at) = bytes.windows(2).position(|pair| pair == [0xff, 0xc4]).filter(|at| bytes[at + 4] >> 4 == 0)
        else {
            continue;
        };
        if read.is_ok_and(|picture| picture.damage().is_none()) {
            bytes[at + 21] = 16;
            let error = Picture::from_bytes("damaged", &bytes).unwrap_err().to_string();
            assert!(error.contains("Huffman"), "{}: {error}", path.display());
            tried += 1;
        }
    }
    assert!(tried > 0);
}

#[test]
fn what_is_no_picture_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file.jpg");
    for (bytes, part) in [
        (&b"version https://git-lfs.github.com/spec/v1\noid"[..], "git lfs pull"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b"  <html>", "web page"),
        (b"<svg xmlns=", "SVG"),
        (b"%PDF-1.7", "pdftoppm"),
        (b"\0\0\0\x18ftypmp42", "ffmpeg"),
        (b"\0\0\0\x1cftypheic", "HEIC"),
        (b"\0\0\0\x1cftypavif", "AVIF"),
        (b"\xff\x0a...", "JPEG XL"),
        (b"\0\0\0\x0cjP  ", "JPEG 2000"),
        (b"8BPS", "Photoshop"),
        (b"P6 3 3 255 ", "PPM"),
        (b"YUV4MPEG2 W2", "gemmule watch"),
        (b"nothing at all", "unknown format"),
        (b"", "empty"),
    ] {
        std::fs::write(&path, bytes).unwrap();
        let error = Picture::open(&path).unwrap_err().to_string();
        assert!(error.contains(part) && error.contains("file.jpg"), "{error}");
    }
    let long = format!("data:image/png;base64,{}", "A".repeat(10_000));
    for (path, part) in [
        ("https://example.org/a.jpg", "URL"),
        ("file:///a.jpg", "URL"),
        (&long, "data URI"),
        (directory.path().to_str().unwrap(), "--frames"),
    ] {
        let error = Picture::open(Path::new(path)).unwrap_err().to_string();
        assert!(error.contains(part) && error.len() < 400, "{error}");
    }
}

#[test]
fn damaged_frames_of_a_stream_leave_the_others() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/cases");
    for (name, damaged) in [("flip.mjpg", vec![1]), ("http_response.mjpg", vec![])] {
        let bytes = std::fs::read(folder.join(name)).unwrap();
        let mut stream = gemmule::image::FrameStream::new(&bytes[..], None).unwrap();
        let mut found = Vec::new();
        while let Some(frame) = stream.next_frame().unwrap() {
            if frame.to_picture().unwrap().damage().is_some() {
                found.push(frame.number());
            }
        }
        assert_eq!((stream.frames(), found), (3, damaged), "{name}");
    }
}

/// Scans as TIFF, in every way to store them that is read, with PIL's pixels (`tools/reference/tiff_goldens.py`); others are named.
#[test]
fn tiff_pixels_are_those_of_pil() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/tiff");
    let pixels: std::collections::BTreeMap<String, Option<Pixels>> =
        serde_json::from_slice(&std::fs::read(folder.join("pixels.json")).unwrap()).unwrap();
    let mut wrong = Vec::new();
    for (name, expected) in &pixels {
        match (Picture::open(folder.join(name)), expected) {
            (Ok(picture), Some(expected)) if pixels_of(&picture) == *expected => {}
            (Err(error), None) => assert!(error.to_string().contains("a TIFF file that cannot be read ("), "{error}"),
            (Ok(picture), _) => wrong.push(format!("{name}: {:?} {expected:?}", pixels_of(&picture))),
            (Err(error), _) => wrong.push(error.to_string()),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(pixels.len() > 30);
}
