//! EfficientNet-Lite: MobileNet-like blocks with ReLU6, without squeeze-and-excitation or swish.
//!
//! Reference: PyPI `efficientnet-lite-pytorch`, `model.py`, whose tensor names these are. Pooled features, no classifier.

use crate::arch::ImageTower;
use crate::checkpoint::Checkpoint;
use crate::error::Result;
use crate::nn::activation::Activation;
use crate::nn::conv::{Conv2d, DepthwiseConv2d, Padding, Size, Window};
use crate::nn::gemm::Threads;
use crate::nn::norm::BatchNorm;
use crate::nn::thread_buffers::with_buffers;
use crate::profile;

use super::config::VisionConfig;
use super::stages::STEM_AND_FEATURES;

/// `BatchNorm2d`'s epsilon in the reference implementation.
const BN_EPSILON: f32 = 1e-3;

/// The network.
pub(crate) struct EfficientNet {
    size: Size,
    stem: Conv2d,
    blocks: Vec<Block>,
    head: Conv2d,
    features: usize,
}

/// An inverted residual: widen, convolve per channel, narrow, and add the input where the shapes allow.
struct Block {
    expand: Option<Conv2d>,
    depthwise: DepthwiseConv2d,
    project: Conv2d,
    residual: bool,
}

impl EfficientNet {
    /// Takes the network's tensors from a checkpoint; `config` must have been checked.
    pub(crate) fn load(ckpt: &Checkpoint, config: &VisionConfig) -> Result<Self> {
        let stages = config.stages();
        let [stem_channels, features] = config.stem_and_features.unwrap_or(STEM_AND_FEATURES);
        let relu6 = Some(Activation::Relu6);
        let pointwise = Window::POINT;
        let stem = conv(
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
                    Some(conv(ckpt, &name("_expand_conv"), &name("_bn0"), [wide, inputs], pointwise, relu6)?)
                };
                let window = Window { kernel: stage.kernel, stride, padding: Padding::Same };
                let weight =
                    ckpt.tensor(&name("_depthwise_conv.weight"), &[wide, 1, stage.kernel, stage.kernel])?;
                let bn = BatchNorm::load(ckpt, &name("_bn1."), wide, BN_EPSILON)?;
                blocks.push(Block {
                    expand,
                    depthwise: DepthwiseConv2d::new(&weight, window, bn),
                    project: conv(
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
        let head = conv(ckpt, "_conv_head", "_bn1", [features, inputs], pointwise, relu6)?;
        let size = Size { height: config.image_size, width: config.image_size };
        Ok(Self { size, stem, blocks, head, features })
    }
}

impl ImageTower for EfficientNet {
    fn width(&self) -> usize {
        self.features
    }

    fn forward(&self, images: &[&[f32]], threads: Threads) -> Vec<f32> {
        images.iter().flat_map(|pixels| self.one(pixels, threads)).collect()
    }
}

impl EfficientNet {
    fn one(&self, pixels: &[f32], threads: Threads) -> Vec<f32> {
        with_buffers(|buffers| self.one_in(pixels, threads, buffers))
    }

    fn one_in(&self, pixels: &[f32], threads: Threads, buffers: &mut [Vec<f32>; 3]) -> Vec<f32> {
        let [x, wide, deep] = buffers;
        let mut size = profile::time("stem", 0, || self.stem.forward(pixels, self.size, x, threads));
        for block in &self.blocks {
            let input = match &block.expand {
                Some(expand) => {
                    profile::time("conv 1x1 wide", 0, || expand.forward(x, size, wide, threads));
                    &*wide
                }
                None => &*x,
            };
            size =
                profile::time("depthwise", 0, || block.depthwise.forward_relu6(input, size, deep, threads));
            profile::time("conv 1x1 narrow", 0, || {
                if block.residual {
                    block.project.forward_add(deep, x, threads);
                } else {
                    block.project.forward(deep, size, x, threads);
                }
            });
        }
        profile::time("head", 0, || self.head.forward(x, size, wide, threads));
        average(wide, self.features)
    }
}

/// Mean over all positions of `[positions, channels]`.
fn average(x: &[f32], channels: usize) -> Vec<f32> {
    let mut sum = vec![0.0f32; channels];
    for pixel in x.chunks_exact(channels) {
        for (s, p) in sum.iter_mut().zip(pixel) {
            *s += p;
        }
    }
    let positions = (x.len() / channels) as f32;
    sum.iter_mut().for_each(|s| *s /= positions);
    sum
}

fn conv(
    ckpt: &Checkpoint,
    name: &str,
    bn: &str,
    [outputs, inputs]: [usize; 2],
    window: Window,
    activation: Option<Activation>,
) -> Result<Conv2d> {
    let weight = ckpt.tensor(&format!("{name}.weight"), &[outputs, inputs, window.kernel, window.kernel])?;
    let bn = BatchNorm::load(ckpt, &format!("{bn}."), outputs, BN_EPSILON)?;
    Ok(Conv2d::new(&weight, inputs, window, bn, activation))
}
