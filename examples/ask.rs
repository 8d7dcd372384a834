//! Asks the bundled model about a picture: `cargo run --release --example ask -- PICTURE PROMPT`.

use gemmule::{GenerateOptions, Model, Picture, Session, SessionOptions};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let picture = Picture::open(arguments.next().ok_or("name a picture")?)?;
    let prompt = arguments.next().ok_or("give a prompt, such as \"caption en\"")?;
    let model = Model::bundled()?;
    let mut session = Session::new(&model, &SessionOptions::new())?;
    println!("{}", session.generate(&[picture], &prompt, &GenerateOptions::new())?.text);
    Ok(())
}
