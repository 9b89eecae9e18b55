//! `memory build --part` and `memory merge`: of every kind of source, in any number of parts, with workers that are killed, the merged
//! memory has the bytes of one build.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use serde_json::{Value, json};
use support::files::{assert_same_files, bytes_of, picture, source};
use support::{Xmore, tiny_model, xmore_in};

/// Samples of the sources that are made here.
const SAMPLES: usize = 52;

/// Sources, and folders for parts and memories.
struct World {
    dir: tempfile::TempDir,
    model: String,
}

impl World {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), model: tiny_model() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// `xmore memory …` with a checkpoint after every batch; `@name` is a path here.
    fn memory(&self, args: &[&str]) -> Xmore {
        xmore_in(self.dir.path(), &[&["memory"], args].concat())
            .env("XMORE_CHECKPOINT_SECONDS", "0")
            .env("XMORE_MAX_SKIPPED", "100%")
    }

    fn build(&self, sources: &[&str], output: &str, more: &[&str]) -> Xmore {
        self.memory(&[&["build"], sources, &["-o", output, &self.model], more].concat())
    }

    /// Builds all parts; returns their folders.
    fn parts(&self, sources: &[&str], of: usize) -> Vec<String> {
        (1..=of)
            .map(|number| {
                let folder = format!("@part-{number}-of-{of}");
                self.build(sources, &folder, &[&format!("--part={number}/{of}")]).ok();
                folder
            })
            .collect()
    }

    fn merge(&self, parts: &[String], output: &str) -> Xmore {
        let parts = parts.iter().map(String::as_str);
        self.memory(&["merge"].into_iter().chain(parts).chain(["-o", output]).collect::<Vec<_>>())
    }

    /// In 1, 2, 3 and 7 parts, and in more than there are samples.
    #[track_caller]
    fn compare(&self, sources: &[&str]) {
        self.build(sources, "@whole", &[]).ok();
        for of in [1, 2, 3, 7, SAMPLES + 7] {
            let parts = self.parts(sources, of);
            self.merge(&parts, "@merged").ok();
            assert_same_files(&self.path("merged"), &self.path("whole"));
            for folder in parts.iter().map(|part| part.trim_start_matches('@')).chain(["merged"]) {
                fs::remove_dir_all(self.path(folder)).unwrap();
            }
        }
    }

    /// The bytes of a picture, of which some are broken.
    fn image(&self, i: usize) -> Vec<u8> {
        let path = self.path("picture.png");
        picture(&path, i as u64);
        if i % 13 == 4 { b"no picture".to_vec() } else { fs::read(path).unwrap() }
    }
}

/// Some come again, some are cut by the model.
fn caption(i: usize) -> String {
    match i % 6 {
        1 => "a thing seen often".to_owned(),
        3 => format!("so long {}{}", "word ".repeat(60), i % 4),
        _ => format!("picture {i}"),
    }
}

#[test]
fn a_table() {
    let world = World::new();
    source(world.dir.path(), 70, 4);
    world.compare(&["@pairs.csv"]);
}

#[test]
fn a_folder_and_a_table_that_lists_its_pictures_again() {
    let world = World::new();
    fs::create_dir(world.path("photos")).unwrap();
    let mut rows = "image_path,caption\n".to_owned();
    for i in 0..SAMPLES {
        fs::write(world.path(&format!("photos/{i:03}.png")), world.image(i)).unwrap();
        if i % 9 != 2 {
            fs::write(world.path(&format!("photos/{i:03}.txt")), caption(i)).unwrap();
        }
        rows += &format!("photos/{i:03}.png,\"{}\"\nphotos/{i:03}.png,again {}\n", caption(i), i % 5);
    }
    fs::write(world.path("pairs.csv"), rows + "photos/none.png,of a file that is not there\n").unwrap();
    world.compare(&["@photos", "@pairs.csv", "@photos"]);
}

/// Writes pictures and captions as img2dataset does.
fn shard(path: &Path, samples: impl Iterator<Item = (String, Vec<u8>, String)>) {
    let mut tar = tar::Builder::new(fs::File::create(path).unwrap());
    let mut add = |name: String, bytes: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, bytes).unwrap();
    };
    for (key, image, caption) in samples {
        add(format!("{key}.png"), &image);
        add(format!("{key}.txt"), caption.as_bytes());
    }
    tar.finish().unwrap();
}

#[test]
fn tars() {
    let world = World::new();
    fs::create_dir(world.path("shards")).unwrap();
    // So many that up to three parts take whole files, and more list all of them.
    for number in 0..SAMPLES / 4 {
        let samples = (4 * number..4 * number + 4).map(|i| (format!("{i:05}"), world.image(i), caption(i)));
        shard(&world.path(&format!("shards/{number:03}.tar")), samples);
    }
    fs::write(world.path("shards/003.tar"), "no tar").unwrap();
    fs::write(world.path("shards/loose.png"), world.image(1)).unwrap();
    world.compare(&["@shards"]);
    fs::remove_dir_all(world.path("whole")).unwrap();
    fs::remove_file(world.path("shards/003.tar")).unwrap();
    world.compare(&["@shards/{000..002}.tar", "@shards/{004..012}.tar"]);
    fs::remove_dir_all(world.path("whole")).unwrap();
    // A shard that is listed twice.
    world.compare(&["@shards", "@shards/{004..005}.tar"]);
}

