//! `xmore serve` against hostile and faulty clients: the process must answer as its description says, and keep running unchanged.
#![cfg(target_os = "linux")]

mod serve_support;
mod support;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use serve_support::description::{Description, Operation};
use serve_support::requests::Requests;
use serve_support::wire::{Reply, Wanted, Wire, ask, ask_with_long_timeout, refused};
use serve_support::{
    World, decompression_bombs, huge, reset_peak, resident, stop, wait_for_in_flight, wait_until_received,
};
use support::server::Server;

/// Longest message of an error: none repeats a request.
const MESSAGE: usize = 2_000;
/// Requests of each caller for each operation of the description.
const VALID: u64 = 100;
const NEAR_MISSES: u64 = 300;
const CALLERS: u64 = 3;

/// How often each operation was answered with each status.
type Statuses = BTreeMap<String, BTreeMap<u16, u64>>;

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
fn every_answer_of_a_described_operation_is_described() {
    let seed: u64 = std::env::var("XMORE_TEST_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(0x5eed);
    println!("XMORE_TEST_SEED={seed}");
    let world = World::new();
    let server = world.serve(&["--save-label-sets", "--log-level", "error"]);
    let description = describe(&server);
    let operations = description.operations();
    let (statuses, failures) = (Mutex::<Statuses>::default(), Mutex::<Vec<String>>::default());
    let ask_all = &|seed: u64| {
        let mut requests = Requests::new(&description, &world, seed);
        let mut wire = None;
        // In turns, so that what is saved is read before it is removed.
        for i in 0..VALID + NEAR_MISSES {
            for operation in &operations {
                let wanted =
                    if i < VALID { requests.valid(operation) } else { requests.near_miss(operation) };
                let reply = ask_on(&mut wire, &server, &wanted);
                let name = format!("{} {}", operation.method, operation.path);
                *statuses.lock().unwrap().entry(name).or_default().entry(reply.status).or_default() += 1;
                if let Err(error) = check(&description, operation, &reply) {
                    let body = String::from_utf8_lossy(&reply.body[..reply.body.len().min(300)]).into_owned();
                    let failure = format!("{error}\n  {}\n  {} {body}", wanted.told(), reply.status);
                    failures.lock().unwrap().push(failure);
                }
            }
        }
    };
    // In parallel, since they share the cache, the label sets and the memory that is opened again.
    std::thread::scope(|scope| {
        (0..CALLERS).for_each(|caller| drop(scope.spawn(move || ask_all(seed.wrapping_add(caller)))));
    });
    let (statuses, failures) = (statuses.into_inner().unwrap(), failures.into_inner().unwrap());
    println!("{statuses:#?}");
    let shown = failures.iter().take(20).cloned().collect::<Vec<_>>().join("\n");
    assert!(failures.is_empty(), "{} answers are not as described:\n{shown}", failures.len());
    for operation in description.operations() {
        let statuses = &statuses[&format!("{} {}", operation.method, operation.path)];
        assert!(statuses.contains_key(&200), "{operation:?} never worked: {statuses:?}");
        let takes_something =
            ["parameters", "requestBody"].iter().any(|part| !operation.value[part].is_null());
        let refused = statuses.keys().any(|status| matches!(status, 400 | 404 | 415 | 422));
        assert_eq!(refused, takes_something, "{operation:?}: {statuses:?}");
    }
    stop(server);
}

#[test]
fn the_description_and_the_routes_are_the_same() {
    let world = World::new();
    let server = world.serve(&["--log-level", "error"]);
    let description = describe(&server);
    let mut described: Vec<(String, &str)> = description
        .operations()
        .iter()
        .map(|operation| (operation.method.to_uppercase(), operation.path))
        .collect();
    described.sort_unstable();
    // The web page, and the description with its own page, are no operations.
    let mut known = [
        ("POST", "/v1/classify"),
        ("POST", "/v1/retrieve"),
        ("POST", "/v1/embed"),
        ("GET", "/v1/info"),
        ("GET", "/v1/pairs/{id}"),
        ("GET", "/v1/pairs/{id}/image"),
        ("GET", "/v1/label-sets"),
        ("GET", "/v1/label-sets/{name}"),
        ("PUT", "/v1/label-sets/{name}"),
        ("DELETE", "/v1/label-sets/{name}"),
        ("POST", "/v1/reload"),
        ("GET", "/health"),
        ("GET", "/readyz"),
        ("GET", "/metrics"),
        ("POST", "/knn-service"),
        ("POST", "/metadata"),
        ("GET", "/indices-list"),
    ]
    .map(|(method, path)| (method.to_owned(), path));
    known.sort_unstable();
    assert_eq!(described, known);
    for path in described.iter().map(|(_, path)| path.replace("{id}", "1").replace("{name}", "pets")) {
        for method in ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "BREW"]
        {
            let takes = |method: &str| {
                described.iter().any(|(other, template)| other == method && fits(template, &path))
            };
            let reply = ask(&server, &Wanted::new(method, &path));
            if takes(method) || method == "HEAD" && takes("GET") {
                assert!(!matches!(reply.status, 405 | 500..), "{method} {path}: {}", reply.status);
            } else if method != "HEAD" && method != "CONNECT" {
                assert_eq!((reply.status, &*reply.code()), (405, "method_not_allowed"), "{method} {path}");
                assert!(reply.header("allow").is_some(), "{method} {path}: {reply:?}");
            } else {
                assert!(matches!(reply.status, 400 | 404 | 405), "{method} {path}: {}", reply.status);
            }
        }
    }
    for path in [
        "/v1",
        "/v1/",
        "/v1/classify/",
        "/v1//classify",
        "/v2/classify",
        "/favicon.ico",
        "/.git/config",
        "/v1/pairs",
    ] {
        refused(&server, &Wanted::new("GET", path), 404, "not_found");
    }
    stop(server);
}

