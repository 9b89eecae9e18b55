//! Chinese-CLIP: CLIP's vision transformer and a Chinese BERT, in transformers' folders.
//!
//! References: Chinese CLIP (arXiv 2211.01335); transformers, `configuration_chinese_clip.py`, whose defaults fill what a file leaves out, and
//! `modeling_chinese_clip.py`. A text's feature is the first token's row. Tokens of padding are not seen wherever they stand, as in the authors'
//! `cn_clip`; transformers leaves the mask to its caller.

use std::path::PathBuf;
use std::sync::Arc;

use crate::error::Result;
use crate::options::LoadOptions;
use crate::tokenizer::TokenizerOptions;

use super::shared::assemble::{Parts, assemble};
use super::shared::bert::BertPool;
use super::shared::bert_config::read_bert;
use super::shared::bert_text::BertText;
use super::shared::hf_head::HfHead;
use super::shared::limits::{check_bert_context, check_vit};
use super::shared::preprocessor_config;
use super::shared::transformers::{CLIP_VISION, ClipConfig, TransformersFolder};
use super::shared::vit_image::VitImage;
use super::{Architecture, ConfigForm, Opened};

/// Chinese-CLIP's row of the table.
pub(super) const ARCHITECTURE: Architecture = Architecture {
    name: "chinese-clip",
    summary: "Chinese-CLIP with a vision transformer: transformers' folders",
    detect: |found| found.model_type() == Some("chinese_clip"),
    open: |found, options| open(found.folder(ConfigForm::Transformers)?, options),
};

fn open(dir: PathBuf, options: &LoadOptions) -> Result<Opened> {
    let folder = TransformersFolder::new(dir, options);
    let path = &folder.path;
    let ClipConfig { projection_dim: dim, vision_config, text_config, .. } = folder.config()?;
    let vision = vision_config.clip_vision(path, options.quick_gelu)?;
    check_vit(path, &vision)?;
    let (kind, text) = read_bert(path, &text_config, BertPool::First)?;
    let context_length = text.positions;
    check_bert_context(path, &text, context_length)?;
    let checkpoint = folder.checkpoint()?;
    let preprocess = preprocessor_config::read(path, vision.image_size)?;
    let image = VitImage {
        checkpoint: Arc::clone(&checkpoint),
        prefix: "vision_model.",
        names: &CLIP_VISION,
        arch: vision,
        projection: Some("visual_projection".to_owned()),
        dim,
        precision: options.precision,
    };
    let text = BertText {
        checkpoint: Arc::clone(&checkpoint),
        prefix: "text_model.",
        kind,
        arch: text,
        context_length,
        head: HfHead::Linear("text_projection"),
        dim,
        precision: options.precision,
    };
    let cleaning = options.cleaning.unwrap_or_default();
    let tokenizer_options = TokenizerOptions { cleaning, ..TokenizerOptions::new(context_length) };
    let (tokenizer, cleaning, files) = folder.tokenizer(tokenizer_options);
    let text = text.part(tokenizer, cleaning, files);
    let parts = Parts { dim, preprocess, image: image.part(), text, config: Some(folder.path) };
    assemble(&checkpoint, parts, options)
}
