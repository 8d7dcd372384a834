//! Products of AMX tiles. Each group of up to four result tiles is one `asm!` block from its first load to its last store: no tile
//! register holds anything between blocks.

use std::arch::asm;

use crate::kernels::matrix_unit::{OperandView, Pieces, TILE_DEPTH, TILE_ROWS, Tile};
use crate::kernels::operands::TileOut;

/// What `ldtilecfg` reads: for each register its bytes in a row and its rows.
#[repr(C, align(64))]
struct TileShapes {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

/// Tiles of the two sides that meet: two strips of the left side, three of the right side, and how many tiles follow each other.
#[repr(C)]
#[derive(Clone, Copy)]
struct Meeting {
    left: [*const Tile; 2],
    right: [*const Tile; 3],
    steps: usize,
}

// What the instructions below read and count in.
const _: () = {
    use std::mem::offset_of;
    assert!(
        size_of::<TileShapes>() == 64 && offset_of!(TileShapes, row_bytes) == 16 && offset_of!(TileShapes, rows) == 48
    );
    assert!(size_of::<Tile>() == 1024 && TILE_DEPTH * size_of::<u16>() == 64);
    assert!(TILE_ROWS * size_of::<f32>() == 64 && TILE_ROWS == 1 << 4);
    assert!(size_of::<Meeting>() == 48 && offset_of!(Meeting, right) == 16 && offset_of!(Meeting, steps) == 40);
};

/// All eight registers hold whole tiles.
static SHAPES: TileShapes = TileShapes {
    palette: 1,
    start_row: 0,
    reserved: [0; 14],
    row_bytes: [64, 64, 64, 64, 64, 64, 64, 64, 0, 0, 0, 0, 0, 0, 0, 0],
    rows: [16, 16, 16, 16, 16, 16, 16, 16, 0, 0, 0, 0, 0, 0, 0, 0],
};

/// A group of result tiles: the strips of both sides that it begins with, and where it lies.
struct Group {
    row: usize,
    column: usize,
    out: *mut f32,
    /// Numbers from one row of the results to the next.
    stride: usize,
    accumulate: bool,
}

/// `out[i][j] (+)= Σ_k left[i][k] · right[j][k]`, for whole strips on both sides.
///
/// # Safety
/// The arguments are what [`MatrixUnit::multiply`](crate::MatrixUnit::multiply) checks, and the CPU has tiles.
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn multiply(left: OperandView<'_>, right: OperandView<'_>, out: TileOut<'_>) {
    // SAFETY: the configuration is valid, and the CPU has tiles, the caller's promise. It is a setting of this thread, not a value: no code
    // but the blocks below looks at it, and it is given back below.
    unsafe {
        asm!(
            "ldtilecfg [{}]", in(reg) &raw const SHAPES,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(readonly, nostack, preserves_flags)
        )
    };
    let mut column = 0;
    while column < right.height {
        // An odd last strip goes with the two before it: alone it would wait for each of its products.
        let (across, down) = match right.height - column {
            1 => (1, 2),
            3 => (3, 1),
            _ => (2, 2),
        };
        for row in (0..left.height).step_by(down) {
            let start = row * TILE_ROWS * out.stride + column * TILE_ROWS;
            // SAFETY: the results fit, so that a group's first number lies inside them.
            let target = unsafe { out.values.as_mut_ptr().add(start) };
            let group = Group { row, column, out: target, stride: out.stride, accumulate: out.accumulate };
            // SAFETY: the strips exist: `down` and `across` are no more than what is left; the results fit, the caller's promise; the
            // registers are configured.
            unsafe {
                match (down.min(left.height - row), across) {
                    (1, 1) => strips::<1, 1>(left, right, group),
                    (1, 2) => strips::<1, 2>(left, right, group),
                    (1, _) => strips::<1, 3>(left, right, group),
                    (_, 1) => strips::<2, 1>(left, right, group),
                    _ => strips::<2, 2>(left, right, group),
                }
            }
        }
        column += across;
    }
    // SAFETY: gives back what was configured above; no tile register holds anything that is wanted.
    unsafe {
        asm!(
            "tilerelease",
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nomem, nostack, preserves_flags)
        )
    };
}

