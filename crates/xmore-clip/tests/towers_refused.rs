//! Folders of the architectures beside CLIP's own that are not what they should be: errors that name the file, the key or the tensor.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use xmore_clip::{ClipError, Model, Pixels};

const CONFIG: &str = "open_clip_config.json";

fn fixture(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/towers").join(folder)
}

/// The error, as words too, of loading and using a family's folder with `value` at `pointer` of its configuration.
#[track_caller]
fn refused(family: &str, pointer: &str, value: Value) -> (ClipError, String) {
    refused_file(&format!("{family}/open_clip"), CONFIG, pointer, value)
}

/// The same of another folder and another file of it.
#[track_caller]
fn refused_file(folder: &str, file: &str, pointer: &str, value: Value) -> (ClipError, String) {
    let dir = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(fixture(folder)).unwrap() {
        let from = entry.unwrap().path();
        std::fs::copy(&from, dir.path().join(from.file_name().unwrap())).unwrap();
    }
    let mut config: Value = serde_json::from_slice(&std::fs::read(dir.path().join(file)).unwrap()).unwrap();
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    config.pointer_mut(parent).unwrap()[key] = value;
    std::fs::write(dir.path().join(file), config.to_string()).unwrap();
    let used = Model::load(dir.path()).and_then(|model| {
        let side = model.preprocess().size() as usize;
        model.encode_images(&[Pixels::new(vec![0.0; side * side * 3])])
    });
    let error = used.expect_err("it should be refused");
    let message = error.to_string();
    (error, message)
}

const IMAGE_SIZE: &str = "/model_cfg/vision_cfg/image_size";
const TIMM_NAME: &str = "/model_cfg/vision_cfg/timm_model_name";

#[test]
fn eva_configurations() {
    let cases = [
        (IMAGE_SIZE, json!(0), "the image size is 0, expected 1 to 4096"),
        (IMAGE_SIZE, json!(1_000_000_000), "the image size is 1000000000, expected 1 to 4096"),
        (IMAGE_SIZE, json!("large"), "model_cfg.vision_cfg.image_size: expected one number"),
        (IMAGE_SIZE, json!([48, 64]), "image_size is [48, 64], expected a square"),
        ("/model_cfg/vision_cfg/timm_pool", json!("avg"), "timm_pool of eva02_base_patch16_clip_224 is"),
        ("/model_cfg/vision_cfg/timm_proj", json!("mlp"), "timm_proj is"),
        ("/model_cfg/vision_cfg/layer_scale", json!(1), "`layer_scale`"),
        (TIMM_NAME, json!("eva02_base_patch14_448"), "eva02_base_patch14_448"),
    ];
    for (pointer, value, expected) in cases {
        let (error, message) = refused("eva02", pointer, value.clone());
        assert!(matches!(error, ClipError::Config { .. }), "{pointer} = {value}: {message}");
        assert!(message.contains(expected), "{pointer} = {value}: {message}");
        assert!(message.contains(CONFIG), "{pointer} = {value}: {message}");
    }
    // The largest image that the check of sizes lets through has more patches than the checkpoint's positions.
    let (error, message) = refused("eva02", IMAGE_SIZE, json!(4096));
    assert!(matches!(error, ClipError::TensorShape { .. }), "{message}");
    assert!(message.contains("pos_embed"), "{message}");
}

