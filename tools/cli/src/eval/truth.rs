//! What is right: the rows of the data, all of which are read before the first is answered.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use gemmule::answer::{Mask, detections_in_text};
use gemmule::image::Size;
use serde_json::Value;

use super::metric::Metric;
use crate::rows;

/// Three annotators who agree make a full point of VQA accuracy, and one is left out each time.
const LEAST_ANNOTATORS: usize = 4;

/// What one row asks for.
pub(super) enum Truth {
    /// Any of these texts.
    Texts(Vec<String>),
    /// These objects.
    Objects(Vec<Object>),
}

/// An object that is there.
pub(super) struct Object {
    /// What it is; empty where the data gives places only.
    pub(super) label: String,
    pub(super) shape: Shape,
    /// It stands for any number of objects, none of which has to be found.
    pub(super) crowd: bool,
    /// It does not count.
    pub(super) ignored: bool,
}

/// Where an object is.
pub(super) enum Shape {
    /// `[x_min, y_min, x_max, y_max]` in pixels.
    Box([f64; 4]),
    /// As shares of the picture's sides, from location tokens.
    Share([f64; 4]),
    Mask(Mask),
}

/// The row, and the size that it gives its picture.
pub(super) struct Row {
    pub(super) truth: Truth,
    pub(super) size: Option<Size>,
}

/// Reads what is right in every row, and what was read of the file.
///
/// # Errors
/// When a row has no right answer, or none for this metric; with `asks`, also when it has no prompt or no pictures.
pub(super) fn read(path: &Path, metric: Metric, asks: bool) -> Result<(Vec<Row>, rows::Seen)> {
    let mut lines = rows::Lines::open(path)?;
    let mut truths = Vec::new();
    while let Some(line) = lines.next()? {
        let one = || -> Result<Row> {
            let value = line.value();
            ensure!(value.is_object(), "it is no JSON object");
            if asks {
                line.row()?;
            }
            let size = side(&value, "width")?.zip(side(&value, "height")?);
            let size = size.map(|(width, height)| Size::new(width, height));
            let truth = match metric {
                Metric::Boxes | Metric::Masks => Truth::Objects(objects(&value, metric == Metric::Masks)?),
                _ => Truth::Texts(texts(&value, metric)?),
            };
            Ok(Row { truth, size })
        };
        truths.push(one().with_context(|| format!("{}: row {}", path.display(), truths.len()))?);
    }
    ensure!(!truths.is_empty(), "{}: it has no rows", path.display());
    Ok((truths, lines.seen()))
}

/// A side of a row's picture in pixels, where it is given.
fn side(row: &Value, key: &str) -> Result<Option<u32>> {
    let value = &row[key];
    let side = value.as_u64().filter(|side| *side > 0).and_then(|side| u32::try_from(side).ok());
    ensure!(value.is_null() || side.is_some(), "\"{key}\" is {value}, no number of pixels");
    Ok(side)
}

fn texts(row: &Value, metric: Metric) -> Result<Vec<String>> {
    let texts = rows::answers(row)?.context(rows::WANTED_ANSWERS)?;
    // With one of them left out, fewer annotators could never agree to a full point.
    ensure!(
        metric != Metric::Vqa || texts.len() >= LEAST_ANNOTATORS,
        "VQA accuracy compares with what others say: give the \"answers\" of ten people ({LEAST_ANNOTATORS} at least), or measure \
         --metric exact"
    );
    Ok(texts)
}

fn objects(row: &Value, masks: bool) -> Result<Vec<Object>> {
    if let (None, Some(suffix), false) = (row.get("objects"), row.get("suffix").and_then(Value::as_str), masks) {
        let found = detections_in_text(suffix);
        if let Some(part) = found.malformed.first() {
            anyhow::bail!("\"suffix\" has '{}': {}", part.text, part.reason);
        }
        let object = |object: gemmule::answer::Object| Object {
            shape: Shape::Share(object.bounds.normalized()),
            label: object.label,
            crowd: false,
            ignored: false,
        };
        return Ok(found.objects.into_iter().map(object).collect());
    }
    let objects = row.get("objects").and_then(Value::as_array).context("\"objects\" must be a list")?;
    objects.iter().map(|value| object(value, masks).with_context(|| format!("an object is wrong: {value}"))).collect()
}

fn object(value: &Value, masks: bool) -> Result<Object> {
    ensure!(value.is_object(), "it is no JSON object");
    let flag = |key: &str| match &value[key] {
        Value::Null => Ok(false),
        Value::Bool(flag) => Ok(*flag),
        number if number.as_f64() == Some(0.0) => Ok(false),
        number if number.as_f64() == Some(1.0) => Ok(true),
        other => anyhow::bail!("\"{key}\" is {other}, neither true nor false (1 nor 0)"),
    };
    let label = match &value["label"] {
        Value::Null => String::new(),
        Value::String(label) => label.clone(),
        other => anyhow::bail!("\"label\" is {other}, no text"),
    };
    let shape = if masks {
        let wanted = "it needs a \"mask\" of the picture's size, COCO's {\"size\": [height, width], \"counts\": \"…\"}";
        Shape::Mask(mask(&value["mask"]).context(wanted)?)
    } else {
        let wanted = "it needs a \"box\" [x_min, y_min, x_max, y_max] in pixels within the picture";
        Shape::Box(edges(&value["box"]).context(wanted)?)
    };
    Ok(Object { label, shape, crowd: flag("iscrowd")?, ignored: flag("ignore")? })
}

pub(super) fn mask(value: &Value) -> Option<Mask> {
    let side = |at: usize| value["size"][at].as_u64().and_then(|side| u32::try_from(side).ok());
    Mask::from_counts(value["counts"].as_str()?, side(1)?, side(0)?)
}

pub(super) fn four_numbers(value: &Value) -> Option<[f64; 4]> {
    let numbers: Vec<f64> = value.as_array()?.iter().map(Value::as_f64).collect::<Option<_>>()?;
    numbers.try_into().ok()
}

/// The edges of a box; none where they are in the wrong order, as a width and a height in place of the far edges mostly are.
fn edges(value: &Value) -> Option<[f64; 4]> {
    let edges = four_numbers(value)?;
    let [x_min, y_min, x_max, y_max] = edges;
    (x_min < x_max && y_min < y_max && x_min >= -1.0 && y_min >= -1.0).then_some(edges)
}
