//! JPEG as PIL reads it: the decoder gives the same bytes as libjpeg-turbo, and so PIL's pixels. Files that it refuses, or would
//! read differently, are recovered first.

mod coefficients;
mod encode;
mod entropy;
mod huffman;
mod order;
mod recover;
mod smoothing;

use coefficients::{Component, Extent, Frame};
use image::metadata::Orientation;
use image::{DynamicImage, GrayImage, RgbImage};
use libjpeg_turbo_rs::{DecodeLimits, Decoder, Image, PixelFormat};
use recover::{Recovery, Stop, WRONG_TABLE};

use super::limits::{Decoded, LARGEST_DECODED, LONGEST_SIDE, check_memory, check_size};
use super::orientation;
use super::size::Size;

/// Whether these bytes begin as JPEG files do.
pub(super) fn is_jpeg(bytes: &[u8]) -> bool {
    bytes.starts_with(&[0xff, 0xd8, 0xff])
}

pub(super) fn decode(bytes: &[u8]) -> Result<Decoded, String> {
    let orientation = orientation_of(bytes);
    let done = |picture, damage| Ok(Decoded { picture, orientation, damage });
    check_room(bytes)?;
    if has_small_black(bytes) {
        return separated(bytes).and_then(|(picture, damage)| done(picture, damage));
    }
    let strict = decode_sound(bytes);
    if strict.is_ok() && order::is_orderly(bytes) {
        return strict.and_then(|picture| done(picture, None));
    }
    let recovered = match Recovery::run(bytes) {
        Ok(recovery) => recovery,
        // Sound in a way that is not recovered, or without its end.
        Err(Stop::Unknown) => return strict.and_then(|picture| done(picture, None)),
        // What such a table decodes to is nobody's picture.
        Err(Stop::Refused(reason @ WRONG_TABLE)) => return Err(reason.to_owned()),
        Err(Stop::Refused(reason)) => {
            return strict.map_err(|_| reason.to_owned()).and_then(|picture| done(picture, Some(reason.to_owned())));
        }
        Err(Stop::Suspend) => return Err("the file is truncated".to_owned()),
    };
    let reason = strict.err().unwrap_or_else(|| "its markers or its tables are damaged".to_owned());
    let size = recovered.size.ok_or("it has no size")?;
    let components: Vec<&Component> = recovered.components.iter().collect();
    let picture = decode_sound(&encode::encode(size, &components, &recovered.applications))?;
    done(picture, Some(reason))
}

/// Checks that there is memory for decoding: coefficients of two bytes, planes and pixels; and for what is recovered, coefficients
/// again and a sound file made of them.
fn check_room(bytes: &[u8]) -> Result<(), String> {
    let Some((_, [_, h0, h1, w0, w1, components, ..])) = frame(bytes) else { return Ok(()) };
    let (width, height) = (u16::from_be_bytes([*w0, *w1]), u16::from_be_bytes([*h0, *h1]));
    let samples = u64::from(*components) * u64::from(width) * u64::from(height);
    check_memory(Size::new(width.into(), height.into()), 6 * samples + 6 * bytes.len() as u64)
}

/// The picture as stored in a sound file.
fn decode_sound(bytes: &[u8]) -> Result<DynamicImage, String> {
    let limits = DecodeLimits {
        max_width: LONGEST_SIDE as usize,
        max_height: LONGEST_SIDE as usize,
        max_memory: Some(LARGEST_DECODED),
        ..DecodeLimits::default()
    };
    let mut decoder = Decoder::new_with_limits(bytes, limits).map_err(|error| error.to_string())?;
    // As libjpeg does, where a progressive file lacks scans.
    decoder.set_block_smoothing(true);
    let header = decoder.header();
    let components = header.components.len();
    let size = Size::new(header.width.into(), header.height.into());
    check_size(size, 0)?;
    let mut sampling = header.components.iter().map(|of| (of.horizontal_sampling, of.vertical_sampling));
    let first = sampling.next();
    if components == 4 && sampling.any(|other| Some(other) != first) {
        // The decoder reads beyond its rows there.
        return Err(
            "four components of different sampling, which its header does not show, are not supported".to_owned()
        );
    }
    decoder.set_output_format(match components {
        1 => PixelFormat::Grayscale,
        3 => PixelFormat::Rgb,
        4 => PixelFormat::Cmyk,
        other => return Err(format!("{other} color components; 1, 3 or 4 can be read")),
    });
    let image = decoder.decode_image().map_err(|error| error.to_string())?;
    let (width, height) = size_of(&image)?;
    let picture = match components {
        1 => GrayImage::from_raw(width, height, image.data).map(DynamicImage::ImageLuma8),
        3 => RgbImage::from_raw(width, height, image.data).map(DynamicImage::ImageRgb8),
        _ => {
            let pixels = image.data.as_chunks::<4>().0;
            RgbImage::from_raw(width, height, rgb_of_cmyk(pixels.iter().copied())).map(DynamicImage::ImageRgb8)
        }
    };
    picture.ok_or_else(|| "its pixels do not fit its size".to_owned())
}

fn size_of(image: &Image) -> Result<(u32, u32), String> {
    let size = |length: usize| u32::try_from(length).map_err(|_| "it is too large".to_owned());
    Ok((size(image.width)?, size(image.height)?))
}

