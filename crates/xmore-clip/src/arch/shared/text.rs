//! CLIP's text transformer and its successors': causal or not, with the feature taken from one of the tokens.
//!
//! References: OpenAI's `CLIP.encode_text`; open_clip's `TextTransformer`; transformers' `SiglipTextModel`. What follows the wanted token of
//! a causal transformer changes nothing and is not computed. Without a causal mask the padding is a part of the input, and is.

use std::sync::Arc;

use crate::arch::shared::block::BlockForm;
use crate::arch::shared::names::{BlockNames, Blocks, learned};
use crate::arch::shared::transformer::{Transformer, TransformerForm, TransformerSizes};
use crate::checkpoint::Checkpoint;
use crate::device::{Device, Mask, Operation, TextNetwork, TokenEmbedding, Wanted};
use crate::error::Result;
use crate::nn::activation::Activation;
use crate::nn::precision::Precision;

/// Sizes and form of a text transformer.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TextArch {
    pub(crate) context_length: usize,
    pub(crate) vocabulary: usize,
    pub(crate) sizes: TransformerSizes,
    pub(crate) activation: Activation,
    pub(crate) epsilon: f32,
    /// Whether a token sees those up to itself only.
    pub(crate) causal: bool,
    pub(crate) pool: TextPool,
    /// Of a tower with a learned token behind each text, which is the feature whatever `pool` says: the id of padding.
    pub(crate) class_padding: Option<u32>,
}

/// Which token's row is the feature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TextPool {
    /// The first of the largest id: CLIP's end token.
    Largest,
    /// The first of this id, or the first token where there is none.
    Id(u32),
    First,
    Last,
}

impl TextPool {
    /// The place of the wanted token; texts have at least one.
    fn place(self, text: &[u32]) -> usize {
        let first = |wanted: Option<u32>| text.iter().position(|&id| Some(id) == wanted).unwrap_or(0);
        match self {
            Self::Largest => first(text.iter().max().copied()),
            Self::Id(id) => first(Some(id)),
            Self::First => 0,
            Self::Last => text.len().saturating_sub(1),
        }
    }
}

impl TextArch {
    /// The operations that it needs beside those of every device.
    pub(crate) fn operations(&self) -> Vec<Operation> {
        let anywhere = !self.causal && matches!(self.pool, TextPool::Largest | TextPool::Id(_));
        let pick = anywhere.then_some(Operation::PickAnywhere);
        let class = self.class_padding.map(|_| Operation::ClassBehindTexts);
        Operation::of_activation(self.activation).into_iter().chain(pick).chain(class).collect()
    }
}

/// Names of its tensors, each after the tower's prefix.
#[derive(Debug)]
pub(crate) struct TextNames {
    pub(crate) tokens: &'static str,
    pub(crate) positions: &'static str,
    pub(crate) norm: &'static str,
    pub(crate) blocks: &'static BlockNames,
}

/// OpenAI's and open_clip's.
pub(crate) static OPEN_CLIP_TEXT: TextNames = TextNames {
    tokens: "token_embedding.weight",
    positions: "positional_embedding",
    norm: "ln_final",
    blocks: &super::names::OPEN_CLIP_BLOCKS,
};

/// transformers', of CLIP and its successors.
pub(crate) static TRANSFORMERS_TEXT: TextNames = TextNames {
    tokens: "embeddings.token_embedding.weight",
    positions: "embeddings.position_embedding.weight",
    norm: "final_layer_norm",
    blocks: &super::names::TRANSFORMERS_BLOCKS,
};

/// The network, without the projection into the joint space.
pub(crate) struct TextTransformer<D: Device> {
    embedding: TokenEmbedding<D>,
    vocabulary: usize,
    causal: bool,
    pool: TextPool,
    transformer: Transformer<D>,
    norm: D::Norm,
}

impl<D: Device> TextTransformer<D> {
    /// Takes the tensors under `prefix`; `arch` must have been checked.
    pub(crate) fn load(
        device: &D,
        checkpoint: &Arc<Checkpoint>,
        prefix: &str,
        names: &TextNames,
        arch: &TextArch,
        precision: Precision,
    ) -> Result<Self> {
        let (width, vocabulary) = (arch.sizes.width, arch.vocabulary);
        let name = |part: &str| format!("{prefix}{part}");
        let positions = learned(checkpoint, &name(names.positions), &[arch.context_length, width])?;
        let (norm_weight, norm_bias) =
            checkpoint.weight_and_bias(&format!("{}.", name(names.norm)), &[width])?;
        Ok(Self {
            embedding: TokenEmbedding {
                table: device.token_table(checkpoint, &name(names.tokens), [vocabulary, width])?,
                width,
                positions: device.values(&positions)?,
                kind: None,
                scale: None,
                class: None,
            },
            vocabulary,
            causal: arch.causal,
            pool: arch.pool,
            transformer: Transformer::load(
                device,
                &Blocks::new(checkpoint, prefix, names.blocks, precision),
                TransformerForm {
                    sizes: arch.sizes,
                    activation: arch.activation,
                    epsilon: arch.epsilon,
                    mask: if arch.causal { Mask::Causal } else { Mask::None },
                    // Of a causal transformer, or with the last token wanted, texts end at the wanted token.
                    wanted: Some(match (arch.causal, arch.pool) {
                        (true, _) | (_, TextPool::Last) => Wanted::Last,
                        (_, TextPool::First) => Wanted::First,
                        _ => Wanted::Anywhere,
                    }),
                    blocks: BlockForm::CLIP,
                },
            )?,
            norm: device.norm(&norm_weight, &norm_bias, arch.epsilon)?,
        })
    }
}

impl<D: Device> TextNetwork<D> for TextTransformer<D> {
    fn width(&self) -> usize {
        self.embedding.width
    }

    fn vocabulary(&self) -> usize {
        self.vocabulary
    }

    fn takes_context(&self) -> bool {
        self.causal
    }

    fn forward(&self, run: &mut D::Run<'_>, texts: &[&[u32]], context: &[f32]) -> D::Rows {
        let places: Vec<usize> = texts.iter().map(|text| self.pool.place(text)).collect();
        let kept = |(text, &place): (&&'_ [u32], &usize)| match self.causal {
            true => text.get(..=place).map_or(0, <[u32]>::len),
            false => text.len(),
        };
        let lengths: Vec<usize> = texts.iter().zip(&places).map(kept).collect();
        let texts: Vec<&[u32]> = texts.iter().zip(&lengths).map(|(text, &length)| &text[..length]).collect();
        let x = D::embed_tokens(run, &self.embedding, &texts, context);
        let mut pooled = self.transformer.forward_wanted(run, x, &lengths, &places);
        D::norm_in_place(run, &self.norm, &mut pooled);
        pooled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wanted_token() {
        let text = [7, 3, 9, 9, 0];
        for (pool, place) in [
            (TextPool::Largest, 2),
            (TextPool::Id(3), 1),
            (TextPool::Id(4), 0),
            (TextPool::First, 0),
            (TextPool::Last, 4),
        ] {
            assert_eq!(pool.place(&text), place, "{pool:?}");
        }
    }
}
