//! Every kernel of every instruction set this machine has, against plain arithmetic on decoded values.

mod support;

use gemmule_quant::activation::QuantizedRows;
use gemmule_quant::kernels::{FloatPanels, FloatRows, IntegerRows, TileOut};
use gemmule_quant::{
    FORMATS, FloatPanel, Format, IntegerPanel, Kernels, MatrixView, PANEL_ROWS, StridedRows, block_parts, decode_row,
    set_scales,
};
use support::{Random, Sum, all_kernels, assert_close, exact, lengths, random_row};

fn quantize(kernels: Kernels, x: &[f32], rows: usize) -> QuantizedRows {
    let k = x.len() / rows;
    let mut quantized = QuantizedRows::default();
    quantized.resize(rows, k);
    for (x, row) in x.chunks_exact(k).zip(quantized.rows_mut()) {
        kernels.quantize(x, row);
    }
    quantized
}

fn represented(row: gemmule_quant::QuantizedRow<'_>) -> Vec<f32> {
    row.codes.iter().enumerate().map(|(i, code)| row.scales[i / 32] * f32::from(*code)).collect()
}

/// Activations of several kinds: ordinary, huge, tiny, one outlier, all zero.
fn activations(k: usize, random: &mut Random) -> Vec<Vec<f32>> {
    let ordinary = random.values(k);
    let mut outlier = ordinary.clone();
    outlier[k / 2] = 1e4;
    let scaled = |factor: f32| ordinary.iter().map(|x| x * factor).collect();
    vec![scaled(1e15), scaled(1e-20), outlier, vec![0.0; k], vec![-1.0; k], ordinary.clone()]
}

#[test]
fn row_dots_agree_with_decoded_values() {
    let mut random = Random(1);
    for kernels in all_kernels() {
        for format in FORMATS.iter().map(|info| info.format) {
            for k in lengths(format) {
                let row = random_row(format, k, &mut random);
                let mut decoded = vec![0.0; k];
                decode_row(format, &row, &mut decoded);
                for (kind, x) in activations(k, &mut random).iter().enumerate() {
                    let what = format!("{} {format} k={k} activations {kind}", kernels.isa());
                    if format.info().integer {
                        let quantized = quantize(kernels, x, 1);
                        let weights = MatrixView::new(format, 1, k, &row).unwrap();
                        let mut got = [f32::NAN];
                        kernels.dot_integer(weights, 0..1, &[quantized.row(0)], &mut got);
                        assert_close(
                            got[0],
                            stored_magnitude(format, &row, &decoded, &represented(quantized.row(0))),
                            &what,
                        );
                    } else {
                        // Rows that lie apart: some are taken together, some alone.
                        let mut bytes = vec![0xff; 9 * (row.len() + 4)];
                        let mut rows = vec![row.clone()];
                        rows.extend((1..9).map(|_| random_row(format, k, &mut random)));
                        for (at, row) in bytes.chunks_exact_mut(row.len() + 4).zip(&rows) {
                            at[..row.len()].copy_from_slice(row);
                        }
                        let strided = StridedRows::new(format, 9, k, row.len() + 4, &bytes).unwrap();
                        let mut got = [f32::NAN; 9];
                        kernels.dot_float(strided, x, &mut got);
                        for (got, row) in got.iter().zip(&rows) {
                            decode_row(format, row, &mut decoded);
                            assert_close(*got, exact(&decoded, x), &what);
                            let mut alone = [f32::NAN];
                            let strided = StridedRows::new(format, 1, k, row.len(), row).unwrap();
                            kernels.dot_float(strided, x, &mut alone);
                            assert_eq!(alone[0].to_bits(), got.to_bits(), "{what}");
                        }
                    }
                }
            }
        }
    }
}

