//! The safetensors files of a checkpoint: headers checked at once, tensor bytes read as they are needed.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use gemmule_common::platform;
use gemmule_quant::{Format, Kernels};
use safetensors::tensor::{Dtype, Metadata};
use serde_json::Value;

use crate::advice;
use crate::changes::Change;
use crate::json;

/// Longest header of a safetensors file that is read (the format's own limit).
const LONGEST_HEADER: u64 = 100_000_000;

/// Where a tensor's values are.
#[derive(Clone, Debug)]
enum Data {
    /// In the file.
    File(Place),
    /// Read and rearranged already: small tensors of other layouts.
    Memory(Arc<[f32]>),
}

/// How a tensor's values lie in a file.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Place {
    /// In their order, from this byte on.
    Straight(u64),
    /// From byte `offset` on, column after column, in groups of `inner` rows: within a group, columns lie `column` values apart; groups
    /// lie `outer` values apart.
    Turned { offset: u64, inner: usize, outer: usize, column: usize },
}

/// A tensor of the checkpoint.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    file: usize,
    data: Data,
    /// Sizes, the contiguous dimension last (PyTorch's order).
    pub(crate) shape: Vec<usize>,
    /// How its values are stored.
    pub(crate) format: Format,
    /// Its name in the file.
    pub(crate) name: String,
    /// What adapters do to it, in their order.
    changes: Vec<Arc<Change>>,
    /// An adapter has put it in the place of the checkpoint's.
    replaced: bool,
}

impl Source {
    fn new(file: usize, name: &str, shape: Vec<usize>, format: Format, data: Data) -> Self {
        Self { file, data, shape, format, name: name.to_owned(), changes: Vec::new(), replaced: false }
    }

    /// Values of a row: all but the first dimension; of a vector, all.
    pub(crate) fn columns(&self) -> usize {
        if self.shape.len() > 1 { self.shape[1..].iter().product() } else { self.shape.iter().product() }
    }
}

/// All tensors, by names without the prefixes in which the layouts differ.
#[derive(Debug)]
pub(crate) struct Checkpoint {
    files: Vec<(PathBuf, File)>,
    tensors: HashMap<String, Source>,
    /// Tensors of a type that is not read, by canonical name: the name in the file and the type.
    unread: HashMap<String, (String, Dtype)>,
}

/// Canonical names of the token embedding and the output head, which Gemma shares.
pub(crate) const EMBEDDING: &str = "language_model.embed_tokens.weight";
pub(crate) const HEAD: &str = "lm_head.weight";

/// A name without the prefixes that differ between the layouts of `transformers` 4 and 5.
pub(crate) fn canonical(name: &str) -> String {
    let name = name.strip_prefix("model.").unwrap_or(name);
    for (prefix, inner) in [("language_model.", "model."), ("vision_tower.", "vision_model.")] {
        if let Some(rest) = name.strip_prefix(prefix) {
            if rest == "lm_head.weight" {
                return rest.to_owned();
            }
            return format!("{prefix}{}", rest.strip_prefix(inner).unwrap_or(rest));
        }
    }
    name.to_owned()
}

impl Checkpoint {
    /// The weights in a directory. Where it has a single file and an index, the file counts, as for `transformers`.
    pub(crate) fn open(directory: &Path, named: Option<&str>) -> Result<Self> {
        let mut checkpoint = Self::empty();
        let (mut single, mut index) = (Some("model.safetensors"), Some("model.safetensors.index.json"));
        if let Some(name) = named {
            // What config.json names counts before both.
            let is_here = !name.contains(['/', '\\']) && directory.join(name).exists();
            let config = directory.join("config.json");
            ensure!(is_here, "{}: 'transformers_weights' is '{name}', which is not here", config.display());
            (single, index) = if name.ends_with(".json") { (None, Some(name)) } else { (Some(name), None) };
        }
        let there = |name: Option<&str>| name.map(|name| directory.join(name)).filter(|path| path.exists());
        if let Some(single) = there(single) {
            checkpoint.add(&single, None)?;
        } else if let Some(index) = there(index) {
            for (name, tensors) in shards(&index)? {
                let path = directory.join(name);
                ensure!(path.exists(), "{}: it is missing, {} names it: fetch it", path.display(), index.display());
                checkpoint.add(&path, Some(&tensors))?;
            }
        } else {
            bail!("{}", advice::no_weights(directory));
        }
        Ok(checkpoint)
    }

    /// A single file.
    pub(crate) fn open_file(path: &Path) -> Result<Self> {
        let mut checkpoint = Self::empty();
        checkpoint.add(path, None)?;
        Ok(checkpoint)
    }

