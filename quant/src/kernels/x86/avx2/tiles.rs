//! The panel product with AVX2, which has no products of bytes that add up in 32 bits.
//!
//! Codes of up to six bits are multiplied as bytes, whose products are added in 16 bits over a whole group and widened
//! then. With activations within ±127 nothing leaves 16 bits: a product of two is at most 2 · 63 · 127; sixteen products of
//! codes 0..=15 are at most 30,480; and where an offset is a sum's first term, whatever has been added since, each term is
//! at most half the codes' range times 127: 16,256 for sixteen terms of four bits, 32,512 for sixteen of five or eight of
//! six. Codes of eight bits are widened to 16 bits, pairs of which one instruction multiplies and adds in 32.

use std::arch::asm;
use std::arch::x86_64::*;

use super::super::panels;
use crate::Format;
use crate::activation::ACTIVATION_BLOCK;
use crate::kernels::operands::{
    ActivationPointers, Arrangement, IntegerPanel, IntegerRows, PANEL_ROWS, Shape as PanelShape, TileOut,
};

/// Rows of activations in a register tile.
const TILE_ROWS: usize = 4;

/// Most values of a row that are widened at once.
const DEPTH: usize = 512;

/// Scales in a row of [`Wide`]: twice as many as it needs.
const SCALES: usize = DEPTH / 16;

/// How the codes of a shape lie in a panel.
pub(in super::super) const fn arrangement(shape: PanelShape) -> Arrangement {
    match (shape.bits, shape.biased) {
        (8, _) => Arrangement::SignedPairs,
        (5, true) => Arrangement::CenteredQuads,
        _ => Arrangement::StoredQuads,
    }
}

/// As [`Kernels::pack_integer`](crate::Kernels::pack_integer).
///
/// # Safety
/// The rows are what [`check_packed`](crate::kernels::operands::check_packed) asserts.
#[target_feature(enable = "avx2,fma,f16c")]
pub(in super::super) unsafe fn pack_integer(format: Format, rows: &[&[u8]], k: usize, panel: &mut IntegerPanel) {
    // SAFETY: the caller's promise; the arrangements are those of x86.
    unsafe { panels::pack_format(format, arrangement, rows, k, panel) }
}

/// As [`Kernels::integer_tile`](crate::Kernels::integer_tile).
///
/// # Safety
/// The operands are what [`check_integer_tile`](crate::kernels::operands::check_integer_tile) asserts, and the panel's arrangement
/// is [`arrangement`]'s for its shape.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn integer_tile(panel: &IntegerPanel, x: IntegerRows<'_>, out: TileOut<'_>) {
    // SAFETY: the caller's promise.
    unsafe {
        match panel.shape {
            PanelShape { group: 32, bits: 4, biased: false } => tile::<32, 4, false>(panel, x, out),
            PanelShape { group: 32, bits: 4, biased: true } => tile::<32, 4, true>(panel, x, out),
            PanelShape { group: 32, bits: 5, biased: false } => tile::<32, 5, false>(panel, x, out),
            PanelShape { group: 32, bits: 5, biased: true } => tile::<32, 5, true>(panel, x, out),
            PanelShape { group: 16, bits: 6, biased: false } => tile::<16, 6, false>(panel, x, out),
            PanelShape { group: 32, bits: 8, biased: false } => tile::<32, 8, false>(panel, x, out),
            _ => unreachable!("panels of other shapes are portable"),
        }
    }
}

/// A tile's results so far.
#[repr(C, align(64))]
struct Totals([[f32; PANEL_ROWS]; TILE_ROWS]);

/// Codes of [`TILE_ROWS`] rows in 16 bits, and their scales. As in the rows themselves, a row of codes takes eight times the
/// bytes of a row of scales.
#[repr(C, align(64))]
struct Wide {
    codes: [[i16; DEPTH]; TILE_ROWS],
    scales: [[f32; SCALES]; TILE_ROWS],
}

/// Where the operands of a tile's `count` blocks lie. Rows of activations are `8 * stride` bytes of codes apart, and `stride`
/// bytes of whatever a block has one of.
struct Operands {
    /// The panel's codes.
    weights: *const u8,
    /// The panel's scales.
    panel_scales: *const f32,
    /// The panel's biases.
    biases: *const f32,
    codes: *const u8,
    scales: *const f32,
    sums: *const f32,
    offsets: *const [[i16; 2]; 2],
    stride: usize,
    count: usize,
}

