//! PaliGemma checkpoints as GGUF files.
//!
//! ```no_run
//! use gemmule_quant::Format;
//! use gemmule_quantize::{Conversion, Target, Watcher};
//!
//! let conversion = Conversion::of("google/paligemma2-3b-mix-224").body(Format::Q4K);
//! let summary = conversion.run(&Target::file("paligemma2-3b.gguf"), &mut Watcher::default())?;
//! println!("{summary}");
//! # Ok::<(), anyhow::Error>(())
//! ```
//!
//! Settings of a checkpoint that the conversion leaves out are reported through the [`log`] facade, as warnings.

mod advice;
mod allot;
mod big_vision;
mod calibrated;
mod changes;
mod checkpoint;
mod conversion;
mod convert;
mod hf_config;
mod hub;
mod json;
mod lora;
mod made;
mod mask_decoder;
mod npz;
mod plan;
pub mod program;
pub mod rounding;
pub mod sensitivity;
pub mod statistics;
mod summary;
mod target;
mod tokens;
mod types;
mod vocabulary;

pub use advice::{directory as find_checkpoint, is_checkpoint};
pub use allot::{Budget, Machine};
pub use conversion::{Conversion, Prepared, read_mask_decoder};
pub use convert::{Progress, Watcher};
pub use made::{MadeModel, RowsToMake, checkpoint_tensors, write_made};
pub use summary::Summary;
pub use target::{Target, checked_output};
pub use types::{format_names, parse_format};
