use std::io::Write;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};
use gemmule::answer::{Bounds, Mask};
use gemmule::metrics::{self, Estimate, Overlap, Part};
use gemmule::{GenerateOptions, Model, Picture};
use indicatif::ProgressBar;
use serde_json::{Value, json};

use super::answers::{Found, ObjectArguments};
use super::rows::{self, Shown, Work};
use super::{ComputeArguments, ModelArguments, print_json};

/// Measure how good a model's answers are, or two models' side by side.
///
/// Answers every row of DATA.jsonl and compares with what is right. A row is as in `gemmule batch`, with "answers", a list of
/// right ones ("answer" for a single one), or for boxes and masks "objects": a list of {"label": "cat", "box": [x_min, y_min,
/// x_max, y_max]} in pixels, or of {"label": "cat", "mask": {"size": [height, width], "counts": "…"}}, COCO's compressed runs.
///
/// Prints each measure with the interval in which it would lie for other rows of the same kind, 95 times in 100. With
/// --against, both models answer the same rows, and the difference gets its own interval.
#[derive(Args)]
pub(super) struct Eval {
    /// Prompts and right answers.
    #[arg(value_name = "DATA.jsonl")]
    data: PathBuf,
    /// How answers are compared.
    #[arg(long, value_enum)]
    metric: Metric,
    #[command(flatten)]
    model: ModelArguments,
    /// A second model for the same rows.
    #[arg(long, value_name = "MODEL.gguf")]
    against: Option<PathBuf>,
    /// The second model's vision half, where it is a pair.
    #[arg(long, value_name = "FILE", requires = "against")]
    against_mmproj: Option<PathBuf>,
    /// Most tokens of an answer, where a row does not say.
    #[arg(short = 'n', long, value_name = "N", default_value_t = 256)]
    max_tokens: usize,
    #[command(flatten)]
    objects: ObjectArguments,
    /// Print one JSON object, with each row's answer and score.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    compute: ComputeArguments,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Metric {
    /// VQAv2's accuracy over ten annotators, with its normalization.
    Vqa,
    /// The answer is a right one but for case and outer space (GQA, AI2D).
    Exact,
    /// Average normalized Levenshtein similarity (DocVQA).
    Anls,
    /// Numbers may be off by 5 % (ChartQA).
    Relaxed,
    /// CIDEr-D of captions; 10 is the most.
    Cider,
    /// Objects found by their boxes.
    Boxes,
    /// Objects found by their masks.
    Masks,
}

/// Least overlap with which an object counts as found.
const FOUND: f64 = 0.5;

/// Annotators whose agreement makes a full point of VQA accuracy, and the one who is left out.
const LEAST_ANNOTATORS: usize = 4;

