//! What an answer's tokens mean: the objects that `detect` and `segment` name.

#[cfg(feature = "drawing")]
mod draw;
mod mask;

#[cfg(feature = "drawing")]
pub use draw::{Drawn, annotate};
pub use mask::Mask;

use std::ops::Range;

use crate::session::GeneratedToken;
use crate::text::{FAR_EDGE, LOCATIONS, SEGMENTS, TokenKind, Tokenizer};
use crate::{Error, Result};

/// A box as shares of the picture's sides, 0 … 1, from its upper left corner.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bounds {
    /// Left edge.
    pub x_min: f64,
    /// Upper edge.
    pub y_min: f64,
    /// Right edge.
    pub x_max: f64,
    /// Lower edge.
    pub y_max: f64,
}

impl Bounds {
    /// `[x_min, y_min, x_max, y_max]`, as shares.
    pub fn normalized(&self) -> [f64; 4] {
        [self.x_min, self.y_min, self.x_max, self.y_max]
    }

    /// `[x_min, y_min, x_max, y_max]` in whole pixels of the picture, rounded down as big_vision's evaluation does; edges beyond
    /// the picture become its edges.
    fn whole_pixels(&self, width: u32, height: u32) -> [usize; 4] {
        let [x_min, y_min, x_max, y_max] = self.pixels(width, height);
        // What is no number becomes zero.
        let whole = |edge: f64, side: u32| (edge as usize).min(side as usize);
        [whole(x_min, width), whole(y_min, height), whole(x_max, width), whole(y_max, height)]
    }

    /// The share of the picture that it covers, 0 … 1.
    pub fn area(&self) -> f64 {
        area(self.normalized())
    }

    /// Intersection over union with another; zero where neither has an area.
    pub fn overlap(&self, other: &Self) -> f64 {
        overlap(self.normalized(), other.normalized())
    }

    /// `[x_min, y_min, x_max, y_max]` in pixels of a picture of this size.
    pub fn pixels(&self, width: u32, height: u32) -> [f64; 4] {
        let (x, y) = (|share| pixel(share, width), |share| pixel(share, height));
        [x(self.x_min), y(self.y_min), x(self.x_max), y(self.y_max)]
    }
}

/// A share of a side, in pixels. The share of a location gives exactly that location's pixel, without a rounding error.
fn pixel(share: f64, side: u32) -> f64 {
    let far = f64::from(FAR_EDGE);
    let location = (share * far).round();
    let is_location = (location - share * far).abs() < 1e-9;
    if is_location { location * f64::from(side) / far } else { share * f64::from(side) }
}

fn area([x_min, y_min, x_max, y_max]: [f64; 4]) -> f64 {
    (x_max - x_min).max(0.0) * (y_max - y_min).max(0.0)
}

fn common_area(one: [f64; 4], other: [f64; 4]) -> f64 {
    area([one[0].max(other[0]), one[1].max(other[1]), one[2].min(other[2]), one[3].min(other[3])])
}

/// Intersection over union of two boxes `[x_min, y_min, x_max, y_max]` in any one unit; zero where neither has an area.
pub fn overlap(one: [f64; 4], other: [f64; 4]) -> f64 {
    let common = common_area(one, other);
    let union = area(one) + area(other) - common;
    if union > 0.0 { common / union } else { 0.0 }
}

/// The share of a box that lies in another; zero for one without an area.
pub fn share_within(one: [f64; 4], other: [f64; 4]) -> f64 {
    if area(one) > 0.0 { common_area(one, other) / area(one) } else { 0.0 }
}

/// An object that an answer names.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Object {
    /// What the model calls it; empty where it gives a place only, as checkpoints for referring expressions do.
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
#[non_exhaustive]
pub struct Malformed {
    /// The part.
    pub text: String,
    /// What is wrong with it.
    pub reason: String,
}

/// The objects of an answer, in its order.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Detections {
    /// Those that are whole.
    pub objects: Vec<Object>,
    /// What could not be read as one.
    pub malformed: Vec<Malformed>,
}

/// Reads the objects in an answer's tokens. An answer without a location token is prose and holds none.
///
/// The form is big_vision's: four location tokens (y_min, x_min, y_max, x_max), perhaps sixteen segment tokens, perhaps a label;
/// objects are joined by " ; ". Only a separator that an object follows ends a label, so that labels may hold any punctuation.
/// Objects without a label may also follow each other directly.
///
/// # Errors
/// When the tokens have no probabilities, or the tokenizer fails.
pub fn detections(tokenizer: &Tokenizer, tokens: &[GeneratedToken]) -> Result<Detections> {
    let probabilities: Option<Vec<f32>> = tokens.iter().map(|token| token.probability).collect();
    let probabilities = probabilities.ok_or_else(|| {
        Error::Request(
            "objects have scores, which are made of probabilities: set GenerateOptions::probabilities".to_owned(),
        )
    })?;
    let ids: Vec<u32> = tokens.iter().map(|token| token.id).collect();
    let kinds: Vec<TokenKind> = ids.iter().map(|id| tokenizer.kind(*id)).collect();
    let score = |part: Range<usize>, separator: Option<usize>| {
        // The separator at the end says nothing about the object; a semicolon within the label does.
        let made = part.filter(|at| Some(*at) != separator && !tokenizer.is_end(ids[*at]));
        geometric_mean(made.map(|at| probabilities[at]))
    };
    collect(&kinds, |part| tokenizer.decode(&ids[part]), score)
}

