//! Sizes that make sense, checked before anything is allocated by them.

use std::path::Path;

use crate::arch::shared::bert::BertArch;
use crate::arch::shared::query_pool::QueryPoolArch;
use crate::arch::shared::rotary::RotaryPositions;
use crate::arch::shared::text::TextArch;
use crate::arch::shared::transformer::TransformerSizes;
use crate::arch::shared::vit::{Pool, VitArch};
use crate::error::{ClipError, Result};

/// Checks that a number lies in 1 to `max`; `path` is the file where it was read.
pub(crate) fn check_range(path: &Path, name: &str, n: usize, max: usize) -> Result<()> {
    if (1..=max).contains(&n) {
        return Ok(());
    }
    Err(ClipError::config(path, format!("{name} is {n}, expected 1 to {max}")))
}

/// Checks the length of an embedding and the side of an image, in pixels.
pub(crate) fn check_dim_and_side(path: &Path, dim: usize, side: usize) -> Result<()> {
    check_range(path, "the embedding's length", dim, 1 << 16)?;
    check_range(path, "the image size", side, 4096)
}

/// Checks the epsilon of a tower's norms, without which rows of one value have no norm.
fn check_epsilon(path: &Path, tower: &str, epsilon: f32) -> Result<()> {
    if epsilon > 0.0 && epsilon <= 1.0 {
        return Ok(());
    }
    Err(ClipError::config(
        path,
        format!("the epsilon of the {tower} tower's norms is {epsilon}, expected more than 0 and at most 1"),
    ))
}

/// Checks a vision transformer's sizes.
pub(crate) fn check_vit(path: &Path, arch: &VitArch) -> Result<()> {
    check_sizes("image", &arch.sizes, path)?;
    check_epsilon(path, "image", arch.epsilon)?;
    check_range(path, "the image size", arch.image_size, 4096)?;
    check_range(path, "the patch size", arch.patch, arch.image_size)?;
    let TransformerSizes { width, heads, .. } = arch.sizes;
    if arch.blocks.rotary.is_some() && !(width / heads).is_multiple_of(RotaryPositions::WIDTH_UNIT) {
        let message = format!(
            "the image tower has rotary positions and a width of {width} in {heads} heads, expected heads as wide as a multiple of {}",
            RotaryPositions::WIDTH_UNIT
        );
        return Err(ClipError::config(path, message));
    }
    let pooling = match arch.pool {
        Pool::Class | Pool::Mean => return Ok(()),
        Pool::Attention { heads, mlp_width } => TransformerSizes { heads, mlp_width, ..arch.sizes },
        Pool::Query(QueryPoolArch { queries, heads, width }) => {
            check_range(path, "the number of queries", queries, 1 << 14)?;
            TransformerSizes { heads, width, ..arch.sizes }
        }
    };
    check_sizes("attention pooling of the image", &pooling, path)
}

/// Checks a text transformer's sizes.
pub(crate) fn check_text(path: &Path, arch: &TextArch) -> Result<()> {
    check_sizes("text", &arch.sizes, path)?;
    check_epsilon(path, "text", arch.epsilon)?;
    check_range(path, "the context length", arch.context_length, 1 << 16)?;
    check_range(path, "the vocabulary", arch.vocabulary, 1 << 24)?;
    match arch.class_padding {
        Some(id) if id as usize >= arch.vocabulary => {
            let message = format!("the id of padding is {id}, expected less than {}", arch.vocabulary);
            Err(ClipError::config(path, message))
        }
        _ => Ok(()),
    }
}

/// Checks BERT's sizes.
pub(crate) fn check_bert(path: &Path, arch: &BertArch) -> Result<()> {
    check_sizes("text", &arch.sizes, path)?;
    check_epsilon(path, "text", arch.epsilon)?;
    check_range(path, "the number of positions", arch.positions, 1 << 16)?;
    check_range(path, "the number of token types", arch.kinds, 1 << 10)?;
    check_range(path, "the vocabulary", arch.vocabulary, 1 << 24)
}

/// Checks that there is a position for each token of a text; `path` is the file that asks for that context length.
pub(crate) fn check_bert_context(path: &Path, arch: &BertArch, context_length: usize) -> Result<()> {
    let most = arch.positions.saturating_sub(arch.numbering.first());
    if (3..=most).contains(&context_length) {
        return Ok(());
    }
    Err(ClipError::config(
        path,
        format!(
            "the context length is {context_length}, expected 3 to {most}, for which the text tower has positions"
        ),
    ))
}

/// Checks a transformer's sizes; `tower` says whose.
pub(crate) fn check_sizes(tower: &str, sizes: &TransformerSizes, path: &Path) -> Result<()> {
    let &TransformerSizes { width, heads, layers, mlp_width } = sizes;
    let limits = [(width, 1 << 14), (heads, 1 << 10), (layers, 256), (mlp_width, 1 << 17)];
    if limits.iter().any(|&(n, max)| !(1..=max).contains(&n)) || !width.is_multiple_of(heads) {
        let message = format!(
            "the {tower} tower has {layers} layers of width {width} in {heads} heads with an inner width of {mlp_width}"
        );
        return Err(ClipError::config(path, message));
    }
    Ok(())
}
