//! CoOp's context vectors inside X-MoRe, and the three models of the paper's retrieval in its suites.

mod support;

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use support::files::{picture, second_model};
use support::{tiny_model, xmore_in};
use xmore_clip::Checkpoint;

/// The place of "a" in the second model's vocabulary.
const A: usize = 4;

/// A memory by the second model, which is a CLIP, and a dataset.
struct World {
    dir: tempfile::TempDir,
    model: String,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let model = second_model(dir.path());
        let world = Self { dir, model };
        let mut pairs = String::from("image_path,caption\n");
        for i in 0..12 {
            picture(&world.path(&format!("{i}.png")), i);
            pairs += &format!("{i}.png,{} {i}\n", ["cat", "dog", "sun"][i as usize % 3]);
        }
        fs::write(world.path("pairs.csv"), pairs).unwrap();
        let images = world.path("root/dtd/images");
        fs::create_dir_all(&images).unwrap();
        let items: Vec<Value> = (0..10)
            .map(|i| {
                picture(&images.join(format!("{i}.png")), 100 + i);
                json!([format!("{i}.png"), i % 2, if i % 2 == 0 { "cat" } else { "dog" }])
            })
            .collect();
        let split = json!({ "test": items }).to_string();
        fs::write(world.path("root/dtd/split_zhou_DescribableTextures.json"), split).unwrap();
        world.run(&["memory", "build", "@pairs.csv", "-o", "@memory", "--model", &world.model]);
        world
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    #[track_caller]
    fn run(&self, args: &[&str]) -> String {
        let run = xmore_in(self.dir.path(), args).run();
        assert_eq!(run.code, 0, "{args:?}: {}", run.stderr);
        run.stdout
    }

    #[track_caller]
    fn eval(&self, args: &[&str]) -> Vec<Value> {
        let args = [&["eval", "--format=json", "--no-cache", "--memory=@memory"], args].concat();
        let args: Vec<String> =
            args.iter().map(|arg| arg.replace("=@", &format!("={}/", self.dir.path().display()))).collect();
        serde_json::from_str(&self.run(&args.iter().map(String::as_str).collect::<Vec<_>>())).unwrap()
    }
}

/// Context vectors as CoOp keeps them.
fn write_context(path: &Path, vectors: &[f32], width: usize) {
    let shape = [vectors.len() / width, width];
    let header =
        json!({"ctx": {"dtype": "F32", "shape": shape, "data_offsets": [0, vectors.len() * 4]}}).to_string();
    let data: Vec<u8> = vectors.iter().flat_map(|value| value.to_le_bytes()).collect();
    fs::write(path, [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &data].concat()).unwrap();
}

fn metrics(entries: &[Value], method: &str) -> Value {
    let entry = entries.iter().find(|entry| entry["method"] == method);
    entry.unwrap_or_else(|| panic!("no {method}"))["metrics"].clone()
}

/// Context vectors that are those of a word are that word: all methods with CoOp's prompts then give what the others give.
#[test]
fn the_vectors_of_a_word_are_that_word_in_every_method() {
    let world = World::new();
    let folder = world.model.trim_start_matches("local-dir:");
    let weights = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let weights =
        weights.into_iter().find(|path| path.extension().is_some_and(|e| e == "safetensors")).unwrap();
    let checkpoint = Checkpoint::open(&weights).unwrap();
    let shape = checkpoint.shape("token_embedding.weight").unwrap().to_vec();
    let table = checkpoint.tensor("token_embedding.weight", &shape).unwrap();
    let width = shape[1];
    write_context(&world.path("a.safetensors"), &table[A * width..(A + 1) * width], width);
    let other: Vec<f32> = (0..width).map(|i| (i as f32 * 0.7).sin()).collect();
    write_context(&world.path("other.safetensors"), &other, width);

    let methods = "--methods=zero-shot,coop,xmore,coop-xmore,xmore-stream,coop-xmore-stream";
    let dataset = world.path("root/dtd").display().to_string();
    let args = [dataset.as_str(), methods, "--template", "a {}.", "-k", "2,4"];
    let found = world.eval(&[&args[..], &["--coop=@a.safetensors", "--variants", "unsorted"]].concat());
    for (coop, plain) in
        [("coop", "zero-shot"), ("coop-xmore", "xmore"), ("coop-xmore-stream", "xmore-stream")]
    {
        let (a, b) = (metrics(&found, coop), metrics(&found, plain));
        for key in ["acc1", "nll", "brier"] {
            let (a, b) = (a[key].as_f64().unwrap(), b[key].as_f64().unwrap());
            assert!((a - b).abs() < 1e-5, "{coop} {key}: {a} {b}");
        }
    }
    let of = |method: &str| found.iter().find(|entry| entry["method"] == method).unwrap();
    assert_eq!(of("coop-xmore")["sweep"].as_array().unwrap().len(), 2);
    assert_eq!(of("coop-xmore")["variants"].as_array().unwrap().len(), 2);
    // Other vectors are other prompts, for images and captions.
    let others = world.eval(&[&args[..], &["--coop=@other.safetensors"]].concat());
    for method in ["coop", "coop-xmore", "coop-xmore-stream"] {
        assert_ne!(metrics(&others, method)["nll"], metrics(&found, method)["nll"], "{method}");
    }
    assert_eq!(metrics(&others, "xmore"), metrics(&found, "xmore"));
}

#[test]
fn what_coops_prompts_lack_is_told_before_work() {
    let world = World::new();
    let dataset = world.path("root/dtd").display().to_string();
    write_context(&world.path("wide.safetensors"), &[0.5; 14], 7);
    let fails = |args: &[&str], code: i32| {
        let args = [&["eval", &dataset, "--cache-dir", "@cache", "--memory", "@memory"], args].concat();
        let run = xmore_in(world.dir.path(), &args).run();
        assert_eq!(run.code, code, "{args:?}: {}", run.stderr);
        assert!(!world.path("cache").exists(), "nothing was encoded");
        run.stderr
    };
    assert!(fails(&["--methods=coop-xmore"], 1).contains("--coop FILE"));
    assert!(fails(&["--methods=zero-shot,coop", "--coop", "@wide.safetensors"], 1).contains('7'));
    assert!(fails(&["--methods=zero-shot", "--coop", "@wide.safetensors"], 2).contains("no effect"));
}

/// One model searches, one ranks, one classifies: a suite takes them and records them.
#[test]
fn the_suites_take_three_models() {
    let world = World::new();
    let tiny = tiny_model().trim_start_matches("--model=").to_owned();
    world.run(&["memory", "embed", "@memory", "--model", &tiny]);
    let suite = ["--suite=paper-table1", "--data-root=@root", "--template=a {}.", "-k2"];
    let one = world.eval(&suite);
    let three = world.eval(&[&suite[..], &["--search-model", &tiny, "--rerank-model", &tiny]].concat());
    for (key, value) in [("search_model", &tiny), ("rerank_model", &tiny)] {
        assert_eq!(three[0]["settings"][key], **value);
        assert_eq!(one[0]["settings"][key], Value::Null);
    }
    assert_ne!(metrics(&three, "xmore")["nll"], metrics(&one, "xmore")["nll"]);
    assert_eq!(metrics(&three, "zero-shot"), metrics(&one, "zero-shot"));
}
