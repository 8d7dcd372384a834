//! What the inputs of a model's matrices are like: gathered while it answers, kept in files that llama.cpp reads, too, and read again to round
//! by them.
//!
//! A file has for every matrix the sums of the squares of its inputs, as llama.cpp's `llama-imatrix` writes them, and, where that was asked
//! for, the sums of the products of inputs with each other, in blocks of columns. A text token counts as much as
//! [`text_weight`](Settings::text_weight) image tokens.

mod gather;
mod legacy;
mod tiles;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use gemmule::gguf::keys::tensor::TOKEN_EMBEDDING;
use gemmule::gguf::keys::{self, imatrix};
use gemmule::gguf::{GgufFile, TensorInfo};
use gemmule_common::memory::check_room;
use gemmule_quant::Format;

pub use gather::{About, Gatherer, Settings};

use crate::rounding::{Moments, Rounding};

/// What is added to the diagonal of moments, as a share of its mean: what few samples say of dependence is believed the less.
const RIDGE: f32 = 0.01;
/// As [`RIDGE`], for the embedding: its rows are inputs of the decoder, too, and there the errors of all columns count alike. On the model of
/// `models/scenes` the divergence of Q4_K is least at 0.1 to 1.
const EMBEDDING_RIDGE: f32 = 0.3;

/// Statistics in a file.
#[derive(Debug)]
pub struct Statistics {
    path: PathBuf,
    source: Source,
    /// Each matrix, and whose inputs it has.
    owners: BTreeMap<String, String>,
}

#[derive(Debug)]
enum Source {
    Gguf { file: GgufFile, places: HashMap<String, usize> },
    Legacy(legacy::Means),
}

/// Products of inputs in some columns.
struct Block<'a> {
    width: usize,
    /// The samples that they are of.
    samples: f64,
    /// The sum, over the samples, of the squares of their products off the diagonal.
    spread: f64,
    /// As `tiles` has them.
    values: &'a [f32],
}

