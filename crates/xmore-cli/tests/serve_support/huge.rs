//! Requests that are huge in one way or another, and the statuses that they may have.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::wire::Wanted;
use super::{DIM, PAIRS};

/// Bytes of a request that are taken.
const LIMIT: usize = 16 << 20;

/// A request of which the huge ones are variations.
pub fn small(picture: &[u8]) -> Wanted {
    classify(picture, json!({}))
}

fn classify(picture: &[u8], more: Value) -> Wanted {
    let mut body = json!({"image": STANDARD.encode(picture), "labels": ["cat", "dog"]});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    Wanted::json("/v1/classify", body.to_string())
}

/// Name, request, statuses.
pub fn requests(picture: &[u8]) -> Vec<(&'static str, Wanted, &'static [u16])> {
    let classify = |more| classify(picture, more);
    let embed = |body: Value| Wanted::json("/v1/embed", body.to_string());
    let embedding = |values: Value| embed(json!({"image": {"embedding": values}}));
    let bits = |value: f32| STANDARD.encode(value.to_le_bytes().repeat(DIM));
    let bytes = |count: usize| {
        Wanted::new("POST", "/v1/embed").with("content-type", "image/png").body(vec![0; count])
    };
    vec![
        (
            "100,000 labels",
            classify(json!({"labels": (0..100_000).map(|i| i.to_string()).collect::<Vec<_>>()})),
            &[413][..],
        ),
        (
            "labels of megabytes",
            classify(json!({"labels": ["a ".repeat(3 << 20), "b ".repeat(3 << 20)]})),
            &[422],
        ),
        ("a label that is one long word", classify(json!({"labels": ["a".repeat(6 << 20), "b"]})), &[422]),
        (
            "labels in both kinds of places",
            classify(json!({"labels": [" a".repeat(3000), "b"], "templates": ["{c}".repeat(2000)]})),
            &[422],
        ),
        ("a template of megabytes", classify(json!({"templates": ["{}".repeat(1 << 20)]})), &[422]),
        (
            "labels times templates",
            classify(
                json!({"labels": (0..5000).map(|i| i.to_string()).collect::<Vec<_>>(), "templates": vec!["{}"; 5000]}),
            ),
            &[413],
        ),
        ("10,000 images", embed(json!({"images": vec!["AAAA"; 10_000]})), &[413]),
        ("a million empty images", list("images", "\"\""), &[400]),
        ("a million ids", list("images", "{\"id\":1}"), &[400]),
        ("a million empty texts", list("texts", "\"\""), &[400]),
        ("a million numbers", list("images", "0"), &[400]),
        ("a text of megabytes", embed(json!({"text": "ab ".repeat(5 << 20)})), &[422]),
        ("64 texts of a quarter megabyte", embed(json!({"texts": vec!["ab ".repeat(80_000); 64]})), &[200]),
        (
            "64 texts as long as they may be",
            embed(json!({"texts": vec!["ab ".repeat((8 << 10) / 3); 64]})),
            &[200],
        ),
        (
            "prompts as long as they may be",
            classify(
                json!({"labels": (0..100).map(|i| format!("{i}{}", " a".repeat(1000))).collect::<Vec<_>>(), "templates": ["{} {} {}"], "method": "captions"}),
            ),
            &[200],
        ),
        (
            "prompts that are a gigabyte together",
            classify(
                json!({"labels": (0..2000).map(|i| format!("{i}{}", " a".repeat(2000))).collect::<Vec<_>>(), "method": "templates"}),
            ),
            &[413],
        ),
        ("JSON 100,000 deep", Wanted::json("/v1/classify", "[".repeat(100_000)), &[400]),
        (
            "JSON 100,000 deep where it is ignored",
            Wanted::json("/metadata", format!("{{\"x\":{}", "[{\"a\":".repeat(100_000))),
            &[400],
        ),
        ("an embedding of a million", embedding(json!(vec![0.5; 1_000_000])), &[400]),
        ("an embedding of NaN", embedding(json!(bits(f32::NAN))), &[422]),
        ("an embedding of infinities", embedding(json!(bits(f32::INFINITY))), &[422]),
        ("an embedding of zeros", embedding(json!(bits(0.0))), &[422]),
        ("an embedding of the largest number", embedding(json!(bits(f32::MAX))), &[200]),
        ("an embedding of the smallest number", embedding(json!(bits(f32::from_bits(1)))), &[200]),
        ("numbers beyond f32", embedding(json!(vec![1e39; DIM])), &[400]),
        ("numbers beyond f64", Wanted::json("/v1/embed", "{\"image\":{\"embedding\":[1e999]}}"), &[400]),
        ("k of u64::MAX", classify(json!({"k": u64::MAX})), &[422]),
        ("neighbors of u64::MAX", classify(json!({"neighbors": u64::MAX})), &[422]),
        ("top of u64::MAX", classify(json!({"top": u64::MAX})), &[200]),
        ("k beyond u64", Wanted::json("/v1/classify", "{\"k\":18446744073709551616}"), &[400]),
        (
            "n of u64::MAX",
            Wanted::json("/v1/retrieve", json!({"text": "a", "n": u64::MAX}).to_string()),
            &[422],
        ),
        (
            "num_images of u64::MAX",
            Wanted::json(
                "/knn-service",
                json!({"text": "a", "modality": "image", "num_images": u64::MAX}).to_string(),
            ),
            &[413],
        ),
        ("an id that is not there", embed(json!({"image": {"id": PAIRS}})), &[404]),
        ("an id of u64::MAX", Wanted::json("/metadata", json!({"ids": [u64::MAX]}).to_string()), &[404]),
        (
            "two million ids",
            Wanted::json("/metadata", json!({"ids": vec![1; 2_000_000]}).to_string()),
            &[400],
        ),
        (
            "numbers far from a unit vector",
            Wanted::json(
                "/knn-service",
                json!({"embedding_input": vec![f32::MAX; DIM], "modality": "image", "num_images": 1})
                    .to_string(),
            ),
            &[422],
        ),
        ("a part of a form for each byte", form_of_many(400_000), &[400, 413]),
        ("as much as is taken", bytes(LIMIT), &[422]),
        ("a byte more than is taken", bytes(LIMIT + 1), &[413]),
    ]
}

/// As many items as fit into a request.
fn list(name: &str, item: &str) -> Wanted {
    let count = (LIMIT - 100) / (item.len() + 1);
    Wanted::json("/v1/embed", format!("{{\"{name}\":[{}]}}", vec![item; count].join(",")))
}

/// A form of many empty parts.
fn form_of_many(parts: usize) -> Wanted {
    let part = "--x\r\nContent-Disposition:form-data;name=k\r\n\r\n\r\n";
    let count = parts.min(LIMIT / part.len() - 1);
    Wanted::new("POST", "/v1/embed")
        .with("content-type", "multipart/form-data; boundary=x")
        .body(part.replace("name=k", "name=image").repeat(count) + "--x--\r\n")
}
