//! Bodies of requests, within bounds: each has a limit, all together have one, and all must arrive in time.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use axum::http::header::{CONTENT_LENGTH, EXPECT};
use axum::http::request::Parts;
use http_body_util::BodyExt;
use hyper::body::{Frame, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::api_error::{ApiError, ErrorCode};
use crate::options::Limits;

/// Unit of the common budget, in bytes: a semaphore counts up to 2^29 permits at least.
const UNIT: usize = 1024;

/// Bytes of an unread body that are still received before the connection is closed, and for how long.
const MAX_DRAINED: usize = 64 << 20;
const DRAIN_TIME: Duration = Duration::from_secs(5);

/// The bytes that all bodies may take.
pub(crate) struct Budget {
    units: Arc<Semaphore>,
}

/// A body that was received, and its share of the budget.
pub(crate) struct Received {
    pub(crate) bytes: Bytes,
    pub(crate) held: Option<OwnedSemaphorePermit>,
}

impl Budget {
    pub(crate) fn new(bytes: usize) -> Self {
        Self { units: Arc::new(Semaphore::new((bytes / UNIT).clamp(1, Semaphore::MAX_PERMITS))) }
    }

    /// Receives a body.
    ///
    /// # Errors
    /// [`ErrorCode::BodyTooLarge`], [`ErrorCode::RequestTimeout`], [`ErrorCode::Overloaded`] where all bodies together would take too
    /// much, [`ErrorCode::InvalidRequest`] where it breaks off.
    pub(crate) async fn receive(
        &self,
        parts: &Parts,
        mut body: Body,
        limits: &Limits,
    ) -> Result<Received, ApiError> {
        let claimed = parts.headers.get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<usize>().ok());
        match claimed {
            Some(length) if length > limits.body_bytes => Err(too_large(Some(length), limits)),
            _ => {
                let collected = self.collect(&mut body, limits, claimed);
                tokio::time::timeout(limits.receive_timeout, collected).await.unwrap_or_else(|_| {
                    let seconds = limits.receive_timeout.as_secs();
                    let message = format!("the request did not arrive within {seconds} s");
                    Err(ApiError::new(ErrorCode::RequestTimeout, message))
                })
            }
        }
    }

    async fn collect(
        &self,
        body: &mut Body,
        limits: &Limits,
        claimed: Option<usize>,
    ) -> Result<Received, ApiError> {
        let mut held: Option<OwnedSemaphorePermit> = None;
        // Not all that is claimed: it may never arrive.
        let mut bytes = Vec::with_capacity(claimed.unwrap_or(0).min(64 * UNIT));
        while let Some(frame) = body.frame().await {
            let frame =
                frame.map_err(|error| ApiError::invalid(format!("the request's body broke off: {error}")))?;
            let Ok(data) = frame.into_data() else { continue };
            if bytes.len() + data.len() > limits.body_bytes {
                return Err(too_large(claimed, limits));
            }
            let have = held.as_ref().map_or(0, |held| held.num_permits() * UNIT);
            let missing = (bytes.len() + data.len()).saturating_sub(have).div_ceil(UNIT);
            if missing > 0 {
                let more =
                    self.units.clone().try_acquire_many_owned(u32::try_from(missing).unwrap_or(u32::MAX));
                let more = more.map_err(|_| ApiError::overloaded())?;
                match &mut held {
                    Some(held) => held.merge(more),
                    None => held = Some(more),
                }
            }
            bytes.extend_from_slice(&data);
        }
        Ok(Received { bytes: bytes.into(), held })
    }
}

/// What a handler does not read of a request's body. It is received and discarded before the answer, up to limits of size and time: a caller
/// that is still sending would not see the answer, and a connection with unread bytes must be closed.
pub(crate) struct UnreadBody {
    shared: Arc<Mutex<Shared>>,
    /// The caller sends its body only when that is read (`Expect: 100-continue`).
    waits: bool,
}

struct Shared {
    body: Body,
    ended: bool,
}

/// The body as the handler reads it.
struct SharedBody(Arc<Mutex<Shared>>);

impl HttpBody for SharedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let mut shared = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let frame = Pin::new(&mut shared.body).poll_frame(context);
        shared.ended |= matches!(frame, Poll::Ready(None));
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).body.size_hint()
    }
}

impl UnreadBody {
    /// The request for the handler, and what it does not read of the body.
    pub(crate) fn of(request: Request) -> (Request, Self) {
        let (parts, body) = request.into_parts();
        let waits = parts.headers.contains_key(EXPECT);
        let shared = Arc::new(Mutex::new(Shared { body, ended: false }));
        (Request::from_parts(parts, Body::new(SharedBody(shared.clone()))), Self { shared, waits })
    }

