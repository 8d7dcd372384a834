//! `gemmule-synth`: models of the real sizes with random weights, as GGUF or in Hugging Face layout. They say nothing
//! sensible; they show speed and memory.

mod blocks;
mod sizes;
mod tokenizer;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use gemmule_common::progress::BytesBar;
use gemmule_quant::Format;
use gemmule_quantize::{MadeModel, RowsToMake, Target, Watcher};
use indicatif::{ProgressBar, ProgressStyle};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use rayon::prelude::*;
use serde_json::json;

/// Write a PaliGemma 2 model of a real size with random weights: a GGUF file, ready to run, or with --safetensors a
/// checkpoint in the layout of the released ones.
///
/// Exit codes: 0 success, 1 failure (a message says why), 2 wrong usage.
#[derive(Parser)]
#[command(name = "gemmule-synth", version, max_term_width = 100)]
struct Cli {
    /// The file to write, or with --safetensors the directory to make.
    output: PathBuf,
    /// Size of the model.
    #[arg(long, value_enum, default_value = "3b")]
    size: sizes::Size,
    /// Pixels of the picture's side.
    #[arg(long, default_value_t = 224, value_parser = parse_resolution)]
    resolution: usize,
    /// Type of the decoder's matrices, from which those of embedding and vision tower follow as in gemmule-quantize.
    #[arg(
        long = "type",
        value_name = "TYPE",
        default_value = "q4_0",
        value_parser = gemmule_quantize::parse_format,
        help = format!("Type of the decoder's matrices, from which the others follow as in gemmule-quantize: {}", gemmule_quantize::format_names())
    )]
    body: Format,
    /// Write a checkpoint in bf16 instead, for the converter.
    #[arg(long, conflicts_with_all = ["body", "split", "force"])]
    safetensors: bool,
    /// Write the pair that llama.cpp's tools expect: OUT.gguf (text) and OUT-mmproj.gguf (vision).
    #[arg(long)]
    split: bool,
    /// Replace existing output files.
    #[arg(long)]
    force: bool,
    /// The same seed makes the same weights.
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

fn parse_resolution(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|side| [224, 448, 896].contains(side)).ok_or_else(|| "choose 224, 448 or 896".to_owned())
}

/// Most bytes of a shard, as in the released checkpoints.
const SHARD: u64 = 5_000_000_000;
/// Values made by one task.
const CHUNK: usize = 1 << 20;

/// A tensor of the checkpoint: name, shape, number of values.
type Tensor = (String, Vec<usize>, usize);

/// The name that released checkpoints use.
fn released_name(canonical: &str) -> String {
    for (prefix, inner) in [("language_model.", "model."), ("vision_tower.", "vision_model.")] {
        if let Some(rest) = canonical.strip_prefix(prefix) {
            return format!("{prefix}{inner}{rest}");
        }
    }
    canonical.to_owned()
}

fn shards(tensors: Vec<Tensor>) -> Vec<Vec<Tensor>> {
    let mut shards: Vec<Vec<Tensor>> = vec![Vec::new()];
    let mut bytes = 0;
    for tensor in tensors {
        let size = 2 * tensor.2 as u64;
        if bytes + size > SHARD && bytes > 0 {
            shards.push(Vec::new());
            bytes = 0;
        }
        bytes += size;
        if let Some(shard) = shards.last_mut() {
            shard.push(tensor);
        }
    }
    shards
}

/// Values around zero with the spread of trained weights (norm weights: around zero too, Gemma adds one).
fn random_values(seed: u64, chunk: u64, count: usize, columns: usize) -> Vec<u8> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    random.set_stream(chunk);
    let spread = 1.0 / (columns as f32).sqrt();
    let mut bytes = Vec::with_capacity(count * 2);
    for _ in 0..count {
        // The sum of four uniform bytes is close enough to a normal distribution (deviation 147.8).
        let sum: u32 = random.next_u32().to_le_bytes().iter().map(|byte| u32::from(*byte)).sum();
        let value = (sum as f32 - 510.0) / 147.8 * spread;
        bytes.extend_from_slice(&half::bf16::from_f32(value).to_le_bytes());
    }
    bytes
}

