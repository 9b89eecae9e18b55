//! A server on loopback with the hub's protocol, and the faults that a test asks for.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};

use sha2::{Digest, Sha256};

pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
/// The commit of other repositories.
const OTHER_COMMIT: &str = "89abcdef0123456789abcdef0123456789abcdef";
/// Files of this length on lie on the "storage", as large files do.
const LARGE: usize = 10_000;

/// What goes wrong with one answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    None,
    /// The connection ends after so many bytes of the body.
    Cut(usize),
    /// Other bytes, as many.
    Garbled,
    /// Fewer bytes than announced before, in an answer that is whole by itself.
    Short,
    /// Ranges are ignored: all bytes, status 200.
    NoRanges,
    Status(u16, &'static str),
    /// So many bytes, then nothing for a long time.
    Stall(usize),
}

/// One request as it came.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: String,
    pub path: String,
    pub host: String,
    pub range: Option<String>,
    pub token: Option<String>,
}

type Faults = dyn Fn(&Seen, usize) -> Fault + Send + Sync;

/// What the server has and does.
pub struct World {
    pub files: HashMap<String, Vec<u8>>,
    pub repo: String,
    /// Small files of other repositories, by repository and name.
    pub others: HashMap<(String, String), Vec<u8>>,
    /// The repository's card, as the hub tells it.
    pub card: serde_json::Value,
    pub commit: String,
    /// A hash given in place of the right one.
    pub etag: Option<String>,
    pub token: Option<&'static str>,
    /// The fault of an answer, by the request and the number of equal ones before it.
    pub fault: Box<Faults>,
}

impl World {
    /// A repository with the files of a folder.
    pub fn of(repo: &str, folder: &Path) -> Self {
        let mut files = HashMap::new();
        for entry in std::fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            files.insert(name, std::fs::read(entry.path()).unwrap());
        }
        // Files that are not needed.
        files.insert("README.md".into(), b"# A model".to_vec());
        files.insert("pytorch_model.bin".into(), vec![0; 2 * LARGE]);
        let fault = Box::new(|_: &Seen, _| Fault::None);
        let (repo, others, card) = (repo.into(), HashMap::new(), serde_json::Value::Null);
        Self { files, repo, others, card, commit: COMMIT.into(), etag: None, token: None, fault }
    }

    pub fn with_fault(mut self, fault: impl Fn(&Seen, usize) -> Fault + Send + Sync + 'static) -> Self {
        self.fault = Box::new(fault);
        self
    }
}

/// The running server; it ends with the test's process.
pub struct Hub {
    port: u16,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Hub {
    pub fn start(world: World) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (world, log) = (Arc::new(world), Arc::clone(&seen));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (world, log) = (Arc::clone(&world), Arc::clone(&log));
                // A client that has disconnected is no failure of the server's.
                std::thread::spawn(move || drop(answer(&world, &log, port, stream.unwrap())));
            }
        });
        Self { port, seen }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// Requests for the bytes of a file, on the storage or not.
    pub fn gets(&self, file: &str) -> Vec<Seen> {
        let gets =
            self.seen().into_iter().filter(|s| s.method == "GET" && s.path.ends_with(&format!("/{file}")));
        // A redirect is no transfer.
        gets.filter(|s| s.path.starts_with("/storage/")).collect()
    }
}

