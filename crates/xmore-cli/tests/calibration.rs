//! `eval --fit`, and what takes the file that it writes: `classify`, `eval` and `serve`, on a tiny model with random weights.

mod support;

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};
use support::files::{picture, second_model};
use support::server::Server;
use support::{Xmore, tiny_model, xmore_in};

/// Two halves of labeled pictures, and a memory of others.
struct World {
    dir: tempfile::TempDir,
}

const METHODS: &str = "--methods=zero-shot,xmore,xmore-kernel";

impl World {
    fn new() -> Self {
        let world = Self { dir: tempfile::tempdir().unwrap() };
        for i in 0..48 {
            let (half, class) = (["fit", "rest"][i / 24], ["cat", "dog"][i % 2]);
            fs::create_dir_all(world.path(&format!("{half}/{class}"))).unwrap();
            picture(&world.path(&format!("{half}/{class}/{i}.png")), i as u64);
        }
        for (table, from) in [("pairs.csv", 100), ("others.csv", 200)] {
            let mut rows = String::from("image_path,caption\n");
            for i in from..from + 8 {
                picture(&world.path(&format!("{i}.png")), i);
                rows += &format!("{i}.png,a cat number {i}\n{i}.png,the dog of {i}\n");
            }
            fs::write(world.path(table), rows).unwrap();
        }
        world.run(&["memory", "build", "@pairs.csv", "-o", "@m"]).ok();
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// `xmore` with the tiny model; `@name` is a path in this world.
    fn run(&self, args: &[&str]) -> Xmore {
        xmore_in(self.dir.path(), &[args, &[&tiny_model()]].concat())
    }

    /// `xmore eval` of a half with the memory; prints JSON.
    fn eval(&self, half: &str, args: &[&str]) -> Xmore {
        let fixed = ["eval", half, "--memory", "@m", "--bootstrap=100", "--format=json", METHODS];
        self.run(&[&fixed[..], args].concat())
    }

    /// Fits on the first half; returns the file.
    fn fit(&self, args: &[&str]) -> Value {
        self.eval("@fit", &[&["--fit", "@c.json"], args].concat()).ok();
        serde_json::from_str(&fs::read_to_string(self.path("c.json")).unwrap()).unwrap()
    }

    fn classify(&self, args: &[&str]) -> Xmore {
        let fixed = ["classify", "@rest/cat/24.png", "--labels=cat,dog", "--format=json"];
        self.run(&[&fixed[..], args].concat())
    }

    fn classified(&self, args: &[&str]) -> Value {
        serde_json::from_str::<Value>(&self.classify(args).ok()).unwrap()[0].take()
    }

    fn serve(&self, args: &[&str]) -> Server {
        self.run(&[&["serve", "--memory", "@m", "--addr", "127.0.0.1:0"], args].concat()).serve()
    }
}

/// p^(1/T) of two labels.
fn scaled(answer: &Value, temperature: f64) -> f64 {
    let of = |label: &str| answer["scores"][label].as_f64().unwrap().powf(1.0 / temperature);
    of("cat") / (of("cat") + of("dog"))
}

#[test]
fn scores_are_calibrated_by_what_was_fitted_on_other_photos() {
    let world = World::new();
    let file = world.fit(&[]);
    assert_eq!(file["format_version"], 1);
    let temperature = |at: usize| file["methods"][at]["temperature"].as_f64().unwrap();
    for (at, method) in ["zero-shot", "xmore", "xmore-kernel"].into_iter().enumerate() {
        let fitted = &file["methods"][at];
        assert_eq!((&fitted["method"], &fitted["photos"]), (&json!(method), &json!(24)));
        assert!(fitted["after"]["nll"].as_f64() <= fitted["before"]["nll"].as_f64(), "{fitted}");
        assert!((temperature(at) - 1.0).abs() > 1e-3, "{fitted}");
        let args = ["--memory", "@m", "--method", method];
        let plain = world.classified(&args);
        assert!(plain.get("calibrated").is_none() && plain.get("temperature").is_none(), "{plain}");
        let found = world.classified(&[&args[..], &["--calibration", "@c.json"]].concat());
        assert_eq!(found["calibrated"], true);
        assert_eq!(found["temperature"].as_f64(), Some(temperature(at)));
        let (expected, score) = (scaled(&plain, temperature(at)), found["scores"]["cat"].as_f64().unwrap());
        assert!((expected - score).abs() < 1e-12, "{method}: {expected} {score}");
        assert_eq!(found["label"], plain["label"]);
        assert_eq!(found["image_distribution"], plain["image_distribution"]);
    }
    // The other half, with the figures without the calibration beside.
    let plain: Value = serde_json::from_str(&world.eval("@rest", &[]).ok()).unwrap();
    let with: Value = serde_json::from_str(&world.eval("@rest", &["--calibration", "@c.json"]).ok()).unwrap();
    for (plain, with) in plain.as_array().unwrap().iter().zip(with.as_array().unwrap()) {
        let calibrated = &with["details"]["calibrated"];
        assert_eq!(calibrated["before"]["ece"], plain["metrics"]["ece"]);
        assert_eq!(calibrated["after"]["ece"], with["metrics"]["ece"]);
        assert_eq!(with["metrics"]["acc1"], plain["metrics"]["acc1"]);
        assert_ne!(with["metrics"]["nll"], plain["metrics"]["nll"]);
        assert!(plain["details"].get("calibrated").is_none());
    }
    let args = ["eval", "@rest", "--memory", "@m", "--bootstrap=100", METHODS, "--calibration", "@c.json"];
    assert!(world.run(&args).ok().contains("Calibrated by other photos"));
}

#[test]
fn a_threshold_acts_as_the_least_score_unless_one_is_given() {
    let world = World::new();
    let run = world.eval("@fit", &["--fit", "@c.json", "--target-precision=0.99"]).run();
    assert!(run.code == 0 && run.stderr.contains("no threshold"), "{}", run.stderr);
    let mut file = world.fit(&["--target-precision=0.05"]);
    // Nearly any answer has that precision; a file may be edited.
    assert_eq!(file["methods"][0]["threshold"]["min_score"], 0.0, "{file}");
    file["methods"][0]["threshold"]["min_score"] = json!(0.999_999);
    fs::write(world.path("c.json"), file.to_string()).unwrap();
    let args = ["--method=zero-shot", "--calibration", "@c.json"];
    assert_eq!(world.classified(&args)["label"], Value::Null);
    assert!(world.classified(&[&args[..], &["--min-score=0"]].concat())["label"].is_string());
    // Without the calibration there is no threshold.
    assert!(world.classified(&args[..1])["label"].is_string());
}

#[test]
fn what_it_was_not_fitted_with_is_refused() {
    let world = World::new();
    world.fit(&[]);
    let fails = |args: &[&str]| world.classify(&[args, &["--calibration", "@c.json"]].concat()).fails(1);
    let message = fails(&["--memory", "@m", "--method=equal"]);
    assert!(
        message.contains("not fitted for method equal, only for zero-shot, xmore, xmore-kernel"),
        "{message}"
    );
    assert!(message.contains("hint: ") && message.contains("--fit"), "{message}");
    let message = fails(&["--memory", "@m", "--method=xmore", "-k", "5"]);
    assert!(message.contains("fitted with k 16, found 5"), "{message}");
    let message = fails(&["--method=zero-shot", "--template", "a {}"]);
    assert!(message.contains("fitted with prompts a photo of a {}., found a {}"), "{message}");
    let message = fails(&["--method=zero-shot", "--orientation=stored"]);
    assert!(message.contains("fitted with orientation exif, found stored"), "{message}");
    world.run(&["memory", "build", "@others.csv", "-o", "@other"]).ok();
    let message = fails(&["--memory", "@other", "--method=xmore-kernel"]);
    assert!(message.contains("fitted with memory sha256:"), "{message}");
    // Another model.
    let model = format!("--model={}", second_model(world.dir.path()));
    let args = ["classify", "@rest/cat/24.png", "--labels=cat,dog", "--calibration", "@c.json", &model];
    let message = xmore_in(world.dir.path(), &args).fails(1);
    assert!(message.contains("fitted with model ") && message.contains("(fingerprint "), "{message}");
    // The same memory elsewhere is the same; other labels are warned of.
    fs::rename(world.path("m"), world.path("moved")).unwrap();
    let args = ["--memory", "@moved", "--calibration", "@c.json", "--labels=cat,dog,bird"];
    let run = world.run(&[&["classify", "@rest/cat/24.png"], &args[..]].concat()).run();
    assert!(
        run.code == 0 && run.stderr.contains("fitted on other labels (2 of fit; here are 3)"),
        "{}",
        run.stderr
    );
}

#[test]
fn damaged_files_and_what_cannot_be_fitted_are_refused() {
    let world = World::new();
    let good = world.fit(&[]).to_string();
    let temperature = serde_json::from_str::<Value>(&good).unwrap()["methods"][0]["temperature"].to_string();
    for (bad, reason) in [
        (good[..good.len() - 9].to_owned(), "damaged"),
        (good.replace(&temperature, "-1.0"), "temperature -1 is not in 0.05..=20"),
        (good.replace("\"format_version\":1", "\"format_version\":9"), "format version 9"),
        ("\u{0}\u{1}".to_owned(), "not a calibration"),
    ] {
        assert_ne!(bad, good);
        fs::write(world.path("bad.json"), bad).unwrap();
        let message = world.classify(&["--calibration", "@bad.json"]).fails(1);
        assert!(message.contains(reason) && message.contains("bad.json"), "{message}");
        let message = world.eval("@rest", &["--calibration", "@bad.json"]).fails(1);
        assert!(message.contains(reason), "{message}");
    }
    // Too few photos, found before any work; what was there stays.
    fs::create_dir_all(world.path("few/dog")).unwrap();
    fs::create_dir_all(world.path("few/cat")).unwrap();
    picture(&world.path("few/dog/1.png"), 1);
    picture(&world.path("few/cat/2.png"), 2);
    let before = fs::read(world.path("c.json")).unwrap();
    let message = world.eval("@few", &["--fit", "@c.json"]).fails(1);
    assert!(message.contains("at least 10 labeled photos") && message.contains("found 2"), "{message}");
    assert_eq!(fs::read(world.path("c.json")).unwrap(), before);
    // One dataset, a method that classify has, and flags that go together.
    let message = world.eval("@fit", &["@rest", "--fit", "@c.json"]).fails(2);
    assert!(message.contains("--fit takes one dataset, found 2"), "{message}");
    let fixed = ["eval", "@fit", "--methods=tda", "--fit", "@c.json"];
    assert!(world.run(&fixed).fails(2).contains("--fit needs a method"));
    world.eval("@fit", &["--target-precision=0.9"]).fails(2);
    world.eval("@fit", &["--fit", "@d.json", "--calibration", "@c.json"]).fails(2);
    world.eval("@fit", &["--fit", "@d.json", "--target-precision=1"]).fails(2);
}

#[test]
fn photos_that_cannot_be_read_are_left_out_of_the_fit() {
    let world = World::new();
    let whole = world.fit(&["--no-cache"]);
    fs::write(world.path("fit/cat/broken.png"), "no picture").unwrap();
    let found = world.fit(&["--no-cache"]);
    assert_eq!((&found["methods"][0]["photos"], &found["methods"][0]["unreadable"]), (&json!(24), &json!(1)));
    assert_eq!(found["methods"][0]["temperature"], whole["methods"][0]["temperature"]);
}

#[test]
fn a_server_calibrates_what_it_was_fitted_for_and_says_so() {
    let world = World::new();
    world.fit(&["--target-precision=0.05"]);
    let server = world.serve(&["--calibration", "@c.json"]);
    let image = fs::read(world.path("rest/cat/24.png")).unwrap();
    let ask = |query: &str| {
        let query = format!("/v1/classify?labels=cat,dog&explain=1&{query}");
        server.post(&query, "image/png", &image).ok()
    };
    for method in ["zero-shot", "xmore", "xmore-kernel"] {
        let found = ask(&format!("method={method}"));
        let mut expected =
            world.classified(&["--memory", "@m", "--method", method, "--calibration", "@c.json"]);
        expected.as_object_mut().unwrap().remove("image");
        assert_eq!(found["results"][0], expected, "{method}");
        let used = &found["calibration"];
        assert_eq!((&used["applied"], &used["note"]), (&json!(true), &Value::Null), "{used}");
        assert_eq!((&used["temperature"], &used["min_score"]), (&expected["temperature"], &json!(0.0)));
    }
    for (query, why) in [
        ("method=equal", "not fitted for method equal"),
        ("method=xmore&k=3", "fitted with k 16, found 3"),
        ("method=zero-shot&templates=a%20{}", "fitted with prompts"),
    ] {
        let found = ask(query);
        assert_eq!(found["calibration"]["applied"], false, "{found}");
        assert!(found["calibration"]["note"].as_str().unwrap().contains(why), "{found}");
        assert!(found["results"][0].get("calibrated").is_none(), "{found}");
    }
    let query = "/v1/classify?labels=cat,dog,bird&method=zero-shot";
    let found = server.post(query, "image/png", &image).ok();
    assert!(found["calibration"]["note"].as_str().unwrap().contains("other labels"), "{found}");
    // A memory that has grown is another one.
    world.run(&["memory", "append", "@m", "@others.csv"]).ok();
    server.post_json("/v1/reload", &json!({})).ok();
    server.wait_for("its scores are not calibrated any more");
    let found = ask("method=xmore");
    assert!(found["calibration"]["note"].as_str().unwrap().contains("fitted with memory"), "{found}");
    assert_eq!(ask("method=zero-shot")["calibration"]["applied"], true);
    assert_eq!(server.stop().0, 0);
    // At the start it is refused; without one nothing is said of it.
    let args = ["serve", "--memory", "@m", "--addr", "127.0.0.1:0", "--calibration", "@c.json"];
    let message = world.run(&args).fails(1);
    assert!(message.contains("fitted with memory") && message.contains("hint: "), "{message}");
    let server = world.serve(&[]);
    let found = server.post(query, "image/png", &image).ok();
    assert!(found.get("calibration").is_none(), "{found}");
}
