//! Every command that writes a memory, killed before each of its calls that change files, or with a full disk or an error from there on:
//! what was published stays, and run again it ends with the bytes of an undisturbed run.
#![cfg(all(target_os = "linux", target_env = "gnu"))]

#[allow(dead_code, reason = "each test file uses its part")]
mod hub;
mod support;

use std::fs;
use std::path::{Path, PathBuf};

use hub::{COMMIT, Hub};
use support::faults::{Call, Fault, Faults};
use support::files::{assert_same_files, bytes_of, copy_folder, picture, second_model};
use support::milvus::Milvus;
use support::{Xmore, fixture, tiny_model, xmore};
use xmore_memory::store::verify;
use xmore_memory::{Memory, MemoryError, StoreError};

/// More than one batch of them is encoded at a time.
const PICTURES: u64 = 36;

/// What a memory may be while a command writes it.
#[derive(Clone, Copy)]
enum Between {
    /// As before, or as after.
    Sound { before: u64, after: u64 },
    /// The same, or incomplete and told to be.
    Incomplete { before: u64, after: u64 },
    /// Damaged as before, or as after.
    Damaged { before: Option<u64>, after: u64 },
}

/// A command, and what it is given.
struct Case<'a> {
    name: &'a str,
    /// The memory before, if there is one.
    base: Option<PathBuf>,
    command: &'a dyn Fn(&Path) -> Xmore,
    between: Between,
}

struct World {
    dir: tempfile::TempDir,
    model: String,
    faults: Faults,
}

