//! The loop: pictures and a prompt in, tokens out.

mod sampling;

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use sampling::Sampler;
pub use sampling::Sampling;

use crate::image::Picture;
use crate::model::decoder::{self, DecoderScratch, KvCache};
use crate::model::vision::{self, VisionScratch};
use crate::model::{Config, Model};
use crate::ops::Compute;
use crate::sched::default_threads;
use crate::text::TextStream;
use crate::{Error, Result};

/// How a session computes.
#[derive(Clone, Debug, Default)]
pub struct SessionOptions {
    /// Threads; by default one for each physical core that this process may use.
    pub threads: Option<usize>,
    /// Instruction set by name; by default the environment's `GEMMULE_ISA`, else the best.
    pub isa: Option<String>,
}

/// What to generate.
#[derive(Clone, Debug)]
pub struct GenerateOptions {
    /// Most tokens of an answer.
    pub max_tokens: usize,
    /// How the next token is chosen.
    pub sampling: Sampling,
    /// Go on past end tokens, to measure speed.
    pub ignore_end: bool,
    /// Report each token's probability.
    pub probabilities: bool,
}

impl Default for GenerateOptions {
    /// Greedy, up to 256 tokens.
    fn default() -> Self {
        Self { max_tokens: 256, sampling: Sampling::default(), ignore_end: false, probabilities: false }
    }
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// The model said so.
    EndToken,
    /// The limit of tokens was reached.
    MaxTokens,
    /// The caller's callback said so.
    Stopped,
}

impl FinishReason {
    /// The name that JSON output uses.
    pub fn name(self) -> &'static str {
        match self {
            Self::EndToken => "end_token",
            Self::MaxTokens => "max_tokens",
            Self::Stopped => "stopped",
        }
    }
}

/// How long the stages took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Timings {
    /// Resizing and normalizing the pictures.
    pub image: Duration,
    /// The vision tower and the projector.
    pub vision: Duration,
    /// The decoder over the prefix, to the first logits.
    pub prefill: Duration,
    /// All tokens after the first.
    pub generate: Duration,
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The answer's text.
    pub text: String,
    /// The generated tokens, the end token included when it came.
    pub tokens: Vec<u32>,
    /// The model's probability of each of the tokens, before temperature and cuts; empty unless asked for.
    pub probabilities: Vec<f32>,
    /// Tokens of the prefix, images included.
    pub prompt_tokens: usize,
    /// Why it ended.
    pub finish: FinishReason,
    /// How long it took.
    pub timings: Timings,
}

/// The stages of one prefill, to compare with the reference.
#[derive(Clone, Debug)]
pub struct Trace {
    /// `[images][3][size][size]`.
    pub pixel_values: Vec<f32>,
    /// `[images][tokens of an image][hidden]`.
    pub image_features: Vec<f32>,
    /// `[tokens]`.
    pub input_ids: Vec<u32>,
    /// `[vocabulary]`, after the cap.
    pub logits: Vec<f32>,
}

/// The memory and threads of one generation at a time, on a shared model.
#[derive(Debug)]
pub struct Session<'m> {
    model: &'m Model,
    compute: Compute,
    vision: VisionScratch,
    decoder: DecoderScratch,
    cache: KvCache,
    pixels: Vec<f32>,
    features: Vec<f32>,
    x: Vec<f32>,
    logits: Vec<f32>,
}

impl<'m> Session<'m> {
    /// A session on a model.
    ///
    /// # Errors
    /// When the threads or the instruction set asked for are not to be had.
    pub fn new(model: &'m Model, options: &SessionOptions) -> Result<Self> {
        let compute = Compute::new(options.isa.as_deref(), options.threads.unwrap_or_else(default_threads))?;
        Ok(Self {
            model,
            compute,
            vision: VisionScratch::default(),
            decoder: DecoderScratch::default(),
            cache: KvCache::default(),
            pixels: Vec::new(),
            features: Vec::new(),
            x: Vec::new(),
            logits: Vec::new(),
        })
    }

