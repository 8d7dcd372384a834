//! Objects read from answers' tokens, and from the bundled model's own.

use gemmule::answer::{Detections, Drawn, Mask, annotate, detections, merge_duplicates};
use gemmule::{
    CancelHandle, Error, FinishReason, GenerateOptions, GeneratedToken, Model, Picture, Session, SessionOptions,
};

/// The objects of a text, all of whose tokens have this probability.
fn read(text: &str, probability: f32) -> Detections {
    let model = Model::bundled().unwrap();
    let tokenizer = model.tokenizer().unwrap();
    let tokens = tokenizer.encode(text).unwrap();
    let tokens: Vec<_> = tokens.into_iter().map(|id| GeneratedToken::new(id, probability)).collect();
    detections(tokenizer, &tokens).unwrap()
}

const BOX: &str = "<loc0000><loc0341><loc0682><loc1023>";

#[test]
fn objects_come_in_order_with_their_boxes() {
    let found = read(&format!("{BOX} circle ; <loc0100><loc0100><loc0100><loc0200> blue rectangle"), 0.5);
    assert!(found.malformed.is_empty(), "{found:?}");
    let labels: Vec<&str> = found.objects.iter().map(|object| &object.label[..]).collect();
    assert_eq!(labels, ["circle", "blue rectangle"]);
    let bounds = found.objects[0].bounds;
    // Tokens are y before x, boxes x before y.
    assert_eq!(bounds.normalized(), [341.0 / 1023.0, 0.0, 1.0, 682.0 / 1023.0]);
    assert_eq!(bounds.pixels(300, 600), [100.0, 0.0, 300.0, 400.0]);
    assert!(found.objects.iter().all(|object| (object.score - 0.5).abs() < 1e-6 && object.segments.is_empty()));
}

#[test]
fn labels_keep_their_punctuation() {
    for label in ["a; b", "cat, dog & \"owl\"", "(x) ;", "5 < 6 > 4", "- ; -"] {
        let found = read(&format!("{BOX} {label}"), 1.0);
        assert_eq!(found.objects[0].label, label);
        let found = read(&format!("{BOX} {label} ; {BOX} other"), 1.0);
        assert_eq!(found.objects[0].label, label);
        assert_eq!(found.objects[1].label, "other");
    }
}

#[test]
fn a_mask_brings_sixteen_codes() {
    let codes: String = (0..16).map(|code| format!("<seg{:03}>", code * 8)).collect();
    let found = read(&format!("{BOX}{codes} cat"), 1.0);
    assert_eq!(found.objects[0].segments, (0..16).map(|code| code * 8).collect::<Vec<u16>>());
    assert_eq!(found.objects[0].label, "cat");
}

#[test]
fn what_is_no_object_is_reported_beside_those_that_are() {
    let good = format!("{BOX} cat");
    for (bad, reason) in [
        ("<loc0001><loc0002><loc0003> dog", "3 location tokens in place of 4"),
        ("<loc0001><loc0002><loc0003><loc0004><loc0005> dog", "5 location tokens in place of 4"),
        ("<loc0500><loc0002><loc0003><loc0004> dog", "its far edges lie before its near ones"),
        ("<loc0001><loc0002><loc0003><loc0004><seg001><seg002> dog", "2 segment tokens in place of 16"),
    ] {
        for text in [format!("{bad} ; {good}"), format!("{good} ; {bad}")] {
            let found = read(&text, 1.0);
            assert_eq!(found.objects.len(), 1, "{text}: {found:?}");
            assert_eq!(found.objects[0].label, "cat");
            assert_eq!(found.malformed.len(), 1, "{text}: {found:?}");
            assert_eq!(found.malformed[0].reason, reason);
            assert!(found.malformed[0].text.starts_with("<loc0"), "{found:?}");
        }
    }
    let model = Model::bundled().unwrap();
    let tokens = [GeneratedToken::new(1, 0.5), GeneratedToken::new(2, None)];
    let error = detections(model.tokenizer().unwrap(), &tokens).unwrap_err().to_string();
    assert!(error.contains("set GenerateOptions::probabilities"), "{error}");
    let found = read(&format!("here it is {good}"), 1.0);
    assert_eq!((&found.malformed[0].text[..], found.objects.len()), ("here it is", 1));
    assert_eq!(read("a yellow circle ; nothing else", 1.0), Detections::default(), "prose holds no objects");
    assert_eq!(read("", 1.0), Detections::default());
}

