//! CLIP's ResNet: three stem convolutions, average pooling before each stride, and attention instead of a final mean.
//!
//! Reference: OpenAI's `ModifiedResNet`. Of the attention pooling only the mean token's query is wanted and computed.

use rayon::prelude::*;

use crate::arch::ImageTower;
use crate::error::Result;
use crate::nn::activation::Activation;
use crate::nn::attention::{Attention, Sequence, Strided};
use crate::nn::conv::{Conv2d, Padding, Size, Window};
use crate::nn::gemm::Threads;
use crate::nn::linear::{Linear, Part, query_scale};
use crate::nn::norm::BatchNorm;
use crate::nn::pool::average_pool;
use crate::nn::precision::Precision;
use crate::nn::thread_buffers::with_buffers;
use crate::profile;

use super::config::ResNetArch;
use super::weights::Weights;

/// `BatchNorm2d`'s default epsilon.
const EPSILON: f32 = 1e-5;
/// Images whose attention pooling, a quarter of the weights, one thread had best do together.
const IMAGES_PER_PASS: usize = 4;
const KERNEL_3: Window = Window { kernel: 3, stride: 1, padding: Padding::Around(1) };

/// The network, with its projection into the joint space, which is the attention pooling's last layer.
pub(crate) struct ResNet {
    size: Size,
    stem: [Conv2d; 3],
    blocks: Vec<Bottleneck>,
    pool: AttentionPool,
}

struct Bottleneck {
    narrow: Conv2d,
    middle: Conv2d,
    wide: Conv2d,
    downsample: Option<Conv2d>,
    stride: usize,
}

struct AttentionPool {
    /// `[1 + positions, width]`.
    positions: Vec<f32>,
    query: Linear,
    key_value: Linear,
    out: Linear,
    heads: usize,
}

impl ResNet {
    /// Takes the network's tensors; `arch` must have been checked.
    pub(crate) fn load(weights: &Weights<'_>, arch: &ResNetArch, dim: usize) -> Result<Self> {
        let (half, relu) = (arch.width / 2, Some(Activation::Relu));
        let stem = [
            conv(weights, "visual", 1, [half, 3], Window { stride: 2, ..KERNEL_3 }, relu)?,
            conv(weights, "visual", 2, [half, half], KERNEL_3, relu)?,
            conv(weights, "visual", 3, [arch.width, half], KERNEL_3, relu)?,
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
            Bottleneck::load(weights, prefix, [*inputs, *width], *stride)
        });
        let blocks = blocks.collect::<Result<Vec<_>>>()?;
        let size = Size { height: arch.image_size, width: arch.image_size };
        Ok(Self { size, stem, blocks, pool: AttentionPool::load(weights, arch, dim)? })
    }

    /// The last stage's output, `[positions, width]`.
    fn trunk(&self, pixels: &[f32], threads: Threads) -> Vec<f32> {
        with_buffers(|[x, y, z]| {
            let mut size = profile::time("stem", 0, || {
                let size = self.stem[0].forward(pixels, self.size, x, threads);
                let size = self.stem[1].forward(x, size, y, threads);
                let size = self.stem[2].forward(y, size, z, threads);
                average_pool(z, size, 2, x, threads)
            });
            for block in &self.blocks {
                size = block.forward(x, size, y, z, threads);
            }
            x.clone()
        })
    }
}

impl Bottleneck {
    fn load(weights: &Weights<'_>, prefix: &str, [inputs, width]: [usize; 2], stride: usize) -> Result<Self> {
        let (relu, outputs) = (Some(Activation::Relu), width * 4);
        let downsample = if stride > 1 || inputs != outputs {
            let kernel =
                weights.tensor(&format!("{prefix}.downsample.0.weight"), &[outputs, inputs, 1, 1])?;
            let bn = weights.name(&format!("{prefix}.downsample.1."));
            let bn = BatchNorm::load(weights.checkpoint, &bn, outputs, EPSILON)?;
            Some(Conv2d::new(&kernel, inputs, Window::POINT, bn, None))
        } else {
            None
        };
        Ok(Self {
            narrow: conv(weights, prefix, 1, [width, inputs], Window::POINT, relu)?,
            middle: conv(weights, prefix, 2, [width, width], KERNEL_3, relu)?,
            // The activation follows the residual, which `forward_add` adds first.
            wide: conv(weights, prefix, 3, [outputs, width], Window::POINT, relu)?,
            downsample,
            stride,
        })
    }

