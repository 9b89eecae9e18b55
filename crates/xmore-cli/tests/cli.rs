//! The commands as a user runs them, on a tiny model with random weights: output, errors, exit codes.

mod support;

use std::fs;
use std::path::Path;

use serde_json::Value;
use support::{fixture, tiny_model, xmore};

/// A memory of the fixture pictures, several captions for some, built by the command from a table.
struct World {
    dir: tempfile::TempDir,
}

const ROWS: &str = "image_path,caption\n\
    wide.png,a wide thing\nwide.png,a photo of the dog\ngrey.png,grey\n\
    grey.png,a wide thing\nlarge.png,\"large, and loud\"\nbroken.png,never seen\ntall.png,the tall one\n";

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in ["wide.png", "grey.png", "large.png", "tall.png"] {
            fs::copy(fixture("images").join(name), dir.path().join(name)).unwrap();
        }
        fs::write(dir.path().join("broken.png"), b"not a picture").unwrap();
        fs::write(dir.path().join("pairs.csv"), ROWS).unwrap();
        Self { dir }
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    /// Builds the memory; returns its path and what the command said.
    fn memory(&self) -> (String, String) {
        let memory = self.path("memory");
        // One of five pictures is broken.
        let pairs = self.path("pairs.csv");
        let build = ["memory", "build", &pairs, "-o", &memory, "--max-skipped=20%", &tiny_model()];
        let run = xmore(&build).run();
        assert_eq!(run.code, 0, "{}", run.stderr);
        assert_eq!(run.stdout.trim(), memory);
        (memory, run.stderr)
    }
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

#[test]
fn a_memory_is_built_shown_and_searched() {
    let world = World::new();
    let (memory, said) = world.memory();
    assert!(said.contains("skipped") && said.contains("broken.png"), "{said}");
    assert!(said.contains("6 pairs of 4 images") && said.contains("images/s"), "{said}");

    let info = json(&xmore(&["memory", "info", &memory, "--format=json"]).ok());
    assert_eq!((&info["pairs"], &info["images"], &info["skipped"]), (&6.into(), &4.into(), &1.into()));
    assert!(xmore(&["memory", "info", &memory]).ok().contains("pairs        6"));

    let search = |args: &[&str]| {
        let mut all = vec!["memory", "search", &memory, "--format=json"];
        all.extend(args);
        let model = tiny_model();
        all.push(&model);
        json(&xmore(&all).ok())
    };
    let hits = search(&["--image", &world.path("grey.png"), "-n", "3"]);
    assert_eq!(hits.as_array().unwrap().len(), 3);
    assert!(hits[0]["image_path"].as_str().unwrap().ends_with("grey.png"), "{hits}");
    assert!(hits[0]["similarity"].as_f64().unwrap() > 0.999);
    let hits = search(&["--text", "large, and loud", "--in", "captions", "-n", "1"]);
    assert_eq!(hits[0]["caption"], "large, and loud");

    let again = ["memory", "build", &world.path("pairs.csv"), "-o", &memory, &tiny_model()];
    assert!(xmore(&again).run().stderr.contains("nothing to do"));
    fs::write(world.path("other.csv"), "image_path,caption\nwide.png,another\n").unwrap();
    let other = ["memory", "build", &world.path("other.csv"), "-o", &memory, &tiny_model()];
    assert!(xmore(&other).fails(1).contains("--overwrite"));
    xmore(&[&again[..], &["--overwrite", "--max-skipped=1"]].concat()).ok();
}

#[test]
fn a_folder_with_sidecar_texts_is_a_source_too() {
    let world = World::new();
    fs::write(world.dir.path().join("wide.txt"), "first line\nsecond line\n").unwrap();
    let memory = world.path("from-folder");
    let source = world.dir.path().display().to_string();
    xmore(&["memory", "build", &source, "-o", &memory, &tiny_model()]).ok();
    let args = ["memory", "search", &memory, "--text", "x", "--format=csv", &tiny_model()];
    let rows = xmore(&args).ok();
    assert!(rows.starts_with("id,similarity,caption,image_path\n0,"), "{rows}");
    assert!(rows.contains(",first line,"), "{rows}");
}

