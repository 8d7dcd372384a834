//! The loop: pictures and a prompt in, tokens out.

pub mod batch;
mod choices;
mod constraint;
mod generation;
mod memory;
mod portion;
mod request;
mod rules;
mod sampling;
mod stream;

use std::time::{Duration, Instant};

pub use choices::Choice;
pub use constraint::Constraint;
pub use request::{
    Alternative, Answer, FinishReason, GenerateOptions, GeneratedToken, ProbabilityBase, SessionOptions, Timings, Trace,
};
pub use stream::AnswerStream;

pub use crate::ops::{Inputs, Observer};

use crate::config::Config;
use crate::image::Picture;
use crate::model::decoder::{DecoderScratch, DecoderState, KvCache, Positions};
use crate::model::vision::VisionScratch;
use crate::model::{Model, mask_decoder};
use crate::ops::Compute;
use crate::sched::default_threads;
use crate::{Error, Result};
use portion::Portion;

/// The memory and threads of one generation at a time, on a shared model.
#[derive(Debug)]
pub struct Session {
    model: Model,
    compute: Compute,
    /// What computes tokens after the first, where that is on other threads.
    generation_compute: Option<Compute>,
    vision: VisionScratch,
    decoder: DecoderState,
    pixels: Vec<f32>,
    features: Vec<f32>,
    /// Steps of the tower over the pixels, and layers of the decoder over a prefix, that are done.
    tower_done: usize,
    prefix_done: usize,
    /// What showing the pictures took, and what the prefix took so far.
    shown: Timings,
    /// Bytes that pictures and prompts were found to have room for.
    room_for_pictures: usize,
    room_for_prefix: usize,
    x: Vec<f32>,
    logits: Vec<f32>,
}

const _: fn() = || {
    fn moves_between_threads<T: Send + 'static>() {}
    moves_between_threads::<Session>();
};

impl Session {
    /// A session on a model.
    ///
    /// # Errors
    /// When the threads or the instruction set are not available.
    pub fn new(model: &Model, options: &SessionOptions) -> Result<Self> {
        let threads = options.threads.unwrap_or_else(default_threads);
        let compute_on = |threads| -> Result<Compute> {
            let (cancel, observer) = (options.cancel.clone(), options.observer.clone());
            Ok(Compute { cancel, observer, ..Compute::new(options.isa.as_deref(), threads)? })
        };
        let generation_threads = options.generation_threads.filter(|generation| *generation != threads);
        Ok(Self {
            model: model.clone(),
            compute: compute_on(threads)?,
            generation_compute: generation_threads.map(compute_on).transpose()?,
            vision: VisionScratch::default(),
            decoder: DecoderState::default(),
            pixels: Vec::new(),
            features: Vec::new(),
            tower_done: 0,
            prefix_done: 0,
            shown: Timings::default(),
            room_for_pictures: 0,
            room_for_prefix: 0,
            x: Vec::new(),
            logits: Vec::new(),
        })
    }

