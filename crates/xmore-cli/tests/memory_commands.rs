//! Commands on a built memory: growing, further models, checking and mending, duplicates, filters.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;
use support::files::{assert_same_files, bytes_of, copy_folder, picture, second_model, source};
use support::{Xmore, tiny_model, xmore_in};

/// Pictures, tables, a second model, and folders for memories.
struct World {
    dir: tempfile::TempDir,
    tiny: String,
    /// `local-dir:…` of a model with longer embeddings.
    second: String,
}

const FIRST: &str =
    "image_path,caption\n0.png,a red thing\n0.png,a wide thing\n1.png,a green dog\n2.png,a blue dog\n";
const MORE: &str =
    "image_path,caption\n3.png,one more\n3.png,a green dog\nbroken.png,never seen\n4.png,the last\n";

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for i in 0..5 {
            picture(&dir.path().join(format!("{i}.png")), i);
        }
        fs::write(dir.path().join("broken.png"), "no picture").unwrap();
        fs::write(dir.path().join("first.csv"), FIRST).unwrap();
        fs::write(dir.path().join("more.csv"), MORE).unwrap();
        let second = second_model(dir.path());
        Self { dir, tiny: tiny_model(), second }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// `xmore` with arguments; `@name` is a path in this world.
    fn run(&self, args: &[&str]) -> Xmore {
        // One of three pictures of the second table is broken.
        xmore_in(self.dir.path(), args).env("XMORE_MAX_SKIPPED", "50%")
    }

    /// A memory of the first table.
    fn built() -> Self {
        let world = Self::new();
        world.run(&["memory", "build", "@first.csv", "-o", "@m", &world.tiny]).ok();
        world
    }

    /// With embeddings of the second model.
    fn embedded() -> Self {
        let world = Self::built();
        world.run(&["memory", "embed", "@m", "--model", &world.second]).ok();
        world
    }

    fn info(&self) -> Value {
        json(&self.run(&["memory", "info", "@m", "--format=json"]).ok())
    }

    fn search(&self, args: &[&str]) -> Value {
        json(&self.run(&[&["memory", "search", "@m", "--format=json"], args].concat()).ok())
    }
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

/// The values of a field of all rows.
fn field<'a>(rows: &'a Value, name: &str) -> Vec<&'a Value> {
    rows.as_array().unwrap().iter().map(|row| &row[name]).collect()
}

#[test]
fn a_second_builder_is_refused_while_the_first_runs() {
    let world = World::new();
    fs::create_dir(world.path("many")).unwrap();
    source(&world.path("many"), 600, 9);
    let build = || {
        let args = ["memory", "build", "@many/pairs.csv", "-o", "@m", &world.tiny];
        world.run(&args).env("XMORE_CHECKPOINT_SECONDS", "0")
    };
    let mut first = build().start();
    let start = Instant::now();
    while !world.path("m/.xmore-building/checkpoint.json").exists() {
        assert!(start.elapsed() < Duration::from_secs(60), "the first builder never began");
        std::thread::sleep(Duration::from_millis(2));
    }
    let second = build().run();
    let still_running = first.try_wait().unwrap().is_none();
    assert!(first.wait().unwrap().success());
    assert!(still_running, "the source is too small to try this");
    assert_eq!(second.code, 1, "{}", second.stderr);
    assert!(second.stderr.contains("another process is building a memory in"), "{}", second.stderr);
    assert!(second.stdout.is_empty(), "{}", second.stdout);
    assert!(build().run().stderr.contains("nothing to do"));
    world.run(&["memory", "verify", "@m"]).ok();
}

