//! SIGINT, SIGTERM and SIGHUP: the first lets a command keep what is done, the second ends it at once. A command that has not ended
//! [`GRACE`] after the first is ended too.
//!
//! A thread of its own receives them, so that a command ends even while it waits for a disk, a server or another program. `xmore serve`
//! has its own handling in `xmore-server`.

use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::time::Duration;

use crate::messages::tell;

/// The longest time from the first signal to the end of a command that keeps what is done.
const GRACE: Duration = Duration::from_secs(10);

/// The signal received first, 0 before.
static RECEIVED: AtomicI32 = AtomicI32::new(0);
/// Whether the running command checks [`requested`].
static ORDERLY: AtomicBool = AtomicBool::new(false);

/// While this value exists, the first signal only sets [`requested`]; otherwise it ends the program at once.
pub(crate) struct Orderly(());

/// For a command that keeps what is done: it must check [`requested`] often, and end when it is true.
pub(crate) fn orderly() -> Orderly {
    ORDERLY.store(true, Ordering::SeqCst);
    Orderly(())
}

impl Drop for Orderly {
    fn drop(&mut self) {
        ORDERLY.store(false, Ordering::SeqCst);
    }
}

/// Whether a signal asked the command to end.
pub(crate) fn requested() -> bool {
    RECEIVED.load(Ordering::SeqCst) != 0
}

/// The exit status of a command that a signal ended: 128 and the signal's number, as shells have it.
pub(crate) fn exit_status() -> u8 {
    // Signals are below 64.
    128 + RECEIVED.load(Ordering::SeqCst) as u8
}

/// Begins to receive signals. Those that the caller has set to be ignored, as `nohup` does, stay ignored.
#[cfg(unix)]
pub(crate) fn install() {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

    let ignored = ignored();
    let wanted = [SIGINT, SIGTERM, SIGHUP].into_iter().filter(|signal| ignored >> (signal - 1) & 1 == 0);
    // Without a handler or a thread, a signal ends the program at once.
    let Ok(signals) = signal_hook::iterator::Signals::new(wanted) else { return };
    let _ = std::thread::Builder::new().name("signals".to_owned()).spawn(move || receive(signals));
}

/// Other platforms: Ctrl-C ends the program at once.
#[cfg(not(unix))]
pub(crate) fn install() {}

#[cfg(unix)]
fn receive(mut signals: signal_hook::iterator::Signals) {
    let Some(first) = signals.forever().next() else { return };
    RECEIVED.store(first, Ordering::SeqCst);
    if !ORDERLY.load(Ordering::SeqCst) {
        exit_now(first);
    }
    tell!("stopping: what is done is kept; a second signal stops at once");
    let start = std::time::Instant::now();
    while start.elapsed() < GRACE {
        if let Some(second) = signals.pending().next() {
            exit_now(second);
        }
        // A command that is done meanwhile ends the program from its own thread.
        std::thread::sleep(Duration::from_millis(20));
    }
    tell!("stopped after {} s: the running step did not end", GRACE.as_secs());
    exit_now(first);
}

/// Ends the program from the signals' thread: no destructor runs, so unfinished files are removed here.
#[cfg(unix)]
fn exit_now(signal: i32) -> ! {
    RECEIVED.store(signal, Ordering::SeqCst);
    xmore_hub::fetch::end_tools();
    xmore_files::remove_unfinished_outputs();
    std::process::exit(i32::from(exit_status()))
}

/// The signals that are ignored, a bit for each; none where the system has no `/proc`.
#[cfg(unix)]
fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}
