//! From the pictures that people have to the tower's input.

#[cfg(all(feature = "camera", target_os = "linux", target_pointer_width = "64"))]
mod camera;
mod colours;
mod frame;
mod frames;
mod gif;
mod jpeg;
mod kinds;
mod limits;
mod orientation;
mod png;
mod resample;
mod size;
#[cfg(feature = "camera")]
mod stream;
mod tags;
mod tiff;

use std::io::{Cursor, Read};
use std::path::Path;

#[cfg(all(feature = "camera", target_os = "linux", target_pointer_width = "64"))]
pub use camera::{Camera, CameraFormat, CameraOptions};
pub use colours::{Colours, Matrix, Range};
pub use frame::{Frame, FrameLayout, FrameShape, PixelFormat};
pub use frames::{frames, pictures_in};
use image::codecs::png::PngEncoder;
use image::metadata::Orientation;
use image::{DynamicImage, ExtendedColorType, ImageDecoder, ImageEncoder, ImageFormat, ImageReader};
pub(crate) use resample::{Filter, numbers as resample_numbers};
pub use size::Size;
#[cfg(feature = "camera")]
pub use stream::{FrameStream, StreamFormat, StreamFrame};

use self::limits::{Decoded, MEMORY, check_memory, check_size};
use crate::config::{PreprocessConfig, VisionConfig};
use crate::memory::check_room;
use crate::{Error, Result};

/// Largest picture file that is read, in bytes.
const LARGEST_FILE: u64 = 1 << 30;
/// A picture as 8-bit RGB, upright.
#[derive(Clone, Debug)]
pub struct Picture {
    width: u32,
    height: u32,
    rgb: Vec<u8>,
    damage: Option<String>,
}

