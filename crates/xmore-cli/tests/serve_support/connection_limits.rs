//! More connections than the limit: one with a request is accepted, whatever the others do.

use std::time::{Duration, Instant};

use super::wire::{Wanted, Wire, ask, ask_from};
use super::{World, metric, metric_from, stop};
use crate::support::server::Server;

/// Far below the half minute that a head or body may take.
const SOON: Duration = Duration::from_secs(5);
const OTHER: [u8; 4] = [127, 0, 0, 2];
const HALF_A_HEAD: &str = "GET /health HTTP/1.1\r\nhost: loc";
const HALF_A_BODY: &str = "POST /v1/embed HTTP/1.1\r\nhost: localhost\r\ncontent-type: image/png\r\ncontent-length: 1000\r\n\r\nabc";

fn from_other(server: &Server) -> Wire {
    Wire::open_from(server, OTHER)
}

/// Checks that both the address of the many connections and another one are answered soon.
#[track_caller]
fn all_are_answered(server: &Server, case: &str) {
    let health = Wanted::new("GET", "/health").bytes();
    let begin = Instant::now();
    for open in [Wire::open as fn(&Server) -> Wire, from_other] {
        let mut tries = 0;
        // While connections are still being opened, one more may be refused.
        loop {
            let mut wire = open(server);
            wire.send(&health);
            tries += 1;
            if wire.answer(false).is_some_and(|reply| reply.status == 200) {
                break;
            }
            assert!(begin.elapsed() < SOON, "{case}: {tries} tries");
        }
        println!("{case}: answered after {:?}, {tries} tries", begin.elapsed());
    }
    assert!(begin.elapsed() < SOON, "{case}: {:?}", begin.elapsed());
}

/// Waits until the server has seen that all connections were dropped: until then they count, and as many new ones as are allowed are too many. The one
/// that asks is another address's.
#[track_caller]
fn wait_until_closed(server: &Server) {
    let begin = Instant::now();
    while metric_from(server, OTHER, "xmore_connections") > 1 {
        assert!(begin.elapsed() < SOON, "connections that were dropped are still open");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn open_connections(server: &Server, count: usize, begin: &str) -> Vec<Wire> {
    let wire = |_| {
        let mut wire = Wire::open(server);
        // It may have been closed already.
        wire.send(begin.as_bytes());
        wire
    };
    (0..count).map(wire).collect()
}

#[test]
fn half_sent_requests_from_one_address_delay_no_other_request() {
    let world = World::new();
    let server = world.serve(&["--log-level", "error"]);
    let heads = open_connections(&server, 1_150, HALF_A_HEAD);
    all_are_answered(&server, "half heads");
    assert!(metric(&server, "xmore_connections") <= 256 + 2);
    assert!(metric(&server, "xmore_connections_dropped_total") >= 1_150 - 256);
    drop(heads);
    let silent = open_connections(&server, 1_150, "");
    all_are_answered(&server, "silent connections");
    drop(silent);
    stop(server);
}

#[test]
fn at_the_connection_limit_those_without_a_request_are_closed() {
    let world = World::new();
    let args = ["--max-connections", "24", "--max-connections-per-address", "16", "--log-level", "error"];
    let server = world.serve(&args);
    for (name, begin) in [("silent", ""), ("half heads", HALF_A_HEAD), ("half bodies", HALF_A_BODY)] {
        let connections = open_connections(&server, 40, begin);
        all_are_answered(&server, name);
        drop(connections);
    }
    wait_until_closed(&server);
    // Kept connections that are idle, as a proxy has them.
    let mut kept: Vec<Wire> = (0..16).map(|_| Wire::open(&server)).collect();
    for wire in &mut kept {
        wire.send(&Wanted::new("GET", "/health").bytes());
        assert_eq!(wire.answer(false).expect("an answer").status, 200);
    }
    all_are_answered(&server, "idle connections");
    // From many addresses, so that none reaches its own limit.
    let mut many: Vec<Wire> = (0..8u8)
        .flat_map(|i| (0..4).map(move |_| [127, 0, 1, i]))
        .map(|from| Wire::open_from(&server, from))
        .collect();
    for wire in &mut many {
        wire.send(HALF_A_HEAD.as_bytes());
    }
    all_are_answered(&server, "half heads from many addresses");
    stop(server);
}

#[test]
fn busy_connections_are_kept_and_another_is_refused() {
    let world = World::new();
    let args = ["--max-connections-per-address", "4", "--log-level", "error"];
    let server = world.serve(&args);
    // Connections whose bodies keep arriving are busy.
    let mut busy = open_connections(&server, 4, HALF_A_BODY);
    let (told, others) = std::thread::scope(|scope| {
        let asked = scope.spawn(|| ask(&server, &Wanted::new("GET", "/health")));
        while !asked.is_finished() {
            busy.iter_mut().for_each(|wire| assert!(wire.send(b"x")));
            std::thread::sleep(Duration::from_millis(20));
        }
        (asked.join().unwrap(), ask_from(&server, OTHER, &Wanted::new("GET", "/health")))
    });
    assert_eq!((told.status, &*told.code()), (503, "too_many_connections"));
    assert!(told.header("retry-after").is_some());
    assert_eq!(others.status, 200);
    for wire in &mut busy {
        assert!(wire.send(&[0; 1_000]));
        assert_eq!(wire.answer(false).expect("an answer").code(), "undecodable_image");
    }
    drop(busy);
    stop(server);
}

#[test]
fn a_server_out_of_file_descriptors_closes_connections_without_a_request() {
    let world = World::new();
    let server = world.server(&["--log-level", "off"]).with_open_files(100).serve();
    let heads = open_connections(&server, 200, HALF_A_HEAD);
    all_are_answered(&server, "half heads");
    drop(heads);
    stop(server);
}
