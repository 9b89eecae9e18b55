//! A transformer of images or texts: pre-norm residual blocks, as CLIP and its successors have them.
//!
//! Reference: OpenAI's `ResidualAttentionBlock`. Where only one token of each sequence is wanted of the last block (the class token, or the end of
//! the text), only its query, its output and its perceptron are computed; on the processor the numbers are the same to the bit.

use rayon::prelude::*;

use crate::checkpoint::WeightAndBias;
use crate::device::{AttentionShape, Device, Operation, PerceptronLayers, Wanted};
use crate::error::Result;
use crate::nn::activation::Activation;
use crate::nn::linear::{Part, qkv_parts};
use crate::nn::precision::Precision;

/// The norms of a block, by what follows them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BlockNorm {
    Attention,
    Perceptron,
}

/// The linear layers of a block, without those of query, key and value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BlockLinear {
    AttentionOut,
    PerceptronIn,
    PerceptronOut,
}

/// A checkpoint's tensors of the blocks, under the names that an architecture gives them.
pub(crate) trait BlockWeights: Sync {
    /// A norm of block `n`, `[width]` each.
    fn norm(&self, n: usize, norm: BlockNorm, width: usize) -> Result<WeightAndBias<'_>>;

    /// A layer of block `n`, of shape `[outputs, inputs]` and `[outputs]`.
    fn linear(&self, n: usize, layer: BlockLinear, shape: [usize; 2]) -> Result<WeightAndBias<'_>>;

    /// Query, key and value of block `n`, `[width, width]` and `[width]` each.
    fn qkv(&self, n: usize, width: usize) -> Result<[WeightAndBias<'_>; 3]>;

    /// How linear layers are kept.
    fn precision(&self) -> Precision;
}

/// Sizes of a transformer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TransformerSizes {
    pub(crate) width: usize,
    pub(crate) heads: usize,
    pub(crate) layers: usize,
    /// Width inside the perceptrons.
    pub(crate) mlp_width: usize,
}

/// The blocks.
pub(crate) struct Transformer<D: Device> {
    sizes: TransformerSizes,
    causal: bool,
    blocks: Vec<Block<D>>,
    /// The last block, where one token of it is wanted.
    last: Option<(LastBlock<D>, Wanted)>,
}

struct Block<D: Device> {
    qkv: D::Linear,
    rest: BlockRest<D>,
}

/// The block of which one token is wanted.
struct LastBlock<D: Device> {
    query: D::Linear,
    key_value: D::Linear,
    rest: BlockRest<D>,
}

struct BlockRest<D: Device> {
    norm_1: D::Norm,
    out: D::Linear,
    norm_2: D::Norm,
    fc1: D::Linear,
    fc2: D::Linear,
    activation: Activation,
}

impl<D: Device> Transformer<D> {
    /// Takes the blocks' tensors; `sizes` must have been checked. `wanted` is the token of each sequence that is wanted of the last block; none
    /// where all are.
    pub(crate) fn load(
        device: &D,
        weights: &impl BlockWeights,
        sizes: TransformerSizes,
        activation: Activation,
        epsilon: f32,
        causal: bool,
        wanted: Option<Wanted>,
    ) -> Result<Self> {
        device.require(Operation::of_activation(activation))?;
        let TransformerSizes { width, heads, layers, mlp_width } = sizes;
        let precision = weights.precision();
        let norm = |n: usize, norm: BlockNorm| {
            let (weight, bias) = weights.norm(n, norm, width)?;
            device.norm(&weight, &bias, epsilon)
        };
        let linear = |n: usize, layer: BlockLinear, shape: [usize; 2]| {
            let (weight, bias) = weights.linear(n, layer, shape)?;
            device.linear(&[Part { weight: &weight, bias: Some(&bias), scale: 1.0 }], shape[1], precision)
        };
        let rest = |n: usize| -> Result<BlockRest<D>> {
            Ok(BlockRest {
                norm_1: norm(n, BlockNorm::Attention)?,
                out: linear(n, BlockLinear::AttentionOut, [width, width])?,
                norm_2: norm(n, BlockNorm::Perceptron)?,
                fc1: linear(n, BlockLinear::PerceptronIn, [mlp_width, width])?,
                fc2: linear(n, BlockLinear::PerceptronOut, [width, mlp_width])?,
                activation,
            })
        };
        // Blocks are packed in parallel: packing is most of the time to the first embedding.
        let block = |n: usize| -> Result<Block<D>> {
            let qkv = weights.qkv(n, width)?;
            Ok(Block {
                qkv: device.linear(&qkv_parts(&qkv, width / heads), width, precision)?,
                rest: rest(n)?,
            })
        };
        let whole = layers - usize::from(wanted.is_some());
        let blocks = (0..whole).into_par_iter().map(block).collect::<Result<Vec<_>>>()?;
        let last = |wanted: Wanted| -> Result<_> {
            let qkv = weights.qkv(layers - 1, width)?;
            let [query, key, value] = qkv_parts(&qkv, width / heads);
            let last = LastBlock {
                query: device.linear(&[query], width, precision)?,
                key_value: device.linear(&[key, value], width, precision)?,
                rest: rest(layers - 1)?,
            };
            Ok((last, wanted))
        };
        let last = wanted.map(last).transpose()?;
        Ok(Self { sizes, causal, blocks, last })
    }

    fn shape(&self) -> AttentionShape {
        let TransformerSizes { width, heads, .. } = self.sizes;
        AttentionShape { heads, head_width: width / heads, causal: self.causal }
    }

