//! Products of many rows in a unit of the CPU that multiplies tiles of bf16 numbers and adds them up in f32.
//!
//! Weights of a quantized format and the activations they meet are rounded to bf16: 8 significant bits, more than the
//! codes of 8 bits per block that integer products use have on average. What is held in floating point is multiplied as
//! floating point is: a number is split into *pieces*, each the bf16 number nearest to what those before it leave. Two
//! pieces hold 16 bits, enough for F16; three hold the 24 of f32. The product of pieces `i` and `j` is left out where
//! `i + j` reaches the greater number of pieces: it is smaller than what f32 rounds off.

use crate::Format;
use crate::formats::{Float, with_float};

/// Rows of a tile.
pub const TILE_ROWS: usize = 16;
/// Values of a row in a tile.
pub const TILE_DEPTH: usize = 32;

/// In how many pieces a number is held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pieces {
    /// Rounded to bf16.
    #[default]
    One = 1,
    /// As many bits as F16 has, and more.
    Two = 2,
    /// All bits of an f32.
    Three = 3,
}

impl Pieces {
    /// Most pieces.
    pub(crate) const MOST: usize = Self::Three as usize;

    /// Every number of pieces.
    pub const ALL: [Self; Self::MOST] = [Self::One, Self::Two, Self::Three];

    /// How many.
    pub fn count(self) -> usize {
        self as usize
    }

    /// What holds a weight of `format`; one for quantized formats, whose products are those of rounded numbers.
    pub fn of_weights(format: Format) -> Self {
        Self::ALL[with_float!(format, E => E::PIECES, else 1) - 1]
    }
}

/// 16 × 32 bf16 numbers. On the left of a product `[16 rows][32]`, on the right `[32 / 2][16 columns][2]`.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub struct Tile([u16; TILE_ROWS * TILE_DEPTH]);

/// Numbers from the start of a cache line on: tiles of results that lie in whole lines are read and written faster.
#[derive(Debug, Default)]
pub struct AlignedFloats {
    lines: Vec<Line>,
    len: usize,
}

/// A cache line of numbers.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
struct Line([f32; 16]);

impl AlignedFloats {
    /// Makes room for `len` numbers. Contents are unspecified.
    pub fn resize(&mut self, len: usize) {
        self.lines.resize(len.div_ceil(16), Line([0.0; 16]));
        self.len = len;
    }
}

impl std::ops::Deref for AlignedFloats {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        // SAFETY: the lines are arrays of numbers one behind the other, `len` of them or more.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.len) }
    }
}

impl std::ops::DerefMut for AlignedFloats {
    fn deref_mut(&mut self) -> &mut [f32] {
        // SAFETY: the lines are arrays of numbers one behind the other, `len` of them or more; `self` is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.len) }
    }
}

/// One side of products: strips of sixteen rows (on the right: columns), `[strips][pieces][steps of 32]` tiles. Where rows
/// or depth are no multiple of a tile, zeros fill it up.
#[derive(Debug, Default)]
pub struct Operand {
    tiles: Vec<Tile>,
    strips: usize,
    pieces: Pieces,
    steps: usize,
}

impl Operand {
    /// Makes room for `rows` rows of `depth` values in `pieces` pieces. Contents are unspecified.
    ///
    /// # Panics
    /// When no memory is as large.
    pub fn resize(&mut self, rows: usize, depth: usize, pieces: Pieces) {
        (self.strips, self.pieces, self.steps) = (rows.div_ceil(TILE_ROWS), pieces, depth.div_ceil(TILE_DEPTH));
        let tiles = self.strips.checked_mul(pieces.count()).and_then(|tiles| tiles.checked_mul(self.steps));
        self.tiles.resize(tiles.expect("no memory is as large"), Tile([0; TILE_ROWS * TILE_DEPTH]));
    }

    /// All tiles, `[strips][pieces][steps]`, and how many a strip has, to be filled.
    pub fn tiles_mut(&mut self) -> (&mut [Tile], usize) {
        (&mut self.tiles, (self.pieces.count() * self.steps).max(1))
    }

    /// The strips, to be filled.
    pub fn strips_mut(&mut self) -> std::slice::ChunksExactMut<'_, Tile> {
        let (tiles, strip_len) = self.tiles_mut();
        tiles.chunks_exact_mut(strip_len)
    }

    /// Strips `first .. first + strips`, all of their depth.
    ///
    /// # Panics
    /// When there are not so many.
    pub fn view(&self, first: usize, strips: usize) -> OperandView<'_> {
        let (pieces, steps) = (self.pieces, self.steps);
        // Without depth there are no tiles, and still no more strips than were named.
        assert!(first.checked_add(strips).is_some_and(|end| end <= self.strips), "strips of an operand");
        let strip_len = pieces.count() * steps;
        let tiles = &self.tiles[first * strip_len..(first + strips) * strip_len];
        OperandView { tiles, height: strips, pieces, steps, strip_len, piece_len: steps }
    }
}

/// Strips of an operand, or a K block of them.
#[derive(Clone, Copy, Debug)]
pub struct OperandView<'a> {
    tiles: &'a [Tile],
    /// Number of strips.
    pub(crate) height: usize,
    pub(crate) pieces: Pieces,
    pub(crate) steps: usize,
    /// Tiles from a strip to the next.
    strip_len: usize,
    /// Tiles from a piece to the next.
    piece_len: usize,
}

impl<'a> OperandView<'a> {
    /// Values `start .. start + len` of the depth; whole tiles, but for the end of the depth.
    ///
    /// # Panics
    /// When there are not so many.
    #[must_use]
    pub fn k_block(self, start: usize, len: usize) -> Self {
        let (first, steps) = (start / TILE_DEPTH, len.div_ceil(TILE_DEPTH));
        assert!(start.is_multiple_of(TILE_DEPTH) && first + steps <= self.steps, "a K block of an operand");
        Self { tiles: &self.tiles[first.min(self.tiles.len())..], steps, ..self }
    }

    /// Strips `first .. first + count` of these.
    ///
    /// # Panics
    /// When there are not so many.
    #[must_use]
    pub fn strips(self, first: usize, count: usize) -> Self {
        assert!(first.checked_add(count).is_some_and(|end| end <= self.height), "strips of an operand");
        Self { tiles: &self.tiles[(first * self.strip_len).min(self.tiles.len())..], height: count, ..self }
    }

    /// The same numbers, rounded to their first `pieces` pieces.
    ///
    /// # Panics
    /// When there are not so many.
    #[must_use]
    pub fn rounded(self, pieces: Pieces) -> Self {
        assert!(pieces <= self.pieces, "pieces of an operand");
        Self { pieces, ..self }
    }

    /// The tiles of one piece of a strip, one step after another.
    ///
    /// # Panics
    /// When there is no such piece.
    pub fn tiles(&self, strip: usize, piece: usize) -> &'a [Tile] {
        &self.tiles[strip * self.strip_len + piece * self.piece_len..][..self.steps]
    }
}
