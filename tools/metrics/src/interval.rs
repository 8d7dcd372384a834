//! How sure a measure is: 95 % confidence intervals of proportions, means and ratios.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

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

/// A value and its 95 % confidence interval: rows of the same kind being drawn again and again, and an interval made of each draw,
/// 95 in 100 of these hold the value over all such rows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// Over all rows.
    pub value: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// The least and the greatest score that a row can have.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scale {
    /// Least score.
    pub low: f64,
    /// Greatest score.
    pub high: f64,
}

impl Scale {
    /// Scores from 0 to 1, such as shares.
    pub const SHARE: Self = Self { low: 0.0, high: 1.0 };

    /// That of differences between two scores.
    pub fn of_differences(self) -> Self {
        let span = self.high - self.low;
        Self { low: -span, high: span }
    }
}

/// The normal distribution's 97.5 % quantile.
const QUANTILE: f64 = 1.959_963_984_540_054;

/// A measure over rows whose scores lie on a scale; none where no row counts.
///
/// The interval is Wilson's at the effective number of rows. Of scores that are 0 or 1 it is Wilson's own; of others the spread is
/// estimated with a part of a row added at both ends of the scale, so that it holds at ten rows, skewed, and where all rows are
/// alike. (E. B. Wilson, JASA 22, 1927; for the effective number, Korn and Graubard, Survey Methodology 24, 1998.)
pub fn estimate_within(rows: &[Part], scale: Scale) -> Option<Estimate> {
    let (value, scores) = influences(rows)?;
    Some(wilson(value, &scores, scale))
}

/// As [`estimate_within`], of the difference between two models' measures over the same rows.
///
/// # Panics
/// When there are not as many rows of each.
pub fn estimate_difference_within(rows: &[Part], others: &[Part], scale: Scale) -> Option<Estimate> {
    let (value, scores) = differences(rows, others)?;
    Some(wilson(value, &scores, scale.of_differences()))
}

/// A measure over rows of any scores; none where no row counts. Where every score is 0 or 1 the interval is Wilson's, else that of
/// a studentized bootstrap, its tails made as much longer as Student's are than the normal distribution's at so few rows. It is the
/// same each time. (Efron and Tibshirani 1993, chapter 12.5; Hesterberg, The American Statistician 69, 2015.)
pub fn estimate(rows: &[Part]) -> Option<Estimate> {
    let is_proportion = rows.iter().all(|row| row.denominator == 1.0 && [0.0, 1.0].contains(&row.numerator));
    if is_proportion {
        return estimate_within(rows, Scale::SHARE);
    }
    let (value, scores) = influences(rows)?;
    Some(bootstrap(value, &scores))
}

/// As [`estimate`], of the difference between two models' measures over the same rows, which are drawn together.
///
/// # Panics
/// When there are not as many rows of each.
pub fn estimate_difference(rows: &[Part], others: &[Part]) -> Option<Estimate> {
    let (value, scores) = differences(rows, others)?;
    Some(bootstrap(value, &scores))
}

/// The ratio of the sums, and values for the rows whose mean it is and whose spread is its own (its linearization; for a mean
/// these are the rows' scores).
fn influences(rows: &[Part]) -> Option<(f64, Vec<f64>)> {
    let sum = |of: fn(&Part) -> f64| rows.iter().map(of).fold(0.0, |sum, value| sum + value);
    let (numerator, denominator) = (sum(|row| row.numerator), sum(|row| row.denominator));
    let value = (denominator > 0.0).then(|| numerator / denominator)?;
    let mean = denominator / rows.len() as f64;
    Some((value, rows.iter().map(|row| value + (row.numerator - value * row.denominator) / mean).collect()))
}

fn differences(rows: &[Part], others: &[Part]) -> Option<(f64, Vec<f64>)> {
    assert_eq!(rows.len(), others.len(), "rows of the two models");
    let ((one, first), (two, second)) = (influences(rows)?, influences(others)?);
    Some((two - one, first.iter().zip(&second).map(|(one, two)| two - one).collect()))
}

