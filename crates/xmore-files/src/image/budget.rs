//! Memory for decoding: one budget in bytes for all decodes of the process together.

use std::sync::{Condvar, LazyLock, Mutex, MutexGuard, PoisonError};

/// Largest default budget, in bytes: a progressive photo of 200 megapixels fits.
const MAX_BY_DEFAULT: u64 = 2 << 30;
/// Smallest default budget, in bytes.
const MIN_BY_DEFAULT: u64 = 256 << 20;

static PROCESS: LazyLock<DecodeBudget> = LazyLock::new(|| DecodeBudget::new(default_bytes()));

/// Bytes that all decodes of this process together may take: files, decoders' own memory, and pixels until they are dropped.
///
/// By default half of the machine's memory (or of the control group's limit), but between 256 MiB and 2 GiB.
pub fn decode_memory() -> u64 {
    PROCESS.lock().capacity
}

/// Changes [`decode_memory`]. Images that are being decoded are finished; those that wait are checked against the new value.
pub fn set_decode_memory(bytes: u64) {
    PROCESS.set_capacity(bytes);
}

/// The budget of this process.
pub(super) fn process() -> &'static DecodeBudget {
    &PROCESS
}

/// Bytes that are reserved in the order of asking (first come, first served): a request for more than is free waits, and so do all later ones,
/// so that small images do not starve a large one.
pub(super) struct DecodeBudget {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    capacity: u64,
    used: u64,
    /// The number of the next request.
    next: u64,
    /// The number of the request that is served next.
    turn: u64,
}

/// More was asked for than the whole budget.
#[derive(Debug, PartialEq)]
pub(super) struct NeverFits {
    /// In bytes.
    pub(super) capacity: u64,
}

impl DecodeBudget {
    pub(super) const fn new(capacity: u64) -> Self {
        Self { state: Mutex::new(State { capacity, used: 0, next: 0, turn: 0 }), changed: Condvar::new() }
    }

