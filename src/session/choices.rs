//! How likely each of several given answers is.

use super::{Session, sampling};
use crate::{Error, Result};

/// A given answer and its likelihood.
#[derive(Clone, Debug, PartialEq)]
pub struct Choice {
    /// The answer.
    pub text: String,
    /// Logarithm of the model's probability of exactly this answer, end token included.
    pub log_probability: f32,
    /// The same as a probability among the choices, which sum to one.
    pub probability: f32,
}

impl Session<'_> {
    /// The probabilities of `choices` as answers to a prompt about the pictures shown, in their order. One prefill, then
    /// the tokens of the choices; nothing is generated.
    ///
    /// # Errors
    /// When there are no choices, two are the same, or as [`generate`](Self::generate).
    pub fn score(&mut self, prompt: &str, choices: &[impl AsRef<str>]) -> Result<Vec<Choice>> {
        let tokenizer = self.model.tokenizer()?;
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
        let prefix = self.prefill(prompt, longest)?.0.len();

        let used = tokenizer.used_vocabulary().min(self.logits.len());
        let mut log_probabilities = vec![0.0f32; answers.len()];
        let mut path: Vec<u32> = Vec::new();
        // The logarithms of probabilities after each part of the path.
        let mut distributions = vec![log_softmax(&self.logits[..used])?];
        for (tokens, index) in &answers {
            let shared = path.iter().zip(tokens).take_while(|(a, b)| a == b).count();
            path.truncate(shared);
            distributions.truncate(shared + 1);
            self.cache.truncate(&self.model.config.text, prefix + shared);
            // The end token is looked up, not fed.
            for token in &tokens[shared..tokens.len() - 1] {
                self.step(*token);
                path.push(*token);
                distributions.push(log_softmax(&self.logits[..used])?);
            }
            log_probabilities[*index] =
                tokens.iter().zip(&distributions).map(|(token, distribution)| distribution[*token as usize]).sum();
        }
        let normalizer = sampling::normalizer(&log_probabilities);
        let choice = |(text, log_probability): (&str, f32)| Choice {
            text: text.to_owned(),
            log_probability,
            probability: (log_probability - normalizer).exp(),
        };
        Ok(choices.iter().map(AsRef::as_ref).zip(log_probabilities).map(choice).collect())
    }
}

fn log_softmax(logits: &[f32]) -> Result<Vec<f32>> {
    let normalizer = sampling::normalizer(logits);
    if !normalizer.is_finite() {
        return Err(sampling::damaged());
    }
    Ok(logits.iter().map(|logit| logit - normalizer).collect())
}
