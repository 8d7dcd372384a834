//! Gathering statistics while a model answers.

use std::collections::BTreeMap;
use std::io::{BufWriter, Write};
use std::ops::Range;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, ensure};
use gemmule::config::Config;
use gemmule::gguf::keys::{self, imatrix, tensor};
use gemmule::gguf::writer::{MetadataValue, TensorPlan, Writer};
use gemmule::session::{Inputs, Observer};
use gemmule_common::files::OutputFile;
use gemmule_quant::{Format, MAX_BLOCK};
use ndarray::{ArrayView2, s};
use rayon::prelude::*;

use super::Statistics;
use super::tiles::{self, Tiles};

/// Rows that wait for others before their products are added: fewer cost as much.
const ROWS: usize = 128;
/// Columns whose squares one task adds.
const SQUARES: usize = 512;

/// What is gathered.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Settings {
    /// Most columns of a block of products; none for squares alone.
    pub block: Option<usize>,
    /// How many times a text token counts as much as an image token.
    pub text_weight: f32,
}

impl Settings {
    /// Squares alone, each token counted once.
    pub fn new() -> Self {
        Self { block: None, text_weight: 1.0 }
    }

    /// Products of inputs, too, in blocks of at most so many columns.
    #[must_use]
    pub fn block(mut self, columns: impl Into<Option<usize>>) -> Self {
        self.block = columns.into();
        self
    }

    /// A text token counts as much as so many image tokens; more than 0.
    #[must_use]
    pub fn text_weight(mut self, weight: f32) -> Self {
        self.text_weight = weight;
        self
    }

    /// The columns of each block of `columns` inputs: whole blocks of every format but the last, and as even as that allows.
    fn blocks(&self, columns: usize) -> Vec<Range<usize>> {
        let Some(most) = self.block else { return Vec::new() };
        let count = columns.div_ceil(most.max(MAX_BLOCK));
        let width = columns.div_ceil(count).next_multiple_of(MAX_BLOCK);
        (0..columns).step_by(width).map(|first| first..columns.min(first + width)).collect()
    }

    /// Bytes of memory, and nearly of the file, for a model.
    pub fn memory(&self, config: &Config) -> usize {
        let (text, vision) = (&config.text, &config.vision);
        let of = |columns: usize| {
            let products = self.blocks(columns).into_iter().map(|block| tiles::count(block.len()));
            products.sum::<usize>() * tiles::TILE * tiles::TILE * 4 + columns * 16
        };
        let decoder = [text.hidden, text.heads * text.head_dim, text.hidden, text.feed_forward];
        let tower = [vision.hidden, vision.hidden, vision.hidden, vision.padded_feed_forward];
        let waiting = if self.block.is_some() { decoder.iter().sum::<usize>() * ROWS * 4 } else { 0 };
        text.layers * (decoder.into_iter().map(of).sum::<usize>() + waiting)
            + vision.layers * tower.into_iter().map(of).sum::<usize>()
            + of(text.hidden)
            + of(vision.hidden)
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self::new()
    }
}

/// What a file of statistics says of itself.
#[derive(Clone, Debug)]
pub struct About {
    /// What was read, such as the name of a manifest.
    pub dataset: String,
    /// How many rows of it.
    pub rows: u32,
    /// Tokens of a picture.
    pub image_tokens: u32,
    /// What has to be the same for more to be added.
    pub settings: String,
}

/// Sums of squares of inputs.
#[derive(Clone, Debug, Default)]
struct Squares {
    sums: Vec<f64>,
    rows: u64,
}

impl Squares {
    /// Adds rows, `[rows][columns]`. Each column is summed in the order of the rows, whichever threads do it.
    fn add(&mut self, values: &[f32]) {
        let columns = self.sums.len();
        self.rows += (values.len() / columns) as u64;
        self.sums.par_chunks_mut(SQUARES).enumerate().for_each(|(index, sums)| {
            let own = index * SQUARES..index * SQUARES + sums.len();
            for row in values.chunks_exact(columns) {
                sums.iter_mut().zip(&row[own.clone()]).for_each(|(sum, x)| *sum += f64::from(*x).powi(2));
            }
        });
    }
}

