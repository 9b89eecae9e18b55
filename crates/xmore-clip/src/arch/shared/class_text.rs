//! CoCa's text transformer: a causal one, with a learned token behind each text, which is the feature.
//!
//! Reference: open_clip's `TextTransformer` with `embed_cls`. Texts are padded to the context length, and the learned token stands behind the
//! padding. Its mask of padding, one place off, is what published models were trained with: a token is seen if the one before it is not
//! padding. So the token behind a text's end is seen, which is padding or, of a text that fills the context, the learned one; the learned token
//! itself sees those and, apart from that, is not seen.

use std::sync::Arc;

use crate::arch::shared::block::BlockForm;
use crate::arch::shared::names::{Blocks, learned};
use crate::arch::shared::padding::{gaps, keep};
use crate::arch::shared::text::{TextArch, TextNames};
use crate::arch::shared::transformer::{Transformer, TransformerForm};
use crate::checkpoint::Checkpoint;
use crate::device::{ClassRow, Device, Mask, TextNetwork, TokenEmbedding, Wanted};
use crate::error::Result;
use crate::nn::precision::Precision;

/// The learned token, after the tower's prefix.
const CLASS: &str = "cls_emb";

/// The network, without the projection into the joint space.
pub(crate) struct ClassText<D: Device> {
    embedding: TokenEmbedding<D>,
    vocabulary: usize,
    context_length: usize,
    /// The learned token's id, behind the vocabulary's last, and that of padding.
    class: u32,
    padding: u32,
    transformer: Transformer<D>,
    norm: D::Norm,
}

impl<D: Device> ClassText<D> {
    /// Takes the tensors under `prefix`; `arch` must have been checked. `padding` is its id.
    pub(crate) fn load(
        device: &D,
        checkpoint: &Arc<Checkpoint>,
        prefix: &str,
        names: &TextNames,
        arch: &TextArch,
        padding: u32,
        precision: Precision,
    ) -> Result<Self> {
        device.require(arch.operations())?;
        let TextArch { context_length, vocabulary, .. } = *arch;
        let width = arch.sizes.width;
        let name = |part: &str| format!("{prefix}{part}");
        let positions = learned(checkpoint, &name(names.positions), &[context_length + 1, width])?;
        let (positions, last) = positions.split_at(context_length * width);
        let token = learned(checkpoint, &name(CLASS), &[width])?;
        let row: Vec<f32> = token.iter().zip(last).map(|(token, position)| token + position).collect();
        let (norm_weight, norm_bias) =
            checkpoint.weight_and_bias(&format!("{}.", name(names.norm)), &[width])?;
        let class = vocabulary as u32;
        Ok(Self {
            embedding: TokenEmbedding {
                table: device.token_table(checkpoint, &name(names.tokens), [vocabulary, width])?,
                width,
                positions: device.values(positions)?,
                kind: None,
                scale: None,
                class: Some(ClassRow { id: class, row: device.values(&row)? }),
            },
            vocabulary,
            context_length,
            class,
            padding,
            transformer: Transformer::load(
                device,
                &Blocks::new(checkpoint, prefix, names.blocks, precision),
                TransformerForm {
                    sizes: arch.sizes,
                    activation: arch.activation,
                    epsilon: arch.epsilon,
                    mask: Mask::CausalWithoutLast,
                    wanted: Some(Wanted::Last),
                    blocks: BlockForm::CLIP,
                },
            )?,
            norm: device.norm(&norm_weight, &norm_bias, arch.epsilon)?,
        })
    }

    /// A text with the token behind its end, and the learned token.
    fn extended(&self, text: &[u32]) -> Vec<u32> {
        let next = if text.len() < self.context_length { self.padding } else { self.class };
        text.iter().copied().chain([next, self.class]).collect()
    }

    /// The places of an extended text's tokens that are seen, and the learned token's.
    fn places(&self, text: &[u32]) -> Vec<usize> {
        let behind = text.iter().enumerate().filter(|&(_, &id)| id != self.padding);
        [0].into_iter().chain(behind.map(|(place, _)| place + 1)).chain([text.len() + 1]).collect()
    }
}

impl<D: Device> TextNetwork<D> for ClassText<D> {
    fn width(&self) -> usize {
        self.embedding.width
    }

    fn vocabulary(&self) -> usize {
        self.vocabulary
    }

    fn forward(&self, run: &mut D::Run<'_>, texts: &[&[u32]], context: &[f32]) -> D::Rows {
        let places: Vec<Vec<usize>> = texts.iter().map(|text| self.places(text)).collect();
        let lengths: Vec<usize> = places.iter().map(Vec::len).collect();
        let texts: Vec<Vec<u32>> = texts.iter().map(|text| self.extended(text)).collect();
        let gaps = gaps(texts.iter().map(Vec::len), &places);
        let texts: Vec<&[u32]> = texts.iter().map(Vec::as_slice).collect();
        let x = D::embed_tokens(run, &self.embedding, &texts, context);
        let x = keep::<D>(run, x, &gaps);
        let mut pooled = self.transformer.forward(run, x, &lengths);
        D::norm_in_place(run, &self.norm, &mut pooled);
        pooled
    }
}
