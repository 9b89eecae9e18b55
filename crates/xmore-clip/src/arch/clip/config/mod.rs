//! CLIP's sizes, read from open_clip's configuration (`open_clip`), transformers' (`transformers`), or the tensors' shapes (`infer`).

mod infer;
mod open_clip;
mod transformers;

use std::path::Path;

use crate::arch::shared::limits::{check_range, check_vit};
use crate::arch::shared::text::TextArch;
use crate::arch::shared::vit::VitArch;
use crate::error::{ClipError, Result};
use crate::preprocess::PreprocessConfig;

pub(super) use infer::infer;
pub(super) use open_clip::read_vision;
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

impl VisionArch {
    /// Checks that the numbers make sense together, before anything is allocated by them; `path` is where they were read.
    pub(crate) fn check(&self, path: &Path) -> Result<()> {
        match self {
            VisionArch::Vit(vit) => {
                check_vit(path, vit)?;
                if !vit.image_size.is_multiple_of(vit.patch) {
                    let message =
                        format!("patches of {} do not fill an image of {}", vit.patch, vit.image_size);
                    return Err(ClipError::config(path, message));
                }
                Ok(())
            }
            VisionArch::ResNet(resnet) => {
                check_range(path, "the image size", resnet.image_size, 4096)?;
                check_range(path, "the ResNet's width", resnet.width, 1 << 10)?;
                resnet
                    .layers
                    .iter()
                    .try_for_each(|&n| check_range(path, "a stage's number of layers", n, 256))?;
                if resnet.width % 2 != 0 || resnet.heads == 0 || resnet.width * 32 % resnet.heads != 0 {
                    let message = format!("a ResNet of width {} with {} heads", resnet.width, resnet.heads);
                    return Err(ClipError::config(path, message));
                }
                if !resnet.image_size.is_multiple_of(32) {
                    let message =
                        format!("the image size is {}, expected a multiple of 32", resnet.image_size);
                    return Err(ClipError::config(path, message));
                }
                Ok(())
            }
        }
    }
}

impl ResNetArch {
    /// What it is, in words.
    pub(crate) fn describe(&self) -> String {
        format!("ResNet, layers {:?}, width {}", self.layers, self.width)
    }
}
