//! Frames from a Linux camera (Video4Linux 2), whose pictures have one plane and whose buffers can be mapped.

mod video4linux;

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use memmap2::{MmapOptions, MmapRaw};
use nix::errno::Errno;
use nix::libc::{self, c_int};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use self::video4linux as kernel;
use super::stream::{Kind, frame_len};
use super::{Colours, FrameShape, Matrix, PixelFormat, Range, Size, StreamFrame};
use crate::{Error, Result};

/// The formats that a camera may be asked for, by the kernel's names, best first: raw pixels before JPEG, which is lossy, and colour
/// before grey.
const CODES: [(&[u8; 4], Option<PixelFormat>); 11] = [
    (b"YUYV", Some(PixelFormat::Yuyv)),
    (b"UYVY", Some(PixelFormat::Uyvy)),
    (b"NV12", Some(PixelFormat::Nv12)),
    (b"YU12", Some(PixelFormat::I420)),
    (b"RGB3", Some(PixelFormat::Rgb8)),
    (b"BGR3", Some(PixelFormat::Bgr8)),
    (b"AB24", Some(PixelFormat::Rgba8)),
    (b"AR24", Some(PixelFormat::Bgra8)),
    (b"MJPG", None),
    (b"JPEG", None),
    (b"GREY", Some(PixelFormat::Mono8)),
];

/// Buffers that the driver fills in turn.
const BUFFERS: u32 = 4;

/// What a camera is asked for; what is left open stays as the camera has it.
#[derive(Clone, Copy, Debug, Default)]
pub struct CameraOptions {
    format: Option<CameraFormat>,
    size: Option<Size>,
}

impl CameraOptions {
    /// As the camera has it.
    pub fn new() -> Self {
        Self::default()
    }

    /// How pixels come. By default the first of yuyv, uyvy, nv12, i420, rgb8, bgr8, rgba8, bgra8, JPEG and mono8 that the camera has in
    /// the size wanted and, for YUV, with known colours.
    #[must_use]
    pub fn format(mut self, format: impl Into<Option<CameraFormat>>) -> Self {
        self.format = format.into();
        self
    }

    /// Width and height in pixels.
    #[must_use]
    pub fn size(mut self, size: impl Into<Option<Size>>) -> Self {
        self.size = size.into();
        self
    }
}

/// How a camera's pixels come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CameraFormat {
    /// As they are.
    Raw(PixelFormat),
    /// As JPEG pictures.
    Jpeg,
}

impl CameraFormat {
    fn of(code: u32) -> Option<Self> {
        let row = CODES.iter().find(|(name, _)| u32::from_le_bytes(**name) == code)?;
        Some(row.1.map_or(Self::Jpeg, Self::Raw))
    }

    fn name(self) -> &'static str {
        let raw = |format| PixelFormat::NAMES.iter().find(|row| row.1 == format).map_or("raw", |row| row.0);
        match self {
            Self::Raw(format) => raw(format),
            Self::Jpeg => "mjpeg",
        }
    }
}

/// A camera that sends frames.
#[derive(Debug)]
pub struct Camera {
    path: PathBuf,
    file: File,
    name: String,
    kind: Kind,
    size: Size,
    buffers: Vec<MmapRaw>,
    frames: u64,
}

/// A call on the device, again for as long as a signal interrupts it.
macro_rules! call {
    ($file:expr, $name:ident, $argument:expr) => {{
        let (descriptor, argument) = ($file.as_raw_fd(), $argument);
        loop {
            // SAFETY: the structure is the one that this call reads and writes, as its size in the call's number says, and
            // outlives the call. The kernel writes nowhere else: buffers are its own, and mapped for reading only.
            match unsafe { kernel::$name(descriptor, argument) } {
                Err(Errno::EINTR) => {}
                other => break other.map(|_| ()),
            }
        }
    }};
}

impl Camera {
    /// Whether a path is a Video4Linux device.
    pub fn is_one(path: impl AsRef<Path>) -> bool {
        let path = path.as_ref();
        std::fs::metadata(path).is_ok_and(|metadata| {
            metadata.file_type().is_char_device() && libc::major(metadata.rdev()) as u64 == kernel::MAJOR
        })
    }

