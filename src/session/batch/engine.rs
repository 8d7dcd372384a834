//! The loop over many sequences: one step of all that generate, then a portion of the next one's picture and prompt.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::generation::Generation;
use super::super::portion::Portion;
use super::super::{Buffers, Positions, Session, Timings, step};
use super::request::{Event, Job, Request};
use crate::model::decoder::KvCache;
use crate::{Error, FinishReason, Model, Picture, Result};

/// The longest that a running answer waits for another one's picture and prompt, as a time and in steps: whichever is more.
const LONGEST_WAIT: Duration = Duration::from_millis(500);
const STEPS_OF_WAITING: u32 = 10;

/// A sequence that generates.
struct Slot {
    job: Job,
    generation: Generation,
    cache: KvCache,
}

/// The sequence whose pictures and prompt are being run.
struct Coming {
    job: Job,
    stage: Stage,
}

enum Stage {
    Pictures,
    /// The prefix, which fills the session's cache; the answer that will follow it.
    Prefix(Generation),
    Done(Generation),
}

/// Sequences that take turns. Results depend neither on who else is there nor on the portions.
pub(super) struct Engine {
    /// Runs pictures and prefixes, and lends its scratch to the steps.
    session: Session,
    most: usize,
    running: Vec<Slot>,
    /// Caches of answers that have ended.
    free: Vec<KvCache>,
    waiting: VecDeque<Job>,
    coming: Option<Coming>,
    /// The pictures whose features the session holds.
    shown: Option<Arc<[Picture]>>,
    x: Vec<f32>,
    logits: Vec<f32>,
    last_step: Duration,
}

impl Engine {
    /// An engine with room for `most` sequences at once.
    ///
    /// # Errors
    /// When there is no memory for their rows.
    pub(super) fn new(session: Session, most: usize) -> Result<Self> {
        let text = &session.config().text;
        let row = size_of::<f32>() * (text.vocabulary + text.hidden);
        crate::memory::check_room(most.saturating_mul(row), format!("the rows of {most} sequences"))?;
        Ok(Self {
            session,
            most,
            running: Vec::new(),
            free: Vec::new(),
            waiting: VecDeque::new(),
            coming: None,
            shown: None,
            x: Vec::new(),
            logits: Vec::new(),
            last_step: Duration::ZERO,
        })
    }

    pub(super) fn push(&mut self, job: Job) {
        self.waiting.push_back(job);
    }

    /// Whether there is nothing to do.
    pub(super) fn is_idle(&self) -> bool {
        self.running.is_empty() && self.waiting.is_empty() && self.coming.is_none()
    }

    /// A portion of what comes, and a step of what runs.
    pub(super) fn turn(&mut self) {
        self.end_cancelled();
        self.prepare();
        self.step();
    }

    /// Ends everything: what runs has what there is.
    pub(super) fn end(&mut self) {
        self.running.drain(..).for_each(|slot| slot.job.end(Ok(slot.generation.finish())));
        let coming = self.coming.take().map(|coming| coming.job);
        coming.into_iter().chain(self.waiting.drain(..)).for_each(|job| job.end(Err(Error::Cancelled)));
    }

    /// Ends what nobody waits for any more, or everything where the whole work is cancelled.
    fn end_cancelled(&mut self) {
        let all = self.session.compute.cancel.is_cancelled();
        let is_cancelled = |job: &Job| all || job.cancel.is_cancelled();
        let (cancelled, waiting): (VecDeque<_>, VecDeque<_>) =
            std::mem::take(&mut self.waiting).into_iter().partition(is_cancelled);
        self.waiting = waiting;
        cancelled.into_iter().for_each(|job| job.end(Err(Error::Cancelled)));
        if let Some(coming) = self.coming.take_if(|coming| is_cancelled(&coming.job)) {
            coming.job.end(Err(Error::Cancelled));
        }
        for Slot { job, generation, cache } in self.running.extract_if(.., |slot| is_cancelled(&slot.job)) {
            job.end(Ok(generation.finish()));
            self.free.push(cache);
        }
    }

    /// Goes on with the request that comes next, as long as those that run may wait.
    fn prepare(&mut self) {
        let wait = LONGEST_WAIT.max(self.last_step * STEPS_OF_WAITING);
        let mut portion = Portion::of(if self.running.is_empty() { LONGEST_WAIT } else { wait });
        loop {
            let begun = match self.coming.take() {
                Some(coming) => Some(coming),
                None if self.running.len() == self.most => return,
                None if self.waiting.is_empty() => return,
                None => self.waiting.pop_front().and_then(|job| self.begin(job)),
            };
            let Some(mut coming) = begun else { continue };
            let is_done = match self.advance(&mut coming, &mut portion) {
                Ok(is_done) => is_done,
                Err(error) => {
                    coming.job.end(Err(error));
                    continue;
                }
            };
            match coming.stage {
                Stage::Done(generation) => self.start(coming.job, generation),
                _ => self.coming = Some(coming),
            }
            // How long a layer of the next stage takes is not known: it begins a portion.
            if is_done || portion.is_over() {
                return;
            }
        }
    }

