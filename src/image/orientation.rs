//! How a picture is to be turned, by Exif or, where that does not say, by XMP: Pillow's `exif_transpose`.

use image::metadata::Orientation;

/// Exif's tag of the orientation.
const TAG: u16 = 0x0112;

/// By what a file holds of the two. What is damaged says nothing: it is no reason to refuse a sound picture.
pub(super) fn of(exif: Option<&[u8]>, xmp: Option<&[u8]>) -> Orientation {
    let number = match exif.and_then(of_exif) {
        Some(number) => number,
        None => xmp.and_then(of_xmp).unwrap_or(1),
    };
    u8::try_from(number).ok().and_then(Orientation::from_exif).unwrap_or(Orientation::NoTransforms)
}

/// The number in a TIFF structure's first directory.
fn of_exif(exif: &[u8]) -> Option<u32> {
    let exif = exif.strip_prefix(b"Exif\0\0").unwrap_or(exif);
    let little = match exif.get(..4)? {
        b"II*\0" => true,
        b"MM\0*" => false,
        _ => return None,
    };
    let short = |at: usize| -> Option<u16> {
        let bytes = exif.get(at..at.checked_add(2)?)?.try_into().ok()?;
        Some(if little { u16::from_le_bytes(bytes) } else { u16::from_be_bytes(bytes) })
    };
    let long = |at: usize| -> Option<u32> {
        let bytes = exif.get(at..at.checked_add(4)?)?.try_into().ok()?;
        Some(if little { u32::from_le_bytes(bytes) } else { u32::from_be_bytes(bytes) })
    };
    let directory = usize::try_from(long(4)?).ok()?;
    let entries = usize::from(short(directory)?);
    let entry = (0..entries).map(|entry| directory + 2 + 12 * entry).find(|at| short(*at) == Some(TAG))?;
    // Numbers of one, two and four bytes, with a sign or without. What is none of these turns nothing, whatever XMP says.
    match (short(entry + 2)?, long(entry + 4)?) {
        (1 | 6, 1) => exif.get(entry + 8).copied().map(u32::from),
        (3 | 8, 1) => short(entry + 8).map(u32::from),
        (4 | 9, 1) => long(entry + 8),
        _ => Some(1),
    }
}

/// The digit in `tiff:Orientation="6"` or `<tiff:Orientation>6`.
fn of_xmp(xmp: &[u8]) -> Option<u32> {
    const NAME: &[u8] = b"tiff:Orientation";
    let mut rest = xmp;
    while let Some(at) = rest.windows(NAME.len()).position(|window| window == NAME) {
        rest = &rest[at + NAME.len()..];
        let digit = rest.strip_prefix(b"=\"").or_else(|| rest.strip_prefix(b">")).and_then(<[u8]>::first);
        if let Some(digit) = digit.filter(|digit| digit.is_ascii_digit()) {
            return Some(u32::from(digit - b'0'));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exif(little: bool, kind: u16, value: [u8; 4]) -> Vec<u8> {
        let short = |value: u16| if little { value.to_le_bytes() } else { value.to_be_bytes() };
        let long = |value: u32| if little { value.to_le_bytes() } else { value.to_be_bytes() };
        let start: &[u8] = if little { b"II*\0" } else { b"MM\0*" };
        [start, &long(8), &short(1), &short(TAG), &short(kind), &long(1), &value].concat()
    }

    #[test]
    fn numbers_of_every_kind_are_read() {
        for (kind, little, big) in
            [(3, [6, 0, 0, 0], [0, 6, 0, 0]), (4, [6, 0, 0, 0], [0, 0, 0, 6]), (1, [6; 4], [6; 4])]
        {
            assert_eq!(of(Some(&exif(true, kind, little)), None), Orientation::Rotate90, "{kind}");
            assert_eq!(of(Some(&exif(false, kind, big)), None), Orientation::Rotate90, "{kind}");
        }
        assert_eq!(of(Some(&exif(true, 4, [6, 1, 0, 0])), None), Orientation::NoTransforms);
        assert_eq!(of(Some(&exif(true, 2, [6, 0, 0, 0])), None), Orientation::NoTransforms);
        let whole = exif(true, 4, [6, 0, 0, 0]);
        for len in 0..whole.len() {
            assert_eq!(of(Some(&whole[..len]), None), Orientation::NoTransforms);
        }
    }

    #[test]
    fn xmp_says_what_exif_leaves_open() {
        for xmp in ["<a tiff:Orientation=\"6\"/>", "tiff:Orientation <tiff:Orientation>6</tiff:Orientation>"] {
            assert_eq!(of(None, Some(xmp.as_bytes())), Orientation::Rotate90);
            assert_eq!(of(Some(&exif(true, 3, [1, 0, 0, 0])), Some(xmp.as_bytes())), Orientation::NoTransforms);
        }
        for xmp in ["", "tiff:Orientation", "tiff:Orientation=\"", "tiff:Orientation=\"x6", "tiff:Orientation=\"9\""] {
            assert_eq!(of(None, Some(xmp.as_bytes())), Orientation::NoTransforms, "{xmp}");
        }
    }
}