/// As [`exact`], with the magnitude of scale · code and bias taken apart, which is how a kernel adds them.
fn stored_magnitude(format: Format, row: &[u8], decoded: &[f32], x: &[f32]) -> Sum {
    let mut sum = exact(decoded, x);
    let info = format.info();
    if info.integer {
        for (block, x) in row.chunks_exact(info.block_bytes).zip(x.chunks_exact(info.block_len)) {
            let parts = block_parts(format, block).unwrap();
            // Kernels may multiply codes with half the codes' range added, and take that off afterwards.
            let offset = parts.codes.iter().map(|code| code.unsigned_abs()).max().unwrap_or(0);
            for (i, x) in x.iter().enumerate() {
                let (scale, bias) = (parts.scales[i / parts.group], parts.biases[i / parts.group]);
                sum.magnitude +=
                    f64::from(x.abs()) * (f64::from(scale.abs()) * f64::from(offset) + f64::from(bias.abs()));
            }
        }
    }
    sum
}

#[test]
fn panel_products_agree_with_decoded_values() {
    let mut random = Random(2);
    for kernels in all_kernels() {
        for format in FORMATS.iter().map(|info| info.format) {
            for k in lengths(format).into_iter().rev().take(4) {
                for weight_rows in [1, 7, PANEL_ROWS] {
                    for rows in [1, 2, 3, 4, 5, 6, 7, 13] {
                        panel_product(kernels, format, Shape { rows, weight_rows, k }, &mut random);
                    }
                }
            }
        }
    }
}

/// Of a product of activations and weights.
struct Shape {
    rows: usize,
    weight_rows: usize,
    k: usize,
}

fn panel_product(kernels: Kernels, format: Format, Shape { rows, weight_rows, k }: Shape, random: &mut Random) {
    let weights: Vec<Vec<u8>> = (0..weight_rows).map(|_| random_row(format, k, random)).collect();
    let slices: Vec<&[u8]> = weights.iter().map(Vec::as_slice).collect();
    // A row that takes no part lies before the others.
    let x = random.values((1 + rows) * k);
    // The result is added to what is there, rows lie apart, and what lies between them stays.
    let stride = PANEL_ROWS + 3;
    let mut out = vec![0.5; rows * stride];
    let mut activations: Vec<Vec<f32>> = x.chunks_exact(k).skip(1).map(<[f32]>::to_vec).collect();
    if format.info().integer {
        let (mut panel, quantized) = (IntegerPanel::default(), quantize(kernels, &x, 1 + rows));
        kernels.pack_integer(format, &slices, k, &mut panel);
        let input = IntegerRows { values: &quantized, first: 1, rows, column: 0 };
        kernels.integer_tile(&panel, input, TileOut { values: &mut out, stride, accumulate: true });
        activations = (1..=rows).map(|row| represented(quantized.row(row))).collect();
    } else {
        let mut panel = FloatPanel::default();
        kernels.pack_float(format, &slices, k, &mut panel);
        let input = FloatRows { values: &x[k..], stride: k, rows, k };
        kernels.float_tile(&panel.values, input, TileOut { values: &mut out, stride, accumulate: true });
    }
    let mut decoded = vec![0.0; k];
    for j in 0..PANEL_ROWS {
        for (i, x) in activations.iter().enumerate() {
            let what = format!("{} {format} row {i} of {rows}, weight row {j} of {weight_rows}, k={k}", kernels.isa());
            let sum = if let Some(row) = weights.get(j) {
                decode_row(format, row, &mut decoded);
                stored_magnitude(format, row, &decoded, x)
            } else {
                Sum::default()
            };
            assert_close(out[i * stride + j], sum.plus(0.5), &what);
        }
    }
    assert!(
        out.chunks_exact(stride).all(|row| row[PANEL_ROWS..] == [0.5; 3]),
        "{} {format}: wrote outside",
        kernels.isa()
    );
}

