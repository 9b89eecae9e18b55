//! `xmore eval` as a user runs it, on a tiny model with random weights: layouts of datasets, the cache, outputs, suites.

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use support::{fixture, tiny_model, xmore};

const PICTURES: [&str; 4] = ["wide.png", "grey.png", "large.png", "tall.png"];

/// The fixture pictures, two classes of two each, in whatever layout a test asks for; and a memory.
struct World(tempfile::TempDir);

impl World {
    fn new() -> Self {
        let world = Self(tempfile::tempdir().unwrap());
        for (i, name) in PICTURES.iter().enumerate() {
            world.copy(name, &format!("folder/{}/{name}", class(i).replace(' ', "_")));
        }
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    fn copy(&self, picture: &str, to: &str) {
        let to = self.path(to);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(fixture("images").join(picture), to).unwrap();
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// Builds a memory of the pictures.
    fn memory(&self) -> String {
        let rows: String =
            PICTURES.iter().map(|name| format!("{name},a photo of {name}\n{name},tall tree\n")).collect();
        PICTURES.iter().for_each(|name| self.copy(name, &format!("pairs/{name}")));
        self.write("pairs/pairs.csv", format!("image_path,caption\n{rows}"));
        let memory = self.text("memory");
        xmore(&["memory", "build", &self.text("pairs/pairs.csv"), "-o", &memory, &tiny_model()]).ok();
        memory
    }

    /// Runs `xmore eval` with the tiny model, keeping embeddings in this world.
    fn eval(&self, args: &[&str]) -> support::Run {
        let cache = self.text("cache");
        let model = tiny_model();
        let kept = if args.contains(&"--no-cache") { &[][..] } else { &["--cache-dir", &cache][..] };
        let args = [&["eval", &model, "--bootstrap=200"], kept, args].concat();
        xmore(&args).home(self.0.path()).run()
    }

    /// The JSON that it prints.
    fn json(&self, args: &[&str]) -> Vec<Value> {
        self.json_with(args, 0)
    }

    /// The same of a run with that exit status.
    fn json_with(&self, args: &[&str], code: i32) -> Vec<Value> {
        let run = self.eval(&[args, &["--format=json"]].concat());
        assert_eq!(run.code, code, "{}", run.stderr);
        serde_json::from_str(&run.stdout).unwrap()
    }

    #[track_caller]
    fn fails(&self, args: &[&str], code: i32) -> String {
        let run = self.eval(args);
        assert_eq!(run.code, code, "{}\n{}", run.stdout, run.stderr);
        assert!(!run.stderr.contains("panicked"), "{}", run.stderr);
        run.stderr
    }
}

fn class(i: usize) -> &'static str {
    if i < 2 { "dog" } else { "tall tree" }
}

fn method<'a>(entries: &'a [Value], name: &str) -> &'a Value {
    entries.iter().find(|entry| entry["method"] == name).unwrap_or_else(|| panic!("{name}: {entries:?}"))
}

fn zero_shot(entries: &[Value]) -> (u64, f64) {
    let entry = method(entries, "zero-shot");
    (entry["images"].as_u64().unwrap(), entry["metrics"]["acc1"].as_f64().unwrap())
}

