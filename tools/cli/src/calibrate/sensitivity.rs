//! Measuring how far errors of a model's matrices move its answers.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use gemmule::gguf::GgufFile;
use gemmule::{CancelHandle, Model, Session};
use gemmule_common::memory::check_room;
use gemmule_quantize::sensitivity::{Group, error_of_rounding, groups, round_in_place};
use gemmule_quantize::statistics::{Gatherer, Statistics};

use super::{Calibrate, Gathering};
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

impl Calibrate {
    /// Measures each group of matrices that was not measured before.
    pub(super) fn measure(
        &self,
        model: &Model,
        work: &mut Gathering,
        source: &Source,
        stop: &CancelHandle,
    ) -> Result<()> {
        let statistics = Statistics::open(&work.partial)?;
        let groups: Vec<Group> = groups(&statistics);
        let left =
            |gatherer: &Gatherer, group: &Group| group.tensors.iter().any(|name| !gatherer.has_sensitivity(name));
        let done = groups.iter().filter(|group| !left(&work.gatherer, group)).count();
        let bar = rows::progress(groups.len(), done)?;
        bar.set_message("kinds of matrices are measured");
        let session = |model: &Model| -> Result<Session> {
            let options = self.compute.options().cancel(stop.clone());
            Ok(Session::new(model, &options)?)
        };
        let answered = self.answer_some(model, session(model)?, source, stop)?;
        for group in &groups {
            if !left(&work.gatherer, group) {
                continue;
            }
            if stop.is_cancelled() {
                break;
            }
            let mut error = 0.0;
            let mut failure = None;
            let mut change = |tensor: &gemmule::gguf::TensorInfo, bytes: &mut [u8]| {
                if !group.tensors.contains(&tensor.name) || failure.is_some() {
                    return;
                }
                let mut one = || -> Result<()> {
                    error += error_of_rounding(tensor, bytes, &statistics.moments(&tensor.name)?)?.unwrap_or(0.0);
                    round_in_place(tensor, bytes)
                };
                failure = one().err();
            };
            let files = source.files.iter().map(|path| GgufFile::open_changed(path, &mut change));
            let files = files.collect::<gemmule::Result<Vec<_>>>()?;
            if let Some(failure) = failure {
                return Err(failure);
            }
            let moved = moved(session(&Model::from_files(files)?)?, &answered)?;
            if stop.is_cancelled() {
                break;
            }
            let sensitivity = if error > 0.0 { moved / error } else { 0.0 };
            for tensor in &group.tensors {
                work.gatherer.set_sensitivity(tensor, sensitivity as f32);
            }
            bar.inc(1);
            work.save_at_times()?;
        }
        bar.finish_and_clear();
        Ok(())
    }

    /// Answers some of the rows.
    fn answer_some(
        &self,
        model: &Model,
        session: Session,
        source: &Source,
        stop: &CancelHandle,
    ) -> Result<Vec<Answered>> {
        let all = source.seen.count;
        let chosen = Chosen { count: (self.sensitivity.unwrap_or(0) as usize).min(all), all };
        let mut shown = Shown::new(session);
        let mut answered = Vec::new();
        let mut held = 0;
        std::thread::scope(|scope| -> Result<()> {
            let reading =
                Reading { path: &source.manifest, seen: source.seen, first: 0, strict: self.strict, watcher: &chosen };
            let rows = rows::read(scope, reading)?;
            let mut row = 0..;
            while let Some((input, asked)) = rows.next(stop) {
                if !row.next().is_some_and(|row| chosen.has(row)) {
                    continue;
                }
                let work = asked?;
                let session = shown.show(&work)?;
                let answer = self.answer(model, session, &work, &input)?;
                held += answer.len() * model.config().text.vocabulary * 4;
                check_room(
                    held,
                    "what the model says of the answers that are measured on; ask for fewer by --sensitivity=ROWS",
                )?;
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
            tokens > 0 || stop.is_cancelled(),
            "no answer that is measured on has a token: ask for more by --sensitivity=ROWS"
        );
        Ok(answered)
    }
}

/// Rows and model that are measured on.
pub(super) struct Source {
    pub(super) manifest: PathBuf,
    pub(super) seen: Seen,
    /// The model's files.
    pub(super) files: Vec<PathBuf>,
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
