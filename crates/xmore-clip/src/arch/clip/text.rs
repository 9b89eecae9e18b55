//! CLIP's text transformer: causal, so that what follows a text's end token changes nothing and is not computed.
//!
//! Reference: OpenAI's `CLIP.encode_text`, whose feature is the last layer's row at the end token.

use std::sync::Arc;

use crate::arch::TextTower;
use crate::arch::shared::transformer::Transformer;
use crate::checkpoint::Checkpoint;
use crate::error::Result;
use crate::nn::gemm::Threads;
use crate::nn::norm::LayerNorm;

use super::config::TextArch;
use super::weights::Weights;

/// The network, without the projection into the joint space. The token table stays in the mapped file.
pub(crate) struct ClipText {
    checkpoint: Arc<Checkpoint>,
    token_table: String,
    vocabulary: usize,
    width: usize,
    /// `[context, width]`.
    positions: Vec<f32>,
    transformer: Transformer,
    norm: LayerNorm,
}

impl ClipText {
    /// Takes the network's tensors; `arch` must have been checked.
    pub(crate) fn load(checkpoint: Arc<Checkpoint>, weights: &Weights<'_>, arch: &TextArch) -> Result<Self> {
        let width = arch.sizes.width;
        let token_table = weights.name("token_embedding.weight");
        checkpoint.rows(&token_table, [arch.vocabulary, width])?;
        Ok(Self {
            token_table,
            vocabulary: arch.vocabulary,
            width,
            positions: weights.tensor("positional_embedding", &[arch.context_length, width])?.into_owned(),
            transformer: Transformer::load(
                &weights.text_blocks(),
                arch.sizes,
                arch.activation,
                arch.epsilon,
                true,
            )?,
            norm: weights.norm("ln_final", width, arch.epsilon)?,
            checkpoint,
        })
    }
}

/// The tokens up to the first of the largest id: the end token, which CLIP finds by `argmax`.
fn up_to_end(text: &[u32]) -> &[u32] {
    let largest = text.iter().max();
    let end = text.iter().position(|id| Some(id) == largest);
    &text[..end.map_or(0, |end| end + 1)]
}

impl TextTower for ClipText {
    fn width(&self) -> usize {
        self.width
    }

    fn vocabulary(&self) -> usize {
        self.vocabulary
    }

    fn forward(&self, texts: &[&[u32]], threads: Threads) -> Vec<f32> {
        self.run(texts, &[], threads)
    }

    fn forward_with_context(&self, texts: &[&[u32]], context: &[f32], threads: Threads) -> Option<Vec<f32>> {
        Some(self.run(texts, context, threads))
    }
}

impl ClipText {
    /// `context`, `[tokens, width]`, takes the place of the token embeddings after each text's start; it may be empty.
    fn run(&self, texts: &[&[u32]], context: &[f32], threads: Threads) -> Vec<f32> {
        let width = self.width;
        let mut x = Vec::with_capacity(texts.iter().map(|text| text.len()).sum::<usize>() * width);
        let mut sequences = Vec::with_capacity(texts.len());
        let replaced = 1..1 + context.len() / width;
        for text in texts {
            let text = up_to_end(text);
            let (start, at) = (x.len() / width, x.len());
            x.extend_from_slice(&self.positions[..text.len() * width]);
            for (place, (&id, row)) in text.iter().zip(x[at..].chunks_exact_mut(width)).enumerate() {
                if replaced.contains(&place) {
                    let from = (place - 1) * width;
                    row.iter_mut().zip(&context[from..from + width]).for_each(|(x, c)| *x += c);
                } else {
                    self.checkpoint.add_row(&self.token_table, id as usize, row);
                }
            }
            sequences.push(start..start + text.len());
        }
        let ends: Vec<_> = sequences.iter().map(|range| range.end - 1).collect();
        let mut pooled = self.transformer.forward(x, &sequences, &ends, threads);
        self.norm.forward(&mut pooled);
        pooled
    }
}
