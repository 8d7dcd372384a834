//! The C interface: opaque handles, status codes, borrowed frames. Nothing unwinds across the border.
//!
//! The header, `include/gemmule.h`, is made from this file; its comments are the manual.
#![allow(non_camel_case_types)] // C's names

mod answer;
mod border;
mod frame;
mod request;
mod types;

use std::ffi::{c_char, c_void};

pub use answer::*;
use border::{fail, guard, out, string, strings};
pub use frame::*;
use gemmule::answer::Mask;
use gemmule::image::{Frame, FrameShape, Matrix, Size};
use gemmule::{CancelHandle, Model, Picture, Session};
pub use request::*;
pub use types::*;

const _: fn() = || {
    fn moves_between_threads<T: Send>() {}
    fn is_shared_by_threads<T: Sync>() {}
    moves_between_threads::<gemmule_session>();
    is_shared_by_threads::<gemmule_model>();
    is_shared_by_threads::<gemmule_cancel>();
};

/// Makes a gemmule_cancel, not set.
#[unsafe(no_mangle)]
pub extern "C" fn gemmule_cancel_new() -> *mut gemmule_cancel {
    Box::into_raw(Box::new(gemmule_cancel(CancelHandle::default())))
}

/// Sets it, so that its sessions end what they compute and fail with GEMMULE_CANCELLED from then on (an answer that has begun
/// ends with what there is), or takes that back.
///
/// # Safety
/// `cancel` is NULL or came from gemmule_cancel_new().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gemmule_cancel_set(cancel: *const gemmule_cancel, cancelled: gemmule_bool) {
    // SAFETY: the caller's promise.
    if let Some(gemmule_cancel(handle)) = unsafe { cancel.as_ref() } {
        if cancelled != 0 { handle.cancel() } else { handle.reset() }
    }
}

/// Frees it. Sessions that it was given to go on.
///
/// # Safety
/// `cancel` is NULL or came from gemmule_cancel_new() and is not used any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gemmule_cancel_free(cancel: *mut gemmule_cancel) {
    // SAFETY: the caller's promise.
    unsafe { border::free(cancel) }
}

/// The library's version, such as "0.1.0".
#[unsafe(no_mangle)]
pub extern "C" fn gemmule_version() -> *const c_char {
    const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "\0");
    VERSION.as_ptr().cast()
}

/// Why the last function that failed on this thread did so; valid until the next one fails. Never NULL.
#[unsafe(no_mangle)]
pub extern "C" fn gemmule_last_error() -> *const c_char {
    border::last_error()
}

/// Opens a GGUF file, or the pair of a text half and a vision half. `mmproj` is NULL for a single file; both are NULL for the
/// bundled model.
///
/// # Safety
/// Strings end with a zero byte; `model` points to a place for the result.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gemmule_model_open(
    path: *const c_char,
    mmproj: *const c_char,
    model: *mut *mut gemmule_model,
) -> gemmule_status {
    guard(|| {
        // SAFETY: the caller's promise about `model`, `path` and `mmproj`.
        let (model, path, mmproj) = unsafe { (out(model)?, string(path), string(mmproj)) };
        let opened = match (path, mmproj) {
            (Some(path), Some(mmproj)) => Model::open_pair(path?, mmproj?)?,
            (Some(path), None) => Model::open(path?)?,
            (None, None) => bundled()?,
            (None, Some(_)) => return fail("mmproj without path"),
        };
        *model = Box::into_raw(Box::new(gemmule_model(opened)));
        Ok(())
    })
}

#[cfg(feature = "bundled-model")]
fn bundled() -> gemmule::Result<Model> {
    Model::bundled()
}

#[cfg(not(feature = "bundled-model"))]
fn bundled() -> gemmule::Result<Model> {
    Err(gemmule::Error::Request("this build has no bundled model; name a file".to_owned()))
}

/// Frees a model. Sessions on it go on.
///
/// # Safety
/// `model` is NULL or came from gemmule_model_open() and is not used any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gemmule_model_free(model: *mut gemmule_model) {
    // SAFETY: the caller's promise.
    unsafe { border::free(model) }
}

/// Makes a session on a model. `options` may be NULL.
///
/// # Safety
/// `model` came from gemmule_model_open(); `options` is NULL or as gemmule_session_options_init() made it; `session` points to
/// a place for the result.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gemmule_session_new(
    model: *const gemmule_model,
    options: *const gemmule_session_options,
    session: *mut *mut gemmule_session,
) -> gemmule_status {
    guard(|| {
        // SAFETY: the caller's promise about `session` and `model`.
        let (session, model) = unsafe { (out(session)?, border::handle(model)?) };
        // SAFETY: the caller's promise about `options`.
        let options = unsafe { request::session_options(options)? };
        let model = model.0.clone();
        let made = Session::new(&model, &options)?;
        *session = Box::into_raw(Box::new(gemmule_session { session: made, model, sizes: Vec::new() }));
        Ok(())
    })
}

