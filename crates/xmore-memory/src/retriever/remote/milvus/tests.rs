//! The client against a server that keeps rows as Milvus does, with the faults a test asks for.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::super::test_server::{Reply, Seen, Server};
use super::*;
use crate::error::MemoryError;
use crate::retriever::RemoteError;
use crate::search::VectorError;
use crate::store::{Memory, MemoryWriter};

/// What the fake server keeps.
#[derive(Default)]
struct World {
    description: Option<String>,
    index: Option<String>,
    loaded: bool,
    rows: BTreeMap<u64, Value>,
    /// Rows that reads of bounded staleness do not see yet, and for how many of these.
    hidden: (u64, usize),
}

type Shared = Arc<Mutex<World>>;

/// Answers as Milvus 2.3.5 does on both of its ports; here they are one.
fn milvus(world: &mut World, seen: &Seen) -> Reply {
    let (request, line) = (seen.json(), seen.line.as_str());
    let of = |key: &str| request[key].as_str().unwrap_or_default().to_owned();
    let data = |data: Value| Reply::json(&json!({"code": 200, "data": data}).to_string());
    let refused =
        |code: u32, message: &str| Reply::json(&json!({"code": code, "message": message}).to_string());
    if line.starts_with("GET /v1/vector/collections/describe?collectionName=pairs") {
        return match &world.description {
            None => refused(100, "can't find collection"),
            Some(description) => data(json!({
                "description": description,
                "load": if world.loaded { "LoadStateLoaded" } else { "LoadStateNotLoad" },
                "indexes": world.index.iter().collect::<Vec<_>>(),
            })),
        };
    }
    match line {
        "POST /api/v1/collection" => {
            assert_eq!(request["schema"]["fields"][0]["is_primary_key"], true);
            assert_eq!(request["schema"]["fields"][0]["autoID"], false);
            world.description = request["schema"]["description"].as_str().map(str::to_owned);
            Reply::json("{}")
        }
        "POST /api/v1/index" => {
            world.index = request["extra_params"][1]["value"].as_str().map(str::to_owned);
            Reply::json("{}")
        }
        "POST /api/v1/collection/load" => {
            assert!(world.index.is_some(), "Milvus loads no collection without an index");
            world.loaded = true;
            Reply::json("{}")
        }
        "POST /api/v1/persist" => Reply::json(r#"{"status": {}}"#),
        "POST /api/v1/query" => {
            let expr = of("expr");
            let bounds: Vec<u64> = expr.split(' ').filter_map(|word| word.parse().ok()).collect();
            let (from, to) = if bounds.len() == 2 { (bounds[0], bounds[1]) } else { (0, u64::MAX) };
            let count = world.rows.range(from..to).count();
            let count = json!({"Scalars": {"Data": {"LongData": {"data": [count]}}}});
            Reply::json(&json!({"status": {}, "fields_data": [{"type": 5, "Field": count}]}).to_string())
        }
        "POST /v1/vector/upsert" => {
            let rows = request["data"].as_array().unwrap();
            for row in rows {
                world.rows.insert(row["id"].as_u64().unwrap(), row.clone());
            }
            data(json!({"upsertCount": rows.len()}))
        }
        "POST /v1/vector/query" if request["outputFields"][0] == "count(*)" => {
            let hidden = if world.hidden.1 > 0 { world.hidden.0 } else { 0 };
            world.hidden.1 = world.hidden.1.saturating_sub(1);
            data(json!([{"count(*)": (world.rows.len() as u64 - hidden).to_string()}]))
        }
        "POST /v1/vector/query" => {
            let ids = of("filter").replace("id in ", "");
            let ids: Vec<u64> = serde_json::from_str(&ids).unwrap();
            let rows = ids.iter().filter_map(|id| world.rows.get(id)).cloned().map(|mut row| {
                row["id"] = row["id"].to_string().into();
                row
            });
            data(rows.collect())
        }
        "POST /v1/vector/search" => {
            let numbers = |v: &Value| -> Vec<f64> {
                v.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
            };
            let query = numbers(&request["vector"]);
            let mut found: Vec<Value> = world.rows.values().cloned().collect();
            for row in &mut found {
                let products = numbers(&row["vector"]).iter().zip(&query).map(|(a, b)| a * b).sum::<f64>();
                row["distance"] = products.into();
                row["id"] = row["id"].to_string().into();
            }
            found.sort_by(|a, b| b["distance"].as_f64().unwrap().total_cmp(&a["distance"].as_f64().unwrap()));
            found.truncate(request["limit"].as_u64().unwrap() as usize);
            data(found.into())
        }
        "POST /v1/vector/collections/drop" => {
            *world = World::default();
            data(json!({}))
        }
        _ => Reply::status(404),
    }
}

/// A server whose answers a test may replace; told the request and how many like it came before.
fn server(fault: impl Fn(&Seen, usize) -> Option<Reply> + Send + Sync + 'static) -> (Server, Shared) {
    let world = Shared::default();
    let shared = Arc::clone(&world);
    let counts = Mutex::new(HashMap::new());
    let server = Server::start(move |seen, _| {
        let before = {
            let mut counts = counts.lock().unwrap();
            let count = counts.entry(seen.line.clone()).or_insert(0);
            *count += 1;
            *count - 1
        };
        fault(seen, before).unwrap_or_else(|| milvus(&mut shared.lock().unwrap(), seen))
    });
    (server, world)
}

fn healthy() -> (Server, Shared) {
    server(|_, _| None)
}

fn location(server: &Server) -> MilvusAddress {
    let (port, management) = (server.port(), server.port());
    MilvusAddress { host: "127.0.0.1".into(), port, management, collection: "pairs".into() }
}

fn options() -> RemoteOptions {
    RemoteOptions {
        timeout: Duration::from_secs(2),
        attempts: 2,
        upload_retry_time: Duration::from_secs(3),
        ..RemoteOptions::default()
    }
}

/// Values per embedding: so many that a request holds a few hundred rows only.
const DIM: usize = 1024;

fn model() -> ModelIdentity {
    ModelIdentity::new("ViT-B-16,openai", "0123456789abcdef", DIM)
}

/// A memory of unit vectors along the axes; pair i's caption is "`word` i".
fn memory(dir: &Path, pairs: usize, word: &str) -> Memory {
    let mut writer = MemoryWriter::create(dir, model()).unwrap();
    let mut row = vec![0.0; DIM];
    for i in 0..pairs {
        row[i % DIM] = 1.0;
        writer.push(&format!("{i}.jpg"), &format!("{word} {i}"), &row, &row).unwrap();
        row[i % DIM] = 0.0;
    }
    writer.finish().unwrap();
    Memory::open(dir).unwrap()
}

fn create(server: &Server, pairs: u64) -> Result<Milvus> {
    Milvus::create(&location(server), &model(), pairs, IndexKind::Flat, &options())
}

fn upserts(server: &Server) -> usize {
    server.seen().iter().filter(|seen| seen.line.ends_with("/upsert")).count()
}

#[test]
fn a_memory_is_uploaded_once_and_found() {
    let dir = tempfile::tempdir().unwrap();
    let memory = memory(dir.path(), 700, "caption");
    let (server, world) = healthy();
    let milvus = create(&server, 700).unwrap();
    assert_eq!(world.lock().unwrap().index.as_deref(), Some("FLAT"));
    let mut seen = Vec::new();
    let report = milvus.upload(&memory, |progress| {
        seen.push(progress.done);
        true
    });
    let report = report.unwrap();
    let expected = UploadReport { total: 700, sent: 700, complete: true, ..UploadReport::default() };
    assert_eq!(report, expected);
    assert!(
        seen.is_sorted() && seen.first() == Some(&0) && seen.last() == Some(&700) && seen.len() > 3,
        "{seen:?}"
    );
    assert_eq!(world.lock().unwrap().rows.len(), 700);

    // The same again sends nothing.
    let before = upserts(&server);
    let again = create(&server, 700).unwrap().upload(&memory, |_| true).unwrap();
    assert_eq!(again, UploadReport { total: 700, present: 700, complete: true, ..UploadReport::default() });
    assert_eq!(upserts(&server), before);

    let found = Milvus::open(&location(&server), &options()).unwrap();
    assert_eq!((found.pairs().unwrap(), found.identity()), (Some(700), Some(&model())));
    let mut query = vec![0.0; 2 * DIM];
    (query[5], query[6], query[DIM + 699]) = (0.8, 0.6, 1.0);
    let answers = found.nearest_images(&query, DIM, 2).unwrap();
    let local = Retriever::nearest_images(&memory, &query, DIM, 2).unwrap();
    assert_eq!(answers[0], local[0]);
    assert_eq!(answers[1].pairs[0], local[1].pairs[0]);
    let metadata = found.metadata(&[699, 700, 0]).unwrap();
    assert_eq!(metadata[0].as_ref().unwrap().caption, "caption 699");
    assert_eq!((metadata[1].as_ref(), metadata[2].as_ref().unwrap().image_path.as_str()), (None, "0.jpg"));

    found.drop_collection().unwrap();
    let error = Milvus::open(&location(&server), &options()).err().unwrap();
    assert!(error.to_string().contains("no collection \"pairs\""), "{error}");
}

#[test]
fn an_upload_goes_on_with_what_is_missing_wherever_that_is() {
    let dir = tempfile::tempdir().unwrap();
    let memory = memory(dir.path(), 9_000, "caption");
    let (server, world) = healthy();
    create(&server, 9_000).unwrap().upload(&memory, |_| true).unwrap();
    let complete = world.lock().unwrap().rows.clone();
    for id in [0].into_iter().chain(8_000..8_500) {
        world.lock().unwrap().rows.remove(&id);
    }
    let report = create(&server, 9_000).unwrap().upload(&memory, |_| true).unwrap();
    // The first and the last quarter: ranges that short are sent again as a whole.
    assert_eq!((report.present, report.sent, report.complete), (8_499, 4_500, true));
    assert!(world.lock().unwrap().rows == complete);
}

#[test]
fn an_upload_that_the_caller_stops_is_incomplete_and_says_so_when_searched() {
    let dir = tempfile::tempdir().unwrap();
    let memory = memory(dir.path(), 2_000, "caption");
    let (server, _) = healthy();
    let report = create(&server, 2_000).unwrap().upload(&memory, |progress| progress.done < 500).unwrap();
    assert!(!report.complete && (500..1_500).contains(&report.sent), "{report:?}");
    let milvus = Milvus::open(&location(&server), &options()).unwrap();
    let mut query = vec![0.0; DIM];
    query[0] = 1.0;
    let answer = milvus.nearest_images(&query, DIM, 3).unwrap().remove(0);
    assert_eq!((answer.pairs.len(), answer.missing), (3, 0));
    assert!(answer.note.unwrap().contains("of its memory's 2000 pairs"));
    assert!(milvus.upload(&memory, |_| true).unwrap().complete);
    assert_eq!(milvus.nearest_images(&query, DIM, 3).unwrap()[0].note, None);
}

#[test]
fn a_server_that_starts_anew_midway_loses_and_doubles_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let memory = memory(dir.path(), 1_500, "caption");
    // The third and fourth requests get no answer, the next ones those of a server that starts.
    let (server, world) = server(|seen, before| match (seen.line.as_str(), before) {
        ("POST /v1/vector/upsert", 2 | 3) => Some(Reply::hang_up()),
        ("POST /v1/vector/upsert", 4) => Some(Reply::status(500).with_body("starting")),
        ("POST /v1/vector/upsert", 5) => Some(Reply::json(r#"{"code": 1, "message": "service not ready"}"#)),
        ("POST /v1/vector/upsert", 6) => Some(Reply::json(r#"{"code": 65535, "message": "node not found"}"#)),
        _ => None,
    });
    let report = create(&server, 1_500).unwrap().upload(&memory, |_| true).unwrap();
    assert_eq!((report.sent, report.complete), (1_500, true));
    assert_eq!(world.lock().unwrap().rows.len(), 1_500);
}

#[test]
fn rows_that_are_lost_after_they_were_confirmed_are_sent_again() {
    let dir = tempfile::tempdir().unwrap();
    let memory = memory(dir.path(), 1_000, "caption");
    let (server, world) = server(|seen, before| {
        let forgotten = seen.line == "POST /v1/vector/upsert" && before == 1;
        forgotten.then(|| Reply::json(r#"{"code": 200, "data": {"upsertCount": 1}}"#))
    });
    let report = create(&server, 1_000).unwrap().upload(&memory, |_| true).unwrap();
    assert!(report.complete && report.sent > 1_000, "{report:?}");
    assert_eq!(world.lock().unwrap().rows.len(), 1_000);
}

#[test]
fn a_server_that_stays_away_ends_the_upload_with_how_far_it_came() {
    let dir = tempfile::tempdir().unwrap();
    let memory = memory(dir.path(), 1_000, "caption");
    let (server, _) =
        server(|seen, before| (seen.line.ends_with("/upsert") && before >= 2).then(Reply::hang_up));
    let milvus = create(&server, 1_000).unwrap();
    let start = Instant::now();
    let error = milvus.upload(&memory, |_| true).unwrap_err();
    assert!(start.elapsed() < Duration::from_secs(10));
    assert!(matches!(error, MemoryError::Remote(RemoteError::Unreachable { .. })), "{error}");
    let message = error.to_string();
    let sent = 2 * rows::rows_of_request(DIM);
    assert!(
        message.contains(&format!("{sent} of 1000 pairs are there: the same upload again goes on")),
        "{message}"
    );
}

#[test]
fn rows_that_searches_do_not_see_yet_are_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let memory = memory(dir.path(), 300, "caption");
    let (server, world) = healthy();
    let milvus = create(&server, 300).unwrap();
    world.lock().unwrap().hidden = (100, 4);
    assert!(milvus.upload(&memory, |_| true).unwrap().complete);
    assert_eq!(world.lock().unwrap().hidden.1, 0);
}

#[test]
fn another_model_and_another_memory_are_refused_and_change_nothing() {
    let (dir, other_dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let first = memory(dir.path(), 300, "caption");
    let other = memory(other_dir.path(), 300, "word");
    let (server, world) = healthy();
    let milvus = create(&server, 300).unwrap();
    milvus.upload(&first, |_| true).unwrap();
    let before = world.lock().unwrap().rows.clone();

    let message = milvus.upload(&other, |_| true).unwrap_err().to_string();
    assert!(message.contains("holds another memory") && message.contains("word 0"), "{message}");

    let smaller = tempfile::tempdir().unwrap();
    let message = milvus.upload(&memory(smaller.path(), 200, "caption"), |_| true).unwrap_err().to_string();
    assert!(message.contains("100 pairs beyond the memory's 200"), "{message}");

    let other = ModelIdentity { fingerprint: "ffff".into(), ..model() };
    let error = Milvus::create(&location(&server), &other, 1, IndexKind::Flat, &options()).err().unwrap();
    assert!(
        matches!(error, MemoryError::Remote(RemoteError::Refused { .. }))
            && error.to_string().contains("choose another"),
        "{error}"
    );
    let error = milvus.nearest_images(&[0.0; 8], 8, 1).unwrap_err();
    assert!(
        matches!(error, MemoryError::Vector(VectorError::Length { expected: DIM, found: 8, .. })),
        "{error}"
    );
    assert!(world.lock().unwrap().rows == before);
}

#[test]
fn a_collection_of_someone_else_is_never_touched() {
    for (description, hint) in [
        ("photos of my cats", "not made by xmore"),
        (
            r#"{"xmore_memory": 3, "model": {"name": "m", "sha256": "0", "dim": 4}, "pairs": 1}"#,
            "update xmore",
        ),
        (r#"{"xmore_memory": 1, "model": {"name": "m", "sha256": "0", "dim": 0}, "pairs": 1}"#, "damaged"),
    ] {
        let (server, world) = healthy();
        world.lock().unwrap().description = Some(description.to_owned());
        for result in [create(&server, 1), Milvus::open(&location(&server), &options())] {
            let message = result.err().unwrap().to_string();
            assert!(message.contains(hint) && message.contains("choose another collection"), "{message}");
        }
        assert!(!world.lock().unwrap().loaded);
    }
}

#[test]
fn what_is_left_undone_by_an_interrupted_create_is_done_by_the_next() {
    let (server, world) =
        server(|seen, before| (seen.line == "POST /api/v1/index" && before == 0).then(|| Reply::status(400)));
    assert!(create(&server, 5).is_err());
    assert!(world.lock().unwrap().index.is_none());
    create(&server, 5).unwrap();
    let world = world.lock().unwrap();
    assert!(world.loaded && world.index.as_deref() == Some("FLAT"));
}

#[test]
fn pairs_whose_embeddings_are_not_finite_are_left_out_each_time() {
    let dir = tempfile::tempdir().unwrap();
    memory(dir.path(), 600, "caption");
    // The image embedding of pair 7, which the writer would have refused.
    let path = dir.path().join("img_emb/img_emb_0000.npy");
    let mut bytes = std::fs::read(&path).unwrap();
    let row = bytes.len() - (600 - 7) * DIM * 2;
    bytes[row..row + 2].copy_from_slice(&half::f16::NAN.to_le_bytes());
    std::fs::write(&path, bytes).unwrap();
    let memory = Memory::open(dir.path()).unwrap();
    let (server, world) = healthy();
    for present in [0, 599] {
        let report = create(&server, 600).unwrap().upload(&memory, |_| true).unwrap();
        assert_eq!((report.present, report.skipped, report.complete), (present, 1, true));
        assert!(world.lock().unwrap().rows.len() == 599 && !world.lock().unwrap().rows.contains_key(&7));
    }
}

#[test]
fn refusals_of_milvus_are_passing_or_final() {
    for (code, times) in [(1, 2), (101, 2), (503, 2), (65535, 2), (1100, 1), (1804, 1)] {
        let (server, world) = server(move |seen, _| {
            let body = json!({"code": code, "message": "because"}).to_string();
            seen.line.ends_with("/search").then(|| Reply::json(&body))
        });
        let milvus = create(&server, 0).unwrap();
        let error = milvus.nearest_images(&[0.5; DIM], DIM, 1).unwrap_err();
        let unreachable = matches!(error, MemoryError::Remote(RemoteError::Unreachable { .. }));
        assert_eq!(unreachable, code < 1000, "{error}");
        assert!(error.to_string().contains(&format!("because (code {code})")), "{error}");
        assert_eq!(
            server.seen().iter().filter(|seen| seen.line.ends_with("/search")).count(),
            times,
            "{code}"
        );
        drop(world);
    }
}

#[test]
fn nonsense_and_embeddings_too_long_are_refused() {
    for body in ["<html>", "[]", "{}", r#"{"code": 200}"#, r#"{"code": 200, "data": 7}"#] {
        let server = Server::start(move |_, _| Reply::json(body));
        let error = Milvus::open(&location(&server), &options()).err().unwrap();
        assert!(matches!(error, MemoryError::Remote(RemoteError::Refused { .. })), "{body}: {error}");
    }
    let (server, _) = healthy();
    let long = ModelIdentity { dim: 24_600, ..model() };
    let error = Milvus::create(&location(&server), &long, 1, IndexKind::Flat, &options()).err().unwrap();
    assert!(error.to_string().contains("24600"), "{error}");
    assert!(server.seen().is_empty());
}

#[test]
fn found_rows_that_lack_something_are_counted() {
    let (server, world) = healthy();
    create(&server, 3).unwrap();
    let vector = |x: f64| {
        let mut vector = vec![0.0; DIM];
        vector[0] = x;
        vector
    };
    for (id, row) in [
        (0, json!({"id": 0, "vector": vector(0.1)})),
        (1, json!({"id": 1, "vector": vector(0.2), "caption": "c", "text_embedding": "AAAA"})),
        (2, json!({"id": 2, "vector": vector(0.3), "caption": "d", "image_path": "d.jpg"})),
    ] {
        world.lock().unwrap().rows.insert(id, row);
    }
    let milvus = Milvus::open(&location(&server), &options()).unwrap();
    let answer =
        milvus.nearest_images(&vector(1.0).iter().map(|v| *v as f32).collect::<Vec<_>>(), DIM, 9).unwrap();
    let answer = &answer[0];
    assert_eq!(answer.pairs.iter().map(|n| n.id).collect::<Vec<_>>(), [2, 1]);
    assert!(answer.pairs.iter().all(|n| n.text_embedding.is_none()));
    assert_eq!(answer.missing, 1);
    assert!(answer.note.as_ref().unwrap().contains("3 rows came, 1 unusable"));
}
