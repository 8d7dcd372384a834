//! The program as a user meets it.

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;

use support::{PICTURE, ROOT, assert_fails, gemmule, json_lines, stdout};

#[test]
fn the_bundled_model_answers_right() {
    for (prompt, answer) in [
        ("answer en what color is the shape?", "yellow\n"),
        ("answer en is there a circle in the image?", "yes\n"),
        ("caption en", "a yellow circle\n"),
    ] {
        for isa in gemmule_quant::isa::available() {
            assert_eq!(stdout(&gemmule(&["run", "-i", PICTURE, "-p", prompt, "--isa", isa.name()])), answer, "{isa}");
        }
    }
}

#[test]
fn json_has_what_the_manual_promises() {
    let output = stdout(&gemmule(&["run", "-i", PICTURE, "-p", "caption en", "--json"]));
    let value: serde_json::Value = serde_json::from_str(&output).unwrap();
    assert_eq!(value["text"], "a yellow circle");
    assert_eq!(value["finish"], "end_token");
    let tokens = value["tokens"].as_array().unwrap();
    assert_eq!(tokens.last().unwrap(), 1, "the end token is included");
    assert!(value["prompt_tokens"].as_u64().unwrap() > 25);
    assert_eq!(value["probabilities"].as_array().unwrap().len(), tokens.len());
    assert_eq!((&value["objects"], &value["malformed"]), (&serde_json::json!([]), &serde_json::json!([])));
    for stage in ["load", "image", "vision", "prefill", "generate"] {
        assert!(value["timings"][stage].as_f64().unwrap() >= 0.0, "{stage}");
    }
}

#[test]
fn detection_is_data() {
    let found = |pictures: &[&str]| -> serde_json::Value {
        let arguments = [&["run", "-p", "detect circle", "--json"], pictures].concat();
        serde_json::from_str(&stdout(&gemmule(&arguments))).unwrap()
    };
    let value = found(&["-i", PICTURE]);
    let object = &value["objects"][0];
    assert_eq!(object["label"], "circle");
    let numbers = |key: &str| -> Vec<f64> {
        object[key].as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
    };
    let (width, height) = image::image_dimensions(Path::new(ROOT).join(PICTURE)).unwrap();
    for (index, (pixels, share)) in numbers("box").into_iter().zip(numbers("normalized_box")).enumerate() {
        assert!((pixels - share * f64::from([width, height][index % 2])).abs() < 1e-3);
    }
    assert!((0.0..=1.0).contains(&object["score"].as_f64().unwrap()));
    let value = found(&["-i", PICTURE, "-i", PICTURE]);
    for object in value["objects"].as_array().unwrap() {
        assert!(object["box"].is_null(), "of two pictures the box could be in either");
    }
}

#[test]
fn several_prompts_look_at_the_picture_once() {
    let prompts = ["-p", "caption en", "-p", "answer en what color is the shape?"];
    let output = gemmule(&[&["run", "-i", PICTURE][..], &prompts].concat());
    assert_eq!(stdout(&output), "a yellow circle\nyellow\n");
    let values =
        json_lines(&stdout(&gemmule(&[&["run", "-i", PICTURE, "--json", "--logprobs", "3"][..], &prompts].concat())));
    assert_eq!(values.len(), 2);
    for (value, prompt) in values.iter().zip([prompts[1], prompts[3]]) {
        assert_eq!(value["prompt"], prompt);
        assert_eq!(value["timings"]["vision"], values[0]["timings"]["vision"]);
        let (tokens, logprobs) = (value["tokens"].as_array().unwrap(), value["logprobs"].as_array().unwrap());
        assert_eq!(tokens.len(), logprobs.len());
        for ((token, likeliest), probability) in
            tokens.iter().zip(logprobs).zip(value["probabilities"].as_array().unwrap())
        {
            assert_eq!((likeliest.as_array().unwrap().len(), &likeliest[0]["token"]), (3, token));
            let logprob = likeliest[0]["logprob"].as_f64().unwrap();
            assert!((logprob.exp() - probability.as_f64().unwrap()).abs() < 1e-5 && likeliest[0]["text"].is_string());
        }
    }
}

