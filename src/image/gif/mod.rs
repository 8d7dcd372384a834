//! GIF as Pillow gives it (`GifImagePlugin.py`): frames of any place and size on a canvas that grows with them, no pixel of it
//! transparent.

mod blocks;
mod lzw;

use self::blocks::{Blocks, Frame, Palette};
use super::{Picture, check_size};

type Rgb = [u8; 3];

/// A part of the canvas: left and upper edge, width and height.
#[derive(Clone, Copy)]
struct Extent {
    left: usize,
    top: usize,
    width: usize,
    height: usize,
}

/// What the canvas gets back before the next frame.
enum Disposal {
    Fill(Extent, Rgb),
    Restore(Extent, Vec<Rgb>),
}

/// Ways of disposal, as a file gives them; those above the last are as the last.
const FILL: u8 = 2;
const RESTORE: u8 = 3;

/// Frames of a GIF file, in order, each as the whole canvas shows it.
pub(super) struct Frames<'a> {
    blocks: Blocks<'a>,
    width: usize,
    height: usize,
    canvas: Vec<Rgb>,
    frames: usize,
    disposal: Option<Disposal>,
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
        let blocks = Blocks::new(bytes)?;
        let (width, height) = (blocks.width, blocks.height);
        Ok(Self { blocks, width, height, canvas: Vec::new(), frames: 0, disposal: None, way: 0, damage: None })
    }

    /// Shows the next frame on the canvas; false behind the last.
    pub(super) fn advance(&mut self) -> Result<bool, String> {
        let Some(frame) = self.blocks.next()? else { return Ok(false) };
        let Frame { extent, palette, transparent, packed, .. } = &frame;
        if frame.disposal != 0 {
            self.way = frame.disposal;
        }
        match self.disposal.take() {
            Some(Disposal::Fill(extent, colour)) => self.each_row(extent, |row, _| row.fill(colour)),
            Some(Disposal::Restore(extent, before)) => {
                self.each_row(extent, |row, at| row.copy_from_slice(&before[at * extent.width..][..row.len()]));
            }
            None => {}
        }
        let first = self.frames == 0;
        let behind = palette.colour(transparent.unwrap_or(0));
        let (width, height) = self.size_with(*extent)?;
        // Without a width at the left edge, Pillow takes the whole canvas for a frame's place.
        let is_whole = extent.left == 0 && extent.width == 0;
        let part = if is_whole { Extent { left: 0, top: 0, width, height } } else { *extent };
        if part.width == 0 || part.height == 0 {
            return Err("a frame has no pixels".to_owned());
        }
        // Before there is a canvas: a small file with a large one that it does not fill costs nothing.
        let unpacked = lzw::unpack(self.blocks.bytes(), packed, part.width, part.height)?;
        self.disposal = self.disposal_of(&frame)?;
        self.grow((width, height), if first || transparent.is_none() { behind } else { [0; 3] });
        let is_unknown = |index: &u8| !palette.has(*index) && *transparent != Some(*index);
        let unknown =
            unpacked.indices.iter().any(is_unknown).then_some("its pixels have colours that its table has not");
        self.damage = self.damage.or(unpacked.damage).or(unknown);
        let shown = if first { part } else { *extent };
        self.each_row(shown, |row, at| {
            for (pixel, index) in row.iter_mut().zip(&unpacked.indices[at * part.width..]) {
                if first || *transparent != Some(*index) {
                    *pixel = palette.colour(*index);
                }
            }
        });
        self.frames += 1;
        Ok(true)
    }

    /// What happens to a frame before the next one.
    fn disposal_of(&self, frame: &Frame) -> Result<Option<Disposal>, String> {
        let Frame { extent, palette, transparent, .. } = frame;
        let first = self.frames == 0;
        // The first frame's pixels are still indices.
        let colour = if first { Palette::colour } else { Palette::fill };
        match self.way {
            ..FILL => Ok(None),
            FILL => {
                let index = transparent.or(self.blocks.background).unwrap_or(0);
                Ok(Some(Disposal::Fill(*extent, colour(palette, index))))
            }
            RESTORE.. if first => Ok(transparent.map(|index| Disposal::Fill(*extent, colour(palette, index)))),
            // Before the canvas grows: what is beyond it comes back black.
            RESTORE.. => {
                check_size((extent.width as u32, extent.height as u32), 0)?;
                Ok(Some(Disposal::Restore(*extent, self.part(*extent))))
            }
        }
    }

    /// The canvas as it is.
    pub(super) fn picture(&self) -> Result<Picture, String> {
        let rgb = self.canvas.as_flattened().to_vec();
        let picture =
            Picture::from_rgb(self.width as u32, self.height as u32, rgb).map_err(|_| "it has no pixels".to_owned());
        picture.map(|picture| Picture { damage: self.damage.map(str::to_owned), ..picture })
    }

    /// A part of the canvas, black where it lies beyond.
    fn part(&self, extent: Extent) -> Vec<Rgb> {
        let at = |x: usize, y: usize| {
            let is_within = x < self.width && y < self.height;
            if is_within { self.canvas[y * self.width + x] } else { [0; 3] }
        };
        let rows = extent.top..extent.top + extent.height;
        rows.flat_map(|y| (extent.left..extent.left + extent.width).map(move |x| at(x, y))).collect()
    }

    /// The canvas's size once it has room for a frame.
    fn size_with(&self, extent: Extent) -> Result<(usize, usize), String> {
        let (width, height) = (self.width.max(extent.left + extent.width), self.height.max(extent.top + extent.height));
        check_size((width as u32, height as u32), 0)?;
        Ok((width, height))
    }

    /// Makes the canvas so large; what is new of it has one colour.
    fn grow(&mut self, (width, height): (usize, usize), colour: Rgb) {
        if !self.canvas.is_empty() && (width, height) == (self.width, self.height) {
            return;
        }
        let mut canvas = vec![colour; width * height];
        for (row, before) in canvas.chunks_exact_mut(width.max(1)).zip(self.canvas.chunks_exact(self.width.max(1))) {
            row[..before.len()].copy_from_slice(before);
        }
        (self.width, self.height, self.canvas) = (width, height, canvas);
    }

    /// Each row of a part of the canvas, with its number in the part.
    fn each_row(&mut self, extent: Extent, mut change: impl FnMut(&mut [Rgb], usize)) {
        let rows = self.canvas.chunks_exact_mut(self.width.max(1)).skip(extent.top).take(extent.height);
        for (at, row) in rows.enumerate() {
            change(&mut row[extent.left..extent.left + extent.width], at);
        }
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
                let found: String = picture.rgb().iter().map(|byte| format!("{byte:02x}")).collect();
                assert_eq!((picture.width(), picture.height()), (*width, *height), "{} {at}", path.display());
                assert_eq!(&found, hex, "{} frame {at}", path.display());
            }
            assert!(!frames.advance().unwrap());
        }
        assert!(files > 8, "{files} files");
    }
}
