//! `gemmule-quantize`: a PaliGemma checkpoint in, a GGUF file out.

mod advice;
mod big_vision;
mod changes;
mod checkpoint;
mod convert;
mod hf_config;
mod json;
mod lora;
mod mask_decoder;
mod note;
mod npz;
mod plan;
mod tokens;
mod vocabulary;

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use gemmule::MOST_THREADS;
use gemmule::config::Config;
use gemmule::config::ResizeRule;
use gemmule_quant::{FORMATS, Format};

use self::note::note;

/// Convert a PaliGemma 1 or 2 checkpoint to GGUF.
///
/// The decoder's matrices take the type of --type. The embedding (which is also the output head) and the vision tower
/// are more sensitive and get a larger type unless told otherwise:
///
///   --type        embedding   vision
///   q4_0 q4_k     q6_k        q8_0
///   q5_k          q6_k        q8_0
///   q6_k q8_0     q8_0        q8_0
///   f16 bf16 f32  the same    the same
///
/// Norms, biases, the patch and the position table stay f32. A matrix whose rows are no whole number of blocks takes
/// the next larger type that fits; the tower's MLP is padded with zeros instead. The chosen types are recorded in the
/// file. The output appears under its name only when it is complete.
///
/// Exit codes: 0 success, 1 failure (a message says why), 2 wrong usage.
#[derive(Parser)]
#[command(name = "gemmule-quantize", version, verbatim_doc_comment, max_term_width = 120)]
struct Cli {
    /// Directory with config.json, tokenizer.json and model.safetensors (or shards with an index), or an .npz checkpoint of
    /// big_vision with config.json and tokenizer.json beside it.
    checkpoint: PathBuf,
    /// The file to write.
    #[arg(value_name = "OUT.gguf")]
    output: PathBuf,
    /// Type of the decoder's matrices: q4_0, q4_k, q5_k, q6_k, q8_0, f16, bf16, f32.
    #[arg(long = "type", value_name = "TYPE", default_value = "q4_0", value_parser = parse_format)]
    body: Format,
    /// Type of the token embedding.
    #[arg(long, value_name = "TYPE", value_parser = parse_format)]
    embedding_type: Option<Format>,
    /// Type of the vision tower's and the projector's matrices.
    #[arg(long, value_name = "TYPE", value_parser = parse_format)]
    vision_type: Option<Format>,
    /// Directory with config.json and tokenizer.json, where they do not lie beside the weights.
    #[arg(long, value_name = "DIRECTORY")]
    config: Option<PathBuf>,
    /// Directory of a LoRA adapter in PEFT's layout, to be merged; give the option once for each. Several are merged one after the
    /// other, those of --lora-scaled last.
    #[arg(long, value_name = "DIRECTORY")]
    lora: Vec<PathBuf>,
    /// As --lora, its part multiplied by a factor.
    #[arg(long, value_names = ["DIRECTORY", "FACTOR"], num_args = 2, allow_negative_numbers = true)]
    lora_scaled: Vec<String>,
    /// vae-oid.npz of big_vision: what turns the codes of "segment" answers into masks.
    #[arg(long, value_name = "FILE")]
    seg_vae: Option<PathBuf>,
    /// Whose resizing of pictures the file asks for: pillow or torchvision, whose levels differ a little (transformers takes
    /// torchvision where that is installed) [default: what the checkpoint was saved with, else pillow].
    #[arg(long, value_name = "RULE", value_parser = parse_rule)]
    resize: Option<ResizeRule>,
    /// Write the pair that llama.cpp's tools expect: OUT.gguf (text) and OUT-mmproj.gguf (vision).
    #[arg(long)]
    split: bool,
    /// Threads [default: the CPUs this process may use].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=MOST_THREADS as i64))]
    threads: Option<u16>,
    /// Replace existing GGUF files.
    #[arg(long)]
    force: bool,
}

/// A type that can be written, by its name: for command lines.
///
/// # Errors
/// When there is none of that name; the message names the nearest, or lists those that there are.
pub fn parse_format(name: &str) -> Result<Format, String> {
    let writable = || FORMATS.iter().filter(|row| row.encodes).map(|row| row.name);
    let plain = name.to_lowercase();
    let found = |name: &str| Format::from_name(name).filter(|format| format.info().encodes);
    if let Some(format) = found(&plain) {
        return Ok(format);
    }
    // As others spell them: llama.cpp's mixes, bitsandbytes' and torch's names.
    let stem = ["_s", "_m", "_l", "_xl"].iter().find_map(|end| plain.strip_suffix(end)).unwrap_or(&plain);
    let near = match stem {
        stem if found(stem).is_some() => stem,
        "q4" | "int4" | "nf4" | "fp4" | "4bit" | "4" | "q4_1" | "mxfp4" => "q4_0",
        "iq4" | "iq4_xs" => "iq4_nl",
        "q2_k" | "q3_k" | "iq2_xxs" | "iq3_xxs" | "iq3" | "iq2" | "q2" | "q3" => "q4_k",
        "q5" | "q5_0" | "q5_1" | "int5" | "5bit" | "5" => "q5_k",
        "q6" | "int6" | "6bit" | "6" => "q6_k",
        "q8" | "int8" | "i8" | "8bit" | "8" | "fp8" | "f8" | "q8_1" | "q8_k" => "q8_0",
        "half" | "float16" | "fp16" | "16" => "f16",
        "bfloat16" => "bf16",
        "float" | "float32" | "fp32" | "32" => "f32",
        _ => "",
    };
    let all = writable().collect::<Vec<_>>().join(", ");
    Err(if near.is_empty() {
        format!("choose one of {all}")
    } else {
        format!("the nearest is {near}; choose one of {all}")
    })
}