#[test]
fn one_photo_gets_the_same_answer_alone_and_among_others() {
    let world = World::new();
    let (memory, _) = world.memory();
    let classify = |images: &[String], threads: &str| {
        let mut args =
            vec!["classify", "--labels=dog,tall tree,x", "--memory", &memory, "--format=json", "-k3"];
        args.extend(["--threads", threads]);
        args.extend(images.iter().map(String::as_str));
        let model = tiny_model();
        args.push(&model);
        json(&xmore(&args).ok())
    };
    let images: Vec<String> = ["wide.png", "grey.png", "large.png", "tall.png"].map(|n| world.path(n)).into();
    let all = classify(&images, "2");
    for (image, among) in images.iter().zip(all.as_array().unwrap()) {
        // Text equality is bit equality: floats are printed in full.
        assert_eq!(&classify(std::slice::from_ref(image), "1")[0], among);
    }
    let first = &all[0];
    assert_eq!(
        (first["method"].as_str(), first["image"].as_str()),
        (Some("xmore-kernel"), Some(&*images[0]))
    );
    let scores: Vec<f64> =
        first["predictions"].as_array().unwrap().iter().map(|p| p["score"].as_f64().unwrap()).collect();
    assert!(scores.is_sorted_by(|a, b| a >= b) && (scores.iter().sum::<f64>() - 1.0).abs() < 1e-12);
    let captions = first["captions"].as_array().unwrap();
    assert_eq!(captions.len(), 3);
    let texts: std::collections::HashSet<_> = captions.iter().map(|c| c["caption"].as_str()).collect();
    assert_eq!(texts.len(), 3, "the caption that two photos share is kept once");
    for name in ["image_distribution", "caption_distribution"] {
        let sum: f64 = first[name].as_object().unwrap().values().map(|p| p.as_f64().unwrap()).sum();
        assert!((sum - 1.0).abs() < 1e-12, "{name}");
    }
}

#[test]
fn the_ensemble_follows_its_formula() {
    let world = World::new();
    let (memory, _) = world.memory();
    let classify = |method: &str| {
        let image = world.path("large.png");
        let args = ["classify", &image, "--labels=dog,cat,x", "--memory", &memory, "--format=json"];
        json(&xmore(&[&args[..], &["--method", method, &tiny_model()]].concat()).ok())[0].clone()
    };
    let (image, captions) = (classify("zero-shot"), classify("captions"));
    let score = |answer: &Value, label: &str| {
        let all = answer["predictions"].as_array().unwrap();
        all.iter().find(|p| p["label"] == label).unwrap()["score"].as_f64().unwrap()
    };
    // Confidences from the published distributions by METHOD's formula, independently of the library.
    let confidence = |answer: &Value| {
        let entropy: f64 = ["dog", "cat", "x"].map(|l| score(answer, l)).iter().map(|p| -p * p.ln()).sum();
        1.0 - entropy / 3f64.ln()
    };
    let (alpha, beta) = (confidence(&image), confidence(&captions));
    for (method, weight) in [("equal", 0.5), ("xmore", alpha / (alpha + beta))] {
        let mixed = classify(method);
        for label in ["dog", "cat", "x"] {
            let want = weight * score(&image, label) + (1.0 - weight) * score(&captions, label);
            assert!((score(&mixed, label) - want).abs() < 1e-12, "{method} {label}");
        }
    }
}

#[test]
fn forms_of_output() {
    let world = World::new();
    let (memory, _) = world.memory();
    let image = world.path("wide.png");
    let base = ["classify", &image, "--labels=dog,cat", &tiny_model()];
    let run = xmore(&base).run();
    assert!(run.stderr.contains("zero-shot, by the image alone"), "{}", run.stderr);
    assert!(run.stdout.contains("%  dog"), "{}", run.stdout);
    let csv = xmore(&[&base[..], &["--format=csv", "--top=1"]].concat()).ok();
    assert!(csv.starts_with("image,rank,label,score,similarity\n") && csv.lines().count() == 2, "{csv}");
    let explained = xmore(&[&base[..], &["--explain", "--memory", &memory]].concat()).ok();
    for part in ["method xmore-kernel", "  memory   ", "votes for"] {
        assert!(explained.contains(part), "{part}: {explained}");
    }
    let explained = xmore(&[&base[..], &["--explain", "--memory", &memory, "--method=xmore"]].concat()).ok();
    for part in ["method xmore", "confidence", "weight", "votes for", "large, and loud"] {
        assert!(explained.contains(part), "{part}: {explained}");
    }
}