#[test]
fn coca_configurations() {
    let cases = [
        ("/model_cfg/vision_cfg/attentional_pool", json!("parallel"), "`attentional_pool` = \"parallel\""),
        ("/model_cfg/vision_cfg/attn_pooler_heads", json!(7), "in 7 heads"),
        ("/model_cfg/vision_cfg/attn_pooler_heads", json!(0), "in 0 heads"),
        (
            "/model_cfg/vision_cfg/attn_pooler_queries",
            json!(1_000_000_000),
            "the number of queries is 1000000000",
        ),
        ("/model_cfg/vision_cfg/pool_type", json!("avg"), "with `attentional_pool`"),
        ("/model_cfg/text_cfg/no_causal_mask", json!(true), "`embed_cls` with `no_causal_mask`"),
        ("/model_cfg/text_cfg/correct_cls_mask", json!(true), "`correct_cls_mask`"),
        ("/model_cfg/text_cfg/pad_id", json!(96), "the id of padding is 96"),
        ("/model_cfg/text_cfg/pad_id", json!(-1), "text_cfg"),
    ];
    for (pointer, value, expected) in cases {
        let (error, message) = refused("coca", pointer, value.clone());
        assert!(matches!(error, ClipError::Config { .. }), "{pointer} = {value}: {message}");
        assert!(message.contains(expected), "{pointer} = {value}: {message}");
        assert!(message.contains(CONFIG), "{pointer} = {value}: {message}");
    }
    let (error, message) = refused("coca", "/model_cfg/vision_cfg/attn_pooler_queries", json!(6));
    assert!(matches!(error, ClipError::TensorShape { .. }), "{message}");
}

#[test]
fn eva_checkpoints_of_other_models() {
    // Widths that the named model's heads do not divide, or whose heads are too narrow for pairs of two axes.
    let (_, message) = refused("pe", TIMM_NAME, json!("vit_pe_core_large_patch14_336"));
    assert!(message.contains("rotary positions and a width of 48 in 16 heads"), "{message}");
    // A perceptron that blocks of the named form do not have.
    let (error, message) = refused("eva", TIMM_NAME, json!("eva02_large_patch14_clip_224"));
    assert!(matches!(error, ClipError::Config { .. }), "{message}");
}

const TIMM_POOL: &str = "/model_cfg/vision_cfg/timm_pool";
const TIMM_PROJ: &str = "/model_cfg/vision_cfg/timm_proj";

#[test]
fn configurations_of_convolutional_towers() {
    for family in ["mobileclip", "convnext", "fastvit"] {
        let cases = [
            (IMAGE_SIZE, json!(0), "the image size is 0, expected 1 to 4096"),
            (IMAGE_SIZE, json!(1_000_000_000), "the image size is 1000000000, expected 1 to 4096"),
            (IMAGE_SIZE, json!([48, 64]), "image_size is [48, 64], expected a square"),
            (TIMM_POOL, json!("map"), "timm_pool of"),
            (TIMM_PROJ, json!("attention"), "timm_proj"),
            ("/model_cfg/vision_cfg/layer_scale", json!(1), "`layer_scale`"),
        ];
        for (pointer, value, expected) in cases {
            let (error, message) = refused(family, pointer, value.clone());
            assert!(matches!(error, ClipError::Config { .. }), "{family}, {pointer} = {value}: {message}");
            assert!(message.contains(expected), "{family}, {pointer} = {value}: {message}");
            assert!(message.contains(CONFIG), "{family}, {pointer} = {value}: {message}");
        }
    }
    // Positions are of one size; maps of convolutions are not, down to one position of the last.
    let (error, message) = refused("mobileclip", IMAGE_SIZE, json!(4096));
    assert!(matches!(error, ClipError::TensorShape { .. }) && message.contains("pos_embed"), "{message}");
    let (_, message) = refused("convnext", IMAGE_SIZE, json!(31));
    assert!(message.contains("the stride of the last stage is 32, expected 1 to 31"), "{message}");
}

