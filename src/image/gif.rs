//! GIF as Pillow gives it (`GifImagePlugin.py`): frames of any place and size on a canvas that grows with them, no pixel of it
//! transparent.

use std::borrow::Cow;
use std::io::Cursor;

use gif::{ColorOutput, DecodeOptions, DisposalMethod, MemoryLimit};

use super::{LARGEST_DECODED, Picture, check_size};

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

/// Frames of a GIF file, in order, each as the whole canvas shows it.
pub(super) struct Frames<'a> {
    decoder: gif::Decoder<Cursor<Cow<'a, [u8]>>>,
    width: usize,
    height: usize,
    canvas: Vec<Rgb>,
    frames: usize,
    disposal: Option<Disposal>,
    /// A frame that does not say how it is disposed of is treated as the one before.
    method: DisposalMethod,
}

/// Whether these bytes begin as GIF files do.
pub(super) fn is_gif(bytes: &[u8]) -> bool {
    bytes.starts_with(b"GIF87a") || bytes.starts_with(b"GIF89a")
}

impl<'a> Frames<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Result<Self, String> {
        let mut options = DecodeOptions::new();
        options.set_color_output(ColorOutput::Indexed);
        options.set_memory_limit(MemoryLimit::Bytes(LARGEST_DECODED.try_into().expect("it is not zero")));
        let decoder = options.read_info(Cursor::new(with_colours(bytes))).map_err(|error| error.to_string())?;
        let (width, height) = (usize::from(decoder.width()), usize::from(decoder.height()));
        let method = DisposalMethod::Any;
        Ok(Self { decoder, width, height, canvas: Vec::new(), frames: 0, disposal: None, method })
    }

    /// Shows the next frame on the canvas; false behind the last.
    pub(super) fn advance(&mut self) -> Result<bool, String> {
        let background = self.decoder.bg_color();
        let global = self.decoder.global_palette().map(<[u8]>::to_vec);
        let Some(frame) = self.decoder.read_next_frame().map_err(|error| error.to_string())? else { return Ok(false) };
        let extent = Extent {
            left: frame.left.into(),
            top: frame.top.into(),
            width: frame.width.into(),
            height: frame.height.into(),
        };
        let palette = Palette(frame.palette.clone().or(global));
        let (transparent, pixels) = (frame.transparent, frame.buffer.to_vec());
        if frame.dispose != DisposalMethod::Any {
            self.method = frame.dispose;
        }
        match self.disposal.take() {
            Some(Disposal::Fill(extent, colour)) => self.each_row(extent, |row, _| row.fill(colour)),
            Some(Disposal::Restore(extent, before)) => {
                self.each_row(extent, |row, at| row.copy_from_slice(&before[at * extent.width..][..row.len()]));
            }
            None => {}
        }
        let first = self.frames == 0;
        let behind = transparent.map_or_else(|| palette.colour(0), |index| palette.colour(index));
        let fill = transparent.or_else(|| background.map(|index| index as u8)).unwrap_or(0);
        self.disposal = match self.method {
            DisposalMethod::Any | DisposalMethod::Keep => None,
            DisposalMethod::Background => Some(Disposal::Fill(extent, palette.colour(fill))),
            DisposalMethod::Previous if first => transparent.map(|_| Disposal::Fill(extent, behind)),
            // Before the canvas grows: what is beyond it comes back black.
            DisposalMethod::Previous => {
                check_size((extent.width as u32, extent.height as u32), 0)?;
                Some(Disposal::Restore(extent, self.part(extent)))
            }
        };
        self.grow(extent, if first || transparent.is_none() { behind } else { [0; 3] })?;
        self.each_row(extent, |row, at| {
            for (pixel, index) in row.iter_mut().zip(&pixels[at * extent.width..]) {
                if first || transparent != Some(*index) {
                    *pixel = palette.colour(*index);
                }
            }
        });
        self.frames += 1;
        Ok(true)
    }

    /// The canvas as it is.
    pub(super) fn picture(&self) -> Result<Picture, String> {
        let rgb = self.canvas.as_flattened().to_vec();
        Picture::from_rgb(self.width as u32, self.height as u32, rgb).map_err(|_| "it has no pixels".to_owned())
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

    /// Makes the canvas large enough for a frame; what is new of it has one colour.
    fn grow(&mut self, extent: Extent, colour: Rgb) -> Result<(), String> {
        let (width, height) = (self.width.max(extent.left + extent.width), self.height.max(extent.top + extent.height));
        if !self.canvas.is_empty() && (width, height) == (self.width, self.height) {
            return Ok(());
        }
        check_size((width as u32, height as u32), 0)?;
        let mut canvas = vec![colour; width * height];
        for (row, before) in canvas.chunks_exact_mut(width.max(1)).zip(self.canvas.chunks_exact(self.width.max(1))) {
            row[..before.len()].copy_from_slice(before);
        }
        (self.width, self.height, self.canvas) = (width, height, canvas);
        Ok(())
    }

    /// Each row of a part of the canvas, with its number in the part.
    fn each_row(&mut self, extent: Extent, mut change: impl FnMut(&mut [Rgb], usize)) {
        let rows = self.canvas.chunks_exact_mut(self.width.max(1)).skip(extent.top).take(extent.height);
        for (at, row) in rows.enumerate() {
            change(&mut row[extent.left..extent.left + extent.width], at);
        }
    }
}

/// The file with a table of grey levels where it has no table for all frames, which the decoder wants.
fn with_colours(bytes: &[u8]) -> Cow<'_, [u8]> {
    const HAS_TABLE: u8 = 0x80;
    const OF_256: u8 = 7;
    match bytes.split_at_checked(13) {
        Some((head, rest)) if head[10] & HAS_TABLE == 0 => {
            let mut head = head.to_vec();
            head[10] = head[10] & !OF_256 | HAS_TABLE | OF_256;
            // No colour of the background was given.
            head[11] = 0;
            let levels = (0..=u8::MAX).flat_map(|level| [level; 3]);
            head.into_iter().chain(levels).chain(rest.iter().copied()).collect::<Vec<_>>().into()
        }
        _ => bytes.into(),
    }
}

/// Colours of indices; grey levels where there are none.
struct Palette(Option<Vec<u8>>);

impl Palette {
    fn colour(&self, index: u8) -> Rgb {
        let colours = self.0.as_deref().unwrap_or_default().as_chunks::<3>().0;
        colours.get(usize::from(index)).copied().unwrap_or([index; 3])
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
