//! NumPy's `.npz`: a zip archive of `.npy` arrays.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use flate2::read::DeflateDecoder;
use gemmule_quant::Format;
use rawzip::{CompressionMethod, FileReader, RECOMMENDED_BUFFER_SIZE, ZipArchive, ZipArchiveEntryWayfinder, ZipEntry};

/// An opened archive.
pub(crate) struct Npz {
    path: PathBuf,
    archive: ZipArchive<FileReader>,
    /// By their names in the archive.
    members: HashMap<String, Member>,
}

/// What the archive's directory says of a member.
struct Member {
    place: ZipArchiveEntryWayfinder,
    method: CompressionMethod,
    size: u64,
}

/// Members of an archive; a checkpoint of 28 billion weights has some thousand.
const MOST_MEMBERS: usize = 1 << 20;

/// Longest header of an array that is read.
const LONGEST_HEADER: usize = 1 << 16;

/// Where an array's values lie.
pub(crate) struct Stored {
    pub(crate) shape: Vec<usize>,
    pub(crate) format: Format,
    /// The first value's place in [`Npz::file`].
    pub(crate) offset: u64,
    /// The file that a compressed array was unpacked into.
    unpacked: Option<File>,
}

impl Npz {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let context = || path.display().to_string();
        let file = gemmule_common::platform::open_regular(path).with_context(context)?;
        let mut buffer = vec![0; RECOMMENDED_BUFFER_SIZE];
        let read = || -> Result<(ZipArchive<FileReader>, HashMap<String, Member>), rawzip::Error> {
            let archive = ZipArchive::from_file(file, &mut buffer)?;
            let mut members = HashMap::new();
            let mut entries = archive.entries(&mut buffer);
            while let Some(entry) = entries.next_entry()?.filter(|_| members.len() < MOST_MEMBERS) {
                let name = String::from_utf8_lossy(entry.file_path().as_bytes()).into_owned();
                let (place, method, size) =
                    (entry.wayfinder(), entry.compression_method(), entry.uncompressed_size_hint());
                members.insert(name, Member { place, method, size });
            }
            Ok((archive, members))
        };
        let (archive, members) = read()
            .with_context(|| format!("{}: not a sound .npz file (a zip archive of NumPy arrays)", path.display()))?;
        Ok(Self { path: path.to_owned(), archive, members })
    }

    /// The member that holds an array.
    fn member(&self, name: &str) -> Result<(&Member, ZipEntry<'_, FileReader>)> {
        let member = self.members.get(&format!("{name}.npy")).context("it is missing")?;
        Ok((member, self.archive.get_entry(member.place).context("it lies nowhere")?))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn contains(&self, name: &str) -> bool {
        self.members.contains_key(&format!("{name}.npy"))
    }

    /// The file that holds an array's values.
    pub(crate) fn file(&self, stored: &Stored) -> Result<File> {
        let file = stored.unpacked.as_ref().map_or_else(|| File::open(&self.path), File::try_clone);
        file.with_context(|| self.path.display().to_string())
    }

    /// Finds an array; a compressed one is unpacked into an unnamed file in `scratch`.
    pub(crate) fn locate(&self, name: &str, scratch: &Path) -> Result<Stored> {
        let context = format!("{}: array '{name}'", self.path.display());
        let locate = || -> Result<Stored> {
            let (member, entry) = self.member(name)?;
            let size = member.size;
            let mut bytes = unpacked(member, &entry)?;
            let Header { shape, format, length } = Header::read(&mut bytes, size)?;
            if member.method == CompressionMethod::STORE {
                let (start, end) = entry.compressed_data_range();
                ensure!(end - start == size, "its sizes in the archive differ");
                return Ok(Stored { shape, format, offset: start + length, unpacked: None });
            }
            let mut file = tempfile::tempfile_in(scratch).with_context(|| scratch.display().to_string())?;
            // What is declared and no more: damaged archives may unpack to anything.
            let unpacked = std::io::copy(&mut (&mut bytes).take(size - length), &mut file).context("unpacking it")?;
            ensure!(unpacked == size - length, "its data ends early");
            ensure!(bytes.read(&mut [0]).context("its data is damaged")? == 0, "its data is longer than its shape");
            Ok(Stored { shape, format, offset: 0, unpacked: Some(file) })
        };
        locate().context(context)
    }

    /// The shape of the array of this name.
    pub(crate) fn shape(&self, name: &str) -> Result<Vec<usize>> {
        let read = || -> Result<Vec<usize>> {
            let (member, entry) = self.member(name)?;
            Ok(Header::read(&mut unpacked(member, &entry)?, member.size)?.shape)
        };
        read().with_context(|| format!("{}: array '{name}'", self.path.display()))
    }

    /// The array of this name in row-major order, checked to have `shape` before its data is read.
    pub(crate) fn array(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let context = format!("{}: array '{name}'", self.path.display());
        let read = || -> Result<Vec<f32>> {
            let (member, entry) = self.member(name)?;
            let mut unpacked = unpacked(member, &entry)?;
            let header = Header::read(&mut unpacked, member.size)?;
            ensure!(header.shape == shape, "it has shape {:?} in place of {shape:?}", header.shape);
            let count: usize = shape.iter().product();
            let mut bytes = vec![0; count * header.format.info().block_bytes];
            unpacked.read_exact(&mut bytes).context("its data ends early")?;
            // Reading on to the end is what checks the archive's checksum.
            ensure!(unpacked.read(&mut [0]).context("its data is damaged")? == 0, "its data is longer than its shape");
            let mut values = vec![0.0; count];
            gemmule_quant::decode_row(header.format, &bytes, &mut values);
            Ok(values)
        };
        read().context(context)
    }
}

