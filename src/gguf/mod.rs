//! GGUF files: metadata, tensor directory, writing.
//!
//! Reading is done by the crate `gguf-rs`. Around it stand `scan`, which checks every length of the header before
//! anything is allocated, and keeps large values (vocabularies, tokenizers) out of the parser, to be read in place; and
//! the checks of the tensor directory against the file. Writing is done by [`writer`]. `docs/dependencies.md` tells
//! what was measured and why.

mod file;
pub mod keys;
mod scan;
pub mod writer;

use std::collections::BTreeMap;
use std::io::{Cursor, Read};
use std::ops::Range;

pub use file::GgufFile;
use gemmule_quant::{Format, ggml_type_name};
pub use scan::ValueType;
use scan::{Header, Span};
use serde_json::Value;

use crate::{Error, Result};

/// Bytes between which tensors are aligned when a file does not say.
pub const DEFAULT_ALIGNMENT: u64 = 32;

/// One entry of the tensor directory, checked against the file's size.
#[derive(Clone, Debug)]
pub struct TensorInfo {
    /// The tensor's name.
    pub name: String,
    /// Sizes, the contiguous dimension first (GGUF's order).
    pub dimensions: Vec<u64>,
    /// ggml's type number.
    pub ggml_id: u32,
    /// The format, if it is one that can be computed with.
    pub format: Option<Format>,
    /// Where its bytes lie in the file; empty when the format is not supported.
    pub range: Range<usize>,
}

impl TensorInfo {
    /// Number of values.
    pub fn elements(&self) -> u64 {
        self.dimensions.iter().product()
    }

    /// The type's name, also of types that cannot be computed with.
    pub fn type_name(&self) -> &'static str {
        ggml_type_name(self.ggml_id)
    }
}

/// A parsed GGUF header.
#[derive(Debug)]
pub struct Gguf {
    name: String,
    values: BTreeMap<String, Value>,
    spans: BTreeMap<String, Span>,
    tensors: Vec<TensorInfo>,
}

/// Values longer than this are left in the file and read in place.
const LARGE_VALUE: usize = 1 << 16;

/// Most bytes of all other values, which take many times as much memory once they are read.
const SMALL_VALUES: usize = 1 << 20;

impl Gguf {
    /// Parses the header of a whole file in memory; `name` is for error messages.
    ///
    /// # Errors
    /// [`Error::Gguf`] when anything is truncated, overlong, contradictory or outside the file.
    pub fn parse(name: &str, bytes: &[u8]) -> Result<Self> {
        let header = Header::scan(bytes).map_err(|reason| Error::gguf(name, reason))?;
        let small: Vec<_> = header.entries.iter().filter(|entry| entry.span.range.len() <= LARGE_VALUE).collect();
        let small_values: usize = small.iter().map(|entry| entry.span.range.len()).sum();
        if small_values > SMALL_VALUES {
            let reason =
                format!("its values below {LARGE_VALUE} bytes have {small_values} in all, more than {SMALL_VALUES}");
            return Err(Error::gguf(name, reason));
        }
        let mut reduced = Vec::with_capacity(64);
        reduced.extend_from_slice(&bytes[4..8]);
        reduced.extend_from_slice(&header.tensor_count.to_le_bytes());
        reduced.extend_from_slice(&(small.len() as u64).to_le_bytes());
        for entry in &small {
            reduced.extend_from_slice(&bytes[entry.start..entry.span.range.end]);
        }
        reduced.extend_from_slice(&bytes[header.tensors.clone()]);
        let reader: Box<dyn Read> = Box::new(Cursor::new(reduced));
        let mut container = gguf_rs::GGUFContainer::new(gguf_rs::ByteOrder::LE, reader, u64::MAX);
        let model = container.decode().map_err(|error| Error::gguf(name, error.to_string()))?;

        let values = model.metadata().clone();
        let spans = header.entries.into_iter().map(|entry| (entry.key, entry.span)).collect();
        let mut gguf = Self { name: name.to_owned(), values, spans, tensors: Vec::new() };
        let alignment = match gguf.unsigned(keys::ALIGNMENT)? {
            None => DEFAULT_ALIGNMENT,
            Some(value) if value.is_power_of_two() && value <= 1 << 20 => value,
            Some(value) => return Err(Error::gguf(name, format!("alignment {value} is not a power of two"))),
        };
        let data_start = (header.tensors.end as u64).next_multiple_of(alignment);
        let mut seen = std::collections::HashSet::new();
        for tensor in model.tensors() {
            if !seen.insert(&tensor.name) {
                return Err(Error::gguf(name, format!("tensor '{}' is listed twice", tensor.name)));
            }
            let info = check_tensor(tensor, data_start, alignment, bytes.len())
                .map_err(|reason| Error::gguf(name, format!("tensor '{}': {reason}", tensor.name)))?;
            gguf.tensors.push(info);
        }
        Ok(gguf)
    }

