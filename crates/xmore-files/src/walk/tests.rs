//! Folders as people have them, and random ones.

use std::collections::BTreeMap;
use std::fs;

use proptest::prelude::*;

use super::*;

const JPEG: &[u8] = b"\xff\xd8\xff\xe0\0\x10JFIF";

struct World(tempfile::TempDir);

impl World {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    fn walk(&self, options: &WalkOptions) -> (Vec<String>, LeftOut) {
        let walked = walk_images(self.0.path(), options).unwrap();
        let below = |path: &PathBuf| path.strip_prefix(self.0.path()).unwrap().to_string_lossy().into_owned();
        (walked.files.iter().map(below).collect(), walked.left_out)
    }
}

fn excluding(patterns: &[&str]) -> WalkOptions {
    let exclude = patterns.iter().map(|pattern| pattern.parse().unwrap()).collect();
    WalkOptions { exclude, ..WalkOptions::default() }
}

#[test]
fn what_is_hidden_or_a_thumbnail_is_counted_and_taken_if_asked_for() {
    let world = World::new();
    for name in [
        "IMG_1.JPG",
        "._IMG_1.JPG",
        ".thumbnails/IMG_1.jpg",
        "@eaDir/IMG_1.JPG/SYNOFILE_THUMB_M.jpg",
        "$RECYCLE.BIN/$R1.jpg",
        "class/.ipynb_checkpoints/1-checkpoint.jpg",
        ".git/objects/a0",
        ".DS_Store",
        "Thumbs.db",
    ] {
        world.write(name, JPEG);
    }
    let (files, left_out) = world.walk(&WalkOptions::default());
    assert_eq!(files, ["IMG_1.JPG"]);
    assert_eq!(left_out.to_string(), "left out: 5 files: 2 hidden, 2 thumbnails, 1 in a trash");
    let (files, left_out) = world.walk(&WalkOptions { include_hidden: true, ..WalkOptions::default() });
    // Whose name says nothing is known by its content.
    assert_eq!(files.len(), 8, "{files:?}");
    assert!(left_out.is_empty(), "{left_out}");
}

