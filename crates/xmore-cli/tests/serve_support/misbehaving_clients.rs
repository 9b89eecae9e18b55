//! Clients that are slow, send nothing, send malformed requests or disconnect.

use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::json;

use super::wire::{Wanted, Wire, ask};
use super::{PAIRS, World, resident, stop, wait_until_disconnected};
use crate::support::files::Random;
use crate::support::server::Server;

/// Connections that the server takes at a time.
const MAX_CONNECTIONS: usize = 64;
/// MiB that a second round of everything may add to the first: a leak adds to each round.
const MAX_GROWTH: f64 = 16.0;

const UPLOAD: &str = "POST /v1/embed HTTP/1.1\r\nhost: localhost\r\ncontent-type: image/png\r\n";

#[test]
fn slow_silent_and_malformed_clients_affect_no_other() {
    let world = World::new();
    let args =
        ["--receive-timeout", "1", "--max-connections", &MAX_CONNECTIONS.to_string(), "--log-level", "error"];
    let server = world.serve(&args);
    let picture = world.picture();
    let mut after_first = None;
    for _ in 0..2 {
        let cases: [(&str, &dyn Fn()); 9] = [
            ("heads that come byte by byte", &|| slow_heads(&server)),
            ("bodies that come byte by byte", &|| slow_bodies(&server)),
            ("connections closed for writing", &|| half_closed(&server, &picture)),
            ("connections closed before the answer", &|| closed_early(&server, &picture)),
            ("connections reset in the middle", &|| reset(&server)),
            ("requests sent without waiting for answers", &|| pipelined(&server)),
            ("bytes that are no HTTP", &|| no_http(&server)),
            ("many silent connections", &|| silent(&server)),
            ("answers that nobody reads", &|| unread(&server)),
        ];
        for (name, case) in cases {
            let begin = Instant::now();
            case();
            assert_eq!(ask(&server, &Wanted::new("GET", "/health")).status, 200, "after {name}");
            assert_eq!(ask(&server, &classify(&picture)).status, 200, "after {name}");
            wait_until_disconnected(&server);
            println!("{name}: {:?}", begin.elapsed());
        }
        let now = resident(&server).now;
        let before = *after_first.get_or_insert(now);
        println!("{now:.1} MiB");
        assert!(now - before < MAX_GROWTH, "{before} MiB, then {now}");
    }
    stop(server);
}

fn classify(picture: &[u8]) -> Wanted {
    Wanted::new("POST", "/v1/classify?labels=cat,dog").with("content-type", "image/png").body(picture)
}

/// Sends some bytes on each of many connections, again and again, for longer than the server waits.
fn trickle(server: &Server, connections: usize, begin: &str, then: &[u8]) -> Vec<Wire> {
    let mut wires: Vec<Wire> = (0..connections).map(|_| Wire::open(server)).collect();
    wires.iter_mut().for_each(|wire| assert!(wire.send(begin.as_bytes())));
    for _ in 0..15 {
        sleep(Duration::from_millis(100));
        wires.iter_mut().for_each(|wire| {
            let _ = wire.send(then);
        });
    }
    wires
}

fn slow_heads(server: &Server) {
    for mut wire in trickle(server, 30, "GET /health HTTP/1.1\r\nx: ", b"x") {
        assert!(wire.answer(false).is_none_or(|reply| reply.status == 408));
    }
    trickle(server, 30, "GET /health HTTP/1.1\r\nhost: localhost\r\n", b"x: y\r\n")
        .into_iter()
        .for_each(Wire::wait_for_end);
}

fn slow_bodies(server: &Server) {
    let begin = format!("{UPLOAD}content-length: 1000\r\n\r\n");
    for mut wire in trickle(server, 20, &begin, b"x") {
        let reply = wire.answer(false).expect("it is told");
        assert_eq!((reply.status, &*reply.code()), (408, "request_timeout"));
        wire.wait_for_end();
    }
    let begin = format!("{UPLOAD}transfer-encoding: chunked\r\n\r\n");
    for mut wire in trickle(server, 20, &begin, b"1\r\nx\r\n") {
        assert_eq!(wire.answer(false).expect("it is told").status, 408);
    }
    // A key is not asked for here, but another page is refused before its body is there.
    let begin = format!("{UPLOAD}origin: http://evil.example\r\ncontent-length: 1000\r\n\r\n");
    for mut wire in trickle(server, 20, &begin, b"x") {
        assert_eq!(wire.answer(false).expect("it is told").status, 403);
    }
}

fn half_closed(server: &Server, picture: &[u8]) {
    let mut wire = Wire::open(server);
    wire.send(&classify(picture).bytes());
    wire.half_close();
    assert_eq!(wire.answer(false).expect("an answer").status, 200);
    wire.wait_for_end();
    // In the middle of a body, and of a head.
    let bytes = classify(picture).bytes();
    for end in [bytes.len() - 1, bytes.len() - picture.len(), 40, 1, 0] {
        let mut wire = Wire::open(server);
        wire.send(&bytes[..end]);
        wire.half_close();
        assert!(wire.answer(false).is_none_or(|reply| reply.status == 400), "{end} bytes");
    }
}

