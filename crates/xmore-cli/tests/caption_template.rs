//! `--caption-template`: captions classified inside a text, as the paper's authors do.

mod support;

use std::fs;

use serde_json::Value;
use support::files::picture;
use support::{tiny_model, xmore_in};

const CAPTIONS: [&str; 5] = ["a cat", "tall tree", "the dog that ran", "number 3", "zebra"];
const THEIRS: &str = "a_photo_of_a {}";

struct World(tempfile::TempDir);

impl World {
    /// A memory of captions as they are, and one in which each stands behind the authors' prefix.
    fn new() -> Self {
        let world = Self(tempfile::tempdir().unwrap());
        let path = |name: &str| world.0.path().join(name);
        fs::create_dir_all(path("labeled/cat")).unwrap();
        fs::create_dir_all(path("labeled/zebra")).unwrap();
        picture(&path("labeled/cat/0.png"), 7);
        picture(&path("labeled/zebra/1.png"), 8);
        for (name, before) in [("bare", ""), ("inside", "a_photo_of_a ")] {
            let mut rows = String::from("image_path,caption\n");
            for (i, caption) in CAPTIONS.iter().enumerate() {
                picture(&path(&format!("{i}.png")), i as u64);
                rows += &format!("{i}.png,{before}{caption}\n");
            }
            fs::write(path(&format!("{name}.csv")), rows).unwrap();
            let (source, memory) = (format!("@{name}.csv"), format!("@{name}"));
            world.run(&["memory", "build", &source, "-o", &memory]);
        }
        world
    }

    #[track_caller]
    fn run(&self, args: &[&str]) -> (String, String) {
        let model = tiny_model();
        let run = xmore_in(self.0.path(), &[args, &[&model]].concat()).run();
        assert_eq!(run.code, 0, "{args:?}: {}", run.stderr);
        (run.stdout, run.stderr)
    }

    /// The labels' scores.
    fn scores(&self, memory: &str, method: &str, more: &[&str]) -> Vec<(String, f64)> {
        let args = ["classify", "@labeled/cat/0.png", "--labels", "cat,zebra,tree", "--format", "json"];
        let args = [&args[..], &["--memory", memory, "--method", method], more].concat();
        let answers: Value = serde_json::from_str(&self.run(&args).0).unwrap();
        let scores = answers[0]["scores"].as_object().unwrap();
        scores.iter().map(|(label, score)| (label.clone(), score.as_f64().unwrap())).collect()
    }
}

fn distance(a: &[(String, f64)], b: &[(String, f64)]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a.1 - b.1).abs()).fold(0.0, f64::max)
}

#[test]
fn captions_are_classified_as_if_the_memory_had_them_so() {
    let world = World::new();
    // All captions are kept, so that their order does not matter.
    for method in ["captions", "equal", "xmore"] {
        let bare = world.scores("@bare", method, &[]);
        let inside = world.scores("@bare", method, &["--caption-template", THEIRS]);
        assert!(distance(&inside, &world.scores("@inside", method, &[])) < 1e-6, "{method}");
        assert!(distance(&inside, &bare) > 1e-4, "{method}: {inside:?} {bare:?}");
        assert_eq!(world.scores("@bare", method, &["--caption-template", "{}"]), bare);
        // The second time they are kept from before.
        assert_eq!(world.scores("@bare", method, &["--caption-template", THEIRS]), inside);
    }
}

#[test]
fn it_is_recorded_and_the_suites_have_the_authors() {
    let world = World::new();
    let eval = |args: &[&str]| {
        let args = [&["eval", "--memory", "@bare", "--format", "json"], args].concat();
        let (printed, told) = world.run(&args);
        (serde_json::from_str::<Vec<Value>>(&printed).unwrap(), told)
    };
    let acc = |entries: &[Value], method: &str| {
        let entry = entries.iter().find(|entry| entry["method"] == method).unwrap();
        (entry["metrics"]["nll"].as_f64().unwrap(), entry["settings"]["caption_template"].clone())
    };
    let (bare, _) = eval(&["@labeled"]);
    let (theirs, _) = eval(&["@labeled", "--caption-template", THEIRS]);
    assert_eq!(acc(&bare, "xmore").1, Value::Null);
    assert_eq!(acc(&theirs, "xmore").1, THEIRS);
    assert_ne!(acc(&bare, "xmore").0, acc(&theirs, "xmore").0);
    assert_eq!(acc(&bare, "xmore-kernel").0, acc(&theirs, "xmore-kernel").0);

    fs::create_dir_all(world.0.path().join("root/dtd/images")).unwrap();
    fs::copy(world.0.path().join("0.png"), world.0.path().join("root/dtd/images/0.png")).unwrap();
    let split = r#"{"test": [["0.png", 0, "cat"], ["0.png", 1, "dog"]]}"#;
    fs::write(world.0.path().join("root/dtd/split_zhou_DescribableTextures.json"), split).unwrap();
    let suite = ["--suite", "paper-table1", "--data-root", "@root"];
    let (entries, told) = eval(&suite);
    assert_eq!(acc(&entries, "xmore").1, THEIRS);
    assert!(told.contains("may never have been published"), "{told}");
    let (entries, told) = eval(&[&suite[..], &["--caption-template", "{}"]].concat());
    assert_eq!(acc(&entries, "xmore").1, Value::Null);
    assert!(!told.contains("may never"), "{told}");
    let model = tiny_model();
    let run = xmore_in(world.0.path(), &["eval", "@labeled", "--caption-template", THEIRS, &model]).run();
    assert!(run.code == 2 && run.stderr.contains("without --memory"), "{}", run.stderr);
    let zero_shot = ["eval", "@labeled", "--memory", "@bare", "--methods", "zero-shot"];
    let run =
        xmore_in(world.0.path(), &[&zero_shot[..], &["--caption-template", THEIRS, &model]].concat()).run();
    assert!(run.code == 2 && run.stderr.contains("no effect"), "{}", run.stderr);
}
