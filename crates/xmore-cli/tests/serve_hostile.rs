//! `xmore serve` against whoever means it harm or knows no better: the process must answer as its description says, and live on unchanged.
#![cfg(target_os = "linux")]

mod serve_support;
mod support;

use serde_json::Value;
use std::collections::BTreeMap;

use serve_support::description::{Description, Operation};
use serve_support::requests::Requests;
use serve_support::wire::{Reply, Wanted, Wire};
use serve_support::{World, stop};
use support::server::Server;

/// Longest message of an error: none repeats a request.
const MESSAGE: usize = 2_000;
/// Requests for each operation of the description.
const VALID: u64 = 60;
const NEAR_MISSES: u64 = 160;

fn describe(server: &Server) -> Description {
    Description(server.get("/api-doc/openapi.json").ok())
}

/// Whether an answer is one that the description has for an operation.
fn check(description: &Description, operation: &Operation, reply: &Reply) -> Result<(), String> {
    let responses = &operation.value["responses"];
    let (exact, range) = (reply.status.to_string(), format!("{}XX", reply.status / 100));
    let response = responses.get(&exact).or_else(|| responses.get(&range));
    let response = response.ok_or_else(|| format!("status {exact} is not described"))?;
    if reply.status >= 500 {
        return Err("the server's fault".to_owned());
    }
    let kind = reply.header("content-type").ok_or("no content type")?;
    let kind = kind.split(';').next().unwrap_or_default();
    let content = response["content"].get(kind).ok_or_else(|| format!("{kind} is not described"))?;
    if kind == "application/json" {
        let body: Value = serde_json::from_slice(&reply.body).map_err(|e| e.to_string())?;
        description.check(&content["schema"], &body)?;
        let message = body["error"]["message"].as_str();
        if message.is_some_and(|message| message.is_empty() || message.len() > MESSAGE) {
            return Err(format!("a message of {} bytes", message.unwrap_or_default().len()));
        }
    }
    match kind {
        "image/jpeg" if !reply.body.starts_with(&[0xff, 0xd8, 0xff]) => Err("no JPEG".to_owned()),
        _ => Ok(()),
    }
}

/// Asks on a connection that is kept, as long as the server keeps it.
fn ask_on(wire: &mut Option<Wire>, server: &Server, wanted: &Wanted) -> Reply {
    let mut open = wire.take().unwrap_or_else(|| Wire::open(server));
    open.send(&wanted.bytes());
    let reply =
        open.answer(wanted.method == "HEAD").unwrap_or_else(|| panic!("no answer: {}", wanted.told()));
    if reply.header("connection") != Some("close") {
        *wire = Some(open);
    }
    reply
}

#[test]
fn whatever_is_asked_of_a_described_operation_has_a_described_answer() {
    let seed = std::env::var("XMORE_TEST_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(0x5eed);
    println!("XMORE_TEST_SEED={seed}");
    let world = World::new();
    let server = world.serve(&["--save-label-sets", "--log-level", "error"]);
    let description = describe(&server);
    let mut requests = Requests::new(&description, &world, seed);
    let (mut wire, mut failures) = (None, Vec::new());
    let mut statuses: BTreeMap<String, BTreeMap<u16, u64>> = BTreeMap::new();
    for operation in description.operations() {
        for i in 0..VALID + NEAR_MISSES {
            let wanted = if i < VALID { requests.valid(&operation) } else { requests.near_miss(&operation) };
            let reply = ask_on(&mut wire, &server, &wanted);
            let name = format!("{} {}", operation.method, operation.path);
            *statuses.entry(name).or_default().entry(reply.status).or_default() += 1;
            if let Err(error) = check(&description, &operation, &reply) {
                let body = String::from_utf8_lossy(&reply.body[..reply.body.len().min(300)]).into_owned();
                failures.push(format!("{error}\n  {}\n  {} {body}", wanted.told(), reply.status));
            }
        }
    }
    println!("{statuses:#?}");
    let shown = failures.iter().take(20).cloned().collect::<Vec<_>>().join("\n");
    assert!(failures.is_empty(), "{} answers are not as described:\n{shown}", failures.len());
    for (operation, statuses) in &statuses {
        assert!(statuses.contains_key(&200), "{operation} never worked: {statuses:?}");
        assert!(statuses.len() > 1, "{operation} never refused anything: {statuses:?}");
    }
    stop(server);
}
