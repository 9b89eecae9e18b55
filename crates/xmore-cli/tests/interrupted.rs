//! Signals, and refused threads and memory: what is done is kept, and every command ends.
#![cfg(target_os = "linux")]

mod support;

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use serde_json::Value;
use support::files::picture;
use support::{Xmore, tiny_model, xmore};

/// How often the same picture is named: more than is classified at once.
const PHOTOS: usize = 700;

fn image(dir: &Path) -> String {
    picture(&dir.join("0.png"), 1);
    dir.join("0.png").display().to_string()
}

/// `classify` of many photos, whose output does not fit into a pipe: it waits until it is read.
fn classify(image: &str, format: &str) -> Xmore {
    classify_with(60, image, format)
}

/// The same with that many labels, all of them in each image's output.
fn classify_with(labels: usize, image: &str, format: &str) -> Xmore {
    let top = format!("--top={labels}");
    let labels =
        (0..labels).map(|n| format!("a label of some length with number {n}")).collect::<Vec<_>>().join(",");
    let mut args = vec!["classify".to_owned(), format!("--labels={labels}"), format!("--format={format}")];
    args.extend([tiny_model(), top]);
    args.extend(std::iter::repeat_n(image.to_owned(), PHOTOS));
    xmore(&args)
}

fn signal(child: &Child, name: &str) {
    assert!(Command::new("kill").args([name, &child.id().to_string()]).status().unwrap().success());
}

