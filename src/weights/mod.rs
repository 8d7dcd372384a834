//! The weight store: mapped GGUF files, and tensors looked up once by name and shape, then viewed in place.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use gemmule_quant::{Format, MatrixView};
use memmap2::{Mmap, MmapMut};

use crate::gguf::{Gguf, TensorInfo};
use crate::{Error, Result};

#[derive(Debug)]
enum Bytes {
    Mapped(Mmap),
    Static(&'static [u8]),
}

impl Bytes {
    fn as_slice(&self) -> &[u8] {
        match self {
            Self::Mapped(map) => map,
            Self::Static(bytes) => bytes,
        }
    }
}

/// What turns a checkpoint into a file that can be run.
fn conversion(directory: &str) -> String {
    format!("convert the checkpoint with `gemmule-quantize {directory} MODEL.gguf` and name MODEL.gguf")
}

/// What a file is that people take for a model, if it is no GGUF file.
fn other_kind(path: &Path, bytes: &[u8]) -> Option<String> {
    if bytes.starts_with(b"GGUF") {
        return None;
    }
    let directory = path.parent().filter(|parent| *parent != Path::new("")).unwrap_or(Path::new("."));
    let is_safetensors = bytes.get(8) == Some(&b'{') && bytes.get(5..8) == Some(&[0; 3]);
    if is_safetensors || path.extension().is_some_and(|ending| ending == "safetensors") {
        return Some(format!("it is a safetensors file: {}", conversion(&directory.display().to_string())));
    }
    if bytes.starts_with(b"version https://git-lfs") {
        return Some("it is a pointer of Git LFS, not the model: fetch that with `git lfs pull`".to_owned());
    }
    if bytes.starts_with(b"PK\x03\x04") || bytes.starts_with(b"\x80\x02") {
        return Some(format!("it is a file of PyTorch or NumPy: {}", conversion(&directory.display().to_string())));
    }
    let start = String::from_utf8_lossy(&bytes[..bytes.len().min(64)]).trim_start().to_lowercase();
    let is_page = start.starts_with("<!doctype html") || start.starts_with("<html");
    is_page.then(|| "it is a web page, not the model: log in and fetch the file again".to_owned())
}

/// One opened GGUF file.
#[derive(Debug)]
pub struct GgufFile {
    bytes: Bytes,
    gguf: Gguf,
}

impl GgufFile {
    /// Maps and parses a file.
    ///
    /// # Errors
    /// When it cannot be read or its header is not sound.
    pub fn open(path: &Path) -> Result<Self> {
        let io = |error| Error::io(path, error);
        let file = File::open(path).map_err(io)?;
        let metadata = file.metadata().map_err(io)?;
        let name = path.display().to_string();
        if metadata.is_dir() {
            return Err(Error::gguf(&name, format!("it is a directory: {}", conversion(&name))));
        }
        if metadata.len() == 0 {
            return Err(Error::gguf(&name, "it is empty"));
        }
        // SAFETY: the map is read-only and lives as long as this value. As with every mapped file, another process that
        // truncates it can end this one with a signal, and one that writes into it changes what is computed; the converter never
        // does that, it replaces files by renaming. `copy` is for files that others may write.
        let map = unsafe { Mmap::map(&file) }.map_err(io)?;
        Self::of_map(path, map)
    }

    /// Reads a file into memory. What others do with it later makes no difference.
    ///
    /// # Errors
    /// As [`open`](Self::open), and when there is not so much memory.
    pub fn copy(path: &Path) -> Result<Self> {
        let io = |error| Error::io(path, error);
        let mut file = File::open(path).map_err(io)?;
        let metadata = file.metadata().map_err(io)?;
        let len = usize::try_from(metadata.len()).unwrap_or(usize::MAX);
        if metadata.is_dir() || len == 0 {
            // What is wrong says the other.
            return Self::open(path);
        }
        // Aligned as mapped files are.
        let mut map = MmapMut::map_anon(len).map_err(io)?;
        file.read_exact(&mut map).map_err(io)?;
        Self::of_map(path, map.make_read_only().map_err(io)?)
    }