    /// Adds a file's tensors; with `listed`, exactly those that the index lists for it.
    fn add(&mut self, path: &Path, listed: Option<&[String]>) -> Result<()> {
        let context = || path.display().to_string();
        let mut file = platform::open_regular(path).with_context(context)?;
        let length = file.metadata().with_context(context)?.len();
        ensure!(length >= 8, "{}: only {length} bytes long: truncated, fetch it again", path.display());
        let mut size = [0; 8];
        file.read_exact(&mut size).with_context(context)?;
        let header = u64::from_le_bytes(size);
        if let Some(reason) = advice::not_safetensors(path, &size) {
            bail!("{}: {reason}", path.display());
        }
        ensure!(
            header <= LONGEST_HEADER && header + 8 <= length,
            "{}: its header would be {header} bytes long: truncated or no safetensors file",
            path.display()
        );
        let mut bytes = vec![0; header as usize];
        file.read_exact(&mut bytes).with_context(context)?;
        // Parsing validates: sizes fit shapes and types, and the tensors lie one behind the other.
        let metadata: Metadata =
            serde_json::from_slice(&bytes).with_context(|| format!("{}: its header is damaged", path.display()))?;
        let tensors = metadata.tensors();
        let end = tensors.values().map(|info| info.data_offsets.1 as u64).max().unwrap_or(0);
        ensure!(
            8 + header + end == length,
            "{}: {length} bytes long, its header promises {}: truncated or damaged, fetch it again",
            path.display(),
            8 + header + end
        );
        for name in listed.unwrap_or_default() {
            ensure!(
                tensors.contains_key(name),
                "{}: tensor '{name}' is missing, the index promises it",
                path.display()
            );
        }
        for (name, info) in tensors {
            let format = match info.dtype {
                Dtype::F32 => Format::F32,
                Dtype::F16 => Format::F16,
                Dtype::BF16 => Format::BF16,
                // Buffers such as position ids; a weight of such a type is reported when it is looked for.
                other => {
                    self.unread.insert(canonical(&name), (name, other));
                    continue;
                }
            };
            let place = Data::File(Place::Straight(8 + header + info.data_offsets.0 as u64));
            let source = Source::new(self.files.len(), &name, info.shape.clone(), format, place);
            if let Some(other) = self.tensors.insert(canonical(&name), source) {
                bail!("{}: tensors '{}' and '{name}' mean the same", path.display(), other.name);
            }
        }
        self.files.push((path.to_owned(), file));
        Ok(())
    }

    /// A checkpoint without tensors, to be filled.
    pub(crate) fn empty() -> Self {
        Self { files: Vec::new(), tensors: HashMap::new(), unread: HashMap::new() }
    }

    /// Adds a file that tensors lie in; returns its number.
    pub(crate) fn add_opened(&mut self, path: &Path, file: File) -> usize {
        self.files.push((path.to_owned(), file));
        self.files.len() - 1
    }

    /// Adds a tensor of a file.
    pub(crate) fn insert(
        &mut self,
        name: String,
        shape: Vec<usize>,
        file: usize,
        format: Format,
        place: Place,
    ) -> Result<()> {
        let source = Source::new(file, &name, shape, format, Data::File(place));
        let other = self.tensors.insert(name, source);
        ensure!(other.is_none(), "two tensors mean the same");
        Ok(())
    }

    /// Adds tensors that were read from `path`.
    pub(crate) fn add_values(
        &mut self,
        path: &Path,
        tensors: impl IntoIterator<Item = (String, Vec<usize>, Vec<f32>)>,
    ) -> Result<()> {
        let file = self.add_opened(path, File::open(path).with_context(|| path.display().to_string())?);
        for (name, shape, values) in tensors {
            let source = Source::new(file, &name, shape, Format::F32, Data::Memory(values.into()));
            self.tensors.insert(name, source);
        }
        Ok(())
    }

    /// The tensor of a canonical name, checked to have `shape`.
    pub(crate) fn find(&self, name: &str, shape: &[usize]) -> Result<&Source> {
        let source = self.tensors.get(name).with_context(|| self.why_missing(name))?;
        ensure!(
            source.shape == shape,
            "{}: tensor '{}' has shape {:?}, config.json asks for {shape:?}",
            self.path(source).display(),
            source.name,
            source.shape
        );
        Ok(source)
    }

    /// Why there is no tensor of a canonical name.
    fn why_missing(&self, name: &str) -> String {
        let files: Vec<String> = self.files.iter().map(|file| file.0.display().to_string()).collect();
        let reason = match self.unread.get(name) {
            Some((stored, kind)) => advice::unread_type(stored, *kind),
            None => advice::missing(
                name,
                self.tensors.values().map(|source| source.name.as_str()).chain(self.unread_names()),
            ),
        };
        format!("{}: {reason}", files.join(", "))
    }

