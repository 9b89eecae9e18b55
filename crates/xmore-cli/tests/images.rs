//! Image files of users: every format, turned photos, animated ones, formats that are not read, large ones.

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use support::{Run, tiny_model, xmore_in};

struct World(tempfile::TempDir);

impl World {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A file of the decoders' tests under another name.
    fn copy(&self, fixture: &str, name: &str) {
        let from =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../xmore-files/tests/fixtures/images").join(fixture);
        let to = self.path(name);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(from, to).unwrap();
    }

    /// An argument `@name` is a path in the world.
    fn run(&self, args: &[&str]) -> Run {
        let model = tiny_model();
        xmore_in(self.0.path(), &[args, &[&model]].concat()).run()
    }

    #[track_caller]
    fn ok(&self, args: &[&str]) -> Run {
        let run = self.run(args);
        assert_eq!(run.code, 0, "{}", run.stderr);
        run
    }

    /// Embeddings of two files, as bytes.
    fn embedded(&self, [a, b]: [&str; 2], more: &[&str]) -> [Vec<u8>; 2] {
        self.ok(&[&["embed", a, b, "-o", "@rows.npy"], more].concat());
        let npy = fs::read(self.path("rows.npy")).unwrap();
        let header = 10 + usize::from(u16::from_le_bytes([npy[8], npy[9]]));
        let (first, second) = npy[header..].split_at((npy.len() - header) / 2);
        [first.to_vec(), second.to_vec()]
    }
}

#[test]
fn a_turned_photo_is_the_upright_one_unless_pixels_are_taken_as_stored() {
    let world = World::new();
    for kind in ["png", "webp", "tiff"] {
        let names = [format!("o1.{kind}"), format!("o6.{kind}")];
        names.iter().for_each(|name| world.copy(name, name));
        let paths = names.map(|name| format!("@{name}"));
        let pair = [paths[0].as_str(), &paths[1]];
        let [upright, turned] = world.embedded(pair, &[]);
        assert_eq!(upright, turned, "{kind}");
        let [upright_stored, turned_stored] = world.embedded(pair, &["--orientation", "stored"]);
        assert_eq!(upright, upright_stored, "{kind}");
        assert_ne!(turned, turned_stored, "{kind}");
    }
}

#[test]
fn a_memory_says_which_way_up_it_was_built_and_is_followed() {
    let world = World::new();
    for folder in ["a", "b"] {
        world.copy("o6.png", &format!("{folder}/{folder}.png"));
        fs::write(world.path(&format!("{folder}/{folder}.txt")), "a thing").unwrap();
    }
    let orientation = |memory: &str| {
        let manifest = fs::read_to_string(world.path(memory).join("xmore_memory.json")).unwrap();
        manifest.contains("\"orientation\": \"exif\"") || manifest.contains("\"orientation\":\"exif\"")
    };
    let classify = |memory: &str, more: &[&str]| {
        let args =
            ["classify", "@a/a.png", "--labels", "a,b", "--method", "xmore", "-k", "1", "--memory", memory];
        world.ok(&[&args, more].concat()).stderr
    };
    world.ok(&["memory", "build", "@a", "-o", "@upright"]);
    assert!(orientation("upright"));
    assert!(!classify("@upright", &[]).contains("orientation"));
    assert!(classify("@upright", &["--orientation", "stored"]).contains("with `exif`"));

    world.ok(&["memory", "build", "@a", "-o", "@stored", "--orientation", "stored"]);
    assert!(!orientation("stored"));
    assert!(classify("@stored", &[]).contains("with `stored`"));

    // What is added is decoded as what is there.
    let added = world.ok(&["memory", "append", "@stored", "@b"]);
    assert!(!added.stderr.contains("warning"), "{}", added.stderr);
    let contradiction = world.ok(&["memory", "append", "@upright", "@b", "--orientation", "stored"]);
    assert!(contradiction.stderr.contains("warning: images are decoded with orientation `stored`"));
    assert!(orientation("upright"));
    // A copy that is decoded alike is as near as the first.
    let similarities = |memory: &str, more: &[&str]| {
        let args = ["memory", "search", memory, "--image", "@b/b.png", "-n", "2", "--format", "csv"];
        let found = world.ok(&[&args, more].concat()).stdout;
        found.lines().skip(1).map(|line| line.split(',').nth(1).unwrap().to_owned()).collect::<Vec<_>>()
    };
    let alike = similarities("@stored", &["--orientation", "stored"]);
    assert!(alike.len() == 2 && alike[0] == alike[1], "{alike:?}");
    // That it is decoded otherwise is said of a photo, not of a text.
    let said = |query: &str, value: &str, more: &[&str]| {
        world.ok(&[&["memory", "search", "@upright", query, value, "-n", "1"], more].concat()).stderr
    };
    let stored = ["--orientation", "stored"];
    assert!(!said("--image", "@b/b.png", &[]).contains("orientation"));
    assert!(said("--image", "@b/b.png", &stored).contains("with `exif`"));
    let args = [&["memory", "search", "@upright", "--text", "b"], &stored[..]].concat();
    let refused = world.run(&args);
    assert!(refused.code == 2 && refused.stderr.contains("--orientation has no effect on a text"));
    let mixed = similarities("@upright", &[]);
    assert!(mixed.len() == 2 && mixed[0] != mixed[1], "{mixed:?}");
}

