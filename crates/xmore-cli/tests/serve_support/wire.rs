//! Bytes on the wire: requests that no well-behaved client can write, and the answers to them.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;
use socket2::{Domain, Socket, Type};

use crate::support::server::Server;

/// No answer takes longer.
const TIME_LIMIT: Duration = Duration::from_secs(20);

/// A connection.
pub struct Wire {
    stream: TcpStream,
    /// What was read behind the last answer.
    rest: Vec<u8>,
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Reply {
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

/// A request, as far as it is well-formed.
#[derive(Clone, Debug)]
pub struct Wanted {
    pub method: String,
    pub target: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Wanted {
    pub fn new(method: &str, target: &str) -> Self {
        let (method, target) = (method.to_owned(), target.to_owned());
        Self { method, target, headers: Vec::new(), body: Vec::new() }
    }

    /// A `POST` of JSON.
    pub fn json(target: &str, body: impl Into<Vec<u8>>) -> Self {
        Self::new("POST", target).with("content-type", "application/json").body(body)
    }

    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// As bytes; host and length are added where they are not there.
    pub fn bytes(&self) -> Vec<u8> {
        let mut head = format!("{} {} HTTP/1.1\r\n", self.method, self.target);
        let has = |name: &str| self.headers.iter().any(|(other, _)| other == name);
        if !has("host") {
            head += "host: localhost\r\n";
        }
        if !has("content-length") && !has("transfer-encoding") {
            head += &format!("content-length: {}\r\n", self.body.len());
        }
        for (name, value) in &self.headers {
            head += &format!("{name}: {value}\r\n");
        }
        [head.as_bytes(), b"\r\n", &self.body].concat()
    }

    /// With the body in chunks of an unknown number.
    pub fn chunked(mut self) -> Self {
        let mut body = Vec::with_capacity(self.body.len() + 1024);
        for chunk in self.body.chunks(100_000) {
            body.extend(format!("{:x}\r\n", chunk.len()).into_bytes());
            body.extend(chunk);
            body.extend(b"\r\n");
        }
        body.extend(b"0\r\n\r\n");
        self.body = body;
        self.with("transfer-encoding", "chunked")
    }

    /// In a few words.
    pub fn told(&self) -> String {
        let start = |text: &str| text.chars().take(300).collect::<String>();
        let headers: Vec<String> = self.headers.iter().map(|(n, v)| format!("{n}: {}", start(v))).collect();
        let body = start(&String::from_utf8_lossy(&self.body[..self.body.len().min(1200)]));
        let (method, target) = (&self.method, start(&self.target));
        format!("{method} {target} {headers:?} {} bytes {body:?}", self.body.len())
    }
}

impl Wire {
    pub fn open(server: &Server) -> Self {
        let stream = TcpStream::connect(server.addr()).expect("the server accepts");
        Self::over(stream)
    }

    /// From another address of this machine.
    pub fn open_from(server: &Server, address: [u8; 4]) -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from((address, 0)).into()).unwrap();
        let to: SocketAddr = server.addr().parse().unwrap();
        socket.connect(&to.into()).expect("the server accepts");
        Self::over(socket.into())
    }

    fn over(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(TIME_LIMIT)).unwrap();
        stream.set_write_timeout(Some(TIME_LIMIT)).unwrap();
        Self { stream, rest: Vec::new() }
    }

    /// Sends bytes; whether the server still took them.
    pub fn send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    /// Sends no more.
    pub fn half_close(&self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// The connection itself.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// The next answer; `None` where the connection ends before. Interim answers (100) are passed over.
    #[track_caller]
    pub fn answer(&mut self, is_head: bool) -> Option<Reply> {
        loop {
            let end = loop {
                match self.rest.windows(4).position(|four| four == b"\r\n\r\n") {
                    Some(end) => break end,
                    None if self.more() => {}
                    None => return None,
                }
            };
            let head = String::from_utf8(self.rest[..end].to_vec()).expect("a head in ASCII");
            self.rest.drain(..end + 4);
            let mut lines = head.split("\r\n");
            let status = lines.next().unwrap_or_default();
            let status = status.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5)?.parse().ok());
            let status: u16 = status.unwrap_or_else(|| panic!("no status line: {head}"));
            let pair =
                |line: &str| line.split_once(':').map(|(n, v)| (n.to_lowercase(), v.trim().to_owned()));
            let headers: Vec<_> = lines.map(|line| pair(line).expect("a header")).collect();
            if status == 100 {
                continue;
            }
            let mut reply = Reply { status, headers, body: Vec::new() };
            if !is_head && !matches!(status, 204 | 304) {
                reply.body = self.body(&reply);
            }
            return Some(reply);
        }
    }

    fn body(&mut self, reply: &Reply) -> Vec<u8> {
        let Some(length) = reply.header("content-length") else {
            assert!(reply.header("transfer-encoding").is_none(), "answers are whole: {reply:?}");
            while self.more() {}
            return std::mem::take(&mut self.rest);
        };
        let length: usize = length.parse().unwrap();
        while self.rest.len() < length {
            assert!(self.more(), "the body ends after {} of {length} bytes", self.rest.len());
        }
        self.rest.drain(..length).collect()
    }

    /// Reads on; `false` at the end, or where the connection was broken off.
    #[track_caller]
    fn more(&mut self) -> bool {
        let mut buffer = [0; 1 << 16];
        match self.stream.read(&mut buffer) {
            Ok(read) => {
                self.rest.extend_from_slice(&buffer[..read]);
                read > 0
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                panic!("neither an answer nor an end within {TIME_LIMIT:?}")
            }
            Err(_) => false,
        }
    }

    /// Waits for the end of the connection; what still came is forgotten.
    #[track_caller]
    pub fn wait_for_end(mut self) {
        while self.more() {
            self.rest.clear();
        }
    }
}

impl Reply {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        let text = || String::from_utf8_lossy(&self.body[..self.body.len().min(1000)]).into_owned();
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {} {}", self.status, text()))
    }

    /// The error's code.
    #[track_caller]
    pub fn code(&self) -> String {
        self.json()["error"]["code"].as_str().unwrap_or_default().to_owned()
    }
}

/// Asks on a connection of its own.
#[track_caller]
pub fn ask(server: &Server, wanted: &Wanted) -> Reply {
    ask_over(Wire::open(server), wanted)
}

/// Asks from another address of this machine.
#[track_caller]
pub fn ask_from(server: &Server, address: [u8; 4], wanted: &Wanted) -> Reply {
    ask_over(Wire::open_from(server, address), wanted)
}

/// Asks for what takes long on a machine with other work.
#[track_caller]
pub fn ask_with_long_timeout(server: &Server, wanted: &Wanted) -> Reply {
    let wire = Wire::open(server);
    wire.stream.set_read_timeout(Some(6 * TIME_LIMIT)).unwrap();
    ask_over(wire, wanted)
}

#[track_caller]
fn ask_over(mut wire: Wire, wanted: &Wanted) -> Reply {
    wire.send(&wanted.bytes());
    wire.answer(wanted.method == "HEAD").unwrap_or_else(|| panic!("no answer to {}", wanted.told()))
}

/// Asks, and expects an error; returns its message.
#[track_caller]
pub fn refused(server: &Server, wanted: &Wanted, status: u16, code: &str) -> String {
    let reply = ask(server, wanted);
    assert_eq!((reply.status, &*reply.code()), (status, code), "{}: {}", wanted.told(), reply.json());
    reply.json()["error"]["message"].as_str().expect("a message").to_owned()
}
