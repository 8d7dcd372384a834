//! A conversion: what from, and how.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use gemmule::config::{Config, ResizeRule};
use gemmule::gguf::keys::own;
use gemmule::gguf::writer::{MetadataValue, TensorPlan, planned_size};
use gemmule_common::files::same_file;
use gemmule_quant::Format;

use crate::allot::{Budget, Machine, Request, allot};
use crate::calibrated::{self, Calibrated};
use crate::convert::{self, Plain, Watcher};
use crate::plan::Item;
use crate::statistics::Statistics;
use crate::summary::Summary;
use crate::target::Target;
use crate::{advice, big_vision, checkpoint, hf_config, lora, mask_decoder, plan, tokens, vocabulary};

/// Bytes of keys that neither the vocabulary nor the configuration has: names, and the table of types.
const OTHER_KEYS: u64 = 16 << 10;

/// A LoRA adapter to be merged.
#[derive(Clone, Debug)]
struct Adapter {
    directory: PathBuf,
    strength: f32,
}

/// A conversion: what from, and how. Each method sets one thing; a setting that may be left open takes an `Option`, too.
#[derive(Clone, Debug)]
pub struct Conversion {
    checkpoint: PathBuf,
    body: Format,
    embedding: Option<Format>,
    vision: Option<Format>,
    config: Option<PathBuf>,
    adapters: Vec<Adapter>,
    masks: Option<PathBuf>,
    calibration: Option<PathBuf>,
    budget: Option<Budget>,
    machine: Machine,
    resize: Option<ResizeRule>,
    threads: usize,
    source: Option<String>,
}

impl Conversion {
    /// Of a checkpoint: a directory in Hugging Face's layout, the root of an entry of Hugging Face's cache, the name of a model that
    /// is there (`google/paligemma2-3b-mix-224`), or an `.npz` file of big_vision. To Q4_0, unless told otherwise.
    pub fn of(checkpoint: impl Into<PathBuf>) -> Self {
        Self {
            checkpoint: checkpoint.into(),
            body: Format::Q4_0,
            embedding: None,
            vision: None,
            config: None,
            adapters: Vec::new(),
            masks: None,
            calibration: None,
            budget: None,
            machine: Machine::default(),
            resize: None,
            threads: 0,
            source: None,
        }
    }

    /// The type of the decoder's matrices. The others follow from it.
    #[must_use]
    pub fn body(mut self, format: Format) -> Self {
        self.body = format;
        self
    }

    /// The type of the token embedding.
    #[must_use]
    pub fn embedding(mut self, format: impl Into<Option<Format>>) -> Self {
        self.embedding = format.into();
        self
    }

    /// The type of the vision tower's and the projector's matrices.
    #[must_use]
    pub fn vision(mut self, format: impl Into<Option<Format>>) -> Self {
        self.vision = format.into();
        self
    }

    /// The directory with config.json and tokenizer.json, where they do not lie beside the weights.
    #[must_use]
    pub fn config(mut self, directory: impl Into<Option<PathBuf>>) -> Self {
        self.config = directory.into();
        self
    }

    /// Merges a LoRA adapter in PEFT's layout, its part multiplied by a finite `strength`. Several are merged in order.
    #[must_use]
    pub fn adapter(mut self, directory: impl Into<PathBuf>, strength: f32) -> Self {
        self.adapters.push(Adapter { directory: directory.into(), strength });
        self
    }

    /// big_vision's `vae-oid.npz`: what turns the codes of `segment` answers into masks.
    #[must_use]
    pub fn masks(mut self, file: impl Into<Option<PathBuf>>) -> Self {
        self.masks = file.into();
        self
    }

    /// Statistics of the matrices' inputs, as [`Statistics`] opens them: quantized matrices are rounded so that their outputs change little.
    #[must_use]
    pub fn calibration(mut self, file: impl Into<Option<PathBuf>>) -> Self {
        self.calibration = file.into();
        self
    }

    /// How large the model may be: each matrix gets the type with which the answers change least. It needs [`calibration`](Self::calibration), and
    /// leaves no other type to be named.
    #[must_use]
    pub fn budget(mut self, budget: impl Into<Option<Budget>>) -> Self {
        self.budget = budget.into();
        self
    }

    /// What a model with a [`budget`](Self::budget) is to run on: types are those that are fast there.
    #[must_use]
    pub fn machine(mut self, machine: Machine) -> Self {
        self.machine = machine;
        self
    }

    /// Which library's resizing of pictures the file asks for; by default the one that the checkpoint was saved with.
    #[must_use]
    pub fn resize(mut self, rule: impl Into<Option<ResizeRule>>) -> Self {
        self.resize = rule.into();
        self
    }

