use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::Args;
use gemmule::batch::{Batch, MOST_SLOTS, Progress, Request};
use gemmule::{GenerateOptions, Model, Picture, Session};
use gemmule_common::platform::peak_memory;
use serde_json::{Value, json};

use crate::arguments::{ComputeArguments, ModelArguments, WrongUsage};
use crate::interrupt::anonymous_memory;
use crate::output::{print_json, print_line};

/// Measure vision, prefill, generation, and how fast the weights can be read at most.
#[derive(Args)]
pub(super) struct Bench {
    #[command(flatten)]
    model: ModelArguments,
    /// What to ask about a synthetic picture.
    #[arg(short, long, default_value = "caption en")]
    prompt: String,
    /// Tokens to generate in each run.
    #[arg(short = 'n', long, value_name = "N", default_value_t = 16)]
    max_tokens: usize,
    /// Measured runs, after one to warm up.
    #[arg(short, long, value_name = "N", default_value_t = 5)]
    repeat: usize,
    /// Also measure N answers in step, which read the weights once for a token of each [default: as many as this machine is good
    /// for].
    #[arg(long, value_name = "N", num_args = 0..=1, require_equals = true, value_parser = parse_slots)]
    slots: Option<Option<usize>>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    compute: ComputeArguments,
}

fn parse_slots(text: &str) -> Result<usize, String> {
    text.parse()
        .ok()
        .filter(|slots| (1..=MOST_SLOTS).contains(slots))
        .ok_or_else(|| format!("choose a number from 1 to {MOST_SLOTS}"))
}

/// Answers in step.
struct InStep {
    slots: usize,
    /// Tokens a second of all together.
    rate: f64,
}

/// Samples of one stage, in milliseconds.
struct Samples(Vec<f64>);

impl Samples {
    fn quantile(&self, share: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        sorted.get(((sorted.len() - 1) as f64 * share).round() as usize).copied().unwrap_or(0.0)
    }
    fn median(&self) -> f64 {
        self.quantile(0.5)
    }
    fn to_json(&self) -> Value {
        json!({ "median_ms": self.median(), "min_ms": self.quantile(0.0), "max_ms": self.quantile(1.0), "samples_ms": self.0 })
    }
}

impl Bench {
    pub(super) fn execute(self) -> Result<()> {
        if self.repeat == 0 || self.max_tokens < 2 {
            bail!(WrongUsage("--repeat must be at least 1 and --max-tokens at least 2"));
        }
        let start = Instant::now();
        let model = self.model.open()?;
        let mut session = self.compute.session(&model)?;
        let load = Samples(vec![milliseconds(start.elapsed())]);
        let picture = made_picture()?;
        let mut stages = [const { Samples(Vec::new()) }; 4];
        let (mut prompt_tokens, mut generated) = (0, 0);
        for run in 0..=self.repeat {
            let (timings, prompt, tokens) = self.measure(&mut session, &picture)?;
            (prompt_tokens, generated) = (prompt, tokens);
            if run > 0 {
                for (stage, time) in stages.iter_mut().zip(timings) {
                    stage.0.push(milliseconds(time));
                }
            }
        }
        let mut weights = 0;
        let mut timed_read = |_| {
            let start = Instant::now();
            weights = session.read_weights();
            milliseconds(start.elapsed())
        };
        let read = Samples((0..=self.repeat).map(&mut timed_read).skip(1).collect());
        let (isa, threads, generation_threads) = (session.isa(), session.threads(), session.generation_threads());
        drop(session);
        let in_step = self.slots.map(|slots| self.measure_in_step(&model, &picture, slots)).transpose()?;
        let [image, vision, prefill, generate] = &stages;
        let rate = |tokens: usize, samples: &Samples| tokens as f64 * 1e3 / samples.median().max(1e-9);
        let prefill_rate = rate(prompt_tokens, prefill);
        let generate_rate = rate(generated - 1, generate);
        let read_rate = rate(1, &read);
        if self.json {
            return print_json(&json!({
                "model": self.model.name(), "isa": isa, "threads": threads,
                "generation_threads": generation_threads, "repeat": self.repeat,
                "prompt_tokens": prompt_tokens, "generated_tokens": generated,
                "load": load.to_json(), "image": image.to_json(), "vision": vision.to_json(),
                "prefill": prefill.to_json(), "generate": generate.to_json(), "read": read.to_json(),
                "prefill_tokens_per_second": prefill_rate, "generate_tokens_per_second": generate_rate,
                "decoder_bytes": weights, "read_bytes_per_second": weights as f64 * read_rate,
                "slots": in_step.as_ref().map(|in_step| in_step.slots),
                "in_step_tokens_per_second": in_step.as_ref().map(|in_step| in_step.rate),
                "peak_memory_bytes": peak_memory(), "anonymous_memory_bytes": anonymous_memory(),
            }));
        }
        let separate =
            if generation_threads == threads { String::new() } else { format!(" ({generation_threads} to generate)") };
        print_line(&format!(
            "{}: {isa}, {threads} threads{separate}, median of {} runs (least … most)\n",
            self.model.name(),
            self.repeat
        ))?;
        for (name, samples, note) in [
            ("load", &load, String::new()),
            ("image", image, String::new()),
            ("vision", vision, String::new()),
            ("prefill", prefill, format!("{prompt_tokens} tokens, {prefill_rate:.2} per second")),
            ("generate", generate, format!("{} tokens, {generate_rate:.2} per second", generated - 1)),
            (
                "read",
                &read,
                format!(
                    "{:.1} MB of decoder weights, {:.2} GB per second; generation reached {:.0} % of it",
                    weights as f64 / 1e6,
                    weights as f64 * read_rate / 1e9,
                    100.0 * generate_rate / read_rate
                ),
            ),
        ] {
            let (least, most) = (samples.quantile(0.0), samples.quantile(1.0));
            print_line(&format!("{name:>9} {:10.2} ms ({least:.2} … {most:.2})  {note}", samples.median()))?;
        }
        if let Some(InStep { slots, rate }) = in_step {
            let times = rate / generate_rate;
            print_line(&format!(
                "{:>9} {rate:10.2} tokens per second, {slots} answers together: {times:.2} × one",
                "in step"
            ))?;
        }
        for (name, bytes) in [("memory", peak_memory()), ("not files", anonymous_memory())] {
            if let Some(bytes) = bytes {
                print_line(&format!("{name:>9} {:10.1} MB", bytes as f64 / 1e6))?;
            }
        }
        Ok(())
    }

