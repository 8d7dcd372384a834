//! Answers as JSON, with the objects they name.

use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use clap::{ArgGroup, Args};
use gemmule::Model;
use gemmule::answer::{Bounds, Detections, Drawn, Malformed, Mask, Object, annotate, detections, merge_duplicates};
use gemmule::image::Size;
use gemmule::session::{Alternative, Constraint, ProbabilityBase};
use gemmule::{Answer, Picture, Session};
use gemmule_common::files::{OutputFile, directory_of, same_file};
use serde_json::{Value, json};

/// What an answer must look like.
#[derive(Args, Clone)]
#[command(group = ArgGroup::new("form").args(["choices", "pattern", "objects_only"]))]
pub(super) struct FormArguments {
    /// The answer is one of these texts; give the option once for each.
    #[arg(long = "choice", value_name = "TEXT")]
    choices: Vec<String>,
    /// The answer matches this regular expression.
    #[arg(long, value_name = "REGEX")]
    pattern: Option<String>,
    /// The answer is a list of whole objects, or nothing: for "detect" and "segment" prompts.
    #[arg(long)]
    objects_only: bool,
}

impl FormArguments {
    pub(super) fn constraint(&self) -> Option<Constraint> {
        if self.objects_only {
            return Some(Constraint::Objects);
        }
        let pattern = || self.pattern.clone().map(Constraint::Pattern);
        Some(self.choices.clone()).filter(|choices| !choices.is_empty()).map(Constraint::Choices).or_else(pattern)
    }
}

/// What probabilities are over.
#[derive(Args, Clone)]
pub(super) struct ProbabilityArguments {
    /// What probabilities are over: full (the whole vocabulary, as for transformers, padding rows included), used (the tokens that
    /// can be chosen) or form (those that the answer's form admits at each place).
    #[arg(long, value_name = "BASE", default_value = "full", value_parser = parse_base)]
    probabilities: ProbabilityBase,
}

impl ProbabilityArguments {
    pub(super) fn base(&self) -> ProbabilityBase {
        self.probabilities
    }
}

fn parse_base(name: &str) -> Result<ProbabilityBase, String> {
    ProbabilityBase::from_name(name).ok_or_else(|| "choose full, used or form".to_owned())
}

/// What becomes of the objects in an answer.
#[derive(Args, Clone)]
pub(super) struct ObjectArguments {
    /// Merge objects of one label whose boxes overlap by more than this share (intersection over union).
    #[arg(long, value_name = "OVERLAP", num_args = 0..=1, require_equals = true, default_missing_value = "0.5", value_parser = parse_share)]
    nms: Option<f32>,
}

impl ObjectArguments {
    /// Objects of one label whose boxes overlap by more than this share are merged; none where they are not.
    pub(super) fn nms(&self) -> Option<f32> {
        self.nms
    }
}

fn parse_share(text: &str) -> Result<f32, String> {
    text.parse()
        .ok()
        .filter(|share| (0.0..=1.0).contains(share))
        .ok_or_else(|| "choose a number from 0 to 1".to_owned())
}

/// The objects of one answer, with masks where the answer and the model have them.
pub(super) struct Found {
    pub(super) detections: Detections,
    /// As many as objects.
    pub(super) masks: Vec<Option<Mask>>,
}

impl Found {
    /// Reads an answer about `pictures`. Masks are made only where there is one picture.
    pub(super) fn read(
        arguments: &ObjectArguments,
        session: &mut Session,
        model: &Model,
        answer: &Answer,
        pictures: &[Picture],
    ) -> Result<Self> {
        let mut detections = detections(model.tokenizer()?, &answer.tokens)?;
        if let Some(overlap) = arguments.nms {
            merge_duplicates(&mut detections.objects, overlap);
        }
        let mut mask = |object: &Object| -> Result<Option<Mask>> {
            let [picture] = pictures else { return Ok(None) };
            if object.segments.is_empty() || !model.decodes_masks() {
                return Ok(None);
            }
            let values = session.decode_mask(&object.segments)?;
            Ok(Some(Mask::paste(&values, &object.bounds, picture.width(), picture.height())))
        };
        let masks = detections.objects.iter().map(&mut mask).collect::<Result<_>>()?;
        Ok(Self { detections, masks })
    }

    /// Moves objects found in a part of a picture, which begins at (`left`, `top`), to their places in the whole.
    pub(super) fn move_into(&mut self, part: &Picture, left: u32, top: u32, whole: &Picture) {
        let Size { width, height } = whole.size();
        for (object, mask) in self.detections.objects.iter_mut().zip(&mut self.masks) {
            let [x_min, y_min, x_max, y_max] = object.bounds.pixels(part.width(), part.height());
            let share = |edge: f64, start: u32, side: u32| (edge + f64::from(start)) / f64::from(side);
            let (x, y) = (|edge| share(edge, left, width), |edge| share(edge, top, height));
            object.bounds = Bounds { x_min: x(x_min), y_min: y(y_min), x_max: x(x_max), y_max: y(y_max) };
            *mask = mask.take().map(|mask| mask.within(left, top, whole.size()));
        }
    }