    /// Begins a request: with its pictures, or with its prompt where these have been looked at. Nothing, where it is impossible.
    fn begin(&mut self, job: Job) -> Option<Coming> {
        match self.first_stage(&job.request) {
            Ok(stage) => Some(Coming { job, stage }),
            Err(error) => {
                job.end(Err(error));
                None
            }
        }
    }

    fn first_stage(&mut self, request: &Request) -> Result<Stage> {
        let session = &mut self.session;
        // Pictures that alone exceed the context fail before the work.
        let image_tokens = request.pictures.len() * session.config().vision.tokens();
        session.check_length(image_tokens, request.options.max_tokens)?;
        if self.shown.as_ref().is_some_and(|shown| Arc::ptr_eq(shown, &request.pictures)) {
            // The first who asked about them has waited for them.
            session.shown = Timings::default();
            return self.begin_prefix(request);
        }
        self.shown = None;
        session.begin_show(&request.pictures)?;
        Ok(Stage::Pictures)
    }

    fn begin_prefix(&mut self, Request { prompt, options, .. }: &Request) -> Result<Stage> {
        let ids = self.session.begin_prefix(prompt, options.max_tokens)?;
        Ok(Stage::Prefix(Generation::new(self.session.model.tokenizer()?, options, ids)?))
    }

    /// A portion of the work before the first token. Whether it is the last of its stage.
    fn advance(&mut self, coming: &mut Coming, portion: &mut Portion) -> Result<bool> {
        let is_done = match coming.stage {
            Stage::Pictures => self.session.encode(portion)?,
            _ => self.session.run_prefix(Positions::Last, portion)?,
        };
        if !is_done {
            return Ok(false);
        }
        coming.stage = match std::mem::replace(&mut coming.stage, Stage::Pictures) {
            Stage::Pictures => {
                self.shown = Some(Arc::clone(&coming.job.request.pictures));
                self.begin_prefix(&coming.job.request)?
            }
            Stage::Prefix(generation) | Stage::Done(generation) => Stage::Done(generation),
        };
        Ok(true)
    }

    /// The first token of an answer, which runs from now on unless it has come to its end.
    fn start(&mut self, job: Job, mut generation: Generation) {
        generation.begin(self.session.shown);
        generation.end_at_limit();
        if !generation.has_ended()
            && let Err(error) = push(&job, &mut generation, &self.session.model, &self.session.logits)
        {
            return job.end(Err(error));
        }
        if generation.has_ended() {
            return job.end(Ok(generation.finish()));
        }
        let mut cache = self.free.pop().unwrap_or_default();
        std::mem::swap(&mut cache, &mut self.session.decoder.cache);
        self.running.push(Slot { job, generation, cache });
    }

    /// One token of every answer that runs.
    fn step(&mut self) {
        if self.running.is_empty() {
            return;
        }
        let start = Instant::now();
        let Self { session, running, x, logits, .. } = self;
        let tokens: Vec<u32> = running.iter().filter_map(|slot| slot.generation.last()).collect();
        let compute = session.generation_compute.as_ref().unwrap_or(&session.compute);
        let mut caches: Vec<&mut KvCache> = running.iter_mut().map(|slot| &mut slot.cache).collect();
        let buffers = &mut Buffers { scratch: &mut session.decoder.scratch, x, logits };
        if step(&session.model, compute, &tokens, &mut caches, buffers).is_err() {
            // All work is cancelled, and the caches are of no use now.
            return self.running.drain(..).for_each(|slot| slot.job.end(Ok(slot.generation.finish())));
        }
        let vocabulary = session.config().text.vocabulary;
        let mut ended = Vec::new();
        for (index, (slot, logits)) in running.iter_mut().zip(logits.chunks_exact(vocabulary)).enumerate() {
            let pushed = push(&slot.job, &mut slot.generation, &session.model, logits);
            if pushed.is_err() || slot.generation.has_ended() {
                ended.push((index, pushed));
            }
        }
        for (index, pushed) in ended.into_iter().rev() {
            let Slot { job, generation, cache } = self.running.remove(index);
            job.end(pushed.map(|()| generation.finish()));
            self.free.push(cache);
        }
        self.last_step = start.elapsed();
    }
}

/// The next token of an answer, by its logits.
fn push(job: &Job, generation: &mut Generation, model: &Model, logits: &[f32]) -> Result<()> {
    let token = generation.push(model, logits)?;
    if job.events.send(Event::Token(token)).is_err() {
        // Nobody waits for more.
        generation.end(FinishReason::Stopped);
    }
    Ok(())
}
