//! Serving one connection: its stream, its requests, and its end.

use std::convert::Infallible;
use std::io::{self, ErrorKind, IoSlice, Write};
use std::mem::MaybeUninit;
use std::net::{IpAddr, Shutdown};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING};
use axum::http::{HeaderMap, HeaderValue, Request, Response};
use axum::response::IntoResponse;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};

use super::activity::Activity;
use super::table::Place;
use super::{Closing, Listener};
use crate::api_error::{ApiError, ErrorBody, ErrorCode};
use crate::caller::Address;

/// Bytes of a request's head.
const MAX_HEADER_BYTES: usize = 64 << 10;
/// Longest time for a refused connection to send its request and receive the refusal.
const REFUSAL: Duration = Duration::from_secs(1);
/// How long a connection without a request may still send one when the server is closing.
const IDLE_GRACE: Duration = Duration::from_millis(300);

/// Serves a connection until its peer closes it, it is evicted, or the server stops.
pub(super) async fn serve(listener: Arc<Listener>, stream: TcpStream, address: IpAddr, place: Place) {
    let counted = listener.app.metrics.begin_connection();
    let (activity, closing) = (place.activity.clone(), listener.closing.subscribe());
    let timeout = listener.app.options.limits.receive_timeout;
    let router = TowerToHyperService::new(listener.router.clone());
    let socket = Arc::new(stream);
    let (of_service, app) = (activity.clone(), listener.app.clone());
    let (of_requests, peeked) = (closing.clone(), socket.clone());
    let service = service_fn(move |mut request: Request<Incoming>| {
        of_service.begin(body_length(request.headers()));
        request.extensions_mut().insert(Address(address));
        let request = request.map(|body| Body::new(Receiving { body, activity: of_service.clone() }));
        let (answer, activity, app) = (router.call(request), of_service.clone(), app.clone());
        let (closing, socket) = (of_requests.clone(), peeked.clone());
        async move {
            let mut response = answer.await?;
            // Pipelined requests are answered, too, before the connection is closed.
            let is_last = || activity.is_last() && !has_unread(&socket);
            if app.is_stopping() && (is_last() || closing.borrow().is_final()) {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            activity.answered();
            Ok::<_, Infallible>(response)
        }
    });
    let stream = Stream { socket, activity: activity.clone(), timeout, waiting: None };
    let connection = http(timeout).serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        result = connection => if let Err(error) = result {
            tracing::debug!("a connection ended: {error}");
        },
        () = activity.close_requested() => {
            listener.app.metrics.connection_dropped();
            tracing::debug!(%address, "a connection without a request was evicted for another");
        }
        () = idle_at_stop(closing, &activity) => {}
    }
    drop((counted, place));
}

/// Answers that there are too many connections.
pub(super) async fn refuse(stream: TcpStream) {
    let service = service_fn(|_: Request<Incoming>| async {
        let mut response: Response<Body> = too_many().into_response();
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        Ok::<_, Infallible>(response)
    });
    let connection = http(REFUSAL).serve_connection(TokioIo::new(stream), service);
    let _ = tokio::time::timeout(REFUSAL, connection).await;
}

/// The same without waiting for the request, as far as the socket's buffer takes the answer.
pub(super) fn refuse_at_once(stream: TcpStream) {
    // The runtime has not polled the socket yet. It does not block, so it can be used directly.
    let Ok(mut stream) = stream.into_std() else { return };
    let error = too_many();
    let status = error.code.status();
    let body = serde_json::to_string(&ErrorBody { error }).unwrap_or_default();
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\nretry-after: 1\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    // Received bytes that are not read would make the system reset the connection.
    let _ = SockRef::from(&stream).recv(&mut [MaybeUninit::uninit(); 4096]);
    let _ = stream.write_all((head + &body).as_bytes());
}

fn too_many() -> ApiError {
    let message =
        "as many connections are open as this server takes, and all of them are busy; try again later";
    ApiError::new(ErrorCode::TooManyConnections, message)
}

fn http(head_timeout: Duration) -> http1::Builder {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(head_timeout)
        .max_buf_size(MAX_HEADER_BYTES)
        .half_close(true);
    http
}

/// Length of a request's body by its head; `None` where it comes in chunks.
fn body_length(headers: &HeaderMap) -> Option<u64> {
    if headers.contains_key(TRANSFER_ENCODING) {
        return None;
    }
    headers.get(CONTENT_LENGTH).map_or(Some(0), |length| length.to_str().ok()?.parse().ok())
}

/// Ends when the server is closing and the connection has been idle for a while.
async fn idle_at_stop(mut closing: tokio::sync::watch::Receiver<Closing>, activity: &Activity) {
    if closing.wait_for(Closing::has_begun).await.is_err() {
        return std::future::pending().await;
    }
    while activity.idle_since().is_none_or(|since| since.elapsed() < IDLE_GRACE) {
        sleep(Duration::from_millis(5)).await;
    }
}

/// The body of a request, whose end is noted in the connection's activity.
struct Receiving {
    body: Incoming,
    activity: Arc<Activity>,
}

impl hyper::body::Body for Receiving {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        if let Poll::Ready(None | Some(Err(_))) = frame {
            self.activity.end_of_body();
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Receiving {
    fn drop(&mut self) {
        self.activity.end_of_body();
    }
}

/// A stream whose writes must make progress within a time, like nginx's `send_timeout`: a caller that reads nothing would keep its place
/// forever.
struct Stream {
    socket: Arc<TcpStream>,
    activity: Arc<Activity>,
    timeout: Duration,
    /// Runs while a write waits.
    waiting: Option<Pin<Box<Sleep>>>,
}

impl Stream {
    fn write(
        &self,
        cx: &mut Context<'_>,
        write: impl Fn(&TcpStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.socket.poll_write_ready(cx))?;
            match write(&self.socket) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                written => return Poll::Ready(written),
            }
        }
    }

    fn within<T>(&mut self, cx: &mut Context<'_>, write: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if write.is_ready() {
            if self.waiting.take().is_some() {
                self.activity.blocked(false);
            }
            return write;
        }
        let timeout = self.timeout;
        let waiting = self.waiting.get_or_insert_with(|| {
            self.activity.blocked(true);
            Box::pin(sleep(timeout))
        });
        match waiting.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.socket.poll_read_ready(cx))?;
            match self.socket.try_read(into.initialize_unfilled()) {
                Ok(read) => {
                    into.advance(read);
                    self.activity.received(&into.filled()[into.filled().len() - read..]);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let write = self.write(cx, |socket| socket.try_write(bytes));
        self.within(cx, write)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let write = self.write(cx, |socket| socket.try_write_vectored(slices));
        self.within(cx, write)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(SockRef::from(&*self.socket).shutdown(Shutdown::Write))
    }
}

/// Whether the system has received bytes that were not read.
fn has_unread(socket: &TcpStream) -> bool {
    SockRef::from(socket).peek(&mut [MaybeUninit::uninit()]).is_ok_and(|bytes| bytes > 0)
}
