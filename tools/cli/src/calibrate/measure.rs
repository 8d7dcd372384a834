//! Measuring how far errors of a model's matrices move its answers.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use gemmule::gguf::{GgufFile, TensorInfo};
use gemmule::{CancelHandle, Model, Session, SessionOptions};
use gemmule_common::memory::check_room;
use gemmule_quantize::sensitivity::{Group, groups, round_in_place};
use gemmule_quantize::statistics::{Gatherer, Statistics};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::answers::write;
use crate::compare::divergence;
use crate::rows::{self, Reading, Seen, Shown, Told, Watcher, Work};

/// Rows that are measured on, evenly spread.
struct Chosen {
    count: usize,
    all: usize,
}

impl Chosen {
    fn has(&self, row: usize) -> bool {
        // The first row of each part.
        row * self.count % self.all < self.count
    }
}

impl Watcher for Chosen {
    fn reads(&self, row: usize, _paths: &[PathBuf]) -> Result<Told> {
        Ok(if self.has(row) { Told::Go } else { Told::Fail(String::new()) })
    }
}

/// A row, its answer, and what the model itself says of each of its tokens.
struct Answered {
    work: Work,
    answer: Vec<u32>,
    expected: Vec<Vec<f32>>,
}

/// What is measured on what.
pub(super) struct Measurement<'a> {
    pub(super) model: &'a Model,
    /// The model's files.
    pub(super) files: Vec<PathBuf>,
    pub(super) gatherer: &'a Gatherer,
    /// Where what was gathered is saved.
    pub(super) statistics: &'a Path,
    pub(super) manifest: &'a Path,
    pub(super) seen: Seen,
    /// How many rows are measured on.
    pub(super) rows: usize,
    pub(super) strict: bool,
    /// How sessions compute; with the handle that ends them.
    pub(super) options: SessionOptions,
    pub(super) stop: &'a CancelHandle,
    pub(super) journal: Journal,
}

/// What was measured, kept so that an interrupted run loses nothing.
pub(super) struct Journal {
    path: PathBuf,
    kept: Kept,
}

#[derive(Serialize, Deserialize)]
struct Kept {
    /// What has to be the same for the rest to count.
    settings: Value,
    sensitivities: BTreeMap<String, f32>,
}

impl Journal {
    /// What an earlier run with these settings has kept; nothing where it had others.
    pub(super) fn open(path: &Path, settings: Value) -> Self {
        let read = || -> Option<Kept> { serde_json::from_slice(&std::fs::read(path).ok()?).ok() };
        let kept = read().filter(|kept| kept.settings == settings);
        let kept = kept.unwrap_or_else(|| Kept { settings, sensitivities: BTreeMap::new() });
        Self { path: path.to_owned(), kept }
    }

    fn has(&self, group: &Group) -> bool {
        group.tensors.iter().all(|tensor| self.kept.sensitivities.contains_key(tensor))
    }

    fn note(&mut self, group: &Group, sensitivity: f32) -> Result<()> {
        self.kept.sensitivities.extend(group.tensors.iter().map(|tensor| (tensor.clone(), sensitivity)));
        write(&self.path, &serde_json::to_vec(&self.kept)?)
    }
}

/// Finds the answer of a row.
pub(super) type Answer<'a> = &'a dyn Fn(&mut Session, &Work, &Value) -> Result<Vec<u32>>;

