//! Choosing the next token.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::{Error, Result};

/// How the next token is chosen; [`GenerateOptions`](super::GenerateOptions) says what each field means.
#[derive(Clone, Debug)]
pub(super) struct Sampling {
    pub(super) temperature: f32,
    pub(super) top_k: usize,
    pub(super) top_p: f32,
    pub(super) seed: u64,
}

impl Default for Sampling {
    /// Greedy.
    fn default() -> Self {
        Self { temperature: 0.0, top_k: 0, top_p: 1.0, seed: 0 }
    }
}

/// What to subtract from logits to have the logarithms of probabilities: ln Σ exp(logit).
pub(super) fn normalizer(logits: &[f32]) -> f32 {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|logit| f64::from(gemmule_quant::vector::exp(logit - largest))).sum();
    (f64::from(largest) + sum.ln()) as f32
}

/// A token and what it weighs among others: its logit, or a number that grows with it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Candidate {
    pub(super) weight: f32,
    pub(super) id: u32,
}

/// The `count` largest logits and their tokens, best first.
pub(super) fn likeliest(logits: &[f32], count: usize) -> Vec<Candidate> {
    if count == 0 {
        return Vec::new();
    }
    let mut candidates: Vec<Candidate> =
        logits.iter().zip(0..).map(|(logit, id)| Candidate { weight: *logit, id }).collect();
    if (1..candidates.len()).contains(&count) {
        candidates.select_nth_unstable_by(count - 1, descending);
        candidates.truncate(count);
    }
    candidates.sort_unstable_by(descending);
    candidates
}

#[derive(Debug)]
pub(super) struct Sampler {
    options: Sampling,
    random: ChaCha8Rng,
    candidates: Vec<Candidate>,
}

impl Sampler {
    pub(super) fn new(options: &Sampling) -> Result<Self> {
        if !(0.0..=1000.0).contains(&options.temperature) {
            return Err(Error::Request(format!("temperature {} is not between 0 and 1000", options.temperature)));
        }
        if !(options.top_p > 0.0 && options.top_p <= 1.0) {
            return Err(Error::Request(format!("top-p {} is not above 0 and at most 1", options.top_p)));
        }
        let random = ChaCha8Rng::seed_from_u64(options.seed);
        Ok(Self { options: options.clone(), random, candidates: Vec::new() })
    }

    /// Whether it takes the likeliest token each time.
    pub(super) fn is_greedy(&self) -> bool {
        self.options.temperature == 0.0
    }

    /// The next token, by the logits of those that may be chosen: rows past the used vocabulary are untrained.
    pub(super) fn next(&mut self, logits: &[f32]) -> Result<u32> {
        let used = logits.len();
        if logits.iter().any(|logit| logit.is_nan()) {
            return Err(damaged());
        }
        if self.is_greedy() {
            // The first of equals, as in the reference.
            let best = logits.iter().enumerate().reduce(|best, next| if next.1 > best.1 { next } else { best });
            return best.map(|(id, _)| id as u32).ok_or_else(|| Error::Request("the vocabulary is empty".to_owned()));
        }
        let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        if !largest.is_finite() {
            return Err(damaged());
        }
        let weight = |logit: f32| ((logit - largest) / self.options.temperature).exp();
        self.candidates.clear();
        let candidate = |(logit, id): (&f32, u32)| Candidate { weight: weight(*logit), id };
        self.candidates.extend(logits.iter().zip(0..).map(candidate));
        if (1..used).contains(&self.options.top_k) {
            self.candidates.select_nth_unstable_by(self.options.top_k - 1, descending);
            self.candidates.truncate(self.options.top_k);
            // In an order of our own: a seed has to draw the same tokens everywhere.
            self.candidates.sort_unstable_by(descending);
        }
        if self.options.top_p < 1.0 {
            keep_mass(&mut self.candidates, f64::from(self.options.top_p));
        }
        let total: f64 = self.candidates.iter().map(|candidate| f64::from(candidate.weight)).sum();
        let mut point = (self.random.next_u64() >> 11) as f64 / (1u64 << 53) as f64 * total;
        for candidate in &self.candidates {
            point -= f64::from(candidate.weight);
            if point < 0.0 {
                return Ok(candidate.id);
            }
        }
        // Rounding left the point at the very end: the last that has any weight.
        let last = self.candidates.iter().rfind(|candidate| candidate.weight > 0.0);
        last.map(|candidate| candidate.id).ok_or_else(|| Error::Request("the vocabulary is empty".to_owned()))
    }
}

