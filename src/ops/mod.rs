//! Stateless functions over views: products, normalization, attention, embedding.

pub(crate) mod attention;
pub(crate) mod embedding;
pub(crate) mod input;
pub(crate) mod linear;
mod multiply;
pub(crate) mod norm;

use gemmule_quant::matrix_unit::AlignedFloats;
use gemmule_quant::{FloatPanel, IntegerPanel, Kernels, Operand};

use self::multiply::{MOST_PANELS, Results};
use crate::Result;
use crate::sched::{CancelHandle, PerWorker, Pool};

/// What a worker needs beside its block of the output.
#[derive(Debug, Default)]
pub(crate) struct WorkerScratch {
    /// Weights unpacked for a product, of a floating-point format, and of a quantized one.
    float_panel: FloatPanel,
    integer_panels: [IntegerPanel; MOST_PANELS],
    /// A matrix unit's left side: a stretch of weights.
    pub(crate) weights: Operand,
    /// Results of a product.
    results: Results,
    /// Results of the other factor of a gated product.
    up: Results,
    /// A few rows of results that were turned.
    strips: [AlignedFloats; 2],
    /// Results of attention.
    pub(crate) tile: AlignedFloats,
    pub(crate) scores: AlignedFloats,
    pub(crate) scaled: Vec<f32>,
    /// A matrix unit's queries.
    pub(crate) queries: Operand,
}

/// What computes: kernels of one instruction set, a pool, and the workers' scratch.
#[derive(Debug)]
pub(crate) struct Compute {
    /// The arithmetic.
    pub kernels: &'static dyn Kernels,
    /// The threads.
    pub pool: Pool,
    /// Ends forward passes early.
    pub cancel: CancelHandle,
    pub(crate) scratch: PerWorker<WorkerScratch>,
}

impl Compute {
    /// The kernels named by `isa`, else by the environment's `GEMMULE_ISA`, else the best; on `threads` threads.
    ///
    /// # Errors
    /// When the instruction set is not to be had, or the threads.
    pub(crate) fn new(isa: Option<&str>, threads: usize) -> Result<Self> {
        let from_environment = std::env::var("GEMMULE_ISA").ok().filter(|name| !name.is_empty());
        let kernels = gemmule_quant::isa::select(isa.or(from_environment.as_deref()))?;
        let pool = Pool::new(threads)?;
        Ok(Self { kernels, scratch: PerWorker::new(&pool), pool, cancel: CancelHandle::default() })
    }
}
