//! timm's vision transformers inside open_clip's models: their names of tensors, and their sizes.
//!
//! Reference: timm 1.0, `vision_transformer.py`; open_clip 3.3, `timm_model.py`. A configuration names the model alone. The name says how many
//! heads there are and how tokens are pooled; the tensors' shapes say the rest.

use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::arch::shared::limits::check_vit;
use crate::arch::shared::names::{BlockNames, Blocks, QkvNames};
use crate::arch::shared::open_clip::{OpenClipFolder, Side, refuse_unknown};
use crate::arch::shared::pool::{AttentionPoolNames, PoolInputNames};
use crate::arch::shared::transformer::TransformerSizes;
use crate::arch::shared::vit::{VitArch, VitNames};
use crate::arch::shared::vit_image::VitImage;
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
struct TimmCfg {
    timm_model_name: String,
    #[serde(default)]
    timm_pool: Option<String>,
    #[serde(default = "default_proj")]
    timm_proj: Option<String>,
    #[serde(default = "default_image_size")]
    image_size: Side,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

fn default_proj() -> Option<String> {
    Some("linear".to_owned())
}
fn default_image_size() -> Side {
    Side::One(224)
}

/// An image tower of timm's in a folder of open_clip's.
pub(crate) struct TimmTower<'a> {
    /// The configuration, for errors.
    pub(crate) path: &'a Path,
    cfg: TimmCfg,
    pub(crate) checkpoint: &'a Arc<Checkpoint>,
    /// Length of the joint embedding.
    pub(crate) dim: usize,
    /// How linear layers are kept.
    pub(crate) precision: Precision,
}

/// Opens a folder of open_clip's with an image tower of timm's, which `read` reads.
///
/// # Errors
/// [`ClipError::Config`] and the like for what is not known of it.
pub(crate) fn open_timm(
    found: Found,
    options: &LoadOptions,
    read: fn(&TimmTower<'_>) -> Result<ImagePart>,
) -> Result<Opened> {
    let folder = OpenClipFolder::read(found.folder(ConfigForm::OpenClip)?, options)?;
    let cfg: TimmCfg = folder.vision()?;
    refuse_unknown(&folder.path, "vision_cfg", &cfg.rest, HARMLESS)?;
    let checkpoint = folder.checkpoint()?;
    let (path, dim, precision) = (&*folder.path, folder.dim, options.precision);
    let image = read(&TimmTower { path, cfg, checkpoint: &checkpoint, dim, precision })?;
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

impl TimmTower<'_> {
    /// timm's name of it.
    pub(crate) fn name(&self) -> &str {
        &self.cfg.timm_model_name
    }

    /// An error of the configuration.
    pub(crate) fn error(&self, message: impl Into<String>) -> ClipError {
        ClipError::config(self.path, message)
    }

    /// That the name is none of the architecture's.
    pub(crate) fn unknown_name(&self) -> ClipError {
        self.error(format!("timm_model_name is {:?}, which is not known", self.name()))
    }

    /// Side of the square image.
    ///
    /// # Errors
    /// [`ClipError::Config`] if it is none.
    pub(crate) fn image_size(&self) -> Result<usize> {
        self.cfg.image_size.of_square(self.path)
    }

    /// Checks how tokens are pooled.
    ///
    /// # Errors
    /// [`ClipError::Config`] if it is in another way.
    pub(crate) fn expect_pool(&self, expected: &str) -> Result<()> {
        let found = self.cfg.timm_pool.as_deref().unwrap_or("avg");
        if found == expected {
            return Ok(());
        }
        Err(self.error(format!("timm_pool of {} is {found:?}, expected {expected:?}", self.name())))
    }

    /// Checks how positions are pooled; behind a projection of open_clip's, an empty name stands for the model's own way, `own`.
    ///
    /// # Errors
    /// [`ClipError::Config`] if it is in another way.
    pub(crate) fn expect_own_pool(&self, own: &str) -> Result<()> {
        let projected = matches!(self.timm_proj(), Some("linear" | "mlp"));
        if projected && self.cfg.timm_pool.as_deref() == Some("") { Ok(()) } else { self.expect_pool(own) }
    }

    /// The kind of projection into the joint space; none where timm's own classifier is one.
    pub(crate) fn timm_proj(&self) -> Option<&str> {
        self.cfg.timm_proj.as_deref().filter(|kind| !kind.is_empty())
    }

    /// Name of the projection from features of `width` values into the joint space; none where features are of that space.
    ///
    /// # Errors
    /// [`ClipError::Config`] for a kind that is not known, and for none where the two differ.
    pub(crate) fn projection(&self, width: usize) -> Result<Option<String>> {
        let dim = self.dim;
        match self.timm_proj() {
            // timm's own classifier.
            None => Ok(Some(format!("{TRUNK}head"))),
            Some("linear") => Ok(Some("visual.head.proj".to_owned())),
            Some("none") if width == dim => Ok(None),
            Some("none") => Err(self.error(format!(
                "vision_cfg has `timm_proj` \"none\", but the image tower's width is {width} and `embed_dim` {dim}"
            ))),
            Some(other) => {
                Err(self.error(format!("timm_proj is {other:?}, expected \"linear\", \"none\" or null")))
            }
        }
    }

    /// A vision transformer in the checkpoint, with its projection.
    ///
    /// # Errors
    /// Those of [`check_vit`] and [`TimmTower::projection`].
    pub(crate) fn vit(&self, names: &'static VitNames, arch: VitArch) -> Result<ImagePart> {
        check_vit(self.path, &arch)?;
        let image = VitImage {
            checkpoint: Arc::clone(self.checkpoint),
            prefix: TRUNK,
            names,
            projection: self.projection(arch.sizes.width)?,
            arch,
            dim: self.dim,
            precision: self.precision,
        };
        Ok(image.part())
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
