use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use clap::Args;
use gemmule::{Answer, GenerateOptions};
use serde_json::{Value, json};

use crate::answers::{self, FormArguments, Found, ObjectArguments, Output, ProbabilityArguments};
use crate::arguments::{ComputeArguments, ImageArguments, ModelArguments, WrongUsage};
use crate::output::{print_json, print_note};

/// Answer prompts about one or more pictures.
#[derive(Args)]
pub(super) struct Run {
    #[command(flatten)]
    model: ModelArguments,
    #[command(flatten)]
    images: ImageArguments,
    /// What to ask, such as "caption en", "answer en where is the cup?", "detect cup ; plate", "ocr". Several prompts are
    /// asked one after the other; the pictures are looked at once.
    #[arg(short, long = "prompt", value_name = "PROMPT", required = true)]
    prompts: Vec<String>,
    /// Most tokens of the answer.
    #[arg(short = 'n', long, value_name = "N", default_value_t = 256)]
    max_tokens: usize,
    /// 0 takes the likeliest token each time; larger values vary the answer.
    #[arg(long, value_name = "T", default_value_t = 0.0, allow_negative_numbers = true, value_parser = parse_temperature)]
    temperature: f32,
    /// With a temperature: choose among the K likeliest tokens (0: all).
    #[arg(long, value_name = "K", default_value_t = 0)]
    top_k: usize,
    /// With a temperature: choose among the likeliest tokens of total probability P.
    #[arg(long, value_name = "P", default_value_t = 1.0, allow_negative_numbers = true, value_parser = parse_mass)]
    top_p: f32,
    /// With a temperature: the same seed gives the same answer.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    form: FormArguments,
    /// Print one JSON object for each prompt (text, tokens, probabilities, objects, …) instead of text.
    #[arg(long)]
    json: bool,
    /// With --json: the K likeliest tokens at each step, with the logarithms of their probabilities.
    #[arg(long, value_name = "K", default_value_t = 0, requires = "json")]
    logprobs: usize,
    #[command(flatten)]
    probabilities: ProbabilityArguments,
    #[command(flatten)]
    objects: ObjectArguments,
    /// Draw the objects found on the picture.
    #[arg(long, value_name = "OUT.png")]
    annotate: Option<PathBuf>,
    /// Write the masks found as grey PNG files, 1.png for the first object and so on.
    #[arg(long, value_name = "DIRECTORY")]
    masks: Option<PathBuf>,
    /// Print timings to stderr.
    #[arg(short, long)]
    verbose: bool,
    #[command(flatten)]
    compute: ComputeArguments,
}

fn parse_temperature(text: &str) -> Result<f32, String> {
    let valid = |temperature: &f32| (0.0..=1000.0).contains(temperature);
    text.parse().ok().filter(valid).ok_or_else(|| "choose a number from 0 to 1000".to_owned())
}

fn parse_mass(text: &str) -> Result<f32, String> {
    let valid = |mass: &f32| *mass > 0.0 && *mass <= 1.0;
    text.parse().ok().filter(valid).ok_or_else(|| "choose a number above 0, 1 at most".to_owned())
}

