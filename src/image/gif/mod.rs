//! GIF as Pillow reads it (`GifImagePlugin.py`): frames of any size at any place of a canvas that grows with them and has no
//! transparent pixels.

mod blocks;
mod lzw;

use image::RgbImage;

use self::blocks::{Blocks, Extent, Frame, Palette, Rgb};
use super::limits::check_size;
use super::size::Size;

/// Pixels of the largest canvas, as in Pillow: few bytes can ask for a large one.
const LARGEST_CANVAS: usize = 178_956_970;

/// Disposal methods by their numbers in a file. Larger numbers mean the last one.
const FILL: u8 = 2;
const RESTORE: u8 = 3;

/// What the canvas gets back before the next frame.
enum Disposal<P> {
    Fill(Extent, P),
    Restore(Extent, Vec<P>),
}

/// Pixels of a picture: indices of colours, or colours.
struct Canvas<P> {
    width: usize,
    height: usize,
    pixels: Vec<P>,
    disposal: Option<Disposal<P>>,
}

impl<P: Copy> Canvas<P> {
    fn new(width: usize, height: usize, pixel: P) -> Self {
        Self { width, height, pixels: vec![pixel; width * height], disposal: None }
    }

    fn dispose(&mut self) {
        match self.disposal.take() {
            Some(Disposal::Fill(extent, pixel)) => self.each_row(extent, |row, _| row.fill(pixel)),
            Some(Disposal::Restore(extent, before)) => {
                self.each_row(extent, |row, at| row.copy_from_slice(&before[at * extent.width..][..row.len()]));
            }
            None => {}
        }
    }

    /// Notes what is put in a frame's place before the next one: nothing, `filling`, or what is there now. `beyond` stands for pixels
    /// outside the canvas.
    fn note_disposal(&mut self, way: u8, extent: Extent, filling: P, beyond: P) -> Result<(), String> {
        match way {
            ..FILL => {}
            FILL => self.disposal = Some(Disposal::Fill(extent, filling)),
            RESTORE.. => self.keep(extent, beyond)?,
        }
        Ok(())
    }

    /// Saves a part of the canvas before a frame is drawn over it.
    fn keep(&mut self, extent: Extent, beyond: P) -> Result<(), String> {
        check_size(Size::new(extent.width as u32, extent.height as u32), 0)?;
        let at = |x: usize, y: usize| {
            let is_within = x < self.width && y < self.height;
            if is_within { self.pixels[y * self.width + x] } else { beyond }
        };
        let rows = extent.top..extent.top + extent.height;
        let before = rows.flat_map(|y| (extent.left..extent.left + extent.width).map(move |x| at(x, y))).collect();
        self.disposal = Some(Disposal::Restore(extent, before));
        Ok(())
    }

    /// Gives the canvas a larger size; new places get `pixel`. False where it has that size already.
    fn grow(&mut self, width: usize, height: usize, pixel: P) -> bool {
        if (width, height) == (self.width, self.height) {
            return false;
        }
        let mut canvas = Self::new(width, height, pixel);
        let rows = canvas.pixels.chunks_exact_mut(width.max(1));
        for (row, before) in rows.zip(self.pixels.chunks_exact(self.width.max(1))) {
            row[..before.len()].copy_from_slice(before);
        }
        (self.width, self.height, self.pixels) = (canvas.width, canvas.height, canvas.pixels);
        true
    }

    /// Draws a frame's indices as pixels, except those that `pixel` gives none for.
    fn draw(&mut self, shown: Extent, indices: &[u8], stride: usize, pixel: impl Fn(u8) -> Option<P>) {
        self.each_row(shown, |row, at| {
            for (target, index) in row.iter_mut().zip(&indices[at * stride..]) {
                if let Some(pixel) = pixel(*index) {
                    *target = pixel;
                }
            }
        });
    }

    /// Each row of a part of the canvas, with its number in the part.
    fn each_row(&mut self, extent: Extent, mut change: impl FnMut(&mut [P], usize)) {
        let rows = self.pixels.chunks_exact_mut(self.width.max(1)).skip(extent.top).take(extent.height);
        for (at, row) in rows.enumerate() {
            change(&mut row[extent.left..extent.left + extent.width], at);
        }
    }
}