    /// Names of tensors of a type that is not read.
    pub(crate) fn unread_names(&self) -> impl Iterator<Item = &str> {
        self.unread.values().map(|(name, _)| name.as_str())
    }

    pub(crate) fn path(&self, source: &Source) -> &Path {
        &self.files[source.file].0
    }

    /// Reads `len` values from value `start` on.
    pub(crate) fn read(&self, source: &Source, start: usize, len: usize) -> Result<Vec<f32>> {
        let mut values = vec![0.0; len];
        self.read_into(source, start, &mut values, &mut Vec::new())?;
        Ok(values)
    }

    /// Fills `values` from value `start` on; `bytes` is scratch.
    pub(crate) fn read_into(
        &self,
        source: &Source,
        start: usize,
        values: &mut [f32],
        bytes: &mut Vec<u8>,
    ) -> Result<()> {
        if values.is_empty() {
            // A chunk may lie wholly in a tensor's padding.
            return Ok(());
        }
        match &source.data {
            Data::Memory(all) => values.copy_from_slice(&all[start..start + values.len()]),
            Data::File(Place::Straight(offset)) => {
                let width = source.format.info().block_bytes;
                self.read_run(source, offset + (start * width) as u64, bytes, values)?;
            }
            Data::File(place @ Place::Turned { .. }) => self.read_turned(source, *place, start, values, bytes)?,
        }
        let columns = source.columns();
        source.changes.iter().for_each(|change| change.apply(values, start, columns));
        Ok(())
    }

    /// Fills `values` from byte `offset` of a tensor's file on.
    fn read_run(&self, source: &Source, offset: u64, bytes: &mut Vec<u8>, values: &mut [f32]) -> Result<()> {
        bytes.resize(values.len() * source.format.info().block_bytes, 0);
        let (path, file) = &self.files[source.file];
        platform::read_exact_at(file, bytes, offset)
            .with_context(|| format!("{}: reading tensor '{}'", path.display(), source.name))?;
        Kernels::select(None)?.decode_row(source.format, bytes, values);
        Ok(())
    }

    /// Whole rows of a tensor whose columns lie together.
    fn read_turned(
        &self,
        source: &Source,
        place: Place,
        start: usize,
        values: &mut [f32],
        bytes: &mut Vec<u8>,
    ) -> Result<()> {
        let Place::Turned { offset, inner, outer, column } = place else {
            unreachable!("straight places are read straight")
        };
        let columns = source.shape[1];
        let (first, end) = (start / columns, (start + values.len()) / columns);
        assert!(first * columns == start && end * columns == start + values.len(), "whole rows");
        let width = source.format.info().block_bytes;
        let mut run = Vec::new();
        let mut row = first;
        while row < end {
            let count = (inner - row % inner).min(end - row);
            run.resize(count, 0.0);
            for at in 0..columns {
                let place = row / inner * outer + at * column + row % inner;
                self.read_run(source, offset + (place * width) as u64, bytes, &mut run)?;
                for (value, out) in run.iter().zip(values[(row - first) * columns + at..].iter_mut().step_by(columns)) {
                    *out = *value;
                }
            }
            row += count;
        }
        Ok(())
    }

    /// Canonical names of all tensors.
    pub(crate) fn canonical_names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Names of all tensors that are read.
    pub(crate) fn stored_names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Rows and columns of a matrix.
    pub(crate) fn shape(&self, name: &str) -> Result<(usize, usize)> {
        let source = self.tensors.get(name).with_context(|| self.why_missing(name))?;
        Ok((source.shape[0], source.columns()))
    }

    /// Whether there is a tensor of this name.
    pub(crate) fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// Shape and values of a tensor that exists; an error where a value is not finite.
    pub(crate) fn values(&self, name: &str) -> Result<(Vec<usize>, Vec<f32>)> {
        let source = &self.tensors[name];
        let values = self.read(source, 0, source.shape.iter().product())?;
        let (path, stored) = (self.path(source).display(), &source.name);
        if let Some(at) = values.iter().position(|value| !value.is_finite()) {
            bail!(
                "{path}: value {at} of tensor '{stored}' is {}: the file is damaged, or its training failed",
                values[at]
            );
        }
        Ok((source.shape.clone(), values))
    }

    /// Takes a tensor from another checkpoint in place of one that is here.
    pub(crate) fn replace(&mut self, name: &str, other: &Self, other_name: &str) -> Result<()> {
        let (shape, values) = other.values(other_name)?;
        let here = self.tensors.get_mut(name).context("the checkpoint has no such tensor")?;
        ensure!(here.shape == shape, "its shape {shape:?} is not the checkpoint's {:?}", here.shape);
        ensure!(!here.replaced && here.changes.is_empty(), "another adapter changes it too");
        (here.data, here.format, here.replaced) = (Data::Memory(values.into()), Format::F32, true);
        Ok(())
    }

