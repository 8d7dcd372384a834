//! Workers that stay awake between one parallel region and the next. A forward pass has some hundred regions with a few
//! microseconds between them; a worker that sleeps meanwhile is late for the next one.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr::null_mut;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::sync::{AtomicBool, AtomicPtr, AtomicUsize, Condvar, Mutex, spin_loop, yield_now};

/// How often a worker looks for the next region before it lets others run meanwhile.
const SPINS: usize = 64;

/// How long a worker without work stays awake: longer than any part of a forward pass that one worker computes alone, and short
/// beside what other sessions or programs could do with its processor.
const AWAKE: Duration = Duration::from_micros(300);

/// What a region's workers run: `work(worker, task)`.
type Work<'a> = dyn Fn(usize, usize) + Sync + 'a;

/// The next task of a worker's share. Apart from the others in memory: claiming from it does not disturb them.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Share(AtomicUsize);

/// A parallel region, on its leader's stack.
struct Region<'a> {
    work: &'a Work<'a>,
    tasks: usize,
    shares: &'a [Share],
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

impl Region<'_> {
    /// The first task of a worker's share; the next worker's ends it.
    fn first(&self, worker: usize) -> usize {
        self.tasks * worker / self.shares.len()
    }

    /// Claims one task after another until there are no more: first of its own share, then of those that the others have not
    /// got to. What a worker computes in one region, the same part of the next region mostly reads.
    fn work(&self, worker: usize) {
        let workers = self.shares.len();
        for owner in (worker..workers).chain(0..worker) {
            let (next, end) = (&self.shares[owner].0, self.first(owner + 1));
            while next.load(Ordering::Relaxed) < end {
                let task = next.fetch_add(1, Ordering::Relaxed);
                if task < end {
                    (self.work)(worker, task);
                }
            }
        }
    }

    /// As [`work`](Self::work); keeps a panic for the leader.
    fn help(&self, worker: usize) {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| self.work(worker))) {
            self.end();
            self.panic.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(panic);
        }
    }

    /// Leaves no task to be claimed.
    fn end(&self) {
        self.shares.iter().for_each(|share| share.0.store(self.tasks, Ordering::Relaxed));
    }
}

/// One leader, which opens regions, and the workers that help in them.
#[derive(Debug, Default)]
pub(super) struct Team {
    /// Odd while a region is open.
    epoch: AtomicUsize,
    /// The open region.
    region: AtomicPtr<Region<'static>>,
    /// Workers that look at the open region.
    inside: AtomicUsize,
    /// One for each worker.
    shares: Vec<Share>,
    /// Whether there is a leader, and which worker it is.
    led: AtomicBool,
    leader: AtomicUsize,
    /// Workers without work sleep at once: there are more of them than processors.
    crowded: bool,
    sleeping: AtomicUsize,
    sleep: Mutex<()>,
    wake: Condvar,
}

impl Team {
    /// A team of `workers`, leader included; they sleep at once where there are more of them than processors.
    pub(super) fn new(workers: usize, processors: usize) -> Self {
        let shares = (0..workers).map(|_| Share::default()).collect();
        Self { crowded: workers > processors, shares, ..Self::default() }
    }