#[test]
fn every_layout_of_the_same_images_gives_the_same_accuracy() {
    let world = World::new();
    let expected = zero_shot(&world.json(&[&world.text("folder"), "--methods=zero-shot"]));
    assert_eq!(expected.0, 4);

    let rows: String =
        PICTURES.iter().enumerate().map(|(i, name)| format!("{name},{},test\n", class(i))).collect();
    PICTURES.iter().for_each(|name| world.copy(name, &format!("table/{name}")));
    world.write("table/set.csv", format!("Filename,Class,split\n{rows}other.png,cat,train\n"));
    world.write("table/bare.csv", rows.replace(",test", ""));
    world.write("table/numbers.csv", rows.replace("dog", "0").replace("tall tree", "1"));
    world.write("table/names.txt", "dog\ntall tree\n");

    let items: Vec<Value> = PICTURES
        .iter()
        .enumerate()
        .map(|(i, name)| json!([format!("sub/{name}"), i / 2, class(i).replace(' ', "_")]))
        .collect();
    PICTURES.iter().for_each(|name| world.copy(name, &format!("coop/images/sub/{name}")));
    world.write(
        "coop/split_zhou_Coop.json",
        json!({"train": [["sub/x.png", 0, "dog"]], "val": [], "test": items}).to_string(),
    );

    for shard in 0..2 {
        let mut tar = tar::Builder::new(Vec::new());
        for i in [shard * 2, shard * 2 + 1] {
            let image = fs::read(fixture("images").join(PICTURES[i])).unwrap();
            for (name, data) in
                [(format!("s{i}.cls"), (i / 2).to_string().as_bytes()), (format!("s{i}.png"), &image)]
            {
                let mut header = tar::Header::new_gnu();
                header.set_size(data.len() as u64);
                header.set_mode(0o644);
                tar.append_data(&mut header, name, data).unwrap();
            }
        }
        world.write(&format!("wds/test/{shard}.tar"), tar.into_inner().unwrap());
    }
    world.write("wds/test/nshards.txt", "2\n");
    world.write("wds/classnames.txt", "dog\ntall tree\n");
    world.write("wds/zeroshot_classification_templates.txt", "a {c}.\nthe {c}\n");

    for (i, name) in PICTURES.iter().enumerate() {
        world.copy(name, &format!("wnids/n0000000{}/{name}", i / 2));
    }
    world.write("wnids/classnames.txt", "n00000000 dog\nn00000001 tall tree\n");

    for args in [
        vec!["table/set.csv"],
        vec!["table/bare.csv"],
        vec!["table/numbers.csv", "--class-names", "table/names.txt"],
        vec!["coop"],
        vec!["coop/split_zhou_Coop.json"],
        vec!["wds"],
        vec!["wds/test"],
        vec!["wnids"],
    ] {
        let args: Vec<String> =
            args.iter().map(|a| if a.starts_with("--") { (*a).to_owned() } else { world.text(a) }).collect();
        let args: Vec<&str> = args.iter().map(String::as_str).chain(["--methods=zero-shot"]).collect();
        assert_eq!(zero_shot(&world.json(&args)), expected, "{args:?}");
    }
    let own = world.json(&[&world.text("wds"), "--methods=all"]);
    assert_eq!(own[0]["dataset"], "wds");
    method(&own, "dataset-prompts");
}

