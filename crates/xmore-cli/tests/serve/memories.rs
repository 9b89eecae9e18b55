//! The memory or remote index of a server: other orientations, reloads, several models, absence.

use super::*;

#[test]
fn a_memory_of_another_orientation_is_told() {
    let world = World::new();
    assert!(!world.serve(&[]).said().contains("orientation"));
    let server = world.serve(&["--orientation", "stored"]);
    server.wait_for("photos are decoded with orientation `stored`, the memory's were with `exif`");
    server.post_json("/v1/reload", &json!({})).ok();
    server.wait_for("images are decoded with orientation stored, the memory's were with exif");
}

#[test]
fn an_unreachable_remote_index_is_tolerated_where_that_is_allowed() {
    let world = World::new();
    let image = world.bytes("query100.png");
    let query = format!("/v1/classify?labels={}", listed());
    let with = |method: &str| format!("{query}&method={method}");
    for url in ["milvus://127.0.0.1:1/pairs", "knn+http://127.0.0.1:1"] {
        let model = tiny_model();
        let args = ["serve", "--memory", url, "--addr", "127.0.0.1:0", "--if-unreachable=zero-shot", &model];
        let server = world.run(&args).serve();
        let expected = server.post(&with("zero-shot"), "image/png", &image).ok()["results"][0].clone();
        let found = server.post(&query, "image/png", &image).ok()["results"][0].clone();
        assert_eq!(found["predictions"], expected["predictions"], "{url}");
        assert!(server.said().contains("cannot reach"), "{url}: {}", server.said());
    }
}

#[test]
fn a_memory_that_grew_is_opened_again_without_losing_a_request() {
    let world = World::new();
    let server = world.serve(&[]);
    let pairs = |server: &Server| server.get("/v1/info").ok()["memory"]["pairs"].clone();
    let ask = || {
        let body = json!({"image": world.base64("query100.png"), "labels": LABELS, "explain": true});
        server.post_json("/v1/classify", &body).ok()
    };
    let before = ask();
    assert_eq!((pairs(&server), &before["generation"]), (json!(16), &json!(1)));
    world.run(&["memory", "append", "@m", "@more.csv", &world.tiny]).ok();
    assert_eq!(ask()["results"], before["results"], "not yet");
    std::thread::scope(|scope| {
        let asking: Vec<_> =
            (0..4).map(|_| scope.spawn(|| (0..5).map(|_| ask()).collect::<Vec<_>>())).collect();
        assert_eq!(server.post_json("/v1/reload", &json!({})).ok(), json!({"generation": 2, "pairs": 32}));
        asking.into_iter().for_each(|thread| assert_eq!(thread.join().unwrap().len(), 5));
    });
    assert_eq!(ask()["results"], json!([world.classified("query100.png", &[])]));
    server.signal("HUP");
    server.wait_for("the memory was opened again");
    assert_eq!(ask()["generation"], 3);
    // What cannot be opened changes nothing.
    fs::rename(world.path("m"), world.path("gone")).unwrap();
    let message = server.post_json("/v1/reload", &json!({})).fails(422, "needs_memory");
    assert!(message.contains("served so far is kept"), "{message}");
    assert_eq!((pairs(&server), ask()["generation"].clone()), (json!(32), json!(3)));
}

#[test]
fn without_a_memory_the_image_alone_is_classified() {
    let world = World::new();
    let server = world.run(&["serve", "--addr", "127.0.0.1:0", &world.tiny]).serve();
    let body = |method: Option<&str>| json!({"image": world.base64("query100.png"), "labels": LABELS, "method": method});
    let answer = server.post_json("/v1/classify", &body(None)).ok();
    assert_eq!(answer["method"], "zero-shot");
    server.post_json("/v1/classify", &body(Some("xmore"))).fails(422, "needs_memory");
    server.post_json("/v1/retrieve", &json!({"text": "a dog"})).fails(422, "needs_memory");
    assert_eq!(server.get("/v1/info").ok()["memory"], Value::Null);
    assert_eq!(server.get("/indices-list").ok(), json!([]));
}

#[test]
fn three_models_search_choose_and_classify_as_on_the_command_line() {
    let world = World::new();
    let second = second_model(world.dir.path());
    world.run(&["memory", "embed", "@m", &format!("--model={second}")]).ok();
    let models = ["--search-model", &second, "--rerank-model", &second];
    let server = world.serve(&models);
    let body = json!({"image": world.base64("query100.png"), "labels": LABELS, "explain": true, "return_embedding": true});
    let mut answer = server.post_json("/v1/classify", &body).ok()["results"][0].take();
    let embedding = answer.as_object_mut().unwrap().remove("embedding").unwrap();
    assert_eq!(answer, world.classified("query100.png", &models));
    // The embedding holds those of all three.
    let body = json!({"image": {"embedding": embedding}, "labels": LABELS, "explain": true});
    assert_eq!(server.post_json("/v1/classify", &body).ok()["results"], json!([answer]));
}

#[test]
fn a_remote_index_is_searched_and_its_absence_reported_or_tolerated() {
    let world = World::new();
    let index = world.serve(&[]);
    let memory = format!("--memory=knn+{}?index=m", index.url);
    let over = |args: &[&str]| {
        let fixed = ["serve", &memory, "--addr", "127.0.0.1:0", "--memory-timeout", "2", &world.tiny];
        world.run(&[&fixed, args].concat()).serve()
    };
    let (strict, lenient) = (over(&[]), over(&["--if-unreachable", "zero-shot"]));
    let body = json!({"image": world.base64("query100.png"), "labels": LABELS, "method": "captions", "explain": true});
    let expected = world.classified("query100.png", &["--method", "captions"]);
    for server in [&strict, &lenient] {
        let answer = server.post_json("/v1/classify", &body).ok();
        let captions = |answer: &Value| answer["captions"].as_array().unwrap().len();
        assert_eq!(captions(&answer["results"][0]), captions(&expected));
        assert_eq!(answer["results"][0]["predictions"][0]["label"], expected["predictions"][0]["label"]);
        server.post_json("/v1/retrieve", &json!({"text": "a dog"})).fails(422, "needs_memory");
        assert_eq!(server.get("/v1/info").ok()["memory"]["local"], false);
    }
    drop(index);
    let message = strict.post_json("/v1/classify", &body).fails(503, "index_unreachable");
    assert!(message.contains("zero-shot"), "{message}");
    let alone = world.classified("query100.png", &["--method", "zero-shot"]);
    // A label set that is new, and needs the remote index to cover the labels, too.
    for method in ["captions", "xmore-kernel"] {
        let mut body = body.clone();
        body["method"] = json!(method);
        let answer = lenient.post_json("/v1/classify", &body).ok();
        assert_eq!(answer["results"][0]["predictions"], alone["predictions"]);
        assert_eq!(answer["results"][0]["caption_distribution"], Value::Null);
    }
    lenient.wait_for("answering zero-shot");
}
