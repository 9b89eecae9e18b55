//! FastViT: a convolutional stem, stages of blocks that mix positions by a depthwise convolution or, in the last stages, by attention, and a
//! convolution with squeeze-and-excitation before the mean over all positions.
//!
//! Reference: timm's `FastVit`.

use std::path::Path;

use rayon::prelude::*;

use crate::arch::shared::limits::check_range;
use crate::arch::shared::timm::TRUNK;
use crate::checkpoint::Checkpoint;
use crate::device::{AttentionShape, Device, ImageNetwork, MapPerceptronLayers, Mask, Operation};
use crate::error::{ClipError, Result};
use crate::nn::activation::Activation;
use crate::nn::conv::Size;
use crate::nn::precision::Precision;
use crate::profile;

use super::parts::{Branch, Loader, SMALL};

/// Width of an attention head.
pub(super) const HEAD_WIDTH: usize = 32;
/// The first stage whose blocks have attention, and positions before them.
const ATTENTION: usize = 3;
/// The first stage before which the smaller models have squeeze and excitation.
const SQUEEZED: usize = 2;
/// How many times as many channels the last convolution has.
const LAST_MULTIPLE: usize = 2;
const GELU: Activation = Activation::Gelu;

/// Form and sizes of the network.
pub(super) struct FastVitArch {
    pub(super) image_size: usize,
    /// The two models of five stages, without squeeze and excitation between them, whose attention follows a layer norm.
    pub(super) large: bool,
    stages: Vec<StageSizes>,
}

struct StageSizes {
    width: usize,
    /// Width inside the perceptrons.
    hidden: usize,
    blocks: usize,
}

impl FastVitArch {
    /// The sizes by the tensors' shapes, checked.
    pub(super) fn infer(
        path: &Path,
        image_size: usize,
        large: bool,
        checkpoint: &Checkpoint,
    ) -> Result<Self> {
        check_range(path, "the image size", image_size, 4096)?;
        let count = ATTENTION + if large { 2 } else { 1 };
        let mut stages: Vec<StageSizes> = Vec::new();
        for stage in 0..count {
            let name = |n: usize, layer: &str| format!("{TRUNK}stages.{stage}.blocks.{n}.mlp.{layer}.bias");
            let size = |layer| {
                let shape = checkpoint.shape(&name(0, layer)).unwrap_or_default();
                shape.first().copied().unwrap_or(0)
            };
            let (width, hidden) = (size("fc2"), size("fc1"));
            let blocks = (0..).take_while(|&n| checkpoint.contains(&name(n, "fc1"))).count();
            let of = format!("of stage {stage} of the image tower");
            check_range(path, &format!("the channels {of}"), width, 1 << 14)?;
            check_range(path, &format!("the inner width {of}"), hidden, 1 << 17)?;
            check_range(path, &format!("the blocks {of}"), blocks, 256)?;
            let unit = stages.last().map_or(1, |before| before.width);
            let unit = if stage < ATTENTION { [unit, 1] } else { [unit, HEAD_WIDTH] };
            if unit.iter().any(|&unit| !width.is_multiple_of(unit)) {
                let message = format!(
                    "the channels {of} are {width}, expected a multiple of {} and of {}",
                    unit[0], unit[1]
                );
                return Err(ClipError::config(path, message));
            }
            stages.push(StageSizes { width, hidden, blocks });
        }
        Ok(Self { image_size, large, stages })
    }

    /// What it is, in words.
    pub(super) fn describe(&self) -> String {
        let blocks: usize = self.stages.iter().map(|stage| stage.blocks).sum();
        let widths = [self.stages[0].width, self.last()[0]];
        format!("FastViT, {blocks} blocks, {} to {} channels, GELU", widths[0], widths[1])
    }

    /// The operations that it needs beside those of every device.
    pub(super) fn operations(&self) -> Vec<Operation> {
        let mut operations = vec![
            Operation::DepthwiseForm,
            Operation::MapPerceptron,
            Operation::SqueezeExcite,
            Operation::MapAttention,
        ];
        operations.extend(self.large.then_some(Operation::MapNorm));
        operations
    }

    /// Inputs and outputs of the last convolution.
    pub(super) fn last(&self) -> [usize; 2] {
        let width = self.stages[self.stages.len() - 1].width;
        [width, LAST_MULTIPLE * width]
    }
}

