//! Recognizes files that cannot be read as pictures, so that an error says what to do.

use std::path::Path;

/// What can be read.
pub(super) const READ: &str = "JPEG, PNG, WebP, GIF, BMP and TIFF";

/// How a file of a kind begins: the place of a mark, the mark, the kind and what to do about it.
const KINDS: [(usize, &[u8], &str, &str); 19] = [
    (4, b"ftypavif", "an AVIF picture", "convert it, as `avifdec IN OUT.png` does"),
    (4, b"ftypavis", "an AVIF film", "let ffmpeg read it"),
    (4, b"ftyphei", "a HEIC picture", "convert it, as `heif-convert IN OUT.png` does"),
    (4, b"ftyphev", "a HEIC film", "let ffmpeg read it"),
    (4, b"ftypmif1", "a HEIF picture", "convert it, as `heif-convert IN OUT.png` does"),
    (4, b"ftypmsf1", "a HEIF film", "let ffmpeg read it"),
    (4, b"ftyp", "a film (MP4 or QuickTime)", "take its frames with ffmpeg, see docs/watch.md"),
    (0, b"\xff\x0a", "a JPEG XL picture", "convert it, as `djxl IN OUT.png` does"),
    (0, b"\0\0\0\x0cJXL ", "a JPEG XL picture", "convert it, as `djxl IN OUT.png` does"),
    (0, b"\0\0\0\x0cjP  ", "a JPEG 2000 picture", "convert it, as `opj_decompress -i IN -o OUT.png` does"),
    (0, b"\xff\x4f\xff\x51", "a JPEG 2000 picture", "convert it, as `opj_decompress -i IN -o OUT.png` does"),
    (0, b"8BPS", "a Photoshop file", "export it as PNG"),
    (0, b"%PDF", "a PDF file", "make pictures of its pages, as `pdftoppm -png IN OUT` does"),
    (0, b"\x1a\x45\xdf\xa3", "a film (WebM or Matroska)", "take its frames with ffmpeg, see docs/watch.md"),
    (0, b"YUV4MPEG2", "a film (YUV4MPEG2)", "give it to `gemmule watch`"),
    (0, b"\0\0\x01\0", "an icon (ICO)", "convert it to PNG"),
    (0, b"P6", "a PPM picture", "convert it to PNG"),
    (0, b"P5", "a PGM picture", "convert it to PNG"),
    (0, b"\x76\x2f\x31\x01", "an OpenEXR picture", "convert it to PNG"),
];

/// Why bytes that no decoder knows are no picture.
pub(super) fn unreadable(bytes: &[u8]) -> String {
    let is = |(place, mark, ..): &&(usize, &[u8], &str, &str)| {
        bytes.get(*place..).is_some_and(|rest| rest.starts_with(mark))
    };
    if let Some((_, _, kind, advice)) = KINDS.iter().find(is) {
        return format!("it is {kind}, which is not read; {READ} are: {advice}");
    }
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(256)]).trim_start().to_lowercase();
    if text.starts_with("version https://git-lfs") {
        return "it is a pointer of Git LFS, not the picture: fetch that with `git lfs pull`".to_owned();
    }
    if text.starts_with("<!doctype html") || text.starts_with("<html") {
        return "it is a web page, not a picture: fetch the picture itself".to_owned();
    }
    if text.starts_with("<svg") || text.starts_with("<?xml") {
        return format!(
            "it is an SVG drawing or other XML, which is not read; {READ} are: convert it, as `rsvg-convert` does"
        );
    }
    format!("unknown format; {READ} can be read")
}

/// Why a path names no picture, where that is plain before it is opened.
pub(super) fn of_path(path: &Path) -> Option<String> {
    let text = path.to_str().unwrap_or_default();
    if path.is_dir() {
        return Some(
            "it is a directory: name a picture of it, or give --frames N to take its pictures for frames".to_owned(),
        );
    }
    if path.exists() {
        return None;
    }
    if text.starts_with("data:") {
        return Some(
            "it is a data URI, which is not read: write its bytes to a file, or give them through stdin (-)".to_owned(),
        );
    }
    let is_url =
        ["http://", "https://", "file://", "s3://", "gs://", "ftp://"].iter().any(|start| text.starts_with(start));
    is_url.then(|| {
        "it is a URL, which is not fetched: download it first, or pipe it (`curl -s URL | gemmule run -i -`)".to_owned()
    })
}

/// A path as messages show it: a data URI is as long as its picture.
pub(super) fn shortened(path: &Path) -> String {
    const SHOWN: usize = 80;
    let text = path.display().to_string();
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) if text.starts_with("data:") => format!("{}…", &text[..end]),
        _ => text,
    }
}