/// Frees a session.
///
/// # Safety
/// `session` is NULL or came from gemmule_session_new() and is not used any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gemmule_session_free(session: *mut gemmule_session) {
    // SAFETY: the caller's promise.
    unsafe { border::free(session) }
}

/// A picture in memory that belongs to the caller; it is only read, and only during the call that takes it. YUV is of
/// ITU-R BT.601 with limited range; see gemmule_frame for others, and for planes that lie otherwise. This struct never changes.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct gemmule_image {
    /// The first row.
    pub data: *const u8,
    /// Bytes that may be read from `data` on.
    pub size: usize,
    /// Pixels of a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// Bytes from the beginning of one row to that of the next; 0 means that rows touch.
    pub row_step: usize,
    /// One of gemmule_pixel_format.
    pub format: u32,
}

/// Encodes the pictures that prompts are about from now on, which costs the same for one prompt and for many.
///
/// # Safety
/// `session` came from gemmule_session_new(); `images` points to `count` images, whose data can be read.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gemmule_session_show(
    session: *mut gemmule_session,
    images: *const gemmule_image,
    count: usize,
) -> gemmule_status {
    guard(|| {
        // SAFETY: the caller's promise about `session` and `images`.
        let (session, images) = unsafe { (border::handle_mut(session)?, border::slice(images, count)?) };
        let picture = |image: &gemmule_image| {
            // SAFETY: the caller's promise about the images' data.
            let data = unsafe { border::slice(image.data, image.size)? };
            let Some(format) = gemmule_pixel_format::of(image.format) else { return fail("unknown pixel format") };
            let row_step = if image.row_step == 0 { format.row_len(image.width).unwrap_or(0) } else { image.row_step };
            let shape = FrameShape::v4l2(format, Size::new(image.width, image.height), row_step);
            let Some(mut shape) = shape else { return fail("an image's size or row_step does not fit its format") };
            shape.colours.matrix = Matrix::Bt601;
            Ok(Frame::of(data, shape)?.to_picture())
        };
        show(session, images.iter().map(picture).collect::<Result<_, border::Failure>>()?)
    })
}

/// As gemmule_session_show(), from picture files (JPEG, PNG, WebP, GIF, BMP, TIFF).
///
/// # Safety
/// `session` came from gemmule_session_new(); `paths` points to `count` strings that end with a zero byte.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gemmule_session_show_files(
    session: *mut gemmule_session,
    paths: *const *const c_char,
    count: usize,
) -> gemmule_status {
    guard(|| {
        // SAFETY: the caller's promise about `session` and `paths`.
        let (session, paths) = unsafe { (border::handle_mut(session)?, strings(paths, count)?) };
        let pictures = paths.iter().map(Picture::open);
        show(session, pictures.collect::<gemmule::Result<_>>()?)
    })
}

fn show(session: &mut gemmule_session, pictures: Vec<Picture>) -> Result<(), border::Failure> {
    session.sizes.clear();
    session.session.show(&pictures)?;
    session.sizes = pictures.iter().map(|picture| Size::new(picture.width(), picture.height())).collect();
    Ok(())
}

/// As gemmule_session_show(), from features such as gemmule_session_features() gives: `count` numbers, a whole number of
/// images.
///
/// # Safety
/// `session` came from gemmule_session_new(); `features` points to `count` numbers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gemmule_session_show_features(
    session: *mut gemmule_session,
    features: *const f32,
    count: usize,
) -> gemmule_status {
    guard(|| {
        // SAFETY: the caller's promise.
        let (session, features) = unsafe { (border::handle_mut(session)?, border::slice(features, count)?) };
        session.session.show_features(features)?;
        session.sizes.clear();
        Ok(())
    })
}

/// The features of the pictures shown, `[images][tokens][hidden]`; they are the session's own and valid until its next show.
/// Any of the results may be NULL.
///
/// # Safety
/// `session` came from gemmule_session_new(); the results are NULL or places for them.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gemmule_session_features(
    session: *const gemmule_session,
    features: *mut *const f32,
    images: *mut usize,
    tokens: *mut usize,
    hidden: *mut usize,
) -> gemmule_status {
    guard(|| {
        // SAFETY: the caller's promise.
        let session = unsafe { border::handle(session)? };
        let (found, config) = (session.session.image_features(), session.model.config());
        let image = config.vision.tokens() * config.text.hidden;
        // SAFETY: the caller's promise.
        unsafe {
            border::set(features, found.as_ptr());
            border::set(images, found.len() / image);
            border::set(tokens, config.vision.tokens());
            border::set(hidden, config.text.hidden);
        }
        Ok(())
    })
}