impl Statistics {
    /// Opens a file of `gemmule calibrate` or of llama.cpp's `llama-imatrix`, the older form included.
    ///
    /// # Errors
    /// When it cannot be read, is damaged, or holds no statistics.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        Self::read(path).with_context(|| path.display().to_string())
    }

    fn read(path: &Path) -> Result<Self> {
        let mut start = [0; 4];
        let mut file = gemmule_common::platform::open_regular(path)?;
        let length = file.metadata()?.len();
        let is_gguf = std::io::Read::read_exact(&mut file, &mut start).is_ok() && &start == b"GGUF";
        if !is_gguf {
            check_room(usize::try_from(length)?.saturating_mul(2), "the statistics")?;
            let means = legacy::read(&std::fs::read(path)?);
            let means = means.context("it is neither a GGUF file nor one of llama-imatrix's older form")?;
            let owners = means.keys().map(|name| (name.clone(), name.clone())).collect();
            let statistics = Self { path: path.to_owned(), source: Source::Legacy(means), owners };
            return statistics.check();
        }
        let file = GgufFile::open(path)?;
        let kind = file.string(keys::TYPE)?.unwrap_or("model");
        ensure!(
            kind == imatrix::IMATRIX,
            "it is a {kind} and holds no statistics: `gemmule calibrate` and `llama-imatrix` make such files"
        );
        let tensors = file.gguf().tensors().iter().enumerate();
        let places: HashMap<String, usize> = tensors.map(|(index, tensor)| (tensor.name.clone(), index)).collect();
        let names = places.keys().filter_map(|name| name.strip_suffix(imatrix::SQUARES));
        let mut owners: BTreeMap<String, String> = names.map(|name| (name.to_owned(), name.to_owned())).collect();
        for pair in file.gguf().strings(imatrix::SHARED, file.bytes())?.unwrap_or_default() {
            let (name, owner) = pair.split_once('=').with_context(|| format!("'{}': {pair}", imatrix::SHARED))?;
            ensure!(owners.contains_key(owner), "'{}' names {owner}, which has no statistics", imatrix::SHARED);
            let held = owners.get_mut(name);
            *held.with_context(|| format!("'{}' names {name}, which has no statistics", imatrix::SHARED))? =
                owner.to_owned();
        }
        ensure!(!owners.is_empty(), "it holds no statistics of any matrix");
        Self { path: path.to_owned(), source: Source::Gguf { file, places }, owners }.check()
    }

    /// Checks what is small: sums of squares.
    fn check(self) -> Result<Self> {
        for name in self.owners.keys() {
            let means = self.means(name)?;
            let sound = means.iter().all(|mean| *mean >= 0.0 && mean.is_finite());
            ensure!(sound, "the statistics of {name} are damaged: some are negative or no numbers");
            ensure!(means.iter().any(|mean| *mean > 0.0), "the statistics of {name} are all zero");
            let owner = &self.owners[name];
            let is_shared = self.owners.get(owner) == Some(owner) && self.squares(owner)?.len() == means.len();
            ensure!(is_shared, "'{}' says that {name} has the inputs of {owner}, which cannot be", imatrix::SHARED);
        }
        Ok(self)
    }

    /// The matrices that have statistics.
    pub fn tensors(&self) -> impl Iterator<Item = &str> {
        self.owners.keys().map(String::as_str)
    }

    /// The matrix that has the same inputs and holds their products, perhaps itself; none where a matrix has no statistics.
    pub fn owner(&self, tensor: &str) -> Option<&str> {
        self.owners.get(tensor).map(String::as_str)
    }

    /// A tensor of the file, which must be f32.
    fn tensor(&self, name: &str) -> Result<Option<(&TensorInfo, &[f32])>> {
        let Source::Gguf { file, places } = &self.source else { return Ok(None) };
        let Some(place) = places.get(name) else { return Ok(None) };
        let info = &file.gguf().tensors()[*place];
        let values = bytemuck::try_cast_slice(&file.bytes()[info.range.clone()]);
        let values = values.ok().filter(|_| info.format == Some(Format::F32));
        Ok(Some((info, values.with_context(|| format!("tensor '{name}' is no aligned f32"))?)))
    }

    /// The number in a tensor.
    fn number(&self, name: &str) -> Result<Option<f32>> {
        let Some((_, values)) = self.tensor(name)? else { return Ok(None) };
        let [number] = values else { bail!("tensor '{name}' has {} numbers in place of one", values.len()) };
        Ok(Some(*number))
    }

    /// How many rows the sums of a matrix are of.
    fn count(&self, tensor: &str) -> Result<f32> {
        if matches!(self.source, Source::Legacy(_)) {
            return Ok(1.0);
        }
        let name = format!("{tensor}{}", imatrix::COUNT);
        let count = self.number(&name)?.with_context(|| format!("tensor '{name}' is missing"))?;
        ensure!(count > 0.0 && count.is_finite(), "{tensor} was used {count} times: there is nothing to round by");
        Ok(count)
    }

    /// Sums of the squares of a matrix's inputs: of so many rows as [`count`](Self::count) says, or of one in the older form.
    fn squares(&self, tensor: &str) -> Result<&[f32]> {
        if let Source::Legacy(means) = &self.source {
            return Ok(&means[tensor]);
        }
        let name = format!("{tensor}{}", imatrix::SQUARES);
        let (info, values) = self.tensor(&name)?.with_context(|| format!("tensor '{name}' is missing"))?;
        let single = info.dimensions[1..].iter().all(|size| *size == 1);
        ensure!(single, "tensor '{name}' has shape {:?}: experts are no part of these models", info.dimensions);
        Ok(values)
    }

    /// Means of the squares of a matrix's inputs.
    fn means(&self, tensor: &str) -> Result<Vec<f32>> {
        let count = self.count(tensor)?;
        Ok(self.squares(tensor)?.iter().map(|sum| sum / count).collect())
    }

    /// The inputs of a matrix.
    ///
    /// # Errors
    /// When it has no statistics.
    pub fn columns(&self, tensor: &str) -> Result<usize> {
        ensure!(self.owners.contains_key(tensor), "{} has no statistics of {tensor}", self.path.display());
        Ok(self.squares(tensor)?.len())
    }

    /// Whether the products of a matrix's inputs are known, not their squares alone.
    pub fn has_products(&self, tensor: &str) -> bool {
        let Source::Gguf { places, .. } = &self.source else { return false };
        self.owner(tensor).is_some_and(|owner| places.contains_key(&format!("{owner}{}", imatrix::BLOCKS)))
    }

    /// The blocks of products of a matrix's inputs; none where there are none.
    fn blocks(&self, tensor: &str) -> Result<Vec<Block<'_>>> {
        let Some(owner) = self.owner(tensor) else { return Ok(Vec::new()) };
        let name = format!("{owner}{}", imatrix::BLOCKS);
        let Some((_, rows)) = self.tensor(&name)? else { return Ok(Vec::new()) };
        let damaged = || format!("tensor '{name}' is damaged");
        let (rows, []) = rows.as_chunks::<3>() else { bail!("{}", damaged()) };
        let mut blocks = Vec::new();
        let mut columns = 0;
        for (index, [width, samples, spread]) in rows.iter().enumerate() {
            let sound = [width, samples, spread].iter().all(|number| number.is_finite() && **number >= 0.0);
            ensure!(sound && *width >= 1.0 && width.fract() == 0.0 && *width < 1e7, "{}", damaged());
            let width = *width as usize;
            let part = format!("{owner}{}", imatrix::products(index));
            let (_, values) = self.tensor(&part)?.with_context(|| format!("tensor '{part}' is missing"))?;
            let needed = tiles::count(width).saturating_mul(tiles::TILE * tiles::TILE);
            ensure!(values.len() == needed, "tensor '{part}' has {} values in place of {needed}", values.len());
            columns += width;
            blocks.push(Block { width, samples: f64::from(*samples), spread: f64::from(*spread), values });
        }
        ensure!(columns == self.squares(owner)?.len(), "{}", damaged());
        Ok(blocks)
    }

    /// The moments of a matrix's inputs: all that are known, those off the diagonal made smaller by as much as few samples warrant.
    ///
    /// # Errors
    /// When it has no statistics, or they are damaged.
    pub fn moments(&self, tensor: &str) -> Result<Moments> {
        let read = || -> Result<Moments> {
            let blocks = self.blocks(tensor)?;
            if blocks.is_empty() {
                return Ok(Moments::Diagonal(self.means(tensor)?));
            }
            let total = self.count(self.owner(tensor).unwrap_or(tensor))?;
            let whole: usize = blocks.iter().map(|block| block.width * block.width * 4).sum();
            check_room(whole.saturating_mul(4), "the moments of a matrix's inputs")?;
            let mut squares = Vec::new();
            for block in &blocks {
                ensure!(block.values.iter().all(|value| value.is_finite()), "some products of inputs are no numbers");
                squares.push(tiles::square(block.width, block.values, 1.0 - block.shrinkage() as f32, total));
            }
            Ok(Moments::Blocks(squares))
        };
        read().with_context(|| format!("{}: the statistics of {tensor}", self.path.display()))
    }

    /// How a matrix with these moments, its own, is rounded.
    ///
    /// # Errors
    /// When they are no moments.
    pub fn rounding(&self, tensor: &str, moments: &Moments) -> Result<Rounding> {
        let ridge = if tensor == TOKEN_EMBEDDING { EMBEDDING_RIDGE } else { RIDGE };
        Rounding::new(moments, ridge).with_context(|| format!("{}: the statistics of {tensor}", self.path.display()))
    }

    /// The divergence (Kullback-Leibler) of answers, in nats a token, for each unit of a matrix's error, as
    /// [`round_in_place`](crate::sensitivity::round_in_place) gives it; none where that was not measured.
    ///
    /// # Errors
    /// When it is damaged.
    pub fn sensitivity(&self, tensor: &str) -> Result<Option<f32>> {
        let found = self.number(&format!("{tensor}{}", imatrix::SENSITIVITY))?;
        let sound = found.is_none_or(|found| found >= 0.0 && found.is_finite());
        ensure!(sound, "{}: the sensitivity of {tensor} is damaged", self.path.display());
        Ok(found)
    }

    /// What has to be the same for more to be added, and how many rows there are so far: of a file that [`Gatherer::save`] has written.
    ///
    /// # Errors
    /// When it is another one's.
    pub fn progress(&self) -> Result<(&str, u32)> {
        let read = || -> Result<Option<(&str, u32)>> {
            let Source::Gguf { file, .. } = &self.source else { return Ok(None) };
            let settings = file.string(imatrix::SETTINGS)?;
            let rows = file.gguf().unsigned(imatrix::CHUNK_COUNT)?.and_then(|rows| u32::try_from(rows).ok());
            Ok(settings.zip(rows))
        };
        let context = || self.path.display().to_string();
        read().with_context(context)?.context("it does not say what it was gathered from").with_context(context)
    }

    /// What is known, in words.
    pub fn description(&self) -> Result<String> {
        let Source::Gguf { file, .. } = &self.source else {
            return Ok(format!("squares of the inputs of {} matrices", self.owners.len()));
        };
        let sets = file.gguf().strings(imatrix::DATASETS, file.bytes())?.unwrap_or_default().join(", ");
        let parts = file.gguf().unsigned(imatrix::CHUNK_COUNT)?.unwrap_or(0);
        let products = if self.tensors().any(|tensor| self.has_products(tensor)) { "products" } else { "squares" };
        Ok(format!("{products} of the inputs of {} matrices, {parts} parts of {sets}", self.owners.len()))
    }
}

impl Block<'_> {
    /// How much of the products off the diagonal is chance: 0 … 1. As Ledoit and Wolf (Journal of Multivariate Analysis 88, 2004) have it for a
    /// multiple of the identity, here for the diagonal: the variance of the sum, as the samples' spread tells it, as a share of its square.
    fn shrinkage(&self) -> f64 {
        let all = tiles::off_diagonal_of(self.width, self.values);
        if all == 0.0 || self.samples < 2.0 {
            return 0.0;
        }
        let variance = (self.spread - all / self.samples) * self.samples / (self.samples - 1.0);
        (variance / all).clamp(0.0, 1.0)
    }
}
