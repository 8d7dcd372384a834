//! Writing GGUF v3: the header at once, then each tensor's bytes in order, streamed.

use std::io::{self, Write};

use gemmule_quant::Format;
pub use gguf_rs::writer::MetadataValue;

use super::{DEFAULT_ALIGNMENT, ValueType};

/// A tensor to be written.
#[derive(Clone, Debug)]
pub struct TensorPlan {
    /// Its name.
    pub name: String,
    /// Its sizes, the contiguous dimension first.
    pub dimensions: Vec<u64>,
    /// Its format.
    pub format: Format,
}

impl TensorPlan {
    /// Its size in bytes.
    ///
    /// # Panics
    /// When a row is no whole number of blocks: a mistake of the caller's plan.
    pub fn bytes(&self) -> u64 {
        let row = self.format.row_bytes(self.dimensions[0] as usize).expect("rows of whole blocks");
        row as u64 * self.dimensions[1..].iter().product::<u64>()
    }
}

/// Writes a file front to back; the tensors' bytes follow the header in the order of the plan.
#[derive(Debug)]
pub struct Writer<W: Write> {
    out: W,
    plan: Vec<TensorPlan>,
    next: usize,
    left: u64,
}

fn string(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(&(text.len() as u64).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}

fn type_id(value: &MetadataValue) -> u32 {
    let value_type = match value {
        MetadataValue::Uint8(_) => ValueType::Uint8,
        MetadataValue::Int8(_) => ValueType::Int8,
        MetadataValue::Uint16(_) => ValueType::Uint16,
        MetadataValue::Int16(_) => ValueType::Int16,
        MetadataValue::Uint32(_) => ValueType::Uint32,
        MetadataValue::Int32(_) => ValueType::Int32,
        MetadataValue::Float32(_) => ValueType::Float32,
        MetadataValue::Bool(_) => ValueType::Bool,
        MetadataValue::String(_) => ValueType::String,
        MetadataValue::Array(_) => ValueType::Array,
        MetadataValue::Uint64(_) => ValueType::Uint64,
        MetadataValue::Int64(_) => ValueType::Int64,
        MetadataValue::Float64(_) => ValueType::Float64,
    };
    value_type as u32
}

fn payload(out: &mut Vec<u8>, value: &MetadataValue) {
    match value {
        MetadataValue::Uint8(v) => out.push(*v),
        MetadataValue::Int8(v) => out.extend_from_slice(&v.to_le_bytes()),
        MetadataValue::Uint16(v) => out.extend_from_slice(&v.to_le_bytes()),
        MetadataValue::Int16(v) => out.extend_from_slice(&v.to_le_bytes()),
        MetadataValue::Uint32(v) => out.extend_from_slice(&v.to_le_bytes()),
        MetadataValue::Int32(v) => out.extend_from_slice(&v.to_le_bytes()),
        MetadataValue::Float32(v) => out.extend_from_slice(&v.to_le_bytes()),
        MetadataValue::Bool(v) => out.push(u8::from(*v)),
        MetadataValue::String(v) => string(out, v),
        MetadataValue::Uint64(v) => out.extend_from_slice(&v.to_le_bytes()),
        MetadataValue::Int64(v) => out.extend_from_slice(&v.to_le_bytes()),
        MetadataValue::Float64(v) => out.extend_from_slice(&v.to_le_bytes()),
        MetadataValue::Array(elements) => {
            out.extend_from_slice(&elements.first().map_or(0, type_id).to_le_bytes());
            out.extend_from_slice(&(elements.len() as u64).to_le_bytes());
            for element in elements {
                payload(out, element);
            }
        }
    }
}

fn padding(len: u64) -> usize {
    (len.next_multiple_of(DEFAULT_ALIGNMENT) - len) as usize
}

/// The file's size for a header of `header` bytes.
fn total(header: u64, plan: &[TensorPlan]) -> u64 {
    plan.iter().fold(header, |sum, tensor| sum + tensor.bytes().next_multiple_of(DEFAULT_ALIGNMENT))
}

impl<W: Write> Writer<W> {
    /// Writes the header. Returns the writer and the size that the whole file will have.
    ///
    /// # Errors
    /// When `out` refuses.
    pub fn new(mut out: W, metadata: &[(String, MetadataValue)], plan: Vec<TensorPlan>) -> io::Result<(Self, u64)> {
        let header = header(metadata, &plan);
        out.write_all(&header)?;
        let size = total(header.len() as u64, &plan);
        let left = plan.first().map_or(0, TensorPlan::bytes);
        Ok((Self { out, plan, next: 0, left }, size))
    }

    /// Writes the next bytes of the current tensor; a tensor's last bytes bring its padding along.
    ///
    /// # Errors
    /// When `out` refuses, or more bytes come than were planned.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.next == self.plan.len() || bytes.len() as u64 > self.left {
            return Err(io::Error::other("more tensor data than planned"));
        }
        self.out.write_all(bytes)?;
        self.left -= bytes.len() as u64;
        if self.left == 0 {
            self.out.write_all(&[0; DEFAULT_ALIGNMENT as usize][..padding(self.plan[self.next].bytes())])?;
            self.next += 1;
            self.left = self.plan.get(self.next).map_or(0, TensorPlan::bytes);
        }
        Ok(())
    }

    /// Ends the file.
    ///
    /// # Errors
    /// When data is missing, or the last bytes cannot be written.
    pub fn finish(mut self) -> io::Result<W> {
        if let Some(tensor) = self.plan.get(self.next) {
            return Err(io::Error::other(format!("tensor '{}' is incomplete", tensor.name)));
        }
        self.out.flush()?;
        Ok(self.out)
    }
}

/// The header's bytes, padded to the start of the tensor data.
fn header(metadata: &[(String, MetadataValue)], plan: &[TensorPlan]) -> Vec<u8> {
    let mut out = b"GGUF".to_vec();
    out.extend_from_slice(&3u32.to_le_bytes());
    out.extend_from_slice(&(plan.len() as u64).to_le_bytes());
    out.extend_from_slice(&(metadata.len() as u64).to_le_bytes());
    for (key, value) in metadata {
        string(&mut out, key);
        out.extend_from_slice(&type_id(value).to_le_bytes());
        payload(&mut out, value);
    }
    let mut offset = 0;
    for tensor in plan {
        string(&mut out, &tensor.name);
        out.extend_from_slice(&(tensor.dimensions.len() as u32).to_le_bytes());
        for size in &tensor.dimensions {
            out.extend_from_slice(&size.to_le_bytes());
        }
        out.extend_from_slice(&tensor.format.info().ggml_id.to_le_bytes());
        out.extend_from_slice(&u64::to_le_bytes(offset));
        offset += tensor.bytes().next_multiple_of(DEFAULT_ALIGNMENT);
    }
    out.resize(out.len() + padding(out.len() as u64), 0);
    out
}

/// The size a file will have.
pub fn planned_size(metadata: &[(String, MetadataValue)], plan: &[TensorPlan]) -> u64 {
    total(header(metadata, plan).len() as u64, plan)
}
