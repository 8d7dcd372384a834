//! PaliGemma 1 and 2 vision-language models on ordinary CPUs.
//!
//! ```no_run
//! use gemmule::{GenerateOptions, Model, Picture, Session, SessionOptions};
//!
//! let model = Model::open("paligemma2-3b.gguf")?;
//! let mut session = Session::new(&model, &SessionOptions::default())?;
//! let picture = Picture::open("street.jpg")?;
//! let answer = session.generate(&[picture], "caption en", &GenerateOptions::default())?;
//! println!("{}", answer.text);
//! # Ok::<(), gemmule::Error>(())
//! ```
//!
//! [`Model`] is a handle of an opened file, cheap to clone and shared by threads; [`Session`] holds the memory of one generation at a
//! time, and may be one of several on a model; a [`CancelHandle`] ends what it computes from another thread. Nothing here prints, exits or
//! keeps global state.
//!
//! What this documentation does not show (modules that the programs and tests beside it use) may change with any version.

#[cfg(target_endian = "big")]
compile_error!("GGUF files are little-endian and used in place: big-endian targets are not supported");

pub mod answer;
mod error;
#[doc(hidden)]
pub mod files;
#[doc(hidden)]
pub mod gguf;
pub mod image;
#[doc(hidden)]
pub mod memory;
pub mod metrics;
pub mod model;
#[doc(hidden)]
pub mod ops;
#[doc(hidden)]
pub mod process;
#[doc(hidden)]
pub mod sched;
pub mod session;
pub mod text;
#[doc(hidden)]
pub mod weights;

pub use error::{Error, Result};
#[doc(hidden)]
pub use files::write_whole;
#[doc(hidden)]
pub use gemmule_quant as quant;
pub use image::Picture;
pub use model::Model;
pub use sched::CancelHandle;
pub use session::{Answer, FinishReason, GenerateOptions, ProbabilityBase, Session, SessionOptions, Timings, Trace};
