//! Flags that would have no effect are errors of wrong flags, told before any work.

mod support;

use std::fs;

use serde_json::json;
use support::files::picture;
use support::{tiny_model, xmore_in};

struct World(tempfile::TempDir);

impl World {
    fn new() -> Self {
        let world = Self(tempfile::tempdir().unwrap());
        for (i, file) in ["set/cat/0.png", "set/dog/1.png", "one.png"].into_iter().enumerate() {
            let path = world.0.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            picture(&path, i as u64);
        }
        world.write("pairs.csv", "image_path,caption\none.png,a cat\nset/dog/1.png,a dog\n");
        world.write("labels.txt", "cat\ndog\n");
        world.write("prompts.txt", "a {}\n");
        let items = json!([["cat/0.png", 0, "cat"], ["dog/1.png", 1, "dog"]]);
        world.write("coop/split_zhou_Some.json", &json!({ "test": items, "val": items }).to_string());
        world
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.0.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn run(&self, args: &str) -> support::Run {
        let model = tiny_model();
        let args: Vec<&str> = args.split(' ').chain([model.as_str()]).collect();
        xmore_in(self.0.path(), &args).run()
    }

    fn memory(&self) {
        let run = self.run("memory build @pairs.csv -o @memory");
        assert_eq!(run.code, 0, "{}", run.stderr);
    }

    /// Exit status 2, and the flag is named.
    #[track_caller]
    fn refuses(&self, args: &str, flag: &str) {
        let run = self.run(args);
        assert_eq!(run.code, 2, "{args}: {}", run.stderr);
        assert!(run.stderr.contains(flag) && run.stderr.contains("no effect"), "{args}: {}", run.stderr);
        assert_eq!(run.stdout, "", "{args}");
    }
}

#[test]
fn flags_without_effect_on_what_is_classified() {
    let world = World::new();
    world.memory();
    let classify = "classify @one.png --labels cat,dog";
    for (flag, value) in [
        ("--neighbors", "64"),
        ("-k", "3"),
        ("--rows", "0..2"),
        ("--caption-filter", "cat"),
        ("--memory-timeout", "3"),
        ("--if-unreachable", "zero-shot"),
        ("--search-model", "lite"),
        ("--rerank-model", "lite"),
    ] {
        world.refuses(&format!("{classify} {flag} {value}"), flag);
        world.refuses(&format!("serve --addr 127.0.0.1:0 {flag} {value}"), flag);
    }
    world.refuses("serve --addr 127.0.0.1:0 --decode gpu", "--decode");
    world.refuses(&format!("{classify} --scores sigmoid --calibration fitted.json"), "--calibration");
    world.refuses(&format!("{classify} --exclude *.png"), "--exclude");
    world.refuses(&format!("{classify} --include-hidden"), "--include-hidden");
    let memory = format!("{classify} --memory @memory");
    world.refuses(&format!("{memory} --method zero-shot --neighbors 64"), "--neighbors");
    world.refuses(&format!("{memory} --method xmore-kernel --deduplicate"), "--deduplicate");
    world.refuses(&format!("{memory} --memory-token x"), "--memory-token");
    world.refuses(&format!("{classify} --method templates --template {{}}"), "--template");
    // With --explain they choose the captions that are shown.
    let explained = world.run(&format!("{memory} --method zero-shot --explain --neighbors 64"));
    assert_eq!(explained.code, 0, "{}", explained.stderr);
    assert_eq!(world.run(&format!("{memory} --method xmore -k 1 --neighbors 64")).code, 0);
    assert_eq!(world.run("classify @set --labels cat,dog --exclude 1.png").code, 0);
    // What the environment sets is for all commands.
    let model = tiny_model();
    let run = xmore_in(world.0.path(), &["classify", "@one.png", "--labels", "cat,dog", &model]);
    assert_eq!(run.env("XMORE_NEIGHBORS", "64").run().code, 0);
}

#[test]
fn a_gpu_decodes_only_where_a_gpu_encodes() {
    let run = World::new().run("classify @one.png --labels cat,dog --device cpu --decode gpu");
    assert_ne!(run.code, 0);
    assert!(
        run.stderr.contains("computes on the processor") && run.stderr.contains("--decode cpu"),
        "{}",
        run.stderr
    );
    assert_eq!(run.stdout, "");
}

#[test]
fn flags_without_effect_on_memories_and_embeddings() {
    let world = World::new();
    world.memory();
    world.refuses("memory search @memory --text cat --memory-token x", "--memory-token");
    world.refuses("memory search @memory --text cat --resize-mode squash", "--resize-mode");
    world.refuses("memory search @memory --text cat --decode cpu", "--decode");
    world.refuses("memory embed @memory --only captions --max-skipped 3", "--max-skipped");
    world.refuses("memory build @pairs.csv -o @other --exclude x", "--exclude");
    world.refuses("memory build @set -o @other --image-root @set", "--image-root");
    world.refuses("embed --texts @labels.txt -o @t.npy --orientation stored", "--orientation");
    world.refuses("embed --texts @labels.txt -o @t.npy --max-skipped 3", "--max-skipped");
    world.refuses("embed --texts @labels.txt -o @t.npy --decode cpu", "--decode");
    world.refuses("embed @one.png -o @t.npy --exclude x", "--exclude");
    let run = xmore_in(world.0.path(), &["memory", "info", "@memory", "--memory-timeout", "3"]).run();
    assert!(run.code == 2 && run.stderr.contains("--memory-timeout"), "{}", run.stderr);
    let run = xmore_in(world.0.path(), &["model", "verify", "all", "--pretrained", "openai"]).run();
    assert!(run.code == 2 && run.stderr.contains("--pretrained"), "{}", run.stderr);
    assert!(!world.0.path().join("other").exists() && !world.0.path().join("t.npy").exists());
}

#[test]
fn flags_without_effect_on_datasets() {
    let world = World::new();
    world.memory();
    for (args, flag) in [
        ("@set --split val", "--split"),
        ("@set --image-root @set", "--image-root"),
        ("@set --label-column 2", "--label-column"),
        ("@coop --exclude x --image-root @set", "--exclude"),
        ("@coop --image-column 2 --image-root @set", "--image-column"),
        ("@set --data-root @set", "--data-root"),
        ("@set --methods zero-shot --prompts @prompts.txt", "--prompts"),
        ("@set --methods zero-shot --coop @prompts.txt", "--coop"),
        ("@set --seeds 3", "--seeds"),
        ("@set --variants unsorted", "--variants"),
        ("@set --memory @memory --methods zero-shot --variants unsorted", "--variants"),
        ("@set --methods dataset-prompts --prompts @prompts.txt --template {}", "--template"),
        ("@set --neighbors 64", "--neighbors"),
        ("@set --cache-dir @cache --no-cache", "--cache-dir"),
        ("--suite paper-table1 --data-root @set --image-root @set", "--image-root"),
        ("--suite paper-table1 --data-root @set --dataset-format coop", "--dataset-format"),
        ("--suite paper-table1 --data-root @set --label-column 2", "--label-column"),
    ] {
        world.refuses(&format!("eval {args}"), flag);
    }
    let run = world.run("eval @set --methods zero-shot --batch_size 8");
    assert!(run.code == 0 && run.stderr.contains("no effect"), "{}", run.stderr);
}

/// What is chosen for datasets by name is what is measured and recorded.
#[test]
fn choices_hold_for_datasets_by_name() {
    let world = World::new();
    let dir = "root/oxford_pets/images";
    for (i, name) in ["a1", "a2", "b1", "b2"].into_iter().enumerate() {
        fs::create_dir_all(world.0.path().join(dir)).unwrap();
        picture(&world.0.path().join(dir).join(format!("{name}.png")), i as u64);
    }
    let split = json!({
        "train": [["a2.png", 0, "abyssinian"]],
        "val": [["b2.png", 1, "boxer"]],
        "test": [["a1.png", 0, "abyssinian"], ["b1.png", 1, "boxer"]],
    });
    world.write("root/oxford_pets/split_zhou_OxfordPets.json", &split.to_string());
    let measured = |args: &str| -> serde_json::Value {
        let run = world.run(&format!("eval --data-root @root --methods zero-shot --format json {args}"));
        assert_eq!(run.code, 0, "{args}: {}", run.stderr);
        serde_json::from_str::<serde_json::Value>(&run.stdout).unwrap()[0].take()
    };
    let entry = measured("--dataset OxfordPets");
    assert_eq!((&entry["images"], &entry["settings"]["split"]), (&2.into(), &json!(null)));
    let entry = measured("--dataset OxfordPets --split val");
    assert_eq!((&entry["images"], &entry["settings"]["split"]), (&1.into(), &"val".into()));
    assert_eq!(measured("--suite paper-table1 --split train")["images"], 1);
    assert_eq!(measured("oxford_pets --dataset-format coop")["settings"]["dataset_format"], "coop");
    world.write("names.json", r#"{"boxer": ["a boxer dog."], "abyssinian": ["a cat."]}"#);
    let entry = measured("--dataset vtab/pets --class-names @names.json");
    assert!(entry["settings"]["class_names"].as_str().unwrap().ends_with("names.json"));
    // Elsewhere the same names are other images, or none.
    let run = world.run("eval --data-root @root --dataset pets --image-root @set --methods zero-shot");
    assert_eq!(run.code, 3, "{}", run.stderr);
    let run = world.run("eval --data-root @root --dataset pets --split nosuch");
    assert!(run.code == 1 && run.stderr.contains("nosuch"), "{}", run.stderr);
    world.refuses("eval --data-root @root --dataset pets --dataset-format folder", "--dataset-format");
    world.refuses("eval --data-root @root --dataset pets --label-column 2", "--label-column");
}
