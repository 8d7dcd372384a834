//! What computes.

use gemmule_quant::Kernels;

use super::WorkerScratch;
use crate::Result;
use crate::sched::{CancelHandle, PerWorker, Pool};

/// What computes: kernels of one instruction set, a pool, and the workers' scratch.
#[derive(Debug)]
pub(crate) struct Compute {
    /// The arithmetic.
    pub kernels: Kernels,
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
    /// When the instruction set is not available, or the threads.
    pub(crate) fn new(isa: Option<&str>, threads: usize) -> Result<Self> {
        let from_environment = std::env::var("GEMMULE_ISA").ok().filter(|name| !name.is_empty());
        let kernels = gemmule_quant::Kernels::select(isa.or(from_environment.as_deref()))?;
        let pool = Pool::new(threads)?;
        Ok(Self { kernels, scratch: PerWorker::new(&pool), pool, cancel: CancelHandle::default() })
    }
}