/// What a film shows.
enum Shown {
    Nothing,
    /// Indices, as in the first frame. A film whose frames have grey tables or none stays in this state: indices are drawn, and
    /// `palette` gives their colours.
    Indexed {
        canvas: Canvas<u8>,
        palette: Palette,
        /// Whether the last frame had colours: then the next frame turns all indices into colours.
        had_colours: bool,
    },
    Coloured(Canvas<Rgb>),
}

/// Frames of a GIF file, in order, each as the whole canvas shows it.
pub(super) struct Frames<'a> {
    blocks: Blocks<'a>,
    shown: Shown,
    /// The first frame's transparent index.
    transparent: Option<u8>,
    /// A frame that does not say how it is disposed of is treated as the one before.
    way: u8,
    damage: Option<&'static str>,
}

/// Whether these bytes begin as GIF files do.
pub(super) fn is_gif(bytes: &[u8]) -> bool {
    bytes.starts_with(b"GIF87a") || bytes.starts_with(b"GIF89a")
}

impl<'a> Frames<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Result<Self, String> {
        Ok(Self { blocks: Blocks::new(bytes)?, shown: Shown::Nothing, transparent: None, way: 0, damage: None })
    }

    /// Shows the next frame on the canvas; false behind the last.
    pub(super) fn advance(&mut self) -> Result<bool, String> {
        let Some(frame) = self.blocks.next()? else { return Ok(false) };
        let Frame { extent, palette, transparent, packed, .. } = &frame;
        if frame.disposal != 0 {
            self.way = frame.disposal;
        }
        let (width, height) = self.size_with(*extent)?;
        // Without a width at the left edge, Pillow takes the whole canvas for a frame's place.
        let is_whole = extent.left == 0 && extent.width == 0;
        let part = if is_whole { Extent { left: 0, top: 0, width, height } } else { *extent };
        if part.width == 0 || part.height == 0 {
            return Err("a frame has no pixels".to_owned());
        }
        // Before the canvas is made: a small file that asks for a large canvas and lacks its pixels costs nothing.
        let unpacked = lzw::unpack(self.blocks.bytes(), packed, part.width, part.height)?;
        let is_unknown = |index: &u8| !palette.has(*index) && *transparent != Some(*index);
        let unknown =
            unpacked.indices.iter().any(is_unknown).then_some("its pixels have colours that its table has not");
        self.damage = self.damage.or(unpacked.damage).or(unknown);
        let is_drawn = |index: u8| *transparent != Some(index);
        let background = self.blocks.background.unwrap_or(0);
        self.dispose();
        match &mut self.shown {
            Shown::Nothing => {
                self.transparent = *transparent;
                let mut canvas = Canvas::new(width, height, transparent.unwrap_or(0));
                canvas.draw(part, &unpacked.indices, part.width, Some);
                let fill = match self.way {
                    ..FILL => None,
                    FILL => Some(transparent.unwrap_or(background)),
                    RESTORE.. => *transparent,
                };
                canvas.disposal = fill.map(|index| Disposal::Fill(*extent, index));
                // A grey table of its own does not make a first frame grey where the file has colours.
                let shown = if palette.is_grey() { self.blocks.palette() } else { palette };
                self.shown = Shown::Indexed { canvas, palette: shown.clone(), had_colours: !palette.is_grey() };
            }
            Shown::Indexed { canvas, palette: shown, had_colours } => {
                let filling = self.transparent.or(*transparent).unwrap_or(background);
                canvas.note_disposal(self.way, *extent, filling, 0)?;
                if canvas.grow(width, height, 0) {
                    *shown = match (palette.is_grey(), shown.is_grey()) {
                        (false, _) => palette.clone(),
                        (true, false) => Palette::black(),
                        (true, true) => shown.clone(),
                    };
                }
                canvas.draw(part, &unpacked.indices, part.width, |index| is_drawn(index).then_some(index));
                *had_colours = !palette.is_grey();
            }
            Shown::Coloured(canvas) => {
                let filling = palette.fill(transparent.unwrap_or(background));
                canvas.note_disposal(self.way, *extent, filling, [0; 3])?;
                canvas.grow(width, height, if transparent.is_none() { palette.colour(0) } else { [0; 3] });
                let colour = |index: u8| is_drawn(index).then(|| palette.colour(index));
                canvas.draw(*extent, &unpacked.indices, part.width, colour);
            }
        }
        Ok(true)
    }

    /// Disposes of the last frame, and turns all indices into colours if it had any.
    fn dispose(&mut self) {
        match &mut self.shown {
            Shown::Nothing => {}
            Shown::Coloured(canvas) => canvas.dispose(),
            Shown::Indexed { canvas, palette, had_colours } => {
                canvas.dispose();
                if *had_colours {
                    let pixels = canvas.pixels.iter().map(|index| palette.colour(*index)).collect();
                    let (width, height) = (canvas.width, canvas.height);
                    self.shown = Shown::Coloured(Canvas { width, height, pixels, disposal: None });
                }
            }
        }
    }

    /// What is wrong with the file, as far as it has been read.
    pub(super) fn damage(&self) -> Option<&'static str> {
        self.damage
    }

    /// The canvas as it is.
    pub(super) fn picture(&self) -> Result<RgbImage, String> {
        let (width, height, rgb) = match &self.shown {
            Shown::Nothing => return Err("it has no frame".to_owned()),
            Shown::Indexed { canvas, palette, .. } => {
                let colours = canvas.pixels.iter().flat_map(|index| palette.colour(*index));
                (canvas.width, canvas.height, colours.collect())
            }
            Shown::Coloured(canvas) => (canvas.width, canvas.height, canvas.pixels.as_flattened().to_vec()),
        };
        Ok(RgbImage::from_raw(width as u32, height as u32, rgb).expect("as many pixels as its size says"))
    }

    /// The canvas's size once it has room for a frame.
    fn size_with(&self, extent: Extent) -> Result<(usize, usize), String> {
        let (width, height) = match &self.shown {
            Shown::Nothing => (self.blocks.width, self.blocks.height),
            Shown::Indexed { canvas, .. } => (canvas.width, canvas.height),
            Shown::Coloured(canvas) => (canvas.width, canvas.height),
        };
        let (width, height) = (width.max(extent.left + extent.width), height.max(extent.top + extent.height));
        if width * height > LARGEST_CANVAS {
            return Err(format!("its canvas of {width} × {height} pixels is larger than {LARGEST_CANVAS}"));
        }
        check_size(Size::new(width as u32, height as u32), 0)?;
        Ok((width, height))
    }
}

#[cfg(test)]
mod tests {
    use super::Frames;

    /// Against Pillow 13 (`tools/reference/gif_goldens.py`).
    #[test]
    fn frames_are_pillows() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/gif");
        let mut files = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_none_or(|ending| ending != "gif") {
                continue;
            }
            files += 1;
            let bytes = std::fs::read(&path).unwrap();
            let mut frames = Frames::new(&bytes).unwrap();
            let golden = std::fs::read_to_string(path.with_extension("json")).unwrap();
            let golden: Vec<(u32, u32, String)> = serde_json::from_str(&golden).unwrap();
            for (at, (width, height, hex)) in golden.iter().enumerate() {
                let advanced = frames.advance().unwrap_or_else(|error| panic!("{} {at}: {error}", path.display()));
                assert!(advanced, "{} {at}", path.display());
                let picture = frames.picture().unwrap();
                let found: String = picture.iter().map(|byte| format!("{byte:02x}")).collect();
                assert_eq!((picture.width(), picture.height()), (*width, *height), "{} {at}", path.display());
                assert_eq!(&found, hex, "{} frame {at}", path.display());
            }
            assert!(!frames.advance().unwrap());
        }
        assert!(files > 8, "{files} files");
    }
}