    /// What computes here.
    pub fn compute(&self) -> &Compute {
        &self.compute
    }

    fn config(&self) -> &'m Config {
        &self.model.config
    }

    /// The answer to a prompt about pictures.
    ///
    /// # Errors
    /// When the request is impossible or the sequence is longer than the model's context.
    pub fn generate(&mut self, pictures: &[Picture], prompt: &str, options: &GenerateOptions) -> Result<Answer> {
        self.generate_with(pictures, prompt, options, |_| ControlFlow::Continue(()))
    }

    /// As [`generate`](Self::generate), handing each piece of text to `on_text` as soon as it is certain; a break ends
    /// the answer.
    ///
    /// # Errors
    /// As [`generate`](Self::generate).
    pub fn generate_with(
        &mut self,
        pictures: &[Picture],
        prompt: &str,
        options: &GenerateOptions,
        mut on_text: impl FnMut(&str) -> ControlFlow<()>,
    ) -> Result<Answer> {
        let mut sampler = Sampler::new(&options.sampling)?;
        let mut timings = Timings::default();
        self.load_pictures(pictures, &mut timings)?;
        let prefix = self.prefill(prompt, options.max_tokens, &mut timings)?;
        let tokenizer = self.model.tokenizer()?;
        let start = Instant::now();
        let used = tokenizer.used_vocabulary().min(self.logits.len());
        let mut stream = TextStream::new(tokenizer);
        let (mut text, mut tokens, mut probabilities) = (String::new(), Vec::new(), Vec::new());
        let mut finish = FinishReason::MaxTokens;
        while tokens.len() < options.max_tokens {
            if !tokens.is_empty() {
                self.step(*tokens.last().expect("not empty"));
            }
            let token = sampler.next(&self.logits, used)?;
            tokens.push(token);
            if options.probabilities {
                probabilities.push(sampling::probability(&self.logits[..used], token));
            }
            if tokenizer.is_end(token) && !options.ignore_end {
                finish = FinishReason::EndToken;
                break;
            }
            let piece = stream.push(token)?;
            text.push_str(&piece);
            if !piece.is_empty() && on_text(&piece).is_break() {
                finish = FinishReason::Stopped;
                break;
            }
        }
        let rest = stream.finish()?;
        if !rest.is_empty() && finish != FinishReason::Stopped {
            text.push_str(&rest);
            // The answer is over: there is nothing left that a break could end.
            let _ = on_text(&rest);
        }
        timings.generate = start.elapsed();
        Ok(Answer { text, tokens, probabilities, prompt_tokens: prefix.len(), finish, timings })
    }

    /// Every stage of a prefill.
    ///
    /// # Errors
    /// As [`generate`](Self::generate).
    pub fn trace(&mut self, pictures: &[Picture], prompt: &str) -> Result<Trace> {
        self.load_pictures(pictures, &mut Timings::default())?;
        self.trace_loaded(prompt)
    }

    /// As [`trace`](Self::trace), from pixel values, `[images][3][size][size]`, that the caller made.
    ///
    /// # Errors
    /// As [`generate`](Self::generate), and when the values are no whole number of pictures.
    pub fn trace_pixel_values(&mut self, pixel_values: &[f32], prompt: &str) -> Result<Trace> {
        let picture = 3 * self.config().vision.image_size.pow(2);
        if !pixel_values.len().is_multiple_of(picture) {
            return Err(Error::Request(format!(
                "{} pixel values are no whole number of {picture}",
                pixel_values.len()
            )));
        }
        self.pixels.clear();
        self.pixels.extend_from_slice(pixel_values);
        self.trace_loaded(prompt)
    }

    fn trace_loaded(&mut self, prompt: &str) -> Result<Trace> {
        let input_ids = self.prefill(prompt, 0, &mut Timings::default())?;
        Ok(Trace {
            pixel_values: self.pixels.clone(),
            image_features: self.features.clone(),
            input_ids,
            logits: self.logits.clone(),
        })
    }

    /// Resizes and normalizes the pictures into `self.pixels`.
    fn load_pictures(&mut self, pictures: &[Picture], timings: &mut Timings) -> Result<()> {
        let (config, start) = (self.config(), Instant::now());
        self.pixels.clear();
        for picture in pictures {
            self.pixels.extend(picture.to_pixel_values(&config.vision, &config.preprocess)?);
        }
        timings.image = start.elapsed();
        Ok(())
    }

    /// Encodes the loaded pictures and runs the prefix; the next token's logits are then in `self.logits`. Returns the
    /// prefix.
    fn prefill(&mut self, prompt: &str, room: usize, timings: &mut Timings) -> Result<Vec<u32>> {
        let (config, model) = (self.config(), self.model);
        let image_tokens = self.pixels.len() / (3 * config.vision.image_size.pow(2)) * config.vision.tokens();
        // What the pictures alone exceed is known before the work.
        self.check_length(image_tokens, room)?;
        let start = Instant::now();
        self.encode_pictures(image_tokens);
        timings.vision = start.elapsed();

        // After the pictures: a large tokenizer is read while they are encoded.
        let prefix = model.tokenizer()?.prefix(image_tokens, prompt)?;
        let total = self.check_length(prefix.len(), room)?;
        let start = Instant::now();
        let hidden = config.text.hidden;
        self.x.clear();
        // Image features enter as they are; only text embeddings are scaled.
        self.x.extend_from_slice(&self.features);
        self.x.resize(prefix.len() * hidden, 0.0);
        let weights = (&config.text, &model.decoder);
        decoder::embed_tokens(&model.store, weights, &prefix[image_tokens..], &mut self.x[image_tokens * hidden..]);
        self.cache.reset(&config.text, total);
        self.advance();
        timings.prefill = start.elapsed();
        Ok(prefix)
    }

    /// The length that a prefix and `room` more tokens have together, if the model's context holds it.
    fn check_length(&self, prefix: usize, room: usize) -> Result<usize> {
        let (total, context) = (prefix.saturating_add(room), self.config().text.context);
        if total > context {
            return Err(Error::Request(format!(
                "{prefix} prompt tokens and up to {room} generated ones exceed the model's context of {context}: use fewer \
                 pictures, a shorter prompt or a smaller limit"
            )));
        }
        Ok(total)
    }

    /// The loaded pictures' features into `self.features`.
    fn encode_pictures(&mut self, image_tokens: usize) {
        let (config, model) = (self.config(), self.model);
        let features_len = config.vision.tokens() * config.text.hidden;
        self.features.resize(image_tokens * config.text.hidden, 0.0);
        let pixels = self.pixels.chunks_exact(3 * config.vision.image_size.pow(2));
        for (pixels, features) in pixels.zip(self.features.chunks_exact_mut(features_len)) {
            let (compute, scratch) = (&self.compute, &mut self.vision);
            let tower = (&config.vision, &model.vision);
            compute.pool.enter(|| vision::forward(compute, &model.store, tower, pixels, (scratch, features)));
        }
    }

    /// Appends one token; its logits are then in `self.logits`.
    fn step(&mut self, token: u32) {
        let config = self.config();
        self.x.resize(config.text.hidden, 0.0);
        decoder::embed_tokens(&self.model.store, (&config.text, &self.model.decoder), &[token], &mut self.x);
        self.advance();
    }

    /// Runs the decoder over `self.x` and leaves the last position's logits.
    fn advance(&mut self) {
        let Self { model, compute, decoder: scratch, cache, x, logits, .. } = self;
        let weights = (&model.config.text, &model.decoder);
        logits.resize(model.config.text.vocabulary, 0.0);
        compute.pool.enter(|| {
            decoder::forward(compute, &model.store, weights, x, (scratch, cache));
            let last = &x[x.len() - model.config.text.hidden..];
            decoder::logits(compute, &model.store, weights, last, (scratch, logits));
        });
    }
}
