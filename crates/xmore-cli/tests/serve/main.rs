//! `xmore serve` as a process: its answers are the command line's, in every form of a request.

mod memories;
mod process;
#[path = "../support/mod.rs"]
mod support;

use std::fs;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use support::files::{noise_jpeg, picture, second_model};
use support::server::Server;
use support::{Xmore, tiny_model, xmore_in};

/// Pictures, a memory of them, and servers over it.
struct World {
    dir: tempfile::TempDir,
    tiny: String,
}

const LABELS: [&str; 3] = ["cat", "dog", "hot air balloon"];

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for (name, from) in [("first.csv", 0), ("more.csv", 8)] {
            let mut table = String::from("image_path,caption\n");
            for i in from..from + 8 {
                picture(&dir.path().join(format!("{i}.png")), i);
                table += &format!("{i}.png,a cat number {i}\n{i}.png,the dog of {i}\n");
            }
            fs::write(dir.path().join(name), table).unwrap();
        }
        for i in 100..104 {
            picture(&dir.path().join(format!("query{i}.png")), i);
        }
        let world = Self { dir, tiny: tiny_model() };
        world.run(&["memory", "build", "@first.csv", "-o", "@m", &world.tiny]).ok();
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn bytes(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap()
    }

    fn base64(&self, name: &str) -> String {
        STANDARD.encode(self.bytes(name))
    }

    /// `xmore` with arguments; `@name` is a path in this world.
    fn run(&self, args: &[&str]) -> Xmore {
        xmore_in(self.dir.path(), args)
    }

    fn serve(&self, args: &[&str]) -> Server {
        let fixed = ["serve", "--memory", "@m", "--addr", "127.0.0.1:0"];
        self.run(&[&fixed, args].concat()).serve()
    }

    /// What the command line says of a picture, with everything explained.
    fn classified(&self, name: &str, args: &[&str]) -> Value {
        let labels = LABELS.join(",");
        let fixed = ["classify", &format!("@{name}"), "--labels", &labels, "--format", "json"];
        let memory = ["--memory", "@m"];
        let answer = self.run(&[&fixed[..], &memory, args].concat()).ok();
        let mut answer: Value = serde_json::from_str(&answer).unwrap();
        let mut answer = answer[0].take();
        // The photo's name is what the command line alone has.
        answer.as_object_mut().unwrap().remove("image");
        answer
    }
}

/// The labels as a URL has them.
fn listed() -> String {
    LABELS.join(",").replace(' ', "%20")
}

/// A form with files and fields.
fn form(files: &[(&str, Vec<u8>)], fields: &[(&str, &str)]) -> (String, Vec<u8>) {
    let mut body = Vec::new();
    for (name, bytes) in files {
        let head = format!(
            "--xyz\r\nContent-Disposition: form-data; name=\"{name}\"; filename=\"a.png\"\r\nContent-Type: image/png\r\n\r\n"
        );
        body.extend(head.as_bytes());
        body.extend(bytes);
        body.extend(b"\r\n");
    }
    for (name, value) in fields {
        body.extend(
            format!("--xyz\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n").as_bytes(),
        );
    }
    body.extend(b"--xyz--\r\n");
    ("multipart/form-data; boundary=xyz".to_owned(), body)
}

