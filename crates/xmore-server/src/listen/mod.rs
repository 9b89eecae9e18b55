//! Connections: accepted, bounded in number and slowness, and at a stop closed when their requests are answered.

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

/// How long a stopping server still accepts connections, to answer that it is stopping.
const DRAIN_NOTICE: Duration = Duration::from_millis(300);
/// How long connections have to take their last answers.
pub(crate) const LAST_ANSWERS: Duration = Duration::from_secs(5);
/// How long a TCP handshake that has begun has to complete.
const SYN_GRACE: Duration = Duration::from_millis(20);
/// Once the server has been closing for this long, every answer closes its connection.
const FINAL: Duration = Duration::from_secs(1);
/// Connections that wait for a place or for their refusal. Those beyond are refused at once.
const WAITING: usize = 256;
/// How often a place is looked for, and the pause before each time.
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

/// Whether the server has stopped accepting and waits for its connections to end.
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

    /// Serves until `stop` completes, then drains: admitted requests are answered, new ones are answered that the server is stopping, and when
    /// nothing is left to answer, or the time is over, no connection is accepted any more.
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
        refuse_handshakes(&listener);
        tokio::time::sleep(SYN_GRACE).await;
        self.close(listener);
        // Connections close themselves when they have been idle for a moment.
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

    /// Stops listening. Connections that are established but not accepted are accepted before, since the system would reset them. The
    /// system is asked directly: what the runtime knows may be out of date.
    fn close(self: &Arc<Self>, listener: TcpListener) {
        let Ok(listener) = listener.into_std() else { return };
        while let Ok((stream, peer)) = listener.accept() {
            if stream.set_nonblocking(true).is_ok()
                && let Ok(stream) = TcpStream::from_std(stream)
            {
                self.admit(stream, caller::address(peer.ip()));
            }
        }
    }

    /// Accepts one connection.
    async fn accept(self: &Arc<Self>, listener: &TcpListener) {
        match listener.accept().await {
            Ok((stream, peer)) => self.admit(stream, caller::address(peer.ip())),
            Err(error) if is_out_of_files(&error) => {
                tracing::warn!("cannot accept a connection: {error}; one without a request is evicted");
                self.table.evict_one();
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            Err(error) => {
                // The caller has disconnected; the next may not.
                tracing::warn!("cannot accept a connection: {error}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }

    /// Serves a connection, if there is a place for it.
    fn admit(self: &Arc<Self>, stream: TcpStream, address: IpAddr) {
        // Answers are written as a whole: there is nothing to wait for.
        let _ = stream.set_nodelay(true);
        match self.table.admit(address) {
            Some(place) => drop(tokio::spawn(connection::serve(self.clone(), stream, address, place))),
            None => self.wait_for_place(stream, address),
        }
    }

    /// Looks for a place for a while, then refuses the connection.
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
                if let Some(place) = listener.table.admit(address) {
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

/// Has the system drop the packets that begin a connection; the caller repeats them and is refused once the socket is closed. Without it a
/// connection that is established between the last accept and the closing would be reset.
#[cfg(target_os = "linux")]
fn refuse_handshakes(listener: &TcpListener) {
    use socket2::SockFilter;
    // Packets that complete a handshake must still arrive, so only its first is dropped: SYN without ACK.
    let no_first_packet = [
        SockFilter::new(0x30, 0, 0, 13),       // load the byte of TCP's flags
        SockFilter::new(0x54, 0, 0, 0x12),     // of which SYN and ACK
        SockFilter::new(0x15, 0, 1, 0x02),     // are SYN alone?
        SockFilter::new(0x06, 0, 0, 0),        // keep nothing of it
        SockFilter::new(0x06, 0, 0, u32::MAX), // else all
    ];
    if let Err(error) = socket2::SockRef::from(listener).attach_filter(&no_first_packet) {
        tracing::debug!("connections that begin now may be reset: {error}");
    }
}

#[cfg(not(target_os = "linux"))]
fn refuse_handshakes(_: &TcpListener) {}