    /// The name of the instruction set that computes.
    pub fn isa(&self) -> &'static str {
        self.compute.kernels.isa().name()
    }

    /// Threads that compute pictures and prompts.
    pub fn threads(&self) -> usize {
        self.compute.pool.threads()
    }

    /// Threads that compute tokens after the first.
    pub fn generation_threads(&self) -> usize {
        self.generation_compute().pool.threads()
    }

    /// Reads every weight that a generated token needs, once, with the threads that generate. Returns the number of bytes. No token can
    /// take less time than this reading: generation is bound by memory bandwidth.
    pub fn read_weights(&self) -> usize {
        const PIECE: usize = 1 << 20;
        let pieces: Vec<&[u8]> = self.model.decoder_bytes().flat_map(|bytes| bytes.chunks(PIECE)).collect();
        let Compute { kernels, pool, .. } = self.generation_compute();
        pool.run(pieces.len(), |_, index| {
            std::hint::black_box(kernels.read(pieces[index]));
        });
        pieces.iter().map(|piece| piece.len()).sum()
    }

    fn generation_compute(&self) -> &Compute {
        self.generation_compute.as_ref().unwrap_or(&self.compute)
    }

    fn config(&self) -> &Config {
        &self.model.parts.config
    }

    /// The answer to a prompt about pictures: [`show`](Self::show), then [`ask`](Self::ask).
    ///
    /// # Errors
    /// When the request is impossible, the sequence is longer than the model's context, or it is cancelled before the first token.
    pub fn generate(&mut self, pictures: &[Picture], prompt: &str, options: &GenerateOptions) -> Result<Answer> {
        // Pictures that alone exceed the context fail before the work.
        self.check_length(pictures.len() * self.config().vision.tokens(), options.max_tokens)?;
        self.show(pictures)?;
        self.ask(prompt, options)
    }

    /// Encodes the pictures that prompts are about from now on; that costs the same for one prompt and for many.
    ///
    /// # Errors
    /// When they are more than the model's context or memory holds, or it is cancelled. Then no pictures are shown.
    pub fn show(&mut self, pictures: &[Picture]) -> Result<()> {
        self.begin_show(pictures)?;
        self.encode(&mut Portion::whole()).map(drop)
    }

    /// Makes pixel values of pictures, which [`encode`](Self::encode) has to make features of.
    fn begin_show(&mut self, pictures: &[Picture]) -> Result<()> {
        self.features.clear();
        self.pixels.clear();
        self.check_length(pictures.len() * self.config().vision.tokens(), 0)?;
        let (model, start) = (self.model.clone(), Instant::now());
        let config = model.config();
        self.check_room_of_pictures(pictures.len())?;
        for picture in pictures {
            self.pixels.extend(picture.to_pixel_values(&config.vision, &config.preprocess)?);
        }
        self.shown = Timings { image: start.elapsed(), ..Timings::default() };
        self.begin_encoding();
        Ok(())
    }

    /// Takes features, `[images][tokens of an image][hidden]`, in the place of pictures: those of
    /// [`image_features`](Self::image_features), or of a tower of one's own.
    ///
    /// # Errors
    /// When they are no whole number of images, or more than the model's context holds.
    pub fn show_features(&mut self, features: &[f32]) -> Result<()> {
        let config = self.config();
        let image = config.vision.tokens() * config.text.hidden;
        if !features.len().is_multiple_of(image) {
            return Err(Error::Request(format!(
                "{} features are no whole number of images of {image}",
                features.len()
            )));
        }
        self.check_length(features.len() / config.text.hidden, 0)?;
        self.pixels.clear();
        self.features.clear();
        self.features.extend_from_slice(features);
        self.shown = Timings::default();
        Ok(())
    }

    /// The features of the pictures shown, `[images][tokens of an image][hidden]`.
    pub fn image_features(&self) -> &[f32] {
        &self.features
    }

    /// The decoder's output for every position of a prefix about the pictures shown, after the last norm,
    /// `[tokens][hidden]`: what `transformers` calls the last hidden state.
    ///
    /// # Errors
    /// As [`generate`](Self::generate).
    pub fn hidden_states(&mut self, prompt: &str) -> Result<Vec<f32>> {
        self.prefill(prompt, 0, Positions::All)?;
        let mut out = vec![0.0; self.x.len()];
        self.model.decoder().normalize_output(&self.compute, &self.x, &mut out);
        Ok(out)
    }

    /// The mask that sixteen codes of a `segment` answer stand for: `[64][64]` values around −1 (outside) … 1 (inside), which
    /// `answer::Mask::paste` puts in their place in the picture.
    ///
    /// # Errors
    /// When the file holds no mask decoder, or `codes` are not sixteen numbers below 128.
    pub fn decode_mask(&mut self, codes: &[u16]) -> Result<Vec<f32>> {
        self.trace_mask(codes, |_| ())
    }

    /// As [`decode_mask`](Self::decode_mask); each stage's result, `[pixels][channels]`, is shown to `stage`, to compare with the reference.
    ///
    /// # Errors
    /// As [`decode_mask`](Self::decode_mask).
    pub fn trace_mask(&mut self, codes: &[u16], stage: impl FnMut(&[f32]) + Send) -> Result<Vec<f32>> {
        let Self { model, compute, .. } = self;
        let weights = model.parts.masks.as_ref().ok_or_else(|| {
            let reason = "it holds no mask decoder: convert the checkpoint with --seg-vae vae-oid.npz";
            Error::model(model.parts.store.files()[0].gguf().name(), reason)
        })?;
        compute.pool.enter(|| mask_decoder::forward(compute, &model.parts.store, weights, codes, stage))
    }

    /// Every stage of a prefill.
    ///
    /// # Errors
    /// As [`generate`](Self::generate).
    pub fn trace(&mut self, pictures: &[Picture], prompt: &str) -> Result<Trace> {
        self.show(pictures)?;
        self.trace_shown(prompt)
    }

    /// As [`trace`](Self::trace), from pixel values, `[images][3][size][size]`, that the caller made.
    ///
    /// # Errors
    /// As [`generate`](Self::generate), and when the values are no whole number of pictures.
    pub fn trace_pixel_values(&mut self, pixel_values: &[f32], prompt: &str) -> Result<Trace> {
        let picture = 3 * self.config().vision.image_size.pow(2);
        if !pixel_values.len().is_multiple_of(picture) {
            return Err(Error::Request(format!(
                "{} pixel values are no whole number of {picture}",
                pixel_values.len()
            )));
        }
        self.check_room_of_pictures(pixel_values.len() / picture)?;
        self.pixels.clear();
        self.pixels.extend_from_slice(pixel_values);
        self.begin_encoding();
        self.encode(&mut Portion::whole())?;
        self.trace_shown(prompt)
    }

    fn trace_shown(&mut self, prompt: &str) -> Result<Trace> {
        let (input_ids, _) = self.prefill(prompt, 0, Positions::Last)?;
        Ok(Trace {
            pixel_values: self.pixels.clone(),
            image_features: self.features.clone(),
            input_ids,
            logits: self.logits.clone(),
        })
    }

    /// Runs the prefix of a prompt about the pictures shown, with room for more tokens; the next token's logits are then in
    /// `self.logits`, and the positions asked for in `self.x`. Returns the prefix and the times so far.
    fn prefill(&mut self, prompt: &str, room: usize, positions: Positions) -> Result<(Vec<u32>, Timings)> {
        let prefix = self.begin_prefix(prompt, room)?;
        self.run_prefix(positions, &mut Portion::whole())?;
        Ok((prefix, self.shown))
    }

    /// Makes a prefix of a prompt about the pictures shown, with room for more tokens, which [`run_prefix`](Self::run_prefix) has to run.
    fn begin_prefix(&mut self, prompt: &str, room: usize) -> Result<Vec<u32>> {
        let model = self.model.clone();
        let config = model.config();
        let hidden = config.text.hidden;
        let image_tokens = self.features.len() / hidden;
        let tokens_of_picture = config.vision.tokens();
        // After the pictures: a large tokenizer is read while they are encoded.
        let tokenizer = model.tokenizer()?;
        let pictures = image_tokens / tokens_of_picture;
        // A prompt that cannot fit is not tokenized. It may hold the marks of pictures, each one token at most.
        if prompt.len() > config.text.context
            && tokenizer.fewest_tokens(prompt.len()).saturating_sub(pictures) > config.text.context
        {
            return Err(Error::Request(format!(
                "the prompt's {} bytes are more tokens than the model's context of {} holds: use a shorter prompt",
                prompt.len(),
                config.text.context
            )));
        }
        let prefix = tokenizer.prefix(pictures, tokens_of_picture, prompt)?;
        let total = self.check_length(prefix.len(), room)?;
        let cache = memory::of_cache(config, total).saturating_sub(self.decoder.cache.bytes());
        let buffers = memory::of_prefix(config, prefix.len(), self.compute.pool.threads());
        let what = || format!("the buffers for {} tokens", prefix.len());
        memory::grow(&mut self.room_for_prefix, buffers, cache, what)?;
        self.x.clear();
        // Image features enter as they are; only text embeddings are scaled.
        self.x.extend_from_slice(&self.features);
        self.x.resize(prefix.len() * hidden, 0.0);
        model.decoder().embed(&prefix[image_tokens..], &mut self.x[image_tokens * hidden..]);
        self.decoder.cache.reset(&config.text, total);
        self.prefix_done = 0;
        self.shown.prefill = Duration::ZERO;
        Ok(prefix)
    }

    /// Goes on with the prefix in `self.x` until the portion is over. Whether it is done: the next token's logits are then in
    /// `self.logits`, and the positions asked for in `self.x`.
    fn run_prefix(&mut self, positions: Positions, portion: &mut Portion) -> Result<bool> {
        let start = Instant::now();
        let Self { model, compute, decoder: state, x, logits, prefix_done: done, .. } = self;
        let decoder = model.decoder();
        let (hidden, layers) = (decoder.config.hidden, decoder.config.layers);
        let tokens = x.len() / hidden;
        let is_done = compute.pool.enter(|| -> Result<bool> {
            while *done < layers {
                decoder.prefix(compute, x, positions, *done..*done + 1, state)?;
                *done += 1;
                if *done == layers {
                    logits.resize(decoder.config.vocabulary, 0.0);
                    let last = &x[x.len() - hidden..];
                    decoder.logits(compute, last, tokens - 1, &mut state.scratch, logits);
                } else if portion.is_over() {
                    return Ok(false);
                }
            }
            Ok(true)
        })?;
        self.shown.prefill += start.elapsed();
        if is_done {
            log::debug!("prefill of {tokens} tokens: {:.1?}", self.shown.prefill);
        }
        Ok(is_done)
    }

    fn check_room_of_pictures(&mut self, pictures: usize) -> Result<()> {
        let needed = memory::of_pictures(self.config(), pictures, self.compute.pool.threads());
        memory::grow(&mut self.room_for_pictures, needed, 0, || "the buffers for pictures".to_owned())
    }

    /// The length that a prefix and `room` more tokens have together, if the model's context holds it.
    fn check_length(&self, prefix: usize, room: usize) -> Result<usize> {
        let (total, context) = (prefix.saturating_add(room), self.config().text.context);
        if total > context {
            return Err(Error::Request(format!(
                "{prefix} prompt tokens and up to {room} generated ones exceed the model's context of {context}: use fewer \
                 pictures, a shorter prompt or a smaller limit"
            )));
        }
        Ok(total)
    }

    /// Makes room for the features of the pictures in `self.pixels`.
    fn begin_encoding(&mut self) {
        let config = self.config();
        let pictures = self.pixels.len() / (3 * config.vision.image_size.pow(2));
        let features = pictures * config.vision.tokens() * config.text.hidden;
        self.features.resize(features, 0.0);
        self.tower_done = 0;
        self.shown.vision = Duration::ZERO;
    }

    /// Goes on with the features of the pictures in `self.pixels` until the portion is over. Whether they are done.
    fn encode(&mut self, portion: &mut Portion) -> Result<bool> {
        let start = Instant::now();
        let Self { model, compute, vision: scratch, pixels, features, tower_done: done, .. } = self;
        let (tower, config) = (model.tower(), model.config());
        let picture = 3 * config.vision.image_size.pow(2);
        let features_len = config.vision.tokens() * config.text.hidden;
        // The embedding, then the layers; the projector goes with the last.
        let steps = 1 + config.vision.layers;
        let all = pixels.len() / picture * steps;
        let result = compute.pool.enter(|| -> Result<bool> {
            while *done < all {
                let (index, step) = (*done / steps, *done % steps);
                match step.checked_sub(1) {
                    None => tower.embed(compute, &pixels[index * picture..][..picture], scratch),
                    Some(layer) => tower.layer(compute, layer, scratch)?,
                }
                if step + 1 == steps {
                    tower.project(compute, scratch, &mut features[index * features_len..][..features_len]);
                }
                *done += 1;
                if *done < all && portion.is_over() {
                    return Ok(false);
                }
            }
            Ok(true)
        });
        if result.is_err() {
            self.features.clear();
        }
        self.shown.vision += start.elapsed();
        if matches!(result, Ok(true)) {
            log::debug!(
                "{} image features: {:.1?}",
                self.features.len() / self.config().text.hidden,
                self.shown.vision
            );
        }
        result
    }

    /// Appends one token; its logits are then in `self.logits`.
    fn step(&mut self, token: u32) -> Result<()> {
        let Self { model, compute, generation_compute, decoder: DecoderState { cache, scratch }, x, logits, .. } = self;
        let compute = generation_compute.as_ref().unwrap_or(compute);
        step(model, compute, &[token], &mut [cache], &mut Buffers { scratch, x, logits })
    }
}

/// What a step of several sequences computes in.
struct Buffers<'a> {
    scratch: &'a mut DecoderScratch,
    x: &'a mut Vec<f32>,
    /// `[sequences][vocabulary]` when it is done.
    logits: &'a mut Vec<f32>,
}

/// Appends a token to each sequence.
fn step(
    model: &Model,
    compute: &Compute,
    tokens: &[u32],
    caches: &mut [&mut KvCache],
    Buffers { scratch, x, logits }: &mut Buffers<'_>,
) -> Result<()> {
    let decoder = model.decoder();
    x.resize(tokens.len() * decoder.config.hidden, 0.0);
    decoder.embed(tokens, x);
    logits.resize(tokens.len() * decoder.config.vocabulary, 0.0);
    let position = caches[0].tokens();
    compute.pool.enter(|| {
        decoder.step(compute, x, caches, scratch)?;
        decoder.logits(compute, x, position, scratch, logits);
        Ok(())
    })
}

#[cfg(all(test, feature = "bundled-model"))]
mod tests;
