//! Long work in portions, between which something else has its turn.

use std::time::{Duration, Instant};

/// How long work may go on. Work is done in units, of which a portion has at least one.
#[derive(Debug)]
pub(super) struct Portion {
    /// When it is to be over; never for the whole work.
    end: Option<Instant>,
    /// When the unit under way began, and how long the longest took.
    begun: Instant,
    longest: Duration,
}

impl Portion {
    /// The whole work.
    pub(super) fn whole() -> Self {
        Self { end: None, begun: Instant::now(), longest: Duration::ZERO }
    }

    /// Work of so long, from now on.
    pub(super) fn of(length: Duration) -> Self {
        let begun = Instant::now();
        Self { end: begun.checked_add(length), begun, longest: Duration::ZERO }
    }

    /// After a unit: whether another one, as long as the longest so far, would go past the end.
    pub(super) fn is_over(&mut self) -> bool {
        let now = Instant::now();
        self.longest = self.longest.max(now - self.begun);
        self.begun = now;
        self.end.is_some_and(|end| now + self.longest > end)
    }
}