/// The network, without the projection into the joint space.
pub(super) struct FastVit<D: Device> {
    size: Size,
    stem: (D::Conv, D::Depthwise, D::Conv),
    stages: Vec<Stage<D>>,
    last: (D::Depthwise, SqueezeExcite<D>),
    features: usize,
}

struct Stage<D: Device> {
    /// Between stages.
    reduce: Option<Reduce<D>>,
    positions: Option<D::Depthwise>,
    blocks: Vec<Block<D>>,
}

/// From a stage's map to that of the next, of half the side.
struct Reduce<D: Device> {
    depthwise: D::Depthwise,
    squeeze_excite: Option<SqueezeExcite<D>>,
    point: D::Conv,
}

struct Block<D: Device> {
    mixer: Mixer<D>,
    perceptron: Perceptron<D>,
}

enum Mixer<D: Device> {
    /// With the residual in it.
    Convolution(D::Depthwise),
    Attention(Attention<D>),
}

pub(super) struct Attention<D: Device> {
    pub(super) norm: AttentionNorm<D>,
    pub(super) qkv: D::Conv,
    pub(super) out: D::Conv,
    pub(super) width: usize,
}

/// The norm before attention.
pub(super) enum AttentionNorm<D: Device> {
    /// Batch norm, in the weights of query, key and value.
    Folded,
    Layer(D::Norm),
}

/// A residual branch of a depthwise convolution and a perceptron.
pub(super) struct Perceptron<D: Device> {
    pub(super) depthwise: D::Depthwise,
    pub(super) fc1: D::Linear,
    pub(super) fc2: D::Linear,
}

pub(super) struct SqueezeExcite<D: Device> {
    pub(super) fc1: D::Linear,
    pub(super) fc2: D::Linear,
}

impl<D: Device> FastVit<D> {
    /// Takes the network's tensors.
    pub(super) fn load(loader: &Loader<'_, D>, arch: &FastVitArch) -> Result<Self> {
        let stem = |n: usize| format!("{TRUNK}stem.{n}");
        let first = arch.stages[0].width;
        let scaled: &[Branch] = if arch.large { &[Branch::Conv] } else { &[Branch::Conv, Branch::Scale] };
        let one = loader.mobile_one(&stem(0), [first, 3, SMALL], scaled)?;
        let two = loader.mobile_one(&stem(1), [first, 1, SMALL], scaled)?;
        let stem = (
            loader.dense(one, [3, SMALL, 2], Some(GELU))?,
            loader.depthwise(two, [first, SMALL, 2], Some(GELU))?,
            loader.point(&stem(2), [first, first])?,
        );
        let stage = |n: usize| Stage::load(loader, arch, n);
        let stages = (0..arch.stages.len()).map(stage).collect::<Result<Vec<_>>>()?;
        let [inputs, features] = arch.last();
        let name = format!("{TRUNK}final_conv");
        let last = loader.mobile_one(&name, [features, 1, SMALL], &[Branch::Conv, Branch::Scale])?;
        let last = (
            loader.depthwise(last, [inputs, SMALL, 1], None)?,
            loader.squeeze_excite(&format!("{name}.se"), [inputs, features])?,
        );
        let size = Size { height: arch.image_size, width: arch.image_size };
        Ok(Self { size, stem, stages, last, features })
    }
}

impl<D: Device> Stage<D> {
    fn load(loader: &Loader<'_, D>, arch: &FastVitArch, n: usize) -> Result<Self> {
        let &StageSizes { width, hidden, blocks } = &arch.stages[n];
        let prefix = format!("{TRUNK}stages.{n}");
        let reduce = match n.checked_sub(1) {
            None => None,
            Some(before) => {
                let (name, shape) = (format!("{prefix}.downsample.proj"), [arch.stages[before].width, width]);
                let squeezed = !arch.large && n >= SQUEEZED;
                let depthwise = format!("{name}.0");
                Some(Reduce {
                    // Squeeze and excitation comes before the activation, and has it.
                    depthwise: loader.reduce(&depthwise, shape, (!squeezed).then_some(GELU))?,
                    squeeze_excite: match squeezed {
                        true => Some(loader.squeeze_excite(&format!("{depthwise}.se"), shape)?),
                        false => None,
                    },
                    point: loader.point(&format!("{name}.1"), shape)?,
                })
            }
        };
        let attends = n >= ATTENTION;
        let block = |n: usize| -> Result<Block<D>> {
            let name = format!("{prefix}.blocks.{n}");
            let (mixer, layer_scale) = match attends {
                true => (Mixer::Attention(loader.attention(&name, width, arch.large)?), "layer_scale_2"),
                false => {
                    (Mixer::Convolution(loader.mixer(&format!("{name}.token_mixer"), width)?), "layer_scale")
                }
            };
            let layer_scale = format!("{name}.{layer_scale}");
            let perceptron = loader.perceptron(&format!("{name}.mlp"), &layer_scale, [width, hidden])?;
            Ok(Block { mixer, perceptron })
        };
        Ok(Self {
            reduce,
            positions: match attends {
                true => Some(loader.positions(&format!("{prefix}.pos_emb"), width)?),
                false => None,
            },
            blocks: (0..blocks).into_par_iter().map(block).collect::<Result<Vec<_>>>()?,
        })
    }