#[test]
fn what_cannot_be_a_dataset_is_refused_with_what_to_do() {
    let world = World::new();
    world.write("odd.txt", "x");
    assert!(world.fails(&[&world.text("odd.txt")], 1).contains("expected a folder"));
    assert!(world.fails(&[&world.text("folder/dog")], 1).contains("found 0 such"));
    world.write("columns.csv", "a,b\n1,2\n");
    assert!(world.fails(&[&world.text("columns.csv")], 1).contains("image_path"));
    world.write("split/split_zhou_X.json", r#"{"test": [["../x.png", 0, "a"], ["y.png", 1, "b"]]}"#);
    assert!(world.fails(&[&world.text("split")], 1).contains("below the dataset"));
    world.write("split/split_zhou_X.json", r#"{"test": [["x.png", 0, "a"], ["y.png", 1, "b"]]}"#);
    assert!(world.fails(&[&world.text("split")], 1).contains("--image-root"));
    world.write("shards/nshards.txt", "3");
    world.write("shards/classnames.txt", "a\nb\n");
    assert!(world.fails(&[&world.text("shards")], 1).contains("0.tar is missing"));
    world.copy("one.png", "few/n01440764/a.png");
    world.copy("one.png", "few/n99999999/a.png");
    assert!(world.fails(&[&world.text("few")], 1).contains("no name for class n99999999"));
    let folder = world.text("folder");
    assert!(world.fails(&[&folder, "--methods=xmore"], 2).contains("--memory"));
    assert!(world.fails(&[&folder, "-k0,2", "--memory", &folder], 1).contains("k is 0"));
    assert!(world.fails(&[&folder, "--methods=dataset-prompts"], 1).contains("no prompts"));
    assert!(world.fails(&[&folder, "--methods=zero"], 2).contains("xmore-stream"));
    assert!(world.fails(&[&folder, "--variants=unnormalized", "--memory=x"], 2).contains("unit vectors"));
    assert!(world.fails(&["--dataset=mnist", "--data-root", &folder], 1).contains("EuroSAT"));
    assert!(world.fails(&["--suite=paper-table1"], 2).contains("--data-root"));
    assert!(
        world.fails(&[&folder, "--output=x", "--task=linear_probe"], 2).contains("zeroshot_classification")
    );
}

#[test]
fn a_second_run_encodes_nothing_and_an_interrupted_one_goes_on() {
    let world = World::new();
    let memory = world.memory();
    let folder = world.text("folder");
    let args =
        [folder.as_str(), "--memory", &memory, "-k2", "--methods=all", "--html", &world.text("a.html")];
    let first = world.json(&args);
    // Every picture becomes unreadable, but keeps its size and time.
    for (i, name) in PICTURES.iter().enumerate() {
        let path = world.path(&format!("folder/{}/{name}", class(i).replace(' ', "_")));
        let metadata = fs::metadata(&path).unwrap();
        fs::write(&path, vec![0; metadata.len() as usize]).unwrap();
        fs::File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_modified(metadata.modified().unwrap())
            .unwrap();
    }
    let run = world.eval(&[&args[..], &["--format=json"]].concat());
    assert!(run.stderr.contains("4 of 4 embeddings kept from before"), "{}", run.stderr);
    assert_eq!(serde_json::from_str::<Vec<Value>>(&run.stdout).unwrap(), first);

    // Without the cache they are what they are: unreadable, and counted.
    let broken = world.json_with(&[&folder, "--methods=zero-shot", "--no-cache"], 3);
    assert_eq!(
        (&broken[0]["images"], &broken[0]["unreadable"], &broken[0]["metrics"]["acc1"]),
        (&4.into(), &4.into(), &0.0.into())
    );
    // Chunks that are not there are encoded again.
    fs::remove_dir_all(world.path("cache")).unwrap();
    assert_eq!(world.json_with(&[&folder, "--methods=zero-shot"], 3)[0]["unreadable"], 4);
}

#[test]
fn results_follow_clip_benchmarks_schema_and_are_not_measured_twice() {
    let world = World::new();
    let memory = world.memory();
    let (folder, out) = (world.text("folder"), world.text("out"));
    let base = [
        folder.as_str(),
        "--memory",
        &memory,
        "-k",
        "1,2,4",
        "--methods=all",
        "--output",
        &out,
        "--seeds=3",
        "--abstain-below=0.5",
    ];
    let entries = world.json(&base);
    // A file for each method, which is an object.
    let read = |file: &Path| serde_json::from_str::<Value>(&fs::read_to_string(file).unwrap()).unwrap();
    let files: Vec<PathBuf> = fs::read_dir(&out).unwrap().map(|file| file.unwrap().path()).collect();
    assert_eq!(files.len(), entries.len());
    for file in &files {
        let mut object = read(file);
        assert!(file.to_str().unwrap().ends_with(&format!("_{}.json", object["method"].as_str().unwrap())));
        let methods = object.as_object_mut().unwrap().remove("methods").unwrap();
        assert_eq!(methods.as_array().unwrap().len(), entries.len());
        assert_eq!(&object, method(&entries, object["method"].as_str().unwrap()));
    }
    let file = files[0].clone();
    for entry in &entries {
        assert_eq!((&entry["task"], &entry["language"]), (&"zeroshot_classification".into(), &"en".into()));
        let metrics = entry["metrics"].as_object().unwrap();
        assert!(metrics["acc5"].is_null(), "two classes have no first five");
        for name in ["acc1", "mean_per_class_recall", "ece"] {
            assert!((0.0..=1.0).contains(&metrics[name].as_f64().unwrap()), "{name}");
        }
        // Both classes have two images, all readable. Of a stream method acc1 is the mean over the orders.
        let first = entry["details"]["acc1"].as_f64().unwrap();
        assert!((first - metrics["mean_per_class_recall"].as_f64().unwrap()).abs() < 1e-12);
        assert!(entry["details"]["selective"]["coverage"].as_f64().unwrap() > 0.0);
    }
    let xmore_ = method(&entries, "xmore");
    assert_eq!(
        xmore_["sweep"].as_array().unwrap().iter().map(|p| p["k"].as_u64().unwrap()).collect::<Vec<_>>(),
        [1, 2, 4]
    );
    assert_eq!(xmore_["variants"][0]["variant"], "without-query-duplicates");
    assert_eq!(method(&entries, "xmore-stream")["details"]["orders"]["count"], 3);
    assert_eq!(method(&entries, "tda")["details"]["comparisons"].as_array().unwrap().len(), 2);
    let naming = &xmore_["details"]["naming"];
    assert_eq!(naming["named"].as_u64().unwrap() + naming["unnamed"].as_u64().unwrap(), 4);
    assert!(naming["named"].as_u64().unwrap() >= 1, "tall tree is a caption of every picture: {naming}");

    fs::remove_dir_all(world.path("folder")).unwrap();
    let again = world.eval(&[&base[..], &["--skip-existing", "--format=json"]].concat());
    assert!(again.stderr.contains("taken from"), "{}", again.stderr);
    assert_eq!(serde_json::from_str::<Vec<Value>>(&again.stdout).unwrap(), entries);
    // As one list for each dataset, they are taken from before, too.
    fs::remove_dir_all(&out).unwrap();
    let model = entries[0]["model"].as_str().unwrap().replace(['/', ':'], "-");
    world.write(&format!("out/folder_{model}.json"), serde_json::to_string(&entries).unwrap());
    let former = world.eval(&[&base[..], &["--skip-existing", "--format=json"]].concat());
    assert_eq!(serde_json::from_str::<Vec<Value>>(&former.stdout).unwrap(), entries, "{}", former.stderr);
    let other = world.eval(&[&base[..], &["--skip-existing", "--seed=9"]].concat());
    assert!(other.code == 1 && other.stderr.contains("other settings"), "{}", other.stderr);
    fs::write(&file, "{}").unwrap();
    assert!(world.fails(&[&base[..], &["--skip-existing"]].concat(), 1).contains("found something else"));
    assert_eq!(fs::read_to_string(&file).unwrap(), "{}");
}

/// `clip_benchmark build` reads files of one object.
#[test]
fn one_result_is_an_object_and_several_are_a_list_or_lines() {
    let world = World::new();
    let (folder, table) = (world.text("folder"), world.text("set.csv"));
    let rows = PICTURES.iter().enumerate().map(|(i, name)| format!("pairs/{name},{}\n", class(i)));
    world.write("set.csv", format!("image_path,label\n{}", rows.collect::<String>()));
    PICTURES.iter().for_each(|name| world.copy(name, &format!("pairs/{name}")));
    let run = |args: &[&str]| {
        let run = world.eval(args);
        assert_eq!(run.code, 0, "{}", run.stderr);
        run.stderr
    };
    let json =
        |name: &str| serde_json::from_str::<Value>(&fs::read_to_string(world.path(name)).unwrap()).unwrap();
    let one = world.text("one.json");
    run(&[&folder, "--methods=zero-shot", "--output", &one]);
    let object = json("one.json");
    assert_eq!((&object["method"], &object["dataset"]), (&"zero-shot".into(), &"folder".into()));
    assert!(
        object["metrics"]["acc1"].is_f64()
            && object["pretrained"].is_string()
            && object.get("methods").is_none()
    );
    assert!(
        run(&[&folder, "--methods=zero-shot", "--output", &one, "--skip-existing"]).contains("taken from")
    );

    let told = run(&[&folder, "--methods=zero-shot,templates", "--output", &one]);
    assert!(told.contains("a list of 2 results"), "{told}");
    assert_eq!(json("one.json").as_array().unwrap().len(), 2);
    assert!(world.fails(&[&folder, &table, "--output", &one], 2).contains(".jsonl"));

    let lines = world.text("all.jsonl");
    let count = || fs::read_to_string(&lines).unwrap().lines().map(serde_json::from_str::<Value>).count();
    run(&[&folder, &table, "--methods=zero-shot,templates", "--output", &lines]);
    assert_eq!(count(), 4);
    // What is there is taken, and other datasets' lines stay.
    let told = run(&[&folder, "--methods=zero-shot,templates", "--output", &lines, "--skip-existing"]);
    assert!(told.contains("taken from") && count() == 4, "{told}");
    run(&[&folder, "--methods=zero-shot", "--output", &lines, "--skip-existing"]);
    assert_eq!(count(), 3);
    run(&[&folder, "--methods=zero-shot", "--output", &lines]);
    assert_eq!(count(), 1);

    run(&[&folder, "--methods=zero-shot,templates", "--output", &world.text("{dataset}-{method}.json")]);
    assert_eq!((&json("folder-templates.json")["method"]), "templates");
    // Two datasets of one name would be written to the same files.
    world.copy("one.png", "other/folder/a/1.png");
    world.copy("one.png", "other/folder/b/1.png");
    let both = [&folder[..], &world.text("other/folder"), "--output", &world.text("out")];
    assert!(world.fails(&both, 2).contains("one file"));
}

/// What cannot be written is told before anything is encoded.
#[test]
fn an_output_that_cannot_be_written_is_found_first() {
    let world = World::new();
    let folder = world.text("folder");
    world.write("file", "");
    for flag in ["--output", "--html", "--per-image"] {
        let error = world.fails(&[&folder, "--methods=zero-shot", flag, &world.text("file/x.json")], 1);
        assert!(error.contains("cannot write"), "{flag}: {error}");
    }
    assert!(!world.path("cache").exists());
}

#[test]
fn every_form_of_output_has_every_method() {
    let world = World::new();
    let memory = world.memory();
    let folder = world.text("folder");
    let (html, csv, lines) =
        (world.text("report.html"), world.text("images.csv"), world.text("images.jsonl"));
    let base =
        [folder.as_str(), "--memory", &memory, "-k2", "--methods=all", "--variants=unsorted,image-to-text"];
    let run = |more: &[&str]| {
        let run = world.eval(&[&base[..], more].concat());
        assert_eq!(run.code, 0, "{}", run.stderr);
        run.stdout
    };
    let table = run(&["--html", &html, "--per-image", &csv]);
    let markdown = run(&["--format=markdown", "--per-image", &lines]);
    let page = fs::read_to_string(&html).unwrap();
    let rows = run(&["--format=csv"]);
    for name in
        ["zero-shot", "templates", "captions", "equal", "xmore", "xmore-kernel", "xmore-stream", "tda"]
    {
        assert!(table.contains(name) && rows.contains(&format!("folder,{name},4,0,2,1,")), "{name}: {rows}");
        assert!(markdown.contains(&format!("| {name} |")) && page.contains(&format!(">{name}<")), "{name}");
    }
    for part in
        ["image-to-text", "unsorted", "without-query-duplicates", "ECE", "captions name the true class"]
    {
        assert!(table.contains(part) && page.contains(part), "{part}: {table}");
    }
    for part in ["<!DOCTYPE html>", "<svg class=\"square\"", "Answers that xmore changed"] {
        assert!(page.contains(part), "{part}");
    }
    assert!(!page.contains("http://") && !page.contains("<script"), "it needs nothing beside it");
    let per_image = fs::read_to_string(&csv).unwrap();
    assert_eq!(per_image.lines().count(), 1 + 4 * 8);
    let right = per_image.lines().filter(|l| l.contains(",zero-shot,") && l.contains(",true,")).count();
    let acc1 = method(&world.json(&base), "zero-shot")["metrics"]["acc1"].as_f64().unwrap();
    assert_eq!(right as f64 / 4.0, acc1);
    let first: Value =
        serde_json::from_str(fs::read_to_string(&lines).unwrap().lines().next().unwrap()).unwrap();
    assert_eq!((&first["dataset"], &first["label"]), (&"folder".into(), &"dog".into()));
}

#[test]
fn a_suite_goes_on_without_the_datasets_that_are_missing() {
    let world = World::new();
    let root = world.path("root");
    let items: Vec<Value> =
        PICTURES.iter().enumerate().map(|(i, name)| json!([name, i / 2, class(i)])).collect();
    PICTURES.iter().for_each(|name| world.copy(name, &format!("root/dtd/images/{name}")));
    world.write("root/dtd/split_zhou_DescribableTextures.json", json!({"test": items}).to_string());
    world.write("root/fgvc_aircraft/variants.txt", "707-320\nA 300\n");
    world.write("root/fgvc_aircraft/images_variant_test.txt", "1 A 300\n2 707-320\n");
    world.copy("one.png", "root/fgvc_aircraft/images/1.jpg");
    let root = root.display().to_string();
    // One of the two pictures of a dataset is missing.
    let run = world.eval(&["--suite=paper-table1", "--data-root", &root, "--max-skipped=1"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    for part in [
        "DTD: 4 images",
        "FGVCAircraft: 2 images, 1 of them unreadable",
        "EuroSAT is missing: looked for",
        "dataset-prompts",
        "paper-table1: top-1 %",
    ] {
        assert!(run.stdout.contains(part), "{part}: {}", run.stdout);
    }
    assert!(!run.stdout.contains("published: CLIP"), "the tiny model is none of the paper's backbones");
    // clip_benchmark's spelling.
    let named = ["--dataset=vtab/dtd", "--dataset_root", &root, "--batch_size=64", "--num_workers", "4"];
    assert_eq!(world.json(&named)[0]["dataset"], "DTD");
    assert_eq!(world.json(&["dtd", "--data-root", &root])[0]["dataset"], "DTD");
    assert!(world.fails(&["--suite=paper-table2", "--data-root", &root], 1).contains("none of the datasets"));
    assert!(world.fails(&["--suite=paper-k", "--data-root", &root], 2).contains("--memory"));
}

#[test]
fn imagenets_shifts_have_their_own_classes() {
    let world = World::new();
    let root = world.path("root");
    let wnid = Path::new("root/imagenet-adversarial/imagenet-a");
    world.copy("one.png", &wnid.join("n01498041/a.png").display().to_string());
    // A class of ImageNet that ImageNet-A does not have.
    world.copy("one.png", &wnid.join("n01440764/a.png").display().to_string());
    world.copy("one.png", "root/imagenetv2/imagenetv2-matched-frequency-format-val/0/a.jpeg");
    world.copy("one.png", "root/imagenetv2/imagenetv2-matched-frequency-format-val/999/a.jpeg");
    let root = root.display().to_string();
    let entries =
        world.json(&["--dataset=imagenet-a,imagenetv2", "--data-root", &root, "--methods=zero-shot"]);
    assert_eq!((&entries[0]["classes"], &entries[0]["images"]), (&200.into(), &1.into()));
    assert_eq!((&entries[1]["classes"], &entries[1]["images"]), (&1000.into(), &2.into()));
    assert_eq!(entries[1]["dataset"], "ImageNet-V2");
}
