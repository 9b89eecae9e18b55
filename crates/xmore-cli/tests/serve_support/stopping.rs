//! A stop loses no request that was sent, and ends in time even if a request is blocked.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use super::wire::{Reply, Wanted, Wire, ask};
use super::{World, wait_until_received};
use crate::support::server::Server;

/// Stops a server, which must end by itself.
#[track_caller]
fn end(mut server: Server) {
    let (code, said) = server.end();
    assert!(!said.contains("panicked"), "{said}");
    assert_eq!(code, 0, "{said}");
}

/// All answers of a connection until it ends.
fn answers(wire: &mut Wire) -> Vec<Reply> {
    std::iter::from_fn(|| wire.answer(false)).collect()
}

#[test]
fn requests_that_were_sent_ahead_are_answered_or_told() {
    let world = World::new();
    let classify = |labels: &str| {
        let target = format!("/v1/classify?labels={labels}");
        Wanted::new("POST", &target).with("content-type", "image/png").body(world.picture())
    };
    let pair = |id: u64| Wanted::new("GET", &format!("/v1/pairs/{id}"));
    let mixed = [pair(1), classify("cat,dog"), pair(2), classify("cow,hen"), pair(3)];
    let kinds: [(&str, [Wanted; 5]); 3] = [
        ("pairs", [0, 1, 2, 3, 4].map(pair)),
        ("images", ["a,b", "c,d", "e,f", "g,h", "i,j"].map(classify)),
        ("both", mixed),
    ];
    for (name, requests) in kinds {
        let server = world.serve(&["--log-level", "error"]);
        let bytes: Vec<Vec<u8>> = requests.iter().map(Wanted::bytes).collect();
        let mut wires: Vec<Wire> = (0..8).map(|_| Wire::open(&server)).collect();
        for (i, wire) in wires.iter_mut().enumerate() {
            // In one piece, or so that the first is in flight when the others arrive.
            if i % 2 == 0 {
                assert!(wire.send(&bytes.concat()));
            } else {
                for bytes in &bytes {
                    assert!(wire.send(bytes));
                    std::thread::sleep(Duration::from_millis(2));
                }
            }
        }
        server.signal("TERM");
        for wire in &mut wires {
            let answers = answers(wire);
            let statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
            assert_eq!(statuses.len(), requests.len(), "{name}: {statuses:?}");
            let answered = statuses.iter().take_while(|status| **status == 200).count();
            assert!(statuses[answered..].iter().all(|status| *status == 503), "{name}: {statuses:?}");
            for told in &answers[answered..] {
                assert_eq!(told.code(), "shutting_down");
            }
        }
        end(server);
    }
}

#[test]
fn a_kept_connection_is_told_that_its_answer_is_the_last() {
    let world = World::new();
    let server = world.serve(&["--log-level", "error", "--receive-timeout", "10"]);
    // A request that does not arrive keeps the server stopping.
    let mut slow = Wire::open(&server);
    slow.send(b"POST /v1/embed HTTP/1.1\r\nhost: localhost\r\ncontent-type: image/png\r\ncontent-length: 10\r\n\r\nabc");
    let mut kept = Wire::open(&server);
    let health = Wanted::new("GET", "/health").bytes();
    kept.send(&health);
    let before = kept.answer(false).expect("an answer");
    assert_eq!((before.status, before.header("connection")), (200, None));
    wait_until_received(&server);
    server.signal("TERM");
    while ask(&server, &Wanted::new("GET", "/readyz")).status == 200 {}
    kept.send(&health);
    let last = kept.answer(false).expect("an answer");
    assert_eq!((last.status, last.header("connection")), (200, Some("close")));
    slow.send(b"0123456");
    assert_eq!(slow.answer(false).expect("what was taken is answered").code(), "undecodable_image");
    end(server);
}

#[test]
fn a_second_signal_ends_the_server_at_once() {
    for (signal, code) in [("TERM", 143), ("INT", 130)] {
        let world = World::new();
        let mut server = world.serve(&["--log-level", "error"]);
        let mut slow = Wire::open(&server);
        slow.send(b"POST /v1/embed HTTP/1.1\r\nhost: localhost\r\ncontent-type: image/png\r\ncontent-length: 10\r\n\r\nabc");
        wait_until_received(&server);
        server.signal("TERM");
        while ask(&server, &Wanted::new("GET", "/readyz")).status == 200 {}
        let begin = Instant::now();
        server.signal(signal);
        assert_eq!(server.end().0, code);
        assert!(begin.elapsed() < Duration::from_secs(10), "it did not wait for the body");
    }
}

#[test]
fn pictures_that_are_pipes_are_told_of_and_do_not_keep_the_server() {
    let world = World::new();
    for name in ["1.png", "2.png"] {
        fs::remove_file(world.path(name)).unwrap();
        assert!(Command::new("mkfifo").arg(world.path(name)).status().unwrap().success());
    }
    let server = world.serve(&["--timeout", "2", "--drain-timeout", "2", "--log-level", "error"]);
    let picture = |id: u64| ask(&server, &Wanted::new("GET", &format!("/v1/pairs/{id}/image")));
    let metadata = Wanted::json("/metadata", "{\"ids\": [1, 3]}");
    std::thread::scope(|scope| {
        for id in [1, 2, 1, 2] {
            scope.spawn(move || assert!(matches!(picture(id).status, 404 | 503)));
        }
        scope.spawn(|| assert!(matches!(ask(&server, &metadata).status, 200 | 503)));
        assert_eq!(picture(3).status, 200, "others are not held up");
        assert_eq!(ask(&server, &Wanted::new("GET", "/health")).status, 200);
    });
    server.signal("TERM");
    end(server);
}
