//! BERT as a sentence encoder: the transformer of the MiniLM family with mean pooling.
//!
//! Reference: transformers' `BertModel` with sentence-transformers' mean pooling and normalization. The texts of a batch
//! follow one another without padding, so a text's numbers do not depend on its neighbors and no padding is computed.

use std::sync::Arc;

use rayon::prelude::*;

use crate::checkpoint::Checkpoint;
use crate::device::{AttentionShape, Device, TextNetwork, TokenEmbedding};
use crate::error::Result;
use crate::nn::activation::Activation;
use crate::nn::linear::{Part, qkv_parts};
use crate::nn::precision::Precision;

use super::config::BertConfig;

/// The network.
pub(crate) struct Bert<D: Device> {
    embedding: TokenEmbedding<D>,
    vocabulary: usize,
    embedding_norm: D::Norm,
    shape: AttentionShape,
    inner: usize,
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

const WORDS: &str = "embeddings.word_embeddings.weight";
const POSITIONS: &str = "embeddings.position_embeddings.weight";
const TYPES: &str = "embeddings.token_type_embeddings.weight";

impl<D: Device> Bert<D> {
    /// Takes the network's tensors from a checkpoint; `config` must have been checked.
    pub(crate) fn load(
        device: &D,
        ckpt: &Arc<Checkpoint>,
        config: &BertConfig,
        precision: Precision,
    ) -> Result<Self> {
        let (width, inner, heads) =
            (config.hidden_size, config.intermediate_size, config.num_attention_heads);
        let kinds = ckpt.tensor(TYPES, &[config.type_vocab_size, width])?;
        let positions = ckpt.tensor(POSITIONS, &[config.max_position_embeddings, width])?;
        let embedding = TokenEmbedding {
            table: device.token_table(ckpt, WORDS, [config.vocab_size, width])?,
            width,
            positions: device.values(&positions)?,
            kind: Some(device.values(kinds.get(..width).unwrap_or_default())?),
        };
        let norm = |prefix: &str| {
            let (weight, bias) = ckpt.weight_and_bias(prefix, &[width])?;
            device.norm(&weight, &bias, config.layer_norm_eps)
        };
        let linear = |prefix: &str, shape: [usize; 2]| {
            let (weight, bias) = ckpt.weight_and_bias(prefix, &shape)?;
            device.linear(&[Part { weight: &weight, bias: Some(&bias), scale: 1.0 }], shape[1], precision)
        };
        // Layers are packed in parallel: packing is most of the time to the first embedding.
        let layers = (0..config.num_hidden_layers).into_par_iter().map(|n| {
            let name = |part: &str| format!("encoder.layer.{n}.{part}.");
            let part =
                |part: &str| ckpt.weight_and_bias(&name(&format!("attention.self.{part}")), &[width, width]);
            let qkv = [part("query")?, part("key")?, part("value")?];
            Ok(Layer {
                qkv: device.linear(&qkv_parts(&qkv, width / heads), width, precision)?,
                attention_out: linear(&name("attention.output.dense"), [width, width])?,
                attention_norm: norm(&name("attention.output.LayerNorm"))?,
                intermediate: linear(&name("intermediate.dense"), [inner, width])?,
                output: linear(&name("output.dense"), [width, inner])?,
                output_norm: norm(&name("output.LayerNorm"))?,
            })
        });
        let layers = layers.collect::<Result<Vec<_>>>()?;
        let embedding_norm = norm("embeddings.LayerNorm.")?;
        let shape = AttentionShape { heads, head_width: width / heads, causal: false };
        Ok(Self { embedding, vocabulary: config.vocab_size, embedding_norm, shape, inner, layers })
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
        let lengths: Vec<usize> = texts.iter().map(|text| text.len()).collect();
        let tokens = lengths.iter().sum();
        let mut x = D::embed_tokens(run, &self.embedding, texts, context);
        let sequences = D::sequences(run, &lengths);
        D::norm_in_place(run, &self.embedding_norm, &mut x);
        let (mut qkv, mut attended) = (D::rows(run, tokens, 3 * width), D::rows(run, tokens, width));
        let mut inner = D::rows(run, tokens, self.inner);
        for layer in &self.layers {
            D::linear_into(run, &layer.qkv, &x, &mut qkv, None);
            D::self_attention(run, self.shape, &qkv, &sequences, &mut attended);
            D::linear_add(run, &layer.attention_out, &attended, &mut x);
            D::norm_in_place(run, &layer.attention_norm, &mut x);
            D::linear_into(run, &layer.intermediate, &x, &mut inner, Some(Activation::Gelu));
            D::linear_add(run, &layer.output, &inner, &mut x);
            D::norm_in_place(run, &layer.output_norm, &mut x);
        }
        D::unit_means(run, &x, &sequences)
    }
}
