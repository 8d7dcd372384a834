//! One model, a session on each of two threads, and a limit of time that ends both:
//! `cargo run --release --features bundled-model --example threads -- PICTURE PROMPT PROMPT`.

use std::time::Duration;

use gemmule::{CancelHandle, GenerateOptions, Model, Picture, Session, SessionOptions};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let picture = Picture::open(arguments.next().ok_or("name a picture")?)?;
    let prompts: Vec<String> = arguments.collect();
    let model = Model::bundled()?;
    let cancel = CancelHandle::default();

    // A clone of a model is another handle of it: the weights are there once.
    let workers = prompts.into_iter().map(|prompt| {
        let (model, picture, cancel) = (model.clone(), picture.clone(), cancel.clone());
        std::thread::spawn(move || -> gemmule::Result<String> {
            let mut session = Session::new(&model, &SessionOptions::new().threads(1).cancel(cancel))?;
            let answer = session.generate(&[picture], &prompt, &GenerateOptions::new())?;
            Ok(format!("{prompt}: {} ({})", answer.text, answer.finish.name()))
        })
    });
    let workers: Vec<_> = workers.collect();
    std::thread::spawn(move || {
        std::thread::sleep(Duration::from_secs(10));
        cancel.cancel();
    });
    for worker in workers {
        println!("{}", worker.join().map_err(|_| "a thread ended with a panic")??);
    }
    Ok(())
}
