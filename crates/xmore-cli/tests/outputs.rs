//! Where results go and how names and texts of others are shown: streams, links and devices written through, names of any bytes,
//! control characters.
#![cfg(unix)]

mod support;

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use support::files::picture;
use support::{Xmore, tiny_model, xmore};

/// Pictures `0.png`, … in a folder of their own.
fn pictures(count: u64) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for i in 0..count {
        picture(&dir.path().join(format!("{i}.png")), i);
    }
    dir
}

/// A command with the tiny model; arguments are bytes.
fn tiny<S: AsRef<OsStr>>(args: &[S]) -> Xmore {
    let mut args: Vec<OsString> = args.iter().map(|arg| arg.as_ref().to_owned()).collect();
    args.push(tiny_model().into());
    xmore(&args)
}

fn embed(image: &Path, output: &Path) -> Xmore {
    tiny(&[OsStr::new("embed"), image.as_os_str(), OsStr::new("-o"), output.as_os_str()])
}

fn fifo(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

#[test]
fn embeddings_go_through_pipes_links_and_devices() {
    let dir = pictures(1);
    let (image, file) = (dir.path().join("0.png"), dir.path().join("out.npy"));
    embed(&image, &file).ok();
    let expected = fs::read(&file).unwrap();
    assert_eq!(npyz::NpyFile::new(&expected[..]).unwrap().shape(), [1, 16]);

    for name in ["-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"] {
        assert_eq!(embed(&image, Path::new(name)).bytes(), expected, "{name}");
    }
    let pipe = dir.path().join("fifo");
    fifo(&pipe);
    let from = pipe.clone();
    let reader = std::thread::spawn(move || fs::read(from).unwrap());
    embed(&image, &pipe).ok();
    assert_eq!(reader.join().unwrap(), expected);
    assert!(fs::symlink_metadata(&pipe).unwrap().file_type().is_fifo());

    let (link, target) = (dir.path().join("link.npy"), dir.path().join("target.npy"));
    symlink("target.npy", &link).unwrap();
    embed(&image, &link).ok();
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(fs::read(&target).unwrap(), expected);

    embed(&image, Path::new("/dev/null")).ok();
    assert!(fs::metadata("/dev/null").unwrap().file_type().is_char_device());
    let message = embed(&image, dir.path()).fails(1);
    assert!(message.contains("folder"), "{message}");
    // Nothing beside them is left.
    let mut names: Vec<_> =
        fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["0.png", "fifo", "link.npy", "out.npy", "target.npy"]);
}

#[test]
fn a_device_node_of_ones_own_stays_a_device() {
    let dir = pictures(1);
    let node = dir.path().join("node");
    // Only root may make one; everybody else is served by the test with FIFOs.
    if !Command::new("mknod").arg(&node).args(["c", "1", "3"]).status().is_ok_and(|status| status.success()) {
        return;
    }
    embed(&dir.path().join("0.png"), &node).ok();
    assert!(fs::metadata(&node).unwrap().file_type().is_char_device());
}

#[test]
fn results_of_eval_and_demo_are_written_through() {
    let dir = pictures(4);
    let set = dir.path().join("set");
    for (class, i) in [("dog", 0), ("dog", 1), ("cat", 2), ("cat", 3)] {
        fs::create_dir_all(set.join(class)).unwrap();
        fs::copy(dir.path().join(format!("{i}.png")), set.join(class).join(format!("{i}.png"))).unwrap();
    }
    for (flag, extension) in [("--output", "json"), ("--html", "html"), ("--per-image", "csv")] {
        let (link, target) =
            (dir.path().join(format!("link.{extension}")), dir.path().join(format!("target.{extension}")));
        fs::write(&target, "before").unwrap();
        symlink(&target, &link).unwrap();
        let inode = fs::symlink_metadata(&link).unwrap().ino();
        let set = set.display().to_string();
        let link_text = link.display().to_string();
        tiny(&["eval", &set, "--no-cache", "--bootstrap=100", "--methods=zero-shot", flag, &link_text]).ok();
        assert_eq!(fs::symlink_metadata(&link).unwrap().ino(), inode, "{flag}");
        assert!(fs::read_to_string(&target).unwrap().contains("zero-shot"), "{flag}");
        // Into a pipe, together with what is printed.
        let both = tiny(&[
            "eval",
            &set,
            "--no-cache",
            "--bootstrap=100",
            "--methods=zero-shot",
            "--per-image",
            "/dev/stdout",
        ])
        .ok();
        assert!(both.contains("\"label_probability\":"), "{both}");
    }
}

