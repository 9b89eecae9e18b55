//! A vision transformer whose patches are made by three convolutions; positions are of the patches alone.

use crate::arch::shared::block::BlockForm;
use crate::arch::shared::names::{Blocks, learned};
use crate::arch::shared::timm::{TIMM_BLOCKS, TRUNK};
use crate::arch::shared::transformer::{Transformer, TransformerForm, TransformerSizes};
use crate::checkpoint::Checkpoint;
use crate::device::{Device, ImageNetwork, Mask, Operation, TOKENS_PER_PASS, Wanted};
use crate::error::Result;
use crate::nn::activation::Activation;
use crate::nn::conv::{Padding, Size, Window};
use crate::nn::norm::BatchNorm;
use crate::nn::precision::Precision;
use crate::profile;

/// timm's epsilon of a vision transformer's layer norms.
const EPSILON: f32 = 1e-6;
/// `BatchNorm2d`'s default epsilon.
const BATCH_NORM_EPSILON: f32 = 1e-5;
/// Sides of the convolutions' kernels, which do not overlap.
const KERNELS: [usize; 3] = [4, 2, 2];
/// Side of the square of pixels that becomes a token.
pub(super) const PATCH: usize = KERNELS[0] * KERNELS[1] * KERNELS[2];

/// Sizes of the network.
pub(super) struct MobileClipArch {
    pub(super) image_size: usize,
    /// Channels of the first two convolutions.
    pub(super) stem_width: usize,
    pub(super) sizes: TransformerSizes,
}

/// The network, without the projection into the joint space.
pub(super) struct MobileClipVit<D: Device> {
    size: Size,
    stem: [D::Conv; 3],
    class: D::Values,
    /// `[patches, width]`.
    positions: D::Values,
    patches: usize,
    transformer: Transformer<D>,
    norm: D::Norm,
    width: usize,
}

impl<D: Device> MobileClipVit<D> {
    /// Takes the network's tensors; `arch` must have been checked.
    pub(super) fn load(
        device: &D,
        checkpoint: &Checkpoint,
        arch: &MobileClipArch,
        precision: Precision,
    ) -> Result<Self> {
        device.require([Operation::ClassBeforeMaps])?;
        let TransformerSizes { width, .. } = arch.sizes;
        let patches = (arch.image_size / PATCH).pow(2);
        // The first that is taken, for it says whether the checkpoint is of the image's size.
        let positions = learned(checkpoint, &format!("{TRUNK}pos_embed"), &[patches, width])?;
        let class = learned(checkpoint, &format!("{TRUNK}cls_token"), &[width])?;
        let form = TransformerForm {
            sizes: arch.sizes,
            activation: Activation::Gelu,
            epsilon: EPSILON,
            mask: Mask::None,
            wanted: Some(Wanted::First),
            blocks: BlockForm::CLIP,
        };
        let blocks = Blocks::new(checkpoint, TRUNK, &TIMM_BLOCKS, precision);
        let (weight, bias) = checkpoint.weight_and_bias(&format!("{TRUNK}norm."), &[width])?;
        let half = arch.stem_width;
        Ok(Self {
            size: Size { height: arch.image_size, width: arch.image_size },
            stem: [
                Self::conv(device, checkpoint, 0, [half, 3])?,
                Self::conv(device, checkpoint, 1, [half, half])?,
                Self::conv(device, checkpoint, 2, [width, half])?,
            ],
            class: device.values(&class)?,
            positions: device.values(&positions)?,
            patches,
            transformer: Transformer::load(device, &blocks, form)?,
            norm: device.norm(&weight, &bias, EPSILON)?,
            width,
        })
    }

    /// Convolution `n` of the stem: all but the last are normalized and have an activation, the last has a bias instead.
    fn conv(device: &D, checkpoint: &Checkpoint, n: usize, [outputs, inputs]: [usize; 2]) -> Result<D::Conv> {
        let (prefix, kernel) = (format!("{TRUNK}patch_embed.backbone.{n}"), KERNELS[n]);
        let weight =
            checkpoint.tensor(&format!("{prefix}.conv.weight"), &[outputs, inputs, kernel, kernel])?;
        let (bn, activation) = if n + 1 < KERNELS.len() {
            let bn = BatchNorm::load(checkpoint, &format!("{prefix}.bn."), outputs, BATCH_NORM_EPSILON)?;
            (bn, Some(Activation::Gelu))
        } else {
            let bias = checkpoint.tensor(&format!("{prefix}.conv.bias"), &[outputs])?;
            (BatchNorm::bias(bias.into_owned()), None)
        };
        let window = Window { kernel, stride: kernel, padding: Padding::Around(0) };
        device.conv(&weight, inputs, window, bn, activation, Precision::F32)
    }
}

impl<D: Device> ImageNetwork<D> for MobileClipVit<D> {
    fn width(&self) -> usize {
        self.width
    }

    fn images_per_pass(&self) -> usize {
        (TOKENS_PER_PASS / (self.patches + 1)).max(1)
    }

    fn forward(&self, run: &mut D::Run<'_>, images: D::Images<'_>) -> D::Rows {
        let patches = D::trunk(run, images, &|run, images, [x, y, _]| {
            profile::time("stem", 0, || {
                D::conv_images(run, &self.stem[0], images, self.size, x);
                D::conv_into(run, &self.stem[1], x, y);
                D::conv_into(run, &self.stem[2], y, x);
            });
        });
        let x = D::prepend_class(run, &patches, &self.class, &self.positions);
        let lengths = vec![self.patches + 1; D::count(images)];
        let mut x = self.transformer.forward(run, x, &lengths);
        D::norm_in_place(run, &self.norm, &mut x);
        x
    }
}
