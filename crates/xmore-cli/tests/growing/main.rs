//! Building and appending again: what could not be read before is tried again, and what a source has got since is added once.

mod limits;
#[path = "../support/mod.rs"]
mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use serde_json::Value;
use support::files::{assert_same_files, bytes_of, copy_folder, picture, second_model};
use support::{Run, Xmore, captions_by_id, tiny_model, xmore_in};

/// A folder for sources and memories.
struct World {
    dir: tempfile::TempDir,
    tiny: String,
}

impl World {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), tiny: tiny_model() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// `xmore` with arguments; `@name` is a path in this world.
    fn run(&self, args: &[&str]) -> Xmore {
        xmore_in(self.dir.path(), args)
    }

    fn build(&self, source: &str, memory: &str, more: &[&str]) -> Run {
        self.run(&[&["memory", "build", source, "-o", memory, &self.tiny], more].concat()).run()
    }

    fn append(&self, memory: &str, source: &str, more: &[&str]) -> Run {
        self.run(&[&["memory", "append", memory, source], more].concat()).run()
    }

    /// Pictures `from..to` below `folder`, with their captions beside them.
    fn photos(&self, folder: &str, numbers: std::ops::Range<u64>) {
        fs::create_dir_all(self.path(folder)).unwrap();
        for i in numbers {
            picture(&self.path(&format!("{folder}/{i}.png")), i);
            fs::write(self.path(&format!("{folder}/{i}.txt")), format!("caption {i}")).unwrap();
        }
    }

    /// A table of pictures `numbers` in `folder`.
    fn table(&self, name: &str, folder: &str, numbers: impl Iterator<Item = u64>) {
        let rows: String = numbers.map(|i| format!("{folder}/{i}.png,caption {i}\n")).collect();
        fs::write(self.path(name), format!("image_path,caption\n{rows}")).unwrap();
    }

    fn rename(&self, from: &str, to: &str) {
        fs::rename(self.path(from), self.path(to)).unwrap();
    }

    /// Captions of all pairs by the order of their ids.
    fn captions(&self, memory: &str) -> Vec<String> {
        let args = ["memory", "search", memory, "--text", "x", "-n999", "--format=json", &self.tiny];
        captions_by_id(&self.run(&args).ok())
    }

    fn verify(&self, memory: &str) {
        self.run(&["memory", "verify", memory]).ok();
    }
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

fn captions(numbers: impl IntoIterator<Item = u64>) -> Vec<String> {
    numbers.into_iter().map(|i| format!("caption {i}")).collect()
}

#[track_caller]
fn expect(run: &Run, code: i32, told: &[&str]) {
    assert_eq!(run.code, code, "{}", run.stderr);
    for told in told {
        assert!(run.stderr.contains(told), "no {told:?} in: {}", run.stderr);
    }
    assert!(!run.stderr.contains("panicked"), "{}", run.stderr);
}