#[test]
fn every_form_takes_names_of_any_bytes() {
    let dir = pictures(1);
    let odd = dir.path().join(OsStr::from_bytes(b"caf\xe9.png"));
    fs::rename(dir.path().join("0.png"), &odd).unwrap();
    picture(&dir.path().join("ok.png"), 7);
    let classify = |format: &str| {
        tiny(&[
            OsStr::new("classify"),
            dir.path().as_os_str(),
            OsStr::new("--labels=a,b"),
            OsStr::new(format),
        ])
        .ok()
    };
    let uri = |text: &str| text.starts_with("file:") && text.ends_with("/caf%E9.png");
    let list: Vec<Value> = serde_json::from_str(&classify("--format=json")).unwrap();
    assert_eq!(list.len(), 2);
    assert!(uri(list[0]["image"].as_str().unwrap()), "{}", list[0]);
    let lines: Vec<Value> =
        classify("--format=jsonl").lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines, list);
    let csv = classify("--format=csv");
    assert!(uri(csv.lines().nth(1).unwrap().split(',').next().unwrap()), "{csv}");
    let table = classify("--format=table");
    assert!(table.contains("caf\\xe9.png\n") && table.contains("ok.png\n"), "{table}");

    // The same through eval.
    let set = dir.path().join("set");
    fs::create_dir_all(set.join("dog")).unwrap();
    fs::create_dir_all(set.join("cat")).unwrap();
    fs::rename(&odd, set.join("dog").join(odd.file_name().unwrap())).unwrap();
    fs::rename(dir.path().join("ok.png"), set.join("cat/ok.png")).unwrap();
    let per_image = dir.path().join("rows.jsonl");
    let [set, per_image] = [&set, &per_image].map(|path: &PathBuf| path.display().to_string());
    tiny(&["eval", &set, "--no-cache", "--bootstrap=100", "--methods=zero-shot", "--per-image", &per_image])
        .ok();
    let rows = fs::read_to_string(&per_image).unwrap();
    assert!(rows.contains("caf%E9.png\"") && rows.contains("ok.png\""), "{rows}");
}

#[test]
fn what_acts_on_terminals_is_shown_escaped() {
    let dir = pictures(2);
    let evil = "\u{1b}]0;gone\u{7}\u{202e}gpj";
    fs::write(dir.path().join("pairs.csv"), format!("image_path,caption\n0.png,{evil}\n1.png,plain\n"))
        .unwrap();
    let [table, memory, image] =
        ["pairs.csv", "memory", "0.png"].map(|n| dir.path().join(n).display().to_string());
    tiny(&["memory", "build", &table, "-o", &memory]).ok();
    let harmless = |text: &str| {
        let acting = |c: char| (c.is_control() && c != '\n') || ('\u{202a}'..='\u{202e}').contains(&c);
        assert!(!text.chars().any(acting), "{text:?}");
    };
    let labels = format!("--labels={evil},b");
    for args in [
        vec!["classify", &image, &labels, "--memory", &memory, "--explain"],
        vec!["classify", &image, &labels, "--memory", &memory, "--format=json"],
        vec!["memory", "search", &memory, "--text=x"],
        vec!["memory", "search", &memory, "--text=x", "--format=json"],
        vec!["classify", "\u{1b}[2J\u{202e}no.png", "--labels=a,b"],
        vec!["embed", "--texts", "\u{1b}[2J\u{202e}no.txt", "-o", "/dev/null"],
    ] {
        let run = tiny(&args).run();
        harmless(&run.stdout);
        harmless(&run.stderr);
        let all = run.stdout + &run.stderr;
        assert!(all.contains("\\u{202e}") || all.contains("\\u202e"), "{args:?}: {all}");
    }
    let found = xmore(&["memory", "duplicates", &memory, "--above=-1"]).ok();
    harmless(&found);
    // Data stay data.
    let rows = tiny(&["memory", "search", &memory, "--text=x", "--format=csv"]).ok();
    assert!(rows.contains(evil), "{rows:?}");
    let found = tiny(&["memory", "search", &memory, "--text=x", "--format=json"]).ok();
    let found: Vec<Value> = serde_json::from_str(&found).unwrap();
    assert!(found.iter().any(|row| row["caption"] == evil), "{found:?}");

    // A report that people read.
    let (set, page) = (dir.path().join("set\u{202e}gpj"), dir.path().join("page.html").display().to_string());
    for (class, name) in [("cat", "0.png"), ("dog", "1.png")] {
        fs::create_dir_all(set.join(class)).unwrap();
        fs::copy(dir.path().join(name), set.join(class).join(name)).unwrap();
    }
    let set = set.display().to_string();
    let run =
        tiny(&["eval", &set, "--no-cache", "--bootstrap=100", "--methods=zero-shot", "--html", &page]).run();
    assert_eq!(run.code, 0, "{}", run.stderr);
    let page = fs::read_to_string(page).unwrap();
    assert!(page.contains("\\u{202e}gpj") && !page.contains('\u{202e}'));
}

