//! CIDEr-D of captions (Vedantam et al., <https://arxiv.org/abs/1411.5726>), as `pycocoevalcap` computes it.

use std::collections::{HashMap, HashSet};

use super::penn::words;

/// Longest sequences of words that are compared.
const LONGEST: usize = 4;
/// Spread of the penalty for another length.
const SPREAD: f64 = 6.0;

type Counts = HashMap<Vec<String>, f64>;

/// The score of each answer against its references, 0 … 10; the corpus score is their mean. How much a word counts depends on
/// the references of all rows.
///
/// # Panics
/// When there are not as many answers as lists of references.
pub fn cider(answers: &[String], references: &[Vec<String>]) -> Vec<f64> {
    assert_eq!(answers.len(), references.len(), "answers and references");
    let references: Vec<Vec<Counts>> =
        references.iter().map(|texts| texts.iter().map(|text| count(&words(text))).collect()).collect();
    let mut documents: HashMap<&Vec<String>, f64> = HashMap::new();
    for texts in &references {
        for sequence in texts.iter().flat_map(HashMap::keys).collect::<HashSet<_>>() {
            *documents.entry(sequence).or_default() += 1.0;
        }
    }
    let rows = (references.len() as f64).ln();
    let vector = |counts: &Counts| {
        let weigh = |(sequence, count): (&Vec<String>, &f64)| {
            let seen = documents.get(sequence).copied().unwrap_or(0.0).max(1.0);
            (sequence.clone(), count * (rows - seen.ln()))
        };
        let weights: Counts = counts.iter().map(weigh).collect();
        let mut norms = [0.0; LONGEST];
        for (sequence, weight) in sorted(&weights) {
            norms[sequence.len() - 1] += weight * weight;
        }
        // The reference measures length in pairs of words.
        let length: f64 = counts.iter().filter(|(sequence, _)| sequence.len() == 2).map(|(_, count)| count).sum();
        (weights, norms.map(f64::sqrt), length)
    };
    let score = |(answer, references): (&String, &Vec<Counts>)| {
        let (weights, norms, length) = vector(&count(&words(answer)));
        let mut total = 0.0;
        for reference in references {
            let (other_weights, other_norms, other_length) = vector(reference);
            let mut products = [0.0; LONGEST];
            for (sequence, weight) in sorted(&weights) {
                let other = other_weights.get(sequence).copied().unwrap_or(0.0);
                products[sequence.len() - 1] += weight.min(other) * other;
            }
            let penalty = (-(length - other_length).powi(2) / (2.0 * SPREAD * SPREAD)).exp();
            for (product, norm) in products.iter().zip(norms.iter().zip(other_norms).map(|(a, b)| a * b)) {
                total += if norm == 0.0 { *product } else { product / norm } * penalty;
            }
        }
        if references.is_empty() { 0.0 } else { total / LONGEST as f64 / references.len() as f64 * 10.0 }
    };
    answers.iter().zip(&references).map(score).collect()
}

/// In an order of their own, so that sums round the same way each time.
fn sorted(weights: &Counts) -> Vec<(&Vec<String>, f64)> {
    let mut weights: Vec<_> = weights.iter().map(|(sequence, weight)| (sequence, *weight)).collect();
    weights.sort_by_key(|(sequence, _)| *sequence);
    weights
}

fn count(words: &[String]) -> Counts {
    let mut counts = Counts::new();
    for length in 1..=LONGEST {
        for sequence in words.windows(length) {
            *counts.entry(sequence.to_vec()).or_default() += 1.0;
        }
    }
    counts
}
