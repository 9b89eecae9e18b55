//! Access: keys, origins and host names, and what no request may read or write.

use std::fs;
use std::io::ErrorKind;
use std::net::TcpListener;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use super::wire::{Reply, Wanted, ask, refused};
use super::{World, stop};
use crate::support::{tiny_model, xmore};

const EVIL: &str = "http://evil.example";
const ALLOWED: &str = "access-control-allow-origin";

fn get(path: &str) -> Wanted {
    Wanted::new("GET", path)
}

fn embed(origin: &str) -> Wanted {
    Wanted::json("/v1/embed", "{\"text\": \"a dog\"}").with("origin", origin)
}

/// What a browser asks before a page of another origin may send JSON.
fn preflight(origin: &str) -> Wanted {
    Wanted::new("OPTIONS", "/v1/embed")
        .with("origin", origin)
        .with("access-control-request-method", "POST")
        .with("access-control-request-headers", "content-type")
}

fn allows(reply: &Reply) -> Option<&str> {
    reply.header(ALLOWED)
}

#[test]
fn other_names_and_other_pages_are_refused_unless_allowed() {
    let world = World::new();
    let server = world.serve(&["--log-level", "error"]);
    for path in ["/", "/docs/", "/assets/main.js", "/health", "/v1/info", "/metrics", "/nothing"] {
        for host in [
            "evil.example",
            "localhost.evil.example",
            "evil.example:80",
            "10.0.0.1",
            "127.0.0.1.evil.example",
            "",
        ] {
            refused(&server, &get(path).with("host", host), 403, "forbidden_origin");
        }
    }
    for host in
        ["localhost", "LOCALHOST:8765", "127.0.0.1", "127.1.2.3:1", "[::1]", "[::1]:8765", "xmore.localhost"]
    {
        assert_eq!(ask(&server, &get("/v1/info").with("host", host)).status, 200, "{host}");
    }
    for origin in [EVIL, "null", "", "https://localhost.evil.example", "http://localhost:1", "file://", "é"]
    {
        for wanted in
            [embed(origin), Wanted::new("POST", "/v1/reload").with("origin", origin), preflight(origin)]
        {
            let reply = ask(&server, &wanted);
            assert_eq!((reply.status, &*reply.code()), (403, "forbidden_origin"), "{}", wanted.told());
            assert_eq!(allows(&reply), None);
        }
        assert_eq!(allows(&ask(&server, &get("/v1/info").with("origin", origin))), None, "{origin}");
    }
    assert_eq!(ask(&server, &embed("http://localhost")).status, 200, "its own page");
    stop(server);

    let server = world.serve(&[
        "--allow-origin",
        "https://good.example",
        "--allow-host",
        "xmore.example",
        "--log-level",
        "error",
    ]);
    assert_eq!(ask(&server, &get("/v1/info").with("host", "xmore.example:443")).status, 200);
    refused(&server, &get("/v1/info").with("host", "evil.example"), 403, "forbidden_origin");
    for wanted in [preflight("https://good.example"), embed("https://good.example")] {
        let reply = ask(&server, &wanted);
        assert_eq!((reply.status, allows(&reply)), (200, Some("https://good.example")), "{}", wanted.told());
        assert_eq!(reply.header("access-control-allow-credentials"), None);
    }
    for wanted in
        [preflight(EVIL), embed(EVIL), preflight("https://good.example.evil.example"), preflight("null")]
    {
        assert_eq!(allows(&ask(&server, &wanted)), None, "{}", wanted.told());
    }
    refused(&server, &embed(EVIL), 403, "forbidden_origin");
    stop(server);
}

#[test]
fn a_key_is_required_for_everything_but_the_page_and_the_health_check() {
    let world = World::new();
    let server = world.serve(&["--api-key", "s3cret,second", "--log-level", "error"]);
    let basic = |text: &str| format!("Basic {}", STANDARD.encode(text));
    let closed = [
        get("/v1/info"),
        get("/v1/pairs/1"),
        get("/v1/pairs/1/image"),
        get("/v1/label-sets"),
        get("/v1/label-sets/pets"),
        get("/metrics"),
        get("/indices-list"),
        get("/nothing"),
        Wanted::new("POST", "/v1/reload"),
        Wanted::new("DELETE", "/v1/label-sets/pets"),
        Wanted::json("/v1/embed", "{\"text\": \"a\"}"),
        Wanted::json("/metadata", "{\"ids\": [1]}"),
        Wanted::new("POST", "/v1/embed").with("content-type", "image/png").body(vec![0; 1 << 20]),
    ];
    for wanted in &closed {
        let wrong = [
            "Bearer s3cre",
            "Bearer s3cret2",
            "Bearer S3CRET",
            "Bearer",
            "s3cret",
            "Bearer s3cret,second",
            "Digest s3cret",
            "Basic ?",
        ];
        let wrong = wrong.map(str::to_owned).into_iter().chain([
            basic("s3cret"),
            basic("s3cret:"),
            basic("me:s3cre"),
        ]);
        let with = wrong.map(|value| wanted.clone().with("authorization", &value));
        let others = [
            wanted.clone(),
            wanted.clone().with("x-api-key", ""),
            wanted.clone().with("cookie", "key=s3cret"),
        ];
        for wanted in with.chain(others) {
            let reply = ask(&server, &wanted);
            assert_eq!((reply.status, &*reply.code()), (401, "unauthorized"), "{}", wanted.told());
            assert!(reply.header("www-authenticate").is_some());
        }
    }
    let good = [
        ("authorization", "Bearer s3cret".to_owned()),
        ("x-api-key", "second".to_owned()),
        ("authorization", basic("me:s3cret")),
    ];
    for (name, value) in good {
        assert_eq!(ask(&server, &get("/v1/info").with(name, &value)).status, 200, "{value}");
    }
    for path in
        ["/", "/docs/", "/docs/start.js", "/assets/main.js", "/api-doc/openapi.json", "/health", "/readyz"]
    {
        assert_eq!(ask(&server, &get(path)).status, 200, "{path}");
    }
    // No path that needs a key is reachable through one that does not.
    for path in [
        "/docs/../v1/info",
        "/docs/%2e%2e/v1/info",
        "/assets/../v1/info",
        "/assets/..%2fv1%2finfo",
        "/docs/..;/v1/info",
        "/docs//v1/info",
    ] {
        refused(&server, &get(path), 404, "not_found");
    }
    for path in ["//v1/info", "/./v1/info", "/%76%31/info", "/health/../v1/info", "/health%2f..%2fv1/info"] {
        refused(&server, &get(path), 401, "unauthorized");
    }
    stop(server);
}

