//! Pictures, films, and messages that hold them.

use gemmule::Picture;
use gemmule::config::ResizeRule;
use gemmule::image::{Frame, FrameLayout, FrameShape, FrameStream, PixelFormat, Range, Size, StreamFormat};

/// Decodes, and makes of it what the model would see.
fn picture(data: &[u8]) {
    let Ok(picture) = Picture::from_bytes("fuzz", data) else { return };
    assert_eq!(picture.rgb().len(), picture.width() as usize * picture.height() as usize * 3);
    if picture.width() < 2000 && picture.height() < 2000 {
        let config = super::MODEL.config();
        for resize_rule in [ResizeRule::Pillow, ResizeRule::Torchvision] {
            let mut preprocess = config.preprocess.clone();
            preprocess.resize_rule = resize_rule;
            let values = picture.to_pixel_values(&config.vision, &preprocess).expect("the filter is known");
            assert!(values.iter().all(|value| value.is_finite()));
        }
    }
}

/// Only files of one kind: the others have targets of their own.
fn picture_of(data: &[u8], start: &[u8]) {
    if data.starts_with(start) {
        picture(data);
    }
}

pub(super) fn jpeg(data: &[u8]) {
    picture_of(data, b"\xff\xd8");
}

pub(super) fn png(data: &[u8]) {
    picture_of(data, b"\x89PNG");
}

pub(super) fn gif(data: &[u8]) {
    picture_of(data, b"GIF8");
}

pub(super) fn webp(data: &[u8]) {
    picture_of(data, b"RIFF");
}

pub(super) fn bmp(data: &[u8]) {
    picture_of(data, b"BM");
}

pub(super) fn tiff(data: &[u8]) {
    picture_of(data, b"II");
    picture_of(data, b"MM");
}

fn stream(data: &[u8], format: Option<StreamFormat>) {
    let Ok(mut stream) = FrameStream::new(data, format) else { return };
    for _ in 0..64 {
        match stream.next_frame() {
            Ok(Some(frame)) => drop(frame.to_picture()),
            Ok(None) | Err(_) => return,
        }
    }
}

pub(super) fn mjpeg(data: &[u8]) {
    stream(data, Some(StreamFormat::Mjpeg));
    stream(data, None);
}

pub(super) fn y4m(data: &[u8]) {
    stream(data, Some(StreamFormat::Y4m { matrix: None, range: Some(Range::Full) }));
}

/// Five bytes choose the format, the size, the steps between rows and the layout.
pub(super) fn raw(data: &[u8]) {
    let Some(([format, width, height, step, far], rest)) = data.split_first_chunk() else { return };
    let (_, format) = PixelFormat::NAMES[usize::from(*format) % PixelFormat::NAMES.len()];
    let size = Size::new((*width).into(), (*height).into());
    let row_step = usize::from(*step) << (far % 60);
    let own = FrameLayout { row_step, chroma_step: usize::from(*far), luma_rows: usize::from(*step) };
    let shapes = [
        FrameShape::v4l2(format, size, row_step),
        FrameShape::gstreamer(format, size),
        FrameShape::tight(format, size).map(|shape| FrameShape { layout: own, ..shape }),
    ];
    for shape in shapes.into_iter().flatten() {
        stream(rest, Some(StreamFormat::Raw(shape)));
        if let Ok(frame) = Frame::of(rest, shape) {
            let picture = frame.to_picture();
            assert_eq!(picture.size(), size);
        }
    }
}

pub(super) fn cdr(data: &[u8]) {
    if let Ok(image) = crate::messages::Image::read(data) {
        let _ = image.frame().map(|frame| frame.to_picture());
    }
}
