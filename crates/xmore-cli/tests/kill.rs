//! Commands that write, stopped in the middle by a signal: which of them resume, and which do not. (`faults.rs` ends them at every call.)
#![cfg(unix)]

mod support;

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;
use support::files::{assert_same_files, copy_folder, source};
use support::{Xmore, tiny_model, xmore};

/// Pictures, a table, and folders for memories.
struct World {
    dir: tempfile::TempDir,
    model: String,
}

impl World {
    fn new(pictures: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        source(dir.path(), pictures, 9);
        let model = tiny_model();
        Self { dir, model }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// `xmore memory …` with a checkpoint after every batch.
    fn memory(&self, args: &[&str]) -> Xmore {
        let names: Vec<String> = args
            .iter()
            .map(|arg| {
                arg.strip_prefix('@').map_or((*arg).to_owned(), |name| self.path(name).display().to_string())
            })
            .collect();
        let mut all = vec!["memory"];
        all.extend(names.iter().map(String::as_str));
        // Many of the pictures cannot be read.
        xmore(&all).env("XMORE_CHECKPOINT_SECONDS", "0").env("XMORE_MAX_SKIPPED", "100%")
    }

    fn build(&self, memory: &str) -> Xmore {
        self.memory(&["build", "@pairs.csv", "-o", memory, &self.model])
    }

    /// Number of things that an unfinished build or append of `killed` has dealt with.
    fn consumed(&self) -> u64 {
        let state = fs::read(self.path("killed/.xmore-building/checkpoint.json")).unwrap_or_default();
        let state: Value = serde_json::from_slice(&state).unwrap_or_default();
        state["cursor"]["consumed"].as_u64().unwrap_or(0)
    }

    /// Number of pairs that `memory info` tells, `None` if it says that the memory is not complete.
    fn pairs(&self, memory: &str) -> Option<u64> {
        let run = self.memory(&["info", memory, "--format=json"]).run();
        if run.code == 0 {
            let info: Value = serde_json::from_str(&run.stdout).unwrap();
            return info["pairs"].as_u64();
        }
        assert_eq!(run.code, 1, "{}", run.stderr);
        let expected = ["is incomplete", "is not a memory", "No such file"];
        assert!(expected.iter().any(|told| run.stderr.contains(told)), "{}", run.stderr);
        None
    }
}

/// Moves every second picture, or moves it back.
fn move_half(world: &World, from: &str, to: &str) {
    fs::create_dir_all(world.path(to)).unwrap();
    for i in (0..1000).step_by(2) {
        let name = format!("{i:04}.png");
        let _ = fs::rename(world.path(from).join(&name), world.path(to).join(&name));
    }
}

/// Starts a build and kills it when it has written something.
fn begin_build(world: &World) {
    for _ in 0..20 {
        let _ = fs::remove_dir_all(world.path("killed"));
        let mut child = world.build("@killed").start_telling(&world.path("said.txt"));
        while world.consumed() == 0 && child.try_wait().unwrap().is_none() {
            std::thread::yield_now();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        if world.consumed() > 0 {
            return;
        }
    }
    panic!("no build was caught before its end");
}

#[test]
fn images_and_rows_that_come_while_a_build_is_interrupted_are_taken() {
    let world = World::new(320);
    world.build("@whole").ok();
    let table = fs::read_to_string(world.path("pairs.csv")).unwrap();
    move_half(&world, "photos", "away");
    let rows: Vec<&str> = table.lines().collect();
    fs::write(world.path("pairs.csv"), rows[..rows.len() / 2].join("\n")).unwrap();
    begin_build(&world);
    move_half(&world, "away", "photos");
    fs::write(world.path("pairs.csv"), &table).unwrap();
    let run = world.build("@killed").run();
    assert!(run.code == 0 && run.stderr.contains("resumed after "), "{}", run.stderr);
    assert_eq!(world.pairs("@killed"), world.pairs("@whole"));
    world.memory(&["verify", "@killed"]).ok();
    assert!(world.build("@killed").run().stderr.contains("nothing to do"));
}

#[test]
fn an_interrupted_append_is_not_resumed_from_other_sources() {
    let world = World::new(320);
    for name in ["first", "other"] {
        let table = format!("image_path,caption\nphotos/0001.png,{name}\n");
        fs::write(world.path(&format!("{name}.csv")), table).unwrap();
    }
    world.memory(&["build", "@first.csv", "-o", "@base", &world.model]).ok();
    for _ in 0..20 {
        copy_folder(&world.path("base"), &world.path("killed"));
        let mut child =
            world.memory(&["append", "@killed", "@pairs.csv"]).start_telling(&world.path("said.txt"));
        while world.consumed() == 0 && child.try_wait().unwrap().is_none() {
            std::thread::yield_now();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        if world.consumed() > 0 {
            let error = world.memory(&["append", "@killed", "@other.csv"]).fails(1);
            assert!(error.contains("have changed since it was interrupted"), "{error}");
            assert!(error.contains("killed/.xmore-building") && !error.contains("--overwrite"), "{error}");
            fs::remove_dir_all(world.path("killed/.xmore-building")).unwrap();
            world.memory(&["append", "@killed", "@other.csv"]).ok();
            assert_eq!(world.pairs("@killed"), Some(2));
            return;
        }
        fs::remove_dir_all(world.path("killed")).unwrap();
    }
    panic!("no append was caught before its end");
}

#[test]
fn ctrl_c_stops_after_the_batch_and_the_same_command_goes_on() {
    let world = World::new(320);
    world.build("@whole").ok();
    for _ in 0..20 {
        let _ = fs::remove_dir_all(world.path("killed"));
        let mut child = world.build("@killed").with_default_signals().start_telling(&world.path("said.txt"));
        while world.consumed() == 0 && child.try_wait().unwrap().is_none() {
            std::thread::yield_now();
        }
        Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
        let status = child.wait().unwrap();
        let said = fs::read_to_string(world.path("said.txt")).unwrap();
        if status.code() == Some(0) {
            // It was done before the signal came.
            continue;
        }
        assert_eq!(status.code(), Some(130), "{status} {said}");
        assert!(said.contains("stopping: what is done is kept"), "{said}");
        assert!(said.contains("stopped; ") && said.contains("the same command goes on with it"), "{said}");
        assert_eq!(world.pairs("@killed"), None);
        let run = world.build("@killed").run();
        assert_eq!(run.code, 0, "{}", run.stderr);
        assert!(run.stderr.contains("resumed after "), "{}", run.stderr);
        assert_same_files(&world.path("killed"), &world.path("whole"));
        return;
    }
    panic!("no build was caught before its end");
}
