//! Activations quantized to 8 bits: what integer products multiply the weights' codes with.

/// Values that share one activation scale.
pub const ACTIVATION_BLOCK: usize = 32;
/// Values that share one stored sum of codes (the finest group of any weight format).
pub const SUM_BLOCK: usize = 16;

/// One row: `x[i] ≈ scales[i / 32] · codes[i]`.
#[derive(Clone, Copy, Debug)]
pub struct QuantizedRow<'a> {
    /// `[k]` codes in −127..=127.
    pub codes: &'a [i8],
    /// `[k / 32]` scales; not a number where the block held a value that is not finite.
    pub scales: &'a [f32],
    /// `[k / 32]` sums of the represented values: scale · Σ codes.
    pub sums: &'a [f32],
    /// `[k / 32]` sums of codes.
    pub block_sums: &'a [i32],
    /// `[k / 16]` sums of codes.
    pub half_sums: &'a [i32],
    /// `[k / 32]` what 4-bit codes stored around 8 add too much, taken negative: −8 · Σ codes at positions 0 and 1 of each
    /// four, and −8 · Σ codes at positions 2 and 3; of the block, then of its first half. Twice and four times as much for
    /// codes of five and six bits.
    pub pair_offsets: &'a [[[i16; 2]; 2]],
}

/// A mutable view of one row, for the quantizer; the fields are those of [`QuantizedRow`].
#[derive(Debug)]
#[allow(missing_docs)]
pub struct QuantizedRowMut<'a> {
    pub codes: &'a mut [i8],
    pub scales: &'a mut [f32],
    pub sums: &'a mut [f32],
    pub block_sums: &'a mut [i32],
    pub half_sums: &'a mut [i32],
    pub pair_offsets: &'a mut [[[i16; 2]; 2]],
}

impl QuantizedRowMut<'_> {
    /// Checks that the row is one of `k` values.
    ///
    /// # Panics
    /// When it is not, or `k` is no multiple of 32.
    pub(crate) fn check(&self, k: usize) {
        let blocks = k / ACTIVATION_BLOCK;
        assert!(k.is_multiple_of(ACTIVATION_BLOCK) && self.codes.len() == k, "a row of {k} values");
        assert!(self.scales.len() == blocks && self.sums.len() == blocks && self.block_sums.len() == blocks);
        assert!(self.half_sums.len() == k / SUM_BLOCK && self.pair_offsets.len() == blocks);
    }
}

/// A reusable buffer of `rows × k` quantized activations.
#[derive(Debug, Default)]
pub struct QuantizedRows {
    k: usize,
    codes: Vec<i8>,
    scales: Vec<f32>,
    sums: Vec<f32>,
    block_sums: Vec<i32>,
    half_sums: Vec<i32>,
    pair_offsets: Vec<[[i16; 2]; 2]>,
}

impl QuantizedRows {
    /// Makes room for `rows` rows of `k` values (a multiple of 32). Contents are unspecified.
    ///
    /// # Panics
    /// When `k` is no multiple of 32.
    pub fn resize(&mut self, rows: usize, k: usize) {
        assert!(k.is_multiple_of(ACTIVATION_BLOCK), "activation rows of {k} values");
        self.k = k;
        self.codes.resize(rows * k, 0);
        self.scales.resize(rows * k / ACTIVATION_BLOCK, 0.0);
        self.sums.resize(rows * k / ACTIVATION_BLOCK, 0.0);
        self.block_sums.resize(rows * k / ACTIVATION_BLOCK, 0);
        self.half_sums.resize(rows * k / SUM_BLOCK, 0);
        self.pair_offsets.resize(rows * k / ACTIVATION_BLOCK, [[0; 2]; 2]);
    }

    /// Values in a row.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Rows held.
    pub fn rows(&self) -> usize {
        self.codes.len().checked_div(self.k).unwrap_or(0)
    }

    /// One row.
    pub fn row(&self, row: usize) -> QuantizedRow<'_> {
        self.slice(row, 1)
    }

    /// As [`row`](Self::row), with the rows after it behind it: what a kernel that takes several rows points into.
    pub(crate) fn rows_from(&self, first: usize) -> QuantizedRow<'_> {
        self.slice(first, self.rows() - first)
    }

    /// `count` rows, one behind the other.
    fn slice(&self, first: usize, count: usize) -> QuantizedRow<'_> {
        let (blocks, halves) = (self.k / ACTIVATION_BLOCK, self.k / SUM_BLOCK);
        QuantizedRow {
            codes: &self.codes[first * self.k..][..count * self.k],
            scales: &self.scales[first * blocks..][..count * blocks],
            sums: &self.sums[first * blocks..][..count * blocks],
            block_sums: &self.block_sums[first * blocks..][..count * blocks],
            half_sums: &self.half_sums[first * halves..][..count * halves],
            pair_offsets: &self.pair_offsets[first * blocks..][..count * blocks],
        }
    }

    /// All rows as views that may be filled at the same time.
    pub fn rows_mut(&mut self) -> impl Iterator<Item = QuantizedRowMut<'_>> {
        let k = self.k.max(1);
        let (blocks, halves) = ((k / ACTIVATION_BLOCK).max(1), (k / SUM_BLOCK).max(1));
        self.codes
            .chunks_mut(k)
            .zip(self.scales.chunks_mut(blocks).zip(self.sums.chunks_mut(blocks)))
            .zip(self.block_sums.chunks_mut(blocks).zip(self.half_sums.chunks_mut(halves)))
            .zip(self.pair_offsets.chunks_mut(blocks))
            .map(|(((codes, (scales, sums)), (block_sums, half_sums)), pair_offsets)| QuantizedRowMut {
                codes,
                scales,
                sums,
                block_sums,
                half_sums,
                pair_offsets,
            })
    }
}
