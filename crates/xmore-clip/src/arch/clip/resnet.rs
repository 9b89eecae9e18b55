//! CLIP's ResNet: three stem convolutions, average pooling before each stride, and attention instead of a final mean.
//!
//! Reference: OpenAI's `ModifiedResNet`. Of the attention pooling only the mean token's query is wanted and computed.

use rayon::prelude::*;

use crate::checkpoint::{Checkpoint, WeightAndBias};
use crate::device::{AttentionShape, Device, ImageNetwork, Mask, Trunk, Wanted};
use crate::error::Result;
use crate::nn::activation::Activation;
use crate::nn::conv::{Padding, Size, Window};
use crate::nn::linear::{Part, query_scale};
use crate::nn::norm::BatchNorm;
use crate::nn::precision::Precision;
use crate::profile;

use super::config::ResNetArch;

/// `BatchNorm2d`'s default epsilon.
const EPSILON: f32 = 1e-5;
/// Images whose attention pooling, a quarter of the weights, one thread had best do together.
const IMAGES_PER_PASS: usize = 4;
const KERNEL_3: Window = Window { kernel: 3, stride: 1, padding: Padding::Around(1) };

/// The network, with its projection into the joint space, which is the attention pooling's last layer.
pub(crate) struct ResNet<D: Device> {
    size: Size,
    stem: [D::Conv; 3],
    blocks: Vec<Bottleneck<D>>,
    /// Blocks that are run on one image after the other; those of the last stage have the smallest maps and two thirds of the weights.
    image_blocks: usize,
    pool: AttentionPool<D>,
}

struct Bottleneck<D: Device> {
    narrow: D::Conv,
    middle: D::Conv,
    wide: D::Conv,
    downsample: Option<D::Conv>,
    stride: usize,
}

struct AttentionPool<D: Device> {
    /// Positions of the last stage.
    positions: usize,
    /// `[1 + positions, inputs]`.
    learned: D::Values,
    query: D::Linear,
    key_value: D::Linear,
    out: D::Linear,
    /// Length of a position's row.
    inputs: usize,
    heads: usize,
    dim: usize,
}

impl<D: Device> ResNet<D> {
    /// Takes the network's tensors; `arch` must have been checked.
    pub(crate) fn load(
        device: &D,
        checkpoint: &Checkpoint,
        arch: &ResNetArch,
        dim: usize,
        precision: Precision,
    ) -> Result<Self> {
        let half = arch.width / 2;
        let source = &Source { device, checkpoint, precision };
        let conv = |n, shape, window| source.conv("visual", n, shape, window);
        let stem = [
            conv(1, [half, 3], Window { stride: 2, ..KERNEL_3 })?,
            conv(2, [half, half], KERNEL_3)?,
            conv(3, [arch.width, half], KERNEL_3)?,
        ];
        let mut places = Vec::new();
        let mut inputs = arch.width;
        for (stage, &count) in arch.layers.iter().enumerate() {
            for n in 0..count {
                let width = arch.width << stage;
                let stride = if stage > 0 && n == 0 { 2 } else { 1 };
                places.push((format!("visual.layer{}.{n}", stage + 1), inputs, width, stride));
                inputs = width * 4;
            }
        }
        let blocks = places.par_iter().map(|(prefix, inputs, width, stride)| {
            Bottleneck::load(source, prefix, [*inputs, *width], *stride)
        });
        let blocks = blocks.collect::<Result<Vec<_>>>()?;
        let size = Size { height: arch.image_size, width: arch.image_size };
        let image_blocks = arch.layers[..3].iter().sum();
        Ok(Self { size, stem, blocks, image_blocks, pool: AttentionPool::load(source, arch, dim)? })
    }
}

impl<D: Device> Bottleneck<D> {
    fn load(
        source: &Source<'_, D>,
        prefix: &str,
        [inputs, width]: [usize; 2],
        stride: usize,
    ) -> Result<Self> {
        let outputs = width * 4;
        let downsample = if stride > 1 || inputs != outputs {
            let names = [format!("{prefix}.downsample.0"), format!("{prefix}.downsample.1")];
            Some(source.conv_of_names(names, [outputs, inputs], Window::POINT, None)?)
        } else {
            None
        };
        let conv = |n, shape, window| source.conv(prefix, n, shape, window);
        Ok(Self {
            narrow: conv(1, [width, inputs], Window::POINT)?,
            middle: conv(2, [width, width], KERNEL_3)?,
            // The activation follows the residual, which `conv_add` adds first.
            wide: conv(3, [outputs, width], Window::POINT)?,
            downsample,
            stride,
        })
    }

    /// Blocks one after the other: the first of the buffers is replaced, the others hold anything.
    fn run_all(blocks: &[Self], run: &mut D::Run<'_>, maps: &mut [D::Maps; 3]) {
        if let ([first, ..], [x, y, _]) = (blocks, &mut *maps) {
            profile::time("conv 1x1", 0, || D::conv_for_conv(run, &first.narrow, x, y));
        }
        for (n, block) in blocks.iter().enumerate() {
            block.forward(run, maps, blocks.get(n + 1));
        }
    }

    /// The second buffer holds what the block's first layer makes of the first one; afterwards what that of the next block does.
    fn forward(&self, run: &mut D::Run<'_>, [x, y, z]: &mut [D::Maps; 3], next: Option<&Self>) {
        if self.stride == 1 {
            profile::time("conv 3x3", 0, || D::conv_for_conv(run, &self.middle, y, z));
        } else {
            profile::time("conv 3x3", 0, || D::conv_into(run, &self.middle, y, z));
            profile::time("pool", 0, || {
                D::average_pool(run, z, self.stride, y);
                std::mem::swap(y, z);
            });
        }
        profile::time("conv 1x1", 0, || {
            if let Some(downsample) = &self.downsample {
                if self.stride > 1 {
                    D::average_pool(run, x, self.stride, y);
                    D::conv_into(run, downsample, y, x);
                } else {
                    D::conv_into(run, downsample, x, y);
                    std::mem::swap(x, y);
                }
            }
            match next {
                Some(next) => D::conv_add_for_conv(run, &self.wide, z, x, &next.narrow, y),
                None => D::conv_add(run, &self.wide, z, x),
            }
        });
    }
}

