//! A walk over a GGUF header that checks every length against the file before anything is allocated for it.

use std::ops::Range;

/// The type of a metadata value; its number in files is its place here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum ValueType {
    Uint8,
    Int8,
    Uint16,
    Int16,
    Uint32,
    Int32,
    Float32,
    Bool,
    String,
    Array,
    Uint64,
    Int64,
    Float64,
}

impl ValueType {
    fn from_id(id: u32) -> Option<Self> {
        use ValueType::*;
        const TYPES: [ValueType; 13] =
            [Uint8, Int8, Uint16, Int16, Uint32, Int32, Float32, Bool, String, Array, Uint64, Int64, Float64];
        TYPES.get(id as usize).copied()
    }

    /// Bytes of a value of fixed size.
    fn size(self) -> Option<u64> {
        use ValueType::*;
        match self {
            Uint8 | Int8 | Bool => Some(1),
            Uint16 | Int16 => Some(2),
            Uint32 | Int32 | Float32 => Some(4),
            Uint64 | Int64 | Float64 => Some(8),
            String | Array => None,
        }
    }
}

/// Where a value's payload lies (for a string: its length, then its bytes).
#[derive(Clone, Debug)]
pub(super) struct Span {
    pub(super) value_type: ValueType,
    /// Element type and count of an array.
    pub(super) array: Option<(ValueType, u64)>,
    pub(super) range: Range<usize>,
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) key: String,
    /// Where the entry, key included, begins.
    pub(super) start: usize,
    pub(super) span: Span,
}

#[derive(Debug)]
pub(super) struct Header {
    pub(super) tensor_count: u64,
    pub(super) entries: Vec<Entry>,
    /// The tensor directory.
    pub(super) tensors: Range<usize>,
}

/// The last of ggml's tensor types that the parser behind knows (MXFP4); it panics on others.
const LAST_TYPE: u32 = 39;

struct Walk<'a> {
    bytes: &'a [u8],
    at: usize,
}

type Scanned<T> = Result<T, String>;

impl<'a> Walk<'a> {
    fn take(&mut self, len: u64, what: &str) -> Scanned<&'a [u8]> {
        let rest = &self.bytes[self.at..];
        let taken = usize::try_from(len).ok().and_then(|len| rest.get(..len)).ok_or_else(|| {
            format!("{what} at byte {} wants {len} bytes, {} are left: truncated or damaged", self.at, rest.len())
        })?;
        self.at += taken.len();
        Ok(taken)
    }

    fn u32(&mut self, what: &str) -> Scanned<u32> {
        Ok(u32::from_le_bytes(self.take(4, what)?.try_into().expect("4 bytes")))
    }

    fn u64(&mut self, what: &str) -> Scanned<u64> {
        Ok(u64::from_le_bytes(self.take(8, what)?.try_into().expect("8 bytes")))
    }

    fn name(&mut self, what: &str) -> Scanned<&'a str> {
        let len = self.u64(what)?;
        if len > 65_535 {
            return Err(format!("{what} at byte {} is {len} bytes long", self.at));
        }
        std::str::from_utf8(self.take(len, what)?).map_err(|_| format!("{what} before byte {} is not UTF-8", self.at))
    }

    /// Skips a value; element type and count if it is an array.
    fn value(&mut self, value_type: ValueType, key: &str) -> Scanned<Option<(ValueType, u64)>> {
        let what = format!("the value of '{key}'");
        match (value_type, value_type.size()) {
            (_, Some(size)) => self.take(size, &what).map(|_| None),
            (ValueType::String, _) => {
                let len = self.u64(&what)?;
                self.take(len, &what).map(|_| None)
            }
            _ => {
                let element = self.value_type(key)?;
                let count = self.u64(&what)?;
                match element.size() {
                    Some(size) => {
                        let len = size.checked_mul(count).ok_or_else(|| format!("{what} has {count} elements"))?;
                        self.take(len, &what)?;
                    }
                    None if element == ValueType::String => {
                        for _ in 0..count {
                            let len = self.u64(&what)?;
                            self.take(len, &what)?;
                        }
                    }
                    None => return Err(format!("{what} is an array of arrays, which is not supported")),
                }
                Ok(Some((element, count)))
            }
        }
    }

    fn value_type(&mut self, key: &str) -> Scanned<ValueType> {
        let id = self.u32("a value type")?;
        ValueType::from_id(id).ok_or_else(|| format!("the value of '{key}' has unknown type {id}"))
    }
}

impl Header {
    pub(super) fn scan(bytes: &[u8]) -> Scanned<Self> {
        let mut walk = Walk { bytes, at: 0 };
        if walk.take(4, "the magic number")? != b"GGUF" {
            return Err("it does not begin with 'GGUF'".to_owned());
        }
        let version = walk.u32("the version")?;
        if !(2..=3).contains(&version) {
            return Err(format!("version {version} is not supported, only 2 and 3 (little-endian)"));
        }
        let (tensor_count, entry_count) = (walk.u64("the tensor count")?, walk.u64("the key count")?);
        let mut entries = Vec::new();
        for _ in 0..entry_count {
            let start = walk.at;
            let key = walk.name("a key")?.to_owned();
            let value_type = walk.value_type(&key)?;
            let payload = walk.at;
            let array = walk.value(value_type, &key)?;
            entries.push(Entry { key, start, span: Span { value_type, array, range: payload..walk.at } });
        }
        let start = walk.at;
        for _ in 0..tensor_count {
            let name = walk.name("a tensor name")?;
            let dimensions = walk.u32("a tensor's dimensions")?;
            if !(1..=4).contains(&dimensions) {
                return Err(format!("tensor '{name}' has {dimensions} dimensions"));
            }
            walk.take(8 * u64::from(dimensions), "a tensor's shape")?;
            let kind = walk.u32("a tensor's type")?;
            if kind > LAST_TYPE {
                return Err(format!(
                    "tensor '{name}' has type {kind}, which is not known: it was made by a newer program, or is damaged"
                ));
            }
            walk.u64("a tensor's offset")?;
        }
        Ok(Self { tensor_count, entries, tensors: start..walk.at })
    }
}