fn wilson(value: f64, scores: &[f64], scale: Scale) -> Estimate {
    /// Parts of a row that are added at each end; less of a long scale that most rows keep away from.
    const ADDED: f64 = 0.5;
    const ADDED_TO_LONG: f64 = 0.1;
    let span = scale.high - scale.low;
    let added = if span > 2.0 { ADDED_TO_LONG } else { ADDED };
    let share = |score: f64| (score - scale.low) / span;
    let (rows, mean) = (scores.len() as f64, share(value));
    let total = rows + 2.0 * added;
    let center = (rows * mean + added) / total;
    let squares: f64 = scores.iter().map(|score| (share(*score) - center).powi(2)).sum();
    let variance = (squares + added * (center * center + (1.0 - center).powi(2))) / total;
    // How many times the variance of a proportion it is.
    let effect = variance / (center * (1.0 - center));
    let part = QUANTILE * QUANTILE * effect / rows;
    let middle = (mean + part / 2.0) / (1.0 + part);
    let half = (part * mean * (1.0 - mean) + part * part / 4.0).max(0.0).sqrt() / (1.0 + part);
    let end = |share: f64| scale.low + span * share;
    Estimate { value, low: end(middle - half).min(value), high: end(middle + half).max(value) }
}

/// Drawings of rows.
const DRAWINGS: usize = 2000;

fn bootstrap(value: f64, scores: &[f64]) -> Estimate {
    let rows = scores.len();
    let sure = Estimate { value, low: value, high: value };
    let squares =
        |mean: f64, values: &mut dyn Iterator<Item = f64>| values.map(|score| (score - mean).powi(2)).sum::<f64>();
    let variance = squares(value, &mut scores.iter().copied()) / (rows as f64 - 1.0).max(1.0);
    if rows < 2 || variance == 0.0 {
        return sure;
    }
    // A drawing of rows that are all alike says nothing about their spread.
    let least = variance / rows as f64;
    let mut random = ChaCha8Rng::seed_from_u64(0);
    let mut drawn = vec![0.0; rows];
    let mut ratios: Vec<f64> = (0..DRAWINGS)
        .map(|_| {
            // The bias of the remainder is far below what a drawing can show.
            drawn.iter_mut().for_each(|score| *score = scores[(random.next_u64() % rows as u64) as usize]);
            let mean = drawn.iter().sum::<f64>() / rows as f64;
            let spread = squares(mean, &mut drawn.iter().copied()) / (rows as f64 - 1.0);
            (mean - value) / (spread.max(least) / rows as f64).sqrt()
        })
        .collect();
    ratios.sort_by(f64::total_cmp);
    let tail = tail_of(rows);
    let at = |share: f64| ratios[((ratios.len() - 1) as f64 * share).round() as usize];
    let error = (variance / rows as f64).sqrt();
    Estimate { value, low: value - at(1.0 - tail) * error, high: value - at(tail) * error }
}

