//! Attention pooling: a learned query attends to an image's tokens, and a residual perceptron follows.
//!
//! References: transformers' `SiglipMultiheadAttentionPoolingHead`; timm's `AttentionPoolLatent`.

use crate::arch::shared::names::learned;
use crate::arch::shared::vit::{VitArch, VitWeights};
use crate::checkpoint::Checkpoint;
use crate::device::{AttentionShape, Device, Mask, PerceptronLayers};
use crate::error::Result;
use crate::nn::activation::Activation;
use crate::nn::linear::{Part, query_scale};

/// Names of its tensors, each after the tower's prefix.
#[derive(Debug)]
pub(crate) struct AttentionPoolNames {
    /// The query before its projection.
    pub(crate) latent: &'static str,
    pub(crate) input: PoolInputNames,
    pub(crate) out: &'static str,
    pub(crate) norm: &'static str,
    pub(crate) perceptron: [&'static str; 2],
}

/// How the projections of query, key and value are stored.
#[derive(Debug)]
pub(crate) enum PoolInputNames {
    /// All three in one weight `[3 * width, width]` and one bias.
    Fused { weight: &'static str, bias: &'static str },
    /// The query's layer, and one of key and value, `[2 * width, width]`.
    QueryAndKeyValue([&'static str; 2]),
}

/// x = out(attention(query, tokens)); x + fc2(activation(fc1(norm(x)))).
pub(crate) struct AttentionPool<D: Device> {
    shape: AttentionShape,
    /// `[width]`, projected and scaled: it is the same for all images.
    query: D::LearnedQuery,
    key_value: D::Linear,
    out: D::Linear,
    norm: D::Norm,
    fc1: D::Linear,
    fc2: D::Linear,
    mlp_width: usize,
    activation: Activation,
}

impl<D: Device> AttentionPool<D> {
    /// Takes the tensors.
    pub(crate) fn load(
        device: &D,
        weights: &VitWeights<'_>,
        names: &AttentionPoolNames,
        arch: &VitArch,
        heads: usize,
        mlp_width: usize,
    ) -> Result<Self> {
        let (width, checkpoint) = (arch.sizes.width, weights.checkpoint);
        let name = |part: &str| format!("{}{part}", weights.prefix);
        let latent = learned(checkpoint, &name(names.latent), &[width])?;
        let (weight, bias) = read_input(checkpoint, weights.prefix, &names.input, width)?;
        let (query_weight, key_value_weight) = weight.split_at(width * width);
        let (query_bias, key_value_bias) = bias.split_at(width);
        let query = projected_query(query_weight, query_bias, &latent, heads);
        let linear = |part: &str, shape: [usize; 2]| {
            let (weight, bias) = checkpoint.weight_and_bias(&format!("{}.", name(part)), &shape)?;
            let part = Part { weight: &weight, bias: Some(&bias), scale: 1.0 };
            device.linear(&[part], shape[1], weights.precision)
        };
        let key_value = Part { weight: key_value_weight, bias: Some(key_value_bias), scale: 1.0 };
        let (norm_weight, norm_bias) =
            checkpoint.weight_and_bias(&format!("{}.", name(names.norm)), &[width])?;
        Ok(Self {
            shape: AttentionShape {
                heads,
                head_width: width / heads,
                mask: Mask::None,
                precision: weights.precision,
            },
            query: device.learned_query(&query)?,
            key_value: device.linear(&[key_value], width, weights.precision)?,
            out: linear(names.out, [width, width])?,
            norm: device.norm(&norm_weight, &norm_bias, arch.epsilon)?,
            fc1: linear(names.perceptron[0], [mlp_width, width])?,
            fc2: linear(names.perceptron[1], [width, mlp_width])?,
            mlp_width,
            activation: arch.activation,
        })
    }

    /// `x` is `[tokens, width]`; returns `[sequences, width]`.
    pub(crate) fn forward(&self, run: &mut D::Run<'_>, x: &D::Rows, lengths: &[usize]) -> D::Rows {
        let (count, width) = (lengths.len(), self.shape.width());
        let tokens = lengths.iter().sum();
        let sequences = D::sequences(run, lengths);
        let mut key_value = D::rows(run, tokens, 2 * width);
        D::linear_into(run, &self.key_value, x, &mut key_value, None);
        let query = D::repeat(run, &self.query, count);
        let mut attended = D::query_attention(run, self.shape, &query, &key_value, &sequences);
        let mut out = D::rows(run, count, width);
        D::linear_into(run, &self.out, &attended, &mut out, None);
        let mut hidden = D::rows(run, count, self.mlp_width);
        let layers = PerceptronLayers {
            norm: &self.norm,
            fc1: &self.fc1,
            fc2: &self.fc2,
            activation: self.activation,
        };
        D::perceptron(run, layers, &mut out, &mut attended, &mut hidden);
        out
    }
}

/// A learned query, `[width]`, through its layer, scaled by 1 / √head_width.
pub(crate) fn projected_query(weight: &[f32], bias: &[f32], latent: &[f32], heads: usize) -> Vec<f32> {
    let scale = f64::from(query_scale(latent.len() / heads));
    let value = |(row, &bias): (&[f32], &f32)| {
        let products = row.iter().zip(latent).map(|(&w, &x)| f64::from(w) * f64::from(x));
        ((products.sum::<f64>() + f64::from(bias)) * scale) as f32
    };
    weight.chunks_exact(latent.len()).zip(bias).map(value).collect()
}

/// Weights `[3 * width, width]` and biases `[3 * width]` of query, key and value.
fn read_input(
    checkpoint: &Checkpoint,
    prefix: &str,
    names: &PoolInputNames,
    width: usize,
) -> Result<(Vec<f32>, Vec<f32>)> {
    Ok(match names {
        PoolInputNames::Fused { weight, bias } => (
            checkpoint.tensor(&format!("{prefix}{weight}"), &[3 * width, width])?.into_owned(),
            checkpoint.tensor(&format!("{prefix}{bias}"), &[3 * width])?.into_owned(),
        ),
        PoolInputNames::QueryAndKeyValue([query, key_value]) => {
            let (query, query_bias) =
                checkpoint.weight_and_bias(&format!("{prefix}{query}."), &[width, width])?;
            let (key_value, key_value_bias) =
                checkpoint.weight_and_bias(&format!("{prefix}{key_value}."), &[2 * width, width])?;
            ([query, key_value].concat(), [query_bias, key_value_bias].concat())
        }
    })
}
