//! Many answers in step are those of each request alone.

use std::sync::Arc;

use gemmule_quant::isa;

use super::*;
use crate::session::Constraint;
use crate::{GenerateOptions, Picture};

fn picture(seed: u32) -> Picture {
    let value = |at: u32| (at.wrapping_mul(2_654_435_761).wrapping_add(seed * 97) >> 20) as u8;
    Picture::from_rgb(64, 48, (0..64 * 48 * 3).map(|at| value(at / (seed + 3))).collect()).unwrap()
}

/// Requests of every kind: greedy and drawn, of a form, short and long, some about the picture of the one before.
fn requests() -> Vec<Request> {
    let shared: Arc<[Picture]> = [picture(0)].into();
    let options = |index: usize| {
        let options = GenerateOptions::new()
            .max_tokens(1 + index * 5 % 23)
            .ignore_end(index.is_multiple_of(3))
            .probabilities(true);
        match index % 4 {
            0 => options,
            1 => options.temperature(1.5).seed(index as u64).alternatives(3),
            2 => options.constraint(Constraint::Choices(vec!["red".into(), "a circle".into(), "nothing here".into()])),
            _ => options.constraint(Constraint::Pattern("[a-z ]{3,9}".into())),
        }
    };
    let prompts = ["what color is the shape?", "caption en", "is there a circle?", "detect triangle", ""];
    let pictures = |index: usize| match index % 5 {
        0 | 1 => Arc::clone(&shared),
        2 => [].into(),
        3 => [picture(1), picture(2)].into(),
        _ => [picture(index as u32)].into(),
    };
    (0..18).map(|index| Request::new(pictures(index), prompts[index % prompts.len()]).options(options(index))).collect()
}

/// What there is in an answer beside its timings.
fn said(answer: &Answer) -> (&str, &[GeneratedToken], usize, crate::FinishReason, bool) {
    (&answer.text, &answer.tokens, answer.prompt_tokens, answer.finish, answer.complete)
}

#[test]
fn answers_are_those_of_each_request_alone() {
    let model = Model::bundled().unwrap();
    let requests = requests();
    for isa in isa::available() {
        let options = SessionOptions::new().isa(isa.name()).threads(1);
        let mut session = Session::new(&model, &options).unwrap();
        let alone = |request: &Request| session.generate(&request.pictures, &request.prompt, &request.options).unwrap();
        let alone: Vec<_> = requests.iter().map(alone).collect();
        for (threads, slots) in [(1, 1), (2, 3), (3, 8), (2, MOST_SLOTS)] {
            let batch = Batch::new(&model, &options.clone().threads(threads), slots).unwrap();
            let submit = |request: &Request| batch.submit(request.clone()).unwrap();
            let tickets: Vec<_> = requests.iter().map(submit).collect();
            for (index, (mut ticket, alone)) in tickets.into_iter().zip(&alone).enumerate() {
                let tokens: Vec<_> = ticket.by_ref().collect();
                let answer = ticket.wait().unwrap();
                assert_eq!(said(&answer), said(alone), "{isa}: {slots} slots, {threads} threads, request {index}");
                assert_eq!(tokens, answer.tokens, "{isa}: the tokens that were told");
            }
        }
    }
}

/// Requests that are impossible, cancelled, or left by who asked end alone, and the others are answered.
#[test]
fn what_fails_fails_alone() {
    let model = Model::bundled().unwrap();
    let batch = Batch::new(&model, &SessionOptions::new(), 3).unwrap();
    let ask = |prompt: &str, options: GenerateOptions| {
        batch.submit(Request::new([picture(4)], prompt).options(options)).unwrap()
    };
    let long = || GenerateOptions::new().max_tokens(200).ignore_end(true);
    let good = ask("what color is the shape?", long().max_tokens(60));
    let mut left = ask("what color is the shape?", long());
    let mut cancelled = ask("what color is the shape?", long());
    assert!(left.next().is_some() && cancelled.next().is_some());
    drop(left);
    cancelled.cancel();
    let too_long = ask("what color is the shape?", GenerateOptions::new().max_tokens(1 << 40));
    let no_form = ask("x", GenerateOptions::new().constraint(Constraint::Pattern("(".into())));
    let too_hot = ask("x", GenerateOptions::new().temperature(f32::NAN));
    let nothing = ask("x", GenerateOptions::new().max_tokens(0));
    let waiting = ask("what color is the shape?", GenerateOptions::new());
    waiting.cancel();
    let last = ask("what color is the shape?", GenerateOptions::new());

    assert_eq!(good.wait().unwrap().tokens.len(), 60);
    let answer = cancelled.wait().unwrap();
    assert_eq!(answer.finish, crate::FinishReason::Stopped);
    assert!((1..200).contains(&answer.tokens.len()));
    assert!(too_long.wait().unwrap_err().to_string().contains("exceed the model's context"));
    assert!(no_form.wait().is_err() && too_hot.wait().is_err());
    let answer = nothing.wait().unwrap();
    assert!(answer.tokens.is_empty() && answer.finish == crate::FinishReason::MaxTokens);
    assert!(matches!(waiting.wait(), Err(Error::Cancelled)));
    assert!(!last.wait().unwrap().text.is_empty());
}

#[test]
fn a_batch_that_is_dropped_or_cancelled_ends_its_answers() {
    let model = Model::bundled().unwrap();
    let endless = || {
        let options = GenerateOptions::new().max_tokens(200).ignore_end(true);
        Request::new([picture(5)], "what color is the shape?").options(options)
    };
    let batch = Batch::new(&model, &SessionOptions::new(), 2).unwrap();
    let tickets: Vec<_> = (0..5).map(|_| batch.submit(endless()).unwrap()).collect();
    drop(batch);
    for ticket in tickets {
        let ended = ticket.wait();
        let is_cut = ended.as_ref().is_ok_and(|answer| answer.finish == crate::FinishReason::Stopped);
        assert!(is_cut || matches!(ended, Err(Error::Cancelled)));
    }

    let cancel = CancelHandle::default();
    let batch = Batch::new(&model, &SessionOptions::new().cancel(cancel.clone()), 2).unwrap();
    let mut running = batch.submit(endless()).unwrap();
    let waiting: Vec<_> = (0..4).map(|_| batch.submit(endless()).unwrap()).collect();
    assert!(running.next().is_some());
    cancel.cancel();
    assert_eq!(running.wait().unwrap().finish, crate::FinishReason::Stopped);
    for ticket in waiting {
        assert!(ticket.wait().map_or(true, |answer| answer.finish == crate::FinishReason::Stopped));
    }
    cancel.reset();
    let mut again = batch.submit(endless()).unwrap();
    let mut last = Progress::Waiting;
    while matches!(last, Progress::Waiting) {
        last = again.poll_for(Duration::from_secs(60));
    }
    assert!(matches!(last, Progress::Token(_)));
    assert_eq!(again.wait().unwrap().tokens.len(), 200);
}

#[test]
fn slots_and_options_are_checked() {
    let model = Model::bundled().unwrap();
    for slots in [0, MOST_SLOTS + 1] {
        assert!(Batch::new(&model, &SessionOptions::new(), slots).is_err());
    }
    assert!((1..=MOST_SLOTS).contains(&default_slots(&model)));
    let batch = Batch::new(&model, &SessionOptions::new(), None).unwrap();
    assert_eq!(batch.submit(Request::new([], "")).unwrap().wait().map(|answer| answer.prompt_tokens).ok(), Some(2));
}
