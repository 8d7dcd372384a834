//! JPEG as PIL reads it: the decoder gives libjpeg-turbo's own bytes, so that what follows sees PIL's pixels.

use image::metadata::Orientation;
use image::{DynamicImage, GrayImage, RgbImage};
use libjpeg_turbo_rs::{DecodeLimits, Decoder, PixelFormat};

use super::{LARGEST_DECODED, LONGEST_SIDE, check_size};

/// Whether these bytes begin as JPEG files do.
pub(super) fn is_jpeg(bytes: &[u8]) -> bool {
    bytes.starts_with(&[0xff, 0xd8, 0xff])
}

/// The picture as stored, and how it is to be turned.
pub(super) fn decode(bytes: &[u8]) -> Result<(DynamicImage, Orientation), String> {
    let limits = DecodeLimits {
        max_width: LONGEST_SIDE as usize,
        max_height: LONGEST_SIDE as usize,
        max_memory: Some(LARGEST_DECODED),
        ..DecodeLimits::default()
    };
    let mut decoder = Decoder::new_with_limits(bytes, limits).map_err(|error| error.to_string())?;
    let header = decoder.header();
    let components = header.components.len();
    check_size((u32::from(header.width), u32::from(header.height)), 0)?;
    decoder.set_output_format(match components {
        1 => PixelFormat::Grayscale,
        3 => PixelFormat::Rgb,
        4 => PixelFormat::Cmyk,
        other => return Err(format!("{other} color components; 1, 3 or 4 can be read")),
    });
    let orientation = decoder.exif_orientation().and_then(Orientation::from_exif).unwrap_or(Orientation::NoTransforms);
    let image = decoder.decode_image().map_err(|error| error.to_string())?;
    let size = |length: usize| u32::try_from(length).map_err(|_| "it is too large".to_owned());
    let (width, height) = (size(image.width)?, size(image.height)?);
    let picture = match components {
        1 => GrayImage::from_raw(width, height, image.data).map(DynamicImage::ImageLuma8),
        3 => RgbImage::from_raw(width, height, image.data).map(DynamicImage::ImageRgb8),
        _ => RgbImage::from_raw(width, height, rgb_of_cmyk(&image.data)).map(DynamicImage::ImageRgb8),
    };
    Ok((picture.ok_or("its pixels do not fit its size")?, orientation))
}

/// PIL takes every four-component JPEG for Adobe's, which stores ink inverted, and converts without a color profile:
/// each channel is (255 − ink) · (255 − black) / 255, rounded.
fn rgb_of_cmyk(stored: &[u8]) -> Vec<u8> {
    let pixels = stored.as_chunks::<4>().0.iter();
    pixels
        .flat_map(|&[cyan, magenta, yellow, black]| {
            [cyan, magenta, yellow].map(|ink| {
                let (ink, paper) = (u32::from(255 - ink), u32::from(black));
                let product = ink * paper + 128;
                (paper - (((product >> 8) + product) >> 8)) as u8
            })
        })
        .collect()
}