    /// Threads; by default one for each CPU that the process may use.
    #[must_use]
    pub fn threads(mut self, threads: impl Into<Option<usize>>) -> Self {
        self.threads = threads.into().unwrap_or(0);
        self
    }

    /// A text about what the file is made from, kept in it under
    /// [`keys::own::SOURCE`](gemmule::gguf::keys::own::SOURCE).
    #[must_use]
    pub fn source(mut self, text: impl Into<Option<String>>) -> Self {
        self.source = text.into();
        self
    }

    /// Converts. Files appear under their names when all of them are complete.
    ///
    /// # Errors
    /// When the checkpoint cannot be read or is none of PaliGemma, the files cannot be written, or `watcher` cancels.
    pub fn run(&self, target: &Target, watcher: &mut Watcher<'_>) -> Result<Summary> {
        for path in target.paths()? {
            let is_read = self.calibration.as_deref().is_some_and(|statistics| same_file(statistics, &path));
            ensure!(!is_read, "{} is read, too: name another output", path.display());
        }
        self.prepare(target.directory())?.write(target, watcher)
    }

    /// Checks what the budget goes together with.
    fn check_budget(&self) -> Result<()> {
        let Some(budget) = self.budget else {
            ensure!(self.machine == Machine::default(), "a machine is named for a budget: give that, too");
            return Ok(());
        };
        ensure!(
            self.calibration.is_some(),
            "a budget needs statistics that say how far errors of each matrix move answers: make them with `gemmule calibrate --sensitivity`, and \
             name them with --calibration"
        );
        if let Budget::Bits(bits) = budget {
            ensure!((1.0..=32.0).contains(&bits), "{bits} bits for each weight: choose a number from 1 to 32");
        }
        let is_free = self.embedding.is_none() && self.vision.is_none() && self.body.info().integer;
        ensure!(is_free, "a budget chooses the types: name none for decoder, embedding or vision tower");
        Ok(())
    }

    /// Reads the checkpoint except the values of its weights, and notes what adapters change. Writes nothing, except that compressed arrays
    /// of `.npz` files are unpacked into unnamed files in the directory `scratch`.
    ///
    /// # Errors
    /// When the checkpoint cannot be read or is none of PaliGemma.
    pub fn prepare(&self, scratch: &Path) -> Result<Prepared> {
        self.check_budget()?;
        let is_npz = self.checkpoint.extension().is_some_and(|extension| extension == "npz");
        let source = if is_npz { self.checkpoint.clone() } else { advice::directory(&self.checkpoint)? };
        let beside = if is_npz { source.parent().unwrap_or(Path::new("")) } else { &source };
        let directory = self.config.as_deref().map(advice::directory).transpose()?;
        let directory = directory.as_deref().unwrap_or(beside);
        ensure!(
            !is_npz || directory.join("config.json").exists(),
            "{}: config.json is not in {}: put the model's config.json and tokenizer.json there, or name their directory (`gemmule-quantize \
             --config`)",
            source.display(),
            directory.display()
        );
        let has = |name: &str| source.join(name).exists();
        let is_empty = !directory.join("config.json").exists()
            && !has("model.safetensors")
            && !has("model.safetensors.index.json");
        ensure!(is_npz || !is_empty, "{}", advice::no_weights(&source));
        let mut model = hf_config::read(directory, self.resize)?;
        let (mut checkpoint, embedding_rows) = if is_npz {
            let (checkpoint, rows) = big_vision::open(&source, &model.config, scratch)?;
            (checkpoint, Some(rows))
        } else {
            (checkpoint::Checkpoint::open(&source, model.weights.as_deref())?, None)
        };
        checkpoint.settle_head(model.tied)?;
        let types = plan::Types::new(self.body, self.embedding, self.vision);
        let mut plan = plan::Plan::new(&mut model.config, &types);
        if let Some(rows) = embedding_rows {
            plan.shorten_embedding(rows);
        }
        // Before adapters, which are fitted to what is there.
        plan.check(&checkpoint)?;
        if !is_npz {
            plan.note_surplus(&checkpoint);
        }
        let adapter = source.join("adapter_config.json");
        if !is_npz && adapter.exists() {
            // transformers applies it without a word.
            log::warn!("{}: the adapter beside the weights is merged, as transformers does", adapter.display());
            lora::add(&mut checkpoint, &source, 1.0)?;
        }
        for Adapter { directory, strength } in &self.adapters {
            ensure!(strength.is_finite(), "{}: its strength {strength} is no number", directory.display());
            lora::add(&mut checkpoint, &advice::adapter(directory)?, *strength)?;
        }
        if let Some(path) = &self.masks {
            let tensors = mask_decoder::read(path)?;
            plan.add_masks(&tensors);
            checkpoint.add_values(path, tensors)?;
            plan.check(&checkpoint)?;
        }
        let statistics = self.calibration.as_deref().map(Statistics::open).transpose()?;
        if let (Some(statistics), Some(path)) = (&statistics, &self.calibration) {
            calibrated::check(statistics, plan.items()).with_context(|| path.display().to_string())?;
        }
        let tokenizer = tokens::read(directory, &mut model.config)?;
        Ok(Prepared {
            checkpoint,
            plan,
            statistics,
            request: self.budget.map(|budget| Request { budget, machine: self.machine }),
            tokenizer,
            tokenizer_path: directory.join("tokenizer.json"),
            model,
            threads: self.threads,
            source: self.source.clone(),
        })
    }
}

