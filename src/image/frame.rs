//! Frames as cameras and robots hand them over: pixels that belong to someone else.

use super::colours::Conversion;
use super::limits::LONGEST_SIDE;
use super::size::Size;
use super::{Colours, Picture};
use crate::memory::check_room;
use crate::{Error, Result};

/// How a frame's bytes stand for pixels. In YUV formats (brightness and colour apart), pixels that share a colour sample all take it as
/// it is; [`Colours`] says how the numbers are to be read.
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
    /// A plane of Y, then one of U and V by turns at half the width and height.
    Nv12,
    /// A plane of Y, then one of U and one of V at half the width and height.
    I420,
    /// A plane of Y, then one of U and one of V at half the width.
    I422,
    /// Planes of Y, U and V.
    I444,
}

impl PixelFormat {
    /// All formats with the names that command lines use.
    pub const NAMES: [(&'static str, Self); 11] = [
        ("rgb8", Self::Rgb8),
        ("bgr8", Self::Bgr8),
        ("rgba8", Self::Rgba8),
        ("bgra8", Self::Bgra8),
        ("mono8", Self::Mono8),
        ("yuyv", Self::Yuyv),
        ("uyvy", Self::Uyvy),
        ("nv12", Self::Nv12),
        ("i420", Self::I420),
        ("i422", Self::I422),
        ("i444", Self::I444),
    ];

    /// Bytes of a row of `width` pixels, of the first plane where there are several; none where a row cannot have that width.
    pub fn row_len(self, width: u32) -> Option<usize> {
        let (width, even) = (width as usize, width.is_multiple_of(2));
        match self {
            Self::Mono8 | Self::Nv12 | Self::I420 | Self::I422 | Self::I444 => Some(width),
            Self::Yuyv | Self::Uyvy => width.checked_mul(2).filter(|_| even),
            Self::Rgb8 | Self::Bgr8 => width.checked_mul(3),
            Self::Rgba8 | Self::Bgra8 => width.checked_mul(4),
        }
    }

    /// Whether it is a YUV format.
    pub fn is_yuv(self) -> bool {
        self.chroma().is_some() || matches!(self, Self::Yuyv | Self::Uyvy)
    }

    /// The planes of colours.
    fn chroma(self) -> Option<Chroma> {
        match self {
            Self::Nv12 => Some(Chroma { planes: 1, samples: 2, across: 2, down: 2 }),
            Self::I420 => Some(Chroma { planes: 2, samples: 1, across: 2, down: 2 }),
            Self::I422 => Some(Chroma { planes: 2, samples: 1, across: 2, down: 1 }),
            Self::I444 => Some(Chroma { planes: 2, samples: 1, across: 1, down: 1 }),
            _ => None,
        }
    }
}

/// Planes of colours beside one of brightness.
#[derive(Clone, Copy)]
struct Chroma {
    planes: usize,
    /// Bytes that belong to a place.
    samples: usize,
    /// Pixels that share a sample.
    across: usize,
    down: usize,
}

impl Chroma {
    fn row_len(self, width: u32) -> usize {
        (width as usize).div_ceil(self.across) * self.samples
    }

    fn rows(self, height: u32) -> usize {
        (height as usize).div_ceil(self.down)
    }
}

/// Where a frame's rows lie in its bytes. Planes follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameLayout {
    /// Bytes from the beginning of one row to that of the next; of the first plane where there are several.
    pub row_step: usize,
    /// The same of the planes of colours; 0 where there are none.
    pub chroma_step: usize,
    /// Rows of the first plane, which may be more than the picture's.
    pub luma_rows: usize,
}

/// Frames of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameShape {
    /// How bytes stand for pixels.
    pub format: PixelFormat,
    /// Width and height in pixels.
    pub size: Size,
    /// Where rows lie.
    pub layout: FrameLayout,
    /// How YUV is to be read. Other formats ignore it, except grey: its limited range is stretched to 0 … 255.
    pub colours: Colours,
}

impl FrameShape {
    fn new(format: PixelFormat, size: Size, layout: FrameLayout) -> Self {
        Self { format, size, layout, colours: Colours { range: range_of(format), ..Colours::of_height(size.height) } }
    }

