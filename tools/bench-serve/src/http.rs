//! HTTP/1.1 over blocking sockets, just enough to load a server: prebuilt requests out, answers with a Content-Length in.
//!
//! Not a client library, and on purpose: the generator shares the processors with the server, so whatever one request costs here is
//! missing there. A request is a look or two at the socket, one write and a read or two. What became of it is told exactly, since lost
//! requests are counted: whether anything had been sent, on what connection, and how far the answer came.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::ops::Range;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};

/// Longest wait for a connection; on loopback it is there at once or refused.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest wait for the next bytes of an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// How often, a millisecond apart, a closed connection is looked at for its reset.
const RESET_LOOKS: usize = 200;
/// Most bytes of a head and of a body; more is no answer of this server.
const MAX_HEAD: usize = 64 << 10;
const MAX_BODY: usize = 64 << 20;

/// A complete answer.
#[derive(Debug, PartialEq)]
pub struct Answer<'a> {
    pub status: u16,
    /// Whether it says when to come again.
    pub retry_after: bool,
    pub body: &'a [u8],
}

/// Why there is no answer.
#[derive(Debug)]
pub enum Failure {
    /// No connection could be made: nothing was sent.
    NotConnected(io::Error),
    /// The server closed the connection before the request had been sent: HTTP allows that at any time between two requests.
    ClosedUnsent,
    /// A request was sent and not answered.
    Lost(Loss),
}

/// How a request that was sent was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// A new connection was closed without a byte of an answer.
    Fresh,
    /// So was a kept one, after the request had come to the server.
    Reused,
    /// Closed in the middle of an answer.
    Midway,
    /// Nothing came for a minute.
    TimedOut,
    /// What came is not an answer.
    Malformed,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotConnected(e) => write!(f, "no connection: {e}"),
            Self::ClosedUnsent => f.write_str("the connection was closed before the request had been sent"),
            Self::Lost(loss) => f.write_str(match loss {
                Loss::Fresh | Loss::Reused => "the connection was closed without an answer",
                Loss::Midway => "the connection was closed in the middle of the answer",
                Loss::TimedOut => "no answer within a minute",
                Loss::Malformed => "expected an HTTP/1.1 answer with a Content-Length, found something else",
            }),
        }
    }
}

/// One connection at a time to one server.
pub struct Client {
    address: SocketAddr,
    keep_alive: bool,
    stream: Option<TcpStream>,
    buffer: Vec<u8>,
}

impl Client {
    /// Keeps its connection as long as the server does.
    pub fn keep_alive(address: SocketAddr) -> Self {
        Self { address, keep_alive: true, stream: None, buffer: Vec::new() }
    }

    /// Connects anew for each request.
    pub fn fresh(address: SocketAddr) -> Self {
        Self { keep_alive: false, ..Self::keep_alive(address) }
    }

    /// Connects, so that the next request does not have to.
    pub fn connect(&mut self) -> io::Result<()> {
        if self.stream.is_none() {
            let stream = TcpStream::connect_timeout(&self.address, CONNECT_TIMEOUT)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
            stream.set_write_timeout(Some(ANSWER_TIMEOUT))?;
            self.stream = Some(stream);
        }
        Ok(())
    }

    /// Sends a request, head and body, and waits for the answer. A kept connection that the server closed in the meantime is replaced.
    pub fn send(&mut self, request: &[u8]) -> Result<Answer<'_>, Failure> {
        // Bytes that nobody asked for, such as a 408 before closing, end a connection too.
        if !self.keep_alive || self.stream.as_ref().is_some_and(|stream| look(stream) != Look::Open) {
            self.stream = None;
        }
        let fresh = self.stream.is_none();
        self.connect().map_err(Failure::NotConnected)?;
        self.buffer.clear();
        // Taken out, so that it is closed on every way but the last.
        let Some(mut stream) = self.stream.take().filter(|stream| look(stream) != Look::Closed) else {
            return Err(Failure::ClosedUnsent);
        };
        let head = exchange(&mut stream, &mut self.buffer, request, fresh)?;
        if self.keep_alive && !head.close {
            self.stream = Some(stream);
        }
        Ok(Answer { status: head.status, retry_after: head.retry_after, body: &self.buffer[head.body] })
    }
}

#[derive(Debug, PartialEq)]
enum Look {
    Open,
    Data,
    Closed,
}

/// What there is to read, without waiting and without taking it.
fn look(stream: &TcpStream) -> Look {
    let mut byte = [0u8; 1];
    match recv(stream, &mut byte, RecvFlags::PEEK | RecvFlags::DONTWAIT) {
        Ok((_, 0)) => Look::Closed,
        Ok(_) => Look::Data,
        Err(Errno::AGAIN | Errno::INTR) => Look::Open,
        Err(_) => Look::Closed,
    }
}

