//! `gemmule compare`: what a conversion has changed.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::Args;
use gemmule::answer::{Object, detections_in_text};
use gemmule::{CancelHandle, GenerateOptions, Model, Session};
use gemmule_metrics::{Estimate, Part, Scale, estimate, estimate_difference_within, estimate_within, exact_match};
use gemmule_quant::Format;
use gemmule_quantize::is_checkpoint;
use serde_json::{Value, json};

use crate::arguments::{ComputeArguments, NamedModel};
use crate::output::print_json;
use crate::rows::{self, Reading, Shown, Work};

/// Compare two conversions of a model on your own pictures: what did fewer bits cost?
///
/// The first model answers every row of MANIFEST.jsonl, whose rows are those of `gemmule batch`. The second one is led through that answer,
/// and at each token its probabilities are compared with the first one's: the Kullback-Leibler divergence says, in nats, how far they are
/// apart; 0 is not at all. Where the second one would have answered otherwise, it does.
///
/// Prints for each kind of prompt, and for all, the divergence per token with its 95 % confidence interval, the 99th percentile over tokens, how many
/// answers are the same, how well boxes lie on each other, and, for rows with "answers" ("answer" or "suffix" for a single one), how many
/// of each model's answers are right.
#[derive(Args)]
pub(super) struct Compare {
    /// The model to compare with, such as a bf16 or q8_0 file, or a checkpoint, which is converted to bf16 unless --type says otherwise.
    #[arg(value_name = "MODEL")]
    model: PathBuf,
    /// The other model.
    #[arg(value_name = "OTHER")]
    other: PathBuf,
    /// Prompts about pictures.
    #[arg(long, value_name = "MANIFEST.jsonl")]
    manifest: PathBuf,
    /// What a checkpoint that is the first model is converted to.
    #[arg(long = "type", value_name = "TYPE", value_parser = gemmule_quantize::parse_format)]
    body: Option<Format>,
    /// What a checkpoint that is the other model is converted to [default: q4_0].
    #[arg(long, value_name = "TYPE", value_parser = gemmule_quantize::parse_format)]
    other_type: Option<Format>,
    /// The first model's vision half, where it is a pair.
    #[arg(long, value_name = "FILE")]
    mmproj: Option<PathBuf>,
    /// The second model's vision half, where it is a pair.
    #[arg(long, value_name = "FILE")]
    other_mmproj: Option<PathBuf>,
    /// Most tokens of an answer, where a row does not say.
    #[arg(short = 'n', long, value_name = "N", default_value_t = 256)]
    max_tokens: usize,
    /// Print one JSON object, with each row's answers and divergence.
    #[arg(long)]
    json: bool,
    /// Refuse damaged pictures, which are read as far as they go otherwise.
    #[arg(long)]
    strict: bool,
    #[command(flatten)]
    compute: ComputeArguments,
}

/// A row, answered by both models.
struct Row {
    /// The kind of its prompt.
    kind: String,
    answers: [String; 2],
    same: bool,
    /// The divergence at each token.
    divergences: Vec<f64>,
    /// How well the second answer's boxes lie on those of the first: the sum of the best overlaps, and how many there are.
    boxes: Part,
    /// Whether each answer is right, where that is known.
    right: Option<[f64; 2]>,
}