/// Several panels at once give the bits that one after the other gives, and write nowhere else.
#[test]
fn panels_at_once_equal_one_after_the_other() {
    let mut random = Random(14);
    for kernels in all_kernels() {
        for (rows, columns, k) in [(1, 16, 1), (3, 32, 7), (4, 48, 72), (13, 80, 72), (48, 64, 256), (17, 32, 0)] {
            // Panels lie apart, as do rows and results.
            let (panel_stride, x_stride, stride) = (k * PANEL_ROWS + 5, k + 3, columns + 2);
            let panels = random.values(columns / PANEL_ROWS * panel_stride);
            let values = random.values(rows * x_stride);
            let x = FloatRows { values: &values, stride: x_stride, rows, k };
            for accumulate in [false, true] {
                let (mut out, mut expected) = (vec![0.5; rows * stride], vec![0.5; rows * stride]);
                let target = TileOut { values: &mut out, stride, accumulate };
                let all = FloatPanels { values: &panels, stride: panel_stride, count: columns / PANEL_ROWS };
                kernels.float_tiles(all, x, target);
                for column in (0..columns).step_by(PANEL_ROWS) {
                    let panel = &panels[column / PANEL_ROWS * panel_stride..][..k * PANEL_ROWS];
                    let target = TileOut { values: &mut expected[column..], stride, accumulate };
                    kernels.float_tile(panel, x, target);
                }
                assert_eq!(out, expected, "{}: {rows} × {columns} × {k}", kernels.isa());
            }
        }
    }
}

/// A panel of pairs gives each column's products with even and with odd places of the depth, for any number of rows, and
/// nothing else is written.
#[test]
fn pairs_are_sums_over_every_other_place() {
    const COLUMNS: usize = PANEL_ROWS / 2;
    let mut random = Random(23);
    for kernels in all_kernels() {
        for (rows, k) in [(1, 2), (3, 6), (4, 72), (7, 256), (13, 30), (29, 128), (5, 0)] {
            let (x_stride, stride) = (k + 3, PANEL_ROWS + 2);
            let (panel, values) = (random.values(k * COLUMNS), random.values(rows * x_stride));
            for accumulate in [false, true] {
                let mut out = vec![0.5; rows * stride];
                let x = FloatRows { values: &values, stride: x_stride, rows, k };
                kernels.pair_tile(&panel, x, TileOut { values: &mut out, stride, accumulate });
                let start = if accumulate { 0.5 } else { 0.0 };
                for (row, out) in out.chunks(stride).enumerate() {
                    let x = &values[row * x_stride..][..k];
                    for (lane, got) in out[..PANEL_ROWS].iter().enumerate() {
                        let places = (lane % 2..k).step_by(2);
                        let weights = places.clone().map(|at| panel[at / 2 * PANEL_ROWS + lane]);
                        let x = places.map(|at| x[at]);
                        let sum = exact(&weights.collect::<Vec<_>>(), &x.collect::<Vec<_>>());
                        let what = format!("{}: {rows} rows of {k}, lane {lane} of row {row}", kernels.isa());
                        assert_close(*got, sum.plus(start), &what);
                    }
                    assert!(out[PANEL_ROWS..].iter().all(|value| *value == 0.5), "{}: wrote outside", kernels.isa());
                }
            }
        }
    }
}

