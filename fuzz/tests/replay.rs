//! The inputs of `corpus/`: seeds, and what fuzzing has found. Each has to come back.

use std::path::Path;

#[test]
fn every_input_comes_back() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let mut inputs = 0;
    for (name, target) in gemmule_fuzz::TARGETS {
        let folder = corpus.join(name);
        let entries = std::fs::read_dir(&folder).unwrap_or_else(|_| panic!("{} has no inputs", folder.display()));
        for entry in entries {
            let path = entry.unwrap().path();
            let data = std::fs::read(&path).unwrap();
            if std::panic::catch_unwind(|| target(&data)).is_err() {
                panic!("{} does not come back", path.display());
            }
            inputs += 1;
        }
        target(&[]);
    }
    assert!(inputs > 100, "{inputs} inputs");
}