/// Products of inputs in some columns.
#[derive(Debug)]
struct Block {
    columns: Range<usize>,
    tiles: Tiles,
    samples: u32,
    spread: f64,
}

/// What is known of the inputs of some matrices.
#[derive(Debug)]
struct Entry {
    /// The matrices that share them.
    tensors: Vec<String>,
    image: Squares,
    text: Squares,
    blocks: Vec<Block>,
    /// Rows whose products are not added yet.
    waiting: Vec<f32>,
}

impl Entry {
    fn new(tensors: Vec<String>, columns: usize, settings: &Settings) -> Self {
        let squares = Squares { sums: vec![0.0; columns], rows: 0 };
        let block =
            |columns: Range<usize>| Block { tiles: Tiles::new(columns.len()), columns, samples: 0, spread: 0.0 };
        let blocks = settings.blocks(columns).into_iter().map(block).collect();
        Self { tensors, image: squares.clone(), text: squares, blocks, waiting: Vec::new() }
    }

    fn columns(&self) -> usize {
        self.image.sums.len()
    }

    /// Adds the products of rows that belong to one sample.
    fn add_products(&mut self, values: &[f32]) {
        let columns = self.columns();
        let rows = ArrayView2::from_shape((values.len() / columns, columns), values).expect("whole rows");
        for block in &mut self.blocks {
            let part = rows.slice(s![.., block.columns.clone()]);
            block.tiles.add(&part);
            block.spread += tiles::off_diagonal(&part);
            block.samples += 1;
        }
    }

    fn add_waiting(&mut self) {
        if !self.waiting.is_empty() {
            let mut waiting = std::mem::take(&mut self.waiting);
            self.add_products(&waiting);
            waiting.clear();
            self.waiting = waiting;
        }
    }

    /// Sums of squares of all tokens, and how many rows they are of.
    fn weighted(&self, text_weight: f32) -> (Vec<f32>, f32) {
        let weight = f64::from(text_weight);
        let sums = self.image.sums.iter().zip(&self.text.sums).map(|(image, text)| (image + weight * text) as f32);
        (sums.collect(), (self.image.rows as f64 + weight * self.text.rows as f64) as f32)
    }
}

#[derive(Debug, Default)]
struct State {
    /// By the first of the matrices that share the inputs.
    entries: BTreeMap<String, Entry>,
    /// Tokens of the pictures that are asked about.
    image_tokens: usize,
    /// What belongs to no token of the sequence does not count.
    without_tower: bool,
    /// How far errors of a matrix move answers.
    sensitivities: BTreeMap<String, f32>,
    /// What cannot be counted.
    failure: Option<String>,
}

/// Gathers statistics as a session's observer.
#[derive(Debug)]
pub struct Gatherer {
    settings: Settings,
    pool: rayon::ThreadPool,
    state: Mutex<State>,
}

