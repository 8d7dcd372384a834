//! How likely given answers are.

use super::{Positions, Session, sampling};
use crate::{Error, Result};

/// A given answer and its likelihood.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Choice {
    /// The answer.
    pub text: String,
    /// Natural logarithm of the model's probability of exactly this answer, end token included, over the whole vocabulary.
    pub log_probability: f32,
    /// Its probability among the choices; those of all choices sum to one.
    pub probability: f32,
}

impl Session {
    /// The probabilities of `choices` as answers to a prompt about the pictures shown, in their order. One prefill, then
    /// the tokens of the choices; nothing is generated.
    ///
    /// # Errors
    /// When there are no choices, one is empty, or two are the same; and as [`generate`](Self::generate).
    pub fn score(&mut self, prompt: &str, choices: &[impl AsRef<str>]) -> Result<Vec<Choice>> {
        let model = self.model.clone();
        let tokenizer = model.tokenizer()?;
        let end =
            *tokenizer.special().eos.first().ok_or_else(|| Error::Request("the model has no end token".to_owned()))?;
        let mut answers = Vec::new();
        for (index, choice) in choices.iter().map(AsRef::as_ref).enumerate() {
            let mut tokens = tokenizer.encode(choice)?;
            if tokens.is_empty() {
                return Err(Error::Request("a choice is empty".to_owned()));
            }
            tokens.push(end);
            answers.push((tokens, index));
        }
        // Neighbours in order share the most tokens.
        answers.sort_unstable();
        if let Some(pair) = answers.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            return Err(Error::Request(format!("the choice '{}' is there twice", choices[pair[0].1].as_ref())));
        }
        let longest = answers.iter().map(|(tokens, _)| tokens.len()).max();
        let longest = longest.ok_or_else(|| Error::Request("there are no choices".to_owned()))?;
        let prefix = self.prefill(prompt, longest, Positions::Last)?.0.len();

        let used = tokenizer.used_vocabulary().min(self.logits.len());
        if end as usize >= used {
            return Err(Error::Request(format!("the model's end token {end} is none of the tokenizer's")));
        }
        let mut log_probabilities = vec![0.0f32; answers.len()];
        let mut path: Vec<u32> = Vec::new();
        // After each token of the path: the sum so far, and the logarithms for the next token, for choices that branch off there.
        let mut places = vec![(0.0, log_softmax(&self.logits, used)?)];
        for (position, (tokens, index)) in answers.iter().enumerate() {
            let common = |other: &[u32]| other.iter().zip(tokens).take_while(|(a, b)| a == b).count();
            let shared = common(&path);
            path.truncate(shared);
            places.truncate(shared + 1);
            let kept = answers.get(position + 1).map_or(0, |next| common(&next.0));
            self.decoder.cache.truncate(prefix + shared);
            let (mut sum, mut next) = places[shared].clone();
            for (depth, token) in tokens.iter().enumerate().skip(shared) {
                sum += next[*token as usize];
                // The end token is looked up, not fed.
                if depth + 1 < tokens.len() {
                    self.step(*token)?;
                    next = log_softmax(&self.logits, used)?;
                    if depth < kept {
                        path.push(*token);
                        places.push((sum, next.clone()));
                    }
                }
            }
            log_probabilities[*index] = sum;
        }
        let normalizer = sampling::normalizer(&log_probabilities);
        let choice = |(text, log_probability): (&str, f32)| Choice {
            text: text.to_owned(),
            log_probability,
            probability: (log_probability - normalizer).exp(),
        };
        Ok(choices.iter().map(AsRef::as_ref).zip(log_probabilities).map(choice).collect())
    }

    /// Runs a prompt about the pictures shown with a given answer, of a token at least. `see` is called for each of the answer's tokens, with
    /// its place and the natural logarithms of the probabilities, `[vocabulary]`, of all that could stand there.
    ///
    /// # Errors
    /// When the answer is empty or has a token that the model lacks; and as [`generate`](Self::generate).
    pub fn follow(&mut self, prompt: &str, answer: &[u32], mut see: impl FnMut(usize, &[f32])) -> Result<()> {
        let vocabulary = self.config().text.vocabulary;
        if let Some(id) = answer.iter().find(|id| **id as usize >= vocabulary) {
            return Err(Error::Request(format!("the answer has the token {id}, and the model {vocabulary}")));
        }
        let Some((_, fed)) = answer.split_last() else {
            return Err(Error::Request("the answer is empty".to_owned()));
        };
        self.prefill(prompt, answer.len(), Positions::Last)?;
        see(0, &log_softmax(&self.logits, vocabulary)?);
        for (place, token) in fed.iter().enumerate() {
            self.step(*token)?;
            see(place + 1, &log_softmax(&self.logits, vocabulary)?);
        }
        Ok(())
    }
}

/// Logarithms of the probabilities of the first `used` tokens, over the whole vocabulary.
fn log_softmax(logits: &[f32], used: usize) -> Result<Vec<f32>> {
    let normalizer = sampling::normalizer(logits);
    if !normalizer.is_finite() {
        return Err(sampling::damaged());
    }
    Ok(logits[..used].iter().map(|logit| logit - normalizer).collect())
}