impl Picture {
    /// Reads a JPEG, PNG, WebP, GIF (first frame), BMP or TIFF (first page) file.
    ///
    /// # Errors
    /// When it cannot be read, is damaged so that PIL refuses it, or is larger than the limits (1 GiB as a file and as pixels, 65536 pixels a
    /// side) or than memory.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        if let Some(reason) = kinds::of_path(path) {
            return Err(Error::Picture { name: kinds::shortened(path), reason });
        }
        Self::from_bytes(&path.display().to_string(), &read_file(path)?)
    }

    /// Decodes a file that `reader` gives to its end; `name` is for error messages.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn read(name: &str, reader: impl Read) -> Result<Self> {
        Self::from_bytes(name, &read_all(name, reader)?)
    }

    /// Decodes a file in memory; `name` is for error messages.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn from_bytes(name: &str, bytes: &[u8]) -> Result<Self> {
        let fail = |reason: String| Error::Picture { name: name.to_owned(), reason };
        if bytes.is_empty() {
            return Err(fail("the file is empty".to_owned()));
        }
        if gif::is_gif(bytes) {
            let mut frames = gif::Frames::new(bytes).map_err(fail)?;
            if !frames.advance().map_err(fail)? {
                return Err(fail("it has no pictures".to_owned()));
            }
            return Self::of_frame(&frames).map_err(fail);
        }
        // Readers copy a file where they mend it.
        check_room(2 * bytes.len() + (1 << 20), format!("{name}: the parts of the file"))?;
        let decoded = if jpeg::is_jpeg(bytes) { jpeg::decode(bytes) } else { decode_other(bytes) };
        let Decoded { mut picture, orientation, damage } = decoded.map_err(fail)?;
        if orientation != Orientation::NoTransforms {
            check_memory(Size::new(picture.width(), picture.height()), picture.as_bytes().len() as u64)
                .map_err(fail)?;
        }
        picture.apply_orientation(orientation);
        let rgb = to_rgb(picture);
        let picture = Self::from_rgb(rgb.width(), rgb.height(), rgb.into_raw());
        picture.map(|picture| Self { damage, ..picture }).map_err(|_| fail("it has no pixels".to_owned()))
    }

    /// A film's frame.
    fn of_frame(frames: &gif::Frames<'_>) -> std::result::Result<Self, String> {
        let frame = frames.picture()?;
        let picture = Self::from_rgb(frame.width(), frame.height(), frame.into_raw());
        let damage = frames.damage().map(str::to_owned);
        picture.map(|picture| Self { damage, ..picture }).map_err(|_| "it has no pixels".to_owned())
    }

    /// What is wrong with the file, if it is damaged and was read all the same, as PIL does: some pixels may then be wrong.
    pub fn damage(&self) -> Option<&str> {
        self.damage.as_deref()
    }

    /// A picture from raw pixels, `[height][width][3]`.
    ///
    /// # Errors
    /// When the size is zero or does not fit the data.
    pub fn from_rgb(width: u32, height: u32, rgb: Vec<u8>) -> Result<Self> {
        let expected = (width as usize).checked_mul(height as usize).and_then(|n| n.checked_mul(3));
        if expected != Some(rgb.len()) || rgb.is_empty() {
            let reason = format!("{width} × {height} RGB pixels do not make {} bytes", rgb.len());
            return Err(Error::Picture { name: "raw pixels".to_owned(), reason });
        }
        Ok(Self { width, height, rgb, damage: None })
    }

    /// Width and height in pixels.
    pub fn size(&self) -> Size {
        Size { width: self.width, height: self.height }
    }

    /// Width in pixels.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// The pixels, `[height][width][3]`.
    pub fn rgb(&self) -> &[u8] {
        &self.rgb
    }

    /// Height in pixels.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// A part of the picture: `size` pixels from (`left`, `top`) on.
    ///
    /// # Errors
    /// When the part is empty or goes beyond the picture, or there is no memory for it.
    pub fn crop(&self, left: u32, top: u32, size: Size) -> Result<Self> {
        let Size { width, height } = size;
        let within = |start: u32, len: u32, side: u32| len > 0 && start.checked_add(len).is_some_and(|end| end <= side);
        if !within(left, width, self.width) || !within(top, height, self.height) {
            return Err(Error::Request(format!(
                "the part of {size} pixels from {left}, {top} on is not within the picture of {}",
                self.size()
            )));
        }
        check_room(3 * width as usize * height as usize, format!("the {size} pixels of a part"))?;
        let rows = self.rgb.chunks_exact(self.width as usize * 3).skip(top as usize).take(height as usize);
        let rgb = rows.flat_map(|row| &row[left as usize * 3..][..width as usize * 3]).copied().collect();
        Self::from_rgb(width, height, rgb)
    }

    /// The picture as a PNG file.
    pub fn to_png(&self) -> Vec<u8> {
        encode_png(&self.rgb, self.size(), ExtendedColorType::Rgb8)
    }

    /// The tower's input, `[3][size][size]`: stretched to a square, rounded to bytes, normalized.
    ///
    /// # Errors
    /// When the model asks for a resampling filter that is not known, or there is no memory.
    pub fn to_pixel_values(&self, vision: &VisionConfig, preprocess: &PreprocessConfig) -> Result<Vec<f32>> {
        let size = vision.image_size;
        let filter = Filter::from_pil(preprocess.resample).ok_or_else(|| {
            Error::Request(format!("the model asks for resampling filter {}, which is unknown", preprocess.resample))
        })?;
        let rule = preprocess.resize_rule;
        if !filter.is_of(rule) {
            return Err(Error::Request(format!("{} has no resampling filter {}", rule.name(), preprocess.resample)));
        }
        // What is stretched in one direction, its sums, and the values.
        let stretched = 3 * size * (self.size().longer() as usize + 5 * size);
        check_room(stretched, format!("the {} pixels, stretched,", self.size()))?;
        let resized = resample::to_square(&self.rgb, self.size(), size, filter, rule);
        let mut out = vec![0.0; 3 * size * size];
        for (channel, plane) in out.chunks_exact_mut(size * size).enumerate() {
            let levels: [f32; 256] = std::array::from_fn(|level| preprocess.normalized(level as u8, channel));
            for (out, pixel) in plane.iter_mut().zip(resized.chunks_exact(3)) {
                *out = levels[usize::from(pixel[channel])];
            }
        }
        Ok(out)
    }
}

