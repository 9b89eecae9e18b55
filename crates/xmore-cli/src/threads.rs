//! How many threads compute, and how the program ends where the system refuses threads or memory.

use std::num::NonZeroUsize;

use crate::error::{CliError, Result};

/// Threads allowed on a machine with few cores: enough to try what more threads do.
const ALWAYS_ALLOWED: usize = 16;
/// Threads allowed for each core: with many more, they wait for each other at every step.
const PER_CORE: usize = 4;

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, NonZeroUsize::get)
}

/// The most threads that --threads takes here.
fn max_threads() -> usize {
    (PER_CORE * cores()).max(ALWAYS_ALLOWED)
}

/// The value of --threads.
pub(crate) fn parse(text: &str) -> Result<NonZeroUsize, String> {
    text.parse().ok().filter(|n: &NonZeroUsize| n.get() <= max_threads()).ok_or_else(|| {
        format!(
            "expected 1 to {}: this machine has {} cores, and more threads only wait for each other",
            max_threads(),
            cores()
        )
    })
}

/// Set to 0, threads are not bound to processors.
const BIND_VARIABLE: &str = "XMORE_BIND_THREADS";

/// Starts the threads that compute; all cores without a number, each bound to one of them.
pub(crate) fn start(threads: Option<NonZeroUsize>) -> Result<()> {
    let threads = threads.map_or_else(|| cores().min(max_threads()), NonZeroUsize::get);
    let mut builder = rayon::ThreadPoolBuilder::new().num_threads(threads);
    if std::env::var_os(BIND_VARIABLE).is_none_or(|value| value != "0") {
        builder = builder.start_handler(xmore_clip::bind_threads(threads));
    }
    builder.build_global().map_err(|error| {
        CliError::Failed(format!(
            "cannot start {threads} threads: {error}; fewer can be asked for with --threads"
        ))
    })
}

/// Ends the program with exit status 1 and without a core dump where memory is refused: the standard library prints how many bytes were
/// asked for and aborts.
pub(crate) fn exit_where_memory_is_refused() {
    #[cfg(unix)]
    {
        use std::sync::Arc;
        use std::sync::atomic::AtomicBool;
        // Without the handler it ends by the signal.
        let _ = signal_hook::flag::register_conditional_shutdown(
            signal_hook::consts::SIGABRT,
            1,
            Arc::new(AtomicBool::new(true)),
        );
    }
}
