//! Keeping the thread pool's threads spinning during one forward pass, so that none is blocked when the next step begins.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rayon::Yield;

/// A thread that found no work for so long returns to the pool, which may block it.
const SPIN_TIME: Duration = Duration::from_micros(300);

/// Runs `work` on the pool while the other threads poll for parts of it instead of blocking.
///
/// A pass over one image is a hundred parallel steps with short serial ones between them. Called from outside the pool, each step would
/// unblock the pool and block the caller; called from inside, rayon's threads would still block between steps, and unblocking one takes as
/// long as a step of a small layer. A polling thread takes any job of the pool.
pub(crate) fn with_spinning_pool<R: Send>(work: impl FnOnce() -> R + Send) -> R {
    let done = AtomicBool::new(false);
    let run = || {
        let caller = rayon::current_thread_index();
        let watch = || {
            // The caller would wait for itself.
            if rayon::current_thread_index() == caller {
                return;
            }
            let mut since = Instant::now();
            while !done.load(Ordering::Acquire) {
                match rayon::yield_now() {
                    Some(Yield::Executed) => since = Instant::now(),
                    _ if since.elapsed() > SPIN_TIME => return,
                    _ => std::hint::spin_loop(),
                }
            }
        };
        rayon::scope(|scope| {
            for _ in 1..rayon::current_num_threads() {
                scope.spawn(|_| watch());
            }
            // Dropped at the end of `work`, also when it panics.
            let _end = End(&done);
            work()
        })
    };
    if rayon::current_thread_index().is_some() { run() } else { rayon::join(run, || ()).0 }
}

struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use rayon::prelude::*;

    use super::*;

    #[test]
    fn gives_the_result_from_outside_and_inside_and_nested() {
        let sum = || (0..1000u64).into_par_iter().sum::<u64>();
        assert_eq!(with_spinning_pool(sum), 499_500);
        let nested: Vec<u64> =
            (0..8).into_par_iter().map(|_| with_spinning_pool(|| with_spinning_pool(sum) + sum())).collect();
        assert_eq!(nested, [999_000; 8]);
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        assert_eq!(pool.install(|| with_spinning_pool(sum)), 499_500);
    }

    #[test]
    fn a_panic_passes_through() {
        let result = std::panic::catch_unwind(|| with_spinning_pool(|| panic!("as expected")));
        assert!(result.is_err());
        assert_eq!(with_spinning_pool(|| 1), 1);
    }

    #[test]
    fn passes_side_by_side_come_to_an_end() {
        let passes: Vec<_> = (0..6)
            .map(|_| {
                std::thread::spawn(|| {
                    (0..50)
                        .map(|_| with_spinning_pool(|| (0..64u64).into_par_iter().sum::<u64>()))
                        .sum::<u64>()
                })
            })
            .collect();
        for pass in passes {
            assert_eq!(pass.join().unwrap(), 50 * 2016);
        }
    }
}
