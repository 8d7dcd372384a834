//! Options. Each struct begins with its size as the caller knows it, and only grows at its end: programs that were built with another
//! version's header, older or newer, are understood.

use std::ffi::c_char;
use std::mem::offset_of;
use std::ptr::null;
use std::time::{Duration, Instant};

use gemmule::session::Constraint;
use gemmule::{GenerateOptions, SessionOptions};

use crate::border::{Failure, fail, string};
use crate::types::{gemmule_bool, gemmule_cancel};

/// How a session computes.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct gemmule_session_options {
    /// Bytes of the struct as the program knows it; gemmule_session_options_init() sets it.
    pub size: usize,
    /// Threads; 0 means one for each physical core that this process may use.
    pub threads: u32,
    /// Instruction set by name; NULL means the environment's GEMMULE_ISA, else the best.
    pub isa: *const c_char,
    /// Threads that generate tokens after the first; 0 means as many as threads.
    pub generation_threads: u32,
    /// What ends the session's work from another thread, or NULL; may be freed once the session is made.
    pub cancel: *const gemmule_cancel,
}

/// What to generate.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct gemmule_generate_options {
    /// Bytes of the struct as the program knows it; gemmule_generate_options_init() sets it.
    pub size: usize,
    /// Most tokens of an answer.
    pub max_tokens: u32,
    /// 0 takes the likeliest token each time; larger values vary the answer.
    pub temperature: f32,
    /// With a temperature: choose among so many of the likeliest tokens; 0 means all.
    pub top_k: u32,
    /// With a temperature: choose among the likeliest tokens of this total probability; 1 means all.
    pub top_p: f32,
    /// The same seed gives the same answer.
    pub seed: u64,
    /// A regular expression that the answer matches, or NULL.
    pub pattern: *const c_char,
    /// Whether the answer is a list of whole objects or nothing; not together with a pattern.
    pub objects_only: gemmule_bool,
    /// Stop after so many milliseconds from the call on, with what there is by then; 0 means no limit. The prompt is run in
    /// any case.
    pub time_limit: u32,
}

/// Bytes of the structs as the first header had them, whose programs call the functions without a size. They never change.
const FIRST_SESSION_OPTIONS: usize = offset_of!(gemmule_session_options, generation_threads);
const FIRST_GENERATE_OPTIONS: usize = offset_of!(gemmule_generate_options, objects_only) + align_of::<usize>();

// What was added later lies behind. On 64-bit machines the time limit lies in the padding that the first header's options for generation
// end with, which their init function has cleared.
const _: () = assert!(FIRST_SESSION_OPTIONS == 3 * size_of::<usize>());
const _: () =
    assert!(cfg!(target_pointer_width = "32") || FIRST_GENERATE_OPTIONS == size_of::<gemmule_generate_options>());

/// Sets the defaults in a struct of the first header's size, for programs that were built with it. The macro of this name calls
/// gemmule_session_options_init_sized().
///
/// # Safety
/// `options` is NULL or can be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gemmule_session_options_init(options: *mut gemmule_session_options) {
    // SAFETY: the caller's promise; the first header's struct is so large.
    unsafe { init(options, FIRST_SESSION_OPTIONS, session_defaults) }
}

/// Sets the defaults in a struct of `size` bytes. What this library does not know of a larger one becomes zero.
///
/// # Safety
/// `options` is NULL or `size` bytes can be written to it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gemmule_session_options_init_sized(options: *mut gemmule_session_options, size: usize) {
    // SAFETY: the caller's promise.
    unsafe { init(options, size, session_defaults) }
}

/// Sets the defaults, greedy and up to 256 tokens, in a struct of the first header's size, for programs that were built with it. The
/// macro of this name calls gemmule_generate_options_init_sized().
///
/// # Safety
/// `options` is NULL or can be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gemmule_generate_options_init(options: *mut gemmule_generate_options) {
    // SAFETY: the caller's promise; the first header's struct is so large.
    unsafe { init(options, FIRST_GENERATE_OPTIONS, generate_defaults) }
}

/// Sets the defaults, greedy and up to 256 tokens, in a struct of `size` bytes. What this library does not know of a larger one becomes
/// zero.
///
/// # Safety
/// `options` is NULL or `size` bytes can be written to it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gemmule_generate_options_init_sized(options: *mut gemmule_generate_options, size: usize) {
    // SAFETY: the caller's promise.
    unsafe { init(options, size, generate_defaults) }
}

fn session_defaults(size: usize) -> gemmule_session_options {
    gemmule_session_options { size, threads: 0, isa: null(), generation_threads: 0, cancel: null() }
}

fn generate_defaults(size: usize) -> gemmule_generate_options {
    gemmule_generate_options {
        size,
        max_tokens: 256,
        temperature: 0.0,
        top_k: 0,
        top_p: 1.0,
        seed: 0,
        pattern: null(),
        objects_only: 0,
        time_limit: 0,
    }
}

