//! Pairs that a remote index has: a test server in place of clip-retrieval's service answers from a built memory, with and without faults.

mod support;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use support::files::second_model;
use support::remote::{assert_same_answer, json_of, memory_and_photo};
use support::{Run, Xmore, tiny_model, xmore};
use xmore_memory::Memory;
use xmore_memory::store::Modality;

/// Values of an embedding of the tiny model.
const DIM: usize = 16;
/// A test server in place of `/knn-service`: it gives at most `most` rows, and closes the connection on searches if `most` is 0.
struct Service {
    port: u16,
}

impl Service {
    fn start(memory: &Path, most: Option<usize>) -> Self {
        let memory = Arc::new(Memory::open(memory).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let memory = Arc::clone(&memory);
                // A client that has disconnected is no failure of the service's.
                std::thread::spawn(move || drop(answer(&memory, most, stream)));
            }
        });
        Self { port }
    }

    fn url(&self) -> String {
        format!("knn+http://127.0.0.1:{}", self.port)
    }
}

fn answer(memory: &Memory, most: Option<usize>, mut stream: TcpStream) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let (mut request, mut length) = (String::new(), 0);
    reader.read_line(&mut request)?;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        match line.trim_end().to_ascii_lowercase().split_once(": ") {
            Some(("content-length", bytes)) => length = bytes.parse().unwrap_or(0),
            Some(_) => {}
            None => break,
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let reply = match (request.split(' ').nth(1), most) {
        (Some("/indices-list"), _) => json!(["pairs"]),
        (Some("/knn-service"), Some(most)) => search(memory, most, &serde_json::from_slice(&body)?),
        _ => return Ok(()),
    };
    let text = reply.to_string();
    write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{text}", text.len())
}

/// Rows as clip-retrieval gives them, in the order of its index.
fn search(memory: &Memory, most: usize, request: &Value) -> Value {
    assert_eq!(
        (&request["modality"], &request["deduplicate"]),
        (&json!("image"), &json!(false)),
        "{request}"
    );
    let query: Vec<f32> = serde_json::from_value(request["embedding_input"].clone()).unwrap();
    let n = request["num_images"].as_u64().unwrap() as usize;
    let hits = memory.primary().search(Modality::Image, &query, n.min(most)).unwrap().remove(0);
    hits.iter()
        .map(|hit| {
            json!({
                "id": hit.id,
                "similarity": hit.similarity,
                "caption": memory.caption(hit.id).unwrap(),
                "image_path": memory.image_path(hit.id).unwrap(),
            })
        })
        .collect()
}

/// A built memory, and a photo to classify.
struct World {
    dir: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        memory_and_photo(dir.path());
        Self { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    fn xmore(&self, args: &[&str]) -> Xmore {
        let mut run = xmore(args).home(&self.path("home"));
        for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"] {
            run = run.env(name, "");
        }
        run
    }

    fn classify(&self, memory: &str, more: &[&str]) -> Run {
        let (photo, model) = (self.text("photo.png"), tiny_model());
        let base = ["classify", &photo, "--labels=dog,cat,thing", "--format=json", &model];
        let memory: &[&str] = if memory.is_empty() { &[] } else { &["--memory", memory] };
        self.xmore(&[&base[..], memory, more].concat()).run()
    }

    #[track_caller]
    fn answer(&self, memory: &str, more: &[&str]) -> Value {
        let run = self.classify(memory, more);
        assert_eq!(run.code, 0, "{}", run.stderr);
        json_of(&run)[0].clone()
    }

    /// The file that keeps captions' embeddings.
    fn kept(&self) -> PathBuf {
        let files: Vec<_> =
            fs::read_dir(self.path("home/captions")).unwrap().map(|e| e.unwrap().path()).collect();
        assert_eq!(files.len(), 1, "{files:?}");
        files[0].clone()
    }
}

/// An address where no server listens.
fn closed_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    format!("knn+http://{}", listener.local_addr().unwrap())
}

/// What a remote index says, and what is known of the labels: its captions cannot be read through.
const OF_THE_INDEX: &[&str] = &["note", "memory"];

