//! TIFF files of kinds that `image` does not read, or reads differently from Pillow: palettes, grey levels of two and four bits, alpha
//! with grey levels and palettes, bits in the other order, CMYK, colours premultiplied by their opacity.

use std::borrow::Cow;
use std::io::Cursor;

use image::{DynamicImage, RgbImage};
use tiff::decoder::{Decoder, DecodingResult, Limits};
use tiff::tags::{PhotometricInterpretation, Tag};

use super::jpeg::rgb_of_cmyk;
use super::limits::{LARGEST_DECODED, check_size};
use super::size::Size;
use super::tags::Directory;

/// `FillOrder` where a byte's first pixel is in its lowest bit.
const LOWEST_FIRST: u64 = 2;
/// JPEG's bits have their own order.
const JPEG: [u64; 2] = [6, 7];

fn integers(directory: Directory<'_>, tag: Tag) -> Vec<u64> {
    directory.entry(tag.to_u16()).map(|entry| directory.integers(entry).collect()).unwrap_or_default()
}

/// A tag's first number, or what the standard takes where it is absent.
fn integer(directory: Directory<'_>, tag: Tag, default: u64) -> u64 {
    integers(directory, tag).first().copied().unwrap_or(default)
}

/// Whether a file has long offsets (BigTIFF).
pub(super) fn is_big(file: &[u8]) -> bool {
    Directory::first(file).is_some_and(|directory| directory.is_big())
}

/// Whether tiles in planes reach beyond the picture: the decoder never returns from such files.
pub(super) fn is_misaligned(file: &[u8]) -> bool {
    let Some(directory) = Directory::first(file) else { return false };
    let is_cut = |side: Tag, tile: Tag| {
        let tile = integer(directory, tile, 0);
        tile != 0 && !integer(directory, side, 0).is_multiple_of(tile)
    };
    let is_in_planes = integer(directory, Tag::PlanarConfiguration, 1) == 2;
    is_in_planes && (is_cut(Tag::ImageWidth, Tag::TileWidth) || is_cut(Tag::ImageLength, Tag::TileLength))
}

/// Divides premultiplied colours by their opacity, as Pillow does (`Unpack.c`).
pub(super) fn without_opacity(file: &[u8], picture: DynamicImage) -> DynamicImage {
    const MULTIPLIED: u64 = 1;
    let is_multiplied = |directory| integer(directory, Tag::ExtraSamples, 0) == MULTIPLIED;
    match picture {
        DynamicImage::ImageRgba8(mut picture) if Directory::first(file).is_some_and(is_multiplied) => {
            for pixel in picture.pixels_mut() {
                let opacity = u32::from(pixel[3]);
                for sample in &mut pixel.0[..3] {
                    *sample = (u32::from(*sample) * 255).checked_div(opacity).unwrap_or(0).min(255) as u8;
                }
            }
            picture.into()
        }
        picture => picture,
    }
}

/// The file with its bits in the order that decoders know, and a fourth sample of no stated meaning declared as opacity.
pub(super) fn in_order(file: &[u8]) -> Cow<'_, [u8]> {
    const OF_NO_MEANING: u64 = 0;
    const OPACITY: u64 = 2;
    let Some(directory) = Directory::first(file) else { return file.into() };
    let extra = directory.entry(Tag::ExtraSamples.to_u16());
    let is_strange = extra.is_some_and(|extra| directory.integers(extra).next() == Some(OF_NO_MEANING))
        && integer(directory, Tag::SamplesPerPixel, 1) == 4
        && integer(directory, Tag::PhotometricInterpretation, 0) == u64::from(PhotometricInterpretation::RGB.to_u16());
    let is_plain = integer(directory, Tag::FillOrder, 1) != LOWEST_FIRST
        || JPEG.contains(&integer(directory, Tag::Compression, 1));
    if is_plain && !is_strange {
        return file.into();
    }
    let mut turned = file.to_vec();
    if let Some(extra) = extra.filter(|_| is_strange) {
        directory.replace(&mut turned, extra, OPACITY);
    }
    if is_plain {
        return turned.into();
    }
    for (starts, lens) in [(Tag::StripOffsets, Tag::StripByteCounts), (Tag::TileOffsets, Tag::TileByteCounts)] {
        for (start, len) in integers(directory, starts).into_iter().zip(integers(directory, lens)) {
            let range = usize::try_from(start).ok().zip(usize::try_from(start.saturating_add(len)).ok());
            if let Some((source, out)) =
                range.and_then(|(start, end)| Some((file.get(start..end)?, turned.get_mut(start..end)?)))
            {
                out.iter_mut().zip(source).for_each(|(out, byte)| *out = byte.reverse_bits());
            }
        }
    }
    turned.into()
}

