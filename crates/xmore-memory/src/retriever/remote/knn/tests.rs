//! The client against a server that keeps to the contract, traps included.

use serde_json::{Value, json};

use super::super::test_server::{Reply, Seen, Server};
use super::*;
use crate::retriever::RemoteError;

/// A service with one index of `pairs` pairs of dimension 2, as clip-retrieval answers.
fn service(pairs: usize, row: impl Fn(usize) -> Value + Send + Sync + 'static) -> Server {
    Server::start(move |seen, _| match seen.line.as_str() {
        "GET /indices-list" => Reply::json(r#"["laion_400m", "mine"]"#),
        "POST /knn-service" => knn(seen, pairs, &row),
        _ => Reply::status(404),
    })
}

fn knn(seen: &Seen, pairs: usize, row: &dyn Fn(usize) -> Value) -> Reply {
    let request = seen.json();
    // As the service does: a null here is an error, and so is a query of another length.
    if request.get("aesthetic_score").is_some_and(Value::is_null) {
        return Reply::status(500);
    }
    if request["embedding_input"].as_array().map(Vec::len) != Some(2) {
        return Reply::status(500).with_body("Internal Server Error");
    }
    assert_eq!(request["modality"], "image");
    for off in ["deduplicate", "use_safety_model", "use_violence_detector"] {
        assert_eq!(request[off], false);
    }
    let images = request["num_images"].as_u64().unwrap() as usize;
    let results = request["num_result_ids"].as_u64().unwrap() as usize;
    let rows: Vec<Value> = (0..results.min(pairs))
        .map(|i| {
            let mut out = if i < images { row(i) } else { json!({}) };
            out["id"] = json!(i);
            out["similarity"] = json!(1.0 - i as f32 / 4096.0);
            out
        })
        .collect();
    // The word stands for what Python writes for a missing number.
    Reply::json(&Value::from(rows).to_string().replace("\"<NaN>\"", "NaN"))
}

fn open(server: &Server, index: Option<&str>) -> Result<Knn> {
    let location = KnnAddress { url: server.url(), index: index.map(Into::into) };
    Knn::open(&location, &RemoteOptions { parallel: 2, ..RemoteOptions::default() })
}

fn asked(server: &Server) -> Vec<u64> {
    let posts = server.seen().into_iter().filter(|seen| seen.line.starts_with("POST"));
    posts.map(|seen| seen.json()["num_images"].as_u64().unwrap()).collect()
}

#[test]
fn the_nearest_pairs_come_with_their_captions() {
    let server = service(
        5_000,
        |i| json!({"caption": format!("caption {i}"), "url": format!("https://x/{i}"), "image_path": "000", "NSFW": "<NaN>"}),
    );
    let knn = open(&server, Some("mine")).unwrap();
    assert_eq!((knn.pairs().unwrap(), knn.identity()), (None, None));
    assert_eq!(knn.location(), format!("knn+{}?index=mine", server.url()));
    let answers = knn.nearest_images(&[1.0, 0.0, 0.0, 1.0, 0.6, 0.8], 2, 128).unwrap();
    assert_eq!(answers.len(), 3);
    for answer in &answers {
        assert_eq!((answer.pairs.len(), answer.missing, &answer.note), (128, 0, &None));
        let last = &answer.pairs[127];
        assert_eq!(
            (last.id, last.caption.as_str(), last.image_path.as_str()),
            (127, "caption 127", "https://x/127")
        );
        assert_eq!((last.similarity, &last.text_embedding), (1.0 - 127.0 / 4096.0, &None));
    }
    assert_eq!(asked(&server), [200; 3]);
    let posted = server.seen().pop().unwrap().json();
    assert_eq!(posted["indice_name"], "mine");
    assert!(posted.get("aesthetic_score").is_none());
}

#[test]
fn rows_without_captions_are_left_out_and_more_are_asked_for() {
    let server = service(5_000, |i| match i % 3 {
        0 => json!({"caption": format!("caption {i}"), "image_path": format!("{i}.jpg")}),
        1 => json!({"caption": null}),
        _ => json!({"caption": "<NaN>"}),
    });
    let answer = open(&server, None).unwrap().nearest_images(&[1.0, 0.0], 2, 128).unwrap().remove(0);
    assert_eq!((answer.pairs.len(), answer.missing), (128, 0));
    assert_eq!((answer.pairs[1].id, answer.pairs[1].image_path.as_str()), (3, "3.jpg"));
    assert_eq!(asked(&server), [200, 1000]);
    assert_eq!(server.seen()[1].json()["indice_name"], Value::Null);
}

#[test]
fn fewer_pairs_than_wanted_are_reported() {
    let server = service(60, |i| if i < 20 { json!({"caption": "c"}) } else { json!({}) });
    let answer = open(&server, None).unwrap().nearest_images(&[1.0, 0.0], 2, 128).unwrap().remove(0);
    assert_eq!((answer.pairs.len(), answer.missing), (20, 108));
    let note = answer.note.unwrap();
    assert!(
        note.contains("20 pairs instead of 128") && note.contains("40 of them without a caption"),
        "{note}"
    );
    assert_eq!(asked(&server), [200, 1000]);
}

#[test]
fn many_neighbors_are_asked_for_at_once() {
    let server = service(5_000, |_| json!({"caption": "c"}));
    let knn = open(&server, None).unwrap();
    assert_eq!(knn.nearest_images(&[1.0, 0.0], 2, 700).unwrap()[0].pairs.len(), 700);
    assert_eq!(knn.nearest_images(&[1.0, 0.0], 2, 0).unwrap(), [Neighbors::default()]);
    assert_eq!(asked(&server), [700]);
}

#[test]
fn a_second_answer_that_is_refused_does_not_take_the_first_away() {
    let server = Server::start(|seen, _| match seen.line.as_str() {
        "GET /indices-list" => Reply::json(r#"["a"]"#),
        _ if seen.json()["num_images"] == 200 => Reply::json(
            r#"[{"id": 4, "similarity": 0.5, "caption": "c"}, {"id": 4, "similarity": 0.5, "caption": "c"}]"#,
        ),
        _ => Reply::json(&format!("[{}]", "0".repeat(70_000))),
    });
    let location = KnnAddress { url: server.url(), index: None };
    let options = RemoteOptions { max_answer: 50_000, ..RemoteOptions::default() };
    let answer = Knn::open(&location, &options).unwrap().nearest_images(&[1.0, 0.0], 2, 3).unwrap().remove(0);
    assert_eq!((answer.pairs.len(), answer.missing), (1, 2));
}

#[test]
fn an_index_that_is_not_there_is_named_with_those_that_are() {
    let server = service(1, |_| json!({}));
    let error = open(&server, Some("laion400m")).err().unwrap();
    assert!(matches!(error, MemoryError::Remote(RemoteError::Refused { .. })));
    let message = error.to_string();
    assert!(message.contains("did you mean \"laion_400m\"?") && message.contains("\"mine\""), "{message}");
    let message = open(&server, Some("zzz")).err().unwrap().to_string();
    assert!(!message.contains("did you mean"), "{message}");
}

#[test]
fn an_index_of_another_dimension_is_guessed() {
    let server = service(10, |_| json!({"caption": "c"}));
    let error = open(&server, None).unwrap().nearest_images(&[1.0, 0.0, 0.0], 3, 5).unwrap_err();
    assert!(matches!(error, MemoryError::Remote(RemoteError::Refused { .. })));
    let message = error.to_string();
    assert!(message.contains("embedding length is not 3") && message.contains("HTTP 500"), "{message}");
}

#[test]
fn what_is_no_knn_service_is_refused() {
    for (body, hint) in
        [("<html>", "not what was expected"), ("{}", "not what was expected"), ("[]", "no index")]
    {
        let server = Server::start(move |_, _| Reply::json(body));
        let error = open(&server, None).err().unwrap();
        assert!(
            matches!(&error, MemoryError::Remote(RemoteError::Refused { .. }))
                && error.to_string().contains(hint),
            "{error}"
        );
    }
    let garbage = Server::start(|seen, _| match seen.line.as_str() {
        "GET /indices-list" => Reply::json(r#"["a"]"#),
        _ => Reply::json(r#"[{"id": 1, "similarity": NaN, "caption": "c"}, {"id": 2}, "row"]"#),
    });
    let error = open(&garbage, None).unwrap().nearest_images(&[1.0, 0.0], 2, 5).unwrap_err();
    assert!(matches!(error, MemoryError::Remote(RemoteError::Refused { .. })), "{error}");
}

#[test]
fn a_service_that_is_down_is_unreachable() {
    let server = Server::start(|seen, before| match before {
        0 => {
            assert_eq!(seen.line, "GET /indices-list");
            Reply::json(r#"["a"]"#)
        }
        _ => Reply::hang_up(),
    });
    let location = KnnAddress { url: server.url(), index: None };
    let knn = Knn::open(&location, &RemoteOptions { attempts: 2, ..RemoteOptions::default() }).unwrap();
    let error = knn.nearest_images(&[1.0, 0.0], 2, 5).unwrap_err();
    assert!(matches!(error, MemoryError::Remote(RemoteError::Unreachable { attempts: 2, .. })), "{error}");
}
