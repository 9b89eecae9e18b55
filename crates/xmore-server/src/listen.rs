//! Connections: accepted up to a number, with limits on how slowly they may speak, and let go without losing an answer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::app::Shared;
use crate::patient::Patient;

/// How long a stopping server goes on telling callers so before it closes its door.
const FAREWELL: Duration = Duration::from_millis(300);
/// How long connections have to take their last answers.
const LAST_ANSWERS: Duration = Duration::from_secs(5);
/// How long a connection that is half made has to come through.
const LINGER: Duration = Duration::from_millis(20);
/// How long a caller that is connected may still be silent.
const SILENCE: Duration = Duration::from_millis(500);
/// Bytes of a request's head.
const HEAD: usize = 64 << 10;

/// The door.
pub(crate) struct Door {
    app: Shared,
    router: Router,
    places: Arc<Semaphore>,
    open: GracefulShutdown,
}

impl Door {
    pub(crate) fn new(app: Shared, router: Router) -> Self {
        let places = Arc::new(Semaphore::new(app.options.limits.connections));
        Self { app, router, places, open: GracefulShutdown::new() }
    }

    /// Serves until `stop` comes, then lets go: requests that were taken are answered, those that come are told that the server is
    /// stopping, and only when nothing is left is the door closed.
    pub(crate) async fn serve(self, listener: TcpListener, stop: impl Future<Output = ()>) {
        tokio::pin!(stop);
        loop {
            tokio::select! {
                biased;
                () = &mut stop => break,
                () = self.accept(&listener) => {}
            }
        }
        self.app.stop();
        let begin = Instant::now();
        let patience = self.app.options.limits.drain;
        while begin.elapsed() < FAREWELL || self.app.admitted() > 0 && begin.elapsed() < patience {
            let _ = tokio::time::timeout(Duration::from_millis(10), self.accept(&listener)).await;
        }
        turn_away(&listener);
        tokio::time::sleep(LINGER).await;
        self.close(listener);
        // A caller may have connected and not come to ask yet; whoever asks is told, and lets go.
        let begin = Instant::now();
        while self.open.count() > 0 && begin.elapsed() < SILENCE {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let left = self.app.admitted();
        if left > 0 {
            tracing::warn!("{left} requests were not answered within {} s", patience.as_secs());
        }
        if tokio::time::timeout(LAST_ANSWERS, self.open.shutdown()).await.is_err() {
            tracing::warn!("some connections did not take their last answer in time");
        }
    }

    /// Closes the door. Whoever is connected already, but not accepted, is told too: the system would break these connections off. It is asked
    /// directly, since the runtime knows only what was there a moment ago.
    fn close(&self, listener: TcpListener) {
        let Ok(listener) = listener.into_std() else { return };
        while let Ok((stream, _)) = listener.accept() {
            if stream.set_nonblocking(true).is_ok()
                && let Ok(stream) = TcpStream::from_std(stream)
            {
                tokio::spawn(self.connection(stream));
            }
        }
    }

    /// Accepts one connection, when there is a place for it.
    async fn accept(&self, listener: &TcpListener) {
        let Ok(place) = self.places.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let connection = self.connection(stream);
                tokio::spawn(async move {
                    connection.await;
                    drop(place);
                });
            }
            Err(error) => {
                // Out of file descriptors, or the caller has gone: the next may be luckier.
                tracing::warn!("cannot accept a connection: {error}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }

    fn connection(&self, stream: TcpStream) -> impl Future<Output = ()> + use<> {
        // Answers are small and whole.
        let _ = stream.set_nodelay(true);
        let counted = self.app.metrics.begin_connection();
        let patience = self.app.options.limits.receive_timeout;
        let stream = Patient::new(stream, patience);
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(patience)
            .max_buf_size(HEAD)
            .half_close(true)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(self.router.clone()));
        let watched = self.open.watch(connection);
        async move {
            if let Err(error) = watched.await {
                tracing::debug!("a connection ended: {error}");
            }
            drop(counted);
        }
    }
}

/// Lets no new connection come about: packets that would begin one are dropped, and its caller, who tries again, finds the door closed. Without it
/// a connection that was made between the last look and the closing would be broken off.
#[cfg(target_os = "linux")]
fn turn_away(listener: &TcpListener) {
    use socket2::SockFilter;
    // What completes a connection must still come through, so only its first packet is dropped: SYN without ACK.
    let no_first_packet = [
        SockFilter::new(0x30, 0, 0, 13),       // load the byte of TCP's flags
        SockFilter::new(0x54, 0, 0, 0x12),     // of which SYN and ACK
        SockFilter::new(0x15, 0, 1, 0x02),     // are SYN alone?
        SockFilter::new(0x06, 0, 0, 0),        // keep nothing of it
        SockFilter::new(0x06, 0, 0, u32::MAX), // else all
    ];
    if let Err(error) = socket2::SockRef::from(listener).attach_filter(&no_first_packet) {
        tracing::debug!("connections that come now may be broken off: {error}");
    }
}

#[cfg(not(target_os = "linux"))]
fn turn_away(_: &TcpListener) {}
