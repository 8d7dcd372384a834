//! What crosses the border: pointers checked, panics caught, errors remembered.

use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::types::gemmule_status::{
    self, GEMMULE_CANCELLED, GEMMULE_FAILED, GEMMULE_INTERNAL, GEMMULE_INVALID_ARGUMENT, GEMMULE_OK,
};

thread_local! {
    static LAST_ERROR: RefCell<CString> = RefCell::default();
}

/// A status other than success, and why.
pub(crate) struct Failure(gemmule_status, String);

impl From<gemmule::Error> for Failure {
    fn from(error: gemmule::Error) -> Self {
        let status = if matches!(error, gemmule::Error::Cancelled) { GEMMULE_CANCELLED } else { GEMMULE_FAILED };
        Self(status, error.to_string())
    }
}

/// An argument that cannot be.
pub(crate) fn fail<T>(reason: &str) -> Result<T, Failure> {
    Err(Failure(GEMMULE_INVALID_ARGUMENT, reason.to_owned()))
}

/// Runs a function's body; its failure or panic becomes a status and the last error.
pub(crate) fn guard(body: impl FnOnce() -> Result<(), Failure>) -> gemmule_status {
    // What a panic leaves half done is only ever freed.
    let result = catch_unwind(AssertUnwindSafe(body));
    let (status, reason) = match result {
        Ok(Ok(())) => return GEMMULE_OK,
        Ok(Err(Failure(status, reason))) => (status, reason),
        Err(_) => (GEMMULE_INTERNAL, "a mistake within the library; please report it".to_owned()),
    };
    let text = CString::new(reason.replace('\0', " ")).unwrap_or_default();
    LAST_ERROR.with_borrow_mut(|last| *last = text);
    status
}

pub(crate) fn last_error() -> *const c_char {
    LAST_ERROR.with_borrow(|last| last.as_ptr())
}

/// A place for a result, set to NULL until there is one.
///
/// # Safety
/// `place` is NULL or can be written to.
pub(crate) unsafe fn out<'a, T>(place: *mut *mut T) -> Result<&'a mut *mut T, Failure> {
    // SAFETY: the caller's promise.
    let Some(place) = (unsafe { place.as_mut() }) else { return fail("the place for the result is NULL") };
    *place = std::ptr::null_mut();
    Ok(place)
}

/// # Safety
/// `handle` is NULL or points to a `T` that nobody changes meanwhile.
pub(crate) unsafe fn handle<'a, T>(handle: *const T) -> Result<&'a T, Failure> {
    // SAFETY: the caller's promise.
    unsafe { handle.as_ref() }.map_or_else(|| fail("a handle is NULL"), Ok)
}

/// # Safety
/// `handle` is NULL or points to a `T` that nobody else uses meanwhile.
pub(crate) unsafe fn handle_mut<'a, T>(handle: *mut T) -> Result<&'a mut T, Failure> {
    // SAFETY: the caller's promise.
    unsafe { handle.as_mut() }.map_or_else(|| fail("a handle is NULL"), Ok)
}

/// # Safety
/// `handle` is NULL or came from `Box::into_raw` and is not used any more.
pub(crate) unsafe fn free<T>(handle: *mut T) {
    if !handle.is_null() {
        // SAFETY: the caller's promise. Dropping does not panic; if it did, the process would end here, not unwind.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(unsafe { Box::from_raw(handle) })));
    }
}

/// # Safety
/// `place` is NULL or can be written to.
pub(crate) unsafe fn set<T>(place: *mut T, value: T) {
    if !place.is_null() {
        // SAFETY: the caller's promise.
        unsafe { place.write(value) };
    }
}

/// A string; none for NULL.
///
/// # Safety
/// `text` is NULL or ends with a zero byte.
pub(crate) unsafe fn string<'a>(text: *const c_char) -> Option<Result<&'a str, Failure>> {
    // SAFETY: the caller's promise.
    let text = (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) })?;
    Some(text.to_str().or_else(|_| fail("a string is not UTF-8")))
}

/// # Safety
/// `texts` is NULL or points to `count` strings that end with a zero byte.
pub(crate) unsafe fn strings<'a>(texts: *const *const c_char, count: usize) -> Result<Vec<&'a str>, Failure> {
    // SAFETY: the caller's promise.
    let texts = unsafe { slice(texts, count)? };
    // SAFETY: the caller's promise.
    texts.iter().map(|text| unsafe { string(*text) }.unwrap_or_else(|| fail("a string is NULL"))).collect()
}

/// # Safety
/// `data` is NULL or points to `count` values that nobody changes meanwhile.
pub(crate) unsafe fn slice<'a, T>(data: *const T, count: usize) -> Result<&'a [T], Failure> {
    if count == 0 {
        return Ok(&[]);
    }
    if data.is_null() || !data.is_aligned() || count > isize::MAX as usize / size_of::<T>() {
        return fail("an array is NULL, misaligned or impossibly long");
    }
    // SAFETY: the caller's promise; not NULL, aligned and not too long.
    Ok(unsafe { std::slice::from_raw_parts(data, count) })
}
