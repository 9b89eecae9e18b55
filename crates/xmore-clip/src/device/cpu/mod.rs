//! The processor: the layers of `nn`, over slices of 32-bit floats.

mod encoders;
mod grids;
mod inverted_residual;
mod map;
mod maps;
mod patches;
mod portions;
mod tokens;
mod trunks;

use std::ops::Range;
use std::sync::Arc;

use crate::checkpoint::Checkpoint;
use crate::error::{ClipError, Result};
use crate::nn::activation::{Activation, gate};
use crate::nn::attention::{Attention, Sequence, Strided, self_attention};
use crate::nn::conv::{Conv2d, DepthwiseConv2d, MapOutput, MapValues, Size, Window};
use crate::nn::gemm::Threads;
use crate::nn::linear::{Linear, Part};
use crate::nn::norm::{BatchNorm, LayerNorm};
use crate::nn::pool::{average_pool, pooled};
use crate::nn::precision::Precision;
use crate::nn::rotary::RotaryTable;
use crate::preprocess::Pixels;
use crate::profile;

use super::{
    AttentionLayers, AttentionShape, Device, InvertedResidual, MapPerceptronLayers, Operation,
    PatchEmbedding, PerceptronLayers, Portion, TokenEmbedding, Trunk, TrunkEnd, Wanted, bounds,
};

pub(crate) use encoders::normalize_rows;
pub(crate) use grids::GridEmbedding;
use map::Map;
pub(crate) use tokens::MappedTable;

/// The processor.
#[derive(Clone)]
pub(crate) struct Cpu(());

impl Cpu {
    /// # Errors
    /// [`ClipError::Precision`] if it does not compute in that precision.
    pub(crate) fn new(precision: Precision) -> Result<Self> {
        if precision.is_of_cpu() {
            return Ok(Self(()));
        }
        Err(ClipError::Precision {
            precision: precision.name(),
            device: "cpu".to_owned(),
            reason: "it computes in float32, bfloat16 and int8".to_owned(),
        })
    }
}

