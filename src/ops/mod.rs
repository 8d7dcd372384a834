//! Stateless functions over views: products, normalization, attention, embedding.

pub(crate) mod attention;
pub(crate) mod cached_attention;
mod compute;
pub(crate) mod embedding;
pub(crate) mod input;
pub(crate) mod linear;
mod multiply;
pub(crate) mod norm;
mod observe;
pub(crate) mod rope;
mod scratch;

pub(crate) use compute::Compute;
pub use observe::{Inputs, Observer};
use scratch::WorkerScratch;
