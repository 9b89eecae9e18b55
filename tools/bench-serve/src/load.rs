//! Three ways to send requests: each connection one after the other, all at their scheduled times, and until nobody listens any more.
//!
//! A thread has a connection and blocks on it; a few hundred of them with small stacks sleep nearly all of the time.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{Builder, Scope, ScopedJoinHandle, scope, sleep};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use crate::Result;
use crate::http::Client;
use crate::tally::{Outcome, Tally};
use crate::workload::Workload;

const STACK: usize = 256 << 10;
/// Pause of a connection that was turned away, where it sends as soon as it may: otherwise it would do nothing but be turned away.
const TURNED_AWAY_PAUSE: Duration = Duration::from_millis(10);
/// From the making of threads to the first request: they all sleep by then.
const SETTING_OUT: Duration = Duration::from_millis(200);

/// Requests of one closed loop.
pub struct Round {
    /// From the first request to the last answer.
    pub seconds: f64,
    pub tally: Tally,
    /// Processors that this process kept busy meanwhile.
    pub processors: f64,
}

impl Round {
    /// Accepted requests a second.
    pub fn rate(&self) -> f64 {
        self.tally.accepted() as f64 / self.seconds
    }
}

/// Clients that are connected.
pub fn connected(address: SocketAddr, count: usize) -> Result<Vec<Client>> {
    let mut clients: Vec<Client> = (0..count).map(|_| Client::keep_alive(address)).collect();
    clients
        .iter_mut()
        .try_for_each(Client::connect)
        .map_err(|e| format!("{address}: cannot connect: {e}"))?;
    Ok(clients)
}

/// Sends `count` requests from the first on; each client sends its next one when it has its answer.
pub fn closed_loop(workload: &Workload, clients: &mut [Client], count: usize) -> Result<Round> {
    let next = AtomicUsize::new(0);
    let (start, computed) = (Instant::now() + SETTING_OUT, processor_time());
    scope(|scope| {
        let threads: Vec<_> = clients
            .iter_mut()
            .map(|client| {
                spawn(scope, || {
                    let mut tally = Tally::default();
                    sleep(start.saturating_duration_since(Instant::now()));
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if number >= count {
                            return tally;
                        }
                        let result = client.send(workload.request(number));
                        if workload.count(number, &result, &mut tally) != Outcome::Accepted {
                            sleep(TURNED_AWAY_PAUSE);
                        }
                    }
                })
            })
            .collect::<Result<_>>()?;
        let mut tally = Tally::default();
        threads.into_iter().for_each(|thread| tally += &joined(thread));
        let seconds = start.elapsed().as_secs_f64();
        Ok(Round { seconds, tally, processors: (processor_time() - computed).as_secs_f64() / seconds })
    })
}

/// One request of an open loop.
#[derive(Clone, Copy, Debug)]
pub struct Started {
    pub outcome: Outcome,
    /// Milliseconds from its time to the answer: waiting for this machine to send it is counted, as a client would.
    pub latency_ms: f64,
    /// Milliseconds from its time to its sending.
    pub lag_ms: f64,
    /// Whether its time had passed before a connection was free for it.
    pub late: bool,
    /// Second of the run in which the answer was there.
    pub answered_s: f64,
}

/// Requests of an open loop.
pub struct Open {
    pub tally: Tally,
    /// In no order.
    pub started: Vec<Started>,
    /// Processors that this process kept busy meanwhile.
    pub processors: f64,
}