/// What checkpoints for referring expressions say; the name is optional in big_vision's pattern, too.
#[test]
fn an_object_needs_no_label() {
    let codes: String = (0..16).map(|code| format!("<seg{code:03}>")).collect();
    let labels = |text: &str| -> Vec<(String, usize)> {
        let found = read(text, 1.0);
        assert!(found.malformed.is_empty(), "{text}: {found:?}");
        found.objects.into_iter().map(|object| (object.label, object.segments.len())).collect()
    };
    let object = |label: &str, codes| (label.to_owned(), codes);
    assert_eq!(labels(BOX), [object("", 0)]);
    assert_eq!(labels(&format!("{BOX}{codes}")), [object("", 16)]);
    assert_eq!(labels(&format!("{BOX} ; ")), [object("", 0)]);
    assert_eq!(labels(&format!("{BOX}{codes} ; {BOX} cat ; {BOX}")), [object("", 16), object("cat", 0), object("", 0)]);
    assert_eq!(labels(&format!("{BOX}{BOX} cat{BOX}")), [object("", 0), object("cat", 0), object("", 0)]);
    assert_eq!(labels(&format!("{BOX}{codes}{BOX}{codes}")), [object("", 16), object("", 16)]);
}

#[test]
fn overlaps_are_in_double_precision() {
    // Half of each box, at every location and odd sides: exactly one third and one half, in pixels and as shares.
    for (left, width) in (1..=200).flat_map(|left| [7, 640, 1021, 1023].map(|width| (left, width))) {
        let right = left + 2 * left;
        let found = read(&format!("<loc0000><loc{left:04}><loc1023><loc{right:04}>"), 1.0).objects;
        let [x_min, _, x_max, y_max] = found[0].bounds.pixels(width, 333);
        let half =
            gemmule::answer::overlap([x_min, 0.0, x_max, y_max], [x_min, 0.0, x_min + (x_max - x_min) / 2.0, y_max]);
        assert!((half - 0.5).abs() < 1e-14, "{left} {width}: {half}");
        assert_eq!((y_max, x_max), (333.0, f64::from(right) * f64::from(width) / 1023.0));
    }
    let nothing = gemmule::answer::Bounds { x_min: 0.0, y_min: 0.0, x_max: 0.0, y_max: 1.0 };
    assert_eq!(nothing.overlap(&nothing), 0.0);
}

#[test]
fn masks_of_any_bounds_are_pasted() {
    let inside = [1.0; 64 * 64];
    for (edges, area) in [
        ([0.1, 0.2, 0.999, 0.75], (99 - 10) * (37 - 10)),
        ([-1e30, -5.0, 1e30, f64::INFINITY], 100 * 50),
        ([f64::NAN, 0.0, 0.5, 0.5], 50 * 25),
        ([0.9, 0.9, 0.1, 0.1], 0),
        ([2.0, 2.0, 3.0, 3.0], 0),
    ] {
        let [x_min, y_min, x_max, y_max] = edges;
        let bounds = gemmule::answer::Bounds { x_min, y_min, x_max, y_max };
        assert_eq!(Mask::paste(&inside, &bounds, 100, 50).area(), area, "{edges:?}");
    }
}

#[test]
fn duplicates_are_merged_within_a_label() {
    let place = |x: u32, label: &str| format!("<loc0000><loc{x:04}><loc0400><loc{:04}> {label}", x + 400);
    let text = [place(0, "cat"), place(40, "cat"), place(20, "dog"), place(600, "cat")].join(" ; ");
    let found = read(&text, 0.5).objects;
    let merged = |scores: [f32; 4], overlap: f32| {
        let mut objects = found.clone();
        objects.iter_mut().zip(scores).for_each(|(object, score)| object.score = score);
        merge_duplicates(&mut objects, overlap);
        objects
            .into_iter()
            .map(|object| found.iter().position(|o| o.bounds == object.bounds).unwrap())
            .collect::<Vec<_>>()
    };
    // The first two overlap by 360 / 440.
    assert_eq!(merged([0.5, 0.9, 0.5, 0.5], 0.5), [1, 2, 3]);
    assert_eq!(merged([0.9, 0.5, 0.5, 0.5], 0.5), [0, 2, 3]);
    assert_eq!(merged([0.5; 4], 0.5), [0, 2, 3], "of equals the first stays");
    assert_eq!(merged([0.5; 4], 0.9), [0, 1, 2, 3]);
    assert!((found[0].bounds.overlap(&found[1].bounds) - 360.0 / 440.0).abs() < 1e-5);
}