#[test]
fn a_remote_index_gives_the_answer_that_the_memory_gives() {
    let world = World::new();
    let service = Service::start(&world.path("m"), Some(usize::MAX));
    for more in [&["-k5", "--neighbors=20"][..], &["-k16", "--neighbors=60", "--method=captions"]] {
        let local = world.answer(&world.text("m"), more);
        let run = world.classify(&service.url(), more);
        assert_eq!(run.code, 0, "{}", run.stderr);
        assert_same_answer(&json_of(&run)[0], &local, OF_THE_INDEX);
        assert!(!run.stderr.contains("instead of"), "{}", run.stderr);
    }
    let info = world.xmore(&["memory", "info", &service.url()]).ok();
    assert!(info.contains("127.0.0.1") && info.contains("not told"), "{info}");
    let args = ["memory", "search", &service.url(), "--image", &world.text("7.png"), "-n1", "--format=json"];
    let found = json_of(&world.xmore(&[&args[..], &[&tiny_model()]].concat()).run());
    assert!(found[0]["image_path"].as_str().unwrap().ends_with("/7.png"), "{found}");
}

#[test]
fn captions_are_encoded_once_and_kept() {
    let world = World::new();
    let service = Service::start(&world.path("m"), Some(usize::MAX));
    let answer = || world.answer(&service.url(), &["-k8", "--neighbors=40"]);
    let first = answer();
    let kept = fs::read(world.kept()).unwrap();
    assert_eq!(answer(), first);
    assert!(fs::read(world.kept()).unwrap() == kept, "a second run encodes nothing");

    // Another embedding under the caption's key is used: kept embeddings are not made again.
    let record = 16 + 2 * DIM + 8;
    let kept_path = world.kept();
    let fingerprint = kept_path.file_stem().unwrap().to_str().unwrap();
    let (header, records) = kept.split_at(16);
    let mut negated = header.to_vec();
    for record in records.chunks_exact(record) {
        let mut content = record[..16 + 2 * DIM].to_vec();
        content[16..].chunks_exact_mut(2).for_each(|value| value[1] ^= 0x80);
        let check = Sha256::new().chain_update(fingerprint).chain_update(&content).finalize();
        negated.extend(content);
        negated.extend(&check[..8]);
    }
    fs::write(world.kept(), negated).unwrap();
    assert_ne!(answer()["captions"], first["captions"]);

    // A damaged one is encoded again, and so is a truncated one.
    let mut damaged = kept.clone();
    damaged[16..].chunks_exact_mut(record).for_each(|record| record[20] ^= 0x80);
    for bytes in [&damaged, &kept[..kept.len() - 7].to_vec()] {
        fs::write(world.kept(), bytes).unwrap();
        assert_eq!(answer(), first);
        assert!(fs::read(world.kept()).unwrap().len() > bytes.len(), "what was lost was encoded again");
        assert_eq!(answer(), first);
    }
    // Without a cache folder it works too.
    fs::remove_dir_all(world.path("home")).unwrap();
    fs::write(world.path("home"), "a file where a folder should be").unwrap();
    assert_eq!(answer(), first);
}

