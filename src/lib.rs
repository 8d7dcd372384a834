//! PaliGemma 1 and 2 vision-language models on ordinary CPUs.
//!
//! ```no_run
//! use gemmule::{GenerateOptions, Model, Picture, Session, SessionOptions};
//!
//! let model = Model::open("paligemma2-3b.gguf")?;
//! let mut session = Session::new(&model, &SessionOptions::new())?;
//! let picture = Picture::open("street.jpg")?;
//! let answer = session.generate(&[picture], "caption en", &GenerateOptions::new())?;
//! println!("{}", answer.text);
//! # Ok::<(), gemmule::Error>(())
//! ```
//!
//! [`Model`] is a handle of an opened file, cheap to clone and shared by threads; [`Session`] holds the memory of one generation at a
//! time, and may be one of several on a model; a [`CancelHandle`] ends what it computes from another thread. Nothing here prints, exits or
//! keeps global state. What is chosen and awaited (instruction set, threads, mapped files, stages) goes to the [`log`] facade, which is
//! silent until a program installs a logger.

#[cfg(target_endian = "big")]
compile_error!("GGUF files are little-endian and used in place: big-endian targets are not supported");

pub mod answer;
pub mod config;
mod error;
pub mod gguf;
pub mod image;
mod memory;
pub mod model;
mod ops;
mod platform;
mod sched;
pub mod session;
pub mod text;
mod weights;

pub use error::{Error, Result};
pub use image::Picture;
pub use model::Model;
pub use sched::{CancelHandle, MOST_THREADS};
pub use session::batch;
pub use session::{Answer, AnswerStream, FinishReason, GenerateOptions, GeneratedToken, Session, SessionOptions};

/// The guide's code, which tests compile.
#[cfg(doctest)]
#[doc = include_str!("../docs/rust.md")]
pub struct Guide;
