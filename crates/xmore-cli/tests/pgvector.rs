//! Pairs in a real PostgreSQL table: uploaded, killed on the way, and found as they are in the memory itself.
#![cfg(target_os = "linux")]

mod support;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;
use support::files::second_model;
use support::postgres::{PASSWORD, Postgres};
use support::remote::{assert_same_answer, json_of, memory_and_photo};
use support::{Run, Xmore, tiny_model, xmore};
use xmore_memory::Memory;
use xmore_memory::store::MemoryWriter;

/// Pairs of the memory whose upload is interrupted: some dozens of requests.
const MANY: u64 = 60_000;
/// Of a remote index the captions cannot be read through, so that less is known of the labels.
const SUPPORT: &str = "memory";

struct World {
    dir: tempfile::TempDir,
}

impl World {
    /// A built memory `m`, and a photo.
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        memory_and_photo(dir.path());
        Self { dir }
    }

    fn text(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    fn xmore(&self, args: &[&str]) -> Xmore {
        xmore(args).home(&self.dir.path().join("home"))
    }

    /// With the password in the environment.
    fn with_password(&self, args: &[&str]) -> Xmore {
        self.xmore(args).env("XMORE_MEMORY_TOKEN", PASSWORD)
    }

    fn classify(&self, memory: &str, more: &[&str]) -> Run {
        let (photo, model) = (self.text("photo.png"), tiny_model());
        let base =
            ["classify", &photo, "--labels=dog,cat,thing", "--format=json", &model, "--memory", memory];
        self.with_password(&[&base[..], more].concat()).run()
    }

    #[track_caller]
    fn answer(&self, memory: &str, more: &[&str]) -> Value {
        let run = self.classify(memory, more);
        assert_eq!(run.code, 0, "{}", run.stderr);
        assert!(!run.stderr.contains("instead of") && !run.stderr.contains("upload"), "{}", run.stderr);
        json_of(&run)[0].clone()
    }

    /// A memory of [`MANY`] pairs of the same model.
    fn memory_of_many(&self) -> String {
        let model = Memory::open(self.text("m")).unwrap().manifest().model.clone();
        let path = self.text("many");
        let mut writer = MemoryWriter::create(Path::new(&path), model.clone()).unwrap();
        let mut row = vec![0.0; model.dim];
        for i in 0..MANY as usize {
            row[i % model.dim] = 1.0;
            let caption = format!("caption {i}, {}", "as long as some are, ".repeat(20));
            writer.push(&format!("{i}.jpg"), &caption, &row, &row).unwrap();
            row[i % model.dim] = 0.0;
        }
        writer.finish().unwrap();
        path
    }
}

/// Waits until some rows are there.
fn wait_for_rows(server: &Postgres, table: &str, rows: u64) {
    let start = Instant::now();
    let exists = format!("SELECT to_regclass('{table}') IS NOT NULL");
    let count = format!("SELECT count(*) >= {rows} FROM {table}");
    while server.sql(&exists) != "t" || server.sql(&count) != "t" {
        assert!(start.elapsed() < Duration::from_secs(120), "no {rows} rows in {table}");
    }
}

