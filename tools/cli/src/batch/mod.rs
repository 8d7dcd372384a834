mod journal;

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use gemmule::{CancelHandle, FinishReason, GenerateOptions, Model};
use serde_json::{Value, json};

use self::journal::{Journal, Noted, Stamp};
use crate::answers::{self, Found, ObjectArguments, ProbabilityArguments};
use crate::arguments::{ComputeArguments, ModelArguments};
use crate::interrupt::end_with;
use crate::output::{Resumable, print_note};
use crate::rows::{self, Reading, Shown, Told, Work};

/// Answer a file of prompts about many pictures.
///
/// Answers the prompts of MANIFEST.jsonl, one JSON object on each line: {"image": "a.jpg", "prompt": "caption en"}, or
/// "images" with several; "max_tokens" may be added, and anything else of your own. Paths are relative to the manifest.
/// Neighbouring rows about the same pictures look at them once.
///
/// Each row becomes a line of OUT.jsonl: "row" (from 0), "input" (the manifest's object) and what `run --json` prints, or
/// "error" for a row that failed; then the exit code is 1 at the end. Lines are collected in OUT.jsonl.partial, which becomes
/// OUT.jsonl when it is complete; the same command goes on where an interrupted one ended, if model, options, rows and pictures are
/// still the same. A row at which the program has died, of short memory say, fails then.
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
        let inputs = self.model.files().chain([self.manifest.as_path()]);
        let Resumable { output, partial, journal } = Resumable::new(&self.output, inputs, self.force)?;
        let seen = rows::look_at(&self.manifest)?;
        let model = self.model.open()?;
        let stop = CancelHandle::default();
        let mut shown = Shown::new(self.compute.session_until(&model, stop.clone())?);
        let mut begun = self.begin(&partial, &journal, &model)?;
        if begun.done > 0 {
            let (done, total) = (begun.done, seen.count);
            print_note(&format!("{done} of {total} rows are in {} already: going on", partial.display()));
        }
        end_with(&stop)?;

        let bar = rows::progress(seen.count, begun.done)?;
        std::thread::scope(|scope| -> Result<()> {
            let reading =
                Reading { path: &self.manifest, seen, first: begun.done, strict: self.strict, watcher: &begun.notes };
            let rows = rows::read(scope, reading)?;
            while let Some((input, work)) = rows.next(&stop) {
                let answered = match work {
                    Ok(work) => {
                        begun.notes.journal.asks(begun.done)?;
                        self.answer(&model, &mut shown, &work)
                    }
                    Err(error) => Err(error),
                };
                let is_cut = answered.as_ref().map_or(true, |(_, finish)| *finish == FinishReason::Stopped);
                // The next run answers the row as a whole.
                if stop.is_cancelled() && is_cut {
                    break;
                }
                let mut value = answered.map(|(value, _)| value).unwrap_or_else(|error| {
                    begun.failures += 1;
                    bar.set_message(format!("{} failed", begun.failures));
                    json!({ "error": format!("{error:#}") })
                });
                (value["row"], value["input"]) = (json!(begun.done), input);
                // One call for a line: a kill leaves whole lines, or one that is cut at its end.
                begun.out.write_all(format!("{value}\n").as_bytes()).with_context(|| partial.display().to_string())?;
                begun.done += 1;
                bar.inc(1);
            }
            rows.finish()
        })?;
        bar.finish_and_clear();
        if stop.is_cancelled() && begun.done < seen.count {
            begun.notes.journal.ended()?;
            let (done, total) = (begun.done, seen.count);
            bail!("interrupted: {done} of {total} rows are in {}; the same command goes on", partial.display());
        }
        let named = begun.out.sync_all().and_then(|()| std::fs::rename(&partial, &output));
        named.with_context(|| output.display().to_string())?;
        // Only a run that goes on needs it.
        let _ = std::fs::remove_file(journal);
        let (failures, total) = (begun.failures, seen.count);
        ensure!(failures == 0, "{failures} of {total} rows failed, see \"error\" in {}", output.display());
        Ok(())
    }

    fn answer(&self, model: &Model, shown: &mut Shown, work: &Work) -> Result<(Value, FinishReason)> {
        let session = shown.show(work)?;
        let options = GenerateOptions::new()
            .max_tokens(work.row.max_tokens.unwrap_or(self.max_tokens))
            .probabilities(true)
            .probability_base(self.probabilities.base())
            .alternatives(self.logprobs);
        let answer = session.ask(&work.row.prompt, &options)?;
        let found = Found::read(&self.objects, session, model, &answer, &work.pictures)?;
        let value = answers::to_json(model, self.probabilities.base(), &answer, &found, &work.pictures)?;
        Ok((value, answer.finish))
    }

    /// What the answers depend on beside the rows and their pictures.
    fn settings(&self, model: &Model) -> Value {
        json!({
            "model": self.model.name(),
            "mmproj": self.model.mmproj,
            "weights": model.fingerprint(),
            "max_tokens": self.max_tokens,
            "logprobs": self.logprobs,
            "nms": self.objects.nms(),
            "probabilities": self.probabilities.base().name(),
            "strict": self.strict,
        })
    }

    /// Begins, or goes on with what an earlier run has done.
    ///
    /// # Errors
    /// When the earlier run had other settings, rows or pictures.
    fn begin(&self, partial: &Path, journal: &Path, model: &Model) -> Result<Begun> {
        let context = || partial.display().to_string();
        let mut options = OpenOptions::new();
        let mut out = options.create(true).read(true).append(true).open(partial).with_context(context)?;
        ensure!(out.try_lock().is_ok(), "{}: another batch is writing it", partial.display());
        if self.force {
            out.set_len(0).with_context(context)?;
        }
        let settings = self.settings(model);
        let is_begun = out.metadata().with_context(context)?.len() > 0;
        let (journal, noted) = {
            let (opened, noted) = Journal::open(journal, self.force)?;
            if is_begun {
                noted.check_settings(&settings, journal).with_context(context)?;
            }
            (opened, noted)
        };
        journal.begins(settings)?;
        let (done, failures) = self.compare(&mut out, &noted).with_context(context)?;
        Ok(Begun { out, done, failures, notes: Notes { journal, noted, stamps: Mutex::default() } })
    }

    /// How many rows are answered, and how many of these have failed. A line that a kill has cut is taken away.
    ///
    /// # Errors
    /// When they are not the manifest's rows, or not about its pictures.
    fn compare(&self, out: &mut File, noted: &Noted) -> Result<(usize, usize)> {
        let directory = self.manifest.parent().unwrap_or(Path::new(""));
        let (mut length, mut done, mut failures) = (0, 0, 0);
        let mut reader = BufReader::new(&mut *out);
        let mut rows = rows::Lines::open(&self.manifest)?;
        loop {
            let mut line = Vec::new();
            let read = reader.read_until(b'\n', &mut line)?;
            if !line.ends_with(b"\n") {
                break;
            }
            let value: Option<Value> = serde_json::from_slice(&line).ok();
            let row = rows.next()?;
            let fits = value.as_ref().zip(row.as_ref()).is_some_and(|(value, row)| {
                value["row"].as_u64() == Some(done as u64) && value["input"] == row.value()
            });
            ensure!(fits, "row {done} is not the manifest's; --force begins anew, or choose another --output");
            if let Some(Ok(row)) = row.map(|row| row.row()) {
                noted.check_pictures(done, &row.paths(directory))?;
            }
            failures += usize::from(value.is_some_and(|value| value.get("error").is_some()));
            (length, done) = (length + read as u64, done + 1);
        }
        out.set_len(length)?;
        Ok((done, failures))
    }
}

/// A batch under way.
struct Begun {
    out: File,
    /// Rows that are answered, and how many of them have failed.
    done: usize,
    failures: usize,
    notes: Notes,
}

/// Who notes which pictures are read.
struct Notes {
    journal: Journal,
    noted: Noted,
    /// Of the pictures that are being read.
    stamps: Mutex<Vec<Option<Stamp>>>,
}

impl rows::Watcher for Notes {
    fn reads(&self, row: usize, paths: &[PathBuf]) -> Result<Told> {
        if let Some(reason) = self.noted.fatal(row) {
            return Ok(Told::Fail(reason));
        }
        self.journal.reads(row)?;
        // Before they are decoded, so that a file that is replaced meanwhile is noticed.
        let stamps = paths.iter().map(|path| Stamp::of(path)).collect();
        *self.stamps.lock().unwrap_or_else(PoisonError::into_inner) = stamps;
        Ok(Told::Go)
    }

    fn has(&self, row: usize) -> Result<()> {
        let stamps = std::mem::take(&mut *self.stamps.lock().unwrap_or_else(PoisonError::into_inner));
        self.journal.has(row, stamps)
    }
}