    /// Runs the leader's part on `worker`. The others serve until its end.
    pub(super) fn lead<R>(&self, worker: usize, work: impl FnOnce() -> R) -> R {
        struct End<'a>(&'a Team);
        impl Drop for End<'_> {
            fn drop(&mut self) {
                self.0.led.store(false, Ordering::SeqCst);
                self.0.wake_sleepers();
            }
        }
        self.leader.store(worker, Ordering::SeqCst);
        let _end = End(self);
        work()
    }

    /// Gets ready for a leader; before any worker calls [`lead`](Self::lead) or [`serve`](Self::serve).
    pub(super) fn gather(&self) {
        self.led.store(true, Ordering::SeqCst);
    }

    /// Whether `worker` is the leader outside of a region, who alone may open one. A helper always is inside of one.
    pub(super) fn may_open(&self, worker: usize) -> bool {
        self.leader.load(Ordering::SeqCst) == worker && self.epoch.load(Ordering::SeqCst).is_multiple_of(2)
    }

    /// The leader, which is `worker`, runs a region, with the help of whoever serves.
    ///
    /// # Panics
    /// When the worker [may not](Self::may_open), or a task has panicked.
    pub(super) fn run(&self, worker: usize, tasks: usize, work: &Work<'_>) {
        struct Close<'a>(&'a Team, &'a Region<'a>);
        impl Drop for Close<'_> {
            /// Waits for the helpers inside, which borrow the region. After a panic of the leader they claim no more.
            fn drop(&mut self) {
                self.1.end();
                self.0.epoch.fetch_add(1, Ordering::SeqCst);
                let mut round = 0;
                while self.0.inside.load(Ordering::SeqCst) > 0 {
                    pause(&mut round);
                }
                self.0.region.store(null_mut(), Ordering::Relaxed);
            }
        }
        assert!(self.may_open(worker), "a region inside of a region");
        let region = Region { work, tasks, shares: &self.shares, panic: Mutex::default() };
        for (worker, share) in self.shares.iter().enumerate() {
            share.0.store(region.first(worker), Ordering::Relaxed);
        }
        self.region.store((&raw const region).cast_mut().cast(), Ordering::Relaxed);
        self.epoch.fetch_add(1, Ordering::SeqCst);
        let close = Close(self, &region);
        self.wake_sleepers();
        region.work(worker);
        drop(close);
        if let Some(panic) = region.panic.into_inner().unwrap_or_else(PoisonError::into_inner) {
            resume_unwind(panic);
        }
    }

    /// Helps in one region after another until the leader ends.
    pub(super) fn serve(&self, worker: usize) {
        let mut seen = 0;
        while let Some(epoch) = self.wait(seen) {
            self.inside.fetch_add(1, Ordering::SeqCst);
            if self.epoch.load(Ordering::SeqCst) == epoch {
                let region = self.region.load(Ordering::Relaxed);
                // SAFETY: the leader stored the pointer before it made the epoch odd, and waits in `Close::drop` until nobody
                // is inside before the region ends. Accesses to `epoch` and `inside` are sequentially consistent: this worker
                // has seen the region open after it had gone inside, so the leader, which closes it first, sees it there.
                unsafe { &*region }.help(worker);
            }
            self.inside.fetch_sub(1, Ordering::SeqCst);
            seen = epoch;
        }
    }

    /// Waits for a region other than `seen`; nothing when the leader has ended.
    fn wait(&self, seen: usize) -> Option<usize> {
        let (mut start, mut round) = (Instant::now(), 0);
        loop {
            let epoch = self.epoch.load(Ordering::SeqCst);
            if epoch != seen && !epoch.is_multiple_of(2) {
                return Some(epoch);
            }
            if !self.led.load(Ordering::SeqCst) {
                return None;
            }
            if self.crowded || (round > SPINS && start.elapsed() > AWAKE) {
                self.sleep(epoch);
                // The region that woke it may be over; the next one is near.
                (start, round) = (Instant::now(), 0);
            } else {
                pause(&mut round);
            }
        }
    }

    /// Sleeps until the epoch is another, or the leader has ended.
    fn sleep(&self, epoch: usize) {
        let mut guard = self.sleep.lock().unwrap_or_else(PoisonError::into_inner);
        // Counted before it looks: who changes what it looks at, looks at the count afterwards.
        self.sleeping.fetch_add(1, Ordering::SeqCst);
        while self.epoch.load(Ordering::SeqCst) == epoch && self.led.load(Ordering::SeqCst) {
            guard = self.wake.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
        self.sleeping.fetch_sub(1, Ordering::SeqCst);
    }

    fn wake_sleepers(&self) {
        if self.sleeping.load(Ordering::SeqCst) > 0 {
            // A worker that has looked at the epoch waits by the time the lock is free.
            drop(self.sleep.lock().unwrap_or_else(PoisonError::into_inner));
            self.wake.notify_all();
        }
    }
}

/// Waits a moment: first only for the processor, then for whoever else wants it.
fn pause(round: &mut usize) {
    if *round < SPINS {
        spin_loop();
    } else {
        yield_now();
    }
    *round += 1;
}
