//! Frames of cameras and films: planes of any layout, YUV of any meaning.

use gemmule::image::{Frame, FrameLayout, FrameShape, Matrix, PixelFormat, Range, Size};

use crate::border::{self, Failure, fail, guard};
use crate::request::{Growing, init, read};
use crate::types::{gemmule_pixel_format, gemmule_session, gemmule_status};

/// The standard whose matrix turns YUV into RGB.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub enum gemmule_matrix {
    /// ITU-R BT.601 up to 576 rows, BT.709 above.
    GEMMULE_MATRIX_OF_HEIGHT = 0,
    /// ITU-R BT.601.
    GEMMULE_BT601 = 1,
    /// ITU-R BT.709.
    GEMMULE_BT709 = 2,
    /// ITU-R BT.2020.
    GEMMULE_BT2020 = 3,
}

/// The range of the numbers of YUV and grey.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub enum gemmule_range {
    /// Limited for YUV, full for grey.
    GEMMULE_RANGE_OF_FORMAT = 0,
    /// Brightness from 16 to 235, colours from 16 to 240.
    GEMMULE_LIMITED = 1,
    /// All from 0 to 255.
    GEMMULE_FULL = 2,
}

/// A picture in memory that belongs to the caller; it is only read, and only during the call that takes it.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct gemmule_frame {
    /// Bytes of the struct as the program knows it; gemmule_frame_init() sets it, and zero everywhere else.
    pub size: usize,
    /// The first row.
    pub data: *const u8,
    /// Bytes that may be read from `data` on.
    pub bytes: usize,
    /// Pixels of a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// Bytes from the beginning of one row to that of the next, of the first plane where there are several; 0 means that rows touch.
    pub row_step: usize,
    /// The same of the planes of colours, which follow each other; 0 means in proportion to `row_step`, as Linux's cameras have it, or that
    /// rows touch where it is 0, too.
    pub chroma_step: usize,
    /// Rows of the first plane, which may be more than the picture's; 0 means as many.
    pub luma_rows: u32,
    /// One of gemmule_pixel_format.
    pub format: u32,
    /// One of gemmule_matrix.
    pub matrix: u32,
    /// One of gemmule_range.
    pub range: u32,
}

// SAFETY: integers and pointers only, the size first.
unsafe impl Growing for gemmule_frame {}

fn defaults(size: usize) -> gemmule_frame {
    gemmule_frame {
        size,
        data: std::ptr::null(),
        bytes: 0,
        width: 0,
        height: 0,
        row_step: 0,
        chroma_step: 0,
        luma_rows: 0,
        format: 0,
        matrix: 0,
        range: 0,
    }
}

/// Clears a struct of `size` bytes but for its size. The macro gemmule_frame_init() calls it.
///
/// # Safety
/// `frame` is NULL or `size` bytes can be written to it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gemmule_frame_init_sized(frame: *mut gemmule_frame, size: usize) {
    // SAFETY: the caller's promise.
    unsafe { init(frame, size, defaults) }
}

/// As gemmule_session_show(), from frames. All have the size that the first one says.
///
/// # Safety
/// `session` came from gemmule_session_new(); `frames` points to `count` frames as gemmule_frame_init() made them, whose data can be read.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gemmule_session_show_frames(
    session: *mut gemmule_session,
    frames: *const gemmule_frame,
    count: usize,
) -> gemmule_status {
    guard(|| {
        // SAFETY: the caller's promise.
        let session = unsafe { border::handle_mut(session)? };
        if count > 0 && (frames.is_null() || !frames.is_aligned()) {
            return fail("an array is NULL, misaligned or impossibly long");
        }
        let mut pictures = Vec::new();
        let mut step = 0_usize;
        for index in 0..count {
            let Some(offset) = step.checked_mul(index) else { return fail("an array is impossibly long") };
            // SAFETY: the caller's promise: the array has so many structs of the first one's size.
            let place = unsafe { frames.byte_add(offset) };
            // SAFETY: as the line above.
            let Some(frame) = (unsafe { read(place, size_of::<gemmule_frame>(), defaults)? }) else {
                return fail("a frame is NULL");
            };
            if index > 0 && frame.size != step {
                return fail("frames have several sizes: set all with gemmule_frame_init()");
            }
            step = frame.size;
            if !step.is_multiple_of(align_of::<gemmule_frame>()) {
                return fail("frames have an impossible size: set them with gemmule_frame_init()");
            }
            // SAFETY: the caller's promise about the frames' data.
            let data = unsafe { border::slice(frame.data, frame.bytes)? };
            pictures.push(Frame::of(data, shape(&frame)?)?.to_picture());
        }
        crate::show(session, pictures)
    })
}

fn shape(frame: &gemmule_frame) -> Result<FrameShape, Failure> {
    let Some(format) = gemmule_pixel_format::of(frame.format) else { return fail("unknown pixel format") };
    let size = Size::new(frame.width, frame.height);
    let shape = match (frame.row_step, frame.chroma_step) {
        (0, _) => FrameShape::tight(format, size),
        (row_step, 0) => FrameShape::v4l2(format, size, row_step),
        (row_step, _) => FrameShape::tight(format, size)
            .map(|shape| FrameShape { layout: FrameLayout { row_step, ..shape.layout }, ..shape }),
    };
    let Some(mut shape) = shape else { return fail("a frame's size or steps do not fit its format") };
    if frame.chroma_step > 0 && is_planar(format) {
        shape.layout.chroma_step = frame.chroma_step;
    }
    if frame.luma_rows > 0 {
        shape.layout.luma_rows = frame.luma_rows as usize;
    }
    shape.colours.matrix = match frame.matrix {
        0 => shape.colours.matrix,
        1 => Matrix::Bt601,
        2 => Matrix::Bt709,
        3 => Matrix::Bt2020,
        _ => return fail("unknown matrix"),
    };
    shape.colours.range = match frame.range {
        0 => shape.colours.range,
        1 => Range::Limited,
        2 => Range::Full,
        _ => return fail("unknown range"),
    };
    Ok(shape)
}

fn is_planar(format: PixelFormat) -> bool {
    matches!(format, PixelFormat::Nv12 | PixelFormat::I420 | PixelFormat::I422 | PixelFormat::I444)
}
