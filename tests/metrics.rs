//! The measures of `gemmule eval` against the programs that define them (`tools/reference/metric_goldens.py`).

use gemmule::answer::{Bounds, Mask};
use gemmule::metrics::{anls, cider, exact_match, relaxed_accuracy, vqa_accuracy};
use serde_json::Value;

fn goldens(kind: &str) -> Vec<Value> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/metrics.json");
    let value: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let rows = value[kind].as_array().unwrap().clone();
    assert!(rows.len() >= 9, "{kind}");
    rows
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().unwrap().iter().map(text).collect()
}

#[test]
fn vqa_accuracy_is_the_official_scripts() {
    for case in goldens("vqa") {
        let score = vqa_accuracy(case["answer"].as_str().unwrap(), &texts(&case["answers"]));
        assert!((score - case["score"].as_f64().unwrap()).abs() < 1e-9, "{score}: {case}");
    }
}

#[test]
fn similarity_and_tolerance_are_the_benchmarks() {
    for case in goldens("close") {
        let (answer, reference) = (case["answer"].as_str().unwrap(), [text(&case["reference"])]);
        assert!((anls(answer, &reference) - case["anls"].as_f64().unwrap()).abs() < 1e-9, "{case}");
        assert_eq!(relaxed_accuracy(answer, &reference), case["relaxed"].as_f64().unwrap(), "{case}");
    }
    let references = ["No".to_owned(), "nope ".to_owned()];
    assert_eq!((exact_match(" NO", &references), exact_match("nop", &references)), (1.0, 0.0));
    assert_eq!(anls("nop", &references), 0.75, "the nearest reference counts");
}

#[test]
fn cider_is_pycocoevalcaps() {
    let cases = goldens("cider");
    let answers: Vec<String> = cases.iter().map(|case| text(&case["answer"])).collect();
    let references: Vec<Vec<String>> = cases.iter().map(|case| texts(&case["answers"])).collect();
    for (case, score) in cases.iter().zip(cider(&answers, &references)) {
        assert!((score - case["score"].as_f64().unwrap()).abs() < 1e-9, "{score}: {case}");
    }
}

#[test]
fn overlaps_are_pycocotools() {
    for case in goldens("boxes") {
        let bounds = |index: usize| {
            let edge = |edge: usize| case["boxes"][index][edge].as_f64().unwrap();
            Bounds { x_min: edge(0), y_min: edge(1), x_max: edge(2), y_max: edge(3) }
        };
        let overlap = bounds(0).overlap(&bounds(1));
        assert!((overlap - case["overlap"].as_f64().unwrap()).abs() < 1e-12, "{overlap}: {case}");
    }
    for case in goldens("masks") {
        let side = |index: usize| case["size"][index].as_u64().unwrap() as u32;
        let mask = |index: usize| Mask::from_counts(case["counts"][index].as_str().unwrap(), side(1), side(0)).unwrap();
        for index in 0..2 {
            assert_eq!(mask(index).counts(), case["counts"][index].as_str().unwrap());
            assert_eq!(mask(index).area() as u64, case["areas"][index].as_u64().unwrap());
        }
        let overlap = mask(0).overlap(&mask(1));
        assert!((overlap - case["overlap"].as_f64().unwrap()).abs() < 1e-12, "{overlap}: {case}");
        // Damaged runs are no mask.
        let counts = case["counts"][0].as_str().unwrap();
        assert_eq!(Mask::from_counts(counts, side(1) + 1, side(0)), None);
        assert_eq!(Mask::from_counts(&counts[..counts.len() - 1], side(1), side(0)), None);
    }
    for bad in ["", "P", "oooooooooooooo", "\u{1}", "1Z", "é"] {
        assert_eq!(Mask::from_counts(bad, 4, 4), None, "{bad}");
    }
    assert_eq!(Mask::from_counts("0", u32::MAX, u32::MAX), None);
}
