//! Bodies of requests, within bounds: each has a limit, all together have one, and all must arrive in time.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_LENGTH, EXPECT};
use axum::http::request::Parts;
use http_body_util::BodyExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::{ApiError, ErrorCode};
use crate::options::Limits;

/// Unit of the common budget, in bytes: a semaphore counts up to 2^29 permits at least.
const UNIT: usize = 1024;

/// What a request that is refused may still send before its connection is closed, and for how long.
const DRAINED: usize = 64 << 20;
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
    /// much, [`ErrorCode::InvalidRequest`] where it breaks off. As much of a refused body as is reasonable is read nevertheless, since
    /// a caller that is still sending would not see the answer.
    pub(crate) async fn receive(
        &self,
        parts: &Parts,
        mut body: Body,
        limits: &Limits,
    ) -> Result<Received, ApiError> {
        let claimed = parts.headers.get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<usize>().ok());
        let received = match claimed {
            Some(length) if length > limits.body_bytes => Err(too_large(Some(length), limits)),
            _ => {
                let collected = self.collect(&mut body, limits, claimed);
                tokio::time::timeout(limits.receive_timeout, collected).await.unwrap_or_else(|_| {
                    let seconds = limits.receive_timeout.as_secs();
                    let message = format!("the request did not arrive within {seconds} s");
                    Err(ApiError::new(ErrorCode::RequestTimeout, message))
                })
            }
        };
        // Whoever was too slow need not be waited for again.
        if received.as_ref().is_err_and(|error| error.code != ErrorCode::RequestTimeout) {
            drain(&parts.headers, &mut body, limits).await;
        }
        received
    }

    async fn collect(
        &self,
        body: &mut Body,
        limits: &Limits,
        claimed: Option<usize>,
    ) -> Result<Received, ApiError> {
        let mut held: Option<OwnedSemaphorePermit> = None;
        // Not all that is claimed: it may never come.
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

/// Reads what a refused caller is still sending, up to a limit and for a while, and forgets it. A caller that asked before sending
/// (`Expect: 100-continue`) sends nothing unless its body is read.
pub(crate) async fn drain(headers: &HeaderMap, body: &mut Body, limits: &Limits) {
    if headers.contains_key(EXPECT) {
        return;
    }
    let _ = tokio::time::timeout(DRAIN_TIME.min(limits.receive_timeout), async {
        let mut left = DRAINED;
        while let Some(Ok(frame)) = body.frame().await {
            left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
            if left == 0 {
                return;
            }
        }
    })
    .await;
}

/// `length` is the body's, where it was told.
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
    use axum::http::Request;

    async fn receive(budget: &Budget, limits: &Limits, body: Vec<u8>) -> Result<Received, ApiError> {
        let (parts, body) = Request::new(Body::from(body)).into_parts();
        budget.receive(&parts, body, limits).await
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
        assert_eq!(code(receive(&budget, &limits, vec![1; UNIT + 1]).await), None, "given back");
    }

    #[tokio::test]
    async fn a_body_that_does_not_come_is_not_waited_for() {
        struct Never;
        impl hyper::body::Body for Never {
            type Data = Bytes;
            type Error = std::convert::Infallible;
            fn poll_frame(
                self: std::pin::Pin<&mut Self>,
                _: &mut std::task::Context<'_>,
            ) -> std::task::Poll<Option<Result<hyper::body::Frame<Bytes>, Self::Error>>> {
                std::task::Poll::Pending
            }
        }
        let limits = Limits { receive_timeout: Duration::from_millis(20), ..Limits::default() };
        let (parts, body) = Request::new(Body::new(Never)).into_parts();
        let refused = Budget::new(UNIT).receive(&parts, body, &limits).await;
        assert_eq!(refused.err().map(|error| error.code), Some(ErrorCode::RequestTimeout));
    }
}
