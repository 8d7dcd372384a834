//! Objects in answers, compared with those that are there.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, ensure};
use gemmule::answer::{Mask, overlap, share_within};
use gemmule::image::Size;
use gemmule_metrics::{
    Answered, AveragePrecision, Overlap, Part, Scale, Scene, There, average_precision, match_objects,
};

use super::report::Measure;
use super::truth::{Object, Shape};

/// Least overlap with which an object counts as found.
const FOUND: f64 = 0.5;

/// An object of an answer.
pub(super) struct Named {
    pub(super) label: String,
    /// In pixels.
    pub(super) edges: [f64; 4],
    pub(super) mask: Option<Mask>,
    pub(super) score: Option<f64>,
}

/// One row: what is there and what was answered.
pub(super) struct Seen {
    there: Vec<(String, bool, bool)>,
    answered: Vec<(String, Option<f64>)>,
    /// `[there][answered]`.
    overlaps: Vec<Vec<f64>>,
}

fn plain(label: &str) -> String {
    label.trim().to_lowercase()
}

impl Seen {
    /// Compares a row's objects with an answer's, about a picture of this size.
    ///
    /// # Errors
    /// When an object lies outside the picture, or a place that is given by location tokens has no picture.
    pub(super) fn new(there: &[Object], answered: &[Named], size: Option<Size>) -> Result<Self> {
        let sides = |mask: &Mask| Size::new(mask.width(), mask.height());
        for object in there {
            match (&object.shape, size) {
                (Shape::Box([.., x_max, y_max]), Some(size)) => ensure!(
                    *x_max <= f64::from(size.width) + 1.0 && *y_max <= f64::from(size.height) + 1.0,
                    "the box of '{}' ends at {x_max}, {y_max}, not within the picture of {size}: edges are wanted, \
                     not width and height",
                    object.label
                ),
                (Shape::Mask(mask), Some(size)) => ensure!(
                    sides(mask) == size,
                    "the mask of '{}' is of {} pixels, the picture of {size}",
                    object.label,
                    sides(mask)
                ),
                _ => {}
            }
        }
        let wanted = there
            .iter()
            .find_map(|object| if let Shape::Mask(mask) = &object.shape { Some(sides(mask)) } else { None });
        for mask in answered.iter().filter_map(|named| named.mask.as_ref()) {
            ensure!(
                wanted.is_none_or(|wanted| wanted == sides(mask)),
                "an answer's mask is of {} pixels, others are of other sizes",
                sides(mask)
            );
        }
        let pixels = |edges: [f64; 4]| -> Result<[f64; 4]> {
            let size = size.ok_or_else(|| {
                anyhow::anyhow!("its places are given by location tokens: give the picture's \"width\" and \"height\"")
            })?;
            let [x_min, y_min, x_max, y_max] = edges;
            let bounds = gemmule::answer::Bounds { x_min, y_min, x_max, y_max };
            Ok(bounds.pixels(size.width, size.height))
        };
        let mut overlaps = Vec::new();
        for object in there {
            let edges = match &object.shape {
                Shape::Box(edges) => Some(*edges),
                Shape::Share(share) => Some(pixels(*share)?),
                Shape::Mask(_) => None,
            };
            let one = |named: &Named| match (&object.shape, edges, &named.mask) {
                (Shape::Mask(mask), _, Some(other)) if object.crowd => other.share_within(mask),
                (Shape::Mask(mask), _, Some(other)) => mask.overlap(other),
                (_, Some(edges), _) if object.crowd => share_within(named.edges, edges),
                (_, Some(edges), _) => overlap(edges, named.edges),
                _ => 0.0,
            };
            overlaps.push(answered.iter().map(one).collect());
        }
        let mut labels: BTreeSet<String> = there.iter().map(|object| plain(&object.label)).collect();
        // Where the data has places only, or a single thing to find, a place alone is an answer.
        let only = if labels.len() == 1 { labels.pop_first() } else { None };
        let any = labels.contains("") || only.as_deref() == Some("");
        let label = |named: &Named| match plain(&named.label) {
            _ if any => String::new(),
            label if label.is_empty() => only.clone().unwrap_or_default(),
            label => label,
        };
        let own = |object: &Object| if any { String::new() } else { plain(&object.label) };
        Ok(Self {
            there: there.iter().map(|object| (own(object), object.crowd, object.ignored)).collect(),
            answered: answered.iter().map(|named| (label(named), named.score)).collect(),
            overlaps,
        })
    }

