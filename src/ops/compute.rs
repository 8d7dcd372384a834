//! What computes.

use std::sync::Arc;

use gemmule_quant::Kernels;
use gemmule_quant::isa::Isa;

use super::{Observer, WorkerScratch};
use crate::sched::{CancelHandle, PerWorker, Pool};
use crate::{Error, Result};

/// What computes: kernels of one instruction set, a pool, and the workers' scratch.
#[derive(Debug)]
pub(crate) struct Compute {
    /// The arithmetic.
    pub kernels: Kernels,
    /// The threads.
    pub pool: Pool,
    /// Ends forward passes early.
    pub cancel: CancelHandle,
    /// Sees the inputs of all matrices.
    pub observer: Option<Arc<dyn Observer>>,
    pub(crate) scratch: PerWorker<WorkerScratch>,
}

impl Compute {
    /// The kernels named by `isa`, else by the environment's `GEMMULE_ISA`, else the best; on `threads` threads.
    ///
    /// # Errors
    /// When the instruction set is not available, or the threads.
    pub(crate) fn new(isa: Option<&str>, threads: usize) -> Result<Self> {
        let from_environment = std::env::var("GEMMULE_ISA").ok().filter(|name| !name.is_empty());
        let asked_for = isa.or(from_environment.as_deref());
        let kernels = Kernels::select(asked_for).map_err(|error| Error::InstructionSet(error.to_string()))?;
        let why = match (isa, asked_for) {
            (Some(_), _) => "as asked for",
            (None, Some(_)) => "as GEMMULE_ISA says",
            (None, None) => "the best that this machine has",
        };
        log::info!("{threads} threads compute with {}, {why}", kernels.isa());
        for isa in Isa::COMPILED.iter().filter(|isa| !isa.is_available()) {
            log::debug!("{isa} is compiled in and not available: the CPU lacks it, or the system does not give it");
        }
        let pool = Pool::new(threads)?;
        Ok(Self { kernels, scratch: PerWorker::new(&pool), pool, cancel: CancelHandle::default(), observer: None })
    }
}