/// Adds the products of blocks to a tile's totals. A step multiplies two vectors of weights with four bytes of each row; its
/// order, rows first, is what keeps both multipliers busy, and assembly keeps it. For each row are given: where its codes, and
/// what there is one or two of for a block, lie, registers for two sums and for codes, and where its totals lie.
macro_rules! add_blocks {
    ($product:literal, $sum:literal, $operands:expr, $totals:expr, [$(($codes:literal, $row:literal, $pairs:literal,
        $low:literal, $high:literal, $x:literal, $total:literal)),*]) => {{
        let Operands { weights, panel_scales, biases, codes, scales, sums, offsets, stride, count } = $operands;
        asm!(
            "/* {third} {stride} {three} {offsets} {sums} {biases} */",
            // Ones, in 16 bits.
            "vpcmpeqw ymm14, ymm14, ymm14",
            "vpabsw ymm14, ymm14",
            "2:",
            ".set gemmule_step, 0",
            ".set gemmule_group, 0",
            ".rept {groups}",
            ".if {offset}",
            // Of the block, of its first half, or of its second: the block's less the first half's.
            ".set gemmule_first, {groups} - 1 - gemmule_group",
            $(concat!("vpbroadcastd ymm", $low, ", dword ptr [{offsets}", $pairs, " + 4 * gemmule_first]"),)*
            ".if gemmule_group",
            $(concat!("vpbroadcastd ymm", $x, ", dword ptr [{offsets}", $pairs, " + 4]"),
            concat!("vpsubw ymm", $low, ", ymm", $low, ", ymm", $x),)*
            ".endif",
            ".if {shift}",
            $(concat!("vpsllw ymm", $low, ", ymm", $low, ", {shift}"),)*
            ".endif",
            $(concat!("vmovdqa ymm", $high, ", ymm", $low),)*
            ".else",
            $(concat!("vpbroadcastd ymm", $x, ", dword ptr [", $codes, " + 4 * gemmule_step]"),)*
            "vmovdqa ymm12, ymmword ptr [{weights} + 64 * gemmule_step]",
            $(concat!($product, " ymm", $low, ", ymm12, ymm", $x),)*
            "vmovdqa ymm12, ymmword ptr [{weights} + 64 * gemmule_step + 32]",
            $(concat!($product, " ymm", $high, ", ymm12, ymm", $x),)*
            ".set gemmule_step, gemmule_step + 1",
            ".endif",
            ".rept {steps}",
            $(concat!("vpbroadcastd ymm", $x, ", dword ptr [", $codes, " + 4 * gemmule_step]"),)*
            "vmovdqa ymm12, ymmword ptr [{weights} + 64 * gemmule_step]",
            $(concat!($product, " ymm13, ymm12, ymm", $x),
            concat!($sum, " ymm", $low, ", ymm", $low, ", ymm13"),)*
            "vmovdqa ymm12, ymmword ptr [{weights} + 64 * gemmule_step + 32]",
            $(concat!($product, " ymm", $x, ", ymm12, ymm", $x),
            concat!($sum, " ymm", $high, ", ymm", $high, ", ymm", $x),)*
            ".set gemmule_step, gemmule_step + 1",
            ".endr",
            $(
                concat!("vbroadcastss ymm15, dword ptr [{scales}", $row, "]"),
                ".if {narrow}",
                concat!("vpmaddwd ymm", $low, ", ymm", $low, ", ymm14"),
                concat!("vpmaddwd ymm", $high, ", ymm", $high, ", ymm14"),
                ".endif",
                concat!("vcvtdq2ps ymm", $low, ", ymm", $low),
                concat!("vcvtdq2ps ymm", $high, ", ymm", $high),
                "vmulps ymm12, ymm15, ymmword ptr [{panel_scales} + 64 * gemmule_group]",
                "vmulps ymm13, ymm15, ymmword ptr [{panel_scales} + 64 * gemmule_group + 32]",
                concat!("vfmadd213ps ymm", $low, ", ymm12, ymmword ptr [{totals} + ", $total, "]"),
                concat!("vfmadd213ps ymm", $high, ", ymm13, ymmword ptr [{totals} + ", $total, " + 32]"),
                ".if {biased}",
                concat!("vbroadcastss ymm15, dword ptr [{sums}", $row, "]"),
                concat!("vfmadd231ps ymm", $low, ", ymm15, ymmword ptr [{biases}]"),
                concat!("vfmadd231ps ymm", $high, ", ymm15, ymmword ptr [{biases} + 32]"),
                ".endif",
                concat!("vmovaps ymmword ptr [{totals} + ", $total, "], ymm", $low),
                concat!("vmovaps ymmword ptr [{totals} + ", $total, " + 32], ymm", $high),
            )*
            ".set gemmule_group, gemmule_group + 1",
            ".endr",
            "add {weights}, 64 * {groups} * {all_steps}",
            "add {codes}, 4 * {groups} * {all_steps}",
            "add {third}, 4 * {groups} * {all_steps}",
            "add {scales}, 4",
            "add {panel_scales}, 64 * {groups}",
            ".if {offset}",
            "add {offsets}, 8",
            ".endif",
            ".if {biased}",
            "add {sums}, 4",
            "add {biases}, 64",
            ".endif",
            "dec {count}",
            "jnz 2b",
            groups = const ACTIVATION_BLOCK / GROUP,
            all_steps = const Self::STEPS,
            steps = const Self::STEPS - !Self::OFFSET as usize,
            offset = const Self::OFFSET as u32,
            shift = const BITS.saturating_sub(4),
            narrow = const Self::NARROW as u32,
            biased = const BIASED as u32,
            weights = inout(reg) weights => _,
            panel_scales = inout(reg) panel_scales => _,
            biases = inout(reg) biases => _,
            codes = inout(reg) codes => _,
            third = inout(reg) codes.wrapping_add(16 * stride) => _,
            scales = inout(reg) scales => _,
            sums = inout(reg) sums => _,
            offsets = inout(reg) offsets => _,
            stride = in(reg) stride,
            three = in(reg) 3 * stride,
            totals = in(reg) $totals,
            count = inout(reg) count => _,
            out("ymm0") _, out("ymm1") _, out("ymm2") _, out("ymm3") _, out("ymm4") _, out("ymm5") _, out("ymm6") _,
            out("ymm7") _, out("ymm8") _, out("ymm9") _, out("ymm10") _, out("ymm11") _, out("ymm12") _, out("ymm13") _,
            out("ymm14") _, out("ymm15") _,
            options(nostack),
        );
    }};
}

