//! Measures as text and as JSON.

use std::io::Write;
use std::path::Path;

use anyhow::Result;
use gemmule_metrics::{AveragePrecision, Estimate, Part, Scale};
use serde_json::{Value, json};

/// One measure of one model.
pub(super) struct Measure {
    name: &'static str,
    value: Measured,
}

enum Measured {
    /// What each row adds, and the scale of the rows' scores.
    Rows(Vec<Part>, Scale),
    /// A value over all rows at once, which has no interval.
    All(Option<f64>),
}

impl Measure {
    pub(super) fn of_rows(name: &'static str, rows: Vec<Part>, scale: Scale) -> Self {
        Self { name, value: Measured::Rows(rows, scale) }
    }

    pub(super) fn of_all(name: &'static str, value: Option<f64>) -> Self {
        Self { name, value: Measured::All(value) }
    }
}

/// The results of one model, or of one file of answers.
pub(super) struct Run {
    /// Of the model, or the file.
    pub(super) name: String,
    pub(super) answers: Vec<String>,
    pub(super) measures: Vec<Measure>,
    /// Average precision of each label.
    pub(super) labels: Vec<(String, AveragePrecision)>,
}

/// A value, and its interval where there is one.
type Shown = Option<(f64, Option<Estimate>)>;

fn shown(measure: &Measure) -> Shown {
    match &measure.value {
        Measured::Rows(rows, scale) => {
            gemmule_metrics::estimate_within(rows, *scale).map(|found| (found.value, Some(found)))
        }
        Measured::All(value) => value.map(|value| (value, None)),
    }
}

fn difference(one: &Measure, other: &Measure) -> Shown {
    match (&one.value, &other.value) {
        (Measured::Rows(one, scale), Measured::Rows(other, _)) => {
            gemmule_metrics::estimate_difference_within(one, other, *scale).map(|found| (found.value, Some(found)))
        }
        (Measured::All(Some(one)), Measured::All(Some(other))) => Some((other - one, None)),
        _ => None,
    }
}

/// Each measure's name, its values by model, and the difference of the second to the first.
fn table(runs: &[Run]) -> Vec<(&'static str, Vec<Shown>, Shown)> {
    let line = |index: usize| {
        let of = |run: &Run| shown(&run.measures[index]);
        let compared = match runs {
            [one, other] => difference(&one.measures[index], &other.measures[index]),
            _ => None,
        };
        (runs[0].measures[index].name, runs.iter().map(of).collect(), compared)
    };
    // A file without scores has no average precision.
    let count = runs.iter().map(|run| run.measures.len()).min().unwrap_or(0);
    (0..count).map(line).collect()
}

pub(super) fn print(runs: &[Run]) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{} rows; 95 % confidence intervals", runs[0].answers.len())?;
    let short =
        |name: &str| Path::new(name).file_name().map_or(name.to_owned(), |name| name.to_string_lossy().into_owned());
    // The whole path where names alone would not tell them apart.
    let clear = runs.len() < 2 || short(&runs[0].name) != short(&runs[1].name);
    for (name, values, difference) in table(runs) {
        for (run, value) in runs.iter().zip(values) {
            let value = match value {
                None => "no objects".to_owned(),
                Some((value, None)) => format!("{value:7.4}{:18}", ""),
                Some((value, Some(found))) => format!("{value:7.4}  [{:.4}, {:.4}]", found.low, found.high),
            };
            let model = if clear { short(&run.name) } else { run.name.clone() };
            writeln!(out, "{name:<21} {value}  {model}")?;
        }
        match difference {
            None => {}
            Some((value, None)) => writeln!(out, "{:<21} {value:+7.4}", "  difference")?,
            Some((value, Some(found))) => {
                writeln!(out, "{:<21} {value:+7.4}  [{:+.4}, {:+.4}]", "  difference", found.low, found.high)?;
            }
        }
    }
    Ok(())
}

pub(super) fn to_json(runs: &[Run]) -> Value {
    let value = |shown: Shown| {
        shown.map(|(value, found)| {
            json!({ "value": value, "low": found.map(|found| found.low), "high": found.map(|found| found.high) })
        })
    };
    let measures = table(runs).into_iter().map(|(name, values, difference)| {
        json!({ "name": name, "values": values.into_iter().map(value).collect::<Vec<_>>(), "difference": value(difference) })
    });
    let parts = |run: &Run, index: usize| -> Vec<Value> {
        let of_row = |measure: &Measure| match &measure.value {
            Measured::Rows(rows, _) => Some(json!([rows[index].numerator, rows[index].denominator])),
            Measured::All(_) => None,
        };
        run.measures.iter().filter_map(of_row).collect()
    };
    let models = runs.iter().map(|run| {
        let rows = run.answers.iter().enumerate().map(|(index, text)| json!({ "text": text, "parts": parts(run, index) }));
        let mut model = json!({ "model": run.name, "rows": rows.collect::<Vec<_>>() });
        if !run.labels.is_empty() {
            let label = |(label, found): &(String, AveragePrecision)| {
                json!({ "label": label, "ap": found.ap, "ap50": found.ap50, "ap75": found.ap75, "ar": found.ar })
            };
            model["labels"] = run.labels.iter().map(label).collect();
        }
        model
    });
    json!({ "measures": measures.collect::<Vec<_>>(), "models": models.collect::<Vec<_>>() })
}
