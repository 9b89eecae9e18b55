//! SIGTERM under load: whether every request that was sent is answered, and how the process ends.

use std::fmt;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::{Bar, count};
use crate::Result;
use crate::load::{closed_loop, connected, until_refused};
use crate::server::Server;
use crate::tally::Tally;
use crate::workload::Workload;

/// From the first request to the signal.
const UNTIL_SIGNAL: Duration = Duration::from_secs(3);
/// Longest wait for the end of the process.
const PATIENCE: Duration = Duration::from_secs(60);

/// One end.
#[derive(Serialize)]
pub struct End {
    /// Answered before the signal and after it.
    pub before: Tally,
    pub after: Tally,
    /// Exit status; `None` if the process did not end by itself or ended by a signal.
    pub exit: Option<i32>,
    /// From the signal to the end of the process.
    pub seconds: f64,
    /// Connections that were still not refused when the process had ended, or a minute after the signal.
    pub still_served: usize,
}

/// What was measured.
#[derive(Serialize)]
pub struct Term {
    pub kept: usize,
    pub fresh: usize,
    pub ends: Vec<End>,
}

/// Ends several servers, which `start` starts with the requests for each.
pub fn run(
    start: impl Fn() -> Result<(Server, Workload)>,
    [kept, fresh]: [usize; 2],
    times: usize,
) -> Result<Term> {
    let mut ends = Vec::new();
    for time in 1..=times {
        let (mut server, workload) = start()?;
        let batch = server.limits().max_batch;
        // Models and labels are loaded by the first requests.
        closed_loop(&workload, &mut connected(server.address(), batch)?, 2 * batch)?;
        let address = server.address();
        let ended = until_refused(&workload, address, [kept, fresh], [UNTIL_SIGNAL, PATIENCE], || {
            let signal = Instant::now();
            server.terminate()?;
            Ok((server.wait(PATIENCE)?, signal.elapsed().as_secs_f64()))
        })?;
        let (status, seconds) = ended.end;
        let exit = status.and_then(|status| status.code());
        if exit != Some(0) {
            eprintln!("  end {time}: exit status {exit:?}; it printed:\n{}", server.printed());
        }
        eprintln!("  end {time}: after {seconds:.2} s; {}", ended.after);
        ends.push(End {
            before: ended.before,
            after: ended.after,
            exit,
            seconds,
            still_served: ended.still_served,
        });
    }
    Ok(Term { kept, fresh, ends })
}

impl Term {
    fn total(&self, which: impl Fn(&End) -> &Tally) -> Tally {
        self.ends.iter().fold(Tally::default(), |mut sum, end| {
            sum += which(end);
            sum
        })
    }

    pub fn bars(&self) -> Vec<Bar> {
        let (before, after) = (self.total(|end| &end.before), self.total(|end| &end.after));
        let not_clean = self.ends.iter().filter(|end| end.exit != Some(0)).count();
        vec![
            Bar::at_most("SIGTERM, requests lost", count(before.lost() + after.lost()), 0.0),
            Bar::at_most(
                "SIGTERM, answers but 200, 429 and 503",
                count(before.others() + after.others()),
                0.0,
            ),
            Bar::at_most("SIGTERM, wrong answers", count(before.wrong + after.wrong), 0.0),
            Bar::at_most("SIGTERM, refused before the signal", count(before.not_connected), 0.0),
            Bar::at_most("SIGTERM, ends without exit status 0", not_clean as f64, 0.0),
        ]
    }
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "SIGTERM under load: {} kept connections, {} threads that connect anew, {} times",
            self.kept,
            self.fresh,
            self.ends.len()
        )?;
        for end in &self.ends {
            let exit = end.exit.map_or("no exit status".to_owned(), |code| format!("exit status {code}"));
            writeln!(
                f,
                "  {exit} after {:.2} s; lost {}",
                end.seconds,
                end.before.lost() + end.after.lost()
            )?;
            writeln!(f, "    before: {}", end.before)?;
            writeln!(f, "    after:  {}", end.after)?;
            if end.still_served > 0 {
                writeln!(f, "    {} connections were never refused", end.still_served)?;
            }
        }
        Ok(())
    }
}