    /// Rows that touch. None for sizes that the format cannot have.
    pub fn tight(format: PixelFormat, size: Size) -> Option<Self> {
        let row_step = format.row_len(size.width)?;
        let chroma_step = format.chroma().map_or(0, |chroma| chroma.row_len(size.width));
        Some(Self::new(format, size, FrameLayout { row_step, chroma_step, luma_rows: size.height as usize }))
    }

    /// Rows `row_step` bytes apart, those of colours in proportion: the convention of Linux's cameras (V4L2). None for sizes and steps
    /// that the format cannot have.
    pub fn v4l2(format: PixelFormat, size: Size, row_step: usize) -> Option<Self> {
        format.row_len(size.width)?;
        let in_proportion = |chroma: Chroma| {
            let whole = row_step.checked_mul(chroma.samples)?;
            whole.is_multiple_of(chroma.across).then_some(whole / chroma.across)
        };
        let chroma_step = format.chroma().map_or(Some(0), in_proportion)?;
        Some(Self::new(format, size, FrameLayout { row_step, chroma_step, luma_rows: size.height as usize }))
    }

    /// Rows of every plane padded to four bytes; with colours at half the height, the first plane has an even number of rows. This is the
    /// convention of GStreamer. None for sizes that the format cannot have.
    pub fn gstreamer(format: PixelFormat, size: Size) -> Option<Self> {
        const PADDING: usize = 4;
        let tight = Self::tight(format, size)?;
        let layout = FrameLayout {
            row_step: tight.layout.row_step.checked_next_multiple_of(PADDING)?,
            chroma_step: tight.layout.chroma_step.checked_next_multiple_of(PADDING)?,
            luma_rows: format
                .chroma()
                .map_or(size.height as usize, |chroma| (size.height as usize).next_multiple_of(chroma.down)),
        };
        Some(Self { layout, ..tight })
    }

    /// Bytes of a frame without the padding after its last row; none for impossible sizes.
    pub fn least_len(&self) -> Option<usize> {
        self.measure(|rows, step, row| rows.checked_sub(1)?.checked_mul(step)?.checked_add(row))
    }

    /// Bytes of a frame that another one follows: every row takes its whole step. None for impossible sizes.
    pub fn whole_len(&self) -> Option<usize> {
        self.least_len()?;
        self.measure(|rows, step, _| rows.checked_mul(step))
    }

    /// Bytes of all planes; `last` gives those of the last plane by its number of rows, their step and their bytes.
    fn measure(&self, last: impl Fn(usize, usize, usize) -> Option<usize>) -> Option<usize> {
        let Self { format, size: Size { width, height }, layout, .. } = *self;
        let row = format.row_len(width).filter(|row| *row > 0 && *row <= layout.row_step)?;
        let rows = (height as usize > 0 && layout.luma_rows >= height as usize).then_some(layout.luma_rows)?;
        let Some(chroma) = format.chroma() else { return last(height as usize, layout.row_step, row) };
        let (chroma_rows, chroma_row) = (chroma.rows(height), chroma.row_len(width));
        if chroma_row > layout.chroma_step {
            return None;
        }
        let plane = chroma_rows.checked_mul(layout.chroma_step)?;
        let before = rows.checked_mul(layout.row_step)?.checked_add(plane.checked_mul(chroma.planes - 1)?)?;
        before.checked_add(last(chroma_rows, layout.chroma_step, chroma_row)?)
    }
}

/// Grey levels go from 0 to 255 unless somebody says otherwise.
fn range_of(format: PixelFormat) -> super::Range {
    if format.is_yuv() { super::Range::Limited } else { super::Range::Full }
}

/// A borrowed frame.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    shape: FrameShape,
    data: &'a [u8],
}

impl<'a> Frame<'a> {
    /// A frame whose rows begin `row_step` bytes apart, those of colours in proportion. Padding after a row's pixels is ignored, and the
    /// last row may lack it.
    ///
    /// # Errors
    /// When the size is zero, beyond 65536 pixels a side, odd where the format packs pairs, or does not fit the data; or when there is no
    /// memory for the picture.
    pub fn new(data: &'a [u8], size: Size, row_step: usize, format: PixelFormat) -> Result<Self> {
        let shape = FrameShape::v4l2(format, size, row_step);
        shape.map_or_else(|| Err(misfit(format, size, row_step, data.len())), |shape| Self::of(data, shape))
    }