/// Decodes the kinds that `image` does not read; none for others.
pub(super) fn decode(file: &[u8]) -> Option<Result<DynamicImage, String>> {
    let directory = Directory::first(file)?;
    let kind =
        PhotometricInterpretation::from_u16(integer(directory, Tag::PhotometricInterpretation, 0).try_into().ok()?)?;
    let (bits, samples) =
        (integer(directory, Tag::BitsPerSample, 1), integer(directory, Tag::SamplesPerPixel, 1) as usize);
    let is_grey = matches!(kind, PhotometricInterpretation::WhiteIsZero | PhotometricInterpretation::BlackIsZero);
    let is_own = match kind {
        PhotometricInterpretation::RGBPalette => matches!((bits, samples), (1 | 2 | 4 | 8, 1) | (8, 2)),
        _ => is_grey && matches!((bits, samples), (2 | 4, 1) | (8, 2)),
    };
    let is_inks = kind == PhotometricInterpretation::CMYK && (bits, samples) == (8, 4);
    if is_inks && integer(directory, Tag::PlanarConfiguration, 1) != 2 {
        return Some(rows(file, None).and_then(|rows| rows.inks()));
    }
    // Its decoder makes three colours of two samples.
    if (samples, is_grey) == (2, true) && JPEG.contains(&integer(directory, Tag::Compression, 1)) {
        return Some(Err("grey with opacity, packed as JPEG".to_owned()));
    }
    is_own.then(|| {
        let levels = levels(directory, kind, bits as u32)?;
        rows(file, Some(directory))?.picture(bits as usize, samples, &levels)
    })
}

/// The colour of each number that a pixel may have.
fn levels(directory: Directory<'_>, kind: PhotometricInterpretation, bits: u32) -> Result<Vec<[u8; 3]>, String> {
    let count = 1_usize << bits;
    if kind == PhotometricInterpretation::RGBPalette {
        let table = integers(directory, Tag::ColorMap);
        if table.len() != 3 * count {
            return Err(format!("its table has {} numbers in place of {}", table.len(), 3 * count));
        }
        // Of their 16 bits, the upper eight count.
        let colour = |index: usize| [0, count, 2 * count].map(|first| (table[first + index] >> 8) as u8);
        return Ok((0..count).map(colour).collect());
    }
    let grey = |index: usize| {
        let level = (index * 255 / (count - 1)) as u8;
        [if kind == PhotometricInterpretation::WhiteIsZero { !level } else { level }; 3]
    };
    Ok((0..count).map(grey).collect())
}

/// The numbers of a picture's pixels, rows of whole bytes.
struct Rows {
    width: u32,
    height: u32,
    bytes: Vec<u8>,
}

/// Pixels as they are stored; with a directory, as grey levels, since the decoder knows no palettes.
fn rows(file: &[u8], as_grey: Option<Directory<'_>>) -> Result<Rows, String> {
    let failed = |error: tiff::TiffError| error.to_string();
    let mut file = Cow::Borrowed(file);
    if let Some(directory) = as_grey
        && let Some(entry) = directory.entry(Tag::PhotometricInterpretation.to_u16())
    {
        directory.replace(file.to_mut(), entry, u64::from(PhotometricInterpretation::BlackIsZero.to_u16()));
    }
    if is_misaligned(&file) {
        return Err("tiles in planes that do not fit the picture's sides".to_owned());
    }
    let mut limits = Limits::default();
    limits.decoding_buffer_size = LARGEST_DECODED as usize;
    limits.intermediate_buffer_size = LARGEST_DECODED as usize;
    let mut decoder = Decoder::new(Cursor::new(&file[..])).map_err(failed)?.with_limits(limits);
    let (width, height) = decoder.dimensions().map_err(failed)?;
    check_size(Size::new(width, height), 0)?;
    match decoder.read_image().map_err(failed)? {
        DecodingResult::U8(bytes) => Ok(Rows { width, height, bytes }),
        _ => Err("its pixels are no bytes".to_owned()),
    }
}

impl Rows {
    /// The picture, from four inks for each pixel.
    fn inks(self) -> Result<DynamicImage, String> {
        // `rgb_of_cmyk` takes inks inverted, as JPEG stores them.
        let inverted = self.bytes.as_chunks::<4>().0.iter().map(|inks| inks.map(|ink| !ink));
        let picture = RgbImage::from_raw(self.width, self.height, rgb_of_cmyk(inverted));
        picture.map(DynamicImage::from).ok_or_else(|| "its pixels are fewer than its size".to_owned())
    }

    fn picture(&self, bits: usize, samples: usize, levels: &[[u8; 3]]) -> Result<DynamicImage, String> {
        let (width, height) = (self.width as usize, self.height as usize);
        // Where samples lie in planes, the first is what was read.
        let samples = if self.bytes.len() < width * samples * height * bits / 8 { 1 } else { samples };
        let row = (width * samples * bits).div_ceil(8);
        if row == 0 || self.bytes.len() < row * height {
            return Err("its pixels are fewer than its size".to_owned());
        }
        let mask = (1_usize << bits) - 1;
        let number = |row: &[u8], x: usize| {
            let bit = x * samples * bits;
            usize::from(row[bit / 8]) >> (8 - bits - bit % 8) & mask
        };
        let pixels = self
            .bytes
            .chunks_exact(row)
            .take(height)
            .flat_map(|row| (0..width).flat_map(move |x| levels[number(row, x)]));
        let picture = RgbImage::from_raw(self.width, self.height, pixels.collect());
        picture.map(DynamicImage::from).ok_or_else(|| "it has no pixels".to_owned())
    }
}