#[test]
fn images_that_were_missing_are_added_by_the_same_command() {
    let world = World::new();
    world.photos("photos", 0..6);
    world.table("pairs.csv", "photos", 0..6);
    // All of them: there is no memory, and nothing is left of one.
    world.rename("photos", "moved");
    let run = world.build("@pairs.csv", "@m", &[]);
    expect(
        &run,
        3,
        &["the sources gave no pair", "no memory was written", "6 images that could not be read"],
    );
    assert!(run.stdout.is_empty() && !world.path("m").exists());
    world.rename("moved", "photos");
    expect(&world.build("@pairs.csv", "@m", &[]), 0, &["6 pairs of 6 images"]);
    expect(&world.build("@pairs.csv", "@m", &[]), 0, &["nothing to do: the memory has all 6 pairs"]);

    // Some of them, by either command.
    for again in ["build", "append"] {
        world.rename("photos/2.png", "2.png");
        fs::write(world.path("whole.png"), fs::read(world.path("photos/4.png")).unwrap()).unwrap();
        fs::write(world.path("photos/4.png"), "half a picture").unwrap();
        let run = world.build("@pairs.csv", "@n", &[]);
        expect(
            &run,
            3,
            &["photos/2.png", "photos/4.png", "2 of 6 images, rows and files", "--max-skipped allows 10%"],
        );
        assert_eq!(run.stdout.trim(), world.path("n").display().to_string(), "what could be read is there");
        let retry = || match again {
            "build" => world.build("@pairs.csv", "@n", &[]),
            _ => world.append("@n", "@pairs.csv", &[]),
        };
        let before = bytes_of(&world.path("n"));
        expect(&retry(), 3, &["nothing to do", "4 pairs", "2 things still cannot be read"]);
        assert_eq!(bytes_of(&world.path("n")), before, "nothing new changes nothing");
        let list = world.run(&["memory", "info", "@n", "--skipped"]).ok();
        assert!(list.contains("unreadable-image") && list.contains("broken-image"), "{list}");

        world.rename("2.png", "photos/2.png");
        expect(
            &retry(),
            3,
            &["added 1: 5 pairs", "added 1 pair that could not be read before; 1 still cannot"],
        );
        let list = world.run(&["memory", "info", "@n", "--skipped"]).ok();
        assert!(!list.contains("unreadable-image") && list.contains("broken-image"), "{list}");
        world.rename("whole.png", "photos/4.png");
        expect(
            &retry(),
            0,
            &["added 1: 6 pairs", "added 1 pair that could not be read before; 0 still cannot"],
        );
        expect(&retry(), 0, &["nothing to do: the memory has all 6 pairs"]);
        assert_eq!(world.captions("@n"), captions([0, 1, 3, 5, 2, 4]), "what was there is not rewritten");
        assert_eq!(json(&world.run(&["memory", "info", "@n", "--format=json"]).ok())["skipped"], 0);
        world.verify("@n");
        fs::remove_dir_all(world.path("n")).unwrap();
    }
}

#[test]
fn a_caption_added_later_makes_a_pair() {
    let world = World::new();
    world.photos("photos", 0..20);
    fs::remove_file(world.path("photos/3.txt")).unwrap();
    fs::remove_file(world.path("photos/4.txt")).unwrap();
    // A caption that cannot be read.
    fs::create_dir(world.path("photos/4.txt")).unwrap();
    let run = world.build("@photos", "@m", &[]);
    expect(&run, 0, &["18 pairs", "photos/3.png", "photos/4"]);
    fs::remove_dir(world.path("photos/4.txt")).unwrap();
    for i in [3, 4] {
        fs::write(world.path(&format!("photos/{i}.txt")), format!("caption {i}")).unwrap();
    }
    expect(&world.build("@photos", "@m", &[]), 0, &["added 2: 20 pairs"]);
    world.verify("@m");
}

#[test]
fn an_embedding_set_gets_the_images_that_were_missing() {
    let world = World::new();
    let second = format!("--model={}", second_model(world.dir.path()));
    world.photos("photos", 0..6);
    expect(&world.build("@photos", "@m", &[]), 0, &[]);
    copy_folder(&world.path("m"), &world.path("undisturbed"));
    world.run(&["memory", "embed", "@undisturbed", &second]).ok();
    let embed = || world.run(&["memory", "embed", "@m", &second]).run();

    world.rename("photos", "moved");
    expect(&embed(), 3, &["6 pairs not searched by this model", "6 of 6 pairs' images could not be read"]);
    let before = bytes_of(&world.path("m"));
    expect(&embed(), 3, &["nothing to do", "6 pairs not searched by this model"]);
    assert_eq!(bytes_of(&world.path("m")), before);
    world.verify("@m");

    world.rename("moved", "photos");
    world.rename("photos/2.png", "2.png");
    expect(
        &embed(),
        3,
        &["5 pairs of these could not be read before; 1 still cannot be read", "photos/2.png"],
    );
    world.verify("@m");
    world.rename("2.png", "photos/2.png");
    expect(&embed(), 0, &["embeddings of 1 pair by", "1 pair of these"]);
    expect(&embed(), 0, &["nothing to do: the memory has embeddings by"]);
    assert_same_files(&world.path("m"), &world.path("undisturbed"));
    // A memory that has grown in between.
    world.rename("photos/1.png", "1.png");
    copy_folder(&world.path("photos"), &world.path("more"));
    expect(&world.run(&["memory", "append", "@m", "@more"]).run(), 0, &["added 5"]);
    expect(&embed(), 0, &["embeddings of 5 pairs by"]);
    world.verify("@m");
    // A missing image is there again while a new one is missing.
    world.photos("third", 6..8);
    expect(&world.run(&["memory", "append", "@m", "@third"]).run(), 0, &["added 2"]);
    world.rename("third/6.png", "6.png");
    expect(&embed(), 0, &["1 pair not searched by this model"]);
    world.photos("fourth", 8..10);
    expect(&world.run(&["memory", "append", "@m", "@fourth"]).run(), 0, &["added 2"]);
    world.rename("6.png", "third/6.png");
    world.rename("fourth/8.png", "8.png");
    expect(
        &embed(),
        0,
        &["1 pair of these could not be read before; 1 still cannot be read", "fourth/8.png"],
    );
    world.verify("@m");
}