impl World {
    /// Pictures and tables; `None` where nothing can be loaded before the system's library.
    fn new() -> Option<Self> {
        let faults = Faults::new()?;
        // Thousands of runs that make everything durable: in memory, if there is such a place.
        let in_memory = Path::new("/dev/shm");
        let dir =
            if in_memory.is_dir() { tempfile::tempdir_in(in_memory) } else { tempfile::tempdir() }.unwrap();
        fs::create_dir_all(dir.path().join("photos")).unwrap();
        for i in 0..PICTURES {
            picture(&dir.path().join(format!("photos/{i}.png")), i);
        }
        fs::write(dir.path().join("photos/broken.png"), "no picture").unwrap();
        let world = Self { dir, model: tiny_model(), faults };
        for part in 0..4 {
            let rows: String = (0..5)
                .map(|i| format!("photos/{i}.png,{} of part {part}\n", ["one", "two"][i % 2]))
                .collect();
            let broken = if part == 0 { "photos/broken.png,a broken one\n" } else { "" };
            world.write(&format!("part{part}.csv"), &format!("image_path,caption\n{rows}{broken}"));
        }
        let rows: String = (0..PICTURES).map(|i| format!("photos/{i}.png,one of {}\n", i % 7)).collect();
        world.write("many.csv", &format!("image_path,caption\n{rows}photos/broken.png,a broken one\n"));
        world.write("first.csv", "image_path,caption\nphotos/1.png,the first\n");
        Some(world)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    /// `xmore memory …` with a checkpoint after every batch; `@name` is a path here.
    fn memory(&self, args: &[&str]) -> Xmore {
        let path = |name: &str| self.path(name).display().to_string();
        let args: Vec<String> =
            args.iter().map(|arg| arg.strip_prefix('@').map_or((*arg).to_owned(), path)).collect();
        let mut all = vec!["memory"];
        all.extend(args.iter().map(String::as_str));
        xmore(&all)
            .env("XMORE_CHECKPOINT_SECONDS", "0")
            .env("XMORE_MAX_SKIPPED", "50%")
            .env("RAYON_NUM_THREADS", "2")
            .home(&self.path("home"))
    }

    fn build(&self, table: &str, memory: &str) {
        self.memory(&["build", table, "-o", memory, &self.model]).ok();
    }

    /// A memory of four parts with five pairs each.
    fn four_parts(&self, name: &str) -> PathBuf {
        self.build("@part0.csv", name);
        for part in 1..4 {
            self.memory(&["append", name, &format!("@part{part}.csv"), &self.model]).ok();
        }
        self.path(name.trim_start_matches('@'))
    }

    /// Runs a command with each fault at each call.
    fn try_all(&self, case: &Case<'_>) {
        let (whole, memory) = (self.path(&format!("{}-whole", case.name)), self.path(case.name));
        let prepare = |to: &Path| {
            let _ = fs::remove_dir_all(to);
            match &case.base {
                Some(base) => copy_folder(base, to),
                None => fs::create_dir_all(to).unwrap(),
            }
        };
        prepare(&whole);
        let calls = self.faults.calls((case.command)(&whole), &whole);
        for (fault, call) in [(Fault::Kill, 1), (Fault::Lose, 1), (Fault::Full, 1), (Fault::Fail, 1)] {
            for at in call..=calls.len() {
                let call = &calls[at - 1];
                if fault == Fault::Full && !call.needs_room() {
                    continue;
                }
                prepare(&memory);
                let told = format!("{}: {fault:?} at call {at}, {} {}", case.name, call.name, call.path);
                let ended = self.faults.run((case.command)(&memory), &memory, fault, at);
                assert!(!ended.stderr.contains("panicked"), "{told}: {}", ended.stderr);
                match fault {
                    Fault::Kill | Fault::Lose => assert_eq!(ended.code, None, "{told}: {}", ended.stderr),
                    Fault::Full => full(&told, ended.code, &ended.stderr),
                    // A failure to remove temporary files need not fail the command.
                    Fault::Fail => assert!(ended.code.is_some(), "{told}"),
                }
                case.between.check(&memory, &told);
                let run = (case.command)(&memory).run();
                assert_eq!(run.code, 0, "{told}, then again: {}", run.stderr);
                println!("{told}");
                assert_same_files(&memory, &whole);
                assert!(!memory.join(".xmore-repairing").exists(), "{told}");
            }
        }
        assert_is_covered(case.name, &calls);
    }
}

/// A disk that is full is named as the cause.
fn full(told: &str, code: Option<i32>, stderr: &str) {
    assert_eq!(code, Some(1), "{told}: {stderr}");
    assert!(stderr.contains("No space left on device"), "{told}: {stderr}");
}

/// The library sees what the command does.
fn assert_is_covered(name: &str, calls: &[Call]) {
    println!("{name}: {} calls", calls.len());
    for kind in ["create", "write", "rename", "fsync", "mkdir", "unlink"] {
        assert!(calls.iter().any(|call| call.name == kind), "{name}: no {kind} among {calls:?}");
    }
}

impl Between {
    #[track_caller]
    fn check(self, memory: &Path, told: &str) {
        let opened = Memory::open(memory);
        let pairs = opened.as_ref().map(Memory::len);
        let is_incomplete = matches!(
            &opened,
            Err(MemoryError::Store(StoreError::Incomplete { .. } | StoreError::NotAMemory { .. }))
        );
        match (self, pairs) {
            (Between::Sound { before, after } | Between::Incomplete { before, after }, Ok(pairs)) => {
                assert!([before, after].contains(&pairs), "{told}: {pairs} pairs");
                let found = verify(memory, &mut |_, _| {}).unwrap().findings;
                assert!(found.is_empty(), "{told}: {found:?}");
            }
            (Between::Incomplete { .. }, Err(_)) => assert!(is_incomplete, "{told}: {opened:?}"),
            (Between::Damaged { before, after }, Ok(pairs)) => {
                assert!([before, Some(after)].contains(&Some(pairs)), "{told}: {pairs} pairs");
            }
            (Between::Damaged { before: None, .. }, Err(MemoryError::Store(StoreError::Damaged { .. }))) => {}
            (_, Err(error)) => panic!("{told}: {error}"),
        }
    }
}

#[test]
fn a_build() {
    let Some(world) = World::new() else { return };
    world.try_all(&Case {
        name: "build",
        base: None,
        command: &|memory| {
            world.memory(&["build", "@many.csv", "-o", &memory.display().to_string(), &world.model])
        },
        between: Between::Incomplete { before: PICTURES, after: PICTURES },
    });
}

#[test]
fn a_part_of_a_build() {
    let Some(world) = World::new() else { return };
    world.try_all(&Case {
        name: "part",
        base: None,
        command: &|memory| {
            let memory = memory.display().to_string();
            world.memory(&["build", "@many.csv", "--part=3/3", "-o", &memory, &world.model])
        },
        between: Between::Incomplete { before: PICTURES / 3, after: PICTURES / 3 },
    });
}

/// A part of which nothing can be read has no memory, only the record of that.
#[test]
fn a_part_without_a_pair() {
    let Some(world) = World::new() else { return };
    let command = |part: &Path| {
        let (output, rows) = (part.display().to_string(), PICTURES + 1);
        let last = format!("--part={rows}/{rows}");
        let args = ["build", "@many.csv", &last, "--max-skipped=100%", "-o", &output, &world.model];
        world.memory(&args)
    };
    let (whole, part) = (world.path("empty-whole"), world.path("empty"));
    let prepare = |to: &Path| {
        let _ = fs::remove_dir_all(to);
        fs::create_dir_all(to).unwrap();
    };
    prepare(&whole);
    let calls = world.faults.calls(command(&whole), &whole);
    for fault in [Fault::Kill, Fault::Lose] {
        for at in 1..=calls.len() {
            prepare(&part);
            world.faults.run(command(&part), &part, fault, at);
            command(&part).ok();
            let (found, expected) = (bytes_of(&part), bytes_of(&whole));
            let is_kept = |name: &PathBuf| name.starts_with(".xmore-partial");
            assert!(expected.keys().all(is_kept), "{expected:?}");
            let found: Vec<_> = found.into_iter().filter(|(name, _)| is_kept(name)).collect();
            assert_eq!(found, Vec::from_iter(expected), "{fault:?} at call {at}");
        }
    }
}

#[test]
fn a_merge() {
    let Some(world) = World::new() else { return };
    let parts: Vec<String> =
        (1..=3).map(|number| world.path(&format!("p{number}")).display().to_string()).collect();
    for (number, part) in parts.iter().enumerate() {
        let which = format!("--part={}/3", number + 1);
        world.memory(&["build", "@many.csv", &which, "-o", part, &world.model]).ok();
    }
    world.try_all(&Case {
        name: "merge",
        base: None,
        command: &|memory| {
            let memory = memory.display().to_string();
            let args = ["merge", &parts[0], &parts[1], &parts[2], "-o", &memory];
            world.memory(&args)
        },
        between: Between::Incomplete { before: PICTURES, after: PICTURES },
    });
    world.build("@many.csv", "@one-build");
    assert_same_files(&world.path("merge-whole"), &world.path("one-build"));
}

#[test]
fn an_append() {
    let Some(world) = World::new() else { return };
    world.build("@first.csv", "@base");
    world.try_all(&Case {
        name: "append",
        base: Some(world.path("base")),
        command: &|memory| {
            world.memory(&["append", &memory.display().to_string(), "@many.csv", &world.model])
        },
        between: Between::Sound { before: 1, after: 1 + PICTURES },
    });
}

#[test]
fn an_overwrite() {
    let Some(world) = World::new() else { return };
    world.build("@first.csv", "@base");
    let memory = |memory: &Path| memory.display().to_string();
    world.try_all(&Case {
        name: "overwrite",
        base: Some(world.path("base")),
        command: &|dir| {
            world.memory(&["build", "@many.csv", "--overwrite", "-o", &memory(dir), &world.model])
        },
        between: Between::Incomplete { before: 1, after: PICTURES },
    });
}

#[test]
fn a_further_column() {
    let Some(world) = World::new() else { return };
    world.build("@many.csv", "@base");
    let second = format!("--model={}", second_model(world.dir.path()));
    world.try_all(&Case {
        name: "embed",
        base: Some(world.path("base")),
        command: &|memory| world.memory(&["embed", &memory.display().to_string(), &second]),
        between: Between::Sound { before: PICTURES, after: PICTURES },
    });
}

/// Moves some of the pictures of `many.csv`, or moves them back.
fn move_some(world: &World, from: &str, to: &str) {
    fs::create_dir_all(world.path(to)).unwrap();
    for i in (0..PICTURES).step_by(3) {
        let name = format!("{i}.png");
        fs::rename(world.path(from).join(&name), world.path(to).join(&name)).unwrap();
    }
}

#[test]
fn a_build_of_what_could_not_be_read_before() {
    let Some(world) = World::new() else { return };
    move_some(&world, "photos", "away");
    world.build("@many.csv", "@base");
    move_some(&world, "away", "photos");
    world.try_all(&Case {
        name: "again",
        base: Some(world.path("base")),
        command: &|memory| {
            world.memory(&["build", "@many.csv", "-o", &memory.display().to_string(), &world.model])
        },
        between: Between::Sound { before: PICTURES - PICTURES / 3, after: PICTURES },
    });
}

#[test]
fn a_further_column_of_what_could_not_be_read_before() {
    let Some(world) = World::new() else { return };
    world.build("@many.csv", "@base");
    let second = format!("--model={}", second_model(world.dir.path()));
    move_some(&world, "photos", "away");
    world.memory(&["embed", "@base", &second]).ok();
    move_some(&world, "away", "photos");
    world.try_all(&Case {
        name: "embed-again",
        base: Some(world.path("base")),
        command: &|memory| world.memory(&["embed", &memory.display().to_string(), &second]),
        between: Between::Sound { before: PICTURES, after: PICTURES },
    });
}

/// Flips the lowest bit of a byte near the end of a file.
fn flip(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let at = bytes.len() - 3;
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
}

/// Four parts of which one has changed content, and a column.
#[test]
fn a_repair_of_changed_content() {
    let Some(world) = World::new() else { return };
    let base = world.four_parts("@base");
    let second = format!("--model={}", second_model(world.dir.path()));
    world.memory(&["embed", "@base", "--only=captions", &second]).ok();
    flip(&base.join("img_emb/img_emb_0000.npy"));
    flip(&base.join("text_codes/text_codes_0002.bin"));
    flip(&base.join("metadata/metadata_0003.parquet"));
    world.try_all(&Case {
        name: "changed",
        base: Some(base),
        command: &|memory| world.memory(&["repair", &memory.display().to_string()]),
        between: Between::Damaged { before: Some(20), after: 15 },
    });
    let whole = world.path("changed-whole");
    assert_eq!(verify(&whole, &mut |_, _| {}).unwrap().findings, []);
    let aside = whole.join(".xmore-set-aside/0/img_emb/img_emb_0000.npy");
    assert_eq!(fs::read(aside).unwrap(), fs::read(world.path("base/img_emb/img_emb_0000.npy")).unwrap());
    let error = world.memory(&["repair", "@changed-whole"]).run();
    assert_eq!((error.code, error.stderr.contains("nothing to mend")), (0, true), "{}", error.stderr);
}

/// Four parts and a column, of which one part has changed content, and another one damaged codes. Embedding again completes what the repair has taken out.
#[test]
fn a_repair_of_a_further_column_and_its_completion() {
    let Some(world) = World::new() else { return };
    let base = world.four_parts("@base");
    let second = format!("--model={}", second_model(world.dir.path()));
    world.memory(&["embed", "@base", &second]).ok();
    copy_folder(&base.join("columns"), &world.path("good"));
    let column = fs::read_dir(base.join("columns")).unwrap().next().unwrap().unwrap().path();
    flip(&column.join("img_emb/img_emb_0001.npy"));
    flip(&column.join("text_codes/text_codes_0002.bin"));
    world.try_all(&Case {
        name: "column",
        base: Some(base),
        command: &|memory| world.memory(&["repair", &memory.display().to_string()]),
        between: Between::Damaged { before: Some(20), after: 20 },
    });
    let repaired = world.path("column-whole");
    assert_eq!(verify(&repaired, &mut |_, _| {}).unwrap().findings, []);
    assert_eq!(Memory::open(&repaired).unwrap().embedding_sets()[1].rows(), 15);
    world.try_all(&Case {
        name: "completion",
        base: Some(repaired),
        command: &|memory| world.memory(&["embed", &memory.display().to_string(), &second]),
        between: Between::Sound { before: 20, after: 20 },
    });
    assert_same_files(&world.path("completion-whole/columns"), &world.path("good"));
}

/// Four parts of which the last is truncated.
#[test]
fn a_repair_of_a_torn_tail() {
    let Some(world) = World::new() else { return };
    let base = world.four_parts("@base");
    let torn = base.join("text_emb/text_emb_0003.npy");
    let file = fs::OpenOptions::new().write(true).open(&torn).unwrap();
    file.set_len(file.metadata().unwrap().len() - 33).unwrap();
    world.try_all(&Case {
        name: "torn",
        base: Some(base),
        command: &|memory| world.memory(&["repair", &memory.display().to_string()]),
        between: Between::Damaged { before: None, after: 18 },
    });
    assert_eq!(verify(&world.path("torn-whole"), &mut |_, _| {}).unwrap().findings, []);
}

/// Ended at each of its requests, half of it sent: the same upload then completes the collection, and no row is there that is not the
/// memory's.
#[test]
fn an_upload() {
    let Some(world) = World::new() else { return };
    world.build("@part0.csv", "@memory");
    let memory = world.path("memory");
    let upload = |server: &Milvus| {
        let command = world.memory(&["upload", "@memory", &server.url()]).env("FAULT_SOCKETS", "1");
        ["HTTP_PROXY", "ALL_PROXY", "http_proxy", "all_proxy"]
            .iter()
            .fold(command, |run, name| run.env(name, ""))
    };
    let whole = Milvus::start();
    let calls = world.faults.calls(upload(&whole), &memory);
    assert_eq!(whole.rows().len(), 5);
    assert!(calls.len() > 8, "{calls:?}");
    for at in 1..=calls.len() {
        let server = Milvus::start();
        let ended = world.faults.run(upload(&server), &memory, Fault::Kill, at);
        assert_eq!(ended.code, None, "call {at}: {}", ended.stderr);
        assert!(server.rows().iter().all(|(id, row)| whole.rows().get(id) == Some(row)), "call {at}");
        upload(&server).ok();
        assert_eq!(server.rows(), whole.rows(), "call {at}");
    }
}

/// A model from the hub: the next run goes on, and what it has then is what the hub has.
#[test]
fn a_download() {
    const REPO: &str = "timm/vit_base_patch16_clip_224.openai";
    let Some(faults) = Faults::new() else { return };
    let dir = tempfile::tempdir().unwrap();
    let hub = Hub::start(hub::World::of(REPO, &fixture("tiny")));
    let fetch = |home: &Path| {
        let command = xmore(&["model", "fetch", &format!("hf-hub:{REPO}")])
            .home(&home.join("xmore"))
            .env("HF_HOME", home.join("hf"))
            .env("HF_ENDPOINT", hub.url());
        ["HTTP_PROXY", "ALL_PROXY", "http_proxy", "all_proxy", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "HF_TOKEN"]
            .iter()
            .fold(command, |run, name| run.env(name, ""))
    };
    let empty = |name: &str| {
        let home = dir.path().join(name);
        let _ = fs::remove_dir_all(&home);
        fs::create_dir_all(&home).unwrap();
        home
    };
    let whole = empty("whole");
    let calls = faults.calls(fetch(&whole), &whole);
    assert!(calls.len() > 20, "{calls:?}");
    let mut met = 0;
    for fault in [Fault::Kill, Fault::Lose, Fault::Full] {
        for (at, call) in calls.iter().enumerate() {
            if fault == Fault::Full && !call.needs_room() {
                continue;
            }
            let home = empty("home");
            let told = format!("{fault:?} at call {}, {} {}", at + 1, call.name, call.path);
            let ended = faults.run(fetch(&home), &home, fault, at + 1);
            assert!(!ended.stderr.contains("panicked"), "{told}: {}", ended.stderr);
            // How many writes there are depends on how the network hands over the bytes. Digests of xmore's own are for later checks:
            // a full disk that keeps them out costs the model nothing.
            let from_fault = ended.calls.get(at..).unwrap_or_default();
            let is_met = from_fault.iter().any(|call| {
                fault != Fault::Full
                    || call.needs_room() && !Path::new(&call.path).starts_with(home.join("xmore"))
            });
            met += usize::from(is_met);
            assert!(!is_met || ended.code != Some(0), "{told}: {}", ended.stderr);
            let run = fetch(&home).run();
            assert_eq!(run.code, 0, "{told}, then again: {}", run.stderr);
            let snapshot = format!("hf/hub/models--{}/snapshots/{COMMIT}", REPO.replace('/', "--"));
            for entry in fs::read_dir(whole.join(&snapshot)).unwrap() {
                let name = entry.unwrap().file_name();
                let [found, expected] =
                    [&home, &whole].map(|home| fs::read(home.join(&snapshot).join(&name)).unwrap());
                assert!(found == expected, "{told}: {}", name.display());
            }
        }
    }
    assert!(met > 2 * calls.len(), "only {met} faults were met");
}
