//! How frames lie in what a watch reads: the arguments, and what they mean for a source.

use std::path::Path;

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
use gemmule::image::{Camera, CameraFormat, CameraOptions};
use gemmule::image::{FrameShape, Matrix, PixelFormat, Range, Size, StreamFormat};

use crate::arguments::WrongUsage;

/// How the source's frames lie.
#[derive(Args)]
pub(super) struct FrameArguments {
    /// mjpeg, y4m, or how raw frames' bytes stand for pixels: rgb8, bgr8, rgba8, bgra8, mono8, yuyv, uyvy, nv12, i420, i422, i444. For a
    /// camera: what it is to send [default: raw frames if it has them].
    #[arg(long, value_name = "NAME", value_parser = parse_format)]
    format: Option<Format>,
    /// Size of raw frames in pixels, such as 640x480. For a camera: what it is to send [default: as it is set].
    #[arg(long, value_name = "WIDTHxHEIGHT", value_parser = parse_size)]
    size: Option<Size>,
    /// Where rows of raw frames lie [default: rows touch, or v4l2 with --row-step].
    #[arg(long, value_enum, value_name = "NAME", requires = "size")]
    layout: Option<Layout>,
    /// Bytes from the beginning of one row of raw frames to that of the next; of the first plane where there are several.
    #[arg(long, value_name = "BYTES", requires = "size")]
    row_step: Option<usize>,
    /// The same of the planes of colours [default: as the layout says].
    #[arg(long, value_name = "BYTES", requires = "size")]
    chroma_step: Option<usize>,
    /// The standard of YUV's weights: bt601, bt709 or bt2020 [default: bt601 up to 576 rows, bt709 above].
    #[arg(long, value_name = "NAME", value_parser = parse_matrix)]
    matrix: Option<Matrix>,
    /// The range of YUV's numbers: limited (16 to 235) or full (0 to 255) [default: what the stream says, else limited].
    #[arg(long, value_name = "NAME", value_parser = parse_range)]
    range: Option<Range>,
}

/// Conventions of raw frames.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Layout {
    /// Rows touch (ffmpeg's rawvideo).
    Tight,
    /// Rows of every plane are padded to four bytes.
    Gstreamer,
    /// Rows are --row-step bytes apart, those of colours in proportion.
    V4l2,
}

fn parse_name<T: Copy>(names: &[(&str, T)], text: &str) -> Result<T, String> {
    let known: Vec<&str> = names.iter().map(|(name, _)| *name).collect();
    let found = names.iter().find(|(name, _)| *name == text).map(|(_, value)| *value);
    found.ok_or_else(|| format!("choose one of {}", known.join(", ")))
}

fn parse_matrix(text: &str) -> Result<Matrix, String> {
    parse_name(&Matrix::NAMES, text)
}

fn parse_range(text: &str) -> Result<Range, String> {
    parse_name(&Range::NAMES, text)
}

#[derive(Clone, Copy)]
enum Format {
    Mjpeg,
    Y4m,
    Raw(PixelFormat),
}

fn parse_format(text: &str) -> Result<Format, String> {
    let raw = || PixelFormat::NAMES.iter().find(|(name, _)| *name == text).map(|(_, format)| Format::Raw(*format));
    match text {
        "mjpeg" => Ok(Format::Mjpeg),
        "y4m" => Ok(Format::Y4m),
        _ => raw().ok_or_else(|| "choose one of those that --help lists".to_owned()),
    }
}

fn parse_size(text: &str) -> Result<Size, String> {
    let size =
        text.split_once('x').and_then(|(width, height)| Some(Size::new(width.parse().ok()?, height.parse().ok()?)));
    size.ok_or_else(|| "give width and height, such as 640x480".to_owned())
}

/// What frames come from.
pub(super) enum Input {
    Directory,
    Stream(Option<StreamFormat>),
    #[cfg(all(target_os = "linux", target_pointer_width = "64"))]
    Camera(CameraOptions),
}

