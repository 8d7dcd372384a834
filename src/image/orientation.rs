//! How a picture is to be turned, by Exif or, where that does not say, by XMP: Pillow's `exif_transpose`.

use image::metadata::Orientation;

/// Exif's tag of the orientation.
const ORIENTATION: u16 = 0x0112;
/// TIFF's tag of XMP.
const XMP: u16 = 700;

/// By what a file holds of the two. What is damaged says nothing: it is no reason to refuse a sound picture.
pub(super) fn of(exif: Option<&[u8]>, xmp: Option<&[u8]>) -> Orientation {
    let exif =
        exif.map(|exif| exif.strip_prefix(MARK).unwrap_or(exif)).map(|exif| exif.strip_prefix(MARK).unwrap_or(exif));
    by(exif.and_then(Directory::first).filter(|directory| !directory.is_big), xmp)
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

/// The first directory of a TIFF structure, which Exif's is.
#[derive(Clone, Copy)]
struct Directory<'a> {
    bytes: &'a [u8],
    is_little: bool,
    /// Offsets have eight bytes.
    is_big: bool,
    at: u64,
}

/// A tag's type and its values.
#[derive(Clone, Copy)]
struct Entry<'a> {
    kind: u16,
    data: &'a [u8],
}

impl<'a> Directory<'a> {
    fn first(bytes: &'a [u8]) -> Option<Self> {
        // Pillow takes the mark with its bytes turned, too.
        let (is_little, is_big) = match bytes.get(..4)? {
            b"II*\0" | b"II\0*" => (true, false),
            b"MM\0*" | b"MM*\0" => (false, false),
            b"II+\0" => (true, true),
            b"MM\0+" => (false, true),
            _ => return None,
        };
        let mut directory = Self { bytes, is_little, is_big, at: 0 };
        directory.at = if is_big { directory.integer(8, 8)? } else { directory.integer(4, 4)? };
        Some(directory)
    }

    fn slice(&self, at: u64, len: u64) -> Option<&'a [u8]> {
        let (start, end) = (usize::try_from(at).ok()?, usize::try_from(at.checked_add(len)?).ok()?);
        self.bytes.get(start..end)
    }

    /// An integer of `len` bytes, eight at most.
    fn integer(&self, at: u64, len: u64) -> Option<u64> {
        let digit = |value: u64, byte: &u8| value << 8 | u64::from(*byte);
        let bytes = self.slice(at, len)?;
        Some(if self.is_little { bytes.iter().rev().fold(0, digit) } else { bytes.iter().fold(0, digit) })
    }

    /// A tag's first entry that can be read. Further ones of a tag are passed over. Where an entry's values lie beyond the file, what follows is not read (Pillow 13,
    /// `TiffImagePlugin.py`).
    fn entry(&self, wanted: u16) -> Option<Entry<'a>> {
        let (count_len, entry_len, field) = if self.is_big { (8, 20, 8) } else { (2, 12, 4) };
        let (mut values, mut read) = (0_u64, std::collections::HashSet::new());
        let entries = self.integer(self.at, count_len)?;
        let first = self.at.checked_add(count_len)?;
        for entry in 0..entries {
            let at = first.checked_add(entry.checked_mul(entry_len)?)?;
            let (tag, kind) = (self.integer(at, 2)? as u16, self.integer(at + 2, 2)? as u16);
            let (count, place) = (self.integer(at + 4, field)?, at + 4 + field);
            self.slice(place, field)?;
            if read.contains(&tag) {
                continue;
            }
            let Some(unit) = unit(kind) else { continue };
            let len = count.saturating_mul(unit);
            let data = if len > field {
                values = values.saturating_add(len);
                if values > self.bytes.len() as u64 {
                    continue;
                }
                self.slice(self.integer(place, field)?, len)?
            } else {
                self.slice(place, len)?
            };
            if data.is_empty() {
                continue;
            }
            if tag == wanted {
                return Some(Entry { kind, data });
            }
            read.insert(tag);
        }
        None
    }

    /// The first of an entry's numbers; none where it has bytes or text.
    fn number(&self, entry: Entry<'_>) -> Option<f64> {
        let own = Directory { bytes: entry.data, ..*self };
        let unsigned = |at: u64, len: u64| own.integer(at, len);
        let signed = |at: u64, len: u64| Some((unsigned(at, len)? << (64 - 8 * len)) as i64 >> (64 - 8 * len));
        Some(match entry.kind {
            3 | 4 | 13 | 16 => unsigned(0, unit(entry.kind)?)? as f64,
            6 | 8 | 9 => signed(0, unit(entry.kind)?)? as f64,
            5 => unsigned(0, 4)? as f64 / unsigned(4, 4)? as f64,
            10 => signed(0, 4)? as f64 / signed(4, 4)? as f64,
            11 => f64::from(f32::from_bits(unsigned(0, 4)? as u32)),
            12 => f64::from_bits(unsigned(0, 8)?),
            _ => return None,
        })
    }
}

/// Bytes of a value of a type.
fn unit(kind: u16) -> Option<u64> {
    match kind {
        1 | 2 | 6 | 7 => Some(1),
        3 | 8 => Some(2),
        4 | 9 | 11 | 13 => Some(4),
        5 | 10 | 12 | 16 => Some(8),
        _ => None,
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