    /// A frame of a shape.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn of(data: &'a [u8], shape: FrameShape) -> Result<Self> {
        let too_long = shape.size.longer() > LONGEST_SIDE;
        if too_long || shape.least_len().is_none_or(|needed| needed > data.len()) {
            return Err(misfit(shape.format, shape.size, shape.layout.row_step, data.len()));
        }
        let Size { width, height } = shape.size;
        check_room(3 * width as usize * height as usize, format!("the pixels of a frame of {}", shape.size))?;
        Ok(Self { shape, data })
    }

    /// The frame as 8-bit RGB.
    pub fn to_picture(&self) -> Picture {
        let Size { width, height } = self.shape.size;
        let mut rgb = Vec::with_capacity(width as usize * height as usize * 3);
        let conversion = Conversion::new(self.shape.colours);
        for row in 0..height as usize {
            self.convert_row(row, &conversion, &mut rgb);
        }
        Picture::from_rgb(width, height, rgb).expect("as large as its size says")
    }

    /// A row of a plane of colours.
    fn chroma_row(&self, chroma: Chroma, plane: usize, row: usize) -> &'a [u8] {
        let FrameShape { size: Size { width, height }, layout, .. } = self.shape;
        let start = layout.luma_rows * layout.row_step + plane * chroma.rows(height) * layout.chroma_step;
        &self.data[start + row / chroma.down * layout.chroma_step..][..chroma.row_len(width)]
    }

    fn convert_row(&self, row: usize, conversion: &Conversion, rgb: &mut Vec<u8>) {
        let FrameShape { format, size: Size { width, .. }, layout, colours } = self.shape;
        let len = format.row_len(width).expect("checked when the frame was made");
        let bytes = &self.data[row * layout.row_step..][..len];
        let pair = |luma: [u8; 2], u: u8, v: u8| {
            let [first, second] = luma.map(|luma| conversion.pixel(luma, u, v));
            [first[0], first[1], first[2], second[0], second[1], second[2]]
        };
        match format {
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
            PixelFormat::Mono8 if colours.range == super::Range::Limited => {
                rgb.extend(bytes.iter().flat_map(|grey| conversion.pixel(*grey, 128, 128)));
            }
            PixelFormat::Mono8 => rgb.extend(bytes.iter().flat_map(|grey| [*grey; 3])),
            PixelFormat::Yuyv => {
                rgb.extend(bytes.as_chunks().0.iter().flat_map(|[y, u, other, v]| pair([*y, *other], *u, *v)));
            }
            PixelFormat::Uyvy => {
                rgb.extend(bytes.as_chunks().0.iter().flat_map(|[u, y, v, other]| pair([*y, *other], *u, *v)));
            }
            PixelFormat::Nv12 | PixelFormat::I420 | PixelFormat::I422 | PixelFormat::I444 => {
                let chroma = format.chroma().expect("of these formats");
                let (first, last) = (self.chroma_row(chroma, 0, row), self.chroma_row(chroma, chroma.planes - 1, row));
                // U and V alternate in one plane, or each has its own.
                let second = &last[chroma.samples - 1..];
                let step = chroma.samples;
                rgb.extend(bytes.iter().enumerate().flat_map(|(x, luma)| {
                    let at = x / chroma.across * step;
                    conversion.pixel(*luma, first[at], second[at])
                }));
            }
        }
    }
}