#[test]
fn fewer_pairs_than_asked_for_are_told() {
    let world = World::new();
    let service = Service::start(&world.path("m"), Some(3));
    let run = world.classify(&service.url(), &["-k8", "--neighbors=40"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert!(run.stderr.contains("3 pairs instead of 40"), "{}", run.stderr);
    assert!(json_of(&run)[0]["captions"].as_array().unwrap().len() <= 3);
    let none = Service::start(&world.path("m"), Some(0));
    let run = world.classify(&none.url(), &["-k8", "--neighbors=40"]);
    assert!(
        run.stderr.contains("0 pairs instead of 40") && !run.stderr.contains("panicked"),
        "{}",
        run.stderr
    );
}

#[test]
fn an_unreachable_remote_index_is_an_error_unless_zero_shot_is_allowed() {
    let world = World::new();
    let zero_shot = world.answer("", &[]);
    let hangs_up = Service::start(&world.path("m"), None);
    for url in [closed_address(), hangs_up.url()] {
        let options = ["-k4", "--memory-timeout=2"];
        let run = world.classify(&url, &options);
        assert_eq!((run.code, run.stdout.as_str()), (1, ""), "{}", run.stderr);
        assert!(run.stderr.contains("cannot reach") && run.stderr.contains(&url), "{}", run.stderr);

        let run = world.classify(&url, &[&options[..], &["--if-unreachable=zero-shot"]].concat());
        assert_eq!(run.code, 0, "{}", run.stderr);
        assert!(run.stderr.contains("cannot reach"), "{}", run.stderr);
        assert!(run.stderr.contains("zero-shot, by the image alone"), "{}", run.stderr);
        let answer = &json_of(&run)[0];
        assert_eq!(answer["predictions"], zero_shot["predictions"]);
        assert_eq!(answer["captions"], json!([]));
    }
    // Other errors are not tolerated.
    let run = world.classify("milvus://127.0.0.1", &["--if-unreachable=zero-shot"]);
    assert_eq!(run.code, 2, "{}", run.stderr);
    // A memory here is not reached over a network.
    let run = world.classify(&world.text("nowhere"), &["--if-unreachable=zero-shot"]);
    assert!(run.code == 2 && run.stderr.contains("no effect"), "{}", run.stderr);
}

#[test]
fn what_a_remote_index_cannot_do_is_refused() {
    let world = World::new();
    let service = Service::start(&world.path("m"), Some(usize::MAX));
    for (filter, told) in [("--caption-filter=dog", "filters"), ("--rows=0..5", "filters")] {
        let run = world.classify(&service.url(), &[filter]);
        assert!(run.code == 1 && run.stderr.contains(told), "{filter}: {}", run.stderr);
    }
    let search = ["memory", "search", &service.url(), "--text", "x", "--in=captions", &tiny_model()];
    assert!(world.xmore(&search).fails(2).contains("--in captions"));
    let run = world.classify(&format!("{}?index=other", service.url()), &[]);
    assert!(run.code == 1 && run.stderr.contains("no index \"other\""), "{}", run.stderr);
    for (url, told) in [
        ("http://127.0.0.1:1", "knn+ before it"),
        ("knn+http://", "knn+http://HOST:PORT"),
        ("knn+http://h:1?name=x", "?index=NAME"),
        ("milvus://h:1", "milvus://HOST:PORT/COLLECTION"),
        ("redis://h:1", "a folder"),
    ] {
        let run = world.classify(url, &[]);
        assert!(run.code == 2 && run.stderr.contains(told), "{url}: {} {}", run.code, run.stderr);
        let error = world.xmore(&["memory", "info", url]).fails(2);
        assert!(error.contains(told), "{url}: {error}");
    }
}

#[test]
fn a_remote_index_may_be_searched_by_another_model_than_the_one_that_classifies() {
    let world = World::new();
    let second = second_model(world.dir.path());
    let service = Service::start(&world.path("m"), Some(usize::MAX));
    let tiny = tiny_model();
    let (search, photo) = (tiny.strip_prefix("--model=").unwrap(), world.text("photo.png"));
    let args = ["classify", &photo, "--labels=dog,cat", "--format=json", "-k4", "--neighbors=20"];
    let more = ["--memory", &service.url(), "--search-model", search, "--model", &second];
    let answer = json_of(&world.xmore(&[&args[..], &more].concat()).run())[0].clone();
    let captions = answer["captions"].as_array().unwrap();
    assert_eq!(captions.len(), 4, "{answer}");
    let args = ["memory", "search", &world.text("m"), "--image", &photo, "-n20", "--format=json", &tiny];
    let nearest = json_of(&world.xmore(&args).run());
    for caption in captions {
        let row = nearest.as_array().unwrap().iter().find(|row| row["id"] == caption["id"]);
        let row = row.expect("the search is the first model's");
        assert_same_answer(&caption["image_similarity"], &row["similarity"], &[]);
    }
    // All else is the second model's.
    let by_second = ["classify", &photo, "--labels=dog,cat", "--format=json", "--model", &second];
    let zero_shot = json_of(&world.xmore(&by_second).run())[0].clone();
    assert_eq!(answer["image_distribution"], zero_shot["image_distribution"]);
}
