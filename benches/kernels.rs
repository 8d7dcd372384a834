//! Every kernel of every instruction set this machine has, beside the limits that bound it: `cargo bench --bench kernels`.
//!
//! Row dots are bound by memory: compare their bytes per second with `limits/read`. Panel products are bound by the
//! processor's byte products: compare their elements (two operations for each weight and row) with `limits/products`.

use std::hint::black_box;
use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use gemmule_quant::activation::QuantizedRows;
use gemmule_quant::kernels::{FloatRows, IntegerRows, TileOut};
use gemmule_quant::matrix_unit::{AlignedFloats, TILE_ROWS};
use gemmule_quant::{
    Format, IntegerPanel, Kernels, MatrixUnit, MatrixView, Operand, PANEL_ROWS, Pieces, encode_row, isa,
};

/// Values in a row: the hidden size of the 3B decoder.
const K: usize = 2304;
/// Rows of activations of a prompt with one picture at 224.
const ROWS: usize = 264;
/// Depth of a panel, as the runtime chooses it.
const DEPTH: usize = 512;
/// More than any cache holds.
const MEMORY: usize = 256 << 20;
const FORMATS: [Format; 9] = [
    Format::Q4_0,
    Format::Q4_1,
    Format::Q5_0,
    Format::Q5_1,
    Format::Q8_0,
    Format::Q4K,
    Format::Q5K,
    Format::Q6K,
    Format::Iq4Nl,
];

fn values(count: usize) -> Vec<f32> {
    (0..count).map(|i| ((i * 7919) % 1000) as f32 / 500.0 - 1.0).collect()
}

fn quantized(kernels: Kernels, rows: usize) -> QuantizedRows {
    let mut quantized = QuantizedRows::default();
    quantized.resize(rows, K);
    for (x, row) in values(rows * K).chunks_exact(K).zip(quantized.rows_mut()) {
        kernels.quantize(x, row);
    }
    quantized
}

fn row_of(format: Format) -> Vec<u8> {
    let mut row = vec![0; format.row_bytes(K).expect("whole blocks")];
    encode_row(format, &values(K), &mut row).expect("finite values");
    row
}

/// Products with their additions, as the panel products use them: of bytes, in a matrix unit of bf16 numbers; with `float` of
/// single precision.
#[cfg(target_arch = "x86_64")]
fn products(kernels: Kernels, float: bool, count: usize) -> Option<usize> {
    use std::arch::asm;
    // As many independent chains as there are registers `r` named; they hide the latency of two products a cycle. Of zeros: what
    // was left in the registers may be numbers so small that they take a hundred times as long.
    macro_rules! chains {
        ($operations:expr, $registers:literal, $($line:literal),*) => {{
            // SAFETY: only registers are touched, by instructions of the set that `kernels` proves.
            unsafe {
                asm!("vzeroall", "2:", concat!(".irp r,", $registers), $($line,)* ".endr", "dec {count}", "jnz 2b",
                    count = inout(reg) count => _,
                    out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _, out("xmm4") _, out("xmm5") _,
                    out("xmm6") _, out("xmm7") _, out("xmm8") _, out("xmm9") _, out("xmm10") _, out("xmm11") _,
                    out("xmm12") _, out("xmm13") _, out("xmm14") _, out("xmm15") _, options(nomem, nostack));
            }
            Some($operations * count)
        }};
    }
    match (kernels.isa(), float) {
        (isa::Isa::Avx2, true) => chains!(12 * 16, "0,1,2,3,4,5,6,7,8,9,10,11", "vfmadd231ps ymm\\r, ymm12, ymm13"),
        (isa::Isa::Avx512Bw | isa::Isa::Avx512, true) => {
            chains!(12 * 32, "0,1,2,3,4,5,6,7,8,9,10,11", "vfmadd231ps zmm\\r, zmm12, zmm13")
        }
        (isa::Isa::Avx2, false) => {
            chains!(4 * 64, "0,1,2,3", "vpmaddubsw ymm8, ymm12, ymm13", "vpaddw ymm\\r, ymm\\r, ymm8")
        }
        (isa::Isa::Avx512Bw, false) => {
            chains!(4 * 128, "0,1,2,3", "vpmaddubsw zmm8, zmm12, zmm13", "vpaddw zmm\\r, zmm\\r, zmm8")
        }
        (isa::Isa::AvxVnni, false) => {
            chains!(12 * 64, "0,1,2,3,4,5,6,7,8,9,10,11", "{{vex}} vpdpbusd ymm\\r, ymm12, ymm13")
        }
        (isa::Isa::Avx512, false) => {
            chains!(12 * 128, "0,1,2,3,4,5,6,7,8,9,10,11", "vpdpbusd zmm\\r, zmm12, zmm13")
        }
        (isa::Isa::Amx, false) => {
            // Palette 1, eight tiles of 16 rows of 64 bytes.
            let mut shapes = [0u8; 64];
            shapes[0] = 1;
            for tile in 0..8 {
                (shapes[16 + 2 * tile], shapes[48 + tile]) = (64, 16);
            }
            // SAFETY: as above; the tile registers are given back.
            unsafe { asm!("ldtilecfg [{}]", in(reg) &shapes, options(readonly, nostack)) };
            let operations = chains!(4 * 2 * 16 * 16 * 32, "0,1,2,3", "tdpbf16ps tmm\\r, tmm4, tmm6");
            // SAFETY: as above.
            unsafe { asm!("tilerelease", options(nomem, nostack)) };
            operations
        }
        _ => None,
    }
}