#[test]
fn mistakes_are_told_clearly() {
    let world = World::new();
    let (memory, _) = world.memory();
    let image = world.path("wide.png");
    let with = |more: &[&str]| {
        let base = ["classify", &image, &tiny_model()].map(str::to_owned);
        let args: Vec<String> = base.into_iter().chain(more.iter().map(|s| s.to_string())).collect();
        xmore(&args)
    };
    assert!(with(&["--labels=dog"]).fails(1).contains("at least 2"));
    assert!(with(&["--labels=dog,dog"]).fails(1).contains("twice"));
    assert!(with(&["--labels=a,b", "--memory", &memory, "-k0"]).fails(1).contains("k is 0"));
    assert!(with(&["--labels=a,b", "--memory", &memory, "-k500"]).fails(1).contains("--neighbors"));
    assert!(with(&["--labels=a,b", "--template", "no place"]).fails(1).contains("no `{}`"));
    assert!(with(&["--labels=a,b", "--method=xmore"]).fails(2).contains("--memory"));
    assert!(
        with(&["--labels=a,b", "--method=xmoar"]).fails(2).contains("possible values: zero-shot, templates")
    );
    assert!(with(&["--labels=a,b", "--memory", "/nowhere"]).fails(1).contains("/nowhere"));
    assert!(with(&[]).fails(2).contains("--labels"));
    assert!(with(&["--labels=a,b", "--model=lite3"]).fails(2).contains("--model"));
    assert!(with(&["--labels-file=/nowhere.txt"]).fails(1).contains("/nowhere.txt"));

    let empty = world.path("empty.csv");
    fs::write(&empty, "image_path,caption\n").unwrap();
    let empty_memory = world.path("empty-memory");
    let error = xmore(&["memory", "build", &empty, "-o", &empty_memory, &tiny_model()]).fails(3);
    assert!(error.contains("the sources gave no pair") && !Path::new(&empty_memory).exists(), "{error}");

    // The same architecture with other heads is another model.
    let other = world.dir.path().join("other");
    copy_folder(&fixture("tiny"), &other);
    let mut heads = fs::read(other.join("heads.safetensors")).unwrap();
    let last = heads.len() - 1;
    heads[last] ^= 1;
    fs::write(other.join("heads.safetensors"), heads).unwrap();
    let model = format!("--model=local-dir:{}", other.display());
    let error = xmore(&["classify", &image, "--labels=a,b", "--memory", &memory, &model]).fails(1);
    assert!(error.contains("was built with model"), "{error}");
}

#[test]
fn empty_variables_count_as_not_set() {
    let world = World::new();
    let classify = || xmore(&["classify", &world.path("wide.png"), "--labels=a,b", &tiny_model()]);
    let variables = [
        "XMORE_MODEL",
        "XMORE_PRECISION",
        "XMORE_DEVICE",
        "XMORE_ORIENTATION",
        "XMORE_MEMORY",
        "XMORE_THREADS",
    ];
    let found = variables.into_iter().fold(classify(), |run, name| run.env(name, "")).ok();
    assert_eq!(found, classify().ok());
    // Without a key the server would be open to all.
    let serve = xmore(&["serve", "--addr=127.0.0.1:0", &tiny_model()]).env("XMORE_API_KEY", "");
    assert!(serve.fails(2).contains("key"));
}

#[test]
fn a_broken_photo_fails_the_run_but_not_the_others() {
    let world = World::new();
    let images = [world.path("wide.png"), world.path("broken.png"), world.path("missing.png")];
    let run = xmore(&[
        "classify",
        &images[0],
        &images[1],
        &images[2],
        "--labels=a,b",
        "--format=json",
        &tiny_model(),
    ])
    .run();
    assert_eq!(run.code, 3);
    assert_eq!(json(&run.stdout).as_array().unwrap().len(), 1);
    assert!(run.stderr.contains("broken.png") && run.stderr.contains("missing.png"), "{}", run.stderr);
    assert!(run.stderr.contains("2 of 3 images"), "{}", run.stderr);
}

#[test]
fn broken_model_folders_are_refused() {
    let world = World::new();
    let image = world.path("wide.png");
    let damage = |file: &str, bytes: Option<&[u8]>| {
        let dir = world.dir.path().join("damaged");
        copy_folder(&fixture("tiny"), &dir);
        match bytes {
            Some(bytes) => fs::write(dir.join(file), bytes).unwrap(),
            None => fs::remove_file(dir.join(file)).unwrap(),
        }
        let model = format!("--model=local-dir:{}", dir.display());
        let error = xmore(&["classify", &image, "--labels=a,b", &model]).fails(1);
        assert!(error.contains(file), "{file}: {error}");
        fs::remove_dir_all(dir).unwrap();
    };
    let half = |file: &str| fs::read(fixture("tiny").join(file)).map(|b| b[..b.len() / 2].to_vec()).unwrap();
    for file in
        ["image.pth", "text.safetensors", "heads.safetensors", "tokenizer.json", "open_clip_config.json"]
    {
        damage(file, None);
        damage(file, Some(&half(file)));
        damage(file, Some(b""));
    }
}

