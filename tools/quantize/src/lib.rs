//! `gemmule-quantize`: a Hugging Face PaliGemma 2 checkpoint in, a GGUF file out.

mod checkpoint;
mod convert;
mod hf_config;
mod plan;
mod vocabulary;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use gemmule::model::Config;
use gemmule::quant::{FORMATS, Format};

/// Convert a Hugging Face PaliGemma 2 checkpoint to GGUF.
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
    /// Directory with config.json, tokenizer.json and model.safetensors (or shards with an index).
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
    /// Write the pair that llama.cpp's tools expect: OUT.gguf (text) and OUT-mmproj.gguf (vision).
    #[arg(long)]
    split: bool,
    /// Threads [default: the CPUs this process may use].
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Replace existing output files.
    #[arg(long)]
    force: bool,
}

fn parse_format(name: &str) -> Result<Format, String> {
    let writable = || FORMATS.iter().filter(|row| row.encodes).map(|row| row.name).collect::<Vec<_>>().join(", ");
    Format::from_name(name)
        .filter(|format| format.info().encodes)
        .ok_or_else(|| format!("choose one of {}", writable()))
}

impl Cli {
    fn types(&self) -> plan::Types {
        let (embedding, vision) = match self.body {
            Format::Q4_0 | Format::Q4K | Format::Q5K => (Format::Q6K, Format::Q8_0),
            Format::Q6K | Format::Q8_0 => (Format::Q8_0, Format::Q8_0),
            float => (float, float),
        };
        plan::Types {
            body: self.body,
            embedding: self.embedding_type.unwrap_or(embedding),
            vision: self.vision_type.unwrap_or(vision),
        }
    }

    fn outputs(&self) -> Result<Vec<PathBuf>> {
        if !self.split {
            return Ok(vec![self.output.clone()]);
        }
        let stem = self.output.file_stem().context("the output has no file name")?;
        let vision = format!("{}-mmproj.gguf", stem.to_string_lossy());
        Ok(vec![self.output.clone(), self.output.with_file_name(vision)])
    }

    fn execute(&self) -> Result<()> {
        let outputs = self.outputs()?;
        for path in &outputs {
            ensure!(self.force || !path.exists(), "{} exists already; --force replaces it", path.display());
        }
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(self.threads.unwrap_or(0))
            .build()
            .context("cannot start the threads; choose another --threads")?;
        let checkpoint = checkpoint::Checkpoint::open(&self.checkpoint)?;
        let mut model = hf_config::read(&self.checkpoint)?;
        let types = self.types();
        let plan = plan::Plan::new(&mut model.config, &types);
        plan.check(&checkpoint)?;
        checkpoint.check_head()?;
        let vocabulary = vocabulary::read(&self.checkpoint, &model.config)?;
        let files = plan.files(&model, vocabulary, &outputs);
        pool.install(|| convert::convert(&checkpoint, files))
    }
}

/// Every tensor that a checkpoint of this configuration has to hold: its name, without the prefixes in which layouts
/// differ (`language_model.norm.weight`, `vision_tower.post_layernorm.bias`), and its shape in PyTorch's order.
pub fn checkpoint_tensors(config: &Config) -> Vec<(String, Vec<usize>)> {
    let types = plan::Types { body: Format::F32, embedding: Format::F32, vision: Format::F32 };
    plan::Plan::new(&mut config.clone(), &types).sources()
}

/// Runs the program on the process's arguments.
pub fn main() -> ExitCode {
    match Cli::parse().execute() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("gemmule-quantize: {error:#}");
            ExitCode::FAILURE
        }
    }
}