/// A member's bytes. Reading to their end fails where they do not have the archive's checksum.
fn unpacked<'a>(member: &Member, entry: &'a ZipEntry<'_, FileReader>) -> Result<Box<dyn Read + 'a>> {
    let packed = entry.reader();
    Ok(match member.method {
        CompressionMethod::STORE => Box::new(BufReader::new(entry.verifying_reader(packed))),
        CompressionMethod::DEFLATE => Box::new(entry.verifying_reader(DeflateDecoder::new(packed))),
        method => bail!("it is packed by method {method}; only stored and deflated arrays can be read"),
    })
}

/// What an `.npy` file says of itself.
struct Header {
    shape: Vec<usize>,
    format: Format,
    /// Bytes before the first value.
    length: u64,
}

impl Header {
    /// Reads `\x93NUMPY`, version, length and the dictionary (NumPy's `lib/format.py` has the definition).
    /// The array has to be `size` bytes long.
    fn read(from: &mut impl Read, size: u64) -> Result<Self> {
        let mut start = [0; 8];
        from.read_exact(&mut start).context("it is too short for a NumPy array")?;
        ensure!(start[..6] == *b"\x93NUMPY", "it is no NumPy array");
        let length = match start[6] {
            1 => {
                let mut bytes = [0; 2];
                from.read_exact(&mut bytes)?;
                usize::from(u16::from_le_bytes(bytes))
            }
            2 | 3 => {
                let mut bytes = [0; 4];
                from.read_exact(&mut bytes)?;
                u32::from_le_bytes(bytes) as usize
            }
            version => bail!("version {version} of the NumPy format is not known"),
        };
        ensure!(length <= LONGEST_HEADER, "its header would be {length} bytes long");
        let mut bytes = vec![0; length];
        from.read_exact(&mut bytes).context("its header ends early")?;
        let text = String::from_utf8_lossy(&bytes);
        let before = if start[6] == 1 { 10 } else { 12 };
        let (shape, format) =
            Self::parse(&text).with_context(|| format!("its header is not understood: {}", text.trim()))?;
        let length = before + length as u64;
        let count = shape.iter().try_fold(1u64, |count, size| count.checked_mul(*size as u64));
        let bytes = count.and_then(|count| count.checked_mul(format.info().block_bytes as u64));
        let whole = bytes.and_then(|bytes| bytes.checked_add(length));
        ensure!(whole == Some(size), "its {size} bytes do not fit its shape {shape:?}");
        Ok(Self { shape, format, length })
    }

    /// Such as `{'descr': '<f4', 'fortran_order': False, 'shape': (128, 512), }`.
    fn parse(text: &str) -> Option<(Vec<usize>, Format)> {
        let after = |key: &str| text.split_once(key).map(|(_, rest)| rest.trim_start_matches([':', ' ']));
        let kind = after("'descr'")?.strip_prefix('\'')?.split('\'').next()?;
        let format = match kind {
            "<f2" => Format::F16,
            "<f4" => Format::F32,
            // NumPy has no bfloat16; JAX's comes out as two bytes of no type.
            "|V2" | "<V2" => Format::BF16,
            _ => return None,
        };
        after("'fortran_order'")?.starts_with("False").then_some(())?;
        let inner = after("'shape'")?.strip_prefix('(')?.split_once(')')?.0;
        let sizes = inner.split(',').map(str::trim).filter(|size| !size.is_empty());
        Some((sizes.map(|size| size.parse().ok()).collect::<Option<_>>()?, format))
    }
}

#[cfg(test)]
mod tests {
    use super::Header;

    #[test]
    fn headers_are_read() {
        let shape = |text: &str| Header::parse(text).map(|header| header.0);
        assert_eq!(shape("{'descr': '<f4', 'fortran_order': False, 'shape': (128, 512), }"), Some(vec![128, 512]));
        assert_eq!(shape("{'descr': '<f2', 'fortran_order': False, 'shape': (3,), }"), Some(vec![3]));
        assert_eq!(shape("{'descr': '|V2', 'fortran_order': False, 'shape': (), }"), Some(vec![]));
        for bad in [
            "{'descr': '>f4', 'fortran_order': False, 'shape': (3,), }",
            "{'descr': '<f4', 'fortran_order': True, 'shape': (3,), }",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (-3,), }",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (3",
            "",
        ] {
            assert_eq!(shape(bad), None, "{bad}");
        }
    }
}