/// As on x86-64.
#[cfg(target_arch = "aarch64")]
fn products(kernels: Kernels, float: bool, count: usize) -> Option<usize> {
    use std::arch::asm;
    macro_rules! chains {
        ($operations:expr, $extension:literal, $line:literal) => {{
            // SAFETY: only registers are touched, by instructions of the set that `kernels` proves.
            unsafe {
                asm!(concat!(".arch_extension ", $extension), ".irp r,0,1,2,3,4,5,6,7,30,31", "movi v\\r.16b, #0", ".endr",
                    "2:", ".irp r,0,1,2,3,4,5,6,7", $line, ".endr",
                    "subs {count}, {count}, #1", "b.ne 2b",
                    count = inout(reg) count => _, out("v0") _, out("v1") _, out("v2") _, out("v3") _, out("v4") _,
                    out("v5") _, out("v6") _, out("v7") _, out("v30") _, out("v31") _, options(nomem, nostack));
            }
            Some($operations * count)
        }};
    }
    match (kernels.isa(), float) {
        (isa::Isa::Neon, true) => chains!(8 * 8, "simd", "fmla v\\r.4s, v30.4s, v31.4s"),
        (isa::Isa::Dotprod, false) => chains!(8 * 32, "dotprod", "sdot v\\r.4s, v30.16b, v31.16b"),
        (isa::Isa::I8mm, false) => chains!(8 * 64, "i8mm", "smmla v\\r.4s, v30.16b, v31.16b"),
        _ => None,
    }
}

fn limits(c: &mut Criterion) {
    let mut group = c.benchmark_group("limits");
    let memory = vec![1u64; MEMORY / 8];
    for kernels in Kernels::available() {
        group.throughput(Throughput::Bytes(MEMORY as u64));
        let bytes: &[u8] = bytemuck::cast_slice(&memory);
        group.bench_function(BenchmarkId::new("read", kernels.isa()), |b| b.iter(|| kernels.read(black_box(bytes))));
        const COUNT: usize = 100_000;
        for (name, float) in [("products", false), ("f32 products", true)] {
            if let Some(operations) = products(kernels, float, COUNT) {
                group.throughput(Throughput::Elements(operations as u64));
                let id = BenchmarkId::new(name, kernels.isa());
                group.bench_function(id, |b| b.iter(|| products(kernels, float, COUNT)));
            }
        }
    }
}

fn row_dots(c: &mut Criterion) {
    let mut group = c.benchmark_group("row dots");
    for format in FORMATS {
        let row = row_of(format);
        let rows = MEMORY / row.len();
        let data = row.repeat(rows);
        let weights = MatrixView::new(format, rows, K, &data).expect("whole rows");
        group.throughput(Throughput::Bytes(data.len() as u64));
        for kernels in Kernels::available() {
            for tokens in [1, 4] {
                let x = quantized(kernels, tokens);
                let x: Vec<_> = (0..tokens).map(|token| x.row(token)).collect();
                let mut out = vec![0.0; 64 * tokens];
                group.bench_function(BenchmarkId::new(format!("{format} x{tokens}"), kernels.isa()), |b| {
                    b.iter(|| {
                        for first in (0..rows - 63).step_by(64) {
                            kernels.dot_integer(weights, first..first + 64, &x, &mut out);
                        }
                    });
                });
            }
        }
    }
}

