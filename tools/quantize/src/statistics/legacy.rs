//! The files that `llama-imatrix` wrote before it wrote GGUF: for each matrix its name, how often it was used, and sums of squares.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};

/// Means of the squares of a matrix's inputs.
pub(crate) type Means = BTreeMap<String, Vec<f32>>;

/// Most matrices of a file, and most bytes of a name: more than any model has.
const MOST: usize = 1 << 20;

/// Reads a whole file.
///
/// # Errors
/// When it is no such file, or damaged.
pub(crate) fn read(bytes: &[u8]) -> Result<Means> {
    let mut reader = Reader(bytes);
    let count = reader.count("the number of matrices")?;
    ensure!(count > 0, "it holds no matrices");
    let mut means = Means::new();
    for index in 0..count {
        let mut one = || -> Result<()> {
            let length = reader.count("the length of a name")?;
            let name = String::from_utf8(reader.take(length)?.to_vec()).context("a name is not UTF-8")?;
            let uses = reader.count("the number of uses")?;
            let columns = reader.count("the number of inputs")?;
            let values = reader.take(columns.checked_mul(4).context("a length is too large")?)?;
            // A file of a model whose experts were never asked has zeros there.
            let uses = uses.max(1) as f32;
            let values = values.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes) / uses).collect();
            ensure!(!means.contains_key(&name), "'{name}' is there twice");
            means.insert(name, values);
            Ok(())
        };
        one().with_context(|| format!("matrix {index}"))?;
    }
    Ok(means)
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count).context("it ends in the middle")?;
        self.0 = rest;
        Ok(taken)
    }

    /// A number that is not negative, and not absurd.
    fn count(&mut self, what: &str) -> Result<usize> {
        let bytes = self.take(4)?;
        let number = i32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        usize::try_from(number).ok().filter(|number| *number <= MOST).with_context(|| format!("{what} is {number}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(entries: &[(&str, i32, &[f32])]) -> Vec<u8> {
        let mut bytes = (entries.len() as i32).to_le_bytes().to_vec();
        for (name, uses, values) in entries {
            bytes.extend((name.len() as i32).to_le_bytes());
            bytes.extend(name.as_bytes());
            bytes.extend(uses.to_le_bytes());
            bytes.extend((values.len() as i32).to_le_bytes());
            values.iter().for_each(|value| bytes.extend(value.to_le_bytes()));
        }
        bytes
    }

    #[test]
    fn means_are_sums_by_uses() {
        let mut bytes = file(&[("blk.0.attn_q.weight", 4, &[8.0, 2.0]), ("b", 0, &[1.0])]);
        bytes.extend(7i32.to_le_bytes());
        let means = read(&bytes).unwrap();
        assert_eq!(means["blk.0.attn_q.weight"], [2.0, 0.5]);
        assert_eq!(means["b"], [1.0]);
    }

    #[test]
    fn damaged_files_are_refused() {
        let sound = file(&[("a", 4, &[8.0, 2.0])]);
        for end in 0..sound.len() {
            assert!(read(&sound[..end]).is_err(), "{end}");
        }
        let refused = |bytes: &[u8]| format!("{:#}", read(bytes).unwrap_err());
        assert!(refused(&file(&[("a", -1, &[])])).contains("uses is -1"));
        assert!(refused(&file(&[("a", 1, &[1.0]), ("a", 1, &[1.0])])).contains("twice"));
        let mut long = sound.clone();
        long[4..8].copy_from_slice(&i32::MAX.to_le_bytes());
        assert!(refused(&long).contains("the length of a name is 2147483647"));
    }
}
