//! What a session does not compute changes nothing.

use gemmule_quant::isa;

use super::*;

/// A prompt is refused by its bytes where they are too many, and never one that fits.
#[test]
fn a_prompt_that_cannot_fit_is_not_tokenised() {
    let model = Model::bundled().unwrap();
    let tokenizer = model.tokenizer().unwrap();
    let longest = (0..tokenizer.used_vocabulary() as u32).filter_map(|id| tokenizer.token(id)).max_by_key(String::len);
    let texts = [longest.unwrap().repeat(400), " ".repeat(5000), "<image><image>what is this?".into(), "ö".repeat(900)];
    for text in texts {
        let tokens = tokenizer.encode(&text).unwrap().len();
        let fewest = tokenizer.fewest_tokens(text.len());
        assert!((1..=tokens).contains(&fewest), "{fewest} of {tokens}");
    }
    assert!(tokenizer.fewest_tokens(1 << 20) > 1 << 14);
    let mut session = Session::new(&model, &SessionOptions::new()).unwrap();
    session.show(&[]).unwrap();
    let start = Instant::now();
    let prompt = "what color is it? ".repeat(10 << 20);
    let error = session.ask(&prompt, &GenerateOptions::new()).unwrap_err();
    assert!(error.to_string().contains("188743680 bytes are more tokens than"), "{error}");
    assert!(start.elapsed().as_secs() < 5, "it was tokenised");
}

/// What the last layer leaves out changes nothing that later tokens see, and the next token's logits by rounding only.
#[test]
fn the_last_position_does_not_need_the_others() {
    let model = Model::bundled().unwrap();
    for isa in isa::available() {
        let options = SessionOptions::new().isa(isa.name());
        let run = |positions, prompt: &str| {
            let mut session = Session::new(&model, &options).unwrap();
            let side = session.config().vision.image_size as u32;
            session.show(&[Picture::from_rgb(side, side, vec![90; (3 * side * side) as usize]).unwrap()]).unwrap();
            session.prefill(prompt, 1, positions).unwrap();
            let first = session.logits.clone();
            session.step(5).unwrap();
            (session.decoder.cache, first, session.logits)
        };
        for prompt in ["", "what color is the circle?"] {
            let (all, last) = (run(Positions::All, prompt), run(Positions::Last, prompt));
            assert!(all.0 == last.0, "{isa}: the cache");
            assert_eq!(all.2, last.2, "{isa}: the token behind the prefix");
            let norm = |values: &[f32]| values.iter().map(|x| x * x).sum::<f32>().sqrt();
            let difference: Vec<f32> = all.1.iter().zip(&last.1).map(|(a, b)| a - b).collect();
            assert!(norm(&difference) < 0.02 * norm(&all.1), "{isa}: {}", norm(&difference) / norm(&all.1));
        }
    }
}
