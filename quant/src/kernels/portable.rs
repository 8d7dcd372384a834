//! Plain Rust: complete, and the reference for every other instruction set.

use std::ops::Range;

use super::operands::{Arrangement, FloatPanel, FloatRows, IntegerPanel, IntegerRows, PANEL_ROWS, TileOut};
use super::table::{Codec, FloatProducts, IntegerProducts, RowProducts, Table, Vector};
use crate::activation::{ACTIVATION_BLOCK, QuantizedRow, SUM_BLOCK};
use crate::formats::{self, Block, Float, MAX_BLOCK, MAX_GROUPS, with_block, with_float};
use crate::{Format, MatrixView, StridedRows, vector};

/// The kernels.
pub(crate) const TABLE: Table = Table {
    codec: Codec {
        encode_row: formats::encode_row,
        round_block: formats::round_portably,
        decode_row: formats::decode_row,
        squared_error: formats::squared_error,
        quantize: vector::quantize,
        to_half: vector::to_half,
    },
    rows: RowProducts { dot_float, dot_integer, add_scaled },
    float: FloatProducts { pack: pack_float, tile: float_tile, two_tiles: None, pair_tile },
    integer: IntegerProducts {
        pack: pack_integer,
        arrangement: |_| Arrangement::Portable,
        tile: integer_tile,
        two_tiles: None,
    },
    vector: Vector {
        read: vector::read,
        gelu: vector::gelu,
        gelu_multiply: vector::gelu_multiply,
        softcap: vector::softcap,
        softmax_tile: vector::softmax_tile,
        add: vector::add,
        add_multiple: vector::add_multiple,
        scale: vector::scale,
        rms_norm: vector::rms_norm,
        add_rms_norm: vector::add_rms_norm,
        layer_norm: vector::layer_norm,
        rotate: vector::rotate,
    },
    unit: None,
};

fn dot_float_row<E: Float>(row: &[u8], x: &[f32]) -> f32 {
    let mut lanes = [0.0f32; 8];
    let (chunks, rest) = x.as_chunks::<8>();
    let (bytes, bytes_rest) = row.split_at(chunks.len() * 8 * E::BYTES);
    for (x, bytes) in chunks.iter().zip(bytes.chunks_exact(8 * E::BYTES)) {
        for lane in 0..8 {
            lanes[lane] += x[lane] * E::load(&bytes[lane * E::BYTES..]);
        }
    }
    let tail: f32 = rest.iter().zip(bytes_rest.chunks_exact(E::BYTES)).map(|(x, bytes)| x * E::load(bytes)).sum();
    lanes.iter().sum::<f32>() + tail
}

pub(super) fn dot_float(rows: StridedRows<'_>, x: &[f32], out: &mut [f32]) {
    for (row, out) in out.iter_mut().enumerate() {
        *out = with_float!(rows.format(), E => dot_float_row::<E>(rows.row(row), x),
            else unreachable!("strided rows are floating-point"));
    }
}

/// The sum of the activations of a group of `group` values, 16 or 32, of which `start` is the first.
fn group_sum(x: QuantizedRow<'_>, group: usize, start: usize) -> f32 {
    let block = start / ACTIVATION_BLOCK;
    if group == SUM_BLOCK { x.scales[block] * x.half_sums[start / SUM_BLOCK] as f32 } else { x.sums[block] }
}

fn dot_integer_row<B: Block>(row: &[u8], x: QuantizedRow<'_>) -> f32 {
    let (mut scales, mut biases) = ([0.0; MAX_GROUPS], [0.0; MAX_GROUPS]);
    let mut codes = [0i8; MAX_BLOCK];
    let mut sum = 0.0;
    for (index, block) in row.chunks_exact(B::BYTES).enumerate() {
        B::scales(block, &mut scales, &mut biases);
        B::codes(block, &mut codes);
        for group in 0..B::LEN / B::GROUP {
            let start = index * B::LEN + group * B::GROUP;
            let products = codes[group * B::GROUP..][..B::GROUP].iter().zip(&x.codes[start..]);
            let dot: i32 = products.map(|(w, x)| i32::from(*w) * i32::from(*x)).sum();
            sum += scales[group] * x.scales[start / ACTIVATION_BLOCK] * dot as f32;
            if B::BIASED {
                sum += biases[group] * group_sum(x, B::GROUP, start);
            }
        }
    }
    sum
}

pub(super) fn dot_integer(weights: MatrixView<'_>, rows: Range<usize>, x: &[QuantizedRow<'_>], out: &mut [f32]) {
    let (format, count) = (weights.format(), rows.len());
    for (j, row) in rows.enumerate() {
        let row = weights.row(row);
        for (t, x) in x.iter().enumerate() {
            out[t * count + j] = with_block!(format, B => dot_integer_row::<B>(row, *x),
                else panic!("{format} is no quantized format"));
        }
    }
}

pub(super) fn add_scaled_row<E: Float>(factor: f32, row: &[u8], out: &mut [f32]) {
    for (out, bytes) in out.iter_mut().zip(row.chunks_exact(E::BYTES)) {
        *out += factor * E::load(bytes);
    }
}

pub(super) fn add_scaled(factors: &[f32], rows: StridedRows<'_>, out: &mut [f32]) {
    for (row, factor) in factors.iter().enumerate() {
        with_float!(rows.format(), E => add_scaled_row::<E>(*factor, rows.row(row), out),
            else unreachable!("strided rows are floating-point"));
    }
}

