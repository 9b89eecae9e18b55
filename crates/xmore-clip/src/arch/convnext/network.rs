//! ConvNeXt: four stages of blocks, each a depthwise convolution and a perceptron at every position; means over all positions at the end.
//!
//! Reference: timm's `ConvNeXt`. Layer scale is folded into the perceptrons' second layers.

use std::path::Path;

use rayon::prelude::*;

use crate::arch::shared::limits::check_range;
use crate::arch::shared::timm::TRUNK;
use crate::checkpoint::Checkpoint;
use crate::device::{Device, ImageNetwork, MapPerceptronLayers, Operation};
use crate::error::Result;
use crate::nn::activation::Activation;
use crate::nn::conv::{Padding, Size, Window};
use crate::nn::linear::Part;
use crate::nn::norm::BatchNorm;
use crate::nn::precision::Precision;
use crate::profile;

const STAGES: usize = 4;
/// Sides of the squares that the stem makes a position of, and that each later stage does.
const STEM: usize = 4;
const DOWNSAMPLE: usize = 2;
/// Pixels that the last stage has a position for.
const STRIDE: usize = STEM * DOWNSAMPLE.pow(STAGES as u32 - 1);
/// Side of the blocks' depthwise kernels.
const KERNEL: usize = 7;

/// Sizes of the network.
pub(super) struct ConvNeXtArch {
    pub(super) image_size: usize,
    /// Channels of each stage, and how many blocks it has.
    stages: [(usize, usize); STAGES],
    /// Of all norms.
    epsilon: f32,
}

impl ConvNeXtArch {
    /// The sizes by the tensors' shapes, checked.
    pub(super) fn infer(
        path: &Path,
        image_size: usize,
        epsilon: f32,
        checkpoint: &Checkpoint,
    ) -> Result<Self> {
        check_range(path, "the image size", image_size, 4096)?;
        check_range(path, "the stride of the last stage", STRIDE, image_size)?;
        let bias = |stage: usize, n: usize| format!("{TRUNK}stages.{stage}.blocks.{n}.conv_dw.bias");
        let mut stages = [(0, 0); STAGES];
        for (stage, (channels, blocks)) in stages.iter_mut().enumerate() {
            let shape = checkpoint.shape(&bias(stage, 0)).unwrap_or_default();
            *channels = shape.first().copied().unwrap_or(0);
            *blocks = (0..).take_while(|&n| checkpoint.contains(&bias(stage, n))).count();
            check_range(path, &format!("the image tower's channels of stage {stage}"), *channels, 1 << 14)?;
            check_range(path, &format!("the image tower's blocks of stage {stage}"), *blocks, 256)?;
        }
        Ok(Self { image_size, stages, epsilon })
    }

    /// What it is, in words.
    pub(super) fn describe(&self) -> String {
        let blocks: usize = self.stages.iter().map(|(_, blocks)| blocks).sum();
        format!("ConvNeXt, {blocks} blocks, {} to {} channels, GELU", self.stages[0].0, self.width())
    }

    /// Length of a feature row.
    pub(super) fn width(&self) -> usize {
        self.stages[STAGES - 1].0
    }

    /// The operations that it needs beside those of every device.
    pub(super) fn operations(&self) -> Vec<Operation> {
        vec![Operation::DepthwiseForm, Operation::MapNorm, Operation::MapPerceptron]
    }
}

/// The network, without the projection into the joint space.
pub(super) struct ConvNeXt<D: Device> {
    size: Size,
    stem: D::Conv,
    stem_norm: D::Norm,
    stages: Vec<Stage<D>>,
    norm: D::Norm,
    width: usize,
}

struct Stage<D: Device> {
    /// Norm and convolution between stages.
    downsample: Option<(D::Norm, D::Conv)>,
    blocks: Vec<Block<D>>,
}

struct Block<D: Device> {
    depthwise: D::Depthwise,
    norm: D::Norm,
    fc1: D::Linear,
    fc2: D::Linear,
}

/// What all parts are loaded with.
struct Loader<'a, D> {
    device: &'a D,
    checkpoint: &'a Checkpoint,
    epsilon: f32,
    precision: Precision,
}

impl<D: Device> ConvNeXt<D> {
    /// Takes the network's tensors.
    pub(super) fn load(
        device: &D,
        checkpoint: &Checkpoint,
        arch: &ConvNeXtArch,
        precision: Precision,
    ) -> Result<Self> {
        device.require(arch.operations())?;
        let loader = Loader { device, checkpoint, epsilon: arch.epsilon, precision };
        let (first, width) = (arch.stages[0].0, arch.width());
        let mut stages = Vec::new();
        for (n, &(channels, blocks)) in arch.stages.iter().enumerate() {
            let prefix = format!("{TRUNK}stages.{n}");
            let downsample = match n.checked_sub(1) {
                None => None,
                Some(before) => {
                    let (inputs, name) = (arch.stages[before].0, format!("{prefix}.downsample"));
                    let conv = loader.conv(&format!("{name}.1"), [channels, inputs], DOWNSAMPLE)?;
                    Some((loader.norm(&format!("{name}.0"), inputs)?, conv))
                }
            };
            let block = |n| loader.block(&format!("{prefix}.blocks.{n}"), channels);
            let blocks = (0..blocks).into_par_iter().map(block).collect::<Result<Vec<_>>>()?;
            stages.push(Stage { downsample, blocks });
        }
        Ok(Self {
            size: Size { height: arch.image_size, width: arch.image_size },
            stem: loader.conv(&format!("{TRUNK}stem.0"), [first, 3], STEM)?,
            stem_norm: loader.norm(&format!("{TRUNK}stem.1"), first)?,
            stages,
            norm: loader.norm(&format!("{TRUNK}head.norm"), width)?,
            width,
        })
    }
}

