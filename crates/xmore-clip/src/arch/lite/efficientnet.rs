//! EfficientNet-Lite: MobileNet-like blocks with ReLU6, without squeeze-and-excitation or swish.
//!
//! Reference: PyPI `efficientnet-lite-pytorch`, `model.py`, whose tensor names these are. Pooled features, no classifier.

use crate::checkpoint::Checkpoint;
use crate::device::{Device, ImageNetwork, InvertedResidual};
use crate::error::Result;
use crate::nn::activation::Activation;
use crate::nn::conv::{Padding, Size, Window};
use crate::nn::norm::BatchNorm;
use crate::nn::precision::Precision;
use crate::profile;

use super::config::VisionConfig;
use super::stages::STEM_AND_FEATURES;

/// `BatchNorm2d`'s epsilon in the reference implementation.
const BN_EPSILON: f32 = 1e-3;

/// The network.
pub(crate) struct EfficientNet<D: Device> {
    size: Size,
    stem: D::Conv,
    blocks: Vec<Block<D>>,
    head: D::Conv,
    features: usize,
}

/// An inverted residual: widen, convolve per channel, narrow, and add the input where the shapes allow.
struct Block<D: Device> {
    expand: Option<D::Conv>,
    depthwise: D::Depthwise,
    project: D::Conv,
    residual: bool,
}

impl<D: Device> EfficientNet<D> {
    /// Takes the network's tensors from a checkpoint; `config` must have been checked.
    pub(crate) fn load(device: &D, ckpt: &Checkpoint, config: &VisionConfig) -> Result<Self> {
        let stages = config.stages();
        let [stem_channels, features] = config.stem_and_features.unwrap_or(STEM_AND_FEATURES);
        let relu6 = Some(Activation::Relu6);
        let pointwise = Window::POINT;
        let stem = conv(
            device,
            ckpt,
            "_conv_stem",
            "_bn0",
            [stem_channels, 3],
            Window { kernel: 3, stride: 2, padding: Padding::Same },
            relu6,
        )?;
        let mut blocks = Vec::new();
        let mut inputs = stem_channels;
        for stage in stages {
            for repeat in 0..stage.repeats {
                let prefix = format!("_blocks.{}.", blocks.len());
                let name = |part: &str| format!("{prefix}{part}");
                let wide = inputs * stage.expand;
                let stride = if repeat == 0 { stage.stride } else { 1 };
                let expand = if stage.expand == 1 {
                    None
                } else {
                    Some(conv(
                        device,
                        ckpt,
                        &name("_expand_conv"),
                        &name("_bn0"),
                        [wide, inputs],
                        pointwise,
                        relu6,
                    )?)
                };
                let window = Window { kernel: stage.kernel, stride, padding: Padding::Same };
                let weight =
                    ckpt.tensor(&name("_depthwise_conv.weight"), &[wide, 1, stage.kernel, stage.kernel])?;
                let bn = BatchNorm::load(ckpt, &name("_bn1."), wide, BN_EPSILON)?;
                blocks.push(Block {
                    expand,
                    depthwise: device.depthwise(&weight, wide, window, bn, relu6)?,
                    project: conv(
                        device,
                        ckpt,
                        &name("_project_conv"),
                        &name("_bn2"),
                        [stage.channels, wide],
                        pointwise,
                        None,
                    )?,
                    residual: stride == 1 && inputs == stage.channels,
                });
                inputs = stage.channels;
            }
        }
        let head = conv(device, ckpt, "_conv_head", "_bn1", [features, inputs], pointwise, relu6)?;
        let size = Size { height: config.image_size, width: config.image_size };
        Ok(Self { size, stem, blocks, head, features })
    }
}

impl<D: Device> ImageNetwork<D> for EfficientNet<D> {
    fn width(&self) -> usize {
        self.features
    }

    fn forward(&self, run: &mut D::Run<'_>, images: D::Images<'_>) -> D::Rows {
        D::trunk(run, images, &|run, images, [x, wide, deep]| {
            profile::time("stem", 0, || D::conv_images(run, &self.stem, images, self.size, x));
            for block in &self.blocks {
                let layers = InvertedResidual {
                    expand: block.expand.as_ref(),
                    depthwise: &block.depthwise,
                    project: &block.project,
                    residual: block.residual,
                };
                D::inverted_residual(run, layers, x, [wide, deep]);
            }
            profile::time("head", 0, || D::conv_into(run, &self.head, x, wide));
            D::mean_pool(run, wide, x);
        })
    }
}

fn conv<D: Device>(
    device: &D,
    ckpt: &Checkpoint,
    name: &str,
    bn: &str,
    [outputs, inputs]: [usize; 2],
    window: Window,
    activation: Option<Activation>,
) -> Result<D::Conv> {
    let weight = ckpt.tensor(&format!("{name}.weight"), &[outputs, inputs, window.kernel, window.kernel])?;
    let bn = BatchNorm::load(ckpt, &format!("{bn}."), outputs, BN_EPSILON)?;
    device.conv(&weight, inputs, window, bn, activation, Precision::F32)
}
