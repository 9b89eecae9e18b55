//! Threads of a pool, each bound to a processor of its own.
//!
//! Where a pool has a thread for each processor, a system that moves threads can put two of them on one while another is idle, for as long as a pass over an
//! image takes: Linux 6.18 did so on a machine of two processors after other programs had run (docs/decisions/threads.md).

/// What each thread of a pool of so many runs at its start, with its number: it is bound to one of the processors that this process may use, if there are as
/// many as threads. Else, and where the system knows no such thing (any but Linux) or refuses it, threads run where the system puts them.
///
/// For `rayon::ThreadPoolBuilder::start_handler`. Threads that a bound thread starts are bound as it is.
pub fn bind_threads(threads: usize) -> impl Fn(usize) + Send + Sync + 'static {
    let processors = allowed_processors();
    let processors = if processors.len() == threads { processors } else { Vec::new() };
    move |thread| {
        if let Some(&processor) = processors.get(thread) {
            bind(processor);
        }
    }
}

/// The processors on which this thread may run; none where that is not known.
#[cfg(target_os = "linux")]
fn allowed_processors() -> Vec<usize> {
    use rustix::thread::{CpuSet, sched_getaffinity};
    let allowed = sched_getaffinity(None).ok();
    allowed.map_or_else(Vec::new, |set| (0..CpuSet::MAX_CPU).filter(|&n| set.is_set(n)).collect())
}

#[cfg(not(target_os = "linux"))]
fn allowed_processors() -> Vec<usize> {
    Vec::new()
}

/// Binds this thread, unless the system refuses it: it runs either way.
#[cfg(target_os = "linux")]
fn bind(processor: usize) {
    use rustix::thread::{CpuSet, sched_setaffinity};
    let mut set = CpuSet::new();
    set.set(processor);
    let _ = sched_setaffinity(None, &set);
}

#[cfg(not(target_os = "linux"))]
fn bind(_: usize) {}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    /// Where each thread of a pool may run.
    fn places(threads: usize, bound_for: usize) -> Vec<Vec<usize>> {
        let builder = rayon::ThreadPoolBuilder::new().num_threads(threads);
        let pool = builder.start_handler(bind_threads(bound_for)).build().unwrap();
        pool.broadcast(|_| allowed_processors())
    }

    #[test]
    fn a_thread_for_each_processor_has_it_alone() {
        let processors = allowed_processors();
        assert!(!processors.is_empty());
        let expected: Vec<_> = processors.iter().map(|&n| vec![n]).collect();
        assert_eq!(places(processors.len(), processors.len()), expected);
        assert_eq!(allowed_processors(), processors, "the thread that made the pool is not bound");
    }

    #[test]
    fn fewer_or_more_threads_are_not_bound() {
        let processors = allowed_processors();
        for threads in [processors.len() - 1, processors.len() + 1] {
            let places = places(threads.max(1), threads);
            assert!(places.iter().all(|place| *place == processors), "{threads}: {places:?}");
        }
    }
}