    /// `objects` and `malformed`; boxes are in pixels only where there is one picture.
    fn to_json(&self, pictures: &[Picture]) -> (Value, Value) {
        let object = |(object, mask): (&Object, &Option<Mask>)| {
            let pixels = match pictures {
                [picture] => Some(object.bounds.pixels(picture.width(), picture.height())),
                _ => None,
            };
            let mut value = json!({
                "label": object.label,
                "box": pixels,
                "normalized_box": object.bounds.normalized(),
                "score": object.score,
            });
            if !object.segments.is_empty() {
                value["segments"] = json!(object.segments);
            }
            if let Some(mask) = mask {
                value["mask"] = json!({ "size": [mask.height(), mask.width()], "counts": mask.counts() });
                value["area"] = json!(mask.area());
            }
            value
        };
        let malformed = |part: &Malformed| json!({ "text": part.text, "reason": part.reason });
        let Detections { objects, malformed: parts, .. } = &self.detections;
        let objects: Vec<Value> = objects.iter().zip(&self.masks).map(object).collect();
        (objects.into(), parts.iter().map(malformed).collect::<Vec<_>>().into())
    }

    /// The picture with all objects drawn on it, as PNG.
    ///
    /// # Errors
    /// When there is no memory for it.
    pub(super) fn draw(&self, picture: &Picture) -> Result<Vec<u8>> {
        // The picture again, and the file in the worst case, as it grows.
        gemmule_common::memory::check_room(4 * picture.rgb().len(), "the drawing")?;
        let objects = self.detections.objects.iter().zip(&self.masks);
        let drawn: Vec<_> = objects.map(|(object, mask)| Drawn { object, mask: mask.as_ref() }).collect();
        Ok(annotate(picture, &drawn).to_png())
    }

    /// Each mask as a PNG file in `directory`, named by the number of its object.
    pub(super) fn write_masks(&self, directory: &Path) -> Result<()> {
        let context = || directory.display().to_string();
        std::fs::create_dir_all(directory).with_context(context)?;
        // A mask of an earlier answer must not pass for one of this.
        let empty = std::fs::read_dir(directory).with_context(context)?.next().is_none();
        ensure!(empty, "{} is not empty; choose another directory for --masks", directory.display());
        for (number, mask) in (1..).zip(&self.masks) {
            if let Some(mask) = mask {
                write(&directory.join(format!("{number}.png")), &mask.to_png())?;
            }
        }
        Ok(())
    }
}

/// A file that a command writes; `-` is stdout. Made before the work, so that a file that cannot be written fails at once.
pub(super) struct Output<'a>(&'a Path);

impl<'a> Output<'a> {
    /// # Errors
    /// When the system refuses, or `path` is one of the `inputs`.
    pub(super) fn new<'p>(path: &'a Path, inputs: impl IntoIterator<Item = &'p Path>) -> Result<Self> {
        // Any file of a directory may be a frame.
        let found = path.canonicalize().ok();
        let directory = found.as_deref().map(directory_of);
        let read =
            |input: &Path| same_file(path, input) || directory.is_some_and(|directory| same_file(directory, input));
        ensure!(!inputs.into_iter().any(read), "{} is read, too: name another output", path.display());
        if path != Path::new("-") {
            OutputFile::probe(path).with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(Self(path))
    }

    pub(super) fn write(&self, bytes: &[u8]) -> Result<()> {
        if self.0 == Path::new("-") {
            let mut out = std::io::stdout().lock();
            return Ok(out.write_all(bytes).and_then(|()| out.flush())?);
        }
        write(self.0, bytes)
    }
}

/// Writes a whole file.
pub(super) fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    gemmule_common::files::write_whole(path, bytes).with_context(|| format!("cannot write {}", path.display()))
}

/// What an answer says, without timings.
pub(super) fn to_json(
    model: &Model,
    base: ProbabilityBase,
    answer: &Answer,
    found: &Found,
    pictures: &[Picture],
) -> Result<Value> {
    let (objects, malformed) = found.to_json(pictures);
    let mut value = json!({
        "text": answer.text,
        "tokens": answer.token_ids(),
        "probabilities": answer.tokens.iter().filter_map(|token| token.probability).collect::<Vec<_>>(),
        "objects": objects,
        "malformed": malformed,
        "prompt_tokens": answer.prompt_tokens,
        "finish": answer.finish.name(),
        "probabilities_over": base.name(),
    });
    // For each picture what is wrong with its file, where anything is.
    if pictures.iter().any(|picture| picture.damage().is_some()) {
        value["damaged"] = pictures.iter().map(Picture::damage).collect();
    }
    if answer.tokens.iter().any(|token| !token.alternatives.is_empty()) {
        let tokenizer = model.tokenizer()?;
        let one = |&Alternative { id, log_probability, .. }: &Alternative| json!({ "token": id, "text": tokenizer.token(id), "logprob": log_probability });
        let places = answer.tokens.iter();
        value["logprobs"] = places.map(|token| token.alternatives.iter().map(one).collect::<Vec<_>>()).collect();
    }
    Ok(value)
}
