//! The thread pool, and what ends work early. Work is divided over blocks of the output only, so results do not depend on the number of threads.

mod cancel;
mod sync;
mod team;

use std::marker::PhantomData;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

pub use cancel::CancelHandle;
use team::Team;

use crate::{Error, Result, platform};

/// A pool of worker threads: rayon's, which work as a team while somebody has entered.
#[derive(Debug)]
pub(crate) struct Pool {
    threads: rayon::ThreadPool,
    team: Team,
    /// One at a time.
    entered: Mutex<()>,
}

/// Most threads of a pool.
pub const MOST_THREADS: usize = 1024;

/// How many threads to use when nobody says: the physical cores this process may run on, cgroup limits included. Products
/// fill a core's units with one thread; a second one on it only shares its caches.
pub(crate) fn default_threads() -> usize {
    let logical = std::thread::available_parallelism().map_or(1, usize::from);
    platform::physical_cores().map_or(logical, |cores| cores.min(logical))
}

/// A row-major output that a parallel region divides into blocks.
#[derive(Debug)]
pub(crate) struct Output<'a, T> {
    base: *mut T,
    rows: usize,
    row_len: usize,
    across: usize,
    step: usize,
    values: PhantomData<&'a mut [T]>,
}

// SAFETY: it stands for a `&mut [T]`; blocks made from it are disjoint, see `Block::row_mut`.
unsafe impl<T: Send> Send for Output<'_, T> {}
// SAFETY: a shared `Output` alone gives no access: only `Pool::blocks` makes blocks of it, and they are disjoint.
unsafe impl<T: Send> Sync for Output<'_, T> {}

impl<'a, T> Output<'a, T> {
    /// An output of rows of `row_len` values, whose blocks are whole rows.
    ///
    /// # Panics
    /// When `values` is no whole number of rows.
    pub(crate) fn new(values: &'a mut [T], row_len: usize) -> Self {
        assert!(row_len > 0 && values.len().is_multiple_of(row_len));
        let rows = values.len() / row_len;
        Self { base: values.as_mut_ptr(), rows, row_len, across: 1, step: row_len, values: PhantomData }
    }

    /// With `across` blocks side by side, which begin at multiples of `step` columns and share the columns as evenly as these let them.
    ///
    /// # Panics
    /// When there are not so many steps.
    #[must_use]
    pub(crate) fn divided(self, across: usize, step: usize) -> Self {
        assert!(across > 0 && across <= self.row_len.div_ceil(step));
        Self { across, step, ..self }
    }

    /// The columns of one of the blocks side by side.
    fn columns(&self, index: usize) -> Range<usize> {
        let steps = self.row_len.div_ceil(self.step);
        let first = |index: usize| (steps * index / self.across * self.step).min(self.row_len);
        first(index)..first(index + 1)
    }
}

/// A rectangle of a row-major output that one task alone writes.
#[derive(Debug)]
pub(crate) struct Block<'a, T> {
    base: *mut T,
    row_len: usize,
    rows: Range<usize>,
    columns: Range<usize>,
    output: PhantomData<&'a mut [T]>,
}

impl<T> Block<'_, T> {
    /// The rows of the output that this block covers.
    pub(crate) fn rows(&self) -> Range<usize> {
        self.rows.clone()
    }

    /// The columns of the output that this block covers.
    pub(crate) fn columns(&self) -> Range<usize> {
        self.columns.clone()
    }

    /// The block's part of one of its rows.
    ///
    /// # Panics
    /// When `row` is not among [`rows`](Self::rows).
    pub(crate) fn row_mut(&mut self, row: usize) -> &mut [T] {
        assert!(self.rows.contains(&row));
        // SAFETY: `Pool::blocks` makes blocks inside outputs that are borrowed mutably for as long as they live, no two
        // of which share a row and a column; `&mut self` lets one slice of this block out at a time.
        unsafe {
            std::slice::from_raw_parts_mut(self.base.add(row * self.row_len + self.columns.start), self.columns.len())
        }
    }
}

/// The order of several outputs' tasks: the same part of each, one after the other, so that one worker makes what belongs together.
struct Interleaved<'a> {
    counts: &'a [usize],
    rounds: usize,
}

impl<'a> Interleaved<'a> {
    /// Of outputs with so many tasks each.
    fn new(counts: &'a [usize]) -> Self {
        Self { counts, rounds: counts.iter().copied().filter(|count| *count > 0).min().unwrap_or(1) }
    }

    /// How many tasks of an output come before a round.
    fn before(&self, round: usize, count: usize) -> usize {
        count * round / self.rounds
    }

