//! A transformer of images or texts: pre-norm residual blocks, as CLIP and its successors have them.
//!
//! Reference: OpenAI's `ResidualAttentionBlock`. Of the last block only one token of each sequence is wanted (the class token, or the end of
//! the text), so only its query, its output and its perceptron are computed; the numbers are the same to the bit.

use std::borrow::Cow;
use std::ops::Range;

use rayon::prelude::*;

use crate::error::Result;
use crate::nn::activation::Activation;
use crate::nn::attention::{Attention, Sequence, Strided, self_attention};
use crate::nn::gemm::Threads;
use crate::nn::linear::{Linear, Part, query_scale};
use crate::nn::norm::LayerNorm;
use crate::nn::precision::Precision;
use crate::profile;

/// A weight `[width, width]` and its bias `[width]`.
pub(crate) type WeightAndBias<'a> = (Cow<'a, [f32]>, Cow<'a, [f32]>);

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
    /// A norm of block `n`, `[width]`.
    fn norm(&self, n: usize, norm: BlockNorm, width: usize, epsilon: f32) -> Result<LayerNorm>;

    /// A layer of block `n`, of shape `[outputs, inputs]`.
    fn linear(&self, n: usize, layer: BlockLinear, shape: [usize; 2]) -> Result<Linear>;

    /// Query, key and value of block `n`.
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
pub(crate) struct Transformer {
    sizes: TransformerSizes,
    causal: bool,
    blocks: Vec<Block>,
    last: LastBlock,
}

struct Block {
    qkv: Linear,
    rest: BlockRest,
}

/// The block of which one token is wanted.
struct LastBlock {
    query: Linear,
    key_value: Linear,
    rest: BlockRest,
}

struct BlockRest {
    norm_1: LayerNorm,
    out: Linear,
    norm_2: LayerNorm,
    fc1: Linear,
    fc2: Linear,
    activation: Activation,
}

impl Transformer {
    /// Takes the blocks' tensors; `sizes` must have been checked.
    pub(crate) fn load(
        weights: &impl BlockWeights,
        sizes: TransformerSizes,
        activation: Activation,
        epsilon: f32,
        causal: bool,
    ) -> Result<Self> {
        let TransformerSizes { width, heads, layers, mlp_width } = sizes;
        let rest = |n: usize| -> Result<BlockRest> {
            Ok(BlockRest {
                norm_1: weights.norm(n, BlockNorm::Attention, width, epsilon)?,
                out: weights.linear(n, BlockLinear::AttentionOut, [width, width])?,
                norm_2: weights.norm(n, BlockNorm::Perceptron, width, epsilon)?,
                fc1: weights.linear(n, BlockLinear::PerceptronIn, [mlp_width, width])?,
                fc2: weights.linear(n, BlockLinear::PerceptronOut, [width, mlp_width])?,
                activation,
            })
        };
        // Blocks are packed in parallel: packing is most of the time to the first embedding.
        let block = |n: usize| -> Result<Block> {
            let parts = weights.qkv(n, width)?;
            let qkv = Linear::qkv(
                parts.each_ref().map(|(w, b)| (&**w, &**b)),
                width,
                width / heads,
                weights.precision(),
            );
            Ok(Block { qkv, rest: rest(n)? })
        };
        let blocks = (0..layers - 1).into_par_iter().map(block).collect::<Result<Vec<_>>>()?;
        let [(qw, qb), (kw, kb), (vw, vb)] = weights.qkv(layers - 1, width)?;
        let query = Part { weight: &qw, bias: Some(&qb), scale: query_scale(width / heads) };
        let key = Part { weight: &kw, bias: Some(&kb), scale: 1.0 };
        let value = Part { weight: &vw, bias: Some(&vb), scale: 1.0 };
        let last = LastBlock {
            query: Linear::fused(&[query], width, weights.precision()),
            key_value: Linear::fused(&[key, value], width, weights.precision()),
            rest: rest(layers - 1)?,
        };
        Ok(Self { sizes, causal, blocks, last })
    }

    /// Runs all blocks over `x`, `[tokens, width]`, and returns the rows `wanted`, one of each sequence: `[sequences, width]`.
    ///
    /// Of a causal transformer the wanted token must be its sequence's last.
    pub(crate) fn forward(
        &self,
        mut x: Vec<f32>,
        sequences: &[Range<usize>],
        wanted: &[usize],
        threads: Threads,
    ) -> Vec<f32> {
        let TransformerSizes { width, heads, mlp_width, .. } = self.sizes;
        let tokens = x.len() / width;
        let (mut normed, mut qkv) = (vec![0.0; tokens * width], vec![0.0; tokens * 3 * width]);
        let mut hidden = vec![0.0; tokens * mlp_width];
        for block in &self.blocks {
            block.rest.norm_1.forward_into(&x, &mut normed, threads);
            profile::time("attention in", tokens * width * 6 * width, || {
                block.qkv.forward_into(&normed, &mut qkv, None, threads);
            });
            profile::time("attention", 0, || {
                self_attention(&qkv, heads, width / heads, self.causal, sequences, &mut normed, threads);
            });
            profile::time("attention out", tokens * width * 2 * width, || {
                block.rest.out.forward_add(&normed, &mut x, None, threads);
            });
            block.rest.perceptron(&mut x, &mut normed, &mut hidden, threads);
        }
        let (last, rest) = (&self.last, &self.last.rest);
        rest.norm_1.forward_into(&x, &mut normed, threads);
        let key_value = &mut qkv[..tokens * 2 * width];
        profile::time("attention in", tokens * width * 4 * width, || {
            last.key_value.forward_into(&normed, key_value, None, threads);
        });
        let pick = |from: &[f32]| -> Vec<f32> {
            wanted.iter().flat_map(|&token| &from[token * width..(token + 1) * width]).copied().collect()
        };
        let query = last.query.forward(&pick(&normed), threads);
        let mut x = pick(&x);
        let rows = |at: usize| Strided { data: key_value.get(at..).unwrap_or_default(), stride: 2 * width };
        let queries = Strided { data: &query, stride: width };
        let attention = Attention {
            queries,
            keys: rows(0),
            values: rows(width),
            heads,
            head_width: width / heads,
            causal: false,
        };
        let all: Vec<_> = sequences
            .iter()
            .enumerate()
            .map(|(n, keys)| Sequence { queries: n..n + 1, keys: keys.clone() })
            .collect();
        normed.truncate(x.len());
        profile::time("attention", 0, || attention.forward(&all, &mut normed, threads));
        rest.out.forward_add(&normed, &mut x, None, threads);
        hidden.truncate(wanted.len() * mlp_width);
        rest.perceptron(&mut x, &mut normed, &mut hidden, threads);
        x
    }
}