/// One measure of one model: its name and what each row adds.
type Measure = (&'static str, Vec<Part>);

/// A measure of one answer by the right ones.
type TextMeasure = fn(&str, &[String]) -> f64;

/// A measure of all models: its name, their estimates, and the difference of the second to the first.
type Estimates = (&'static str, Vec<Option<Estimate>>, Option<Estimate>);

/// What one model did.
struct Run {
    answers: Vec<String>,
    measures: Vec<Measure>,
}

impl Eval {
    pub(super) fn execute(self) -> Result<()> {
        let total = rows::count(&self.data)?;
        ensure!(
            self.metric != Metric::Cider || total > 1,
            "{}: CIDEr weighs words by the rows they are in, so it needs more than one row",
            self.data.display()
        );
        let first = self.model.open()?;
        let second = self.against.as_ref().map(|path| match &self.against_mmproj {
            Some(mmproj) => Model::open_pair(path, mmproj),
            None => Model::open(path),
        });
        let second = second.transpose()?;
        let models = [
            Some((&first, self.model.name())),
            second.as_ref().zip(self.against.as_ref().map(|path| path.display().to_string())),
        ];
        let bar = rows::progress(total * models.iter().flatten().count(), 0)?;
        let mut runs = Vec::new();
        for (model, name) in models.into_iter().flatten() {
            runs.push((name, self.run(model, &bar)?));
        }
        bar.finish_and_clear();
        if self.json { print_json(&to_json(&runs)) } else { print(&runs) }
    }

    /// Answers all rows. A row that cannot be answered or lacks what is right ends the measurement: leaving it out would change
    /// what is measured.
    fn run(&self, model: &Model, bar: &ProgressBar) -> Result<Run> {
        let mut shown = Shown::new(self.compute.session(model)?);
        let (mut answers, mut references, mut overlaps) = (Vec::new(), Vec::new(), Vec::new());
        std::thread::scope(|scope| -> Result<()> {
            for (index, (input, work)) in rows::read(scope, &self.data, 0)?.iter().enumerate() {
                let one = || -> Result<()> {
                    let work = work?;
                    if self.metric.is_about_objects() {
                        let (text, overlap) = self.find_objects(model, &mut shown, &work, &input)?;
                        answers.push(text);
                        overlaps.push(overlap);
                    } else {
                        references.push(self.metric.check(right_answers(&input)?)?);
                        answers.push(self.answer(&mut shown, &work, false)?.text);
                    }
                    Ok(())
                };
                one().with_context(|| format!("{}: row {index}", self.data.display()))?;
                bar.inc(1);
            }
            Ok(())
        })?;
        let measures = match self.metric.text_measure() {
            Some((name, measure)) => {
                vec![(name, answers.iter().zip(&references).map(|(a, r)| measure(a, r).into()).collect())]
            }
            None if self.metric == Metric::Cider => {
                vec![("CIDEr", metrics::cider(&answers, &references).into_iter().map(Part::from).collect())]
            }
            None => object_measures(&overlaps),
        };
        Ok(Run { answers, measures })
    }

    fn answer(&self, shown: &mut Shown<'_>, work: &Work, probabilities: bool) -> Result<gemmule::Answer> {
        let options = GenerateOptions {
            max_tokens: work.row.max_tokens.unwrap_or(self.max_tokens),
            probabilities,
            ..GenerateOptions::default()
        };
        Ok(shown.show(work)?.ask(&work.row.prompt, &options, |_| ControlFlow::Continue(()))?)
    }

    fn find_objects(
        &self,
        model: &Model,
        shown: &mut Shown<'_>,
        work: &Work,
        input: &Value,
    ) -> Result<(String, Overlap)> {
        let [picture] = &work.pictures[..] else {
            anyhow::bail!("objects need one picture, not {}", work.pictures.len())
        };
        let masks = self.metric == Metric::Masks;
        ensure!(!masks || model.decodes_masks(), "the model holds no mask decoder: convert with --seg-vae vae-oid.npz");
        let there = right_objects(input, picture, masks)?;
        let answer = self.answer(shown, work, true)?;
        let found = Found::read(&self.objects, &mut shown.session, model, (&answer, &work.pictures))?;
        let labels: Vec<&str> = there.iter().map(|(label, _)| label.as_str()).collect();
        let answered: Vec<&str> = found.detections.objects.iter().map(|object| object.label.as_str()).collect();
        let overlap =
            metrics::match_objects(&labels, &answered, |one, other| match (&there[one].1, &found.masks[other]) {
                (Shape::Box(bounds), _) => bounds.overlap(&found.detections.objects[other].bounds),
                (Shape::Mask(mask), Some(other)) => mask.overlap(other),
                (Shape::Mask(_), None) => 0.0,
            });
        Ok((answer.text, overlap))
    }
}

impl Metric {
    fn check(self, references: Vec<String>) -> Result<Vec<String>> {
        // A single annotator left out leaves nobody to agree with.
        ensure!(
            self != Self::Vqa || references.len() >= LEAST_ANNOTATORS,
            "VQA accuracy compares with what others say: give the \"answers\" of ten people ({LEAST_ANNOTATORS} at least), \
             or measure --metric exact"
        );
        Ok(references)
    }

    fn is_about_objects(self) -> bool {
        matches!(self, Self::Boxes | Self::Masks)
    }

    fn text_measure(self) -> Option<(&'static str, TextMeasure)> {
        match self {
            Self::Vqa => Some(("VQA accuracy", metrics::vqa_accuracy)),
            Self::Exact => Some(("exact match", metrics::exact_match)),
            Self::Anls => Some(("ANLS", metrics::anls)),
            Self::Relaxed => Some(("relaxed accuracy", metrics::relaxed_accuracy)),
            Self::Cider | Self::Boxes | Self::Masks => None,
        }
    }
}

/// Where an object is.
enum Shape {
    Box(Bounds),
    Mask(Mask),
}

fn right_answers(input: &Value) -> Result<Vec<String>> {
    let single = || input.get("answer").map(std::slice::from_ref);
    let answers = match input.get("answers") {
        Some(list) => list.as_array().map(Vec::as_slice),
        None => single(),
    };
    let texts = answers.and_then(|answers| answers.iter().map(|answer| answer.as_str().map(str::to_owned)).collect());
    texts
        .filter(|texts: &Vec<String>| !texts.is_empty())
        .context("\"answers\" must be a list of texts, or \"answer\" a text")
}

fn right_objects(input: &Value, picture: &Picture, masks: bool) -> Result<Vec<(String, Shape)>> {
    let objects = input.get("objects").and_then(Value::as_array).context("\"objects\" must be a list")?;
    let (width, height) = (picture.width(), picture.height());
    let shape = |object: &Value| -> Option<(String, Shape)> {
        let label = object["label"].as_str()?.to_owned();
        if masks {
            // The size first: it bounds what the runs may become.
            let size = &object["mask"]["size"];
            (size[0].as_u64()? == u64::from(height) && size[1].as_u64()? == u64::from(width)).then_some(())?;
            return Some((label, Shape::Mask(Mask::from_counts(object["mask"]["counts"].as_str()?, width, height)?)));
        }
        let edges: Vec<f64> = object["box"]
            .as_array()?
            .iter()
            .map(Value::as_f64)
            .collect::<Option<_>>()?;
        let [x_min, y_min, x_max, y_max] = edges.try_into().ok()?;
        // Boxes of width and height in the place of far edges show up here.
        let within = |low: f64, high: f64, side: u32| low < high && low >= -1.0 && high <= f64::from(side) + 1.0;
        (within(x_min, x_max, width) && within(y_min, y_max, height)).then_some(())?;
        let (width, height) = (f64::from(width), f64::from(height));
        let bounds =
            Bounds { x_min: x_min / width, y_min: y_min / height, x_max: x_max / width, y_max: y_max / height };
        Some((label, Shape::Box(bounds)))
    };
    let wanted = if masks {
        "\"mask\" of the picture's size"
    } else {
        "\"box\" [x_min, y_min, x_max, y_max] within the picture"
    };
    objects
        .iter()
        .map(|object| shape(object).with_context(|| format!("an object needs a \"label\" and a {wanted}: {object}")))
        .collect()
}

fn object_measures(overlaps: &[Overlap]) -> Vec<Measure> {
    let part = |numerator: f64, denominator: usize| Part { numerator, denominator: denominator as f64 };
    let measure = |of: &dyn Fn(&Overlap) -> Part| overlaps.iter().map(of).collect();
    vec![
        ("recall at IoU 0.5", measure(&|row| part(row.found(FOUND) as f64, row.overlaps.len()))),
        ("precision at IoU 0.5", measure(&|row| part(row.found(FOUND) as f64, row.answered))),
        ("mean IoU", measure(&|row| part(row.overlaps.iter().sum(), row.overlaps.len()))),
    ]
}

fn estimates(runs: &[(String, Run)]) -> Vec<Estimates> {
    let rows = |run: usize, index: usize| &runs[run].1.measures[index].1;
    (0..runs[0].1.measures.len())
        .map(|index| {
            let difference =
                if runs.len() == 2 { metrics::estimate_difference(rows(0, index), rows(1, index)) } else { None };
            let values = (0..runs.len()).map(|run| metrics::estimate(rows(run, index))).collect();
            (runs[0].1.measures[index].0, values, difference)
        })
        .collect()
}

fn print(runs: &[(String, Run)]) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{} rows", runs[0].1.answers.len())?;
    let short =
        |name: &str| Path::new(name).file_name().map_or(name.to_owned(), |name| name.to_string_lossy().into_owned());
    // The whole path where names alone would not tell them apart.
    let clear = runs.len() < 2 || short(&runs[0].0) != short(&runs[1].0);
    for (name, values, difference) in estimates(runs) {
        for ((model, _), value) in runs.iter().zip(values) {
            let value = value.map_or("no objects".to_owned(), |value| {
                format!("{:7.4}  [{:.4}, {:.4}]", value.value, value.low, value.high)
            });
            let model = if clear { short(model) } else { model.clone() };
            writeln!(out, "{name:<21} {value}  {model}")?;
        }
        if let Some(value) = difference {
            writeln!(out, "{:<21} {:+7.4}  [{:+.4}, {:+.4}]", "  difference", value.value, value.low, value.high)?;
        }
    }
    Ok(())
}

fn to_json(runs: &[(String, Run)]) -> Value {
    let estimate = |value: Option<Estimate>| {
        value.map(|value| json!({ "value": value.value, "low": value.low, "high": value.high }))
    };
    let measures = estimates(runs).into_iter().map(|(name, values, difference)| {
        json!({ "name": name, "values": values.into_iter().map(estimate).collect::<Vec<_>>(), "difference": estimate(difference) })
    });
    let row_scores = |run: &Run, index: usize| -> Vec<Value> {
        run.measures.iter().map(|(_, parts)| json!([parts[index].numerator, parts[index].denominator])).collect()
    };
    let models = runs.iter().map(|(name, run)| {
        let rows = run
            .answers
            .iter()
            .enumerate()
            .map(|(index, text)| json!({ "text": text, "parts": row_scores(run, index) }));
        json!({ "model": name, "rows": rows.collect::<Vec<_>>() })
    });
    json!({ "measures": measures.collect::<Vec<_>>(), "models": models.collect::<Vec<_>>() })
}