fn parse_rule(name: &str) -> Result<ResizeRule, String> {
    let names = ResizeRule::NAMES.map(|row| row.0).join(", ");
    ResizeRule::from_name(name).ok_or_else(|| format!("choose one of {names}"))
}

impl Cli {
    fn execute(&self) -> Result<()> {
        let outputs = output_paths(&self.output, self.split, self.force)?;
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(self.threads.map_or(0, usize::from))
            .build()
            .context("cannot start the threads; choose another --threads")?;
        let Prepared { checkpoint, model, plan, tokenizer, tokenizer_path } = self.prepared()?;
        let context = || tokenizer_path.display().to_string();
        std::thread::scope(|scope| {
            let (config, copy) = (&model.config, tokenizer.clone());
            let check = std::thread::Builder::new()
                .spawn_scoped(scope, move || vocabulary::check(&copy, config).with_context(context))
                .context("cannot start a thread that checks the tokenizer")?;
            let vocabulary = vocabulary::metadata(tokenizer, config).with_context(context)?;
            let files = plan.files(&model, vocabulary, &outputs);
            pool.install(|| convert::convert(&checkpoint, &files, check))
        })
    }

    /// Reads everything but the weights' values.
    fn prepared(&self) -> Result<Prepared> {
        let is_npz = self.checkpoint.extension().is_some_and(|extension| extension == "npz");
        let source = if is_npz { self.checkpoint.clone() } else { advice::directory(&self.checkpoint)? };
        let beside = if is_npz { source.parent().unwrap_or(Path::new("")) } else { &source };
        let directory = self.config.as_deref().map(advice::directory).transpose()?;
        let directory = directory.as_deref().unwrap_or(beside);
        let is_adapter =
            !is_npz && !directory.join("config.json").exists() && source.join("adapter_config.json").exists();
        ensure!(!is_adapter, "{}", advice::no_weights(&source));
        let mut model = hf_config::read(directory, self.resize)?;
        let (mut checkpoint, embedding_rows) = if is_npz {
            let scratch = gemmule_common::files::directory_of(&self.output);
            let (checkpoint, rows) = big_vision::open(&source, &model.config, scratch)?;
            (checkpoint, Some(rows))
        } else {
            (checkpoint::Checkpoint::open(&source, model.weights.as_deref())?, None)
        };
        checkpoint.settle_head(model.tied)?;
        let types = plan::Types::new(self.body, self.embedding_type, self.vision_type);
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
            note(&format!("{}: the adapter beside the weights is merged, as transformers does", adapter.display()));
            lora::add(&mut checkpoint, &source, 1.0)?;
        }
        for directory in &self.lora {
            lora::add(&mut checkpoint, &advice::adapter(directory)?, 1.0)?;
        }
        for [directory, factor] in self.lora_scaled.as_chunks().0 {
            let strength = factor.parse().ok().filter(|factor: &f32| factor.is_finite());
            let strength = strength.with_context(|| format!("--lora-scaled: '{factor}' is no number"))?;
            lora::add(&mut checkpoint, &advice::adapter(Path::new(directory))?, strength)?;
        }
        if let Some(path) = &self.seg_vae {
            let tensors = mask_decoder::read(path)?;
            plan.add_masks(&tensors);
            checkpoint.add_values(path, tensors)?;
            plan.check(&checkpoint)?;
        }
        let tokenizer = tokens::read(directory, &mut model.config)?;
        Ok(Prepared { checkpoint, plan, tokenizer, tokenizer_path: directory.join("tokenizer.json"), model })
    }
}

/// A checkpoint that can be converted.
struct Prepared {
    checkpoint: checkpoint::Checkpoint,
    model: hf_config::HfModel,
    plan: plan::Plan,
    /// The text of `tokenizer.json`, completed.
    tokenizer: String,
    tokenizer_path: PathBuf,
}