/// Whether a path is one of a template.
fn fits(template: &str, path: &str) -> bool {
    let (template, path): (Vec<&str>, Vec<&str>) = (template.split('/').collect(), path.split('/').collect());
    template.len() == path.len()
        && template.iter().zip(path).all(|(piece, of_path)| piece.starts_with('{') || *piece == of_path)
}

#[test]
fn decompression_bombs_are_refused_before_they_take_memory() {
    /// What a server of 1 megapixel may take more for all of them, in MiB.
    const MOST: f64 = 24.0;
    let world = World::new();
    let server = world.serve(&["--max-pixels", "1", "--log-level", "error"]);
    let png = world.picture();
    let embed = |image: &[u8]| {
        ask(&server, &Wanted::new("POST", "/v1/embed").with("content-type", "image/png").body(image))
    };
    let alone = embed(&png).json()["results"].take();
    assert_eq!(
        embed(&decompression_bombs::flat_png(1000, 1000)).status,
        200,
        "as many pixels as are allowed"
    );
    let before = resident(&server);
    reset_peak(&server);
    let (undecodable, too_many) = ("undecodable_image", "too_many_pixels");
    let decompression_bombs = [
        ("PNG of 60000 x 60000", decompression_bombs::claiming_png(&png, 60_000, 60_000), too_many),
        (
            "PNG of 2^31-1 squared",
            decompression_bombs::claiming_png(&png, i32::MAX as u32, i32::MAX as u32),
            too_many,
        ),
        ("PNG of no width", decompression_bombs::claiming_png(&png, 0, 5), undecodable),
        ("PNG of a row too many", decompression_bombs::flat_png(1000, 1001), too_many),
        ("PNG of 400 MB of zeros", decompression_bombs::flat_png(20_000, 20_000), too_many),
        (
            "JPEG of 60000 x 60000",
            decompression_bombs::claiming_jpeg(
                &decompression_bombs::sample("rgb_420.jpg"),
                0xc0,
                60_000,
                60_000,
            ),
            too_many,
        ),
        (
            "progressive JPEG of 12000 x 12000",
            decompression_bombs::claiming_jpeg(
                &decompression_bombs::sample("progressive_420.jpg"),
                0xc2,
                12_000,
                12_000,
            ),
            too_many,
        ),
        ("JPEG of 5000 scans", decompression_bombs::many_scans(5_000), undecodable),
        (
            "JPEG of 400 scans over a megapixel",
            decompression_bombs::claiming_jpeg(&decompression_bombs::many_scans(400), 0xc2, 1000, 1000),
            undecodable,
        ),
        ("lossless WebP of 16383 x 16383", decompression_bombs::claiming_webp_lossless(), too_many),
        ("lossy WebP of 16383 x 16383", decompression_bombs::claiming_webp_lossy(), too_many),
        (
            "WebP on a canvas of 16384 x 16384",
            decompression_bombs::on_canvas(&decompression_bombs::sample("lossless.webp"), 16_384, 16_384),
            too_many,
        ),
        (
            "WebP on a canvas of 2^24 x 2^24",
            decompression_bombs::on_canvas(&decompression_bombs::sample("lossless.webp"), 1 << 24, 1 << 24),
            undecodable,
        ),
        (
            "WebP of 16383 x 16383 on a canvas of 1 x 1",
            decompression_bombs::on_canvas(&decompression_bombs::claiming_webp_lossless(), 1, 1),
            undecodable,
        ),
    ];
    for (name, bomb, code) in &decompression_bombs {
        let reply = embed(bomb);
        assert_eq!((reply.status, &*reply.code()), (422, *code), "{name}: {}", reply.json());
    }
    // A profile is not looked at; whether it is unpacked shows in the memory.
    let reply = embed(&decompression_bombs::profile_bomb(&png));
    assert!(matches!(reply.status, 200 | 422), "{}: {}", reply.status, reply.json());
    let others: [&[u8]; 10] = [
        b"",
        b"\0",
        b"GIF89a\x01\0\x01\0\0\0\0;",
        b"BM\x1a\0\0\0\0\0\0\0",
        b"II*\0\x08\0\0\0",
        b"%PDF-1.7\n",
        b"PK\x03\x04",
        b"<svg xmlns=\"http://www.w3.org/2000/svg\"><image href=\"file:///etc/passwd\"/></svg>",
        b"\x89PNG\r\n\x1a\n",
        b"RIFF\xff\xff\xff\xffWEBP",
    ];
    for other in others {
        let reply = embed(other);
        assert_eq!((reply.status, &*reply.code()), (422, undecodable), "{}", String::from_utf8_lossy(other));
    }
    for name in [
        "rgb_420.jpg",
        "progressive_420.jpg",
        "cmyk.jpg",
        "lossless.webp",
        "lossy.webp",
        "palette.png",
        "grey16.png",
    ] {
        let whole = decompression_bombs::sample(name);
        for percent in [1, 10, 30, 50, 80, 95] {
            let reply = embed(&whole[..whole.len() * percent / 100]);
            assert_eq!((reply.status, &*reply.code()), (422, undecodable), "{percent} % of {name}");
        }
    }
    // Something else behind or after an image changes nothing.
    for more in
        [&b"PK\x03\x04\0\0"[..], b"<html><script>alert(1)</script>", &decompression_bombs::many_scans(5_000)]
    {
        assert_eq!(embed(&[&png, more].concat()).json()["results"], alone);
    }
    let after = resident(&server);
    println!("MiB before {before:?}, after {after:?}");
    assert!(after.peak - before.now < MOST, "{before:?} {after:?}");
    stop(server);
}

