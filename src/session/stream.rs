//! An answer that comes token by token.

use super::generation::Generation;
use super::portion::Portion;
use super::request::{Answer, FinishReason, GenerateOptions, GeneratedToken};
use super::{Positions, Session};
use crate::{Error, Result};

/// The tokens of an answer, each made when it is asked for. Together their texts are the answer's.
///
/// After an error there is no further token. Dropping the stream, or [finishing](Self::finish) it, ends the answer where it is.
#[derive(Debug)]
pub struct AnswerStream<'s> {
    session: &'s mut Session,
    generation: Generation,
}

impl Session {
    /// The answer to a prompt about the pictures [shown](Self::show) last, token by token.
    ///
    /// ```no_run
    /// # fn tell(session: &mut gemmule::Session) -> gemmule::Result<()> {
    /// let mut stream = session.stream("caption en", &gemmule::GenerateOptions::new())?;
    /// for token in &mut stream {
    ///     print!("{}", token?.text);
    /// }
    /// println!(" ({})", stream.finish().finish.name());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`generate`](Self::generate).
    pub fn stream(&mut self, prompt: &str, options: &GenerateOptions) -> Result<AnswerStream<'_>> {
        let ids = self.begin_prefix(prompt, options.max_tokens)?;
        let mut generation = Generation::new(self.model.tokenizer()?, options, ids)?;
        self.run_prefix(Positions::Last, &mut Portion::whole())?;
        generation.begin(self.shown);
        Ok(AnswerStream { session: self, generation })
    }

    /// The answer to a prompt about the pictures [shown](Self::show) last.
    ///
    /// # Errors
    /// As [`generate`](Self::generate).
    pub fn ask(&mut self, prompt: &str, options: &GenerateOptions) -> Result<Answer> {
        let mut stream = self.stream(prompt, options)?;
        stream.by_ref().try_for_each(|token| token.map(drop))?;
        Ok(stream.finish())
    }
}

impl Iterator for AnswerStream<'_> {
    type Item = Result<GeneratedToken>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.generation.has_ended() {
            return None;
        }
        let token = self.advance();
        if token.is_err() {
            self.generation.end(FinishReason::Stopped);
        }
        token.transpose()
    }
}

impl std::iter::FusedIterator for AnswerStream<'_> {}

impl AnswerStream<'_> {
    /// The answer so far; [`Stopped`](FinishReason::Stopped) where it had not come to its end.
    pub fn finish(self) -> Answer {
        self.generation.finish()
    }

    /// The next token; nothing where the answer ends before it.
    fn advance(&mut self) -> Result<Option<GeneratedToken>> {
        match self.generation.last().map(|last| self.session.step(last)) {
            Some(Err(Error::Cancelled)) => {
                self.generation.end(FinishReason::Stopped);
                return Ok(None);
            }
            Some(stepped) => stepped?,
            None => self.generation.end_at_limit(),
        }
        if self.generation.has_ended() {
            return Ok(None);
        }
        let Self { session, generation } = self;
        generation.push(&session.model, &session.logits).map(Some)
    }
}