/// The same of integer panels, of which some instruction sets multiply two at once; also where their shapes differ.
#[test]
fn integer_panels_at_once_equal_one_after_the_other() {
    let mut random = Random(19);
    for kernels in all_kernels() {
        for format in FORMATS.iter().map(|info| info.format).filter(|format| format.info().integer) {
            // Panels of two thirds of the depth, or of one: sixteen groups at a time, or fewer at the end.
            for (k, thirds, rows, formats) in [
                (768, 2, 0, vec![format; 2]),
                (768, 2, 1, vec![format; 2]),
                (768, 2, 2, vec![format; 3]),
                (1536, 2, 3, vec![format; 2]),
                (768, 2, 4, vec![format; 3]),
                (768, 2, 5, vec![format; 1]),
                (3840, 2, 6, vec![format; 2]),
                (768, 2, 7, vec![format; 2]),
                (768, 2, 11, vec![format; 2]),
                (768, 2, 12, vec![format; 4]),
                (768, 2, 13, vec![format; 2]),
                (768, 2, 25, vec![format; 5]),
                (768, 2, 16, vec![format; 0]),
                (768, 1, 6, vec![format; 2]),
                (768, 1, 13, vec![format; 2]),
                (2304, 1, 7, vec![format; 2]),
                (2304, 1, 12, vec![format; 3]),
                (768, 2, 9, vec![format, Format::Q8_0, Format::Q6K, format]),
            ] {
                let depth = k / 3 * thirds;
                let quantized = quantize(kernels, &random.values((1 + rows) * k), 1 + rows);
                let panels: Vec<IntegerPanel> = formats
                    .iter()
                    .map(|&format| {
                        let weights: Vec<Vec<u8>> =
                            (0..PANEL_ROWS).map(|_| random_row(format, k, &mut random)).collect();
                        let skipped = format.row_bytes(k / 3).unwrap();
                        let slices: Vec<&[u8]> = weights.iter().map(|row| &row[skipped..]).collect();
                        let mut panel = IntegerPanel::default();
                        kernels.pack_integer(format, &slices, depth, &mut panel);
                        panel
                    })
                    .collect();
                let x = IntegerRows { values: &quantized, first: 1, rows, column: k / 3 };
                let stride = panels.len() * PANEL_ROWS + 3;
                for accumulate in [false, true] {
                    let (mut out, mut expected) = (vec![0.5; rows * stride], vec![0.5; rows * stride]);
                    kernels.integer_tiles(&panels, x, TileOut { values: &mut out, stride, accumulate });
                    for (index, panel) in panels.iter().enumerate().filter(|_| rows > 0) {
                        let values = &mut expected[index * PANEL_ROWS..];
                        kernels.integer_tile(panel, x, TileOut { values, stride, accumulate });
                    }
                    assert_eq!(out, expected, "{}: {rows} rows of {formats:?}", kernels.isa());
                }
            }
        }
    }
}

/// A panel that other kernels packed is refused, or multiplied as its own kernels multiply it: never read as what it is not.
#[test]
fn panels_of_other_kernels_are_refused() {
    let mut random = Random(41);
    let (k, rows) = (512, 3);
    for format in FORMATS.iter().map(|info| info.format).filter(|format| format.info().integer) {
        let weights: Vec<Vec<u8>> = (0..PANEL_ROWS).map(|_| random_row(format, k, &mut random)).collect();
        let slices: Vec<&[u8]> = weights.iter().map(Vec::as_slice).collect();
        let x = random.values(rows * k);
        let product = |packer: Kernels, kernels: Kernels| {
            let (mut panel, quantized) = (IntegerPanel::default(), quantize(kernels, &x, rows));
            packer.pack_integer(format, &slices, k, &mut panel);
            let mut out = vec![0.0; rows * PANEL_ROWS];
            let input = IntegerRows { values: &quantized, first: 0, rows, column: 0 };
            kernels.integer_tile(&panel, input, TileOut { values: &mut out, stride: PANEL_ROWS, accumulate: false });
            out
        };
        for packer in all_kernels() {
            for kernels in all_kernels() {
                let expected = product(kernels, kernels);
                let Ok(got) = std::panic::catch_unwind(|| product(packer, kernels)) else { continue };
                for (got, expected) in got.iter().zip(expected) {
                    let what = format!("{format}: {} packs for {}", packer.isa(), kernels.isa());
                    assert!((got - expected).abs() <= 1e-3 * (1.0 + expected.abs()), "{what}: {got}, not {expected}");
                }
            }
        }
    }
}

