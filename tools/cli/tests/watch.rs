//! `gemmule watch`: films, directories, raw frames, signals.

mod support;

use std::path::Path;
use std::process::Command;

use support::{PICTURE, ROOT, gemmule, json_lines, stdout};

/// Writes to the program's stdin and returns its lines and what it reports.
fn watch(arguments: &[&str], input: &[u8]) -> (Option<i32>, Vec<serde_json::Value>, String) {
    use std::io::Write;
    let mut command = Command::new(env!("CARGO_BIN_EXE_gemmule"));
    command.arg("watch").args(arguments).stdin(std::process::Stdio::piped());
    let mut child = command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap();
    // Whoever has seen enough closes the pipe.
    let _ = child.stdin.take().unwrap().write_all(input);
    let output = child.wait_with_output().unwrap();
    let report = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), json_lines(&String::from_utf8_lossy(&output.stdout)), report)
}

#[test]
fn films_are_watched() {
    let picture = gemmule::Picture::open(Path::new(ROOT).join(PICTURE)).unwrap();
    let raw: Vec<u8> = picture.rgb().repeat(5);
    let size = format!("{}x{}", picture.width(), picture.height());
    let format = ["--format", "rgb8", "--size", &size];
    let (code, lines, report) = watch(&[&["-p", "caption en", "--every-frame"][..], &format].concat(), &raw);
    assert_eq!((code, lines.len()), (Some(0), 5), "{report}");
    for (index, line) in lines.iter().enumerate() {
        assert_eq!(
            (&line["frame"], &line["text"], &line["dropped"]),
            (&index.into(), &"a yellow circle".into(), &0.into())
        );
        assert!(line["latency"].as_f64().unwrap() > 0.0 && line["time"].as_f64().unwrap() > 1.7e9);
    }
    assert!(report.contains("5 frames answered, 0 of them failed, 0 dropped"), "{report}");

    // Without waiting the newest wins: every frame is answered or counted.
    let (_, lines, report) = watch(&[&["-p", "caption en"][..], &format].concat(), &picture.rgb().repeat(300));
    let dropped: u64 = report.split(", ").find_map(|part| part.strip_suffix(" dropped")).unwrap().parse().unwrap();
    assert_eq!(lines.len() as u64 + dropped, 300, "{report}");
    assert_eq!(lines.last().unwrap()["frame"], 299, "the last frame is the newest");

    // A part of a larger frame, with boxes of the whole.
    let (width, height) = (picture.width() as usize, picture.height() as usize);
    let mut wide = vec![200; (width + 30) * (height + 10) * 3];
    for (row, line) in picture.rgb().chunks_exact(width * 3).enumerate() {
        wide[((row + 10) * (width + 30) + 30) * 3..][..width * 3].copy_from_slice(line);
    }
    let (size, region) = (format!("{}x{}", width + 30, height + 10), format!("30,10,{width},{height}"));
    let arguments = ["-p", "detect circle", "--format", "rgb8", "--size", &size, "--region", &region];
    let (_, lines, report) = watch(&arguments, &wide);
    let alone = json_lines(&stdout(&gemmule(&["run", "-i", PICTURE, "-p", "detect circle", "--json"]))).remove(0);
    let edges = |value: &serde_json::Value| -> Vec<f64> {
        value["objects"][0]["box"].as_array().unwrap().iter().map(|edge| edge.as_f64().unwrap()).collect()
    };
    let moved: Vec<f64> = edges(&lines[0]).iter().zip([30.0, 10.0, 30.0, 10.0]).map(|(edge, by)| edge - by).collect();
    assert!(moved.iter().zip(edges(&alone)).all(|(a, b)| (a - b).abs() < 1e-3), "{report}");

    // Out of time at once: the answer is cut short and says so.
    let (_, lines, _) = watch(&[&["-p", "caption en", "--budget", "0"][..], &format].concat(), picture.rgb());
    assert_eq!((&lines[0]["finish"], &lines[0]["text"]), (&"deadline".into(), &"".into()));

    // JPEG frames, one of them damaged.
    let jpeg = std::fs::read(Path::new(ROOT).join("tests/goldens/jpeg/444.jpg")).unwrap();
    let mut broken = jpeg.clone();
    let quantization = broken.windows(2).position(|window| window == [0xff, 0xdb]).unwrap();
    broken[quantization + 4] = 0x77;
    let film = [&jpeg[..], &broken, &jpeg].concat();
    let (code, lines, report) = watch(&["-p", "caption en", "--every-frame"], &film);
    assert_eq!((code, lines.len()), (Some(0), 3), "{report}");
    assert!(lines[1]["error"].as_str().unwrap().contains("frame 1") && lines[2]["text"].is_string());

    for (arguments, input, part) in [
        (&["-p", "x"][..], &b""[..], "empty"),
        (&["-p", "x"], b"RIFF", "neither Motion JPEG nor YUV4MPEG2"),
        (&["-p", "x", "nowhere.y4m"], b"", "nowhere.y4m"),
        (&["-p", "x", "--format", "rgb8", "--size", "9x9"], b"abc", "3 of 243 bytes"),
    ] {
        let (code, lines, report) = watch(arguments, input);
        assert_eq!((code, lines.len()), (Some(1), 0), "{report}");
        assert!(report.contains(part), "{report}");
    }
    let (code, _, report) = watch(&["-p", "x", "--pattern", "("], &jpeg);
    assert_eq!(code, Some(1));
    assert!(report.contains("unclosed group") && !report.contains("frames"), "known before the first frame: {report}");
    let (code, lines, report) = watch(&["-p", "x", "--region", "0,0,999,999"], &jpeg);
    assert_eq!((code, lines.len()), (Some(1), 1), "{report}");
    assert!(report.contains("every frame failed"), "{report}");
    for wrong in [
        &["--format", "rgb8"][..],
        &["--size", "2x2"],
        &["--format", "h264"],
        &["--region", "1,2"],
        &["--region", "1,2,0,4"],
        &["--format", "yuyv", "--size", "3x4"],
        &["--format", "rgb8", "--size", "0x4"],
    ] {
        assert_eq!(watch(&[&["-p", "x"], wrong].concat(), b"").0, Some(2), "{wrong:?}");
    }
}

