//! Models by name and from the hub, as a user has them: the real program against a server on loopback with the hub's
//! protocol, with and without faults.

#[path = "../hub/mod.rs"]
mod hub;
mod refusals;
#[path = "../support/mod.rs"]
mod support;
mod verification;

use std::fs;
use std::path::{Path, PathBuf};

use hub::{COMMIT, Fault, Hub, Seen, World};
use serde_json::Value;
use support::{Xmore, fixture, xmore};

/// open_clip's name of the model and where its table has it; the server has the tiny model there.
const NAME: &str = "ViT-B-16,openai";
const REPO: &str = "timm/vit_base_patch16_clip_224.openai";
const WEIGHTS: &str = "image.pth";

/// A user's machine: an empty hub cache.
struct Machine(tempfile::TempDir);

impl Machine {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// `xmore` with this machine's settings and none of ours.
    fn xmore(&self, endpoint: &str, args: &[&str]) -> Xmore {
        let mut run = xmore(args).home(&self.0.path().join("xmore")).env("HF_HOME", self.0.path().join("hf"));
        for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"]
            .into_iter()
            .chain(["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
            .chain(["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_TOKEN_PATH", "SSL_CERT_FILE"])
        {
            run = run.env(name, "");
        }
        run.env("HF_ENDPOINT", endpoint)
    }

    fn repo(&self) -> PathBuf {
        self.0.path().join("hf/hub/models--timm--vit_base_patch16_clip_224.openai")
    }

    fn blobs(&self) -> Vec<String> {
        let entries = fs::read_dir(self.repo().join("blobs")).into_iter().flatten();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    /// Lays the tiny model down as the hub's Python programs would.
    fn python_cache(&self) {
        let snapshot = self.repo().join("snapshots").join(COMMIT);
        fs::create_dir_all(&snapshot).unwrap();
        fs::create_dir_all(self.repo().join("refs")).unwrap();
        fs::write(self.repo().join("refs/main"), COMMIT).unwrap();
        for entry in fs::read_dir(fixture("tiny")).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), snapshot.join(entry.file_name())).unwrap();
        }
    }
}

fn tiny() -> World {
    World::of(REPO, &fixture("tiny"))
}

/// An address where no server listens.
fn closed_address() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

fn photo() -> String {
    fixture("images/wide.png").display().to_string()
}

#[test]
fn a_model_is_fetched_into_the_cache_that_python_reads() {
    let (machine, hub) = (Machine::new(), Hub::start(tiny()));
    let said = machine.xmore(&hub.url(), &["model", "fetch", "ViT-B-16", "--pretrained", "openai"]).run();
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert!(said.stdout.starts_with("ViT-B-16,openai is ready in "), "{}", said.stdout);
    assert!(said.stderr.contains("fetching image.pth (163.85 kB)"), "{}", said.stderr);

    assert_eq!(fs::read_to_string(machine.repo().join("refs/main")).unwrap(), COMMIT);
    let snapshot = machine.repo().join("snapshots").join(COMMIT);
    for entry in fs::read_dir(fixture("tiny")).unwrap() {
        let entry = entry.unwrap();
        let path = snapshot.join(entry.file_name());
        assert_eq!(fs::read(&path).unwrap(), fs::read(entry.path()).unwrap());
        #[cfg(unix)]
        assert!(fs::read_link(&path).unwrap().starts_with("../../blobs"));
    }
    assert_eq!(fs::read_dir(snapshot).unwrap().count(), 6, "only what is needed");
    assert_eq!(machine.blobs().len(), 6);

    // From here on the hub gets no request.
    let asked = hub.seen().len();
    let info = json(&machine.xmore(&hub.url(), &["model", "info", "ViT-B/16", "--format=json"]).ok());
    assert_eq!((&info["name"], &info["embed_dim"]), (&NAME.into(), &16.into()));
    assert_eq!(info["license"], "apache-2.0");
    let listed = machine.xmore(&hub.url(), &["model", "list", "ViT-B/16", "--format=json"]).ok();
    let cached = |name: &str| {
        let all = json(&listed);
        all.as_array().unwrap().iter().find(|row| row["name"] == name).unwrap()["cached"].clone()
    };
    assert_eq!((cached(NAME), cached("ViT-B-16,laion2b_s34b_b88k")), (true.into(), false.into()));
    assert_eq!(hub.seen().len(), asked);
    // Asked to, it looks for news, and fetches nothing twice.
    machine.xmore(&hub.url(), &["model", "fetch", NAME]).ok();
    assert_eq!(hub.seen().len(), asked + 1);
}

