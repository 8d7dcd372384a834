//! The distribution of the first answer token for many prompts: reads `PICTURE<TAB>PROMPT` lines from stdin, writes the
//! logits of each, `[vocabulary]` little-endian `f32`, to stdout.
//! `cargo run --release --example next_token_logits -- MODEL.gguf < requests.tsv > logits.bin`

use std::io::{BufRead, Write};

use gemmule::{Model, Picture, Session, SessionOptions};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let model = Model::open(std::env::args().nth(1).ok_or("name a model")?)?;
    let mut session = Session::new(&model, &SessionOptions::new())?;
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let (picture, prompt) = line.split_once('\t').ok_or("a line without a tab")?;
        let trace = session.trace(&[Picture::open(picture)?], prompt)?;
        for logit in trace.logits {
            out.write_all(&logit.to_le_bytes())?;
        }
    }
    Ok(out.flush()?)
}
