//! The `gemmule-quantize` program.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use bytesize::ByteSize;
use clap::{CommandFactory, Parser};
use gemmule::MOST_THREADS;
use gemmule::config::ResizeRule;
use gemmule_common::progress::BytesBar;
use gemmule_quant::Format;

use crate::{Budget, Conversion, Machine, Progress, Target, Watcher, format_names, parse_format};

/// Convert a PaliGemma 1 or 2 checkpoint to GGUF.
///
/// The decoder's matrices take the type of --type. The embedding (which is also the
/// output head) and the vision tower are more sensitive and get a larger type unless
/// told otherwise:
///
///   --type                        embedding   vision
///   blocks below 6 bits (q4_0 …)  q6_k        q8_0
///   other blocks (q6_k, q8_0)     q8_0        q8_0
///   f16, bf16, f32                the same    the same
///
/// With --bits or --budget each matrix gets a type of its own in place of these.
///
/// Norms, biases, the patch and the position table stay f32. A matrix whose rows are
/// no whole number of blocks takes the next larger type that fits; the tower's MLP is
/// padded with zeros instead. The chosen types are recorded in the file. The output
/// appears under its name only when it is complete.
///
/// Exit codes: 0 success, 1 failure (a message says why), 2 wrong usage.
#[derive(Parser)]
#[command(name = "gemmule-quantize", version, verbatim_doc_comment, max_term_width = 120)]
struct Cli {
    /// Directory with config.json, tokenizer.json and model.safetensors (or shards with an index), the name of a model in
    /// Hugging Face's local cache (google/paligemma2-3b-mix-224), or an .npz checkpoint of big_vision with config.json and
    /// tokenizer.json beside it.
    checkpoint: PathBuf,
    /// The file to write.
    #[arg(value_name = "OUT.gguf")]
    output: PathBuf,
    /// Type of the decoder's matrices.
    #[arg(
        long = "type",
        value_name = "TYPE",
        default_value = "q4_0",
        value_parser = parse_format,
        help = format!("Type of the decoder's matrices: {}", format_names())
    )]
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
    /// Statistics of the model's inputs, of `gemmule calibrate` or llama.cpp's `llama-imatrix`: matrices are rounded so that their
    /// outputs change little, to the same types.
    #[arg(long, value_name = "STATS.gguf")]
    calibration: Option<PathBuf>,
    /// How large the quantized matrices may be, in bits for each weight on average, such as 5.0 (norms and tables come on top): each of them gets a
    /// type, so that answers change little. It needs --calibration with statistics of `gemmule calibrate --sensitivity`.
    #[arg(long, value_name = "BITS", requires = "calibration", group = "size", value_parser = parse_bits,
        conflicts_with_all = ["body", "embedding_type", "vision_type"])]
    bits: Option<f64>,
    /// As --bits, by the size of the file, such as 1.9GB or 2GiB; of both files with --split.
    #[arg(long, value_name = "SIZE", requires = "calibration", group = "size", value_parser = parse_size,
        conflicts_with_all = ["body", "embedding_type", "vision_type"])]
    budget: Option<ByteSize>,
    /// The machine whose fast types --bits and --budget choose from.
    #[arg(long = "for", value_name = "MACHINE", value_enum, default_value_t, requires = "size")]
    machine: Machine,
    /// Which library's resizing of pictures the file asks for: pillow or torchvision, which differ a little (transformers takes
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

fn parse_bits(text: &str) -> Result<f64, String> {
    let bits = text.parse().ok().filter(|bits: &f64| (1.0..=32.0).contains(bits));
    bits.ok_or_else(|| "choose a number from 1 to 32, such as 5.0".to_owned())
}

fn parse_size(text: &str) -> Result<ByteSize, String> {
    text.parse().map_err(|_| "choose a size such as 1.9GB, 1900MB or 2GiB".to_owned())
}

fn parse_rule(name: &str) -> Result<ResizeRule, String> {
    let names = ResizeRule::NAMES.map(|row| row.0).join(", ");
    ResizeRule::from_name(name).ok_or_else(|| format!("choose one of {names}"))
}

impl Cli {
    fn execute(self) -> Result<()> {
        let mut conversion = Conversion::of(self.checkpoint)
            .body(self.body)
            .embedding(self.embedding_type)
            .vision(self.vision_type)
            .config(self.config)
            .masks(self.seg_vae)
            .calibration(self.calibration)
            .budget(self.bits.map(Budget::Bits).or(self.budget.map(|size| Budget::Bytes(size.0))))
            .machine(self.machine)
            .resize(self.resize)
            .threads(self.threads.map(usize::from));
        for directory in self.lora {
            conversion = conversion.adapter(directory, 1.0);
        }
        for [directory, factor] in self.lora_scaled.as_chunks().0 {
            let strength = factor.parse().ok().filter(|factor: &f32| factor.is_finite());
            let strength = strength.with_context(|| format!("--lora-scaled: '{factor}' is no number"))?;
            conversion = conversion.adapter(directory, strength);
        }
        let target = Target::file(self.output).split(self.split).replace(self.force);
        let mut watcher = Watcher::default();
        // Ending in order removes the unfinished file.
        let cancel = watcher.cancel.clone();
        ctrlc::set_handler(move || cancel.cancel())
            .context("cannot watch for interrupts: allow more threads or memory (ulimit -u, -v)")?;
        let bar = BytesBar::default();
        let mut show = |progress: Progress<'_>| bar.show(progress.done, progress.total, progress.tensor);
        watcher.progress = Some(&mut show);
        let summary = conversion.run(&target, &mut watcher).inspect_err(|_| bar.abandon())?;
        bar.finish();
        let mut out = std::io::stdout().lock();
        match writeln!(out, "{summary}").and_then(|()| out.flush()) {
            // The reader has closed the pipe.
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
            result => result.context("the output is complete, but its summary cannot be printed"),
        }
    }
}

/// The program's arguments.
pub fn command() -> clap::Command {
    Cli::command()
}

/// Runs the program.
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
