//! BERT and its successors in a checkpoint as the text tower of a model.

use std::sync::Arc;

use crate::arch::shared::bert::{Bert, BertArch};
use crate::arch::shared::bert_config::BertKind;
use crate::arch::shared::hf_head::HfHead;
use crate::arch::shared::transformer::TransformerSizes;
use crate::arch::{TextPart, TokenizerLoader};
use crate::checkpoint::Checkpoint;
use crate::device::{BuildText, Device, TextTower};
use crate::error::Result;
use crate::nn::precision::Precision;
use crate::tokenizer::Cleaning;

/// The tower.
pub(crate) struct BertText {
    pub(crate) checkpoint: Arc<Checkpoint>,
    pub(crate) prefix: &'static str,
    pub(crate) kind: &'static BertKind,
    /// Checked sizes.
    pub(crate) arch: BertArch,
    pub(crate) context_length: usize,
    pub(crate) head: HfHead,
    pub(crate) dim: usize,
    pub(crate) precision: Precision,
}

impl BertText {
    /// The part of a model; `beside` are the files that it and its tokenizer are read from.
    pub(crate) fn part(
        self,
        tokenizer: TokenizerLoader,
        cleaning: Cleaning,
        beside: Vec<String>,
    ) -> TextPart {
        let (TransformerSizes { width, layers, .. }, activation) = (self.arch.sizes, self.arch.activation);
        TextPart {
            description: format!("{}, {layers} layers of {width}, {}", self.kind.name, activation.name()),
            context_length: self.context_length,
            operations: self.arch.operations(),
            tokenizer,
            cleaning: Some(cleaning),
            beside,
            loader: Box::new(self),
        }
    }
}

impl BuildText for BertText {
    fn build<D: Device>(&self, device: &D) -> Result<TextTower<D>> {
        let Self { checkpoint, prefix, arch, dim, precision, .. } = self;
        let head = self.head.load(device, checkpoint, arch.sizes.width, *dim)?;
        let network = Bert::load(device, checkpoint, prefix, arch, *precision)?;
        Ok(TextTower { network: Box::new(network), head })
    }
}
