//! What a model's makers want of the tokens that follow each other: settings of `generation_config.json` that change what
//! `generate` of transformers answers.

use serde::{Deserialize, Serialize};

/// Rules for the next token, by their names in `generation_config.json`. They change the logits before one is chosen.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct GenerationRules {
    /// Divides (or, below zero, multiplies) the logits of tokens that were there, pictures' and prompt's included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repetition_penalty: Option<f32>,
    /// The other way around, for tokens of the prompt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encoder_repetition_penalty: Option<f32>,
    /// So many tokens in a row are not said twice; 0 for any number.
    #[serde(skip_serializing_if = "is_zero")]
    pub no_repeat_ngram_size: usize,
    /// So many tokens in a row of the prompt are not said again; 0 for any number.
    #[serde(skip_serializing_if = "is_zero")]
    pub encoder_no_repeat_ngram_size: usize,
    /// Sequences that are not said.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub bad_words_ids: Vec<Vec<u32>>,
    /// Added to the logit of a sequence's last token where the others stand before it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sequence_bias: Vec<(Vec<u32>, f32)>,
    /// The answer does not end before prompt and answer have so many tokens.
    #[serde(skip_serializing_if = "is_zero")]
    pub min_length: usize,
    /// The answer does not end before it has so many tokens; takes the place of `min_length`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_new_tokens: Option<usize>,
    /// Tokens that are never said.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub suppress_tokens: Vec<u32>,
    /// Tokens that an answer does not begin with.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub begin_suppress_tokens: Vec<u32>,
    /// What the last token is where the limit of tokens is reached.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub forced_eos_token_id: Vec<u32>,
    /// From so many tokens of the answer on the end's logit grows, by this factor for each token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exponential_decay_length_penalty: Option<(usize, f32)>,
}

fn is_zero(value: &usize) -> bool {
    *value == 0
}

impl GenerationRules {
    /// Whether nothing is ruled.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Checks that numbers can be, and tokens are of the vocabulary.
    ///
    /// # Errors
    /// What is wrong.
    pub fn check(&self, vocabulary: usize) -> Result<(), String> {
        for (name, penalty) in [
            ("repetition_penalty", self.repetition_penalty),
            ("encoder_repetition_penalty", self.encoder_repetition_penalty),
            ("exponential_decay_length_penalty", self.exponential_decay_length_penalty.map(|(_, factor)| factor)),
        ] {
            if penalty.is_some_and(|penalty| !(penalty.is_finite() && penalty > 0.0)) {
                return Err(format!("'{name}' is {}, not above zero", penalty.unwrap_or_default()));
            }
        }
        if let Some((_, bias)) = self.sequence_bias.iter().find(|(_, bias)| !bias.is_finite()) {
            return Err(format!("'sequence_bias' has {bias}"));
        }
        let sequences = self.bad_words_ids.iter().chain(self.sequence_bias.iter().map(|(ids, _)| ids));
        let tokens = sequences.flatten().chain(&self.forced_eos_token_id);
        if let Some(token) = tokens.into_iter().find(|token| **token as usize >= vocabulary) {
            return Err(format!("token {token} of its rules lies outside the vocabulary of {vocabulary}"));
        }
        Ok(())
    }
}
