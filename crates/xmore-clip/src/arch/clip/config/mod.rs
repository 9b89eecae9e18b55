//! CLIP's sizes, read from open_clip's configuration (`open_clip`), transformers' (`transformers`), or the tensors' shapes (`infer`).

mod infer;
mod open_clip;
mod transformers;

use std::path::Path;

use crate::arch::shared::transformer::TransformerSizes;
use crate::error::{ClipError, Result};
use crate::nn::activation::Activation;
use crate::preprocess::PreprocessConfig;

pub(super) use infer::infer;
pub(super) use open_clip::read_open_clip;
pub(super) use transformers::read_transformers;

/// A CLIP model.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ClipArch {
    /// Length of the joint embedding.
    pub(crate) dim: usize,
    pub(crate) vision: VisionArch,
    pub(crate) text: TextArch,
    pub(crate) preprocess: PreprocessConfig,
}

/// The image tower.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum VisionArch {
    Vit(VitArch),
    ResNet(ResNetArch),
}

/// A vision transformer.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct VitArch {
    pub(crate) image_size: usize,
    pub(crate) patch: usize,
    pub(crate) sizes: TransformerSizes,
    pub(crate) activation: Activation,
    pub(crate) epsilon: f32,
}

/// A ResNet with attention pooling.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ResNetArch {
    pub(crate) image_size: usize,
    /// Bottlenecks in each stage.
    pub(crate) layers: [usize; 4],
    /// Channels of the stem.
    pub(crate) width: usize,
    /// Heads of the attention pooling.
    pub(crate) heads: usize,
}

/// The text tower.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TextArch {
    pub(crate) context_length: usize,
    pub(crate) vocabulary: usize,
    pub(crate) sizes: TransformerSizes,
    pub(crate) activation: Activation,
    pub(crate) epsilon: f32,
}

/// OpenAI's epsilon, and PyTorch's default.
pub(crate) const LAYER_NORM_EPSILON: f32 = 1e-5;

impl ClipArch {
    /// Checks that the numbers make sense together, before anything is allocated by them; `path` is where they were read.
    pub(crate) fn check(&self, path: &Path) -> Result<()> {
        let range = |name: &str, n: usize, max: usize| {
            if (1..=max).contains(&n) {
                return Ok(());
            }
            Err(ClipError::config(path, format!("{name} is {n}, expected 1 to {max}")))
        };
        range("the embedding's length", self.dim, 1 << 16)?;
        range("the image size", self.image_size(), 4096)?;
        match &self.vision {
            VisionArch::Vit(vit) => {
                check_sizes("image", &vit.sizes, path)?;
                range("the patch size", vit.patch, vit.image_size)?;
                if !vit.image_size.is_multiple_of(vit.patch) {
                    let message =
                        format!("patches of {} do not fill an image of {}", vit.patch, vit.image_size);
                    return Err(ClipError::config(path, message));
                }
            }
            VisionArch::ResNet(resnet) => {
                range("the ResNet's width", resnet.width, 1 << 10)?;
                resnet.layers.iter().try_for_each(|&n| range("a stage's number of layers", n, 256))?;
                if resnet.width % 2 != 0 || resnet.heads == 0 || resnet.width * 32 % resnet.heads != 0 {
                    let message = format!("a ResNet of width {} with {} heads", resnet.width, resnet.heads);
                    return Err(ClipError::config(path, message));
                }
                if !resnet.image_size.is_multiple_of(32) {
                    let message =
                        format!("the image size is {}, expected a multiple of 32", resnet.image_size);
                    return Err(ClipError::config(path, message));
                }
            }
        }
        check_sizes("text", &self.text.sizes, path)?;
        range("the context length", self.text.context_length, 1 << 16)?;
        range("the vocabulary", self.text.vocabulary, 1 << 24)
    }

    /// Side of the square input, in pixels.
    pub(crate) fn image_size(&self) -> usize {
        match &self.vision {
            VisionArch::Vit(vit) => vit.image_size,
            VisionArch::ResNet(resnet) => resnet.image_size,
        }
    }

    /// What the towers are, in words.
    pub(crate) fn describe(&self) -> [String; 2] {
        let name = |activation| if activation == Activation::QuickGelu { "QuickGELU" } else { "GELU" };
        let vision = match &self.vision {
            VisionArch::Vit(v) => format!(
                "ViT, {} layers of {}, patch {}, {}",
                v.sizes.layers,
                v.sizes.width,
                v.patch,
                name(v.activation)
            ),
            VisionArch::ResNet(r) => format!("ResNet, layers {:?}, width {}", r.layers, r.width),
        };
        let text = &self.text;
        let sizes = text.sizes;
        [vision, format!("CLIP text, {} layers of {}, {}", sizes.layers, sizes.width, name(text.activation))]
    }
}

fn check_sizes(tower: &str, sizes: &TransformerSizes, path: &Path) -> Result<()> {
    let &TransformerSizes { width, heads, layers, mlp_width } = sizes;
    let limits = [(width, 1 << 14), (heads, 1 << 10), (layers, 256), (mlp_width, 1 << 17)];
    if limits.iter().any(|&(n, max)| !(1..=max).contains(&n)) || !width.is_multiple_of(heads) {
        let message = format!(
            "the {tower} tower has {layers} layers of width {width} in {heads} heads with an inner width of {mlp_width}"
        );
        return Err(ClipError::config(path, message));
    }
    Ok(())
}
