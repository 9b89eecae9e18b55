//! What tests of `xmore serve` with hostile clients share: a small memory with servers over it, raw requests, and the process's memory.
#![allow(dead_code, reason = "one test file uses it")]

mod access;
mod body_limits;
mod connection_limits;
pub mod decompression_bombs;
pub mod description;
pub mod huge;
mod many_label_sets;
mod misbehaving_clients;
pub mod requests;
mod stopping;
pub mod wire;

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::support::files::picture;
use super::support::server::Server;
use super::support::{Xmore, tiny_model, xmore};
use wire::{Reply, Wanted, ask, ask_from};

/// Pairs of the memory.
pub const PAIRS: u64 = 8;
/// Length of the tiny model's embeddings.
pub const DIM: usize = 16;

/// A memory of drawn pictures and a folder of label sets.
pub struct World {
    dir: tempfile::TempDir,
}

impl World {
    pub fn new() -> Self {
        let world = Self { dir: tempfile::tempdir().unwrap() };
        let mut table = String::from("image_path,caption\n");
        for i in 0..PAIRS {
            picture(&world.path(&format!("{i}.png")), i);
            table += &format!("{i}.png,the {} number {i}\n", if i % 2 == 0 { "cat" } else { "dog" });
        }
        fs::write(world.path("pairs.csv"), table).unwrap();
        fs::create_dir(world.path("sets")).unwrap();
        fs::write(world.path("sets/pets.txt"), "cat\ndog\n").unwrap();
        let (table, memory) = (world.text("pairs.csv"), world.text("m"));
        xmore(&["memory", "build", &table, "-o", &memory, &tiny_model()]).home(&world.path("home")).ok();
        world
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// A small picture's file.
    pub fn picture(&self) -> Vec<u8> {
        fs::read(self.path("3.png")).unwrap()
    }

    pub fn serve(&self, args: &[&str]) -> Server {
        self.server(args).serve()
    }

    /// A server that is not started yet.
    pub fn server(&self, args: &[&str]) -> Xmore {
        let (memory, sets) = (self.text("m"), self.text("sets"));
        let fixed = ["serve", "--memory", &memory, "--label-sets", &sets, "--addr", "127.0.0.1:0"];
        xmore(&[&fixed[..], args].concat()).home(&self.path("home"))
    }
}

/// Memory of a process.
#[derive(Clone, Copy, Debug)]
pub struct Resident {
    /// MiB that are resident now.
    pub now: f64,
    /// The most since the process began or [`reset_peak`].
    pub peak: f64,
}

/// How much memory a server has.
pub fn resident(server: &Server) -> Resident {
    let status = fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let mib = |name: &str| -> f64 {
        let line =
            status.lines().find_map(|line| line.strip_prefix(name)).expect("a line of /proc/PID/status");
        line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1024.0
    };
    Resident { now: mib("VmRSS:"), peak: mib("VmHWM:") }
}

/// Starts to measure a new peak.
pub fn reset_peak(server: &Server) {
    fs::write(format!("/proc/{}/clear_refs", server.pid()), "5").unwrap();
}

/// A number of `/metrics`.
#[track_caller]
pub fn metric(server: &Server, name: &str) -> u64 {
    value_of_metric(ask(server, &Wanted::new("GET", "/metrics")), name)
}

/// The same, asked from this address.
pub fn metric_from(server: &Server, address: [u8; 4], name: &str) -> u64 {
    value_of_metric(ask_from(server, address, &Wanted::new("GET", "/metrics")), name)
}

fn value_of_metric(reply: Reply, name: &str) -> u64 {
    let text = String::from_utf8(reply.body).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("{name} in {text}")).parse().unwrap()
}

/// Waits until more than `count` requests are in flight; the request for the metric is one of them.
#[track_caller]
pub fn wait_for_in_flight(server: &Server, count: u64) {
    let begin = Instant::now();
    while metric(server, "xmore_requests_in_flight") <= count {
        assert!(begin.elapsed() < Duration::from_secs(10), "fewer than {count} requests");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Waits until the connection that asks for the metric is the only one.
#[track_caller]
pub fn wait_until_disconnected(server: &Server) {
    let begin = Instant::now();
    loop {
        let open = metric(server, "xmore_connections");
        if open <= 1 {
            return;
        }
        assert!(begin.elapsed() < Duration::from_secs(10), "{open} connections are still open");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Waits until the server has received everything that was sent to it.
#[track_caller]
pub fn wait_until_received(server: &Server) {
    let port: u16 = server.addr().rsplit(':').next().unwrap().parse().unwrap();
    let port = format!(":{port:04X}");
    let begin = Instant::now();
    loop {
        // Local address, remote address, state, bytes sent and not confirmed : bytes received and not read.
        let table = fs::read_to_string("/proc/net/tcp").unwrap();
        let rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let mut ours = rows.filter(|row| row[1].ends_with(&port) || row[2].ends_with(&port));
        if ours.all(|row| row[4] == "00000000:00000000") {
            return;
        }
        assert!(begin.elapsed() < Duration::from_secs(10), "the server does not read: {table}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Stops a server, which must not have panicked or failed inside meanwhile.
#[track_caller]
pub fn stop(server: Server) {
    assert_eq!(ask(&server, &Wanted::new("GET", "/health")).status, 200);
    let (code, said) = server.stop();
    assert!(!said.contains("panicked") && !said.contains("ERROR"), "{said}");
    assert_eq!(code, 0, "{said}");
}