/// Sends on a connection that was open a moment ago.
fn exchange(
    stream: &mut TcpStream,
    buffer: &mut Vec<u8>,
    request: &[u8],
    fresh: bool,
) -> Result<Head, Failure> {
    let written = stream.write_all(request);
    let closed = look(stream) == Look::Closed;
    // Also after a failed write: a server may say that a body is too large, and close.
    read_answer(stream, buffer).map_err(|loss| match loss {
        Loss::Fresh if fresh => Failure::Lost(Loss::Fresh),
        Loss::Fresh if closed && was_reset_late(stream, written) => Failure::ClosedUnsent,
        Loss::Fresh => Failure::Lost(Loss::Reused),
        loss => Failure::Lost(loss),
    })
}

/// Whether the request came to a connection whose other side had been closed: Linux answers its bytes with a reset, and calls a reset behind
/// the end `EPIPE`. A server that took the request and closed resets nothing; one that left it unread resets an open connection,
/// which is `ECONNRESET`, or first closes its side and then resets it: therefore [`exchange`] also looks whether that side was closed when
/// the request had just been sent.
fn was_reset_late(stream: &TcpStream, written: io::Result<()>) -> bool {
    let is_late = |e: &io::Error| e.kind() == ErrorKind::BrokenPipe;
    if let Err(e) = written {
        return is_late(&e);
    }
    // One that only closed its sending side may take its time.
    (0..RESET_LOOKS).any(|_| {
        std::thread::sleep(Duration::from_millis(1));
        stream.take_error().is_ok_and(|error| error.as_ref().is_some_and(is_late))
    })
}

/// What the head says, and where the body is in the buffer.
#[derive(Debug, PartialEq)]
struct Head {
    status: u16,
    retry_after: bool,
    close: bool,
    body: Range<usize>,
}

/// Reads one answer into the buffer, which is empty.
fn read_answer(stream: &mut impl Read, buffer: &mut Vec<u8>) -> Result<Head, Loss> {
    let mut head = None;
    loop {
        if head.is_none() {
            head = parse_head(buffer)?;
        }
        if let Some(head) = head.take_if(|head| buffer.len() >= head.body.end) {
            // One request has one answer.
            return if buffer.len() == head.body.end { Ok(head) } else { Err(Loss::Malformed) };
        }
        let filled = buffer.len();
        buffer.resize(filled + (16 << 10), 0);
        let read = stream.read(&mut buffer[filled..]);
        buffer.truncate(filled + *read.as_ref().unwrap_or(&0));
        match read {
            Ok(1..) => {}
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                return Err(Loss::TimedOut);
            }
            Ok(0) | Err(_) => return Err(if filled == 0 { Loss::Fresh } else { Loss::Midway }),
        }
    }
}

