//! The tags of TIFF files, and of Exif, which has their structure, as Pillow reads them.

/// The first directory of a TIFF structure, which Exif's is.
#[derive(Clone, Copy)]
pub(super) struct Directory<'a> {
    bytes: &'a [u8],
    is_little: bool,
    /// Offsets have eight bytes.
    is_big: bool,
    at: u64,
}

/// A tag's type and its values.
#[derive(Clone, Copy)]
pub(super) struct Entry<'a> {
    pub(super) kind: u16,
    pub(super) data: &'a [u8],
    /// Where they lie in the file.
    at: usize,
}

impl<'a> Directory<'a> {
    pub(super) fn first(bytes: &'a [u8]) -> Option<Self> {
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

    /// A tag's first entry that can be read; further ones are skipped. Reading ends at an entry whose values lie beyond the file (Pillow 13,
    /// `TiffImagePlugin.py`).
    pub(super) fn entry(&self, wanted: u16) -> Option<Entry<'a>> {
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
            let at = if len > field {
                values = values.saturating_add(len);
                if values > self.bytes.len() as u64 {
                    continue;
                }
                self.integer(place, field)?
            } else {
                place
            };
            let data = self.slice(at, len)?;
            if data.is_empty() {
                continue;
            }
            if tag == wanted {
                return Some(Entry { kind, data, at: at as usize });
            }
            read.insert(tag);
        }
        None
    }

    /// Overwrites an entry's first number in `file`, a copy of the file.
    pub(super) fn replace(&self, file: &mut [u8], entry: Entry<'_>, number: u64) {
        let bytes = number.to_le_bytes();
        let Some(len) = unit(entry.kind).map(|unit| unit as usize) else { return };
        let Some(place) = file.get_mut(entry.at..entry.at + len) else { return };
        place.copy_from_slice(&bytes[..len]);
        if !self.is_little {
            place.reverse();
        }
    }

    pub(super) fn is_big(&self) -> bool {
        self.is_big
    }

    /// An entry's whole numbers; none where it has others.
    pub(super) fn integers(&self, entry: Entry<'a>) -> impl Iterator<Item = u64> + use<'a> {
        let own = Directory { bytes: entry.data, ..*self };
        let unit = if matches!(entry.kind, 3 | 4 | 13 | 16) { unit(entry.kind).unwrap_or(1) } else { u64::MAX };
        (0..entry.data.len() as u64 / unit).filter_map(move |at| own.integer(at * unit, unit))
    }

    /// The first of an entry's numbers; none where it has bytes or text.
    pub(super) fn number(&self, entry: Entry<'_>) -> Option<f64> {
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
