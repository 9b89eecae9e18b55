//! timm's vision transformers inside open_clip's models: their names of tensors, and their sizes.
//!
//! Reference: timm 1.0, `vision_transformer.py`; open_clip 3.3, `timm_model.py`. A configuration names the model alone. The name says how many
//! heads there are and how tokens are pooled; the tensors' shapes say the rest.

use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::arch::shared::names::{BlockNames, Blocks, QkvNames};
use crate::arch::shared::open_clip::{OpenClipFolder, Side, refuse_unknown};
use crate::arch::shared::pool::{AttentionPoolNames, PoolInputNames};
use crate::arch::shared::transformer::TransformerSizes;
use crate::arch::shared::vit::VitNames;
use crate::arch::{ConfigForm, Found, ImagePart, Opened};
use crate::checkpoint::Checkpoint;
use crate::error::{ClipError, Result};
use crate::nn::precision::Precision;
use crate::options::LoadOptions;

/// Where open_clip's checkpoints have timm's tensors.
pub(crate) const TRUNK: &str = "visual.trunk.";

/// timm's blocks.
pub(crate) static TIMM_BLOCKS: BlockNames = BlockNames {
    list: "blocks",
    norms: ["norm1", "norm2"],
    attention_out: "attn.proj",
    perceptron: ["mlp.fc1", "mlp.fc2"],
    qkv: QkvNames::Fused { weight: "attn.qkv.weight", bias: "attn.qkv.bias" },
    inner: None,
};

/// timm's `VisionTransformer`.
pub(crate) static TIMM_VIT: VitNames = VitNames {
    patches: "patch_embed.proj",
    class: "cls_token",
    positions: "pos_embed",
    norm_pre: "norm_pre",
    norm_post: "norm",
    blocks: &TIMM_BLOCKS,
    pool: Some(&AttentionPoolNames {
        latent: "attn_pool.latent",
        input: PoolInputNames::QueryAndKeyValue(["attn_pool.q", "attn_pool.kv"]),
        out: "attn_pool.proj",
        norm: "attn_pool.norm",
        perceptron: ["attn_pool.mlp.fc1", "attn_pool.mlp.fc2"],
    }),
};

/// `vision_cfg` with a model of timm's.
#[derive(Deserialize)]
pub(crate) struct TimmCfg {
    pub(crate) timm_model_name: String,
    #[serde(default)]
    timm_pool: Option<String>,
    #[serde(default)]
    timm_proj: Option<String>,
    #[serde(default = "default_image_size")]
    image_size: Side,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

fn default_image_size() -> Side {
    Side::One(224)
}

/// Reads an image tower of timm's by its name; the path is the configuration's, the number the length of the joint embedding.
pub(crate) type ReadTimm = fn(&Path, &TimmCfg, &Arc<Checkpoint>, usize, Precision) -> Result<ImagePart>;

/// Opens a folder of open_clip's with an image tower of timm's.
///
/// # Errors
/// [`ClipError::Config`] and the like for what is not known of it.
pub(crate) fn open_timm(found: Found, options: &LoadOptions, read: ReadTimm) -> Result<Opened> {
    let folder = OpenClipFolder::read(found.folder(ConfigForm::OpenClip)?, options)?;
    let cfg = TimmCfg::read(&folder)?;
    let checkpoint = folder.checkpoint()?;
    let image = read(&folder.path, &cfg, &checkpoint, folder.dim, options.precision)?;
    folder.opened(&checkpoint, image)
}

/// Keys that change nothing at inference.
const HARMLESS: &[&str] = &[
    "timm_model_pretrained",
    "timm_proj_bias",
    "timm_drop",
    "timm_drop_path",
    "patch_dropout",
    "output_tokens",
];

impl TimmCfg {
    /// Reads `vision_cfg`.
    ///
    /// # Errors
    /// [`ClipError::Config`] for what is not known of it.
    pub(crate) fn read(folder: &OpenClipFolder) -> Result<Self> {
        let cfg: Self = folder.vision()?;
        refuse_unknown(&folder.path, "vision_cfg", &cfg.rest, HARMLESS)?;
        Ok(cfg)
    }

    /// Side of the square image.
    ///
    /// # Errors
    /// [`ClipError::Config`] if it is none.
    pub(crate) fn image_size(&self, path: &Path) -> Result<usize> {
        self.image_size.of_square(path)
    }