    /// Opens a camera and lets it begin.
    ///
    /// # Errors
    /// When it cannot be opened, is no camera that frames can be read from, is in use, or lacks the format or size asked for.
    pub fn open(path: impl AsRef<Path>, options: &CameraOptions) -> Result<Self> {
        let path = path.as_ref();
        let file = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(path);
        let file = file.map_err(|error| failed(path, error))?;
        let name = check(path, &file)?;
        let (layout, kind) = choose(path, &file, options)?;
        let size = Size::new(layout.width, layout.height);
        let mut camera = Self { path: path.to_owned(), file, name, kind, size, buffers: Vec::new(), frames: 0 };
        camera.begin().map_err(|error| failed(path, error))?;
        Ok(camera)
    }

    /// What it calls itself, how its pixels come and how many.
    pub fn description(&self) -> String {
        let format = match self.kind {
            Kind::Mjpeg => CameraFormat::Jpeg,
            Kind::Raw { shape, .. } => CameraFormat::Raw(shape.format),
        };
        format!("{}, {} pixels as {}", self.name, self.size, format.name())
    }

    /// The next frame, not decoded yet; none where no usable one comes within `timeout`. Skips frames that the driver marks as damaged,
    /// and frames that should be JPEG and are not (the first ones of some cameras).
    ///
    /// # Errors
    /// When the camera is gone or fails; nothing more can be read then.
    pub fn next_frame(&mut self, timeout: Duration) -> Result<Option<StreamFrame>> {
        let frame =
            self.wait_for_frame(Instant::now().checked_add(timeout)).map_err(|error| failed(&self.path, error))?;
        Ok(frame.map(|bytes| {
            self.frames += 1;
            StreamFrame { bytes, kind: self.kind, number: self.frames - 1 }
        }))
    }

