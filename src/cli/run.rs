use std::io::Write;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Args;
use gemmule::answer::{Detections, Malformed, Object, detections};
use gemmule::session::Sampling;
use gemmule::{Answer, GenerateOptions, Picture};
use serde_json::{Value, json};

use super::{ComputeArguments, ModelArguments, open_pictures, print_json};

#[derive(Args)]
pub(super) struct Run {
    #[command(flatten)]
    model: ModelArguments,
    /// A picture: JPEG, PNG, WebP, GIF or BMP. Several are shown to the model in order.
    #[arg(short, long = "image", value_name = "IMAGE", required = true)]
    images: Vec<PathBuf>,
    /// What to ask, such as "caption en", "answer en where is the cup?", "detect cup ; plate", "ocr".
    #[arg(short, long)]
    prompt: String,
    /// Most tokens of the answer.
    #[arg(short = 'n', long, value_name = "N", default_value_t = 256)]
    max_tokens: usize,
    /// 0 takes the likeliest token each time; larger values vary the answer.
    #[arg(long, value_name = "T", default_value_t = 0.0)]
    temperature: f32,
    /// With a temperature: choose among the K likeliest tokens (0: all).
    #[arg(long, value_name = "K", default_value_t = 0)]
    top_k: usize,
    /// With a temperature: choose among the likeliest tokens of total probability P.
    #[arg(long, value_name = "P", default_value_t = 1.0)]
    top_p: f32,
    /// With a temperature: the same seed gives the same answer.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Print one JSON object (text, tokens, probabilities, objects, prompt_tokens, …) instead of text.
    #[arg(long)]
    json: bool,
    /// Print timings to stderr.
    #[arg(short, long)]
    verbose: bool,
    #[command(flatten)]
    compute: ComputeArguments,
}

impl Run {
    pub(super) fn execute(self) -> Result<()> {
        let start = Instant::now();
        let model = self.model.open()?;
        let mut session = self.compute.session(&model)?;
        let load = start.elapsed();
        let start = Instant::now();
        let pictures = open_pictures(&self.images)?;
        let decode = start.elapsed();
        let options = GenerateOptions {
            max_tokens: self.max_tokens,
            sampling: Sampling { temperature: self.temperature, top_k: self.top_k, top_p: self.top_p, seed: self.seed },
            ignore_end: false,
            probabilities: self.json,
        };
        let mut out = std::io::stdout().lock();
        let mut failed = None;
        let answer = session.generate_with(&pictures, &self.prompt, &options, |piece| {
            if self.json {
                return ControlFlow::Continue(());
            }
            match out.write_all(piece.as_bytes()).and_then(|()| out.flush()) {
                Ok(()) => ControlFlow::Continue(()),
                Err(error) => {
                    failed = Some(error);
                    ControlFlow::Break(())
                }
            }
        })?;
        if let Some(error) = failed {
            return Err(error.into());
        }
        if self.json {
            drop(out);
            let objects = detections(model.tokenizer()?, &answer.tokens, &answer.probabilities)?;
            print_json(&to_json(&answer, &objects_to_json(&objects, &pictures), load, decode))?;
        } else {
            writeln!(out)?;
        }
        if self.verbose {
            report(&answer, load, decode);
        }
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

/// Boxes in pixels where it is clear of which picture.
fn objects_to_json(found: &Detections, pictures: &[Picture]) -> (Vec<Value>, Vec<Value>) {
    let object = |object: &Object| {
        let pixels = match pictures {
            [picture] => Some(object.bounds.pixels(picture.width(), picture.height())),
            _ => None,
        };
        let normalized = object.bounds.normalized();
        json!({ "label": object.label, "box": pixels, "normalized_box": normalized, "score": object.score, "segments": object.segments })
    };
    let malformed = |part: &Malformed| json!({ "text": part.text, "reason": part.reason });
    (found.objects.iter().map(object).collect(), found.malformed.iter().map(malformed).collect())
}

fn to_json(answer: &Answer, objects: &(Vec<Value>, Vec<Value>), load: Duration, decode: Duration) -> Value {
    let timings = &answer.timings;
    json!({
        "text": answer.text,
        "tokens": answer.tokens,
        "probabilities": answer.probabilities,
        "objects": objects.0,
        "malformed": objects.1,
        "prompt_tokens": answer.prompt_tokens,
        "finish": answer.finish.name(),
        "timings": {
            "load": milliseconds(load),
            "image": milliseconds(decode + timings.image),
            "vision": milliseconds(timings.vision),
            "prefill": milliseconds(timings.prefill),
            "generate": milliseconds(timings.generate),
            "prefill_tokens_per_second": rate(answer.prompt_tokens, timings.prefill),
            "generate_tokens_per_second": rate(answer.tokens.len().saturating_sub(1), timings.generate),
        },
    })
}

fn report(answer: &Answer, load: Duration, decode: Duration) {
    let timings = &answer.timings;
    let line = |name: &str, time: Duration, note: String| eprintln!("{name:>9} {:10.1} ms{note}", milliseconds(time));
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