/// The output files: one, or the text half and the vision half.
fn output_paths(output: &Path, split: bool, force: bool) -> Result<Vec<PathBuf>> {
    let mut paths = vec![output.to_owned()];
    if split {
        let stem = output.file_stem().context("the output has no file name")?;
        paths.push(output.with_file_name(format!("{}-mmproj.gguf", stem.to_string_lossy())));
    }
    paths.into_iter().map(|path| checked_output(&path, force)).collect()
}

/// Where an output will lie. Of what is there only an earlier output may be replaced: an input is no GGUF file.
fn checked_output(path: &Path, force: bool) -> Result<PathBuf> {
    let path = gemmule_common::files::destination(path).with_context(|| path.display().to_string())?;
    if path.exists() {
        let mut start = Vec::new();
        let read = std::fs::File::open(&path).and_then(|file| file.take(4).read_to_end(&mut start));
        read.with_context(|| path.display().to_string())?;
        ensure!(
            start.is_empty() || start == b"GGUF",
            "{} exists, is no GGUF file and is not replaced: name another output, or remove it",
            path.display()
        );
        ensure!(force, "{} exists already; --force replaces it", path.display());
    }
    Ok(path)
}

/// Reads all of a checkpoint but its weights' values, with adapters merged, and writes nothing.
///
/// # Errors
/// As a conversion.
pub fn dry_run(checkpoint: &Path, adapters: &[PathBuf]) -> Result<()> {
    let output = std::env::temp_dir().join("model.gguf");
    let arguments = [Path::new("gemmule-quantize"), checkpoint, &output];
    let mut cli = Cli::try_parse_from(arguments)?;
    cli.lora = adapters.to_vec();
    cli.prepared().map(|_| ())
}

/// Reads the decoder of masks.
///
/// # Errors
/// As a conversion.
pub fn read_mask_decoder(path: &Path) -> Result<()> {
    mask_decoder::read(path).map(|_| ())
}

/// A model that is made up rather than converted.
#[derive(Debug)]
pub struct MadeModel {
    /// The configuration.
    pub config: Config,
    /// The name it gets.
    pub name: String,
    /// Hugging Face's `tokenizer.json`.
    pub tokenizer_json: String,
    /// Type of the decoder's matrices; the others follow from it as in a conversion.
    pub body: Format,
}

/// Rows of a tensor that are to be made.
#[derive(Clone, Copy, Debug)]
pub struct RowsToMake<'a> {
    /// The tensor's name in the file.
    pub tensor: &'a str,
    /// Storage format.
    pub format: Format,
    /// Values of a row.
    pub columns: usize,
    /// First row.
    pub first: usize,
    /// Number of rows.
    pub count: usize,
    /// Whether they are weights of an RMSNorm, which lie around one.
    pub norm: bool,
}

/// Writes a made-up model, whose rows `make` gives in their storage format, with the names and keys of a conversion.
///
/// # Errors
/// When the files cannot be written or rows have the wrong size.
pub fn write_made(
    model: MadeModel,
    output: &Path,
    split: bool,
    force: bool,
    make: impl Fn(RowsToMake<'_>) -> Vec<u8> + Sync,
) -> Result<()> {
    let outputs = output_paths(output, split, force)?;
    let MadeModel { mut config, name, tokenizer_json, body } = model;
    let plan = plan::Plan::new(&mut config, &plan::Types::new(body, None, None));
    vocabulary::check(&tokenizer_json, &config)?;
    let vocabulary = vocabulary::metadata(tokenizer_json, &config)?;
    let model = hf_config::HfModel { config, name, tied: true, weights: None, not_obeyed: None };
    let files = plan.files(&model, vocabulary, &outputs);
    let make = |item: &plan::Item, first: usize, count: usize| {
        let (tensor, format, columns) = (item.name.as_str(), item.format, item.columns);
        let bytes = make(RowsToMake { tensor, format, columns, first, count, norm: item.plus_one });
        let size = format.row_bytes(columns).map(|row| row * count);
        ensure!(size == Some(bytes.len()), "{tensor}: {} bytes made, {size:?} needed", bytes.len());
        let total = convert::Total::exact((count * columns) as u64, bytes.len() as u64);
        Ok((bytes, total))
    };
    convert::write(&files, &make, None)
}

/// Every tensor that a checkpoint of this configuration has to hold: its name, without the prefixes in which layouts
/// differ (`language_model.norm.weight`, `vision_tower.post_layernorm.bias`), and its shape in PyTorch's order.
pub fn checkpoint_tensors(config: &Config) -> Vec<(String, Vec<usize>)> {
    let types = plan::Types { body: Format::F32, embedding: Format::F32, vision: Format::F32 };
    plan::Plan::new(&mut config.clone(), &types).sources()
}

/// Runs the program on the process's arguments.
pub fn main() -> ExitCode {
    gemmule_common::process::prepare("gemmule-quantize");
    match Cli::parse().execute() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // There may be nobody to read it.
            let _ = writeln!(std::io::stderr(), "gemmule-quantize: {error:#}");
            ExitCode::FAILURE
        }
    }
}
