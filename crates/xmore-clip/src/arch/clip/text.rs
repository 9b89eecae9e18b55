//! CLIP's text transformer: causal, so that what follows a text's end token changes nothing and is not computed.
//!
//! Reference: OpenAI's `CLIP.encode_text`, whose feature is the last layer's row at the end token.

use std::sync::Arc;

use crate::arch::shared::transformer::Transformer;
use crate::checkpoint::Checkpoint;
use crate::device::{Device, TextNetwork, TokenEmbedding, Wanted};
use crate::error::Result;

use super::config::TextArch;
use super::weights::Weights;

/// The network, without the projection into the joint space.
pub(crate) struct ClipText<D: Device> {
    embedding: TokenEmbedding<D>,
    vocabulary: usize,
    transformer: Transformer<D>,
    norm: D::Norm,
}

impl<D: Device> ClipText<D> {
    /// Takes the network's tensors; `arch` must have been checked.
    pub(crate) fn load(
        device: &D,
        checkpoint: &Arc<Checkpoint>,
        weights: &Weights<'_>,
        arch: &TextArch,
    ) -> Result<Self> {
        let (width, vocabulary) = (arch.sizes.width, arch.vocabulary);
        let table = weights.name("token_embedding.weight");
        let positions = weights.tensor("positional_embedding", &[arch.context_length, width])?;
        Ok(Self {
            embedding: TokenEmbedding {
                table: device.token_table(checkpoint, &table, [vocabulary, width])?,
                width,
                positions: device.values(&positions)?,
                kind: None,
            },
            vocabulary,
            transformer: Transformer::load(
                device,
                &weights.text_blocks(),
                arch.sizes,
                arch.activation,
                arch.epsilon,
                true,
            )?,
            norm: weights.norm(device, "ln_final", width, arch.epsilon)?,
        })
    }
}

/// The tokens up to the first of the largest id: the end token, which CLIP finds by `argmax`.
fn up_to_end(text: &[u32]) -> &[u32] {
    let largest = text.iter().max();
    let end = text.iter().position(|id| Some(id) == largest);
    &text[..end.map_or(0, |end| end + 1)]
}

impl<D: Device> TextNetwork<D> for ClipText<D> {
    fn width(&self) -> usize {
        self.embedding.width
    }

    fn vocabulary(&self) -> usize {
        self.vocabulary
    }

    fn takes_context(&self) -> bool {
        true
    }

    fn forward(&self, run: &mut D::Run<'_>, texts: &[&[u32]], context: &[f32]) -> D::Rows {
        let texts: Vec<&[u32]> = texts.iter().map(|text| up_to_end(text)).collect();
        let x = D::embed_tokens(run, &self.embedding, &texts, context);
        let lengths: Vec<usize> = texts.iter().map(|text| text.len()).collect();
        let mut pooled = self.transformer.forward(run, x, &lengths, Wanted::Last);
        D::norm_in_place(run, &self.norm, &mut pooled);
        pooled
    }
}
