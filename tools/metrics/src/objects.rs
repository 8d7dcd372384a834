//! Measures of objects: which of those that are there were found, and how well.

/// How the objects of one row were found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Overlap {
    /// For each object that is there, the overlap with the answer's object that was matched to it; 0 where none was.
    pub overlaps: Vec<f64>,
    /// Objects in the answer.
    pub answered: usize,
}

impl Overlap {
    /// Objects that were found with at least this overlap.
    pub fn found(&self, least: f64) -> usize {
        self.overlaps.iter().filter(|overlap| **overlap >= least && **overlap > 0.0).count()
    }
}

/// Matches the answer's objects to those that are there, one to one and within a label, the largest overlaps first.
/// `overlap(there, answered)` is an intersection over union.
pub fn match_objects(there: &[&str], answered: &[&str], overlap: impl Fn(usize, usize) -> f64) -> Overlap {
    let plain = |label: &str| label.trim().to_lowercase();
    let mut pairs = Vec::new();
    for (index, label) in there.iter().enumerate() {
        let same = answered.iter().enumerate().filter(|(_, answer)| plain(answer) == plain(label));
        pairs.extend(same.map(|(other, _)| (overlap(index, other), index, other)));
    }
    pairs.sort_by(|a, b| b.0.total_cmp(&a.0).then((a.1, a.2).cmp(&(b.1, b.2))));
    let mut overlaps = vec![None; there.len()];
    let mut taken = vec![false; answered.len()];
    for (overlap, index, other) in pairs {
        if overlaps[index].is_none() && !taken[other] {
            overlaps[index] = Some(overlap);
            taken[other] = true;
        }
    }
    Overlap { overlaps: overlaps.into_iter().map(|overlap| overlap.unwrap_or(0.0)).collect(), answered: answered.len() }
}

#[cfg(test)]
mod tests {
    use super::match_objects;

    #[test]
    fn objects_are_matched_one_to_one_within_a_label() {
        let table = [[0.9, 0.8, 0.95], [0.85, 0.1, 0.99], [0.0, 0.0, 0.7]];
        let found = match_objects(&["cat", "cat", "dog"], &["Cat ", "cat", "dog"], |a, b| table[a][b]);
        // The first cat takes the first answer (0.9), the second what is left (0.1).
        assert_eq!(found.overlaps, [0.9, 0.1, 0.7]);
        assert_eq!((found.found(0.5), found.answered), (2, 3));
        let nothing = match_objects(&["cat"], &[], |_, _| 1.0);
        assert_eq!((nothing.overlaps, nothing.answered), (vec![0.0], 0));
    }
}
