//! Frames as cameras and robots hand them over: pixels that belong to someone else.

use super::{LONGEST_SIDE, Picture};
use crate::{Error, Result};

/// How a frame's bytes stand for pixels. The formats with brightness and colour apart (YUV) are those of ITU-R BT.601 with
/// limited range, as cameras and films have them; pixels that share a colour sample all take it as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PixelFormat {
    /// Red, green, blue.
    Rgb8,
    /// Blue, green, red.
    Bgr8,
    /// Red, green, blue and an opacity, which is ignored.
    Rgba8,
    /// Blue, green, red and an opacity, which is ignored.
    Bgra8,
    /// Grey.
    Mono8,
    /// Two pixels in four bytes: Y, U, Y, V.
    Yuyv,
    /// Two pixels in four bytes: U, Y, V, Y.
    Uyvy,
    /// A plane of Y, then one of U and V by turns at half the width and height, its rows as far apart as those of Y.
    Nv12,
    /// A plane of Y, then one of U and one of V at half the width and height, their rows half as far apart as those of Y.
    I420,
}

impl PixelFormat {
    /// All formats with the names that command lines use.
    pub const NAMES: [(&'static str, Self); 9] = [
        ("rgb8", Self::Rgb8),
        ("bgr8", Self::Bgr8),
        ("rgba8", Self::Rgba8),
        ("bgra8", Self::Bgra8),
        ("mono8", Self::Mono8),
        ("yuyv", Self::Yuyv),
        ("uyvy", Self::Uyvy),
        ("nv12", Self::Nv12),
        ("i420", Self::I420),
    ];

    /// Bytes of a row of so many pixels, of the first plane where there are several; none where a row cannot have so many.
    pub fn row_len(self, width: u32) -> Option<usize> {
        let (width, even) = (width as usize, width.is_multiple_of(2));
        match self {
            Self::Mono8 => Some(width),
            Self::Nv12 | Self::I420 => Some(width).filter(|_| even),
            Self::Yuyv | Self::Uyvy => width.checked_mul(2).filter(|_| even),
            Self::Rgb8 | Self::Bgr8 => width.checked_mul(3),
            Self::Rgba8 | Self::Bgra8 => width.checked_mul(4),
        }
    }

    /// Bytes from a frame's beginning to its end, without what lies behind the pixels of its last row; none for sizes that
    /// cannot be.
    pub fn frame_len(self, (width, height): (u32, u32), row_step: usize) -> Option<usize> {
        let row = self.row_len(width).filter(|row| *row > 0 && *row <= row_step)?;
        let plane = |rows: usize, step: usize, row: usize| rows.checked_sub(1)?.checked_mul(step)?.checked_add(row);
        let rows = height as usize;
        match self {
            // Whole rows before the last plane.
            Self::Nv12 if rows.is_multiple_of(2) => {
                rows.checked_mul(row_step)?.checked_add(plane(rows / 2, row_step, row)?)
            }
            Self::I420 if rows.is_multiple_of(2) && row_step.is_multiple_of(2) => {
                let (luma, half) = (rows.checked_mul(row_step)?, row_step / 2);
                luma.checked_add((rows / 2).checked_mul(half)?)?.checked_add(plane(rows / 2, half, row / 2)?)
            }
            Self::Nv12 | Self::I420 => None,
            _ => plane(rows, row_step, row),
        }
    }
}

/// A borrowed frame.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    width: u32,
    height: u32,
    row_step: usize,
    format: PixelFormat,
    data: &'a [u8],
}

impl<'a> Frame<'a> {
    /// A frame of `height` rows, each `row_step` bytes behind the one before (what lies behind a row's pixels is ignored). The
    /// last row may end with its pixels.
    ///
    /// # Errors
    /// When the size is zero, beyond 65536 pixels a side, odd where the format has colour for pairs, or does not fit the data.
    pub fn new(data: &'a [u8], (width, height): (u32, u32), row_step: usize, format: PixelFormat) -> Result<Self> {
        let too_long = width.max(height) > LONGEST_SIDE;
        if too_long || format.frame_len((width, height), row_step).is_none_or(|needed| needed > data.len()) {
            let reason = format!(
                "{width} × {height} pixels of {format:?} with rows {row_step} bytes apart do not fit {} bytes",
                data.len()
            );
            return Err(Error::Picture { name: "frame".to_owned(), reason });
        }
        Ok(Self { width, height, row_step, format, data })
    }