/// The share of drawings beyond each end: the normal distribution's beyond √(n / (n − 1)) times Student's quantile.
fn tail_of(rows: usize) -> f64 {
    let degrees = rows as f64 - 1.0;
    // Student's quantile by its expansion in the degrees of freedom (Abramowitz and Stegun 26.7.5).
    let z = QUANTILE;
    let terms = [
        (z.powi(3) + z) / 4.0,
        (5.0 * z.powi(5) + 16.0 * z.powi(3) + 3.0 * z) / 96.0,
        (3.0 * z.powi(7) + 19.0 * z.powi(5) + 17.0 * z.powi(3) - 15.0 * z) / 384.0,
    ];
    let student = z + terms.iter().zip(1..).map(|(term, power)| term / degrees.powi(power)).sum::<f64>();
    let quantile = (rows as f64 / degrees).sqrt() * student;
    // The normal distribution's tail (Abramowitz and Stegun 26.2.17).
    let t = 1.0 / (1.0 + 0.231_641_9 * quantile);
    let polynomial =
        t * (0.319_381_530 + t * (-0.356_563_782 + t * (1.781_477_937 + t * (-1.821_255_978 + t * 1.330_274_429))));
    (-quantile * quantile / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt() * polynomial
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(ones: usize, rows: usize) -> Vec<Part> {
        (0..rows).map(|row| f64::from(u8::from(row < ones)).into()).collect()
    }

    #[test]
    fn intervals_are_those_of_a_proportion() {
        for (ones, rows, low, high) in [
            (20, 20, 0.838_87, 1.0),
            (0, 20, 0.0, 0.161_13),
            (7, 10, 0.396_778, 0.892_209),
            (250, 1000, 0.224_13, 0.277_75),
        ] {
            for found in [estimate(&shares(ones, rows)), estimate_within(&shares(ones, rows), Scale::SHARE)] {
                let found = found.unwrap();
                assert!(
                    (found.low - low).abs() < 1e-4 && (found.high - high).abs() < 1e-4,
                    "{ones} of {rows}: {found:?}"
                );
                assert!(found.low <= found.value && found.value <= found.high);
            }
        }
        assert_eq!(estimate(&[]), None);
        assert_eq!(estimate(&[Part::default()]), None);
    }

    #[test]
    fn rows_are_drawn_together() {
        let rows = shares(250, 1000);
        let other: Vec<Part> = rows.iter().map(|row| (row.numerator * 0.5).into()).collect();
        for difference in [estimate_difference(&rows, &other), estimate_difference_within(&rows, &other, Scale::SHARE)]
        {
            let difference = difference.unwrap();
            // Where both models fail alike, the difference is sure.
            assert!((difference.value + 0.125).abs() < 1e-12 && difference.high < -0.1, "{difference:?}");
        }
        let same = estimate_difference_within(&rows, &rows, Scale::SHARE).unwrap();
        assert!(same.value == 0.0 && same.low < 0.0 && same.high > 0.0 && same.high < 0.01, "{same:?}");
    }

    #[test]
    fn rows_count_by_their_denominators() {
        let rows = [Part { numerator: 1.0, denominator: 1.0 }, Part { numerator: 0.0, denominator: 3.0 }];
        assert_eq!(estimate(&rows).unwrap().value, 0.25);
        assert_eq!(estimate_within(&rows, Scale::SHARE).unwrap().value, 0.25);
    }

    struct Random(ChaCha8Rng);

    impl Random {
        /// From 0 to 1, neither of them.
        fn share(&mut self) -> f64 {
            ((self.0.next_u64() >> 11) as f64 + 0.5) / (1u64 << 53) as f64
        }

        fn normal(&mut self) -> f64 {
            (-2.0 * self.share().ln()).sqrt() * (2.0 * std::f64::consts::PI * self.share()).cos()
        }
    }

    /// How many in a hundred intervals of `rows` rows hold the value that they are drawn around.
    fn coverage(
        rows: usize,
        value: f64,
        rounds: usize,
        mut draw: impl FnMut(&mut Random) -> f64,
        interval: impl Fn(&[Part]) -> Option<Estimate>,
    ) -> f64 {
        let mut random = Random(ChaCha8Rng::seed_from_u64(rows as u64));
        let held = (0..rounds).filter(|_| {
            let drawn: Vec<Part> = (0..rows).map(|_| draw(&mut random).into()).collect();
            interval(&drawn).is_some_and(|found| found.low <= value && value <= found.high)
        });
        held.count() as f64 / rounds as f64 * 100.0
    }

    #[test]
    fn proportions_are_held_as_often_as_said() {
        for rows in [10, 20, 100] {
            let shares = (1..40).map(|step| f64::from(step) / 40.0);
            let found = shares.map(|share| {
                coverage(rows, share, 300, |random| f64::from(u8::from(random.share() < share)), estimate)
            });
            let mean = found.sum::<f64>() / 39.0;
            assert!((94.0..=96.5).contains(&mean), "{rows} rows: {mean}");
        }
    }

    #[test]
    fn means_are_held_often_enough() {
        let exponential = |random: &mut Random| -random.share().ln();
        let lognormal = |random: &mut Random| random.normal().exp();
        for rows in [10, 20] {
            for (name, found) in [
                ("normal", coverage(rows, 5.0, 400, |random| 5.0 + random.normal(), estimate)),
                ("exponential", coverage(rows, 1.0, 400, exponential, estimate)),
                ("lognormal", coverage(rows, 0.5f64.exp(), 400, lognormal, estimate)),
            ] {
                assert!(found >= 92.0, "{name}, {rows} rows: {found}");
            }
            // Scores such as ANLS has: mostly one, some nothing, some in between.
            let anls = |random: &mut Random| match random.share() {
                kind if kind < 0.8 => 1.0,
                kind if kind < 0.9 => 0.0,
                _ => 0.5 + random.share() / 2.0,
            };
            let found = coverage(rows, 0.8 + 0.1 * 0.75, 400, anls, |rows| estimate_within(rows, Scale::SHARE));
            assert!(found >= 92.0, "ANLS, {rows} rows: {found}");
        }
    }
}
