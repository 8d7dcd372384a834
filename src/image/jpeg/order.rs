//! Whether a file's markers and tables are in order.

use super::huffman::Table;

/// Most bits of a coefficient of eight-bit samples.
const MOST_BITS: u8 = 10;

/// Whether the strict decoder and libjpeg read the markers and tables alike: no fill bytes within scans, restart markers in order, valid
/// Huffman tables. Cheap, since only bytes of 255 matter; the entropy-coded data itself is not checked.
pub(super) fn is_orderly(data: &[u8]) -> bool {
    let byte = |at: usize| data.get(at).copied();
    let (mut at, mut interval) = (2, 0);
    loop {
        while byte(at).is_some_and(|byte| byte != 0xff) {
            at += 1;
        }
        while byte(at) == Some(0xff) {
            at += 1;
        }
        let Some(marker) = byte(at) else { return false };
        at += 1;
        match marker {
            0xd9 => return true,
            0 | 0xd0..=0xd8 => continue,
            _ => {}
        }
        let word = |at: usize| usize::from(byte(at).unwrap_or(0)) << 8 | usize::from(byte(at + 1).unwrap_or(0));
        if marker == 0xdd {
            interval = word(at + 2);
        }
        let end = at + word(at);
        if marker == 0xc4 && !data.get(at + 2..end).is_some_and(has_sound_tables) {
            return false;
        }
        at = end;
        if marker != 0xda {
            continue;
        }
        let mut wanted = 0;
        loop {
            let Some(found) = data.get(at..).and_then(|rest| rest.iter().position(|byte| *byte == 0xff)) else {
                return false;
            };
            let first = at + found;
            at = first;
            while byte(at) == Some(0xff) {
                at += 1;
            }
            match byte(at) {
                None => return false,
                Some(0) if at - first == 1 => {}
                Some(0) => return false,
                Some(restart @ 0xd0..=0xd7) if interval > 0 && restart & 7 == wanted => wanted = (wanted + 1) & 7,
                Some(0xd0..=0xd7) => return false,
                Some(_) => {
                    at -= 1;
                    break;
                }
            }
            at += 1;
        }
    }
}

/// Whether the body of a segment of Huffman tables holds valid tables only.
fn has_sound_tables(mut body: &[u8]) -> bool {
    while let Some((&[kind, ref counts @ ..], rest)) = body.split_first_chunk::<17>() {
        let count = counts.iter().map(|count| usize::from(*count)).sum();
        let Some((symbols, rest)) = rest.split_at_checked(count) else { return false };
        let is_dc = kind >> 4 == 0;
        let is_sound = Table::new(counts, symbols, is_dc).is_some();
        if !is_sound || (!is_dc && symbols.iter().any(|symbol| symbol & 15 > MOST_BITS)) {
            return false;
        }
        body = rest;
    }
    true
}