#[test]
fn first_use_fetches_and_every_spelling_is_one_model() {
    let (machine, hub) = (Machine::new(), Hub::start(tiny()));
    let photo = photo();
    let run = machine.xmore(&hub.url(), &["classify", &photo, "--labels=a,b", "--model=ViT-B/16"]).run();
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert!(run.stderr.contains("ViT-B-16,openai is not in") && run.stderr.contains(REPO), "{}", run.stderr);

    let pairs = machine.0.path().join("pairs.csv");
    fs::write(&pairs, format!("image_path,caption\n{photo},one\n{photo},two\n")).unwrap();
    let memory = machine.0.path().join("memory").display().to_string();
    let build = ["memory", "build", pairs.to_str().unwrap(), "-o", &memory, "--model=RN50"];
    let error = machine.xmore(&hub.url(), &build).fails(1);
    assert!(error.contains("timm/resnet50_clip.openai"), "{error}");
    let build = [&build[..5], &["--model=ViT-B/16"]].concat();
    machine.xmore(&closed_address(), &build).ok();
    let args = ["classify", &photo, "--labels=a,b", "--memory", &memory, "-k1"];
    for model in [&["--model=ViT-B-16-quickgelu,openai"][..], &["--model=ViT-B-16", "--pretrained=openai"]] {
        machine.xmore(&closed_address(), &[&args[..], model].concat()).env("HF_HUB_OFFLINE", "1").ok();
    }
    let info = machine.xmore(&closed_address(), &["memory", "info", &memory, "--format=json"]).ok();
    assert!(info.contains(NAME), "{info}");
}

#[test]
fn an_interrupted_download_resumes_where_it_stopped() {
    let fault = |seen: &Seen, before| match (seen.path.ends_with(WEIGHTS), before) {
        (true, 0) if seen.path.starts_with("/storage") => Fault::Cut(50_000),
        (true, 1) if seen.path.starts_with("/storage") => Fault::Cut(30_000),
        _ => Fault::None,
    };
    let (machine, hub) = (Machine::new(), Hub::start(tiny().with_fault(fault)));
    machine.xmore(&hub.url(), &["model", "fetch", NAME]).ok();
    let ranges: Vec<_> = hub.gets(WEIGHTS).into_iter().map(|seen| seen.range).collect();
    assert_eq!(ranges, [None, Some("bytes=50000-".into()), Some("bytes=80000-".into())]);
}

#[test]
fn a_download_given_up_is_continued_by_the_next_run() {
    let fault = |seen: &Seen, before| match seen.path.starts_with("/storage") && seen.path.ends_with(WEIGHTS)
    {
        true if before == 0 => Fault::Cut(50_000),
        true => Fault::Cut(0),
        false => Fault::None,
    };
    let (machine, hub) = (Machine::new(), Hub::start(tiny().with_fault(fault)));
    let error = machine.xmore(&hub.url(), &["model", "fetch", NAME]).fails(1);
    for part in [WEIGHTS, "50000 bytes are there", "xmore model fetch ViT-B-16,openai", "127.0.0.1"] {
        assert!(error.contains(part), "{part}: {error}");
    }
    assert!(machine.blobs().iter().any(|blob| blob.ends_with(".incomplete")));
    // Half a model is none.
    let error = machine.xmore(&hub.url(), &["model", "info", NAME]).fails(1);
    assert!(error.contains("xmore model fetch ViT-B-16,openai"), "{error}");

    let good = Hub::start(tiny());
    machine.xmore(&good.url(), &["model", "fetch", NAME]).ok();
    let ranges: Vec<_> = good.gets(WEIGHTS).into_iter().map(|seen| seen.range).collect();
    assert_eq!(ranges, [Some("bytes=50000-".into())]);
    assert!(!machine.blobs().iter().any(|blob| blob.ends_with(".incomplete")));
}

