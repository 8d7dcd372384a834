//! What is asked of a batch, and what it tells.

use std::sync::Arc;
use std::sync::mpsc::Sender;

use super::super::{Answer, GenerateOptions, GeneratedToken};
use crate::sched::CancelHandle;
use crate::{Picture, Result};

/// A prompt about pictures.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Request {
    /// Shown in this order. Requests that follow each other and share them, as clones of one `Arc`, look at them once.
    pub pictures: Arc<[Picture]>,
    /// The prompt.
    pub prompt: String,
    /// What to generate.
    pub options: GenerateOptions,
}

impl Request {
    /// A prompt about pictures, to be answered as [`GenerateOptions::new`] says.
    pub fn new(pictures: impl Into<Arc<[Picture]>>, prompt: impl Into<String>) -> Self {
        Self { pictures: pictures.into(), prompt: prompt.into(), options: GenerateOptions::new() }
    }

    /// What to generate.
    #[must_use]
    pub fn options(mut self, options: GenerateOptions) -> Self {
        self.options = options;
        self
    }
}

/// What becomes of a request.
pub(super) enum Event {
    /// A token, the next of the answer.
    Token(GeneratedToken),
    /// The end.
    End(Result<Answer>),
}

/// A request, and who waits for its answer.
pub(super) struct Job {
    pub(super) request: Request,
    pub(super) cancel: CancelHandle,
    pub(super) events: Sender<Event>,
}

impl Job {
    /// Tells how it has ended.
    pub(super) fn end(self, result: Result<Answer>) {
        // Who has left misses nothing.
        let _ = self.events.send(Event::End(result));
    }
}