    /// Which output a task belongs to, and which of that output's tasks it is.
    fn find(&self, task: usize) -> (usize, usize) {
        let all_before = |round: usize| self.counts.iter().map(|&count| self.before(round, count)).sum::<usize>();
        // No round begins after its part of all tasks.
        let mut round = task * self.rounds / self.counts.iter().sum::<usize>();
        while all_before(round + 1) <= task {
            round += 1;
        }
        let mut rest = task - all_before(round);
        for (index, &count) in self.counts.iter().enumerate() {
            let (first, end) = (self.before(round, count), self.before(round + 1, count));
            if rest < end - first {
                return (index, first + rest);
            }
            rest -= end - first;
        }
        unreachable!("a task of the outputs")
    }
}

impl Pool {
    /// A pool of `threads` workers.
    ///
    /// # Errors
    /// When the system refuses to make threads, or `threads` is 0 or absurd.
    pub(crate) fn new(threads: usize) -> Result<Self> {
        if !(1..=MOST_THREADS).contains(&threads) {
            return Err(Error::Request(format!("{threads} threads asked for; choose 1 to {MOST_THREADS}")));
        }
        let team = Team::new(threads, std::thread::available_parallelism().map_or(1, usize::from));
        let threads = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|index| format!("gemmule-{index}"))
            .build()
            .map_err(|error| Error::Request(format!("cannot start {threads} threads: {error}; ask for fewer")))?;
        Ok(Self { threads, team, entered: Mutex::default() })
    }

    /// Number of workers.
    pub(crate) fn threads(&self) -> usize {
        self.threads.current_num_threads()
    }

    /// Runs `work` on one of the pool's workers. The others stay awake for the parallel regions within. Threads that enter a pool
    /// wait for each other: nothing inside may wait for another thread that enters the same pool.
    pub(crate) fn enter<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        if self.threads() == 1 || self.threads.current_thread_index().is_some() {
            return self.threads.install(work);
        }
        let _one = self.entered.lock().unwrap_or_else(PoisonError::into_inner);
        let (work, result) = (Mutex::new(Some(work)), Mutex::new(None));
        self.team.gather();
        self.threads.broadcast(|worker| {
            // Whom the system runs first leads.
            let work = work.lock().unwrap_or_else(PoisonError::into_inner).take();
            let Some(work) = work else { return self.team.serve(worker.index()) };
            let done = self.team.lead(worker.index(), work);
            *result.lock().unwrap_or_else(PoisonError::into_inner) = Some(done);
        });
        result.into_inner().unwrap_or_else(PoisonError::into_inner).expect("one of the workers has led")
    }

    /// Runs `work(worker, task)` for every task. Workers claim one task after another, first those of their own share, so
    /// that a slow core takes fewer.
    pub(crate) fn run(&self, tasks: usize, work: impl Fn(usize, usize) + Sync) {
        self.enter(|| {
            let worker = self.threads.current_thread_index().unwrap_or(0);
            if tasks == 1 || self.threads() == 1 || !self.team.may_open(worker) {
                // Nobody is free to help inside of a region.
                (0..tasks).for_each(|task| work(worker, task));
            } else {
                self.team.run(worker, tasks, &work);
            }
        });
    }

    /// Divides outputs into blocks of at most `height` rows, side by side as the outputs say, and runs `work(worker, output, block)` for
    /// each, all in one parallel region.
    ///
    /// # Panics
    /// When `height` is 0.
    pub(crate) fn blocks<T: Send, const N: usize>(
        &self,
        outputs: [Output<'_, T>; N],
        height: usize,
        work: impl Fn(usize, usize, Block<'_, T>) + Sync,
    ) {
        let counts = outputs.each_ref().map(|output| output.rows.div_ceil(height) * output.across);
        let order = Interleaved::new(&counts);
        self.run(counts.iter().sum(), |worker, task| {
            let (index, task) = order.find(task);
            let Output { base, rows, row_len, .. } = outputs[index];
            let down = rows.div_ceil(height);
            // Neighbouring tasks share columns: what a worker unpacks for one it may find warm for the next.
            let (column, row) = (task / down, task % down * height);
            let (rows, columns) = (row..(row + height).min(rows), outputs[index].columns(column));
            work(worker, index, Block { base, row_len, rows, columns, output: PhantomData });
        });
    }

    /// Runs `work(index, row)` for every row of a row-major output.
    ///
    /// # Panics
    /// When `output` is no whole number of rows.
    pub(crate) fn rows(&self, output: &mut [f32], row_len: usize, work: impl Fn(usize, &mut [f32]) + Sync) {
        if output.len() == row_len {
            return work(0, output);
        }
        let rows = output.len() / row_len;
        let together = (rows / (self.threads() * 8)).max(1);
        self.blocks([Output::new(output, row_len)], together, |_, _, mut block| {
            block.rows().for_each(|row| work(row, block.row_mut(row)));
        });
    }

    /// Runs `work(index, item)` for every item; a single one runs here and now.
    pub(crate) fn each<T: Send>(&self, mut items: impl Iterator<Item = T> + Send, work: impl Fn(usize, T) + Sync) {
        let Some(first) = items.next() else { return };
        let Some(second) = items.next() else { return work(0, first) };
        let items: Vec<_> = [first, second].into_iter().chain(items).map(|item| Mutex::new(Some(item))).collect();
        self.run(items.len(), |_, index| {
            let item = items[index].lock().unwrap_or_else(PoisonError::into_inner).take();
            work(index, item.expect("each task runs once"));
        });
    }
}

/// One value for each worker of a pool.
#[derive(Debug, Default)]
pub(crate) struct PerWorker<T>(Vec<Mutex<T>>);

impl<T: Default> PerWorker<T> {
    /// One default value for each of `pool`'s workers.
    pub(crate) fn new(pool: &Pool) -> Self {
        Self((0..pool.threads()).map(|_| Mutex::default()).collect())
    }

    /// The value of `worker`, which alone uses it while its task runs.
    ///
    /// # Panics
    /// When that task has it already: a region within the region would wait for itself.
    pub(crate) fn of(&self, worker: usize) -> MutexGuard<'_, T> {
        match self.0[worker].try_lock() {
            Ok(value) => value,
            Err(TryLockError::Poisoned(value)) => value.into_inner(),
            Err(TryLockError::WouldBlock) => panic!("a worker's value is wanted while its own task has it"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Interleaved, Output, Pool, default_threads};

    #[test]
    fn threads_are_as_many_as_cpus_at_most() {
        let logical = std::thread::available_parallelism().map_or(1, usize::from);
        assert!((1..=logical).contains(&default_threads()));
    }

    /// More threads than cores wait for each other only where they have work, and claim it all the same.
    #[test]
    fn four_times_as_many_threads_as_cores_do_every_task_once() {
        let pool = Pool::new(default_threads() * 4).unwrap();
        let done: Vec<_> = (0..1000).map(|_| std::sync::atomic::AtomicUsize::new(0)).collect();
        pool.run(done.len(), |worker, task| {
            assert!(worker < pool.threads());
            done[task].fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        });
        assert!(done.iter().all(|count| count.load(std::sync::atomic::Ordering::Relaxed) == 1));
    }

    #[test]
    fn outputs_take_turns() {
        let order = |counts: &[usize]| -> Vec<(usize, usize)> {
            let interleaved = Interleaved::new(counts);
            (0..counts.iter().sum()).map(|task| interleaved.find(task)).collect()
        };
        assert_eq!(order(&[2, 1, 1]), [(0, 0), (0, 1), (1, 0), (2, 0)]);
        assert_eq!(order(&[2, 2]), [(0, 0), (1, 0), (0, 1), (1, 1)]);
        assert_eq!(order(&[0, 3]), [(1, 0), (1, 1), (1, 2)]);
        for counts in [[16, 8, 8], [7, 3, 5], [1, 9, 0], [5, 5, 1]] {
            let found = order(&counts);
            for index in 0..counts.len() {
                let blocks = found.iter().filter(|(output, _)| *output == index).map(|(_, block)| *block);
                assert!(
                    blocks.eq(0..counts[index]),
                    "{counts:?}: each block of output {index} once, from the first on"
                );
            }
        }
    }

    /// Every value is in one block, whose columns begin at a step, and no block is wider than another by more than a step.
    #[test]
    fn blocks_share_an_output_evenly() {
        let pool = Pool::new(2).unwrap();
        for (row_len, across, step) in [(4304, 16, 32), (100, 3, 32), (72, 1, 72), (17, 2, 16), (96, 6, 16)] {
            let mut values = vec![0u32; 5 * row_len];
            let widths = std::sync::Mutex::new(Vec::new());
            pool.blocks([Output::new(&mut values, row_len).divided(across, step)], 2, |_, _, mut block| {
                let columns = block.columns();
                assert!(columns.start.is_multiple_of(step) && block.rows().len() <= 2);
                // The last step of a row may be shorter.
                widths.lock().unwrap().push(columns.len().div_ceil(step));
                block.rows().for_each(|row| block.row_mut(row).iter_mut().for_each(|value| *value += 1));
            });
            assert!(values.iter().all(|value| *value == 1), "{row_len} columns in {across} blocks");
            let widths = widths.into_inner().unwrap();
            let (least, most) = (widths.iter().min().unwrap(), widths.iter().max().unwrap());
            assert!(widths.len() == 3 * across && *least > 0 && most - least <= 1, "{widths:?}");
        }
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]

        /// However outputs are divided, each value belongs to one block, and blocks are not higher than asked for.
        #[test]
        fn any_division_covers_every_value_once(
            sizes in proptest::collection::vec((0usize..40, 1usize..130, 1usize..33, 0.0f64..1.0), 2),
            height in 1usize..20,
            threads in 1usize..4,
        ) {
            let pool = Pool::new(threads).unwrap();
            let mut values: Vec<Vec<u32>> = sizes.iter().map(|size| vec![0; size.0 * size.1]).collect();
            let mut outputs = values.iter_mut().zip(&sizes).map(|(values, (_, row_len, step, share))| {
                let most = row_len.div_ceil(*step);
                Output::new(values, *row_len).divided(1 + ((most - 1) as f64 * share) as usize, *step)
            });
            let outputs = [outputs.next().unwrap(), outputs.next().unwrap()];
            pool.blocks(outputs, height, |_, _, mut block| {
                assert!(block.rows().len() <= height);
                block.rows().for_each(|row| block.row_mut(row).iter_mut().for_each(|value| *value += 1));
            });
            proptest::prop_assert!(values.iter().flatten().all(|value| *value == 1));
        }
    }

    /// A task that wants its worker's value twice ends with a panic, not with a wait for ever.
    #[test]
    fn a_workers_value_is_taken_once() {
        let pool = Pool::new(2).unwrap();
        let values = super::PerWorker::<usize>::new(&pool);
        let twice = || {
            pool.run(4, |worker, _| {
                let _first = values.of(worker);
                pool.run(1, |worker, _| drop(values.of(worker)));
            });
        };
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(twice)).is_err());
        pool.run(8, |worker, _| *values.of(worker) += 1);
        assert_eq!((0..2).map(|worker| *values.of(worker)).sum::<usize>(), 8);
    }

    #[test]
    fn a_panic_in_a_task_reaches_the_caller_and_the_pool_goes_on() {
        let pool = Pool::new(3).unwrap();
        for bad in [0, 57, 99] {
            let run = || pool.run(100, |_, task| assert_ne!(task, bad, "no such task"));
            assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).is_err());
            assert_eq!(count_tasks(&pool, 100), 100);
        }
    }

    fn count_tasks(pool: &Pool, tasks: usize) -> usize {
        let done = std::sync::atomic::AtomicUsize::new(0);
        pool.run(tasks, |_, _| _ = done.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
        done.into_inner()
    }

    /// Short regions in quick succession, with pauses after which the workers sleep, from several threads at a time, and inside
    /// of each other.
    #[test]
    fn regions_of_every_kind_run_each_task_once() {
        for threads in [1, 2, 5] {
            let pool = Pool::new(threads).unwrap();
            std::thread::scope(|scope| {
                for _ in 0..3 {
                    scope.spawn(|| {
                        pool.enter(|| {
                            for region in 0..300 {
                                assert_eq!(count_tasks(&pool, region % 7), region % 7);
                                if region % 100 == 0 {
                                    std::thread::sleep(std::time::Duration::from_millis(5));
                                }
                            }
                        });
                    });
                }
            });
            let inner = std::sync::atomic::AtomicUsize::new(0);
            pool.run(2 * threads, |_, _| {
                // Long enough for the leader to have no more tasks while a helper still has one.
                std::thread::sleep(std::time::Duration::from_millis(5));
                inner.fetch_add(count_tasks(&pool, 4), std::sync::atomic::Ordering::Relaxed);
            });
            assert_eq!(inner.into_inner(), 8 * threads);
            let mut rows = vec![0.0f32; 103 * 3];
            pool.rows(&mut rows, 3, |row, values| values.fill(row as f32));
            assert!(rows.iter().enumerate().all(|(at, value)| *value == (at / 3) as f32));
            let sum = std::sync::atomic::AtomicUsize::new(0);
            pool.each((0..50).map(Box::new), |index, item| {
                assert_eq!(index, *item);
                sum.fetch_add(*item, std::sync::atomic::Ordering::Relaxed);
            });
            assert_eq!(sum.into_inner(), 49 * 25);
        }
    }
}