    /// Checks how tokens are pooled.
    ///
    /// # Errors
    /// [`ClipError::Config`] if it is in another way.
    pub(crate) fn expect_pool(&self, path: &Path, expected: &str) -> Result<()> {
        let found = self.timm_pool.as_deref().unwrap_or("avg");
        if found == expected {
            return Ok(());
        }
        let name = &self.timm_model_name;
        Err(ClipError::config(path, format!("timm_pool of {name} is {found:?}, expected {expected:?}")))
    }

    /// Whether tokens are pooled as the model does by itself: only behind a projection of open_clip's is an empty `timm_pool` that.
    pub(crate) fn pools_by_default(&self) -> bool {
        self.timm_pool.as_deref() == Some("") && self.timm_proj.as_deref() == Some("linear")
    }

    /// Checks how positions are pooled; behind a projection of open_clip's, an empty name stands for the model's own way, `own`.
    ///
    /// # Errors
    /// [`ClipError::Config`] if it is in another way.
    pub(crate) fn expect_own_pool(&self, path: &Path, own: &str) -> Result<()> {
        let projected = matches!(self.timm_proj(), Some("linear" | "mlp"));
        if projected && self.timm_pool.as_deref() == Some("") { Ok(()) } else { self.expect_pool(path, own) }
    }

    /// The kind of projection into the joint space; none where timm's own classifier is one.
    pub(crate) fn timm_proj(&self) -> Option<&str> {
        self.timm_proj.as_deref().filter(|kind| !kind.is_empty())
    }

    /// Name of the projection from features of `width` values into the joint space of `dim`; none where features are of that space.
    ///
    /// # Errors
    /// [`ClipError::Config`] for a kind that is not known, and for none where the two differ.
    pub(crate) fn projection(&self, path: &Path, width: usize, dim: usize) -> Result<Option<String>> {
        match self.timm_proj.as_deref() {
            // timm's own classifier.
            None | Some("") => Ok(Some(format!("{TRUNK}head"))),
            Some("linear") => Ok(Some("visual.head.proj".to_owned())),
            Some("none") if width == dim => Ok(None),
            Some("none") => {
                let message = format!(
                    "vision_cfg has `timm_proj` \"none\", but the image tower's width is {width} and `embed_dim` {dim}"
                );
                Err(ClipError::config(path, message))
            }
            Some(other) => {
                let message = format!("timm_proj is {other:?}, expected \"linear\", \"none\" or null");
                Err(ClipError::config(path, message))
            }
        }
    }
}

/// Heads of timm's vision transformers, by the part of their names that says the size.
const HEADS: &[(&str, usize)] = &[
    ("tiny", 3),
    ("small", 6),
    ("base", 12),
    ("large", 16),
    ("so400m", 16),
    ("huge", 16),
    ("giantopt", 16),
    ("gigantic", 16),
];

/// Heads of a model such as `vit_base_patch16_siglip_224`.
pub(crate) fn heads(name: &str) -> Option<usize> {
    HEADS.iter().find(|(size, _)| name.split('_').any(|part| part == *size)).map(|&(_, heads)| heads)
}

/// The patch's side and the sizes of a vision transformer, by its tensors' shapes; zeros for what is missing, which the check of sizes
/// refuses.
///
/// # Errors
/// [`ClipError::MissingTensor`] and the like if there are no patches.
pub(crate) fn infer_sizes(
    checkpoint: &Checkpoint,
    blocks: &'static BlockNames,
    heads: usize,
) -> Result<(usize, TransformerSizes)> {
    let name = format!("{TRUNK}patch_embed.proj.weight");
    let Some(&[width, _, _, patch]) = checkpoint.shape(&name) else {
        // Says what is there instead.
        checkpoint.tensor(&name, &[0, 3, 0, 0])?;
        return Err(ClipError::checkpoint(
            checkpoint.path(),
            format!("tensor `{name}` has no four dimensions"),
        ));
    };
    let blocks = Blocks::new(checkpoint, TRUNK, blocks, Precision::F32);
    let sizes = TransformerSizes {
        width,
        heads,
        layers: blocks.count(),
        mlp_width: blocks.mlp_width(0).unwrap_or(0),
    };
    Ok((patch, sizes))
}