fn panel_products(c: &mut Criterion) {
    let mut group = c.benchmark_group("panel products");
    let mut out = vec![0.0; ROWS * 2 * PANEL_ROWS];
    for kernels in Kernels::available() {
        let x = quantized(kernels, ROWS);
        // The matrix unit takes the place of these.
        let formats = if kernels.matrix_unit().is_some() { &[][..] } else { &FORMATS };
        group.throughput(Throughput::Elements((2 * K * ROWS * 2 * PANEL_ROWS) as u64));
        for &format in formats {
            let row = row_of(format);
            let mut panels = [IntegerPanel::default(), IntegerPanel::default()];
            group.bench_function(BenchmarkId::new(format.name(), kernels.isa()), |b| {
                b.iter(|| {
                    for column in (0..K).step_by(DEPTH) {
                        let depth = DEPTH.min(K - column);
                        let bytes = |values: usize| format.row_bytes(values).expect("whole blocks");
                        let part = &row[bytes(column)..bytes(column + depth)];
                        for panel in &mut panels {
                            kernels.pack_integer(format, &[part; PANEL_ROWS], depth, panel);
                        }
                        let rows = IntegerRows { values: &x, first: 0, rows: ROWS, column };
                        let out = TileOut { values: &mut out, stride: 2 * PANEL_ROWS, accumulate: column > 0 };
                        kernels.integer_tiles(&panels, rows, out);
                    }
                });
            });
        }
        group.throughput(Throughput::Elements((2 * K * ROWS * PANEL_ROWS) as u64));
        let (panel, x) = (values(K * PANEL_ROWS), values(K * ROWS));
        if let Some(unit) = kernels.matrix_unit() {
            unit_products(&mut group, unit, &x);
        }
        group.bench_function(BenchmarkId::new("f32", kernels.isa()), |b| {
            b.iter(|| {
                let rows = FloatRows { values: &x, stride: K, rows: ROWS, k: K };
                let out = TileOut { values: &mut out, stride: PANEL_ROWS, accumulate: false };
                kernels.float_tile(&panel, rows, out);
            });
        });
    }
}

/// As the runtime multiplies in a matrix unit: packs two strips of weights, multiplies them with all rows.
fn unit_products(group: &mut BenchmarkGroup<'_, WallTime>, unit: MatrixUnit, x: &[f32]) {
    let strips = ROWS.div_ceil(TILE_ROWS);
    group.throughput(Throughput::Elements((2 * K * ROWS * 2 * TILE_ROWS) as u64));
    let mut out = AlignedFloats::default();
    out.resize(2 * TILE_ROWS * strips * TILE_ROWS);
    for format in FORMATS.into_iter().chain([Format::BF16, Format::F16, Format::F32]) {
        let row = row_of(format);
        let (mut left, mut right) = (Operand::default(), Operand::default());
        let pieces = if format.info().integer { Pieces::One } else { Pieces::Three };
        right.resize(ROWS, K, pieces);
        for (x, strip) in x.chunks(TILE_ROWS * K).zip(right.strips_mut()) {
            unit.pack_right(FloatRows { values: x, stride: K, rows: x.len() / K, k: K }, pieces, strip);
        }
        group.bench_function(BenchmarkId::new(format.name(), "matrix unit"), |b| {
            b.iter(|| {
                for start in (0..K).step_by(DEPTH) {
                    let depth = DEPTH.min(K - start);
                    let bytes = |values: usize| format.row_bytes(values).expect("whole blocks");
                    let part = &row[bytes(start)..bytes(start + depth)];
                    left.resize(2 * TILE_ROWS, depth, Pieces::of_weights(format));
                    for strip in left.strips_mut() {
                        unit.pack_weights(format, &[part; TILE_ROWS], depth, strip);
                    }
                    let stride = strips * TILE_ROWS;
                    let target = TileOut { values: &mut out, stride, accumulate: start > 0 };
                    unit.multiply(left.view(0, 2), right.view(0, strips).k_block(start, depth), target);
                }
            });
        });
    }
    group.throughput(Throughput::Elements((2 * K * ROWS * PANEL_ROWS) as u64));
}

fn vectors(c: &mut Criterion) {
    let mut group = c.benchmark_group("vectors");
    group.throughput(Throughput::Elements(K as u64));
    let x = values(K);
    for kernels in Kernels::available() {
        let mut y = x.clone();
        let isa = kernels.isa();
        group.bench_function(BenchmarkId::new("gelu", isa), |b| b.iter(|| kernels.gelu(black_box(&mut y))));
        group.bench_function(BenchmarkId::new("softcap", isa), |b| b.iter(|| kernels.softcap(black_box(&mut y), 50.0)));
        group.bench_function(BenchmarkId::new("softmax_tile", isa), |b| {
            b.iter(|| kernels.softmax_tile(black_box(&mut y), f32::NEG_INFINITY));
        });
        group.bench_function(BenchmarkId::new("rms_norm", isa), |b| {
            b.iter(|| kernels.rms_norm(black_box(&x), &x, 1e-6, &mut y));
        });
        let mut rows = quantized(kernels, 1);
        group.bench_function(BenchmarkId::new("quantize", isa), |b| {
            b.iter(|| rows.rows_mut().for_each(|row| kernels.quantize(black_box(&x), row)));
        });
        let mut bytes = vec![0; Format::Q4_0.row_bytes(K).expect("whole blocks")];
        group.bench_function(BenchmarkId::new("encode q4_0", isa), |b| {
            b.iter(|| kernels.encode_row(Format::Q4_0, black_box(&x), &mut bytes));
        });
    }
}

criterion_group! {
    name = kernels;
    config = Criterion::default().sample_size(10).warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    targets = limits, row_dots, panel_products, vectors
}
criterion_main!(kernels);