    /// The frame as 8-bit RGB.
    pub fn to_picture(&self) -> Picture {
        let mut rgb = Vec::with_capacity(self.width as usize * self.height as usize * 3);
        for row in 0..self.height as usize {
            self.convert_row(row, &mut rgb);
        }
        Picture::from_rgb(self.width, self.height, rgb).expect("as large as its size says")
    }

    /// `len` bytes of a row of a plane that begins at `start`.
    fn row(&self, start: usize, step: usize, row: usize, len: usize) -> &'a [u8] {
        &self.data[start + row * step..][..len]
    }

    fn convert_row(&self, row: usize, rgb: &mut Vec<u8>) {
        let (width, step) = (self.width as usize, self.row_step);
        let luma_end = self.height as usize * step;
        let len = self.format.row_len(self.width).expect("checked when the frame was made");
        let bytes = self.row(0, step, row, len);
        match self.format {
            PixelFormat::Rgb8 => rgb.extend_from_slice(bytes),
            PixelFormat::Bgr8 => {
                rgb.extend(bytes.as_chunks().0.iter().flat_map(|[blue, green, red]| [*red, *green, *blue]))
            }
            PixelFormat::Rgba8 => {
                rgb.extend(bytes.as_chunks().0.iter().flat_map(|[red, green, blue, _]| [*red, *green, *blue]))
            }
            PixelFormat::Bgra8 => {
                rgb.extend(bytes.as_chunks().0.iter().flat_map(|[blue, green, red, _]| [*red, *green, *blue]))
            }
            PixelFormat::Mono8 => rgb.extend(bytes.iter().flat_map(|grey| [*grey; 3])),
            PixelFormat::Yuyv => {
                rgb.extend(bytes.as_chunks().0.iter().flat_map(|[y, u, other, v]| pair([*y, *other], *u, *v)));
            }
            PixelFormat::Uyvy => {
                rgb.extend(bytes.as_chunks().0.iter().flat_map(|[u, y, v, other]| pair([*y, *other], *u, *v)));
            }
            PixelFormat::Nv12 => {
                let colours = self.row(luma_end, step, row / 2, width);
                let pairs = bytes.as_chunks().0.iter().zip(colours.as_chunks().0);
                rgb.extend(pairs.flat_map(|(y, [u, v])| pair(*y, *u, *v)));
            }
            PixelFormat::I420 => {
                let plane = |index: usize| {
                    let start = luma_end + index * (self.height as usize / 2) * (step / 2);
                    self.row(start, step / 2, row / 2, width / 2)
                };
                let colours = plane(0).iter().zip(plane(1));
                let pairs = bytes.as_chunks().0.iter().zip(colours);
                rgb.extend(pairs.flat_map(|(y, (u, v))| pair(*y, *u, *v)));
            }
        }
    }
}

/// Bits behind the binary point of the factors below.
const PRECISION: i32 = 16;