#[test]
fn every_format_is_read_and_first_frames_are_told_once() {
    let world = World::new();
    let files = [
        "palette.gif",
        "rgb24.bmp",
        "rgb_tiff_lzw.tiff",
        "rgb.ppm",
        "grey.pgm",
        "one.pbm",
        "png.ico",
        "rgb.qoi",
        "rgb.tga",
        "o1.jpg",
        "o1.png",
        "o1.webp",
        "several.gif",
        "several.png",
        "several.webp",
        "several.tiff",
    ];
    for file in files {
        world.copy(file, &format!("photos/{file}"));
    }
    // Names that say nothing, or something else.
    world.copy("o1.jpg", "photos/b.pic");
    world.copy("o1.jpg", "photos/c");
    world.copy("o1.jpg", "photos/d.jfif");
    world.copy("o1.jpg", "photos/e.png");
    let run = world.ok(&["classify", "@photos", "--labels", "a,b", "--top", "1", "--format", "csv"]);
    assert_eq!(run.stdout.lines().count(), 1 + files.len() + 4, "{}\n{}", run.stdout, run.stderr);
    let told = run.stderr.lines().filter(|line| line.contains("several frames or pages"));
    assert_eq!(
        told.collect::<Vec<_>>(),
        ["4 images have several frames or pages: the first of each was taken"]
    );
}

#[test]
fn formats_that_are_not_read_are_named_with_what_to_do() {
    let world = World::new();
    fs::write(world.path("a.heic"), b"\0\0\0\x18ftypheic\0\0\0\0mif1heic").unwrap();
    fs::write(world.path("b.jpg"), b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf").unwrap();
    let run = world.run(&["classify", "@a.heic", "@b.jpg", "--labels", "a,b"]);
    assert_eq!(run.code, 3);
    for line in
        ["HEIC is not read yet", "AVIF is not read yet", "hint: convert HEIC images to JPEG or PNG first"]
    {
        assert!(run.stderr.contains(line), "{}", run.stderr);
    }
}

#[test]
fn memory_for_decoding_is_bounded_by_a_flag() {
    let world = World::new();
    let path = world.path("a.png");
    image::RgbImage::new(1200, 1000).save(&path).unwrap();
    let run = world.run(&["--decode-memory", "2MiB", "classify", "@a.png", "--labels", "a,b"]);
    assert_eq!(run.code, 3);
    assert!(
        run.stderr.contains("1200x1000 pixels take 5 MiB to decode, at most 2 MiB may be taken"),
        "{}",
        run.stderr
    );
    assert!(run.stderr.contains("hint: --decode-memory"), "{}", run.stderr);
    world.ok(&["--decode-memory", "8MiB", "classify", "@a.png", "--labels", "a,b"]);
    let wrong = world.run(&["--decode-memory", "0", "classify", "@a.png", "--labels", "a,b"]);
    assert_eq!(wrong.code, 2);
    assert!(wrong.stderr.contains("expected a size such as 512MiB"), "{}", wrong.stderr);
}

#[test]
fn photos_that_are_far_from_square_are_told_and_can_be_seen_whole() {
    let world = World::new();
    let wide = image::RgbImage::from_fn(90, 30, |x, y| image::Rgb([x as u8 * 2, y as u8 * 8, 90]));
    wide.save(world.path("wide.png")).unwrap();
    // What lies outside the middle square, and what the filter takes of its neighborhoods, is another color.
    let mut other = wide;
    other
        .enumerate_pixels_mut()
        .filter(|(x, ..)| !(24..66).contains(x))
        .for_each(|(.., pixel)| pixel.0 = [255; 3]);
    other.save(world.path("other.png")).unwrap();
    let mut found = Vec::new();
    for mode in ["shortest", "longest", "squash"] {
        let [first, second] = world.embedded(["@wide.png", "@other.png"], &["--resize-mode", mode]);
        assert_eq!(first == second, mode == "shortest", "{mode}");
        found.push(first);
    }
    assert!(found[0] != found[1] && found[1] != found[2] && found[0] != found[2]);
    let classify = ["classify", "@wide.png", "@other.png", "--labels", "a,b"];
    let told = world.ok(&classify).stderr;
    assert!(told.contains("2 images are more than twice as long one way as the other"), "{told}");
    assert!(told.contains("--resize-mode"), "{told}");
    let told_of = |mode: &str| world.ok(&[&classify[..], &["--resize-mode", mode]].concat()).stderr;
    let squashed = told_of("squash");
    assert!(squashed.contains("the other: each was squashed into a square"), "{squashed}");
    assert!(!told_of("longest").contains("twice"));
    let refused = world.run(&[&classify[..], &["--resize-mode", "crop"]].concat());
    assert_eq!(refused.code, 2);
    assert!(refused.stderr.contains("expected one of shortest, longest, squash"), "{}", refused.stderr);
}

#[test]
fn kept_embeddings_of_eval_are_those_of_the_resize_mode() {
    let world = World::new();
    for (class, color) in [("a", 10), ("b", 200)] {
        fs::create_dir_all(world.path("photos").join(class)).unwrap();
        let photo = image::RgbImage::from_fn(90, 30, |x, y| image::Rgb([color, x as u8 * 2, y as u8]));
        photo.save(world.path("photos").join(class).join("0.png")).unwrap();
    }
    let eval = |mode: &str| {
        let run = world.ok(&["eval", "@photos", "--format", "json", "--resize-mode", mode]);
        run.stdout.lines().filter(|line| !line.contains("seconds")).collect::<Vec<_>>().join("\n")
    };
    let [first, squash, again] = ["shortest", "squash", "shortest"].map(eval);
    assert_eq!(first, again);
    assert_ne!(first, squash);
}
