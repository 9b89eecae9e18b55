//! Configurations of BERT's kind of text towers, and of the image towers beside them, that are not what they should be: errors that name the
//! file and the key.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use xmore_clip::{ClipError, Model};

fn towers() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/towers")
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &to),
            false => drop(std::fs::copy(entry.path(), to).unwrap()),
        }
    }
}

/// What loading a copy of a fixture gives, one value of whose file is another.
fn load(fixture: &str, file: &str, pointer: &str, value: Value) -> Result<Model, ClipError> {
    let dir = tempfile::tempdir().unwrap();
    copy(&towers().join(fixture), dir.path());
    let path = dir.path().join(file);
    let mut json: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    json.pointer_mut(parent).unwrap()[key] = value;
    std::fs::write(path, json.to_string()).unwrap();
    let model = Model::load(dir.path())?;
    model.encode_token_ids(&[&[3, 4, 5]])?;
    Ok(model)
}

/// Each is refused as a configuration that cannot be, in words that name the file and all of these.
#[track_caller]
fn check(fixture: &str, file: &str, cases: &[(&str, Value, &[&str])]) {
    for (pointer, value, words) in cases {
        let what = format!("{fixture}: {pointer} = {value}");
        let Err(error) = load(fixture, file, pointer, value.clone()) else { panic!("{what} is read") };
        assert!(matches!(error, ClipError::Config { .. }), "{what}: {error:?}");
        let message = error.to_string();
        let words = words.iter().chain([&file]);
        words.for_each(|word| assert!(message.contains(word), "{what}: {message}, which lacks {word:?}"));
    }
}

#[test]
fn open_clips_keys_of_a_text_tower() {
    let text = |key: &str| format!("/model_cfg/text_cfg/{key}");
    let cases = [
        ("hf_pooler_type", json!("cls_pooler"), "mean_pooler"),
        ("hf_pooler_type", json!("max_pooler"), "mean_pooler"),
        ("hf_pooler_type", Value::Null, "null"),
        ("hf_proj_type", json!("conv"), "mlp"),
        ("hf_proj_type", Value::Null, "embed_dim"),
        ("context_length", json!(27), "3 to 26"),
        ("context_length", json!("long"), "text_cfg"),
        ("hf_quantized", json!(true), "hf_quantized"),
        ("tokenizer_kwargs", json!({"clean": "all"}), "clean"),
    ];
    for (key, value, word) in cases {
        check("xlm_roberta/open_clip", "open_clip_config.json", &[(&text(key), value, &[word])]);
    }
    // Without a configuration of its own, the name has to be known.
    let name = json!("google/mt5-base");
    let words: &[&str] = &["hf_model_name", "mt5-base", "hf_text/config.json"];
    check("roberta/open_clip", "open_clip_config.json", &[(&text("hf_model_name"), name, words)]);
}

#[test]
fn transformers_keys_of_a_text_tower() {
    let cases: [(&str, Value, &[&str]); 10] = [
        ("/model_type", json!("mt5"), &["model_type", "xlm-roberta"]),
        ("/position_embedding_type", json!("relative_key"), &["position_embedding_type", "absolute"]),
        ("/hidden_act", json!("silu"), &["hidden_act", "silu"]),
        ("/hidden_size", json!(0), &["width 0"]),
        ("/hidden_size", json!("48"), &["48"]),
        ("/num_attention_heads", json!(5), &["5 heads"]),
        ("/num_hidden_layers", json!(1u64 << 40), &["1099511627776 layers"]),
        ("/max_position_embeddings", json!(1u64 << 40), &["positions"]),
        ("/type_vocab_size", json!(0), &["token types"]),
        ("/vocab_size", json!(1u64 << 40), &["vocabulary"]),
    ];
    check("xlm_roberta/open_clip", "hf_text/config.json", &cases);
    let cases: [(&str, Value, &[&str]); 4] = [
        ("/text_config/model_type", json!("gpt2"), &["model_type", "bert"]),
        ("/text_config/intermediate_size", json!(0), &["inner width of 0"]),
        ("/vision_config/patch_size", json!(49), &["patch size"]),
        ("/projection_dim", json!(0), &["embedding's length"]),
    ];
    check("chinese_clip/transformers", "config.json", &cases);
}

#[test]
fn keys_of_m2m100() {
    let pooler = "/model_cfg/text_cfg/hf_pooler_type";
    let cases: [(&str, Value, &[&str]); 3] = [
        (pooler, json!("mean_pooler"), &["mean_pooler", "cls_pooler"]),
        ("/model_cfg/text_cfg/hf_proj_type", Value::Null, &["embed_dim"]),
        ("/model_cfg/text_cfg/context_length", json!(1u64 << 40), &["context length"]),
    ];
    check("nllb_siglip/open_clip", "open_clip_config.json", &cases);
    let cases: [(&str, Value, &[&str]); 9] = [
        ("/activation_function", json!("gelu"), &["activation_function", "relu"]),
        ("/d_model", json!(0), &["width 0"]),
        ("/d_model", json!(33), &["width is 33", "even"]),
        ("/d_model", json!("36"), &["36"]),
        ("/encoder_attention_heads", json!(5), &["5 heads"]),
        ("/encoder_layers", json!(1u64 << 40), &["1099511627776 layers"]),
        ("/encoder_ffn_dim", json!(0), &["inner width of 0"]),
        ("/vocab_size", json!(1u64 << 40), &["vocabulary"]),
        ("/pad_token_id", json!(96), &["pad_token_id", "96"]),
    ];
    check("nllb_siglip/open_clip", "hf_text/config.json", &cases);
}

#[test]
fn keys_of_timms_image_tower() {
    let cases: [(&str, Value, &[&str]); 4] = [
        ("/model_cfg/vision_cfg/timm_model_name", json!("vit_base_patch32_224"), &["vit_base_patch32_224"]),
        ("/model_cfg/vision_cfg/timm_pool", json!("avg"), &["timm_pool", "token"]),
        ("/model_cfg/vision_cfg/timm_proj", json!("mlp"), &["timm_proj", "linear"]),
        ("/model_cfg/vision_cfg/image_size", json!([48, 32]), &["image_size"]),
    ];
    check("biomed/open_clip", "open_clip_config.json", &cases);
    // Without a projection of open_clip's, an empty pool is none.
    let cases: [(&str, Value, &[&str]); 1] =
        [("/model_cfg/vision_cfg/timm_pool", json!(""), &["timm_pool", "token"])];
    check("mobileclip2_large/open_clip", "open_clip_config.json", &cases);
}