#[test]
fn a_memory_grows_and_its_ids_go_on() {
    let world = World::built();
    let before = bytes_of(&world.path("m"));
    let run = world.run(&["memory", "append", "@m", "@more.csv"]).run();
    assert_eq!((run.code, run.stdout.trim()), (0, &*world.path("m").display().to_string()), "{}", run.stderr);
    assert!(run.stderr.contains("skipped") && run.stderr.contains("broken.png"), "{}", run.stderr);
    assert!(run.stderr.contains("added 3: 7 pairs of 5 images"), "{}", run.stderr);
    let after = bytes_of(&world.path("m"));
    for (name, bytes) in &before {
        let is_manifest =
            ["xmore_memory.json", ".xmore-memory.json"].map(Path::new).contains(&name.as_path());
        assert!(is_manifest || after[name] == *bytes, "{}", name.display());
    }
    let rows = world.search(&["--rows=4..", "-n3", "--text", "x", "--in=captions"]);
    let mut ids: Vec<u64> = field(&rows, "id").iter().map(|id| id.as_u64().unwrap()).collect();
    ids.sort_unstable();
    assert_eq!(ids, [4, 5, 6]);
    let info = world.info();
    assert_eq!((&info["pairs"], &info["images"], &info["skipped"]), (&7.into(), &5.into(), &1.into()));
    assert_eq!(info["sources"].as_array().unwrap().len(), 2);

    let again = world.run(&["memory", "append", "@m", "@more.csv"]).run();
    assert!(again.code == 0 && again.stderr.contains("nothing to do"), "{}", again.stderr);
    assert_eq!(bytes_of(&world.path("m")), after);
    let of_another = ["memory", "append", "@m", "@first.csv", "--model", &world.second];
    let error = world.run(&of_another).fails(1);
    assert!(error.contains("was built with model") && error.contains("memory embed"), "{error}");
    let error = world.run(&["memory", "append", "@nowhere", "@first.csv"]).fails(1);
    assert!(error.contains("nowhere"), "{error}");
    assert!(!world.path("nowhere").exists());
}

#[test]
fn one_model_searches_another_ranks_and_a_third_classifies() {
    let world = World::built();
    let base = ["classify", "@3.png", "--labels=dog,thing", "--memory=@", "-k4", "--format=json"];
    let memory = format!("--memory={}", world.path("m").display());
    let classify = |more: &[&str]| {
        let mut args = base.to_vec();
        args[3] = &memory;
        args.extend(more);
        world.run(&args)
    };
    let error = classify(&["--search-model", &world.second]).fails(1);
    assert!(error.contains("memory embed") && error.contains(&world.second), "{error}");
    let error = classify(&["--rerank-model", &world.second]).fails(1);
    assert!(error.contains("memory embed"), "{error}");
    let error = classify(&["--model", &world.second]).fails(1);
    assert!(error.contains("memory embed"), "{error}");
    let plain = json(&classify(&[]).ok());

    let run = world.run(&["memory", "embed", "@m", "--model", &world.second]).run();
    assert_eq!((run.code, run.stdout.trim()), (0, &*world.path("m").display().to_string()), "{}", run.stderr);
    assert!(run.stderr.contains("embeddings of 4 pairs by"), "{}", run.stderr);
    let again = world.run(&["memory", "embed", "@m", "--model", &world.second]).run();
    assert!(again.code == 0 && again.stderr.contains("nothing to do"), "{}", again.stderr);

    assert_eq!(
        json(&classify(&[]).ok()),
        plain,
        "another embedding set changes nothing without being asked for"
    );
    let searched = json(&classify(&["--search-model", &world.second]).ok());
    let reranked = json(&classify(&["--rerank-model", &world.second]).ok());
    let other = json(&classify(&["--model", &world.second]).ok());
    let similarity = |answer: &Value, name: &str| answer[0]["captions"][0][name].clone();
    assert_ne!(similarity(&searched, "image_similarity"), similarity(&plain, "image_similarity"));
    assert_ne!(similarity(&reranked, "similarity"), similarity(&plain, "similarity"));
    assert_ne!(other[0]["predictions"], plain[0]["predictions"]);
    assert_eq!(
        searched[0]["image_distribution"], plain[0]["image_distribution"],
        "the label side is --model's"
    );
    // Searching by the second model finds what `search` with that model finds.
    let nearest = world.search(&["--image", "@3.png", "-n1", "--model", &world.second]);
    let ids = field(&searched[0]["captions"], "image_similarity");
    assert!(ids.contains(&&nearest[0]["similarity"]), "{searched} {nearest}");

    let own = world.run(&["memory", "embed", "@m", &world.tiny]).fails(1);
    assert!(own.contains("already"), "{own}");
}