fn misfit(format: PixelFormat, size: Size, row_step: usize, len: usize) -> Error {
    let reason = format!("{size} pixels of {format:?} with rows {row_step} bytes apart do not fit {len} bytes");
    Error::Picture { name: "frame".to_owned(), reason }
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
                let frame = Frame::new(&data[..data.len() - padding], Size::new(2, 3), len + padding, format).unwrap();
                assert_eq!(frame.to_picture().rgb(), expected, "{format:?}");
                assert!(Frame::new(&data[..data.len() - padding - 1], Size::new(2, 3), len + padding, format).is_err());
                assert!(Frame::new(&data, Size::new(2, 3), len - 1, format).is_err());
            }
        }
        let mono = Frame::new(&[5, 6], Size::new(2, 1), 2, PixelFormat::Mono8).unwrap();
        assert_eq!(mono.to_picture().rgb(), [5, 5, 5, 6, 6, 6]);
    }

    #[test]
    fn sizes_that_cannot_be_are_errors() {
        for (_, format) in PixelFormat::NAMES {
            for (width, height) in [(0, 2), (2, 0), (u32::MAX, u32::MAX), (4, 4)] {
                let size = Size::new(width, height);
                for step in [0, 1, usize::MAX] {
                    assert!(Frame::new(&[0; 15], size, step, format).is_err(), "{format:?} {size:?} {step}");
                }
            }
        }
        for format in [PixelFormat::Yuyv, PixelFormat::Uyvy] {
            assert!(Frame::new(&[0; 999], Size::new(3, 4), 12, format).is_err(), "odd widths");
        }
        // Of a row of three pixels' colours there are two samples, and half a step has room for one.
        assert!(Frame::new(&[0; 999], Size::new(3, 4), 3, PixelFormat::I420).is_err());
    }

    #[test]
    fn planes_and_pairs_hold_the_same_colours() {
        // Two by two pixels: grey levels 16, 235, 126, 50; one colour for all.
        let (u, v) = (90, 240);
        let rgb = |format, data: &[u8], step| {
            Frame::new(data, Size::new(2, 2), step, format).unwrap().to_picture().rgb().to_vec()
        };
        let conversion = Conversion::new(Colours::of_height(2));
        let expected: Vec<u8> = [16, 235, 126, 50].iter().flat_map(|luma| conversion.pixel(*luma, u, v)).collect();
        assert_eq!(rgb(PixelFormat::I420, &[16, 235, 126, 50, u, v], 2), expected);
        assert_eq!(rgb(PixelFormat::I420, &[16, 235, 0, 0, 126, 50, 0, 0, u, 0, v], 4), expected);
        assert_eq!(rgb(PixelFormat::Nv12, &[16, 235, 126, 50, u, v], 2), expected);
        assert_eq!(rgb(PixelFormat::Nv12, &[16, 235, 9, 126, 50, 9, u, v], 3), expected);
        assert_eq!(rgb(PixelFormat::Yuyv, &[16, u, 235, v, 126, u, 50, v], 4), expected);
        assert_eq!(rgb(PixelFormat::Uyvy, &[u, 16, v, 235, u, 126, v, 50], 4), expected);
        assert_eq!([16, 235].map(|luma| conversion.pixel(luma, 128, 128)), [[0; 3], [255; 3]]);
        // Rows and planes as GStreamer puts them, and odd sizes.
        let shape = FrameShape::gstreamer(PixelFormat::I420, Size::new(3, 3)).unwrap();
        assert_eq!(shape.layout, FrameLayout { row_step: 4, chroma_step: 4, luma_rows: 4 });
        assert_eq!(shape.whole_len(), Some(32));
        assert_eq!(FrameShape::gstreamer(PixelFormat::I420, Size::new(852, 480)).unwrap().layout.chroma_step, 428);
        let mut data = [0; 32];
        for (at, luma) in [(0, 16), (1, 235), (2, 126), (4, 50), (10, 126)] {
            data[at] = luma;
        }
        (data[16], data[17], data[20], data[24], data[25], data[28]) = (u, u, u, v, v, v);
        let picture = Frame::of(&data, shape).unwrap().to_picture();
        assert_eq!(picture.rgb()[..9], [16, 235, 126].map(|luma| conversion.pixel(luma, u, v)).concat());
        let (third, blank) = (conversion.pixel(126, u, 0), conversion.pixel(0, u, v));
        assert_eq!((&picture.rgb()[9..12], &picture.rgb()[18..21]), (&conversion.pixel(50, u, v)[..], &blank[..]));
        assert_eq!(picture.rgb()[24..], conversion.pixel(126, 0, 0), "{third:?}");
    }
}