#[test]
fn only_the_separator_between_objects_leaves_a_score_alone() {
    let model = Model::bundled().unwrap();
    let tokenizer = model.tokenizer().unwrap();
    let tokens = tokenizer.encode(&format!("{BOX} a ; b ; {BOX} c")).unwrap();
    let separators: Vec<usize> =
        (0..tokens.len()).filter(|at| tokenizer.kind(tokens[*at]) == gemmule::text::TokenKind::Separator).collect();
    let scores = |unlikely: usize| {
        let probability = |at| if at == unlikely { 0.25 } else { 1.0 };
        let made: Vec<_> = (0..).zip(&tokens).map(|(at, id)| GeneratedToken::new(*id, probability(at))).collect();
        detections(tokenizer, &made).unwrap().objects.iter().map(|object| object.score).collect::<Vec<_>>()
    };
    assert!(scores(separators[0])[0] < 1.0, "a semicolon in a label is part of it");
    assert_eq!(scores(separators[1]), [1.0, 1.0]);
}

#[test]
fn drawings_show_boxes_masks_and_labels() {
    let found = read("<loc0100><loc0100><loc0900><loc0500> kočka", 0.5).objects;
    let gray = |width, height| Picture::from_rgb(width, height, vec![128; (width * height * 3) as usize]).unwrap();
    let plain = gray(800, 600);
    let mask = Mask::paste(&[1.0; 64 * 64], &found[0].bounds, 800, 600);
    assert_eq!(mask.area(), (391 - 78) * (527 - 58));
    let drawn = annotate(&plain, &[Drawn { object: &found[0], mask: Some(&mask) }]);
    assert_eq!((drawn.width(), drawn.height()), (800, 600));
    let at = |x: usize, y: usize| &drawn.rgb()[(y * 800 + x) * 3..][..3];
    assert_eq!(at(78, 300), [230, 159, 0], "the frame");
    assert_eq!(at(200, 300), [179, 144, 64], "the mask");
    assert_eq!(at(600, 300), [128; 3], "outside");
    let label: Vec<_> =
        (80..200).flat_map(|x| (35..58).map(move |y| (x, y))).filter(|(x, y)| at(*x, *y) == [0; 3]).collect();
    assert!(label.len() > 30, "{} black pixels of text", label.len());
    // Boxes at every edge, of no size, and more than there is room for labels.
    let edges = [
        "<loc0000><loc0000><loc1023><loc1023>",
        "<loc1023><loc1023><loc1023><loc1023>",
        "<loc0000><loc1000><loc0000><loc1023>",
    ];
    let text = edges.map(|edge| format!("{edge} {}", "w".repeat(200))).join(" ; ");
    let text = [&text[..]; 20].join(" ; ");
    let found = read(&text, 0.5).objects;
    assert_eq!(found.len(), 60);
    for (width, height) in [(1, 1), (3, 900), (900, 3), (4000, 2000)] {
        let drawn = annotate(&gray(width, height), &found.iter().map(Drawn::from).collect::<Vec<_>>());
        assert!(drawn.width().max(drawn.height()) >= 512);
    }
}

/// Sessions on one model, each on a thread of its own, answer as one alone does.
#[test]
fn sessions_on_several_threads_share_a_model() {
    let model = Model::bundled().unwrap();
    let picture =
        Picture::open(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/pictures/shape.png")).unwrap();
    let ask = |prompt: &str| {
        let mut session = Session::new(&model, &SessionOptions::new()).unwrap();
        session.generate(std::slice::from_ref(&picture), prompt, &GenerateOptions::new()).unwrap().tokens
    };
    let prompts = ["caption en", "describe en", "detect circle", "answer en what color is the shape?"];
    let alone = prompts.map(ask);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            let together: Vec<_> = prompts.iter().map(|prompt| scope.spawn(|| ask(prompt))).collect();
            for (answer, alone) in together.into_iter().zip(&alone) {
                assert_eq!(&answer.join().unwrap(), alone);
            }
        }
    });
}