#[test]
fn embeddings_are_unit_rows_in_order() {
    let world = World::new();
    let output = world.path("out.npy");
    let images = [world.path("tall.png"), world.path("wide.png")];
    xmore(&["embed", &images[0], &images[1], "-o", &output, &tiny_model()]).ok();
    let (shape, both) = read_npy(&output);
    assert_eq!(shape, [2, 16]);
    assert!(both.chunks(16).all(|row| (row.iter().map(|v| v * v).sum::<f32>() - 1.0).abs() < 1e-6));
    xmore(&["embed", &images[1], "-o", &output, &tiny_model()]).ok();
    assert_eq!(read_npy(&output).1, both[16..]);

    let texts = world.path("texts.txt");
    fs::write(&texts, "a dog\n\na cat\n").unwrap();
    xmore(&["embed", "--texts", &texts, "-o", &output, &tiny_model()]).ok();
    assert_eq!(read_npy(&output).0, [3, 16]);

    let (broken, none) = (world.path("broken.png"), world.path("none.npy"));
    let error = xmore(&["embed", &images[0], &broken, "-o", &none, &tiny_model()]).fails(3);
    assert!(error.contains("broken.png") && error.contains("--skip-broken"), "{error}");
    assert!(!Path::new(&none).exists());
    xmore(&["embed", &images[0], &broken, "-o", &none, "--skip-broken", &tiny_model()]).ok();
    assert_eq!(read_npy(&none).0, [1, 16]);
}

#[test]
fn evaluation_counts_every_image() {
    let world = World::new();
    let (memory, _) = world.memory();
    let dataset = world.dir.path().join("set");
    for (class, image) in [("fire_truck", "wide.png"), ("fire_truck", "broken.png"), ("dog", "tall.png")] {
        fs::create_dir_all(dataset.join(class)).unwrap();
        fs::copy(world.path(image), dataset.join(class).join(image)).unwrap();
    }
    let set = dataset.display().to_string();
    let cache = world.path("cache");
    let base = ["eval", &set, "--cache-dir", &cache, "--bootstrap=200", &tiny_model()];
    // One of three images is broken.
    let eval = |more: &[&str]| xmore(&[&base[..], more].concat()).env("XMORE_MAX_SKIPPED", "50%");
    let entries = json(&eval(&["--memory", &memory, "-k3", "--format=json"]).ok());
    let entries = entries.as_array().unwrap();
    let methods: Vec<_> = entries.iter().map(|entry| entry["method"].as_str().unwrap()).collect();
    assert_eq!(methods, ["zero-shot", "templates", "captions", "equal", "xmore", "xmore-kernel"]);
    for entry in entries {
        assert_eq!(
            (&entry["dataset"], &entry["images"], &entry["unreadable"]),
            (&"set".into(), &3.into(), &1.into())
        );
        let right = entry["metrics"]["acc1"].as_f64().unwrap() * 3.0;
        assert!((right - right.round()).abs() < 1e-9 && right < 2.5, "the unreadable image is never right");
    }
    let table = eval(&["--methods=zero-shot"]).ok();
    assert!(table.contains("set: 3 images, 1 of them unreadable") && table.contains("zero-shot"), "{table}");
    assert!(eval(&["--methods=xmore"]).fails(2).contains("--memory"));
}

#[test]
fn help_names_every_command() {
    let help = xmore(&["--help"]).ok();
    for command in ["classify", "eval", "memory", "embed", "model", "demo"] {
        assert!(help.contains(command), "{command}: {help}");
    }
    assert!(xmore(&["classify", "--help"]).ok().contains("--explain"));
}

fn read_npy(path: &str) -> (Vec<u64>, Vec<f32>) {
    let npy = npyz::NpyFile::new(std::io::BufReader::new(fs::File::open(path).unwrap())).unwrap();
    (npy.shape().to_vec(), npy.into_vec().unwrap())
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}
