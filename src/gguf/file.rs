//! A GGUF file that is mapped, or read into memory.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use memmap2::{Mmap, MmapMut, MmapOptions};

use super::{Gguf, TensorInfo};
use crate::{Error, Result, platform};

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
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let file = Self::to_map(path)?;
        // SAFETY: the map is read-only and lives as long as this value. As with every mapped file, another process that
        // truncates it can end this one with a signal, and one that writes into it changes what is computed; the converter never
        // does that, it replaces files by renaming. `copy` is for files that others may write.
        let map = unsafe { Mmap::map(&file) }.map_err(|error| Error::io(path, error))?;
        log::info!("{}: {} bytes are mapped", path.display(), map.len());
        Self::of_map(path, map)
    }

    /// A file that can be mapped, as far as its kind and length tell.
    fn to_map(path: &Path) -> Result<File> {
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
        Ok(file)
    }

    /// Reads a file into memory. What others do with it later makes no difference.
    ///
    /// # Errors
    /// As [`open`](Self::open), and when there is not so much memory.
    pub fn copy(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
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
        log::info!("{}: {len} bytes are read into memory", path.display());
        Self::of_map(path, map.make_read_only().map_err(io)?)
    }

    /// Maps a file and lets `change` change the bytes of its tensors in memory: it is called with each one. The file stays as it is; what is
    /// written to takes memory.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_changed(path: impl AsRef<Path>, mut change: impl FnMut(&TensorInfo, &mut [u8])) -> Result<Self> {
        let path = path.as_ref();
        let io = |error| Error::io(path, error);
        let file = Self::to_map(path)?;
        // SAFETY: what is written to this map goes to pages of this process alone, and the file stays. The map lives as long as this value;
        // another process that truncates the file can end this one with a signal, which the converter, replacing by renaming, never does.
        let mut map = unsafe { MmapOptions::new().map_copy(&file) }.map_err(io)?;
        let gguf = Self::parse(path, &map)?;
        for tensor in gguf.tensors() {
            change(tensor, &mut map[tensor.range.clone()]);
        }
        Ok(Self { bytes: Bytes::Mapped(map.make_read_only().map_err(io)?), gguf })
    }

    fn of_map(path: &Path, map: Mmap) -> Result<Self> {
        Ok(Self { gguf: Self::parse(path, &map)?, bytes: Bytes::Mapped(map) })
    }

    fn parse(path: &Path, bytes: &[u8]) -> Result<Gguf> {
        let name = path.display().to_string();
        match other_kind(path, bytes) {
            Some(reason) => Err(Error::gguf(&name, reason)),
            None => Gguf::parse(&name, bytes),
        }
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
        log::info!("{}: {} bytes are locked in memory", self.gguf.name(), map.len());
        platform::lock(map).map_err(|error| {
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
    pub(crate) fn identify(&self, sum: &mut crc32fast::Hasher) {
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