    /// The file's name, as given to [`parse`](Self::parse).
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The tensor directory, in the file's order.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    /// Every key with its type and, for arrays, the number of elements.
    pub fn keys(&self) -> impl Iterator<Item = (&str, ValueType, Option<u64>)> {
        self.spans.iter().map(|(key, span)| (key.as_str(), span.value_type, span.array.map(|array| array.1)))
    }

    /// A small value as JSON; `None` where the key is absent or the value is large.
    pub fn value(&self, key: &str) -> Option<&Value> {
        self.values.get(key)
    }

    fn typed<T>(&self, key: &str, what: &str, convert: impl Fn(&Value) -> Option<T>) -> Result<Option<T>> {
        match self.values.get(key) {
            None if self.spans.contains_key(key) => Err(Error::gguf(&self.name, format!("key '{key}' is not {what}"))),
            None => Ok(None),
            Some(value) => {
                convert(value).map(Some).ok_or_else(|| Error::gguf(&self.name, format!("key '{key}' is not {what}")))
            }
        }
    }

    /// An unsigned number.
    ///
    /// # Errors
    /// When the key holds something else.
    pub fn unsigned(&self, key: &str) -> Result<Option<u64>> {
        self.typed(key, "an unsigned number", Value::as_u64)
    }

    /// A floating-point number.
    ///
    /// # Errors
    /// When the key holds something else.
    pub fn float(&self, key: &str) -> Result<Option<f32>> {
        Ok(self.double(key)?.map(|value| value as f32))
    }

    /// A floating-point number in double precision.
    ///
    /// # Errors
    /// When the key holds something else.
    pub fn double(&self, key: &str) -> Result<Option<f64>> {
        self.typed(key, "a number", Value::as_f64)
    }

    /// A short array of numbers.
    ///
    /// # Errors
    /// When the key holds something else.
    pub fn floats(&self, key: &str) -> Result<Option<Vec<f32>>> {
        self.typed(key, "an array of numbers", |value| {
            value.as_array()?.iter().map(|value| value.as_f64().map(|value| value as f32)).collect()
        })
    }

    /// A short array of unsigned numbers.
    ///
    /// # Errors
    /// When the key holds something else.
    pub fn unsigned_array(&self, key: &str) -> Result<Option<Vec<u64>>> {
        self.typed(key, "an array of unsigned numbers", |value| value.as_array()?.iter().map(Value::as_u64).collect())
    }

    /// A short array of truth values.
    ///
    /// # Errors
    /// When the key holds something else.
    pub fn booleans(&self, key: &str) -> Result<Option<Vec<bool>>> {
        self.typed(key, "an array of truth values", |value| value.as_array()?.iter().map(Value::as_bool).collect())
    }

