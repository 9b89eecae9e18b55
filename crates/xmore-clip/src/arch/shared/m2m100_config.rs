//! transformers' `config.json` of M2M100 and NLLB, or what a published model's name and the tensors' shapes say in its place.
//!
//! Reference: transformers, `configuration_m2m_100.py`, whose defaults fill what a file leaves out.

use std::path::Path;

use serde::Deserialize;

use crate::arch::shared::limits::{check_range, check_sizes};
use crate::arch::shared::m2m100::{M2M100_BLOCKS, M2m100Arch, TOKENS};
use crate::arch::shared::names::Blocks;
use crate::arch::shared::read_json;
use crate::arch::shared::transformer::TransformerSizes;
use crate::checkpoint::Checkpoint;
use crate::error::{ClipError, Result};
use crate::nn::precision::Precision;

/// transformers' `model_type`.
const MODEL_TYPE: &str = "m2m_100";

/// Names on the hub of models whose tensors' shapes say all that differs between them.
const PUBLISHED: [&str; 2] = ["facebook/nllb-200-distilled-600M", "facebook/nllb-200-distilled-1.3B"];
/// Their heads, and the token of padding.
const HEADS: usize = 16;
const PADDING: u32 = 1;

/// Whether a tower with a configuration of this `model_type`, or else one of that name without a configuration, is M2M100's.
pub(crate) fn is_m2m100(config: Option<Option<&str>>, name: &str) -> bool {
    match config {
        Some(model_type) => model_type == Some(MODEL_TYPE),
        None => PUBLISHED.contains(&name),
    }
}

/// The encoder's keys.
#[derive(Deserialize)]
#[serde(default)]
struct File {
    vocab_size: usize,
    d_model: usize,
    encoder_layers: usize,
    encoder_attention_heads: usize,
    encoder_ffn_dim: usize,
    activation_function: String,
    scale_embedding: bool,
    pad_token_id: u32,
}

impl Default for File {
    fn default() -> Self {
        Self {
            vocab_size: 128_112,
            d_model: 1024,
            encoder_layers: 12,
            encoder_attention_heads: 16,
            encoder_ffn_dim: 4096,
            activation_function: "relu".to_owned(),
            scale_embedding: true,
            pad_token_id: PADDING,
        }
    }
}

/// The encoder that a configuration describes.
///
/// # Errors
/// [`ClipError::Config`] for what is not known of it, or sizes that make no sense.
pub(crate) fn read_m2m100(path: &Path) -> Result<M2m100Arch> {
    let file: File = read_json(path)?;
    if file.activation_function != "relu" {
        let message = format!("activation_function is {:?}, expected \"relu\"", file.activation_function);
        return Err(ClipError::config(path, message));
    }
    let arch = M2m100Arch {
        vocabulary: file.vocab_size,
        sizes: TransformerSizes {
            width: file.d_model,
            heads: file.encoder_attention_heads,
            layers: file.encoder_layers,
            mlp_width: file.encoder_ffn_dim,
        },
        scaled: file.scale_embedding,
        padding: file.pad_token_id,
    };
    check(path, &arch)?;
    Ok(arch)
}

/// The encoder of a published name, with the sizes that the tensors under `prefix` have.
///
/// # Errors
/// [`ClipError::Config`], naming the checkpoint, for sizes that make no sense or are missing.
pub(crate) fn infer_m2m100(checkpoint: &Checkpoint, prefix: &str) -> Result<M2m100Arch> {
    let table = checkpoint.shape(&format!("{prefix}{TOKENS}")).unwrap_or_default();
    let blocks = Blocks::new(checkpoint, prefix, &M2M100_BLOCKS, Precision::F32);
    let arch = M2m100Arch {
        vocabulary: table.first().copied().unwrap_or(0),
        sizes: TransformerSizes {
            width: table.get(1).copied().unwrap_or(0),
            heads: HEADS,
            layers: blocks.count(),
            mlp_width: blocks.mlp_width(0).unwrap_or(0),
        },
        scaled: true,
        padding: PADDING,
    };
    check(checkpoint.path(), &arch)?;
    Ok(arch)
}

/// Checks the sizes before anything is allocated by them.
fn check(path: &Path, arch: &M2m100Arch) -> Result<()> {
    check_sizes("text", &arch.sizes, path)?;
    check_range(path, "the vocabulary", arch.vocabulary, 1 << 24)?;
    let width = arch.sizes.width;
    if width < 4 || !width.is_multiple_of(2) {
        let message = format!("the text tower's width is {width}, expected an even one of at least 4");
        return Err(ClipError::config(path, message));
    }
    if arch.padding as usize >= arch.vocabulary {
        let message = format!("pad_token_id is {}, expected less than {}", arch.padding, arch.vocabulary);
        return Err(ClipError::config(path, message));
    }
    Ok(())
}