/// Sends `rate` requests a second for a while, each at its time, whatever the answers do.
pub fn open_loop(workload: &Workload, clients: &mut [Client], rate: f64, period: Duration) -> Result<Open> {
    let count = (rate * period.as_secs_f64()).round() as usize;
    let next = AtomicUsize::new(0);
    let (start, computed) = (Instant::now() + SETTING_OUT, processor_time());
    scope(|scope| {
        let threads: Vec<_> = clients
            .iter_mut()
            .map(|client| {
                spawn(scope, || {
                    let (mut tally, mut started) = (Tally::default(), Vec::new());
                    loop {
                        // A free connection takes the next request before its time and waits for it.
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if number >= count {
                            return (tally, started);
                        }
                        let due = start + Duration::from_secs_f64(number as f64 / rate);
                        let now = Instant::now();
                        let late = now > due;
                        sleep(due.saturating_duration_since(now));
                        let sent = Instant::now();
                        let result = client.send(workload.request(number));
                        let answered = Instant::now();
                        started.push(Started {
                            outcome: workload.count(number, &result, &mut tally),
                            latency_ms: (answered - due).as_secs_f64() * 1e3,
                            lag_ms: (sent - due).as_secs_f64() * 1e3,
                            late,
                            answered_s: (answered - start).as_secs_f64(),
                        });
                    }
                })
            })
            .collect::<Result<_>>()?;
        let mut open = Open { tally: Tally::default(), started: Vec::with_capacity(count), processors: 0.0 };
        for thread in threads {
            let (tally, started) = joined(thread);
            open.tally += &tally;
            open.started.extend(started);
        }
        let computed = processor_time() - computed;
        open.processors = computed.as_secs_f64() / start.elapsed().as_secs_f64();
        Ok(open)
    })
}

/// Requests of which some came before and some after a moment.
pub struct Ended<T> {
    /// Answered or lost before it.
    pub before: Tally,
    /// After it.
    pub after: Tally,
    /// Connections on which nothing was refused in the end: the server went on to listen.
    pub still_served: usize,
    /// What `end` returned.
    pub end: T,
}

/// Sends as a closed loop with some connections that are kept and some threads that always connect anew. After `first` the moment comes:
/// `end` is called, and each thread goes on until its connection is refused, at most for `time_limit`.
pub fn until_refused<T>(
    workload: &Workload,
    address: SocketAddr,
    [kept, fresh]: [usize; 2],
    [first, time_limit]: [Duration; 2],
    end: impl FnOnce() -> Result<T>,
) -> Result<Ended<T>> {
    let next = AtomicUsize::new(0);
    let (ending, giving_up) = (AtomicBool::new(false), AtomicBool::new(false));
    let clients =
        (0..kept).map(|_| Client::keep_alive(address)).chain((0..fresh).map(|_| Client::fresh(address)));
    scope(|scope| {
        let threads = clients
            .map(|mut client| {
                let (next, ending, giving_up) = (&next, &ending, &giving_up);
                spawn(scope, move || {
                    let mut tallies = [Tally::default(), Tally::default()];
                    while !giving_up.load(Ordering::Relaxed) {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        let result = client.send(workload.request(number));
                        let after = ending.load(Ordering::SeqCst);
                        match workload.count(number, &result, &mut tallies[usize::from(after)]) {
                            Outcome::NotConnected if after => return (tallies, false),
                            Outcome::Accepted => {}
                            _ => sleep(TURNED_AWAY_PAUSE),
                        }
                    }
                    (tallies, true)
                })
            })
            .collect::<Result<Vec<_>>>()
            // Those that were made would not end by themselves.
            .inspect_err(|_| giving_up.store(true, Ordering::Relaxed))?;
        sleep(first);
        ending.store(true, Ordering::SeqCst);
        let moment = Instant::now();
        let end = end();
        while end.is_ok()
            && moment.elapsed() < time_limit
            && threads.iter().any(|thread| !thread.is_finished())
        {
            sleep(Duration::from_millis(5));
        }
        giving_up.store(true, Ordering::Relaxed);
        let (mut before, mut after, mut still_served) = (Tally::default(), Tally::default(), 0);
        for thread in threads {
            let (tallies, served) = joined(thread);
            before += &tallies[0];
            after += &tallies[1];
            still_served += usize::from(served);
        }
        Ok(Ended { before, after, still_served, end: end? })
    })
}

/// What this process has computed.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.cast_unsigned(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

fn spawn<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    work: impl FnOnce() -> T + Send + 'scope,
) -> Result<ScopedJoinHandle<'scope, T>> {
    let told = |e: io::Error| format!("a thread for a connection: {e}; ask for fewer connections");
    Ok(Builder::new().stack_size(STACK).spawn_scoped(scope, work).map_err(told)?)
}

