//! BERT and its successors RoBERTa and XLM-RoBERTa as encoders of texts.
//!
//! Reference: transformers' `BertModel`, `RobertaModel`, `XLMRobertaModel`. The texts of a batch follow one another without padding, so a text's
//! numbers do not depend on its neighbors and no padding is computed.

use std::borrow::Cow;
use std::sync::Arc;

use rayon::prelude::*;

use crate::arch::shared::padding::{gaps, keep, picked, seen};
use crate::arch::shared::transformer::TransformerSizes;
use crate::checkpoint::Checkpoint;
use crate::device::{AttentionShape, Device, Mask, Operation, TextNetwork, TokenEmbedding, Wanted};
use crate::error::Result;
use crate::nn::activation::Activation;
use crate::nn::linear::{Part, qkv_parts};
use crate::nn::precision::Precision;

/// Sizes and form of such a network.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct BertArch {
    pub(crate) vocabulary: usize,
    /// Rows of the table of positions, and of that of token types, of which the first is used.
    pub(crate) positions: usize,
    pub(crate) kinds: usize,
    pub(crate) sizes: TransformerSizes,
    pub(crate) activation: Activation,
    pub(crate) epsilon: f32,
    pub(crate) numbering: Numbering,
    /// The token that other tokens do not see; none where all are seen. A text's first token is always seen.
    pub(crate) padding: Option<u32>,
    pub(crate) pool: BertPool,
}

/// Which row of the table of positions a token has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Numbering {
    /// Its place in the text: BERT.
    Place,
    /// From this row on, tokens of padding not counted: RoBERTa.
    From(usize),
}

impl Numbering {
    /// The row of a text's first token.
    pub(crate) fn first(self) -> usize {
        match self {
            Self::Place => 0,
            Self::From(row) => row,
        }
    }
}

/// What becomes of the last layer's tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BertPool {
    /// The first token's row.
    First,
    /// The mean of all rows.
    Mean,
    /// The same to unit length.
    UnitMean,
}

impl BertArch {
    /// The operations that it needs beside those of every device.
    pub(crate) fn operations(&self) -> Vec<Operation> {
        let means = (self.pool == BertPool::Mean).then_some(Operation::Means);
        Operation::of_activation(self.activation).into_iter().chain(means).collect()
    }
}

/// The network.
pub(crate) struct Bert<D: Device> {
    embedding: TokenEmbedding<D>,
    vocabulary: usize,
    numbering: Numbering,
    padding: Option<u32>,
    pool: BertPool,
    embedding_norm: D::Norm,
    shape: AttentionShape,
    inner: usize,
    activation: Activation,
    layers: Vec<Layer<D>>,
}

struct Layer<D: Device> {
    qkv: D::Linear,
    attention_out: D::Linear,
    attention_norm: D::Norm,
    intermediate: D::Linear,
    output: D::Linear,
    output_norm: D::Norm,
}

/// Names of the tables of tokens, positions and token types, each after the tower's prefix.
pub(crate) const WORDS: &str = "embeddings.word_embeddings.weight";
pub(crate) const POSITIONS: &str = "embeddings.position_embeddings.weight";
pub(crate) const TYPES: &str = "embeddings.token_type_embeddings.weight";

