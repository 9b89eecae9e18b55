//! CLIP's tensors under the names that OpenAI, open_clip and transformers give them.
//!
//! transformers' `CLIPModel` splits attention's input layer in three and stores projections transposed. The numbers are the same, so a model
//! loads to the same bits from each.

use crate::arch::shared::names::OPEN_CLIP_BLOCKS;
use crate::arch::shared::text::{OPEN_CLIP_TEXT, TRANSFORMERS_TEXT, TextNames};
use crate::arch::shared::transformers::CLIP_VISION;
use crate::arch::shared::vit::VitNames;
use crate::checkpoint::Checkpoint;

/// What a CLIP model's tensors are called.
#[derive(Debug)]
pub(crate) struct ClipNames {
    /// Prefix of the image tower's.
    pub(crate) vision_prefix: &'static str,
    pub(crate) vision: &'static VitNames,
    pub(crate) vision_projection: &'static str,
    /// Prefix of the text tower's.
    pub(crate) text_prefix: &'static str,
    pub(crate) text: &'static TextNames,
    pub(crate) text_projection: &'static str,
}

static OPEN_CLIP_VISION: VitNames = VitNames {
    patches: "conv1",
    class: "class_embedding",
    positions: "positional_embedding",
    norm_pre: "ln_pre",
    norm_post: "ln_post",
    blocks: &OPEN_CLIP_BLOCKS,
    pool: None,
};

/// OpenAI's and open_clip's.
pub(crate) static OPEN_CLIP: ClipNames = ClipNames {
    vision_prefix: "visual.",
    vision: &OPEN_CLIP_VISION,
    vision_projection: "visual.proj",
    text_prefix: "",
    text: &OPEN_CLIP_TEXT,
    text_projection: "text_projection",
};

/// open_clip's with `custom_text`.
static OPEN_CLIP_CUSTOM_TEXT: ClipNames =
    ClipNames { text_prefix: "text.", text_projection: "text.text_projection", ..OPEN_CLIP };

/// transformers'.
pub(crate) static TRANSFORMERS: ClipNames = ClipNames {
    vision_prefix: "vision_model.",
    vision: &CLIP_VISION,
    vision_projection: "visual_projection",
    text_prefix: "text_model.",
    text: &TRANSFORMERS_TEXT,
    text_projection: "text_projection",
};

impl ClipNames {
    /// Those of a checkpoint.
    pub(crate) fn detect(checkpoint: &Checkpoint) -> &'static Self {
        if checkpoint.names().any(|n| n.starts_with("vision_model.") || n.starts_with("text_model.")) {
            &TRANSFORMERS
        } else if checkpoint.contains("text.token_embedding.weight") {
            &OPEN_CLIP_CUSTOM_TEXT
        } else {
            &OPEN_CLIP
        }
    }
}