impl BlockRest {
    /// x += fc2(activation(fc1(norm(x)))).
    fn perceptron(&self, x: &mut [f32], normed: &mut [f32], hidden: &mut [f32], threads: Threads) {
        let flops = 2 * x.len() * self.fc1.outputs();
        self.norm_2.forward_into(x, normed, threads);
        profile::time("mlp in", flops, || {
            self.fc1.forward_into(normed, hidden, Some(self.activation), threads);
        });
        profile::time("mlp out", flops, || self.fc2.forward_add(hidden, x, None, threads));
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::arch::clip::weights::Weights;
    use crate::checkpoint::Checkpoint;

    impl Transformer {
        /// All rows of the last block, computed as the other blocks are.
        fn forward_all(&self, mut x: Vec<f32>, sequences: &[Range<usize>]) -> Vec<f32> {
            let TransformerSizes { width, heads, mlp_width, .. } = self.sizes;
            let tokens = x.len() / width;
            let (mut normed, mut hidden) = (vec![0.0; x.len()], vec![0.0; tokens * mlp_width]);
            let qkv_of = |normed: &[f32], n: usize| -> Vec<f32> {
                if let Some(block) = self.blocks.get(n) {
                    return block.qkv.forward(normed, Threads::One);
                }
                let (query, rest) = (&self.last.query, &self.last.key_value);
                let (query, rest) = (query.forward(normed, Threads::One), rest.forward(normed, Threads::One));
                let rows = query.chunks_exact(width).zip(rest.chunks_exact(2 * width));
                rows.flat_map(|(q, kv)| q.iter().chain(kv).copied().collect::<Vec<_>>()).collect()
            };
            let rests = self.blocks.iter().map(|block| &block.rest).chain([&self.last.rest]);
            for (n, rest) in rests.enumerate() {
                rest.norm_1.forward_into(&x, &mut normed, Threads::One);
                let qkv = qkv_of(&normed, n);
                self_attention(&qkv, heads, width / heads, self.causal, sequences, &mut normed, Threads::One);
                rest.out.forward_add(&normed, &mut x, None, Threads::One);
                rest.perceptron(&mut x, &mut normed, &mut hidden, Threads::One);
            }
            x
        }
    }

    /// The bits of the wanted tokens, whether or not the rest of the last block, and what follows a text's end, is computed.
    #[test]
    fn what_is_left_out_changes_no_bit() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/fixtures/clip/vit_gelu/open_clip/open_clip_model.safetensors");
        let checkpoint = Checkpoint::open(path).unwrap();
        let weights = Weights::new(&checkpoint);
        for (blocks, causal) in [(weights.visual_blocks(), false), (weights.text_blocks(), true)] {
            let width =
                checkpoint.shape(if causal { "ln_final.bias" } else { "visual.ln_post.bias" }).unwrap()[0];
            let mlp_width = blocks.mlp_width(0).unwrap();
            let heads = if width.is_multiple_of(80) { width / 80 } else { 1 };
            let sizes = TransformerSizes { width, heads, layers: blocks.count(), mlp_width };
            let tower = Transformer::load(&blocks, sizes, Activation::Gelu, 1e-5, causal).unwrap();
            let lengths = [1usize, 12, 77, 40];
            let mut start = 0;
            let whole: Vec<_> = lengths.iter().map(|&n| (start..start + n, start += n).0).collect();
            let x: Vec<f32> = (0..start * width).map(|i| (i * 7919 % 1009) as f32 / 504.5 - 1.0).collect();
            let all = tower.forward_all(x.clone(), &whole);
            // A causal sequence may end anywhere; what follows is left out. Else the first token is wanted.
            let kept: Vec<_> = whole
                .iter()
                .map(|r| if causal { r.start..r.start + r.len().div_ceil(2) } else { r.clone() })
                .collect();
            let cut: Vec<f32> =
                kept.iter().flat_map(|r| x[r.start * width..r.end * width].to_vec()).collect();
            let mut start = 0;
            let sequences: Vec<_> =
                kept.iter().map(|r| (start..start + r.len(), start += r.len()).0).collect();
            let wanted: Vec<_> = sequences.iter().map(|r| if causal { r.end - 1 } else { r.start }).collect();
            let found = tower.forward(cut, &sequences, &wanted, Threads::Pool);
            for (n, row) in found.chunks_exact(width).enumerate() {
                let token = if causal { kept[n].end - 1 } else { kept[n].start };
                assert_eq!(row, &all[token * width..(token + 1) * width], "sequence {n}");
            }
        }
    }
}