#[test]
fn one_dataset_that_fails_does_not_stop_the_others() {
    let dir = pictures(2);
    let set = dir.path().join("set");
    for (class, name) in [("cat", "0.png"), ("dog", "1.png")] {
        fs::create_dir_all(set.join(class)).unwrap();
        fs::rename(dir.path().join(name), set.join(class).join(name)).unwrap();
    }
    let bad = dir.path().join("bad.csv");
    fs::write(&bad, "nothing,of,this\n1,2,3\n").unwrap();
    let [set, bad] = [&set, &bad].map(|path| path.display().to_string());
    let run = tiny(&["eval", &bad, &set, "--no-cache", "--bootstrap=100", "--methods=zero-shot"]).run();
    assert_eq!(run.code, 1);
    assert!(run.stdout.contains("set: 2 images"), "{}", run.stdout);
    assert!(run.stderr.contains("bad.csv") && run.stderr.contains("1 of 2 datasets"), "{}", run.stderr);
    for name in ["-", "/dev/stdout"] {
        let all =
            tiny(&["eval", &set, "--no-cache", "--bootstrap=100", "--methods=zero-shot", "-o", name]).ok();
        assert!(all.contains("\"acc1\":"), "{all}");
    }
}

#[test]
fn a_photo_of_none_of_the_labels() {
    let dir = pictures(1);
    let image = dir.path().join("0.png").display().to_string();
    let classify = |more: &[&str]| tiny(&[&["classify", &image, "--labels=a,b"], more].concat()).ok();
    let one = |text: String| serde_json::from_str::<Value>(&text).unwrap();
    let answer = one(classify(&["--format=jsonl"]));
    let best = &answer["predictions"][0];
    assert_eq!(answer["label"], best["label"]);
    let (score, similarity) = (best["score"].as_f64().unwrap(), best["similarity"].as_f64().unwrap());
    assert!((-1.0..=1.0).contains(&similarity));
    for (flag, value) in [("--min-score", score), ("--min-similarity", similarity)] {
        let at = |value: f64| one(classify(&["--format=jsonl", &format!("{flag}={value}")]));
        assert_eq!(at(value - 1e-4)["label"], best["label"], "{flag}");
        let none = at(value + 1e-4);
        assert_eq!(none["label"], Value::Null, "{flag}");
        assert_eq!(none["predictions"], answer["predictions"], "the scores are kept");
    }
    let none = classify(&["--min-similarity=1"]);
    assert!(none.contains("none of these"), "{none}");
    let rows = classify(&["--min-similarity=1", "--format=csv"]);
    let row: Vec<&str> = rows.lines().nth(1).unwrap().split(',').collect();
    assert_eq!((rows.lines().count(), &row[1..3]), (2, &["1", ""][..]), "{rows}");
}

#[test]
fn sigmoid_scores_need_a_model_that_was_trained_so_and_a_method_of_the_image_alone() {
    let dir = pictures(1);
    let image = dir.path().join("0.png").display().to_string();
    let classify = |more: &[&str]| tiny(&[&["classify", &image, "--labels=a,b"], more].concat());
    assert_eq!(classify(&["--scores=softmax"]).ok(), classify(&[]).ok());
    let run = classify(&["--scores=sigmoid"]).run();
    assert_eq!((run.code, &*run.stdout), (2, ""), "{}", run.stderr);
    assert!(
        run.stderr.contains("no logit bias") && run.stderr.contains("--scores sigmoid"),
        "{}",
        run.stderr
    );
    let run = classify(&["--scores=other"]).run();
    assert_eq!(run.code, 2, "{}", run.stderr);
    assert!(run.stderr.contains("[possible values: softmax, sigmoid]"), "{}", run.stderr);
    fs::write(dir.path().join("pairs.csv"), "image_path,caption\n0.png,a cat\n").unwrap();
    let [pairs, memory] = ["pairs.csv", "memory"].map(|name| dir.path().join(name).display().to_string());
    tiny(&["memory", "build", &pairs, "-o", &memory]).ok();
    for (more, method) in
        [(&[][..], "xmore-kernel"), (&["--method=xmore"], "xmore"), (&["--method=equal"], "equal")]
    {
        let run = classify(&[&["--scores=sigmoid", "--memory", &memory], more].concat()).run();
        assert_eq!((run.code, &*run.stdout), (2, ""), "{}", run.stderr);
        let named = format!("method {method} has no sigmoid scores");
        assert!(run.stderr.contains(&named) && run.stderr.contains("--method zero-shot"), "{}", run.stderr);
    }
}