#[test]
fn checkpoints_of_other_convolutional_towers() {
    // A perceptron into the joint space, and a projection, that the checkpoint does not have.
    let (error, message) = refused("convnext", TIMM_PROJ, json!("mlp"));
    assert!(matches!(error, ClipError::MissingTensor { .. }), "{message}");
    assert!(message.contains("visual.head.mlp.fc1.weight"), "{message}");
    let (_, message) = refused("convnext_xxlarge", TIMM_PROJ, json!("linear"));
    assert!(message.contains("visual.head.proj"), "{message}");
    // Without a projection behind it, timm pools nothing.
    let (_, message) = refused("convnext", TIMM_PROJ, json!(null));
    assert!(message.contains("timm_pool of convnext_base is \"\", expected \"avg\""), "{message}");
    // Four stages for a model of five, and layer norms for one with batch norms.
    let (_, message) = refused("fastvit", TIMM_NAME, json!("fastvit_mci4"));
    assert!(message.contains("the channels of stage 4 of the image tower is 0"), "{message}");
    let (error, message) = refused("fastvit_large", TIMM_NAME, json!("fastvit_mci2"));
    assert!(matches!(error, ClipError::MissingTensor { .. }), "{message}");
}

#[test]
fn weights_alone_of_another_family_ask_for_their_configuration() {
    for family in ["siglip", "biomed", "roberta"] {
        let message =
            Model::load(fixture(&format!("{family}/open_clip")).join("open_clip_model.safetensors"))
                .err()
                .expect("it should be refused")
                .to_string();
        assert!(message.contains("open_clip_config.json") && message.contains(family), "{message}");
    }
}

#[test]
fn values_of_other_types_are_named_by_their_keys() {
    let cases = [
        ("siglip/open_clip", CONFIG, "/model_cfg/embed_dim", "model_cfg.embed_dim: invalid type"),
        ("siglip/open_clip", CONFIG, "/model_cfg/text_cfg/width", "model_cfg.text_cfg.width: invalid type"),
        ("siglip/open_clip", CONFIG, "/preprocess_cfg/mean", "preprocess_cfg: mean: invalid type"),
        ("clipa/open_clip", CONFIG, "/model_cfg/vision_cfg/layers", "vision_cfg.layers: expected one number"),
        (
            "siglip/transformers",
            "config.json",
            "/vision_config/patch_size",
            "vision_config.patch_size: invalid",
        ),
        ("naflex", "preprocessor_config.json", "/patch_size", "patch_size: invalid type"),
    ];
    for (folder, file, pointer, expected) in cases {
        let (error, message) = refused_file(folder, file, pointer, json!("many"));
        assert!(matches!(error, ClipError::Config { .. }), "{pointer}: {message}");
        assert!(message.contains(file) && message.contains(expected), "{pointer}: {message}");
    }
}

#[test]
fn features_of_another_length_than_the_joint_space_need_a_projection() {
    let (error, message) = refused("siglip", "/model_cfg/embed_dim", json!(24));
    assert!(matches!(error, ClipError::Config { .. }), "{message}");
    assert!(message.contains("`timm_proj` \"none\"") && message.contains("`embed_dim` 24"), "{message}");
}

#[test]
fn image_processors_of_the_other_kind_of_tower() {
    let key = "/image_processor_type";
    for (folder, class, known) in [
        ("naflex", "SiglipImageProcessor", "expected one of Siglip2ImageProcessor"),
        ("siglip/transformers", "Siglip2ImageProcessor", "expected one of CLIPImageProcessor"),
    ] {
        let (error, message) = refused_file(folder, "preprocessor_config.json", key, json!(class));
        assert!(matches!(error, ClipError::Config { .. }), "{message}");
        assert!(message.contains(class) && message.contains(known), "{message}");
    }
}

#[test]
fn norms_without_a_usable_epsilon() {
    let text = "/model_cfg/text_cfg/norm_kwargs/eps";
    for epsilon in [json!(-1e-5), json!(0), json!(2), json!(1e-60)] {
        for (folder, file, pointer) in [
            ("siglip/open_clip", CONFIG, text),
            ("siglip/transformers", "config.json", "/vision_config/layer_norm_eps"),
            ("chinese_clip/transformers", "config.json", "/text_config/layer_norm_eps"),
        ] {
            let (error, message) = refused_file(folder, file, pointer, epsilon.clone());
            assert!(matches!(error, ClipError::Config { .. }), "{pointer}: {message}");
            assert!(message.contains("epsilon") && message.contains(file), "{pointer}: {message}");
        }
    }
}