    /// Waits until `bytes` are free and reserves them.
    ///
    /// A thread must not wait for others that might ask while it holds a reservation: see there.
    pub(super) fn take(&'static self, bytes: u64) -> Result<Reservation, NeverFits> {
        let mut state = self.lock();
        let number = state.next;
        state.next += 1;
        loop {
            let mine = state.turn == number;
            if mine && bytes > state.capacity {
                let capacity = state.capacity;
                self.serve_next(&mut state);
                return Err(NeverFits { capacity });
            }
            if mine && state.used.saturating_add(bytes) <= state.capacity {
                state.used += bytes;
                self.serve_next(&mut state);
                return Ok(Reservation { budget: self, bytes });
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn serve_next(&self, state: &mut State) {
        state.turn += 1;
        self.changed.notify_all();
    }

    fn release(&self, bytes: u64) {
        self.lock().used -= bytes;
        self.changed.notify_all();
    }

    fn set_capacity(&self, bytes: u64) {
        self.lock().capacity = bytes;
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A share of the budget, released when it is dropped.
///
/// The thread that holds it must not run other work meanwhile that may reserve memory too, such as tasks that it takes from a thread pool
/// while it waits for its own: they would wait for what this thread holds, and it for them: a deadlock.
pub(super) struct Reservation {
    budget: &'static DecodeBudget,
    bytes: u64,
}

impl Reservation {
    /// Releases all but `bytes`.
    pub(super) fn shrink(&mut self, bytes: u64) {
        let surplus = self.bytes.saturating_sub(bytes);
        self.bytes -= surplus;
        self.budget.release(surplus);
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.budget.release(self.bytes);
    }
}

impl std::fmt::Debug for Reservation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Reservation({} bytes)", self.bytes)
    }
}

fn default_bytes() -> u64 {
    available_memory().map_or(MAX_BY_DEFAULT, |bytes| bytes / 2).clamp(MIN_BY_DEFAULT, MAX_BY_DEFAULT)
}

/// The machine's memory or the control group's limit, whichever is less, where the system says (Linux).
fn available_memory() -> Option<u64> {
    let machine = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| total_of(&text));
    let group = std::fs::read_to_string("/sys/fs/cgroup/memory.max")
        .ok()
        .and_then(|text| text.trim().parse::<u64>().ok());
    machine.into_iter().chain(group).min()
}

/// `MemTotal` of `/proc/meminfo`, in bytes.
fn total_of(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::sync::mpsc::channel;
    use std::thread;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn budget(capacity: u64) -> &'static DecodeBudget {
        Box::leak(Box::new(DecodeBudget::new(capacity)))
    }

    #[test]
    fn what_never_fits_is_refused_and_blocks_no_other() {
        let budget = budget(100);
        let held = budget.take(60).unwrap();
        assert_eq!(budget.take(101).unwrap_err(), NeverFits { capacity: 100 });
        assert_eq!(budget.take(u64::MAX).unwrap_err(), NeverFits { capacity: 100 });
        drop(budget.take(40).unwrap());
        drop(held);
        drop(budget.take(100).unwrap());
    }

    #[test]
    fn a_large_one_is_served_before_small_ones_that_ask_later() {
        let budget = budget(100);
        let first = budget.take(50).unwrap();
        let (send, receive) = channel();
        let large = thread::spawn({
            let send = send.clone();
            move || {
                let reservation = budget.take(100).unwrap();
                send.send("large").unwrap();
                drop(reservation);
            }
        });
        while budget.lock().next < 2 {
            thread::yield_now();
        }
        let small = thread::spawn(move || {
            let reservation = budget.take(10).unwrap();
            send.send("small").unwrap();
            drop(reservation);
        });
        while budget.lock().next < 3 {
            thread::yield_now();
        }
        // 50 bytes are free, but they are for the large one.
        assert!(receive.recv_timeout(Duration::from_millis(50)).is_err());
        drop(first);
        assert_eq!(receive.iter().collect::<Vec<_>>(), ["large", "small"]);
        large.join().unwrap();
        small.join().unwrap();
    }

    #[test]
    fn a_smaller_budget_refuses_requests_that_wait() {
        let budget = budget(100);
        let held = budget.take(50).unwrap();
        let waiting = thread::spawn(move || budget.take(80).map(drop));
        while budget.lock().next < 2 {
            thread::yield_now();
        }
        budget.set_capacity(70);
        assert_eq!(waiting.join().unwrap().unwrap_err(), NeverFits { capacity: 70 });
        drop(held);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20))]
        #[test]
        fn reservations_never_exceed_the_budget_and_all_finish(sizes in prop::collection::vec(0u64..120, 1..60)) {
            let budget = budget(100);
            let (reserved, served, refused) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
            let counts = (&reserved, &served, &refused);
            thread::scope(|scope| {
                for share in sizes.chunks(sizes.len().div_ceil(6)) {
                    scope.spawn(move || {
                        let (reserved, served, refused) = counts;
                        for &size in share {
                            match budget.take(size) {
                                Ok(mut reservation) => {
                                    let now = reserved.fetch_add(size, Ordering::SeqCst) + size;
                                    assert!(now <= 100, "{now}");
                                    thread::yield_now();
                                    reserved.fetch_sub(size, Ordering::SeqCst);
                                    reservation.shrink(size / 2);
                                    served.fetch_add(1, Ordering::SeqCst);
                                }
                                Err(NeverFits { .. }) => {
                                    refused.fetch_add(1, Ordering::SeqCst);
                                }
                            }
                        }
                    });
                }
            });
            let too_large = sizes.iter().filter(|size| **size > 100).count() as u64;
            prop_assert_eq!(refused.into_inner(), too_large);
            prop_assert_eq!(served.into_inner(), sizes.len() as u64 - too_large);
            prop_assert_eq!(budget.lock().used, 0);
        }
    }

    #[test]
    fn the_machines_memory_is_read() {
        assert_eq!(total_of("MemTotal:       16384 kB\nMemFree: 1 kB\n"), Some(16 << 20));
        assert_eq!(total_of("MemFree: 1 kB\n"), None);
        assert!((MIN_BY_DEFAULT..=MAX_BY_DEFAULT).contains(&default_bytes()));
    }
}
