//! Commands that write, killed at random moments: run again, they end with the bytes of an undisturbed run.
#![cfg(unix)]

mod support;

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;
use support::files::{Random, assert_same_files, copy_folder, second_model, source};
use support::{Xmore, tiny_model, xmore};

/// Kills commands at random moments.
struct Killer {
    random: Random,
    /// Where commands tell what they do.
    said: PathBuf,
    /// How long an undisturbed run takes.
    took: Duration,
    /// Runs that were killed, and runs that ended before.
    killed: u32,
    too_late: u32,
}

impl Killer {
    fn new(dir: &Path, took: Duration) -> Self {
        let seed = std::env::var("XMORE_TEST_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(0x5eed);
        println!("XMORE_TEST_SEED={seed}, an undisturbed run takes {took:?}");
        Self { random: Random(seed), said: dir.join("said.txt"), took, killed: 0, too_late: 0 }
    }

    /// Runs a command again and again until it ends by itself, with success; `after` looks at what each kill left.
    fn until_done(&mut self, command: &dyn Fn() -> Xmore, after: &dyn Fn()) {
        loop {
            // Later runs have less to do: half of the delays are short.
            let longest = self.took.mul_f64(if self.random.below(2) == 0 { 1.1 } else { 0.4 });
            let delay = longest.mul_f64(self.random.unit());
            if self.run(command, &mut || std::thread::sleep(delay)) {
                return;
            }
            after();
        }
    }

    /// Kills a command when `until` returns; says whether it had ended by itself before.
    fn run(&mut self, command: &dyn Fn() -> Xmore, until: &mut dyn FnMut()) -> bool {
        let mut child = command().start_telling(&self.said);
        until();
        child.kill().unwrap();
        let status = child.wait().unwrap();
        if status.signal() == Some(9) {
            self.killed += 1;
            return false;
        }
        let said = fs::read_to_string(&self.said).unwrap();
        assert_eq!(status.code(), Some(0), "a run after {} kills failed: {said}", self.killed);
        self.too_late += 1;
        true
    }

    fn assert_most_were_killed(&self) {
        println!("{} runs killed, {} ended before", self.killed, self.too_late);
        assert!(self.killed >= self.too_late, "{} killed, {} ended before", self.killed, self.too_late);
    }
}

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
        xmore(&all).env("XMORE_CHECKPOINT_SECONDS", "0")
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