impl Run {
    pub(super) fn execute(self) -> Result<()> {
        let draws = self.annotate.is_some() || self.masks.is_some();
        if draws && !(self.images.is_single() && self.prompts.len() == 1) {
            bail!(WrongUsage("--annotate and --masks need one picture and one prompt"));
        }
        if self.objects.nms().is_some() && !draws && !self.json {
            bail!(WrongUsage("--nms merges what --json, --annotate and --masks show: give one of them"));
        }
        if self.annotate.as_deref() == Some(Path::new("-")) {
            bail!(WrongUsage("--annotate: stdout has the answer; name a file"));
        }
        let ending = self.annotate.as_deref().and_then(Path::extension);
        if ending.is_some_and(|ending| !ending.eq_ignore_ascii_case("png")) {
            bail!(WrongUsage("--annotate writes PNG: name a file that ends in .png"));
        }
        let inputs = || self.model.files().chain(self.images.files());
        let drawing = self.annotate.as_deref().map(|path| Output::new(path, inputs())).transpose()?;
        let start = Instant::now();
        let model = self.model.open()?;
        ensure!(
            self.masks.is_none() || model.decodes_masks(),
            "--masks: {} holds no mask decoder: convert the checkpoint with --seg-vae vae-oid.npz",
            self.model.name()
        );
        let mut session = self.compute.session(&model)?;
        let load = start.elapsed();
        let start = Instant::now();
        let pictures = self.images.open()?;
        let decode = start.elapsed();
        let options = GenerateOptions::new()
            .max_tokens(self.max_tokens)
            .temperature(self.temperature)
            .top_k(self.top_k)
            .top_p(self.top_p)
            .seed(self.seed)
            .probabilities(self.json || draws)
            .probability_base(self.probabilities.base())
            .alternatives(self.logprobs)
            .constraint(self.form.constraint());
        session.show(&pictures)?;
        let mut cut_off = false;
        for prompt in &self.prompts {
            let mut stream = session.stream(prompt, &options)?;
            let mut begun = false;
            for token in &mut stream {
                let token = token.inspect_err(|_| {
                    if begun {
                        // The message gets a line of its own; where stdout is gone, there is none to end.
                        let _ = writeln!(std::io::stdout());
                    }
                })?;
                if !self.json && !token.text.is_empty() {
                    begun = true;
                    let mut out = std::io::stdout().lock();
                    out.write_all(token.text.as_bytes()).and_then(|()| out.flush())?;
                }
            }
            let answer = stream.finish();
            if !self.json {
                writeln!(std::io::stdout())?;
            }
            cut_off |= !answer.complete;
            if self.json || draws {
                let found = Found::read(&self.objects, &mut session, &model, &answer, &pictures)?;
                if self.json {
                    let mut value = answers::to_json(&model, self.probabilities.base(), &answer, &found, &pictures)?;
                    value["prompt"] = json!(prompt);
                    value["timings"] = timings_to_json(&answer, load, decode);
                    print_json(&value)?;
                }
                if let Some(drawing) = &drawing {
                    drawing.write(&found.draw(&pictures[0])?)?;
                }
                self.masks.as_ref().map_or(Ok(()), |directory| found.write_masks(directory))?;
            }
            if self.verbose {
                report(&answer, load, decode);
            }
        }
        ensure!(
            !cut_off,
            "an answer is cut off after {} tokens and does not have the form asked for: raise --max-tokens",
            self.max_tokens
        );
        Ok(())
    }
}

fn milliseconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

/// Tokens per second of `count` tokens in `time`, rounded; zero where nothing was timed.
fn rate(count: usize, time: Duration) -> f64 {
    if count == 0 || time.is_zero() { 0.0 } else { (count as f64 / time.as_secs_f64() * 100.0).round() / 100.0 }
}

fn timings_to_json(answer: &Answer, load: Duration, decode: Duration) -> Value {
    let timings = &answer.timings;
    json!({
        "load": milliseconds(load),
        "image": milliseconds(decode + timings.image),
        "vision": milliseconds(timings.vision),
        "prefill": milliseconds(timings.prefill),
        "generate": milliseconds(timings.generate),
        "prefill_tokens_per_second": rate(answer.prompt_tokens, timings.prefill),
        "generate_tokens_per_second": rate(answer.tokens.len().saturating_sub(1), timings.generate),
    })
}

fn report(answer: &Answer, load: Duration, decode: Duration) {
    let timings = &answer.timings;
    let line = |name: &str, time: Duration, note: String| {
        print_note(&format!("{name:>9} {:10.1} ms{note}", milliseconds(time)));
    };
    line("load", load, String::new());
    line("image", decode + timings.image, String::new());
    line("vision", timings.vision, String::new());
    let prompt = answer.prompt_tokens;
    line("prefill", timings.prefill, format!("  {prompt} tokens, {} per second", rate(prompt, timings.prefill)));
    let steps = answer.tokens.len().saturating_sub(1);
    let note =
        format!("  {} tokens, {} per second after the first", answer.tokens.len(), rate(steps, timings.generate));
    line("generate", timings.generate, note);
}
