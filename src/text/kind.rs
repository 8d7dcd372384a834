//! What a token is in an answer about objects.

use crate::config::masks;

/// The largest coordinate of a location token: the far edge of the picture.
pub const FAR_EDGE: u16 = 1023;
/// Location tokens of a box: y_min, x_min, y_max, x_max.
pub const LOCATIONS: usize = 4;
/// Segment tokens of a mask.
pub const SEGMENTS: usize = masks::CODES;
/// Values of a segment token.
pub const SEGMENT_CODES: u16 = masks::CODEBOOK as u16;

/// What a token is in an answer about objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenKind {
    /// A coordinate, 0 … 1023.
    Location(u16),
    /// A code of a mask, 0 … 127.
    Segment(u16),
    /// A semicolon, which stands between objects.
    Separator,
    /// Anything else.
    Text,
}

impl TokenKind {
    /// By the token's text: derived vocabularies have other ids.
    pub fn of(text: &str) -> Self {
        let number = |prefix: &str, digits: usize, limit: u16| -> Option<u16> {
            let inner = text.strip_prefix(prefix)?.strip_suffix('>')?;
            let number = || inner.parse().ok().filter(|number| *number < limit);
            (inner.len() == digits && inner.bytes().all(|byte| byte.is_ascii_digit())).then(number)?
        };
        if let Some(location) = number("<loc", 4, FAR_EDGE + 1) {
            Self::Location(location)
        } else if let Some(segment) = number("<seg", 3, SEGMENT_CODES) {
            Self::Segment(segment)
        } else if text.trim_matches(['▁', ' ']) == ";" {
            Self::Separator
        } else {
            Self::Text
        }
    }

    /// Whether a text is the beginning of a location's or a segment's, and not all of it.
    pub(crate) fn begins_code(text: &str) -> bool {
        let codes = |prefix: &str, digits: usize, limit: u16| {
            let Some(number) = text.strip_prefix(prefix) else { return !text.is_empty() && prefix.starts_with(text) };
            // The least number that begins so.
            let least = || format!("{number:0<digits$}").parse::<u16>();
            let is_number = number.len() <= digits && number.bytes().all(|byte| byte.is_ascii_digit());
            is_number && least().is_ok_and(|least| least < limit)
        };
        codes("<loc", 4, FAR_EDGE + 1) || codes("<seg", 3, SEGMENT_CODES)
    }

    /// The coordinate, if it is one.
    pub fn location(&self) -> Option<u16> {
        if let Self::Location(location) = self { Some(*location) } else { None }
    }

    /// The code of a mask, if it is one.
    pub fn segment(&self) -> Option<u16> {
        if let Self::Segment(segment) = self { Some(*segment) } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::TokenKind::{self, *};

    #[test]
    fn kinds_are_known_by_their_text() {
        for (text, kind) in [
            ("<loc0000>", Location(0)),
            ("<loc1023>", Location(1023)),
            ("<loc1024>", Text),
            ("<loc023>", Text),
            ("<loc+023>", Text),
            ("<seg127>", Segment(127)),
            ("<seg128>", Text),
            ("▁;", Separator),
            (";", Separator),
            (";;", Text),
            ("", Text),
        ] {
            assert_eq!(TokenKind::of(text), kind, "{text}");
        }
    }

    #[test]
    fn beginnings_are_known() {
        for text in ["<", "<l", "<loc", "<loc1", "<loc102", "<loc1023", "<s", "<seg", "<seg127"] {
            assert!(TokenKind::begins_code(text), "{text}");
        }
        for text in ["", "l", "<loc0000>", "<loc1024", "<loc2", "<loc00000", "<loc ", "<seg128", "<seg0000", "<<"] {
            assert!(!TokenKind::begins_code(text), "{text}");
        }
    }
}
