//! A model's rules for the next token, in the order in which `generate` of transformers applies them
//! (`generation/logits_process.py`, `_get_logits_processor`).

use std::collections::BTreeSet;

use crate::config::GenerationRules;

/// The rules, and what they are applied to.
pub(super) struct Rules<'a> {
    pub(super) rules: &'a GenerationRules,
    /// Tokens that end an answer.
    pub(super) ends: &'a [u32],
    /// Tokens of the prefix, pictures' included.
    pub(super) prefix: usize,
    /// Most tokens of the answer.
    pub(super) most: usize,
}

impl Rules<'_> {
    /// Changes the logits of the token that follows `ids`: prefix and answer so far.
    pub(super) fn apply(&self, ids: &[u32], logits: &mut [f32]) {
        let rules = self.rules;
        let (prompt, answered) = (&ids[..self.prefix], ids.len() - self.prefix);
        let longer = rules.sequence_bias.iter().map(|(sequence, bias)| (&sequence[..], *bias));
        add_biases(longer, ids, logits);
        if let Some(penalty) = rules.encoder_repetition_penalty {
            penalize(prompt, 1.0 / penalty, logits);
        }
        if let Some(penalty) = rules.repetition_penalty {
            penalize(ids, penalty, logits);
        }
        forbid_repetition(ids, ids, rules.no_repeat_ngram_size, logits);
        forbid_repetition(prompt, ids, rules.encoder_no_repeat_ngram_size, logits);
        let is_end = |sequence: &[u32]| sequence.len() == 1 && self.ends.contains(&sequence[0]);
        let bad = rules.bad_words_ids.iter().filter(|sequence| !is_end(sequence));
        add_biases(bad.map(|sequence| (&sequence[..], f32::NEG_INFINITY)), ids, logits);
        let too_short = match rules.min_new_tokens {
            Some(least) => answered < least,
            None => ids.len() < rules.min_length,
        };
        if too_short {
            forbid(self.ends, logits);
        }
        if !rules.forced_eos_token_id.is_empty() && answered + 1 == self.most {
            logits.fill(f32::NEG_INFINITY);
            set(&rules.forced_eos_token_id, 0.0, logits);
        }
        if let Some((start, factor)) = rules.exponential_decay_length_penalty
            && answered > start
        {
            let growth = (f64::from(factor).powi((answered - start) as i32) - 1.0).min(f64::from(f32::MAX)) as f32;
            for end in self.ends {
                if let Some(logit) = logits.get_mut(*end as usize).filter(|logit| logit.is_finite()) {
                    *logit += logit.abs() * growth;
                }
            }
        }
        forbid(&rules.suppress_tokens, logits);
        if answered == 0 {
            forbid(&rules.begin_suppress_tokens, logits);
        }
    }
}

fn set(tokens: &[u32], value: f32, logits: &mut [f32]) {
    for token in tokens {
        if let Some(logit) = logits.get_mut(*token as usize) {
            *logit = value;
        }
    }
}

fn forbid(tokens: &[u32], logits: &mut [f32]) {
    set(tokens, f32::NEG_INFINITY, logits);
}

/// A bias for the last token of each sequence whose other tokens stand at the end of `ids`.
fn add_biases<'a>(sequences: impl Iterator<Item = (&'a [u32], f32)>, ids: &[u32], logits: &mut [f32]) {
    for (sequence, bias) in sequences {
        let Some((last, before)) = sequence.split_last() else { continue };
        if ids.ends_with(before)
            && let Some(logit) = logits.get_mut(*last as usize)
        {
            *logit += bias;
        }
    }
}

/// Each token once, however often it is there.
fn penalize(ids: &[u32], penalty: f32, logits: &mut [f32]) {
    for token in ids.iter().collect::<BTreeSet<_>>() {
        if let Some(logit) = logits.get_mut(*token as usize) {
            *logit = if *logit < 0.0 { *logit * penalty } else { *logit / penalty };
        }
    }
}

/// Forbids tokens that would repeat, at the end of `ids`, a run of `size` tokens of `seen`.
fn forbid_repetition(seen: &[u32], ids: &[u32], size: usize, logits: &mut [f32]) {
    if size == 0 || ids.len() < size {
        return;
    }
    let last = &ids[ids.len() + 1 - size..];
    for run in seen.windows(size).filter(|run| run[..size - 1] == *last) {
        forbid(&run[size - 1..], logits);
    }
}