/// A picture file's bytes.
fn read_file(path: &Path) -> Result<Vec<u8>> {
    let io = |error| Error::io(path, error);
    check_file(&path.display().to_string(), std::fs::metadata(path).map_err(io)?.len())?;
    // A device or a pipe says nothing of its length.
    read_all(&path.display().to_string(), std::fs::File::open(path).map_err(io)?)
}

/// All bytes that a reader gives, up to the limit.
fn read_all(name: &str, reader: impl Read) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = reader.take(LARGEST_FILE + 1).read_to_end(&mut bytes);
    read.map_err(|error| match error.kind() {
        std::io::ErrorKind::OutOfMemory => {
            Error::Memory { what: format!("{name}: the file's bytes"), bytes: 2 * bytes.len() }
        }
        _ => Error::io(Path::new(name), error),
    })?;
    check_file(name, bytes.len() as u64)?;
    Ok(bytes)
}

fn check_file(name: &str, bytes: u64) -> Result<()> {
    if bytes > LARGEST_FILE {
        let reason = format!("the file has {bytes} bytes, more than {LARGEST_FILE}");
        return Err(Error::Picture { name: name.to_owned(), reason });
    }
    Ok(())
}

pub(crate) fn encode_png(samples: &[u8], size: Size, kind: ExtendedColorType) -> Vec<u8> {
    let mut bytes = Vec::new();
    PngEncoder::new(&mut bytes)
        .write_image(samples, size.width, size.height, kind)
        .expect("memory takes what fits its size");
    bytes
}

/// Decodes PNG, WebP, BMP or TIFF. A PNG file that the decoder refuses and PIL reads is repaired and decoded again.
fn decode_other(bytes: &[u8]) -> std::result::Result<Decoded, String> {
    let (decoded, damage) = match decode_sound(bytes) {
        Err(reason) => match png::repaired(bytes) {
            Some(repaired) => {
                let what = "a checksum of its pixels is wrong, or its end is missing".to_owned();
                (decode_sound(&repaired).map_err(|_| reason)?, Some(what))
            }
            None => return Err(reason),
        },
        Ok(decoded) => (decoded, is_cut_webp(bytes).then(|| "its end is missing".to_owned())),
    };
    Ok(Decoded { picture: decoded.0, orientation: decoded.1, damage })
}

/// Whether a WebP file is shorter than it says.
fn is_cut_webp(bytes: &[u8]) -> bool {
    let Some((head, rest)) = bytes.split_first_chunk::<8>() else { return false };
    let &[b'R', b'I', b'F', b'F', len @ ..] = head else { return false };
    rest.starts_with(b"WEBP") && (rest.len() as u64) < u64::from(u32::from_le_bytes(len))
}

/// The picture as stored, and how it is to be turned.
fn decode_sound(bytes: &[u8]) -> std::result::Result<(DynamicImage, Orientation), String> {
    let format =
        ImageReader::new(Cursor::new(bytes)).with_guessed_format().map_err(|error| error.to_string())?.format();
    // `image` does not know the mark of files with long offsets.
    let format = if tiff::is_big(bytes) { Some(ImageFormat::Tiff) } else { format };
    // Some formats are known by name only.
    let Some(format) = format.filter(|format| format.reading_enabled()) else {
        return Err(kinds::unreadable(bytes));
    };
    if format != ImageFormat::Tiff {
        let orientation = |exif: Option<&[u8]>, xmp: Option<&[u8]>| orientation::of(png::exif(bytes).or(exif), xmp);
        return decode_with(ImageReader::with_format(Cursor::new(bytes), format), orientation);
    }
    let file = tiff::in_order(bytes);
    let orientation = orientation::of_tiff(bytes);
    let decoded = match tiff::decode(&file) {
        Some(decoded) => decoded,
        None if tiff::is_misaligned(&file) => Err("tiles in planes that do not fit the picture's sides".to_owned()),
        None => decode_with(ImageReader::with_format(Cursor::new(&file[..]), format), |_, _| orientation)
            .map(|(picture, _)| picture),
    };
    let picture = decoded.map(|picture| tiff::without_opacity(&file, picture));
    let picture = picture.map_err(|reason| match reason.contains(MEMORY) {
        true => reason,
        false => format!("it is a TIFF file that cannot be read ({reason}): save it as PNG"),
    })?;
    Ok((picture, orientation))
}