impl<D: Device> AttentionPool<D> {
    fn load(source: &Source<'_, D>, arch: &ResNetArch, dim: usize) -> Result<Self> {
        let &Source { device, checkpoint, precision } = source;
        let width = arch.width * 32;
        let positions = (arch.image_size / 32).pow(2);
        let part = |name: &str, outputs: usize| -> Result<WeightAndBias<'_>> {
            let weight =
                checkpoint.tensor(&format!("visual.attnpool.{name}_proj.weight"), &[outputs, width])?;
            let bias = checkpoint.tensor(&format!("visual.attnpool.{name}_proj.bias"), &[outputs])?;
            Ok((weight, bias))
        };
        let [(qw, qb), (kw, kb), (vw, vb)] = [part("q", width)?, part("k", width)?, part("v", width)?];
        let (cw, cb) = part("c", dim)?;
        let query = Part { weight: &qw, bias: Some(&qb), scale: query_scale(width / arch.heads) };
        let key = Part { weight: &kw, bias: Some(&kb), scale: 1.0 };
        let value = Part { weight: &vw, bias: Some(&vb), scale: 1.0 };
        let out = Part { weight: &cw, bias: Some(&cb), scale: 1.0 };
        let learned = checkpoint.tensor("visual.attnpool.positional_embedding", &[positions + 1, width])?;
        let linear = |parts: &[Part<'_>]| device.linear(parts, width, precision);
        Ok(Self {
            positions,
            learned: device.values(&learned)?,
            query: linear(&[query])?,
            key_value: linear(&[key, value])?,
            out: linear(&[out])?,
            inputs: width,
            heads: arch.heads,
            dim,
        })
    }

    /// `x` is `[positions, inputs]` of each image; returns `[images, dim]`.
    fn forward(&self, run: &mut D::Run<'_>, images: usize, x: &D::Rows) -> D::Rows {
        let tokens = D::prepend_means(run, x, self.positions, &self.learned);
        let sequences = D::sequences(run, &vec![self.positions + 1; images]);
        let means = D::pick(run, &tokens, &sequences, Wanted::First, &[]);
        let mut query = D::rows(run, images, self.inputs);
        D::linear_into(run, &self.query, &means, &mut query, None);
        let mut key_value = D::rows(run, images * (self.positions + 1), 2 * self.inputs);
        D::linear_into(run, &self.key_value, &tokens, &mut key_value, None);
        let (heads, head_width, precision) = (self.heads, self.inputs / self.heads, Precision::F32);
        let shape = AttentionShape { heads, head_width, mask: Mask::None, precision };
        let attended = D::query_attention(run, shape, &query, &key_value, &sequences);
        let mut out = D::rows(run, images, self.dim);
        D::linear_into(run, &self.out, &attended, &mut out, None);
        out
    }
}

impl<D: Device> ImageNetwork<D> for ResNet<D> {
    fn width(&self) -> usize {
        self.pool.dim
    }

    fn images_per_pass(&self) -> usize {
        IMAGES_PER_PASS
    }

    fn forward(&self, run: &mut D::Run<'_>, images: D::Images<'_>) -> D::Rows {
        let (first, last) = self.blocks.split_at(self.image_blocks);
        let start: &Trunk<'_, D> = &|run, images, maps| {
            profile::time("stem", 0, || {
                let [x, y, z] = maps;
                D::conv_images(run, &self.stem[0], images, self.size, x);
                D::conv_for_conv(run, &self.stem[1], x, y);
                D::conv_into(run, &self.stem[2], y, z);
                D::average_pool(run, z, 2, x);
            });
            Bottleneck::run_all(first, run, maps);
        };
        let trunk = D::trunk_with_end(run, images, start, &|run, maps| {
            Bottleneck::run_all(last, run, maps);
        });
        profile::time("attention pool", 0, || self.pool.forward(run, D::count(images), &trunk))
    }
}

/// The checkpoint that layers are read from, and the device and the precision that they are made for.
struct Source<'a, D> {
    device: &'a D,
    checkpoint: &'a Checkpoint,
    precision: Precision,
}

impl<D: Device> Source<'_, D> {
    /// `{prefix}.conv{n}` with `{prefix}.bn{n}` folded in, and ReLU.
    fn conv(&self, prefix: &str, n: usize, shape: [usize; 2], window: Window) -> Result<D::Conv> {
        let names = [format!("{prefix}.conv{n}"), format!("{prefix}.bn{n}")];
        self.conv_of_names(names, shape, window, Some(Activation::Relu))
    }

    /// A convolution, `[outputs, inputs]`, and the batch normalization that is folded in.
    fn conv_of_names(
        &self,
        [conv, bn]: [String; 2],
        [outputs, inputs]: [usize; 2],
        window: Window,
        activation: Option<Activation>,
    ) -> Result<D::Conv> {
        let shape = [outputs, inputs, window.kernel, window.kernel];
        let kernel = self.checkpoint.tensor(&format!("{conv}.weight"), &shape)?;
        let bn = BatchNorm::load(self.checkpoint, &format!("{bn}."), outputs, EPSILON)?;
        self.device.conv(&kernel, inputs, window, bn, activation, self.precision)
    }
}
