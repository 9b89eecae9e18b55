//! Tables, sidecars and Hugging Face's folders of users, through `memory build` and `eval`, and the messages about others.

mod support;

use std::fs;
use std::path::PathBuf;

use support::files::picture;
use support::{Run, captions_by_id, tiny_model, xmore};

/// Two pictures, and tables beside them.
struct World(tempfile::TempDir);

impl World {
    fn new() -> Self {
        let world = Self(tempfile::tempdir().unwrap());
        world.pictures("");
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn pictures(&self, folder: &str) {
        fs::create_dir_all(self.path(folder)).unwrap();
        for i in 0..2 {
            picture(&self.path(folder).join(format!("{i}.png")), i);
        }
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        fs::write(self.path(name), text).unwrap();
    }

    fn build(&self, source: &str, more: &[&str]) -> Run {
        let (source, memory) =
            (self.path(source).display().to_string(), self.path("m").display().to_string());
        xmore(&[&["memory", "build", &source, "-o", &memory, "--overwrite", &tiny_model()], more].concat())
            .run()
    }

    /// Captions of a memory of the source, and what was said.
    #[track_caller]
    fn captions(&self, source: &str, more: &[&str]) -> (Vec<String>, String) {
        let run = self.build(source, more);
        assert_eq!(run.code, 0, "{}", run.stderr);
        (self.kept(), run.stderr)
    }

    /// Captions of the memory that is there.
    fn kept(&self) -> Vec<String> {
        let memory = self.path("m").display().to_string();
        let args = ["memory", "search", &memory, "--text", "x", "-n9", "--format=json", &tiny_model()];
        captions_by_id(&xmore(&args).ok())
    }

    fn eval(&self, source: &str, more: &[&str]) -> Run {
        let (source, cache) =
            (self.path(source).display().to_string(), self.path("cache").display().to_string());
        let args = ["eval", &source, &tiny_model(), "--cache-dir", &cache, "--methods=zero-shot"];
        xmore(&[&args[..], more].concat()).run()
    }
}

fn utf16(text: &str) -> Vec<u8> {
    [vec![0xff, 0xfe], text.encode_utf16().flat_map(u16::to_le_bytes).collect()].concat()
}

#[test]
fn tables_of_excel_and_pandas_build_the_same_memory() {
    let world = World::new();
    for (name, text) in [
        ("semicolon.csv", b"\xef\xbb\xbfimage_path;caption\r\n0.png;a church\r\n1.png;a dog, running\r\n".to_vec()),
        ("sep.csv", b"sep=;\r\nimage_path;caption\r\n0.png;a church\r\n1.png;a dog, running\r\n".to_vec()),
        ("unicode.tsv", utf16("image_path\tcaption\r\n0.png\ta church\r\n1.png\ta dog, running\r\n")),
        ("unicode.csv", utf16("filename;description\r\n0.png;a church\r\n1.png;a dog, running\r\n")),
        ("columns.csv", b"filename,description\n0.png,a church\n1.png,\"a dog, running\"\n".to_vec()),
        ("pipe.csv", b"File Name| Comment\n0.png| a church\n1.png| a dog, running\n".to_vec()),
        ("mac.csv", b"IMAGE,TEXT\r0.png,a church\r1.png,\"a dog, running\"\r".to_vec()),
        ("headerless.csv", b"0.png,a church\n1.png,\"a dog, running\"\n".to_vec()),
        ("lines.jsonl", br#"{"file_name": "0.png", "text": "a church"}
{"file_name": "1.png", "text": "a dog, running"}
"#.to_vec()),
        ("list.json", br#"[{"image": "0.png", "caption": "a church"}, {"image": "1.png", "caption": "a dog, running"}]"#.to_vec()),
    ] {
        world.write(name, text);
        let (captions, said) = world.captions(name, &[]);
        assert_eq!(captions, ["a church", "a dog, running"], "{name}: {said}");
        assert!(!said.contains("Windows") && said.contains("0 skipped"), "{name}: {said}");
    }
}

#[test]
fn windows_1252_is_converted_with_a_count() {
    let world = World::new();
    world.write("excel.csv", b"image_path,caption\r\n0.png,\xe9glise pr\xe8s du ch\xe2teau\r\n1.png,x\r\n");
    let (captions, said) = world.captions("excel.csv", &[]);
    assert_eq!(captions, ["église près du château", "x"]);
    assert!(said.contains("excel.csv: 3 bytes not UTF-8, read as Windows-1252"), "{said}");

    world.pictures("photos");
    world.write("photos/0.txt", b"\xe9glise");
    world.write("photos/1.TXT", utf16("château\n"));
    let (captions, said) = world.captions("photos", &[]);
    assert_eq!(captions, ["église", "château"]);
    assert!(said.contains("photos: 1 byte not UTF-8, read as Windows-1252"), "{said}");
}

#[test]
fn columns_are_named_by_flags_and_a_missing_one_is_told_with_them() {
    let world = World::new();
    world.write("t.csv", "bild;wort;art\n0.png;eins;a\n1.png;zwei;b\n");
    let refused = world.build("t.csv", &[]);
    assert_ne!(refused.code, 0);
    for part in ["no image column", "\"bild\", \"wort\", \"art\"", "--image-column", "--caption-column"] {
        assert!(refused.stderr.contains(part), "{}", refused.stderr);
    }
    let (captions, _) = world.captions("t.csv", &["--image-column=bild", "--caption-column", "2"]);
    assert_eq!(captions, ["eins", "zwei"]);

    let refused = world.eval("t.csv", &[]);
    assert!(refused.code != 0 && refused.stderr.contains("--label-column"), "{}", refused.stderr);
    let run = world.eval("t.csv", &["--image-column=bild", "--label-column=art"]);
    assert_eq!(run.code, 0, "{}", run.stderr);

    world.write("two.csv", "image,caption,text\n0.png,one,other\n");
    let (captions, said) = world.captions("two.csv", &[]);
    assert_eq!(captions, ["one"]);
    assert!(said.contains("column \"caption\" is taken for the caption, not \"text\""), "{said}");
}

#[test]
fn eval_reads_the_same_tables() {
    let world = World::new();
    for (name, text) in [
        ("eval_semicolon.csv", b"filename;label\n0.png;church\n1.png;dog\n".to_vec()),
        ("eval.tsv", utf16("path\tclass\r\n0.png\tchurch\r\n1.png\tdog\r\n")),
        (
            "eval.jsonl",
            b"{\"file_name\": \"0.png\", \"label\": \"church\"}\n{\"file_name\": \"1.png\", \"label\": 7}\n"
                .to_vec(),
        ),
    ] {
        world.write(name, text);
        let run = world.eval(name, &[]);
        assert_eq!(run.code, 0, "{name}: {}", run.stderr);
    }
}

#[test]
fn hugging_faces_image_folder_is_read_with_its_metadata() {
    let world = World::new();
    for (folder, name, text) in [
        ("csv", "metadata.csv", "file_name,text\n0.png,a church\n1.png,a dog\n"),
        ("lines", "metadata.jsonl", "{\"file_name\": \"0.png\", \"text\": \"a church\"}\n"),
        ("nested", "train/metadata.jsonl", "{\"file_name\": \"0.png\", \"text\": \"a church\"}\n"),
    ] {
        let images = if folder == "nested" { "nested/train".to_owned() } else { folder.to_owned() };
        world.pictures(&images);
        world.write(&format!("{folder}/{name}"), text);
        // Where a table has no row, the file beside the image is taken.
        world.write(&format!("{images}/1.png.txt"), "a dog");
        let (captions, said) = world.captions(folder, &[]);
        assert_eq!(captions, ["a church", "a dog"], "{folder}: {said}");
    }
}

#[test]
fn a_folder_without_captions_says_what_is_expected_and_what_is_there() {
    let world = World::new();
    world.pictures("bare");
    world.write("bare/captions.csv", "image,caption\n0.png,x\n");
    let run = world.build("bare", &[]);
    assert!(
        run.stderr.contains("it holds 2 images") && run.stderr.contains("captions.csv"),
        "{}",
        run.stderr
    );
}

#[test]
fn paths_of_windows_and_open_quotes_affect_no_other_row() {
    let world = World::new();
    world.pictures("photos");
    let table = "image_path,caption\r\nphotos\\0.png,one\r\nx.png,\"open\r\nphotos\\1.png,two\r\n";
    world.write("t.csv", table);
    // A third of the rows is bad, which the status may tell.
    let said = world.build("t.csv", &[]).stderr;
    assert!(said.contains("line 3: a quote is not closed"), "{said}");
    assert_eq!(world.kept(), ["one", "two"]);
}
