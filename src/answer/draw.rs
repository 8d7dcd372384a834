//! Objects drawn on their picture: boxes, labels with scores, masks.

use std::ops::Range;

use noto_sans_mono_bitmap::{FontWeight, RasterHeight, RasterizedChar, get_raster, get_raster_width};

use super::{Mask, Object};
use crate::image::Picture;

/// Colours that are easy to tell apart, also for colour-blind people (Okabe and Ito's, without black).
const COLOURS: [[u8; 3]; 7] =
    [[230, 159, 0], [86, 180, 233], [0, 158, 115], [240, 228, 66], [213, 94, 0], [204, 121, 167], [0, 114, 178]];
/// Opacity of a mask, 0 … 1.
const MASK_OPACITY: f32 = 0.5;
/// Pictures are enlarged by a whole factor until their longer side has at least this many pixels: labels need them.
const LEAST_SIDE: u32 = 512;
/// Shown for a character that the font lacks.
const REPLACEMENT: char = '?';

/// What is drawn of an object.
#[derive(Clone, Copy, Debug)]
pub struct Drawn<'a> {
    /// Its box, label and score.
    pub object: &'a Object,
    /// Its mask, in the picture's size, where it has one.
    pub mask: Option<&'a Mask>,
}

impl<'a> From<&'a Object> for Drawn<'a> {
    fn from(object: &'a Object) -> Self {
        Self { object, mask: None }
    }
}

