//! Options. Each struct begins with its size as the caller knows it: a program that was built with another version's header
//! gets an error, not other options.

use std::ffi::c_char;
use std::time::{Duration, Instant};

use gemmule::session::{Constraint, Sampling};
use gemmule::{GenerateOptions, SessionOptions};

use crate::border::{Failure, fail, string};
use crate::gemmule_cancel;

/// How a session computes.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct gemmule_session_options {
    /// sizeof(gemmule_session_options); gemmule_session_options_init() sets it.
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
    /// sizeof(gemmule_generate_options); gemmule_generate_options_init() sets it.
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
    pub objects_only: bool,
    /// Stop after so many milliseconds from the call on, with what there is by then; 0 means no limit. The prompt is run in
    /// any case.
    pub time_limit: u32,
}

/// Sets the defaults.
///
/// # Safety
/// `options` is NULL or can be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gemmule_session_options_init(options: *mut gemmule_session_options) {
    let defaults = gemmule_session_options {
        size: size_of::<gemmule_session_options>(),
        threads: 0,
        isa: std::ptr::null(),
        generation_threads: 0,
        cancel: std::ptr::null(),
    };
    // SAFETY: the caller's promise.
    unsafe { crate::border::set(options, defaults) }
}

/// Sets the defaults: greedy, up to 256 tokens.
///
/// # Safety
/// `options` is NULL or can be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gemmule_generate_options_init(options: *mut gemmule_generate_options) {
    // SAFETY: the caller's promise.
    unsafe { crate::border::set(options, generate_defaults()) }
}

fn generate_defaults() -> gemmule_generate_options {
    gemmule_generate_options {
        size: size_of::<gemmule_generate_options>(),
        max_tokens: 256,
        temperature: 0.0,
        top_k: 0,
        top_p: 1.0,
        seed: 0,
        pattern: std::ptr::null(),
        objects_only: false,
        time_limit: 0,
    }
}

/// Options whose size is ours; none for NULL.
///
/// # Safety
/// `options` is NULL or points to a struct that begins with its size.
unsafe fn read<T: Copy>(options: *const T) -> Result<Option<T>, Failure> {
    if options.is_null() {
        return Ok(None);
    }
    // SAFETY: every struct of options begins with a `usize`.
    if unsafe { options.cast::<usize>().read() } != size_of::<T>() {
        return fail("options have another size than this version's: set them with their init function");
    }
    // SAFETY: it is as large as it says.
    Ok(Some(unsafe { options.read() }))
}

/// # Safety
/// `options` is NULL or as gemmule_session_options_init() made it; what it points to is there.
pub(crate) unsafe fn session_options(options: *const gemmule_session_options) -> Result<SessionOptions, Failure> {
    // SAFETY: the caller's promise.
    let Some(options) = (unsafe { read(options)? }) else { return Ok(SessionOptions::default()) };
    // SAFETY: the caller's promise.
    let isa = unsafe { string(options.isa) }.transpose()?.map(str::to_owned);
    // SAFETY: the caller's promise.
    let cancel = unsafe { options.cancel.as_ref() }.map(|cancel| cancel.0.clone());
    let threads = |count: u32| Some(count as usize).filter(|threads| *threads > 0);
    Ok(SessionOptions {
        threads: threads(options.threads),
        generation_threads: threads(options.generation_threads),
        isa,
        cancel: cancel.unwrap_or_default(),
    })
}

/// # Safety
/// `options` is NULL or as gemmule_generate_options_init() made it.
pub(crate) unsafe fn generate_options(options: *const gemmule_generate_options) -> Result<GenerateOptions, Failure> {
    // SAFETY: the caller's promise.
    let options = unsafe { read(options)? }.unwrap_or_else(generate_defaults);
    // SAFETY: the caller's promise.
    let pattern = unsafe { string(options.pattern) }.transpose()?;
    let constraint = match (pattern, options.objects_only) {
        (Some(_), true) => return fail("a pattern and objects_only exclude each other"),
        (Some(pattern), false) => Some(Constraint::Pattern(pattern.to_owned())),
        (None, true) => Some(Constraint::Objects),
        (None, false) => None,
    };
    Ok(GenerateOptions {
        max_tokens: options.max_tokens as usize,
        sampling: Sampling {
            temperature: options.temperature,
            top_k: options.top_k as usize,
            top_p: options.top_p,
            seed: options.seed,
        },
        probabilities: true,
        constraint,
        deadline: (options.time_limit > 0)
            .then(|| Instant::now() + Duration::from_millis(u64::from(options.time_limit))),
        ..GenerateOptions::default()
    })
}