#[test]
fn an_image_sent_in_any_way_has_the_command_lines_answer_to_the_bit() {
    let world = World::new();
    let server = world.serve(&[]);
    for method in ["zero-shot", "templates", "captions", "equal", "xmore", "xmore-kernel"] {
        let expected = world.classified("query100.png", &["--method", method, "-k", "5"]);
        let query = format!(
            "/v1/classify?labels=cat,dog&labels=hot%20air%20balloon&method={method}&k=5&explain=true"
        );
        let raw = server.post(&query, "image/png", &world.bytes("query100.png")).ok();
        assert_eq!(raw["results"], json!([expected]), "{method}");
        let body = json!({"image": world.base64("query100.png"), "labels": LABELS, "method": method, "k": 5, "explain": true});
        assert_eq!(server.post_json("/v1/classify", &body).ok()["results"], json!([expected]));
        let fields = [
            ("labels", "cat,dog"),
            ("labels", "hot air balloon"),
            ("method", method),
            ("k", "5"),
            ("explain", "1"),
        ];
        let (kind, body) = form(&[("image", world.bytes("query100.png"))], &fields);
        assert_eq!(server.post("/v1/classify", &kind, &body).ok()["results"], json!([expected]));
    }
    // Without a method, the command line's default.
    let expected = world.classified("query101.png", &[]);
    let body = json!({"image": {"base64": world.base64("query101.png")}, "labels": LABELS, "explain": true});
    let answer = server.post_json("/v1/classify", &body).ok();
    assert_eq!(answer["results"], json!([expected]));
    assert_eq!((&answer["method"], &answer["k"]), (&json!("xmore-kernel"), &json!(16)));
    let (code, said) = server.stop();
    assert_eq!(code, 0, "{said}");
}

#[test]
fn a_best_label_below_a_threshold_is_no_answer() {
    let world = World::new();
    let server = world.serve(&[]);
    let best = world.classified("query100.png", &[]);
    assert_eq!(best["label"], best["predictions"][0]["label"]);
    for (name, flag, key) in
        [("min_score", "--min-score", "score"), ("min_similarity", "--min-similarity", "similarity")]
    {
        let value = best["predictions"][0][key].as_f64().unwrap();
        for (least, is_named) in [(value - 0.001, true), (value + 0.001, false)] {
            let expected = world.classified("query100.png", &[&format!("{flag}={least}")]);
            assert_eq!(expected["label"].is_string(), is_named, "{name} {least}");
            let mut body = json!({"image": world.base64("query100.png"), "labels": LABELS, "explain": true});
            body[name] = json!(least);
            assert_eq!(server.post_json("/v1/classify", &body).ok()["results"], json!([expected]));
            let query = format!("/v1/classify?labels={}&explain=1&{name}={least}", listed());
            let raw = server.post(&query, "image/png", &world.bytes("query100.png")).ok();
            assert_eq!(raw["results"], json!([expected]), "{name} {least}");
        }
        let mut body = json!({"image": world.base64("query100.png"), "labels": LABELS});
        body[name] = json!(1.5);
        let message = server.post_json("/v1/classify", &body).fails(422, "invalid_parameter");
        assert!(message.contains(name) && message.contains("1.5"), "{message}");
    }
}

#[test]
fn a_photo_of_megabytes_is_answered_in_every_form_of_request() {
    let world = World::new();
    let server = world.serve(&[]);
    let photo = noise_jpeg(6 << 20);
    fs::write(world.path("photo.jpg"), &photo).unwrap();
    let expected = json!([world.classified("photo.jpg", &[])]);
    let query = format!("/v1/classify?labels={}&explain=1", listed());
    let body = json!({"image": STANDARD.encode(&photo), "labels": LABELS, "explain": true});
    let (kind, form) = form(&[("image", photo.clone())], &[("labels", &LABELS.join(",")), ("explain", "1")]);
    for answer in [
        server.post(&query, "image/jpeg", &photo),
        server.post_json("/v1/classify", &body),
        server.post("/v1/classify", &kind, &form),
    ] {
        assert_eq!(answer.ok()["results"], expected);
    }
}

