//! A small memory from every kind of source, and embeddings by a second model, for which the images are read again.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use serde_json::{Value, json};
use support::files::{bytes_of, copy_folder, picture, second_model};
use support::{Run, captions_by_id, fixture, tiny_model, xmore};

/// Pictures 0 to 5, and folders for sources and memories.
struct World {
    dir: tempfile::TempDir,
    tiny: String,
    /// `--model=…` of a model with longer embeddings.
    second: String,
}

/// Captions of the first three pictures.
const CAPTIONS: [&str; 3] = ["a red thing", "a green dog", "a blue dog, and a cat"];

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for i in 0..6 {
            picture(&dir.path().join(format!("{i}.png")), i);
        }
        let second = format!("--model={}", second_model(dir.path()));
        Self { dir, tiny: tiny_model(), second }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    fn png(&self, i: usize) -> Vec<u8> {
        fs::read(self.path(&format!("{i}.png"))).unwrap()
    }

    fn folder(&self, name: &str) -> PathBuf {
        fs::create_dir_all(self.path(name)).unwrap();
        self.path(name)
    }

    fn build(&self, source: &str, memory: &str, more: &[&str]) -> Run {
        let (source, memory) = (self.text(source), self.text(memory));
        xmore(&[&["memory", "build", &source, "-o", &memory], more].concat()).run()
    }

    /// The captions of a memory of a source, in order; the memory is verified and embedded by the second model as well.
    #[track_caller]
    fn captions(&self, source: &str, more: &[&str]) -> Vec<String> {
        let run = self.build(source, "m", &[&[&*self.tiny], more].concat());
        assert_eq!(run.code, 0, "{}", run.stderr);
        let memory = self.text("m");
        let embedded = xmore(&["memory", "embed", &memory, &self.second]).run();
        assert!(embedded.code == 0 && !embedded.stderr.contains("not found"), "{}", embedded.stderr);
        assert_eq!(xmore(&["memory", "verify", &memory]).run().code, 0);
        let captions = self.all_captions("m");
        // Each picture is nearest to itself, by either model.
        for model in [&self.tiny, &self.second] {
            let args =
                ["memory", "search", &memory, "--image", &self.text("1.png"), "-n1", "--format=json", model];
            let found = json(&xmore(&args).ok());
            assert_eq!(found[0]["caption"], CAPTIONS[1], "{found}");
            assert!(found[0]["similarity"].as_f64().unwrap() > 0.999, "{found}");
        }
        fs::remove_dir_all(self.path("m")).unwrap();
        captions
    }

    /// Captions of all pairs, in the order of their ids.
    fn all_captions(&self, memory: &str) -> Vec<String> {
        let args =
            ["memory", "search", &self.text(memory), "--text", "x", "-n99", "--format=json", &self.tiny];
        captions_by_id(&xmore(&args).ok())
    }
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

#[test]
fn a_table_with_commas_or_tabs() {
    let world = World::new();
    for (name, separator) in [("pairs.csv", ","), ("pairs.tsv", "\t")] {
        let mut table = format!("image_path{separator}caption\n");
        for (i, caption) in CAPTIONS.iter().enumerate() {
            table += &format!("{i}.png{separator}\"{caption}\"\n");
        }
        fs::write(world.path(name), table).unwrap();
        assert_eq!(world.captions(name, &[]), CAPTIONS);
    }
    let elsewhere = world.folder("elsewhere");
    fs::copy(world.path("pairs.csv"), elsewhere.join("pairs.csv")).unwrap();
    let root = format!("--image-root={}", world.dir.path().display());
    assert_eq!(world.captions("elsewhere/pairs.csv", &[&root]), CAPTIONS);
}

#[test]
fn a_folder_with_texts_and_json_beside_the_images() {
    let world = World::new();
    let folder = world.folder("photos");
    for i in 0..4 {
        fs::write(folder.join(format!("{i}.png")), world.png(i)).unwrap();
    }
    fs::write(folder.join("0.txt"), CAPTIONS[0]).unwrap();
    fs::write(folder.join("1.json"), json!({"caption": CAPTIONS[1], "width": 20}).to_string()).unwrap();
    fs::write(folder.join("2.txt"), CAPTIONS[2]).unwrap();
    let run = world.build("photos", "m", &[&world.tiny]);
    assert!(run.stderr.contains("3.png"), "without a caption it is told: {}", run.stderr);
    fs::remove_dir_all(world.path("m")).unwrap();
    assert_eq!(world.captions("photos", &[]), CAPTIONS);
}

#[test]
fn parquet_with_the_images_in_it() {
    let world = World::new();
    let schema = "message pairs { REQUIRED BYTE_ARRAY image; REQUIRED BYTE_ARRAY caption (UTF8); }";
    let file = fs::File::create(world.path("pairs.parquet")).unwrap();
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let mut writer =
        SerializedFileWriter::new(file, schema, Arc::new(WriterProperties::builder().build())).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let images: Vec<ByteArray> = (0..3).map(|i| ByteArray::from(world.png(i))).collect();
    let captions: Vec<ByteArray> = CAPTIONS.map(ByteArray::from).into();
    for values in [images, captions] {
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<ByteArrayType>().write_batch(&values, None, None).unwrap();
        column.close().unwrap();
    }
    group.close().unwrap();
    writer.close().unwrap();
    assert_eq!(world.captions("pairs.parquet", &[]), CAPTIONS);
}

/// Writes pictures and captions as img2dataset does.
fn shard(path: &Path, samples: &[(String, Vec<u8>, String)]) {
    let mut tar = tar::Builder::new(fs::File::create(path).unwrap());
    let mut add = |name: String, bytes: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, bytes).unwrap();
    };
    for (key, image, caption) in samples {
        add(format!("{key}.png"), image);
        add(format!("{key}.txt"), caption.as_bytes());
    }
    tar.finish().unwrap();
}

