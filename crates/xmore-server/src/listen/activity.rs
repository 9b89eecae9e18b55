//! What one connection is doing: waiting for a request, receiving it or answering it, and whether further requests were pipelined.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

/// A body or an answer that has not moved for this long is stalled.
const STALLED: Duration = Duration::from_millis(250);
/// A connection that has been idle for less may be about to send its request.
const FRESH: Duration = Duration::from_millis(50);
/// Heads of pipelined requests that are tracked.
const MAX_HEADS: usize = 1024;
/// What ends a request's head.
const END_OF_HEAD: &[u8] = b"\r\n\r\n";

/// Shared by a connection's stream, its service and the table of connections.
#[derive(Debug)]
pub(super) struct Activity {
    state: Mutex<State>,
    close: Notify,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    /// When the phase began; of a body, when bytes came last.
    since: Instant,
    /// When bytes came last.
    received: Instant,
    /// Since when a write has been waiting for the other side.
    blocked: Option<Instant>,
    /// Whether it was asked to close.
    closing: bool,
    framing: Framing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Waits for a request's head, or has a part of it.
    Head,
    /// Receives a request's body.
    Body,
    /// Has a request that is being answered.
    Answer,
}

/// Why a connection may be evicted in favor of a new one; the least is evicted first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Evictable {
    /// It has had no request since then.
    Idle(Instant),
    /// Its body or its answer has not moved since then.
    Stalled(Instant),
    /// It has had no request since a moment ago.
    Fresh(Instant),
}

impl Activity {
    pub(super) fn new() -> Self {
        let now = Instant::now();
        let state = State {
            phase: Phase::Head,
            since: now,
            received: now,
            blocked: None,
            closing: false,
            framing: Framing { known: true, ..Framing::default() },
        };
        Self { state: Mutex::new(state), close: Notify::new() }
    }

    /// Bytes were received.
    pub(super) fn received(&self, bytes: &[u8]) {
        let mut state = self.lock();
        state.received = Instant::now();
        if state.phase == Phase::Body {
            state.since = state.received;
        }
        state.framing.received(bytes);
    }

    /// A request's head is complete. `length` is that of its body, where it is known.
    pub(super) fn begin(&self, length: Option<u64>) {
        let mut state = self.lock();
        state.framing.begin(length);
        state.enter(if length == Some(0) { Phase::Answer } else { Phase::Body });
    }

    /// A request's body is complete, or will not be read any further.
    pub(super) fn end_of_body(&self) {
        let mut state = self.lock();
        if state.phase == Phase::Body {
            state.enter(Phase::Answer);
        }
    }

    /// The request has an answer.
    pub(super) fn answered(&self) {
        self.lock().enter(Phase::Head);
    }

    /// Whether a write waits for the other side.
    pub(super) fn blocked(&self, is_blocked: bool) {
        let mut state = self.lock();
        state.blocked = if is_blocked { state.blocked.or_else(|| Some(Instant::now())) } else { None };
    }

    /// Whether no further request was received after the one that is being answered, as far as is known.
    pub(super) fn is_last(&self) -> bool {
        self.lock().framing.is_last()
    }

    /// Since when it has been idle: no request, no bytes, and no answer being sent.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        let state = self.lock();
        (state.phase == Phase::Head && state.blocked.is_none()).then(|| state.since.max(state.received))
    }

    /// Whether the connection may be evicted, and why. One that was asked to close counts as closed.
    pub(super) fn evictable(&self, now: Instant) -> Option<Evictable> {
        let state = self.lock();
        if state.closing { None } else { state.evictable(now) }
    }

    /// Asks the connection to close.
    pub(super) fn request_close(&self) {
        self.lock().closing = true;
        self.close.notify_one();
    }

    /// Waits until the connection is asked to close and may: a request that it has begun meanwhile is answered.
    pub(super) async fn close_requested(&self) {
        loop {
            self.close.notified().await;
            let mut state = self.lock();
            if state.evictable(Instant::now()).is_some() {
                return;
            }
            state.closing = false;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.since = Instant::now();
    }

    fn evictable(&self, now: Instant) -> Option<Evictable> {
        let stalled = |since: Instant| {
            (now.saturating_duration_since(since) >= STALLED).then_some(Evictable::Stalled(since))
        };
        match (self.blocked, self.phase) {
            (Some(since), _) => stalled(since),
            (None, Phase::Head) if now.saturating_duration_since(self.since) < FRESH => {
                Some(Evictable::Fresh(self.since))
            }
            (None, Phase::Head) => Some(Evictable::Idle(self.since)),
            (None, Phase::Body) => stalled(self.since),
            (None, Phase::Answer) => None,
        }
    }
}

