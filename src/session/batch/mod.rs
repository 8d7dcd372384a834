//! Many answers in step: each step of the decoder reads quantized weights once for all sequences that generate.
//!
//! ```no_run
//! use gemmule::batch::{Batch, Request};
//! use gemmule::{Model, Picture, SessionOptions};
//!
//! let batch = Batch::new(&Model::open("paligemma2-3b.gguf")?, &SessionOptions::new(), None)?;
//! let mut tickets = Vec::new();
//! for path in ["a.jpg", "b.jpg", "c.jpg"] {
//!     tickets.push(batch.submit(Request::new([Picture::open(path)?], "caption en"))?);
//! }
//! for ticket in tickets {
//!     println!("{}", ticket.wait()?.text);
//! }
//! # Ok::<(), gemmule::Error>(())
//! ```

mod engine;
mod request;

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use self::engine::Engine;
pub use self::request::Request;
use self::request::{Event, Job};
use super::{Answer, GeneratedToken, Session, SessionOptions, memory};
use crate::ops::input::MOST_GENERATED;
use crate::sched::CancelHandle;
use crate::{Error, Model, Result, platform};

/// Most sequences that a [`Batch`] runs at once.
pub const MOST_SLOTS: usize = MOST_GENERATED;

/// Answers many requests on a thread of its own, several at once. Each answer is, byte for byte, what a [`Session`] with the same threads and
/// instruction set gives to the request alone.
///
/// Requests begin in the order in which they are submitted; as many as there are slots generate at once, and when one has ended the next
/// takes its place. Pictures and prompts are computed in portions, so that a running answer waits for them no longer than half a
/// second or ten of its steps, whichever is more; a layer that takes longer than that by itself, and the resizing of a request's
/// pictures, are waited for. A request that fails, or is cancelled, ends alone.
///
/// Dropping a batch ends all its answers.
#[derive(Debug)]
pub struct Batch {
    slots: usize,
    isa: &'static str,
    /// None when it is being dropped.
    jobs: Option<Sender<Job>>,
    end: CancelHandle,
    thread: Option<JoinHandle<()>>,
}

const _: fn() = || {
    fn is_shared_by_threads<T: Send + Sync + 'static>() {}
    is_shared_by_threads::<Batch>();
};

impl Batch {
    /// A batch of `slots` sequences at once, 1 … [`MOST_SLOTS`]; by default [as many](default_slots) as the machine is good for. The
    /// options' cancel handle ends all that it computes, and all that is submitted while it is set.
    ///
    /// # Errors
    /// When the threads, the instruction set or the memory are not available, or the options have an observer, which sees one sequence
    /// at a time.
    pub fn new(model: &Model, options: &SessionOptions, slots: impl Into<Option<usize>>) -> Result<Self> {
        if options.observer.is_some() {
            return Err(Error::Request("an observer sees one sequence at a time: use a session".to_owned()));
        }
        let end = CancelHandle::default();
        let session = Session::new(model, options)?;
        let slots = slots.into().unwrap_or_else(|| default_slots(model));
        if !(1..=MOST_SLOTS).contains(&slots) {
            return Err(Error::Request(format!("{slots} slots asked for; choose 1 to {MOST_SLOTS}")));
        }
        let isa = session.isa();
        let mut engine = Engine::new(session, slots)?;
        let (jobs, arriving) = channel();
        let ends = end.clone();
        let thread = std::thread::Builder::new()
            .name("gemmule-batch".to_owned())
            .spawn(move || run(&mut engine, &arriving, &ends))
            .map_err(|error| Error::Request(format!("cannot start a thread: {error}")))?;
        Ok(Self { slots, isa, jobs: Some(jobs), end, thread: Some(thread) })
    }

    /// How many sequences it runs at once.
    pub fn slots(&self) -> usize {
        self.slots
    }

    /// The name of the instruction set that computes.
    pub fn isa(&self) -> &'static str {
        self.isa
    }

    /// Hands in a request, which waits for its turn. What is wrong with it is said by the ticket.
    ///
    /// # Errors
    /// When the batch's thread has ended, which only a defect can bring about.
    pub fn submit(&self, request: Request) -> Result<Ticket> {
        let (events, received) = channel();
        let cancel = CancelHandle::default();
        let job = Job { request, cancel: cancel.clone(), events };
        self.jobs.as_ref().and_then(|jobs| jobs.send(job).ok()).ok_or_else(has_ended)?;
        Ok(Ticket { events: received, cancel, end: None })
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        self.end.cancel();
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // A panic there has been reported there.
            let _ = thread.join();
        }
    }
}

