//! What a session's buffers take at most, from the sizes of what it is asked about. The formulas follow the buffers of
//! `VisionTower::forward`, `Decoder::forward` and [`attend_all`](crate::ops::attention); `tests/memory.rs` answers under limits.

use crate::Result;
use crate::config::{Config, TextConfig, VisionConfig};
use crate::memory::check_room;

const F32: usize = size_of::<f32>();

/// Bytes of a value that is prepared for products: three pieces of bf16 at most.
const PREPARED: usize = 6;

/// `bytes` with padding to whole tiles, panels and blocks, which adds less than a third even to the narrowest rows, heads of 72 values.
fn padded(bytes: usize) -> usize {
    bytes.saturating_add(bytes / 3)
}

/// What does not grow with the tokens: the workers' tiles and weights decoded for them.
const OF_A_WORKER: usize = 2 << 20;

/// Checks that there is memory for buffers that grow from `room` bytes to `needed`, which never shrink, and for `more` bytes beside them.
pub(super) fn grow(room: &mut usize, needed: usize, more: usize, what: impl FnOnce() -> String) -> Result<()> {
    let missing = needed.saturating_sub(*room).saturating_add(more);
    if missing > 0 {
        check_room(missing, what())?;
        *room = needed.max(*room);
    }
    Ok(())
}

/// Pixels, features and the tower's buffers.
pub(super) fn of_pictures(config: &Config, pictures: usize, threads: usize) -> usize {
    let VisionConfig { hidden, padded_feed_forward: feed_forward, image_size, .. } = config.vision;
    let (tokens, patch) = (config.vision.tokens(), config.vision.patch_len());
    let pixels = 3 * image_size * image_size * F32;
    let features = tokens * config.text.hidden * F32;
    let floats = F32 * (patch + 6 * hidden + feed_forward);
    let prepared = PREPARED * (feed_forward + hidden.max(patch).max(feed_forward));
    let attention = PREPARED * 2 * hidden;
    pictures.saturating_mul(pixels + features) + tokens * padded(floats + prepared + attention) + threads * OF_A_WORKER
}

/// The cache of so many tokens.
pub(super) fn of_cache(config: &Config, tokens: usize) -> usize {
    let &TextConfig { layers, kv_heads, head_dim, .. } = &config.text;
    tokens.saturating_mul(layers * 2 * kv_heads * head_dim * size_of::<u16>())
}

/// The decoder's buffers for a prefix of `tokens`.
pub(super) fn of_prefix(config: &Config, tokens: usize, threads: usize) -> usize {
    let &TextConfig { hidden, feed_forward, heads, kv_heads, head_dim, vocabulary, .. } = &config.text;
    let (query, key) = (heads * head_dim, kv_heads * head_dim);
    let floats = F32 * (3 * hidden + 2 * query + 2 * key + head_dim + feed_forward);
    let prepared = PREPARED * (feed_forward + hidden.max(query).max(feed_forward));
    let attention = PREPARED * 2 * key;
    // Logits, and what rules, choices and probabilities make of them.
    let logits = 3 * vocabulary * F32;
    tokens.saturating_mul(padded(floats + prepared + attention)) + logits + threads * OF_A_WORKER
}
