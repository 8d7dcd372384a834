use std::path::{Path, PathBuf};

/// What can go wrong. The variant says which kind it is, for the program; the text says what to do, for the person at the keyboard.
///
/// The text is whole: an error has no [`source`](std::error::Error::source), whose text whoever prints a chain would print twice.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused.
    #[error("{path}: {reason}")]
    Io {
        /// The file concerned.
        path: PathBuf,
        /// The system's reason.
        reason: std::io::Error,
    },
    /// A GGUF file is damaged, or not one.
    #[error("{file}: not a usable GGUF file: {reason}")]
    Gguf {
        /// The file concerned.
        file: String,
        /// What is wrong, and where.
        reason: String,
    },
    /// A file is sound, but not a model that can be run.
    #[error("{file}: {reason}")]
    Model {
        /// The file concerned.
        file: String,
        /// What is missing or unsupported.
        reason: String,
    },
    /// A picture cannot be read.
    #[error("{name}: not a usable picture: {reason}")]
    Picture {
        /// The file concerned.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The prompt or the options ask for something impossible.
    #[error("{0}")]
    Request(String),
    /// The tokenizer failed.
    #[error("tokenizer: {0}")]
    Tokenizer(String),
    /// There is not enough memory.
    #[error(
        "{what} need {} MB, more memory than there is: close other programs, or raise the limit (ulimit -v)",
        bytes.div_ceil(1_000_000)
    )]
    Memory {
        /// What it is for.
        what: String,
        /// How much is needed.
        bytes: usize,
    },
    /// A `CancelHandle` ended the work before it had a result.
    #[error("cancelled")]
    Cancelled,
    /// The requested instruction set is not available; the text names those that are.
    #[error("{0}")]
    InstructionSet(String),
}

const _: fn() = || {
    fn goes_anywhere<T: Send + Sync + 'static>() {}
    goes_anywhere::<Error>();
};

impl Error {
    pub(crate) fn io(path: &Path, reason: std::io::Error) -> Self {
        Self::Io { path: path.to_owned(), reason }
    }
    pub(crate) fn gguf(file: &str, reason: impl Into<String>) -> Self {
        Self::Gguf { file: file.to_owned(), reason: reason.into() }
    }
    pub(crate) fn model(file: &str, reason: impl Into<String>) -> Self {
        Self::Model { file: file.to_owned(), reason: reason.into() }
    }
}

/// Shorthand for this crate's results.
pub type Result<T> = std::result::Result<T, Error>;

#[cfg(test)]
mod tests {
    #[test]
    fn an_error_has_the_systems_reason_and_says_it_once() {
        let error = crate::Model::open("/no/such/file").unwrap_err();
        assert!(std::error::Error::source(&error).is_none());
        let crate::Error::Io { path, reason } = &error else { panic!("{error:?}") };
        assert_eq!(reason.kind(), std::io::ErrorKind::NotFound);
        assert_eq!(error.to_string(), format!("{}: {reason}", path.display()));
    }
}