/// What `image` makes of a file, and how it is to be turned, by its Exif and its XMP.
fn decode_with(
    mut reader: ImageReader<Cursor<&[u8]>>,
    orientation: impl Fn(Option<&[u8]>, Option<&[u8]>) -> Orientation,
) -> std::result::Result<(DynamicImage, Orientation), String> {
    reader.limits(limits::of_decoders());
    let mut decoder = reader.into_decoder().map_err(failed)?;
    decoder.set_limits(limits::of_decoders()).map_err(failed)?;
    let (width, height) = decoder.dimensions();
    check_size(Size::new(width, height), decoder.total_bytes())?;
    let exif = decoder.exif_metadata().unwrap_or_default();
    let xmp = decoder.xmp_metadata().unwrap_or_default();
    let orientation = orientation(exif.as_deref(), xmp.as_deref());
    Ok((DynamicImage::from_decoder(decoder).map_err(failed)?, orientation))
}

/// A decoder's error without the names of the decoder's parts.
fn failed(error: image::ImageError) -> String {
    use image::error::{ImageError, UnsupportedErrorKind};
    match &error {
        ImageError::Unsupported(unsupported) => match unsupported.kind() {
            UnsupportedErrorKind::GenericFeature(feature) => feature.clone(),
            UnsupportedErrorKind::Color(_) => "its kind of pixels is not supported".to_owned(),
            _ => error.to_string(),
        },
        ImageError::Decoding(_) => png::plain(error.to_string()),
        ImageError::IoError(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            "it ends before its pixels do".to_owned()
        }
        _ => error.to_string(),
    }
}

/// 8-bit RGB as PIL's `convert("RGB")` makes it: alpha dropped, 16-bit samples cut to their upper byte. (16-bit grey is cut, too, as in
/// OpenCV; PIL makes every level above 255 white.)
fn to_rgb(picture: DynamicImage) -> image::RgbImage {
    let (width, height) = (picture.width(), picture.height());
    let upper = |sample: u16| (sample >> 8) as u8;
    let bytes: Vec<u8> = match picture {
        DynamicImage::ImageRgb8(picture) => return picture,
        DynamicImage::ImageLuma8(picture) => picture.pixels().flat_map(|pixel| [pixel[0]; 3]).collect(),
        DynamicImage::ImageLumaA8(picture) => picture.pixels().flat_map(|pixel| [pixel[0]; 3]).collect(),
        DynamicImage::ImageRgba8(picture) => {
            picture.pixels().flat_map(|pixel| [pixel[0], pixel[1], pixel[2]]).collect()
        }
        DynamicImage::ImageLuma16(picture) => picture.pixels().flat_map(|pixel| [upper(pixel[0]); 3]).collect(),
        DynamicImage::ImageLumaA16(picture) => picture.pixels().flat_map(|pixel| [upper(pixel[0]); 3]).collect(),
        DynamicImage::ImageRgb16(picture) => picture.into_raw().into_iter().map(upper).collect(),
        DynamicImage::ImageRgba16(picture) => {
            picture.pixels().flat_map(|pixel| [pixel[0], pixel[1], pixel[2]].map(upper)).collect()
        }
        other => return other.into_rgb8(),
    };
    image::RgbImage::from_raw(width, height, bytes).expect("three bytes for each pixel")
}