    fn of_map(path: &Path, map: Mmap) -> Result<Self> {
        let name = path.display().to_string();
        if let Some(reason) = other_kind(path, &map) {
            return Err(Error::gguf(&name, reason));
        }
        let gguf = Gguf::parse(&name, &map)?;
        Ok(Self { bytes: Bytes::Mapped(map), gguf })
    }

    /// Parses a file that is part of the program.
    ///
    /// # Errors
    /// When its header is not sound.
    pub fn from_static(name: &str, bytes: &'static [u8]) -> Result<Self> {
        Ok(Self { gguf: Gguf::parse(name, bytes)?, bytes: Bytes::Static(bytes) })
    }

    /// The parsed header.
    pub fn gguf(&self) -> &Gguf {
        &self.gguf
    }

    /// The whole file.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.as_slice()
    }

    /// Keeps the file in memory while it is open, so that a shortage of memory never makes an answer wait for the disk.
    ///
    /// # Errors
    /// When the system allows no process to hold so much.
    pub fn lock(&self) -> Result<()> {
        let Bytes::Mapped(map) = &self.bytes else { return Ok(()) };
        map.lock().map_err(|error| {
            let megabytes = map.len().div_ceil(1_000_000);
            let reason = format!(
                "cannot be locked in memory: {error}; allow {megabytes} MB (`ulimit -l`, systemd's LimitMEMLOCK) or do \
                 without locking"
            );
            Error::model(self.gguf.name(), reason)
        })
    }

    /// Adds what tells this file from others: its length, all that stands before the tensors, and of every tensor the first, the
    /// middle and the last bytes. Reading all of it would take as long as the disk does.
    fn identify(&self, sum: &mut crc32fast::Hasher) {
        const SAMPLE: usize = 4096;
        let bytes = self.bytes();
        sum.update(&(bytes.len() as u64).to_le_bytes());
        let ranges = self.gguf.tensors().iter().map(|tensor| tensor.range.clone()).filter(|range| !range.is_empty());
        sum.update(&bytes[..ranges.clone().map(|range| range.start).min().unwrap_or(bytes.len())]);
        for range in ranges {
            let tensor = &bytes[range];
            let middle = tensor.len() / 2;
            for start in [0, middle, tensor.len().saturating_sub(SAMPLE)] {
                sum.update(&tensor[start..(start + SAMPLE).min(tensor.len())]);
            }
        }
    }

    /// A string value of any length.
    ///
    /// # Errors
    /// When the key holds something else.
    pub fn string(&self, key: &str) -> Result<Option<&str>> {
        self.gguf.string(key, self.bytes())
    }
}

/// Where a matrix lies; made by [`Store::matrix`], which has checked it.
#[derive(Clone, Copy, Debug)]
pub struct Matrix {
    file: usize,
    tensor: usize,
    format: Format,
    rows: usize,
    columns: usize,
}

impl Matrix {
    /// Output features.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Input features.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Storage format.
    pub fn format(&self) -> Format {
        self.format
    }
}

/// Where a vector of `f32` lies; made by [`Store::vector`], which has checked it.
#[derive(Clone, Copy, Debug)]
pub struct Vector {
    file: usize,
    tensor: usize,
}

/// The files of one model.
#[derive(Debug)]
pub struct Store {
    files: Vec<GgufFile>,
    index: HashMap<String, (usize, usize)>,
}

impl Store {
    /// A store over the model's files.
    ///
    /// # Errors
    /// When two files hold a tensor of the same name.
    pub fn new(files: Vec<GgufFile>) -> Result<Self> {
        let mut index = HashMap::new();
        for (file_index, file) in files.iter().enumerate() {
            for (tensor_index, tensor) in file.gguf.tensors().iter().enumerate() {
                if index.insert(tensor.name.clone(), (file_index, tensor_index)).is_some() {
                    let reason = format!("tensor '{}' is in another file of the pair too", tensor.name);
                    return Err(Error::model(file.gguf.name(), reason));
                }
            }
        }
        Ok(Self { files, index })
    }