#[test]
fn an_incomplete_embedding_set_is_reported_and_embedding_again_completes_it() {
    let world = World::embedded();
    let info = world.run(&["memory", "info", "@m"]).ok();
    assert!(info.contains("24 values each") && !info.contains("memory embed"), "{info}");
    world.run(&["memory", "append", "@m", "@more.csv"]).ok();
    let info = world.run(&["memory", "info", "@m"]).ok();
    assert!(info.contains("only 4 of 7 pairs: run `xmore memory embed` again"), "{info}");
    let search = ["memory", "search", "@m", "--text", "x", "--model", &world.second];
    let error = world.run(&search).fails(1);
    assert!(error.contains("for 3 of its 7 rows") && error.contains("memory embed"), "{error}");
    world.run(&["memory", "search", "@m", "--text", "x", &world.tiny]).ok();

    fs::remove_file(world.path("3.png")).unwrap();
    let run = world.run(&["memory", "embed", "@m", "--model", &world.second]).run();
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert!(
        run.stderr.contains("not searched by this model") && run.stderr.contains("3.png"),
        "{}",
        run.stderr
    );
    assert!(run.stderr.contains("embeddings of 3 pairs by"), "{}", run.stderr);
    let info = world.run(&["memory", "info", "@m"]).ok();
    assert!(info.contains("2 pairs without their image") && !info.contains("memory embed"), "{info}");
    let rows = json(&world.run(&[&search[..], &["--format=json", "-n7"]].concat()).ok());
    let mut ids: Vec<u64> = field(&rows, "id").iter().map(|id| id.as_u64().unwrap()).collect();
    ids.sort_unstable();
    assert_eq!(ids, [0, 1, 2, 3, 6], "pairs 4 and 5 have no image by this model");
    world.run(&["memory", "verify", "@m"]).ok();
}

#[test]
fn a_damaged_part_of_an_embedding_set_is_taken_out_alone_and_embedding_makes_it_again() {
    let world = World::built();
    fs::write(world.path("last.csv"), "image_path,caption\n4.png,the very last\n").unwrap();
    for table in ["@more.csv", "@last.csv"] {
        world.run(&["memory", "append", "@m", table]).ok();
    }
    let embed = ["memory", "embed", "@m", "--model", &world.second];
    world.run(&embed).ok();
    let good = bytes_of(&world.path("m/columns"));
    let column = fs::read_dir(world.path("m/columns")).unwrap().next().unwrap().unwrap().path();
    let damaged = column.join("text_emb/text_emb_0001.npy");
    let mut bytes = fs::read(&damaged).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&damaged, &bytes).unwrap();
    world.run(&["memory", "verify", "@m"]).fails(1);

    let notes = world.run(&["memory", "repair", "@m"]).ok();
    assert!(notes.contains("set part 1 of embedding set") && notes.contains("text_emb_0001.npy"), "{notes}");
    assert_eq!(notes.lines().count(), 1, "{notes}");
    let left = bytes_of(&world.path("m/columns"));
    let is_of_the_part = |name: &Path| name.to_string_lossy().contains("_0001.");
    assert!(good.iter().all(|(name, bytes)| is_of_the_part(name) || left[name] == *bytes));
    assert!(left.keys().all(|name| !is_of_the_part(name)), "{:?}", left.keys());
    let aside = world.path("m/.xmore-set-aside/0").join(damaged.strip_prefix(world.path("m")).unwrap());
    assert_eq!(fs::read(aside).unwrap(), bytes);
    let run = world.run(&["memory", "verify", "@m"]).run();
    assert!(run.code == 0 && run.stderr.contains("set aside by a repair: 3 embeddings"), "{}", run.stderr);
    let info = world.run(&["memory", "info", "@m"]).ok();
    assert!(info.contains("only 5 of 8 pairs: run `xmore memory embed` again"), "{info}");

    // What is left of the column is not used alone; the memory's own model is not concerned.
    let search = ["memory", "search", "@m", "--text", "x", "--format=json", "--model", &world.second];
    let error = world.run(&search).fails(1);
    let command = format!("xmore memory embed {} --model", world.path("m").display());
    assert!(error.contains("for 3 of its 8 rows") && error.contains(&command), "{error}");
    let memory = world.path("m").display().to_string();
    let classify = ["classify", "@4.png", "--labels=dog,thing", "--memory", &memory, "-k2"];
    world.run(&classify).ok();
    for role in ["--search-model", "--rerank-model", "--model"] {
        let error = world.run(&[&classify[..], &[role, &world.second]].concat()).fails(1);
        assert!(error.contains("for 3 of its 8 rows"), "{role}: {error}");
    }

    let run = world.run(&embed).run();
    assert!(run.code == 0 && run.stderr.contains("embeddings of 3 pairs by"), "{}", run.stderr);
    assert_eq!(bytes_of(&world.path("m/columns")), good);
    assert_eq!(json(&world.run(&search).ok()).as_array().unwrap().len(), 8);
    assert!(!world.run(&["memory", "info", "@m"]).ok().contains("memory embed"));
    world.run(&["memory", "verify", "@m"]).ok();
    assert!(world.run(&embed).run().stderr.contains("nothing to do"));
}