#[test]
fn webdataset_shards_in_braces_that_no_shell_expanded() {
    let world = World::new();
    world.folder("shards");
    for (i, caption) in CAPTIONS.iter().enumerate() {
        let sample = (format!("{i:05}"), world.png(i), (*caption).to_owned());
        shard(&world.path(&format!("shards/{i:03}.tar")), &[sample]);
    }
    for source in ["shards/{000..002}.tar", "shards/*.tar", "shards"] {
        assert_eq!(world.captions(source, &[]), CAPTIONS, "{source}");
    }
    assert_eq!(world.captions("shards/{000..001}.tar", &[]), CAPTIONS[..2], "not more than was asked for");
    let missing = world.build("shards/{000..003}.tar", "m", &[&world.tiny]);
    assert!(missing.code == 1 && missing.stderr.contains("003.tar"), "{}", missing.stderr);
    let none = world.build("shards/{100..101}.tar", "m", &[&world.tiny]);
    assert!(none.code == 1 && none.stderr.contains("100"), "{}", none.stderr);
}

#[test]
fn coco_captions() {
    let world = World::new();
    let images: Vec<Value> = (0..3).map(|i| json!({"id": 10 + i, "file_name": format!("{i}.png")})).collect();
    let annotations: Vec<Value> = CAPTIONS
        .iter()
        .enumerate()
        .map(|(i, caption)| json!({"id": i, "image_id": 10 + i, "caption": caption}))
        .collect();
    let coco = json!({"info": {}, "images": images, "annotations": annotations});
    fs::write(world.path("captions_val2017.json"), coco.to_string()).unwrap();
    assert_eq!(world.captions("captions_val2017.json", &[]), CAPTIONS);
}

#[test]
fn embeddings_as_clip_retrieval_writes_them_need_no_images() {
    let world = World::new();
    let rows: String = CAPTIONS.iter().enumerate().map(|(i, c)| format!("{i}.png,\"{c}\"\n")).collect();
    fs::write(world.path("pairs.csv"), format!("image_path,caption\n{rows}0.png,again\n1.png,again\n"))
        .unwrap();
    assert_eq!(world.build("pairs.csv", "m", &[&world.tiny]).code, 0);
    let folder = world.folder("embeddings");
    for name in ["img_emb", "text_emb", "metadata"] {
        copy_folder(&world.path("m").join(name), &folder.join(name));
    }
    let error = xmore(&["memory", "info", &folder.display().to_string()]).fails(1);
    assert!(error.contains("output of clip-retrieval") && error.contains("memory build"), "{error}");

    // Of a model with other lengths, and of one with the same length.
    let error = world.build("embeddings", "m2", &[&world.second]);
    assert!(
        error.code == 1 && error.stderr.contains("does not hold embeddings of model"),
        "{}",
        error.stderr
    );
    assert!(error.stderr.contains("16 values") && error.stderr.contains("24"), "{}", error.stderr);
    copy_folder(&fixture("tiny"), &world.path("other"));
    let heads = world.path("other/heads.safetensors");
    let mut bytes = fs::read(&heads).unwrap();
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    bytes[header..].chunks_exact_mut(8).for_each(|two| two[3] ^= 0x80);
    fs::write(heads, bytes).unwrap();
    let other = format!("--model=local-dir:{}", world.text("other"));
    let error = world.build("embeddings", "m2", &[&other]);
    assert!(error.code == 1 && error.stderr.contains("mean cosine"), "{}", error.stderr);
    assert!(error.stderr.contains("--model"), "{}", error.stderr);
    assert!(!world.path("m2").exists(), "a refused source leaves nothing");

    let (m, same) = (bytes_of(&world.path("m")), ["img_emb/img_emb_0000.npy", "text_emb/text_emb_0000.npy"]);
    for without_texts in [false, true] {
        if without_texts {
            fs::remove_dir_all(folder.join("text_emb")).unwrap();
        }
        // The pictures are not needed.
        for i in 0..6 {
            let _ = fs::remove_file(world.path(&format!("{i}.png")));
        }
        let run = world.build("embeddings", "m2", &[&world.tiny]);
        assert_eq!(run.code, 0, "{}", run.stderr);
        let m2 = bytes_of(&world.path("m2"));
        for name in same {
            assert!(m2[Path::new(name)] == m[Path::new(name)], "{name}, without texts: {without_texts}");
        }
        assert_eq!(world.all_captions("m2"), world.all_captions("m"));
        assert!(world.build("embeddings", "m2", &[&world.tiny]).stderr.contains("nothing to do"));
        assert_eq!(xmore(&["memory", "verify", &world.text("m2")]).run().code, 0);
        fs::remove_dir_all(world.path("m2")).unwrap();
    }
}

#[test]
fn what_is_no_source_is_told_with_what_would_be() {
    let world = World::new();
    fs::write(world.path("notes.docx"), "PK").unwrap();
    fs::write(world.path("columns.csv"), "photo,words\n0.png,x\n").unwrap();
    fs::write(world.path("urls.csv"), "url,caption\nhttp://h/0.png,x\n").unwrap();
    for (source, told) in [
        ("notes.docx", "is not a source of image-caption pairs"),
        ("columns.csv", "has no caption column"),
        ("urls.csv", "fetch them with img2dataset"),
        ("nowhere.csv", "nowhere.csv"),
    ] {
        let run = world.build(source, "m", &[&world.tiny]);
        assert!(run.code == 1 && run.stderr.contains(told), "{source}: {} {}", run.code, run.stderr);
        assert!(run.stdout.is_empty() && !world.path("m").exists(), "{source}");
    }
}