#[test]
fn requests_at_the_same_time_are_batched_and_change_no_bit() {
    let world = World::new();
    let server = world.serve(&["--max-batch", "8", "--queue", "64"]);
    let ask = |i: usize| {
        let (name, k) = (format!("query{}.png", 100 + i % 4), 1 + i % 5);
        let query = format!("/v1/classify?labels={}&k={k}&explain=1&method=xmore", listed());
        (i % 4, k, server.post(&query, "image/png", &world.bytes(&name)).ok()["results"][0].clone())
    };
    // The labels are embedded once, for this one.
    ask(0);
    let answers: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..40).map(|i| scope.spawn(move || ask(i))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    for (image, k, answer) in answers {
        let k = k.to_string();
        let name = format!("query{}.png", 100 + image);
        assert_eq!(answer, world.classified(&name, &["--method", "xmore", "-k", &k]), "{name} k {k}");
    }
    let metrics = String::from_utf8(server.get("/metrics").body).unwrap();
    let value = |name: &str| -> f64 {
        let line = metrics.lines().find(|line| line.starts_with(name)).expect(name);
        line.rsplit(' ').next().unwrap().parse().unwrap()
    };
    assert_eq!(value("xmore_batch_inputs_sum"), 41.0);
    assert!(value("xmore_batch_inputs_count") < 41.0, "some went together");
    assert_eq!(value("xmore_label_set_lookups_total{found=\"yes\"}"), 40.0);
    for stage in ["queue", "decode", "encode", "search", "ensemble"] {
        assert!(value(&format!("xmore_stage_seconds_count{{stage=\"{stage}\"}}")) > 0.0);
    }
    assert_eq!(value("xmore_requests_in_flight"), 1.0, "this one");
}

#[test]
fn several_images_are_answered_in_order_and_a_broken_one_affects_no_other() {
    let world = World::new();
    let server = world.serve(&["--max-batch", "2"]);
    let images = ["query100.png", "query101.png", "query102.png"];
    let expected: Vec<Value> = images.iter().map(|name| world.classified(name, &[])).collect();
    let body = json!({
        "images": [world.base64(images[0]), STANDARD.encode("no picture"), world.base64(images[1]), world.base64(images[2])],
        "labels": LABELS, "explain": true,
    });
    let results = server.post_json("/v1/classify", &body).ok()["results"].clone();
    assert_eq!([&results[0], &results[2], &results[3]], [&expected[0], &expected[1], &expected[2]]);
    assert_eq!(results[1]["error"]["code"], "undecodable_image");
    // The only one is the request's own fault.
    let alone = json!({"image": STANDARD.encode("no picture"), "labels": LABELS});
    server.post_json("/v1/classify", &alone).fails(422, "undecodable_image");
    let (kind, body) = form(
        &[("image", world.bytes(images[0])), ("image", world.bytes(images[1]))],
        &[("labels", &LABELS.join(",")), ("explain", "true")],
    );
    let results = server.post("/v1/classify", &kind, &body).ok()["results"].clone();
    assert_eq!(results, json!([expected[0], expected[1]]));
}

#[test]
fn an_embedding_replaces_its_image() {
    let world = World::new();
    let server = world.serve(&[]);
    let ask = |image: Value, k: usize| {
        let body =
            json!({"image": image, "labels": LABELS, "k": k, "explain": true, "return_embedding": true});
        server.post_json("/v1/classify", &body).ok()["results"][0].clone()
    };
    let first = ask(json!(world.base64("query100.png")), 4);
    assert_eq!(ask(json!({"embedding": first["embedding"]}), 4), first);
    let mut other = ask(json!({"embedding": first["embedding"]}), 2);
    other.as_object_mut().unwrap().remove("embedding");
    assert_eq!(other, world.classified("query100.png", &["-k", "2"]));
    let embedded = server
        .post_json("/v1/embed", &json!({"image": world.base64("query100.png"), "encoding": "base64"}))
        .ok();
    assert_eq!(embedded["results"][0]["embedding"], first["embedding"]);
    let wrong = json!({"image": {"embedding": [1.0, 0.0]}, "labels": LABELS});
    server.post_json("/v1/classify", &wrong).fails(422, "invalid_parameter");
    // A pair's own image finds itself.
    let own = json!({"image": {"id": 3}, "n": 1});
    let found = server.post_json("/v1/retrieve", &own).ok();
    assert_eq!(found["results"][0]["pairs"][0]["image_path"], server.get("/v1/pairs/3").ok()["image_path"]);
    server.post_json("/v1/retrieve", &json!({"image": {"id": 16}})).fails(404, "not_found");
}

