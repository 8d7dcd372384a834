//! CIDEr-D of captions (Vedantam et al., <https://arxiv.org/abs/1411.5726>), as `pycocoevalcap` computes it.

use std::collections::{HashMap, HashSet};

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

/// Words as the Penn Treebank's tokenizer parts captions, in lower case and without punctuation: contractions become two
/// words ("do n't", "dog 's"), numbers and words with inner hyphens stay whole, brackets become words. Its lists of
/// abbreviations ("no. 5") are left out.
fn words(text: &str) -> Vec<String> {
    let text = text.to_lowercase().replace(['’', '‘'], "'");
    let mut words = Vec::new();
    for piece in text.split_whitespace() {
        let chars: Vec<char> = piece.chars().collect();
        let mut word = String::new();
        for (at, &char) in chars.iter().enumerate() {
            let near = |step: isize| at.checked_add_signed(step).and_then(|at| chars.get(at)).copied();
            let between = |kind: fn(char) -> bool| near(-1).is_some_and(kind) && near(1).is_some_and(kind);
            let inner = match char {
                '-' | '\'' | '&' => between(char::is_alphanumeric),
                '.' | ',' | ':' | '/' => between(|char| char.is_ascii_digit()),
                _ => char.is_alphanumeric() || char == '_',
            };
            if inner {
                word.push(char);
                continue;
            }
            part(&mut words, &word);
            word.clear();
            words.extend(word_of(char));
        }
        part(&mut words, &word);
    }
    words
}

/// The word that a sign becomes; punctuation becomes none.
fn word_of(char: char) -> Option<String> {
    Some(match char {
        '(' => "-lrb-".to_owned(),
        ')' => "-rrb-".to_owned(),
        '[' => "-lsb-".to_owned(),
        ']' => "-rsb-".to_owned(),
        '{' => "-lcb-".to_owned(),
        '}' => "-rcb-".to_owned(),
        '$' | '%' | '#' | '@' | '&' | '*' | '+' | '=' | '/' | '<' | '>' => char.to_string(),
        _ => return None,
    })
}

/// Parts a contraction.
fn part(words: &mut Vec<String>, word: &str) {
    if word.is_empty() {
        return;
    }
    let endings = ["n't", "'s", "'re", "'ve", "'ll", "'d", "'m"];
    let contraction = if word == "cannot" { Some(("can", "not")) } else { None };
    let split =
        |ending: &'static str| word.strip_suffix(ending).filter(|start| !start.is_empty()).map(|start| (start, ending));
    match contraction.or_else(|| endings.into_iter().find_map(split)) {
        Some((start, end)) => words.extend([start.to_owned(), end.to_owned()]),
        None => words.push(word.to_owned()),
    }
}