#[test]
fn parquet_with_the_images_in_it() {
    let world = World::new();
    fs::create_dir(world.path("rows")).unwrap();
    for number in 0..4 {
        let schema = "message pairs { REQUIRED BYTE_ARRAY image; REQUIRED BYTE_ARRAY caption (UTF8); }";
        let file = fs::File::create(world.path(&format!("rows/{number}.parquet"))).unwrap();
        let schema = Arc::new(parse_message_type(schema).unwrap());
        let properties = Arc::new(WriterProperties::builder().build());
        let mut writer = SerializedFileWriter::new(file, schema, properties).unwrap();
        let mut group = writer.next_row_group().unwrap();
        let rows = || SAMPLES / 4 * number..SAMPLES / 4 * (number + 1);
        let images: Vec<ByteArray> = rows().map(|i| ByteArray::from(world.image(i))).collect();
        let captions: Vec<ByteArray> = rows().map(|i| ByteArray::from(caption(i).as_str())).collect();
        for values in [images, captions] {
            let mut column = group.next_column().unwrap().unwrap();
            column.typed::<ByteArrayType>().write_batch(&values, None, None).unwrap();
            column.close().unwrap();
        }
        group.close().unwrap();
        writer.close().unwrap();
    }
    world.compare(&["@rows"]);
}

#[test]
fn coco_captions() {
    let world = World::new();
    let mut images = Vec::new();
    for i in 0..SAMPLES {
        fs::write(world.path(&format!("{i}.png")), world.image(i)).unwrap();
        images.push(json!({"id": i, "file_name": format!("{i}.png")}));
    }
    let annotations: Vec<Value> =
        (0..3 * SAMPLES).map(|i| json!({"image_id": i % (SAMPLES + 1), "caption": caption(i)})).collect();
    let coco = json!({"images": images, "annotations": annotations});
    fs::write(world.path("captions.json"), coco.to_string()).unwrap();
    world.compare(&["@captions.json"]);
}

#[test]
fn embeddings_are_not_divided() {
    let world = World::new();
    source(world.dir.path(), 20, 2);
    world.build(&["@pairs.csv"], "@m", &[]).ok();
    let error = world.build(&["@m"], "@part", &["--part=1/2"]).fails(1);
    assert!(error.contains("is not divided") && error.contains("hint: leave out --part"), "{error}");
    assert!(!world.path("part").exists());
}

/// Workers that are killed again and again, at moments that differ.
#[cfg(unix)]
#[test]
fn workers_are_killed_and_started_again() {
    let world = World::new();
    source(world.dir.path(), 200, 5);
    let sources = ["@pairs.csv"];
    world.build(&sources, "@whole", &[]).ok();
    let (mut parts, mut killed) = (Vec::new(), 0);
    for number in 1..=3 {
        let (folder, part) = (format!("@part{number}"), format!("--part={number}/3"));
        let consumed = || {
            let path = world.path(&format!("part{number}/.xmore-building/checkpoint.json"));
            let state: Value =
                serde_json::from_slice(&fs::read(path).unwrap_or_default()).unwrap_or_default();
            state["cursor"]["consumed"].as_u64().unwrap_or(0)
        };
        for _ in 0..20 {
            let mut worker = world.build(&sources, &folder, &[&part]).start_telling(&world.path("said.txt"));
            while consumed() == 0 && worker.try_wait().unwrap().is_none() {
                std::thread::yield_now();
            }
            let ended = worker.try_wait().unwrap().is_some();
            let _ = worker.kill();
            worker.wait().unwrap();
            if !ended {
                killed += 1;
                break;
            }
            fs::remove_dir_all(world.path(&format!("part{number}"))).unwrap();
        }
        let error = world.merge(std::slice::from_ref(&folder), "@merged").fails(1);
        assert!(error.contains("is not finished") && error.contains("goes on where it stopped"), "{error}");
        world.build(&sources, &folder, &[&part]).ok();
        let before = bytes_of(&world.path(&format!("part{number}")));
        let again = world.build(&sources, &folder, &[&part]).run();
        assert!(again.code == 0 && again.stderr.contains("nothing to do"), "{}", again.stderr);
        assert_eq!(bytes_of(&world.path(&format!("part{number}"))), before);
        parts.push(folder);
    }
    assert!(killed > 0, "no worker was caught before its end");
    let error = world.merge(&parts[..2], "@merged").fails(1);
    assert!(error.contains("1 of 3 parts are missing: 3"), "{error}");
    assert_eq!(world.merge(&parts, "@merged").ok().trim(), world.path("merged").display().to_string());
    assert_same_files(&world.path("merged"), &world.path("whole"));
    let again = world.merge(&parts, "@merged").run();
    assert!(again.code == 0 && again.stderr.contains("nothing to do"), "{}", again.stderr);
    world.memory(&["verify", "@merged"]).ok();
    // What was merged is a memory like any other; a part is not.
    let error = world.memory(&["append", "@part1", "@pairs.csv", &world.model]).fails(1);
    assert!(error.contains("holds part 1/3 of a divided build"), "{error}");
    world.memory(&["build", "@pairs.csv", "-o", "@merged", &world.model]).ok();
    assert_same_files(&world.path("merged"), &world.path("whole"));
}

#[test]
fn nonsense_is_refused() {
    let world = World::new();
    source(world.dir.path(), 4, 1);
    for part in ["0/3", "4/3", "3", "a/b"] {
        let error = world.build(&["@pairs.csv"], "@part", &[&format!("--part={part}")]).fails(2);
        assert!(error.contains("expected I/N with I from 1 to N"), "{part}: {error}");
    }
    let error = world.build(&["@pairs.csv"], "@part", &["--part=1/3", "--overwrite"]).fails(2);
    assert!(error.contains("--overwrite"), "{error}");
    let error = world.merge(&["@photos".to_owned()], "@merged").fails(1);
    assert!(error.contains("holds no part of a divided build") && error.contains("--part I/N"), "{error}");
    assert!(!world.path("part").exists() && !world.path("merged").exists());
}