fn answer(world: &World, log: &Mutex<Vec<Seen>>, port: u16, stream: TcpStream) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut words = line.split_whitespace().map(str::to_owned);
    let (Some(method), Some(path)) = (words.next(), words.next()) else { return Ok(()) };
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim().split_once(": ") else { break };
        headers.insert(name.to_lowercase(), value.to_owned());
    }
    let seen = Seen {
        method,
        path,
        host: headers.remove("host").unwrap_or_default(),
        range: headers.remove("range"),
        token: headers.remove("authorization"),
    };
    let before = {
        let mut log = log.lock().unwrap();
        let before = log.iter().filter(|s| s.method == seen.method && s.path == seen.path).count();
        log.push(seen.clone());
        before
    };
    let fault = (world.fault)(&seen, before);
    let mut out = stream;
    if let Fault::Status(status, header) = fault {
        return plain(&mut out, status, &format!("{header}\r\n"));
    }
    let storage = seen.path.strip_prefix("/storage/");
    let gated = storage.is_none() && !seen.path.starts_with("/api/");
    if gated && world.token.is_some_and(|t| seen.token.as_deref() != Some(&format!("Bearer {t}"))) {
        return plain(&mut out, 401, "X-Error-Code: GatedRepo\r\nX-Error-Message: Access is restricted\r\n");
    }
    if seen.path == format!("/api/models/{}/revision/main", world.repo) {
        let siblings: Vec<_> =
            world.files.keys().map(|name| serde_json::json!({ "rfilename": name })).collect();
        let body = serde_json::json!({ "id": world.repo, "sha": world.commit, "siblings": siblings, "cardData": world.card });
        return body_of(&mut out, 200, "", body.to_string().as_bytes(), usize::MAX, &seen);
    }
    if let Some((about, body)) = of_other(world, &seen.path) {
        return body_of(&mut out, 200, &about, &body, usize::MAX, &seen);
    }
    let resolve = |revision: &str| seen.path.strip_prefix(&format!("/{}/resolve/{revision}/", world.repo));
    let Some(name) = storage.or_else(|| resolve(&world.commit)).or_else(|| resolve("main")) else {
        return plain(
            &mut out,
            404,
            "X-Error-Code: RepoNotFound\r\nX-Error-Message: Repository not found\r\n",
        );
    };
    let Some(bytes) = world.files.get(name) else {
        return plain(&mut out, 404, "X-Error-Code: EntryNotFound\r\n");
    };
    let sha256 = xmore_files::hex(Sha256::digest(bytes));
    if storage.is_none() {
        let large = bytes.len() >= LARGE;
        let etag = world.etag.clone().unwrap_or(if large { sha256 } else { sha256[..40].to_owned() });
        let commit = &world.commit;
        let about = format!(
            "X-Repo-Commit: {commit}\r\nX-Linked-Etag: \"{etag}\"\r\nX-Linked-Size: {}\r\n",
            bytes.len()
        );
        if large {
            // Another host, so that a token sent there is a leak.
            let location = format!("Location: http://localhost:{port}/storage/{name}\r\n{about}");
            return plain(&mut out, 302, &location);
        }
        return body_of(&mut out, 200, &about, bytes, usize::MAX, &seen);
    }
    let start: usize = match &seen.range {
        Some(range) if fault != Fault::NoRanges => {
            range.strip_prefix("bytes=").unwrap().strip_suffix('-').unwrap().parse().unwrap()
        }
        _ => 0,
    };
    let garbled: Vec<u8>;
    let body = match fault {
        Fault::Garbled => {
            garbled = bytes.iter().map(|b| !b).collect();
            &garbled[start..]
        }
        Fault::Short => &bytes[start..bytes.len() - 7],
        _ => &bytes[start..],
    };
    let limit = match fault {
        Fault::Cut(limit) => limit,
        Fault::Stall(limit) => {
            write!(out, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len())?;
            out.write_all(&body[..limit])?;
            std::thread::sleep(std::time::Duration::from_secs(60));
            return Ok(());
        }
        _ => usize::MAX,
    };
    if start > 0 {
        let range = format!("Content-Range: bytes {start}-{}/{}\r\n", bytes.len() - 1, bytes.len());
        return body_of(&mut out, 206, &range, body, limit, &seen);
    }
    body_of(&mut out, 200, "", body, limit, &seen)
}

/// Headers and body for a request for another repository.
fn of_other(world: &World, path: &str) -> Option<(String, Vec<u8>)> {
    for ((repo, name), bytes) in &world.others {
        if path == format!("/api/models/{repo}/revision/main") {
            let names = world.others.keys().filter(|(of, _)| of == repo).map(|(_, name)| name);
            let siblings: Vec<_> = names.map(|name| serde_json::json!({ "rfilename": name })).collect();
            let body = serde_json::json!({ "id": repo, "sha": OTHER_COMMIT, "siblings": siblings });
            return Some((String::new(), body.to_string().into_bytes()));
        }
        if path == format!("/{repo}/resolve/{OTHER_COMMIT}/{name}") {
            let etag = &xmore_files::hex(Sha256::digest(bytes))[..40];
            return Some((format!("X-Repo-Commit: {OTHER_COMMIT}\r\nETag: \"{etag}\"\r\n"), bytes.clone()));
        }
    }
    None
}

fn plain(out: &mut TcpStream, status: u16, headers: &str) -> std::io::Result<()> {
    write!(out, "HTTP/1.1 {status} Status\r\nContent-Length: 0\r\nConnection: close\r\n{headers}\r\n")
}

fn body_of(
    out: &mut TcpStream,
    status: u16,
    headers: &str,
    body: &[u8],
    limit: usize,
    seen: &Seen,
) -> std::io::Result<()> {
    let length = body.len();
    write!(
        out,
        "HTTP/1.1 {status} Status\r\nContent-Length: {length}\r\nConnection: close\r\n{headers}\r\n"
    )?;
    if seen.method == "GET" {
        out.write_all(&body[..length.min(limit)])?;
        out.flush()?;
    }
    // Closing with unread input would reset the connection and lose the answer.
    out.shutdown(std::net::Shutdown::Write)?;
    let mut rest = [0; 64];
    while out.read(&mut rest)? > 0 {}
    Ok(())
}
