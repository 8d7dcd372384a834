//! PaliGemma 1 and 2 vision-language models on ordinary CPUs.
//!
//! ```no_run
//! use gemmule::{GenerateOptions, Model, Picture, Session, SessionOptions};
//!
//! let model = Model::open("paligemma2-3b.gguf".as_ref())?;
//! let mut session = Session::new(&model, &SessionOptions::default())?;
//! let picture = Picture::open("street.jpg".as_ref())?;
//! let answer = session.generate(&[picture], "caption en", &GenerateOptions::default())?;
//! println!("{}", answer.text);
//! # Ok::<(), gemmule::Error>(())
//! ```
//!
//! [`Model`] is an opened file, shared freely; [`Session`] holds the memory of one generation at a time, and may
//! be one of several on a model; a [`CancelHandle`] ends what it computes from another thread. Nothing here prints, exits or keeps global state.

#[cfg(target_endian = "big")]
compile_error!("GGUF files are little-endian and used in place: big-endian targets are not supported");

pub mod answer;
mod error;
pub mod files;
pub mod gguf;
pub mod image;
pub mod metrics;
pub mod model;
pub mod ops;
pub mod sched;
pub mod session;
pub mod text;
pub mod weights;

pub use error::{Error, Result};
pub use files::write_whole;
pub use gemmule_quant as quant;
pub use image::Picture;
pub use model::Model;
pub use sched::CancelHandle;
pub use session::{Answer, FinishReason, GenerateOptions, Session, SessionOptions, Timings, Trace};
