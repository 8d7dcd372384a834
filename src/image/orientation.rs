//! How a picture is to be turned, by Exif or, where that does not say, by XMP: Pillow's `exif_transpose`.

use image::metadata::Orientation;

use super::tags::Directory;

/// Exif's tag of the orientation.
const ORIENTATION: u16 = 0x0112;
/// TIFF's tag of XMP.
const XMP: u16 = 700;

/// The orientation that a file's Exif or XMP gives. Damaged tags are ignored: they are no reason to refuse a sound picture.
pub(super) fn of(exif: Option<&[u8]>, xmp: Option<&[u8]>) -> Orientation {
    let exif =
        exif.map(|exif| exif.strip_prefix(MARK).unwrap_or(exif)).map(|exif| exif.strip_prefix(MARK).unwrap_or(exif));
    by(exif.and_then(Directory::first).filter(|directory| !directory.is_big()), xmp)
}

/// What stands before Exif's structure; some write it twice.
const MARK: &[u8] = b"Exif\0\0";

/// By a TIFF file's own tags.
pub(super) fn of_tiff(file: &[u8]) -> Orientation {
    let directory = Directory::first(file);
    let xmp = directory.and_then(|directory| directory.entry(XMP)).filter(|entry| matches!(entry.kind, 1 | 7));
    by(directory, xmp.map(|entry| entry.data))
}

fn by(directory: Option<Directory<'_>>, xmp: Option<&[u8]>) -> Orientation {
    let number = match directory.and_then(|directory| Some((directory, directory.entry(ORIENTATION)?))) {
        Some((directory, entry)) => directory.number(entry).unwrap_or(1.0),
        None => f64::from(xmp.and_then(of_xmp).unwrap_or(1)),
    };
    let number = (1..=8).find(|known| f64::from(*known) == number);
    number.and_then(Orientation::from_exif).unwrap_or(Orientation::NoTransforms)
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

    /// A structure with one entry, whose values lie behind it.
    fn exif(little: bool, kind: u16, count: u32, value: &[u8]) -> Vec<u8> {
        let short = |value: u16| if little { value.to_le_bytes() } else { value.to_be_bytes() };
        let long = |value: u32| if little { value.to_le_bytes() } else { value.to_be_bytes() };
        let start: &[u8] = if little { b"II*\0" } else { b"MM\0*" };
        let place = if value.len() > 4 { long(26).to_vec() } else { value.to_vec() };
        let head =
            [start, &long(8), &short(1), &short(ORIENTATION), &short(kind), &long(count), &place, &long(0)].concat();
        if value.len() > 4 { [head, value.to_vec()].concat() } else { head }
    }

    /// Against Pillow 13, each of these tried there.
    #[test]
    fn numbers_of_every_kind_are_read() {
        let turned = |exif: &[u8]| of(Some(exif), None) == Orientation::Rotate90;
        for (kind, little, big) in [
            (3, [6, 0, 0, 0], [0, 6, 0, 0]),
            (4, [6, 0, 0, 0], [0, 0, 0, 6]),
            (6, [6; 4], [6; 4]),
            (8, [6, 0, 0, 0], [0, 6, 0, 0]),
            (9, [6, 0, 0, 0], [0, 0, 0, 6]),
            (11, 6_f32.to_le_bytes(), 6_f32.to_be_bytes()),
        ] {
            assert!(turned(&exif(true, kind, 1, &little)) && turned(&exif(false, kind, 1, &big)), "{kind}");
        }
        // Of several the first; of bytes and texts none.
        assert!(turned(&exif(true, 3, 2, &[6, 0, 8, 0])));
        assert!(turned(&exif(true, 3, 3, &[6, 0, 8, 0, 1, 0])));
        assert!(turned(&exif(true, 12, 1, &6_f64.to_le_bytes())));
        assert!(turned(&exif(true, 5, 1, &[12, 0, 0, 0, 2, 0, 0, 0])));
        assert!(turned(&[MARK, MARK, &exif(true, 3, 1, &[6, 0, 0, 0])].concat()));
        for (kind, value) in [(1, [6; 4]), (2, [b'6', 0, 0, 0]), (7, [6; 4]), (4, [6, 1, 0, 0]), (14, [6; 4])] {
            assert!(!turned(&exif(true, kind, 1, &value)), "{kind}");
        }
        let whole = exif(true, 12, 1, &6_f64.to_le_bytes());
        assert!((0..whole.len()).all(|len| !turned(&whole[..len])));
        // Values beyond the file end the directory, those that are larger than it are left out.
        let mut two = exif(true, 3, 1, &[6, 0, 0, 0]);
        two[8] = 2;
        let entry = |count: u32, place: u32| {
            [&1_u16.to_le_bytes()[..], &2_u16.to_le_bytes(), &count.to_le_bytes(), &place.to_le_bytes()].concat()
        };
        for (count, place, is_turned) in [(9, 1000, false), (1000, 0, true), (4, 1000, true)] {
            let mut both = two.clone();
            both.splice(10..10, entry(count, place));
            assert_eq!(turned(&both), is_turned, "{count} {place}");
        }
    }

    #[test]
    fn tags_of_large_files_are_read() {
        let entry = [&ORIENTATION.to_le_bytes()[..], &3_u16.to_le_bytes(), &1_u64.to_le_bytes(), &6_u64.to_le_bytes()];
        let head = [&b"II+\0\x08\0\0\0"[..], &16_u64.to_le_bytes(), &1_u64.to_le_bytes()].concat();
        let file = [head, entry.concat()].concat();
        assert_eq!(of_tiff(&file), Orientation::Rotate90);
        assert_eq!(of(Some(&file), None), Orientation::NoTransforms);
    }

    #[test]
    fn xmp_says_what_exif_leaves_open() {
        for xmp in ["<a tiff:Orientation=\"6\"/>", "tiff:Orientation <tiff:Orientation>6</tiff:Orientation>"] {
            assert_eq!(of(None, Some(xmp.as_bytes())), Orientation::Rotate90);
            assert_eq!(of(Some(&exif(true, 3, 1, &[1, 0, 0, 0])), Some(xmp.as_bytes())), Orientation::NoTransforms);
        }
        // A type that is unknown leaves it open, too.
        let xmp = b"<a tiff:Orientation=\"6\"/>";
        assert_eq!(of(Some(&exif(true, 14, 1, &[1; 4])), Some(xmp)), Orientation::Rotate90);
        for xmp in ["", "tiff:Orientation", "tiff:Orientation=\"", "tiff:Orientation=\"x6", "tiff:Orientation=\"9\""] {
            assert_eq!(of(None, Some(xmp.as_bytes())), Orientation::NoTransforms, "{xmp}");
        }
    }
}
