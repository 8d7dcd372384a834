//! A camera's frames, against the kernel's virtual camera: `.ci/camera/run` starts a virtual machine that has one.

#![cfg(all(target_os = "linux", target_pointer_width = "64"))]

use std::path::Path;
use std::time::Duration;

use gemmule::image::{Camera, CameraFormat, CameraOptions, PixelFormat, Size};
use gemmule::{Error, Picture};

const DEVICE: &str = "/dev/video0";
const SIZE: Size = Size::new(640, 360);
const PATIENCE: Duration = Duration::from_secs(10);

fn open(format: CameraFormat, size: Size) -> Result<Camera, Error> {
    Camera::open(Path::new(DEVICE), &CameraOptions::new().format(format).size(size))
}

fn picture(format: PixelFormat) -> Picture {
    let mut camera = open(CameraFormat::Raw(format), SIZE).unwrap();
    let numbers: Vec<u64> = (0..6).map(|_| camera.next_frame(PATIENCE).unwrap().unwrap().number()).collect();
    assert_eq!(numbers, [0, 1, 2, 3, 4, 5], "more frames than buffers");
    camera.next_frame(PATIENCE).unwrap().unwrap().to_picture().unwrap()
}

/// The middles of the test picture's eight bars, below what is written on it.
fn bars(picture: &Picture) -> Vec<[u8; 3]> {
    assert_eq!(picture.size(), SIZE);
    let pixels = picture.rgb().as_chunks::<3>().0;
    let (width, height) = (SIZE.width as usize, SIZE.height as usize);
    (0..8).map(|bar| pixels[height * 3 / 4 * width + width * (2 * bar + 1) / 16]).collect()
}

#[test]
#[ignore = "needs the kernel's virtual camera: .ci/camera/run"]
fn every_format_shows_the_same_bars() {
    let expected = bars(&picture(PixelFormat::Rgb8));
    assert!(expected.windows(2).all(|pair| pair[0] != pair[1]), "{expected:?}");
    // No camera is asked for the others.
    let asked = |format: &PixelFormat| !matches!(format, PixelFormat::I422 | PixelFormat::I444);
    for (name, format) in PixelFormat::NAMES.into_iter().filter(|(_, format)| asked(format)) {
        let found = bars(&picture(format));
        for (found, expected) in found.iter().zip(&expected) {
            let expected = match format {
                // The virtual camera's own weights: ITU-R BT.709.
                PixelFormat::Mono8 => {
                    let [red, green, blue] = expected.map(f64::from);
                    [(0.2126 * red + 0.7152 * green + 0.0722 * blue).round() as u8; 3]
                }
                _ => *expected,
            };
            let worst = found.iter().zip(expected).map(|(found, expected)| found.abs_diff(expected)).max();
            assert!(worst <= Some(3), "{name}: {found:?} for {expected:?}");
        }
    }
}

#[test]
#[ignore = "needs the kernel's virtual camera: .ci/camera/run"]
fn what_a_camera_has_not_is_an_error() {
    for (format, size, part) in [
        (CameraFormat::Jpeg, SIZE, "has no mjpeg, only yuyv, uyvy"),
        (CameraFormat::Raw(PixelFormat::Yuyv), Size::new(641, 360), "would send 640 × 360 pixels as yuyv"),
    ] {
        let error = open(format, size).unwrap_err().to_string();
        assert!(error.contains(part) && error.contains(DEVICE), "{error}");
    }
}

#[test]
#[ignore = "needs the kernel's virtual camera: .ci/camera/run"]
fn one_program_at_a_time() {
    let yuyv = CameraFormat::Raw(PixelFormat::Yuyv);
    let mut first = Camera::open(Path::new(DEVICE), &CameraOptions::new()).unwrap();
    assert!(first.description().contains("pixels as yuyv"), "{}", first.description());
    let error = open(yuyv, SIZE).unwrap_err().to_string();
    assert!(error.contains("another program uses the camera"), "{error}");
    assert!(first.next_frame(PATIENCE).unwrap().is_some(), "the first goes on");
    drop(first);
    assert!(open(yuyv, SIZE).unwrap().next_frame(PATIENCE).unwrap().is_some(), "it was given back");
}
