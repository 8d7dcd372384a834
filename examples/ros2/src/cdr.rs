//! The plain encoding of DDS (OMG DDS-RTPS 10.2, "CDR"): a header of four bytes, then values aligned to their own size,
//! counted from behind the header.

use anyhow::{Context, Result, bail, ensure};

/// CDR, little-endian; two bytes of options, all zero.
const HEADER: [u8; 4] = [0, 1, 0, 0];

/// Writes one message, little-endian.
pub struct Writer(Vec<u8>);

impl Default for Writer {
    fn default() -> Self {
        Self(HEADER.to_vec())
    }
}

impl Writer {
    /// The message's bytes.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    fn align(&mut self, size: usize) {
        let body = self.0.len() - HEADER.len();
        self.0.resize(HEADER.len() + body.next_multiple_of(size), 0);
    }

    pub fn u32(&mut self, value: u32) {
        self.align(4);
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub fn i32(&mut self, value: i32) {
        self.u32(value.cast_unsigned());
    }

    pub fn f64(&mut self, value: f64) {
        self.align(8);
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    /// Its length, the zero behind it included, and its bytes.
    pub fn string(&mut self, text: &str) {
        self.length(text.len() + 1);
        self.0.extend_from_slice(text.as_bytes());
        self.0.push(0);
    }

    /// The length of a sequence, whose elements follow.
    pub fn length(&mut self, length: usize) {
        self.u32(u32::try_from(length).expect("answers are shorter than four gigabytes"));
    }
}

/// Reads one message of either byte order.
pub struct Reader<'a> {
    body: &'a [u8],
    at: usize,
    big_endian: bool,
}

impl<'a> Reader<'a> {
    /// # Errors
    /// When the header is of another encoding.
    pub fn new(message: &'a [u8]) -> Result<Self> {
        let (header, body) = message.split_first_chunk::<4>().context("a message of less than four bytes")?;
        let big_endian = match header[..2] {
            [0, 0] => true,
            [0, 1] => false,
            [high, low] => bail!("a message in the encoding {high:02x}{low:02x}; only plain CDR (0000, 0001) is known"),
            _ => unreachable!("two bytes"),
        };
        Ok(Self { body, at: 0, big_endian })
    }

    /// The next `len` bytes.
    pub fn bytes(&mut self, len: usize) -> Result<&'a [u8]> {
        let end = self.at.checked_add(len).filter(|end| *end <= self.body.len());
        let end = end.with_context(|| format!("a message that ends within its values, at byte {}", self.body.len()))?;
        let bytes = &self.body[self.at..end];
        self.at = end;
        Ok(bytes)
    }

    pub fn u8(&mut self) -> Result<u8> {
        Ok(self.bytes(1)?[0])
    }

    pub fn u32(&mut self) -> Result<u32> {
        self.bytes(self.at.next_multiple_of(4) - self.at)?;
        let bytes = self.bytes(4)?.try_into().expect("four bytes");
        Ok(if self.big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) })
    }

    pub fn i32(&mut self) -> Result<i32> {
        self.u32().map(u32::cast_signed)
    }

    /// A string; one without even the zero at its end is taken as empty.
    pub fn string(&mut self) -> Result<&'a str> {
        let len = self.u32()? as usize;
        let bytes = self.bytes(len)?;
        let text = bytes.strip_suffix(&[0]).unwrap_or(bytes);
        ensure!(len == 0 || text.len() < len, "a string without the zero at its end");
        std::str::from_utf8(text).context("a string that is not UTF-8")
    }
}

#[cfg(test)]
mod tests {
    use super::{Reader, Writer};

    #[test]
    fn values_are_aligned_behind_the_header() {
        let mut out = Writer::default();
        out.string("cam");
        out.f64(1.0);
        out.string("");
        out.f64(2.0);
        let bytes = out.into_bytes();
        let expected = [
            &[0, 1, 0, 0, 4, 0, 0, 0][..],
            b"cam\0",
            &1.0f64.to_le_bytes(),
            &[1, 0, 0, 0, 0, 0, 0, 0],
            &2.0f64.to_le_bytes(),
        ];
        assert_eq!(bytes, expected.concat());
    }

    #[test]
    fn damaged_messages_are_errors() {
        for (message, part) in [
            (&b"\x00\x01"[..], "less than four"),
            (b"\x00\x07\x00\x00", "0007"),
            (b"\x00\x01\x00\x00\xff\xff\xff\xffabc", "ends within"),
            (b"\x00\x01\x00\x00\x03\x00\x00\x00abc", "without the zero"),
            (b"\x00\x01\x00\x00\x02\x00\x00\x00\xff\x00", "UTF-8"),
        ] {
            let error = Reader::new(message).and_then(|mut reader| reader.string().map(str::to_owned)).unwrap_err();
            assert!(error.to_string().contains(part), "{error}");
        }
        let big = b"\x00\x00\x00\x00\x00\x00\x00\x04cam\x00";
        assert_eq!(Reader::new(big).unwrap().string().unwrap(), "cam");
    }
}