/// A panic there is a panic here.
fn joined<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stand_in::{Behaviour, StandIn};

    const RIGHT: &str = r#"{"results": [{"predictions": [{"label": "dog", "score": 0.5}]}]}"#;

    fn workload() -> Workload {
        let request = |i: usize| format!("POST /{i} HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc").into_bytes();
        Workload::of((0..4).map(request).collect(), vec![vec![("dog".to_owned(), 0.5)]; 4])
    }

    #[test]
    fn a_closed_loop_sends_each_request_once_and_sees_what_came() {
        let server = StandIn::start(|n| match n {
            3 => Behaviour::Answer(429, String::new()),
            5 => Behaviour::Answer(200, RIGHT.replace("0.5", "0.25")),
            _ => Behaviour::AnswerAfter(Duration::from_millis(10), 200, RIGHT.into()),
        });
        let mut clients = connected(server.address(), 4).unwrap();
        let round = closed_loop(&workload(), &mut clients, 40).unwrap();
        let expected = Tally { right: 38, wrong: 1, overloaded: 1, ..Tally::default() };
        assert_eq!(round.tally, expected);
        // 4 at a time, 10 ms each.
        assert!(round.seconds > 0.09, "{}", round.seconds);
        assert_eq!(server.connections(), 4);
    }

    #[test]
    fn an_open_loop_keeps_its_times_however_slow_the_answers() {
        let server =
            StandIn::start(|_| Behaviour::AnswerAfter(Duration::from_millis(200), 200, RIGHT.into()));
        let mut clients = connected(server.address(), 64).unwrap();
        let open = open_loop(&workload(), &mut clients, 100.0, Duration::from_millis(500)).unwrap();
        assert_eq!((open.tally.right, open.started.len()), (50, 50));
        assert!(open.started.iter().all(|s| !s.late && s.latency_ms >= 200.0 && s.lag_ms >= 0.0));
        // The last is sent at 0.49 s, though a closed loop would still wait for the second answer of each.
        let last = open.started.iter().map(|s| s.answered_s).fold(0.0, f64::max);
        assert!((0.69..1.5).contains(&last), "{last}");
    }

    #[test]
    fn an_open_loop_without_enough_connections_says_so_and_counts_the_wait() {
        let server = StandIn::start(|_| Behaviour::AnswerAfter(Duration::from_millis(50), 200, RIGHT.into()));
        let mut clients = connected(server.address(), 1).unwrap();
        let open = open_loop(&workload(), &mut clients, 100.0, Duration::from_millis(100)).unwrap();
        assert_eq!(open.started.iter().filter(|s| s.late).count(), 9);
        let longest = open.started.iter().map(|s| s.latency_ms).fold(0.0, f64::max);
        // The tenth is due after 90 ms and answered after 500.
        assert!(longest >= 400.0, "{longest}");
    }

    #[test]
    fn a_server_that_ends_well_loses_nothing() {
        let server = StandIn::start(|_| Behaviour::AnswerAfter(Duration::from_millis(5), 200, RIGHT.into()));
        let time_limit = [Duration::from_millis(200), Duration::from_secs(20)];
        let ended = until_refused(&workload(), server.address(), [6, 2], time_limit, || {
            server.stop();
            Ok("stopped")
        });
        let ended = ended.unwrap();
        assert_eq!(
            (ended.before.lost() + ended.after.lost(), ended.still_served, ended.end),
            (0, 0, "stopped")
        );
        assert!(ended.before.right > 50 && ended.before.not_connected == 0, "{}", ended.before);
        assert_eq!(ended.after.not_connected, 8, "{}", ended.after);
    }

    #[test]
    fn a_server_that_drops_requests_or_stays_is_found_out() {
        let ending = std::sync::Arc::new(AtomicBool::new(false));
        let seen = ending.clone();
        let server = StandIn::start(move |_| match seen.load(Ordering::SeqCst) {
            true => Behaviour::CloseUnanswered,
            false => Behaviour::AnswerAfter(Duration::from_millis(5), 200, RIGHT.into()),
        });
        let time_limit = [Duration::from_millis(100), Duration::from_millis(300)];
        let ended = until_refused(&workload(), server.address(), [3, 1], time_limit, || {
            ending.store(true, Ordering::SeqCst);
            Ok(())
        });
        let ended = ended.unwrap();
        assert!(ended.after.lost_reused == 3 && ended.after.lost_fresh > 0, "{}", ended.after);
        assert_eq!((ended.before.lost(), ended.still_served), (0, 4));
    }
}