/// A checkpoint that has been read, except the values of its weights, and is ready to be converted.
pub struct Prepared {
    checkpoint: checkpoint::Checkpoint,
    model: hf_config::HfModel,
    plan: plan::Plan,
    statistics: Option<Statistics>,
    request: Option<Request>,
    /// The text of `tokenizer.json`, completed.
    tokenizer: String,
    tokenizer_path: PathBuf,
    threads: usize,
    source: Option<String>,
}

impl Prepared {
    /// Converts, as [`Conversion::run`].
    ///
    /// # Errors
    /// When weights cannot be read, the files cannot be written, or `watcher` cancels.
    pub fn write(self, target: &Target, watcher: &mut Watcher<'_>) -> Result<Summary> {
        let outputs = target.paths()?;
        let Self { checkpoint, model, mut plan, statistics, request, tokenizer, tokenizer_path, threads, source } =
            self;
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        let pool = pool.context("cannot start the threads; choose another --threads")?;
        let context = || tokenizer_path.display().to_string();
        std::thread::scope(|scope| {
            let (config, copy) = (&model.config, tokenizer.clone());
            let check = std::thread::Builder::new()
                .spawn_scoped(scope, move || vocabulary::check(&copy, config).with_context(context))
                .context("cannot start a thread that checks the tokenizer")?;
            let vocabulary = vocabulary::metadata(tokenizer, config).with_context(context)?;
            let plain = Plain::new(&checkpoint)?;
            let allotment = match (request, &statistics) {
                (Some(request), Some(statistics)) => {
                    let others = beside_tensors(&vocabulary, config, plan.items());
                    let mut items = plan.items().to_vec();
                    let found = pool.install(|| allot(&mut items, &plain, statistics, request, others, watcher))?;
                    plan.set_formats(items, found.table.join("; "));
                    Some(found)
                }
                _ => None,
            };
            let mut files = plan.files(&model, vocabulary, &outputs);
            if let Some(source) = &source {
                files.iter_mut().for_each(|file| file.note(own::SOURCE, source));
            }
            if let Some(statistics) = &statistics {
                let description = statistics.description()?;
                files.iter_mut().for_each(|file| file.note(own::CALIBRATION, &description));
            }
            if let Some(Request { budget: Budget::Bytes(most), .. }) = request {
                let sizes = files.iter().map(|file| {
                    planned_size(&file.metadata, &file.items.iter().map(TensorPlan::from).collect::<Vec<_>>())
                });
                let size: u64 = sizes.sum();
                ensure!(
                    size <= most,
                    "{most} bytes are too few: the files' texts take more than was allowed for; the least is --budget {size}"
                );
            }
            let mut summary = pool.install(|| match &statistics {
                None => convert::write(&files, &plain, watcher, Some(check)),
                Some(statistics) => convert::write(&files, &Calibrated::new(plain, statistics), watcher, Some(check)),
            })?;
            summary.allotment = allotment;
            Ok(summary)
        })
    }
}

/// Bytes of the files that are no tensor's, at most.
fn beside_tensors(vocabulary: &[(String, MetadataValue)], config: &Config, items: &[Item]) -> u64 {
    let plan: Vec<TensorPlan> = items.iter().map(TensorPlan::from).collect();
    let tensors: u64 = plan.iter().map(TensorPlan::bytes).sum();
    let keys = [config.text_metadata(), config.vision_metadata()].concat();
    planned_size(vocabulary, &plan) - tensors + planned_size(&keys, &[]) + OTHER_KEYS
}

/// Reads big_vision's decoder of masks, to see whether it can be converted.
///
/// # Errors
/// As a conversion.
pub fn read_mask_decoder(path: &Path) -> Result<()> {
    mask_decoder::read(path).map(|_| ())
}