impl Measurement<'_> {
    /// Measures each group of matrices that was not measured before, and notes it in the gatherer.
    pub(super) fn run(mut self, answer: Answer<'_>) -> Result<()> {
        let statistics = Statistics::open(self.statistics)?;
        let groups = groups(&statistics);
        let mut done = groups.iter().filter(|group| self.journal.has(group)).count();
        let bar = rows::progress(groups.len(), done)?;
        bar.set_message("kinds of matrices are measured");
        let mut measure = || -> Result<()> {
            let mut answered = None;
            for group in &groups {
                if self.journal.has(group) {
                    continue;
                }
                self.go_on()?;
                let answered = match &answered {
                    Some(answered) => answered,
                    None => answered.insert(self.answer_some(answer)?),
                };
                let (changed, error) = self.changed(group, &statistics)?;
                let moved = moved(Session::new(&changed, &self.options)?, answered);
                self.go_on()?;
                let sensitivity = (moved? / error) as f32;
                ensure!(
                    sensitivity.is_finite(),
                    "rounding {} to 4 bits changes nothing: its weights are of 4 bits already, and tell nothing; take the file that they were made of",
                    group.tensors.join(", ")
                );
                self.journal.note(group, sensitivity)?;
                done += 1;
                bar.inc(1);
            }
            Ok(())
        };
        let measured = measure();
        bar.finish_and_clear();
        let (kinds, kept) = (groups.len(), self.journal.path.display());
        if self.stop.is_cancelled() {
            bail!(
                "interrupted: {done} of {kinds} kinds of matrices are measured, see {kept}; the same command goes on"
            );
        }
        measured?;
        for (tensor, sensitivity) in &self.journal.kept.sensitivities {
            self.gatherer.set_sensitivity(tensor, *sensitivity);
        }
        Ok(())
    }

    fn go_on(&self) -> Result<()> {
        ensure!(!self.stop.is_cancelled(), "interrupted");
        Ok(())
    }

    /// The model with some matrices rounded, and how large the errors of their outputs are.
    fn changed(&self, group: &Group, statistics: &Statistics) -> Result<(Model, f64)> {
        let sizes = self.files.iter().map(|path| -> Result<usize> {
            let file = GgufFile::open(path)?;
            let tensors = file.gguf().tensors().iter().filter(|tensor| group.tensors.contains(&tensor.name));
            Ok(tensors.map(|tensor| tensor.range.len()).sum())
        });
        check_room(sizes.sum::<Result<usize>>()?, "matrices that are rounded to see what that changes")?;
        let (mut error, mut failure) = (0.0, None);
        let mut change = |tensor: &TensorInfo, bytes: &mut [u8]| {
            if failure.is_none() && group.tensors.contains(&tensor.name) {
                let round = || round_in_place(tensor, bytes, statistics, self.stop);
                failure = self.gatherer.install(round).map(|found| error += found).err();
            }
        };
        let files = self.files.iter().map(|path| GgufFile::open_changed(path, &mut change));
        let files = files.collect::<gemmule::Result<Vec<_>>>()?;
        failure.map_or(Ok(()), Err)?;
        Ok((Model::from_files(files)?, error))
    }

    /// Answers some of the rows.
    fn answer_some(&self, answer: Answer<'_>) -> Result<Vec<Answered>> {
        let all = self.seen.count;
        let chosen = Chosen { count: self.rows.min(all), all };
        let mut shown = Shown::new(Session::new(self.model, &self.options)?);
        let mut answered = Vec::new();
        std::thread::scope(|scope| -> Result<()> {
            let reading =
                Reading { path: self.manifest, seen: self.seen, first: 0, strict: self.strict, watcher: &chosen };
            let rows = rows::read(scope, reading)?;
            let mut row = 0..;
            while let Some((input, asked)) = rows.next(self.stop) {
                if !row.next().is_some_and(|row| chosen.has(row)) {
                    continue;
                }
                let work = asked?;
                let session = shown.show(&work)?;
                let answer = answer(session, &work, &input)?;
                let held = answer.len() * self.model.config().text.vocabulary * 4;
                check_room(held, "an answer's probabilities").context("measure on fewer rows (--sensitivity=ROWS)")?;
                let mut expected = Vec::new();
                if !answer.is_empty() {
                    session.follow(&work.row.prompt, &answer, |_, logs| expected.push(logs.to_vec()))?;
                }
                answered.push(Answered { work, answer, expected });
            }
            rows.finish()
        })?;
        let tokens: usize = answered.iter().map(|row| row.answer.len()).sum();
        ensure!(
            tokens > 0 || self.stop.is_cancelled(),
            "no answer has a token: measure on more rows (--sensitivity=ROWS), or give rows with answers"
        );
        Ok(answered)
    }
}

/// How far a changed model's probabilities are from those of the model itself: the divergence for each token.
fn moved(session: Session, answered: &[Answered]) -> Result<f64> {
    let mut shown = Shown::new(session);
    let (mut sum, mut tokens) = (0.0, 0usize);
    for Answered { work, answer, expected } in answered.iter().filter(|row| !row.answer.is_empty()) {
        let session = shown.show(work)?;
        let followed = session.follow(&work.row.prompt, answer, |place, logs| {
            sum += divergence(&expected[place], logs);
            tokens += 1;
        });
        followed.context("a model with some matrices rounded")?;
    }
    Ok(sum / tokens.max(1) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chosen_rows_are_as_many_as_were_asked_for() {
        for (count, all) in [(1, 1), (1, 7), (3, 7), (7, 7), (16, 1769), (0, 5)] {
            let chosen = Chosen { count, all };
            assert_eq!((0..all).filter(|row| chosen.has(*row)).count(), count, "{count} of {all}");
        }
    }
}