/// Panels of codes of `BITS` bits in groups of `GROUP`; a symmetric format's offset is half its range.
struct Shape<const GROUP: usize, const BITS: u32, const BIASED: bool>;

impl<const GROUP: usize, const BITS: u32, const BIASED: bool> Shape<GROUP, BITS, BIASED> {
    /// Whether sums are in 16 bits until a group's end.
    const NARROW: bool =
        !matches!(arrangement(PanelShape { group: GROUP, bits: BITS, biased: BIASED }), Arrangement::SignedPairs);
    /// Steps in a group.
    const STEPS: usize = GROUP / if Self::NARROW { 4 } else { 2 };
    /// Whether a sum begins with what codes stored around half their range add too much.
    const OFFSET: bool = Self::NARROW && (BITS == 5 || !BIASED);

    /// Adds the products of blocks with `rows` rows of activations to their totals.
    ///
    /// # Safety
    /// What `operands` points to is there for `count` blocks of so many rows, the panel's codes aligned to 32 bytes; `sums` and
    /// `biases` only where `BIASED`, `offsets` only where `OFFSET`.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn add(rows: usize, operands: Operands, totals: &mut Totals) {
        const { assert!(!BIASED || GROUP == ACTIVATION_BLOCK, "biases are read once for a block") };
        // The loop in assembly ends only after a block.
        if operands.count == 0 {
            return;
        }
        let totals: *mut Totals = totals;
        macro_rules! rows {
            ($rows:tt) => {
                if Self::NARROW {
                    add_blocks!("vpmaddubsw", "vpaddw", operands, totals, $rows)
                } else {
                    add_blocks!("vpmaddwd", "vpaddd", operands, totals, $rows)
                }
            };
        }
        // SAFETY: the caller's promise; only AVX2 and FMA instructions on registers and those operands.
        unsafe {
            match rows {
                1 => rows!([("{codes}", "", "", 0, 1, 8, 0)]),
                2 => rows!([
                    ("{codes}", "", "", 0, 1, 8, 0),
                    ("{codes} + 8 * {stride}", " + {stride}", " + 2 * {stride}", 2, 3, 9, 64)
                ]),
                3 => rows!([
                    ("{codes}", "", "", 0, 1, 8, 0),
                    ("{codes} + 8 * {stride}", " + {stride}", " + 2 * {stride}", 2, 3, 9, 64),
                    ("{third}", " + 2 * {stride}", " + 4 * {stride}", 4, 5, 10, 128)
                ]),
                _ => rows!([
                    ("{codes}", "", "", 0, 1, 8, 0),
                    ("{codes} + 8 * {stride}", " + {stride}", " + 2 * {stride}", 2, 3, 9, 64),
                    ("{third}", " + 2 * {stride}", " + 4 * {stride}", 4, 5, 10, 128),
                    ("{third} + 8 * {stride}", " + {three}", " + 2 * {three}", 6, 7, 11, 192)
                ]),
            }
        }
    }
}