#[test]
fn a_server_that_others_reach_does_not_start_without_a_key() {
    let serve = |args: &[&str]| xmore(&[&["serve", &tiny_model()], args].concat()).fails(2);
    for addr in ["0.0.0.0:0", "[::]:0", "192.0.2.1:80"] {
        let said = serve(&["--addr", addr]);
        assert!(said.contains("--api-key") && said.contains("--allow-remote"), "{said}");
    }
    for key in ["", " ", "a,"] {
        let said = serve(&["--api-key", key]);
        assert!(said.contains("empty"), "{key:?}: {said}");
    }
}

#[test]
fn no_url_is_fetched_and_no_path_is_read_or_written() {
    let world = World::new();
    let trap = TcpListener::bind("127.0.0.1:0").unwrap();
    trap.set_nonblocking(true).unwrap();
    let url = format!("http://{}/a.png", trap.local_addr().unwrap());
    let by_url = [
        Wanted::json("/v1/embed", json!({"image": {"url": url}}).to_string()),
        Wanted::json("/v1/classify", json!({"image": {"url": url}, "labels": ["a", "b"]}).to_string()),
        Wanted::json("/v1/retrieve", json!({"image": {"url": url}}).to_string()),
        Wanted::json(
            "/knn-service",
            json!({"image_url": url, "modality": "image", "num_images": 1}).to_string(),
        ),
    ];
    for (args, status, code) in [
        (&["--log-level", "error"][..], 403, "disabled"),
        (&["--log-level", "error", "--fetch-urls"], 422, "unfetchable"),
    ] {
        let server = world.serve(args);
        for wanted in &by_url {
            refused(&server, wanted, status, code);
        }
        assert_eq!(trap.accept().unwrap_err().kind(), ErrorKind::WouldBlock, "somebody came");
        stop(server);
    }
    let server = world.serve(&["--save-label-sets", "--log-level", "error"]);
    for image in [
        json!({"path": "/etc/passwd"}),
        json!({"file": "3.png"}),
        json!("file:///etc/passwd"),
        json!("/etc/passwd"),
    ] {
        let wanted = Wanted::json("/v1/embed", json!({"image": image}).to_string());
        let reply = ask(&server, &wanted);
        assert!(matches!(reply.status, 400 | 422), "{image}: {}", reply.json());
        assert!(!String::from_utf8_lossy(&reply.body).contains("root:"));
    }
    for path in [
        "/assets/..%2fmain.js",
        "/assets/%2e%2e%2fCargo.toml",
        "/assets/",
        "/assets/%00",
        "/docs/..",
        "/docs/..%2fswagger-ui.css",
        "/docs/%2fetc%2fpasswd",
        "/v1/../etc/passwd",
        "/v1/pairs/../info",
    ] {
        refused(&server, &get(path), 404, "not_found");
    }
    let put = |name: &str| {
        let path = format!("/v1/label-sets/{name}");
        Wanted { method: "PUT".to_owned(), ..Wanted::json(&path, "{\"labels\": [\"a\", \"b\"]}") }
    };
    for name in ["..%2fx", "%2e%2e%2fx", "%2ftmp%2fx", "x%00", "x.txt", ".x", "..%5cx", "x%0a", "%20"] {
        refused(&server, &get(&format!("/v1/label-sets/{name}")), 404, "unknown_label_set");
        refused(&server, &put(name), 422, "invalid_parameter");
        refused(&server, &Wanted::new("DELETE", &format!("/v1/label-sets/{name}")), 404, "unknown_label_set");
    }
    let files: Vec<_> =
        fs::read_dir(world.path("sets")).unwrap().map(|file| file.unwrap().file_name()).collect();
    assert_eq!(files, ["pets.txt"]);
    assert!(!world.path("x.txt").exists() && !world.path("x").exists());
    stop(server);
}