#[test]
fn captions_alone_can_be_embedded_by_another_model() {
    let world = World::built();
    for i in 0..3 {
        fs::remove_file(world.path(&format!("{i}.png"))).unwrap();
    }
    world.run(&["memory", "embed", "@m", "--only=captions", "--model", &world.second]).ok();
    assert!(world.run(&["memory", "info", "@m"]).ok().contains("captions only"));
    let memory = world.path("m").display().to_string();
    let classify = ["classify", "@4.png", "--labels=dog,thing", "--memory", &memory, "-k2"];
    world.run(&[&classify[..], &["--rerank-model", &world.second]].concat()).ok();
    let error = world.run(&[&classify[..], &["--search-model", &world.second]].concat()).fails(1);
    assert!(error.contains("no image embeddings by model"), "{error}");
}

#[test]
fn a_flipped_byte_is_found_and_repaired() {
    let world = World::embedded();
    let good = bytes_of(&world.path("m"));
    let verify = || world.run(&["memory", "verify", "@m"]);
    let run = verify().run();
    assert!(
        run.code == 0 && run.stdout.is_empty() && run.stderr.contains("as they should be"),
        "{}",
        run.stderr
    );
    assert!(world.run(&["memory", "repair", "@m"]).run().stderr.contains("nothing to mend"));
    assert_eq!(bytes_of(&world.path("m")), good);

    for (name, bytes) in good.iter().filter(|(name, _)| !name.ends_with("xmore_memory.json")) {
        let path = world.path("m").join(name);
        let mut flipped = bytes.clone();
        let middle = flipped.len() / 2;
        flipped[middle] ^= 4;
        fs::write(&path, &flipped).unwrap();
        let run = verify().run();
        assert_eq!(run.code, 1, "{}: {}", name.display(), run.stderr);
        assert!(run.stdout.contains(&*path.display().to_string()), "{}", run.stdout);
        assert!(run.stderr.contains("xmore memory repair"), "{}", run.stderr);
        let report = json(&world.run(&["memory", "verify", "@m", "--format=json"]).run().stdout);
        let blamed = field(&report["findings"], "path");
        assert_eq!(blamed, [&path.display().to_string()], "no other file is to blame");
        fs::write(&path, bytes).unwrap();
    }
    verify().ok();

    for derived in ["lookup/lookup_0000.bin", "img_codes/img_codes_0000.bin"] {
        let path = world.path("m").join(derived);
        fs::write(&path, "torn").unwrap();
        assert!(
            world.run(&["memory", "repair", "@m"]).ok().contains(derived.split('/').next_back().unwrap())
        );
        verify().ok();
        assert_eq!(fs::read(&path).unwrap(), good[Path::new(derived)]);
    }
}

