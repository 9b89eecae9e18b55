//! A disk that is full: the error names the file and says what to do, existing files stay, and with free space the same command goes on.
//! (`faults.rs` has the disk full at every call of every command that writes.)
#![cfg(unix)]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use support::files::{assert_same_files, bytes_of, copy_folder, source};
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
        // Many of the pictures cannot be read.
        xmore(&args).env("XMORE_CHECKPOINT_SECONDS", "0").env("XMORE_MAX_SKIPPED", "100%")
    }
}

/// Checks that a failure is told as it should be; returns the file that could not be written, below the memory.
#[track_caller]
fn full(run: &Run, memory: &Path) -> String {
    assert_eq!(run.code, 1, "{}", run.stderr);
    assert!(run.stdout.is_empty() && !run.stderr.contains("panicked"), "{}", run.stderr);
    let error = run.stderr.lines().find(|line| line.starts_with("error: ")).unwrap_or_default();
    assert!(run.stderr.contains("run the same command again: it goes on where it stopped"), "{error}");
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
            // Running it again without more space fails in the same way, and changes nothing.
            let again = world.build(table, &memory, &[]).with_largest_file(limit).run();
            full(&again, &memory);
            world.build(table, &memory, &[]).ok();
            assert_same_files(&memory, &whole);
            fs::remove_dir_all(&memory).unwrap();
        }
    }
    println!("{files:?}");
    // The largest of their time; `faults` fills the disk at each write, those of smaller files too.
    for part in ["checkpoint", "img_emb", "journal"] {
        assert!(files.iter().any(|file| file.contains(part)), "{part} was never hit: {files:?}");
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

    /// Fills all but some of it.
    fn leave(&self, kilobytes: u64) {
        let output = Command::new("df").args(["--output=avail", "-k"]).arg(&self.0).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let available: u64 = text.lines().last().unwrap().trim().parse().unwrap();
        fs::write(self.0.join("filler"), vec![0; (available - kilobytes) as usize * 1024]).unwrap();
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

/// As a repair of a memory whose last part is truncated was seen to lose undamaged pairs.
#[test]
fn a_repair_on_a_small_disk_loses_nothing() {
    let world = World::new();
    let base = world.path("base");
    world.build("pairs.csv", &base, &[]).ok();
    let torn = fs::OpenOptions::new().write(true).open(base.join("img_emb/img_emb_0000.npy")).unwrap();
    torn.set_len(torn.metadata().unwrap().len() - 5).unwrap();
    let whole = world.path("whole");
    copy_folder(&base, &whole);
    world.memory("repair", &[], &whole, &[]).ok();
    let mut failures = 0;
    for free in (4..).step_by(8) {
        let Some(disk) = SmallDisk::mount(world.path("disk"), 4096) else {
            eprintln!("SKIPPED: only root may mount a small disk");
            return;
        };
        let memory = disk.0.join("memory");
        copy_folder(&base, &memory);
        let before = bytes_of(&memory);
        disk.leave(free);
        let run = world.memory("repair", &[], &memory, &[]).run();
        if run.code == 0 {
            assert_same_files(&memory, &whole);
            break;
        }
        failures += 1;
        assert!(run.stderr.contains("bytes are needed there, and the memory is as it was"), "{}", run.stderr);
        assert_eq!(bytes_of(&memory), before);
        disk.grow();
        world.memory("repair", &[], &memory, &[]).ok();
        assert_same_files(&memory, &whole);
    }
    assert!(failures > 2, "{failures}");
}
