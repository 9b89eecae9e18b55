//! What became of requests, counted.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::AddAssign;

use serde::Serialize;

use crate::http::{Answer, Failure, Loss};

/// Requests by what became of them; each is in one of these, but for those that are parts of others.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Tally {
    /// Status 200 with the library's predictions, bit for bit.
    pub right: u64,
    /// Status 200 with others.
    pub wrong: u64,
    /// Status 429.
    pub overloaded: u64,
    /// Status 503.
    pub unavailable: u64,
    /// Of those two, without a time to come again.
    pub without_retry_after: u64,
    /// Other statuses.
    pub other: BTreeMap<u16, u64>,
    /// No connection: nothing was sent.
    pub not_connected: u64,
    /// The connection was closed before the request had been sent.
    pub closed_unsent: u64,
    /// Sent on a new connection that was closed without an answer.
    pub lost_fresh: u64,
    /// Sent on a kept connection that was still open then, and closed without an answer.
    pub lost_reused: u64,
    /// Closed in the middle of the answer.
    pub lost_midway: u64,
    /// No answer within a minute.
    pub timed_out: u64,
    /// What came was no answer.
    pub malformed: u64,
}

/// What one request came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Accepted,
    /// 429 or 503: the server says that it has no room.
    TurnedAway,
    NotConnected,
    Failed,
}

impl Tally {
    /// Counts one request. `is_right` judges the body of an answer with status 200.
    pub fn count(
        &mut self,
        result: &Result<Answer<'_>, Failure>,
        is_right: impl FnOnce(&[u8]) -> bool,
    ) -> Outcome {
        let (place, outcome) = match result {
            Ok(Answer { status: 200, body, .. }) => {
                let place = if is_right(body) { &mut self.right } else { &mut self.wrong };
                (place, Outcome::Accepted)
            }
            Ok(Answer { status: status @ (429 | 503), retry_after, .. }) => {
                self.without_retry_after += u64::from(!retry_after);
                let place = if *status == 429 { &mut self.overloaded } else { &mut self.unavailable };
                (place, Outcome::TurnedAway)
            }
            Ok(Answer { status, .. }) => (self.other.entry(*status).or_default(), Outcome::Failed),
            Err(Failure::NotConnected(_)) => (&mut self.not_connected, Outcome::NotConnected),
            Err(Failure::ClosedUnsent) => (&mut self.closed_unsent, Outcome::Failed),
            Err(Failure::Lost(loss)) => {
                let place = match loss {
                    Loss::Fresh => &mut self.lost_fresh,
                    Loss::Reused => &mut self.lost_reused,
                    Loss::Midway => &mut self.lost_midway,
                    Loss::TimedOut => &mut self.timed_out,
                    Loss::Malformed => &mut self.malformed,
                };
                (place, Outcome::Failed)
            }
        };
        *place += 1;
        outcome
    }

    /// Answers with status 200.
    pub fn accepted(&self) -> u64 {
        self.right + self.wrong
    }

    /// Requests that were sent and have no complete answer.
    pub fn lost(&self) -> u64 {
        self.lost_fresh + self.lost_reused + self.lost_midway + self.timed_out + self.malformed
    }

    /// Answers with a status other than 200, 429 and 503.
    pub fn others(&self) -> u64 {
        self.other.values().sum()
    }

    /// All that was counted.
    pub fn total(&self) -> u64 {
        let answered = self.accepted() + self.overloaded + self.unavailable + self.others();
        answered + self.lost() + self.not_connected + self.closed_unsent
    }
}

impl AddAssign<&Tally> for Tally {
    fn add_assign(&mut self, more: &Tally) {
        self.right += more.right;
        self.wrong += more.wrong;
        self.overloaded += more.overloaded;
        self.unavailable += more.unavailable;
        self.without_retry_after += more.without_retry_after;
        more.other.iter().for_each(|(&status, count)| *self.other.entry(status).or_default() += count);
        self.not_connected += more.not_connected;
        self.closed_unsent += more.closed_unsent;
        self.lost_fresh += more.lost_fresh;
        self.lost_reused += more.lost_reused;
        self.lost_midway += more.lost_midway;
        self.timed_out += more.timed_out;
        self.malformed += more.malformed;
    }
}

impl fmt::Display for Tally {
    /// What there is, in words.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} answered as the library answers", self.right)?;
        let rest = [
            (self.wrong, "ANSWERED OTHERWISE"),
            (self.overloaded, "429"),
            (self.unavailable, "503"),
            (self.without_retry_after, "of them without Retry-After"),
            (self.not_connected, "not connected"),
            (self.closed_unsent, "closed before they were sent"),
            (self.lost_fresh, "LOST on a new connection"),
            (self.lost_reused, "LOST on a kept connection"),
            (self.lost_midway, "LOST in the middle of the answer"),
            (self.timed_out, "LOST: no answer in a minute"),
            (self.malformed, "LOST: no HTTP"),
        ];
        for (count, what) in rest.into_iter().filter(|(count, _)| *count > 0) {
            write!(f, ", {count} {what}")?;
        }
        self.other.iter().try_for_each(|(status, count)| write!(f, ", {count} with status {status}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_request_is_counted_once_and_sums_keep_all() {
        let answer = |status, retry_after| Ok(Answer { status, retry_after, body: b"body" });
        let refused = || Failure::NotConnected(std::io::ErrorKind::ConnectionRefused.into());
        let losses = [Loss::Fresh, Loss::Reused, Loss::Midway, Loss::TimedOut, Loss::Malformed];
        let mut tally = Tally::default();
        assert_eq!(tally.count(&answer(200, false), |body| body == b"body"), Outcome::Accepted);
        assert_eq!(tally.count(&answer(200, false), |_| false), Outcome::Accepted);
        assert_eq!(tally.count(&answer(429, true), |_| false), Outcome::TurnedAway);
        assert_eq!(tally.count(&answer(503, false), |_| false), Outcome::TurnedAway);
        assert_eq!(tally.count(&answer(400, false), |_| false), Outcome::Failed);
        assert_eq!(tally.count(&Err(refused()), |_| false), Outcome::NotConnected);
        assert_eq!(tally.count(&Err(Failure::ClosedUnsent), |_| false), Outcome::Failed);
        for loss in losses {
            assert_eq!(tally.count(&Err(Failure::Lost(loss)), |_| false), Outcome::Failed);
        }
        assert_eq!((tally.total(), tally.accepted(), tally.lost(), tally.others()), (12, 2, 5, 1));
        assert_eq!((tally.right, tally.wrong, tally.without_retry_after), (1, 1, 1));
        let mut twice = tally.clone();
        twice += &tally;
        assert_eq!((twice.total(), twice.without_retry_after, twice.other[&400]), (24, 2, 2));
    }
}
