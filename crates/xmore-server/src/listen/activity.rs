//! What one connection is doing: waiting for a request, receiving it or answering it, and whether more was sent behind it.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

/// A body or an answer that has not moved for this long is stalled.
const STALLED: Duration = Duration::from_millis(250);
/// A connection that has been idle for less may have its request on the way.
const FRESH: Duration = Duration::from_millis(50);
/// Heads that are kept track of behind the request that is answered.
const MAX_HEADS: usize = 1024;
/// What ends a request's head.
const END_OF_HEAD: &[u8] = b"\r\n\r\n";

/// Shared by a connection's stream, its service and the table of connections.
#[derive(Debug)]
pub(super) struct Activity {
    state: Mutex<State>,
    leave: Notify,
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
    /// Whether it was told to leave.
    leaving: bool,
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

/// How easily a connection can be closed to make room: the least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Spare {
    /// It has no request, since then.
    Idle(Instant),
    /// Its body or its answer has not moved since then.
    Stalled(Instant),
    /// It has no request, since a moment ago.
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
            leaving: false,
            framing: Framing { known: true, ..Framing::default() },
        };
        Self { state: Mutex::new(state), leave: Notify::new() }
    }

    /// Bytes came in.
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

    /// There is an answer.
    pub(super) fn answered(&self) {
        self.lock().enter(Phase::Head);
    }

    /// Whether a write waits for the other side.
    pub(super) fn blocked(&self, is_blocked: bool) {
        let mut state = self.lock();
        state.blocked = if is_blocked { state.blocked.or_else(|| Some(Instant::now())) } else { None };
    }

    /// Whether nothing was received behind the request that is being answered, as far as is known.
    pub(super) fn is_last(&self) -> bool {
        self.lock().framing.is_last()
    }

    /// Since when there has been nothing to do: no request, no bytes, and no answer on its way.
    pub(super) fn quiet_since(&self) -> Option<Instant> {
        let state = self.lock();
        (state.phase == Phase::Head && state.blocked.is_none()).then(|| state.since.max(state.received))
    }

    /// Whether the connection can be closed to make room, and how easily. One that was told to leave is counted as gone.
    pub(super) fn spare(&self, now: Instant) -> Option<Spare> {
        let state = self.lock();
        if state.leaving { None } else { state.spare(now) }
    }

    /// Tells the connection to leave.
    pub(super) fn tell_to_leave(&self) {
        self.lock().leaving = true;
        self.leave.notify_one();
    }

    /// Waits until the connection is told to leave and may: what it has begun meanwhile is not broken off.
    pub(super) async fn leave(&self) {
        loop {
            self.leave.notified().await;
            let mut state = self.lock();
            if state.spare(Instant::now()).is_some() {
                return;
            }
            state.leaving = false;
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

    fn spare(&self, now: Instant) -> Option<Spare> {
        let stalled = |since: Instant| {
            (now.saturating_duration_since(since) >= STALLED).then_some(Spare::Stalled(since))
        };
        match (self.blocked, self.phase) {
            (Some(since), _) => stalled(since),
            (None, Phase::Head) if now.saturating_duration_since(self.since) < FRESH => {
                Some(Spare::Fresh(self.since))
            }
            (None, Phase::Head) => Some(Spare::Idle(self.since)),
            (None, Phase::Body) => stalled(self.since),
            (None, Phase::Answer) => None,
        }
    }
}

/// Where requests end among the bytes of a connection, from empty lines and lengths alone: hyper tells nothing of what it has read ahead.
#[derive(Debug, Default)]
struct Framing {
    /// Whether the ends are still known: those of bodies in chunks are not.
    known: bool,
    /// Bytes that were received.
    received: u64,
    /// Where the last request ends that was begun.
    end: u64,
    /// Ends of heads behind it.
    heads: VecDeque<u64>,
    /// Bytes of [`END_OF_HEAD`] that came last.
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
        // What looked like heads in the body before.
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
            // A part of the next one.
            assert_eq!(last(&[GET, &GET[..20]], &[Some(0)], piece), [false]);
            // Chunks have no known end.
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
    fn what_is_idle_or_stalled_is_spare_and_what_is_answered_is_not() {
        let activity = Activity::new();
        let now = Instant::now();
        assert!(matches!(activity.spare(now), Some(Spare::Fresh(_))));
        assert!(matches!(activity.spare(now + FRESH), Some(Spare::Idle(_))));
        activity.begin(None);
        let later = Instant::now() + STALLED;
        assert_eq!(activity.spare(Instant::now()), None, "a body that comes");
        assert!(matches!(activity.spare(later), Some(Spare::Stalled(_))));
        activity.end_of_body();
        assert_eq!(activity.spare(later + STALLED), None);
        activity.answered();
        activity.blocked(true);
        assert_eq!(activity.quiet_since(), None);
        assert!(matches!(activity.spare(later + STALLED), Some(Spare::Stalled(_))));
        activity.blocked(false);
        assert!(activity.quiet_since().is_some());
        activity.tell_to_leave();
        assert_eq!(activity.spare(later), None, "only once");
    }
}
