//! What is refused: by the hub, and of its answers and names by the program.

use super::*;

#[test]
fn refusals_of_the_hub() {
    let machine = Machine::new();
    let gated = Hub::start(World { token: Some("hf_secret"), ..tiny() });
    let error = machine.xmore(&gated.url(), &["model", "fetch", NAME]).fails(1);
    assert!(error.contains("401") && error.contains("HF_TOKEN") && error.contains(REPO), "{error}");
    let wrong = machine.xmore(&gated.url(), &["model", "fetch", NAME]).env("HF_TOKEN", "hf_other").fails(1);
    assert!(wrong.contains("does not give access") && !wrong.contains("hf_other"), "{wrong}");
    machine.xmore(&gated.url(), &["model", "fetch", NAME]).env("HF_TOKEN", "hf_secret").ok();
    let stored: Vec<_> = gated.seen().into_iter().filter(|seen| seen.path.starts_with("/storage/")).collect();
    assert!(!stored.is_empty() && stored.iter().all(|seen| seen.host.starts_with("localhost:")));
    assert!(stored.iter().all(|seen| seen.token.is_none()), "the token is the hub's alone");

    let hub = Hub::start(tiny());
    let error = machine.xmore(&hub.url(), &["model", "fetch", "hf-hub:nobody/nothing"]).fails(1);
    assert!(error.contains("404") && error.contains("nobody/nothing"), "{error}");
    let error = machine.xmore(&hub.url(), &["model", "fetch", "hf-hub:../../etc"]).fails(1);
    assert!(error.contains("no repository"), "{error}");
}

#[test]
fn the_token_file_is_read() {
    let machine = Machine::new();
    let gated = Hub::start(World { token: Some("hf_secret"), ..tiny() });
    fs::create_dir_all(machine.0.path().join("hf")).unwrap();
    fs::write(machine.0.path().join("hf/token"), "hf_secret\n").unwrap();
    machine.xmore(&gated.url(), &["model", "fetch", NAME]).ok();
}

#[test]
fn hostile_names_write_nothing_outside() {
    let config = |name: &str| {
        let mut config = json(&fs::read_to_string(fixture("tiny/open_clip_config.json")).unwrap());
        config["model_cfg"]["vision_cfg"]["weights"] = name.into();
        config.to_string().into_bytes()
    };
    for name in ["../../../../evil", "/evil", "..\\evil", "sub/evil"] {
        let mut world = tiny();
        world.files.insert("open_clip_config.json".into(), config(name));
        world.files.insert(name.into(), b"evil".to_vec());
        refused_without_files(world, "expected a file of the same repository");
    }
    refused_without_files(World { commit: "../../../../evil".into(), ..tiny() }, "commit");
    refused_without_files(World { etag: Some("../../../../evil".into()), ..tiny() }, "ETag");
}

fn refused_without_files(world: World, told: &str) {
    let (machine, hub) = (Machine::new(), Hub::start(world));
    let error = machine.xmore(&hub.url(), &["model", "fetch", NAME]).fails(1);
    assert!(error.contains(told), "{error}");
    fn walk(dir: &Path, found: &mut Vec<String>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            found.push(path.display().to_string());
            if path.is_dir() {
                walk(&path, found);
            }
        }
    }
    let mut found = Vec::new();
    walk(machine.0.path(), &mut found);
    assert!(!found.iter().any(|path| path.contains("evil")), "{found:?}");
    assert!(!machine.0.path().parent().unwrap().join("evil").exists());
}

#[test]
fn answers_of_other_servers_are_refused() {
    let fault = |seen: &Seen, _| match seen.path.starts_with("/api/") {
        true => Fault::Status(500, "X: y"),
        false => Fault::None,
    };
    let (machine, hub) = (Machine::new(), Hub::start(tiny().with_fault(fault)));
    let error = machine.xmore(&hub.url(), &["model", "fetch", NAME]).fails(1);
    assert!(error.contains("500") && error.contains("HF_ENDPOINT"), "{error}");
    let error = machine.xmore("ftp://x", &["model", "fetch", NAME]).fails(1);
    assert!(error.contains("HF_ENDPOINT"), "{error}");
    let mut world = tiny();
    world.files.retain(|name, _| name == "README.md");
    let hub = Hub::start(world);
    let error = machine.xmore(&hub.url(), &["model", "fetch", NAME]).fails(1);
    assert!(error.contains("no model") && error.contains("open_clip_config.json"), "{error}");
}

#[test]
fn invalid_names_are_refused() {
    let machine = Machine::new();
    let photo = photo();
    let classify = |more: &[&str]| {
        let args = [&["classify", &photo, "--labels=a,b"], more].concat();
        machine.xmore(&closed_address(), &args).fails(1)
    };
    assert!(classify(&["--model=ViT-B16,openai"]).contains("did you mean \"ViT-B-16\"?"));
    assert!(classify(&["--model=ViT-B-16", "--pretrained=opnai"]).contains("did you mean \"openai\"?"));
    assert!(classify(&["--model=ViT-B-16"]).contains("laion2b_s34b_b88k"));
    assert!(classify(&["--pretrained=openai"]).contains("--model lite"));
    assert!(classify(&["--model=ViTamin-L,datacomp1b"]).contains("ViTamin is not"));
    assert!(
        classify(&["--model=openai/clip-vit-base-patch32"]).contains("hf-hub:openai/clip-vit-base-patch32")
    );
    assert!(classify(&["--model=ViT-B-16", "--pretrained=/nowhere/w.pt"]).contains("/nowhere/w.pt"));
    let path = machine.xmore(&closed_address(), &["model", "fetch", "local-dir:/m"]).fails(2);
    assert!(path.contains("/m"), "{path}");
}
