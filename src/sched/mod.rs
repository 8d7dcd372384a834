//! The thread pool. Work is divided over blocks of the output only, so results do not depend on the number of threads.

use std::marker::PhantomData;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard};

use rayon::prelude::*;

use crate::{Error, Result};

/// A pool of worker threads.
#[derive(Debug)]
pub struct Pool {
    threads: rayon::ThreadPool,
}

/// How many threads to use when nobody says: the CPUs this process may run on, cgroup limits included.
pub fn default_threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// A rectangle of a row-major output that one task alone writes.
#[derive(Debug)]
pub struct Block<'a> {
    base: *mut f32,
    row_len: usize,
    rows: Range<usize>,
    columns: Range<usize>,
    output: PhantomData<&'a mut [f32]>,
}

impl Block<'_> {
    /// The rows of the output that this block covers.
    pub fn rows(&self) -> Range<usize> {
        self.rows.clone()
    }

    /// The columns of the output that this block covers.
    pub fn columns(&self) -> Range<usize> {
        self.columns.clone()
    }

    /// The block's part of one of its rows.
    ///
    /// # Panics
    /// When `row` is not among [`rows`](Self::rows).
    pub fn row_mut(&mut self, row: usize) -> &mut [f32] {
        assert!(self.rows.contains(&row));
        // SAFETY: `Pool::blocks` makes blocks inside the output that it borrows mutably for as long as they live, no two
        // of which share a row and a column; `&mut self` lets one slice of this block out at a time.
        unsafe {
            std::slice::from_raw_parts_mut(self.base.add(row * self.row_len + self.columns.start), self.columns.len())
        }
    }
}

#[derive(Clone, Copy)]
struct Base(*mut f32);
// SAFETY: only used to make disjoint blocks, see `Block::row_mut`.
unsafe impl Send for Base {}
// SAFETY: as above.
unsafe impl Sync for Base {}

impl Base {
    fn get(self) -> *mut f32 {
        self.0
    }
}

impl Pool {
    /// A pool of `threads` workers.
    ///
    /// # Errors
    /// When the system refuses to make threads, or `threads` is 0 or absurd.
    pub fn new(threads: usize) -> Result<Self> {
        if !(1..=1024).contains(&threads) {
            return Err(Error::Request(format!("{threads} threads asked for; choose 1 to 1024")));
        }
        let threads = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|index| format!("gemmule-{index}"))
            .build()
            .map_err(|error| Error::Request(format!("cannot start {threads} threads: {error}")))?;
        Ok(Self { threads })
    }

    /// Number of workers.
    pub fn threads(&self) -> usize {
        self.threads.current_num_threads()
    }

    /// Runs `work` inside the pool, so that the parallel regions within need no hand-over.
    pub fn enter<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        self.threads.install(work)
    }

    /// Runs `work(worker, task)` for every task.
    pub fn run(&self, tasks: usize, work: impl Fn(usize, usize) + Sync) {
        let worker = || rayon::current_thread_index().unwrap_or(0);
        self.enter(|| (0..tasks).into_par_iter().for_each(|task| work(worker(), task)));
    }

    /// Divides a row-major output into blocks of at most `shape` (rows, columns) and runs `work(worker, block)` for each.
    ///
    /// # Panics
    /// When `output` is no whole number of rows or a side of `shape` is 0.
    pub fn blocks(
        &self,
        output: &mut [f32],
        row_len: usize,
        shape: (usize, usize),
        work: impl Fn(usize, Block<'_>) + Sync,
    ) {
        assert!(row_len > 0 && output.len().is_multiple_of(row_len) && shape.0 > 0 && shape.1 > 0);
        let rows = output.len() / row_len;
        let (down, across) = (rows.div_ceil(shape.0), row_len.div_ceil(shape.1));
        let base = Base(output.as_mut_ptr());
        self.run(down * across, |worker, task| {
            // Neighbouring tasks share columns: what a worker unpacks for one it may find warm for the next.
            let (column, row) = (task / down * shape.1, task % down * shape.0);
            let rows = row..(row + shape.0).min(rows);
            let columns = column..(column + shape.1).min(row_len);
            work(worker, Block { base: base.get(), row_len, rows, columns, output: PhantomData });
        });
    }

    /// Runs `work(index, row)` for every row of a row-major output.
    pub fn rows(&self, output: &mut [f32], row_len: usize, work: impl Fn(usize, &mut [f32]) + Sync + Send) {
        self.enter(|| output.par_chunks_mut(row_len).enumerate().for_each(|(index, row)| work(index, row)));
    }

    /// Runs `work(item)` for every item.
    pub fn each<T: Send>(&self, items: impl Iterator<Item = T> + Send, work: impl Fn(usize, T) + Sync + Send) {
        let items: Vec<(usize, T)> = items.enumerate().collect();
        self.enter(|| items.into_par_iter().for_each(|(index, item)| work(index, item)));
    }
}

/// One value for each worker of a pool.
#[derive(Debug, Default)]
pub struct PerWorker<T>(Vec<Mutex<T>>);

impl<T: Default> PerWorker<T> {
    /// One default value for each of `pool`'s workers.
    pub fn new(pool: &Pool) -> Self {
        Self((0..pool.threads()).map(|_| Mutex::default()).collect())
    }

    /// The value of `worker`, which alone uses it while its task runs.
    pub fn of(&self, worker: usize) -> MutexGuard<'_, T> {
        self.0[worker].lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