#[test]
fn pairs_that_a_repair_took_out_are_added_again() {
    let world = World::new();
    world.photos("photos", 0..6);
    expect(&world.build("@photos", "@m", &[]), 0, &[]);
    let path = world.path("m/img_emb/img_emb_0000.npy");
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() - 5]).unwrap();
    world.run(&["memory", "repair", "@m"]).ok();
    assert_eq!(world.captions("@m").len(), 5);
    expect(&world.build("@photos", "@m", &[]), 0, &["added 1: 6 pairs"]);
    expect(&world.build("@photos", "@m", &[]), 0, &["nothing to do: the memory has all 6 pairs"]);
    assert_eq!(world.captions("@m"), captions(0..6));
    world.verify("@m");
}

/// A tar of pictures with their captions.
fn shard(world: &World, name: &str, numbers: std::ops::Range<u64>) {
    let mut tar = tar::Builder::new(fs::File::create(world.path(name)).unwrap());
    let mut add = |name: String, bytes: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, bytes).unwrap();
    };
    for i in numbers {
        add(format!("{i:04}.png"), &fs::read(world.path(&format!("photos/{i}.png"))).unwrap());
        add(format!("{i:04}.txt"), format!("caption {i}").as_bytes());
    }
    tar.finish().unwrap();
}

/// A parquet file with the pictures in it.
fn cells(world: &World, name: &str, numbers: std::ops::Range<u64>) {
    let schema = "message pairs { REQUIRED BYTE_ARRAY image; REQUIRED BYTE_ARRAY caption (UTF8); }";
    let file = fs::File::create(world.path(name)).unwrap();
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let mut writer = SerializedFileWriter::new(file, schema, Arc::default()).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let bytes = |i: u64| ByteArray::from(fs::read(world.path(&format!("photos/{i}.png"))).unwrap());
    let images: Vec<ByteArray> = numbers.clone().map(bytes).collect();
    let texts: Vec<ByteArray> = captions(numbers).iter().map(|text| ByteArray::from(text.as_str())).collect();
    for values in [images, texts] {
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<ByteArrayType>().write_batch(&values, None, None).unwrap();
        column.close().unwrap();
    }
    group.close().unwrap();
    writer.close().unwrap();
}

#[test]
fn a_source_that_has_grown_gives_its_new_pairs_only() {
    let world = World::new();
    world.photos("photos", 0..7);
    let folder = |world: &World, numbers: std::ops::Range<u64>| world.photos("grown", numbers);
    let table = |world: &World, numbers: std::ops::Range<u64>| world.table("grown.csv", "photos", numbers);
    let tar = |world: &World, numbers: std::ops::Range<u64>| shard(world, "grown.tar", numbers);
    let parquet = |world: &World, numbers: std::ops::Range<u64>| cells(world, "grown.parquet", numbers);
    type Make<'a> = &'a dyn Fn(&World, std::ops::Range<u64>);
    let sources: [(&str, Make); 4] =
        [("@grown", &folder), ("@grown.csv", &table), ("@grown.tar", &tar), ("@grown.parquet", &parquet)];
    for (source, make) in sources {
        make(&world, 0..3);
        expect(&world.build(source, "@m", &[]), 0, &["3 pairs of 3 images"]);
        make(&world, 0..5);
        expect(&world.append("@m", source, &[]), 0, &["added 2: 5 pairs of 5 images"]);
        expect(&world.append("@m", source, &[]), 0, &["nothing to do"]);
        make(&world, 0..7);
        expect(&world.build(source, "@m", &[]), 0, &["added 2: 7 pairs of 7 images"]);
        expect(&world.build(source, "@m", &[]), 0, &["nothing to do"]);
        assert_eq!(world.captions("@m"), captions(0..7), "{source}");
        world.verify("@m");
        // The same as if it had been built at once.
        expect(&world.build(source, "@n", &[]), 0, &[]);
        assert_eq!(world.captions("@n"), captions(0..7), "{source}");
        let info = json(&world.run(&["memory", "info", "@m", "--format=json"]).ok());
        assert_eq!(info["sources"].as_array().unwrap().len(), 1, "{info}");
        for memory in ["m", "n"] {
            fs::remove_dir_all(world.path(memory)).unwrap();
        }
    }
}

