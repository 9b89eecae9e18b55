//! A vision transformer in a checkpoint, with its projection: the image part of most models.

use std::sync::Arc;

use crate::arch::ImagePart;
use crate::arch::shared::names::projection;
use crate::arch::shared::vit::{Vit, VitArch, VitNames, VitWeights};
use crate::checkpoint::Checkpoint;
use crate::device::{BuildImage, Device, ImageTower};
use crate::error::Result;
use crate::nn::precision::Precision;

/// A vision transformer in a checkpoint, with its projection.
pub(crate) struct VitImage {
    pub(crate) checkpoint: Arc<Checkpoint>,
    pub(crate) prefix: &'static str,
    pub(crate) names: &'static VitNames,
    /// Checked.
    pub(crate) arch: VitArch,
    /// The projection's name; none where features are of the joint space already.
    pub(crate) projection: Option<String>,
    pub(crate) dim: usize,
    pub(crate) precision: Precision,
}

impl VitImage {
    /// The part of a model.
    pub(crate) fn part(self) -> ImagePart {
        ImagePart {
            description: self.arch.describe(),
            image_size: self.arch.image_size,
            operations: self.arch.operations(),
            loader: Box::new(self),
        }
    }
}

impl BuildImage for VitImage {
    fn build<D: Device>(&self, device: &D) -> Result<ImageTower<D>> {
        let Self { checkpoint, prefix, names, arch, projection: name, dim, precision } = self;
        let weights = VitWeights { checkpoint, prefix, names, precision: *precision };
        let head = match name {
            Some(name) => Some(projection(device, checkpoint, name, arch.feature_width(), *dim)?),
            None => None,
        };
        Ok(ImageTower { network: Box::new(Vit::load(device, &weights, arch)?), head })
    }
}
