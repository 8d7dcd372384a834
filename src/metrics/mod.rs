//! How good answers are: the measures of the usual benchmarks, by their official rules, and how sure they are.

mod captions;
mod objects;
mod text;

pub use captions::cider;
pub use objects::{Overlap, match_objects};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
pub use text::{anls, exact_match, relaxed_accuracy, vqa_accuracy};

/// What one row adds to a measure, whose value over all rows is Σ numerator / Σ denominator.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Part {
    /// For a mean over rows, the row's score.
    pub numerator: f64,
    /// For a mean over rows, one.
    pub denominator: f64,
}

impl From<f64> for Part {
    /// One row's score.
    fn from(score: f64) -> Self {
        Self { numerator: score, denominator: 1.0 }
    }
}

/// A value and where it would lie with other rows of the same kind, 95 times in 100.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// Over all rows.
    pub value: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// Drawings of rows.
const DRAWINGS: usize = 2000;

/// A measure over rows; none where no row counts. The interval is the percentile bootstrap's, the same each time.
pub fn estimate(rows: &[Part]) -> Option<Estimate> {
    bootstrap(rows.len(), |drawn| ratio(drawn.iter().map(|index| &rows[*index])))
}

/// The difference between two models' measures over the same rows, which are drawn together.
///
/// # Panics
/// When there are not as many rows of each.
pub fn estimate_difference(rows: &[Part], others: &[Part]) -> Option<Estimate> {
    assert_eq!(rows.len(), others.len(), "rows of the two models");
    bootstrap(rows.len(), |drawn| {
        let of = |rows: &[Part]| ratio(drawn.iter().map(|index| &rows[*index]));
        Some(of(others)? - of(rows)?)
    })
}

fn ratio<'a>(rows: impl Iterator<Item = &'a Part>) -> Option<f64> {
    let (numerator, denominator) = rows
        .fold((0.0, 0.0), |(numerator, denominator), row| (numerator + row.numerator, denominator + row.denominator));
    (denominator > 0.0).then(|| numerator / denominator)
}

fn bootstrap(rows: usize, value: impl Fn(&[usize]) -> Option<f64>) -> Option<Estimate> {
    let mut drawn: Vec<usize> = (0..rows).collect();
    let whole = value(&drawn)?;
    let mut random = ChaCha8Rng::seed_from_u64(0);
    let mut values: Vec<f64> = (0..DRAWINGS)
        .filter_map(|_| {
            // The bias of the remainder is far below what a drawing can show.
            drawn.iter_mut().for_each(|index| *index = (random.next_u64() % rows as u64) as usize);
            value(&drawn)
        })
        .collect();
    values.sort_by(f64::total_cmp);
    let at = |share: f64| values[((values.len() - 1) as f64 * share).round() as usize];
    Some(Estimate { value: whole, low: at(0.025), high: at(0.975) })
}

#[cfg(test)]
mod tests {
    use super::{Part, estimate, estimate_difference};

    #[test]
    fn intervals_are_those_of_a_proportion() {
        let rows: Vec<Part> = (0..1000).map(|row| f64::from(u8::from(row % 4 == 0)).into()).collect();
        let found = estimate(&rows).unwrap();
        // ± 1.96 · sqrt(p (1 − p) / n) = ± 0.0268
        assert!((found.value - 0.25).abs() < 1e-12);
        assert!((found.high - 0.2768).abs() < 0.004 && (found.low - 0.2232).abs() < 0.004, "{found:?}");
        // Rows are drawn together: where both models fail alike, the difference is sure.
        let other: Vec<Part> = rows.iter().map(|row| (row.numerator * 0.5).into()).collect();
        let difference = estimate_difference(&rows, &other).unwrap();
        assert!((difference.value + 0.125).abs() < 1e-12 && difference.high < -0.1, "{difference:?}");
        assert_eq!(estimate(&[]), None);
        assert_eq!(estimate(&[Part::default()]), None);
    }

    #[test]
    fn rows_count_by_their_denominators() {
        let rows = [Part { numerator: 1.0, denominator: 1.0 }, Part { numerator: 0.0, denominator: 3.0 }];
        assert_eq!(estimate(&rows).unwrap().value, 0.25);
    }
}
