//! Connections: all are accepted, so many are kept, none may speak too slowly, and at a stop each is let go with its answers.

mod activity;
mod connection;
mod table;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};

use crate::app::Shared;
use crate::caller;
use table::Table;

/// How long a stopping server goes on accepting connections, to tell their callers so.
const DRAIN_NOTICE: Duration = Duration::from_millis(300);
/// How long connections have to take their last answers.
pub(crate) const LAST_ANSWERS: Duration = Duration::from_secs(5);
/// How long a connection that is half made has to come through.
const SYN_GRACE: Duration = Duration::from_millis(20);
/// Once the server has been closing for this long, every answer is a connection's last.
const FINAL: Duration = Duration::from_secs(1);
/// Connections that wait for a place, or to be told that there is none. Those beyond are told at once.
const WAITING: usize = 256;
/// How often, and after how long each, a place is looked for.
const TRIES: u32 = 10;
const TRY_AGAIN: Duration = Duration::from_millis(50);

/// What accepts connections.
pub(crate) struct Listener {
    app: Shared,
    router: Router,
    table: Arc<Table>,
    closing: watch::Sender<Closing>,
    waiting: Arc<Semaphore>,
}

/// Whether the server accepts nothing any more and waits for its connections to end.
#[derive(Clone, Copy, Debug, Default)]
struct Closing(Option<Instant>);

impl Closing {
    fn has_begun(&self) -> bool {
        self.0.is_some()
    }

    /// Whether requests have been answered for long enough.
    fn is_final(&self) -> bool {
        self.0.is_some_and(|begin| begin.elapsed() > FINAL)
    }
}

impl Listener {
    pub(crate) fn new(app: Shared, router: Router) -> Arc<Self> {
        let limits = &app.options.limits;
        let table = Arc::new(Table::new(limits.connections, limits.connections_per_address));
        let waiting = Arc::new(Semaphore::new(WAITING));
        Arc::new(Self { app, router, table, closing: watch::Sender::default(), waiting })
    }

    /// Serves until `stop` comes, then lets go: requests that were taken are answered, those that come are told that the server is
    /// stopping, and only when nothing is left no connection is accepted any more.
    pub(crate) async fn serve(self: &Arc<Self>, listener: TcpListener, stop: impl Future<Output = ()>) {
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
        let drain = self.app.options.limits.drain;
        while begin.elapsed() < DRAIN_NOTICE.min(drain) || self.app.admitted() > 0 && begin.elapsed() < drain
        {
            let _ = tokio::time::timeout(Duration::from_millis(10), self.accept(&listener)).await;
        }
        let left = self.app.admitted();
        if left > 0 {
            tracing::warn!("{left} requests were not answered within {} s", drain.as_secs());
        }
        turn_away(&listener);
        tokio::time::sleep(SYN_GRACE).await;
        self.close(listener);
        // Connections end by themselves when they have been quiet for a moment.
        let begin = Instant::now();
        self.closing.send_replace(Closing(Some(begin)));
        while self.table.len() > 0 && begin.elapsed() < LAST_ANSWERS {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let left = self.table.len();
        if left > 0 {
            tracing::warn!("{left} connections did not take their last answers in time");
        }
    }

    /// Stops listening. Whoever is connected already, but not accepted, is told too: the system would break these connections off. It is asked
    /// directly, since the runtime knows only what was there a moment ago.
    fn close(self: &Arc<Self>, listener: TcpListener) {
        let Ok(listener) = listener.into_std() else { return };
        while let Ok((stream, peer)) = listener.accept() {
            if stream.set_nonblocking(true).is_ok()
                && let Ok(stream) = TcpStream::from_std(stream)
            {
                self.take(stream, caller::address(peer.ip()));
            }
        }
    }

    /// Accepts one connection.
    async fn accept(self: &Arc<Self>, listener: &TcpListener) {
        match listener.accept().await {
            Ok((stream, peer)) => self.take(stream, caller::address(peer.ip())),
            Err(error) if is_out_of_files(&error) => {
                tracing::warn!("cannot accept a connection: {error}; one without a request is closed");
                self.table.make_room();
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            Err(error) => {
                // The caller has gone: the next may be there.
                tracing::warn!("cannot accept a connection: {error}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }

    /// Serves a connection, if there is a place for it.
    fn take(self: &Arc<Self>, stream: TcpStream, address: IpAddr) {
        // Answers are small and whole.
        let _ = stream.set_nodelay(true);
        match self.table.take(address) {
            Some(place) => drop(tokio::spawn(connection::serve(self.clone(), stream, address, place))),
            None => self.wait_for_place(stream, address),
        }
    }

    /// Looks for a place for a while, then tells the caller that there is none.
    fn wait_for_place(self: &Arc<Self>, stream: TcpStream, address: IpAddr) {
        let listener = self.clone();
        let waiting = self.waiting.clone().try_acquire_owned();
        let Ok(waiting) = waiting else {
            self.app.metrics.connection_refused();
            return connection::refuse_at_once(stream);
        };
        tokio::spawn(async move {
            for _ in 0..TRIES {
                tokio::time::sleep(TRY_AGAIN).await;
                if let Some(place) = listener.table.take(address) {
                    drop(waiting);
                    return connection::serve(listener, stream, address, place).await;
                }
            }
            listener.app.metrics.connection_refused();
            connection::refuse(stream).await;
            drop(waiting);
        });
    }
}

/// Whether this process or the system has as many files open as it may (EMFILE, ENFILE).
fn is_out_of_files(error: &std::io::Error) -> bool {
    cfg!(unix) && matches!(error.raw_os_error(), Some(23 | 24))
}

/// Lets no new connection come about: packets that would begin one are dropped, and its caller, who tries again, is refused. Without it
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