impl Gatherer {
    /// One that has seen nothing, with threads of its own: one for each CPU, unless told otherwise.
    ///
    /// # Errors
    /// When the settings are out of range, or the system refuses the threads.
    pub fn new(settings: Settings, threads: impl Into<Option<usize>>) -> Result<Self> {
        let weight = settings.text_weight;
        ensure!(weight > 0.0 && weight.is_finite(), "a text token cannot count {weight} times");
        ensure!(
            settings.block.is_none_or(|block| block >= MAX_BLOCK),
            "a block of products has {MAX_BLOCK} columns at least"
        );
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads.into().unwrap_or(0)).build();
        Ok(Self { settings, pool: pool.context("cannot start the threads; ask for fewer")?, state: Mutex::default() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next inputs belong to a sample whose pictures have so many tokens.
    pub fn begin(&self, image_tokens: usize) {
        self.state().image_tokens = image_tokens;
    }

    /// Whether what the vision tower and the projector are given is left out, as it was counted before.
    pub fn leave_tower_out(&self, left_out: bool) {
        self.state().without_tower = left_out;
    }

    /// The sample is complete.
    ///
    /// # Errors
    /// When an input was infinite or not a number.
    pub fn end(&self) -> Result<()> {
        let mut state = self.state();
        if let Some(failure) = state.failure.take() {
            anyhow::bail!(failure);
        }
        let entries = &mut state.entries;
        self.pool.install(|| entries.values_mut().for_each(Entry::add_waiting));
        Ok(())
    }

    /// Notes how far errors of a matrix move answers, as [`Statistics::sensitivity`] gives it again.
    pub fn set_sensitivity(&self, tensor: &str, sensitivity: f32) {
        self.state().sensitivities.insert(tensor.to_owned(), sensitivity);
    }

    /// Runs something on its threads.
    pub fn install<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        self.pool.install(work)
    }

    /// Goes on with what a file has.
    ///
    /// # Errors
    /// When it is damaged.
    pub fn restore(&self, statistics: &Statistics) -> Result<()> {
        let mut state = self.state();
        state.entries.clear();
        let weight = f64::from(self.settings.text_weight);
        let mut groups: BTreeMap<&String, Vec<String>> = BTreeMap::new();
        for (name, owner) in &statistics.owners {
            let group = groups.entry(owner).or_default();
            // The owner comes first.
            let place = if name == owner { 0 } else { group.len() };
            group.insert(place, name.clone());
        }
        for (owner, tensors) in groups {
            let sums = statistics.squares(owner)?;
            let mut entry = Entry::new(tensors, sums.len(), &self.settings);
            let text = statistics.tensor(&format!("{owner}{}", imatrix::TEXT_SQUARES))?;
            if let Some((_, text)) = text.filter(|(_, text)| text.len() == sums.len()) {
                entry.text.sums = text.iter().map(|sum| f64::from(*sum)).collect();
                entry.text.rows = statistics.number(&format!("{owner}{}", imatrix::TEXT_COUNT))?.unwrap_or(0.0) as u64;
            }
            entry.image.rows = (f64::from(statistics.count(owner)?) - weight * entry.text.rows as f64).round() as u64;
            let image = sums.iter().zip(&entry.text.sums);
            entry.image.sums = image.map(|(sum, text)| (f64::from(*sum) - weight * text).max(0.0)).collect();
            let blocks = statistics.blocks(owner)?;
            ensure!(blocks.len() == entry.blocks.len(), "{owner} has other blocks");
            for (block, found) in entry.blocks.iter_mut().zip(blocks) {
                ensure!(found.width == block.columns.len(), "{owner} has other blocks");
                block.tiles = Tiles::of(found.width, found.values.to_vec());
                (block.samples, block.spread) = (found.samples as u32, found.spread);
            }
            state.entries.insert(owner.clone(), entry);
        }
        Ok(())
    }

    /// Writes what was gathered; the file appears when it is complete.
    ///
    /// # Errors
    /// When nothing was gathered, or the file cannot be written.
    pub fn save(&self, path: &Path, about: &About) -> Result<()> {
        let state = self.state();
        ensure!(!state.entries.is_empty(), "nothing was gathered");
        let context = || path.display().to_string();
        let shared = state.entries.iter().flat_map(|(owner, entry)| {
            entry.tensors.iter().filter(move |name| *name != owner).map(move |name| format!("{name}={owner}"))
        });
        let strings =
            |values: Vec<String>| MetadataValue::Array(values.into_iter().map(MetadataValue::String).collect());
        let key = |key: &str, value: MetadataValue| (key.to_owned(), value);
        let metadata = [
            key(keys::TYPE, MetadataValue::String(imatrix::IMATRIX.to_owned())),
            key(imatrix::DATASETS, strings(vec![about.dataset.clone()])),
            key(imatrix::CHUNK_COUNT, MetadataValue::Uint32(about.rows)),
            key(imatrix::CHUNK_SIZE, MetadataValue::Uint32(about.image_tokens)),
            key(imatrix::TEXT_WEIGHT, MetadataValue::Float32(self.settings.text_weight)),
            key(imatrix::SETTINGS, MetadataValue::String(about.settings.clone())),
            key(imatrix::SHARED, strings(shared.collect())),
        ];
        let mut parts = Vec::new();
        for (owner, entry) in &state.entries {
            let (sums, count) = entry.weighted(self.settings.text_weight);
            let text = |sums: &[f64]| sums.iter().map(|sum| *sum as f32).collect::<Vec<_>>();
            for name in &entry.tensors {
                parts.push(Part::own(name, imatrix::SQUARES, [sums.len(), 1], sums.clone()));
                parts.push(Part::own(name, imatrix::COUNT, [1, 1], vec![count]));
                let sensitivity = state.sensitivities.get(name);
                parts.extend(sensitivity.map(|found| Part::own(name, imatrix::SENSITIVITY, [1, 1], vec![*found])));
            }
            if entry.text.rows > 0 {
                let sums = text(&entry.text.sums);
                parts.push(Part::own(owner, imatrix::TEXT_SQUARES, [sums.len(), 1], sums));
                parts.push(Part::own(owner, imatrix::TEXT_COUNT, [1, 1], vec![entry.text.rows as f32]));
            }
            if !entry.blocks.is_empty() {
                let rows = entry.blocks.iter();
                let rows = rows.map(|block| [block.columns.len() as f32, block.samples as f32, block.spread as f32]);
                let rows: Vec<f32> = rows.flatten().collect();
                parts.push(Part::own(owner, imatrix::BLOCKS, [3, entry.blocks.len()], rows));
            }
            for (index, block) in entry.blocks.iter().enumerate() {
                let dimensions = vec![tiles::TILE, tiles::TILE, tiles::count(block.columns.len())];
                let name = format!("{owner}{}", imatrix::products(index));
                parts.push(Part { name, dimensions, values: block.tiles.values().into() });
            }
        }
        let file = OutputFile::create(path).with_context(context)?;
        let plan = parts.iter().map(Part::plan).collect();
        let (mut writer, _) = Writer::new(BufWriter::new(file), &metadata, plan).with_context(context)?;
        for part in &parts {
            writer.write(bytemuck::cast_slice(&part.values)).with_context(context)?;
        }
        let buffered = writer.finish().with_context(context)?;
        let mut file = buffered.into_inner().map_err(std::io::IntoInnerError::into_error).with_context(context)?;
        file.flush().and_then(|()| file.finish()).with_context(context)
    }
}

/// A tensor of the file.
struct Part<'a> {
    name: String,
    dimensions: Vec<usize>,
    values: std::borrow::Cow<'a, [f32]>,
}

