//! CLIP's own models from the hub: every form that repositories have, fetched and used by the real program (small random weights, with vocabularies of their own).

#[allow(dead_code, reason = "each test file uses its part")]
mod hub;
mod support;

use std::path::Path;

use hub::{COMMIT, Hub, World};
use serde_json::Value;
use support::{fixture, xmore};

const REPO: &str = "timm/vit_base_patch16_clip_224.openai";

fn run(home: &Path, endpoint: &str, args: &[&str]) -> support::Run {
    let mut run =
        xmore(args).home(&home.join("xmore")).env("HF_HOME", home.join("hf")).env("HF_ENDPOINT", endpoint);
    for name in
        ["HTTP_PROXY", "ALL_PROXY", "http_proxy", "all_proxy", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "HF_TOKEN"]
    {
        run = run.env(name, "");
    }
    run.run()
}

fn fingerprint(home: &Path, endpoint: &str, name: &str) -> Result<String, String> {
    let run = run(home, endpoint, &["model", "info", name, "--format=json"]);
    if run.code != 0 {
        return Err(run.stderr);
    }
    let info: Value = serde_json::from_str(&run.stdout).unwrap();
    Ok(info["fingerprint"].as_str().unwrap().to_owned())
}

#[test]
fn every_form_of_a_repository_is_fetched_and_encodes() {
    let photo = fixture("images/wide.png").display().to_string();
    for form in [
        "vit_quickgelu/open_clip",
        "vit_gelu/transformers",
        "vit_gelu/transformers_sharded",
        "rn/open_clip_bin",
    ] {
        let folder = fixture("clip").join(form);
        let mut world = World::of(REPO, &folder);
        if form != "vit_gelu/transformers" {
            world.files.remove("pytorch_model.bin");
        }
        let (home, hub) = (tempfile::tempdir().unwrap(), Hub::start(world));
        let name = format!("hf-hub:{REPO}");
        let embed = |model: &str| {
            let out = home.path().join("out.npy");
            let args = ["embed", &photo, "-o", out.to_str().unwrap(), "--model", model];
            let run = run(home.path(), &hub.url(), &args);
            assert_eq!(run.code, 0, "{form}: {}", run.stderr);
            std::fs::read(out).unwrap()
        };
        let local = format!("local-dir:{}", folder.display());
        assert_eq!(embed(&name), embed(&local), "{form}");
        let same = fingerprint(home.path(), "http://127.0.0.1:9", &name).unwrap();
        assert_eq!(same, fingerprint(home.path(), "http://127.0.0.1:9", &local).unwrap(), "{form}");
    }
}

#[test]
fn weights_that_open_clip_fetched_alone_are_enough_where_clip_s_preprocessing_is_meant() {
    let home = tempfile::tempdir().unwrap();
    let lay = |repo: &str| {
        let repo = home.path().join("hf/hub").join(format!("models--{}", repo.replace('/', "--")));
        let snapshot = repo.join("snapshots").join(COMMIT);
        std::fs::create_dir_all(&snapshot).unwrap();
        std::fs::create_dir_all(repo.join("refs")).unwrap();
        std::fs::write(repo.join("refs/main"), COMMIT).unwrap();
        let weights = "open_clip_model.safetensors";
        std::fs::copy(fixture("clip/vit_quickgelu/open_clip").join(weights), snapshot.join(weights)).unwrap();
    };
    lay(REPO);
    let nowhere = "http://127.0.0.1:9";
    fingerprint(home.path(), nowhere, "ViT-B-16,openai").unwrap();
    // The name of the repository alone does not tell how images are prepared.
    assert!(fingerprint(home.path(), nowhere, &format!("hf-hub:{REPO}")).is_err());
    lay("laion/CLIP-ViT-L-14-laion2B-s32B-b82K");
    assert!(fingerprint(home.path(), nowhere, "ViT-L-14,laion2b_s32b_b82k").is_err());
}

#[test]
fn checkpoint_files_by_architecture() {
    let home = tempfile::tempdir().unwrap();
    let file = fixture("clip/vit_quickgelu/openai.pt").display().to_string();
    let info = |model: &str| {
        run(home.path(), "http://127.0.0.1:9", &["model", "info", model, "--pretrained", &file])
    };
    let refused = info("ViT-B-16");
    assert_eq!(refused.code, 1);
    assert!(refused.stderr.contains("ViT-B-16 has 512"), "{}", refused.stderr);
    fingerprint(home.path(), "http://127.0.0.1:9", &file).unwrap();
}
