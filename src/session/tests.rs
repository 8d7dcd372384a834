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

/// What an observer saw: names of matrices, the first row's position, the values, the inputs of a row.
type Seen = (Vec<String>, Option<usize>, Vec<f32>, usize);

#[derive(Debug, Default)]
struct Record(std::sync::Mutex<Vec<Seen>>);

impl Observer for Record {
    fn observe(&self, inputs: &Inputs<'_>) {
        let names = inputs.tensors.iter().map(|name| (*name).to_owned()).collect();
        self.0.lock().unwrap().push((names, inputs.position, inputs.values.to_vec(), inputs.columns));
    }
}

fn grey(model: &Model) -> Picture {
    let side = model.config().vision.image_size as u32;
    Picture::from_rgb(side, side, (0..3 * side * side).map(|i| (i % 251) as u8).collect()).unwrap()
}

/// Every matrix is shown with what it is multiplied with, the place of its rows, and without changing an answer.
#[test]
fn an_observer_sees_the_inputs_of_all_matrices() {
    let model = Model::bundled().unwrap();
    let config = model.config();
    let image = config.vision.tokens();
    for isa in isa::available() {
        let record = std::sync::Arc::new(Record::default());
        let options = SessionOptions::new().isa(isa.name());
        let run = |options: &SessionOptions| {
            let mut session = Session::new(&model, options).unwrap();
            let answer =
                session.generate(&[grey(&model)], "describe en", &GenerateOptions::new().max_tokens(3)).unwrap();
            (answer.token_ids(), session.features, session.logits)
        };
        let (answer, features, logits) = run(&options.clone().observer(record.clone()));
        assert_eq!(answer, run(&options).0, "{isa}");
        let seen = record.0.lock().unwrap();
        let names: Vec<_> = seen.iter().flat_map(|(names, ..)| names).collect();
        let files = model.parts.store.files();
        let matrices = files[0].gguf().tensors().iter().filter(|tensor| tensor.dimensions.len() > 1);
        let matrices = matrices.filter(|tensor| !tensor.name.contains("position") && !tensor.name.starts_with("mask"));
        for tensor in matrices {
            assert!(names.contains(&&tensor.name), "{isa}: {} is not shown", tensor.name);
        }
        assert!(seen.iter().all(|(.., values, columns)| !values.is_empty() && values.len() % columns == 0), "{isa}");
        let of = |name: &str| seen.iter().filter(|row| row.0.iter().any(|own| own == name)).collect::<Vec<_>>();
        let prompt = model.tokenizer().unwrap().prefix(1, image, "describe en").unwrap().len();
        let places = |name: &str| of(name).iter().map(|row| (row.1, row.2.len() / row.3)).collect::<Vec<_>>();
        let generated = (1..answer.len()).map(|step| (Some(prompt + step - 1), 1));
        let whole = [(Some(0), prompt)].into_iter().chain(generated.clone()).collect::<Vec<_>>();
        assert_eq!(places("blk.0.attn_k.weight"), whole, "{isa}");
        let last = format!("blk.{}.ffn_down.weight", config.text.layers - 1);
        let tail = [(Some(prompt - 1), 1)].into_iter().chain(generated).collect::<Vec<_>>();
        assert_eq!(places(&last), tail, "{isa}");
        assert_eq!(places("token_embd.weight"), tail, "{isa}");
        assert_eq!(places("v.blk.0.attn_q.weight"), [(None, image)], "{isa}");

        // They are what the products are of: the projector's, and the head's.
        let product = |name: &str, values: &[f32]| -> Vec<f32> {
            let file = &files[0];
            let tensor = file.gguf().tensors().iter().find(|tensor| tensor.name == name).unwrap();
            let (format, bytes) = (tensor.format.unwrap(), &file.bytes()[tensor.range.clone()]);
            let mut row = vec![0.0; tensor.dimensions[0] as usize];
            let rows = bytes.chunks_exact(format.row_bytes(row.len()).unwrap());
            rows.map(|bytes| {
                gemmule_quant::decode_row(format, bytes, &mut row);
                row.iter().zip(values).map(|(w, x)| w * x).sum()
            })
            .collect()
        };
        let near = |ours: &[f32], theirs: &[f32]| {
            let largest = theirs.iter().fold(0.0f32, |most, x| most.max(x.abs()));
            ours.iter().zip(theirs).all(|(a, b)| (a - b).abs() < 0.02 * largest)
        };
        let input = &of("mm.input_projection.weight")[0];
        let bias = model.parts.store.vector("mm.input_projection.bias", config.text.hidden).unwrap();
        let bias = model.parts.store.values(&bias);
        let first: Vec<f32> = product("mm.input_projection.weight", &input.2[..input.3]);
        let first: Vec<f32> = first.iter().zip(bias).map(|(x, bias)| x + bias).collect();
        assert!(near(&first, &features[..config.text.hidden]), "{isa}: the projector");
        let cap = config.text.final_softcap.unwrap();
        let last = of("token_embd.weight").last().unwrap().2.clone();
        let ours: Vec<f32> = product("token_embd.weight", &last).iter().map(|x| cap * (x / cap).tanh()).collect();
        assert!(near(&ours, &logits), "{isa}: the head");
    }
}

/// Following an answer gives the probability that scoring it does.
#[test]
fn a_followed_answer_is_as_likely_as_a_scored_one() {
    let model = Model::bundled().unwrap();
    let mut session = Session::new(&model, &SessionOptions::new()).unwrap();
    session.show(&[grey(&model)]).unwrap();
    let scored = session.score("what color is it?", &["red", "a yellow circle"]).unwrap();
    for choice in scored {
        let mut tokens = model.tokenizer().unwrap().encode(&choice.text).unwrap();
        tokens.push(model.tokenizer().unwrap().special().eos[0]);
        let (mut sum, mut places) = (0.0, Vec::new());
        let see = |place: usize, logs: &[f32]| {
            places.push(place);
            sum += logs[tokens[place] as usize];
            assert_eq!(logs.len(), model.config().text.vocabulary);
            assert!((logs.iter().map(|log| log.exp()).sum::<f32>() - 1.0).abs() < 1e-4);
        };
        session.follow("what color is it?", &tokens, see).unwrap();
        assert_eq!(sum, choice.log_probability, "{}", choice.text);
        assert_eq!(places, (0..tokens.len()).collect::<Vec<_>>());
    }
    assert!(session.follow("hm", &[], |_, _| ()).unwrap_err().to_string().contains("is empty"));
    assert!(session.follow("hm", &[5, 1 << 20], |_, _| ()).unwrap_err().to_string().contains("token 1048576"));
}
