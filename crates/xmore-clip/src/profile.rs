//! Where the time goes: with `XMORE_PROFILE=1` in the environment, seconds and FLOP rates by kind of layer.
//!
//! Times are summed over threads. Without the variable a measured block costs one atomic read.

use std::collections::BTreeMap;
use std::sync::{LazyLock, Mutex};
use std::time::{Duration, Instant};

static ENABLED: LazyLock<bool> =
    LazyLock::new(|| std::env::var_os("XMORE_PROFILE").is_some_and(|v| v != "0" && !v.is_empty()));
static TIMES: Mutex<BTreeMap<&'static str, Entry>> = Mutex::new(BTreeMap::new());

#[derive(Clone, Copy, Default)]
struct Entry {
    calls: usize,
    time: Duration,
    flops: usize,
}

/// Whether times are taken.
pub(crate) fn enabled() -> bool {
    *ENABLED
}

/// Runs `work`, which multiplies and adds `flops` / 2 times, and notes how long it took.
pub(crate) fn time<T>(name: &'static str, flops: usize, work: impl FnOnce() -> T) -> T {
    if !*ENABLED {
        return work();
    }
    let start = Instant::now();
    let result = work();
    let time = start.elapsed();
    if let Ok(mut times) = TIMES.lock() {
        let entry = times.entry(name).or_default();
        entry.calls += 1;
        entry.time += time;
        entry.flops += flops;
    }
    result
}

/// The times so far as a table, if `XMORE_PROFILE` is set: kind of layer, calls, milliseconds, share, GFLOP/s.
pub fn profile_report() -> Option<String> {
    if !*ENABLED {
        return None;
    }
    let times = TIMES.lock().ok()?;
    let total: Duration = times.values().map(|entry| entry.time).sum();
    let mut lines = vec![format!("{:<16}{:>8}{:>12}{:>8}{:>12}", "layer", "calls", "ms", "share", "GFLOP/s")];
    let mut entries: Vec<_> = times.iter().collect();
    entries.sort_by_key(|(_, entry)| std::cmp::Reverse(entry.time));
    for (name, Entry { calls, time, flops }) in entries {
        let seconds = time.as_secs_f64();
        let share = 100.0 * seconds / total.as_secs_f64();
        let rate = if *flops == 0 { String::new() } else { format!("{:.0}", *flops as f64 / seconds / 1e9) };
        lines.push(format!("{name:<16}{calls:>8}{:>12.2}{share:>7.1}%{rate:>12}", seconds * 1e3));
    }
    Some(lines.join("\n"))
}