/// `LEFT × RIGHT` tiles of the result, at most four. The right side only passes through (`t1`): the left side, which meets all of
/// it, keeps the first-level cache.
///
/// # Safety
/// The strips exist, the results fit, and the tile registers are configured.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn strips<const LEFT: usize, const RIGHT: usize>(left: OperandView<'_>, right: OperandView<'_>, group: Group) {
    let nothing = Meeting { left: [std::ptr::null(); 2], right: [std::ptr::null(); 3], steps: 0 };
    let mut meetings = [nothing; Pieces::MOST * Pieces::MOST];
    let mut count = 0;
    let pieces = left.pieces.max(right.pieces).count();
    // Without steps there is nothing to add.
    let lefts = if left.steps == 0 { 0 } else { left.pieces.count() };
    for i in 0..lefts {
        for j in 0..right.pieces.count().min(pieces - i) {
            let tiles = |side: OperandView<'_>, strip, piece| side.tiles(strip, piece).as_ptr();
            meetings[count] = Meeting {
                left: [0, 1].map(|next: usize| tiles(left, group.row + next.min(LEFT - 1), i)),
                right: [0, 1, 2].map(|next: usize| tiles(right, group.column + next.min(RIGHT - 1), j)),
                steps: left.steps,
            };
            count += 1;
        }
    }
    /// The results, each by its register and its place (`{out}` is the first tile's, `{a}` that of the tile below it), and what a step
    /// adds to them.
    macro_rules! products {
        ($($result:literal at $place:literal)*; add $($add:literal)*) => {
            asm!(
                "tilezero tmm0",
                "tilezero tmm1",
                "tilezero tmm2",
                "tilezero tmm3",
                "test {steps}, {steps}",
                "jz 2f",
                "mov {a}, {stride}",
                "shl {a}, 4",
                "add {a}, {out}",
                $(concat!("tileloadd ", $result, ", [", $place, "]"),)*
                "2:",
                "test {count}, {count}",
                "jz 5f",
                "3:",
                "mov {a}, [{meeting}]",
                "mov {b}, [{meeting} + 8]",
                "mov {x}, [{meeting} + 16]",
                "mov {y}, [{meeting} + 24]",
                "mov {z}, [{meeting} + 32]",
                "mov {steps}, [{meeting} + 40]",
                "4:",
                $($add,)*
                "add {a}, 1024",
                "add {b}, 1024",
                "add {x}, 1024",
                "add {y}, 1024",
                "add {z}, 1024",
                "dec {steps}",
                "jnz 4b",
                "add {meeting}, 48",
                "dec {count}",
                "jnz 3b",
                "5:",
                "mov {a}, {stride}",
                "shl {a}, 4",
                "add {a}, {out}",
                $(concat!("tilestored [", $place, "], ", $result),)*
                meeting = inout(reg) meetings.as_ptr() => _, count = inout(reg) count => _,
                out = in(reg) group.out, stride = in(reg) group.stride * size_of::<f32>(), line = in(reg) 64usize,
                steps = inout(reg) usize::from(group.accumulate) => _,
                a = out(reg) _, b = out(reg) _, x = out(reg) _, y = out(reg) _, z = out(reg) _,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack)
            )
        };
    }
    // SAFETY: each meeting's pointers have `steps` tiles, at least one, of `OperandView::tiles`; 16 rows of 16 numbers of each of the
    // `LEFT × RIGHT` results are read and written, the caller's promise; the registers are configured, likewise.
    unsafe {
        match (LEFT, RIGHT) {
            (2, 2) => products!(
                "tmm0" at "{out} + {stride}"
                "tmm1" at "{out} + {stride} + 64"
                "tmm2" at "{a} + {stride}"
                "tmm3" at "{a} + {stride} + 64";
                add
                "tileloadd tmm4, [{a} + {line}]"
                "tileloaddt1 tmm6, [{x} + {line}]"
                "tdpbf16ps tmm0, tmm4, tmm6"
                "tileloaddt1 tmm7, [{y} + {line}]"
                "tdpbf16ps tmm1, tmm4, tmm7"
                "tileloadd tmm5, [{b} + {line}]"
                "tdpbf16ps tmm2, tmm5, tmm6"
                "tdpbf16ps tmm3, tmm5, tmm7"
            ),
            (2, 1) => products!(
                "tmm0" at "{out} + {stride}"
                "tmm2" at "{a} + {stride}";
                add
                "tileloadd tmm4, [{a} + {line}]"
                "tileloaddt1 tmm6, [{x} + {line}]"
                "tdpbf16ps tmm0, tmm4, tmm6"
                "tileloadd tmm5, [{b} + {line}]"
                "tdpbf16ps tmm2, tmm5, tmm6"
            ),
            (1, 3) => products!(
                "tmm0" at "{out} + {stride}"
                "tmm1" at "{out} + {stride} + 64"
                "tmm2" at "{out} + {stride} + 128";
                add
                "tileloadd tmm4, [{a} + {line}]"
                "tileloaddt1 tmm6, [{x} + {line}]"
                "tdpbf16ps tmm0, tmm4, tmm6"
                "tileloaddt1 tmm7, [{y} + {line}]"
                "tdpbf16ps tmm1, tmm4, tmm7"
                "tileloaddt1 tmm5, [{z} + {line}]"
                "tdpbf16ps tmm2, tmm4, tmm5"
            ),
            (1, 2) => products!(
                "tmm0" at "{out} + {stride}"
                "tmm1" at "{out} + {stride} + 64";
                add
                "tileloadd tmm4, [{a} + {line}]"
                "tileloaddt1 tmm6, [{x} + {line}]"
                "tdpbf16ps tmm0, tmm4, tmm6"
                "tileloaddt1 tmm7, [{y} + {line}]"
                "tdpbf16ps tmm1, tmm4, tmm7"
            ),
            _ => products!(
                "tmm0" at "{out} + {stride}";
                add
                "tileloadd tmm4, [{a} + {line}]"
                "tileloaddt1 tmm6, [{x} + {line}]"
                "tdpbf16ps tmm0, tmm4, tmm6"
            ),
        }
    }
}