#[test]
fn a_truncated_end_is_cut_and_the_rest_is_still_searched() {
    let world = World::embedded();
    world.run(&["memory", "append", "@m", "@more.csv"]).ok();
    let path = world.path("m/img_emb/img_emb_0001.npy");
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() - 5]).unwrap();
    let error = world.run(&["memory", "search", "@m", "--text", "x"]).fails(1);
    assert!(error.contains("img_emb_0001.npy") && error.contains("memory verify"), "{error}");
    world.run(&["memory", "verify", "@m"]).fails(1);
    let run = world.run(&["memory", "repair", "@m"]).run();
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert!(run.stderr.contains("1 pairs are no longer in the memory"), "{}", run.stderr);
    assert_eq!(world.info()["pairs"], 6);
    world.run(&["memory", "verify", "@m"]).ok();
    assert_eq!(world.search(&["--text", "one more", "--in=captions", "-n1"])[0]["id"], 4);
    // What was taken out is set aside, not thrown away.
    let aside = run.stderr.lines().find_map(|line| line.strip_prefix("what was taken out is in "));
    let kept = bytes_of(Path::new(aside.expect("where it is")));
    assert!(kept.values().any(|kept| *kept == bytes[..bytes.len() - 5]), "{:?}", kept.keys());
}

#[test]
fn duplicates_are_reported() {
    let world = World::new();
    fs::copy(world.path("0.png"), world.path("copy.png")).unwrap();
    let rows = "image_path,caption\n0.png,same\ncopy.png,same\n1.png,other\n2.png,another\n";
    fs::write(world.path("copies.csv"), rows).unwrap();
    world.run(&["memory", "build", "@copies.csv", "-o", "@m", &world.tiny]).ok();
    let text = world.run(&["memory", "duplicates", "@m", "--above=0.995"]).ok();
    assert!(text.contains("4 pairs: 3 distinct captions, 4 distinct images"), "{text}");
    assert!(text.contains("0.png") && text.contains("copy.png"), "{text}");
    let report = json(&world.run(&["memory", "duplicates", "@m", "--above=0.995", "--format=json"]).ok());
    assert_eq!(report["groups"], json("[[0, 1]]"));
    world.run(&["memory", "duplicates", "@m", "--in=captions"]).ok();
    assert!(world.run(&["memory", "duplicates", "@m", "--above=2"]).fails(2).contains("between -1 and 1"));

    let memory = world.path("m").display().to_string();
    let classify = |more: &[&str]| {
        let base = ["classify", "@0.png", "--labels=dog,thing", "--memory", &memory, "-k4", "--format=json"];
        json(&world.run(&[&base[..], more].concat()).ok())[0]["captions"].clone()
    };
    assert_eq!(classify(&[]).as_array().unwrap().len(), 3);
    let without = classify(&["--drop-query-duplicates=0.995"]);
    assert!(!field(&without, "caption").contains(&&"same".into()), "{without}");
    // Above the least cosine everything is a duplicate of the first.
    assert_eq!(classify(&["--deduplicate=-1"]).as_array().unwrap().len(), 1);
}

#[test]
fn filters_narrow_a_search_and_say_when_nothing_is_left() {
    let world = World::built();
    let by = |args: &[&str]| world.search(&[&["--image", "@0.png"], args].concat());
    let rows = by(&["--caption-filter", r"\bdog\b", "-n2"]);
    let mut found = field(&rows, "caption");
    found.sort_unstable_by_key(|caption| caption.to_string());
    assert_eq!(found, ["a blue dog", "a green dog"]);
    assert_eq!(field(&by(&["--rows=1..2", "-n1"]), "id"), [1]);
    assert_eq!(field(&by(&["--rows=..3", "--caption-filter=dog", "-n1"]), "id"), [2]);

    let run = world.run(&["memory", "search", "@m", "--text", "x", "--rows=2..", "-n9"]).run();
    assert!(run.code == 0 && run.stderr.contains("2 pairs, fewer than the 9 asked for"), "{}", run.stderr);
    let error = world.run(&["memory", "search", "@m", "--text", "x", "--caption-filter=zebra"]).fails(1);
    assert!(error.contains("no caption of the memory matches zebra"), "{error}");
    let run = world.run(&["memory", "search", "@m", "--text", "x", "--rows=70..80", "--format=json"]).run();
    assert_eq!((run.code, json(&run.stdout)), (0, json("[]")), "{}", run.stderr);
    assert!(run.stderr.contains("0 pairs, fewer than"), "{}", run.stderr);
    for bad in ["--rows=5..2", "--rows=x", "--caption-filter=("] {
        world.run(&["memory", "search", "@m", "--text", "x", bad]).fails(2);
    }
    let memory = world.path("m").display().to_string();
    let args = ["classify", "@0.png", "--labels=a,b", "--memory", &memory, "-k2", "--format=json"];
    let answer = json(&world.run(&[&args[..], &["--caption-filter=dog"]].concat()).ok());
    assert!(field(&answer[0]["captions"], "caption").iter().all(|c| c.as_str().unwrap().contains("dog")));
}

