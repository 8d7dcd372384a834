//! Whether a file's markers are in order.

/// Whether the markers within scans are such as the strict decoder and libjpeg read alike: no filled-up data bytes, and restarts in
/// their order. Cheap, since only bytes of 255 matter; it says nothing about the codes.
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
        at += word(at);
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
