//! Average precision as COCO's own tools compute it (pycocotools, `cocoeval.py`).

/// An object that is there.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct There {
    /// The number of its class.
    pub class: usize,
    /// It stands for a crowd: any number of objects in it may be answered, none has to be.
    pub crowd: bool,
    /// It does not count, whether it is answered or not; crowds never do.
    pub ignored: bool,
}

/// An object of an answer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Answered {
    /// The number of its class.
    pub class: usize,
    /// How sure the model is of it.
    pub score: f64,
}

/// One picture: what is there and what was answered.
#[derive(Clone, Debug, Default)]
pub struct Scene {
    /// What is there.
    pub there: Vec<There>,
    /// What was answered.
    pub answered: Vec<Answered>,
    /// `[there][answered]`: intersection over union; with a crowd, the share of the answered object that lies in it.
    pub overlaps: Vec<Vec<f64>>,
}

/// Average precision, and average recall, of one class or over all.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AveragePrecision {
    /// Over the overlaps 0.50, 0.55 … 0.95.
    pub ap: f64,
    /// At an overlap of 0.5.
    pub ap50: f64,
    /// At an overlap of 0.75.
    pub ap75: f64,
    /// The greatest recall with up to 100 objects of a class in a picture, over the same overlaps.
    pub ar: f64,
}

/// Overlaps at which an object counts as found.
const THRESHOLDS: usize = 10;
/// Recalls at which precision is read.
const RECALLS: usize = 101;
/// Objects of a class that count in a picture, those with the highest scores.
const MOST_OBJECTS: usize = 100;

/// Precision at each recall, and the recall at the end, for each threshold; none where nothing of the class has to be found.
type Curves = Option<[([f64; RECALLS], f64); THRESHOLDS]>;

/// Each class's precision, and the mean over those classes of which anything has to be found. None for a class, or for all, where
/// nothing has to be found.
pub fn average_precision(
    scenes: &[Scene],
    classes: usize,
) -> (Vec<Option<AveragePrecision>>, Option<AveragePrecision>) {
    let curves: Vec<Curves> = (0..classes).map(|class| curves(scenes, class)).collect();
    let each = curves.iter().map(|curve| mean(std::slice::from_ref(curve))).collect();
    (each, mean(&curves))
}

/// Over all classes' numbers at once, as numpy takes the mean of what is not −1.
fn mean(curves: &[Curves]) -> Option<AveragePrecision> {
    let known: Vec<_> = curves.iter().flatten().collect();
    if known.is_empty() {
        return None;
    }
    let precision = |thresholds: std::ops::Range<usize>| {
        let values = thresholds.flat_map(|threshold| known.iter().flat_map(move |curves| curves[threshold].0));
        let (sum, count) = values.fold((0.0, 0), |(sum, count), value| (sum + value, count + 1));
        sum / f64::from(count)
    };
    let recalls = known.iter().flat_map(|curves| curves.iter().map(|(_, recall)| recall));
    let ar = recalls.fold(0.0, |sum, recall| sum + recall) / (known.len() * THRESHOLDS) as f64;
    Some(AveragePrecision { ap: precision(0..THRESHOLDS), ap50: precision(0..1), ap75: precision(5..6), ar })
}

/// What one answered object comes to at each threshold.
struct Judged {
    score: f64,
    /// It found something that has to be found.
    right: [bool; THRESHOLDS],
    /// It lies on something that does not count.
    ignored: [bool; THRESHOLDS],
}

fn curves(scenes: &[Scene], class: usize) -> Curves {
    let mut judged = Vec::new();
    let mut wanted = 0;
    for scene in scenes {
        let mut there: Vec<usize> = (0..scene.there.len()).filter(|at| scene.there[*at].class == class).collect();
        // Those that do not count come last.
        let is_ignored = |at: usize| scene.there[at].ignored || scene.there[at].crowd;
        there.sort_by_key(|at| is_ignored(*at));
        wanted += there.iter().filter(|at| !is_ignored(**at)).count();
        let mut answered: Vec<usize> =
            (0..scene.answered.len()).filter(|at| scene.answered[*at].class == class).collect();
        answered.sort_by(|one, other| descending(scene.answered[*one].score, scene.answered[*other].score));
        answered.truncate(MOST_OBJECTS);
        judged.extend(judge(scene, &there, &answered));
    }
    if wanted == 0 {
        return None;
    }
    judged.sort_by(|one, other| descending(one.score, other.score));
    Some(std::array::from_fn(|threshold| curve(&judged, threshold, wanted as f64)))
}

/// The highest first; equal ones stay in their order.
fn descending(one: f64, other: f64) -> std::cmp::Ordering {
    (-one).total_cmp(&-other)
}

fn threshold(index: usize) -> f64 {
    // numpy's linspace(0.5, 0.95, 10).
    let step = (0.95 - 0.5) / (THRESHOLDS - 1) as f64;
    let value = if index + 1 == THRESHOLDS { 0.95 } else { index as f64 * step + 0.5 };
    value.min(1.0 - 1e-10)
}

fn judge(scene: &Scene, there: &[usize], answered: &[usize]) -> Vec<Judged> {
    let fresh = |at: &usize| Judged {
        score: scene.answered[*at].score,
        right: [false; THRESHOLDS],
        ignored: [false; THRESHOLDS],
    };
    let mut judged: Vec<Judged> = answered.iter().map(fresh).collect();
    for index in 0..THRESHOLDS {
        let mut taken = vec![false; there.len()];
        for (answer, judged) in answered.iter().zip(&mut judged) {
            let (mut best, mut found) = (threshold(index), None);
            for (place, at) in there.iter().enumerate() {
                let object = scene.there[*at];
                if taken[place] && !object.crowd {
                    continue;
                }
                let counts = |place: usize| {
                    let object = scene.there[there[place]];
                    !object.ignored && !object.crowd
                };
                if found.is_some_and(counts) && !counts(place) {
                    break;
                }
                let overlap = scene.overlaps[*at][*answer];
                if overlap >= best {
                    (best, found) = (overlap, Some(place));
                }
            }
            if let Some(place) = found {
                taken[place] = true;
                let object = scene.there[there[place]];
                let ignored = object.ignored || object.crowd;
                (judged.right[index], judged.ignored[index]) = (!ignored, ignored);
            }
        }
    }
    judged
}

fn curve(judged: &[Judged], threshold: usize, wanted: f64) -> ([f64; RECALLS], f64) {
    let (mut right, mut wrong) = (0.0, 0.0);
    let (mut recalls, mut precisions) = (Vec::new(), Vec::new());
    for object in judged {
        if !object.ignored[threshold] {
            if object.right[threshold] {
                right += 1.0;
            } else {
                wrong += 1.0;
            }
        }
        recalls.push(right / wanted);
        precisions.push(right / (wrong + right + f64::EPSILON));
    }
    // The best that is reached at this recall or beyond.
    for at in (1..precisions.len()).rev() {
        precisions[at - 1] = precisions[at - 1].max(precisions[at]);
    }
    let read = |index: usize| {
        // numpy's linspace(0, 1, 101).
        let wanted = if index + 1 == RECALLS { 1.0 } else { index as f64 * 0.01 };
        let at = recalls.partition_point(|recall| *recall < wanted);
        precisions.get(at).copied().unwrap_or(0.0)
    };
    (std::array::from_fn(read), recalls.last().copied().unwrap_or(0.0))
}