/// The exit status, with a bound on the wait that only a hang reaches.
#[track_caller]
fn ended(child: &mut Child) -> i32 {
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(300) {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code().unwrap_or_else(|| panic!("it died: {status}"));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().unwrap();
    panic!("it did not end");
}

#[test]
fn an_interrupted_classification_keeps_what_is_done() {
    let dir = tempfile::tempdir().unwrap();
    let image = image(dir.path());
    for (format, name, status) in
        [("csv", "-INT", 130), ("jsonl", "-TERM", 143), ("json", "-INT", 130), ("table", "-HUP", 129)]
    {
        let mut child = classify(&image, format).with_default_signals().start_piped();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        // From the first byte on it waits for us to read on.
        assert!(!stdout.fill_buf().unwrap().is_empty());
        signal(&child, name);
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut said = String::new();
        while !said.contains("stopping") {
            assert!(stderr.read_line(&mut said).unwrap() > 0, "{said}");
        }
        let mut text = String::new();
        stdout.read_to_string(&mut text).unwrap();
        stderr.read_to_string(&mut said).unwrap();
        assert_eq!(ended(&mut child), status, "{said}");
        let done = said.split("interrupted after ").nth(1).unwrap().split(' ').next().unwrap();
        let done: usize = done.parse().unwrap();
        assert!(said.contains(&format!("interrupted after {done} of {PHOTOS} images")), "{said}");
        assert!((1..PHOTOS).contains(&done), "{done}");
        let found = match format {
            "csv" => {
                let rows = csv::Reader::from_reader(text.as_bytes()).records().map(Result::unwrap).count();
                assert_eq!(rows % 60, 0);
                rows / 60
            }
            "jsonl" => {
                text.lines().filter(|line| serde_json::from_str::<Value>(line).unwrap().is_object()).count()
            }
            "json" => serde_json::from_str::<Vec<Value>>(&text).unwrap().len(),
            _ => text.lines().filter(|line| line.ends_with("0.png")).count(),
        };
        assert_eq!(found, done, "{format}");
    }
}

#[test]
fn a_signal_that_the_caller_ignores_stays_ignored() {
    let dir = tempfile::tempdir().unwrap();
    let mut child =
        classify(&image(dir.path()), "jsonl").ignoring("HUP").with_default_signals().start_piped();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    assert!(!stdout.fill_buf().unwrap().is_empty());
    signal(&child, "-HUP");
    assert_eq!(stdout.lines().count(), PHOTOS);
    assert_eq!(ended(&mut child), 0);
}

#[test]
fn a_second_signal_ends_a_command_that_waits() {
    let dir = tempfile::tempdir().unwrap();
    // Each line is longer than a pipe's buffer: from the first byte on the command blocks within one write.
    let mut child = classify_with(2_000, &image(dir.path()), "jsonl").with_default_signals().start_piped();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    assert!(!stdout.fill_buf().unwrap().is_empty());
    signal(&child, "-TERM");
    // Warnings may come before. Two signals at once would be received in the order of their numbers.
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut said = String::new();
    while !said.contains("stopping") {
        assert!(stderr.read_line(&mut said).unwrap() > 0, "{said}");
    }
    signal(&child, "-INT");
    assert_eq!(ended(&mut child), 130);
    drop(stdout);
}

#[test]
fn one_signal_ends_what_has_nothing_to_keep() {
    let dir = tempfile::tempdir().unwrap();
    let image = image(dir.path());
    // A server that never answers.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let index = format!("knn+http://{}", silent.local_addr().unwrap());
    let fifo = dir.path().join("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let fifo = fifo.display().to_string();
    let memory = ["memory", "search", &index, "--image", &image, &tiny_model()];
    let output = ["embed", &image, "-o", &fifo, &tiny_model()];
    for (args, name, status) in [(&memory[..], "-TERM", 143), (&output, "-INT", 130), (&output, "-TERM", 143)]
    {
        let mut child = xmore(args).with_default_signals().start();
        if args == memory {
            // It has sent its request.
            let (mut stream, _) = silent.accept().unwrap();
            assert!(stream.read(&mut [0; 1]).unwrap() > 0);
            signal(&child, name);
            assert_eq!(ended(&mut child), status, "{args:?}");
        } else {
            std::thread::sleep(Duration::from_millis(300));
            signal(&child, name);
            let status_found = child.wait().unwrap();
            // A signal before the handler is there ends it as well.
            assert!(status_found.code().is_none_or(|code| code == status), "{args:?}: {status_found}");
        }
    }
}

/// Written by another process: a file that a process started meanwhile still has open for writing cannot be run.
fn script(path: &Path, text: &str) {
    let write = "printf %s \"$1\" > \"$0\" && chmod 755 \"$0\"";
    assert!(Command::new("sh").args(["-c", write]).arg(path).arg(text).status().unwrap().success());
}

#[test]
fn download_tools_end_with_the_command() {
    let dir = tempfile::tempdir().unwrap();
    let bin = dir.path().join("bin");
    fs::create_dir(&bin).unwrap();
    for name in ["pip", "pip3", "python3", "python", "uv"] {
        let tool = bin.join(name);
        script(&tool, &format!("#!/bin/sh\necho $$ > {}/pid\nexec sleep 600\n", dir.path().display()));
    }
    let path = format!("{}:/usr/bin:/bin", bin.display());
    let mut child = xmore(&["model", "fetch", "lite"])
        .home(&dir.path().join("home"))
        .env("PATH", path)
        .with_default_signals()
        .start();
    let pid = loop {
        if let Some(pid) = fs::read_to_string(dir.path().join("pid")).ok().filter(|pid| pid.ends_with('\n')) {
            break pid;
        }
        assert!(child.try_wait().unwrap().is_none(), "it ran no tool");
        std::thread::sleep(Duration::from_millis(5));
    };
    signal(&child, "-TERM");
    assert_eq!(ended(&mut child), 143);
    let alive = || {
        let state = fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
        // A process that has ended and was not waited for is a zombie.
        !state.is_empty() && !state.contains(") Z ")
    };
    let start = Instant::now();
    while alive() {
        assert!(start.elapsed() < Duration::from_secs(30), "the tool outlived the command");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn an_interrupted_embedding_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let photos = dir.path().join("photos");
    fs::create_dir(&photos).unwrap();
    for i in 0..600 {
        picture(&photos.join(format!("{i:03}.png")), i);
    }
    let [photos_text, whole, killed, partial] = ["photos", "whole.npy", "killed.npy", "killed.npy.partial"]
        .map(|name| dir.path().join(name).display().to_string());
    let embed = |output: &str| xmore(&["embed", &photos_text, "-o", output, &tiny_model()]);
    embed(&whole).ok();
    for (n, (name, status)) in
        [("-INT", Some(130)), ("-KILL", None), ("-TERM", Some(143))].into_iter().enumerate()
    {
        let mut child = embed(&killed).with_default_signals().start();
        // Some rows more than before.
        let before = fs::metadata(&partial).map_or(0, |metadata| metadata.len());
        while fs::metadata(&partial).map_or(0, |metadata| metadata.len()) <= before.max(100) {
            if child.try_wait().unwrap().is_some() {
                break;
            }
            std::thread::yield_now();
        }
        signal(&child, name);
        let found = child.wait().unwrap();
        if found.code() == Some(0) {
            continue;
        }
        assert_eq!(found.code(), status, "{name}");
        assert!(!Path::new(&killed).exists() && Path::new(&partial).exists(), "round {n}");
    }
    // A picture that came meanwhile is taken too.
    picture(&photos.join("zzz.png"), 9);
    let said = embed(&killed).run().stderr;
    embed(&whole).ok();
    assert!(fs::read(&killed).unwrap() == fs::read(&whole).unwrap(), "{said}");
    assert!(!Path::new(&partial).exists());
    let mut left: Vec<_> =
        fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    // SIGKILL alone may leave a temporary file.
    left.retain(|name| !name.to_string_lossy().starts_with(".xmore-"));
    left.sort();
    assert_eq!(left, ["killed.npy", "photos", "whole.npy"]);
}

#[test]
fn refused_threads_and_memory_are_errors() {
    let dir = tempfile::tempdir().unwrap();
    let image = image(dir.path());
    let args = ["classify", &image, "--labels=a,b", &tiny_model()];
    for threads in ["0", "2000", "99999999999999999999"] {
        let said = xmore(&[&args[..], &["--threads", threads]].concat()).fails(2);
        assert!(said.contains("expected 1 to "), "{said}");
    }
    // From what is enough for nothing to what is enough: an answer, or an error.
    let mut answers = 0;
    for kilobytes in [70_000, 100_000, 140_000, 200_000, 300_000, 4_000_000] {
        let run = xmore(&args).env("RUST_BACKTRACE", "0").with_address_space(kilobytes).run();
        assert!(matches!(run.code, 0 | 1), "{kilobytes} kB: {} {}", run.code, run.stderr);
        assert!(!run.stderr.contains("panicked") && !run.stderr.contains("backtrace"), "{}", run.stderr);
        assert!(run.code == 0 || !run.stderr.is_empty());
        answers += usize::from(run.code == 0);
    }
    assert!(answers > 0);
}
