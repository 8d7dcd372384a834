//! What an answer's tokens mean: the objects that `detect` and `segment` name.

use crate::text::Tokenizer;
use crate::{Error, Result};

/// The largest coordinate of a location token: the far edge of the picture.
const FAR_EDGE: u16 = 1023;
/// Location tokens of a box.
const LOCATIONS: usize = 4;
/// Segment tokens of a mask.
const SEGMENTS: usize = 16;

/// A box as shares of the picture's sides, 0 … 1, from its upper left corner.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bounds {
    /// Left edge.
    pub x_min: f32,
    /// Upper edge.
    pub y_min: f32,
    /// Right edge.
    pub x_max: f32,
    /// Lower edge.
    pub y_max: f32,
}

impl Bounds {
    /// `[x_min, y_min, x_max, y_max]`, as shares.
    pub fn normalized(&self) -> [f32; 4] {
        [self.x_min, self.y_min, self.x_max, self.y_max]
    }

    /// `[x_min, y_min, x_max, y_max]` in pixels of a picture of this size.
    pub fn pixels(&self, width: u32, height: u32) -> [f32; 4] {
        let (width, height) = (width as f32, height as f32);
        [self.x_min * width, self.y_min * height, self.x_max * width, self.y_max * height]
    }
}

/// An object that an answer names.
#[derive(Clone, Debug, PartialEq)]
pub struct Object {
    /// What the model calls it.
    pub label: String,
    /// Where it is.
    pub bounds: Bounds,
    /// The codes of its mask, where the answer has one: sixteen numbers below 128.
    pub segments: Vec<u16>,
    /// Geometric mean of the probabilities of the tokens that made it: locations, segments and label.
    pub score: f32,
}

/// A part of an answer that names no object although it should.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed {
    /// The part.
    pub text: String,
    /// What is wrong with it.
    pub reason: String,
}

/// The objects of an answer, in its order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Detections {
    /// Those that are whole.
    pub objects: Vec<Object>,
    /// What could not be read as one.
    pub malformed: Vec<Malformed>,
}

/// Reads the objects in an answer's tokens, each of which had one of the `probabilities`. An answer without a location token
/// is prose and holds none.
///
/// The form is big_vision's: four location tokens (y_min, x_min, y_max, x_max), perhaps sixteen segment tokens, a label;
/// objects are joined by " ; ". Only a separator that an object follows ends a label, so that labels may hold any punctuation.
///
/// # Errors
/// When there are not as many probabilities as tokens, or the tokenizer fails.
pub fn detections(tokenizer: &Tokenizer, tokens: &[u32], probabilities: &[f32]) -> Result<Detections> {
    if tokens.len() != probabilities.len() {
        let (tokens, probabilities) = (tokens.len(), probabilities.len());
        let reason =
            format!("{tokens} tokens with {probabilities} probabilities: set `probabilities` in GenerateOptions");
        return Err(Error::Request(reason));
    }
    let kinds: Vec<Kind> = tokens.iter().map(|token| Kind::of(tokenizer, *token)).collect();
    let starts: Vec<usize> = (0..kinds.len())
        .filter(|&at| {
            matches!(kinds[at], Kind::Location(_)) && (at == 0 || !matches!(kinds[at - 1], Kind::Location(_)))
        })
        .collect();
    let mut found = Detections::default();
    let Some(&first) = starts.first() else { return Ok(found) };
    let before = tokenizer.decode(&tokens[..first])?;
    if !before.trim().is_empty() {
        found.malformed.push(Malformed { text: before.trim().to_owned(), reason: "no box before it".to_owned() });
    }
    for (index, &start) in starts.iter().enumerate() {
        let end = starts.get(index + 1).copied().unwrap_or(tokens.len());
        let (kinds, tokens) = (&kinds[start..end], &tokens[start..end]);
        let locations: Vec<u16> = kinds.iter().map_while(Kind::location).collect();
        let segments: Vec<u16> = kinds[locations.len()..].iter().map_while(Kind::segment).collect();
        let codes = locations.len() + segments.len();
        let label = tokenizer.decode(&tokens[codes..])?;
        let label = label.trim();
        let followed = index + 1 < starts.len();
        let label = label.strip_suffix(';').filter(|_| followed).unwrap_or(label).trim_end();
        match read(&locations, &segments, label) {
            Ok(bounds) => {
                // Separator and end token say nothing about the object.
                let made = kinds.iter().zip(&probabilities[start..end]).zip(tokens);
                let made =
                    made.filter(|((kind, _), token)| !matches!(kind, Kind::Separator) && !tokenizer.is_end(**token));
                let logarithms: Vec<f64> = made.map(|((_, probability), _)| f64::from(*probability).ln()).collect();
                let score = (logarithms.iter().sum::<f64>() / logarithms.len().max(1) as f64).exp() as f32;
                found.objects.push(Object { label: label.to_owned(), bounds, segments, score });
            }
            Err(reason) => {
                let text = tokenizer.decode(tokens)?;
                found.malformed.push(Malformed { text: text.trim().to_owned(), reason });
            }
        }
    }
    Ok(found)
}

/// What a token is in an answer about objects.
enum Kind {
    Location(u16),
    Segment(u16),
    Separator,
    Text,
}

impl Kind {
    /// By its text: derived vocabularies have other ids.
    fn of(tokenizer: &Tokenizer, token: u32) -> Self {
        let Some(text) = tokenizer.token(token) else { return Self::Text };
        let number = |prefix: &str, digits: usize| -> Option<u16> {
            let inner = text.strip_prefix(prefix)?.strip_suffix('>')?;
            (inner.len() == digits && inner.bytes().all(|byte| byte.is_ascii_digit())).then(|| inner.parse().ok())?
        };
        if let Some(location) = number("<loc", 4).filter(|location| *location <= FAR_EDGE) {
            Self::Location(location)
        } else if let Some(segment) = number("<seg", 3) {
            Self::Segment(segment)
        } else if text.trim_matches(['▁', ' ']) == ";" {
            Self::Separator
        } else {
            Self::Text
        }
    }

    fn location(&self) -> Option<u16> {
        if let Self::Location(location) = self { Some(*location) } else { None }
    }

    fn segment(&self) -> Option<u16> {
        if let Self::Segment(segment) = self { Some(*segment) } else { None }
    }
}

/// The box of one object, or why there is none.
fn read(locations: &[u16], segments: &[u16], label: &str) -> std::result::Result<Bounds, String> {
    let &[y_min, x_min, y_max, x_max] = locations else {
        return Err(format!("{} location tokens in place of {LOCATIONS}", locations.len()));
    };
    if !segments.is_empty() && segments.len() != SEGMENTS {
        return Err(format!("{} segment tokens in place of {SEGMENTS}", segments.len()));
    }
    if label.is_empty() {
        return Err("no label".to_owned());
    }
    if x_max < x_min || y_max < y_min {
        return Err("its far edges lie before its near ones".to_owned());
    }
    let share = |location: u16| f32::from(location) / f32::from(FAR_EDGE);
    Ok(Bounds { x_min: share(x_min), y_min: share(y_min), x_max: share(x_max), y_max: share(y_max) })
}