impl<D: Device> Loader<'_, D> {
    fn norm(&self, name: &str, width: usize) -> Result<D::Norm> {
        let (weight, bias) = self.checkpoint.weight_and_bias(&format!("{name}."), &[width])?;
        self.device.norm(&weight, &bias, self.epsilon)
    }

    /// A convolution over squares that do not overlap.
    fn conv(&self, name: &str, [outputs, inputs]: [usize; 2], kernel: usize) -> Result<D::Conv> {
        let shape = [outputs, inputs, kernel, kernel];
        let (weight, bias) = self.checkpoint.weight_and_bias(&format!("{name}."), &shape)?;
        let window = Window { kernel, stride: kernel, padding: Padding::Around(0) };
        self.device.conv(&weight, inputs, window, BatchNorm::bias(bias.into_owned()), None, Precision::F32)
    }

    fn block(&self, name: &str, width: usize) -> Result<Block<D>> {
        let (device, checkpoint) = (self.device, self.checkpoint);
        let shape = [width, 1, KERNEL, KERNEL];
        let (weight, bias) = checkpoint.weight_and_bias(&format!("{name}.conv_dw."), &shape)?;
        let window = Window { kernel: KERNEL, stride: 1, padding: Padding::Around(KERNEL / 2) };
        let depthwise = device.depthwise(&weight, width, window, BatchNorm::bias(bias.into_owned()), None)?;
        let hidden = 4 * width;
        let (w1, b1) = checkpoint.weight_and_bias(&format!("{name}.mlp.fc1."), &[hidden, width])?;
        let (w2, b2) = checkpoint.weight_and_bias(&format!("{name}.mlp.fc2."), &[width, hidden])?;
        let gamma = checkpoint.tensor(&format!("{name}.gamma"), &[width])?;
        let (mut w2, mut b2) = (w2.into_owned(), b2.into_owned());
        for ((row, bias), gamma) in w2.chunks_exact_mut(hidden).zip(&mut b2).zip(&*gamma) {
            row.iter_mut().chain([bias]).for_each(|value| *value *= gamma);
        }
        let linear = |weight: &[f32], bias: &[f32], inputs| {
            let part = Part { weight, bias: Some(bias), scale: 1.0 };
            device.linear(&[part], inputs, self.precision)
        };
        Ok(Block {
            depthwise,
            norm: self.norm(&format!("{name}.norm"), width)?,
            fc1: linear(&w1, &b1, width)?,
            fc2: linear(&w2, &b2, hidden)?,
        })
    }
}

impl<D: Device> Block<D> {
    /// Adds to the first of the buffers; the second holds anything.
    fn forward(&self, run: &mut D::Run<'_>, [x, y, _]: &mut [D::Maps; 3]) {
        profile::time("depthwise", 0, || D::depthwise_into(run, &self.depthwise, x, y));
        let layers = MapPerceptronLayers {
            norm: Some(&self.norm),
            fc1: &self.fc1,
            fc2: &self.fc2,
            activation: Activation::Gelu,
        };
        profile::time("mlp", 0, || D::perceptron_map(run, layers, y, x));
    }
}

impl<D: Device> ImageNetwork<D> for ConvNeXt<D> {
    fn width(&self) -> usize {
        self.width
    }

    fn forward(&self, run: &mut D::Run<'_>, images: D::Images<'_>) -> D::Rows {
        let mut means = D::trunk(run, images, &|run, images, maps| {
            profile::time("stem", 0, || {
                let [x, y, _] = maps;
                D::conv_images(run, &self.stem, images, self.size, y);
                D::norm_map(run, &self.stem_norm, y, x);
            });
            for stage in &self.stages {
                if let Some((norm, conv)) = &stage.downsample {
                    profile::time("downsample", 0, || {
                        let [x, y, _] = maps;
                        D::norm_map(run, norm, x, y);
                        D::conv_into(run, conv, y, x);
                    });
                }
                stage.blocks.iter().for_each(|block| block.forward(run, maps));
            }
            let [x, y, _] = maps;
            D::mean_pool(run, x, y);
            std::mem::swap(x, y);
        });
        D::norm_in_place(run, &self.norm, &mut means);
        means
    }
}
