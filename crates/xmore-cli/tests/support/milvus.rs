//! A test server in place of Milvus that keeps what is uploaded: both of its interfaces on one port, as far as an upload uses them.
#![allow(dead_code, reason = "each test file uses its part")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

/// What it keeps.
#[derive(Default)]
struct Kept {
    description: Option<String>,
    index: Option<String>,
    loaded: bool,
    rows: BTreeMap<u64, Value>,
}

/// The running server; its threads end with the test's process.
pub struct Milvus {
    port: u16,
    kept: Arc<Mutex<Kept>>,
}

impl Milvus {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let kept = Arc::new(Mutex::new(Kept::default()));
        let shared = Arc::clone(&kept);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let kept = Arc::clone(&shared);
                // A client that has disconnected is no failure of the server's.
                std::thread::spawn(move || drop(answer(&kept, stream)));
            }
        });
        Self { port, kept }
    }

    pub fn url(&self) -> String {
        format!("milvus://127.0.0.1:{0}/pairs?management={0}", self.port)
    }

    /// The rows by their ids.
    pub fn rows(&self) -> BTreeMap<u64, Value> {
        self.kept.lock().unwrap().rows.clone()
    }
}

/// Answers one request; one that is not whole changes nothing.
fn answer(kept: &Mutex<Kept>, mut stream: TcpStream) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let (mut request, mut length) = (String::new(), 0);
    reader.read_line(&mut request)?;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        match line.trim_end().to_ascii_lowercase().split_once(": ") {
            Some(("content-length", bytes)) => length = bytes.parse().unwrap_or(0),
            Some(_) => {}
            None => break,
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let words: Vec<&str> = request.split(' ').take(2).collect();
    let reply = reply(
        &mut kept.lock().unwrap(),
        &words.join(" "),
        &serde_json::from_slice(&body).unwrap_or_default(),
    );
    let (status, text) =
        reply.map_or(("404 Not Found", String::new()), |reply| ("200 OK", reply.to_string()));
    write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{text}", text.len())
}

/// As Milvus 2.3.5 answers.
fn reply(kept: &mut Kept, line: &str, request: &Value) -> Option<Value> {
    let data = |data: Value| Some(json!({"code": 200, "data": data}));
    if line.starts_with("GET /v1/vector/collections/describe?") {
        return match &kept.description {
            None => Some(json!({"code": 100, "message": "can't find collection"})),
            Some(description) => data(json!({
                "description": description,
                "load": if kept.loaded { "LoadStateLoaded" } else { "LoadStateNotLoad" },
                "indexes": kept.index.iter().collect::<Vec<_>>(),
            })),
        };
    }
    let text = |key: &str| request[key].as_str().unwrap_or_default().to_owned();
    match line {
        "POST /api/v1/collection" => {
            kept.description = request["schema"]["description"].as_str().map(str::to_owned);
            Some(json!({}))
        }
        "POST /api/v1/index" => {
            kept.index = request["extra_params"][1]["value"].as_str().map(str::to_owned);
            Some(json!({}))
        }
        "POST /api/v1/collection/load" => {
            kept.loaded = true;
            Some(json!({}))
        }
        "POST /api/v1/persist" => Some(json!({"status": {}})),
        "POST /api/v1/query" => {
            let bounds: Vec<u64> = text("expr").split(' ').filter_map(|word| word.parse().ok()).collect();
            let (from, to) = if bounds.len() == 2 { (bounds[0], bounds[1]) } else { (0, u64::MAX) };
            let count =
                json!({"Scalars": {"Data": {"LongData": {"data": [kept.rows.range(from..to).count()]}}}});
            Some(json!({"status": {}, "fields_data": [{"type": 5, "Field": count}]}))
        }
        "POST /v1/vector/upsert" => {
            let rows = request["data"].as_array()?;
            kept.rows.extend(rows.iter().filter_map(|row| Some((row["id"].as_u64()?, row.clone()))));
            data(json!({"upsertCount": rows.len()}))
        }
        "POST /v1/vector/query" if request["outputFields"][0] == "count(*)" => {
            data(json!([{"count(*)": kept.rows.len().to_string()}]))
        }
        "POST /v1/vector/query" => {
            let ids: Vec<u64> =
                serde_json::from_str(&text("filter").replace("id in ", "")).unwrap_or_default();
            let rows = ids.iter().filter_map(|id| kept.rows.get(id)).cloned().map(|mut row| {
                row["id"] = row["id"].to_string().into();
                row
            });
            data(rows.collect())
        }
        _ => None,
    }
}
