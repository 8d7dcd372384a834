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