impl Part<'_> {
    fn own(tensor: &str, end: &str, dimensions: [usize; 2], values: Vec<f32>) -> Self {
        Self { name: format!("{tensor}{end}"), dimensions: dimensions.to_vec(), values: values.into() }
    }

    fn plan(&self) -> TensorPlan {
        let dimensions = self.dimensions.iter().map(|size| *size as u64).collect();
        TensorPlan { name: self.name.clone(), dimensions, format: Format::F32 }
    }
}

impl Observer for Gatherer {
    fn observe(&self, inputs: &Inputs<'_>) {
        let [owner, ..] = inputs.tensors else { return };
        // It is never rounded.
        if *owner == tensor::PATCH_WEIGHT {
            return;
        }
        let (columns, values) = (inputs.columns, inputs.values);
        let mut state = self.state();
        if state.without_tower && inputs.position.is_none() {
            return;
        }
        if !values.iter().all(|value| value.is_finite()) {
            state.failure.get_or_insert_with(|| format!("an input of {owner} is infinite or not a number"));
            return;
        }
        let images = match inputs.position {
            Some(first) => state.image_tokens.saturating_sub(first).min(values.len() / columns),
            None => values.len() / columns,
        };
        if !state.entries.contains_key(*owner) {
            let tensors = inputs.tensors.iter().map(|name| (*name).to_owned()).collect();
            state.entries.insert((*owner).to_owned(), Entry::new(tensors, columns, &self.settings));
        }
        let entry = state.entries.get_mut(*owner).expect("it was added");
        let (image, text) = values.split_at(images * columns);
        let weight = self.settings.text_weight.sqrt();
        self.pool.install(|| {
            entry.image.add(image);
            entry.text.add(text);
            if entry.blocks.is_empty() {
                return;
            }
            if values.len() >= ROWS * columns && text.is_empty() {
                return entry.add_products(values);
            }
            entry.waiting.extend(image);
            entry.waiting.extend(text.iter().map(|value| value * weight));
            if entry.waiting.len() >= ROWS * columns {
                entry.add_waiting();
            }
        });
    }
}