impl Compare {
    pub(super) fn execute(self) -> Result<()> {
        let seen = rows::look_at_all(&self.manifest)?;
        // The reference is not to be rounded unasked.
        let body = self.body.or_else(|| is_checkpoint(&self.model).then_some(Format::BF16));
        let named = [
            NamedModel { model: &self.model, body, mmproj: self.mmproj.as_deref() },
            NamedModel { model: &self.other, body: self.other_type, mmproj: self.other_mmproj.as_deref() },
        ];
        let models = [named[0].open(false)?, named[1].open(false)?];
        let tokens: Vec<usize> = models.iter().map(|model| model.config().text.vocabulary).collect();
        ensure!(
            tokens[0] == tokens[1],
            "the models have vocabularies of {} and {} tokens, and so no common probabilities: compare conversions of one checkpoint",
            tokens[0],
            tokens[1]
        );
        let mut sessions = Vec::new();
        for model in &models {
            // A damaged tokenizer would otherwise show only at the first prompt.
            model.tokenizer()?;
            sessions.push(Shown::new(self.compute.session(model)?));
        }
        let bar = rows::progress(seen.count, 0)?;
        let mut compared = Vec::new();
        std::thread::scope(|scope| -> Result<()> {
            let reading = Reading { path: &self.manifest, seen, first: 0, strict: self.strict, watcher: &rows::Nobody };
            let rows = rows::read(scope, reading)?;
            while let Some((input, work)) = rows.next(&CancelHandle::default()) {
                let one = || -> Result<Row> { self.row(&models[0], &mut sessions, &work?, &input) };
                let context = || format!("{}: row {}", self.manifest.display(), compared.len());
                let row = one().with_context(context)?;
                compared.push(row);
                bar.inc(1);
            }
            rows.finish()
        })?;
        bar.finish_and_clear();
        if self.json { print_json(&to_json(&compared)) } else { self.print(&compared) }
    }

    /// Answers a row with both models.
    fn row(&self, model: &Model, sessions: &mut [Shown], work: &Work, input: &Value) -> Result<Row> {
        let [first, second] = sessions else { unreachable!("two models") };
        let (prompt, most) = (&work.row.prompt, work.row.max_tokens.unwrap_or(self.max_tokens));
        let options = GenerateOptions::new().max_tokens(most);
        let first: &mut Session = first.show(work)?;
        let answer = first.ask(prompt, &options)?;
        let ids = answer.token_ids();
        let (mut expected, mut divergences, mut same) = (Vec::new(), Vec::new(), true);
        if !ids.is_empty() {
            first.follow(prompt, &ids, |_, logs| expected.push(logs.to_vec()))?;
        }
        let used = model.tokenizer()?.used_vocabulary();
        let second: &mut Session = second.show(work)?;
        if !ids.is_empty() {
            second.follow(prompt, &ids, |place, logs| {
                divergences.push(divergence(&expected[place], logs));
                let best = (0..used.min(logs.len())).reduce(|best, id| if logs[id] > logs[best] { id } else { best });
                same &= best == Some(ids[place] as usize);
            })?;
        }
        // The rules of a file may forbid the likeliest token: then the second one answers for itself.
        let other = if same { answer.text.clone() } else { second.ask(prompt, &options)?.text };
        let answers = [answer.text, other];
        let same = answers[0] == answers[1];
        let right = rows::answers(input)?.map(|right| [0, 1].map(|index| exact_match(&answers[index], &right)));
        let boxes = overlaps(&answers);
        Ok(Row { kind: kind_of(prompt), answers, same, divergences, boxes, right })
    }

    fn print(&self, rows: &[Row]) -> Result<()> {
        let mut out = std::io::stdout().lock();
        writeln!(
            out,
            "{:<16} {:>6} {:>7}  {:<31} {:>8} {:>7} {:>6}  right",
            "prompts", "rows", "tokens", "divergence per token", "99th", "same", "boxes"
        )?;
        let (all, kinds) = summaries(rows);
        for (kind, summary) in kinds.iter().filter(|_| kinds.len() > 1) {
            print_line(&mut out, kind, summary)?;
        }
        print_line(&mut out, "all", &all)?;
        let short = |path: &Path| path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        let changed = rows.iter().filter(|row| !row.same).count();
        let share = 100.0 * changed as f64 / rows.len() as f64;
        write!(
            out,
            "{} answers {changed} of {} rows ({share:.1} %) otherwise than {}",
            short(&self.other),
            rows.len(),
            short(&self.model)
        )?;
        if let Some(found) = all.right_difference {
            let points = [found.value, found.low, found.high].map(|share| 100.0 * share);
            write!(out, "; {:+.1} points are right [{:+.1}, {:+.1}]", points[0], points[1], points[2])?;
        }
        writeln!(out)?;
        Ok(())
    }
}

