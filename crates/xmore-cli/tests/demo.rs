//! `xmore demo --pairs` from end to end, with the small test model and pictures made here.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use image::RgbImage;
use serde_json::Value;

/// `count` pictures of one color with stripes, each different, with captions.
fn put(dir: &Path, folder: &str, count: u32, color: [u8; 3]) {
    fs::create_dir_all(dir.join(folder)).unwrap();
    for i in 0..count {
        let picture = RgbImage::from_fn(200 + i, 120, |x, y| {
            image::Rgb(color.map(|c| if (x / (2 + i)) % 2 == y % 2 { c } else { 255 - c / 2 }))
        });
        let path = dir.join(folder).join(format!("{i}.png"));
        picture.save(&path).unwrap();
        fs::write(path.with_extension("txt"), format!("A {folder} <thing> with {i} stripes.\n")).unwrap();
    }
}

fn pairs() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    put(dir.path(), "red_cloth", 7, [200, 20, 20]);
    put(dir.path(), "sea", 6, [10, 60, 200]);
    put(dir.path(), "grass", 6, [20, 180, 40]);
    put(dir.path(), "rare", 2, [0, 0, 0]);
    fs::write(dir.path().join("sea/broken.png"), "no picture").unwrap();
    fs::write(dir.path().join("sea/broken.txt"), "A broken picture.").unwrap();
    dir
}

fn demo(pairs: &Path, output: &Path, more: &[&str]) -> Output {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../xmore-clip/tests/fixtures/tiny");
    Command::new(env!("CARGO_BIN_EXE_xmore"))
        .args(["demo", "--model", &format!("local-dir:{}", model.display()), "--pairs"])
        .arg(pairs)
        .arg("--output")
        .arg(output)
        .args(more)
        .output()
        .unwrap()
}

fn json(output: &Output) -> Value {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn own_pairs_give_figures_and_a_self_contained_report() {
    let (pairs, out) = (pairs(), tempfile::tempdir().unwrap());
    let report = out.path().join("new/report.html");
    let run = || json(&demo(pairs.path(), &report, &["--format", "json", "--splits", "3", "-k", "4"]));
    let result = run();
    assert_eq!(result["splits"], 3);
    assert_eq!((&result["pairs"], &result["labels"]), (&Value::from(19), &Value::from(3)));
    assert_eq!(result["queries"], 15);
    let methods = result["methods"].as_object().unwrap();
    assert_eq!(methods.len(), 6);
    for (method, figures) in methods {
        let mean = figures["acc1_mean"].as_f64().unwrap();
        // Every accuracy is a count out of 5, so the mean of three is one out of 15.
        assert!(
            (0.0..=1.0).contains(&mean) && ((mean * 15.0).round() - mean * 15.0).abs() < 1e-9,
            "{method} {mean}"
        );
        assert!(figures["acc1_std"].as_f64().unwrap() >= 0.0);
    }
    // A tenth of 14 pairs in memory is less than the 4 captions asked for.
    assert_eq!(result["neighbors"], 4);
    assert_eq!(result["k_sweep"].as_array().unwrap().len(), 4);
    assert_eq!(result["neighbor_sweep"][0]["neighbors"], 8);
    let skipped = result["skipped"].to_string();
    assert!(skipped.contains("broken.png") && skipped.contains("rare"), "{skipped}");
    assert_eq!(run(), result);

    let named = PathBuf::from(result["report"].as_str().unwrap());
    assert!(named.is_absolute());
    self_contained(&fs::read_to_string(named).unwrap());
}

fn self_contained(page: &str) {
    assert!(page.starts_with("<!DOCTYPE html>") && page.ends_with("</html>"));
    for outside in ["<link", "<script", "<iframe", "@import", "url(", "srcset", "//fonts"] {
        assert!(!page.contains(outside), "{outside}");
    }
    for (at, _) in page.match_indices("http") {
        assert!(page[..at].ends_with("<a href=\""), "not a link: {}", &page[at..at + 40]);
    }
    assert!(!page.contains("<thing>"), "captions must be escaped");
    let mut pictures = 0;
    for (at, src) in page.match_indices(" src=\"") {
        let value = page[at + src.len()..].split('"').next().unwrap();
        let data = value.strip_prefix("data:image/jpeg;base64,").expect("every picture is in the page");
        let picture = image::load_from_memory(&STANDARD.decode(data).unwrap()).unwrap();
        assert!(picture.width().max(picture.height()) <= 160);
        pictures += 1;
    }
    assert!(pictures >= 3, "one of each label at least, found {pictures}");
    assert_eq!(page.matches("<img").count(), page.matches(" alt=\"").count());
    for method in ["zero-shot", "templates", "captions", "equal", "xmore"] {
        assert!(page.contains(method));
    }
}

#[test]
fn a_single_split_has_a_table_and_no_deviation() {
    let (pairs, out) = (pairs(), tempfile::tempdir().unwrap());
    let output = demo(pairs.path(), &out.path().join("report.html"), &["--splits", "1"]);
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(stdout.contains("zero-shot") && stdout.contains("xmore-kernel changed"), "{stdout}");
    assert!(!stdout.contains('±'), "{stdout}");
    assert!(stdout.trim_end().ends_with("report.html"), "{stdout}");
}

#[test]
fn mistakes_are_told_before_any_work() {
    let (pairs, out) = (pairs(), tempfile::tempdir().unwrap());
    let report = out.path().join("report.html");
    let refused = |pairs: &Path, output: &Path, more: &[&str]| {
        let output = demo(pairs, output, more);
        assert!(!output.status.success() && output.stdout.is_empty());
        String::from_utf8(output.stderr).unwrap()
    };
    let message = refused(&pairs.path().join("none"), &report, &[]);
    assert!(message.contains("none") && message.contains("expected a folder"), "{message}");
    let message = refused(&pairs.path().join("sea"), &report, &[]);
    assert!(message.contains("at least two sub-folders"), "{message}");
    let message = refused(pairs.path(), &report, &["-k", "0"]);
    assert!(message.contains("k is 0"), "{message}");
    let message = refused(pairs.path(), &report, &["--neighbors", "15"]);
    assert!(message.contains("k is 16, but only 15"), "{message}");
    let message = refused(pairs.path(), &report, &["--splits", "0"]);
    assert!(message.contains("--splits"), "{message}");
    let message = refused(pairs.path(), out.path(), &[]);
    assert!(message.contains("found a folder"), "{message}");
    assert!(!report.exists());
}
