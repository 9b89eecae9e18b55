//! Models whose bytes have changed.

use super::*;

#[test]
fn every_byte_of_a_fetched_model_is_verified() {
    let (machine, hub) = (Machine::new(), Hub::start(tiny()));
    machine.xmore(&hub.url(), &["model", "fetch", NAME]).ok();
    let verify = |name: &str| {
        let run = machine.xmore(&hub.url(), &["model", "verify", name, "--format=json"]).run();
        let states: Vec<String> = json(&run.stdout)[0]["files"]
            .as_array()
            .unwrap()
            .iter()
            .map(|file| file["state"].as_str().unwrap().to_owned())
            .collect();
        (run.code, states)
    };
    let good = (0, vec!["same".to_owned(); 6]);
    assert_eq!(verify(NAME), good);
    assert_eq!(verify("all"), good);
    for blob in machine.blobs() {
        let path = machine.repo().join("blobs").join(blob);
        let whole = fs::read(&path).unwrap();
        let mut flipped = whole.clone();
        flipped[whole.len() / 2] ^= 1;
        fs::write(&path, flipped).unwrap();
        let (code, states) = verify(NAME);
        assert_eq!((code, states.iter().filter(|state| *state == "different").count()), (1, 1), "{states:?}");
        fs::write(&path, whole).unwrap();
    }
    assert_eq!(verify(NAME), good);
}

/// Another model where OpenAI's ViT-B/32 should be: its bytes are those that were fetched, its numbers are not the published ones.
#[test]
fn numbers_are_compared_with_published_ones() {
    const REPO: &str = "timm/vit_base_patch32_clip_224.openai";
    let (machine, hub) = (Machine::new(), Hub::start(World::of(REPO, &fixture("tiny"))));
    machine.xmore(&hub.url(), &["model", "fetch", "ViT-B/32"]).ok();
    let verify = |name: &str| machine.xmore(&hub.url(), &["model", "verify", name, "--format=json"]).run();
    for name in ["ViT-B/32", "hf-hub:timm/vit_base_patch32_clip_224.openai"] {
        let run = verify(name);
        assert_eq!(run.code, 1, "{}", run.stderr);
        assert!(run.stderr.contains("other numbers than were published"), "{}", run.stderr);
        let found = json(&run.stdout)[0].clone();
        assert!(found["files"].as_array().unwrap().iter().all(|file| file["state"] == "same"));
        assert_eq!(found["numbers"]["state"], "compared");
        let checks = found["numbers"]["checks"].as_array().unwrap();
        assert!(!checks.is_empty() && checks.iter().all(|check| check["as_published"] == false));
    }
    // Bytes that are damaged are said to be; their numbers are not asked for.
    let blob = machine.0.path().join("hf/hub/models--timm--vit_base_patch32_clip_224.openai/snapshots");
    let image = blob.join(COMMIT).join(WEIGHTS).canonicalize().unwrap();
    fs::write(&image, "x").unwrap();
    let run = verify("ViT-B/32");
    assert_eq!(json(&run.stdout)[0]["numbers"]["state"], "not_compared");
    assert!(run.code == 1 && run.stderr.contains("not what was recorded"), "{}", run.stderr);

    let (machine, hub) = (Machine::new(), Hub::start(tiny()));
    machine.xmore(&hub.url(), &["model", "fetch", NAME]).ok();
    let text = machine.xmore(&hub.url(), &["model", "verify", NAME]).ok();
    assert!(text.contains("no published values for this model are known: bytes only"), "{text}");
}

/// A copy of the tiny model with megabytes that no tower reads, of which the fingerprint sees samples only.
fn large_model(dir: &Path) -> PathBuf {
    fs::create_dir_all(dir).unwrap();
    for entry in fs::read_dir(fixture("tiny")).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), dir.join(entry.file_name())).unwrap();
    }
    let weights = dir.join("text.safetensors");
    let bytes = fs::read(&weights).unwrap();
    let (length, rest) = bytes.split_at(8);
    let (header, data) = rest.split_at(u64::from_le_bytes(length.try_into().unwrap()) as usize);
    let mut header: Value = serde_json::from_slice(header).unwrap();
    let offsets = [data.len(), data.len() + (4 << 20)];
    header["unused"] = serde_json::json!({"dtype": "F32", "shape": [1 << 20], "data_offsets": offsets});
    let mut header = header.to_string();
    header += &" ".repeat(header.len().next_multiple_of(8) - header.len());
    let parts = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), data, &vec![0; 4 << 20]];
    fs::write(&weights, parts.concat()).unwrap();
    weights
}

#[test]
fn a_model_whose_bytes_changed_is_not_used_with_a_memory() {
    let dir = tempfile::tempdir().unwrap();
    let weights = large_model(&dir.path().join("model"));
    let model = format!("--model=local-dir:{}", dir.path().join("model").display());
    let run = |args: &[&str]| xmore(&[args, &[&model]].concat()).home(&dir.path().join("home"));
    let memory = dir.path().join("m").display().to_string();
    let table = dir.path().join("pairs.csv");
    fs::write(&table, format!("image_path,caption\n{},a wide thing\n", photo())).unwrap();
    run(&["memory", "build", &table.display().to_string(), "-o", &memory]).ok();
    let photo = photo();
    let classify = || run(&["classify", &photo, "--labels=a,b", "--memory", &memory]);
    classify().ok();

    let name = model.strip_prefix("--model=").unwrap();
    let verify = |more: &[&str]| {
        let args = [&["model", "verify", name], more].concat();
        xmore(&args).home(&dir.path().join("home"))
    };
    verify(&[]).ok();
    let whole = fs::read(&weights).unwrap();
    let mut changed = whole.clone();
    // Between two samples of the fingerprint, which are 65 kB apart.
    let at = whole.len() - 20_000;
    changed[at] ^= 1;
    fs::write(&weights, &changed).unwrap();
    let said = classify().fails(1);
    assert!(said.contains("text.safetensors has changed"), "{said}");
    assert!(verify(&[]).run().stdout.contains("text.safetensors: DIFFERENT"));
    verify(&[]).fails(1);
    // The user's own file may be meant to be another.
    verify(&["--record"]).ok();
    verify(&[]).ok();
    classify().ok();
}