    /// How those that count were found, one to one within a label.
    fn overlap(&self) -> Overlap {
        let counts = |at: &usize| !self.there[*at].1 && !self.there[*at].2;
        let (wanted, others): (Vec<usize>, Vec<usize>) = (0..self.there.len()).partition(counts);
        let lies_on = |answer: usize, objects: &[usize]| {
            let same = |at: &&usize| self.there[**at].0 == self.answered[answer].0;
            objects.iter().filter(same).any(|at| self.overlaps[*at][answer] >= FOUND)
        };
        // What lies on something that does not count is no false alarm.
        let counts = |answer: &usize| lies_on(*answer, &wanted) || !lies_on(*answer, &others);
        let kept: Vec<usize> = (0..self.answered.len()).filter(counts).collect();
        let labels: Vec<&str> = wanted.iter().map(|at| self.there[*at].0.as_str()).collect();
        let answered: Vec<&str> = kept.iter().map(|at| self.answered[*at].0.as_str()).collect();
        match_objects(&labels, &answered, |one, other| self.overlaps[wanted[one]][kept[other]])
    }
}

/// The measures of all rows, and each label's average precision.
pub(super) fn measures(rows: &[Seen]) -> (Vec<Measure>, Vec<(String, AveragePrecision)>) {
    let overlaps: Vec<Overlap> = rows.iter().map(Seen::overlap).collect();
    let part = |numerator: f64, denominator: usize| Part { numerator, denominator: denominator as f64 };
    let measure = |name: &'static str, of: &dyn Fn(&Overlap) -> Part| {
        Measure::of_rows(name, overlaps.iter().map(of).collect(), Scale::SHARE)
    };
    // Sums of nothing are −0 in Rust.
    let total = |row: &Overlap| row.overlaps.iter().fold(0.0, |sum, overlap| sum + overlap);
    let mut measures = vec![
        measure("recall at IoU 0.5", &|row| part(row.found(FOUND) as f64, row.overlaps.len())),
        measure("precision at IoU 0.5", &|row| part(row.found(FOUND) as f64, row.answered)),
        measure("mean IoU", &|row| part(total(row), row.overlaps.len())),
    ];
    let mut classes = BTreeMap::new();
    for row in rows {
        for label in row.there.iter().map(|row| &row.0).chain(row.answered.iter().map(|row| &row.0)) {
            let next = classes.len();
            classes.entry(label.clone()).or_insert(next);
        }
    }
    if rows.iter().flat_map(|row| &row.answered).any(|(_, score)| score.is_none()) {
        crate::output::print_note("note: average precision needs a \"score\" of every object; it is left out");
        return (measures, Vec::new());
    }
    let scene = |row: &Seen| Scene {
        there: row
            .there
            .iter()
            .map(|(label, crowd, ignored)| There { class: classes[label], crowd: *crowd, ignored: *ignored })
            .collect(),
        answered: row
            .answered
            .iter()
            .map(|(label, score)| Answered { class: classes[label], score: score.unwrap_or(1.0) })
            .collect(),
        overlaps: row.overlaps.clone(),
    };
    let scenes: Vec<Scene> = rows.iter().map(scene).collect();
    let (each, all) = average_precision(&scenes, classes.len());
    for (name, value) in [
        ("AP", all.map(|all| all.ap)),
        ("AP at IoU 0.5", all.map(|all| all.ap50)),
        ("AP at IoU 0.75", all.map(|all| all.ap75)),
        ("average recall", all.map(|all| all.ar)),
    ] {
        measures.push(Measure::of_all(name, value));
    }
    let labelled = classes.into_iter().filter_map(|(label, class)| each[class].map(|found| (label, found)));
    (measures, labelled.collect())
}