fn closed_early(server: &Server, picture: &[u8]) {
    let bytes = classify(picture).bytes();
    for i in 0..100 {
        let mut wire = Wire::open(server);
        wire.send(if i % 2 == 0 { &bytes } else { &bytes[..bytes.len() / 2] });
    }
}

fn reset(server: &Server) {
    for _ in 0..50 {
        let mut wire = Wire::open(server);
        wire.send(format!("{UPLOAD}expect: 100-continue\r\ncontent-length: 1000\r\n\r\nabc").as_bytes());
        // A connection that is closed with something unread (here that the server goes on) is reset.
        let mut first = [0];
        assert_eq!(wire.stream().peek(&mut first).unwrap(), 1);
    }
}

fn pipelined(server: &Server) {
    let ids: Vec<u64> = (0..3 * PAIRS).map(|i| i % PAIRS).collect();
    let requests = ids.iter().flat_map(|id| Wanted::new("GET", &format!("/v1/pairs/{id}")).bytes());
    let mut wire = Wire::open(server);
    wire.send(&requests.collect::<Vec<u8>>());
    for id in ids {
        assert_eq!(wire.answer(false).expect("an answer").json()["id"], json!(id));
    }
    // The rest of a refused request must not be read as the next one.
    let inner = Wanted::new("GET", "/v1/pairs/3").bytes();
    let outer = Wanted::new("POST", "/v1/embed").with("origin", "http://evil.example").body(inner);
    let mut wire = Wire::open(server);
    wire.send(&[outer.bytes(), Wanted::new("GET", "/v1/pairs/5").bytes()].concat());
    assert_eq!(wire.answer(false).expect("an answer").status, 403);
    assert!(wire.answer(false).is_none_or(|reply| reply.json()["id"] == json!(5)));
}

fn no_http(server: &Server) {
    let mut random = Random(7);
    let noise: Vec<u8> = (0..100_000).map(|_| random.below(256) as u8).collect();
    let tls = b"\x16\x03\x01\x00\xc8\x01\x00\x00\xc4\x03\x03".repeat(20);
    let head = "POST /v1/embed HTTP/1.1\r\nhost: localhost\r\n";
    let chunked = format!("{head}content-type: image/png\r\ntransfer-encoding: chunked\r\n");
    let texts = [
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_owned(),
        "GET /\r\n\r\n".to_owned(),
        "GET / HTTP/9.9\r\n\r\n".to_owned(),
        "\r\n".repeat(1000),
        "\0".repeat(1000),
        "GET /\u{0}\r\n HTTP/1.1\r\n\r\n".to_owned(),
        "GET /é HTTP/1.1\r\nhost: é\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\nhost: localhost\n\n".to_owned(),
        "GET http://evil.example/v1/info HTTP/1.1\r\nhost: evil.example\r\n\r\n".to_owned(),
        "CONNECT localhost:22 HTTP/1.1\r\nhost: localhost:22\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nhost : localhost\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nhost: localhost\r\n folded: yes\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nhost: localhost\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n".to_owned(),
        format!("{head}content-length: 5\r\ncontent-length: 6\r\n\r\nabcdef"),
        format!("{head}content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
        format!("{head}transfer-encoding: gzip\r\n\r\n"),
        format!("{head}transfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n"),
        format!("{chunked}\r\nfffffffffffffffff\r\nx"),
        format!("{chunked}\r\n-5\r\nx"),
        format!("{chunked}\r\n5;{}\r\nabcde\r\n0\r\n\r\n", "x".repeat(200_000)),
        format!("{chunked}\r\n1\r\nx\r\n0\r\n{}\r\n", "trailer: x\r\n".repeat(20_000)),
    ];
    let texts = texts.iter().map(|text| text.as_bytes());
    for bytes in texts.chain([&noise[..], &tls]) {
        let mut wire = Wire::open(server);
        wire.send(bytes);
        wire.half_close();
        let reply = wire.answer(false);
        let start = String::from_utf8_lossy(&bytes[..bytes.len().min(80)]);
        assert!(reply.as_ref().is_none_or(|reply| reply.status < 500), "{start:?}: {reply:?}");
    }
}

/// More connections than the limit, none of which sends anything: the next one waits, but not for long.
fn silent(server: &Server) {
    let wires: Vec<Wire> = (0..300).map(|_| Wire::open(server)).collect();
    assert_eq!(ask(server, &Wanted::new("GET", "/health")).status, 200);
    wires.into_iter().for_each(Wire::wait_for_end);
}

/// As many connections as the limit, each with more to read than the system buffers.
fn unread(server: &Server) {
    let requests = Wanted::new("GET", "/docs/swagger-ui-bundle.js").bytes().repeat(10);
    let wires: Vec<Wire> = (0..MAX_CONNECTIONS)
        .map(|_| {
            let mut wire = Wire::open(server);
            wire.send(&requests);
            wire
        })
        .collect();
    assert_eq!(ask(server, &Wanted::new("GET", "/health")).status, 200);
    drop(wires);
}
