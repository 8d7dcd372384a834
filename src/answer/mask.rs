//! Masks at the size of the picture, and their run-length form.

use image::ExtendedColorType;

use super::Bounds;
use crate::config::masks::SIDE;
use crate::image::{Filter, Size, encode_png, resample_numbers};

/// Most pixels of a mask that is read.
const LARGEST: usize = 1 << 28;

/// Which pixels of a picture an object covers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mask {
    width: u32,
    height: u32,
    /// `[height][width]`.
    pixels: Vec<bool>,
}

impl Mask {
    /// Stretches a decoded mask, `[64][64]` values, into a box of a picture of this size. A pixel belongs to the object
    /// where the value is above zero, and no pixel does outside the box, whose edges are rounded down to whole pixels
    /// (big_vision's evaluation, `segmentation.py`). A box that goes beyond the picture is cut at its edges first.
    ///
    /// # Panics
    /// When there are not 64 × 64 values, or the picture has more pixels than memory can hold.
    pub fn paste(values: &[f32], bounds: &Bounds, width: u32, height: u32) -> Self {
        const FROM: Size = Size::new(SIDE as u32, SIDE as u32);
        assert_eq!(values.len(), SIDE * SIDE, "values of a decoded mask");
        let [x_min, y_min, x_max, y_max] = bounds.whole_pixels(width, height);
        let mut mask = Self { width, height, pixels: vec![false; width as usize * height as usize] };
        let (box_width, box_height) = (x_max.saturating_sub(x_min), y_max.saturating_sub(y_min));
        if box_width == 0 || box_height == 0 {
            return mask;
        }
        let stretched =
            resample_numbers(values, FROM, Size::new(box_width as u32, box_height as u32), Filter::Bilinear);
        for (row, values) in stretched.chunks_exact(box_width).enumerate() {
            let start = (y_min + row) * width as usize + x_min;
            for (pixel, value) in mask.pixels[start..start + box_width].iter_mut().zip(values) {
                *pixel = *value > 0.0;
            }
        }
        mask
    }

    /// A mask from COCO's compressed runs, see [`counts`](Self::counts); none where they do not fill the picture exactly, or it has more
    /// than 2²⁸ pixels.
    pub fn from_counts(counts: &str, width: u32, height: u32) -> Option<Self> {
        let total = (width as usize).checked_mul(height as usize).filter(|total| *total <= LARGEST)?;
        let mut runs: Vec<i64> = Vec::new();
        let (mut value, mut shift) = (0i64, 0);
        for byte in counts.bytes() {
            let group = i64::from(byte.checked_sub(48).filter(|group| *group < 64)?);
            value |= (group & 31).checked_shl(shift)?;
            shift += 5;
            if shift > 45 {
                return None;
            }
            if group & 32 == 0 {
                if group & 16 != 0 {
                    value |= -1 << shift;
                }
                let before = if runs.len() > 2 { runs[runs.len() - 2] } else { 0 };
                runs.push(value + before);
                (value, shift) = (0, 0);
            }
        }
        let mut columns = Vec::with_capacity(total);
        for (index, run) in runs.into_iter().enumerate() {
            let run = usize::try_from(run).ok().filter(|run| *run <= total - columns.len())?;
            columns.resize(columns.len() + run, index % 2 == 1);
        }
        if shift != 0 || columns.len() != total {
            return None;
        }
        let sides = (width as usize, height as usize);
        let rows = (0..sides.1).flat_map(|row| (0..sides.0).map(move |column| column * sides.1 + row));
        Some(Self { width, height, pixels: rows.map(|at| columns[at]).collect() })
    }

    /// The same mask in a larger picture, of which its own is the part from (`left`, `top`) on.
    ///
    /// # Panics
    /// When the part goes beyond the picture.
    pub fn within(&self, left: u32, top: u32, picture: Size) -> Self {
        let Size { width, height } = picture;
        assert!(left + self.width <= width && top + self.height <= height, "the part lies within the picture");
        let mut pixels = vec![false; width as usize * height as usize];
        for (row, line) in self.pixels.chunks_exact(self.width as usize).enumerate() {
            let start = (top as usize + row) * width as usize + left as usize;
            pixels[start..start + line.len()].copy_from_slice(line);
        }
        Self { width, height, pixels }
    }

    /// Intersection over union with another mask; zero for masks of another size, or where neither has a pixel.
    pub fn overlap(&self, other: &Self) -> f64 {
        if (self.width, self.height) != (other.width, other.height) {
            return 0.0;
        }
        let count = |both: fn((&bool, &bool)) -> bool| {
            self.pixels.iter().zip(&other.pixels).filter(|(a, b)| both((a, b))).count()
        };
        let union = count(|(a, b)| *a || *b);
        if union == 0 { 0.0 } else { count(|(a, b)| *a && *b) as f64 / union as f64 }
    }

    /// The share of its pixels, 0 … 1, that another mask has, too; zero for masks of another size, or without a pixel.
    pub fn share_within(&self, other: &Self) -> f64 {
        if (self.width, self.height) != (other.width, other.height) || self.area() == 0 {
            return 0.0;
        }
        let common = self.pixels.iter().zip(&other.pixels).filter(|(a, b)| **a && **b).count();
        common as f64 / self.area() as f64
    }

    /// Width of the picture.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Height of the picture.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// `[height][width]`: whether a pixel belongs to the object.
    pub fn pixels(&self) -> &[bool] {
        &self.pixels
    }

    /// Pixels that belong to the object.
    pub fn area(&self) -> usize {
        self.pixels.iter().filter(|pixel| **pixel).count()
    }

    /// A grey PNG file: 255 inside, 0 outside.
    pub fn to_png(&self) -> Vec<u8> {
        let grey: Vec<u8> = self.pixels.iter().map(|inside| if *inside { 255 } else { 0 }).collect();
        encode_png(&grey, Size::new(self.width, self.height), ExtendedColorType::L8)
    }

    /// Lengths of runs of equal pixels, column after column from the upper left, the first of pixels outside (COCO's
    /// uncompressed form).
    pub fn runs(&self) -> Vec<u32> {
        let (width, height) = (self.width as usize, self.height as usize);
        let (mut runs, mut current, mut length) = (Vec::new(), false, 0);
        for at in (0..width).flat_map(|column| (0..height).map(move |row| row * width + column)) {
            if self.pixels[at] != current {
                runs.push(length);
                (current, length) = (self.pixels[at], 0);
            }
            length += 1;
        }
        runs.push(length);
        runs
    }

    /// The runs as COCO's tools compress them into a string (`counts` beside `size`: [height, width]). From the fourth run on, each is
    /// stored as the difference to the run two before it. Numbers are in groups of five bits, the lowest first.
    pub fn counts(&self) -> String {
        let runs = self.runs();
        let mut text = String::new();
        for (index, run) in runs.iter().enumerate() {
            let before = if index > 2 { runs[index - 2] } else { 0 };
            let mut rest = i64::from(*run) - i64::from(before);
            loop {
                let group = rest & 31;
                rest >>= 5;
                // The fifth bit is the sign, which all following groups repeat.
                let done = if group & 16 == 0 { rest == 0 } else { rest == -1 };
                let byte = (group | if done { 0 } else { 32 }) as u8 + 48;
                text.push(char::from(byte));
                if done {
                    break;
                }
            }
        }
        text
    }
}