/// PIL takes every four-component JPEG for Adobe's, which stores ink inverted, and converts without a color profile:
/// each channel is (255 − ink) · (255 − black) / 255, rounded.
pub(super) fn rgb_of_cmyk(stored: impl Iterator<Item = [u8; 4]>) -> Vec<u8> {
    stored
        .flat_map(|[cyan, magenta, yellow, black]| {
            [cyan, magenta, yellow].map(|ink| {
                let (ink, paper) = (u32::from(255 - ink), u32::from(black));
                let product = ink * paper + 128;
                (paper - (((product >> 8) + product) >> 8)) as u8
            })
        })
        .collect()
}

/// Segments before the first scan: marker and body.
fn segments(bytes: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    let mut at = 2;
    std::iter::from_fn(move || {
        loop {
            at += bytes.get(at..)?.iter().position(|byte| *byte == 0xff)?;
            at += bytes.get(at..)?.iter().position(|byte| *byte != 0xff)?;
            let marker = bytes[at];
            at += 1;
            match marker {
                0xd9 | 0xda => return None,
                0 | 1 | 0xd0..=0xd8 => continue,
                _ => {}
            }
            let length = usize::from(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?));
            // The length counts its own two bytes; a smaller one means an empty segment, as in libjpeg.
            let length = length.max(2);
            let body = bytes.get(at + 2..at + length)?;
            at += length;
            return Some((marker, body));
        }
    })
}

/// The segment of the frame: size and components.
fn frame(bytes: &[u8]) -> Option<(u8, &[u8])> {
    segments(bytes).find(|(marker, _)| matches!(marker, 0xc0..=0xc2 | 0xc9..=0xca))
}

fn orientation_of(bytes: &[u8]) -> Orientation {
    const XMP: &[u8] = b"http://ns.adobe.com/xap/1.0/\0";
    let (mut exif, mut xmp) = (Vec::new(), None);
    for (_, body) in segments(bytes).filter(|(marker, _)| *marker == 0xe1) {
        if let Some(part) = body.strip_prefix(b"Exif\0\0") {
            // Long ones come in several segments.
            exif.extend_from_slice(part);
        } else if let Some(packet) = body.strip_prefix(XMP) {
            xmp = Some(packet);
        }
    }
    orientation::of(Some(&exif[..]).filter(|exif| !exif.is_empty()), xmp)
}

/// Whether a file has four components of different sampling, which the decoder does not read as libjpeg does.
fn has_small_black(bytes: &[u8]) -> bool {
    let Some((0xc0..=0xc2, [_, _, _, _, _, 4, components @ ..])) = frame(bytes) else { return false };
    components.as_chunks::<3>().0.iter().any(|component| component[1] != components[1]) && components.len() == 12
}

/// Decodes a picture of four components as two files of three components, which the decoder reads as libjpeg does: the colours, and
/// black with two fillers of the largest sampling, so that black keeps its own.
fn separated(bytes: &[u8]) -> Result<(DynamicImage, Option<String>), String> {
    let recovery = match Recovery::run(bytes) {
        Ok(recovery) => recovery,
        Err(Stop::Refused(reason)) => return Err(reason.to_owned()),
        Err(Stop::Suspend) => return Err("the file is truncated".to_owned()),
        Err(Stop::Unknown) => return Err("arithmetic coding of four components is not supported".to_owned()),
    };
    let size = recovery.size.ok_or("it has no size")?;
    let [first, second, third, black] = &recovery.components[..] else {
        return Err("it has no four components".to_owned());
    };
    let largest = |of: fn(&Component) -> usize| recovery.components.iter().map(of).max().unwrap_or(1);
    let full = Extent {
        across: largest(|component| component.sampling.across),
        down: largest(|component| component.sampling.down),
    };
    let frame = Frame { pixels: size, largest: full };
    let filler = |id: u8| Component { id, ..Component::new(id, full, 0, frame) };
    let decode = |components: &[&Component], transform: u8| {
        let ids = [1, 2, 3];
        let renamed: Vec<Component> =
            components.iter().zip(ids).map(|(component, id)| Component { id, ..(*component).clone() }).collect();
        // Adobe's segment says whether colours are YCbCr.
        let adobe = [b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0", &[transform][..]].concat();
        decode_sound(&encode::encode(size, &renamed.iter().collect::<Vec<_>>(), &adobe)).map(DynamicImage::into_rgb8)
    };
    let transform =
        segments(bytes).find(|(marker, body)| *marker == 0xee && body.starts_with(b"Adobe") && body.len() >= 12);
    let is_turned = transform.is_some_and(|(_, body)| body[11] == 2);
    // The colours need the largest sampling among themselves, too.
    let colours = [first, second, third];
    if !colours.iter().any(|component| component.sampling == full) {
        return Err("four components, of which black alone has every pixel, are not supported".to_owned());
    }
    let colours = decode(&colours, u8::from(is_turned))?;
    let black = decode(&[black, &filler(2), &filler(3)], 0)?;
    let inks = colours.pixels().zip(black.pixels()).map(|(colour, black)| {
        let [one, two, three] = if is_turned { colour.0.map(|level| 255 - level) } else { colour.0 };
        [one, two, three, black.0[0]]
    });
    let picture = RgbImage::from_raw(colours.width(), colours.height(), rgb_of_cmyk(inks));
    let is_sound = order::is_orderly(bytes) && !recovery.damaged;
    let damage = (!is_sound).then(|| "its data or its markers are damaged".to_owned());
    Ok((DynamicImage::ImageRgb8(picture.ok_or("its pixels do not fit its size")?), damage))
}
