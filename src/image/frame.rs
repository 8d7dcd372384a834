//! Frames as cameras and robots hand them over: pixels that belong to someone else.

use super::Picture;
use crate::{Error, Result};

/// How a frame's bytes stand for pixels.
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
}

impl PixelFormat {
    /// Bytes of a pixel.
    pub fn pixel_len(self) -> usize {
        match self {
            Self::Mono8 => 1,
            Self::Rgb8 | Self::Bgr8 => 3,
            Self::Rgba8 | Self::Bgra8 => 4,
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
    /// When the size is zero or does not fit the data.
    pub fn new(data: &'a [u8], (width, height): (u32, u32), row_step: usize, format: PixelFormat) -> Result<Self> {
        let row = (width as usize).checked_mul(format.pixel_len()).filter(|row| *row > 0 && *row <= row_step);
        let needed = row.zip((height as usize).checked_sub(1));
        let needed = needed.and_then(|(row, rows)| rows.checked_mul(row_step)?.checked_add(row));
        if needed.is_none_or(|needed| needed > data.len()) {
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
        let row_len = self.width as usize * self.format.pixel_len();
        let mut rgb = Vec::with_capacity(self.width as usize * self.height as usize * 3);
        for row in self.data.chunks(self.row_step).take(self.height as usize) {
            let row = &row[..row_len];
            match self.format {
                PixelFormat::Rgb8 => rgb.extend_from_slice(row),
                PixelFormat::Bgr8 => {
                    rgb.extend(row.as_chunks().0.iter().flat_map(|[blue, green, red]| [*red, *green, *blue]))
                }
                PixelFormat::Rgba8 => {
                    rgb.extend(row.as_chunks::<4>().0.iter().flat_map(|pixel| pixel[..3].iter().copied()))
                }
                PixelFormat::Bgra8 => {
                    rgb.extend(row.as_chunks().0.iter().flat_map(|[blue, green, red, _]| [*red, *green, *blue]))
                }
                PixelFormat::Mono8 => rgb.extend(row.iter().flat_map(|grey| [*grey; 3])),
            }
        }
        Picture::from_rgb(self.width, self.height, rgb).expect("as large as its size says")
    }
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
                let rows =
                    pixels.chunks(2).map(|row| row.iter().flat_map(turn).chain(vec![99; padding]).collect::<Vec<u8>>());
                let data = rows.collect::<Vec<_>>().concat();
                let step = 2 * format.pixel_len() + padding;
                let frame = Frame::new(&data[..data.len() - padding], (2, 3), step, format).unwrap();
                assert_eq!(frame.to_picture().rgb(), expected, "{format:?}");
                assert!(Frame::new(&data[..data.len() - padding - 1], (2, 3), step, format).is_err());
                assert!(Frame::new(&data, (2, 3), 2 * format.pixel_len() - 1, format).is_err());
            }
        }
        let mono = Frame::new(&[5, 6], (2, 1), 2, PixelFormat::Mono8).unwrap();
        assert_eq!(mono.to_picture().rgb(), [5, 5, 5, 6, 6, 6]);
        for size in [(0, 1), (1, 0), (u32::MAX, u32::MAX)] {
            assert!(Frame::new(&[0; 64], size, usize::MAX, PixelFormat::Rgba8).is_err());
        }
    }
}