#[test]
fn replacing_a_memory_asks_for_overwrite_and_takes_all_of_it() {
    let world = World::embedded();
    world.run(&["memory", "append", "@m", "@more.csv"]).ok();
    let error = world.run(&["memory", "build", "@more.csv", "-o", "@m", &world.tiny]).fails(1);
    assert!(error.contains("--overwrite") && error.contains("memory append"), "{error}");
    world.run(&["memory", "build", "@more.csv", "-o", "@m", "--overwrite", &world.tiny]).ok();
    world.run(&["memory", "build", "@more.csv", "-o", "@fresh", &world.tiny]).ok();
    assert_same_files(&world.path("m"), &world.path("fresh"));
    copy_folder(&world.path("fresh"), &world.path("moved"));
    assert_eq!(world.run(&["memory", "verify", "@moved"]).run().code, 0, "a memory may be moved");
}

#[test]
fn help_and_mistakes_of_every_command_follow_one_convention() {
    let world = World::built();
    let help = world.run(&["memory", "--help"]).ok();
    let commands = ["build", "append", "embed", "info", "search", "verify", "repair", "duplicates", "upload"];
    for command in commands {
        assert!(
            help.lines().any(|line| line.trim_start().starts_with(&format!("{command} "))),
            "{command}: {help}"
        );
        let run = world.run(&["memory", command, "--help"]).run();
        assert!(run.code == 0 && run.stderr.is_empty(), "{command}: {}", run.stderr);
        assert!(
            run.stdout.contains("Usage: xmore memory ") && run.stdout.contains("--help"),
            "{}",
            run.stdout
        );
        assert!(run.stdout.lines().all(|line| line.chars().count() <= 100), "{command}: {}", run.stdout);
        // Without what it needs, it says what that is.
        let error = world.run(&["memory", command]).fails(2);
        assert!(error.contains("required") && error.contains("Usage:"), "{command}: {error}");
        let run = world.run(&["memory", command, "--no-such-flag"]).run();
        assert!(run.code == 2 && run.stdout.is_empty(), "{command}: {}", run.stderr);
    }
    for args in [
        &["memory", "info", "@nowhere"][..],
        &["memory", "verify", "@nowhere"],
        &["memory", "repair", "@nowhere"],
        &["memory", "duplicates", "@nowhere"],
        &["memory", "search", "@nowhere", "--text", "x"],
        &["memory", "embed", "@nowhere", &world.tiny],
        &["memory", "append", "@nowhere", "@first.csv"],
        &["memory", "build", "@nowhere", "-o", "@new", &world.tiny],
    ] {
        let run = world.run(args).run();
        assert!(run.code == 1 && run.stdout.is_empty(), "{args:?}: {} {}", run.code, run.stderr);
        assert!(
            run.stderr.contains("nowhere") && !run.stderr.contains("panicked"),
            "{args:?}: {}",
            run.stderr
        );
        assert!(!world.path("nowhere").exists(), "{args:?} made it");
    }
    let error = world.run(&["memory", "upload", "@m", "knn+http://h:1"]).fails(2);
    assert!(error.contains("milvus://HOST:PORT/COLLECTION"), "{error}");
}
