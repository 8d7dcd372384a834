//! `gemmule eval`: how good answers are.

mod metric;
mod objects;
mod predictions;
mod report;
mod truth;

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::Args;
use gemmule::image::Size;
use gemmule::{GenerateOptions, Model};
use gemmule_metrics::{Part, Scale};
use gemmule_quant::Format;
use indicatif::ProgressBar;
use metric::Metric;
use objects::{Named, Seen};
use report::{Measure, Run};
use truth::{Row, Truth};

use crate::answers::{Found, ObjectArguments};
use crate::arguments::{ComputeArguments, ModelArguments, NamedModel};
use crate::output::print_json;
use crate::rows::{self, Reading, Shown, Work};

/// Measure how good a model's answers are, or two models' side by side.
///
/// Answers every row of DATA.jsonl and compares with what is right. A row is as in `gemmule batch`, with "answers", a list of
/// right ones ("answer" or "suffix" for a single one), or for boxes and masks "objects": a list of {"label": "cat", "box":
/// [x_min, y_min, x_max, y_max]} in pixels, or of {"label": "cat", "mask": {"size": [height, width], "counts": "…"}}, COCO's
/// compressed runs. "iscrowd" and "ignore" mark objects that do not count. A "suffix" with location tokens gives boxes, too.
///
/// Prints each measure with its 95 % confidence interval. With --against, both models answer the same rows, and the difference
/// gets its own interval. With --predictions no model is asked: the answers of a file are measured.
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
    #[arg(long, value_name = "MODEL")]
    against: Option<PathBuf>,
    /// As --type, for --against.
    #[arg(long, value_name = "TYPE", requires = "against", value_parser = gemmule_quantize::parse_format)]
    against_type: Option<Format>,
    /// The second model's vision half, where it is a pair.
    #[arg(long, value_name = "FILE", requires = "against")]
    against_mmproj: Option<PathBuf>,
    /// Measure the answers in FILE: lines of `gemmule batch`, or JSON objects with "text" or "objects", for each row of the data in
    /// its order (or with its number as "row"). Give the option twice to compare two files.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["model", "against", "nms"])]
    predictions: Vec<PathBuf>,
    /// Most tokens of an answer, where a row does not say.
    #[arg(short = 'n', long, value_name = "N", default_value_t = 256)]
    max_tokens: usize,
    #[command(flatten)]
    objects: ObjectArguments,
    /// Print one JSON object, with each row's answer and score.
    #[arg(long)]
    json: bool,
    /// Refuse damaged pictures, which are read as far as they go otherwise.
    #[arg(long, conflicts_with = "predictions")]
    strict: bool,
    #[command(flatten)]
    compute: ComputeArguments,
}

impl Eval {
    pub(super) fn execute(self) -> Result<()> {
        // Rows, what is read of them, and what measures count in them are kept.
        let files =
            std::iter::once(&self.data).chain(&self.predictions).filter_map(|path| std::fs::metadata(path).ok());
        let bytes: u64 = files.map(|file| file.len()).sum();
        gemmule_common::memory::check_room(usize::try_from(bytes)?.saturating_mul(7), "the rows")?;
        // Everything that can be wrong with the data shows before the first answer.
        let (truths, seen) = truth::read(&self.data, self.metric, self.predictions.is_empty())?;
        ensure!(
            self.metric != Metric::Cider || truths.len() > 1,
            "{}: CIDEr weighs words by the rows they are in, so it needs more than one row",
            self.data.display()
        );
        ensure!(
            self.predictions.len() <= 2,
            "--predictions: two files can be compared, not {}",
            self.predictions.len()
        );
        let runs = if self.predictions.is_empty() { self.ask(&truths, seen)? } else { self.read(&truths)? };
        if self.json { print_json(&report::to_json(&runs)) } else { report::print(&runs) }
    }

    /// Measures answers that were made elsewhere.
    fn read(&self, truths: &[Row]) -> Result<Vec<Run>> {
        let mut runs = Vec::new();
        for path in &self.predictions {
            let predictions = predictions::read(path, truths.len())?;
            let mut seen = Vec::new();
            for (index, (row, prediction)) in truths.iter().zip(&predictions).enumerate() {
                ensure!(
                    prediction.text.is_some() || matches!(row.truth, Truth::Objects(_)),
                    "{}: row {index}: it has \"objects\" and no \"text\", which this measure reads",
                    path.display()
                );
                if let Truth::Objects(there) = &row.truth {
                    let one =
                        || Seen::new(there, &prediction.objects(self.metric == Metric::Masks, row.size)?, row.size);
                    seen.push(one().with_context(|| format!("{}: row {index}", path.display()))?);
                }
            }
            let answers = predictions.into_iter().map(|prediction| prediction.text.unwrap_or_default()).collect();
            runs.push(measured(self.metric, path.display().to_string(), answers, truths, seen));
        }
        Ok(runs)
    }

