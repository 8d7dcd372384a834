//! Answers of a given form: a token is chosen only if the answer can still get the form with it.

use std::collections::{HashMap, HashSet};

use regex_automata::dfa::{Automaton, StartKind, dense};
use regex_automata::nfa::thompson;
use regex_automata::util::primitives::StateID;
use regex_automata::util::start;
use regex_automata::{Anchored, MatchKind};

use super::sampling::Sampler;
use crate::memory::is_there;
use crate::text::{LOCATIONS, SEGMENTS, TokenKind, Tokenizer};
use crate::{Error, Result};

/// What an answer must look like.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Constraint {
    /// One of these texts.
    Choices(Vec<String>),
    /// The whole text matches this regular expression (the syntax of the `regex` crate).
    Pattern(String),
    /// Objects: four location tokens whose far edges do not lie before the near ones, perhaps sixteen segment tokens,
    /// perhaps a label; joined by semicolons. Or nothing at all.
    Objects,
}

impl Constraint {
    /// Checks that answers can be held to it.
    ///
    /// # Errors
    /// When a pattern cannot be used, or there are no choices.
    pub fn check(&self) -> Result<()> {
        match self {
            Self::Pattern(pattern) => TextForm::new(pattern, true).map(|_| ()),
            Self::Choices(choices) if choices.is_empty() => Err(Error::Request("there are no choices".to_owned())),
            Self::Choices(_) | Self::Objects => Ok(()),
        }
    }
}

impl Constraint {
    /// Whether an answer of these tokens has the form, or can become one that has it.
    ///
    /// # Errors
    /// As [`check`](Self::check).
    pub fn admits(&self, tokenizer: &Tokenizer, tokens: &[u32]) -> Result<bool> {
        let mut matcher = Matcher::new(self, tokenizer)?;
        for token in tokens {
            if !matcher.allows(tokenizer, *token) {
                return Ok(false);
            }
            matcher.accept(tokenizer, *token);
        }
        Ok(true)
    }
}

/// Largest automaton that a pattern may need, in bytes. Making it may take twice as many.
const LARGEST_AUTOMATON: usize = 32 << 20;

/// A constraint, and how far an answer has come.
#[derive(Debug)]
pub(super) struct Matcher {
    form: Form,
    /// The logits, −∞ for forbidden tokens.
    masked: Vec<f32>,
}

#[derive(Debug)]
enum Form {
    Text(Box<TextForm>),
    Objects(ObjectsForm),
}

impl Matcher {
    pub(super) fn new(constraint: &Constraint, tokenizer: &Tokenizer) -> Result<Self> {
        let has_codes = tokenizer.has_codes();
        let form = match constraint {
            Constraint::Choices(choices) => {
                if choices.is_empty() {
                    return Err(Error::Request("there are no choices".to_owned()));
                }
                let alternatives: Vec<String> = choices.iter().map(|choice| escape(choice)).collect();
                Form::Text(Box::new(TextForm::new(&alternatives.join("|"), has_codes)?))
            }
            Constraint::Pattern(pattern) => Form::Text(Box::new(TextForm::new(pattern, has_codes)?)),
            Constraint::Objects => Form::Objects(ObjectsForm::default()),
        };
        Ok(Self { form, masked: Vec::new() })
    }

    /// The next of `tokenizer`'s tokens among those that the form allows.
    pub(super) fn next(&mut self, tokenizer: &Tokenizer, sampler: &mut Sampler, logits: &[f32]) -> Result<u32> {
        // The likeliest token is mostly allowed; then no other one has to be checked.
        let likeliest = if sampler.is_greedy() { Some(sampler.next(logits)?) } else { None };
        let token = if let Some(token) = likeliest.filter(|token| self.allows(tokenizer, *token)) {
            token
        } else {
            self.mask(tokenizer, logits);
            if self.masked.iter().all(|logit| *logit == f32::NEG_INFINITY) {
                return Err(Error::Request("no token of the vocabulary continues the answer as it must be".to_owned()));
            }
            sampler.next(&self.masked)?
        };
        self.accept(tokenizer, token);
        Ok(token)
    }

    /// The logits, −∞ for tokens that the form forbids.
    pub(super) fn admitted(&mut self, tokenizer: &Tokenizer, logits: &[f32]) -> &[f32] {
        self.mask(tokenizer, logits);
        &self.masked
    }

    fn mask(&mut self, tokenizer: &Tokenizer, logits: &[f32]) {
        self.masked.clear();
        self.masked.extend_from_slice(logits);
        for token in 0..logits.len() as u32 {
            if !self.allows(tokenizer, token) {
                self.masked[token as usize] = f32::NEG_INFINITY;
            }
        }
    }

