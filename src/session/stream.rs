//! An answer that comes token by token.

use std::time::Instant;

use super::constraint::Matcher;
use super::request::{Alternative, Answer, FinishReason, GenerateOptions, GeneratedToken, ProbabilityBase};
use super::rules::Rules;
use super::sampling::{self, Sampler};
use super::{Positions, Session};
use crate::text::{TextStream, Tokenizer};
use crate::{Error, Result};

/// The tokens of an answer, each made when it is asked for. Together their texts are the answer's.
///
/// After an error there is no further token. Dropping the stream, or [finishing](Self::finish) it, ends the answer where it is.
#[derive(Debug)]
pub struct AnswerStream<'s> {
    session: &'s mut Session,
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

impl Session {
    /// The answer to a prompt about the pictures [shown](Self::show) last, token by token.
    ///
    /// ```no_run
    /// # fn tell(session: &mut gemmule::Session) -> gemmule::Result<()> {
    /// let mut stream = session.stream("caption en", &gemmule::GenerateOptions::new())?;
    /// for token in &mut stream {
    ///     print!("{}", token?.text);
    /// }
    /// println!(" ({})", stream.finish().finish.name());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`generate`](Self::generate).
    pub fn stream(&mut self, prompt: &str, options: &GenerateOptions) -> Result<AnswerStream<'_>> {
        let sampler = Sampler::new(&options.sampling)?;
        let (ids, timings) = self.prefill(prompt, options.max_tokens, Positions::Last)?;
        let tokenizer = self.model.tokenizer()?;
        let constraint = options.constraint.as_ref();
        let matcher = constraint.map(|constraint| Matcher::new(constraint, tokenizer)).transpose()?;
        let answer = Answer {
            text: String::new(),
            tokens: Vec::new(),
            prompt_tokens: ids.len(),
            finish: FinishReason::MaxTokens,
            complete: true,
            timings,
        };
        Ok(AnswerStream {
            session: self,
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

    /// The answer to a prompt about the pictures [shown](Self::show) last.
    ///
    /// # Errors
    /// As [`generate`](Self::generate).
    pub fn ask(&mut self, prompt: &str, options: &GenerateOptions) -> Result<Answer> {
        let mut stream = self.stream(prompt, options)?;
        stream.by_ref().try_for_each(|token| token.map(drop))?;
        Ok(stream.finish())
    }
}

impl Iterator for AnswerStream<'_> {
    type Item = Result<GeneratedToken>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let token = self.advance();
        if token.is_err() {
            self.end(FinishReason::Stopped);
        }
        token.transpose()
    }
}

impl std::iter::FusedIterator for AnswerStream<'_> {}

impl AnswerStream<'_> {
    /// The answer so far; [`Stopped`](FinishReason::Stopped) where it had not come to its end.
    pub fn finish(mut self) -> Answer {
        if !self.ended {
            self.end(FinishReason::Stopped);
        }
        self.answer
    }

    /// The next token; nothing where the answer ends before it.
    fn advance(&mut self) -> Result<Option<GeneratedToken>> {
        if let Some(last) = self.answer.tokens.last() {
            match self.session.step(last.id) {
                Err(Error::Cancelled) => {
                    self.end(FinishReason::Stopped);
                    return Ok(None);
                }
                other => other?,
            }
        } else if let Some(finish) = self.limit() {
            self.end(finish);
            return Ok(None);
        }
        let model = self.session.model.clone();
        let tokenizer = model.tokenizer()?;
        let mut token = self.choose(tokenizer)?;
        self.ids.push(token.id);
        let is_end = tokenizer.is_end(token.id) && !self.options.ignore_end;
        if !is_end {
            token.text = self.text.push(tokenizer, token.id)?;
        }
        self.answer.text.push_str(&token.text);
        self.answer.tokens.push(token);
        let finish = if is_end { Some(FinishReason::EndToken) } else { self.limit() };
        if let Some(finish) = finish {
            let rest = self.text.finish(tokenizer)?;
            self.answer.text.push_str(&rest);
            self.answer.tokens.last_mut().expect("a token was pushed").text.push_str(&rest);
            self.end(finish);
        }
        Ok(self.answer.tokens.last().cloned())
    }

    /// The limit that is reached, if one is.
    fn limit(&self) -> Option<FinishReason> {
        if self.answer.tokens.len() >= self.options.max_tokens {
            return Some(FinishReason::MaxTokens);
        }
        let over = self.options.deadline.is_some_and(|deadline| Instant::now() >= deadline);
        over.then_some(FinishReason::Deadline)
    }

    fn end(&mut self, finish: FinishReason) {
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
    fn choose(&mut self, tokenizer: &Tokenizer) -> Result<GeneratedToken> {
        let (options, all) = (&self.options, &self.session.logits[..]);
        // Rows that stand for no token of the tokenizer are never chosen.
        let used = &all[..tokenizer.used_vocabulary().min(all.len())];
        let rules = Rules {
            rules: &self.session.config().generation,
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