#[test]
fn embeddings_that_have_grown_give_their_new_rows_only() {
    let world = World::new();
    world.photos("photos", 0..5);
    world.table("pairs.csv", "photos", 0..3);
    expect(&world.build("@pairs.csv", "@made", &[]), 0, &[]);
    let copy = || {
        for name in ["img_emb", "text_emb", "metadata"] {
            copy_folder(&world.path("made").join(name), &world.path("embeddings").join(name));
        }
    };
    copy();
    expect(&world.build("@embeddings", "@m", &[]), 0, &["3 pairs"]);
    // It grows by a part, as clip-retrieval's output does.
    world.table("pairs.csv", "photos", 0..5);
    expect(&world.build("@pairs.csv", "@made", &[]), 0, &["added 2"]);
    copy();
    expect(&world.append("@m", "@embeddings", &[]), 0, &["added 2: 5 pairs"]);
    expect(&world.build("@embeddings", "@m", &[]), 0, &["nothing to do"]);
    assert_eq!(world.captions("@m"), captions(0..5));
    // Rows of the same name and caption are the same only if their embeddings are.
    expect(&world.append("@made", "@embeddings", &[]), 0, &["nothing to do"]);
    world.verify("@m");
}

#[test]
fn two_pairs_are_the_same_however_the_path_is_spelled() {
    let world = World::new();
    world.photos("photos", 0..3);
    world.table("pairs.csv", "photos", 0..3);
    expect(&world.build("@pairs.csv", "@m", &[]), 0, &[]);
    fs::create_dir(world.path("elsewhere")).unwrap();
    world.table("elsewhere/pairs.csv", "../photos", 0..3);
    world.table("dotted.csv", "./photos/.", 0..3);
    for source in ["@elsewhere/pairs.csv", "@dotted.csv", "@photos", "@elsewhere/../pairs.csv"] {
        expect(&world.append("@m", source, &[]), 0, &["nothing to do: the memory has all 3 pairs"]);
        expect(&world.build(source, "@m", &[]), 0, &["nothing to do: the memory has all 3 pairs"]);
    }
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(world.path("photos"), world.path("link")).unwrap();
        expect(&world.append("@m", "@link", &[]), 0, &["nothing to do: the memory has all 3 pairs"]);
    }
    // Another caption, or the same picture under another name, is another pair.
    fs::write(
        world.path("other.csv"),
        "image_path,caption\nphotos/0.png,another\nphotos/copy.png,caption 1\n",
    )
    .unwrap();
    fs::copy(world.path("photos/1.png"), world.path("photos/copy.png")).unwrap();
    expect(&world.append("@m", "@other.csv", &[]), 0, &["added 2: 5 pairs of 4 images"]);
}

#[test]
fn a_pair_that_is_listed_twice_is_taken_once() {
    let world = World::new();
    world.photos("photos", 0..3);
    let table = "image_path,caption\nphotos/0.png,a\nphotos/1.png,b\nphotos/0.png,a\nphotos/0.png, a \nphotos/0.png,c\n";
    fs::write(world.path("pairs.csv"), table).unwrap();
    expect(
        &world.build("@pairs.csv", "@m", &[]),
        0,
        &["3 pairs of 2 images", "2 pairs listed more than once"],
    );
    // Grown piece by piece, it is the same set.
    let rows: Vec<&str> = table.lines().collect();
    for end in 2..=rows.len() {
        fs::write(world.path("pairs.csv"), rows[..end].join("\n")).unwrap();
        assert_eq!(world.build("@pairs.csv", "@n", &[]).code, 0);
    }
    let set = |memory| world.captions(memory).into_iter().collect::<BTreeSet<_>>();
    assert_eq!((world.captions("@n").len(), set("@n")), (3, set("@m")));
}