/// Takes each piece of an answer's text as soon as it is certain: `length` bytes, no zero byte behind them. Returns whether to
/// go on.
pub type gemmule_on_text =
    Option<unsafe extern "C-unwind" fn(text: *const c_char, length: usize, user: *mut c_void) -> gemmule_bool>;

/// Answers a prompt about the pictures shown last. `options`, `on_text` and `user` may be NULL.
///
/// # Safety
/// `session` came from gemmule_session_new(); `prompt` ends with a zero byte; `options` is NULL or as
/// gemmule_generate_options_init() made it, its strings ending with a zero byte; `on_text` does not use the session;
/// `answer` points to a place for the result.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gemmule_session_ask(
    session: *mut gemmule_session,
    prompt: *const c_char,
    options: *const gemmule_generate_options,
    on_text: gemmule_on_text,
    user: *mut c_void,
    answer: *mut *mut gemmule_answer,
) -> gemmule_status {
    guard(|| {
        // SAFETY: the caller's promise about `answer`, `session` and `prompt`.
        let (answer, session, prompt) = unsafe { (out(answer)?, border::handle_mut(session)?, string(prompt)) };
        let Some(prompt) = prompt else { return fail("prompt is NULL") };
        // SAFETY: the caller's promise about `options`.
        let options = unsafe { request::generate_options(options)? };
        let mut stream = session.session.stream(prompt?, &options)?;
        for token in &mut stream {
            let text = token?.text;
            let Some(on_text) = on_text.filter(|_| !text.is_empty()) else { continue };
            // SAFETY: the caller's function takes what it was promised.
            if unsafe { on_text(text.as_ptr().cast(), text.len(), user) } == 0 {
                break;
            }
        }
        let made = stream.finish();
        let size = if let [size] = session.sizes[..] { Some(size) } else { None };
        let made = gemmule_answer::new(session.model.tokenizer()?, made, size)?;
        *answer = Box::into_raw(Box::new(made));
        Ok(())
    })
}

/// The mask of an object that an answer names, in the picture it was shown alone: for each pixel, row after row, a byte that is 1
/// where it belongs to the object and 0 elsewhere. `object` counts from 0; `size` is width times height, see
/// gemmule_answer_picture_size(). The model has to hold a mask decoder. A gemmule_cancel does not end this.
///
/// # Safety
/// `session` came from gemmule_session_new(), `answer` from gemmule_session_ask() with a session of the same model; `size` bytes can be
/// written to `pixels`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gemmule_session_mask(
    session: *mut gemmule_session,
    answer: *const gemmule_answer,
    object: usize,
    pixels: *mut u8,
    size: usize,
) -> gemmule_status {
    guard(|| {
        // SAFETY: the caller's promise about `session` and `answer`.
        let (session, answer) = unsafe { (border::handle_mut(session)?, border::handle(answer)?) };
        let Some(object) = answer.found.get(object) else { return fail("the answer names no such object") };
        let Some(Size { width, height }) = answer.size else { return fail("masks are of answers about one picture") };
        if object.segments.is_empty() {
            return fail("the answer has no mask of this object");
        }
        if pixels.is_null() || size != width as usize * height as usize {
            return fail(&format!("pixels is NULL, or {size} is not {width} times {height}"));
        }
        let values = session.session.decode_mask(&object.segments)?;
        let mask = Mask::paste(&values, &object.bounds, width, height);
        for (index, inside) in mask.pixels().iter().enumerate() {
            // SAFETY: the caller's promise about `pixels`; the mask has `size` of them.
            unsafe { pixels.add(index).write(u8::from(*inside)) };
        }
        Ok(())
    })
}

/// The probabilities of `count` given answers among each other, to a prompt about the pictures shown last.
///
/// # Safety
/// `session` came from gemmule_session_new(); `prompt` and the `count` choices end with a zero byte; `probabilities` has room
/// for `count` numbers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gemmule_session_score(
    session: *mut gemmule_session,
    prompt: *const c_char,
    choices: *const *const c_char,
    count: usize,
    probabilities: *mut f32,
) -> gemmule_status {
    guard(|| {
        // SAFETY: the caller's promise about `session`, `prompt` and `choices`.
        let (session, prompt, choices) =
            unsafe { (border::handle_mut(session)?, string(prompt), strings(choices, count)?) };
        let Some(prompt) = prompt else { return fail("prompt is NULL") };
        if probabilities.is_null() {
            return fail("probabilities is NULL");
        }
        for (index, choice) in session.session.score(prompt?, &choices)?.iter().enumerate() {
            // SAFETY: the caller's promise about `probabilities`; there are `count` choices.
            unsafe { probabilities.add(index).write(choice.probability) };
        }
        Ok(())
    })
}
