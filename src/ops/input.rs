//! Activations prepared for products: quantized, or as tiles of a matrix unit, once for all products that share them.

use gemmule_quant::activation::ACTIVATION_BLOCK;
use gemmule_quant::kernels::FloatRows;
use gemmule_quant::matrix_unit::{Operand, Pieces, TILE_ROWS, Tile};
use gemmule_quant::{Format, MatrixUnit, QuantizedRows};

use super::Compute;

/// From so many rows of a prompt or picture on, weights are unpacked into panels; below, they are multiplied as they lie.
pub(super) const PANEL_FROM: usize = 8;

/// Most rows of generated tokens in a product.
pub(crate) const MOST_GENERATED: usize = 16;

/// What the weights of products ask of their input; one preparation serves all that share it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Needs {
    /// Some weights are quantized.
    integer: bool,
    /// Some weights are floating-point numbers.
    float: bool,
    /// Each row belongs to a generated token.
    generated: bool,
}

impl Needs {
    /// Those of weights of these formats.
    pub(crate) fn of(formats: impl IntoIterator<Item = Format>) -> Self {
        formats.into_iter().fold(Self::default(), |needs, format| {
            let integer = format.info().integer;
            Self { integer: needs.integer || integer, float: needs.float || !integer, ..needs }
        })
    }

    /// For rows of generated tokens, whose products are row dots however many they are: a token's bits depend on no other's.
    pub(crate) fn of_generated(self) -> Self {
        Self { generated: true, ..self }
    }

    /// Whether products with `rows` rows take weights as they lie.
    fn takes_row_dots(self, rows: usize) -> bool {
        self.generated || rows < PANEL_FROM
    }

    /// Pieces that attention over the products needs: quantized weights leave less than two hold.
    pub(crate) fn attention_pieces(self) -> Pieces {
        if self.float { Pieces::Three } else { Pieces::Two }
    }
}

/// How an input was prepared, beside its values.
#[derive(Clone, Copy, Debug)]
pub(super) enum Prepared<'a> {
    /// Not at all: floating-point weights take the values.
    Values,
    /// For integer products.
    Quantized(&'a QuantizedRows),
    /// For the matrix unit.
    Tiles(&'a Operand),
}

/// The left-hand side of products: `rows × k` activations, prepared once for all products that share them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Input<'a> {
    /// Empty where tiles alone were made.
    pub(super) values: &'a [f32],
    pub(super) prepared: Prepared<'a>,
    pub(super) rows: usize,
    pub(super) k: usize,
    /// Weights are multiplied as they lie, not in panels.
    pub(super) row_dots: bool,
}

impl<'a> Input<'a> {
    /// `[rows][k]`; empty where tiles alone were made, which an observer prevents.
    pub(crate) fn values(&self) -> &'a [f32] {
        self.values
    }

    /// Values of a row.
    pub(crate) fn columns(&self) -> usize {
        self.k
    }

    pub(super) fn quantized(&self) -> &'a QuantizedRows {
        match self.prepared {
            Prepared::Quantized(rows) => rows,
            _ => panic!("input prepared for integer products"),
        }
    }
}

/// A reusable buffer of prepared activations.
#[derive(Debug, Default)]
pub(crate) struct InputBuffer {
    quantized: QuantizedRows,
    tiles: Operand,
}

impl InputBuffer {
    /// Prepares `values` (rows of `k`) for products with weights that need `needs`.
    pub(crate) fn prepare<'a>(&'a mut self, compute: &Compute, values: &'a [f32], k: usize, needs: Needs) -> Input<'a> {
        let prepared = if let Some((unit, pieces)) = self.make_tiles(compute, values.len() / k, k, needs) {
            let strips = values.chunks(TILE_ROWS * k).zip(self.tiles.strips_mut());
            compute.pool.each(strips, |_, (values, strip)| pack(unit, values, k, pieces, strip));
            Prepared::Tiles(&self.tiles)
        } else if self.make_rows(values.len() / k, k, needs) {
            let rows = values.chunks_exact(k).zip(self.quantized.rows_mut());
            compute.pool.each(rows, |_, (values, row)| compute.kernels.quantize(values, row));
            Prepared::Quantized(&self.quantized)
        } else {
            Prepared::Values
        };
        let rows = values.len() / k;
        Input { values, prepared, rows, k, row_dots: needs.takes_row_dots(rows) }
    }