#[inline(always)]
fn pack_float_rows<E: Float>(rows: &[&[u8]], k: usize, panel: &mut FloatPanel) {
    panel.values.clear();
    panel.values.resize(k * PANEL_ROWS, 0.0);
    for (j, row) in rows.iter().enumerate() {
        for (bytes, out) in row.chunks_exact(E::BYTES).zip(panel.values.chunks_exact_mut(PANEL_ROWS)) {
            out[j] = E::load(bytes);
        }
    }
}

#[inline(always)]
pub(crate) fn pack_float(format: Format, rows: &[&[u8]], k: usize, panel: &mut FloatPanel) {
    with_float!(format, E => pack_float_rows::<E>(rows, k, panel), else panic!("{format} is no floating-point format"));
}

fn pack_quads<B: Block>(rows: &[&[u8]], k: usize, panel: &mut IntegerPanel) {
    panel.prepare::<B>(Arrangement::Portable, rows.len(), k);
    let (mut scales, mut biases) = ([0.0; MAX_GROUPS], [0.0; MAX_GROUPS]);
    let mut codes = [0i8; MAX_BLOCK];
    let groups = B::LEN / B::GROUP;
    for (j, row) in rows.iter().enumerate() {
        for (index, block) in row.chunks_exact(B::BYTES).take(k / B::LEN).enumerate() {
            B::scales(block, &mut scales, &mut biases);
            B::codes(block, &mut codes);
            for (step, codes) in codes[..B::LEN].chunks_exact(4).enumerate() {
                let line = &mut panel.codes[index * (B::LEN / 4) + step];
                for (out, code) in line.0[j * 4..][..4].iter_mut().zip(codes) {
                    *out = *code as u8;
                }
            }
            for group in 0..groups {
                panel.scales[(index * groups + group) * PANEL_ROWS + j] = scales[group];
                if B::BIASED {
                    panel.biases[(index * groups + group) * PANEL_ROWS + j] = biases[group];
                }
            }
        }
    }
}

pub(crate) fn pack_integer(format: Format, rows: &[&[u8]], k: usize, panel: &mut IntegerPanel) {
    with_block!(format, B => pack_quads::<B>(rows, k, panel), else panic!("{format} is no quantized format"));
}

fn float_tile(panel: &[f32], x: FloatRows<'_>, out: TileOut<'_>) {
    for i in 0..x.rows {
        let row = &x.values[i * x.stride..][..x.k];
        let out_row = &mut out.values[i * out.stride..][..PANEL_ROWS];
        let mut sums = [0.0f32; PANEL_ROWS];
        if out.accumulate {
            sums.copy_from_slice(out_row);
        }
        for (k, x) in row.iter().enumerate() {
            let weights = &panel[k * PANEL_ROWS..][..PANEL_ROWS];
            for (sum, weight) in sums.iter_mut().zip(weights) {
                *sum += x * weight;
            }
        }
        out_row.copy_from_slice(&sums);
    }
}

fn pair_tile(panel: &[f32], x: FloatRows<'_>, out: TileOut<'_>) {
    let panel = &panel[..x.k / 2 * PANEL_ROWS];
    for i in 0..x.rows {
        let row = &x.values[i * x.stride..][..x.k];
        let out_row = &mut out.values[i * out.stride..][..PANEL_ROWS];
        if !out.accumulate {
            out_row.fill(0.0);
        }
        for (pair, line) in row.as_chunks::<2>().0.iter().zip(panel.chunks_exact(PANEL_ROWS)) {
            for (sums, values) in out_row.as_chunks_mut::<2>().0.iter_mut().zip(line.as_chunks::<2>().0) {
                *sums = [sums[0] + pair[0] * values[0], sums[1] + pair[1] * values[1]];
            }
        }
    }
}

pub(crate) fn integer_tile(panel: &IntegerPanel, x: IntegerRows<'_>, out: TileOut<'_>) {
    for i in 0..x.rows {
        let row = x.values.row(x.first + i);
        let codes = &row.codes[x.column..][..panel.k];
        let out_row = &mut out.values[i * out.stride..][..PANEL_ROWS];
        let mut totals = [0.0f32; PANEL_ROWS];
        if out.accumulate {
            totals.copy_from_slice(out_row);
        }
        for (group, codes) in codes.chunks_exact(panel.shape.group).enumerate() {
            let block = (x.column + group * panel.shape.group) / ACTIVATION_BLOCK;
            let mut sums = [0i32; PANEL_ROWS];
            for (x, weights) in codes.as_chunks::<4>().0.iter().zip(&panel.codes[group * panel.shape.group / 4..]) {
                for (sum, weights) in sums.iter_mut().zip(weights.0.as_chunks::<4>().0) {
                    for (w, x) in weights.iter().zip(x) {
                        *sum += i32::from(*w as i8) * i32::from(*x);
                    }
                }
            }
            for j in 0..PANEL_ROWS {
                totals[j] += panel.scales[group * PANEL_ROWS + j] * row.scales[block] * sums[j] as f32;
            }
            if !panel.biases.is_empty() {
                let sum = group_sum(row, panel.shape.group, x.column + group * panel.shape.group);
                for j in 0..PANEL_ROWS {
                    totals[j] += panel.biases[group * PANEL_ROWS + j] * sum;
                }
            }
        }
        out_row.copy_from_slice(&totals);
    }
}