    /// The tensor that an adapter changes, checked to be a matrix of the sizes given.
    pub(crate) fn matrix(&self, name: &str, rows: usize, columns: usize) -> Result<&Source> {
        let source = self.tensors.get(name).with_context(|| format!("the checkpoint has no tensor '{name}'"))?;
        let fits = source.shape.len() >= 2 && source.shape[0] == rows && source.columns() == columns;
        ensure!(fits, "the adapter's {rows} × {columns} do not fit '{}' of shape {:?}", source.name, source.shape);
        Ok(source)
    }

    /// Adds a change to a tensor that exists, after its earlier changes.
    pub(crate) fn change(&mut self, name: &str, change: Change) {
        self.tensors.get_mut(name).expect("it was found before").changes.push(Arc::new(change));
    }

    /// Whether an adapter changes some of these rows of a matrix already.
    pub(crate) fn has_other_rows(&self, name: &str, rows: impl Iterator<Item = usize>) -> bool {
        let changes = self.tensors.get(name).map_or(&[][..], |source| &source.changes);
        let changed = |row: usize| {
            changes.iter().any(|change| matches!(&**change, Change::Rows(rows) if rows.contains_key(&row)))
        };
        rows.into_iter().any(changed)
    }

    /// Euclidean norms of a matrix's rows, or of its columns, as changed so far.
    pub(crate) fn norms(&self, name: &str, of_rows: bool) -> Result<Vec<f64>> {
        let source = &self.tensors[name];
        let (rows, columns) = (source.shape[0], source.columns());
        let mut squares = vec![0.0; if of_rows { rows } else { columns }];
        let at_once = ((1 << 20) / columns).max(1);
        for first in (0..rows).step_by(at_once) {
            let count = at_once.min(rows - first);
            let values = self.read(source, first * columns, count * columns)?;
            for (row, values) in values.chunks_exact(columns).enumerate() {
                for (column, value) in values.iter().enumerate() {
                    squares[if of_rows { first + row } else { column }] += f64::from(*value).powi(2);
                }
            }
        }
        Ok(squares.into_iter().map(f64::sqrt).collect())
    }

    /// Gemma's output head is its embedding. A checkpoint may hold both, if they are equal, or the head alone, as safetensors'
    /// `save_model` may leave it. With `tied` false it has to hold both.
    pub(crate) fn settle_head(&mut self, tied: bool) -> Result<()> {
        let (has_head, has_embedding) = (self.contains(HEAD), self.contains(EMBEDDING));
        if has_head && has_embedding {
            self.check_head()?;
            self.tensors.remove(HEAD);
        } else if has_head && tied {
            let head = self.tensors.remove(HEAD).expect("it is there");
            self.tensors.insert(EMBEDDING.to_owned(), head);
        } else if has_embedding && !tied {
            bail!(
                "{}: config.json says 'tie_word_embeddings': false, and there is no 'lm_head.weight': the output head is missing",
                self.path(&self.tensors[EMBEDDING]).display()
            );
        }
        Ok(())
    }

    /// A separate output head is only understood when it is a copy of the embedding.
    fn check_head(&self) -> Result<()> {
        let (head, embedding) = (&self.tensors[HEAD], &self.tensors[EMBEDDING]);
        let path = self.path(head).display();
        ensure!(head.shape == embedding.shape, "{path}: 'lm_head.weight' has another shape than the embedding");
        let total: usize = head.shape.iter().product();
        let step = 1 << 22;
        for start in (0..total).step_by(step) {
            let len = step.min(total - start);
            ensure!(
                self.read(head, start, len)? == self.read(embedding, start, len)?,
                "{path}: 'lm_head.weight' is no copy of the embedding; an untied output head is not supported"
            );
        }
        Ok(())
    }
}

/// File names in order, each with the tensors that the index lists for it.
fn shards(index: &Path) -> Result<Vec<(String, Vec<String>)>> {
    let value: Value = json::read(index)?;
    let map = value["weight_map"].as_object().with_context(|| format!("{}: no 'weight_map'", index.display()))?;
    let mut files: Vec<(String, Vec<String>)> = Vec::new();
    for (tensor, file) in map {
        let file = file.as_str().filter(|name| !name.contains(['/', '\\']) && *name != "..");
        let file =
            file.with_context(|| format!("{}: the file of '{tensor}' is no plain file name", index.display()))?;
        match files.iter_mut().find(|entry| entry.0 == file) {
            Some(entry) => entry.1.push(tensor.clone()),
            None => files.push((file.to_owned(), vec![tensor.clone()])),
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests;