fn write_shard(path: &Path, tensors: &[Tensor], seed: u64, bar: &ProgressBar) -> Result<()> {
    let mut header = serde_json::Map::new();
    header.insert("__metadata__".to_owned(), json!({ "format": "pt" }));
    let mut offset = 0;
    for (name, shape, count) in tensors {
        header.insert(
            name.clone(),
            json!({ "dtype": "BF16", "shape": shape, "data_offsets": [offset, offset + count * 2] }),
        );
        offset += count * 2;
    }
    let header = serde_json::to_vec(&header)?;
    let mut out = BufWriter::with_capacity(1 << 22, File::create(path)?);
    out.write_all(&(header.len() as u64).to_le_bytes())?;
    out.write_all(&header)?;
    for (index, (_, shape, count)) in tensors.iter().enumerate() {
        let columns = shape.iter().skip(1).product::<usize>().max(1);
        let chunks: Vec<usize> = (0..*count).step_by(CHUNK).collect();
        for batch in chunks.chunks(rayon::current_num_threads() * 4) {
            let made: Vec<Vec<u8>> = batch
                .par_iter()
                .map(|start| random_values(seed + index as u64, *start as u64, CHUNK.min(count - start), columns))
                .collect();
            for bytes in made {
                out.write_all(&bytes)?;
                bar.inc(bytes.len() as u64);
            }
        }
    }
    Ok(out.flush()?)
}

impl Cli {
    fn execute(&self) -> Result<()> {
        if self.safetensors { self.write_checkpoint() } else { self.write_gguf() }
    }

    fn write_gguf(&self) -> Result<()> {
        let config = sizes::config(self.size, self.resolution);
        let model = MadeModel {
            name: format!("random {:?} {}", self.size, self.resolution),
            tokenizer_json: tokenizer::json(config.text.vocabulary).to_string(),
            config,
            body: self.body,
        };
        let target = Target::file(&self.output).split(self.split).replace(self.force);
        let mut watcher = Watcher::default();
        // Ending in order removes the unfinished file.
        let cancel = watcher.cancel.clone();
        ctrlc::set_handler(move || cancel.cancel()).context("cannot watch for interrupts")?;
        let bar = BytesBar::default();
        let mut show =
            |progress: gemmule_quantize::Progress<'_>| bar.show(progress.done, progress.total, progress.tensor);
        watcher.progress = Some(&mut show);
        let make = |rows: RowsToMake<'_>| blocks::random_rows(&rows, self.seed);
        let summary =
            gemmule_quantize::write_made(model, &target, &mut watcher, make).inspect_err(|_| bar.abandon())?;
        bar.finish();
        // The output is complete, whether somebody reads this or not.
        let _ = writeln!(std::io::stdout(), "{summary}");
        Ok(())
    }

    fn write_checkpoint(&self) -> Result<()> {
        ensure!(!self.output.exists(), "{} exists already; name a new directory", self.output.display());
        std::fs::create_dir_all(&self.output).with_context(|| self.output.display().to_string())?;
        let config = sizes::config(self.size, self.resolution);
        let write = |name: &str, value: &serde_json::Value| -> Result<()> {
            let path = self.output.join(name);
            std::fs::write(&path, serde_json::to_vec(value)?).with_context(|| path.display().to_string())
        };
        write("config.json", &sizes::config_json(&config))?;
        write("preprocessor_config.json", &sizes::preprocessor_json(self.resolution))?;
        write("generation_config.json", &json!({ "bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 0 }))?;
        write("tokenizer.json", &tokenizer::json(config.text.vocabulary))?;

        let tensors = gemmule_quantize::checkpoint_tensors(&config).into_iter();
        let shards = shards(
            tensors.map(|(name, shape)| (released_name(&name), shape.clone(), shape.iter().product())).collect(),
        );
        let total: usize = shards.iter().flatten().map(|tensor| tensor.2 * 2).sum();
        let bar = ProgressBar::new(total as u64);
        bar.set_style(ProgressStyle::with_template("{bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta} left")?);
        let mut map = BTreeMap::new();
        for (index, tensors) in shards.iter().enumerate() {
            let name = format!("model-{:05}-of-{:05}.safetensors", index + 1, shards.len());
            let path = self.output.join(&name);
            let seed = self.seed.wrapping_add(index as u64 * 10_000);
            write_shard(&path, tensors, seed, &bar).with_context(|| path.display().to_string())?;
            map.extend(tensors.iter().map(|tensor| (tensor.0.clone(), name.clone())));
        }
        bar.finish_and_clear();
        write("model.safetensors.index.json", &json!({ "metadata": { "total_size": total }, "weight_map": map }))?;
        // The output is complete, whether somebody reads this or not.
        let _ =
            writeln!(std::io::stdout(), "wrote {} ({:.2} GB of weights)", self.output.display(), total as f64 / 1e9);
        Ok(())
    }
}

fn main() -> ExitCode {
    gemmule_common::process::prepare("gemmule-synth");
    match Cli::parse().execute() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "gemmule-synth: {error:#}");
            ExitCode::FAILURE
        }
    }
}