#[test]
fn large_images_share_the_memory_for_decoding_and_delay_no_other_request() {
    const COUNT: usize = 6;
    /// What the server may take beside the memory for decoding, in MiB: requests, and what the allocator keeps.
    const MAX_BESIDE: f64 = 150.0;
    let world = World::new();
    let serve =
        |memory: &str| world.serve(&["--decode-memory", memory, "--timeout", "120", "--log-level", "error"]);
    // 49 megapixels: 140 MiB each as they are decoded, 374 MiB as they are packed in the file.
    let bomb = decompression_bombs::flat_rgba16_png(7_000, 7_000);
    let embed = |image: &[u8]| Wanted::new("POST", "/v1/embed").with("content-type", "image/png").body(image);
    let server = serve("320MiB");
    let (small, text) = (embed(&world.picture()), Wanted::json("/v1/embed", "{\"text\": \"a dog\"}"));
    assert_eq!(ask(&server, &small).status, 200);
    let before = resident(&server);
    reset_peak(&server);
    let answered = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let large: Vec<_> = (0..COUNT)
            .map(|_| {
                scope.spawn(|| {
                    let reply = ask_with_long_timeout(&server, &embed(&bomb));
                    answered.fetch_add(1, Ordering::SeqCst);
                    reply
                })
            })
            .collect();
        wait_for_in_flight(&server, COUNT as u64);
        for wanted in [&small, &text] {
            assert_eq!(ask(&server, wanted).status, 200);
        }
        assert!(answered.load(Ordering::SeqCst) < COUNT, "others are answered meanwhile");
        let vectors: Vec<Value> =
            large.into_iter().map(|thread| thread.join().unwrap().json()["results"].take()).collect();
        assert!(vectors[0][0]["embedding"].is_array(), "{}", vectors[0]);
        assert!(vectors.iter().all(|vector| *vector == vectors[0]));
    });
    let after = resident(&server);
    println!("MiB before {before:?}, after {after:?}");
    assert!(after.peak - before.now < 320.0 + MAX_BESIDE, "{before:?} {after:?}");
    stop(server);
    // What can never fit is refused with the numbers.
    let server = serve("100MiB");
    let message = refused(&server, &embed(&bomb), 422, "too_many_pixels");
    assert!(message.contains("7000x7000") && message.contains("100 MiB"), "{message}");
    assert_eq!(ask(&server, &small).status, 200);
    stop(server);
}

