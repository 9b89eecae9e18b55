//! BERT as a sentence encoder: the transformer of the MiniLM family with mean pooling.
//!
//! Reference: transformers' `BertModel` with sentence-transformers' mean pooling and normalization. The texts of a batch
//! follow one another without padding, so a text's numbers do not depend on its neighbors and no padding is computed.

use rayon::prelude::*;

use crate::arch::TextTower;
use crate::arch::parts::normalize_rows;
use crate::checkpoint::Checkpoint;
use crate::error::Result;
use crate::nn::activation::Activation;
use crate::nn::attention::self_attention;
use crate::nn::gemm::Threads;
use crate::nn::linear::Linear;
use crate::nn::norm::LayerNorm;
use crate::nn::precision::Precision;

use super::config::BertConfig;

/// The network. Embedding tables stay in the mapped file.
pub(crate) struct Bert {
    ckpt: Checkpoint,
    width: usize,
    heads: usize,
    vocabulary: usize,
    embedding_norm: LayerNorm,
    layers: Vec<Layer>,
}

struct Layer {
    qkv: Linear,
    attention_out: Linear,
    attention_norm: LayerNorm,
    intermediate: Linear,
    output: Linear,
    output_norm: LayerNorm,
}

const WORDS: &str = "embeddings.word_embeddings.weight";
const POSITIONS: &str = "embeddings.position_embeddings.weight";
const TYPES: &str = "embeddings.token_type_embeddings.weight";

impl Bert {
    /// Takes the network's tensors from a checkpoint; `config` must have been checked.
    pub(crate) fn load(ckpt: Checkpoint, config: &BertConfig, precision: Precision) -> Result<Self> {
        let width = config.hidden_size;
        ckpt.rows(WORDS, [config.vocab_size, width])?;
        ckpt.rows(POSITIONS, [config.max_position_embeddings, width])?;
        ckpt.rows(TYPES, [config.type_vocab_size, width])?;
        let norm = |prefix: &str| LayerNorm::load(&ckpt, prefix, width, config.layer_norm_eps);
        let linear = |prefix: &str, shape| Linear::load_as(&ckpt, prefix, shape, precision);
        let inner = config.intermediate_size;
        // Layers are packed in parallel: packing is most of the time to the first embedding.
        let layers = (0..config.num_hidden_layers).into_par_iter().map(|n| {
            let prefix = format!("encoder.layer.{n}.");
            let name = |part: &str| format!("{prefix}{part}.");
            Ok(Layer {
                qkv: fused_qkv(&ckpt, &name("attention.self"), width, config.num_attention_heads, precision)?,
                attention_out: linear(&name("attention.output.dense"), [width, width])?,
                attention_norm: norm(&name("attention.output.LayerNorm"))?,
                intermediate: linear(&name("intermediate.dense"), [inner, width])?,
                output: linear(&name("output.dense"), [width, inner])?,
                output_norm: norm(&name("output.LayerNorm"))?,
            })
        });
        let layers = layers.collect::<Result<Vec<_>>>()?;
        let embedding_norm = norm("embeddings.LayerNorm.")?;
        let (heads, vocabulary) = (config.num_attention_heads, config.vocab_size);
        Ok(Self { ckpt, width, heads, vocabulary, embedding_norm, layers })
    }
}

/// Query, key and value as one product: `[3 * width, width]`.
fn fused_qkv(
    ckpt: &Checkpoint,
    prefix: &str,
    width: usize,
    heads: usize,
    precision: Precision,
) -> Result<Linear> {
    let part = |name: &str| {
        let weight = ckpt.tensor(&format!("{prefix}{name}.weight"), &[width, width])?;
        Ok((weight, ckpt.tensor(&format!("{prefix}{name}.bias"), &[width])?))
    };
    let parts = [part("query")?, part("key")?, part("value")?];
    Ok(Linear::qkv(parts.each_ref().map(|(w, b)| (&**w, &**b)), width, width / heads, precision))
}

impl TextTower for Bert {
    fn width(&self) -> usize {
        self.width
    }

    fn vocabulary(&self) -> usize {
        self.vocabulary
    }

    fn forward(&self, texts: &[&[u32]], threads: Threads) -> Vec<f32> {
        let width = self.width;
        let tokens: usize = texts.iter().map(|t| t.len()).sum();
        let mut sequences = Vec::with_capacity(texts.len());
        let mut x = vec![0.0; tokens * width];
        let mut token = 0;
        for text in texts {
            sequences.push(token..token + text.len());
            for (position, &id) in text.iter().enumerate() {
                let row = &mut x[token * width..(token + 1) * width];
                self.ckpt.add_row(WORDS, id as usize, row);
                self.ckpt.add_row(TYPES, 0, row);
                self.ckpt.add_row(POSITIONS, position, row);
                token += 1;
            }
        }
        self.embedding_norm.forward(&mut x);
        let (mut qkv, mut attended) = (vec![0.0; tokens * 3 * width], vec![0.0; tokens * width]);
        let mut inner = Vec::new();
        for layer in &self.layers {
            layer.qkv.forward_into(&x, &mut qkv, None, threads);
            self_attention(&qkv, self.heads, width / self.heads, false, &sequences, &mut attended, threads);
            layer.attention_out.forward_add(&attended, &mut x, None, threads);
            layer.attention_norm.forward(&mut x);
            inner.resize(tokens * layer.intermediate.outputs(), 0.0);
            layer.intermediate.forward_into(&x, &mut inner, Some(Activation::Gelu), threads);
            layer.output.forward_add(&inner, &mut x, None, threads);
            layer.output_norm.forward(&mut x);
        }
        let mut pooled = vec![0.0f32; texts.len() * width];
        for (sequence, out) in sequences.iter().zip(pooled.chunks_exact_mut(width)) {
            for row in x[sequence.start * width..sequence.end * width].chunks_exact(width) {
                out.iter_mut().zip(row).for_each(|(o, r)| *o += r);
            }
            out.iter_mut().for_each(|o| *o /= sequence.len() as f32);
        }
        normalize_rows(&mut pooled, width);
        pooled
    }
}
