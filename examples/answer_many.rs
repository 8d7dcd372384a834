//! Answers many prompts with one model: reads `PICTURE<TAB>PROMPT` lines from stdin, writes one JSON string each to stdout.
//! `cargo run --release --example answer_many -- MODEL.gguf < requests.tsv`

use std::io::{BufRead, Write};

use gemmule::{GenerateOptions, Model, Picture, Session, SessionOptions};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let model = Model::open(std::env::args().nth(1).ok_or("name a model")?.as_ref())?;
    let mut session = Session::new(&model, &SessionOptions::default())?;
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let (picture, prompt) = line.split_once('\t').ok_or("a line without a tab")?;
        let options = GenerateOptions { max_tokens: 24, ..GenerateOptions::default() };
        let answer = session.generate(&[Picture::open(picture.as_ref())?], prompt, &options)?;
        serde_json::to_writer(&mut out, &answer.text)?;
        writeln!(out)?;
    }
    Ok(out.flush()?)
}