/// Reads the objects in an answer's text, in which locations and segments are written out (`<loc0100>`), as [`detections`] reads
/// those of tokens. Each has the score 1.
pub fn detections_in_text(text: &str) -> Detections {
    let (mut kinds, mut parts) = (Vec::new(), Vec::new());
    let mut rest = text;
    while !rest.is_empty() {
        // Nothing longer is a location or a segment.
        let near = rest.len().min("<loc0000>".len());
        let end = rest.as_bytes()[..near].iter().position(|byte| *byte == b'>').filter(|_| rest.starts_with('<'));
        let code = end.map(|end| &rest[..=end]).filter(|code| TokenKind::of(code) != TokenKind::Text);
        let second = rest.chars().next().map_or(0, char::len_utf8);
        let next = rest[second..].find(['<', ';']).map_or(rest.len(), |at| second + at);
        let part = match code {
            Some(code) => code,
            None if rest.starts_with(';') => &rest[..1],
            None => &rest[..next],
        };
        kinds.push(TokenKind::of(part));
        parts.push(part);
        rest = &rest[part.len()..];
    }
    let found = collect(&kinds, |part| Ok(parts[part].concat()), |_, _| 1.0);
    found.expect("parts of a text are text")
}

/// Sorts an answer's pieces into objects. `text` and `score` take a range of pieces; `score` leaves one of them, the separator, out.
fn collect(
    kinds: &[TokenKind],
    text: impl Fn(Range<usize>) -> Result<String>,
    score: impl Fn(Range<usize>, Option<usize>) -> f32,
) -> Result<Detections> {
    let starts = starts(kinds);
    let mut found = Detections::default();
    let Some(&first) = starts.first() else { return Ok(found) };
    let before = text(0..first)?;
    if !before.trim().is_empty() {
        found.malformed.push(Malformed { text: before.trim().to_owned(), reason: "no box before it".to_owned() });
    }
    for (index, &start) in starts.iter().enumerate() {
        let end = starts.get(index + 1).copied().unwrap_or(kinds.len());
        let own = &kinds[start..end];
        let locations: Vec<u16> = own.iter().map_while(TokenKind::location).collect();
        let segments: Vec<u16> = own[locations.len()..].iter().map_while(TokenKind::segment).collect();
        let label = text(start + locations.len() + segments.len()..end)?;
        let label = label.trim();
        let separated = index + 1 < starts.len() || label == ";";
        let label = label.strip_suffix(';').filter(|_| separated).unwrap_or(label).trim_end();
        match read(&locations, &segments) {
            Ok(bounds) => {
                let separator = own.iter().rposition(|kind| *kind == TokenKind::Separator).filter(|_| separated);
                let score = score(start..end, separator.map(|at| start + at));
                found.objects.push(Object { label: label.to_owned(), bounds, segments, score });
            }
            Err(reason) => {
                found.malformed.push(Malformed { text: text(start..end)?.trim().to_owned(), reason });
            }
        }
    }
    Ok(found)
}

/// Where objects begin: with a run of locations, or with every fourth of a run that is whole boxes.
fn starts(kinds: &[TokenKind]) -> Vec<usize> {
    let mut starts = Vec::new();
    let mut at = 0;
    while at < kinds.len() {
        let run = kinds[at..].iter().map_while(TokenKind::location).count();
        if run > 0 {
            let step = if run.is_multiple_of(LOCATIONS) { LOCATIONS } else { run };
            starts.extend((at..at + run).step_by(step));
        }
        at += run.max(1);
    }
    starts
}

/// The geometric mean of at least one probability.
fn geometric_mean(probabilities: impl Iterator<Item = f32>) -> f32 {
    let (count, sum) =
        probabilities.fold((0, 0.0), |(count, sum), probability| (count + 1, sum + f64::from(probability).ln()));
    (sum / f64::from(count)).exp() as f32
}

/// Non-maximum suppression: where boxes of objects with one label overlap by more than `overlap` (intersection over union, 0 … 1),
/// only the object with the highest score stays. The order is kept.
pub fn merge_duplicates(objects: &mut Vec<Object>, overlap: f32) {
    let least = f64::from(overlap);
    let mut best: Vec<usize> = (0..objects.len()).collect();
    best.sort_by(|a, b| objects[*b].score.total_cmp(&objects[*a].score).then(a.cmp(b)));
    let mut kept: Vec<usize> = Vec::new();
    for index in best {
        let object = &objects[index];
        let same = |other: &usize| {
            objects[*other].label == object.label && objects[*other].bounds.overlap(&object.bounds) > least
        };
        if !kept.iter().any(same) {
            kept.push(index);
        }
    }
    let mut index = 0;
    objects.retain(|_| {
        index += 1;
        kept.contains(&(index - 1))
    });
}

/// The box of one object, or why there is none.
fn read(locations: &[u16], segments: &[u16]) -> std::result::Result<Bounds, String> {
    let &[y_min, x_min, y_max, x_max] = locations else {
        return Err(format!("{} location tokens in place of {LOCATIONS}", locations.len()));
    };
    if !segments.is_empty() && segments.len() != SEGMENTS {
        return Err(format!("{} segment tokens in place of {SEGMENTS}", segments.len()));
    }
    if x_max < x_min || y_max < y_min {
        return Err("its far edges lie before its near ones".to_owned());
    }
    let share = |location: u16| f64::from(location) / f64::from(FAR_EDGE);
    Ok(Bounds { x_min: share(x_min), y_min: share(y_min), x_max: share(x_max), y_max: share(y_max) })
}
