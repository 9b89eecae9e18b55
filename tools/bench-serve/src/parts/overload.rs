//! More requests than can be answered, for minutes: what is turned away, how long the others wait, what the server's memory does.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::{Bar, count};
use crate::Result;
use crate::load::{Open, closed_loop, connected, open_loop};
use crate::server::Server;
use crate::stats::{Spread, median, slope};
use crate::tally::{Outcome, Tally};
use crate::workload::Workload;

/// Full batches on the idle server, of which the median counts.
const BATCHES: usize = 10;
/// Before each of them.
const PAUSE: Duration = Duration::from_millis(100);
/// The last seconds of the run, over which resident memory should not grow.
const SLOPE_S: f64 = 60.0;

/// What was measured.
#[derive(Serialize)]
pub struct Overload {
    /// Accepted requests a second of a closed loop.
    pub capacity: f64,
    pub factor: f64,
    /// Requests a second that were scheduled.
    pub rate: f64,
    pub seconds: f64,
    pub connections: usize,
    /// Milliseconds of a full batch on the idle server, of each time.
    pub batch_size: usize,
    pub batch_ms: Vec<f64>,
    pub batch_tally: Tally,
    pub tally: Tally,
    /// Requests whose time had passed before a connection was free.
    pub late: usize,
    /// Milliseconds from a request's time to its sending.
    pub lag_ms: Option<Spread>,
    /// From its time to its answer, of accepted requests and of those turned away.
    pub accepted_ms: Option<Spread>,
    pub turned_away_ms: Option<Spread>,
    /// Accepted requests a second that were answered while requests were still being sent.
    pub goodput: f64,
    /// Second and resident bytes of the server.
    pub resident: Vec<(f64, u64)>,
    /// Processors that the generator kept busy.
    pub generator_cpus: f64,
}

/// Loads the server with `factor` times what it can do.
pub fn run(
    server: &Server,
    workload: &Workload,
    capacity: f64,
    factor: f64,
    period: Duration,
    connections: usize,
) -> Result<Overload> {
    let batch_size = server.limits().max_batch;
    let (batch_ms, batch_tally) = batches(server, workload, batch_size)?;
    let rate = capacity * factor;
    let mut clients = connected(server.address(), connections)?;
    let done = AtomicBool::new(false);
    let (open, resident) = scope(|scope| {
        let sampler = scope.spawn(|| sample(server, &done));
        let open = open_loop(workload, &mut clients, rate, period);
        done.store(true, Ordering::Relaxed);
        let resident = sampler.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>((open?, resident?))
    })?;
    let Open { tally, started, processors } = open;
    let seconds = period.as_secs_f64();
    let of = |outcome: Outcome| -> Vec<f64> {
        started.iter().filter(|s| s.outcome == outcome).map(|s| s.latency_ms).collect()
    };
    let in_time =
        started.iter().filter(|s| s.outcome == Outcome::Accepted && s.answered_s <= seconds).count();
    Ok(Overload {
        capacity,
        factor,
        rate,
        seconds,
        connections,
        batch_size,
        batch_ms,
        batch_tally,
        tally,
        late: started.iter().filter(|s| s.late).count(),
        lag_ms: Spread::of(&started.iter().map(|s| s.lag_ms).collect::<Vec<_>>()),
        accepted_ms: Spread::of(&of(Outcome::Accepted)),
        turned_away_ms: Spread::of(&of(Outcome::TurnedAway)),
        goodput: in_time as f64 / seconds,
        resident,
        generator_cpus: processors,
    })
}

/// Milliseconds until the last of a full batch is answered, all being sent at once to the idle server.
fn batches(server: &Server, workload: &Workload, size: usize) -> Result<(Vec<f64>, Tally)> {
    let mut clients = connected(server.address(), size)?;
    let (mut times, mut tally) = (Vec::new(), Tally::default());
    // The first warms up.
    for turn in 0..=BATCHES {
        sleep(PAUSE);
        let round = closed_loop(workload, &mut clients, size)?;
        tally += &round.tally;
        if turn > 0 {
            times.push(round.seconds * 1e3);
        }
    }
    Ok((times, tally))
}

