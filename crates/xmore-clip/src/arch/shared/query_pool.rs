//! CoCa's pooling of images: a learned query attends to the tokens, between two norms. Of the queries of open_clip's, whose others are for the
//! captioning decoder, the first gives the feature.
//!
//! Reference: open_clip's `AttentionalPooler`, which has `torch.nn.MultiheadAttention` from tokens of one width to features of another.

use std::borrow::Cow;

use crate::arch::shared::pool::projected_query;
use crate::arch::shared::vit::VitWeights;
use crate::checkpoint::Checkpoint;
use crate::device::{AttentionShape, Device, Mask};
use crate::error::Result;
use crate::nn::linear::Part;

/// Names of its tensors, each after the tower's prefix.
const QUERIES: &str = "attn_pool.query";
const QUERY_NORM: &str = "attn_pool.ln_q";
const TOKEN_NORM: &str = "attn_pool.ln_k";
const ATTENTION: &str = "attn_pool.attn";
const FEATURE_NORM: &str = "ln_post";

/// Sizes of the pooling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct QueryPoolArch {
    /// How many queries the checkpoint has.
    pub(crate) queries: usize,
    pub(crate) heads: usize,
    /// Of a feature.
    pub(crate) width: usize,
}

/// x = norm(out(attention(query, norm(tokens)))).
pub(crate) struct QueryPool<D: Device> {
    token_norm: D::Norm,
    shape: AttentionShape,
    /// `[width]`, projected and scaled: it is the same for all images.
    query: D::LearnedQuery,
    key_value: D::Linear,
    out: D::Linear,
    norm: D::Norm,
}

impl<D: Device> QueryPool<D> {
    /// Takes the tensors; `tokens` is the width of a token.
    pub(crate) fn load(
        device: &D,
        weights: &VitWeights<'_>,
        arch: QueryPoolArch,
        tokens: usize,
        epsilon: f32,
    ) -> Result<Self> {
        let QueryPoolArch { queries, heads, width } = arch;
        let checkpoint = weights.checkpoint;
        let name = |part: &str| format!("{}{part}", weights.prefix);
        let queries = checkpoint.tensor(&name(QUERIES), &[queries, width])?;
        let (norm_weight, norm_bias) =
            checkpoint.weight_and_bias(&format!("{}.", name(QUERY_NORM)), &[width])?;
        let first = normalized(&queries[..width], &norm_weight, &norm_bias, epsilon);
        let attention = name(ATTENTION);
        let [query, key, value] = inputs(checkpoint, &attention, width, tokens)?;
        let bias = checkpoint.tensor(&format!("{attention}.in_proj_bias"), &[3 * width])?;
        let (query_bias, rest) = bias.split_at(width);
        let (key_bias, value_bias) = rest.split_at(width);
        let part = |weight, bias| Part { weight, bias: Some(bias), scale: 1.0 };
        let (out, out_bias) =
            checkpoint.weight_and_bias(&format!("{attention}.out_proj."), &[width, width])?;
        let precision = weights.precision;
        Ok(Self {
            token_norm: weights.norm(device, TOKEN_NORM, tokens, epsilon)?,
            shape: AttentionShape { heads, head_width: width / heads, mask: Mask::None, precision },
            query: device.learned_query(&projected_query(&query, query_bias, &first, heads))?,
            key_value: device.linear(
                &[part(&*key, key_bias), part(&*value, value_bias)],
                tokens,
                precision,
            )?,
            out: device.linear(&[part(&*out, &*out_bias)], width, precision)?,
            norm: weights.norm(device, FEATURE_NORM, width, epsilon)?,
        })
    }

    /// Length of a feature row.
    pub(crate) fn width(&self) -> usize {
        self.shape.width()
    }

    /// `x`, `[tokens, width of a token]`, is overwritten; returns `[sequences, width]`.
    pub(crate) fn forward(&self, run: &mut D::Run<'_>, mut x: D::Rows, lengths: &[usize]) -> D::Rows {
        let (count, width) = (lengths.len(), self.width());
        let sequences = D::sequences(run, lengths);
        D::norm_in_place(run, &self.token_norm, &mut x);
        let mut key_value = D::rows(run, lengths.iter().sum(), 2 * width);
        D::linear_into(run, &self.key_value, &x, &mut key_value, None);
        let query = D::repeat(run, &self.query, count);
        let attended = D::query_attention(run, self.shape, &query, &key_value, &sequences);
        let mut out = D::rows(run, count, width);
        D::linear_into(run, &self.out, &attended, &mut out, None);
        D::norm_in_place(run, &self.norm, &mut out);
        out
    }
}

/// Weights of query, `[width, width]`, key and value, `[width, tokens]`, which PyTorch keeps in one tensor where all are of one shape.
fn inputs<'a>(
    checkpoint: &'a Checkpoint,
    attention: &str,
    width: usize,
    tokens: usize,
) -> Result<[Cow<'a, [f32]>; 3]> {
    if width == tokens {
        let all = checkpoint.tensor(&format!("{attention}.in_proj_weight"), &[3 * width, width])?;
        let size = width * width;
        return Ok([0, 1, 2].map(|n| Cow::Owned(all[n * size..(n + 1) * size].to_vec())));
    }
    let weight = |part: &str, inputs: usize| {
        checkpoint.tensor(&format!("{attention}.{part}_proj_weight"), &[width, inputs])
    };
    Ok([weight("q", width)?, weight("k", tokens)?, weight("v", tokens)?])
}

/// Layer norm of one row.
fn normalized(row: &[f32], weight: &[f32], bias: &[f32], epsilon: f32) -> Vec<f32> {
    let mean_of = |values: &mut dyn Iterator<Item = f64>| values.sum::<f64>() / row.len() as f64;
    let mean = mean_of(&mut row.iter().map(|&x| f64::from(x)));
    let variance = mean_of(&mut row.iter().map(|&x| (f64::from(x) - mean).powi(2)));
    let factor = 1.0 / (variance + f64::from(epsilon)).sqrt();
    let scaled = row.iter().zip(weight).map(|(&x, &w)| (f64::from(x) - mean) * factor * f64::from(w));
    scaled.zip(bias).map(|(x, &b)| (x + f64::from(b)) as f32).collect()
}
