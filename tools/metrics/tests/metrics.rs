//! The measures of `gemmule eval` against the programs that define them (`tools/reference/metric_goldens.py`).

use gemmule::answer::{Bounds, Mask};
use gemmule_metrics::{
    Answered, Scene, There, anls, average_precision, cider, exact_match, relaxed_accuracy, vqa_accuracy,
};
use serde_json::Value;

fn goldens(kind: &str) -> Vec<Value> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/goldens/metrics.json");
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

/// Captions with every kind of sign, as people and other tools write them.
#[test]
fn cider_of_nasty_captions_is_pycocoevalcaps() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/goldens/cider.json");
    let golden: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let rows = golden["rows"].as_array().unwrap();
    let answers: Vec<String> = rows.iter().map(|row| text(&row["answer"])).collect();
    let references: Vec<Vec<String>> = rows.iter().map(|row| texts(&row["references"])).collect();
    let scores = cider(&answers, &references);
    for (row, score) in rows.iter().zip(&scores) {
        assert!((score - row["score"].as_f64().unwrap()).abs() < 1e-9, "{score}: {row}");
    }
    let mean = scores.iter().sum::<f64>() / scores.len() as f64;
    assert!((mean - golden["score"].as_f64().unwrap()).abs() < 1e-9 && rows.len() > 150, "{mean}");
}

/// The edge of 5 %, where dividing by 100 and multiplying by 0.01 round apart.
#[test]
fn percentages_are_divided() {
    for (answer, reference, right) in [
        // What the public scripts say (`float(text.rstrip("%")) / 100.0`).
        ("57%", "60%", 0.0),
        ("9.45%", "9%", 1.0),
        ("19%", "20%", 0.0),
        ("21%", "20%", 1.0),
        ("28.5%", "30%", 0.0),
        ("5.25%", "5%", 1.0),
        ("57", "60", 1.0),
        ("58%", "0.6", 1.0),
        ("57%%", "60", 0.0),
        ("0", "0", 1.0),
        ("0.0", "0", 0.0),
    ] {
        assert_eq!(relaxed_accuracy(answer, &[reference.to_owned()]), right, "{answer} {reference}");
    }
}

/// Boxes, masks, crowds, scores that are equal, classes without objects (`tools/reference/coco_goldens.py`).
#[test]
fn average_precision_is_pycocotools() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/goldens/coco.json");
    let cases: Vec<Value> = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let list = |value: &Value| value.as_array().unwrap().clone();
    for (case, kind) in cases.iter().flat_map(|case| ["bbox", "segm"].map(|kind| (case, kind))) {
        let mut classes: Vec<u64> =
            list(&case["categories"]).iter().map(|class| class["id"].as_u64().unwrap()).collect();
        classes.sort_unstable();
        let class = |value: &Value| classes.iter().position(|id| value["category_id"].as_u64() == Some(*id)).unwrap();
        let edges = |value: &Value| {
            let number = |at: usize| value["bbox"][at].as_f64().unwrap();
            [number(0), number(1), number(0) + number(2), number(1) + number(3)]
        };
        let mask = |value: &Value| {
            let (size, counts) = (&value["segmentation"]["size"], value["segmentation"]["counts"].as_str().unwrap());
            let side = |at: usize| size[at].as_u64().unwrap() as u32;
            Mask::from_counts(counts, side(1), side(0)).unwrap()
        };
        let mut scenes = Vec::new();
        let mut images = list(&case["images"]);
        images.sort_by_key(|image| image["id"].as_u64());
        for image in &images {
            let of = |key: &str| -> Vec<Value> {
                list(&case[key]).into_iter().filter(|value| value["image_id"] == image["id"]).collect()
            };
            let (there, answered) = (of("annotations"), of("detections"));
            let overlap = |one: &Value, other: &Value| {
                let crowd = one["iscrowd"] == 1;
                match kind {
                    "bbox" if crowd => gemmule::answer::share_within(edges(other), edges(one)),
                    "bbox" => gemmule::answer::overlap(edges(one), edges(other)),
                    _ if crowd => mask(other).share_within(&mask(one)),
                    _ => mask(one).overlap(&mask(other)),
                }
            };
            scenes.push(Scene {
                overlaps: there.iter().map(|one| answered.iter().map(|other| overlap(one, other)).collect()).collect(),
                there: there
                    .iter()
                    .map(|object| There { class: class(object), crowd: object["iscrowd"] == 1, ignored: false })
                    .collect(),
                answered: answered
                    .iter()
                    .map(|object| Answered { class: class(object), score: object["score"].as_f64().unwrap() })
                    .collect(),
            });
        }
        let (each, all) = average_precision(&scenes, classes.len());
        let close = |found: Option<f64>, expected: &Value, what: &str| {
            let expected = expected.as_f64().unwrap();
            assert!(
                (found.unwrap_or(-1.0) - expected).abs() < 1e-12,
                "{} {kind} {what}: {found:?}, {expected}",
                case["name"]
            );
        };
        let expected = &case[kind];
        for (name, value) in [
            ("AP", all.map(|all| all.ap)),
            ("AP50", all.map(|all| all.ap50)),
            ("AP75", all.map(|all| all.ap75)),
            ("AR100", all.map(|all| all.ar)),
        ] {
            close(value, &expected["stats"][name], name);
        }
        for (id, found) in classes.iter().zip(&each) {
            let expected = &expected["classes"][id.to_string()];
            for (name, value) in [
                ("AP", found.map(|found| found.ap)),
                ("AP50", found.map(|found| found.ap50)),
                ("AP75", found.map(|found| found.ap75)),
                ("AR100", found.map(|found| found.ar)),
            ] {
                close(value, &expected[name], &format!("class {id} {name}"));
            }
        }
    }
    assert!(cases.len() > 10);
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
