//! An HTTP server on the loopback for tests: it answers as it is told, with the faults a test asks for.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// One request as it came.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    /// Such as `GET /path?query`.
    pub line: String,
    headers: Vec<String>,
    pub body: String,
}

impl Seen {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_default()
    }
}

/// What the server does with a request.
#[derive(Debug, Clone)]
pub(super) struct Reply {
    status: u16,
    header: String,
    body: Vec<u8>,
    /// Bytes of the body after which the connection ends.
    sent: usize,
    delay: Duration,
}

impl Reply {
    pub fn json(body: &str) -> Self {
        Self {
            status: 200,
            header: String::new(),
            body: body.into(),
            sent: usize::MAX,
            delay: Duration::ZERO,
        }
    }

    pub fn status(status: u16) -> Self {
        Self { status, ..Self::json("") }
    }

    /// The connection ends without an answer.
    pub fn hang_up() -> Self {
        Self::status(0)
    }

    pub fn with_header(self, header: &str) -> Self {
        Self { header: header.to_owned(), ..self }
    }

    pub fn with_body(self, body: &str) -> Self {
        Self { body: body.into(), ..self }
    }

    pub fn cut_to(self, sent: usize) -> Self {
        Self { sent, ..self }
    }

    pub fn after(self, delay: Duration) -> Self {
        Self { delay, ..self }
    }
}

type Handler = dyn Fn(&Seen, usize) -> Reply + Send + Sync;

/// The running server; its thread ends with the test's process.
pub(super) struct Server {
    port: u16,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Server {
    /// Starts one. `handler` is told the request and how many came before.
    pub fn start(handler: impl Fn(&Seen, usize) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (handler, log): (Arc<Handler>, _) = (Arc::new(handler), Arc::clone(&seen));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (handler, log) = (Arc::clone(&handler), Arc::clone(&log));
                // A client that has gone away is no failure of the server's.
                std::thread::spawn(move || drop(answer(&*handler, &log, stream.unwrap())));
            }
        });
        Self { port, seen }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

fn answer(handler: &Handler, log: &Mutex<Vec<Seen>>, stream: TcpStream) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    if lines.is_empty() {
        return Ok(());
    }
    let line = lines.remove(0).trim_end_matches(" HTTP/1.1").to_owned();
    let mut seen = Seen { line, headers: lines, body: String::new() };
    let length: u64 = seen.header("content-length").and_then(|n| n.parse().ok()).unwrap_or(0);
    reader.by_ref().take(length).read_to_string(&mut seen.body)?;
    let before = {
        let mut log = log.lock().unwrap();
        log.push(seen.clone());
        log.len() - 1
    };
    let reply = handler(&seen, before);
    std::thread::sleep(reply.delay);
    let mut out = stream;
    if reply.status != 0 {
        let header = if reply.header.is_empty() { String::new() } else { format!("{}\r\n", reply.header) };
        let length = reply.body.len();
        write!(
            out,
            "HTTP/1.1 {} Status\r\nContent-Length: {length}\r\nConnection: close\r\n{header}\r\n",
            reply.status
        )?;
        out.write_all(&reply.body[..length.min(reply.sent)])?;
    }
    out.shutdown(Shutdown::Both)
}
