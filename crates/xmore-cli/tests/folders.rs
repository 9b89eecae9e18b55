//! Folders of users: hidden files, thumbnails, formats that are not read yet, loops, FIFOs; the same in every command.

#![cfg(unix)]

mod support;

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{CWD, FileType, Mode, mknodat};
use serde_json::Value;
use support::files::{picture, second_model};
use support::{Run, tiny_model, xmore_in};

/// A run that reads a FIFO never ends; one that does not takes seconds, on a busy machine too.
const LIMIT: Duration = Duration::from_secs(240);

struct World(tempfile::TempDir);

impl World {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        let path = self.0.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    }

    fn picture(&self, name: &str) {
        let path = self.path(name);
        let png = self.0.path().join("picture.png.tmp.png");
        picture(&png, name.len() as u64);
        fs::rename(png, path).unwrap();
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        fs::write(self.path(name), bytes).unwrap();
    }

    fn fifo(&self, name: &str) {
        mknodat(CWD, self.path(name), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    }

    /// An argument `@name` is a path in the world.
    fn run(&self, args: &[&str]) -> Run {
        let mut args = args.to_vec();
        let model = tiny_model();
        args.push(&model);
        xmore_in(self.0.path(), &args).run_within(LIMIT)
    }

    #[track_caller]
    fn ok(&self, args: &[&str]) -> Run {
        let run = self.run(args);
        assert_eq!(run.code, 0, "{}", run.stderr);
        run
    }

    /// The images that `classify` names, by their paths in the world.
    fn classified(&self, args: &[&str]) -> (Vec<String>, Run) {
        let run =
            self.run(&[&["classify", "--labels", "a,b", "--top", "1", "--format", "csv"], args].concat());
        let prefix = format!("{}/", self.0.path().display());
        let names = run.stdout.lines().skip(1).map(|line| {
            let name = line.split(',').next().unwrap();
            name.strip_prefix(&prefix).unwrap_or(name).to_owned()
        });
        (names.collect(), run)
    }

    fn rows(&self, npy: &str) -> u64 {
        let bytes = fs::read(self.path(npy)).unwrap();
        npyz::NpyFile::new(&bytes[..]).unwrap().shape()[0]
    }

    fn pairs(&self, memory: &str) -> u64 {
        let path = self.path(memory).display().to_string();
        let text = xmore_in(self.0.path(), &["memory", "info", &path, "--format", "json"]).ok();
        serde_json::from_str::<Value>(&text).unwrap()["pairs"].as_u64().unwrap()
    }
}

#[test]
fn what_is_hidden_or_a_thumbnail_is_left_out_and_counted_by_every_command() {
    let world = World::new();
    let hidden = [
        "._1.png",
        ".thumbnails/1.png",
        "@eaDir/1.png/SYNOFILE_THUMB_M.png",
        ".ipynb_checkpoints/1-checkpoint.png",
    ];
    for name in ["1.png", "2.png"].iter().chain(&hidden) {
        world.picture(&format!("photos/{name}"));
        let text = Path::new("photos").join(name).with_extension("txt");
        world.write(text.to_str().unwrap(), b"a caption");
    }
    let line = "left out: 4 files: 2 hidden, 2 thumbnails";
    let (names, run) = world.classified(&["@photos"]);
    assert_eq!((names, run.code), (vec!["photos/1.png".to_owned(), "photos/2.png".to_owned()], 0));
    assert!(run.stderr.contains(line), "{}", run.stderr);
    assert_eq!(world.classified(&["@photos", "--include-hidden"]).0.len(), 6);
    let run = world.ok(&["embed", "@photos", "-o", "@out.npy"]);
    assert!(world.rows("out.npy") == 2 && run.stderr.contains(line), "{}", run.stderr);
    let run = world.ok(&["memory", "build", "@photos", "-o", "@memory"]);
    assert!(world.pairs("memory") == 2 && run.stderr.contains(line), "{}", run.stderr);
    world.ok(&["memory", "build", "@photos", "-o", "@all", "--include-hidden"]);
    assert_eq!(world.pairs("all"), 6);
    // What is named itself is taken.
    let (names, run) = world.classified(&["@photos/._1.png", "@photos/.thumbnails"]);
    assert_eq!((names.len(), run.code), (2, 0), "{}", run.stderr);
    assert!(!run.stderr.contains("left out"), "{}", run.stderr);
}

