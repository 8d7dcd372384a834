//! What the converter says to the person at the keyboard.

use std::io::Write;

/// Says something to whoever converts; there may be nobody to read it.
pub(crate) fn note(text: &str) {
    let _ = writeln!(std::io::stderr(), "gemmule-quantize: note: {text}");
}