/// Two pixels of one colour: ITU-R BT.601, Y from 16 to 235, U and V around 128 from 16 to 240.
fn pair(luma: [u8; 2], u: u8, v: u8) -> [u8; 6] {
    let factor = |factor: f64| (factor * f64::from(1 << PRECISION)).round() as i32;
    let (u, v) = (i32::from(u) - 128, i32::from(v) - 128);
    let pixel = |luma: u8| {
        // 255 / 219; colours span 224 and reach (1 − K) · 2 of red (K = 0.299) and blue (K = 0.114).
        let y = (i32::from(luma) - 16) * factor(255.0 / 219.0) + (1 << (PRECISION - 1));
        let red = v * factor(1.402 * 255.0 / 224.0);
        let green =
            u * factor(1.772 * 255.0 / 224.0 * 0.114 / 0.587) + v * factor(1.402 * 255.0 / 224.0 * 0.299 / 0.587);
        let blue = u * factor(1.772 * 255.0 / 224.0);
        [y + red, y - green, y + blue].map(|sum| (sum >> PRECISION).clamp(0, 255) as u8)
    };
    let [first, second] = luma.map(pixel);
    [first[0], first[1], first[2], second[0], second[1], second[2]]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_format_gives_the_same_picture() {
        let pixels = [[1u8, 2, 3], [40, 50, 60], [7, 7, 7], [200, 100, 0], [9, 8, 7], [255, 0, 255]];
        let expected: Vec<u8> = pixels.concat();
        for (format, turn) in [
            (PixelFormat::Rgb8, (|p: &[u8; 3]| p.to_vec()) as fn(&[u8; 3]) -> Vec<u8>),
            (PixelFormat::Bgr8, |p| vec![p[2], p[1], p[0]]),
            (PixelFormat::Rgba8, |p| vec![p[0], p[1], p[2], 77]),
            (PixelFormat::Bgra8, |p| vec![p[2], p[1], p[0], 77]),
        ] {
            for padding in [0, 5] {
                let row = |row: &[[u8; 3]]| row.iter().flat_map(turn).chain(vec![99; padding]).collect::<Vec<u8>>();
                let data = pixels.chunks(2).map(row).collect::<Vec<_>>().concat();
                let len = format.row_len(2).unwrap();
                let frame = Frame::new(&data[..data.len() - padding], (2, 3), len + padding, format).unwrap();
                assert_eq!(frame.to_picture().rgb(), expected, "{format:?}");
                assert!(Frame::new(&data[..data.len() - padding - 1], (2, 3), len + padding, format).is_err());
                assert!(Frame::new(&data, (2, 3), len - 1, format).is_err());
            }
        }
        let mono = Frame::new(&[5, 6], (2, 1), 2, PixelFormat::Mono8).unwrap();
        assert_eq!(mono.to_picture().rgb(), [5, 5, 5, 6, 6, 6]);
    }

    #[test]
    fn sizes_that_cannot_be_are_errors() {
        for (_, format) in PixelFormat::NAMES {
            for size in [(0, 2), (2, 0), (u32::MAX, u32::MAX), (4, 4)] {
                for step in [0, 1, usize::MAX] {
                    assert!(Frame::new(&[0; 15], size, step, format).is_err(), "{format:?} {size:?} {step}");
                }
            }
        }
        for format in [PixelFormat::Yuyv, PixelFormat::Uyvy, PixelFormat::Nv12, PixelFormat::I420] {
            assert!(Frame::new(&[0; 999], (3, 4), 12, format).is_err(), "odd widths");
        }
        for format in [PixelFormat::Nv12, PixelFormat::I420] {
            assert!(Frame::new(&[0; 999], (4, 3), 12, format).is_err(), "odd heights");
        }
    }

    #[test]
    fn planes_and_pairs_hold_the_same_colours() {
        // Two by two pixels: grey levels 16, 235, 126, 50; one colour for all.
        let (u, v) = (90, 240);
        let rgb =
            |format, data: &[u8], step| Frame::new(data, (2, 2), step, format).unwrap().to_picture().rgb().to_vec();
        let expected = [pair([16, 235], u, v), pair([126, 50], u, v)].concat();
        assert_eq!(rgb(PixelFormat::I420, &[16, 235, 126, 50, u, v], 2), expected);
        assert_eq!(rgb(PixelFormat::I420, &[16, 235, 0, 0, 126, 50, 0, 0, u, 0, v], 4), expected);
        assert_eq!(rgb(PixelFormat::Nv12, &[16, 235, 126, 50, u, v], 2), expected);
        assert_eq!(rgb(PixelFormat::Nv12, &[16, 235, 9, 126, 50, 9, u, v], 3), expected);
        assert_eq!(rgb(PixelFormat::Yuyv, &[16, u, 235, v, 126, u, 50, v], 4), expected);
        assert_eq!(rgb(PixelFormat::Uyvy, &[u, 16, v, 235, u, 126, v, 50], 4), expected);
        assert_eq!(pair([16, 235], 128, 128), [0, 0, 0, 255, 255, 255]);
    }
}