    /// The rate of `slots` answers that generate together, or of as many as this machine is good for; pictures and prompts come before it.
    fn measure_in_step(&self, model: &Model, picture: &Picture, slots: Option<usize>) -> Result<InStep> {
        let batch = Batch::new(model, &self.compute.options(), slots)?;
        let slots = batch.slots();
        // Those that come first have some tokens before all are there.
        let options = GenerateOptions::new().max_tokens(self.max_tokens + 32 * slots).ignore_end(true);
        let pictures: Arc<[Picture]> = [picture.clone()].into();
        let request = || Request::new(Arc::clone(&pictures), self.prompt.as_str()).options(options.clone());
        let mut tickets = (0..slots).map(|_| batch.submit(request())).collect::<gemmule::Result<Vec<_>>>()?;
        if let Some(index) = tickets.iter_mut().position(|ticket| ticket.next().is_none()) {
            let answer = tickets.swap_remove(index).wait()?;
            bail!("an answer ended after {} tokens, before all were there: choose fewer --slots", answer.tokens.len());
        }
        while tickets.iter_mut().any(|ticket| matches!(ticket.poll(), Progress::Token(_))) {}
        let (start, mut counted) = (Instant::now(), 0);
        for _ in 0..self.max_tokens {
            for ticket in &mut tickets {
                counted += usize::from(ticket.next().is_some());
            }
        }
        Ok(InStep { slots, rate: counted as f64 / start.elapsed().as_secs_f64() })
    }

    /// One run: the stages' times, the prompt's tokens and the generated ones.
    fn measure(&self, session: &mut Session, picture: &Picture) -> Result<([Duration; 4], usize, usize)> {
        let options = GenerateOptions::new().max_tokens(self.max_tokens).ignore_end(true);
        let answer = session.generate(std::slice::from_ref(picture), &self.prompt, &options)?;
        let t = answer.timings;
        Ok(([t.image, t.vision, t.prefill, t.generate], answer.prompt_tokens, answer.tokens.len()))
    }
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// A synthetic picture: a gradient with some structure, 640 × 480 pixels as from a camera.
fn made_picture() -> Result<Picture> {
    let (width, height) = (640u32, 480u32);
    let pixel = |x: u32, y: u32| [(x * 255 / width) as u8, (y * 255 / height) as u8, ((x ^ y) & 255) as u8];
    let rgb = (0..height).flat_map(|y| (0..width).flat_map(move |x| pixel(x, y))).collect();
    Ok(Picture::from_rgb(width, height, rgb)?)
}