#[test]
fn huge_requests_are_refused_or_bounded() {
    /// What one request of 16 MiB, the most that is taken, may take more at its peak, in MiB.
    const MOST: f64 = 96.0;
    let world = World::new();
    let server = world.serve(&["--receive-timeout", "2", "--log-level", "error"]);
    let requests = huge::requests(&world.picture());
    assert_eq!(ask(&server, &huge::small(&world.picture())).status, 200);
    let before = resident(&server);
    let mut most = (0.0, "");
    for (name, wanted, expected) in requests {
        reset_peak(&server);
        let begin = Instant::now();
        let reply = ask(&server, &wanted);
        let (more, took) = (resident(&server).peak - before.now, begin.elapsed());
        println!("{name}: {} after {took:?}, {more:.0} MiB more", reply.status);
        let text = String::from_utf8_lossy(&reply.body[..reply.body.len().min(300)]).into_owned();
        assert!(expected.contains(&reply.status), "{name}: {} {text}", reply.status);
        assert!(!text.contains("similarity\":null"), "{name}: {text}");
        assert!(reply.status == 200 || reply.json()["error"]["message"].is_string(), "{name}: {text}");
        if more > most.0 {
            most = (more, name);
        }
    }
    assert!(most.0 < MOST, "{most:?}");
    // Memory is freed, but for what the allocator keeps.
    let after = resident(&server);
    println!("MiB before {before:?}, after {after:?}, the most {most:?}");
    assert!(after.now - before.now < MOST, "{before:?} {after:?}");
    stop(server);
}

#[test]
fn bodies_share_a_bound_and_label_embeddings_another() {
    let world = World::new();
    let args =
        ["--max-buffered", "32", "--label-cache", "1", "--receive-timeout", "5", "--log-level", "error"];
    let server = world.serve(&args);
    let (head, body) =
        (Wanted::new("POST", "/v1/embed").with("content-type", "image/png"), vec![0; 10 << 20]);
    let whole = head.clone().body(body.clone());
    // Three bodies of which the last byte is missing hold 30 of 32 MiB.
    let mut held: Vec<Wire> = (0..3).map(|_| Wire::open(&server)).collect();
    let bytes = whole.bytes();
    for wire in &mut held {
        assert!(wire.send(&bytes[..bytes.len() - 1]));
    }
    wait_until_received(&server);
    let reply = ask(&server, &whole);
    assert_eq!((reply.status, &*reply.code()), (429, "overloaded"));
    assert!(reply.header("retry-after").is_some());
    for wire in &mut held {
        assert!(wire.send(&[0]));
        assert_eq!(wire.answer(false).expect("an answer").code(), "undecodable_image");
    }
    refused(&server, &whole, 422, "undecodable_image");
    // Label sets and prompts that are used once: 24 MB of them, and one is kept.
    let ask_for = |i: usize| {
        let template = format!("{{}} {i}{}", "x".repeat(8_000));
        let body = json!({"image": {"id": 1}, "labels": ["cat", "dog"], "method": "captions", "templates": [template]});
        assert_eq!(ask(&server, &Wanted::json("/v1/classify", body.to_string())).status, 200);
    };
    (0..150).for_each(ask_for);
    let before = resident(&server);
    (150..3_150).for_each(ask_for);
    let after = resident(&server);
    println!("MiB before {before:?}, after {after:?}");
    assert!(after.now - before.now < 3.0, "{before:?} {after:?}");
    stop(server);
}