/// Where requests end among the bytes of a connection, from empty lines and lengths alone: hyper does not expose what it has read ahead.
#[derive(Debug, Default)]
struct Framing {
    /// Whether the ends are still known: those of bodies in chunks are not.
    known: bool,
    /// Bytes that were received.
    received: u64,
    /// Where the last request ends that was begun.
    end: u64,
    /// Ends of the heads after it.
    heads: VecDeque<u64>,
    /// How many bytes of [`END_OF_HEAD`] were received last.
    matched: usize,
}

impl Framing {
    fn received(&mut self, bytes: &[u8]) {
        let body = usize::try_from(self.end.saturating_sub(self.received))
            .map_or(bytes.len(), |body| body.min(bytes.len()));
        let begin = self.received + body as u64;
        self.received += bytes.len() as u64;
        if body > 0 {
            self.matched = 0;
        }
        if !self.known {
            return;
        }
        for (at, &byte) in (begin..).zip(&bytes[body..]) {
            self.matched = match byte {
                byte if byte == END_OF_HEAD[self.matched] => self.matched + 1,
                b'\r' => 1,
                _ => 0,
            };
            if self.matched == END_OF_HEAD.len() {
                self.matched = 0;
                self.heads.push_back(at + 1);
            }
        }
        self.known = self.heads.len() <= MAX_HEADS;
    }

    fn begin(&mut self, length: Option<u64>) {
        // Bytes of the previous body that looked like heads.
        while self.heads.front().is_some_and(|&head| head <= self.end) {
            self.heads.pop_front();
        }
        match (self.heads.pop_front(), length) {
            (Some(head), Some(length)) if self.known => self.end = head.saturating_add(length),
            _ => {
                self.known = false;
                self.heads = VecDeque::new();
            }
        }
    }

    fn is_last(&self) -> bool {
        self.known && self.received == self.end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";
    const HEAD_OF_POST: &[u8] = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\n";
    const BODY: &[u8] = b"a\r\n\r\nb\r\n\r";

    /// Which requests are the last, where everything is received in pieces of `piece` bytes before the first is begun.
    fn last(requests: &[&[u8]], lengths: &[Option<u64>], piece: usize) -> Vec<bool> {
        let activity = Activity::new();
        requests.concat().chunks(piece).for_each(|bytes| activity.received(bytes));
        let begin = |&length: &Option<u64>| {
            activity.begin(length);
            activity.is_last()
        };
        lengths.iter().map(begin).collect()
    }

    #[test]
    fn the_last_of_several_requests_is_known() {
        let post = [HEAD_OF_POST, BODY].concat();
        for piece in [1, 2, 3, 7, 1000] {
            assert_eq!(last(&[GET], &[Some(0)], piece), [true]);
            assert_eq!(last(&[GET, GET, GET], &[Some(0); 3], piece), [false, false, true]);
            let mixed = [GET, &post, &post, GET];
            assert_eq!(
                last(&mixed, &[Some(0), Some(9), Some(9), Some(0)], piece),
                [false, false, false, true]
            );
            // A part of the next request.
            assert_eq!(last(&[GET, &GET[..20]], &[Some(0)], piece), [false]);
            // Bodies in chunks have no known end.
            assert_eq!(last(&[GET, GET, GET], &[None, Some(0), Some(0)], piece), [false; 3]);
        }
    }

    #[test]
    fn requests_that_come_one_after_another_are_each_the_last() {
        let activity = Activity::new();
        for _ in 0..3 {
            activity.received(HEAD_OF_POST);
            activity.begin(Some(9));
            assert!(!activity.is_last(), "its body is not there");
            activity.received(&BODY[..4]);
            activity.received(&BODY[4..]);
            assert!(activity.is_last());
            activity.answered();
        }
    }

    #[test]
    fn idle_and_stalled_connections_are_evictable_and_busy_ones_are_not() {
        let activity = Activity::new();
        let now = Instant::now();
        assert!(matches!(activity.evictable(now), Some(Evictable::Fresh(_))));
        assert!(matches!(activity.evictable(now + FRESH), Some(Evictable::Idle(_))));
        activity.begin(None);
        let later = Instant::now() + STALLED;
        assert_eq!(activity.evictable(Instant::now()), None, "a body that is received");
        assert!(matches!(activity.evictable(later), Some(Evictable::Stalled(_))));
        activity.end_of_body();
        assert_eq!(activity.evictable(later + STALLED), None);
        activity.answered();
        activity.blocked(true);
        assert_eq!(activity.idle_since(), None);
        assert!(matches!(activity.evictable(later + STALLED), Some(Evictable::Stalled(_))));
        activity.blocked(false);
        assert!(activity.idle_since().is_some());
        activity.request_close();
        assert_eq!(activity.evictable(later), None, "only once");
    }
}