/// A picture with objects drawn on it. A small picture comes out enlarged by a whole
/// factor, so that labels are legible. Labels are drawn in Latin script; other characters show as question marks.
pub fn annotate(picture: &Picture, objects: &[Drawn<'_>]) -> Picture {
    let longer = picture.width().max(picture.height());
    let factor = LEAST_SIDE.div_ceil(longer);
    let mut canvas = Canvas::enlarged(picture, factor as usize);
    let colours = COLOURS.iter().cycle();
    // All masks first, so that none hides a box or label.
    for (drawn, colour) in objects.iter().zip(colours.clone()) {
        if let Some(mask) = drawn.mask {
            canvas.cover(mask, factor as usize, *colour);
        }
    }
    for (drawn, colour) in objects.iter().zip(colours.clone()) {
        canvas.frame(drawn.object, *colour);
    }
    let mut taken = Vec::new();
    for (drawn, colour) in objects.iter().zip(colours) {
        canvas.label(drawn.object, *colour, &mut taken);
    }
    Picture::from_rgb(canvas.width as u32, canvas.height as u32, canvas.rgb).expect("as large as its size says")
}

struct Canvas {
    width: usize,
    height: usize,
    rgb: Vec<u8>,
}

impl Canvas {
    fn enlarged(picture: &Picture, factor: usize) -> Self {
        let (width, height) = (picture.width() as usize * factor, picture.height() as usize * factor);
        let mut rgb = Vec::with_capacity(width * height * 3);
        for row in picture.rgb().chunks_exact(picture.width() as usize * 3) {
            let wide: Vec<u8> = row.as_chunks::<3>().0.iter().flat_map(|pixel| pixel.repeat(factor)).collect();
            rgb.extend_from_slice(&wide.repeat(factor));
        }
        Self { width, height, rgb }
    }

    /// Mixes a share of a colour into a pixel; nothing beyond the edges.
    fn blend(&mut self, x: usize, y: usize, colour: [u8; 3], share: f32) {
        if x < self.width && y < self.height {
            let pixel = &mut self.rgb[(y * self.width + x) * 3..][..3];
            for (sample, colour) in pixel.iter_mut().zip(colour) {
                *sample = (f32::from(*sample) * (1.0 - share) + f32::from(colour) * share).round() as u8;
            }
        }
    }

    fn fill(&mut self, columns: Range<usize>, rows: Range<usize>, colour: [u8; 3]) {
        for y in rows {
            for x in columns.clone() {
                self.blend(x, y, colour, 1.0);
            }
        }
    }

    fn cover(&mut self, mask: &Mask, factor: usize, colour: [u8; 3]) {
        let columns = mask.width() as usize;
        for (at, _) in mask.pixels().iter().enumerate().filter(|(_, inside)| **inside) {
            for (y, x) in (0..factor).flat_map(|y| (0..factor).map(move |x| (y, x))) {
                self.blend(at % columns * factor + x, at / columns * factor + y, colour, MASK_OPACITY);
            }
        }
    }

    /// Width of lines.
    fn stroke(&self) -> usize {
        (self.width.max(self.height) / 250).max(2)
    }

    /// An object's box in pixels of the canvas, as left, top, right and bottom.
    fn edges(&self, object: &Object) -> [usize; 4] {
        let pixels = object.bounds.pixels(self.width as u32, self.height as u32);
        pixels.map(|edge| edge.round() as usize)
    }

    /// The box, its lines within it; thin boxes are all line.
    fn frame(&mut self, object: &Object, colour: [u8; 3]) {
        let [left, top, right, bottom] = self.edges(object);
        let (width, height) = (right.saturating_sub(left).max(1), bottom.saturating_sub(top).max(1));
        let (across, down) = (self.stroke().min(width), self.stroke().min(height));
        let (columns, rows) = (left..left + width, top..top + height);
        self.fill(columns.clone(), top..top + down, colour);
        self.fill(columns, rows.end - down..rows.end, colour);
        self.fill(left..left + across, rows.clone(), colour);
        self.fill(left + width - across..left + width, rows, colour);
    }

    /// The label above the box's upper left corner, or within the box where there is no room, moved down past labels that
    /// are there already.
    fn label(&mut self, object: &Object, colour: [u8; 3], taken: &mut Vec<[usize; 4]>) {
        let text = format!("{} {:.2}", object.label, object.score);
        // One font row in about 28 of the picture: 16, 24 or 32 pixels, or a multiple.
        let wanted = self.width.max(self.height) / 28;
        let (size, scale) = match wanted {
            0..24 => (RasterHeight::Size16, 1),
            24..32 => (RasterHeight::Size24, 1),
            _ => (RasterHeight::Size32, wanted / 32),
        };
        let advance = get_raster_width(FontWeight::Regular, size) * scale;
        let padding = 2 * scale;
        let width = (text.chars().count() * advance + 2 * padding).min(self.width);
        let height = (size.val() * scale + padding).min(self.height);
        let [left, top, ..] = self.edges(object);
        let left = left.min(self.width - width);
        let mut top = top.checked_sub(height).unwrap_or(top).min(self.height - height);
        let meets = |top: usize, other: &&[usize; 4]| {
            let [x, y, right, bottom] = **other;
            left < right && x < left + width && top < bottom && y < top + height
        };
        while let Some(other) = taken.iter().find(|other| meets(top, other)).copied() {
            if other[3] + height > self.height {
                break;
            }
            top = other[3];
        }
        taken.push([left, top, left + width, top + height]);
        self.fill(left..left + width, top..top + height, colour);
        let [red, green, blue] = colour.map(f32::from);
        let dark = 0.299 * red + 0.587 * green + 0.114 * blue < 128.0;
        let ink = if dark { [255; 3] } else { [0; 3] };
        for (index, glyph) in text.chars().map(|char| glyph(char, size)).enumerate() {
            let x = left + padding + index * advance;
            for (row, column, share) in samples(&glyph) {
                for (dy, dx) in (0..scale).flat_map(|dy| (0..scale).map(move |dx| (dy, dx))) {
                    let (x, y) = (x + column * scale + dx, top + padding / 2 + row * scale + dy);
                    if x < left + width {
                        self.blend(x, y, ink, share);
                    }
                }
            }
        }
    }
}

fn glyph(char: char, size: RasterHeight) -> RasterizedChar {
    let find = |char| get_raster(char, FontWeight::Regular, size);
    find(char).or_else(|| find(REPLACEMENT)).expect("the font has the basic characters")
}

/// Row, column and darkness of the pixels that are not empty.
fn samples(glyph: &RasterizedChar) -> impl Iterator<Item = (usize, usize, f32)> {
    let rows = glyph.rows().enumerate();
    rows.flat_map(|(row, line)| {
        line.iter().enumerate().map(move |(column, darkness)| (row, column, f32::from(*darkness) / 255.0))
    })
    .filter(|(.., darkness)| *darkness > 0.0)
}
