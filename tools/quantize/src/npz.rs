//! NumPy's `.npz`: a zip archive of `.npy` arrays.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use zip::ZipArchive;

/// An opened archive.
pub(crate) struct Npz {
    path: PathBuf,
    archive: ZipArchive<BufReader<File>>,
}

/// Longest header of an array that is read.
const LONGEST_HEADER: usize = 1 << 16;

impl Npz {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let context = || path.display().to_string();
        let file = File::open(path).with_context(context)?;
        let archive = ZipArchive::new(BufReader::new(file))
            .with_context(|| format!("{}: not a sound .npz file (a zip archive of NumPy arrays)", path.display()))?;
        Ok(Self { path: path.to_owned(), archive })
    }

    /// The array of this name in row-major order, checked to have `shape` before its data is read.
    pub(crate) fn array(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let read = || -> Result<Vec<f32>> {
            let mut entry = self.archive.by_name(&format!("{name}.npy")).context("it is missing")?;
            let header = Header::read(&mut entry)?;
            ensure!(header.shape == shape, "it has shape {:?} in place of {shape:?}", header.shape);
            let count: usize = shape.iter().product();
            let mut bytes = vec![0; count * header.width];
            entry.read_exact(&mut bytes).context("its data ends early")?;
            // Reading on to the end is what checks the archive's checksum.
            ensure!(entry.read(&mut [0]).context("its data is damaged")? == 0, "its data is longer than its shape");
            Ok(header.decode(&bytes))
        };
        let mut read = read;
        read().with_context(|| format!("{}: array '{name}'", self.path.display()))
    }
}

/// What an `.npy` file says of itself.
struct Header {
    shape: Vec<usize>,
    /// Bytes of a value: 4 or 8 (IEEE floats), 2 (half precision).
    width: usize,
}

impl Header {
    /// Reads `\x93NUMPY`, version, length and the dictionary (NumPy's `lib/format.py` has the definition).
    fn read(from: &mut impl Read) -> Result<Self> {
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
        Self::parse(&text).with_context(|| format!("its header is not understood: {}", text.trim()))
    }

    /// Such as `{'descr': '<f4', 'fortran_order': False, 'shape': (128, 512), }`.
    fn parse(text: &str) -> Option<Self> {
        let after = |key: &str| text.split_once(key).map(|(_, rest)| rest.trim_start_matches([':', ' ']));
        let kind = after("'descr'")?.strip_prefix('\'')?.split('\'').next()?;
        let width = match kind {
            "<f2" => 2,
            "<f4" => 4,
            "<f8" => 8,
            _ => return None,
        };
        after("'fortran_order'")?.starts_with("False").then_some(())?;
        let inner = after("'shape'")?.strip_prefix('(')?.split_once(')')?.0;
        let sizes = inner.split(',').map(str::trim).filter(|size| !size.is_empty());
        Some(Self { shape: sizes.map(|size| size.parse().ok()).collect::<Option<_>>()?, width })
    }

    fn decode(&self, bytes: &[u8]) -> Vec<f32> {
        match self.width {
            2 => bytes.as_chunks().0.iter().map(|bytes| half::f16::from_le_bytes(*bytes).to_f32()).collect(),
            4 => bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect(),
            _ => bytes.as_chunks().0.iter().map(|bytes| f64::from_le_bytes(*bytes) as f32).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Header;

    #[test]
    fn headers_are_read() {
        let shape = |text: &str| Header::parse(text).map(|header| header.shape);
        assert_eq!(shape("{'descr': '<f4', 'fortran_order': False, 'shape': (128, 512), }"), Some(vec![128, 512]));
        assert_eq!(shape("{'descr': '<f2', 'fortran_order': False, 'shape': (3,), }"), Some(vec![3]));
        assert_eq!(shape("{'descr': '<f8', 'fortran_order': False, 'shape': (), }"), Some(vec![]));
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