#[test]
fn content_tells_where_the_name_says_nothing() {
    let world = World::new();
    for (name, bytes) in [
        ("a.jpg", &b"not looked at"[..]),
        ("b.pic", JPEG),
        ("img_001", JPEG),
        ("c.heic", JPEG),
        ("d.HEIC", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"),
        ("e", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"),
        ("f.heic", b""),
        ("g.txt", JPEG),
        ("h.mov", b"film"),
        ("LICENSE", b"text"),
        ("i", b""),
        ("j.avif", b"?"),
    ] {
        world.write(name, bytes);
    }
    let (files, left_out) = world.walk(&WalkOptions::default());
    assert_eq!(files, ["a.jpg", "b.pic", "c.heic", "img_001"]);
    assert_eq!(
        left_out.to_string(),
        "left out: 5 files: 1 AVIF (not read yet), 3 HEIC (not read yet), 1 video"
    );
    assert_eq!(left_out.no_images(), 3);
}

#[test]
fn globs_without_a_slash_are_for_names_and_others_for_paths() {
    let world = World::new();
    for name in ["a/raw/1.jpg", "a/2.jpg", "raw/3.jpg", "album/b.jpg", "b/raw.jpg"] {
        world.write(name, JPEG);
    }
    for (patterns, expected) in [
        (&["raw"][..], &["a/2.jpg", "album/b.jpg", "b/raw.jpg"][..]),
        (&["raw/"], &["a/2.jpg", "album/b.jpg", "b/raw.jpg"]),
        (&["a/raw"], &["a/2.jpg", "album/b.jpg", "b/raw.jpg", "raw/3.jpg"]),
        (&["./a/*"], &["album/b.jpg", "b/raw.jpg", "raw/3.jpg"]),
        (&["a*.jpg"], &["a/2.jpg", "a/raw/1.jpg", "album/b.jpg", "b/raw.jpg", "raw/3.jpg"]),
        (&["**/raw*"], &["a/2.jpg", "album/b.jpg"]),
        (&["[0-9].jpg", "b"], &["album/b.jpg"]),
    ] {
        let (files, left_out) = world.walk(&excluding(patterns));
        assert_eq!(files, expected, "{patterns:?}");
        assert_eq!(left_out.count(&Reason::Excluded), 5 - expected.len() as u64, "{patterns:?}");
    }
    assert!("a[".parse::<Exclude>().is_err());
}

#[test]
fn members_of_archives_follow_the_same_rules() {
    let options = excluding(&["raw"]);
    let mut left_out = LeftOut::default();
    for (name, is_left_out) in [
        ("0/a.jpg", false),
        ("0/a.txt", false),
        ("0/._a.jpg", true),
        ("0/._a.txt", true),
        ("__MACOSX/0/a.jpg", true),
        ("./0/a.jpg", false),
        ("raw/a.jpg", true),
        ("0/a.heic", true),
    ] {
        let shown = || format!("t.tar#{name}");
        assert_eq!(options.count_member(Path::new(name), shown, &mut left_out), is_left_out, "{name}");
    }
    let expected = "left out: 4 files: 1 HEIC (not read yet), 2 hidden, 1 excluded";
    assert_eq!(left_out.to_string(), expected);
}

#[test]
fn only_a_root_that_cannot_be_listed_is_an_error() {
    let world = World::new();
    assert_eq!(
        walk_images(&world.path("gone"), &WalkOptions::default()).unwrap_err().kind(),
        io::ErrorKind::NotFound
    );
    world.write("a.jpg", JPEG);
    assert!(walk_images(&world.path("a.jpg"), &WalkOptions::default()).is_err());
    assert!(has_images(&world.path(""), &WalkOptions::default()).unwrap());
    assert!(!has_images(&world.path(""), &excluding(&["*.jpg"])).unwrap());
}

#[test]
fn files_of_an_extension_are_found_down_to_a_depth() {
    let world = World::new();
    for name in ["0.tar", "1.TAR", "sub/2.tar", ".hidden/3.tar", "a.jpg"] {
        world.write(name, b"");
    }
    let names = |depth| {
        let walked = walk_extension(&world.path(""), "tar", depth, &WalkOptions::default()).unwrap();
        walked
            .files
            .iter()
            .map(|path| path.file_name().unwrap().to_string_lossy().into_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(names(1), ["0.tar", "1.TAR"]);
    assert_eq!(names(usize::MAX), ["0.tar", "1.TAR", "2.tar"]);
}

#[cfg(unix)]
mod unix {
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt;
    use std::os::unix::fs::symlink;

    use rustix::fs::{CWD, FileType, Mode, OFlags, mkdirat, mknodat, openat};

    use super::*;

    #[test]
    fn every_folder_is_visited_once_however_links_lead_to_it() {
        let world = World::new();
        world.write("z_real/1.jpg", JPEG);
        world.write("outside.d/keep", b"");
        let outside = World::new();
        outside.write("2.jpg", JPEG);
        symlink(world.path("z_real"), world.path("a_link")).unwrap();
        symlink("..", world.path("z_real/loop")).unwrap();
        symlink(world.path("self"), world.path("self")).unwrap();
        symlink(outside.path(""), world.path("out")).unwrap();
        symlink(world.path(""), outside.path("back")).unwrap();
        symlink(world.path("z_real/1.jpg"), world.path("file.jpg")).unwrap();
        symlink("nowhere", world.path("gone.jpg")).unwrap();
        symlink("nowhere", world.path("gone.txt")).unwrap();
        let (files, left_out) = world.walk(&WalkOptions::default());
        assert_eq!(files, ["file.jpg", "gone.jpg", "out/2.jpg", "z_real/1.jpg"]);
        // A link to itself without a telling name may have been an image.
        assert_eq!(left_out.to_string(), "left out: 1 file: 1 unreadable");
    }

    #[test]
    fn what_only_a_visible_link_leads_to_is_no_longer_hidden() {
        let world = World::new();
        world.write(".pool/a/1.jpg", JPEG);
        world.write(".pool/b/2.jpg", JPEG);
        symlink(world.path(".pool/a"), world.path("photos")).unwrap();
        symlink(world.path(".pool/a"), world.path(".other")).unwrap();
        let (files, left_out) = world.walk(&WalkOptions::default());
        assert_eq!(files, ["photos/1.jpg"]);
        assert_eq!(left_out.to_string(), "left out: 1 file: 1 hidden");
    }

    #[test]
    fn what_is_no_regular_file_is_counted_and_not_opened() {
        let world = World::new();
        for name in ["x.jpg", "pipe", "b.txt"] {
            mknodat(CWD, world.path(name), FileType::Fifo, Mode::RUSR, 0).unwrap();
        }
        symlink("/dev/zero", world.path("zero.png")).unwrap();
        symlink(world.path("x.jpg"), world.path("link.webp")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(world.path("s.heic")).unwrap();
        let (files, left_out) = world.walk(&WalkOptions::default());
        assert!(files.is_empty(), "{files:?}");
        let expected = "left out: 5 files: 3 FIFO (not a regular file), 1 socket (not a regular file), 1 character device (not a regular file)";
        assert_eq!(left_out.to_string(), expected);
    }

    #[test]
    fn names_of_any_bytes_are_kept() {
        let world = World::new();
        let name = OsString::from_vec(b"caf\xe9.jpg".to_vec());
        fs::write(world.0.path().join(&name), JPEG).unwrap();
        let walked = walk_images(world.0.path(), &WalkOptions::default()).unwrap();
        assert_eq!(walked.files, [world.0.path().join(&name)]);
        assert!(walk_images(world.0.path(), &excluding(&["caf?.jpg"])).unwrap().files.is_empty());
    }

    /// Makes folders below each other without ever naming the whole path, which may be longer than the system takes.
    fn nested(start: &Path, name: &str, count: usize) {
        let mut at = openat(CWD, start, OFlags::DIRECTORY, Mode::empty()).unwrap();
        for _ in 0..count {
            mkdirat(&at, name, Mode::RWXU).unwrap();
            at = openat(&at, name, OFlags::DIRECTORY, Mode::empty()).unwrap();
        }
        let file = openat(&at, "deep.jpg", OFlags::CREATE | OFlags::WRONLY, Mode::RWXU).unwrap();
        drop(file);
    }

    #[test]
    fn folders_too_deep_or_unlistable_are_counted_and_the_rest_goes_on() {
        let world = World::new();
        world.write("z.jpg", JPEG);
        fs::create_dir(world.path("deep")).unwrap();
        nested(&world.path("deep"), "d", MAX_DEPTH);
        fs::create_dir(world.path("long")).unwrap();
        // Its path is longer than the system lists, whoever asks.
        nested(&world.path("long"), &"l".repeat(250), 20);
        let walked = walk_images(world.0.path(), &WalkOptions::default()).unwrap();
        assert_eq!(walked.files, [world.path("z.jpg")]);
        assert_eq!(walked.left_out.to_string(), "left out: 2 folders: 1 that cannot be listed, 1 too deep");
        assert_eq!(walked.unlisted.len(), 1);
    }
}

/// A tree: names to files, folders, and links to a folder by its number.
#[derive(Clone, Debug)]
enum Node {
    File(bool),
    Folder(BTreeMap<String, Node>),
    Link(usize),
}

fn tree() -> impl Strategy<Value = BTreeMap<String, Node>> {
    let name = "[.]?[ab](\\.jpg|\\.pic|\\.txt|\\.heic)?";
    let leaf = prop_oneof![any::<bool>().prop_map(Node::File), (0usize..8).prop_map(Node::Link)];
    let node = leaf.prop_recursive(4, 40, 5, move |inner| {
        proptest::collection::btree_map(name, inner, 0..5).prop_map(Node::Folder)
    });
    proptest::collection::btree_map(name, node, 0..6)
}

/// Makes the tree; links are gathered to be made when all folders are there.
fn make(
    dir: &Path,
    tree: &BTreeMap<String, Node>,
    folders: &mut Vec<PathBuf>,
    links: &mut Vec<(PathBuf, usize)>,
) {
    folders.push(dir.to_owned());
    for (name, node) in tree {
        let path = dir.join(name);
        match node {
            Node::File(is_image) => fs::write(path, if *is_image { JPEG } else { b"text" }).unwrap(),
            Node::Folder(below) => {
                fs::create_dir(&path).unwrap();
                make(&path, below, folders, links);
            }
            Node::Link(to) => links.push((path, *to)),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[cfg(unix)]
    #[test]
    fn every_image_is_found_once_or_counted_once(tree in tree(), include_hidden: bool) {
        let world = World::new();
        let (mut folders, mut links) = (Vec::new(), Vec::new());
        make(world.0.path(), &tree, &mut folders, &mut links);
        for (path, to) in links {
            std::os::unix::fs::symlink(&folders[to % folders.len()], path).unwrap();
        }
        let walked = walk_images(world.0.path(), &WalkOptions { include_hidden, exclude: Vec::new() }).unwrap();
        prop_assert!(walked.files.is_sorted());
        let mut real: Vec<PathBuf> = walked.files.iter().map(|path| path.canonicalize().unwrap()).collect();
        real.sort();
        let found = real.len();
        real.dedup();
        prop_assert_eq!(real.len(), found, "a file was found twice");

        // Every file, links aside, with what is expected of it.
        let (mut images, mut uncounted) = (0, 0);
        for entry in WalkDir::new(world.0.path().canonicalize().unwrap()).into_iter().map(Result::unwrap) {
            if !entry.file_type().is_file() {
                continue;
            }
            let path = entry.path();
            let is_jpeg = fs::read(path).unwrap() == JPEG;
            let name = path.file_name().unwrap().to_str().unwrap();
            let named = [".jpg", ".heic"].iter().any(|extension| name.ends_with(extension));
            let taken = name.ends_with(".jpg") || (is_jpeg && !name.ends_with(".txt"));
            if named || taken {
                images += 1;
            }
            // In a folder that is left out only names count.
            if taken && !named && real.binary_search(&path.to_owned()).is_err() {
                prop_assert!(!include_hidden);
                uncounted += 1;
            }
            prop_assert!(taken || real.binary_search(&path.to_owned()).is_err());
        }
        prop_assert_eq!(found as u64 + walked.left_out.total() + uncounted, images);
    }
}