impl Device for Cpu {
    type Run<'r> = Threads;
    type Rows = Vec<f32>;
    type Maps = Map;
    type Linear = Linear;
    type Norm = LayerNorm;
    type Values = Vec<f32>;
    type TokenTable = MappedTable;
    type Conv = Conv2d;
    type Depthwise = DepthwiseConv2d;
    type Images<'i> = &'i [&'i Pixels];
    type Sequences = Vec<Range<usize>>;
    type LearnedQuery = Vec<f32>;
    type GridEmbedding = GridEmbedding;
    type Rotary = RotaryTable;

    fn require(&self, _: impl IntoIterator<Item = Operation>) -> Result<()> {
        Ok(())
    }

    fn linear(&self, parts: &[Part<'_>], inputs: usize, precision: Precision) -> Result<Linear> {
        Ok(Linear::fused(parts, inputs, precision))
    }

    fn norm(&self, weight: &[f32], bias: &[f32], epsilon: f32) -> Result<LayerNorm> {
        Ok(LayerNorm::new(weight, bias, epsilon))
    }

    fn values(&self, values: &[f32]) -> Result<Vec<f32>> {
        Ok(values.to_vec())
    }

    fn learned_query(&self, values: &[f32]) -> Result<Vec<f32>> {
        Ok(values.to_vec())
    }

    fn rotary(&self, table: RotaryTable) -> Result<RotaryTable> {
        Ok(table)
    }

    fn grid_embedding(&self, linear: Linear, positions: &[f32], side: usize) -> Result<GridEmbedding> {
        Ok(GridEmbedding::new(linear, positions, side))
    }

    fn token_table(
        &self,
        checkpoint: &Arc<Checkpoint>,
        name: &str,
        shape: [usize; 2],
    ) -> Result<MappedTable> {
        MappedTable::new(checkpoint, name, shape)
    }

    fn conv(
        &self,
        weight: &[f32],
        inputs: usize,
        window: Window,
        bn: BatchNorm,
        activation: Option<Activation>,
        precision: Precision,
    ) -> Result<Conv2d> {
        Ok(Conv2d::new(weight, inputs, window, bn, activation, precision))
    }

    fn depthwise(
        &self,
        weight: &[f32],
        inputs: usize,
        window: Window,
        bn: BatchNorm,
        activation: Option<Activation>,
    ) -> Result<DepthwiseConv2d> {
        Ok(DepthwiseConv2d::new(weight, inputs, window, bn, activation))
    }

    fn portions(
        threads: &mut Threads,
        precision: Precision,
        x: Vec<f32>,
        lengths: &[usize],
    ) -> Vec<Portion<Self>> {
        let ranges = match threads {
            Threads::One => portions::for_the_caches(lengths, precision.tokens_of_portion()),
            Threads::Pool => Vec::new(),
        };
        if ranges.len() < 2 {
            return vec![Portion { rows: x, sequences: 0..lengths.len() }];
        }
        let width = x.len() / lengths.iter().sum::<usize>();
        let mut rest = &x[..];
        let portion = |sequences: Range<usize>| {
            let (rows, others) = rest.split_at(lengths[sequences.clone()].iter().sum::<usize>() * width);
            rest = others;
            Portion { rows: rows.to_vec(), sequences }
        };
        ranges.into_iter().map(portion).collect()
    }

    fn joined(_: &mut Threads, mut portions: Vec<Vec<f32>>) -> Vec<f32> {
        if portions.len() == 1 { portions.remove(0) } else { portions.concat() }
    }

    /// Empty: what writes them gives them their length, and where an operation has a way without them they take no memory.
    fn rows(_: &mut Threads, _: usize, _: usize) -> Vec<f32> {
        Vec::new()
    }

    fn sequences(_: &mut Threads, lengths: &[usize]) -> Vec<Range<usize>> {
        bounds(lengths).windows(2).map(|ends| ends[0]..ends[1]).collect()
    }

    fn count(images: &[&Pixels]) -> usize {
        images.len()
    }

    fn embed_patches(threads: &mut Threads, layer: &PatchEmbedding<Self>, images: &[&Pixels]) -> Vec<f32> {
        patches::embed(layer, images, *threads)
    }

    fn embed_grids(
        threads: &mut Threads,
        layer: &GridEmbedding,
        images: &[&Pixels],
    ) -> (Vec<f32>, Vec<usize>) {
        layer.forward(images, *threads)
    }

    fn embed_tokens(
        _: &mut Threads,
        layer: &TokenEmbedding<Self>,
        texts: &[&[u32]],
        context: &[f32],
    ) -> Vec<f32> {
        tokens::embed(layer, texts, context)
    }

    fn norm_in_place(threads: &mut Threads, norm: &LayerNorm, x: &mut Vec<f32>) {
        norm.forward(x, *threads);
    }

    fn norm_linear(
        threads: &mut Threads,
        norm: &LayerNorm,
        linear: &Linear,
        x: &Vec<f32>,
        normed: &mut Vec<f32>,
        out: &mut Vec<f32>,
    ) {
        normed.resize(x.len(), 0.0);
        out.resize(x.len() / linear.inputs() * linear.outputs(), 0.0);
        profile::time("norm linear", 2 * x.len() * linear.outputs(), || {
            linear.forward_normed(norm, x, normed, out, *threads)
        });
    }

    fn linear_into(
        threads: &mut Threads,
        linear: &Linear,
        x: &Vec<f32>,
        out: &mut Vec<f32>,
        activation: Option<Activation>,
    ) {
        out.resize(x.len() / linear.inputs() * linear.outputs(), 0.0);
        linear.forward_into(x, out, activation, *threads);
    }

    fn linear_add(threads: &mut Threads, linear: &Linear, x: &Vec<f32>, out: &mut Vec<f32>) {
        profile::time("linear add", 2 * x.len() * linear.outputs(), || {
            linear.forward_add(x, out, None, *threads)
        });
    }

    fn linear_norm_add(
        threads: &mut Threads,
        linear: &Linear,
        norm: &LayerNorm,
        x: &Vec<f32>,
        out: &mut Vec<f32>,
    ) {
        let mut branch =
            profile::time("linear add", 2 * x.len() * linear.outputs(), || linear.forward(x, *threads));
        norm.forward(&mut branch, *threads);
        out.iter_mut().zip(&branch).for_each(|(out, branch)| *out += branch);
    }

    fn gate(threads: &mut Threads, width: usize, x: &Vec<f32>, out: &mut Vec<f32>) {
        out.resize(x.len() / 2, 0.0);
        profile::time("gate", 0, || gate(x, out, width, *threads));
    }

    fn perceptron(
        threads: &mut Threads,
        layer: PerceptronLayers<'_, Self>,
        x: &mut Vec<f32>,
        normed: &mut Vec<f32>,
        hidden: &mut Vec<f32>,
    ) {
        let PerceptronLayers { norm, fc1, fc2, activation } = layer;
        fc1.perceptron(norm, activation, fc2, x, [normed, hidden], *threads);
    }

    fn fused_attention(
        threads: &mut Threads,
        &AttentionLayers { norm, qkv, out, shape }: &AttentionLayers<'_, Self>,
        x: &mut Vec<f32>,
        sequences: &Vec<Range<usize>>,
    ) -> bool {
        qkv.attention(norm, shape, sequences, out, x, *threads)
    }

    fn rotate(
        threads: &mut Threads,
        rotary: &RotaryTable,
        heads: usize,
        x: &mut Vec<f32>,
        sequences: &Vec<Range<usize>>,
    ) {
        let width = x.len() / sequences.last().map_or(1, |range| range.end);
        rotary.rotate(x, width, heads, sequences, *threads);
    }

    fn self_attention(
        threads: &mut Threads,
        shape: AttentionShape,
        qkv: &Vec<f32>,
        sequences: &Vec<Range<usize>>,
        out: &mut Vec<f32>,
    ) {
        out.resize(qkv.len() / 3, 0.0);
        profile::time("attention", 0, || self_attention(qkv, shape, sequences, out, *threads));
    }

    fn query_attention(
        threads: &mut Threads,
        shape: AttentionShape,
        query: &Vec<f32>,
        key_value: &Vec<f32>,
        sequences: &Vec<Range<usize>>,
    ) -> Vec<f32> {
        let width = shape.width();
        let rows = |at: usize| Strided { data: key_value.get(at..).unwrap_or_default(), stride: 2 * width };
        let queries = Strided { data: query, stride: width };
        let AttentionShape { heads, head_width, mask, precision } = shape;
        let (keys, values) = (rows(0), rows(width));
        let attention = Attention { queries, keys, values, heads, head_width, causal: false, precision };
        let all: Vec<_> = sequences
            .iter()
            .enumerate()
            .map(|(n, keys)| Sequence { queries: n..n + 1, keys: mask.keys(keys) })
            .collect();
        let mut out = vec![0.0; query.len()];
        profile::time("attention", 0, || attention.forward(&all, &mut out, *threads));
        out
    }

    fn pick(
        _: &mut Threads,
        x: &Vec<f32>,
        sequences: &Vec<Range<usize>>,
        wanted: Wanted,
        places: &[usize],
    ) -> Vec<f32> {
        let width = x.len() / sequences.last().map_or(1, |range| range.end);
        let rows = sequences.iter().enumerate().map(|(n, range)| match wanted {
            Wanted::First => range.start,
            Wanted::Last => range.end - 1,
            Wanted::Anywhere => range.start + places[n],
        });
        rows.flat_map(|row| &x[row * width..(row + 1) * width]).copied().collect()
    }

    fn unit_means(threads: &mut Threads, x: &Vec<f32>, sequences: &Vec<Range<usize>>) -> Vec<f32> {
        let mut pooled = Self::means(threads, x, sequences, 0);
        normalize_rows(&mut pooled, x.len() / sequences.last().map_or(1, |range| range.end));
        pooled
    }

    fn repeat(_: &mut Threads, query: &Vec<f32>, count: usize) -> Vec<f32> {
        query.repeat(count)
    }

    fn means(_: &mut Threads, x: &Vec<f32>, sequences: &Vec<Range<usize>>, skipped: usize) -> Vec<f32> {
        let width = x.len() / sequences.last().map_or(1, |range| range.end);
        let mut means = vec![0.0f32; sequences.len() * width];
        for (sequence, out) in sequences.iter().zip(means.chunks_exact_mut(width)) {
            mean(&x[(sequence.start + skipped) * width..sequence.end * width], out);
        }
        means
    }

    fn trunk(threads: &mut Threads, images: &[&Pixels], trunk: &Trunk<'_, Self>) -> Vec<f32> {
        trunks::run(threads, images, trunk)
    }

    fn trunk_with_end(
        threads: &mut Threads,
        images: &[&Pixels],
        trunk: &Trunk<'_, Self>,
        end: &TrunkEnd<'_, Self>,
    ) -> Vec<f32> {
        trunks::run_with_end(threads, images, trunk, end)
    }

    fn conv_images(threads: &mut Threads, conv: &Conv2d, images: &[&Pixels], size: Size, out: &mut Map) {
        let to = out.output(1, conv.output(size), conv.outputs(), false);
        conv.forward_into(MapValues::Floats(images[0].as_slice()), size, to, *threads);
    }

    fn conv_into(threads: &mut Threads, conv: &Conv2d, x: &Map, out: &mut Map) {
        let to = out.output(x.images(), conv.output(x.size()), conv.outputs(), false);
        conv.forward_into(x.values(), x.size(), to, *threads);
    }

    fn conv_for_conv(threads: &mut Threads, conv: &Conv2d, x: &Map, out: &mut Map) {
        let to = out.output(x.images(), conv.output(x.size()), conv.outputs(), conv.writes_bf16());
        conv.forward_into(x.values(), x.size(), to, *threads);
    }

    fn conv_add(threads: &mut Threads, conv: &Conv2d, x: &Map, out: &mut Map) {
        let out = MapOutput::Floats { data: out.floats_mut(), add: true };
        conv.forward_into(x.values(), x.size(), out, *threads);
    }

    /// Some positions at a time go through both layers, so that what is between them is still in a cache.
    fn conv_add_for_conv(
        threads: &mut Threads,
        conv: &Conv2d,
        x: &Map,
        out: &mut Map,
        next: &Conv2d,
        next_out: &mut Map,
    ) {
        let positions = out.images() * out.size().area();
        let parts = positions.div_ceil(maps::POSITIONS);
        let together = match threads {
            Threads::One => parts > 1,
            // Where there are too few parts for all threads, they share out the weights.
            Threads::Pool => parts >= 2 * rayon::current_num_threads(),
        };
        if !together {
            Self::conv_add(threads, conv, x, out);
            return Self::conv_for_conv(threads, next, out, next_out);
        }
        let next_out = next_out.output(out.images(), out.size(), next.outputs(), next.writes_bf16());
        maps::two_points(x.values(), conv, out.floats_mut(), next, next_out, [positions, parts], *threads);
    }

    fn depthwise_into(threads: &mut Threads, conv: &DepthwiseConv2d, x: &Map, out: &mut Map) {
        out.write_by(x.images(), |out| conv.forward(x.floats(), x.size(), out, *threads));
    }

    fn inverted_residual(
        threads: &mut Threads,
        block: InvertedResidual<'_, Self>,
        x: &mut Map,
        [out, _]: [&mut Map; 2],
    ) {
        out.write_by(x.images(), |out| {
            inverted_residual::forward(&block, x.floats(), x.size(), out, *threads)
        });
        std::mem::swap(x, out);
    }

    fn average_pool(threads: &mut Threads, x: &Map, side: usize, out: &mut Map) {
        let to = out.write(x.images(), pooled(x.size(), side), x.channels());
        average_pool(x.floats(), x.size(), x.channels(), side, to, *threads);
    }

    fn mean_pool(_: &mut Threads, x: &Map, out: &mut Map) {
        let channels = x.channels();
        let means = out.write(x.images(), Size { height: 1, width: 1 }, channels);
        for (map, to) in
            x.floats().chunks_exact(x.size().area() * channels).zip(means.chunks_exact_mut(channels))
        {
            mean(map, to);
        }
    }

    fn prepend_means(_: &mut Threads, x: &Vec<f32>, positions: usize, learned: &Vec<f32>) -> Vec<f32> {
        let width = learned.len() / (positions + 1);
        let mut all = Vec::with_capacity(x.len() / positions * (positions + 1));
        for image in x.chunks_exact(positions * width) {
            let start = all.len();
            all.resize(start + width, 0.0f32);
            mean(image, &mut all[start..]);
            all.extend_from_slice(image);
            all[start..].iter_mut().zip(learned).for_each(|(v, p)| *v += p);
        }
        all
    }

    fn prepend_class(_: &mut Threads, x: &Vec<f32>, class: &Vec<f32>, learned: &Vec<f32>) -> Vec<f32> {
        let mut all = Vec::with_capacity(x.len() + x.len() / learned.len() * class.len());
        for image in x.chunks_exact(learned.len()) {
            all.extend_from_slice(class);
            all.extend(image.iter().zip(learned).map(|(v, p)| v + p));
        }
        all
    }

    fn norm_map(threads: &mut Threads, norm: &LayerNorm, x: &Map, out: &mut Map) {
        let to = out.write(x.images(), x.size(), x.channels());
        norm.forward_into(x.floats(), to, *threads);
    }

    fn perceptron_map(threads: &mut Threads, layer: MapPerceptronLayers<'_, Self>, x: &Map, out: &mut Map) {
        maps::perceptron(&layer, x.floats(), out.floats_mut(), *threads);
    }

    fn squeeze_excite(threads: &mut Threads, layers: [&Linear; 2], x: &mut Map, activation: Activation) {
        maps::squeeze_excite(layers, x.floats_mut(), activation, *threads);
    }

    fn attend_map(threads: &mut Threads, shape: AttentionShape, qkv: &Map, out: &mut Map) {
        let positions = 0..qkv.size().area();
        let to = out.write(qkv.images(), qkv.size(), qkv.channels() / 3);
        profile::time("attention", 0, || self_attention(qkv.floats(), shape, &[positions], to, *threads));
    }
}

/// Writes the mean over all rows of `x`, `[rows, out.len()]`, to `out`.
fn mean(x: &[f32], out: &mut [f32]) {
    out.fill(0.0);
    for row in x.chunks_exact(out.len()) {
        out.iter_mut().zip(row).for_each(|(o, r)| *o += r);
    }
    let rows = (x.len() / out.len()) as f32;
    out.iter_mut().for_each(|o| *o /= rows);
}