/// Resident memory each second until it is done, and at the end. A process that ends meanwhile ends the samples; its requests tell.
fn sample(server: &Server, done: &AtomicBool) -> Result<Vec<(f64, u64)>> {
    let (start, mut samples) = (Instant::now(), Vec::new());
    loop {
        let last = done.load(Ordering::Relaxed);
        let bytes = match server.resident() {
            Ok(Some(bytes)) => bytes,
            Err(e) if samples.is_empty() => return Err(e),
            Ok(None) | Err(_) => return Ok(samples),
        };
        samples.push((start.elapsed().as_secs_f64(), bytes));
        if last {
            return Ok(samples);
        }
        let next = Duration::from_secs(samples.len() as u64);
        while !done.load(Ordering::Relaxed) && start.elapsed() < next {
            sleep(Duration::from_millis(20));
        }
    }
}

impl Overload {
    /// Bytes a second by which resident memory grew over the last minute.
    fn growth(&self) -> Option<f64> {
        let end = self.resident.last()?.0;
        let last: Vec<(f64, f64)> = self
            .resident
            .iter()
            .filter(|(second, _)| *second >= end - SLOPE_S)
            .map(|&(second, bytes)| (second, bytes as f64))
            .collect();
        slope(&last)
    }

    pub fn bars(&self) -> Vec<Bar> {
        let broken = self.tally.lost() + self.tally.closed_unsent + self.tally.not_connected;
        let late = self.late as f64 / self.tally.total().max(1) as f64;
        let not_right = self.batch_tally.total() - self.batch_tally.right;
        vec![
            Bar::at_most("full batches at idle, requests not answered rightly", count(not_right), 0.0),
            Bar::at_most("overload, broken requests", count(broken), 0.0),
            Bar::at_most("overload, answers but 200, 429 and 503", count(self.tally.others()), 0.0),
            Bar::at_most(
                "overload, 429 and 503 without Retry-After",
                count(self.tally.without_retry_after),
                0.0,
            ),
            Bar::at_most("overload, wrong answers", count(self.tally.wrong), 0.0),
            Bar::at_most("overload, share without a free connection in time", late, 0.01),
        ]
    }
}

impl fmt::Display for Overload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let batch = median(&self.batch_ms);
        writeln!(
            f,
            "overload: {:.0} requests/s, {} x a capacity of {:.1}, for {:.0} s over {} connections",
            self.rate, self.factor, self.capacity, self.seconds, self.connections
        )?;
        writeln!(f, "  requests: {}", self.tally)?;
        if let Some(Spread { p99, max, .. }) = self.lag_ms {
            writeln!(
                f,
                "  {} found no free connection at their time; sent {p99:.2} ms after it (p99), {max:.2} at most",
                self.late
            )?;
        }
        writeln!(
            f,
            "  goodput {:.1}/s, {:.0} % of capacity; the generator took {:.2} processors",
            self.goodput,
            100.0 * self.goodput / self.capacity,
            self.generator_cpus
        )?;
        writeln!(
            f,
            "  {} at once on the idle server: {batch:.0} ms until the last answer, median of {}",
            self.batch_size,
            self.batch_ms.len()
        )?;
        for (name, spread) in [("accepted", &self.accepted_ms), ("turned away", &self.turned_away_ms)] {
            let Some(Spread { p50, p90, p99, max, .. }) = spread else { continue };
            write!(f, "  {name:<12}{p50:>8.1} ms p50 {p90:>8.1} p90 {p99:>8.1} p99 {max:>8.1} max")?;
            writeln!(f, "; p99 is {:.2} x that batch", p99 / batch)?;
        }
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        if let (Some(first), Some(last)) = (self.resident.first(), self.resident.last()) {
            let most = self.resident.iter().map(|&(_, bytes)| bytes).max().unwrap_or(0);
            write!(
                f,
                "  resident memory {:.1} MiB at the start, {:.1} at most, {:.1} at the end",
                mib(first.1),
                mib(most),
                mib(last.1)
            )?;
            if let Some(growth) = self.growth() {
                let over = SLOPE_S.min(last.0 - first.0);
                write!(
                    f,
                    "; slope over the last {over:.0} s {:+.2} MiB/min",
                    growth * 60.0 / f64::from(1 << 20)
                )?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}