    /// Whether the answer may end as it is.
    pub(super) fn may_end(&mut self) -> bool {
        match &mut self.form {
            Form::Text(form) => form.allows(TokenKind::Text, true, &[]),
            Form::Objects(form) => form.allows(TokenKind::Text, true, &[]),
        }
    }

    fn allows(&mut self, tokenizer: &Tokenizer, token: u32) -> bool {
        let (end, bytes) = (tokenizer.is_end(token), tokenizer.bytes(token));
        let kind = tokenizer.kind(token);
        match &mut self.form {
            Form::Text(form) => form.allows(kind, end, bytes),
            Form::Objects(form) => form.allows(kind, end, bytes),
        }
    }

    fn accept(&mut self, tokenizer: &Tokenizer, token: u32) {
        let kind = tokenizer.kind(token);
        match &mut self.form {
            Form::Text(form) => form.accept(kind, tokenizer.bytes(token)),
            Form::Objects(form) => form.accept(kind),
        }
    }
}

/// How far a text has come on its way to match a pattern. A location or a segment in it is always one token, never spelled in
/// characters, which the model was not trained on.
#[derive(Debug)]
struct TextForm {
    automaton: dense::DFA<Vec<u32>>,
    state: StateID,
    /// What the text ends with that could become a location or segment in characters.
    spelled: Spelled,
    /// Whether the vocabulary has locations and segments.
    has_codes: bool,
    /// Match states, and whether the text may go on in them.
    open: HashMap<StateID, bool>,
    /// Whether a text that ends with a part of a code can still become one of the form.
    leads_on: HashMap<(StateID, Spelled), bool>,
}

impl TextForm {
    fn new(pattern: &str, has_codes: bool) -> Result<Self> {
        let failed =
            |error: &dyn std::fmt::Display| Error::Request(format!("the pattern '{pattern}' cannot be used: {error}"));
        // Its tables are made from smaller ones, and copied as they grow.
        let has_room = |size: &usize| is_there(8 * *size as u64);
        let largest = std::iter::successors(Some(LARGEST_AUTOMATON), |size| Some(size / 2)).take(8).find(has_room);
        let largest = largest.unwrap_or(LARGEST_AUTOMATON >> 8);
        let config = dense::Config::new()
            .start_kind(StartKind::Anchored)
            // Every way to match has to stay open, not only the first.
            .match_kind(MatchKind::All)
            .dfa_size_limit(Some(largest))
            .determinize_size_limit(Some(2 * largest));
        let parts = thompson::Config::new().nfa_size_limit(Some(largest));
        let builder = &mut dense::Builder::new();
        let automaton = builder.configure(config).thompson(parts).build(pattern);
        let automaton = automaton.map_err(|error| {
            let is_short = largest < LARGEST_AUTOMATON && error.is_size_limit_exceeded();
            let what = || format!("the tables of the pattern '{pattern}'");
            if is_short { Error::Memory { what: what(), bytes: 16 * largest } } else { failed(&deepest(&error)) }
        })?;
        let start = start::Config::new().anchored(Anchored::Yes);
        let state = automaton.start_state(&start).map_err(|error| failed(&error))?;
        let spelled = Spelled::default();
        Ok(Self { automaton, state, spelled, has_codes, open: HashMap::new(), leads_on: HashMap::new() })
    }

    fn allows(&mut self, kind: TokenKind, end: bool, bytes: &[u8]) -> bool {
        if end {
            return self.is_match_at_end(self.state);
        }
        let state = self.walk(bytes);
        if bytes.is_empty() || !self.is_open(state) {
            return false;
        }
        match self.spelled_after(kind, bytes) {
            None => false,
            Some(Spelled::NOTHING) => true,
            Some(spelled) => self.leads_on(state, spelled),
        }
    }

    fn accept(&mut self, kind: TokenKind, bytes: &[u8]) {
        self.state = self.walk(bytes);
        self.spelled = self.spelled_after(kind, bytes).unwrap_or_default();
    }

    /// What the text ends with after a token; none where that spells a code.
    fn spelled_after(&self, kind: TokenKind, bytes: &[u8]) -> Option<Spelled> {
        let is_code = kind.location().is_some() || kind.segment().is_some();
        if is_code || !self.has_codes || (self.spelled == Spelled::NOTHING && !bytes.contains(&b'<')) {
            return Some(Spelled::NOTHING);
        }
        bytes.iter().try_fold(self.spelled, |spelled, byte| spelled.after(*byte))
    }