#[test]
fn work_is_cancelled_and_begun_again() {
    let model = Model::bundled().unwrap();
    let picture =
        Picture::open(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/pictures/shape.png")).unwrap();
    let pictures = std::slice::from_ref(&picture);
    let cancel = CancelHandle::default();
    let mut session = Session::new(&model, &SessionOptions::new().cancel(cancel.clone())).unwrap();
    let options = GenerateOptions::new();
    let whole = session.generate(pictures, "describe en", &options).unwrap();

    let mut stream = session.stream("describe en", &options).unwrap();
    let first = stream.next().unwrap().unwrap();
    cancel.cancel();
    assert!(stream.next().is_none() && stream.next().is_none(), "it is cancelled");
    let cut = stream.finish();
    assert_eq!((&cut.tokens[..], cut.finish), (&[first][..], FinishReason::Stopped));
    assert!(whole.text.starts_with(&cut.text) && !cut.text.is_empty() && cut.text.len() < whole.text.len());
    // It stays cancelled, before the pictures and before the prompt.
    assert!(matches!(session.show(pictures), Err(Error::Cancelled)));
    assert!(session.image_features().is_empty(), "nothing half done is left");
    assert!(matches!(session.ask("describe en", &options), Err(Error::Cancelled)));
    cancel.reset();
    assert_eq!(session.generate(pictures, "describe en", &options).unwrap().tokens, whole.tokens);

    // As after too many pictures, of which nothing was begun.
    assert!(!session.image_features().is_empty());
    let too_many = vec![picture.clone(); 1 + model.config().text.context / model.config().vision.tokens()];
    assert!(matches!(session.show(&too_many), Err(Error::Request(_))));
    assert!(session.image_features().is_empty(), "prompts are about no pictures");

    // From another thread, at whatever point it comes.
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(std::time::Duration::from_millis(30));
            cancel.cancel();
        });
        while !matches!(session.generate(pictures, "describe en", &options), Err(Error::Cancelled)) {}
    });
}

#[test]
fn the_bundled_model_finds_the_circle() {
    let model = Model::bundled().unwrap();
    let mut session = Session::new(&model, &SessionOptions::new()).unwrap();
    let picture =
        Picture::open(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/pictures/shape.png")).unwrap();
    let options = GenerateOptions::new().probabilities(true);
    let answer = session.generate(std::slice::from_ref(&picture), "detect circle", &options).unwrap();
    assert!(answer.tokens.iter().all(|token| (0.0..=1.0).contains(&token.probability.unwrap())));
    let found = detections(model.tokenizer().unwrap(), &answer.tokens).unwrap();
    let [circle] = &found.objects[..] else { panic!("{found:?}") };
    assert_eq!(circle.label, "circle");
    // The pixels that are no background give the box that it should have found.
    let (width, rgb) = (picture.width() as usize, picture.rgb());
    let shape = rgb.as_chunks::<3>().0.iter().enumerate().filter(|(_, pixel)| pixel[..] != rgb[..3]);
    let (mut least, mut most) = ([f32::MAX; 2], [0.0f32; 2]);
    for (index, _) in shape {
        for (side, at) in [index % width, index / width].into_iter().enumerate() {
            least[side] = least[side].min(at as f32);
            most[side] = most[side].max(at as f32 + 1.0);
        }
    }
    let [x_min, y_min, x_max, y_max] = circle.bounds.pixels(picture.width(), picture.height()).map(|edge| edge as f32);
    let overlap =
        (x_max.min(most[0]) - x_min.max(least[0])).max(0.0) * (y_max.min(most[1]) - y_min.max(least[1])).max(0.0);
    let area = |a: [f32; 2], b: [f32; 2]| (b[0] - a[0]) * (b[1] - a[1]);
    let union = area([x_min, y_min], [x_max, y_max]) + area(least, most) - overlap;
    assert!(overlap / union > 0.7, "{circle:?} instead of {least:?} … {most:?}");
}
