//! What is asked of a session, and what it answers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Constraint;
use super::sampling::Sampling;
use crate::ops::Observer;
use crate::sched::CancelHandle;

/// How a session computes. Each method sets one thing; a setting that may be left open takes an `Option`, too.
///
/// ```
/// let options = gemmule::SessionOptions::new().threads(4).generation_threads(2);
/// ```
#[derive(Clone, Debug, Default)]
pub struct SessionOptions {
    pub(super) threads: Option<usize>,
    pub(super) generation_threads: Option<usize>,
    pub(super) isa: Option<String>,
    pub(super) cancel: CancelHandle,
    pub(super) observer: Option<Arc<dyn Observer>>,
}

impl SessionOptions {
    /// A thread for each physical core, and the best instruction set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Threads, 1 … [`MOST_THREADS`](crate::MOST_THREADS); by default one for each physical core that this process may use.
    #[must_use]
    pub fn threads(mut self, threads: impl Into<Option<usize>>) -> Self {
        self.threads = threads.into();
        self
    }

    /// Threads that generate tokens after the first; by default as many as [`threads`](Self::threads). Reading the weights
    /// for one token at a time fills the memory's bandwidth with fewer cores than the pictures and the prompt keep busy.
    #[must_use]
    pub fn generation_threads(mut self, threads: impl Into<Option<usize>>) -> Self {
        self.generation_threads = threads.into();
        self
    }

    /// The instruction set by its name; by default the environment's `GEMMULE_ISA`, else the best.
    #[must_use]
    pub fn isa<'a>(mut self, name: impl Into<Option<&'a str>>) -> Self {
        self.isa = name.into().map(str::to_owned);
        self
    }

    /// Ends what the session computes, from another thread. What has no result yet is an
    /// [`Error::Cancelled`](crate::Error::Cancelled); an answer ends with what there is.
    #[must_use]
    pub fn cancel(mut self, handle: CancelHandle) -> Self {
        self.cancel = handle;
        self
    }

    /// Shows the inputs of all matrices to an observer. Results keep their value; on a matrix unit they are rounded otherwise.
    #[must_use]
    pub fn observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.observer = Some(observer);
        self
    }
}

/// The tokens whose probabilities sum to one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProbabilityBase {
    /// All rows of the model's output, as in `transformers`. Padding rows, which stand for no token, count, too.
    #[default]
    Full,
    /// The tokens that the tokenizer has: those that can be chosen.
    Used,
    /// The tokens that the answer's form, and the model's rules, admit at each place.
    Form,
}

impl ProbabilityBase {
    /// All with their names on command lines and in JSON.
    pub const NAMES: [(&'static str, Self); 3] = [("full", Self::Full), ("used", Self::Used), ("form", Self::Form)];

    /// The name.
    pub fn name(self) -> &'static str {
        Self::NAMES[self as usize].0
    }

    /// By its name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|row| row.0 == name).map(|row| row.1)
    }
}

/// What to generate. Each method sets one thing; a setting that may be left open takes an `Option`, too.
///
/// ```
/// use gemmule::session::{Constraint, GenerateOptions};
///
/// let yes_or_no = Constraint::Choices(vec!["yes".into(), "no".into()]);
/// let options = GenerateOptions::new().max_tokens(8).constraint(yes_or_no).probabilities(true);
/// ```
#[derive(Clone, Debug)]
pub struct GenerateOptions {
    pub(super) max_tokens: usize,
    pub(super) sampling: Sampling,
    pub(super) ignore_end: bool,
    pub(super) probabilities: bool,
    pub(super) probability_base: ProbabilityBase,
    pub(super) alternatives: usize,
    pub(super) constraint: Option<Constraint>,
    pub(super) deadline: Option<Instant>,
}

impl Default for GenerateOptions {
    fn default() -> Self {
        Self::new()
    }
}

impl GenerateOptions {
    /// Greedy, up to 256 tokens.
    pub fn new() -> Self {
        Self {
            max_tokens: 256,
            sampling: Sampling::default(),
            ignore_end: false,
            probabilities: false,
            probability_base: ProbabilityBase::default(),
            alternatives: 0,
            constraint: None,
            deadline: None,
        }
    }

    /// Most tokens of an answer.
    #[must_use]
    pub fn max_tokens(mut self, count: usize) -> Self {
        self.max_tokens = count;
        self
    }

    /// 0, the default, takes the likeliest token; larger values, up to 1000, flatten the distribution that tokens are drawn from.
    #[must_use]
    pub fn temperature(mut self, temperature: f32) -> Self {
        self.sampling.temperature = temperature;
        self
    }

