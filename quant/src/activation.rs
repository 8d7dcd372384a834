//! Activations quantized to 8 bits: what integer products multiply the weights' codes with.

/// Values that share one activation scale.
pub const ACTIVATION_BLOCK: usize = 32;
/// Values that share one stored sum (the finest group of any weight format).
pub const SUM_BLOCK: usize = 16;

/// One row: `x[i] ≈ scales[i / 32] · codes[i]`.
#[derive(Clone, Copy, Debug)]
pub struct QuantizedRow<'a> {
    /// `[k]` codes in −127..=127.
    pub codes: &'a [i8],
    /// `[k / 32]` scales; not a number where the block held a value that is not finite.
    pub scales: &'a [f32],
    /// `[k / 16]` sums of the represented values: scale · Σ codes.
    pub sums: &'a [f32],
}

/// A mutable view of one row, for the quantizer.
#[derive(Debug)]
pub struct QuantizedRowMut<'a> {
    /// As [`QuantizedRow::codes`].
    pub codes: &'a mut [i8],
    /// The same codes in 16 bits, or empty.
    pub wide: &'a mut [i16],
    /// As [`QuantizedRow::scales`].
    pub scales: &'a mut [f32],
    /// As [`QuantizedRow::sums`].
    pub sums: &'a mut [f32],
}

/// A reusable buffer of `rows × k` quantized activations.
#[derive(Debug, Default)]
pub struct QuantizedRows {
    k: usize,
    codes: Vec<i8>,
    wide: Vec<i16>,
    scales: Vec<f32>,
    sums: Vec<f32>,
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
        self.wide.resize(rows * k, 0);
        self.scales.resize(rows * k / ACTIVATION_BLOCK, 0.0);
        self.sums.resize(rows * k / SUM_BLOCK, 0.0);
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
        QuantizedRow {
            codes: &self.codes[row * self.k..][..self.k],
            scales: &self.scales[row * self.k / ACTIVATION_BLOCK..][..self.k / ACTIVATION_BLOCK],
            sums: &self.sums[row * self.k / SUM_BLOCK..][..self.k / SUM_BLOCK],
        }
    }

    /// The codes of one row in 16 bits.
    pub fn wide(&self, row: usize) -> &[i16] {
        &self.wide[row * self.k..][..self.k]
    }

    /// All rows as views that may be filled at the same time.
    pub fn rows_mut(&mut self) -> impl Iterator<Item = QuantizedRowMut<'_>> {
        let k = self.k.max(1);
        self.codes
            .chunks_mut(k)
            .zip(self.wide.chunks_mut(k))
            .zip(self.scales.chunks_mut((k / ACTIVATION_BLOCK).max(1)))
            .zip(self.sums.chunks_mut((k / SUM_BLOCK).max(1)))
            .map(|(((codes, wide), scales), sums)| QuantizedRowMut { codes, wide, scales, sums })
    }
}
