//! CLIP's transformer, of images and of texts: pre-norm residual blocks.
//!
//! Reference: OpenAI's `ResidualAttentionBlock`. Of the last block only one token of each sequence is wanted (the class token, or the end of
//! the text), so only its query, its output and its perceptron are computed; the numbers are the same to the bit.

use std::ops::Range;

use rayon::prelude::*;

use crate::error::Result;
use crate::nn::activation::Activation;
use crate::nn::attention::{Attention, Sequence, Strided, self_attention};
use crate::nn::gemm::Threads;
use crate::nn::linear::{Linear, Part, query_scale};
use crate::nn::norm::LayerNorm;
use crate::profile;
use crate::weights::BlockWeights;

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
        weights: &BlockWeights<'_>,
        sizes: TransformerSizes,
        activation: Activation,
        epsilon: f32,
        causal: bool,
    ) -> Result<Self> {
        let TransformerSizes { width, heads, layers, mlp_width } = sizes;
        let rest = |n: usize| -> Result<BlockRest> {
            Ok(BlockRest {
                norm_1: weights.norm(n, 1, width, epsilon)?,
                out: weights.linear(n, "attn.out_proj", [width, width])?,
                norm_2: weights.norm(n, 2, width, epsilon)?,
                fc1: weights.linear(n, "mlp.c_fc", [mlp_width, width])?,
                fc2: weights.linear(n, "mlp.c_proj", [width, mlp_width])?,
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