    /// Draws from so many of the likeliest tokens; 0, the default, from all.
    #[must_use]
    pub fn top_k(mut self, count: usize) -> Self {
        self.sampling.top_k = count;
        self
    }

    /// Draws from the likeliest tokens that together have this probability, above 0; 1, the default, from all.
    #[must_use]
    pub fn top_p(mut self, probability: f32) -> Self {
        self.sampling.top_p = probability;
        self
    }

    /// The same seed draws the same answer; 0 by default.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.sampling.seed = seed;
        self
    }

    /// Whether to go on past end tokens, to measure speed.
    #[must_use]
    pub fn ignore_end(mut self, ignore: bool) -> Self {
        self.ignore_end = ignore;
        self
    }

    /// Whether to report each token's [`probability`](GeneratedToken::probability).
    #[must_use]
    pub fn probabilities(mut self, report: bool) -> Self {
        self.probabilities = report;
        self
    }

    /// What probabilities are over.
    #[must_use]
    pub fn probability_base(mut self, base: ProbabilityBase) -> Self {
        self.probability_base = base;
        self
    }

    /// How many of the likeliest tokens to report at each place, see [`alternatives`](GeneratedToken::alternatives); none by default.
    #[must_use]
    pub fn alternatives(mut self, count: usize) -> Self {
        self.alternatives = count;
        self
    }

    /// What the answer must look like.
    #[must_use]
    pub fn constraint(mut self, constraint: impl Into<Option<Constraint>>) -> Self {
        self.constraint = constraint.into();
        self
    }

    /// When to stop, with what there is by then. The prompt is run in any case.
    #[must_use]
    pub fn deadline(mut self, time: impl Into<Option<Instant>>) -> Self {
        self.deadline = time.into();
        self
    }
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FinishReason {
    /// The model said so.
    EndToken,
    /// The limit of tokens was reached.
    MaxTokens,
    /// The caller said so: it asked for no more tokens, or cancelled.
    Stopped,
    /// The time was up.
    Deadline,
}

impl FinishReason {
    /// The name that JSON output uses.
    pub fn name(self) -> &'static str {
        match self {
            Self::EndToken => "end_token",
            Self::MaxTokens => "max_tokens",
            Self::Stopped => "stopped",
            Self::Deadline => "deadline",
        }
    }
}

/// How long the stages took.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
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

/// A token that could stand in the place of a generated one.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Alternative {
    /// Its id.
    pub id: u32,
    /// The natural logarithm of its probability, over what [`probability_base`](GenerateOptions::probability_base) says.
    pub log_probability: f32,
}

/// A token of an answer.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct GeneratedToken {
    /// Its id.
    pub id: u32,
    /// The part of the answer's text that is complete with it: empty where a character lacks bytes that later tokens bring.
    pub text: String,
    /// Its probability before temperature and cuts, over what [`probability_base`](GenerateOptions::probability_base) says; none unless
    /// [`probabilities`](GenerateOptions::probabilities) or [`alternatives`](GenerateOptions::alternatives) were asked for.
    pub probability: Option<f32>,
    /// The likeliest tokens in its place, best first; as many as were [asked for](GenerateOptions::alternatives).
    pub alternatives: Vec<Alternative>,
}

impl GeneratedToken {
    /// A token that was generated elsewhere: without text or alternatives.
    pub fn new(id: u32, probability: impl Into<Option<f32>>) -> Self {
        Self { id, text: String::new(), probability: probability.into(), alternatives: Vec::new() }
    }
}

/// An answer.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Answer {
    /// The answer's text.
    pub text: String,
    /// The generated tokens, the end token included when it came.
    pub tokens: Vec<GeneratedToken>,
    /// Tokens of the prefix, images included.
    pub prompt_tokens: usize,
    /// Why it ended.
    pub finish: FinishReason,
    /// Whether it has the form of its constraint. An answer that was cut off may have only a part of it.
    pub complete: bool,
    /// How long it took.
    pub timings: Timings,
}

impl Answer {
    /// The ids of its tokens.
    pub fn token_ids(&self) -> Vec<u32> {
        self.tokens.iter().map(|token| token.id).collect()
    }
}

/// The stages of one prefill, to compare with the reference.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Trace {
    /// `[images][3][size][size]`.
    pub pixel_values: Vec<f32>,
    /// `[images][tokens of an image][hidden]`.
    pub image_features: Vec<f32>,
    /// `[tokens]`.
    pub input_ids: Vec<u32>,
    /// `[vocabulary]`, after the softcap.
    pub logits: Vec<f32>,
}