/// How far the second distribution is from the first: `Σ p · (log p − log q)`, from their logarithms.
pub(super) fn divergence(first: &[f32], second: &[f32]) -> f64 {
    let terms = first.iter().zip(second).map(|(p, q)| f64::from(*p).exp() * (f64::from(*p) - f64::from(*q)));
    // Rounding may leave a little less than nothing.
    terms.filter(|term| !term.is_nan()).sum::<f64>().max(0.0)
}

/// What a prompt asks for: PaliGemma's word for it, and the language.
fn kind_of(prompt: &str) -> String {
    let mut words = prompt.split_whitespace();
    match (words.next(), words.next()) {
        (Some(task @ ("answer" | "caption" | "cap" | "describe" | "question")), Some(language))
            if (2..=3).contains(&language.len()) && language.chars().all(|letter| letter.is_ascii_lowercase()) =>
        {
            format!("{task} {language}")
        }
        (Some(task @ ("ocr" | "detect" | "segment" | "caption" | "describe")), _) => task.to_owned(),
        _ => "other".to_owned(),
    }
}

/// For each box of the first answer, the best overlap with one of the second that has its label. Boxes that the first answer lacks count as well.
fn overlaps(answers: &[String; 2]) -> Part {
    let [first, second] = [0, 1].map(|index| detections_in_text(&answers[index]).objects);
    let best = |object: &Object| {
        let alike = second.iter().filter(|other| other.label == object.label);
        // Boxes without an area overlap nothing, themselves included.
        let overlap =
            |other: &Object| if other.bounds == object.bounds { 1.0 } else { object.bounds.overlap(&other.bounds) };
        alike.map(overlap).fold(0.0, f64::max)
    };
    let numerator = first.iter().map(best).sum();
    Part { numerator, denominator: first.len().max(second.len()) as f64 }
}

/// What some rows come to.
struct Summary {
    rows: usize,
    tokens: usize,
    divergence: Option<Estimate>,
    percentile: Option<f64>,
    same: Option<Estimate>,
    boxes: Option<Estimate>,
    right: Option<[f64; 2]>,
    right_difference: Option<Estimate>,
}

impl Summary {
    fn of(rows: &[&Row]) -> Self {
        let of_row =
            |row: &&Row| Part { numerator: row.divergences.iter().sum(), denominator: row.divergences.len() as f64 };
        let parts: Vec<Part> = rows.iter().map(of_row).collect();
        let mut all: Vec<f64> = rows.iter().flat_map(|row| &row.divergences).copied().collect();
        all.sort_by(f64::total_cmp);
        // The least value that 99 % of the tokens do not exceed.
        let percentile = (all.len() * 99).div_ceil(100).checked_sub(1).map(|index| all[index]);
        let same: Vec<Part> = rows.iter().map(|row| Part::from(f64::from(u8::from(row.same)))).collect();
        let boxes: Vec<Part> = rows.iter().map(|row| row.boxes).collect();
        let right: Vec<[f64; 2]> = rows.iter().filter_map(|row| row.right).collect();
        let [first, second] = [0, 1].map(|index| right.iter().map(|row| Part::from(row[index])).collect::<Vec<_>>());
        let mean = |rows: &[Part]| rows.iter().map(|row| row.numerator).sum::<f64>() / rows.len() as f64;
        Self {
            rows: rows.len(),
            tokens: all.len(),
            // It is never less than nothing, whatever the spread.
            divergence: estimate(&parts).map(|found| Estimate { low: found.low.max(0.0), ..found }),
            percentile,
            same: estimate_within(&same, Scale::SHARE),
            boxes: estimate_within(&boxes, Scale::SHARE),
            right: (!right.is_empty()).then(|| [mean(&first), mean(&second)]),
            right_difference: estimate_difference_within(&first, &second, Scale::SHARE),
        }
    }
}

/// What all rows come to, and those of each kind of prompt.
fn summaries(rows: &[Row]) -> (Summary, BTreeMap<&str, Summary>) {
    let mut kinds: BTreeMap<&str, Vec<&Row>> = BTreeMap::new();
    rows.iter().for_each(|row| kinds.entry(&row.kind).or_default().push(row));
    let kinds = kinds.into_iter().map(|(kind, rows)| (kind, Summary::of(&rows))).collect();
    (Summary::of(&rows.iter().collect::<Vec<_>>()), kinds)
}