    /// Whether the body was read to its end. Reads the rest of it first, if the caller `may_go_on`.
    pub(crate) async fn finish(self, may_go_on: bool, limits: &Limits) -> bool {
        // A task that the handler started may still read it.
        let Ok(shared) = Arc::try_unwrap(self.shared) else { return false };
        let Shared { mut body, ended } = shared.into_inner().unwrap_or_else(PoisonError::into_inner);
        if ended || body.is_end_stream() {
            return true;
        }
        if self.waits || !may_go_on {
            return false;
        }
        tokio::time::timeout(DRAIN_TIME.min(limits.receive_timeout), async {
            let mut left = MAX_DRAINED;
            while let Some(frame) = body.frame().await {
                let Ok(frame) = frame else { return false };
                left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
                if left == 0 {
                    return false;
                }
            }
            true
        })
        .await
        .unwrap_or(false)
    }
}

/// `length` is the body's, where it is known.
fn too_large(length: Option<usize>, limits: &Limits) -> ApiError {
    let found =
        length.map_or_else(|| format!("more than {}", limits.body_bytes), |length| length.to_string());
    ApiError::new(
        ErrorCode::BodyTooLarge,
        format!("the request's body has {found} bytes; at most {} are taken", limits.body_bytes),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn receive(budget: &Budget, limits: &Limits, body: Vec<u8>) -> Result<Received, ApiError> {
        let (parts, body) = Request::new(Body::from(body)).into_parts();
        budget.receive(&parts, body, limits).await
    }

    #[tokio::test]
    async fn what_a_handler_does_not_read_is_drained_up_to_a_limit() {
        let limits = Limits::default();
        let split = |body: Body, expect: bool| {
            let mut request = Request::new(body);
            if expect {
                request.headers_mut().insert(EXPECT, "100-continue".parse().unwrap());
            }
            UnreadBody::of(request)
        };
        let (request, unread) = split(Body::from(vec![0; 100_000]), false);
        drop(request);
        assert!(unread.finish(true, &limits).await, "it is drained");
        for (expect, may_go_on) in [(true, true), (false, false)] {
            let (request, unread) = split(Body::from(vec![0; 100_000]), expect);
            drop(request);
            assert!(!unread.finish(may_go_on, &limits).await);
            let (request, unread) = split(Body::from(vec![0; 100_000]), expect);
            request.into_body().collect().await.unwrap();
            assert!(unread.finish(may_go_on, &limits).await, "it was read");
        }
        let (request, unread) = split(Body::from(vec![0; MAX_DRAINED + 1]), false);
        drop(request);
        assert!(!unread.finish(true, &limits).await, "too much");
        let (_request, unread) = split(Body::empty(), false);
        assert!(!unread.finish(true, &limits).await, "the handler still has it");
    }

    #[tokio::test]
    async fn one_body_and_all_together_are_bounded() {
        let limits = Limits { body_bytes: 3 * UNIT, ..Limits::default() };
        let budget = Budget::new(4 * UNIT);
        let code = |result: Result<Received, ApiError>| result.err().map(|error| error.code);
        let first = receive(&budget, &limits, vec![1; 2 * UNIT + 1]).await.unwrap();
        assert_eq!(first.bytes.len(), 2 * UNIT + 1);
        assert_eq!(
            code(receive(&budget, &limits, vec![1; 3 * UNIT + 1]).await),
            Some(ErrorCode::BodyTooLarge)
        );
        assert_eq!(code(receive(&budget, &limits, vec![1; UNIT + 1]).await), Some(ErrorCode::Overloaded));
        assert_eq!(code(receive(&budget, &limits, vec![1; UNIT]).await), None);
        drop(first);
        assert_eq!(code(receive(&budget, &limits, vec![1; UNIT + 1]).await), None, "released");
    }

    #[tokio::test]
    async fn a_body_that_does_not_arrive_times_out() {
        struct Never;
        impl hyper::body::Body for Never {
            type Data = Bytes;
            type Error = std::convert::Infallible;
            fn poll_frame(
                self: Pin<&mut Self>,
                _: &mut Context<'_>,
            ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
                Poll::Pending
            }
        }
        let limits = Limits { receive_timeout: Duration::from_millis(20), ..Limits::default() };
        let (parts, body) = Request::new(Body::new(Never)).into_parts();
        let refused = Budget::new(UNIT).receive(&parts, body, &limits).await;
        assert_eq!(refused.err().map(|error| error.code), Some(ErrorCode::RequestTimeout));
    }
}
