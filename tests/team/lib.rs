//! The scheduler's team, `src/sched/team.rs`, built on [loom](https://docs.rs/loom), which runs a few threads in every order that their
//! accesses to memory can have, and finds values that are read before they are written for the reader.
#![cfg(test)]

#[path = "../../src/sched/team.rs"]
mod team;

/// What the team is built on. Loom takes a sequentially consistent access for one that acquires and releases; the fences around it stand
/// for the difference.
mod sync {
    use loom::sync::atomic;
    use std::sync::atomic::Ordering;

    pub(super) use loom::hint::spin_loop;
    pub(super) use loom::sync::{Condvar, Mutex};
    pub(super) use loom::thread::yield_now;

    fn in_total_order<R>(order: Ordering, access: impl FnOnce() -> R) -> R {
        let fence = || {
            if order == Ordering::SeqCst {
                atomic::fence(Ordering::SeqCst);
            }
        };
        fence();
        let result = access();
        fence();
        result
    }

    macro_rules! wrapped {
        ($name:ident $(<$T:ident>)?, $value:ty, $none:expr) => {
            pub(super) struct $name $(<$T>)? (atomic::$name $(<$T>)?);

            impl $(<$T>)? Default for $name $(<$T>)? {
                fn default() -> Self {
                    Self(atomic::$name::new($none))
                }
            }

            impl $(<$T>)? std::fmt::Debug for $name $(<$T>)? {
                fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                    out.write_str(stringify!($name))
                }
            }

            impl $(<$T>)? $name $(<$T>)? {
                pub(super) fn load(&self, order: Ordering) -> $value {
                    in_total_order(order, || self.0.load(order))
                }

                pub(super) fn store(&self, value: $value, order: Ordering) {
                    in_total_order(order, || self.0.store(value, order));
                }
            }
        };
    }

    wrapped!(AtomicUsize, usize, 0);
    wrapped!(AtomicBool, bool, false);
    wrapped!(AtomicPtr<T>, *mut T, std::ptr::null_mut());

    impl AtomicUsize {
        pub(super) fn fetch_add(&self, value: usize, order: Ordering) -> usize {
            in_total_order(order, || self.0.fetch_add(value, order))
        }

        pub(super) fn fetch_sub(&self, value: usize, order: Ordering) -> usize {
            in_total_order(order, || self.0.fetch_sub(value, order))
        }
    }
}

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;

use team::Team;

/// What tasks write: loom sees who writes or reads one while another does, or before it can know of it.
struct Outputs(Vec<UnsafeCell<usize>>);

// SAFETY: loom panics where two threads are at one cell.
unsafe impl Sync for Outputs {}

impl Outputs {
    fn new(count: usize) -> Self {
        Self((0..count).map(|_| UnsafeCell::new(0)).collect())
    }

    fn add(&self, at: usize) {
        // SAFETY: loom panics where another thread is here.
        self.0[at].with_mut(|value| unsafe { *value += 1 });
    }

    fn read(&self, at: usize) -> usize {
        // SAFETY: loom panics where another thread writes here.
        self.0[at].with(|value| unsafe { *value })
    }
}

/// Runs `lead` on worker 0 of a team, whose other workers serve, in every order with up to `preemptions` interruptions.
fn in_every_order(workers: usize, preemptions: usize, lead: impl Fn(&Team) + Send + Sync + 'static) {
    let lead = std::sync::Arc::new(lead);
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(preemptions);
    model.check(move || {
        // Crowded, so that workers sleep: what is between is only more waiting.
        let team = Arc::new(Team::new(workers, 1));
        team.gather();
        let serve = |worker| {
            let team = Arc::clone(&team);
            thread::spawn(move || team.serve(worker))
        };
        let served: Vec<_> = (1..workers).map(serve).collect();
        team.lead(0, || lead(&team));
        served.into_iter().for_each(|thread| thread.join().unwrap());
    });
}

/// Each task runs once, and what it has written is there for the leader, and for the next region's tasks.
fn regions(team: &Team, counts: &[usize]) {
    let outputs = Outputs::new(counts.iter().copied().max().unwrap_or(0));
    for (region, tasks) in counts.iter().enumerate() {
        team.run(0, *tasks, &|_, task| outputs.add(task));
        for task in 0..*tasks {
            assert_eq!(outputs.read(task), region + 1);
        }
    }
}

#[test]
fn one_region_of_two_workers() {
    in_every_order(2, 4, |team| regions(team, &[3]));
}

#[test]
fn two_regions_of_two_workers() {
    in_every_order(2, 3, |team| regions(team, &[2, 2]));
}

#[test]
fn a_region_of_three_workers() {
    in_every_order(3, 2, |team| regions(team, &[2]));
}

#[test]
fn a_leader_without_a_region() {
    in_every_order(3, 2, |_| ());
}

/// The panic of a helper's task comes to the leader when nobody is inside the region any more. (Loom runs all threads on one, so that
/// the leader's own panic would poison what others lock meanwhile.)
#[test]
fn a_panic_within_a_task() {
    in_every_order(2, 3, |team| {
        let outputs = Outputs::new(2);
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            team.run(0, 2, &|worker, task| {
                outputs.add(task);
                if worker == 1 {
                    std::panic::resume_unwind(Box::new("a task's"));
                }
            });
        }));
        let done = [outputs.read(0), outputs.read(1)];
        assert!(result.is_err() || done == [1, 1], "{done:?}");
        regions(team, &[1]);
    });
}