#[test]
fn huge_heads_and_bodies_that_are_only_announced_are_refused() {
    let world = World::new();
    let server = world.serve(&["--receive-timeout", "2", "--max-body", "1", "--log-level", "error"]);
    let post = |length: &str| {
        Wanted::new("POST", "/v1/embed").with("content-type", "image/png").with("content-length", length)
    };
    let fast = |wanted: &Wanted| {
        let begin = Instant::now();
        let reply = ask(&server, wanted);
        (reply, begin.elapsed())
    };
    let before = resident(&server);
    // A client that announces too much and asks first (`Expect`) is refused at once; one that waits after its head, soon.
    let (reply, took) = fast(&post("10000000000").with("expect", "100-continue"));
    assert_eq!((reply.status, &*reply.code()), (413, "body_too_large"));
    assert!(took < Duration::from_secs(1), "{took:?}");
    let (reply, _) = fast(&post("10000000000"));
    assert_eq!((reply.status, &*reply.code()), (413, "body_too_large"));
    for length in ["-1", "1e3", "99999999999999999999999", "0x10", "5, 6"] {
        let (reply, _) = fast(&post(length));
        assert_eq!(reply.status, 400, "content-length: {length}");
    }
    // A body without an end.
    let mut wire = Wire::open(&server);
    wire.send(b"POST /v1/embed HTTP/1.1\r\nhost: localhost\r\ncontent-type: image/png\r\ntransfer-encoding: chunked\r\n\r\n");
    let chunk = [&b"10000\r\n"[..], &[0; 0x10000], b"\r\n"].concat();
    let sent = (0..2_000).take_while(|_| wire.send(&chunk)).count();
    let reply = wire.answer(false);
    println!(
        "an endless body was cut off after {sent} chunks of 64 KiB with {:?}",
        reply.as_ref().map(|r| r.status)
    );
    assert!(sent < 1_500, "{sent}");
    // The system may have dropped the answer together with the connection.
    assert!(reply.is_none_or(|reply| reply.status == 413));
    // Heads: hyper's own answers, without a body.
    let long = |size: usize| "x".repeat(size);
    let mut many = Wanted::new("GET", "/health");
    (0..10_000).for_each(|i| many.headers.push((format!("x-{i}"), "1".to_owned())));
    for (name, wanted, expected) in [
        ("a header of 1 MB", Wanted::new("GET", "/health").with("x-long", &long(1 << 20)), &[431][..]),
        ("10,000 headers", many, &[431]),
        ("a URL of 1 MB", Wanted::new("GET", &format!("/{}", long(1 << 20))), &[414, 431]),
        ("a method of 1 MB", Wanted::new(&long(1 << 20), "/"), &[400, 431]),
        ("a URL of 40 kB", Wanted::new("GET", &format!("/{}", long(40_000))), &[404]),
        ("a name of 40 kB", Wanted::new("GET", &format!("/v1/label-sets/{}", long(40_000))), &[404]),
        ("a header of 40 kB", Wanted::new("GET", "/health").with("x-long", &long(40_000)), &[200]),
    ] {
        let mut wire = Wire::open(&server);
        wire.send(&wanted.bytes());
        // The server does not read what it refuses, so that the answer may be lost with the connection.
        let status = wire.answer(false).map(|reply| reply.status);
        assert!(status.is_none_or(|status| expected.contains(&status)), "{name}: {status:?}");
        assert!(
            status.is_some() || !expected.contains(&200) && !expected.contains(&404),
            "{name}: no answer"
        );
    }
    let after = resident(&server);
    println!("MiB before {before:?}, after {after:?}");
    assert!(after.peak - before.now < 48.0, "{before:?} {after:?}");
    stop(server);
}
