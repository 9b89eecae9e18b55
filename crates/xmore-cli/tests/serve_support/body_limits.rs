//! The size of a request is bounded by `--max-body` alone, on every route and however the body is written.

use super::wire::{Reply, Wanted, Wire, ask};
use super::{World, stop};

fn told(wanted: &Wanted) -> String {
    format!("{} {} of {} bytes {:?}", wanted.method, wanted.target, wanted.body.len(), wanted.headers)
}

/// Above the 2 MB that the framework would take of a form.
const LIMIT: usize = 4 << 20;

/// JSON with white space at its end.
fn json(method: &str, target: &str, start: &str, bytes: usize) -> Wanted {
    let body = format!("{}{}}}", start, " ".repeat(bytes - start.len() - 1));
    let mut wanted = Wanted::json(target, body);
    wanted.method = method.to_owned();
    wanted
}

/// A picture with zeros behind it.
fn picture(target: &str, kind: &str, picture: &[u8], bytes: usize) -> Wanted {
    let mut body = picture.to_vec();
    body.resize(bytes, 0);
    Wanted::new("POST", target).with("content-type", kind).body(body)
}

fn form(target: &str, picture: &[u8], fields: &str, bytes: usize) -> Wanted {
    let head = "--x\r\nContent-Disposition: form-data; name=image; filename=a.png\r\n\r\n";
    let tail = format!("\r\n{fields}--x--\r\n");
    let mut body = [head.as_bytes(), picture].concat();
    body.resize(bytes - tail.len(), 0);
    body.extend(tail.as_bytes());
    Wanted::new("POST", target).with("content-type", "multipart/form-data; boundary=x").body(body)
}

/// A good request of so many bytes on each route that takes a body, and in each way to write it.
fn requests(world: &World, bytes: usize) -> Vec<Wanted> {
    let png = world.picture();
    let labels = "--x\r\nContent-Disposition: form-data; name=labels\r\n\r\ncat,dog\r\n";
    vec![
        json("POST", "/v1/classify", "{\"image\": {\"id\": 1}, \"labels\": [\"cat\", \"dog\"]", bytes),
        json("POST", "/v1/embed", "{\"text\": \"a dog\"", bytes),
        json("POST", "/v1/retrieve", "{\"text\": \"a dog\"", bytes),
        json("POST", "/knn-service", "{\"text\": \"a\", \"modality\": \"image\", \"num_images\": 1", bytes),
        json("POST", "/metadata", "{\"ids\": [1]", bytes),
        json("PUT", "/v1/label-sets/birds", "{\"labels\": [\"tit\", \"wren\"]", bytes),
        picture("/v1/classify?labels=cat,dog", "image/png", &png, bytes),
        picture("/v1/embed", "application/octet-stream", &png, bytes),
        picture("/v1/retrieve", "image/png", &png, bytes),
        form("/v1/classify", &png, labels, bytes),
        form("/v1/embed", &png, "", bytes),
        form("/v1/retrieve", &png, "", bytes),
    ]
}

#[test]
fn a_body_may_be_as_large_as_the_limit_on_every_route_and_no_larger() {
    let world = World::new();
    let server = world.serve(&["--max-body", "4", "--save-label-sets", "--log-level", "error"]);
    let answered = |wanted: Wanted| {
        let reply = ask(&server, &wanted);
        assert_eq!(reply.status, 200, "{}: {}", told(&wanted), String::from_utf8_lossy(&reply.body));
    };
    let refused = |wanted: Wanted| -> (Reply, String) {
        let reply = ask(&server, &wanted);
        assert_eq!((reply.status, &*reply.code()), (413, "body_too_large"), "{}", told(&wanted));
        let message = reply.json()["error"]["message"].as_str().unwrap().to_owned();
        assert!(message.contains(&LIMIT.to_string()), "{message}");
        (reply, message)
    };
    for wanted in requests(&world, LIMIT) {
        answered(wanted.clone());
        answered(wanted.chunked());
    }
    for wanted in requests(&world, LIMIT + 1) {
        let (_, message) = refused(wanted.clone());
        assert!(message.contains(&(LIMIT + 1).to_string()), "{message}");
        refused(wanted.chunked());
    }
    stop(server);
}

#[test]
fn a_body_that_no_handler_reads_ends_the_connection_only_with_notice() {
    let world = World::new();
    let server = world.serve(&["--log-level", "error"]);
    let health = Wanted::new("GET", "/health");
    for (method, target, status) in [
        ("PUT", "/v1/label-sets/", 404),
        ("POST", "/nothing", 404),
        ("POST", "/health", 405),
        ("DELETE", "/v1/label-sets/pets", 403),
        ("GET", "/health", 200),
        ("POST", "/v1/reload", 200),
    ] {
        for body in [vec![0; 10], vec![0; 90_000], vec![0; 5 << 20]] {
            let wanted = Wanted::new(method, target).body(body);
            for wanted in [wanted.clone(), wanted.chunked()] {
                let mut wire = Wire::open(&server);
                wire.send(&wanted.bytes());
                let reply = wire.answer(false).expect("an answer");
                assert_eq!((reply.status, reply.header("connection")), (status, None), "{}", told(&wanted));
                wire.send(&health.bytes());
                assert_eq!(wire.answer(false).expect("another answer").status, 200, "{}", told(&wanted));
            }
        }
    }
    stop(server);
}

#[test]
fn lists_of_a_form_are_bounded() {
    let world = World::new();
    let server = world.serve(&["--log-level", "error"]);
    let field = |text: &str| {
        let field = format!("--x\r\nContent-Disposition: form-data; name=labels\r\n\r\n{text}\r\n");
        form("/v1/classify", &world.picture(), &field, field.len() + 10_000)
    };
    let first = super::resident(&server);
    for text in [
        "a,".repeat(7 << 20),
        format!("[{}\"a\"]", "\"\",".repeat(4 << 20)),
        format!("[[{}0]]", "[],".repeat(4 << 20)),
        format!("[{}0]", "0,".repeat(7 << 20)),
        ",".repeat(15 << 20),
        "a,b".to_owned() + &",c".repeat(10_000),
    ] {
        super::reset_peak(&server);
        let before = super::resident(&server);
        let reply = ask(&server, &field(&text));
        let start: String = text.chars().take(20).collect();
        let peak = super::resident(&server).peak;
        println!("{start}: {} {:.0} MiB", reply.json(), peak - before.now);
        assert!(matches!(reply.status, 400 | 413 | 422), "{start}: {}", reply.status);
        // The body three times over, and a million values of JSON.
        assert!(peak - before.now < 128.0, "{before:?} {peak}");
    }
    // What an allocator keeps of one request serves the next.
    let last = super::resident(&server);
    assert!(last.now - first.now < 160.0, "{first:?} {last:?}");
    stop(server);
}