pub(super) fn damaged() -> Error {
    Error::Request("the model's output is not a number: the weights are damaged or overflow in this format".to_owned())
}

fn descending(a: &Candidate, b: &Candidate) -> std::cmp::Ordering {
    b.weight.total_cmp(&a.weight).then(a.id.cmp(&b.id))
}

/// Keeps the fewest of the heaviest candidates that together have `share` of the weight. Sorts no more of them than needed:
/// of a vocabulary of 257,216 it is mostly a handful.
fn keep_mass(candidates: &mut Vec<Candidate>, share: f64) {
    let limit = share * candidates.iter().map(|candidate| f64::from(candidate.weight)).sum::<f64>();
    let mut sorted = 64;
    loop {
        sorted = candidates.len().min(sorted * 4);
        if sorted < candidates.len() {
            candidates.select_nth_unstable_by(sorted - 1, descending);
        }
        candidates[..sorted].sort_unstable_by(descending);
        let mut mass = 0.0;
        for (index, candidate) in candidates[..sorted].iter().enumerate() {
            mass += f64::from(candidate.weight);
            if mass >= limit {
                return candidates.truncate(index + 1);
            }
        }
        if sorted == candidates.len() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draw(options: Sampling, logits: &[f32], used: usize) -> Vec<u32> {
        let mut sampler = Sampler::new(&options).unwrap();
        (0..400).map(|_| sampler.next(&logits[..used]).unwrap()).collect()
    }

    #[test]
    fn greedy_takes_the_first_of_the_largest_and_no_unused_row() {
        let options = Sampling::default();
        assert_eq!(draw(options, &[0.0, 3.0, 3.0, 9.0], 3)[0], 1);
    }

    #[test]
    fn frequencies_follow_the_probabilities() {
        let options = Sampling { temperature: 1.0, ..Sampling::default() };
        let drawn = draw(options, &[0.0, 3.0f32.ln(), f32::NEG_INFINITY, 9.0], 3);
        let ones = drawn.iter().filter(|id| **id == 1).count();
        assert!((250..350).contains(&ones) && drawn.iter().all(|id| *id < 2), "{ones} of 400");
    }

    #[test]
    fn top_k_and_top_p_cut_the_tail() {
        let logits = [0.0, 1.0, 2.0, 3.0];
        let base = Sampling { temperature: 5.0, ..Sampling::default() };
        assert!(draw(Sampling { top_k: 2, ..base.clone() }, &logits, 4).iter().all(|id| *id >= 2));
        assert!(draw(Sampling { top_p: 1e-6, ..base.clone() }, &logits, 4).iter().all(|id| *id == 3));
        let all = draw(base, &logits, 4);
        assert!((0..4).all(|id| all.contains(&id)));
    }

    #[test]
    fn the_same_seed_draws_the_same_tokens() {
        let options = |seed| Sampling { temperature: 1.0, seed, ..Sampling::default() };
        let logits = [0.1, 0.2, 0.3, 0.4, 0.5];
        assert_eq!(draw(options(7), &logits, 5), draw(options(7), &logits, 5));
        assert_ne!(draw(options(7), &logits, 5), draw(options(8), &logits, 5));
    }

    #[test]
    fn logarithms_of_probabilities_are_those_of_a_softmax() {
        let logits = [1.0f32, 3.0, -2.0, 3.0];
        let sum: f32 = logits.iter().map(|logit| logit.exp()).sum();
        assert!((normalizer(&logits) - sum.ln()).abs() < 1e-6);
        let pairs: Vec<_> = likeliest(&logits, 3).iter().map(|candidate| (candidate.weight, candidate.id)).collect();
        assert_eq!(pairs, [(3.0, 1), (3.0, 3), (1.0, 0)]);
        assert_eq!(likeliest(&logits, 9).len(), 4);
    }

    #[test]
    fn what_is_not_a_number_is_an_error() {
        assert!(Sampler::new(&Sampling::default()).unwrap().next(&[0.0, f32::NAN]).is_err());
        assert!(Sampler::new(&Sampling { temperature: f32::NAN, ..Sampling::default() }).is_err());
        assert!(Sampler::new(&Sampling { top_p: 0.0, ..Sampling::default() }).is_err());
    }
}
