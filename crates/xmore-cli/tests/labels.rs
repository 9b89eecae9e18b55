//! Labels in every form, by every input of the program: files of `classify` and `eval`, typed lists, the server's forms and JSON.

mod support;

use std::fs;

use serde_json::{Value, json};
use support::{Run, fixture, tiny_model, xmore_in};

struct World(tempfile::TempDir);

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for (name, class) in [("one.png", "church"), ("wide.png", "tench"), ("grey.png", "tench")] {
            fs::create_dir_all(dir.path().join("photos").join(class)).unwrap();
            fs::copy(fixture("images").join(name), dir.path().join("photos").join(class).join(name)).unwrap();
        }
        fs::copy(fixture("images/one.png"), dir.path().join("one.png")).unwrap();
        Self(dir)
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::write(self.0.path().join(name), content).unwrap();
    }

    fn classify(&self, args: &[&str]) -> Run {
        let model = tiny_model();
        let all = [&["classify", "@one.png", &model, "--format=json"], args].concat();
        xmore_in(self.0.path(), &all).run()
    }

    /// What it answers with labels in a file.
    #[track_caller]
    fn answer(&self, name: &str, content: impl AsRef<[u8]>) -> (Value, String) {
        self.write(name, content);
        let run = self.classify(&["--labels-file", &format!("@{name}")]);
        assert_eq!(run.code, 0, "{name}: {}", run.stderr);
        (serde_json::from_str(&run.stdout).unwrap(), run.stderr)
    }

    #[track_caller]
    fn eval(&self, args: &[&str]) -> (Value, String) {
        let model = tiny_model();
        let fixed = ["eval", "@photos", &model, "--format=json", "--bootstrap=100"];
        let run = xmore_in(self.0.path(), &[&fixed, args].concat()).run();
        assert_eq!(run.code, 0, "{}", run.stderr);
        (serde_json::from_str(&run.stdout).unwrap(), run.stderr)
    }
}

fn scores(answer: &Value) -> Value {
    answer[0]["scores"].clone()
}

#[test]
fn every_form_of_a_file_gives_the_same_answer() {
    let world = World::new();
    let (plain, said) = world.answer("plain.txt", "English springer\nchurch, old\ncafé\n");
    assert!(!said.contains("left out") && !said.contains("warning"), "{said}");
    let text = "English springer\r\nchurch, old\r\ncafé\r\n";
    let utf16: Vec<u8> = format!("\u{feff}{text}").encode_utf16().flat_map(u16::to_le_bytes).collect();
    let latin: Vec<u8> = text.chars().map(|c| c as u8).collect();
    for (name, content, tells) in [
        ("bom.txt", format!("\u{feff}{text}").into_bytes(), ""),
        ("utf16.txt", utf16, ""),
        ("latin.txt", latin, "latin.txt: 1 byte not UTF-8, read as Windows-1252"),
        ("pretty.json", b"[\n  \"English springer\",\n  \"church, old\",\n  \"caf\\u00e9\"\n]".to_vec(), ""),
        ("nfd.txt", "English springer\nchurch, old\ncafe\u{301}\n".into(), ""),
        ("t.csv", "id,label\n0,English springer\n1,\"church, old\"\n2,café\n".into(), "the column \"label\""),
        ("c.txt", format!("# things\n{text}// more\n").into_bytes(), "2 comments left out"),
        (
            "id2label.json",
            r#"{"id2label": {"1": "church, old", "0": "English springer", "2": "café"}}"#.into(),
            "",
        ),
    ] {
        let (answer, said) = world.answer(name, content);
        assert_eq!(answer, plain, "{name}");
        assert!(said.contains(tells), "{name}: {said}");
    }
    let typed = world.classify(&["--labels", "English springer, \"church, old\" ,cafe\u{301}"]);
    assert_eq!(serde_json::from_str::<Value>(&typed.stdout).unwrap(), plain, "{}", typed.stderr);
    let named = world.classify(&["--labels-file", "@t.csv", "--labels-column", "label"]);
    assert_eq!(serde_json::from_str::<Value>(&named.stdout).unwrap(), plain, "{}", named.stderr);
}