/// Codes and activations at the ends of their ranges: where sums in 16 bits would overflow first.
#[test]
fn extreme_codes_do_not_overflow() {
    let (k, rows) = (512, 5);
    for kernels in all_kernels() {
        for format in FORMATS.iter().map(|info| info.format).filter(|format| format.info().integer) {
            for fill in [0x00, 0x0f, 0x7f, 0x80, 0xf0, 0xff] {
                // Signs that change with the place in a four, in a pair of places, and with the half of a block.
                for period in [usize::MAX, 1, 2, 16] {
                    for x in [1.0, -1.0] {
                        let mut row = vec![fill; format.row_bytes(k).unwrap()];
                        for block in row.chunks_exact_mut(format.info().block_bytes) {
                            set_scales(format, block, 0.01);
                            if format == Format::Q6K {
                                block[192..208].fill(0x80);
                            }
                        }
                        let mut decoded = vec![0.0; k];
                        decode_row(format, &row, &mut decoded);
                        let values: Vec<f32> =
                            (0..k * rows).map(|i| if i / period % 2 == 0 { x } else { -x }).collect();
                        let quantized = quantize(kernels, &values, rows);
                        let expected = stored_magnitude(format, &row, &decoded, &represented(quantized.row(0)));
                        let what = format!("{} {format} {fill:#x} times {x} in turns of {period}", kernels.isa());
                        let weights = MatrixView::new(format, 1, k, &row).unwrap();
                        let mut dot = [f32::NAN];
                        kernels.dot_integer(weights, 0..1, &[quantized.row(0)], &mut dot);
                        assert_close(dot[0], expected, &what);
                        let (mut panel, mut out) = (IntegerPanel::default(), vec![f32::NAN; rows * PANEL_ROWS]);
                        kernels.pack_integer(format, &[&row[..]; PANEL_ROWS], k, &mut panel);
                        let input = IntegerRows { values: &quantized, first: 0, rows, column: 0 };
                        let target = TileOut { values: &mut out, stride: PANEL_ROWS, accumulate: false };
                        kernels.integer_tile(&panel, input, target);
                        out.iter().for_each(|out| assert_close(*out, expected, &what));
                    }
                }
            }
        }
    }
}

/// Several rows of activations at once give each what it gets alone, and so do rows of weights.
#[test]
fn row_dots_do_not_depend_on_their_company() {
    let mut random = Random(10);
    for kernels in all_kernels() {
        for format in FORMATS.iter().map(|info| info.format).filter(|format| format.info().integer) {
            // Blocks of 32 are taken eight at a time; one is left over.
            let (k, rows, tokens) = (if format.info().block_len == 32 { 800 } else { 768 }, 11, 7);
            let data: Vec<u8> = (0..rows).flat_map(|_| random_row(format, k, &mut random)).collect();
            let weights = MatrixView::new(format, rows, k, &data).unwrap();
            let quantized = quantize(kernels, &random.values(k * tokens), tokens);
            let x: Vec<_> = (0..tokens).map(|token| quantized.row(token)).collect();
            let mut together = vec![f32::NAN; rows * tokens];
            kernels.dot_integer(weights, 0..rows, &x, &mut together);
            for row in 0..rows {
                for token in 0..tokens {
                    let mut alone = [f32::NAN];
                    kernels.dot_integer(weights, row..row + 1, &x[token..token + 1], &mut alone);
                    assert_eq!(alone[0], together[token * rows + row], "{} {format}", kernels.isa());
                }
            }
        }
    }
}

#[test]
fn a_panel_in_two_parts_equals_the_whole() {
    let mut random = Random(3);
    let formats = FORMATS.iter().map(|info| info.format).filter(|format| format.info().integer);
    for (kernels, format) in
        all_kernels().into_iter().flat_map(|kernels| formats.clone().map(move |format| (kernels, format)))
    {
        let (k, rows) = (768, 5);
        let weights: Vec<Vec<u8>> = (0..16).map(|_| random_row(format, k, &mut random)).collect();
        let quantized = quantize(kernels, &random.values(rows * k), rows);
        let mut panel = IntegerPanel::default();
        let product = |parts: &[(usize, usize)], panel: &mut IntegerPanel| {
            let mut out = vec![f32::NAN; rows * 16];
            for (index, (column, length)) in parts.iter().enumerate() {
                let bytes = |n: usize| format.row_bytes(n).unwrap();
                let slices: Vec<&[u8]> =
                    weights.iter().map(|row| &row[bytes(*column)..bytes(column + length)]).collect();
                kernels.pack_integer(format, &slices, *length, panel);
                let input = IntegerRows { values: &quantized, first: 0, rows, column: *column };
                kernels.integer_tile(panel, input, TileOut { values: &mut out, stride: 16, accumulate: index > 0 });
            }
            out
        };
        let whole = product(&[(0, 768)], &mut panel);
        assert_eq!(whole, product(&[(0, 256), (256, 512)], &mut panel), "{} {format}", kernels.isa());
    }
}

