//! Rules of `generation_config.json` against `generate` of transformers (`tools/reference/generation_goldens.py`).

use std::path::Path;
use std::process::Command;

use gemmule::{GenerateOptions, Model, Picture, Session, SessionOptions};
use serde_json::Value;

#[test]
fn rules_choose_the_tokens_that_generate_chooses() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let goldens: Value =
        serde_json::from_slice(&std::fs::read(root.join("tests/goldens/generation.json")).unwrap()).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let (source, output) = (directory.path().join("checkpoint"), directory.path().join("model.gguf"));
    let mut compared = 0;
    for case in goldens["cases"].as_array().unwrap() {
        let checkpoint = root.join(case["checkpoint"].as_str().unwrap());
        let _ = std::fs::remove_dir_all(&source);
        std::fs::create_dir(&source).unwrap();
        for entry in std::fs::read_dir(checkpoint.canonicalize().unwrap()).unwrap() {
            let entry = entry.unwrap();
            if entry.file_name() != "generation_config.json" {
                std::os::unix::fs::symlink(entry.path(), source.join(entry.file_name())).unwrap();
            }
        }
        let picture = Picture::open(root.join(case["picture"].as_str().unwrap())).unwrap();
        let prompt = case["prompt"].as_str().unwrap();
        // The larger checkpoint takes a while to convert.
        let step = if case["checkpoint"] == "models/easy-vqa" { 5 } else { 1 };
        for golden in case["configs"].as_array().unwrap().iter().step_by(step) {
            let config = &golden["generation_config"];
            std::fs::write(source.join("generation_config.json"), config.to_string()).unwrap();
            let mut command = Command::new(env!("CARGO_BIN_EXE_gemmule-quantize"));
            let run = command.arg(&source).arg(&output).args(["--type", "f32", "--force"]).output().unwrap();
            assert!(run.status.success(), "{config}: {}", String::from_utf8_lossy(&run.stderr));
            let model = Model::open(&output).unwrap();
            let mut session = Session::new(&model, &SessionOptions::new()).unwrap();
            let options = GenerateOptions::new().max_tokens(24);
            let answer = session.generate(std::slice::from_ref(&picture), prompt, &options).unwrap();
            let expected: Vec<u32> = serde_json::from_value(golden["tokens"].clone()).unwrap();
            assert_eq!(answer.prompt_tokens as u64, case["prompt_tokens"].as_u64().unwrap());
            assert_eq!(answer.token_ids(), expected, "{}: {config}", case["checkpoint"]);
            compared += 1;
        }
    }
    assert!(compared > 150, "{compared}");
}