/// The head, once all of it is there.
fn parse_head(bytes: &[u8]) -> Result<Option<Head>, Loss> {
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
        return if bytes.len() > MAX_HEAD { Err(Loss::Malformed) } else { Ok(None) };
    };
    let text = std::str::from_utf8(&bytes[..end]).map_err(|_| Loss::Malformed)?;
    let mut lines = text.split("\r\n");
    let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok());
    let (mut length, mut retry_after, mut close) = (None, false, false);
    for line in lines {
        let (name, value) = line.split_once(':').ok_or(Loss::Malformed)?;
        match (name, value.trim()) {
            (name, value) if name.eq_ignore_ascii_case("content-length") => length = value.parse().ok(),
            (name, value) if name.eq_ignore_ascii_case("connection") => {
                close = value.eq_ignore_ascii_case("close");
            }
            (name, value) if name.eq_ignore_ascii_case("retry-after") => {
                retry_after = value.parse::<u64>().is_ok();
            }
            _ => {}
        }
    }
    let length = length.filter(|&length: &usize| length <= MAX_BODY).ok_or(Loss::Malformed)?;
    let status = status.ok_or(Loss::Malformed)?;
    Ok(Some(Head { status, retry_after, close, body: end + 4..end + 4 + length }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stand_in::{Behaviour, StandIn};

    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nContent-Length: 0\r\n\r\n";

    fn read(mut bytes: &[u8]) -> Result<(Head, Vec<u8>), Loss> {
        let mut buffer = Vec::new();
        let head = read_answer(&mut bytes, &mut buffer)?;
        let body = buffer[head.body.clone()].to_vec();
        Ok((head, body))
    }

    #[test]
    fn answers_are_read_whole_or_told_apart() {
        let (head, body) =
            read(b"HTTP/1.1 429 Too Many Requests\r\nretry-after: 1\r\nContent-Length: 2\r\n\r\n{}").unwrap();
        assert_eq!(
            (head.status, head.retry_after, head.close, body.as_slice()),
            (429, true, false, &b"{}"[..])
        );
        let (head, _) = read(b"HTTP/1.1 200 OK\r\nConnection: close\r\ncontent-length:0\r\n\r\n").unwrap();
        assert!(head.close && !head.retry_after);
        assert_eq!(read(b"").unwrap_err(), Loss::Fresh);
        assert_eq!(read(b"HTTP/1.1 200 OK\r\nContent-Le").unwrap_err(), Loss::Midway);
        assert_eq!(read(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{}").unwrap_err(), Loss::Midway);
        assert_eq!(read(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{}").unwrap_err(), Loss::Malformed);
        assert_eq!(read(b"HTTP/1.1 200 OK\r\n\r\n{}").unwrap_err(), Loss::Malformed);
        assert_eq!(read(b"SSH-2.0-x\r\nContent-Length: 0\r\n\r\n").unwrap_err(), Loss::Malformed);
        assert_eq!(read(&[b'x'; MAX_HEAD + 1]).unwrap_err(), Loss::Malformed);
    }

    /// Bytes that arrive one at a time.
    struct Slow<'a>(&'a [u8]);

    impl Read for Slow<'_> {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            self.0.read(&mut into[..1])
        }
    }

    #[test]
    fn an_answer_may_come_in_pieces() {
        let mut buffer = Vec::new();
        let mut slow = Slow(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabcde");
        let head = read_answer(&mut slow, &mut buffer).unwrap();
        assert_eq!(&buffer[head.body], b"abcde");
    }

    #[test]
    fn a_connection_is_kept_and_replaced_where_the_server_closed_it() {
        let server = StandIn::start(|n| match n {
            1 => Behaviour::AnswerAndClose(200, "b".into()),
            _ => Behaviour::Answer(200, "a".into()),
        });
        let mut client = Client::keep_alive(server.address());
        assert_eq!(client.send(REQUEST).unwrap().body, b"a");
        assert_eq!(server.connections(), 1);
        // Without the header `Connection: close`, so that only the closed socket tells.
        assert_eq!(client.send(REQUEST).unwrap().body, b"b");
        std::thread::sleep(Duration::from_millis(50));
        assert_eq!(client.send(REQUEST).unwrap().body, b"a");
        assert_eq!(server.connections(), 2);
        let mut client = Client::fresh(server.address());
        assert!(client.send(REQUEST).is_ok() && client.send(REQUEST).is_ok());
        assert_eq!(server.connections(), 4);
    }

    /// What a request on a kept connection comes to, if the server does this to the connection before the request and that after.
    fn on_kept(before: impl FnOnce(&mut Option<TcpStream>), after: impl FnOnce(TcpStream) + Send) -> Failure {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let mut accepted = Some(listener.accept().unwrap().0);
        before(&mut accepted);
        std::thread::scope(|scope| {
            if let Some(accepted) = accepted {
                scope.spawn(move || after(accepted));
            }
            exchange(&mut stream, &mut Vec::new(), REQUEST, false).unwrap_err()
        })
    }

    #[test]
    fn on_a_kept_connection_it_counts_what_came_first() {
        let closed = on_kept(|stream| drop(stream.take()), |_| ());
        assert!(matches!(closed, Failure::ClosedUnsent), "{closed:?}");
        // As hyper does: its side is closed, then the connection, with a request in it that nobody read.
        let half = on_kept(
            |stream| stream.as_ref().unwrap().shutdown(std::net::Shutdown::Write).unwrap(),
            |stream| {
                std::thread::sleep(Duration::from_millis(20));
                drop(stream);
            },
        );
        assert!(matches!(half, Failure::ClosedUnsent), "{half:?}");
        let unread = on_kept(
            |_| (),
            |stream| {
                while look(&stream) == Look::Open {}
                drop(stream);
            },
        );
        assert!(matches!(unread, Failure::Lost(Loss::Reused)), "{unread:?}");
        let read =
            on_kept(|_| (), |mut stream| assert_eq!(stream.read(&mut [0; 99]).unwrap(), REQUEST.len()));
        assert!(matches!(read, Failure::Lost(Loss::Reused)), "{read:?}");
        let half = on_kept(
            |_| (),
            |stream| {
                while look(&stream) == Look::Open {}
                std::thread::sleep(Duration::from_millis(20));
                stream.shutdown(std::net::Shutdown::Write).unwrap();
                drop(stream);
            },
        );
        assert!(matches!(half, Failure::Lost(Loss::Reused)), "{half:?}");
    }

    #[test]
    fn lost_requests_are_told_from_those_that_were_not_sent() {
        let server = StandIn::start(|n| match n {
            0 | 2 => Behaviour::CloseUnanswered,
            3 => Behaviour::CloseMidway,
            _ => Behaviour::Answer(200, "a".into()),
        });
        let mut client = Client::keep_alive(server.address());
        assert!(matches!(client.send(REQUEST), Err(Failure::Lost(Loss::Fresh))));
        assert!(client.send(REQUEST).is_ok());
        assert!(matches!(client.send(REQUEST), Err(Failure::Lost(Loss::Reused))));
        assert!(matches!(client.send(REQUEST), Err(Failure::Lost(Loss::Midway))));
        assert!(client.send(REQUEST).is_ok());
        server.stop();
        assert!(matches!(client.send(REQUEST), Err(Failure::NotConnected(_))));
    }
}
