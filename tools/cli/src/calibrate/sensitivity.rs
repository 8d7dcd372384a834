//! Measuring how far errors of a model's matrices move its answers.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use gemmule::gguf::{GgufFile, TensorInfo};
use gemmule::{CancelHandle, Model, Session, SessionOptions};
use gemmule_common::memory::check_room;
use gemmule_quantize::sensitivity::{Group, groups, round_in_place};
use gemmule_quantize::statistics::{Gatherer, Statistics};
use serde_json::Value;

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
}

/// Finds the answer of a row.
pub(super) type Answer<'a> = &'a dyn Fn(&mut Session, &Work, &Value) -> Result<Vec<u32>>;

impl Measurement<'_> {
    /// Measures each group of matrices that was not measured before; `save` is called after each.
    pub(super) fn run(&self, answer: Answer<'_>, save: &mut dyn FnMut() -> Result<()>) -> Result<()> {
        let statistics = Statistics::open(self.statistics)?;
        let groups = groups(&statistics);
        let is_done = |group: &Group| group.tensors.iter().all(|name| self.gatherer.has_sensitivity(name));
        let bar = rows::progress(groups.len(), groups.iter().filter(|group| is_done(group)).count())?;
        bar.set_message("kinds of matrices are measured");
        let answered = self.answer_some(answer)?;
        for group in &groups {
            if is_done(group) {
                continue;
            }
            let (changed, error) = self.changed(group, &statistics)?;
            let moved = moved(Session::new(&changed, &self.options)?, &answered);
            if self.stop.is_cancelled() {
                break;
            }
            let sensitivity = if error > 0.0 { moved? / error } else { 0.0 };
            for tensor in &group.tensors {
                self.gatherer.set_sensitivity(tensor, sensitivity as f32);
            }
            bar.inc(1);
            save()?;
        }
        bar.finish_and_clear();
        Ok(())
    }

    /// The model with some matrices rounded, and how large the errors of their outputs are.
    fn changed(&self, group: &Group, statistics: &Statistics) -> Result<(Model, f64)> {
        let (mut error, mut failure) = (0.0, None);
        let mut change = |tensor: &TensorInfo, bytes: &mut [u8]| {
            if failure.is_none() && group.tensors.contains(&tensor.name) && !self.stop.is_cancelled() {
                let rounded = round_in_place(tensor, bytes, statistics);
                failure = rounded.map(|found| error += found).err();
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
        let mut held = 0;
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
                held += answer.len() * self.model.config().text.vocabulary * 4;
                check_room(held, "what the model says of the answers; measure on fewer rows (--sensitivity=ROWS)")?;
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