    /// Replaces the first of the buffers; the others hold anything.
    fn forward(&self, run: &mut D::Run<'_>, maps: &mut [D::Maps; 3]) {
        if let Some(Reduce { depthwise, squeeze_excite, point }) = &self.reduce {
            let [x, y, _] = maps;
            profile::time("depthwise", 0, || D::depthwise_into(run, depthwise, x, y));
            if let Some(SqueezeExcite { fc1, fc2 }) = squeeze_excite {
                profile::time("squeeze and excitation", 0, || D::squeeze_excite(run, [fc1, fc2], y, GELU));
            }
            profile::time("conv 1x1", 0, || D::conv_into(run, point, y, x));
        }
        if let Some(positions) = &self.positions {
            convolve::<D>(run, positions, maps);
        }
        self.blocks.iter().for_each(|block| block.forward(run, maps));
    }
}

/// Replaces the first of the buffers by its convolution.
fn convolve<D: Device>(run: &mut D::Run<'_>, conv: &D::Depthwise, [x, y, _]: &mut [D::Maps; 3]) {
    profile::time("depthwise", 0, || D::depthwise_into(run, conv, x, y));
    std::mem::swap(x, y);
}

impl<D: Device> Block<D> {
    fn forward(&self, run: &mut D::Run<'_>, maps: &mut [D::Maps; 3]) {
        match &self.mixer {
            Mixer::Convolution(conv) => convolve::<D>(run, conv, maps),
            Mixer::Attention(attention) => attention.forward(run, maps),
        }
        let [x, y, _] = maps;
        let Perceptron { depthwise, fc1, fc2 } = &self.perceptron;
        profile::time("depthwise", 0, || D::depthwise_into(run, depthwise, x, y));
        let layers = MapPerceptronLayers { norm: None, fc1, fc2, activation: GELU };
        profile::time("mlp", 0, || D::perceptron_map(run, layers, y, x));
    }
}

impl<D: Device> Attention<D> {
    /// Adds to the first of the buffers; the others hold anything.
    fn forward(&self, run: &mut D::Run<'_>, [x, y, z]: &mut [D::Maps; 3]) {
        match &self.norm {
            AttentionNorm::Folded => D::conv_into(run, &self.qkv, x, y),
            AttentionNorm::Layer(norm) => {
                D::norm_map(run, norm, x, z);
                D::conv_into(run, &self.qkv, z, y);
            }
        }
        // Its layers are convolutions, which are in 32 bits whatever the precision.
        let (heads, head_width, precision) = (self.width / HEAD_WIDTH, HEAD_WIDTH, Precision::F32);
        let shape = AttentionShape { heads, head_width, mask: Mask::None, precision };
        D::attend_map(run, shape, y, z);
        D::conv_add(run, &self.out, z, x);
    }
}

impl<D: Device> ImageNetwork<D> for FastVit<D> {
    fn width(&self) -> usize {
        self.features
    }

    fn forward(&self, run: &mut D::Run<'_>, images: D::Images<'_>) -> D::Rows {
        D::trunk(run, images, &|run, images, maps| {
            profile::time("stem", 0, || {
                let [x, y, _] = maps;
                D::conv_images(run, &self.stem.0, images, self.size, x);
                D::depthwise_into(run, &self.stem.1, x, y);
                D::conv_into(run, &self.stem.2, y, x);
            });
            self.stages.iter().for_each(|stage| stage.forward(run, maps));
            let [x, y, _] = maps;
            let (depthwise, SqueezeExcite { fc1, fc2 }) = &self.last;
            profile::time("last", 0, || {
                D::depthwise_into(run, depthwise, x, y);
                D::squeeze_excite(run, [fc1, fc2], y, GELU);
                D::mean_pool(run, y, x);
            });
        })
    }
}