fn print_line(out: &mut impl Write, kind: &str, summary: &Summary) -> Result<()> {
    let divergence =
        summary.divergence.map(|found| format!("{:.5}  [{:.5}, {:.5}]", found.value, found.low, found.high));
    let percentile = summary.percentile.map(|value| format!("{value:.4}"));
    let same = summary.same.map(|found| format!("{:.1} %", 100.0 * found.value));
    let boxes = summary.boxes.map(|found| format!("{:.3}", found.value));
    let right = summary.right.map(|[one, two]| format!("{:.1} % → {:.1} %", 100.0 * one, 100.0 * two));
    let [divergence, percentile, same, boxes, right] =
        [divergence, percentile, same, boxes, right].map(|text| text.unwrap_or_else(|| "–".to_owned()));
    let (rows, tokens) = (summary.rows, summary.tokens);
    writeln!(out, "{kind:<16} {rows:>6} {tokens:>7}  {divergence:<31} {percentile:>8} {same:>7} {boxes:>6}  {right}")?;
    Ok(())
}

fn to_json(rows: &[Row]) -> Value {
    let estimate = |found: Option<Estimate>| {
        found.map(|found| json!({ "value": found.value, "low": found.low, "high": found.high }))
    };
    let summary = |found: &Summary| {
        json!({
            "rows": found.rows,
            "tokens": found.tokens,
            "divergence": estimate(found.divergence),
            "divergence_99": found.percentile,
            "same": estimate(found.same),
            "boxes": estimate(found.boxes),
            "right": found.right,
            "right_difference": estimate(found.right_difference),
        })
    };
    let (all, kinds) = summaries(rows);
    let kinds: serde_json::Map<String, Value> =
        kinds.iter().map(|(kind, found)| ((*kind).to_owned(), summary(found))).collect();
    let each = rows.iter().map(|row| {
        json!({ "prompts": row.kind, "answers": row.answers, "same": row.same, "divergences": row.divergences, "right": row.right })
    });
    json!({ "all": summary(&all), "prompts": kinds, "rows": each.collect::<Vec<_>>() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn divergences_are_those_of_the_distributions() {
        let logs = |shares: [f32; 3]| shares.map(f32::ln);
        assert_eq!(divergence(&logs([0.5, 0.25, 0.25]), &logs([0.5, 0.25, 0.25])), 0.0);
        let found = divergence(&logs([0.5, 0.25, 0.25]), &logs([0.25, 0.5, 0.25]));
        assert!((found - 0.25 * 2f64.ln()).abs() < 1e-6, "{found}");
        // A token that the first model excludes adds nothing.
        assert!((divergence(&logs([1.0, 0.0, 0.0]), &logs([0.5, 0.5, 0.0])) - 2f64.ln()).abs() < 1e-6);
    }

    #[test]
    fn prompts_have_kinds() {
        for (prompt, kind) in [
            ("answer en what is it?", "answer en"),
            ("caption de", "caption de"),
            ("caption this picture", "caption"),
            ("detect cat ; dog", "detect"),
            ("how many are there?", "other"),
            ("", "other"),
        ] {
            assert_eq!(kind_of(prompt), kind, "{prompt}");
        }
    }

    #[test]
    fn boxes_are_compared_by_label() {
        let text = |text: &str| text.to_owned();
        let one = "<loc0100><loc0100><loc0300><loc0300> cat";
        assert_eq!(overlaps(&[text(one), text(one)]), Part { numerator: 1.0, denominator: 1.0 });
        assert_eq!(overlaps(&[text(one), text(&one.replace("cat", "dog"))]), Part { numerator: 0.0, denominator: 1.0 });
        assert_eq!(overlaps(&[text("yes"), text(one)]), Part { numerator: 0.0, denominator: 1.0 });
        assert_eq!(overlaps(&[text("yes"), text("no")]), Part { numerator: 0.0, denominator: 0.0 });
    }
}