    /// As [`prepare`](Self::prepare), where `fill(row, values)` first computes each row of `values`.
    pub(crate) fn prepare_with<'a>(
        &'a mut self,
        compute: &Compute,
        values: &'a mut [f32],
        k: usize,
        needs: Needs,
        fill: impl Fn(usize, &mut [f32]) + Sync + Send,
    ) -> Input<'a> {
        let prepared = if let Some((unit, pieces)) = self.make_tiles(compute, values.len() / k, k, needs) {
            let strips = values.chunks_mut(TILE_ROWS * k).zip(self.tiles.strips_mut());
            compute.pool.each(strips, |index, (values, strip)| {
                for (row, values) in values.chunks_exact_mut(k).enumerate() {
                    fill(index * TILE_ROWS + row, values);
                }
                pack(unit, values, k, pieces, strip);
            });
            Prepared::Tiles(&self.tiles)
        } else if self.make_rows(values.len() / k, k, needs) {
            let rows = values.chunks_exact_mut(k).zip(self.quantized.rows_mut());
            compute.pool.each(rows, |index, (values, row)| {
                fill(index, values);
                compute.kernels.quantize(values, row);
            });
            Prepared::Quantized(&self.quantized)
        } else {
            compute.pool.rows(values, k, fill);
            Prepared::Values
        };
        let rows = values.len() / k;
        Input { values, prepared, rows, k, row_dots: needs.takes_row_dots(rows) }
    }

    /// Makes room for tiles, where a matrix unit will take them; returns it and the number of pieces.
    fn make_tiles(&mut self, compute: &Compute, rows: usize, k: usize, needs: Needs) -> Option<(MatrixUnit, Pieces)> {
        let unit = compute.kernels.matrix_unit().filter(|_| !needs.takes_row_dots(rows))?;
        let pieces = if needs.float { Pieces::Three } else { Pieces::One };
        self.tiles.resize(rows, k, pieces);
        Some((unit, pieces))
    }

    /// Makes room for quantized rows, where integer products will take them.
    fn make_rows(&mut self, rows: usize, k: usize, needs: Needs) -> bool {
        let integer = needs.integer && k.is_multiple_of(ACTIVATION_BLOCK);
        if integer {
            self.quantized.resize(rows, k);
        }
        integer
    }
}

/// What a product makes for another one alone: prepared for it as it is made, where that can be.
#[derive(Debug, Default)]
pub(crate) struct Hidden {
    values: Vec<f32>,
    prepared: InputBuffer,
}

impl Hidden {
    /// Room for `rows` rows of `k` values as tiles, where a matrix unit will take them rounded to one piece and nobody observes them.
    pub(super) fn tiles(
        &mut self,
        compute: &Compute,
        rows: usize,
        k: usize,
        needs: Needs,
    ) -> Option<(MatrixUnit, &mut Operand)> {
        if compute.observer.is_some() {
            return None;
        }
        let (unit, _) =
            self.prepared.make_tiles(compute, rows, k, needs).filter(|(_, pieces)| *pieces == Pieces::One)?;
        Some((unit, &mut self.prepared.tiles))
    }

    /// The input that [`tiles`](Self::tiles) have become.
    pub(super) fn input_of_tiles(&self, rows: usize, k: usize) -> Input<'_> {
        Input { values: &[], prepared: Prepared::Tiles(&self.prepared.tiles), rows, k, row_dots: false }
    }

    /// Room for so many values.
    pub(super) fn values(&mut self, len: usize) -> &mut [f32] {
        if self.values.len() < len {
            self.values.resize(len, 0.0);
        }
        &mut self.values[..len]
    }

    /// The input that [`values`](Self::values) have become.
    pub(super) fn input_of_values(&mut self, compute: &Compute, rows: usize, k: usize, needs: Needs) -> Input<'_> {
        self.prepared.prepare(compute, &self.values[..rows * k], k, needs)
    }
}

/// Up to [`TILE_ROWS`] rows of activations as a strip of a matrix unit's operand.
fn pack(unit: MatrixUnit, values: &[f32], k: usize, pieces: Pieces, strip: &mut [Tile]) {
    unit.pack_right(FloatRows { values, stride: k, rows: values.len() / k, k }, pieces, strip);
}