    /// The files, the text half of a pair first.
    pub fn files(&self) -> &[GgufFile] {
        &self.files
    }

    /// What tells these files from others, by their lengths, headers and a sample of every tensor: the same for copies.
    pub fn fingerprint(&self) -> String {
        let (mut sum, mut bytes) = (crc32fast::Hasher::new(), 0);
        for file in &self.files {
            file.identify(&mut sum);
            bytes += file.bytes().len();
        }
        format!("{bytes}-{:08x}", sum.finalize())
    }

    /// Whether a tensor exists.
    pub fn contains(&self, name: &str) -> bool {
        self.index.contains_key(name)
    }

    fn find(&self, name: &str) -> Result<(usize, usize, &TensorInfo, Format)> {
        let Some(&(file, tensor)) = self.index.get(name) else {
            let files: Vec<_> = self.files.iter().map(|file| file.gguf.name()).collect();
            return Err(Error::model(&files.join(" + "), format!("tensor '{name}' is missing")));
        };
        let info = &self.files[file].gguf.tensors()[tensor];
        let format = info.format.ok_or_else(|| {
            let reason = format!("tensor '{name}' is of type {}, which Gemmule cannot compute with", info.type_name());
            Error::model(self.files[file].gguf.name(), reason)
        })?;
        Ok((file, tensor, info, format))
    }

    fn shape_error(&self, file: usize, name: &str, found: &[u64], expected: &[usize]) -> Error {
        let reason = format!("tensor '{name}' has shape {found:?}, the model's configuration asks for {expected:?}");
        Error::model(self.files[file].gguf.name(), reason)
    }

    /// A matrix of `rows × columns`; trailing dimensions may be folded into the columns.
    ///
    /// # Errors
    /// When it is missing, of another shape, or of a type that cannot be computed with.
    pub fn matrix(&self, name: &str, rows: usize, columns: usize) -> Result<Matrix> {
        let (file, tensor, info, format) = self.find(name)?;
        let found_rows = *info.dimensions.last().expect("checked: at least one dimension") as usize;
        let found_columns = info.elements() as usize / found_rows;
        if (found_rows, found_columns) != (rows, columns) || (info.dimensions.len() == 1 && rows != 1) {
            return Err(self.shape_error(file, name, &info.dimensions, &[columns, rows]));
        }
        if info.dimensions.len() > 2 && format.info().block_len > 1 {
            return Err(Error::model(self.files[file].gguf.name(), format!("tensor '{name}' cannot be {format}")));
        }
        Ok(Matrix { file, tensor, format, rows, columns })
    }

    /// A vector of `len` numbers, which must be F32 and aligned.
    ///
    /// # Errors
    /// When it is missing, of another length, type or alignment.
    pub fn vector(&self, name: &str, len: usize) -> Result<Vector> {
        let (file, tensor, info, format) = self.find(name)?;
        if info.elements() != len as u64 {
            return Err(self.shape_error(file, name, &info.dimensions, &[len]));
        }
        let handle = Vector { file, tensor };
        if format != Format::F32 || bytemuck::try_cast_slice::<u8, f32>(self.data(file, tensor)).is_err() {
            return Err(Error::model(self.files[file].gguf.name(), format!("tensor '{name}' must be F32 and aligned")));
        }
        Ok(handle)
    }

    fn data(&self, file: usize, tensor: usize) -> &[u8] {
        let file = &self.files[file];
        &file.bytes()[file.gguf.tensors()[tensor].range.clone()]
    }

    /// The matrix, in place.
    pub fn view(&self, matrix: &Matrix) -> MatrixView<'_> {
        let data = self.data(matrix.file, matrix.tensor);
        MatrixView::new(matrix.format, matrix.rows, matrix.columns, data).expect("checked when the handle was made")
    }

    /// The vector, in place.
    pub fn values(&self, vector: &Vector) -> &[f32] {
        bytemuck::cast_slice(self.data(vector.file, vector.tensor))
    }
}