#[test]
fn globs_leave_out_files_and_folders() {
    let world = World::new();
    for name in ["a/1.png", "a/raw/2.png", "b/3.png", "b/3-copy.png"] {
        world.picture(&format!("set/{name}"));
        let text = Path::new("set").join(name).with_extension("txt");
        world.write(text.to_str().unwrap(), b"a caption");
    }
    let exclude = ["--exclude", "raw", "--exclude", "b/*-copy.*"];
    let (names, run) = world.classified(&[&["@set"], &exclude[..]].concat());
    assert_eq!(names, ["set/a/1.png", "set/b/3.png"]);
    assert!(run.stderr.contains("left out: 2 files: 2 excluded"), "{}", run.stderr);
    world.ok(&[&["embed", "@set", "-o", "@out.npy"], &exclude[..]].concat());
    assert_eq!(world.rows("out.npy"), 2);
    world.ok(&[&["memory", "build", "@set", "-o", "@memory"], &exclude[..]].concat());
    assert_eq!(world.pairs("memory"), 2);
    let run = world.ok(&[&["eval", "@set", "--format", "json"], &exclude[..]].concat());
    let entries: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(entries[0]["images"], 2);
    assert_eq!(entries[0]["left_out"]["reasons"][0]["reason"], "excluded");
    let run = world.run(&["classify", "@set", "--labels", "a,b", "--exclude", "a["]);
    assert_eq!(run.code, 2, "{}", run.stderr);
}

#[test]
fn a_class_is_its_folder_with_all_below_it() {
    let world = World::new();
    let images = [
        "church/0.png",
        "church/2023/1.png",
        "golf_ball/0",
        "golf_ball/2023/06/1.png",
        ".ipynb_checkpoints/1.png",
        "loose.png",
    ];
    images.iter().for_each(|name| world.picture(&format!("set/{name}")));
    world.write("set/heron/a.heic", b"");
    world.write("set/empty/readme.txt", b"");
    symlink(world.path("set"), world.path("set/church/loop")).unwrap();
    let run = world.ok(&["eval", "@set", "--format", "json", "-o", "@results.json"]);
    let entries: Value = serde_json::from_str(&run.stdout).unwrap();
    let entry = &entries[0];
    assert_eq!(
        (&entry["images"], &entry["classes"], &entry["unreadable"]),
        (&4.into(), &2.into(), &0.into())
    );
    assert_eq!(entry["empty_classes"], serde_json::json!(["empty", "heron"]));
    assert_eq!(entry["left_out"]["total"], 3);
    assert!(run.stderr.contains("2 folders without images, so no class: empty, heron"), "{}", run.stderr);
    let line = "left out: 3 files: 1 HEIC (not read yet), 1 hidden, 1 in no class folder";
    assert!(run.stderr.contains(line), "{}", run.stderr);
    // Results from before are taken with what they say of this.
    let run = world.ok(&["eval", "@set", "--format", "json", "-o", "@results.json", "--skip-existing"]);
    assert!(run.stderr.contains("taken from"), "{}", run.stderr);
    assert_eq!(serde_json::from_str::<Value>(&run.stdout).unwrap()[0]["left_out"], entry["left_out"]);
}

#[test]
fn hidden_folders_are_neither_splits_nor_keep_splits_from_being_found() {
    let world = World::new();
    for name in
        ["train/a/1.png", "train/b/1.png", "test/a/2.png", "test/b/2.png", "test/b/3.png", ".cache/x/1.png"]
    {
        world.picture(&format!("set/{name}"));
    }
    let run = world.ok(&["eval", "@set", "--format", "json"]);
    let entries: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!((&entries[0]["images"], &entries[0]["classes"]), (&3.into(), &2.into()));
}

