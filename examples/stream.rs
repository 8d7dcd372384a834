//! Shows an answer as it comes, with each token's probability, and on stderr what the library chose and waited for:
//! `RUST_LOG=debug cargo run --release --features bundled-model --example stream -- PICTURE PROMPT`.

use gemmule::{GenerateOptions, Model, Picture, Session, SessionOptions};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    env_logger::init();
    let mut arguments = std::env::args().skip(1);
    let picture = Picture::open(arguments.next().ok_or("name a picture")?)?;
    let prompt = arguments.next().ok_or("give a prompt, such as \"caption en\"")?;
    let model = Model::bundled()?;
    let mut session = Session::new(&model, &SessionOptions::new())?;
    session.show(&[picture])?;
    let mut stream = session.stream(&prompt, &GenerateOptions::new().max_tokens(40).probabilities(true))?;
    for token in &mut stream {
        let token = token?;
        println!("{:6.2} % {:?}", 100.0 * token.probability.unwrap_or_default(), token.text);
    }
    let answer = stream.finish();
    println!("{} ({}, {:.1?})", answer.text, answer.finish.name(), answer.timings.generate);
    Ok(())
}
