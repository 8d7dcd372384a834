//! Unpacks a frame's pixels (LZW) as Pillow 13 does (`GifDecode.c`, `ImageFile.py`), those of damaged data included.

/// Bits of the largest code.
const LARGEST_BITS: u32 = 12;
const TABLE: usize = 1 << LARGEST_BITS;
/// Bytes that Pillow hands to its decoder at once.
const PART: usize = 1 << 16;

/// How a frame's pixels lie in the file.
pub(super) struct Packed {
    /// Where the first block of data begins.
    pub(super) start: usize,
    /// Bits of a pixel; codes begin with one more.
    pub(super) bits: u8,
    pub(super) interlaced: bool,
}

/// Pixels as indices, `[height][width]`, and what is wrong with them.
pub(super) struct Unpacked {
    pub(super) indices: Vec<u8>,
    pub(super) damage: Option<&'static str>,
}

/// A frame's pixels; `width` and `height` are not zero.
pub(super) fn unpack(file: &[u8], packed: &Packed, width: usize, height: usize) -> Result<Unpacked, String> {
    if u32::from(packed.bits) > LARGEST_BITS {
        return Err(format!("its pixels have {} bits, more than {LARGEST_BITS}", packed.bits));
    }
    let mut decoder = Decoder::new(packed, width, height);
    let (mut at, mut given) = (packed.start, packed.start);
    loop {
        if given >= file.len() {
            return Err("its packed pixels end too early".to_owned());
        }
        given = file.len().min(given + PART);
        match decoder.take(&file[at..given])? {
            Step::Done => break,
            Step::More(used) => at += used,
        }
    }
    let damage = decoder.damage();
    let indices = decoder.pixels.indices;
    Ok(Unpacked { indices: if packed.interlaced { in_order(&indices, width, height) } else { indices }, damage })
}

/// What the decoder needs to go on.
enum Step {
    /// Nothing: the frame is full.
    Done,
    /// More of the file; this many of the bytes are used up.
    More(usize),
}

/// What the next code is to the table.
#[derive(Clone, Copy, PartialEq)]
enum State {
    /// The first.
    Start,
    /// The first after the table was cleared.
    Cleared,
    Running,
}

struct Decoder {
    bits: u8,
    state: State,
    /// Bytes that are left of the current block.
    block: usize,
    pool: u32,
    pool_bits: u32,
    code_bits: u32,
    /// The entry that is made next.
    next: usize,
    last_code: usize,
    last_pixel: u8,
    links: Vec<u16>,
    ends: Vec<u8>,
    /// A code's pixels, the last first.
    string: Vec<u8>,
    pixels: Pixels,
    has_ended: bool,
    overflows: bool,
}

impl Decoder {
    fn new(packed: &Packed, width: usize, height: usize) -> Self {
        Self {
            bits: packed.bits,
            state: State::Start,
            block: 0,
            pool: 0,
            pool_bits: 0,
            code_bits: 0,
            next: 0,
            last_code: 0,
            last_pixel: 0,
            links: vec![0; TABLE],
            ends: vec![0; TABLE],
            string: Vec::with_capacity(TABLE),
            pixels: Pixels { indices: Vec::new(), wanted: width * height },
            has_ended: false,
            overflows: false,
        }
    }

    /// The code that clears the table; the next one ends the data.
    fn clear(&self) -> usize {
        1 << self.bits
    }

    fn damage(&self) -> Option<&'static str> {
        if self.has_ended {
            Some("its packed pixels go on behind their end")
        } else if self.overflows {
            Some("its packed pixels are more than its size")
        } else {
            None
        }
    }

    /// Unpacks as much of `bytes` as it can. An end code ends only this call, as in Pillow: a call with more of the file goes on after it.
    fn take(&mut self, bytes: &[u8]) -> Result<Step, String> {
        let broken = || Err("its packed pixels are damaged".to_owned());
        let mut at = 0;
        loop {
            if self.state == State::Start {
                self.next = self.clear() + 2;
                self.code_bits = u32::from(self.bits) + 1;
                self.state = State::Cleared;
            }
            while self.pool_bits < self.code_bits {
                if self.block > 0 {
                    self.pool |= u32::from(bytes[at]) << self.pool_bits;
                    self.pool_bits += 8;
                    (at, self.block) = (at + 1, self.block - 1);
                } else {
                    // A block has to be there as a whole.
                    match bytes.get(at) {
                        Some(&len) if bytes.len() - at > usize::from(len) => {
                            (at, self.block) = (at + 1, usize::from(len));
                            self.has_ended |= len == 0;
                        }
                        _ => return Ok(Step::More(at)),
                    }
                }
            }
            let mask = (1 << self.code_bits) - 1;
            let code = (self.pool & mask) as usize;
            self.pool >>= self.code_bits;
            self.pool_bits -= self.code_bits;
            if code == self.clear() {
                if self.state == State::Running {
                    self.state = State::Start;
                }
                continue;
            }
            if code == self.clear() + 1 {
                self.has_ended = true;
                return Ok(Step::More(at));
            }
            self.string.clear();
            if self.state == State::Cleared {
                if code > self.clear() {
                    return broken();
                }
                (self.last_pixel, self.last_code) = (code as u8, code);
                self.state = State::Running;
            } else if !self.expand(code, mask as usize) {
                return broken();
            }
            if self.put() {
                return Ok(Step::Done);
            }
        }
    }

    /// Puts a code's pixels into `string`, and the entry that it makes into the table. False where the code is invalid.
    fn expand(&mut self, code: usize, mask: usize) -> bool {
        if code > self.next {
            return false;
        }
        let mut at = code;
        if code == self.next {
            self.string.push(self.last_pixel);
            at = self.last_code;
        }
        while at >= self.clear() {
            if self.string.len() == TABLE || at >= TABLE {
                return false;
            }
            self.string.push(self.ends[at]);
            at = usize::from(self.links[at]);
        }
        self.last_pixel = at as u8;
        if self.next < TABLE {
            (self.ends[self.next], self.links[self.next]) = (self.last_pixel, self.last_code as u16);
            if self.next == mask && self.code_bits < LARGEST_BITS {
                self.code_bits += 1;
            }
            self.next += 1;
        }
        self.last_code = code;
        true
    }

    /// Appends a code's pixels. True where the frame is then full.
    fn put(&mut self) -> bool {
        let Self { last_pixel, string, pixels, .. } = self;
        let mut of_code = std::iter::once(*last_pixel).chain(string.iter().rev().copied());
        let is_full = of_code.any(|pixel| pixels.put(pixel));
        self.overflows = of_code.next().is_some();
        is_full
    }
}

/// A frame's pixels in the order of its file. Memory grows with what comes, not with what is promised.
struct Pixels {
    indices: Vec<u8>,
    wanted: usize,
}

impl Pixels {
    /// Appends a pixel. True where it is the last.
    fn put(&mut self, pixel: u8) -> bool {
        self.indices.push(pixel);
        self.indices.len() == self.wanted
    }
}

/// Puts interlaced rows in order, from top to bottom. The file has them in four passes: every eighth row, those halfway between, and so on.
fn in_order(indices: &[u8], width: usize, height: usize) -> Vec<u8> {
    const PASSES: [(usize, usize); 4] = [(0, 8), (4, 8), (2, 4), (1, 2)];
    let mut ordered = vec![0; indices.len()];
    let rows = PASSES.iter().flat_map(|&(start, step)| (start..height).step_by(step));
    for (row, pixels) in rows.zip(indices.chunks_exact(width)) {
        ordered[row * width..][..width].copy_from_slice(pixels);
    }
    ordered
}