#[test]
fn embeddings_and_searches_are_the_command_lines() {
    let world = World::new();
    let server = world.serve(&[]);
    fs::write(world.path("texts.txt"), "a dog\nthe cat number 3\n").unwrap();
    world.run(&["embed", "--texts", "@texts.txt", "-o", "@texts.npy", &world.tiny]).ok();
    let npy = world.bytes("texts.npy");
    let body = json!({"texts": ["a dog", "the cat number 3"], "encoding": "base64"});
    let answer = server.post_json("/v1/embed", &body).ok();
    let rows: Vec<u8> = (0..2)
        .flat_map(|i| STANDARD.decode(answer["results"][i]["embedding"].as_str().unwrap()).unwrap())
        .collect();
    assert!(npy.ends_with(&rows), "the npy's rows are these bits");
    for (query, args) in [
        (json!({"text": "a dog", "n": 5}), vec!["--text", "a dog", "-n", "5"]),
        (
            json!({"text": "a dog", "n": 3, "modality": "text"}),
            vec!["--text", "a dog", "-n", "3", "--in", "captions"],
        ),
    ] {
        let found = server.post_json("/v1/retrieve", &query).ok();
        let fixed = ["memory", "search", "@m", "--format", "json"];
        let expected: Value = serde_json::from_str(&world.run(&[&fixed[..], &args].concat()).ok()).unwrap();
        let ids = |rows: &Value| -> Vec<(u64, f64)> {
            let row = |row: &Value| (row["id"].as_u64().unwrap(), row["similarity"].as_f64().unwrap());
            rows.as_array().unwrap().iter().map(row).collect()
        };
        let expected = if expected[0]["id"].is_null() { expected[0]["pairs"].clone() } else { expected };
        assert_eq!(ids(&found["results"][0]["pairs"]), ids(&expected));
    }
}

#[test]
fn label_sets_are_read_saved_and_used() {
    let world = World::new();
    fs::create_dir(world.path("sets")).unwrap();
    fs::write(world.path("sets/pets.txt"), LABELS.join("\n")).unwrap();
    let server = world.serve(&["--label-sets", "@sets", "--save-label-sets"]);
    let body = |set: &str| json!({"image": world.base64("query100.png"), "label_set": set, "explain": true});
    let answer = server.post_json("/v1/classify", &body("pets")).ok();
    assert_eq!(answer["results"], json!([world.classified("query100.png", &[])]));
    server.post_json("/v1/classify", &body("birds")).fails(404, "unknown_label_set");
    let put = |labels: Value| {
        let body = json!({"labels": labels}).to_string();
        server.send("PUT", "/v1/label-sets/birds", &[("content-type", "application/json")], body.as_bytes())
    };
    put(json!(["wren"])).fails(422, "invalid_parameter");
    put(json!(["wren", "tit"])).ok();
    assert_eq!(fs::read_to_string(world.path("sets/birds.txt")).unwrap(), "wren\ntit\n");
    assert_eq!(server.post_json("/v1/classify", &body("birds")).ok()["labels"], json!(["wren", "tit"]));
    server.send("DELETE", "/v1/label-sets/birds", &[], b"").ok();
    assert_eq!(server.get("/v1/label-sets").ok(), json!({"label_sets": [{"name": "pets", "labels": 3}]}));
    assert!(!world.path("sets/birds.txt").exists());
    fs::write(world.path("sets/trees.txt"), "oak\nelm\nash\n").unwrap();
    server.post_json("/v1/reload", &json!({})).ok();
    assert_eq!(server.get("/v1/label-sets/trees").ok()["labels"], json!(["oak", "elm", "ash"]));
    let closed = world.serve(&["--label-sets", "@sets"]);
    closed.send("DELETE", "/v1/label-sets/pets", &[], b"").fails(403, "disabled");
    assert!(world.path("sets/pets.txt").exists());
}