/// The batch's thread.
fn run(engine: &mut Engine, arriving: &Receiver<Job>, end: &CancelHandle) {
    while !end.is_cancelled() {
        if engine.is_idle() {
            let Ok(job) = arriving.recv() else { return };
            engine.push(job);
        }
        arriving.try_iter().for_each(|job| engine.push(job));
        engine.turn();
    }
    engine.end();
}

fn has_ended() -> Error {
    Error::Request("the batch has ended".to_owned())
}

/// How many sequences a [`Batch`] runs at once unless told: four, whose rows one pass over a weight row multiplies, or fewer where their
/// caches, each of a picture's tokens and 256 more, would fill more than a quarter of the memory that is available.
pub fn default_slots(model: &Model) -> usize {
    let config = model.config();
    let cache = memory::of_cache(config, config.vision.tokens() + 256) as u64;
    let room = platform::available_memory().map_or(usize::MAX, |bytes| (bytes / 4 / cache.max(1)) as usize);
    room.clamp(1, 4)
}

/// What a ticket tells when it is asked.
#[derive(Debug)]
#[non_exhaustive]
pub enum Progress {
    /// Nothing new.
    Waiting,
    /// A token, the next of the answer.
    Token(GeneratedToken),
    /// The answer has ended; [`wait`](Ticket::wait) gives it.
    Ended,
}

/// A request that was handed in. It gives the answer's tokens as they come, each once, and at last the answer; dropping it cancels the
/// request.
#[derive(Debug)]
pub struct Ticket {
    events: Receiver<Event>,
    cancel: CancelHandle,
    end: Option<Result<Answer>>,
}

impl Ticket {
    /// What is new, without waiting.
    pub fn poll(&mut self) -> Progress {
        if self.end.is_some() {
            return Progress::Ended;
        }
        match self.events.try_recv() {
            Ok(event) => self.note(event),
            Err(TryRecvError::Empty) => Progress::Waiting,
            Err(TryRecvError::Disconnected) => self.note(lost()),
        }
    }

    /// What is new, waiting for it so long at most.
    pub fn poll_for(&mut self, time: Duration) -> Progress {
        if self.end.is_some() {
            return Progress::Ended;
        }
        match self.events.recv_timeout(time) {
            Ok(event) => self.note(event),
            Err(RecvTimeoutError::Timeout) => Progress::Waiting,
            Err(RecvTimeoutError::Disconnected) => self.note(lost()),
        }
    }

    /// Waits for the answer's end.
    ///
    /// # Errors
    /// When the request is impossible, or was cancelled before its first token; an answer that was cancelled later ends
    /// with what there is.
    pub fn wait(mut self) -> Result<Answer> {
        while self.end.is_none() {
            let event = self.events.recv().unwrap_or_else(|_| lost());
            self.note(event);
        }
        self.end.take().expect("it has ended")
    }

    /// Ends the request: an answer that runs has what there is, one that does not is an [`Error::Cancelled`].
    pub fn cancel(&self) {
        self.cancel.cancel();
    }

    fn note(&mut self, event: Event) -> Progress {
        match event {
            Event::Token(token) => Progress::Token(token),
            Event::End(result) => {
                self.end = Some(result);
                Progress::Ended
            }
        }
    }
}

/// The tokens of the answer, each waited for.
impl Iterator for Ticket {
    type Item = GeneratedToken;

    fn next(&mut self) -> Option<GeneratedToken> {
        if self.end.is_some() {
            return None;
        }
        let event = self.events.recv().unwrap_or_else(|_| lost());
        match self.note(event) {
            Progress::Token(token) => Some(token),
            _ => None,
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

/// The batch was dropped before the request had its turn.
fn lost() -> Event {
    Event::End(Err(Error::Cancelled))
}

#[cfg(all(test, feature = "bundled-model"))]
mod tests;
