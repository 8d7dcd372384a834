//! How good answers are: the measures of the usual benchmarks, by their official rules, and how sure they are.

mod captions;
mod interval;
mod objects;
mod penn;
mod precision;
mod text;

pub use captions::cider;
pub use interval::{Estimate, Part, Scale, estimate, estimate_difference, estimate_difference_within, estimate_within};
pub use objects::{Overlap, match_objects};
pub use precision::{Answered, AveragePrecision, Scene, There, average_precision};
pub use text::{anls, exact_match, relaxed_accuracy, vqa_accuracy};