/// A struct of C that begins with its size, a `usize`, and may be read from and written to memory byte by byte.
///
/// # Safety
/// The struct is so, and every bit pattern that a program may have written is one of its values.
pub(crate) unsafe trait Growing: Copy {}

// SAFETY: integers and pointers only, the size first.
unsafe impl Growing for gemmule_session_options {}
// SAFETY: integers, floats and pointers only, the size first.
unsafe impl Growing for gemmule_generate_options {}

/// Writes defaults into a struct of `size` bytes.
///
/// # Safety
/// `options` is NULL or `size` bytes can be written to it.
pub(crate) unsafe fn init<T: Growing>(options: *mut T, size: usize, defaults: impl Fn(usize) -> T) {
    if options.is_null() {
        return;
    }
    let known = size.min(size_of::<T>());
    let defaults = defaults(size);
    // SAFETY: the caller's promise; no more is copied than the defaults have. What is larger is cleared.
    unsafe {
        options.cast::<u8>().write_bytes(0, size);
        options.cast::<u8>().copy_from_nonoverlapping((&raw const defaults).cast(), known);
    }
}

/// Options of any version; none for NULL. What an older program does not know keeps its default. What a newer one sets and this
/// library does not know is an error.
///
/// # Safety
/// `options` is NULL or points to a struct that begins with its size and is so large.
pub(crate) unsafe fn read<T: Growing>(
    options: *const T,
    first: usize,
    defaults: impl Fn(usize) -> T,
) -> Result<Option<T>, Failure> {
    /// No version's options are as large as this.
    const ABSURD: usize = 1 << 16;
    if options.is_null() {
        return Ok(None);
    }
    // SAFETY: every struct of options begins with a `usize`.
    let size = unsafe { options.cast::<usize>().read() };
    if !(first..=ABSURD).contains(&size) {
        return fail("options have an impossible size: set them with their init function");
    }
    let known = size.min(size_of::<T>());
    // SAFETY: the struct is as large as it says.
    let rest = unsafe { std::slice::from_raw_parts(options.cast::<u8>().add(known), size - known) };
    if rest.iter().any(|byte| *byte != 0) {
        return fail("options of a newer version are set, which this library does not know");
    }
    let mut read = defaults(size);
    // SAFETY: no more is copied than either has.
    unsafe { (&raw mut read).cast::<u8>().copy_from_nonoverlapping(options.cast(), known) };
    Ok(Some(read))
}

/// # Safety
/// `options` is NULL or as gemmule_session_options_init() made it; what it points to is there.
pub(crate) unsafe fn session_options(options: *const gemmule_session_options) -> Result<SessionOptions, Failure> {
    // SAFETY: the caller's promise.
    let Some(options) = (unsafe { read(options, FIRST_SESSION_OPTIONS, session_defaults)? }) else {
        return Ok(SessionOptions::default());
    };
    // SAFETY: the caller's promise.
    let isa = unsafe { string(options.isa) }.transpose()?;
    // SAFETY: the caller's promise.
    let cancel = unsafe { options.cancel.as_ref() }.map(|cancel| cancel.0.clone());
    let threads = |count: u32| Some(count as usize).filter(|threads| *threads > 0);
    Ok(SessionOptions::new()
        .threads(threads(options.threads))
        .generation_threads(threads(options.generation_threads))
        .isa(isa)
        .cancel(cancel.unwrap_or_default()))
}

/// # Safety
/// `options` is NULL or as gemmule_generate_options_init() made it.
pub(crate) unsafe fn generate_options(options: *const gemmule_generate_options) -> Result<GenerateOptions, Failure> {
    // SAFETY: the caller's promise.
    let options = unsafe { read(options, FIRST_GENERATE_OPTIONS, generate_defaults)? };
    let options = options.unwrap_or_else(|| generate_defaults(size_of::<gemmule_generate_options>()));
    // SAFETY: the caller's promise.
    let pattern = unsafe { string(options.pattern) }.transpose()?;
    let constraint = match (pattern, options.objects_only != 0) {
        (Some(_), true) => return fail("a pattern and objects_only exclude each other"),
        (Some(pattern), false) => Some(Constraint::Pattern(pattern.to_owned())),
        (None, true) => Some(Constraint::Objects),
        (None, false) => None,
    };
    let time_limit = (options.time_limit > 0).then(|| Duration::from_millis(u64::from(options.time_limit)));
    Ok(GenerateOptions::new()
        .max_tokens(options.max_tokens as usize)
        .temperature(options.temperature)
        .top_k(options.top_k as usize)
        .top_p(options.top_p)
        .seed(options.seed)
        .probabilities(true)
        .constraint(constraint)
        .deadline(time_limit.map(|limit| Instant::now() + limit)))
}
