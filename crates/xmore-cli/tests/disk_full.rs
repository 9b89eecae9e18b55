//! A disk that is full: the error names the file and says what to do, what was there stays, and with room the same command goes on.
#![cfg(unix)]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use support::files::{assert_same_files, bytes_of, copy_folder, second_model, source};
use support::{Run, Xmore, tiny_model, xmore};

/// Pictures, a table, and folders for memories.
struct World {
    dir: tempfile::TempDir,
    model: String,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        source(dir.path(), 70, 7);
        fs::write(dir.path().join("first.csv"), "image_path,caption\nphotos/0001.png,the first\n").unwrap();
        Self { dir, model: tiny_model() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn build(&self, table: &str, memory: &Path, more: &[&str]) -> Xmore {
        self.memory(
            "build",
            &[&self.path(table).display().to_string(), "-o"],
            memory,
            &[more, &[&self.model]].concat(),
        )
    }

    fn memory(&self, command: &str, before: &[&str], memory: &Path, after: &[&str]) -> Xmore {
        let memory = memory.display().to_string();
        let args = [&["memory", command], before, &[&*memory], after].concat();
        xmore(&args).env("XMORE_CHECKPOINT_SECONDS", "0")
    }
}

/// Checks that a failure is told as it should be; returns the file that could not be written, below the memory.
#[track_caller]
fn full(run: &Run, memory: &Path) -> String {
    assert_eq!(run.code, 1, "{}", run.stderr);
    assert!(run.stdout.is_empty() && !run.stderr.contains("panicked"), "{}", run.stderr);
    let error = run.stderr.lines().find(|line| line.starts_with("error: ")).unwrap_or_default();
    assert!(
        error.contains("make room and run the same command again: it goes on where it stopped"),
        "{error}"
    );
    let (_, file) =
        error.split_once(&format!("{}/", memory.display())).unwrap_or_else(|| panic!("no file: {error}"));
    file.split_once(": ").unwrap().0.to_owned()
}

/// Limits on the size of a file, in the unit of the shell's `ulimit`: half a kilobyte or one.
fn limits() -> impl Iterator<Item = u64> {
    std::iter::successors(Some(1), |n| Some(n + (n / 4).max(1)))
}

#[test]
fn a_build_on_a_full_disk_goes_on_when_there_is_room() {
    let world = World::new();
    let mut files = BTreeSet::new();
    // Of the small one, other files are the largest.
    for table in ["pairs.csv", "first.csv"] {
        let (whole, memory) = (world.path(&format!("whole {table}")), world.path("memory"));
        world.build(table, &whole, &[]).ok();
        for limit in limits() {
            let run = world.build(table, &memory, &[]).with_largest_file(limit).run();
            if run.code == 0 {
                assert_same_files(&memory, &whole);
                fs::remove_dir_all(&memory).unwrap();
                break;
            }
            files.insert(full(&run, &memory));
            let message = world.memory("info", &[], &memory, &[]).fails(1);
            assert!(message.contains("is incomplete") || message.contains("is not a memory"), "{message}");
            // Going on without more room fails in the same way, and does no harm.
            let again = world.build(table, &memory, &[]).with_largest_file(limit).run();
            full(&again, &memory);
            world.build(table, &memory, &[]).ok();
            assert_same_files(&memory, &whole);
            fs::remove_dir_all(&memory).unwrap();
        }
    }
    println!("{files:?}");
    for part in ["img_emb", "journal", "skipped", "parquet"] {
        assert!(files.iter().any(|file| file.contains(part)), "{part} was never hit: {files:?}");
    }
}

#[test]
fn a_memory_that_grows_or_is_replaced_on_a_full_disk_stays_as_it_was() {
    let world = World::new();
    let second = format!("--model={}", second_model(world.dir.path()));
    let pairs = world.path("pairs.csv").display().to_string();
    let base = world.path("base");
    let first = world.path("first.csv").display().to_string();
    world.memory("build", &[&first, "-o"], &base, &[&world.model]).ok();
    let large = world.path("large");
    world.build("pairs.csv", &large, &[]).ok();
    type Case<'a> = (&'a Path, &'a dyn Fn(&Path) -> Xmore);
    let commands: [Case; 3] = [
        (&base, &|memory| world.memory("append", &[], memory, &[&pairs])),
        (&base, &|memory| world.build("pairs.csv", memory, &["--overwrite"])),
        (&large, &|memory| world.memory("embed", &[], memory, &[&second])),
    ];
    for (before, command) in commands {
        let (whole, memory) = (world.path("whole"), world.path("memory"));
        copy_folder(before, &whole);
        command(&whole).ok();
        let mut failures = 0;
        for limit in limits() {
            copy_folder(before, &memory);
            let run = command(&memory).with_largest_file(limit).run();
            if run.code == 0 {
                assert_same_files(&memory, &whole);
                fs::remove_dir_all(&memory).unwrap();
                break;
            }
            failures += 1;
            full(&run, &memory);
            let now = bytes_of(&memory);
            for (name, bytes) in bytes_of(before) {
                assert!(now.get(&name) == Some(&bytes), "{} has changed", name.display());
            }
            world.memory("verify", &[], &memory, &[]).ok();
            command(&memory).ok();
            assert_same_files(&memory, &whole);
            fs::remove_dir_all(&memory).unwrap();
        }
        assert!(failures >= 4, "only {failures} limits were too low");
        fs::remove_dir_all(&whole).unwrap();
    }
}

/// A small file system in memory; only root may have one.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: PathBuf, kilobytes: u64) -> Option<Self> {
        fs::create_dir_all(&at).unwrap();
        let disk = Self(at);
        disk.command("mount", &["-t", "tmpfs", "-o", &format!("size={kilobytes}k"), "none"]).then_some(disk)
    }

    fn grow(&self) {
        assert!(self.command("mount", &["-o", "remount,size=64m"]));
    }

    fn command(&self, program: &str, args: &[&str]) -> bool {
        Command::new(program).args(args).arg(&self.0).output().is_ok_and(|output| output.status.success())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        self.command("umount", &[]);
    }
}

#[test]
fn a_build_on_a_small_disk_goes_on_when_the_disk_grows() {
    let world = World::new();
    let whole = world.path("whole");
    world.build("pairs.csv", &whole, &[]).ok();
    let mut files = BTreeSet::new();
    for kilobytes in (16..).step_by(4) {
        let Some(disk) = SmallDisk::mount(world.path("disk"), kilobytes) else {
            eprintln!("SKIPPED: only root may mount a small disk");
            return;
        };
        let memory = disk.0.join("memory");
        let run = world.build("pairs.csv", &memory, &[]).run();
        if run.code == 0 {
            assert_same_files(&memory, &whole);
            break;
        }
        files.insert(full(&run, &memory));
        disk.grow();
        world.build("pairs.csv", &memory, &[]).ok();
        assert_same_files(&memory, &whole);
    }
    println!("{files:?}");
    for part in ["emb", "journal", "lookup", "codes", "checkpoint"] {
        assert!(files.iter().any(|file| file.contains(part)), "{part} was never hit: {files:?}");
    }
}
