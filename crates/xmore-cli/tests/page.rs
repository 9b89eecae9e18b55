//! The web page in a real Chromium, driven by playwright-core, against `xmore serve` (`crates/xmore-server/tests/page/`).
//!
//! Needs node, npm and a Chromium (`CHROMIUM` names another one than `chromium`); playwright-core is fetched with npm once and kept in
//! the build folder. Where something is missing the test is skipped, visibly; under CI that is a failure. Screenshots stay in the build
//! folder, `tmp/page/shots`.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use support::files::{noise_jpeg, picture};
use support::{tiny_model, xmore_in};

/// A folder with the scripts and what they need.
fn scripts() -> Result<PathBuf, String> {
    let chromium = std::env::var("CHROMIUM").unwrap_or_else(|_| "chromium".to_owned());
    for (program, argument) in [("node", "--version"), ("npm", "--version"), (chromium.as_str(), "--version")]
    {
        Command::new(program).arg(argument).output().map_err(|error| format!("{program}: {error}"))?;
    }
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../xmore-server/tests/page");
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("page");
    fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            fs::copy(&path, folder.join(path.file_name().unwrap())).unwrap();
        }
    }
    let mut npm = Command::new("npm");
    npm.args(["install", "--no-package-lock", "--no-audit", "--no-fund"]).current_dir(&folder);
    let output = npm.output().map_err(|error| format!("npm: {error}"))?;
    if output.status.success() {
        Ok(folder)
    } else {
        Err(format!("npm install: {}", String::from_utf8_lossy(&output.stderr)))
    }
}

#[test]
fn a_person_drops_an_image_and_sees_why_the_answer_changed() {
    let scripts = match scripts() {
        Ok(scripts) => scripts,
        Err(reason) => {
            assert!(std::env::var_os("CI").is_none(), "the page cannot be driven: {reason}");
            eprintln!("SKIPPED: the page cannot be driven: {reason}");
            return;
        }
    };
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let mut table = String::from("image_path,caption\n");
    for i in 0..24 {
        picture(&path(&format!("{i}.png")), i);
        for what in ["a cat sleeps", "the dog runs", "a child and a bicycle"] {
            table += &format!("{i}.png,{what} on picture {i}\n");
        }
    }
    fs::write(path("pairs.csv"), table).unwrap();
    picture(&path("query.png"), 100);
    fs::write(path("photo.jpg"), noise_jpeg(6 << 20)).unwrap();
    let run = |args: &[&str]| xmore_in(dir.path(), args);
    run(&["memory", "build", "@pairs.csv", "-o", "@memory", &tiny_model()]).ok();
    let serve = ["serve", "--memory", "@memory", "--addr", "127.0.0.1:0"];
    let open = run(&[&serve[..], &["--label-sets", "@sets", "--save-label-sets"]].concat()).serve();
    let keyed = run(&[&serve[..], &["--api-key", "secret"]].concat()).serve();
    let alone = run(&["serve", "--addr", "127.0.0.1:0", &tiny_model()]).serve();
    let output = Command::new("node")
        .arg(scripts.join("e2e.mjs"))
        .arg(&open.url)
        .arg(path("query.png"))
        .arg(scripts.join("shots"))
        .args([&keyed.url, "secret"])
        .arg(format!("--without-memory={}", alone.url))
        .arg(format!("--photo={}", path("photo.jpg").display()))
        .output()
        .unwrap();
    let told =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    println!("{told}");
    assert!(output.status.success(), "{told}");
    for server in [open, keyed, alone] {
        let (code, said) = server.stop();
        assert_eq!(code, 0, "{said}");
        assert!(!said.contains("panicked"), "{said}");
    }
}
