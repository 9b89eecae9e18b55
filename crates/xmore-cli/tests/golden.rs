//! What commands print, and the bytes of a memory, against files in `golden/` that were written before: a change of structure changes
//! none of them.
//!
//! `XMORE_WRITE_GOLDEN=1 cargo test -p xmore-cli --test golden` writes them anew, for a change that is meant.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use support::files::{bytes_of, picture, second_model, source};
use support::{tiny_model, xmore_in};

/// Numbers may differ by the last digits of another C library's `exp` and `ln`.
const TOLERANCE: f64 = 1e-6;
/// Fields that differ from run to run: times, and checksums of files with places in them.
const VARYING: [&str; 7] =
    ["seconds", "timings", "version", "digest", "metadata", "lookup", "skipped_sha256"];

const LABELS: &str = "picture number,a thing seen often,the second time,zebra";

/// Pairs, query photos with their classes, and a memory with a second column.
struct World {
    dir: tempfile::TempDir,
    second: String,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        source(dir.path(), 60, 3);
        for (class, seeds) in [("picture number", 100..104), ("zebra", 200..203)] {
            fs::create_dir_all(path("labeled").join(class)).unwrap();
            for seed in seeds {
                picture(&path("labeled").join(class).join(format!("{seed}.png")), seed);
            }
        }
        let second = second_model(dir.path());
        let world = Self { dir, second };
        world.run(&["memory", "build", "@pairs.csv", "-o", "@memory", "--max-skipped", "50%"]);
        world.run(&["memory", "embed", "@memory", "--model", &world.second]);
        world
    }

    /// Standard output, with the tiny model where a command takes one and names none.
    #[track_caller]
    fn run(&self, args: &[&str]) -> String {
        let model = tiny_model();
        let model = (!args.contains(&"--model") && !args.contains(&"info")).then_some(model.as_str());
        let args: Vec<&str> = args.iter().copied().chain(model).collect();
        let run = xmore_in(self.dir.path(), &args).run();
        assert_eq!(run.code, 0, "{args:?}: {}", run.stderr);
        run.stdout
    }

    /// What a command prints as JSON, without times and without the places of this run.
    #[track_caller]
    fn json(&self, args: &[&str]) -> Value {
        let text = self.run(args);
        let value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{args:?}: {e}: {text}"));
        self.without_places(value)
    }

    fn without_place(&self, text: &str) -> String {
        let here = self.dir.path().display().to_string();
        let tiny = tiny_model().trim_start_matches("--model=").to_owned();
        // The folder of a column has its model's name, without slashes.
        let slug = here.trim_matches('/').replace('/', "-");
        text.replace(&here, "WORLD").replace(&slug, "WORLD").replace(&tiny, "TINY")
    }

    fn without_places(&self, value: Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.without_place(&text)),
            Value::Array(items) => items.into_iter().map(|item| self.without_places(item)).collect(),
            Value::Object(fields) => fields
                .into_iter()
                .filter(|(name, _)| !VARYING.iter().any(|varying| name.contains(varying)))
                .map(|(name, value)| (name, self.without_places(value)))
                .collect(),
            other => other,
        }
    }
}

/// The first difference of two values, with where it is.
fn difference(place: &str, expected: &Value, found: &Value) -> Option<String> {
    match (expected, found) {
        (Value::Number(a), Value::Number(b)) => {
            let (a, b) = (a.as_f64().unwrap(), b.as_f64().unwrap());
            ((a - b).abs() > TOLERANCE * a.abs().max(1.0)).then(|| format!("{place}: {a} became {b}"))
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            a.iter().zip(b).enumerate().find_map(|(i, (a, b))| difference(&format!("{place}[{i}]"), a, b))
        }
        (Value::Object(a), Value::Object(b)) => {
            let names: std::collections::BTreeSet<_> = a.keys().chain(b.keys()).collect();
            names.into_iter().find_map(|name| match (a.get(name), b.get(name)) {
                (Some(a), Some(b)) => difference(&format!("{place}.{name}"), a, b),
                (None, _) => Some(format!("{place}.{name} came")),
                (_, None) => Some(format!("{place}.{name} is gone")),
            })
        }
        _ => (expected != found).then(|| format!("{place}: {expected} became {found}")),
    }
}

#[track_caller]
fn check(name: &str, found: &Value) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("XMORE_WRITE_GOLDEN").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, serde_json::to_string_pretty(found).unwrap() + "\n").unwrap();
        return;
    }
    let expected: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    if let Some(difference) = difference("", &expected, found) {
        panic!("{name}{difference}");
    }
}

#[test]
fn commands_print_what_they_printed() {
    let world = World::new();
    let classify = [
        "classify",
        "@labeled/zebra/200.png",
        "@labeled/zebra/201.png",
        "--labels",
        LABELS,
        "--format",
        "json",
    ];
    let with = |more: &[&str]| world.json(&[&classify[..], more].concat());
    let memory = ["--memory", "@memory"];
    let mut found = BTreeMap::new();
    found.insert("zero-shot", with(&[]));
    for method in ["zero-shot", "captions", "equal", "xmore", "xmore-kernel"] {
        let method = [&memory[..], &["--method", method, "--explain"]].concat();
        found.insert(method[3], with(&method));
    }
    found.insert("templates", with(&["--template", "a photo of a {}.", "--template", "a {}"]));
    found.insert("k", with(&[&memory[..], &["-k", "3", "--neighbors", "9"]].concat()));
    let second = ["--search-model", &world.second, "--method", "xmore"];
    found.insert("search model", with(&[&memory[..], &second].concat()));
    let filter = ["--caption-filter", "number", "--rows", "0..40", "--deduplicate", "--method", "xmore"];
    found.insert("filters", with(&[&memory[..], &filter].concat()));
    found.insert("nothing fits", with(&["--min-score", "0.9"]));
    check("classify.json", &json!(found));

    let search = ["memory", "search", "@memory", "--format", "json", "-n", "7"];
    check(
        "search.json",
        &json!({
            "image": world.json(&[&search[..], &["--image", "@labeled/zebra/200.png"]].concat()),
            "text": world.json(&[&search[..], &["--text", "a thing seen often"]].concat()),
        }),
    );

    let eval = ["eval", "@labeled", "--format", "json"];
    check(
        "eval.json",
        &json!({
            "no memory": world.json(&eval),
            "memory": world.json(&[&eval[..], &memory, &["-k", "4,16"]].concat()),
        }),
    );
}

/// Each file by its hash, but what has the places of this run in it.
#[test]
fn a_memory_has_the_bytes_it_had() {
    let world = World::new();
    let files: BTreeMap<String, String> = bytes_of(&world.dir.path().join("memory"))
        .into_iter()
        .map(|(path, bytes)| (world.without_place(&path.display().to_string()), bytes))
        .map(|(path, bytes)| {
            let kept = path.ends_with(".npy") || path.contains("codes");
            let hash = || xmore_files::hex(Sha256::digest(&bytes));
            (path, if kept { hash() } else { "has places in it".to_owned() })
        })
        .collect();
    check("memory.json", &json!(files));
    check("info.json", &world.json(&["memory", "info", "@memory", "--format", "json"]));
}
