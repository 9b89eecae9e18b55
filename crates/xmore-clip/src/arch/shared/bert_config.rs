//! transformers' `config.json` of BERT and its successors, or what a published model's name and the tensors' shapes say in its place.
//!
//! Reference: transformers, `configuration_bert.py`, `configuration_roberta.py`, `configuration_xlm_roberta.py`, whose defaults fill what a file
//! leaves out.

use std::path::Path;

use crate::arch::shared::bert::{BertArch, BertPool, Numbering, POSITIONS, TYPES, WORDS};
use crate::arch::shared::limits::check_bert;
use crate::arch::shared::transformer::TransformerSizes;
use crate::arch::shared::transformers::TowerConfig;
use crate::checkpoint::Checkpoint;
use crate::error::{ClipError, Result};
use crate::nn::activation::Activation;

/// A kind of such networks.
#[derive(Debug)]
pub(crate) struct BertKind {
    /// transformers' `model_type`.
    model_type: &'static str,
    /// What it is called.
    pub(crate) name: &'static str,
    /// Whether positions count from behind the padding token's id.
    counts_from_padding: bool,
    padding: u32,
}

static BERT: BertKind = BertKind { model_type: "bert", name: "BERT", counts_from_padding: false, padding: 0 };
static ROBERTA: BertKind =
    BertKind { model_type: "roberta", name: "RoBERTa", counts_from_padding: true, padding: 1 };
static XLM_ROBERTA: BertKind = BertKind { model_type: "xlm-roberta", name: "XLM-RoBERTa", ..ROBERTA };
/// Chinese-CLIP's text tower, a part of a larger configuration.
static CHINESE_CLIP: BertKind = BertKind { model_type: "chinese_clip_text_model", ..BERT };

static KINDS: [&BertKind; 4] = [&BERT, &ROBERTA, &XLM_ROBERTA, &CHINESE_CLIP];

/// transformers' epsilon of BERT where a file has none.
const BERT_EPSILON: f32 = 1e-12;

impl BertKind {
    fn numbering(&self, padding: u32) -> Numbering {
        match self.counts_from_padding {
            true => Numbering::From(padding as usize + 1),
            false => Numbering::Place,
        }
    }
}

/// The network that a configuration describes, pooled as `pool` says. One that names no type is BERT's.
///
/// # Errors
/// [`ClipError::Config`] for what is not known of it, or sizes that make no sense.
pub(crate) fn read_bert(
    path: &Path,
    config: &TowerConfig,
    pool: BertPool,
) -> Result<(&'static BertKind, BertArch)> {
    let model_type = config.model_type.as_deref().unwrap_or(BERT.model_type);
    let Some(&kind) = KINDS.iter().find(|kind| kind.model_type == model_type) else {
        let known = KINDS.map(|kind| format!("{:?}", kind.model_type)).join(", ");
        return Err(ClipError::config(
            path,
            format!("model_type is {model_type:?}, expected one of {known}"),
        ));
    };
    if let Some(other) = config.position_embedding_type.as_deref().filter(|&found| found != "absolute") {
        let message = format!("position_embedding_type is {other:?}, expected \"absolute\"");
        return Err(ClipError::config(path, message));
    }
    let padding = config.pad_token_id.unwrap_or(kind.padding);
    let arch = BertArch {
        vocabulary: config.vocab_size.unwrap_or(30522),
        positions: config.max_position_embeddings.unwrap_or(512),
        kinds: config.type_vocab_size.unwrap_or(2),
        sizes: config.sizes([768, 3072, 12, 12]),
        activation: config.activation(path, None, Activation::Gelu)?,
        epsilon: config.layer_norm_eps.unwrap_or(BERT_EPSILON),
        numbering: kind.numbering(padding),
        padding: Some(padding),
        pool,
    };
    check_bert(path, &arch)?;
    Ok((kind, arch))
}

/// What tensors' shapes do not say of a published model. All of these have heads of 64.
struct Published {
    /// Names on the hub.
    names: &'static [&'static str],
    kind: &'static BertKind,
    epsilon: f32,
}

static PUBLISHED: &[Published] = &[
    Published {
        names: &[
            "microsoft/BiomedNLP-BiomedBERT-base-uncased-abstract",
            "microsoft/BiomedNLP-PubMedBERT-base-uncased-abstract",
            "microsoft/BiomedNLP-BiomedBERT-base-uncased-abstract-fulltext",
            "microsoft/BiomedNLP-PubMedBERT-base-uncased-abstract-fulltext",
            "bert-base-uncased",
            "google-bert/bert-base-uncased",
        ],
        kind: &BERT,
        epsilon: BERT_EPSILON,
    },
    Published { names: &["roberta-base", "FacebookAI/roberta-base"], kind: &ROBERTA, epsilon: 1e-5 },
    Published {
        names: &[
            "xlm-roberta-base",
            "xlm-roberta-large",
            "FacebookAI/xlm-roberta-base",
            "FacebookAI/xlm-roberta-large",
        ],
        kind: &XLM_ROBERTA,
        epsilon: 1e-5,
    },
];

/// Width of a published model's heads.
const HEAD_WIDTH: usize = 64;

/// The network of a published name, with the sizes that the tensors under `prefix` have; none for a name that is not known.
///
/// # Errors
/// [`ClipError::Config`], naming the checkpoint, for sizes that make no sense or are missing.
pub(crate) fn infer_bert(
    checkpoint: &Checkpoint,
    prefix: &str,
    name: &str,
    pool: BertPool,
) -> Result<Option<(&'static BertKind, BertArch)>> {
    let Some(&Published { kind, epsilon, .. }) = PUBLISHED.iter().find(|known| known.names.contains(&name))
    else {
        return Ok(None);
    };
    let shape = |part: &str| checkpoint.shape(&format!("{prefix}{part}")).unwrap_or_default();
    let rows = |part: &str| shape(part).first().copied().unwrap_or(0);
    let width = shape(WORDS).get(1).copied().unwrap_or(0);
    let layer = |n: usize| format!("{prefix}encoder.layer.{n}.output.LayerNorm.weight");
    let arch = BertArch {
        vocabulary: rows(WORDS),
        positions: rows(POSITIONS),
        kinds: rows(TYPES),
        sizes: TransformerSizes {
            width,
            heads: width / HEAD_WIDTH,
            layers: (0..).take_while(|&n| checkpoint.contains(&layer(n))).count(),
            mlp_width: rows("encoder.layer.0.intermediate.dense.bias"),
        },
        activation: Activation::Gelu,
        epsilon,
        numbering: kind.numbering(kind.padding),
        padding: Some(kind.padding),
        pool,
    };
    check_bert(checkpoint.path(), &arch)?;
    Ok(Some((kind, arch)))
}
