//! Retries: how often and for how long a request to a remote index is repeated, and which failures are final.

use std::time::{Duration, Instant};

use super::RemoteOptions;
use crate::error::Result;
use crate::retriever::RemoteError;

/// Pauses before further attempts: doubled from the first to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// A server that asks for a longer pause than this gets this much.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(30);
/// How often a search is sent that the server answers with a failure of its own: mostly it is the request's fault.
const SEARCH_FAILURES: u32 = 2;

/// How often and how long a request is repeated.
#[derive(Debug, Clone, Copy)]
pub(super) struct Retry {
    /// Most requests.
    attempts: u32,
    /// Most of them that the server answers with a failure of its own.
    failures: u32,
    /// No request begins later than this after the first.
    longest: Duration,
}

/// Why an attempt gave nothing.
pub(super) enum AttemptError {
    /// It may go better later: what went wrong, and after what pause the server asks for the next request.
    Transient(String, Option<Duration>),
    /// The server answers that it failed: it may be its state, it may be the request.
    Failed(String),
    /// It will not go better.
    Permanent(String),
}

impl Retry {
    /// For a search, which a caller waits for.
    pub fn of_search(options: &RemoteOptions) -> Self {
        Self { attempts: options.attempts.max(1), failures: SEARCH_FAILURES, longest: Duration::MAX }
    }

    /// For an upload, which waits for a server that restarts.
    pub fn of_upload(options: &RemoteOptions) -> Self {
        Self { attempts: u32::MAX, failures: u32::MAX, longest: options.upload_retry_time }
    }

    /// Attempts something at a remote index, which the user knows as `location`, until it succeeds.
    ///
    /// # Errors
    /// [`RemoteError::Unreachable`] if nothing came of it within these bounds, [`RemoteError::Refused`] if the server
    /// answered that it will not.
    pub fn run<T>(
        self,
        location: &str,
        mut attempt: impl FnMut() -> std::result::Result<T, AttemptError>,
    ) -> Result<T> {
        let remote = |reason| RemoteError::Refused { location: location.to_owned(), reason }.into();
        let start = Instant::now();
        let mut pause = FIRST_PAUSE;
        let (mut attempts, mut failures) = (0, 0);
        loop {
            let error = match attempt() {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            attempts += 1;
            let (reason, wait, answered) = match error {
                AttemptError::Permanent(reason) => return Err(remote(reason)),
                AttemptError::Failed(reason) => {
                    failures += 1;
                    (reason, pause, true)
                }
                AttemptError::Transient(reason, wanted) => {
                    (reason, wanted.map_or(pause, |wanted| wanted.clamp(pause, LONGEST_RETRY_AFTER)), false)
                }
            };
            let too_late = start.elapsed().saturating_add(wait) > self.longest;
            if too_late || attempts >= self.attempts || failures >= self.failures {
                return Err(match answered {
                    true => remote(reason),
                    false => {
                        RemoteError::Unreachable { location: location.to_owned(), attempts, reason }.into()
                    }
                });
            }
            std::thread::sleep(wait);
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}