#[test]
fn a_directory_is_watched_until_the_signal() {
    use std::io::{BufRead, BufReader};
    let directory = tempfile::tempdir().unwrap();
    let source = directory.path().to_str().unwrap();
    let begin = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gemmule"));
        command.args(["watch", source, "-p", "caption en"]).args(arguments);
        let mut child =
            command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        (child, lines)
    };
    let (child, mut lines) = begin(&[]);
    let picture = std::fs::read(Path::new(ROOT).join(PICTURE)).unwrap();
    for number in 0..2 {
        // In two parts, as a slow writer does.
        let path = directory.path().join(format!("{number}.png"));
        std::fs::write(&path, &picture[..100]).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(60));
        std::fs::write(&path, &picture).unwrap();
        let value: serde_json::Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        assert_eq!((&value["frame"], &value["text"]), (&number.into(), &"a yellow circle".into()), "{value}");
        assert_eq!(value["file"], path.to_str().unwrap());
    }
    let end = |mut child: std::process::Child| {
        let status = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
        assert!(status.success());
        assert_eq!(child.wait().unwrap().code(), Some(0), "a signal ends it in order");
    };
    end(child);

    // What only bears a picture's name and may never send a byte is passed over; a link is followed.
    let (child, mut lines) = begin(&[]);
    let at = |name: &str| directory.path().join(name);
    assert!(Command::new("mkfifo").arg(at("2.png")).status().unwrap().success());
    std::os::unix::fs::symlink("/dev/zero", at("3.png")).unwrap();
    // Of what was there before, the newest comes first.
    lines.next().unwrap().unwrap();
    let elsewhere = tempfile::NamedTempFile::with_suffix(".png").unwrap();
    std::fs::write(elsewhere.path(), &picture).unwrap();
    std::os::unix::fs::symlink(elsewhere.path(), at("4.png")).unwrap();
    let value: serde_json::Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
    assert!(value["file"].as_str().unwrap().ends_with("4.png") && value["text"] == "a yellow circle", "{value}");
    end(child);
    for name in ["2.png", "3.png", "4.png"] {
        std::fs::remove_file(at(name)).unwrap();
    }

    // As a film, of all pictures that are there.
    let (child, lines) = begin(&["--every-frame"]);
    let files: Vec<_> = lines.take(2).map(|line| json_lines(&line.unwrap())[0]["file"].clone()).collect();
    assert_eq!(files, ["0.png", "1.png"].map(|name| directory.path().join(name).to_str().unwrap().to_owned()));
    end(child);
}

/// Raw frames as others lay them out; what does not fit is said before the first.
#[test]
fn raw_films_lie_as_they_are_told_to() {
    let directory = tempfile::tempdir().unwrap();
    let film = directory.path().join("film.raw");
    // Two frames of 6 × 4 pixels in I420 as GStreamer has them: rows of 8 and of 4 bytes.
    std::fs::write(&film, vec![128; 2 * (4 * 8 + 2 * 2 * 4)]).unwrap();
    let film = film.to_str().unwrap();
    let fixed = ["watch", film, "--format", "i420", "--size", "6x4", "-p", "caption en", "--every-frame"];
    for told in [&["--layout", "gstreamer"][..], &["--row-step", "8"], &["--row-step", "8", "--chroma-step", "4"]] {
        let output = gemmule(&[&fixed[..], told, &["--matrix", "bt709", "--range", "full"]].concat());
        assert_eq!(stdout(&output).lines().count(), 2, "{told:?}");
    }
    let output = gemmule(&fixed);
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    let told = message.contains("96 bytes are no whole number of frames of 36") && message.contains("--layout");
    assert!(output.status.code() == Some(1) && told && output.stdout.is_empty(), "{message}");
    for wrong in [
        &["--layout", "v4l2"][..],
        &["--layout", "gstreamer", "--row-step", "8"],
        &["--row-step", "5"],
        &["--chroma-step", "2"],
        &["--range", "wide"],
    ] {
        let output = gemmule(&[&fixed[..], wrong].concat());
        assert_eq!(output.status.code(), Some(2), "{wrong:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

/// A signal ends a watch that nobody listens to.
#[test]
fn a_signal_ends_what_waits_for_a_reader() {
    let directory = tempfile::tempdir().unwrap();
    let film = directory.path().join("film.y4m");
    let mut bytes = b"YUV4MPEG2 W16 H16 C420\n".to_vec();
    for _ in 0..2000 {
        bytes.extend_from_slice(b"FRAME\n");
        bytes.extend([128; 16 * 16 * 3 / 2]);
    }
    std::fs::write(&film, bytes).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_gemmule"));
    command.arg("watch").arg(&film).args(["-p", "caption en", "--every-frame"]);
    // Nobody reads what is written, so it stops when the pipe is full.
    let mut child = command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::null()).spawn().unwrap();
    std::thread::sleep(std::time::Duration::from_secs(3));
    assert!(Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap().success());
    let start = std::time::Instant::now();
    child.wait().unwrap();
    assert!(start.elapsed().as_secs() < 20, "it waits for ever");
}
