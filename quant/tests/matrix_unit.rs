//! Matrix units, where this machine has one, against plain arithmetic on values rounded as they round them.

mod support;

use gemmule_quant::kernels::{FloatRows, TileOut};
use gemmule_quant::{FORMATS, Format, MatrixUnit, Operand, Pieces, decode_row};
use support::{Random, Sum, all_kernels, assert_close, exact, lengths, random_row};

/// What the first `pieces` bf16 numbers hold of a value.
fn in_pieces(value: f32, pieces: Pieces) -> f32 {
    let mut left = value;
    (0..pieces.count()).fold(0.0, |sum, _| {
        let piece = half::bf16::from_f32(left).to_f32();
        left -= piece;
        sum + piece
    })
}

/// Products of a matrix unit, over shapes with and without tails, formats and pieces.
#[test]
fn matrix_units_agree_with_rounded_values() {
    let mut random = Random(11);
    for kernels in all_kernels() {
        let Some(unit) = kernels.matrix_unit() else { continue };
        for format in FORMATS.iter().map(|info| info.format) {
            for k in lengths(format).into_iter().rev().step_by(5).take(6) {
                for (weight_rows, tokens) in [(1, 8), (16, 17), (23, 33), (48, 48), (64, 49)] {
                    unit_product(unit, format, Shape { weight_rows, tokens, k }, &mut random);
                }
            }
        }
    }
}

/// Of a product of weights and activations.
struct Shape {
    weight_rows: usize,
    tokens: usize,
    k: usize,
}

fn unit_product(unit: MatrixUnit, format: Format, Shape { weight_rows, tokens, k }: Shape, random: &mut Random) {
    let weights: Vec<Vec<u8>> = (0..weight_rows).map(|_| random_row(format, k, random)).collect();
    let slices: Vec<&[u8]> = weights.iter().map(Vec::as_slice).collect();
    let x = random.values(tokens * k);
    let (left_pieces, right_pieces) =
        (Pieces::of_weights(format), if format.info().integer { Pieces::One } else { Pieces::Three });
    let (mut left, mut right) = (Operand::default(), Operand::default());
    left.resize(weight_rows, k, left_pieces);
    for (rows, strip) in slices.chunks(16).zip(left.strips_mut()) {
        unit.pack_weights(format, rows, k, strip);
    }
    // Activations in more pieces than the weights ask for serve them all the same.
    right.resize(tokens, k, Pieces::Three);
    for (rows, strip) in x.chunks(16 * k).zip(right.strips_mut()) {
        unit.pack_right(FloatRows { values: rows, stride: k, rows: rows.len() / k, k }, Pieces::Three, strip);
    }
    let (strips, width) = (weight_rows.div_ceil(16), tokens.div_ceil(16) * 16);
    let stride = width + 3;
    let mut out = vec![0.5; strips * 16 * stride];
    let right = right.view(0, width / 16).rounded(right_pieces);
    unit.multiply(left.view(0, strips), right, TileOut { values: &mut out, stride, accumulate: true });
    let mut decoded = vec![0.0; k];
    for (i, row) in weights.iter().enumerate() {
        decode_row(format, row, &mut decoded);
        decoded.iter_mut().for_each(|w| *w = in_pieces(*w, left_pieces));
        for (j, x) in x.chunks_exact(k).enumerate() {
            let x: Vec<f32> = x.iter().map(|x| in_pieces(*x, right_pieces)).collect();
            let sum = exact(&decoded, &x);
            let what = format!("{format} weight row {i} of {weight_rows}, row {j} of {tokens}, k={k}");
            assert_close(out[i * stride + j], sum.plus(0.5), &what);
        }
    }
    assert!(out.chunks_exact(stride).all(|row| row[width..] == [0.5; 3]), "{format}: wrote outside");
}

