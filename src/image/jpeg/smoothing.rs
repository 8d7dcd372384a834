//! Guesses coefficients that no scan has brought from the DC values of the blocks around, as libjpeg does
//! (`smoothing_ok` and `decompress_smooth_data` in `jdcoefct.c`).

use super::coefficients::{Component, ZIGZAG};

/// Weights of the 25 blocks around, row by row.
type Weights = [i64; 25];

/// For each of the first nine coefficients, where nothing but DC values is known.
#[rustfmt::skip]
const FROM_DC: [Weights; 9] = [
    [-1, -1, 0, 1, 1, -3, 13, 0, -13, 3, -3, 38, 0, -38, 3, -3, 13, 0, -13, 3, -1, -1, 0, 1, 1],
    [-1, -3, -3, -3, -1, -1, 13, 38, 13, -1, 0, 0, 0, 0, 0, 1, -13, -38, -13, 1, 1, 3, 3, 3, 1],
    [0, 0, 1, 0, 0, 0, 2, 7, 2, 0, 0, -5, -14, -5, 0, 0, 2, 7, 2, 0, 0, 0, 1, 0, 0],
    [-1, 0, 0, 0, 1, 0, 9, 0, -9, 0, 0, 0, 0, 0, 0, 0, -9, 0, 9, 0, 1, 0, 0, 0, -1],
    [0, 0, 0, 0, 0, 0, 2, -5, 2, 0, 1, 7, -14, 7, 1, 0, 2, -5, 2, 0, 0, 0, 0, 0, 0],
    [0, 0, 0, 0, 0, 0, 1, 0, -1, 0, 0, 2, 0, -2, 0, 0, 1, 0, -1, 0, 0, 0, 0, 0, 0],
    [0, 0, 0, 0, 0, 0, 1, -3, 1, 0, 0, 0, 0, 0, 0, 0, -1, 3, -1, 0, 0, 0, 0, 0, 0],
    [0, 0, 0, 0, 0, 0, 1, 0, -1, 0, 0, -3, 0, 3, 0, 0, 1, 0, -1, 0, 0, 0, 0, 0, 0],
    [0, 0, 0, 0, 0, 0, 1, 2, 1, 0, 0, 0, 0, 0, 0, 0, -1, -2, -1, 0, 0, 0, 0, 0, 0],
];
/// For the first five, where some AC coefficients are known in part.
#[rustfmt::skip]
const BESIDE_AC: [Weights; 5] = [
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, -7, 50, 0, -50, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    [0, 0, -7, 0, 0, 0, 0, 50, 0, 0, 0, 0, 0, 0, 0, 0, 0, -50, 0, 0, 0, 0, 7, 0, 0],
    [0, 0, -1, 0, 0, 0, 0, 13, 0, 0, 0, 0, -24, 0, 0, 0, 0, 13, 0, 0, 0, 0, -1, 0, 0],
    [0, -1, 0, 1, 0, -1, 10, 0, -10, 1, 0, 0, 0, 0, 0, 1, -10, 0, 10, -1, 0, 1, 0, -1, 0],
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, -1, 13, -24, 13, -1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
];
/// For the DC value itself.
#[rustfmt::skip]
const DC: Weights = [
    -2, -6, -8, -6, -2, -6, 6, 42, 6, -6, -8, 42, 152, 42, -8, -6, 6, 42, 6, -6, -2, -6, -8, -6, -2,
];

/// Coefficients that are guessed, and DC.
const GUESSED: usize = 10;

/// Fills `components` with guesses after `scans` scans, the last of which has brought the rows of MCUs up to `last_good_row`.
pub(super) fn smooth(components: &mut [Component], scans: usize, last_good_row: usize) {
    let first_ten = |component: &Component| -> Option<[i64; GUESSED]> {
        let table = component.quantization?;
        let values: [i64; GUESSED] = std::array::from_fn(|k| i64::from(table[ZIGZAG[k]]));
        (!values.contains(&0) && component.bits[0] >= 0).then_some(values)
    };
    let Some(tables) = components.iter().map(first_ten).collect::<Option<Vec<_>>>() else { return };
    if components.iter().all(|component| component.bits[1..GUESSED].iter().all(|bits| *bits == 0)) {
        return;
    }
    for (component, table) in components.iter_mut().zip(&tables) {
        let before = if scans > 1 { component.bits_before } else { [-1; 64] };
        let down = component.sampling.down;
        let mcu_rows = component.stored.down / down;
        let mut smoothed = component.blocks.clone();
        for row in 0..mcu_rows {
            // Rows that the last scan has not reached know what the one before it has brought.
            let bits = if row > last_good_row { before } else { component.bits };
            let rest = component.needed.down % down;
            let rows = if row + 1 < mcu_rows || rest == 0 { down } else { rest };
            for sub in 0..rows {
                // libjpeg's own count of rows, which differs from the place in the last row of MCUs.
                let (here, at, total) = (row * down + sub, row * rows + sub, rows * mcu_rows);
                let up = if at > 0 { here - 1 } else { here };
                let above = if at > 1 { here - 2 } else { up };
                let below = if at + 1 < total { here + 1 } else { here };
                let bottom = if at + 2 < total { here + 2 } else { below };
                let rows = [above, up, here, below, bottom].map(|row| row.min(component.stored.down - 1));
                for x in 0..component.needed.across {
                    let column = |step: usize| (x + step).saturating_sub(2).min(component.needed.across - 1);
                    let around: Weights = std::array::from_fn(|at| {
                        let block = rows[at / 5] * component.stored.across + column(at % 5);
                        i64::from(component.blocks[block][0])
                    });
                    let block = here * component.stored.across + x;
                    guess(&mut smoothed[block], &around, &bits, table);
                }
            }
        }
        component.blocks = smoothed;
    }
}

fn guess(block: &mut [i16; 64], around: &Weights, bits: &[i32; 64], table: &[i64; GUESSED]) {
    let only_dc = bits[1..GUESSED].iter().all(|bits| *bits == -1);
    let estimate = |weights: &Weights, divisor: i64, unknown: i32| {
        let sum = table[0] * weights.iter().zip(around).map(|(weight, value)| weight * value).sum::<i64>();
        let mut value = ((divisor << 7) + sum.abs()) / (divisor << 8);
        if unknown > 0 && value >= 1 << unknown {
            value = (1 << unknown) - 1;
        }
        (if sum >= 0 { value } else { -value }) as i16
    };
    let weights: &[Weights] = if only_dc { &FROM_DC } else { &BESIDE_AC };
    for (weights, k) in weights.iter().zip(1..) {
        if bits[k] != 0 && block[ZIGZAG[k]] == 0 {
            block[ZIGZAG[k]] = estimate(weights, table[k], bits[k]);
        }
    }
    if only_dc {
        block[0] = estimate(&DC, table[0], 0);
    }
}
