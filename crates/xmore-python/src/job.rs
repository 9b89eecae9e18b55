//! Work on a thread pool, which the calling thread waits for without the interpreter's lock: it handles signals meanwhile, so that Ctrl-C
//! interrupts, and does what only a thread of Python's can do.
//!
//! The library's parallel parts run in the pool that they are called from, so every call of the library is made inside a job. Pools belong to
//! a process: after a fork the child has none of its parent's threads and starts its own.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{IntoPyDict, PyModule};
use rayon::{ThreadPool, ThreadPoolBuilder};

/// How often the waiting thread handles signals while nothing else happens.
const SIGNAL_CHECK: Duration = Duration::from_millis(50);
/// Most threads of a pool.
const MAX_THREADS: usize = 1024;
/// Sets the number of threads where none is asked for, as for the command line tool.
const THREADS_VARIABLE: &str = "XMORE_THREADS";

static POOLS: Mutex<Option<Pools>> = Mutex::new(None);
/// Jobs that are running.
static RUNNING: AtomicUsize = AtomicUsize::new(0);
/// Whether this process was forked while jobs were running: locks that they held stay locked here.
static FORKED_MIDWAY: AtomicBool = AtomicBool::new(false);

/// Pools by their number of threads.
struct Pools {
    process: u32,
    by_threads: HashMap<usize, Arc<ThreadPool>>,
}

/// A job as the pool sees it.
pub(crate) struct Job<'a, E> {
    stop: &'a AtomicBool,
    events: Sender<E>,
}

impl<E> Job<'_, E> {
    /// Whether the caller wants it to end.
    pub(crate) fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Tells the waiting thread something.
    pub(crate) fn tell(&self, event: E) {
        // The waiting thread stays until the job ends.
        let _ = self.events.send(event);
    }
}

/// Runs `work` on the pool of so many threads. The calling thread calls `turn` at the beginning, for each event that the job tells, and now and then
/// between; an error of `turn` or of a signal's handler stops the job and is raised when it has ended.
pub(crate) fn run<'py, R: Send, E: Send>(
    py: Python<'py>,
    threads: Option<NonZeroUsize>,
    work: impl FnOnce(&Job<'_, E>) -> R + Send,
    turn: &mut dyn FnMut(Python<'py>, Option<E>) -> PyResult<()>,
) -> PyResult<R> {
    let pool = pool(threads)?;
    let (stop, mut result, mut failed) = (AtomicBool::new(false), None, None);
    let (events, mut told) = channel();
    let _running = Running::start();
    pool.in_place_scope(|scope| {
        let (slot, stop) = (&mut result, &stop);
        scope.spawn(move |_| *slot = Some(work(&Job { stop, events })));
        let mut event = None;
        loop {
            if failed.is_none()
                && let Err(error) = turn(py, event.take()).and_then(|()| py.check_signals())
            {
                failed = Some(error);
                stop.store(true, Ordering::Relaxed);
            }
            let told = &mut told;
            match py.detach(move || told.recv_timeout(SIGNAL_CHECK)) {
                Ok(next) => event = Some(next),
                Err(RecvTimeoutError::Timeout) => event = None,
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
    });
    match (failed, result) {
        (Some(error), _) => Err(error),
        (None, Some(result)) => Ok(result),
        // A panic of the job has passed through the scope.
        (None, None) => Err(PyRuntimeError::new_err("the job ended without a result")),
    }
}

/// Runs work that tells nothing.
pub(crate) fn call<R: Send>(
    py: Python<'_>,
    threads: Option<NonZeroUsize>,
    work: impl FnOnce() -> R + Send,
) -> PyResult<R> {
    run(py, threads, |_: &Job<'_, ()>| work(), &mut |_, _| Ok(()))
}

/// A number of threads that was asked for.
pub(crate) fn threads(asked: Option<usize>) -> PyResult<Option<NonZeroUsize>> {
    let Some(asked) = asked else { return Ok(None) };
    match NonZeroUsize::new(asked).filter(|threads| threads.get() <= MAX_THREADS) {
        Some(threads) => Ok(Some(threads)),
        None => Err(PyValueError::new_err(format!("threads: expected 1 to {MAX_THREADS}, found {asked}"))),
    }
}

/// The number of threads that a job runs on.
pub(crate) fn thread_count(asked: Option<NonZeroUsize>) -> usize {
    let set = || std::env::var(THREADS_VARIABLE).ok()?.parse::<NonZeroUsize>().ok();
    let cores = || std::thread::available_parallelism().ok();
    asked.or_else(set).or_else(cores).map_or(1, NonZeroUsize::get).min(MAX_THREADS)
}

/// The pool of this process with so many threads. To be called with the interpreter's lock, so that no fork comes between.
fn pool(threads: Option<NonZeroUsize>) -> PyResult<Arc<ThreadPool>> {
    if FORKED_MIDWAY.load(Ordering::Relaxed) {
        return Err(PyRuntimeError::new_err(
            "this process was forked while xmore was computing in its parent, whose locks it has inherited: fork before or \
             between calls of xmore, or start processes by multiprocessing's methods `spawn` or `forkserver`",
        ));
    }
    let threads = thread_count(threads);
    let mut pools = POOLS.lock().unwrap_or_else(PoisonError::into_inner);
    let process = std::process::id();
    if pools.as_ref().is_some_and(|pools| pools.process != process) {
        // Their threads are the parent's: ending them would wait for locks that no thread here releases.
        std::mem::forget(pools.take());
    }
    let pools = pools.get_or_insert_with(|| Pools { process, by_threads: HashMap::new() });
    if let Some(pool) = pools.by_threads.get(&threads) {
        return Ok(pool.clone());
    }
    let pool = ThreadPoolBuilder::new().num_threads(threads).thread_name(|i| format!("xmore-{i}")).build();
    let pool = pool.map_err(|error| {
        PyRuntimeError::new_err(format!("cannot start {threads} threads: {error}; ask for fewer"))
    })?;
    Ok(pools.by_threads.entry(threads).or_insert(Arc::new(pool)).clone())
}

/// Counts a job as long as it runs.
struct Running(());

impl Running {
    fn start() -> Self {
        RUNNING.fetch_add(1, Ordering::SeqCst);
        Self(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        RUNNING.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Has the interpreter say when a process was forked.
pub(crate) fn watch_forks(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    let os = py.import("os")?;
    // Windows has no forks.
    let Some(register) = os.getattr_opt("register_at_fork")? else { return Ok(()) };
    let after_fork = wrap_pyfunction!(after_fork_in_child, module)?;
    register.call((), Some(&[("after_in_child", after_fork)].into_py_dict(py)?))?;
    Ok(())
}

#[pyfunction]
fn after_fork_in_child() {
    if RUNNING.swap(0, Ordering::SeqCst) > 0 {
        FORKED_MIDWAY.store(true, Ordering::SeqCst);
    }
}