#[test]
fn formats_that_are_not_read_are_named_and_files_of_unknown_extensions_examined() {
    let world = World::new();
    for name in ["a.png", "b.pic", "c", "d.jpeg"] {
        world.picture(&format!("phone/{name}"));
    }
    world.write("phone/e.heic", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic");
    world.write("phone/f.AVIF", b"");
    world.write("phone/g.MOV", b"film");
    world.write("phone/notes.txt", b"text");
    world.write("phone/h.png", b"no picture");
    world.write("phone/i.png", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic");
    let (names, run) = world.classified(&["@phone"]);
    assert_eq!(names, ["phone/a.png", "phone/b.pic", "phone/c", "phone/d.jpeg"]);
    // What the decoder finds under a name that promises something else counts by its format too.
    let line = "left out: 5 files: 1 AVIF (not read yet), 2 HEIC (not read yet), 1 video, 1 unreadable";
    assert!(run.stderr.contains(line), "{}", run.stderr);

    // A folder without an image keeps nothing from the others; alone it says what it has instead.
    world.write("only/a.heic", b"");
    world.write("only/b.txt", b"");
    let (names, run) = world.classified(&["@only", "@phone/a.png"]);
    assert_eq!((names.len(), run.code), (1, 0));
    assert!(
        run.stderr.contains("only: no images") && run.stderr.contains("1 HEIC (not read yet)"),
        "{}",
        run.stderr
    );
    let (_, run) = world.classified(&["@only"]);
    assert_ne!(run.code, 0);
    assert!(run.stderr.contains("1 HEIC (not read yet); 1 file is no image"), "{}", run.stderr);
}

#[test]
fn what_is_no_regular_file_is_counted_and_blocks_no_command() {
    let world = World::new();
    for class in ["a", "b"] {
        world.picture(&format!("set/{class}/1.png"));
        world.write(&format!("set/{class}/1.txt"), b"a caption");
    }
    world.fifo("set/a/x.jpg");
    let _socket = UnixListener::bind(world.path("set/a/y.png")).unwrap();
    symlink(world.path("set/a/x.jpg"), world.path("set/b/link.jpg")).unwrap();
    symlink("/dev/zero", world.path("set/b/zero.png")).unwrap();
    let line = "left out: 4 files: 2 FIFO (not a regular file), 1 socket (not a regular file), 1 character device (not a regular file)";
    for args in [
        &["classify", "@set", "--labels", "a,b"][..],
        &["embed", "@set", "-o", "@out.npy"],
        &["eval", "@set"],
        &["memory", "build", "@set", "-o", "@memory"],
    ] {
        let run = world.ok(args);
        assert!(run.stderr.contains(line), "{args:?}: {}", run.stderr);
    }
    // Named itself it is tried, and refused.
    for (file, kind) in
        [("@set/a/x.jpg", "FIFO"), ("@set/b/zero.png", "character device"), ("@set/a/y.png", "socket")]
    {
        let (_, run) = world.classified(&[file]);
        assert_ne!(run.code, 0);
        assert!(run.stderr.contains(&format!("not a regular file: {kind}")), "{}", run.stderr);
    }
}

#[test]
fn captions_and_listed_images_that_are_no_regular_files_are_skipped() {
    let world = World::new();
    for name in ["a", "b", "c"] {
        world.picture(&format!("set/{name}.png"));
    }
    world.write("set/a.txt", b"a caption");
    world.fifo("set/b.txt");
    world.fifo("set/c.json");
    let run = world.run(&["memory", "build", "@set", "-o", "@memory"]);
    assert_eq!(world.pairs("memory"), 1, "{}", run.stderr);
    for name in ["b.txt", "c.json"] {
        assert!(run.stderr.contains(&format!("{name}: not a regular file: FIFO")), "{}", run.stderr);
    }
    world.fifo("set/pipe.png");
    world.write("set/pairs.csv", b"image_path,caption\na.png,one\npipe.png,two\n");
    let run = world.run(&["memory", "build", "@set/pairs.csv", "-o", "@of-table"]);
    assert_eq!(world.pairs("of-table"), 1, "{}", run.stderr);
    assert!(run.stderr.contains("pipe.png: not a regular file: FIFO"), "{}", run.stderr);
    world.write("set/labels.csv", b"image_path,label\na.png,one\npipe.png,two\n");
    let run = world.run(&["eval", "@set/labels.csv"]);
    assert!(run.stderr.contains("pipe.png: not a regular file: FIFO"), "{}", run.stderr);

    // Sources themselves.
    for name in ["table.csv", "pairs.parquet", "shard.tar", "captions.json"] {
        world.fifo(name);
        let run = world.run(&["memory", "build", &format!("@{name}"), "-o", "@none"]);
        assert_ne!(run.code, 0);
        assert!(run.stderr.contains("not a regular file: FIFO"), "{name}: {}", run.stderr);
    }
    world.fifo("tars/0.tar");
    let run = world.run(&["memory", "build", "@tars", "-o", "@none"]);
    assert!(run.stderr.contains("1 FIFO (not a regular file)"), "{}", run.stderr);
}

#[cfg(target_os = "linux")]
#[test]
fn images_with_names_of_any_bytes_come_into_a_memory_and_are_found_again() {
    use std::ffi::{OsStr, OsString};
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    let world = World::new();
    let root = world.0.path().as_os_str().as_bytes();
    let below = |name: &[u8]| PathBuf::from(OsString::from_vec([root, b"/", name].concat()));
    let tar = |member: &[u8], data: &[u8]| {
        let mut header = tar::Header::new_ustar();
        header.set_size(data.len() as u64);
        (header, PathBuf::from(OsStr::from_bytes(member)), data.to_vec())
    };
    fs::create_dir_all(below(b"photos \xff/in")).unwrap();
    for (name, seed) in
        [(&b"photos \xff/caf\xe9.png"[..], 1), (b"photos \xff/in/\x80.png", 2), (b"na\xefve.png", 3)]
    {
        picture(&below(b"next.png"), seed);
        fs::rename(below(b"next.png"), below(name)).unwrap();
    }
    fs::write(below(b"photos \xff/caf\xe9.txt"), "a coffee").unwrap();
    fs::write(below(b"photos \xff/in/metadata.csv"), b"file_name,text\n\x80.png,a coin\n").unwrap();
    fs::write(below(b"list.csv"), b"image,caption\nna\xefve.png,a child\n").unwrap();
    picture(&below(b"in a tar.png"), 4);
    let mut shard = tar::Builder::new(fs::File::create(below(b"shard.tar")).unwrap());
    let png = fs::read(below(b"in a tar.png")).unwrap();
    for (mut header, name, data) in [tar(b"\xe9.png", &png), tar(b"\xe9.txt", b"a ship")] {
        shard.append_data(&mut header, name, &data[..]).unwrap();
    }
    shard.finish().unwrap();
    let home = below(b"home");
    let model = tiny_model();
    let run = |args: &[&OsStr]| support::xmore(args).home(&home).run_within(LIMIT);
    let (photos, memory) = (below(b"photos \xff"), below(b"m"));
    let [list, shard] = [below(b"list.csv"), below(b"shard.tar")];
    let build = ["memory", "build", "-o"].map(OsStr::new);
    let sources =
        [memory.as_os_str(), photos.as_os_str(), list.as_os_str(), shard.as_os_str(), OsStr::new(&model)];
    let built = run(&[&build[..], &sources].concat());
    assert_eq!(built.code, 0, "{}", built.stderr);
    assert_eq!((world.pairs("m"), built.stderr.contains(" 0 skipped")), (4, true), "{}", built.stderr);
    let again = run(&[&build[..], &sources].concat());
    assert!(again.code == 0 && again.stderr.contains("nothing to do"), "{}", again.stderr);
    let said = |args: &[&str]| xmore_in(world.0.path(), args).ok();
    assert_eq!(said(&["memory", "info", "@m", "--skipped"]), "source,path,reason,kind\n");
    said(&["memory", "verify", "@m"]);

    let dir = world.0.path().display();
    let folder = format!("file:{dir}/photos%20%FF");
    let expected = [
        (photos.join(OsStr::from_bytes(b"caf\xe9.png")), format!("{folder}/caf%E9.png")),
        (photos.join(OsStr::from_bytes(b"in/\x80.png")), format!("{folder}/in/%80.png")),
        (below(b"na\xefve.png"), format!("file:{dir}/na%EFve.png")),
        (below(b"in a tar.png"), format!("{dir}/shard.tar#file:%E9.png")),
    ];
    for (id, (query, text)) in expected.iter().enumerate() {
        for format in ["table", "csv", "json", "jsonl"] {
            let search = ["memory", "search", "-n1", "--format", format, "--image"].map(OsStr::new);
            let found =
                run(&[&search[..], &[query.as_os_str(), memory.as_os_str(), OsStr::new(&model)]].concat());
            assert!(
                found.code == 0 && found.stdout.contains(text),
                "{id} {format}: {} {}",
                found.stdout,
                found.stderr
            );
        }
    }
    picture(&photos.join(OsStr::from_bytes(b"caf\xe9 2.png")), 1);
    fs::write(photos.join(OsStr::from_bytes(b"caf\xe9 2.txt")), "a coffee").unwrap();
    let append = ["memory", "append"].map(OsStr::new);
    let appended = run(&[&append[..], &[memory.as_os_str(), photos.as_os_str()]].concat());
    assert_eq!((appended.code, world.pairs("m")), (0, 5), "{}", appended.stderr);
    let twice = said(&["memory", "duplicates", "@m", "--above=0.9999"]);
    assert!(twice.contains(&expected[0].1) && twice.contains("/caf%E9%202.png"), "{twice}");

    // Every picture is read again: by another model, and for the server's small copies.
    let second = second_model(world.0.path());
    let memory = memory.display().to_string();
    let embedded =
        xmore_in(world.0.path(), &["memory", "embed", &memory, "--model", &second]).run_within(LIMIT);
    assert!(
        embedded.code == 0 && embedded.stderr.contains("embeddings of 5 pairs by"),
        "{}",
        embedded.stderr
    );
    assert!(!embedded.stderr.contains("not found"), "{}", embedded.stderr);
    let server =
        xmore_in(world.0.path(), &["serve", "--memory", &memory, "--addr", "127.0.0.1:0", &model]).serve();
    for (id, (_, text)) in expected.iter().enumerate() {
        assert_eq!(server.get(&format!("/v1/pairs/{id}")).ok()["image_path"], text.as_str());
        let picture = server.get(&format!("/v1/pairs/{id}/image?size=32"));
        assert!(picture.status == 200 && picture.body.starts_with(b"\xff\xd8"), "{id}: {}", picture.status);
    }
}
