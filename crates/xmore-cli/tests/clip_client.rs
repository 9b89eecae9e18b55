//! clip-retrieval's real Python client (PyPI `clip-retrieval`) against `xmore serve`.
//!
//! Its package is fetched with pip once and kept in the build folder. Without pip or network the test is skipped, visibly; under CI that
//! is a failure.

mod support;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use support::files::picture;
use support::{tiny_model, xmore_in};

/// A folder with the packages, or `None` where they cannot be had.
fn packages() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("clip-client");
    if folder.join("done").exists() {
        return Some(folder);
    }
    let _ = fs::remove_dir_all(&folder);
    let pip = |args: &[&str]| -> Result<(), String> {
        let mut command = Command::new("python3");
        command.args(["-m", "pip", "install", "--quiet", "--no-input", "--target"]).arg(&folder).args(args);
        let output = command.output().map_err(|error| error.to_string())?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.success() { Ok(()) } else { Err(said) }
    };
    // The client needs nothing of what the whole package needs.
    let done = pip(&["--no-deps", "clip-retrieval==2.45.0"]).and_then(|()| pip(&["requests==2.34.2"]));
    if let Err(reason) = done {
        assert!(std::env::var_os("CI").is_none(), "clip-retrieval could not be fetched: {reason}");
        eprintln!("SKIPPED: clip-retrieval could not be fetched: {reason}");
        return None;
    }
    fs::write(folder.join("done"), "").unwrap();
    Some(folder)
}

#[test]
fn clip_retrievals_own_client_works_against_a_memory_unchanged() {
    let Some(packages) = packages() else { return };
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let mut table = String::from("image_path,caption\n");
    for i in 0..8 {
        picture(&path(&format!("{i}.png")), i);
        table += &format!("{i}.png,a cat number {i}\n{i}.png,the dog of {i}\n");
    }
    fs::write(path("pairs.csv"), table).unwrap();
    let run = |args: &[&str]| xmore_in(dir.path(), args);
    run(&["memory", "build", "@pairs.csv", "-o", "@pets", &tiny_model()]).ok();
    let server = run(&["serve", "--memory", "@pets", "--addr", "127.0.0.1:0", "--api-key", "secret"]).serve();
    // The client has no option for a key; it is in the URL.
    let url = server.url.replace("http://", "http://any:secret@");
    let key = [("authorization", "Bearer secret")];
    let dim = server.get_with("/v1/info", &key).ok()["model"]["dim"].to_string();
    let mut python = Command::new("python3")
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clip_client.py"))
        .arg(&packages)
        .args([&url, "pets"])
        .arg(path("3.png"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap();
    python.stdin.take().unwrap().write_all(dim.as_bytes()).unwrap();
    let output = python.wait_with_output().unwrap();
    assert!(output.status.success());
    let got: Value = serde_json::from_slice(&output.stdout).unwrap();

    let retrieve = |query: Value| {
        let body = query.to_string();
        let headers = [key[0], ("content-type", "application/json")];
        server.send("POST", "/v1/retrieve", &headers, body.as_bytes()).ok()["results"][0]["pairs"].clone()
    };
    let same = |found: &Value, pairs: &Value| {
        let (found, pairs) = (found.as_array().unwrap(), pairs.as_array().unwrap());
        assert_eq!(found.len(), pairs.len());
        for (found, pair) in found.iter().zip(pairs) {
            for field in ["id", "similarity", "caption", "image_path"] {
                assert_eq!(found[field], pair[field]);
            }
            assert!(found["image"].as_str().is_some_and(|jpeg| jpeg.starts_with("/9j/")), "a JPEG in base64");
        }
    };
    assert_eq!(got["indices"], json!(["pets"]));
    same(&got["text"], &retrieve(json!({"text": "a dog", "n": 4})));
    same(&got["captions"], &retrieve(json!({"text": "a dog", "n": 4, "modality": "text"})));
    assert_eq!(got["image"][0]["image_path"], json!(path("3.png")));
    assert_eq!(got["image"][0]["id"], 6, "the first of its two captions; the other is a duplicate");
    assert!(got["image"].as_array().unwrap().iter().all(|hit| hit["id"] != 7));
    assert_eq!(got["embedding"].as_array().unwrap().len(), 4);
    for (metadata, hit) in got["metadata"].as_array().unwrap().iter().zip(got["text"].as_array().unwrap()) {
        assert_eq!((&metadata["id"], &metadata["metadata"]["caption"]), (&hit["id"], &hit["caption"]));
    }
    assert_eq!(got["url"]["error"]["code"], "disabled");
}
