//! A little server with prescribed behaviour, so that the generator is tested without the real one.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::{Duration, Instant};

/// At a stop the listener goes on until no caller has come for so long. The system resets a connection that is made between the last `accept` and the listener's end,
/// so answers wait until then, and callers with them.
const QUIET: Duration = Duration::from_millis(100);

/// What to do with one request.
pub enum Behaviour {
    /// Status and body; the connection stays.
    Answer(u16, String),
    /// The same, after a while.
    AnswerAfter(Duration, u16, String),
    /// The same at once, then the connection is closed without having said so.
    AnswerAndClose(u16, String),
    /// Reads the request and closes.
    CloseUnanswered,
    /// Closes in the middle of the answer.
    CloseMidway,
}

struct Shared {
    behave: Box<dyn Fn(usize) -> Behaviour + Send + Sync>,
    requests: AtomicUsize,
    connections: AtomicUsize,
    stopping: AtomicBool,
    /// Whether new connections are refused.
    closed: AtomicBool,
    open: Mutex<Vec<JoinHandle<()>>>,
}

/// Listens until it is stopped or dropped.
pub struct StandIn {
    address: SocketAddr,
    shared: Arc<Shared>,
    listener: Mutex<Option<JoinHandle<()>>>,
}

impl StandIn {
    /// `behave` is given the number of the request, from 0.
    pub fn start(behave: impl Fn(usize) -> Behaviour + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            behave: Box::new(behave),
            requests: AtomicUsize::new(0),
            connections: AtomicUsize::new(0),
            stopping: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            open: Mutex::new(Vec::new()),
        });
        let (accept, stopping) = (shared.clone(), shared.clone());
        let listener = spawn(move || {
            let accept = |stream: TcpStream| {
                stream.set_nonblocking(false).unwrap();
                accept.connections.fetch_add(1, Ordering::SeqCst);
                let serve = accept.clone();
                accept.open.lock().unwrap().push(spawn(move || serve.serve(stream)));
            };
            for stream in listener.incoming() {
                let last = stopping.stopping.load(Ordering::SeqCst);
                // Also after the stop it may be a caller's, not the one that wakes this thread.
                accept(stream.unwrap());
                if last {
                    break;
                }
            }
            // Callers that wait to be accepted have a connection already and are served.
            listener.set_nonblocking(true).unwrap();
            let mut last = Instant::now();
            while last.elapsed() < QUIET {
                match listener.accept() {
                    Ok((stream, _)) => {
                        accept(stream);
                        last = Instant::now();
                    }
                    Err(_) => sleep(Duration::from_millis(1)),
                }
            }
            drop(listener);
            stopping.closed.store(true, Ordering::SeqCst);
        });
        Self { address, shared, listener: Mutex::new(Some(listener)) }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Refuses new connections, answers what was sent, and closes idle connections.
    pub fn stop(&self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        if let Some(listener) = self.listener.lock().unwrap().take() {
            let _ = TcpStream::connect(self.address);
            listener.join().unwrap();
        }
        let open = std::mem::take(&mut *self.shared.open.lock().unwrap());
        open.into_iter().for_each(|connection| connection.join().unwrap());
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.stop();
        }
    }
}

impl Shared {
    fn serve(&self, mut stream: TcpStream) {
        // Longer than a caller is ever kept from sending its next request, also on a machine under load.
        stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        let mut bytes = Vec::new();
        loop {
            let mut buffer = [0; 4096];
            let Some(length) = whole(&bytes) else {
                match stream.read(&mut buffer) {
                    Ok(0) => return,
                    Ok(n) => bytes.extend_from_slice(&buffer[..n]),
                    Err(_) if bytes.is_empty() && self.stopping.load(Ordering::SeqCst) => return,
                    Err(_) => {}
                }
                continue;
            };
            bytes.drain(..length);
            let (status, body, close) = match (self.behave)(self.requests.fetch_add(1, Ordering::SeqCst)) {
                Behaviour::Answer(status, body) => (status, body, false),
                Behaviour::AnswerAfter(pause, status, body) => {
                    sleep(pause);
                    (status, body, false)
                }
                Behaviour::AnswerAndClose(status, body) => (status, body, true),
                Behaviour::CloseUnanswered => return,
                Behaviour::CloseMidway => {
                    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}");
                    return;
                }
            };
            let length = body.len();
            let stopping = self.stopping.load(Ordering::SeqCst);
            while stopping && !self.closed.load(Ordering::SeqCst) {
                sleep(Duration::from_millis(1));
            }
            let connection = if stopping { "Connection: close\r\n" } else { "" };
            let answer = format!(
                "HTTP/1.1 {status} X\r\nRetry-After: 1\r\n{connection}Content-Length: {length}\r\n\r\n{body}"
            );
            if stream.write_all(answer.as_bytes()).is_err() || close || stopping {
                return;
            }
        }
    }
}

/// Length of the first request, once all of it is there.
fn whole(bytes: &[u8]) -> Option<usize> {
    let head = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let text = std::str::from_utf8(&bytes[..head]).unwrap();
    let length =
        text.lines().find_map(|line| line.strip_prefix("Content-Length: ")).map_or(0, |n| n.parse().unwrap());
    (bytes.len() >= head + length).then_some(head + length)
}