/// Both sides from f32, in one to three pieces; columns given as rows and as a matrix; one K block after another.
#[test]
fn operands_of_a_matrix_unit_agree_whichever_way_they_are_packed() {
    let mut random = Random(12);
    for unit in all_kernels().iter().filter_map(|kernels| kernels.matrix_unit()) {
        for (rows, columns, k) in [(1, 1, 1), (16, 16, 32), (32, 5, 72), (5, 40, 77), (48, 33, 288)] {
            for pieces in Pieces::ALL {
                let (x, y) = (random.values(rows * k), random.values(columns * k));
                let mut as_matrix = vec![0.0; columns * k];
                for (index, value) in y.iter().enumerate() {
                    as_matrix[index % k * columns + index / k] = *value;
                }
                let mut operands: [Operand; 3] = Default::default();
                let [left, right, other] = &mut operands;
                left.resize(rows, k, pieces);
                right.resize(columns, k, pieces);
                other.resize(columns, k, pieces);
                for (first, strip) in (0..rows).step_by(16).zip(left.strips_mut()) {
                    let rows = 16.min(rows - first);
                    unit.pack_left(FloatRows { values: &x[first * k..], stride: k, rows, k }, pieces, strip);
                }
                for (first, strip) in (0..columns).step_by(16).zip(right.strips_mut()) {
                    let rows = 16.min(columns - first);
                    unit.pack_right(FloatRows { values: &y[first * k..], stride: k, rows, k }, pieces, strip);
                }
                for (first, strip) in (0..columns).step_by(16).zip(other.strips_mut()) {
                    let width = 16.min(columns - first);
                    let matrix = FloatRows { values: &as_matrix[first..], stride: columns, rows: k, k: width };
                    unit.pack_right_columns(matrix, pieces, strip);
                }
                let (strips, width) = (rows.div_ceil(16), columns.div_ceil(16) * 16);
                let (left, right) = (left.view(0, strips), right.view(0, width / 16));
                let mut out = vec![f32::NAN; strips * 16 * width];
                let mut target = |left, right, accumulate| {
                    unit.multiply(left, right, TileOut { values: &mut out, stride: width, accumulate });
                    out.clone()
                };
                let whole = target(left, right, false);
                assert_eq!(whole, target(left, other.view(0, width / 16), false), "{rows} × {columns} × {k}");
                if pieces == Pieces::One && k > 64 {
                    target(left.k_block(0, 64), right.k_block(0, 64), false);
                    assert_eq!(whole, target(left.k_block(64, k - 64), right.k_block(64, k - 64), true));
                }
                let mut transposed = vec![f32::NAN; whole.len()];
                let all = FloatRows { values: &whole, stride: width, rows: strips * 16, k: width };
                unit.transpose(all, TileOut { values: &mut transposed, stride: strips * 16, accumulate: false });
                for (i, x) in x.chunks_exact(k).enumerate() {
                    for (j, y) in y.chunks_exact(k).enumerate() {
                        let part = |values: &[f32]| values.iter().map(|x| in_pieces(*x, pieces)).collect::<Vec<_>>();
                        let Sum { value, magnitude } = exact(&part(x), &part(y));
                        // Of the products of pieces those are left out that are smaller than all that are there.
                        let lost = if pieces == Pieces::One {
                            0.0
                        } else {
                            magnitude * 0.5f64.powi(8 * pieces.count() as i32)
                        };
                        let error = (f64::from(whole[i * width + j]) - value).abs();
                        assert!(
                            error <= magnitude * 1e-6 + lost,
                            "{rows} × {columns} × {k} in {pieces:?}: off by {error}"
                        );
                        assert_eq!(transposed[j * strips * 16 + i], whole[i * width + j]);
                    }
                }
            }
        }
    }
}

fn panics(what: &str, call: impl FnOnce()) {
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(call)).is_err(), "{what}");
}

/// Sizes whose products do not fit a number are errors, not small numbers.
#[test]
fn sizes_that_wrap_are_refused() {
    const HALF: usize = 1 << (usize::BITS - 1);
    let mut operand = Operand::default();
    panics("tiles", || operand.resize(usize::MAX, usize::MAX, Pieces::Three));
    // Without depth there are no tiles, and yet no more strips than rows make.
    operand.resize(32, 0, Pieces::One);
    let view = operand.view(0, 2);
    for (first, strips) in [(0, 3), (2, 1), (1, usize::MAX), (usize::MAX, 1), (HALF, HALF)] {
        panics("strips of nothing", || _ = operand.view(first, strips));
        panics("strips of a view of nothing", || _ = view.strips(first, strips));
    }
    for kernels in all_kernels() {
        let Some(unit) = kernels.matrix_unit() else { continue };
        let mut tiles = Operand::default();
        tiles.resize(16, 64, Pieces::One);
        let values = vec![1.0; 64];
        let row = FloatRows { values: &values, stride: 64, rows: 1, k: 64 };
        let bytes = vec![0; 64];
        // More values than the strip has room for.
        let mut wide = Operand::default();
        wide.resize(16, 32, Pieces::One);
        for pieces in Pieces::ALL {
            let strip = &mut *wide.strips_mut().next().unwrap();
            panics("pack_left", || unit.pack_left(row, pieces, strip));
            panics("pack_right", || unit.pack_right(row, pieces, strip));
            let columns = FloatRows { values: &values, stride: 1, rows: 64, k: 1 };
            panics("pack_right_columns", || unit.pack_right_columns(columns, pieces, strip));
        }
        for format in FORMATS.iter().map(|info| info.format) {
            let strip = &mut *tiles.strips_mut().next().unwrap();
            panics("pack_weights", || unit.pack_weights(format, &[&bytes], HALF, strip));
        }
        // No memory holds so many lines of results.
        let mut lines = Operand::default();
        lines.resize(usize::MAX, 0, Pieces::One);
        let mut out = [0.0; 256];
        let out = TileOut { values: &mut out, stride: 16, accumulate: false };
        panics("multiply", || unit.multiply(lines.view(0, usize::MAX / 16 + 1), operand.view(0, 1), out));
    }
}
