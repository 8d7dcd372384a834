//! Answers: text, tokens, objects, timings. What they point to lives as long as the answer.

use std::ffi::{CString, c_char};
use std::time::Duration;

use gemmule::answer::{Object, detections};
use gemmule::image::Size;
use gemmule::text::Tokenizer;
use gemmule::{Answer, FinishReason};

use crate::border::{Failure, fail, set};

/// An answer.
pub struct gemmule_answer {
    text: CString,
    tokens: Vec<u32>,
    probabilities: Vec<f32>,
    objects: Vec<gemmule_object>,
    /// What `objects` points to.
    _labels: Vec<CString>,
    pub(crate) found: Vec<Object>,
    /// Of the picture that was shown alone.
    pub(crate) size: Option<Size>,
    finish: gemmule_finish,
    timings: gemmule_timings,
}

/// An object that an answer names. The struct never changes, since it comes in arrays: functions give more.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct gemmule_object {
    /// What the model calls it.
    pub label: *const c_char,
    /// Left, upper, right and lower edge as shares of the picture's sides.
    pub normalized_box: [f32; 4],
    /// The same in pixels; all zero unless one picture was shown.
    pub pixel_box: [f32; 4],
    /// Geometric mean of the probabilities of the tokens that made it.
    pub score: f32,
}

const _: () = assert!(size_of::<gemmule_object>() == (size_of::<usize>() + 36).next_multiple_of(align_of::<usize>()));

/// Why an answer ended.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum gemmule_finish {
    /// The model said so.
    GEMMULE_END_TOKEN = 0,
    /// The limit of tokens was reached.
    GEMMULE_MAX_TOKENS = 1,
    /// The callback or a gemmule_cancel said so.
    GEMMULE_STOPPED = 2,
    /// The time was up.
    GEMMULE_DEADLINE = 3,
}

/// How long the stages took, in milliseconds.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct gemmule_timings {
    /// Resizing and normalizing the pictures.
    pub image: f64,
    /// The vision tower and the projector.
    pub vision: f64,
    /// The decoder over the prompt, to the first token.
    pub prefill: f64,
    /// All tokens after the first.
    pub generate: f64,
    /// Tokens of the prompt, pictures included.
    pub prompt_tokens: usize,
}

impl gemmule_answer {
    pub(crate) fn new(tokenizer: &Tokenizer, answer: Answer, size: Option<Size>) -> Result<Self, Failure> {
        let found = detections(tokenizer, &answer.tokens)?;
        let text = |text: &str| CString::new(text.replace('\0', " ")).unwrap_or_default();
        let labels: Vec<CString> = found.objects.iter().map(|object| text(&object.label)).collect();
        let objects = found.objects.iter().zip(&labels).map(|(object, label)| gemmule_object {
            label: label.as_ptr(),
            normalized_box: object.bounds.normalized().map(|edge| edge as f32),
            pixel_box: size
                .map_or([0.0; 4], |size| object.bounds.pixels(size.width, size.height).map(|edge| edge as f32)),
            score: object.score,
        });
        let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
        let times = &answer.timings;
        let objects = objects.collect();
        Ok(Self {
            text: text(&answer.text),
            objects,
            _labels: labels,
            found: found.objects,
            size,
            finish: match answer.finish {
                FinishReason::EndToken => gemmule_finish::GEMMULE_END_TOKEN,
                FinishReason::MaxTokens => gemmule_finish::GEMMULE_MAX_TOKENS,
                FinishReason::Stopped => gemmule_finish::GEMMULE_STOPPED,
                FinishReason::Deadline => gemmule_finish::GEMMULE_DEADLINE,
                other => return fail(&format!("this interface has no number for the end '{}'", other.name())),
            },
            timings: gemmule_timings {
                image: milliseconds(times.image),
                vision: milliseconds(times.vision),
                prefill: milliseconds(times.prefill),
                generate: milliseconds(times.generate),
                prompt_tokens: answer.prompt_tokens,
            },
            tokens: answer.token_ids(),
            probabilities: answer.tokens.iter().filter_map(|token| token.probability).collect(),
        })
    }
}

