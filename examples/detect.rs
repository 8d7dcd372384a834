//! Finds an object, prints its box in pixels and draws it:
//! `cargo run --release --features bundled-model,drawing --example detect -- PICTURE OBJECT OUT.png`.

use gemmule::answer::{Drawn, annotate, detections};
use gemmule::session::Constraint;
use gemmule::{GenerateOptions, Model, Picture, Session, SessionOptions};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let picture = Picture::open(arguments.next().ok_or("name a picture")?)?;
    let prompt = format!("detect {}", arguments.next().ok_or("name an object, such as \"circle\"")?);
    let output = arguments.next().ok_or("name the PNG file to write")?;

    let model = Model::bundled()?;
    let mut session = Session::new(&model, &SessionOptions::new())?;
    // The constraint admits whole objects only, and scores are made of probabilities.
    let options = GenerateOptions::new().probabilities(true).constraint(Constraint::Objects);
    let answer = session.generate(std::slice::from_ref(&picture), &prompt, &options)?;
    let found = detections(model.tokenizer()?, &answer.tokens)?;
    for object in &found.objects {
        let [left, top, right, bottom] = object.bounds.pixels(picture.width(), picture.height());
        println!("{} {left:.0} {top:.0} {right:.0} {bottom:.0} {:.2}", object.label, object.score);
    }
    let drawn: Vec<Drawn<'_>> = found.objects.iter().map(Drawn::from).collect();
    std::fs::write(output, annotate(&picture, &drawn).to_png())?;
    Ok(())
}