    /// Whether a text that is at `state` and ends with a part of a code can become one of the form without spelling that code.
    /// Once it has left the code, it can: codes further on have their tokens.
    fn leads_on(&mut self, state: StateID, spelled: Spelled) -> bool {
        if let Some(known) = self.leads_on.get(&(state, spelled)) {
            return *known;
        }
        let mut seen = HashSet::from([(state, spelled)]);
        let mut left = vec![(state, spelled)];
        let mut leads = false;
        while let Some((state, spelled)) = left.pop() {
            leads = self.is_match_at_end(state);
            for byte in 0..=255 {
                if leads {
                    break;
                }
                let next = self.automaton.next_state(state, byte);
                let after = spelled.after(byte).filter(|_| self.is_open(next));
                leads = after == Some(Spelled::NOTHING);
                left.extend(after.map(|after| (next, after)).filter(|place| seen.insert(*place)));
            }
            if leads {
                break;
            }
        }
        self.leads_on.insert((state, spelled), leads);
        leads
    }

    /// Whether a text can go on, or end, where the automaton is.
    fn is_open(&mut self, state: StateID) -> bool {
        if self.automaton.is_dead_state(state) {
            return false;
        }
        // The automaton notices a match one byte late: a match state may stand for a text that is one byte too long.
        if !self.automaton.is_match_state(state) {
            return true;
        }
        let goes_on = || (0..=255).any(|byte| !self.automaton.is_dead_state(self.automaton.next_state(state, byte)));
        let open = self.open.get(&state).copied().unwrap_or_else(|| goes_on() || self.is_match_at_end(state));
        self.open.insert(state, open);
        open
    }

    fn is_match_at_end(&self, state: StateID) -> bool {
        self.automaton.is_match_state(self.automaton.next_eoi_state(state))
    }

    fn walk(&self, bytes: &[u8]) -> StateID {
        let mut state = self.state;
        for byte in bytes {
            state = self.automaton.next_state(state, *byte);
            if self.automaton.is_dead_state(state) {
                break;
            }
        }
        state
    }
}

/// The beginning of a code's text, such as `<loc01`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Spelled {
    text: [u8; Self::LONGEST],
    len: u8,
}

impl Spelled {
    /// Bytes of `<loc0000>`.
    const LONGEST: usize = 9;
    const NOTHING: Self = Self { text: [0; Self::LONGEST], len: 0 };

    /// After another byte; none where the code is whole.
    fn after(mut self, byte: u8) -> Option<Self> {
        self.text[usize::from(self.len)] = byte;
        self.len += 1;
        let text = std::str::from_utf8(&self.text[..usize::from(self.len)]).unwrap_or_default();
        match TokenKind::of(text) {
            TokenKind::Location(_) | TokenKind::Segment(_) => None,
            _ if TokenKind::begins_code(text) => Some(self),
            _ if byte == b'<' => Self::NOTHING.after(byte),
            _ => Some(Self::NOTHING),
        }
    }
}

/// A pattern that matches exactly this text.
fn escape(text: &str) -> String {
    // Not all punctuation: `\<` means the start of a word.
    let special = |char: char| r"\.+*?()|[]{}^$#&-~".contains(char);
    text.chars().flat_map(|char| ['\\', char].into_iter().skip(usize::from(!special(char)))).collect()
}

/// The root cause of an error. Where its message draws the place in the pattern, only the last line.
fn deepest(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    let text = error.to_string();
    if text.contains("word boundar") {
        return "word boundaries are not supported".to_owned();
    }
    let last = text.lines().last().unwrap_or_default();
    last.strip_prefix("error: ").unwrap_or(last).to_owned()
}

/// How far the object at hand has come.
#[derive(Debug, Default)]
struct ObjectsForm {
    locations: Vec<u16>,
    segments: usize,
    /// Text has begun, so that no segments follow.
    text: bool,
    /// The last token was a semicolon after an object.
    separated: bool,
}

impl ObjectsForm {
    fn allows(&self, kind: TokenKind, end: bool, bytes: &[u8]) -> bool {
        let locations = self.locations.len();
        let whole = locations == LOCATIONS && [0, SEGMENTS].contains(&self.segments);
        if end {
            return locations == 0 || (whole && !self.separated);
        }
        match kind {
            // Far edges come two after near ones.
            TokenKind::Location(location) if locations < LOCATIONS => {
                locations < 2 || location >= self.locations[locations - 2]
            }
            TokenKind::Location(_) => self.separated,
            TokenKind::Segment(_) => locations == LOCATIONS && self.segments < SEGMENTS && !self.text,
            TokenKind::Separator => whole && !self.separated,
            TokenKind::Text => {
                // Nothing but the next object follows a semicolon, so that an answer ends in one that is whole.
                let fits = if self.separated { bytes == b" " } else { !bytes.contains(&b'\n') };
                whole && fits && !bytes.is_empty()
            }
        }
    }

    fn accept(&mut self, kind: TokenKind) {
        match kind {
            TokenKind::Location(location) => {
                if self.separated {
                    *self = Self::default();
                }
                self.locations.push(location);
            }
            TokenKind::Segment(_) => self.segments += 1,
            TokenKind::Separator => self.separated = true,
            TokenKind::Text => self.text = true,
        }
    }
}