#[test]
fn a_killed_download_is_continued() {
    let fault = |seen: &Seen, _| match seen.path.starts_with("/storage") && seen.path.ends_with(WEIGHTS) {
        true => Fault::Stall(60_000),
        false => Fault::None,
    };
    let (machine, hub) = (Machine::new(), Hub::start(tiny().with_fault(fault)));
    let mut child = machine.xmore(&hub.url(), &["model", "fetch", NAME]).start();
    let there = || {
        let entries = fs::read_dir(machine.repo().join("blobs")).into_iter().flatten().flatten();
        let part = entries.filter(|entry| entry.file_name().to_string_lossy().ends_with(".incomplete"));
        part.filter_map(|entry| entry.metadata().ok()).any(|meta| meta.len() == 60_000)
    };
    let start = std::time::Instant::now();
    while !there() {
        assert!(start.elapsed().as_secs() < 20, "{:?}", machine.blobs());
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let good = Hub::start(tiny());
    machine.xmore(&good.url(), &["model", "fetch", NAME]).ok();
    let ranges: Vec<_> = good.gets(WEIGHTS).into_iter().map(|seen| seen.range).collect();
    assert_eq!(ranges, [Some("bytes=60000-".into())]);
}

#[test]
fn a_model_of_another_kind_is_refused_before_its_weights_are_fetched() {
    let vision = r#""vision_cfg": {"image_size": 224, "layers": 12, "width": 768, "patch_size": 32}"#;
    for (towers, named) in [
        (
            r#""vision_cfg": {"timm_model_name": "vitamin_small_224"}, "text_cfg": {}"#.to_owned(),
            "vitamin_small_224",
        ),
        (format!(r#"{vision}, "text_cfg": {{"scale_heads": true}}"#), "scale_heads"),
        (format!(r#"{vision}, "text_cfg": {{"hf_model_name": "org/text-tower"}}"#), "mt5"),
    ] {
        let mut world = tiny();
        let config = format!(r#"{{"model_cfg": {{"embed_dim": 768, {towers}}}, "preprocess_cfg": {{}}}}"#);
        world.files.insert("open_clip_config.json".into(), config.into());
        world.files.insert("open_clip_model.safetensors".into(), vec![1; 50_000]);
        let text_config = br#"{"model_type": "mt5"}"#.to_vec();
        world.others.insert(("org/text-tower".into(), "config.json".into()), text_config);
        let (machine, hub) = (Machine::new(), Hub::start(world));
        let error = machine.xmore(&hub.url(), &["model", "fetch", &format!("hf-hub:{REPO}")]).fails(1);
        assert!(error.contains(named) && error.contains("not fetched"), "{error}");
        assert!(!hub.seen().iter().any(|seen| seen.path.ends_with("open_clip_model.safetensors")));
    }
}

/// The configuration of a text tower is another repository's, and lies beside the model's own.
#[test]
fn the_text_tower_s_configuration_is_fetched_from_its_repository() {
    let mut world = tiny();
    // An image tower that is none of timm's: refused for good, after the small files are here.
    let config = r#"{"model_cfg": {"embed_dim": 512, "vision_cfg": {"image_size": 224, "timm_model_name": "no_such_tower"},
        "text_cfg": {"hf_model_name": "org/text-tower", "hf_tokenizer_name": "org/text-tower"}}, "preprocess_cfg": {}}"#;
    world.files.insert("open_clip_config.json".into(), config.into());
    world.files.insert("open_clip_model.safetensors".into(), vec![1; 50_000]);
    let text_config = br#"{"model_type": "xlm-roberta"}"#.to_vec();
    world.others.insert(("org/text-tower".into(), "config.json".into()), text_config.clone());
    world.others.insert(("org/text-tower".into(), "model.safetensors".into()), vec![2; 100]);
    let (machine, hub) = (Machine::new(), Hub::start(world));
    machine.xmore(&hub.url(), &["model", "fetch", &format!("hf-hub:{REPO}")]).fails(1);
    let shown = machine.repo().join("snapshots").join(COMMIT).join("hf_text/config.json");
    assert_eq!(fs::read(&shown).unwrap(), text_config);
    #[cfg(unix)]
    assert!(fs::read_link(&shown).unwrap().starts_with("../../../../models--org--text-tower/blobs"));
    let verified = machine.xmore(&hub.url(), &["model", "verify", &format!("hf-hub:{REPO}@{COMMIT}")]).run();
    assert!(verified.stdout.contains("hf_text/config.json"), "{}", verified.stdout);
    assert!(!hub.seen().iter().any(|seen| seen.path.contains("safetensors")));
}

#[test]
fn a_license_that_forbids_commercial_use_is_said_once() {
    let told = |world: World, name: &str| {
        let (machine, hub) = (Machine::new(), Hub::start(world));
        let run = machine.xmore(&hub.url(), &["model", "fetch", name]).run();
        assert_eq!(run.code, 0, "{}", run.stderr);
        let lines: Vec<_> = run.stderr.lines().filter(|line| line.contains("commercial")).collect();
        lines.join("\n")
    };
    // Of the repository's card, which goes before the table.
    let card = |card: Value| World { card, ..tiny() };
    let apple = card(serde_json::json!({"license": "other", "license_name": "apple-amlr"}));
    let line = told(apple, NAME);
    assert!(line.contains(NAME) && line.ends_with("its license is apple-amlr"), "{line}");
    assert_eq!(told(card(serde_json::json!({"license": "mit"})), NAME), "");
    assert_eq!(told(tiny(), NAME), "");
    // Of the table, where the repository has no card.
    let metaclip = World { repo: "timm/vit_base_patch16_clip_224.metaclip_400m".into(), ..tiny() };
    let line = told(metaclip, "ViT-B-16,metaclip_400m");
    assert_eq!(line.matches("cc-by-nc-4.0").count(), 1, "{line}");
}

#[test]
fn a_server_without_ranges_is_read_from_the_start() {
    let fault = |seen: &Seen, before| match seen.path.starts_with("/storage") && before == 0 {
        true => Fault::Cut(20_000),
        false => Fault::NoRanges,
    };
    let (machine, hub) = (Machine::new(), Hub::start(tiny().with_fault(fault)));
    machine.xmore(&hub.url(), &["model", "fetch", NAME]).ok();
}

#[test]
fn a_busy_server_is_asked_again() {
    let fault = |seen: &Seen, before| match seen.path.starts_with("/storage") && before < 2 {
        true => Fault::Status(503, "Retry-After: 1"),
        false => Fault::None,
    };
    let (machine, hub) = (Machine::new(), Hub::start(tiny().with_fault(fault)));
    machine.xmore(&hub.url(), &["model", "fetch", NAME]).ok();
}

#[test]
fn what_is_not_as_announced_is_not_kept() {
    for (fault, told) in [(Fault::Garbled, "SHA-256"), (Fault::Short, "cut")] {
        let faulty =
            move |seen: &Seen, _| if seen.path.starts_with("/storage") { fault } else { Fault::None };
        let (machine, hub) = (Machine::new(), Hub::start(tiny().with_fault(faulty)));
        let error = machine.xmore(&hub.url(), &["model", "fetch", NAME]).fails(1);
        assert!(error.contains(told), "{fault:?}: {error}");
        machine.xmore(&closed_address(), &["model", "info", NAME]).fails(1);
        let good = Hub::start(tiny());
        machine.xmore(&good.url(), &["model", "fetch", NAME]).ok();
        machine.xmore(&closed_address(), &["model", "info", NAME]).ok();
    }
}

#[test]
fn offline_nothing_is_requested() {
    let (machine, hub) = (Machine::new(), Hub::start(tiny()));
    let photo = photo();
    let classify = ["classify", &photo, "--labels=a,b", "--model=ViT-B/16"];
    for args in [&classify[..], &["model", "fetch", NAME]] {
        let error = machine.xmore(&hub.url(), args).env("HF_HUB_OFFLINE", "1").fails(1);
        for part in ["HF_HUB_OFFLINE", "xmore model fetch ViT-B-16,openai", "HF_HOME", "local-dir:"] {
            assert!(error.contains(part), "{part}: {error}");
        }
    }
    assert!(hub.seen().is_empty());
    machine.python_cache();
    machine.xmore(&hub.url(), &classify).env("HF_HUB_OFFLINE", "1").ok();
    machine.xmore(&hub.url(), &["model", "fetch", NAME]).env("HF_HUB_OFFLINE", "1").ok();
    assert!(hub.seen().is_empty());
}

#[test]
fn without_network_the_message_says_what_to_do() {
    let (machine, endpoint) = (Machine::new(), closed_address());
    let error = machine.xmore(&endpoint, &["model", "fetch", NAME]).fails(1);
    let host = endpoint.strip_prefix("http://").unwrap();
    for part in [host, "list of files", REPO, "HF_ENDPOINT", "local-dir:", "HF_HUB_OFFLINE"] {
        assert!(error.contains(part), "{part}: {error}");
    }
    // What is there is used, with a word about it when news were asked for.
    machine.python_cache();
    let run = machine.xmore(&endpoint, &["model", "fetch", NAME]).run();
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert!(run.stderr.contains("cannot be reached"), "{}", run.stderr);
}

#[test]
fn what_python_fetched_is_found() {
    let machine = Machine::new();
    machine.python_cache();
    let cache = machine.0.path().join("hf/hub");
    let info = ["model", "info", "hf-hub:timm/vit_base_patch16_clip_224.openai", "--format=json"];
    let found = json(&machine.xmore(&closed_address(), &info).ok());
    assert_eq!(found["name"], "hf-hub:timm/vit_base_patch16_clip_224.openai");
    let other = Machine::new();
    other.xmore(&closed_address(), &info).fails(1);
    other.xmore(&closed_address(), &info).env("HF_HUB_CACHE", &cache).ok();
    let pinned = format!("hf-hub:{REPO}@{COMMIT}");
    machine.xmore(&closed_address(), &["model", "info", &pinned]).ok();
    machine.xmore(&closed_address(), &["model", "info", &format!("hf-hub:{REPO}@v2")]).fails(1);
}

#[test]
fn two_runs_at_once_share_one_download() {
    let (machine, hub) = (Machine::new(), Hub::start(tiny()));
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| machine.xmore(&hub.url(), &["model", "fetch", NAME]).ok());
        }
    });
    assert_eq!(hub.gets(WEIGHTS).len(), 1);
    machine.xmore(&closed_address(), &["model", "info", NAME]).ok();
}