#[test]
fn answers_take_the_form_they_must_have() {
    let answer =
        |arguments: &[&str]| stdout(&gemmule(&[&["run", "-i", PICTURE, "-p", "caption en"], arguments].concat()));
    assert_eq!(answer(&["--choice", "a red circle", "--choice", "a red triangle"]), "a red circle\n");
    assert_eq!(answer(&["--pattern", "an? (blue|green) [a-z]+"]).split(' ').count(), 3);
    assert!(answer(&["--objects-only"]).starts_with("<loc"));
    let cut = gemmule(&["run", "-i", PICTURE, "-p", "caption en", "--choice", "a red circle at the top", "-n", "2"]);
    assert_eq!(cut.status.code(), Some(1), "what has not the form is no answer");
    assert!(String::from_utf8_lossy(&cut.stderr).contains("--max-tokens"));
    assert_eq!(answer(&["--pattern", "[a-z ]+", "-n", "2"]).trim_end(), "a yellow", "cut off, it has the form");
    let both = gemmule(&["run", "-i", PICTURE, "-p", "x", "--choice", "a", "--objects-only"]);
    assert_eq!(both.status.code(), Some(2));
    assert_fails(&["run", "-i", PICTURE, "-p", "x", "--pattern", "["], &["pattern '['", "unclosed"]);
}

#[test]
fn choices_are_scored() {
    let arguments = ["score", "-i", PICTURE, "-p", "answer en what color is the shape?", "-c", "red", "-c", "yellow"];
    let text = stdout(&gemmule(&arguments));
    assert!(
        text.starts_with("0.9") | text.starts_with("1.0") && text.lines().next().unwrap().ends_with("  yellow"),
        "{text}"
    );
    let value = &json_lines(&stdout(&gemmule(&[&arguments[..], &["--json"]].concat())))[0];
    assert_eq!((&value["choices"][0]["text"], &value["choices"][1]["text"]), (&"red".into(), &"yellow".into()));
    assert!(value["choices"][1]["probability"].as_f64().unwrap() > 0.9);
    assert_fails(&["score", "-i", PICTURE, "-p", "x", "-c", "red", "-c", "red"], &["'red' is there twice"]);
    assert_fails(&["score", "-i", PICTURE, "-p", "x", "-c", ""], &["empty"]);
}

#[test]
fn objects_are_drawn() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("drawn.png");
    let arguments = ["run", "-i", PICTURE, "-p", "detect circle", "--nms", "--annotate", path.to_str().unwrap()];
    assert!(stdout(&gemmule(&arguments)).contains("circle"));
    let drawn = image::open(&path).unwrap();
    assert_eq!((drawn.width(), drawn.height()), (512, 512), "small pictures are enlarged");
    let two = gemmule(&[&arguments[..], &["-i", PICTURE]].concat());
    assert_eq!(two.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&two.stderr).contains("one picture"));
    assert_fails(&["run", "-i", PICTURE, "-p", "x", "--masks", path.to_str().unwrap()], &["--seg-vae"]);
    assert_eq!(gemmule(&[&arguments[..5], &["--nms=2"]].concat()).status.code(), Some(2));
}

#[test]
fn features_and_hidden_states_are_written() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("features.safetensors");
    stdout(&gemmule(&["embed", "-i", PICTURE, "-i", PICTURE, "-p", "caption en", "-o", path.to_str().unwrap()]));
    let bytes = std::fs::read(&path).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(tensors.tensor("image_features").unwrap().shape(), [2, 25, 256]);
    assert_eq!(tensors.tensor("last_hidden_state").unwrap().shape(), [54, 256]);
}

