//! What is asked of a session, and what it answers.

use std::time::{Duration, Instant};

use super::{Constraint, Sampling};
use crate::sched::CancelHandle;

/// How a session computes.
#[derive(Clone, Debug, Default)]
pub struct SessionOptions {
    /// Threads; by default one for each physical core that this process may use.
    pub threads: Option<usize>,
    /// Threads that generate tokens after the first; by default as many as [`threads`](Self::threads). Reading the weights
    /// for one token at a time fills the memory's bandwidth with fewer cores than the pictures and the prompt keep busy.
    pub generation_threads: Option<usize>,
    /// Instruction set by name; by default the environment's `GEMMULE_ISA`, else the best.
    pub isa: Option<String>,
    /// Ends what the session computes, from another thread. What has no result yet is an
    /// [`Error::Cancelled`](crate::Error::Cancelled); an answer ends with what there is.
    pub cancel: CancelHandle,
}

/// The tokens whose probabilities sum to one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProbabilityBase {
    /// Every row of the model's output, as for `transformers`, padding rows that stand for no token included: the model's own.
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
    /// What probabilities are over.
    pub probability_base: ProbabilityBase,
    /// Report so many of the likeliest tokens at each step, with their probabilities.
    pub alternatives: usize,
    /// What the answer must look like.
    pub constraint: Option<Constraint>,
    /// When to stop, with what there is by then. The prompt is run in any case.
    pub deadline: Option<Instant>,
}

impl Default for GenerateOptions {
    /// Greedy, up to 256 tokens.
    fn default() -> Self {
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
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// The model said so.
    EndToken,
    /// The limit of tokens was reached.
    MaxTokens,
    /// The caller said so: its callback, or a cancel.
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

/// An answer.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Answer {
    /// The answer's text.
    pub text: String,
    /// The generated tokens, the end token included when it came.
    pub tokens: Vec<u32>,
    /// The probability of each of the tokens before temperature and cuts, over what
    /// [`probability_base`](GenerateOptions::probability_base) says; empty unless asked for.
    pub probabilities: Vec<f32>,
    /// For each of the tokens the likeliest ones in its place, best first, with the logarithms of their probabilities; empty
    /// unless asked for.
    pub alternatives: Vec<Vec<(u32, f32)>>,
    /// Tokens of the prefix, images included.
    pub prompt_tokens: usize,
    /// Why it ended.
    pub finish: FinishReason,
    /// Whether it has the form that it had to have; cut off, it may be a part of that only.
    pub complete: bool,
    /// How long it took.
    pub timings: Timings,
}

impl Answer {
    pub(super) fn empty(prompt_tokens: usize) -> Self {
        Self {
            text: String::new(),
            tokens: Vec::new(),
            probabilities: Vec::new(),
            alternatives: Vec::new(),
            prompt_tokens,
            finish: FinishReason::MaxTokens,
            complete: true,
            timings: Timings::default(),
        }
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
    /// `[vocabulary]`, after the cap.
    pub logits: Vec<f32>,
}