#[test]
fn the_list_has_what_can_be_asked_for() {
    let machine = Machine::new();
    let list = machine.xmore(&closed_address(), &["model", "list"]).ok();
    for part in ["lite", "RN50x64,openai", "ViT-bigG-14,laion2b_s39b_b160k", "hf-hub:", "local-dir:"] {
        assert!(list.contains(part), "{part}: {list}");
    }
    for line in list.lines().take_while(|line| !line.is_empty()) {
        assert!(line.chars().count() <= 100, "{line}");
    }
    let listed = |filter: &[&str]| {
        let args = [&["model", "list", "--format=json"], filter].concat();
        json(&machine.xmore(&closed_address(), &args).ok()).as_array().unwrap().clone()
    };
    // open_clip's pairs, and the bundled models.
    assert_eq!(listed(&[]).len(), 196 + 2);
    let rows = listed(&["ViT-L/14@336px"]);
    assert_eq!(rows.len(), 2, "open_clip has two names for it");
    assert_eq!(rows[1]["name"], "ViT-L-14-336-quickgelu,openai");
    assert_eq!(rows[0]["image_size"], 336);
    assert_eq!(rows[0]["repository"], "timm/vit_large_patch14_clip_336.openai");
    assert_eq!((&rows[0]["read"], &rows[0]["license"]), (&true.into(), &"apache-2.0".into()));
    // One that is not read is listed with the reason, one that is not free with its license.
    let vitamin = listed(&["ViTamin-B,datacomp1b"]);
    assert_eq!((&vitamin[0]["family"], &vitamin[0]["read"]), (&"vitamin".into(), &false.into()));
    assert!(vitamin[0]["reason"].as_str().unwrap().contains("ViTamin is not"));
    let line = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.split_whitespace().next() == Some(name));
        line.unwrap_or_else(|| panic!("{name}: {text}")).to_owned()
    };
    assert!(line(&list, "ViTamin-B,datacomp1b").ends_with("not read"));
    assert!(line(&list, "ViT-L-14-quickgelu,dfn2b").contains("apple-amlr"));
    assert!(line(&list, "ViT-B-32,laion2b_e16").contains("unknown"));
    assert!(list.contains("No commercial use: models under apple-amlr, cc-by-nc-4.0, nc-research."));
    assert!(list.contains("\n  vitamin: ViTamin"), "{list}");
    let free = machine.xmore(&closed_address(), &["model", "list", "RN50"]).ok();
    assert!(!free.contains("commercial") && !free.contains("not read"), "{free}");
    assert!(machine.xmore(&closed_address(), &["model", "list", "gpt"]).fails(1).contains("gpt"));
    // The variables do the same as the flags.
    let error = machine
        .xmore(&closed_address(), &["classify", &photo(), "--labels=a,b"])
        .env("XMORE_MODEL", "ViT-L-14")
        .env("XMORE_PRETRAINED", "dfn2b")
        .fails(1);
    assert!(error.contains("apple/DFN2B-CLIP-ViT-L-14"), "{error}");
}