#[test]
fn films_are_shown_as_frames() {
    let directory = tempfile::tempdir().unwrap();
    let film = directory.path().join("film.gif");
    let mut encoder = gif::Encoder::new(std::fs::File::create(&film).unwrap(), 30, 20, &[]).unwrap();
    for level in 0..12u8 {
        let palette = vec![level * 20, 0, 0];
        encoder.write_frame(&gif::Frame::from_palette_pixels(30, 20, vec![0; 600], palette, None)).unwrap();
    }
    drop(encoder);
    let frames = gemmule::image::frames(&film, 3).unwrap();
    assert_eq!(frames.iter().map(|frame| frame.rgb()[0]).collect::<Vec<_>>(), [40, 120, 200]);
    let folder = directory.path().join("film");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("notes.txt"), "no frame").unwrap();
    for (index, frame) in gemmule::image::frames(&film, 99).unwrap().iter().enumerate() {
        std::fs::write(folder.join(format!("{index:02}.png")), frame.to_png()).unwrap();
    }
    let output = |film: &Path| {
        let arguments = ["run", "-i", film.to_str().unwrap(), "--frames", "3", "-p", "caption en", "--json"];
        let value = json_lines(&stdout(&gemmule(&arguments))).remove(0);
        (value["text"].clone(), value["probabilities"].clone(), value["prompt_tokens"].clone())
    };
    assert_eq!(output(&film), output(&folder));
    assert_eq!(output(&film).2, 3 * 25 + 4);
    assert_fails(&["run", "-i", PICTURE, "--frames", "3", "-p", "x"], &["shape.png", "animated GIF"]);
    let cut = damaged(directory.path(), "cut.gif", &std::fs::read(&film).unwrap()[..200]);
    assert_fails(&["run", "-i", cut.to_str().unwrap(), "--frames", "3", "-p", "x"], &["cut.gif"]);
    std::fs::create_dir(directory.path().join("empty")).unwrap();
    let empty = directory.path().join("empty");
    assert_fails(&["run", "-i", empty.to_str().unwrap(), "--frames", "3", "-p", "x"], &["holds no JPEG"]);
}

#[test]
fn quality_is_measured_and_compared() {
    let directory = tempfile::tempdir().unwrap();
    let picture = Path::new(ROOT).join(PICTURE);
    let file = |name: &str, rows: &[serde_json::Value]| {
        let text: String = rows.iter().map(|row| format!("{row}\n")).collect();
        damaged(directory.path(), name, text.as_bytes()).to_str().unwrap().to_owned()
    };
    let row = |prompt: &str, right: serde_json::Value| {
        let mut row = serde_json::json!({ "image": picture, "prompt": prompt });
        row.as_object_mut().unwrap().extend(right.as_object().unwrap().clone());
        row
    };
    let color = "answer en what color is the shape?";
    let rows = [
        row(color, serde_json::json!({ "answer": "Yellow" })),
        row(color, serde_json::json!({ "answers": ["red", "blue"] })),
    ];
    let data = file("rows.jsonl", &rows);
    let text = stdout(&gemmule(&["eval", &data, "--metric", "exact"]));
    assert!(text.contains("2 rows") && text.contains("exact match") && text.contains("0.5000"), "{text}");
    for metric in ["anls", "relaxed", "cider"] {
        stdout(&gemmule(&["eval", &data, "--metric", metric]));
    }
    assert_fails(&["eval", &data, "--metric", "vqa"], &["row 0", "ten people"]);
    let people = file("people.jsonl", &[row(color, serde_json::json!({ "answers": vec!["the yellow"; 10] }))]);
    assert!(
        stdout(&gemmule(&["eval", &people, "--metric", "vqa"])).contains("0.0000"),
        "all alike: nothing is normalized"
    );
    assert_fails(&["eval", &people, "--metric", "cider"], &["more than one row"]);
    let typed = file("typed.jsonl", &[row(color, serde_json::json!({ "answer": "yellow", "answers": "yellow" }))]);
    assert_fails(&["eval", &typed, "--metric", "exact"], &["must be a list"]);
    let model = Path::new(ROOT).join("models/easy-vqa-q8_0.gguf");
    let arguments = ["eval", &data, "--metric", "exact", "--against", model.to_str().unwrap(), "--json"];
    let value = &json_lines(&stdout(&gemmule(&arguments)))[0];
    assert_eq!(
        (&value["measures"][0]["values"][0], &value["measures"][0]["difference"]["value"]),
        (&value["measures"][0]["values"][1], &0.0.into())
    );
    assert_eq!(value["models"][1]["rows"][0]["text"], "yellow");
    let circle = |edges: [u32; 4]| serde_json::json!({ "objects": [{ "label": "circle", "box": edges }] });
    let boxes = file(
        "boxes.jsonl",
        &[row("detect circle", circle([20, 5, 45, 30])), row("detect circle", circle([0, 40, 9, 60]))],
    );
    let value = &json_lines(&stdout(&gemmule(&["eval", &boxes, "--metric", "boxes", "--json"])))[0];
    let measure = |index: usize| {
        (
            value["measures"][index]["name"].as_str().unwrap(),
            value["measures"][index]["values"][0]["value"].as_f64().unwrap(),
        )
    };
    assert_eq!((measure(0), measure(1).1), (("recall at IoU 0.5", 0.5), 0.5));
    assert!((0.35..0.5).contains(&measure(2).1), "{:?}", measure(2));
    assert_fails(&["eval", &boxes, "--metric", "masks"], &["row 0", "\"mask\""]);
    let mask =
        serde_json::json!({ "size": [64, 64], "counts": "UX1i0W100000000000000000000000000000000000000000000000kU1" });
    let masks = file(
        "masks.jsonl",
        &[row("segment circle", serde_json::json!({ "objects": [{ "label": "circle", "mask": mask }] }))],
    );
    assert_fails(&["eval", &masks, "--metric", "masks"], &["bundled", "--seg-vae"]);
    assert_fails(&["eval", &boxes, "--metric", "exact"], &["row 0", "\"answers\""]);
    assert_fails(&["eval", &data, "--metric", "boxes"], &["row 0", "\"objects\""]);
    let short = file(
        "short.jsonl",
        &[row("detect circle", serde_json::json!({ "objects": [{ "label": "circle", "box": [1, 2] }] }))],
    );
    assert_fails(&["eval", &short, "--metric", "boxes"], &["within the picture"]);
    let sizes = file(
        "sizes.jsonl",
        &[row("detect circle", circle([20, 5, 50, 60])), row("detect circle", circle([45, 40, 30, 60]))],
    );
    assert_fails(&["eval", &sizes, "--metric", "boxes"], &["row 1", "within the picture"]);
}