#[test]
fn quantized_activations_are_within_half_a_step() {
    let mut random = Random(4);
    for kernels in all_kernels() {
        for x in activations(96, &mut random) {
            let quantized = quantize(kernels, &x, 1);
            let row = quantized.row(0);
            for (i, (x, got)) in x.iter().zip(represented(row)).enumerate() {
                assert!((x - got).abs() <= row.scales[i / 32] * 0.5001, "{}: {x} became {got}", kernels.isa());
            }
            let sum_of = |codes: &[i8]| codes.iter().map(|code| i32::from(*code)).sum::<i32>();
            assert!(row.codes.chunks(16).zip(row.half_sums).all(|(codes, sum)| *sum == sum_of(codes)));
            for (block, codes) in row.codes.chunks(32).enumerate() {
                assert_eq!(row.block_sums[block], sum_of(codes));
                assert_eq!(row.sums[block], row.scales[block] * sum_of(codes) as f32);
                let places = |codes: &[i8], at: usize| -> i32 {
                    codes.chunks(4).map(|four| i32::from(four[at]) + i32::from(four[at + 1])).sum()
                };
                let offsets = [codes, &codes[..16]].map(|codes| [0, 2].map(|at| (-8 * places(codes, at)) as i16));
                assert_eq!(row.pair_offsets[block], offsets);
            }
        }
        let mut bad = random.values(64);
        bad[40] = f32::INFINITY;
        let quantized = quantize(kernels, &bad, 1);
        assert!(quantized.row(0).scales[0].is_finite() && quantized.row(0).scales[1].is_nan());
    }
}

/// The quantizers give the same bits, for values that quantize evenly and unevenly, very small ones, and none.
#[test]
fn quantizers_agree_bit_for_bit() {
    let mut random = Random(18);
    let mut rows: Vec<Vec<f32>> = activations(96, &mut random);
    rows.extend([1e-38, 1e-42, 3e38, 1.0].map(|range| random.values(96).iter().map(|x| x * range).collect()));
    // Around the least scale that has an inverse.
    rows.extend([1.4e-36, 1.6e-36].map(|range| random.values(96).iter().map(|x| x * range).collect()));
    rows.push((0..96).map(|i| i as f32 - 63.5).collect());
    // Halfway between two codes.
    for sign in [1.0, -1.0] {
        rows.push((0..96).map(|i| sign * if i % 32 == 0 { 127.0 } else { i as f32 - 47.5 }).collect());
        rows.push((0..96).map(|i| if i == 50 { sign * f32::INFINITY } else { -0.0 }).collect());
    }
    rows.push((0..96).map(|i| if i == 40 { f32::NAN } else { i as f32 }).collect());
    for x in &rows {
        let reference = quantize(all_kernels()[0], x, 1);
        for kernels in all_kernels() {
            let (got, expected) = (quantize(kernels, x, 1), reference.row(0));
            let got = got.row(0);
            let bits = |values: &[f32]| values.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            assert_eq!(got.codes, expected.codes, "{}: {x:?}", kernels.isa());
            assert_eq!(bits(got.scales), bits(expected.scales), "{}: {x:?}", kernels.isa());
            for (got, expected) in got.sums.iter().zip(expected.sums) {
                let same = got.to_bits() == expected.to_bits() || got.is_nan() && expected.is_nan();
                assert!(same, "{}: {x:?}: {got} instead of {expected}", kernels.isa());
            }
            assert_eq!((got.block_sums, got.half_sums), (expected.block_sums, expected.half_sums), "{}", kernels.isa());
            assert_eq!(got.pair_offsets, expected.pair_offsets, "{}", kernels.isa());
        }
    }
}
