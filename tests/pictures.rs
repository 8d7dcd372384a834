//! Pictures against PIL's own pixels (made by `tools/reference/goldens.py`).

use std::path::Path;

use gemmule::Picture;

#[test]
fn jpeg_pixels_are_those_of_pil() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/jpeg");
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "jpg") {
            let ours = Picture::open(&path).unwrap();
            let expected = Picture::open(&path.with_extension("png")).unwrap();
            assert_eq!((ours.width(), ours.height()), (expected.width(), expected.height()), "{}", path.display());
            let worst = ours.rgb().iter().zip(expected.rgb()).map(|(a, b)| a.abs_diff(*b)).max();
            assert_eq!(worst, Some(0), "{}", path.display());
            seen += 1;
        }
    }
    assert_eq!(seen, 9);
}

#[test]
fn colours_of_films_are_those_of_ffmpeg() {
    use gemmule::image::{Frame, PixelFormat};
    let read = |name: &str| {
        std::fs::read(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/yuv").join(name)).unwrap()
    };
    let worst = |format: PixelFormat, data: &[u8], expected: &str| {
        let frame = Frame::new(data, (96, 64), format.row_len(96).unwrap(), format).unwrap();
        let picture = frame.to_picture();
        picture.rgb().iter().zip(read(expected)).map(|(ours, theirs)| ours.abs_diff(theirs)).max().unwrap()
    };
    assert_eq!(worst(PixelFormat::I420, &read("i420.raw"), "i420.rgb"), 0);
    assert_eq!(worst(PixelFormat::Nv12, &read("nv12.raw"), "nv12.rgb"), 0);
    let yuyv = read("yuyv.raw");
    let uyvy: Vec<u8> = yuyv.as_chunks::<2>().0.iter().flat_map(|[luma, colour]| [*colour, *luma]).collect();
    assert!(worst(PixelFormat::Yuyv, &yuyv, "yuyv.rgb") <= 1);
    assert!(worst(PixelFormat::Uyvy, &uyvy, "yuyv.rgb") <= 1);
}
