//! The loop that prompts spend their time in: six rows of activations times two panels.

use std::arch::asm;
use std::arch::x86_64::*;

/// Groups that a call multiplies at most.
pub(super) const GROUPS: usize = 16;
/// Rows that it multiplies.
pub(super) const ROWS: usize = 6;

/// What rows of activations bring to the groups of a call.
#[repr(C)]
pub(super) struct Groups {
    /// Without biases, where the sums of codes begin: the offset of unsigned codes, taken off before the products are added.
    pub(super) starts: [[i32; GROUPS]; ROWS],
    /// The scales of the activations.
    pub(super) scales: [[f32; GROUPS]; ROWS],
    /// With biases, what these are multiplied with: the sums of the activations.
    pub(super) sums: [[f32; GROUPS]; ROWS],
}

// The instructions below count in these.
const _: () = {
    use std::mem::offset_of;
    assert!(GROUPS * size_of::<f32>() == 64 && ROWS == 6);
    assert!(
        offset_of!(Groups, starts) == 0
            && offset_of!(Groups, scales) == 64 * ROWS
            && offset_of!(Groups, sums) == 64 * 2 * ROWS
    );
};

/// Where the codes of two panels begin, their scales, and their biases where the format has them.
pub(super) struct Panels {
    pub(super) codes: [*const __m512i; 2],
    pub(super) scales: [*const f32; 2],
    pub(super) biases: [*const f32; 2],
}

/// Six rows of activations.
pub(super) struct Activations<'a> {
    /// The first row's codes.
    pub(super) codes: *const i8,
    /// Bytes from a row to the next.
    pub(super) stride: usize,
    pub(super) groups: &'a Groups,
    /// How many groups there are, from one to [`GROUPS`].
    pub(super) count: usize,
}