    fn wait_for_frame(&self, end: Option<Instant>) -> io::Result<Option<Vec<u8>>> {
        loop {
            let left = end.map_or(Duration::MAX, |end| end.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                return Ok(None);
            }
            let mut buffer = kernel::Buffer { kind: kernel::CAPTURE, memory: kernel::MAPPED, ..Default::default() };
            match call!(self.file, dequeue_buffer, &mut buffer) {
                Ok(()) => {
                    let bytes = self.copy(&buffer)?;
                    self.queue(buffer.index)?;
                    let is_picture = !matches!(self.kind, Kind::Mjpeg) || bytes.starts_with(&[0xff, 0xd8]);
                    if buffer.flags & kernel::DAMAGED == 0 && is_picture {
                        return Ok(Some(bytes));
                    }
                }
                Err(Errno::EAGAIN) => {
                    let mut files = [PollFd::new(self.file.as_fd(), PollFlags::POLLIN)];
                    match poll(&mut files, PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)) {
                        Ok(_) | Err(Errno::EINTR) => {}
                        Err(error) => return Err(error.into()),
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn copy(&self, buffer: &kernel::Buffer) -> io::Result<Vec<u8>> {
        let map = self.buffers.get(buffer.index as usize).ok_or(Errno::EIO)?;
        let len = map.len().min(buffer.used as usize);
        let mut bytes = vec![0; len];
        // SAFETY: the map has `len` bytes. No reference to them is made: a driver that writes a buffer while it is read mixes two
        // pictures, no more.
        unsafe { std::ptr::copy_nonoverlapping(map.as_ptr(), bytes.as_mut_ptr(), len) };
        Ok(bytes)
    }

    fn queue(&self, index: u32) -> io::Result<()> {
        let mut buffer = kernel::Buffer { index, kind: kernel::CAPTURE, memory: kernel::MAPPED, ..Default::default() };
        Ok(call!(self.file, queue_buffer, &mut buffer)?)
    }

    fn request_buffers(&self, count: u32) -> io::Result<u32> {
        let (kind, memory) = (kernel::CAPTURE, kernel::MAPPED);
        let mut request = kernel::BufferRequest { count, kind, memory, ..Default::default() };
        call!(self.file, request_buffers, &mut request)?;
        Ok(request.count)
    }

    fn begin(&mut self) -> io::Result<()> {
        for index in 0..self.request_buffers(BUFFERS)? {
            let (kind, memory) = (kernel::CAPTURE, kernel::MAPPED);
            let mut buffer = kernel::Buffer { index, kind, memory, ..Default::default() };
            call!(self.file, query_buffer, &mut buffer)?;
            let (offset, len) = (buffer.offset.into(), buffer.len as usize);
            self.buffers.push(MmapOptions::new().offset(offset).len(len).map_raw_read_only(&self.file)?);
            self.queue(index)?;
        }
        if self.buffers.is_empty() {
            return Err(io::Error::other("the driver has no memory for pictures"));
        }
        let kind = kernel::CAPTURE as c_int;
        Ok(call!(self.file, start, &kind)?)
    }
}

impl Drop for Camera {
    fn drop(&mut self) {
        // Each of them fails where the camera is gone; then there is nothing to give back.
        let kind = kernel::CAPTURE as c_int;
        let _ = call!(self.file, stop, &kind);
        self.buffers.clear();
        let _ = self.request_buffers(0);
    }
}

/// What went wrong, and what to do about it.
fn failed(path: &Path, error: io::Error) -> Error {
    let advice = match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EACCES) => "may not be opened: add the user to the group 'video' and log in again",
        Some(Errno::EBUSY) => "another program uses the camera: end it first",
        Some(Errno::ENODEV | Errno::ENXIO) => "the camera is gone",
        Some(Errno::ENOSPC) => "the USB bus has not enough room left: choose a smaller size or mjpeg",
        Some(Errno::EIO | Errno::EPROTO | Errno::ETIMEDOUT) => "the camera fails: plug it in again",
        _ => return Error::io(path, error),
    };
    Error::io(path, io::Error::new(error.kind(), format!("{advice} ({error})")))
}

fn unusable(path: &Path, reason: impl Into<String>) -> Error {
    Error::io(path, io::Error::new(io::ErrorKind::Unsupported, reason.into()))
}

/// The camera's name, if frames can be read from it.
fn check(path: &Path, file: &File) -> Result<String> {
    let mut found = kernel::Capabilities::default();
    match call!(file, capabilities, &mut found) {
        Err(Errno::ENOTTY | Errno::EINVAL) => return Err(unusable(path, "it is no camera: name another device")),
        other => other.map_err(|error| failed(path, error.into()))?,
    }
    let of_node = found.of_device & kernel::capability::OF_THIS_NODE != 0;
    let can = if of_node { found.of_node } else { found.of_device };
    let name = String::from_utf8_lossy(&found.card).trim_end_matches('\0').to_owned();
    let has = |capability: u32| can & capability != 0;
    if has(kernel::capability::CAPTURE) && has(kernel::capability::STREAMING) {
        return Ok(name);
    }
    let through = "let ffmpeg or GStreamer read it, see docs/watch.md";
    Err(unusable(
        path,
        if has(kernel::capability::CAPTURE_PLANES) {
            format!("{name} sends the planes of a picture apart, which is not supported: {through}")
        } else if has(kernel::capability::METADATA) {
            format!("this device of {name} has no pictures: name the one before it, such as /dev/video0")
        } else if has(kernel::capability::CAPTURE) {
            format!("{name} does not map its buffers, which is not supported: {through}")
        } else {
            format!("{name} takes no pictures: name another device")
        },
    ))
}

/// The formats that the camera has and that are known here, best first.
fn known_formats(path: &Path, file: &File) -> Result<Vec<u32>> {
    let mut has = Vec::new();
    // More than any camera has: a driver that never ends must not keep us.
    for index in 0..1024 {
        let mut description = kernel::FormatDescription { index, kind: kernel::CAPTURE, ..Default::default() };
        match call!(file, describe_format, &mut description) {
            Err(Errno::EINVAL) => break,
            other => other.map_err(|error| failed(path, error.into()))?,
        }
        has.push(description.code);
    }
    let codes = CODES.iter().map(|(name, _)| u32::from_le_bytes(**name));
    let known: Vec<u32> = codes.filter(|code| has.contains(code)).collect();
    if known.is_empty() {
        let names: Vec<String> = has.iter().map(|code| code_name(*code)).collect();
        return Err(unusable(path, format!("none of its formats is supported: {}", names.join(", "))));
    }
    Ok(known)
}

fn code_name(code: u32) -> String {
    String::from_utf8_lossy(&code.to_le_bytes()).trim_end().to_owned()
}

/// Sets the best format that fits the options.
fn choose(path: &Path, file: &File, options: &CameraOptions) -> Result<(kernel::PixelLayout, Kind)> {
    let known = known_formats(path, file)?;
    let wanted = |code: &&u32| options.format.is_none_or(|format| CameraFormat::of(**code) == Some(format));
    let is_set = current_layout(path, file)?;
    let size = options.size.unwrap_or(Size::new(is_set.width, is_set.height));
    let mut first = None;
    for code in known.iter().filter(wanted) {
        match set_layout(path, file, *code, size).and_then(|layout| Ok((layout, stream_kind(path, &layout)?))) {
            Ok(found) => return Ok(found),
            Err(error) => first = first.or(Some(error)),
        }
    }
    Err(first.unwrap_or_else(|| {
        let names: Vec<&str> =
            known.iter().filter_map(|code| CameraFormat::of(*code)).map(CameraFormat::name).collect();
        let asked = options.format.map_or("any", CameraFormat::name);
        unusable(path, format!("the camera has no {asked}, only {}", names.join(", ")))
    }))
}

fn current_layout(path: &Path, file: &File) -> Result<kernel::PixelLayout> {
    let mut format = kernel::Format { kind: kernel::CAPTURE, ..Default::default() };
    call!(file, get_format, &mut format).map_err(|error| failed(path, error.into()))?;
    Ok(format.layout)
}

/// Sets a layout; an error where the camera takes another one instead.
fn set_layout(path: &Path, file: &File, code: u32, size: Size) -> Result<kernel::PixelLayout> {
    let (field, extended) = (kernel::field::NONE, kernel::EXTENDED);
    let layout =
        kernel::PixelLayout { width: size.width, height: size.height, code, field, extended, ..Default::default() };
    let mut format = kernel::Format { kind: kernel::CAPTURE, layout, ..Default::default() };
    match call!(file, set_format, &mut format) {
        // What another program feeds cannot be changed; it may be right as it is.
        Ok(()) | Err(Errno::EINVAL) => {}
        other => other.map_err(|error| failed(path, error.into()))?,
    }
    let set = current_layout(path, file)?;
    if set.code != code || Size::new(set.width, set.height) != size {
        let is = CameraFormat::of(set.code).map_or_else(|| code_name(set.code), |format| format.name().to_owned());
        let reason = format!(
            "the camera would send {} × {} pixels as {is}: choose that, or another size (`v4l2-ctl --list-formats-ext` shows \
             them)",
            set.width, set.height
        );
        return Err(unusable(path, reason));
    }
    // Other fields are half pictures, or two of them one below the other.
    if !kernel::field::WHOLE.contains(&set.field) {
        return Err(unusable(path, "the camera sends fields, not whole pictures: choose another size or format"));
    }
    Ok(set)
}

/// How frames of this layout lie in memory; an error where their colours are not known.
fn stream_kind(path: &Path, layout: &kernel::PixelLayout) -> Result<Kind> {
    let Some(CameraFormat::Raw(format)) = CameraFormat::of(layout.code) else { return Ok(Kind::Mjpeg) };
    let size = Size::new(layout.width, layout.height);
    let shape = match layout.row_step {
        0 => FrameShape::tight(format, size),
        row_step => FrameShape::v4l2(format, size, row_step as usize),
    };
    let Some(mut shape) = shape.filter(|shape| frame_len(shape).is_some()) else {
        let row_step = layout.row_step;
        let reason = format!("frames of {size} pixels, rows {row_step} bytes apart, are not supported");
        return Err(unusable(path, reason));
    };
    if format.is_yuv() {
        let Some(colours) = colours(layout) else {
            return Err(unusable(
                path,
                "the camera's colours are none of ITU-R BT.601, BT.709 and BT.2020: choose rgb8 or mjpeg if it has them, or let \
                 ffmpeg read it, see docs/watch.md",
            ));
        };
        shape.colours = colours;
    }
    Ok(Kind::Raw { shape, announced: false })
}

/// The matrix and the range of the camera's YUV. What it leaves open follows from the colour space (`V4L2_MAP_YCBCR_ENC_DEFAULT`,
/// `V4L2_MAP_QUANTIZATION_DEFAULT`); none for those that are not known.
fn colours(layout: &kernel::PixelLayout) -> Option<Colours> {
    use kernel::colour::*;
    let matrix = match layout.colour_encoding {
        ENCODING_DEFAULT => match layout.colour_space {
            SPACE_SMPTE240M => return None,
            SPACE_REC709 | SPACE_DCI_P3 => Matrix::Bt709,
            SPACE_BT2020 => Matrix::Bt2020,
            _ => Matrix::Bt601,
        },
        ENCODING_601 => Matrix::Bt601,
        ENCODING_709 => Matrix::Bt709,
        ENCODING_2020 => Matrix::Bt2020,
        _ => return None,
    };
    let range = match layout.colour_range {
        RANGE_DEFAULT if layout.colour_space == SPACE_JPEG => Range::Full,
        RANGE_DEFAULT | RANGE_LIMITED => Range::Limited,
        RANGE_FULL => Range::Full,
        _ => return None,
    };
    Some(Colours { matrix, range })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_those_that_the_camera_tells() {
        use kernel::colour::*;
        use {Matrix::*, Range::*};
        const SPACE_SRGB: u32 = 8;
        let some = |matrix, range| Some(Colours { matrix, range });
        for (space, encoding, range, expected) in [
            (SPACE_SRGB, ENCODING_DEFAULT, RANGE_DEFAULT, some(Bt601, Limited)),
            (0, ENCODING_DEFAULT, RANGE_DEFAULT, some(Bt601, Limited)),
            (SPACE_REC709, ENCODING_601, RANGE_LIMITED, some(Bt601, Limited)),
            (SPACE_REC709, ENCODING_DEFAULT, RANGE_LIMITED, some(Bt709, Limited)),
            (SPACE_DCI_P3, ENCODING_DEFAULT, RANGE_DEFAULT, some(Bt709, Limited)),
            (SPACE_SRGB, ENCODING_709, RANGE_DEFAULT, some(Bt709, Limited)),
            (SPACE_SRGB, ENCODING_DEFAULT, RANGE_FULL, some(Bt601, Full)),
            (SPACE_JPEG, ENCODING_DEFAULT, RANGE_DEFAULT, some(Bt601, Full)),
            (SPACE_BT2020, ENCODING_DEFAULT, RANGE_DEFAULT, some(Bt2020, Limited)),
            (SPACE_SRGB, ENCODING_2020, RANGE_FULL, some(Bt2020, Full)),
            (SPACE_SMPTE240M, ENCODING_DEFAULT, RANGE_DEFAULT, None),
            // xvYCC, and constant luminance.
            (SPACE_SRGB, 3, RANGE_DEFAULT, None),
            (SPACE_BT2020, 7, RANGE_DEFAULT, None),
        ] {
            let layout = kernel::PixelLayout {
                width: 4,
                height: 2,
                code: u32::from_le_bytes(*b"YUYV"),
                row_step: 16,
                colour_space: space,
                colour_encoding: encoding,
                colour_range: range,
                ..Default::default()
            };
            let found = match stream_kind(Path::new("/dev/video0"), &layout) {
                Ok(Kind::Raw { shape, .. }) => Some(shape.colours),
                Ok(Kind::Mjpeg) => panic!("it is YUYV"),
                Err(_) => None,
            };
            assert_eq!(found, expected, "{space} {encoding} {range}");
            let rgb = kernel::PixelLayout { code: u32::from_le_bytes(*b"RGB3"), ..layout };
            let Kind::Raw { shape, .. } = stream_kind(Path::new("/dev/video0"), &rgb).unwrap() else { panic!() };
            assert_eq!(shape.layout.row_step, 16, "rows may lie apart");
            let odd = kernel::PixelLayout { width: 3, ..rgb };
            assert!(stream_kind(Path::new("/dev/video0"), &kernel::PixelLayout { row_step: 8, ..odd }).is_err());
        }
    }

    #[test]
    fn what_is_no_camera_is_none() {
        for path in ["/dev/null", "/dev/video-none", "/", "Cargo.toml"] {
            assert!(!Camera::is_one(Path::new(path)), "{path}");
        }
        let error = Camera::open(Path::new("/dev/null"), &CameraOptions::new()).unwrap_err().to_string();
        assert!(error.contains("no camera"), "{error}");
    }
}