#[test]
fn several_pictures_and_sampling_work() {
    let sampled = |seed: &str| {
        let arguments =
            ["run", "-i", PICTURE, "-i", PICTURE, "-p", "caption en", "--temperature", "30", "--seed", seed, "-n", "9"];
        stdout(&gemmule(&arguments))
    };
    assert_eq!(sampled("1"), sampled("1"));
    assert_ne!(sampled("1"), sampled("2"));
}

#[test]
fn inspect_lists_configuration_and_tensors() {
    let model = "models/easy-vqa-q8_0.gguf";
    let text = stdout(&gemmule(&["inspect", model]));
    assert!(text.contains("gemma2.block_count") && text.contains("blk.0.attn_q.weight") && text.contains("q8_0"));
    let value: serde_json::Value = serde_json::from_str(&stdout(&gemmule(&["inspect", model, "--json"]))).unwrap();
    assert_eq!(value["metadata"]["general.architecture"], "paligemma2");
    assert!(value["tensors"].as_array().unwrap().len() > 50);
}

#[test]
fn trace_writes_every_stage() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("trace.safetensors");
    stdout(&gemmule(&["trace", "-i", PICTURE, "-p", "caption en", "-o", path.to_str().unwrap()]));
    let bytes = std::fs::read(&path).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let shape = |name: &str| tensors.tensor(name).unwrap().shape().to_vec();
    assert_eq!(shape("pixel_values"), [1, 3, 70, 70]);
    assert_eq!(shape("image_features"), [1, 25, 256]);
    assert_eq!(shape("logits_last"), [1856]);
    assert_eq!(shape("input_ids").len(), 1);
}