impl<D: Device> Bert<D> {
    /// Takes the tensors under `prefix`; `arch` must have been checked.
    pub(crate) fn load(
        device: &D,
        ckpt: &Arc<Checkpoint>,
        prefix: &str,
        arch: &BertArch,
        precision: Precision,
    ) -> Result<Self> {
        device.require(arch.operations())?;
        let TransformerSizes { width, heads, layers, mlp_width: inner } = arch.sizes;
        let kinds = ckpt.tensor(&format!("{prefix}{TYPES}"), &[arch.kinds, width])?;
        let positions = ckpt.tensor(&format!("{prefix}{POSITIONS}"), &[arch.positions, width])?;
        let embedding = TokenEmbedding {
            table: device.token_table(ckpt, &format!("{prefix}{WORDS}"), [arch.vocabulary, width])?,
            width,
            positions: device.values(positions.get(arch.numbering.first() * width..).unwrap_or_default())?,
            kind: Some(device.values(kinds.get(..width).unwrap_or_default())?),
            scale: None,
            class: None,
        };
        let norm = |name: &str| {
            let (weight, bias) = ckpt.weight_and_bias(&format!("{prefix}{name}."), &[width])?;
            device.norm(&weight, &bias, arch.epsilon)
        };
        let linear = |name: &str, shape: [usize; 2]| {
            let (weight, bias) = ckpt.weight_and_bias(&format!("{prefix}{name}."), &shape)?;
            device.linear(&[Part { weight: &weight, bias: Some(&bias), scale: 1.0 }], shape[1], precision)
        };
        // Layers are packed in parallel: packing is most of the time to the first embedding.
        let layers = (0..layers).into_par_iter().map(|n| {
            let name = |part: &str| format!("encoder.layer.{n}.{part}");
            let part = |part: &str| {
                let name = name(&format!("attention.self.{part}"));
                ckpt.weight_and_bias(&format!("{prefix}{name}."), &[width, width])
            };
            let qkv = [part("query")?, part("key")?, part("value")?];
            let layer = Layer {
                qkv: device.linear(&qkv_parts(&qkv, width / heads), width, precision)?,
                attention_out: linear(&name("attention.output.dense"), [width, width])?,
                attention_norm: norm(&name("attention.output.LayerNorm"))?,
                intermediate: linear(&name("intermediate.dense"), [inner, width])?,
                output: linear(&name("output.dense"), [width, inner])?,
                output_norm: norm(&name("output.LayerNorm"))?,
            };
            // Else the file's pages would stay in memory beside the packed weights.
            ckpt.release();
            Ok(layer)
        });
        Ok(Self {
            layers: layers.collect::<Result<Vec<_>>>()?,
            embedding,
            vocabulary: arch.vocabulary,
            numbering: arch.numbering,
            padding: arch.padding,
            pool: arch.pool,
            embedding_norm: norm("embeddings.LayerNorm")?,
            shape: AttentionShape { heads, head_width: width / heads, mask: Mask::None, precision },
            inner,
            activation: arch.activation,
        })
    }

    /// The rows of the tokens that are seen, and how many each text has.
    fn embed(&self, run: &mut D::Run<'_>, texts: &[&[u32]], context: &[f32]) -> (D::Rows, Vec<usize>) {
        let places: Vec<Vec<usize>> = texts.iter().map(|text| seen(text, self.padding)).collect();
        let lengths: Vec<usize> = places.iter().map(Vec::len).collect();
        match self.numbering {
            Numbering::From(_) => {
                let texts: Vec<Cow<'_, [u32]>> =
                    texts.iter().zip(&places).map(|(text, places)| picked(text, places)).collect();
                let texts: Vec<&[u32]> = texts.iter().map(|text| &**text).collect();
                (D::embed_tokens(run, &self.embedding, &texts, context), lengths)
            }
            Numbering::Place => {
                // What follows the last token that is seen is not embedded.
                let end = |places: &Vec<usize>| places.last().map_or(0, |last| last + 1);
                let texts: Vec<&[u32]> =
                    texts.iter().zip(&places).map(|(text, places)| &text[..end(places)]).collect();
                let x = D::embed_tokens(run, &self.embedding, &texts, context);
                let gaps = gaps(texts.iter().map(|text| text.len()), &places);
                (keep::<D>(run, x, &gaps), lengths)
            }
        }
    }
}

impl<D: Device> TextNetwork<D> for Bert<D> {
    fn width(&self) -> usize {
        self.embedding.width
    }

    fn vocabulary(&self) -> usize {
        self.vocabulary
    }

    fn forward(&self, run: &mut D::Run<'_>, texts: &[&[u32]], context: &[f32]) -> D::Rows {
        let width = self.embedding.width;
        let (mut x, lengths) = self.embed(run, texts, context);
        let tokens = lengths.iter().sum();
        let sequences = D::sequences(run, &lengths);
        D::norm_in_place(run, &self.embedding_norm, &mut x);
        let (mut qkv, mut attended) = (D::rows(run, tokens, 3 * width), D::rows(run, tokens, width));
        let mut inner = D::rows(run, tokens, self.inner);
        for layer in &self.layers {
            D::linear_into(run, &layer.qkv, &x, &mut qkv, None);
            D::self_attention(run, self.shape, &qkv, &sequences, &mut attended);
            D::linear_add(run, &layer.attention_out, &attended, &mut x);
            D::norm_in_place(run, &layer.attention_norm, &mut x);
            D::linear_into(run, &layer.intermediate, &x, &mut inner, Some(self.activation));
            D::linear_add(run, &layer.output, &inner, &mut x);
            D::norm_in_place(run, &layer.output_norm, &mut x);
        }
        match self.pool {
            BertPool::First => D::pick(run, &x, &sequences, Wanted::First, &[]),
            BertPool::Mean => D::means(run, &x, &sequences, 0),
            BertPool::UnitMean => D::unit_means(run, &x, &sequences),
        }
    }
}