    /// Runs a command undisturbed; returns how long it takes.
    fn time(&self, command: Xmore) -> Duration {
        let start = Instant::now();
        command.ok();
        start.elapsed()
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

#[test]
fn a_build_killed_at_any_moment_ends_with_the_bytes_of_an_undisturbed_one() {
    let world = World::new(320);
    let took = world.time(world.build("@whole"));
    let whole = world.pairs("@whole").unwrap();
    let mut killer = Killer::new(world.dir.path(), took);
    while killer.killed < 50 {
        killer.until_done(&|| world.build("@killed"), &|| {
            assert!([None, Some(whole)].contains(&world.pairs("@killed")));
        });
        assert_same_files(&world.path("killed"), &world.path("whole"));
        fs::remove_dir_all(world.path("killed")).unwrap();
    }
    killer.assert_most_were_killed();
}

#[test]
fn an_append_killed_at_any_moment_ends_with_the_bytes_of_an_undisturbed_one() {
    let world = World::new(160);
    fs::write(world.path("first.csv"), "image_path,caption\nphotos/0001.png,the first\n").unwrap();
    world.memory(&["build", "@first.csv", "-o", "@base", &world.model]).ok();
    copy_folder(&world.path("base"), &world.path("whole"));
    let append = |memory| world.memory(&["append", memory, "@pairs.csv"]);
    let took = world.time(append("@whole"));
    let whole = world.pairs("@whole").unwrap();
    let mut killer = Killer::new(world.dir.path(), took);
    while killer.killed < 15 {
        copy_folder(&world.path("base"), &world.path("killed"));
        killer.until_done(&|| append("@killed"), &|| {
            assert!([Some(1), Some(whole)].contains(&world.pairs("@killed")), "a reader sees all or nothing");
        });
        assert_same_files(&world.path("killed"), &world.path("whole"));
        fs::remove_dir_all(world.path("killed")).unwrap();
    }
    killer.assert_most_were_killed();
}

#[test]
fn embedding_by_another_model_killed_at_any_moment_ends_with_the_bytes_of_an_undisturbed_run() {
    let world = World::new(96);
    let second = format!("--model={}", second_model(world.dir.path()));
    world.build("@base").ok();
    let pairs = world.pairs("@base");
    copy_folder(&world.path("base"), &world.path("whole"));
    let embed = |memory| world.memory(&["embed", memory, &second]);
    let took = world.time(embed("@whole"));
    let mut killer = Killer::new(world.dir.path(), took);
    while killer.killed < 15 {
        copy_folder(&world.path("base"), &world.path("killed"));
        killer.until_done(&|| embed("@killed"), &|| assert_eq!(world.pairs("@killed"), pairs));
        assert_same_files(&world.path("killed"), &world.path("whole"));
        fs::remove_dir_all(world.path("killed")).unwrap();
    }
    killer.assert_most_were_killed();
}

#[test]
fn a_memory_that_is_being_replaced_stays_readable_or_is_told_to_be_incomplete() {
    let world = World::new(160);
    fs::write(world.path("old.csv"), "image_path,caption\nphotos/0001.png,the old one\n").unwrap();
    world.memory(&["build", "@old.csv", "-o", "@old", &world.model]).ok();
    let overwrite =
        |memory| world.memory(&["build", "@pairs.csv", "--overwrite", "-o", memory, &world.model]);
    copy_folder(&world.path("old"), &world.path("whole"));
    let took = world.time(overwrite("@whole"));
    let whole = world.pairs("@whole").unwrap();
    let mut killer = Killer::new(world.dir.path(), took);
    while killer.killed < 15 {
        copy_folder(&world.path("old"), &world.path("killed"));
        killer.until_done(&|| overwrite("@killed"), &|| {
            assert!([None, Some(1), Some(whole)].contains(&world.pairs("@killed")));
        });
        assert_same_files(&world.path("killed"), &world.path("whole"));
        fs::remove_dir_all(world.path("killed")).unwrap();
    }
    killer.assert_most_were_killed();
}

/// The short time in which finished parts are put in place is aimed at.
#[test]
fn a_command_killed_while_it_puts_parts_in_place_does_nothing_twice() {
    let world = World::new(40);
    let second = format!("--model={}", second_model(world.dir.path()));
    fs::write(world.path("first.csv"), "image_path,caption\nphotos/0001.png,the first\n").unwrap();
    world.memory(&["build", "@first.csv", "-o", "@base", &world.model]).ok();
    let base = || copy_folder(&world.path("base"), &world.path("killed"));
    let commands: [(&str, &[&str]); 4] = [
        ("build", &["build", "@pairs.csv", "-o", "@killed", &world.model]),
        ("overwrite", &["build", "@pairs.csv", "--overwrite", "-o", "@killed", &world.model]),
        ("append", &["append", "@killed", "@pairs.csv"]),
        ("embed", &["embed", "@killed", &second]),
    ];
    for (name, args) in commands {
        let prepare = || {
            if name != "build" {
                base()
            }
        };
        prepare();
        world.memory(args).ok();
        fs::rename(world.path("killed"), world.path(name)).unwrap();
        let folder = if name == "embed" { ".xmore-embedding" } else { ".xmore-building" };
        let committed = world.path("killed").join(folder).join("publish.json");
        let mut killer = Killer::new(world.dir.path(), Duration::ZERO);
        let (mut between, mut tries) = (0, 0);
        while between < 3 {
            tries += 1;
            assert!(tries < 60, "{name} was never killed between committing and completing");
            prepare();
            let start = Instant::now();
            killer.run(&|| world.memory(args), &mut || {
                while !committed.exists() && start.elapsed() < Duration::from_secs(20) {
                    std::thread::yield_now();
                }
            });
            if committed.exists() {
                between += 1;
                let run = world.memory(args).run();
                assert_eq!(run.code, 0, "{name}: {}", run.stderr);
                assert!(run.stderr.contains("nothing to do"), "{name}: {}", run.stderr);
                assert_same_files(&world.path("killed"), &world.path(name));
            }
            fs::remove_dir_all(world.path("killed")).unwrap();
        }
    }
}

#[test]
fn an_interrupted_append_is_not_gone_on_with_from_other_sources() {
    let world = World::new(320);
    for name in ["first", "other"] {
        let table = format!("image_path,caption\nphotos/0001.png,{name}\n");
        fs::write(world.path(&format!("{name}.csv")), table).unwrap();
    }
    world.memory(&["build", "@first.csv", "-o", "@base", &world.model]).ok();
    let mut killer = Killer::new(world.dir.path(), Duration::ZERO);
    for _ in 0..20 {
        copy_folder(&world.path("base"), &world.path("killed"));
        let start = Instant::now();
        killer.run(&|| world.memory(&["append", "@killed", "@pairs.csv"]), &mut || {
            while world.consumed() == 0 && start.elapsed() < Duration::from_secs(20) {
                std::thread::yield_now();
            }
        });
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
        let mut child = world.build("@killed").start_telling(&world.path("said.txt"));
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
        assert_eq!(status.code(), Some(1), "{status} {said}");
        assert!(said.contains("stopping after the batch at hand"), "{said}");
        assert!(said.contains("stopped; ") && said.contains("the same command goes on with it"), "{said}");
        assert_eq!(world.pairs("@killed"), None);
        let run = world.build("@killed").run();
        assert_eq!(run.code, 0, "{}", run.stderr);
        assert!(run.stderr.contains("went on after "), "{}", run.stderr);
        assert_same_files(&world.path("killed"), &world.path("whole"));
        return;
    }
    panic!("no build was caught before its end");
}