    /// Runs all blocks over `x`, `[tokens, width]`. Returns the wanted row of each sequence, `[sequences, width]`, or all rows where all are wanted.
    pub(crate) fn forward(&self, run: &mut D::Run<'_>, x: D::Rows, lengths: &[usize]) -> D::Rows {
        self.forward_wanted(run, x, lengths, &[])
    }

    /// The same with the wanted token's place in each sequence, for [`Wanted::Anywhere`].
    ///
    /// Of a causal transformer that must be the last one.
    pub(crate) fn forward_wanted(
        &self,
        run: &mut D::Run<'_>,
        mut x: D::Rows,
        lengths: &[usize],
        places: &[usize],
    ) -> D::Rows {
        let TransformerSizes { width, mlp_width, .. } = self.sizes;
        let tokens = lengths.iter().sum();
        let sequences = D::sequences(run, lengths);
        let (mut normed, mut qkv) = (D::rows(run, tokens, width), D::rows(run, tokens, 3 * width));
        let mut hidden = D::rows(run, tokens, mlp_width);
        for Block { qkv: linear, rest } in &self.blocks {
            D::norm_linear(run, &rest.norm_1, linear, &x, &mut normed, &mut qkv);
            D::self_attention(run, self.shape(), &qkv, &sequences, &mut normed);
            D::linear_add(run, &rest.out, &normed, &mut x);
            rest.perceptron(run, &mut x, &mut normed, &mut hidden);
        }
        let Some((last, wanted)) = &self.last else { return x };
        let rest = &last.rest;
        let mut key_value = D::rows(run, tokens, 2 * width);
        D::norm_linear(run, &rest.norm_1, &last.key_value, &x, &mut normed, &mut key_value);
        let mut x = D::pick(run, &x, &sequences, *wanted, places);
        let (mut picked, mut query) =
            (D::rows(run, lengths.len(), width), D::rows(run, lengths.len(), width));
        D::norm_linear(run, &rest.norm_1, &last.query, &x, &mut picked, &mut query);
        // The wanted token of a causal sequence sees all of it.
        let shape = AttentionShape { causal: false, ..self.shape() };
        let mut attended = D::query_attention(run, shape, &query, &key_value, &sequences);
        D::linear_add(run, &rest.out, &attended, &mut x);
        rest.perceptron(run, &mut x, &mut attended, &mut hidden);
        x
    }
}

impl<D: Device> BlockRest<D> {
    /// x += fc2(activation(fc1(norm(x)))).
    fn perceptron(&self, run: &mut D::Run<'_>, x: &mut D::Rows, normed: &mut D::Rows, hidden: &mut D::Rows) {
        let layers = PerceptronLayers {
            norm: &self.norm_2,
            fc1: &self.fc1,
            fc2: &self.fc2,
            activation: self.activation,
        };
        D::perceptron(run, layers, x, normed, hidden);
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use std::ops::Range;

    use super::*;
    use crate::arch::shared::names::{Blocks, OPEN_CLIP_BLOCKS};
    use crate::checkpoint::Checkpoint;
    use crate::device::cpu::Cpu;
    use crate::nn::gemm::Threads;

    /// The bits of the wanted tokens, whether or not the rest of the last block, and what follows a text's end, is computed.
    #[test]
    fn what_is_left_out_changes_no_bit() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/fixtures/clip/vit_gelu/open_clip/open_clip_model.safetensors");
        let checkpoint = Checkpoint::open(path).unwrap();
        let blocks = |prefix| Blocks::new(&checkpoint, prefix, &OPEN_CLIP_BLOCKS, Precision::F32);
        let cpu = Cpu::new(Precision::F32).unwrap();
        for (blocks, causal) in [(blocks("visual."), false), (blocks(""), true)] {
            let width =
                checkpoint.shape(if causal { "ln_final.bias" } else { "visual.ln_post.bias" }).unwrap()[0];
            let mlp_width = blocks.mlp_width(0).unwrap();
            let heads = if width.is_multiple_of(80) { width / 80 } else { 1 };
            let sizes = TransformerSizes { width, heads, layers: blocks.count(), mlp_width };
            let wanted = if causal { Wanted::Last } else { Wanted::First };
            let load =
                |wanted| Transformer::load(&cpu, &blocks, sizes, Activation::Gelu, 1e-5, causal, wanted);
            let (tower, whole_tower) = (load(Some(wanted)).unwrap(), load(None).unwrap());
            let lengths = [1usize, 12, 77, 40];
            let mut start = 0;
            let whole: Vec<_> = lengths.iter().map(|&n| (start..start + n, start += n).0).collect();
            let x: Vec<f32> = (0..start * width).map(|i| (i * 7919 % 1009) as f32 / 504.5 - 1.0).collect();
            let whole_lengths: Vec<_> = whole.iter().map(Range::len).collect();
            let all = whole_tower.forward(&mut { Threads::One }, x.clone(), &whole_lengths);
            // A causal sequence may end anywhere; what follows is left out. Else the first token is wanted.
            let kept: Vec<_> = whole
                .iter()
                .map(|r| if causal { r.start..r.start + r.len().div_ceil(2) } else { r.clone() })
                .collect();
            let cut: Vec<f32> =
                kept.iter().flat_map(|r| x[r.start * width..r.end * width].to_vec()).collect();
            let lengths: Vec<_> = kept.iter().map(Range::len).collect();
            let found = tower.forward(&mut { Threads::Pool }, cut, &lengths);
            for (n, row) in found.chunks_exact(width).enumerate() {
                let token = if causal { kept[n].end - 1 } else { kept[n].start };
                assert_eq!(row, &all[token * width..(token + 1) * width], "sequence {n}");
            }
        }
    }
}
