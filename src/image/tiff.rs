//! TIFF files of kinds that `image` does not read, or reads otherwise than Pillow: palettes, grey levels of two and four bits, alpha
//! beside grey levels and palettes, bits in the other order.

use std::borrow::Cow;
use std::io::Cursor;

use image::{DynamicImage, RgbImage};
use tiff::decoder::{Decoder, DecodingResult, Limits};
use tiff::tags::{PhotometricInterpretation, Tag};

use super::tags::Directory;
use super::{LARGEST_DECODED, check_size};

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

/// The file with its bits in the order that decoders know.
pub(super) fn in_order(file: &[u8]) -> Cow<'_, [u8]> {
    let Some(directory) = Directory::first(file) else { return file.into() };
    let is_plain = integer(directory, Tag::FillOrder, 1) != LOWEST_FIRST;
    if is_plain || JPEG.contains(&integer(directory, Tag::Compression, 1)) {
        return file.into();
    }
    let mut turned = file.to_vec();
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

/// A picture that `image` does not read; none where it is another.
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
    is_own.then(|| {
        let levels = levels(directory, kind, bits as u32)?;
        let rows = rows(file, directory)?;
        rows.picture(bits as usize, samples, &levels)
    })
}

/// What a pixel's number looks like.
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

fn rows(file: &[u8], directory: Directory<'_>) -> Result<Rows, String> {
    let failed = |error: tiff::TiffError| error.to_string();
    // The decoder knows no palettes; their numbers it reads as grey levels.
    let mut file = file.to_vec();
    if let Some(entry) = directory.entry(Tag::PhotometricInterpretation.to_u16()) {
        directory.replace(&mut file, entry, u64::from(PhotometricInterpretation::BlackIsZero.to_u16()));
    }
    let mut limits = Limits::default();
    limits.decoding_buffer_size = LARGEST_DECODED as usize;
    limits.intermediate_buffer_size = LARGEST_DECODED as usize;
    let mut decoder = Decoder::new(Cursor::new(&file[..])).map_err(failed)?.with_limits(limits);
    let (width, height) = decoder.dimensions().map_err(failed)?;
    check_size((width, height), 0)?;
    match decoder.read_image().map_err(failed)? {
        DecodingResult::U8(bytes) => Ok(Rows { width, height, bytes }),
        _ => Err("its pixels are no bytes".to_owned()),
    }
}

impl Rows {
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
