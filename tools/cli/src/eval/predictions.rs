//! Answers that were made elsewhere.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use gemmule::answer::detections_in_text;
use gemmule::image::Size;
use serde_json::Value;

use super::objects::Named;
use super::truth;
use crate::rows;

/// One answer.
pub(super) struct Prediction {
    pub(super) text: Option<String>,
    objects: Option<Vec<Value>>,
}

/// The answers of a file, one for each of `total` rows: lines of `gemmule batch`, or objects with "text" (or "prediction",
/// "answer") and perhaps "objects". A "row" says which row of the data it answers; without it they come in the data's order.
///
/// # Errors
/// When a row is not answered, or answered twice.
pub(super) fn read(path: &Path, total: usize) -> Result<Vec<Prediction>> {
    let mut answers: Vec<Option<Prediction>> = Vec::new();
    answers.resize_with(total, || None);
    let mut lines = rows::Lines::open(path)?;
    for index in 0.. {
        let Some(line) = lines.next()? else { break };
        let one = || -> Result<(usize, Prediction)> {
            let value = line.value();
            ensure!(value.is_object(), "it is no JSON object");
            if let Some(error) = value.get("error").filter(|error| !error.is_null()) {
                bail!("it was not answered: {error}");
            }
            let row = match value.get("row") {
                None => index,
                Some(row) => row.as_u64().with_context(|| format!("\"row\" is {row}, no number of a row"))? as usize,
            };
            ensure!(row < total, "it answers row {row}, the data has {total} rows, from 0 on");
            let text = ["text", "prediction", "answer"].iter().find_map(|key| value.get(*key)).map(text).transpose()?;
            let objects =
                value.get("objects").map(|objects| objects.as_array().cloned().context("\"objects\" is no list"));
            let objects = objects.transpose()?;
            ensure!(objects.is_some() || text.is_some(), "it has neither \"text\" nor \"objects\"");
            Ok((row, Prediction { text, objects }))
        };
        let (row, answer) = one().with_context(|| format!("{}: row {index}", path.display()))?;
        ensure!(answers[row].is_none(), "{}: row {index}: row {row} is answered twice", path.display());
        answers[row] = Some(answer);
    }
    let missing = answers.iter().position(Option::is_none);
    if let Some(row) = missing {
        bail!("{}: row {row} of the data has no answer", path.display());
    }
    Ok(answers.into_iter().flatten().collect())
}

/// An answer's text; of a number, its digits.
fn text(value: &Value) -> Result<String> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(_) | Value::Bool(_) => Ok(value.to_string()),
        _ => bail!("its answer is {value}, no text"),
    }
}

impl Prediction {
    /// The objects that it names: those that are listed, or those of its text.
    pub(super) fn objects(&self, masks: bool, size: Option<Size>) -> Result<Vec<Named>> {
        if let Some(objects) = &self.objects {
            return objects.iter().map(|object| named(object, masks)).collect();
        }
        let found = detections_in_text(self.text.as_deref().unwrap_or_default()).objects;
        ensure!(!masks || found.is_empty(), "masks cannot be read from a text: give \"objects\" with a \"mask\"");
        let one = |object: gemmule::answer::Object| {
            let size =
                size.context("its text has location tokens: give the picture's \"width\" and \"height\" in the data")?;
            let edges = object.bounds.pixels(size.width, size.height);
            Ok(Named { label: object.label, edges, mask: None, score: None })
        };
        found.into_iter().map(one).collect()
    }
}

fn named(object: &Value, masks: bool) -> Result<Named> {
    let mask = object.get("mask").and_then(truth::mask);
    let edges = truth::four_numbers(&object["box"]);
    ensure!(
        if masks { mask.is_some() } else { edges.is_some() },
        "an object needs a \"{}\": {object}",
        if masks { "mask" } else { "box" }
    );
    let score = &object["score"];
    ensure!(score.is_null() || score.as_f64().is_some_and(f64::is_finite), "a \"score\" is no number: {object}");
    let score = score.as_f64();
    let label = match &object["label"] {
        Value::Null => String::new(),
        Value::String(label) => label.clone(),
        _ => bail!("a \"label\" is no text: {object}"),
    };
    Ok(Named { label, edges: edges.unwrap_or_default(), mask, score })
}
