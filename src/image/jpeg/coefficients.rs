//! The coefficients of a picture, and the order in which scans have them.

/// Places of coefficients in a block, by their order in a scan; runs may go sixteen beyond its end.
pub(super) const ZIGZAG: [usize; 80] = [
    0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13, 6, 7, 14, 21,
    28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54,
    47, 55, 62, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63,
];

/// How many there are in a row, and in a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    pub(super) across: usize,
    pub(super) down: usize,
}

/// What the components of a picture share.
#[derive(Clone, Copy)]
pub(super) struct Frame {
    /// Pixels.
    pub(super) pixels: Extent,
    /// The largest sampling factors, horizontal and vertical.
    pub(super) largest: Extent,
}

/// One component of a picture.
#[derive(Clone)]
pub(super) struct Component {
    pub(super) id: u8,
    /// Sampling factors, horizontal and vertical.
    pub(super) sampling: Extent,
    /// The number of its quantization table.
    pub(super) table: usize,
    /// Blocks that the picture needs, in a row and in a column.
    pub(super) needed: Extent,
    /// Blocks in a row and rows of them, with those that fill up the last MCUs.
    pub(super) stored: Extent,
    /// `[rows][blocks in a row][64]`, in the block's own order.
    pub(super) blocks: Vec<[i16; 64]>,
    /// The table, as it was at the component's first scan.
    pub(super) quantization: Option<[u16; 64]>,
    /// For each coefficient: how many of its low bits are not known yet, −1 where nothing is; and the same before the last scan.
    pub(super) bits: [i32; 64],
    pub(super) bits_before: [i32; 64],
}

impl Component {
    /// Without any coefficient.
    pub(super) fn new(id: u8, sampling: Extent, table: usize, frame: Frame) -> Self {
        let Frame { pixels, largest } = frame;
        let (across, down) = (pixels.across.div_ceil(8 * largest.across), pixels.down.div_ceil(8 * largest.down));
        let stored = Extent { across: across * sampling.across, down: down * sampling.down };
        Self {
            id,
            sampling,
            table,
            needed: Extent {
                across: (pixels.across * sampling.across).div_ceil(8 * largest.across),
                down: (pixels.down * sampling.down).div_ceil(8 * largest.down),
            },
            stored,
            blocks: vec![[0; 64]; stored.across * stored.down],
            quantization: None,
            bits: [-1; 64],
            bits_before: [-1; 64],
        }
    }

    /// Its blocks in an MCU of several components.
    pub(super) fn blocks_of_mcu(&self) -> usize {
        self.sampling.across * self.sampling.down
    }
}

/// The MCUs of a scan.
pub(super) struct Mcus {
    /// MCUs in a row and rows of them.
    across: usize,
    down: usize,
    members: Vec<Member>,
    is_interleaved: bool,
}

struct Member {
    place: usize,
    sampling: Extent,
    stored: usize,
}

/// The MCUs of a scan of these components.
pub(super) fn blocks_of_mcus(components: &[&Component], places: &[usize]) -> Mcus {
    let member = |place: &usize| {
        let component = components[*place];
        Member { place: *place, sampling: component.sampling, stored: component.stored.across }
    };
    let first = components[places[0]];
    let is_interleaved = places.len() > 1;
    let Extent { across, down } = if is_interleaved {
        Extent { across: first.stored.across / first.sampling.across, down: first.stored.down / first.sampling.down }
    } else {
        first.needed
    };
    Mcus { across, down, members: places.iter().map(member).collect(), is_interleaved }
}

impl Mcus {
    pub(super) fn count(&self) -> usize {
        self.across * self.down
    }

    /// The blocks of an MCU: the component's place in the scan and in the frame, and the block's number. Returns the row of
    /// whole MCUs that it is in.
    pub(super) fn blocks(&self, index: usize, blocks: &mut Vec<(usize, usize, usize)>) -> usize {
        blocks.clear();
        let (x, y) = (index % self.across, index / self.across);
        if !self.is_interleaved {
            let member = &self.members[0];
            blocks.push((0, member.place, y * member.stored + x));
            return y / member.sampling.down;
        }
        for (at, member) in self.members.iter().enumerate() {
            let Extent { across, down } = member.sampling;
            let rows = (0..down).flat_map(|v| (0..across).map(move |h| (h, v)));
            blocks.extend(rows.map(|(h, v)| (at, member.place, (y * down + v) * member.stored + x * across + h)));
        }
        y
    }
}