    /// The elements of an array of any length, whose type must be `element`, in place; `bytes` is the file that was parsed.
    fn array<'a>(&self, key: &str, element: ValueType, bytes: &'a [u8]) -> Result<Option<(&'a [u8], usize)>> {
        let Some(span) = self.spans.get(key) else { return Ok(None) };
        let count = span.array.filter(|array| array.0 == element).map(|array| array.1 as usize);
        // Before the elements stand their type and their number.
        let elements = bytes.get(span.range.start + 12..span.range.end);
        let found = elements.zip(count);
        found.map(Some).ok_or_else(|| Error::gguf(&self.name, format!("key '{key}' is no array of {element:?}")))
    }

    /// An array of strings of any length, in place; `bytes` is the file that was parsed.
    ///
    /// # Errors
    /// When the key holds something else.
    pub fn strings<'a>(&self, key: &str, bytes: &'a [u8]) -> Result<Option<Vec<&'a str>>> {
        let Some((mut rest, count)) = self.array(key, ValueType::String, bytes)? else { return Ok(None) };
        let mut strings = Vec::new();
        for index in 0..count {
            let next = rest
                .split_first_chunk()
                .and_then(|(length, rest)| rest.split_at_checked(usize::try_from(u64::from_le_bytes(*length)).ok()?));
            let text = next.and_then(|(text, _)| std::str::from_utf8(text).ok());
            let text =
                text.ok_or_else(|| Error::gguf(&self.name, format!("element {index} of '{key}' is not UTF-8")))?;
            strings.push(text);
            rest = next.map_or(&[], |next| next.1);
        }
        Ok(Some(strings))
    }

    /// An array of 32-bit floats of any length; `bytes` is the file that was parsed.
    ///
    /// # Errors
    /// When the key holds something else.
    pub fn long_floats(&self, key: &str, bytes: &[u8]) -> Result<Option<Vec<f32>>> {
        let elements = self.array(key, ValueType::Float32, bytes)?;
        Ok(elements
            .map(|(elements, _)| elements.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()))
    }

    /// An array of 32-bit integers of any length; `bytes` is the file that was parsed.
    ///
    /// # Errors
    /// When the key holds something else.
    pub fn long_integers(&self, key: &str, bytes: &[u8]) -> Result<Option<Vec<i32>>> {
        let elements = self.array(key, ValueType::Int32, bytes)?;
        Ok(elements
            .map(|(elements, _)| elements.as_chunks().0.iter().map(|bytes| i32::from_le_bytes(*bytes)).collect()))
    }

    /// The bytes of a string of any length, in place; `bytes` is the file that was parsed.
    ///
    /// # Errors
    /// When the key holds something else.
    pub fn string<'a>(&self, key: &str, bytes: &'a [u8]) -> Result<Option<&'a str>> {
        let Some(span) = self.spans.get(key) else { return Ok(None) };
        let text = (span.value_type == ValueType::String)
            .then(|| bytes.get(span.range.start + 8..span.range.end))
            .flatten()
            .and_then(|bytes| std::str::from_utf8(bytes).ok());
        text.map(Some).ok_or_else(|| Error::gguf(&self.name, format!("key '{key}' is not a string of UTF-8")))
    }
}

fn check_tensor(
    tensor: &gguf_rs::Tensor,
    data_start: u64,
    alignment: u64,
    file_len: usize,
) -> std::result::Result<TensorInfo, String> {
    let format = Format::from_ggml_id(tensor.kind);
    let dimensions = tensor.shape.clone();
    let elements = dimensions.iter().try_fold(1u64, |product, size| product.checked_mul(*size));
    let elements = elements.filter(|n| *n > 0).ok_or_else(|| format!("impossible shape {dimensions:?}"))?;
    let mut range = 0..0;
    if let Some(format) = format {
        let columns = usize::try_from(dimensions[0]).map_err(|_| "a row too long for this machine".to_owned())?;
        let row_bytes = format
            .row_bytes(columns)
            .ok_or_else(|| format!("rows of {columns} values are no whole number of {format} blocks"))?;
        let size = (row_bytes as u64).checked_mul(elements / dimensions[0]).ok_or("a size that overflows")?;
        if !tensor.offset.is_multiple_of(alignment) {
            return Err(format!("offset {} is not aligned to {alignment}", tensor.offset));
        }
        let start = data_start.checked_add(tensor.offset).ok_or("an offset that overflows")?;
        let end = start.checked_add(size).ok_or("an end that overflows")?;
        if end > file_len as u64 {
            return Err(format!(
                "its data ends at byte {end}, but the file has {file_len}: truncated? copy or convert it again"
            ));
        }
        range = start as usize..end as usize;
    }
    Ok(TensorInfo { name: tensor.name.clone(), dimensions, ggml_id: tensor.kind, format, range })
}