    /// Replaces `x`; `y` and `z` are buffers.
    fn forward(
        &self,
        x: &mut Vec<f32>,
        size: Size,
        y: &mut Vec<f32>,
        z: &mut Vec<f32>,
        threads: Threads,
    ) -> Size {
        let mut to = size;
        profile::time("conv 1x1", 0, || self.narrow.forward(x, size, y, threads));
        profile::time("conv 3x3", 0, || self.middle.forward(y, size, z, threads));
        if self.stride > 1 {
            profile::time("pool", 0, || {
                to = average_pool(z, size, self.stride, y, threads);
                std::mem::swap(y, z);
            });
        }
        profile::time("conv 1x1", 0, || {
            if let Some(downsample) = &self.downsample {
                if self.stride > 1 {
                    average_pool(x, size, self.stride, y, threads);
                    downsample.forward(y, to, x, threads);
                } else {
                    downsample.forward(x, to, y, threads);
                    std::mem::swap(x, y);
                }
            }
            self.wide.forward_add(z, x, threads);
        });
        to
    }
}

impl AttentionPool {
    fn load(weights: &Weights<'_>, arch: &ResNetArch, dim: usize) -> Result<Self> {
        let width = arch.width * 32;
        let tokens = (arch.image_size / 32).pow(2) + 1;
        let part = |name: &str, outputs: usize| {
            let weight = weights.tensor(&format!("visual.attnpool.{name}_proj.weight"), &[outputs, width])?;
            Ok((weight, weights.tensor(&format!("visual.attnpool.{name}_proj.bias"), &[outputs])?))
        };
        let [(qw, qb), (kw, kb), (vw, vb)] = [part("q", width)?, part("k", width)?, part("v", width)?];
        let (cw, cb) = part("c", dim)?;
        let query = Part { weight: &qw, bias: Some(&qb), scale: query_scale(width / arch.heads) };
        let key = Part { weight: &kw, bias: Some(&kb), scale: 1.0 };
        let value = Part { weight: &vw, bias: Some(&vb), scale: 1.0 };
        Ok(Self {
            positions: weights.tensor("visual.attnpool.positional_embedding", &[tokens, width])?.into_owned(),
            query: Linear::fused(&[query], width, Precision::F32),
            key_value: Linear::fused(&[key, value], width, Precision::F32),
            out: Linear::new(&cw, dim, width, Some(cb.into_owned())),
            heads: arch.heads,
        })
    }

    /// `x` is `[positions, width]` of each image; returns `[images, dim]`.
    fn forward(&self, images: &[Vec<f32>], threads: Threads) -> Vec<f32> {
        let width = self.query.inputs();
        let tokens = self.positions.len() / width;
        let mut all = Vec::with_capacity(images.len() * tokens * width);
        for x in images {
            let start = all.len();
            all.resize(start + width, 0.0f32);
            for row in x.chunks_exact(width) {
                all[start..].iter_mut().zip(row).for_each(|(mean, v)| *mean += v);
            }
            all[start..].iter_mut().for_each(|mean| *mean /= (tokens - 1) as f32);
            all.extend_from_slice(x);
            all[start..].iter_mut().zip(&self.positions).for_each(|(v, p)| *v += p);
        }
        let means: Vec<f32> = all.chunks_exact(tokens * width).flat_map(|x| &x[..width]).copied().collect();
        let query = self.query.forward(&means, threads);
        let key_value = self.key_value.forward(&all, threads);
        let rows = |at: usize| Strided { data: &key_value[at..], stride: 2 * width };
        let attention = Attention {
            queries: Strided { data: &query, stride: width },
            keys: rows(0),
            values: rows(width),
            heads: self.heads,
            head_width: width / self.heads,
            causal: false,
        };
        let image = |n: usize| Sequence { queries: n..n + 1, keys: n * tokens..(n + 1) * tokens };
        let sequences: Vec<_> = (0..images.len()).map(image).collect();
        let mut attended = means;
        attention.forward(&sequences, &mut attended, threads);
        self.out.forward(&attended, threads)
    }
}

impl ImageTower for ResNet {
    fn width(&self) -> usize {
        self.pool.out.outputs()
    }

    fn images_per_pass(&self) -> usize {
        IMAGES_PER_PASS
    }

    fn forward(&self, images: &[&[f32]], threads: Threads) -> Vec<f32> {
        let trunks: Vec<_> = images.iter().map(|pixels| self.trunk(pixels, threads)).collect();
        profile::time("attention pool", 0, || self.pool.forward(&trunks, threads))
    }
}

/// `{prefix}.conv{n}` with `{prefix}.bn{n}` folded in.
fn conv(
    weights: &Weights<'_>,
    prefix: &str,
    n: usize,
    [outputs, inputs]: [usize; 2],
    window: Window,
    activation: Option<Activation>,
) -> Result<Conv2d> {
    let shape = [outputs, inputs, window.kernel, window.kernel];
    let kernel = weights.tensor(&format!("{prefix}.conv{n}.weight"), &shape)?;
    let bn =
        BatchNorm::load(weights.checkpoint, &weights.name(&format!("{prefix}.bn{n}.")), outputs, EPSILON)?;
    Ok(Conv2d::new(&kernel, inputs, window, bn, activation))
}