#[test]
fn bench_reports_every_stage() {
    let output = stdout(&gemmule(&["bench", "-n", "2", "--repeat", "1", "--json"]));
    let value: serde_json::Value = serde_json::from_str(&output).unwrap();
    for stage in ["load", "vision", "prefill", "generate", "read"] {
        assert!(value[stage]["median_ms"].as_f64().unwrap() > 0.0, "{stage}");
    }
    assert!(
        value["decoder_bytes"].as_u64().unwrap() > 1_000_000 && value["read_bytes_per_second"].as_f64().unwrap() > 0.0
    );
    assert!(value["threads"].as_u64().unwrap() >= 1 && value["isa"].is_string());
}

/// What is read stays, what cannot be written is said before the work, and a pipe is as good as a file.
#[test]
fn outputs_lie_where_they_harm_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let [picture, model] = ["picture.png", "missing/drawn.png"].map(|name| directory.path().join(name));
    std::fs::copy(Path::new(ROOT).join(PICTURE), &picture).unwrap();
    let before = std::fs::read(&picture).unwrap();
    let (picture, missing) = (picture.to_str().unwrap(), model.to_str().unwrap());
    assert_fails(&["embed", "-i", picture, "-o", picture], &[picture, "another output"]);
    assert_fails(&["trace", "-p", "x", "-i", picture, "-o", picture], &[picture, "another output"]);
    assert_fails(&["run", "-p", "detect circle", "-i", picture, "--annotate", picture], &[picture, "another output"]);
    assert_fails(&["run", "-p", "detect circle", "-i", PICTURE, "--annotate", missing], &["cannot write", missing]);
    assert_fails(&["batch", picture, "-o", picture], &[picture, "another --output"]);
    assert_fails(&["batch", picture, "-o", "/dev/null"], &["/dev/null", "name a file"]);
    assert_fails(&["batch", picture, "-o", "-"], &["name one"]);
    let manifest = directory.path().join("out.jsonl.partial");
    std::fs::write(&manifest, "{}").unwrap();
    let target = directory.path().join("out.jsonl");
    assert_fails(&["batch", manifest.to_str().unwrap(), "-o", target.to_str().unwrap(), "--force"], &["is read, too"]);
    assert_eq!(std::fs::read(&manifest).unwrap(), b"{}");
    let frame = directory.path().join("picture.png");
    let folder = directory.path().to_str().unwrap();
    assert_fails(&["embed", "-i", folder, "--frames", "1", "-o", frame.to_str().unwrap()], &["another output"]);
    assert_eq!(std::fs::read(picture).unwrap(), before);
    let drawn = gemmule(&["run", "-p", "detect circle", "-i", PICTURE, "--annotate", "-"]);
    assert_eq!(drawn.status.code(), Some(2));

    let output = gemmule(&["embed", "-i", PICTURE, "-o", "-"]);
    assert!(output.status.success());
    assert!(safetensors::SafeTensors::deserialize(&output.stdout).unwrap().tensor("image_features").is_ok());
}

/// A full disk behind stdout is a failure that is said; behind stderr it is none. A reader that has had enough is none.
#[test]
fn nobody_need_read_what_is_said() {
    let full = || std::process::Stdio::from(std::fs::File::options().write(true).open("/dev/full").unwrap());
    let program = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gemmule"));
        command.args(arguments).current_dir(ROOT);
        command
    };
    let (bench, run) = (["bench", "-n", "2", "--repeat", "1"], ["run", "-i", PICTURE, "-p", "caption en", "-v"]);
    for arguments in [&bench[..], &run, &["score", "-i", PICTURE, "-p", "x", "-c", "a"]] {
        let output = program(arguments).stdout(full()).output().unwrap();
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {message}");
        assert!(message.contains("space"), "{arguments:?}: {message}");
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        assert!(program(arguments).stdout(writer).status().unwrap().success(), "{arguments:?}");
    }
    let output = program(&run).stderr(full()).output().unwrap();
    assert_eq!(stdout(&output), "a yellow circle\n");
}