#[test]
fn files_without_labels_are_refused_with_their_place() {
    let world = World::new();
    for (name, content, tells) in [
        (
            "comma.json",
            "[\n \"a\",\n \"b\",\n]",
            "comma.json: expected JSON, since it begins with [ or {, found trailing comma at line 4",
        ),
        ("nfc.txt", "café\ncafe\u{301}\nchurch\n", "label \"café\" is given twice, on lines 1 and 2"),
        ("t.csv", "species,where\ncat,home\ndog,home\n", "name the column with --labels-column"),
        ("empty.txt", "\n", "0 label(s)"),
        ("zero.txt", "a\0\nb\n", "line 1: expected text"),
        ("number.json", "{\"cat\": [\"a cat\"], \"dog\": 3}", "prompts for label \"dog\", found 3"),
    ] {
        world.write(name, content);
        let run = world.classify(&["--labels-file", &format!("@{name}")]);
        assert_eq!(run.code, 1, "{name}");
        assert!(run.stderr.contains(tells), "{name}: {}", run.stderr);
    }
    let open = world.classify(&["--labels", "\"cat,dog"]);
    assert!(open.code == 1 && open.stderr.contains("closing quote"), "{}", open.stderr);
}

#[test]
fn prompts_of_their_own_are_averaged_as_templates_are() {
    let world = World::new();
    let own = r#"{"church": ["a photo of a church.", "the church"], "tench": ["a photo of a tench.", "the tench"]}"#;
    let (answer, _) = world.answer("own.json", own);
    let templates = ["--template=a photo of a {}.", "--template=the {}"];
    let by_templates = world.classify(&[&["--labels=church,tench"], &templates[..]].concat());
    assert_eq!(scores(&answer), scores(&serde_json::from_str(&by_templates.stdout).unwrap()));
    // Templates are for the labels without prompts, and that is told.
    let mixed = world.classify(&["--labels", r#"{"church": [], "tench": "a fish"}"#, "--template=the {}"]);
    assert!(mixed.stderr.contains("1 of 2 labels have prompts of their own"), "{}", mixed.stderr);
    let same = world.classify(&["--labels", r#"{"church": "the church", "tench": "a fish"}"#]);
    let read = |run: &Run| scores(&serde_json::from_str(&run.stdout).unwrap());
    assert_eq!(read(&mixed), read(&same));

    // In eval by the classes' names, for every method; other prompts are other kept embeddings.
    world.write("classes.json", own);
    let accuracy = |value: &Value| value[0]["metrics"].clone();
    let (by_own, _) = world.eval(&["--class-names", "@classes.json", "--methods=zero-shot,templates"]);
    let (by_templates, _) = world.eval(&[&["--methods=zero-shot"], &templates[..]].concat());
    assert_eq!(accuracy(&by_own), accuracy(&by_templates));
    world.write("other.json", r#"{"church": ["x"]}"#);
    let run =
        xmore_in(world.0.path(), &["eval", "@photos", &tiny_model(), "--class-names", "@other.json"]).run();
    assert!(run.code == 1 && run.stderr.contains("none for \"tench\""), "{}", run.stderr);
    world.write("names.txt", "# by number\na fish\na building\n");
    let (_, said) = world.eval(&["--class-names", "@names.txt", "--methods=zero-shot"]);
    assert!(said.contains("names.txt: 1 comment left out"), "{said}");
}

#[test]
fn labels_that_the_model_cannot_tell_apart_are_named() {
    let world = World::new();
    let (answer, said) = world.answer("case.txt", "church\nChurch\ntench\n");
    let warning = "the model cannot tell \"church\" and \"Church\" apart";
    assert!(said.contains(&format!("warning: {warning}")), "{said}");
    assert!(answer[0]["warnings"][0].as_str().unwrap().starts_with(warning), "{answer}");
    let (_, said) = world.answer("emoji.txt", "🐶\n⛪\n🐟\n");
    assert!(said.contains("knows no part of \"🐶\", \"⛪\" and \"🐟\""), "{said}");
    let long = "word ".repeat(300);
    let (_, said) = world.answer("long.txt", format!("{long}a\n{long}b\nc\n"));
    assert!(said.contains("apart") && said.contains("is cut off"), "{said}");
}

#[test]
fn the_server_reads_labels_in_every_form() {
    let world = World::new();
    fs::create_dir(world.0.path().join("sets")).unwrap();
    world.write("sets/own.json", r#"{"church": ["a church", "the church"], "tench": []}"#);
    let model = tiny_model();
    let args = ["serve", &model, "--addr=127.0.0.1:0", "--label-sets", "@sets", "--save-label-sets"];
    let server = xmore_in(world.0.path(), &args).serve();
    let photo = fs::read(world.0.path().join("one.png")).unwrap();
    let image = {
        use base64::Engine as _;
        base64::engine::general_purpose::STANDARD.encode(&photo)
    };
    let scores = |body: Value| {
        let mut all = json!({"image": image, "explain": true});
        all.as_object_mut().unwrap().extend(body.as_object().unwrap().clone());
        server.post_json("/v1/classify", &all).ok()
    };
    let of = |answer: &Value| answer["results"][0]["scores"].clone();
    let own = scores(json!({"labels": {"church": ["a church", "the church"], "tench": []}}));
    assert_eq!(own["labels"], json!(["church", "tench"]));
    assert_eq!(own["warnings"], json!([]));
    let listed = json!({"labels": [{"label": "church", "prompts": ["a church", "the church"]}, "tench"]});
    assert_eq!(of(&scores(listed)), of(&own));
    assert_eq!(of(&scores(json!({"label_set": "own"}))), of(&own));
    let set = server.get("/v1/label-sets/own").ok();
    assert_eq!(set["prompts"], json!({"church": ["a church", "the church"]}));
    assert_ne!(of(&scores(json!({"labels": ["church", "tench"]}))), of(&own));
    let alike = scores(json!({"labels": ["church", "Church", "tench"]}));
    assert!(alike["warnings"][0].as_str().unwrap().contains("\"church\" and \"Church\""), "{alike}");

    let form = |head: &str, text: &[u8]| {
        let mut body =
            b"--x\r\ncontent-disposition: form-data; name=\"image\"; filename=\"a.png\"\r\n\r\n".to_vec();
        body.extend(&photo);
        body.extend(
            format!("\r\n--x\r\ncontent-disposition: form-data; name=\"labels\"{head}\r\n\r\n").as_bytes(),
        );
        body.extend(text);
        body.extend(b"\r\n--x--\r\n");
        server.post("/v1/classify", "multipart/form-data; boundary=x", &body)
    };
    let labels = json!(["church, old", "tench"]);
    assert_eq!(form("", b"\"church, old\",tench").ok()["labels"], labels);
    assert_eq!(form("", b"\"church, old\"\r\ntench\r\n").ok()["labels"], labels);
    let utf16: Vec<u8> = "\u{feff}church, old\r\ntench".encode_utf16().flat_map(u16::to_le_bytes).collect();
    assert_eq!(form("; filename=\"l.txt\"", &utf16).ok()["labels"], labels);
    assert_eq!(
        form("; filename=\"l.csv\"", b"id,label\n0,\"church, old\"\n1,tench\n").ok()["labels"],
        labels
    );
    form("", b"\"cat,dog").fails(422, "invalid_parameter");
    let saved = json!({"labels": {"cat": ["a cat"], "dog": ["a dog"]}}).to_string();
    server.send("PUT", "/v1/label-sets/new", &[("content-type", "application/json")], saved.as_bytes()).ok();
    assert!(world.0.path().join("sets/new.json").exists());
}

#[test]
fn damaged_embeddings_of_eval_are_made_again_and_told() {
    let world = World::new();
    let args = ["--methods=zero-shot", "--cache-dir", "@cache"];
    let (first, said) = world.eval(&args);
    assert!(!said.contains("damaged"), "{said}");
    let mut files = Vec::new();
    let mut folders = vec![world.0.path().join("cache")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    assert_eq!(files.len(), 2, "{files:?}");
    for path in &files {
        let whole = fs::read(path).unwrap();
        for at in [10, 135, 150, whole.len() - 50, whole.len() - 1] {
            let mut flipped = whole.clone();
            flipped[at] ^= 4;
            fs::write(path, flipped).unwrap();
            let (again, said) = world.eval(&args);
            assert_eq!(again[0]["metrics"], first[0]["metrics"], "{} byte {at}", path.display());
            assert!(said.contains("1 file of kept embeddings was damaged"), "{said}");
            assert_eq!(fs::read(path).unwrap(), whole);
        }
    }
}