#[test]
fn a_table_gives_the_answers_that_the_memory_itself_gives() {
    let Some(server) = Postgres::start() else { return };
    let world = World::new();
    let (memory, url) = (world.text("m"), server.url("pairs"));
    let upload = |to: &str| world.with_password(&["memory", "upload", &memory, to]).run();

    let first = upload(&url);
    assert_eq!((first.code, first.stdout.trim()), (0, &*url), "{}", first.stderr);
    assert!(first.stderr.contains("80 pairs, 0 of them uploaded before"), "{}", first.stderr);
    let again = upload(&url);
    assert!(again.stderr.contains("80 pairs, 80 of them uploaded before"), "{}", again.stderr);
    assert_eq!(server.sql("SELECT count(*), min(id), max(id) FROM pairs"), "80|0|79");

    for more in
        [&["-k5", "--neighbors=20"][..], &["-k16", "--neighbors=60", "--method=captions"], &["--rows=10..30"]]
    {
        assert_same_answer(&world.answer(&url, more), &world.answer(&memory, more), &[SUPPORT]);
    }
    // Captions have another dialect of patterns there.
    let run = world.classify(&url, &["--caption-filter=of"]);
    assert!(run.code == 1 && run.stderr.contains("filter"), "{}", run.stderr);
    let info = world.with_password(&["memory", "info", &url]).ok();
    assert!(info.contains("80") && info.contains("127.0.0.1"), "{info}");
    let search =
        ["memory", "search", &url, "--image", &world.text("7.png"), "-n1", "--format=json", &tiny_model()];
    let found = json_of(&world.with_password(&search).run());
    assert!(found[0]["image_path"].as_str().unwrap().ends_with("7.png"), "{found}");

    // A password in the address does as well, and is never shown.
    let secret = server.url_with_password("s.pairs");
    server.sql("CREATE SCHEMA s");
    let run = world.xmore(&["memory", "upload", &memory, &secret]).run();
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert_eq!(server.sql("SELECT count(*) FROM s.pairs"), "80");
    let classify = ["classify", &world.text("photo.png"), "--labels=dog,cat", &tiny_model(), "--memory"];
    let missing = server.url_with_password("missing");
    for (url, code) in [(&secret, 0), (&missing, 1)] {
        for args in [[&classify[..], &[url]].concat(), vec!["memory", "info", url]] {
            let run = world.xmore(&args).run();
            assert_eq!(run.code, code, "{}", run.stderr);
            assert!(!(run.stdout + &run.stderr).contains("s3cr3t"), "{args:?}");
        }
    }
    for (password, told) in [("", "password"), ("wrong-password", "password")] {
        let run = world.xmore(&["memory", "info", &url]).env("XMORE_MEMORY_TOKEN", password).run();
        assert!(run.code == 1 && run.stderr.contains(told), "{}", run.stderr);
        assert!(!run.stderr.contains("wrong-password"), "{}", run.stderr);
    }

    // Another model, another memory, and a table of someone else's are refused, and nothing of them is changed.
    let second = second_model(world.dir.path());
    let (pairs, other) = (world.text("pairs.csv"), world.text("other"));
    world.xmore(&["memory", "build", &pairs, "-o", &other, "--model", &second]).ok();
    let error = world.with_password(&["memory", "upload", &other, &url]).fails(1);
    assert!(error.contains("choose another table"), "{error}");
    let photo = world.text("photo.png");
    let by_other = ["classify", &photo, "--labels=a,b", "--model", &second, "--memory", &url];
    let error = world.with_password(&by_other).fails(1);
    assert!(error.contains("model"), "{error}");
    server.sql("CREATE TABLE cats (name text)");
    for error in [
        world.with_password(&["memory", "upload", &memory, &server.url("cats")]).fails(1),
        world.with_password(&["memory", "info", &server.url("cats")]).fails(1),
    ] {
        assert!(error.contains("not made by xmore"), "{error}");
    }
    server.sql("UPDATE pairs SET caption = 'else' WHERE id = 0");
    let error = world.with_password(&["memory", "upload", &memory, &url]).fails(1);
    assert!(error.contains("another memory"), "{error}");
    let error =
        world.with_password(&["memory", "upload", &memory, &server.url("new"), "--index=auto"]).fails(1);
    assert!(error.contains("vector_ip_ops"), "{error}");
}

#[test]
fn an_upload_resumes_after_it_or_its_server_was_killed() {
    let Some(mut server) = Postgres::start() else { return };
    let world = World::new();
    let (many, url) = (world.memory_of_many(), server.url("many"));
    let upload = || world.with_password(&["memory", "upload", &many, &url]);
    let state = "SELECT count(*), min(id), max(id), count(DISTINCT caption) FROM many";
    let all = format!("{MANY}|0|{}|{MANY}", MANY - 1);

    // The program is killed.
    let mut child = upload().start();
    wait_for_rows(&server, "many", 2_000);
    child.kill().unwrap();
    child.wait().unwrap();
    let run = world.with_password(&["memory", "search", &url, "--text", "x", "-n1", &tiny_model()]).run();
    assert_eq!(run.code, 0, "{}", run.stderr);
    // What is there stays; a run whose server is killed waits for it, and goes on.
    let stderr = world.dir.path().join("stderr");
    let mut child = upload().start_telling(&stderr);
    let there: u64 = server.sql("SELECT count(*) FROM many").parse().unwrap();
    assert!((2_000..MANY).contains(&there), "{there} rows: it was killed too late");
    wait_for_rows(&server, "many", there + 2_000);
    server.kill();
    assert!(child.try_wait().unwrap().is_none(), "it was all there before the server was killed");
    server.start_again();
    let status = child.wait().unwrap();
    let told = fs::read_to_string(&stderr).unwrap();
    assert!(status.success() && told.contains(&format!("{MANY} pairs")), "{told}");
    assert_eq!(server.sql(state), all);

    // With rows missing anywhere it goes on too, and a search tells of it until then.
    server.sql("DELETE FROM many WHERE id % 7000 = 13");
    let run = world.classify(&url, &[]);
    assert!(run.code == 0 && run.stderr.contains("the same upload again"), "{}", run.stderr);
    upload().ok();
    assert_eq!(server.sql(state), all);

    // Without its server.
    server.kill();
    let away = ["--memory-timeout=2"];
    let run = world.classify(&url, &away);
    assert!(run.code == 1 && run.stderr.contains("cannot reach"), "{}", run.stderr);
    let run = world.classify(&url, &[&away[..], &["--if-unreachable=zero-shot"]].concat());
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert!(run.stderr.contains("zero-shot"), "{}", run.stderr);
}
