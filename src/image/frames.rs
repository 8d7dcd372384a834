//! Frames of films: animated pictures, and directories of pictures.

use std::io::Cursor;
use std::path::{Path, PathBuf};

use image::codecs::webp::WebPDecoder;
use image::{AnimationDecoder, DynamicImage, ImageDecoder, ImageFormat};

use super::limits::{self, LARGEST_DECODED};
use super::{Picture, gif, read_file, to_rgb};
use crate::{Error, Result};

/// Endings of the files that count as frames of a directory.
const ENDINGS: [&str; 8] = ["bmp", "gif", "jpeg", "jpg", "png", "tif", "tiff", "webp"];

/// `count` frames of a film, evenly spaced: the middles of `count` equal parts. The film is an animated GIF or WebP file, or
/// a directory whose pictures are its frames in the order of their names. A film with fewer frames gives all of them.
///
/// # Errors
/// When it cannot be read, has no frame, or the frames chosen of a file take more than 1 GiB as RGB.
pub fn frames(path: impl AsRef<Path>, count: usize) -> Result<Vec<Picture>> {
    let path = path.as_ref();
    if path.is_dir() {
        let files = pictures_in(path)?;
        return chosen(files.len(), count).map(|index| Picture::open(&files[index])).collect();
    }
    let bytes = read_file(path)?;
    let name = path.display().to_string();
    let fail = |reason: String| Error::Picture { name: name.clone(), reason };
    // Two passes: frames are counted before any is kept, so that memory holds the chosen ones only.
    let (total, _) = take_frames(&bytes, |_| false).map_err(fail)?;
    let mut chosen = chosen(total, count).peekable();
    let (_, pictures) = take_frames(&bytes, |index| chosen.next_if_eq(&index).is_some()).map_err(fail)?;
    if pictures.is_empty() { Err(fail("it has no frames".to_owned())) } else { Ok(pictures) }
}

/// The middles of `count` equal parts of `total` frames.
fn chosen(total: usize, count: usize) -> impl Iterator<Item = usize> {
    let count = count.min(total);
    (0..count).map(move |part| (2 * part + 1) * total / (2 * count))
}

/// The number of frames of an animated picture, and those of them whose numbers are `wanted`.
fn take_frames(
    bytes: &[u8],
    mut wanted: impl FnMut(usize) -> bool,
) -> std::result::Result<(usize, Vec<Picture>), String> {
    let (mut total, mut pictures) = (0, Vec::new());
    let keep = |pictures: &mut Vec<Picture>, picture: Picture| {
        pictures.push(picture);
        let kept: u64 = pictures.iter().map(|picture| picture.rgb.len() as u64).sum();
        if kept <= LARGEST_DECODED {
            return Ok(());
        }
        Err(format!("{} of its frames take {kept} bytes, more than {LARGEST_DECODED}: ask for fewer", pictures.len()))
    };
    if gif::is_gif(bytes) {
        let mut frames = gif::Frames::new(bytes)?;
        while frames.advance()? {
            if wanted(total) {
                keep(&mut pictures, Picture::of_frame(&frames)?)?;
            }
            total += 1;
        }
        return Ok((total, pictures));
    }
    let failed = |error: image::ImageError| error.to_string();
    if !matches!(image::guess_format(bytes), Ok(ImageFormat::WebP)) {
        return Err(still());
    }
    let mut decoder = WebPDecoder::new(Cursor::new(bytes)).map_err(failed)?;
    decoder.set_limits(limits::of_decoders()).map_err(failed)?;
    if !decoder.has_animation() {
        return Err(still());
    }
    for frame in decoder.into_frames() {
        let frame = frame.map_err(failed)?;
        if wanted(total) {
            let rgb = to_rgb(DynamicImage::ImageRgba8(frame.into_buffer()));
            let picture = Picture::from_rgb(rgb.width(), rgb.height(), rgb.into_raw());
            keep(&mut pictures, picture.map_err(|error| error.to_string())?)?;
        }
        total += 1;
    }
    Ok((total, pictures))
}

fn still() -> String {
    "frames come from an animated GIF or WebP file, or from a directory of pictures".to_owned()
}

/// The picture files of a directory, by name.
///
/// # Errors
/// When it cannot be read or holds none.
pub fn pictures_in(directory: impl AsRef<Path>) -> Result<Vec<PathBuf>> {
    let directory = directory.as_ref();
    let io = |error| Error::io(directory, error);
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(io)? {
        let path = entry.map_err(io)?.path();
        let ending = path.extension().map(|ending| ending.to_string_lossy().to_lowercase());
        let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        if ending.is_some_and(|ending| ENDINGS.contains(&&ending[..])) && !hidden {
            files.push(path);
        }
    }
    files.sort();
    if files.is_empty() {
        let reason = "the directory holds no JPEG, PNG, WebP, GIF, BMP or TIFF file".to_owned();
        return Err(Error::Picture { name: directory.display().to_string(), reason });
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::chosen;

    #[test]
    fn frames_are_evenly_spaced() {
        let chosen = |total, count| chosen(total, count).collect::<Vec<_>>();
        assert_eq!(chosen(10, 1), [5]);
        assert_eq!(chosen(10, 2), [2, 7]);
        assert_eq!(chosen(3, 3), [0, 1, 2]);
        assert_eq!(chosen(3, 9), [0, 1, 2]);
        assert!(chosen(0, 4).is_empty());
    }
}