fn damaged(directory: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = directory.join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

#[test]
fn bad_input_is_one_clear_error() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: &[u8]| damaged(directory.path(), name, bytes).to_str().unwrap().to_owned();
    assert_fails(&["run", "-i", "nowhere.png", "-p", "x"], &["nowhere.png"]);
    let text = file("note.png", b"this is no picture");
    assert_fails(&["run", "-i", &text, "-p", "x"], &["note.png", "JPEG"]);
    let picture = std::fs::read(Path::new(ROOT).join(PICTURE)).unwrap();
    let cut = file("cut.png", &picture[..picture.len() / 2]);
    assert_fails(&["run", "-i", &cut, "-p", "x"], &["cut.png"]);
    let empty = file("empty.gguf", b"");
    assert_fails(&["run", "-m", &empty, "-i", PICTURE, "-p", "x"], &["empty.gguf"]);
    assert_fails(&["inspect", PICTURE], &["shape.png", "GGUF"]);
    assert_fails(&["run", "-i", PICTURE, "-p", "a <image> b"], &["<image>"]);
    for wrong in [
        &["-t", "0"][..],
        &["-t", "1025"],
        &["--isa", "mmx"],
        &["--annotate", "drawn.jpg"],
        &["--temperature", "-1"],
        &["--top-p", "0"],
        &["--nms"],
        &["--frames", "0"],
    ] {
        let output = gemmule(&[&["run", "-i", PICTURE, "-p", "x"], wrong].concat());
        assert_eq!(output.status.code(), Some(2), "{wrong:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    assert_fails(&["run", "-i", PICTURE, "-p", "x", "-n", "9999999"], &["context"]);
    assert_eq!(gemmule(&["run", "-p", "x"]).status.code(), Some(2));
}

/// A model that is read into memory answers as one that is mapped.
#[test]
fn models_are_mapped_or_read() {
    let folder = Path::new(ROOT).join("models");
    let model = folder.join("easy-vqa-q8_0.gguf");
    let model = model.to_str().unwrap();
    let fixed = ["run", "-i", PICTURE, "-p", "caption en", "-m", model];
    assert_eq!(stdout(&gemmule(&[&fixed[..], &["--no-mmap"]].concat())), stdout(&gemmule(&fixed)));
    let folder = folder.to_str().unwrap();
    assert_fails(&["run", "-i", PICTURE, "-p", "x", "-m", folder, "--no-mmap"], &["easy-vqa-q8_0.gguf, GGUF already"]);
    assert_fails(&["run", "-i", PICTURE, "-p", "x", "-m", "/nowhere.gguf", "--no-mmap"], &["/nowhere.gguf"]);
    assert_fails(&["run", "-i", PICTURE, "-p", "x", "-m", PICTURE, "--no-mmap"], &[PICTURE]);
}

#[test]
fn a_picture_comes_through_stdin() {
    let ask = |picture: &Path| {
        let input = std::fs::File::open(picture).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_gemmule"));
        command.args(["run", "-i", "-", "-p", "caption en"]).stdin(input).output().unwrap()
    };
    let picture = Path::new(ROOT).join(PICTURE);
    assert_eq!(stdout(&ask(&picture)), "a yellow circle\n");
    let empty = ask(Path::new("/dev/null"));
    assert_eq!(empty.status.code(), Some(1));
    let message = String::from_utf8_lossy(&empty.stderr);
    assert!(message.contains("stdin") && message.contains("empty"), "{message}");
}

/// What the library chose is told to who asks, nothing to others, and a level that is none is refused.
#[test]
fn the_log_is_silent_unless_asked_for() {
    let run = |level: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gemmule"));
        command.args(["run", "-i", PICTURE, "-p", "caption en", "--threads", "1", "--isa", "portable"]);
        let output = command.current_dir(ROOT).env("GEMMULE_LOG", level).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    assert_eq!(run(""), (Some(0), String::new()));
    assert_eq!(run("info"), (Some(0), "gemmule: 1 threads compute with portable, as asked for\n".to_owned()));
    let (code, told) = run("debug");
    assert!(code == Some(0) && told.contains("prefill of 29 tokens") && told.contains("then end_token"), "{told}");
    let (code, told) = run("loud");
    assert!(code == Some(2) && told.contains("GEMMULE_LOG is 'loud': choose off, error"), "{told}");
}