/// Adds the products of `count` groups of `GROUP` codes to `totals`, a sum for each row and panel. Prefetches the rows behind these.
///
/// Written as instructions: the compiler copies all sums once in every group, and computes addresses anew.
///
/// # Safety
/// - `count` groups are readable at each pointer of `panels`, at biases only where `BIASED`; codes are aligned to 64 bytes.
/// - `count * GROUP` codes are readable at each of six rows, `stride` bytes apart.
#[inline]
#[target_feature(enable = "avx512f,avx512vnni")]
pub(super) unsafe fn add_products<const GROUP: usize, const BIASED: bool>(
    totals: &mut [[__m512; 2]; ROWS],
    panels: Panels,
    activations: Activations<'_>,
) {
    let Activations { codes: x, stride, groups, count } = activations;
    /// Both sums of a row begin at what the group has for it.
    #[rustfmt::skip]
    macro_rules! start {
        ($left:literal, $right:literal, $row:literal) => { concat!(
            "vpbroadcastd {", $left, "}, dword ptr [{groups} + 64*", $row, "]\n",
            "vmovdqa64 {", $right, "}, {", $left, "}",
        ) };
    }
    /// Both sums of a row begin at zero.
    #[rustfmt::skip]
    macro_rules! clear {
        ($left:literal, $right:literal, $row:literal) => { concat!(
            "vpxord {", $left, "}, {", $left, "}, {", $left, "}\n",
            "vpxord {", $right, "}, {", $right, "}, {", $right, "}",
        ) };
    }
    /// Four codes of a row, from `u` on.
    macro_rules! load {
        ($codes:literal, $row:literal) => {
            concat!("vpbroadcastd {", $codes, "}, dword ptr [{x} + ", $row, " + \\u]")
        };
    }
    /// Their products with those of both panels.
    #[rustfmt::skip]
    macro_rules! multiply {
        ($left:literal, $right:literal, $codes:literal) => { concat!(
            "vpdpbusd {", $left, "}, {left_line}, {", $codes, "}\n",
            "vpdpbusd {", $right, "}, {right_line}, {", $codes, "}",
        ) };
    }
    /// Both sums of a row, scaled, join their totals.
    #[rustfmt::skip]
    macro_rules! finish {
        ($left:literal, $right:literal, $left_total:literal, $right_total:literal, $row:literal) => { concat!(
            "vbroadcastss {odd}, dword ptr [{groups} + 64*(6 + ", $row, ")]\n",
            "vmulps {even}, {left_line}, {odd}\n",
            "vmulps {odd}, {right_line}, {odd}\n",
            "vcvtdq2ps {", $left, "}, {", $left, "}\n",
            "vcvtdq2ps {", $right, "}, {", $right, "}\n",
            "vfmadd231ps {", $left_total, "}, {", $left, "}, {even}\n",
            "vfmadd231ps {", $right_total, "}, {", $right, "}, {odd}",
        ) };
    }
    /// Biases join the totals of a row.
    #[rustfmt::skip]
    macro_rules! bias {
        ($left:literal, $right:literal, $row:literal) => { concat!(
            "vfmadd231ps {", $left, "}, {left_line}, dword ptr [{groups} + 64*(12 + ", $row, ")]{{1to16}}\n",
            "vfmadd231ps {", $right, "}, {right_line}, dword ptr [{groups} + 64*(12 + ", $row, ")]{{1to16}}",
        ) };
    }
    debug_assert!((1..=GROUPS).contains(&count));
    let [[t0, t1], [t2, t3], [t4, t5], [t6, t7], [t8, t9], [t10, t11]] = totals;
    // Registers whose values are not looked at; by their types they get the names that the instructions want.
    let mut rest = [_mm512_setzero_si512(); 16];
    let [s0, s1, s2, s3, s4, s5, s6, s7, s8, s9, s10, s11, left_line, right_line, even, odd] = &mut rest;
    /// The loop over groups: how its sums begin, where in a group its steps are, and what else it does and needs.
    macro_rules! groups {
        ($start:ident, $steps:literal, [$($biases:expr),*], $($operands:tt)*) => {
            asm!(
                "2:",
                $start!("s0", "s1", "0"),
                $start!("s2", "s3", "1"),
                $start!("s4", "s5", "2"),
                $start!("s6", "s7", "3"),
                $start!("s8", "s9", "4"),
                $start!("s10", "s11", "5"),
                "prefetcht0 [{next}]",
                "prefetcht0 [{next} + {stride}]",
                "prefetcht0 [{next} + 2*{stride}]",
                "prefetcht0 [{next} + {thrice}]",
                "prefetcht0 [{next} + 4*{stride}]",
                "prefetcht0 [{next} + {five}]",
                concat!(".irp u, ", $steps),
                "vmovdqa64 {left_line}, [{left} + 16*\\u]",
                "vmovdqa64 {right_line}, [{right} + 16*\\u]",
                load!("even", "0"),
                load!("odd", "{stride}"),
                multiply!("s0", "s1", "even"),
                load!("even", "2*{stride}"),
                multiply!("s2", "s3", "odd"),
                load!("odd", "{thrice}"),
                multiply!("s4", "s5", "even"),
                load!("even", "4*{stride}"),
                multiply!("s6", "s7", "odd"),
                load!("odd", "{five}"),
                multiply!("s8", "s9", "even"),
                multiply!("s10", "s11", "odd"),
                ".endr",
                "vmovups {left_line}, [{left_scales}]",
                "vmovups {right_line}, [{right_scales}]",
                finish!("s0", "s1", "t0", "t1", "0"),
                finish!("s2", "s3", "t2", "t3", "1"),
                finish!("s4", "s5", "t4", "t5", "2"),
                finish!("s6", "s7", "t6", "t7", "3"),
                finish!("s8", "s9", "t8", "t9", "4"),
                finish!("s10", "s11", "t10", "t11", "5"),
                $($biases,)*
                "add {groups}, 4",
                "add {x}, {group}",
                "add {next}, {group}",
                "add {left}, 16*{group}",
                "add {right}, 16*{group}",
                "add {left_scales}, 64",
                "add {right_scales}, 64",
                "dec {count}",
                "jnz 2b",
                t0 = inout(zmm_reg) *t0, t1 = inout(zmm_reg) *t1, t2 = inout(zmm_reg) *t2, t3 = inout(zmm_reg) *t3,
                t4 = inout(zmm_reg) *t4, t5 = inout(zmm_reg) *t5, t6 = inout(zmm_reg) *t6, t7 = inout(zmm_reg) *t7,
                t8 = inout(zmm_reg) *t8, t9 = inout(zmm_reg) *t9, t10 = inout(zmm_reg) *t10, t11 = inout(zmm_reg) *t11,
                s0 = out(zmm_reg) *s0, s1 = out(zmm_reg) *s1, s2 = out(zmm_reg) *s2, s3 = out(zmm_reg) *s3,
                s4 = out(zmm_reg) *s4, s5 = out(zmm_reg) *s5, s6 = out(zmm_reg) *s6, s7 = out(zmm_reg) *s7,
                s8 = out(zmm_reg) *s8, s9 = out(zmm_reg) *s9, s10 = out(zmm_reg) *s10, s11 = out(zmm_reg) *s11,
                left_line = out(zmm_reg) *left_line, right_line = out(zmm_reg) *right_line,
                even = out(zmm_reg) *even, odd = out(zmm_reg) *odd,
                left = inout(reg) panels.codes[0] => _,
                right = inout(reg) panels.codes[1] => _,
                left_scales = inout(reg) panels.scales[0] => _,
                right_scales = inout(reg) panels.scales[1] => _,
                x = inout(reg) x => _,
                next = inout(reg) x.wrapping_add(ROWS * stride) => _,
                groups = inout(reg) groups => _,
                count = inout(reg) count => _,
                stride = in(reg) stride,
                thrice = in(reg) 3 * stride,
                five = in(reg) 5 * stride,
                group = const GROUP,
                $($operands)*
                options(readonly, nostack),
            )
        };
    }
    // SAFETY: reads what the caller promises, and `groups`. Prefetches read nothing.
    unsafe {
        match (GROUP, BIASED) {
            (32, false) => groups!(start, "0, 4, 8, 12, 16, 20, 24, 28", [],),
            (16, false) => groups!(start, "0, 4, 8, 12", [],),
            (32, true) => groups!(
                clear,
                "0, 4, 8, 12, 16, 20, 24, 28",
                [
                    "vmovups {left_line}, [{left_biases}]",
                    "vmovups {right_line}, [{right_biases}]",
                    bias!("t0", "t1", "0"),
                    bias!("t2", "t3", "1"),
                    bias!("t4", "t5", "2"),
                    bias!("t6", "t7", "3"),
                    bias!("t8", "t9", "4"),
                    bias!("t10", "t11", "5"),
                    "add {left_biases}, 64",
                    "add {right_biases}, 64"
                ],
                left_biases = inout(reg) panels.biases[0] => _,
                right_biases = inout(reg) panels.biases[1] => _,
            ),
            _ => unreachable!("no format has such groups"),
        }
    }
}
