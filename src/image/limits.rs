//! What reading a picture may take, and what it gives.

use image::metadata::Orientation;
use image::{DynamicImage, Limits};

use super::size::Size;
use crate::memory::is_there;

/// Most bytes of a picture as it is stored, and as RGB: a guard against decompression bombs, generous for every camera.
pub(super) const LARGEST_DECODED: u64 = 1 << 30;
/// Longest side in pixels.
pub(super) const LONGEST_SIDE: u32 = 1 << 16;

/// A decoded file.
pub(super) struct Decoded {
    /// The picture as stored.
    pub(super) picture: DynamicImage,
    /// How it is to be turned.
    pub(super) orientation: Orientation,
    /// What is wrong with the file.
    pub(super) damage: Option<String>,
}

/// What decoding may take.
pub(super) fn of_decoders() -> Limits {
    let mut limits = Limits::default();
    limits.max_alloc = Some(LARGEST_DECODED);
    (limits.max_image_width, limits.max_image_height) = (Some(LONGEST_SIDE), Some(LONGEST_SIDE));
    limits
}

/// Checks that a picture of `size` pixels, which takes `stored` bytes as it is decoded (0: as RGB), is within the limits, and that there
/// is memory for it: a decoder that gets none ends the program.
pub(super) fn check_size(size: Size, stored: u64) -> std::result::Result<(), String> {
    let rgb = 3 * size.pixels();
    let bytes = stored.max(rgb);
    if bytes > LARGEST_DECODED {
        return Err(format!("its {size} pixels take {bytes} bytes, more than {LARGEST_DECODED}"));
    }
    // As it is stored, and as RGB.
    let needed = if stored == 0 { 2 * rgb } else { stored + rgb };
    check_memory(size, needed)
}

/// The words by which an error says that memory is short.
pub(super) const MEMORY: &str = "more memory than there is";

/// Checks that there are `needed` bytes of memory for a picture.
pub(super) fn check_memory(size: Size, needed: u64) -> std::result::Result<(), String> {
    if is_there(needed) {
        return Ok(());
    }
    let megabytes = needed.div_ceil(1_000_000);
    Err(format!("its {size} pixels take {megabytes} MB, {MEMORY}"))
}