/// The text; a zero byte in it shows as a space. NULL for NULL.
///
/// # Safety
/// `answer` is NULL or came from gemmule_session_ask().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gemmule_answer_text(answer: *const gemmule_answer) -> *const c_char {
    // SAFETY: the caller's promise.
    unsafe { answer.as_ref() }.map_or(std::ptr::null(), |answer| answer.text.as_ptr())
}

/// The tokens, the end token included when it came, and their probabilities; both are as long as the result says.
/// `tokens` and `probabilities` may be NULL.
///
/// # Safety
/// `answer` is NULL or came from gemmule_session_ask(); the results are NULL or places for them.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gemmule_answer_tokens(
    answer: *const gemmule_answer,
    tokens: *mut *const u32,
    probabilities: *mut *const f32,
) -> usize {
    // SAFETY: the caller's promise.
    let Some(answer) = (unsafe { answer.as_ref() }) else { return 0 };
    // SAFETY: the caller's promise.
    unsafe {
        set(tokens, answer.tokens.as_ptr());
        set(probabilities, answer.probabilities.as_ptr());
    }
    answer.tokens.len()
}

/// The objects that the answer names, as many as the result says.
///
/// # Safety
/// `answer` is NULL or came from gemmule_session_ask(); `objects` is NULL or a place for the result.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gemmule_answer_objects(
    answer: *const gemmule_answer,
    objects: *mut *const gemmule_object,
) -> usize {
    // SAFETY: the caller's promise.
    let Some(answer) = (unsafe { answer.as_ref() }) else { return 0 };
    // SAFETY: the caller's promise.
    unsafe { set(objects, answer.objects.as_ptr()) };
    answer.objects.len()
}

/// The sixteen codes of the mask of an object, which counts from 0, for gemmule_session_mask(); NULL where it has none, or there is no such
/// object.
///
/// # Safety
/// `answer` is NULL or came from gemmule_session_ask().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gemmule_answer_segments(answer: *const gemmule_answer, object: usize) -> *const u16 {
    // SAFETY: the caller's promise.
    let object = unsafe { answer.as_ref() }.and_then(|answer| answer.found.get(object));
    object.filter(|object| !object.segments.is_empty()).map_or(std::ptr::null(), |object| object.segments.as_ptr())
}

/// Width and height of the picture that the answer is about, in pixels; both are zero unless one was shown. Either may be NULL.
///
/// # Safety
/// `answer` is NULL or came from gemmule_session_ask(); `width` and `height` are NULL or places for the results.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gemmule_answer_picture_size(answer: *const gemmule_answer, width: *mut u32, height: *mut u32) {
    // SAFETY: the caller's promise.
    let size = unsafe { answer.as_ref() }.and_then(|answer| answer.size).unwrap_or_default();
    // SAFETY: the caller's promise.
    unsafe {
        set(width, size.width);
        set(height, size.height);
    }
}

/// Why the answer ended.
///
/// # Safety
/// `answer` is NULL or came from gemmule_session_ask().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gemmule_answer_finish(answer: *const gemmule_answer) -> gemmule_finish {
    // SAFETY: the caller's promise.
    unsafe { answer.as_ref() }.map_or(gemmule_finish::GEMMULE_STOPPED, |answer| answer.finish)
}

/// How long the stages took.
///
/// # Safety
/// `answer` is NULL or came from gemmule_session_ask().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gemmule_answer_timings(answer: *const gemmule_answer) -> gemmule_timings {
    // SAFETY: the caller's promise.
    unsafe { answer.as_ref() }.map_or(gemmule_timings::default(), |answer| answer.timings)
}

/// Frees an answer.
///
/// # Safety
/// `answer` is NULL or came from gemmule_session_ask() and is not used any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gemmule_answer_free(answer: *mut gemmule_answer) {
    // SAFETY: the caller's promise.
    unsafe { crate::border::free(answer) }
}