    /// Asks the models.
    fn ask(&self, truths: &[Row], data: rows::Seen) -> Result<Vec<Run>> {
        let first = self.model.open()?;
        let (body, mmproj) = (self.against_type, self.against_mmproj.as_deref());
        let other = self.against.as_ref().map(|model| NamedModel { model, body, mmproj });
        let second = other.as_ref().map(|other| other.open(false)).transpose()?;
        let against = second.as_ref().zip(other.as_ref().map(NamedModel::to_string));
        let models: Vec<(&Model, String)> =
            [Some((&first, self.model.name())), against].into_iter().flatten().collect();
        for (model, name) in &models {
            let decodes = self.metric != Metric::Masks || model.decodes_masks();
            ensure!(decodes, "{name}: it holds no mask decoder: convert with --seg-vae vae-oid.npz");
            // A damaged tokenizer would otherwise show only at the first prompt.
            model.tokenizer()?;
        }
        let bar = rows::progress(truths.len() * models.len(), 0)?;
        let mut runs = Vec::new();
        for (model, name) in models {
            let (answers, seen) = self.answer_all(model, truths, data, &bar)?;
            runs.push(measured(self.metric, name, answers, truths, seen));
        }
        bar.finish_and_clear();
        Ok(runs)
    }

    /// Answers all rows. A row that cannot be answered ends the measurement: leaving it out would change what is measured.
    fn answer_all(
        &self,
        model: &Model,
        truths: &[Row],
        data: rows::Seen,
        bar: &ProgressBar,
    ) -> Result<(Vec<String>, Vec<Seen>)> {
        let mut shown = Shown::new(self.compute.session(model)?);
        let (mut answers, mut seen) = (Vec::new(), Vec::new());
        std::thread::scope(|scope| -> Result<()> {
            let reading =
                Reading { path: &self.data, seen: data, first: 0, strict: self.strict, watcher: &rows::Nobody };
            let rows = rows::read(scope, reading)?;
            for (index, row) in truths.iter().enumerate() {
                let Some((_, work)) = rows.next(&gemmule::CancelHandle::default()) else { break };
                let one = || -> Result<()> {
                    let work = work?;
                    let text = match &row.truth {
                        Truth::Texts(_) => self.answer(&mut shown, &work, false)?.text,
                        Truth::Objects(there) => {
                            let (text, row) = self.find_objects(model, &mut shown, &work, there)?;
                            seen.push(row);
                            text
                        }
                    };
                    answers.push(text);
                    Ok(())
                };
                one().with_context(|| format!("{}: row {index}", self.data.display()))?;
                bar.inc(1);
            }
            rows.finish()
        })?;
        Ok((answers, seen))
    }

    fn answer(&self, shown: &mut Shown, work: &Work, probabilities: bool) -> Result<gemmule::Answer> {
        let most = work.row.max_tokens.unwrap_or(self.max_tokens);
        let options = GenerateOptions::new().max_tokens(most).probabilities(probabilities);
        Ok(shown.show(work)?.ask(&work.row.prompt, &options)?)
    }

    fn find_objects(
        &self,
        model: &Model,
        shown: &mut Shown,
        work: &Work,
        there: &[truth::Object],
    ) -> Result<(String, Seen)> {
        let [picture] = &work.pictures[..] else {
            anyhow::bail!("objects need one picture, not {}", work.pictures.len())
        };
        let size = Size::new(picture.width(), picture.height());
        let answer = self.answer(shown, work, true)?;
        let found = Found::read(&self.objects, &mut shown.session, model, &answer, &work.pictures)?;
        let named = found.detections.objects.into_iter().zip(found.masks).map(|(object, mask)| Named {
            edges: object.bounds.pixels(size.width, size.height),
            score: Some(f64::from(object.score)),
            label: object.label,
            mask,
        });
        Ok((answer.text, Seen::new(there, &named.collect::<Vec<_>>(), Some(size))?))
    }
}

/// The measures of all answers.
fn measured(metric: Metric, name: String, answers: Vec<String>, truths: &[Row], seen: Vec<Seen>) -> Run {
    const CIDER: Scale = Scale { low: 0.0, high: 10.0 };
    let references: Vec<Vec<String>> = truths
        .iter()
        .filter_map(|row| if let Truth::Texts(texts) = &row.truth { Some(texts.clone()) } else { None })
        .collect();
    let (measures, labels) = match metric.text_measure() {
        Some((name, measure)) => {
            let rows = answers.iter().zip(&references).map(|(answer, right)| measure(answer, right).into());
            (vec![Measure::of_rows(name, rows.collect(), Scale::SHARE)], Vec::new())
        }
        None if metric == Metric::Cider => {
            let rows = gemmule_metrics::cider(&answers, &references).into_iter().map(Part::from).collect();
            (vec![Measure::of_rows("CIDEr", rows, CIDER)], Vec::new())
        }
        None => objects::measures(&seen),
    };
    Run { name, answers, measures, labels }
}