/// All of `x` times a panel.
///
/// # Safety
/// As [`integer_tile`]; the panel is of that shape.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn tile<const GROUP: usize, const BITS: u32, const BIASED: bool>(
    panel: &IntegerPanel,
    x: IntegerRows<'_>,
    mut out: TileOut<'_>,
) {
    let (all, out) = (ActivationPointers::new(&x), out.pointer());
    let mut wide = Wide { codes: [[0; DEPTH]; TILE_ROWS], scales: [[0.0; SCALES]; TILE_ROWS] };
    let mut totals = Totals([[0.0; PANEL_ROWS]; TILE_ROWS]);
    for row in (0..x.rows).step_by(TILE_ROWS) {
        let rows = TILE_ROWS.min(x.rows - row);
        let results = |index: usize| out.at_row(row + index).values;
        // SAFETY: the caller's promise: each row of results has `PANEL_ROWS` numbers, and the activations have these rows.
        unsafe {
            for (index, totals) in totals.0[..rows].iter_mut().enumerate() {
                if out.accumulate {
                    totals.copy_from_slice(std::slice::from_raw_parts(results(index), PANEL_ROWS));
                } else {
                    totals.fill(0.0);
                }
            }
            let activations = all.at_row(row);
            rows_of_tile::<GROUP, BITS, BIASED>(panel, rows, activations, &mut wide, &mut totals);
            for (index, totals) in totals.0[..rows].iter().enumerate() {
                results(index).copy_from_nonoverlapping(totals.as_ptr(), PANEL_ROWS);
            }
        }
    }
}

/// `rows` rows of activations, of which `x` is the first, times a panel.
///
/// # Safety
/// The panel holds what its `k` says, and so many values of each row are there.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn rows_of_tile<const GROUP: usize, const BITS: u32, const BIASED: bool>(
    panel: &IntegerPanel,
    rows: usize,
    x: ActivationPointers,
    wide: &mut Wide,
    totals: &mut Totals,
) {
    // SAFETY: the caller's promise. `Wide` holds whole rows of a part of the depth.
    unsafe {
        let operands = Operands {
            weights: panel.codes.as_ptr().cast(),
            panel_scales: panel.scales.as_ptr(),
            biases: panel.biases.as_ptr(),
            codes: x.codes.cast(),
            scales: x.scales,
            sums: x.sums,
            offsets: x.pair_offsets,
            stride: x.row_blocks() * size_of::<f32>(),
            count: panel.k / ACTIVATION_BLOCK,
        };
        if Shape::<GROUP, BITS, BIASED>::NARROW {
            return Shape::<GROUP, BITS, BIASED>::add(rows, operands, totals);
        }
        for start in (0..panel.k).step_by(DEPTH) {
            let depth = DEPTH.min(panel.k - start);
            for (index, (codes, scales)) in wide.codes.iter_mut().zip(&mut wide.scales).take(rows).enumerate() {
                let narrow = std::slice::from_raw_parts(x.codes.add(index * x.row_len + start), depth);
                for (wide, codes) in codes.as_chunks_mut::<16>().0.iter_mut().zip(narrow.as_chunks::<16>().0) {
                    let codes = _mm256_cvtepi8_epi16(_mm_loadu_si128(codes.as_ptr().cast()));
                    _mm256_store_si256(wide.as_mut_ptr().cast(), codes);
                }
                let blocks = depth / ACTIVATION_BLOCK;
                let narrow = x.scales.add(index * x.row_blocks() + start / ACTIVATION_BLOCK);
                scales[..blocks].copy_from_slice(std::slice::from_raw_parts(narrow, blocks));
            }
            let part = Operands {
                weights: operands.weights.add(start * PANEL_ROWS * 2),
                panel_scales: operands.panel_scales.add(start / GROUP * PANEL_ROWS),
                biases: std::ptr::null(),
                codes: wide.codes.as_ptr().cast(),
                scales: wide.scales.as_ptr().cast(),
                stride: SCALES * size_of::<f32>(),
                count: depth / ACTIVATION_BLOCK,
                ..operands
            };
            Shape::<GROUP, BITS, BIASED>::add(rows, part, totals);
        }
    }
}