impl FrameArguments {
    /// What `source` is, and how it is read.
    ///
    /// # Errors
    /// When arguments do not go together.
    pub(super) fn input(&self, source: &Path, every_frame: bool) -> Result<Input> {
        #[cfg(all(target_os = "linux", target_pointer_width = "64"))]
        if Camera::is_one(source) {
            return Ok(Input::Camera(self.camera(every_frame)?));
        }
        // Other sources wait, if they have to.
        let _ = every_frame;
        let format = self.stream_format()?;
        Ok(if source.is_dir() { Input::Directory } else { Input::Stream(format) })
    }

    #[cfg(all(target_os = "linux", target_pointer_width = "64"))]
    fn camera(&self, every_frame: bool) -> Result<CameraOptions> {
        let format = match self.format {
            None => None,
            Some(Format::Raw(format)) => Some(CameraFormat::Raw(format)),
            Some(Format::Mjpeg) => Some(CameraFormat::Jpeg),
            Some(Format::Y4m) => {
                bail!(WrongUsage("a camera sends no y4m: leave --format out, or choose mjpeg or a raw format"))
            }
        };
        if every_frame {
            bail!(WrongUsage("--every-frame is for films: a camera does not wait"));
        }
        if self.row_step.is_some() || self.chroma_step.is_some() || self.layout.is_some() {
            bail!(WrongUsage(
                "--layout, --row-step and --chroma-step are for raw frames of other sources: a camera tells its own"
            ));
        }
        if self.matrix.is_some() || self.range.is_some() {
            bail!(WrongUsage("--matrix and --range are for other sources: a camera tells its own"));
        }
        Ok(CameraOptions::new().format(format).size(self.size))
    }

    fn stream_format(&self) -> Result<Option<StreamFormat>> {
        let has_colours = self.matrix.is_some() || self.range.is_some();
        Ok(match (self.format, self.size) {
            (Some(Format::Raw(format)), Some(size)) => Some(StreamFormat::Raw(self.shape(format, size)?)),
            (Some(Format::Raw(_)), None) => bail!(WrongUsage("raw frames need --size WIDTHxHEIGHT")),
            (_, Some(_)) => bail!(WrongUsage("--size is for raw frames: name their --format, such as rgb8")),
            (Some(Format::Y4m), None) => Some(StreamFormat::Y4m { matrix: self.matrix, range: self.range }),
            (_, None) if has_colours => {
                bail!(WrongUsage(
                    "--matrix and --range are for raw frames and --format y4m: JPEG pictures have their own"
                ))
            }
            (Some(Format::Mjpeg), None) => Some(StreamFormat::Mjpeg),
            (None, None) => None,
        })
    }

    /// How raw frames lie.
    fn shape(&self, format: PixelFormat, size: Size) -> Result<FrameShape> {
        const MISFIT: WrongUsage = WrongUsage(
            "--size, --row-step and --chroma-step do not fit the format: no side may be zero, rows must fit their steps, and pairs \
             need even widths",
        );
        let shape = match (self.layout, self.row_step) {
            (None | Some(Layout::Tight), None) => FrameShape::tight(format, size),
            (Some(Layout::Gstreamer), None) => FrameShape::gstreamer(format, size),
            (Some(Layout::V4l2), None) => {
                bail!(WrongUsage("--layout v4l2 needs --row-step, the camera's bytesperline"))
            }
            // Both steps are given, so nothing is in proportion.
            (None | Some(Layout::V4l2), Some(row_step)) if self.chroma_step.is_some() => {
                FrameShape::tight(format, size).map(|mut shape| {
                    shape.layout.row_step = row_step;
                    shape
                })
            }
            (None | Some(Layout::V4l2), Some(row_step)) => FrameShape::v4l2(format, size, row_step),
            (Some(_), Some(_)) => bail!(WrongUsage("--row-step goes with --layout v4l2, or with none")),
        };
        let mut shape = shape.ok_or(MISFIT)?;
        if let Some(step) = self.chroma_step {
            if shape.layout.chroma_step == 0 {
                bail!(WrongUsage("--chroma-step is for formats with planes of colours: nv12, i420, i422, i444"));
            }
            shape.layout.chroma_step = step;
        }
        shape.colours.matrix = self.matrix.unwrap_or(shape.colours.matrix);
        shape.colours.range = self.range.unwrap_or(shape.colours.range);
        shape.least_len().ok_or(MISFIT)?;
        Ok(shape)
    }
}
