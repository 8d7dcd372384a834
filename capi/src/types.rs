//! Handles, and values that several functions take or give.

use gemmule::image::{PixelFormat, Size};
use gemmule::{CancelHandle, Model, Session};

/// C's bool; other values than 0 and 1 count as 1.
pub type gemmule_bool = u8;

/// An opened model.
pub struct gemmule_model(pub(crate) Model);

/// The memory and threads of one generation at a time.
pub struct gemmule_session {
    pub(crate) session: Session,
    pub(crate) model: Model,
    /// Pictures' sizes, for boxes in pixels.
    pub(crate) sizes: Vec<Size>,
}

/// What a function did.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum gemmule_status {
    /// It succeeded.
    GEMMULE_OK = 0,
    /// It failed: a file, a request or the machine; see gemmule_last_error().
    GEMMULE_FAILED = 1,
    /// An argument is NULL, too large, no UTF-8 or otherwise impossible.
    GEMMULE_INVALID_ARGUMENT = 2,
    /// A mistake within the library; the objects involved should be freed.
    GEMMULE_INTERNAL = 3,
    /// A gemmule_cancel ended it before it had a result.
    GEMMULE_CANCELLED = 4,
}

/// Ends what sessions compute, from any thread; see gemmule_session_options.
pub struct gemmule_cancel(pub(crate) CancelHandle);

/// How an image's bytes stand for pixels.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum gemmule_pixel_format {
    /// Red, green, blue.
    GEMMULE_RGB8 = 0,
    /// Blue, green, red: OpenCV's order.
    GEMMULE_BGR8 = 1,
    /// Red, green, blue and an opacity, which is ignored.
    GEMMULE_RGBA8 = 2,
    /// Blue, green, red and an opacity, which is ignored.
    GEMMULE_BGRA8 = 3,
    /// Grey.
    GEMMULE_MONO8 = 4,
    /// YUV of ITU-R BT.601, two pixels in four bytes: Y, U, Y, V.
    GEMMULE_YUYV = 5,
    /// The same as U, Y, V, Y.
    GEMMULE_UYVY = 6,
    /// A plane of Y, then one of U and V by turns at half the size, its rows as far apart.
    GEMMULE_NV12 = 7,
    /// A plane of Y, then one of U and one of V at half the size, their rows half as far apart.
    GEMMULE_I420 = 8,
    /// A plane of Y, then one of U and one of V at half the width.
    GEMMULE_I422 = 9,
    /// Planes of Y, U and V.
    GEMMULE_I444 = 10,
}

impl gemmule_pixel_format {
    /// The library's format of a number.
    pub(crate) fn of(number: u32) -> Option<PixelFormat> {
        use PixelFormat as Format;
        const FORMATS: [(gemmule_pixel_format, Format); PixelFormat::NAMES.len()] = [
            (gemmule_pixel_format::GEMMULE_RGB8, Format::Rgb8),
            (gemmule_pixel_format::GEMMULE_BGR8, Format::Bgr8),
            (gemmule_pixel_format::GEMMULE_RGBA8, Format::Rgba8),
            (gemmule_pixel_format::GEMMULE_BGRA8, Format::Bgra8),
            (gemmule_pixel_format::GEMMULE_MONO8, Format::Mono8),
            (gemmule_pixel_format::GEMMULE_YUYV, Format::Yuyv),
            (gemmule_pixel_format::GEMMULE_UYVY, Format::Uyvy),
            (gemmule_pixel_format::GEMMULE_NV12, Format::Nv12),
            (gemmule_pixel_format::GEMMULE_I420, Format::I420),
            (gemmule_pixel_format::GEMMULE_I422, Format::I422),
            (gemmule_pixel_format::GEMMULE_I444, Format::I444),
        ];
        FORMATS.into_iter().find(|(own, _)| *own as u32 == number).map(|(_, format)| format)
    }
}
