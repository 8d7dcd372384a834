//! What a worker needs beside its block of the output.

use gemmule_quant::kernels::{FloatRows, TileOut};
use gemmule_quant::matrix_unit::{AlignedFloats, TILE_ROWS};
use gemmule_quant::{FloatPanel, IntegerPanel, Kernels, Operand};

/// Most panels that are unpacked and multiplied together.
pub(super) const MOST_PANELS: usize = 2;

/// What a worker needs beside its block of the output.
#[derive(Debug, Default)]
pub(crate) struct WorkerScratch {
    /// Weights unpacked for a product, of a floating-point format, and of a quantized one.
    pub(super) float_panel: FloatPanel,
    pub(super) integer_panels: [IntegerPanel; MOST_PANELS],
    /// A matrix unit's left side: a K block of weights.
    pub(crate) weights: Operand,
    /// Results of a product.
    pub(super) results: Results,
    /// Results of the other factor of a gated product.
    pub(super) up: Results,
    /// A few rows of results, transposed.
    pub(super) strips: [AlignedFloats; 2],
    /// Results of attention.
    pub(crate) tile: AlignedFloats,
    pub(crate) scores: AlignedFloats,
    pub(crate) scaled: Vec<f32>,
    /// A matrix unit's queries.
    pub(crate) queries: Operand,
}

/// The results of a task's product.
#[derive(Debug, Default)]
pub(super) struct Results {
    pub(super) values: AlignedFloats,
    pub(super) stride: usize,
    /// Whether a row of these is a column of the output.
    pub(super) transposed: bool,
}

impl Results {
    pub(super) fn resize(&mut self, rows: usize, stride: usize, transposed: bool) {
        self.values.resize(rows * stride);
        (self.stride, self.transposed) = (stride, transposed);
    }

    /// What a matrix unit makes of one row of weights, a value for each row of the input.
    pub(super) fn line(&mut self, column: usize) -> &mut [f32] {
        assert!(self.transposed, "results of a matrix unit");
        &mut self.values[column * self.stride..][..self.stride]
    }

    /// What a matrix unit makes of `rows` rows of the input from `first` on, a row of weights behind the other.
    pub(super) fn lines(&self, first: usize, rows: usize) -> FloatRows<'_> {
        assert!(self.transposed, "results of a matrix unit");
        let values = &self.values[first..];
        FloatRows { values, stride: self.stride, rows: self.values.len() / self.stride, k: rows }
    }

    /// Rows `first .. first + TILE_ROWS` of the output, as far as there are any, and the distance between them; transposed
    /// results go to `buffer`.
    pub(super) fn strip<'a>(
        &'a mut self,
        kernels: Kernels,
        first: usize,
        buffer: &'a mut AlignedFloats,
    ) -> (&'a mut [f32], usize) {
        let Some(unit) = kernels.matrix_unit().filter(|_| self.transposed) else {
            return (&mut self.values[first * self.stride..], self.stride);
        };
        let columns = self.values.len() / self.stride;
        buffer.resize(TILE_ROWS * columns);
        let values = FloatRows { values: &self.values[first..], stride: self.stride, rows: columns, k: TILE_ROWS };
        unit.transpose(values, TileOut { values: buffer, stride: columns, accumulate: false });
        (buffer, columns)
    }
}
