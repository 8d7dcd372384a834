use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::Args;
use gemmule::files::{destination, same_file};
use gemmule::{GenerateOptions, Model};
use serde_json::{Value, json};

use super::answers::{self, Found, ObjectArguments, ProbabilityArguments};
use super::rows::{self, Line, Shown, Work, lines};
use super::{ComputeArguments, ModelArguments, print_note};

/// Answer a file of prompts about many pictures.
///
/// Answers the prompts of MANIFEST.jsonl, one JSON object on each line: {"image": "a.jpg", "prompt": "caption en"}, or
/// "images" with several; "max_tokens" may be added, and anything else of your own. Paths are relative to the manifest.
/// Neighbouring rows about the same pictures look at them once.
///
/// Each row becomes a line of OUT.jsonl: "row" (from 0), "input" (the manifest's object) and what `run --json` prints, or
/// "error" for a row that failed; then the exit code is 1 at the end. Lines are collected in OUT.jsonl.partial, which becomes
/// OUT.jsonl when it is complete; the same command goes on where an interrupted one ended.
#[derive(Args)]
pub(super) struct Batch {
    /// The prompts.
    #[arg(value_name = "MANIFEST.jsonl")]
    manifest: PathBuf,
    /// The answers.
    #[arg(short, long, value_name = "OUT.jsonl")]
    output: PathBuf,
    #[command(flatten)]
    model: ModelArguments,
    /// Most tokens of an answer, where a row does not say.
    #[arg(short = 'n', long, value_name = "N", default_value_t = 256)]
    max_tokens: usize,
    /// At each step, report the K likeliest tokens with the logarithms of their probabilities.
    #[arg(long, value_name = "K", default_value_t = 0)]
    logprobs: usize,
    #[command(flatten)]
    objects: ObjectArguments,
    #[command(flatten)]
    probabilities: ProbabilityArguments,
    /// Refuse damaged pictures, which are read as far as they go otherwise; their rows get "damaged".
    #[arg(long)]
    strict: bool,
    /// Replace OUT.jsonl, and forget what an interrupted run has done.
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    compute: ComputeArguments,
}

impl Batch {
    pub(super) fn execute(self) -> Result<()> {
        // What was done is read again where a batch goes on.
        ensure!(self.output != Path::new("-"), "a batch that is to go on after an interruption needs a file; name one");
        let output = destination(&self.output).with_context(|| self.output.display().to_string())?;
        let partial = beside(&output, ".partial");
        for written in [&output, &partial, &beside(&partial, ".settings")] {
            let mut inputs = self.model.files().chain([self.manifest.as_path()]);
            ensure!(
                !inputs.any(|input| same_file(input, written)),
                "{} is read, too: name another --output",
                written.display()
            );
        }
        ensure!(self.force || !output.exists(), "{} exists already; --force replaces it", output.display());
        let total = rows::count(&self.manifest)?;
        let model = self.model.open()?;
        let mut shown = Shown::new(self.compute.session(&model)?);
        let (mut out, done, mut failures) = self.resume(&partial)?;
        if done > 0 {
            print_note(&format!("{done} of {total} rows are in {} already: going on", partial.display()));
        }

        let bar = rows::progress(total, done)?;
        std::thread::scope(|scope| -> Result<()> {
            for (index, (input, work)) in (done..).zip(rows::read(scope, &self.manifest, (done, self.strict))?) {
                let answered = work.and_then(|work| self.answer(&model, &mut shown, &work));
                let mut value = answered.unwrap_or_else(|error| {
                    failures += 1;
                    bar.set_message(format!("{failures} failed"));
                    json!({ "error": format!("{error:#}") })
                });
                (value["row"], value["input"]) = (json!(index), input);
                // One call for a line: a kill leaves whole lines, or one that is cut at its end.
                out.write_all(format!("{value}\n").as_bytes()).with_context(|| partial.display().to_string())?;
                bar.inc(1);
            }
            Ok(())
        })?;
        bar.finish_and_clear();
        ensure!(bar.position() == total as u64, "{} changed meanwhile", self.manifest.display());
        let named = out.sync_all().and_then(|()| std::fs::rename(&partial, &output));
        named.with_context(|| output.display().to_string())?;
        // Only a comparison for those who go on; nothing is lost with it.
        let _ = std::fs::remove_file(beside(&partial, ".settings"));
        ensure!(failures == 0, "{failures} of {total} rows failed, see \"error\" in {}", output.display());
        Ok(())
    }

    fn answer(&self, model: &Model, shown: &mut Shown<'_>, work: &Work) -> Result<Value> {
        let session = shown.show(work)?;
        let options = GenerateOptions {
            max_tokens: work.row.max_tokens.unwrap_or(self.max_tokens),
            probabilities: true,
            probability_base: self.probabilities.base(),
            alternatives: self.logprobs,
            ..GenerateOptions::default()
        };
        let answer = session.ask(&work.row.prompt, &options, |_| std::ops::ControlFlow::Continue(()))?;
        let found = Found::read(&self.objects, session, model, (&answer, &work.pictures))?;
        answers::to_json((model, self.probabilities.base()), &answer, &found, &work.pictures)
    }

    /// Notes what the answers depend on beside the rows, and compares it where rows are there already.
    fn check_settings(&self, partial: &Path, goes_on: bool) -> Result<()> {
        let path = beside(partial, ".settings");
        let settings = json!({
            "model": self.model.name(),
            "mmproj": self.model.mmproj,
            "max_tokens": self.max_tokens,
            "logprobs": self.logprobs,
            "nms": self.objects.nms(),
            "probabilities": self.probabilities.base().name(),
            "strict": self.strict,
        });
        if goes_on {
            let noted = std::fs::read(&path).ok().and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
            ensure!(
                noted.is_none_or(|noted| noted == settings),
                "{}: it was begun with another model or other options; --force begins anew, or choose another --output",
                partial.display()
            );
        }
        answers::write(&path, format!("{settings}\n").as_bytes())
    }

    /// The file to go on with, and how many rows it holds, and how many of these failed.
    fn resume(&self, partial: &Path) -> Result<(File, usize, usize)> {
        let context = || partial.display().to_string();
        let mut options = OpenOptions::new();
        let mut file = options.create(true).read(true).append(true).open(partial).with_context(context)?;
        ensure!(file.try_lock().is_ok(), "{}: another batch is writing it", partial.display());
        if self.force {
            file.set_len(0).with_context(context)?;
        }
        self.check_settings(partial, file.metadata().with_context(context)?.len() > 0)?;
        let (mut length, mut done, mut failures) = (0, 0, 0);
        let mut reader = BufReader::new(&mut file);
        let mut rows = lines(&self.manifest)?;
        loop {
            let mut line = Vec::new();
            let read = reader.read_until(b'\n', &mut line).with_context(context)?;
            if !line.ends_with(b"\n") {
                break;
            }
            let value: Option<Value> = serde_json::from_slice(&line).ok();
            let row = rows.next().transpose()?.as_ref().map(Line::value);
            let fits = value
                .as_ref()
                .zip(row.as_ref())
                .is_some_and(|(value, row)| value["row"].as_u64() == Some(done as u64) && value["input"] == *row);
            ensure!(
                fits,
                "{}: row {done} is not the manifest's; --force begins anew, or choose another --output",
                partial.display()
            );
            failures += usize::from(value.is_some_and(|value| value.get("error").is_some()));
            (length, done) = (length + read as u64, done + 1);
        }
        // A line that a kill has cut is written again.
        file.set_len(length).with_context(context)?;
        Ok((file, done, failures))
    }
}

/// A path with an ending behind its own.
fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}
