//! Progress bars, on stderr where that is a terminal.

use std::sync::OnceLock;

use indicatif::{ProgressBar, ProgressStyle};

/// A bar of bytes, shown from the first report on.
#[derive(Debug, Default)]
pub struct BytesBar(OnceLock<ProgressBar>);

impl BytesBar {
    /// Shows that `done` of `total` bytes are written, `what` the last of them.
    pub fn show(&self, done: u64, total: u64, what: &str) {
        let bar = self.0.get_or_init(|| {
            let style =
                ProgressStyle::with_template("{bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta} left  {msg}");
            ProgressBar::new(total).with_style(style.expect("a template of known parts"))
        });
        bar.set_message(what.to_owned());
        bar.set_length(total);
        bar.set_position(done);
    }

    /// Leaves the bar as it is, above a message.
    pub fn abandon(&self) {
        if let Some(bar) = self.0.get() {
            bar.abandon();
        }
    }

    /// Clears the bar.
    pub fn finish(&self) {
        if let Some(bar) = self.0.get() {
            bar.finish_and_clear();
        }
    }
}
