//! The blocks of a GIF file, as Pillow 13 reads them (`GifImagePlugin.py`).

use super::lzw::Packed;

pub(super) type Rgb = [u8; 3];

/// A part of the canvas: left and upper edge, width and height.
#[derive(Clone, Copy)]
pub(super) struct Extent {
    pub(super) left: usize,
    pub(super) top: usize,
    pub(super) width: usize,
    pub(super) height: usize,
}

/// Flag of the file and of each frame: a table of colours follows.
const HAS_TABLE: u8 = 0x80;
const INTERLACED: u8 = 0x40;
const EXTENSION: u8 = b'!';
const IMAGE: u8 = b',';
const TRAILER: u8 = b';';
const CONTROL: u8 = 249;
const COMMENT: u8 = 254;
const APPLICATION: u8 = 255;

/// Colours by index. Where there are none, an index is a grey level.
#[derive(Clone)]
pub(super) struct Palette(Vec<Rgb>);

impl Palette {
    /// Black alone.
    pub(super) fn black() -> Self {
        Self(vec![[0; 3]])
    }

    pub(super) fn is_grey(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn has(&self, index: u8) -> bool {
        self.0.is_empty() || usize::from(index) < self.0.len()
    }

    /// What a pixel looks like: black where the table does not have it.
    pub(super) fn colour(&self, index: u8) -> Rgb {
        match self.0.get(usize::from(index)) {
            Some(colour) => *colour,
            None if self.0.is_empty() => [index; 3],
            None => [0; 3],
        }
    }

    /// What an area looks like that is filled with a colour: the first one where the table does not have it.
    pub(super) fn fill(&self, index: u8) -> Rgb {
        self.colour(if self.has(index) { index } else { 0 })
    }
}

/// A frame as its file describes it.
pub(super) struct Frame {
    pub(super) extent: Extent,
    /// Its own, or the file's.
    pub(super) palette: Palette,
    pub(super) transparent: Option<u8>,
    /// How it is disposed of; 0 where it does not say.
    pub(super) disposal: u8,
    pub(super) packed: Packed,
}

pub(super) struct Blocks<'a> {
    bytes: &'a [u8],
    at: usize,
    pub(super) width: usize,
    pub(super) height: usize,
    palette: Palette,
    /// Index of the background's colour.
    pub(super) background: Option<u8>,
    has_frame: bool,
    /// Whether the blocks of a frame's pixels come next.
    is_in_pixels: bool,
}

impl<'a> Blocks<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Result<Self, String> {
        let mut blocks = Self {
            bytes,
            at: 6,
            width: 0,
            height: 0,
            palette: Palette(Vec::new()),
            background: None,
            has_frame: false,
            is_in_pixels: false,
        };
        let [w0, w1, h0, h1, flags, background, _ratio] = blocks.take()?;
        (blocks.width, blocks.height) = (number([w0, w1]), number([h0, h1]));
        if flags & HAS_TABLE != 0 {
            blocks.background = Some(background);
            blocks.palette = blocks.table(flags);
        }
        Ok(blocks)
    }

    /// The file's palette.
    pub(super) fn palette(&self) -> &Palette {
        &self.palette
    }

    pub(super) fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The next frame; none behind the last, or where the file ends before one.
    pub(super) fn next(&mut self) -> Result<Option<Frame>, String> {
        if std::mem::take(&mut self.is_in_pixels) {
            self.skip();
        }
        let (mut transparent, mut disposal) = (None, 0);
        loop {
            match self.byte() {
                None | Some(TRAILER) => return Ok(None),
                Some(EXTENSION) => {
                    let [label] = self.take()?;
                    let block = self.block();
                    match (label, block) {
                        (CONTROL, Some(block)) => {
                            let &[flags, _, _, ref rest @ ..] = block else { return Err(cut()) };
                            if flags & 1 != 0 {
                                transparent = Some(*rest.first().ok_or_else(cut)?);
                            }
                            if flags >> 2 & 7 != 0 {
                                disposal = flags >> 2 & 7;
                            }
                        }
                        (COMMENT, None) => continue,
                        (APPLICATION, Some(block)) if !self.has_frame && block.starts_with(b"NETSCAPE2.0") => {
                            self.block();
                        }
                        _ => {}
                    }
                    self.skip();
                }
                Some(IMAGE) => {
                    let [x0, x1, y0, y1, w0, w1, h0, h1, flags] = self.take()?;
                    let extent = Extent {
                        left: number([x0, x1]),
                        top: number([y0, y1]),
                        width: number([w0, w1]),
                        height: number([h0, h1]),
                    };
                    let own = if flags & HAS_TABLE != 0 { Some(self.table(flags)) } else { None };
                    let palette = own.unwrap_or_else(|| self.palette.clone());
                    let [bits] = self.take()?;
                    let packed = Packed { start: self.at, bits, interlaced: flags & INTERLACED != 0 };
                    (self.has_frame, self.is_in_pixels) = (true, true);
                    return Ok(Some(Frame { extent, palette, transparent, disposal, packed }));
                }
                Some(_) => {}
            }
        }
    }

    fn byte(&mut self) -> Option<u8> {
        let byte = *self.bytes.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    fn take<const LEN: usize>(&mut self) -> Result<[u8; LEN], String> {
        let taken = self.bytes.get(self.at..).and_then(<[u8]>::first_chunk).ok_or_else(cut)?;
        self.at += LEN;
        Ok(*taken)
    }

    /// Reads a table of colours. A table of grey levels in order counts as none, as in Pillow.
    fn table(&mut self, flags: u8) -> Palette {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let len = (6 << (flags & 7)).min(rest.len());
        self.at += len;
        let colours = rest[..len].as_chunks::<3>().0;
        let is_grey = colours.iter().zip(0..=u8::MAX).all(|(colour, level)| *colour == [level; 3]);
        Palette(if is_grey { Vec::new() } else { colours.to_vec() })
    }

    /// The next sub-block; none at the end of a series of them.
    fn block(&mut self) -> Option<&'a [u8]> {
        let len = usize::from(self.byte()?);
        let rest = &self.bytes[self.at..];
        let block = &rest[..len.min(rest.len())];
        self.at += block.len();
        (len != 0).then_some(block)
    }

    /// Skips to the end of a series of sub-blocks.
    fn skip(&mut self) {
        while self.block().is_some() {}
    }
}

fn cut() -> String {
    "the file ends in the middle of a block".to_owned()
}

fn number(bytes: [u8; 2]) -> usize {
    u16::from_le_bytes(bytes).into()
}
