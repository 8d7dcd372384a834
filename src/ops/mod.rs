//! Stateless functions over views: products, normalization, attention, embedding.

pub mod attention;
pub mod embedding;
pub mod linear;
pub mod norm;

use gemmule_quant::{FloatPanel, IntegerPanel, Kernels};

use crate::Result;
use crate::sched::{PerWorker, Pool};

/// What a worker needs beside its block of the output.
#[derive(Debug, Default)]
pub struct WorkerScratch {
    pub(crate) float_panel: FloatPanel,
    pub(crate) integer_panel: IntegerPanel,
    /// Results of a product, rows `stride` apart.
    pub(crate) tile: Vec<f32>,
    pub(crate) stride: usize,
    /// Results of the gate of a gated product.
    pub(crate) gate: Vec<f32>,
    pub(crate) scores: Vec<f32>,
    pub(crate) queries: Vec<f32>,
}

/// What computes: kernels of one instruction set, a pool, and the workers' scratch.
#[derive(Debug)]
pub struct Compute {
    /// The arithmetic.
    pub kernels: &'static dyn Kernels,
    /// The threads.
    pub pool: Pool,
    pub(crate) scratch: PerWorker<WorkerScratch>,
}

impl Compute {
    /// The kernels named by `isa`, else by the environment's `GEMMULE_ISA`, else the best; on `threads` threads.
    ///
    /// # Errors
    /// When the instruction set is not to be had, or the threads.
    pub fn new(isa: Option<&str>, threads: usize) -> Result<Self> {
        let from_environment = std::env::var("GEMMULE_ISA").ok();
        let kernels = gemmule_quant::isa::select(isa.or(from_environment.as_deref()))?;
        let pool = Pool::new(threads)?;
        Ok(Self { kernels, scratch: PerWorker::new(&pool), pool })
    }
}
