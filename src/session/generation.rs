//! An answer as it grows, from the logits of one token after another.

use std::time::Instant;

use super::constraint::Matcher;
use super::request::{Alternative, Answer, FinishReason, GenerateOptions, GeneratedToken, ProbabilityBase, Timings};
use super::rules::Rules;
use super::sampling::{self, Sampler};
use crate::config::Config;
use crate::text::{TextStream, Tokenizer};
use crate::{Model, Result};

/// Sampler, form, text and limits of one answer. Who computes its logits is another matter.
#[derive(Debug)]
pub(super) struct Generation {
    options: GenerateOptions,
    sampler: Sampler,
    matcher: Option<Matcher>,
    text: TextStream,
    /// The prefix and the tokens so far.
    ids: Vec<u32>,
    /// The logits that the model's rules have changed.
    ruled: Vec<f32>,
    begun: Instant,
    ended: bool,
    answer: Answer,
}

impl Generation {
    /// An answer that follows the prefix `ids`.
    ///
    /// # Errors
    /// When its sampling or its form are impossible.
    pub(super) fn new(tokenizer: &Tokenizer, options: &GenerateOptions, ids: Vec<u32>) -> Result<Self> {
        let sampler = Sampler::new(&options.sampling)?;
        let constraint = options.constraint.as_ref();
        let matcher = constraint.map(|constraint| Matcher::new(constraint, tokenizer)).transpose()?;
        let answer = Answer {
            text: String::new(),
            tokens: Vec::new(),
            prompt_tokens: ids.len(),
            finish: FinishReason::MaxTokens,
            complete: true,
            timings: Timings::default(),
        };
        Ok(Self {
            options: options.clone(),
            sampler,
            matcher,
            text: TextStream::new(),
            ids,
            ruled: Vec::new(),
            begun: Instant::now(),
            ended: false,
            answer,
        })
    }

    /// The prefix has been run.
    pub(super) fn begin(&mut self, timings: Timings) {
        self.answer.timings = timings;
        self.begun = Instant::now();
    }

    /// Ends an answer whose limit is reached before its first token.
    pub(super) fn end_at_limit(&mut self) {
        if let Some(finish) = self.limit() {
            self.end(finish);
        }
    }

    /// The token that has to be appended to the sequence for the next one's logits; none before the first.
    pub(super) fn last(&self) -> Option<u32> {
        self.answer.tokens.last().map(|token| token.id)
    }

    /// Whether there will be no further token.
    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }

    /// The answer so far; [`Stopped`](FinishReason::Stopped) where it had not come to its end.
    pub(super) fn finish(mut self) -> Answer {
        if !self.ended {
            self.end(FinishReason::Stopped);
        }
        self.answer
    }

    /// The next token, by its logits, `[vocabulary]`.
    pub(super) fn push(&mut self, model: &Model, logits: &[f32]) -> Result<GeneratedToken> {
        let tokenizer = model.tokenizer()?;
        let mut token = self.choose(model.config(), tokenizer, logits)?;
        self.ids.push(token.id);
        let is_end = tokenizer.is_end(token.id) && !self.options.ignore_end;
        if !is_end {
            token.text = self.text.push(tokenizer, token.id)?;
        }
        self.answer.tokens.push(token.clone());
        let finish = if is_end { Some(FinishReason::EndToken) } else { self.limit() };
        if finish.is_some() {
            token.text.push_str(&self.text.finish(tokenizer)?);
        }
        self.answer.text.push_str(&token.text);
        self.answer.tokens.last_mut().expect("a token was pushed").text.clone_from(&token.text);
        if let Some(finish) = finish {
            self.end(finish);
        }
        Ok(token)
    }

    /// The limit that is reached, if one is.
    fn limit(&self) -> Option<FinishReason> {
        if self.answer.tokens.len() >= self.options.max_tokens {
            return Some(FinishReason::MaxTokens);
        }
        let over = self.options.deadline.is_some_and(|deadline| Instant::now() >= deadline);
        over.then_some(FinishReason::Deadline)
    }

    /// Ends the answer where it is.
    pub(super) fn end(&mut self, finish: FinishReason) {
        self.ended = true;
        self.answer.finish = finish;
        self.answer.complete = finish == FinishReason::EndToken || self.matcher.as_mut().is_none_or(Matcher::may_end);
        self.answer.timings.generate = self.begun.elapsed();
        log::debug!(
            "{} tokens, then {}: {:.1?}",
            self.answer.tokens.len(),
            finish.name(),
            self.answer.timings.generate
        );
    }

    /// A token by the logits, without its text.
    fn choose(&mut self, config: &Config, tokenizer: &Tokenizer, all: &[f32]) -> Result<GeneratedToken> {
        let options = &self.options;
        // Rows that stand for no token of the tokenizer are never chosen.
        let used = &all[..tokenizer.used_vocabulary().min(all.len())];
        let rules = Rules {
            rules: &config.generation,
            ends: &tokenizer.special().eos,
            prefix: self.answer.prompt_tokens,
            most: options.max_tokens,
        };
        let mut logits = used;
        if !rules.rules.is_empty() {
            self.ruled.clear();
            self.ruled.extend_from_slice(used);
            rules.apply(&self.ids, &mut self.ruled);
            logits = &self.ruled;
        }
        let over_form = options.probability_base == ProbabilityBase::Form;
        let reports = options.probabilities || options.alternatives > 0;
        let report = reports.then(|| {
            let admitted = match (over_form, &mut self.matcher) {
                (true, Some(matcher)) => matcher.admitted(tokenizer, logits),
                (true, None) => logits,
                (false, _) => used,
            };
            let base = if options.probability_base == ProbabilityBase::Full { all } else { admitted };
            (sampling::normalizer(base), sampling::likeliest(admitted, options.alternatives))
        });
        let id = match &mut self.matcher {
            Some(matcher) => matcher.next(tokenizer, &mut self.sampler, logits)?,
            None => self.sampler.next(logits)?,
        };
        let mut token = GeneratedToken::new(id, None);
        if let Some((normalizer, likeliest)) = report {
            // Over a form, the logits are those that the model's rules have changed.
            let logit = if over_form { logits[id as usize] } else { all[id as usize] };
            token.probability = Some((logit - normalizer).exp());
            let alternative = |candidate: sampling::Candidate| Alternative {
                id: candidate.id,
                log_probability: candidate.weight - normalizer,
            };
            token.alternatives = likeliest.into_iter().map(alternative).collect();
        }
        Ok(token)
    }
}
