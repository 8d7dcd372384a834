//! Names and indexes.

use super::*;

/// A tensor's padding may begin a chunk of its own, after all values.
#[test]
fn nothing_is_read_behind_the_end() {
    let mut checkpoint = Checkpoint::empty();
    let values = (0..12).map(|value| value as f32).collect();
    checkpoint.add_values(Path::new("/dev/null"), [("added".to_owned(), vec![4, 3], values)]).unwrap();
    let source = checkpoint.find("added", &[4, 3]).unwrap();
    assert_eq!(checkpoint.read(source, 9, 3).unwrap(), [9.0, 10.0, 11.0]);
    assert!(checkpoint.read(source, 15, 0).unwrap().is_empty());
}

#[test]
fn all_layouts_have_the_same_canonical_names() {
    for name in ["language_model.model.norm.weight", "model.language_model.norm.weight"] {
        assert_eq!(canonical(name), "language_model.norm.weight");
    }
    let vision =
        ["vision_tower.vision_model.post_layernorm.bias", "model.vision_tower.vision_model.post_layernorm.bias"];
    for name in vision.into_iter().chain(["vision_tower.post_layernorm.bias", "model.vision_tower.post_layernorm.bias"])
    {
        assert_eq!(canonical(name), "vision_tower.post_layernorm.bias");
    }
    for name in ["lm_head.weight", "language_model.lm_head.weight"] {
        assert_eq!(canonical(name), "lm_head.weight");
    }
    assert_eq!(canonical("model.multi_modal_projector.linear.bias"), "multi_modal_projector.linear.bias");
}
