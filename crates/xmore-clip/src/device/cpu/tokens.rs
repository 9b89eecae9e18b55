//! Token embeddings: rows of a table that stays in the checkpoint's mapped file.

use std::sync::Arc;

use crate::checkpoint::Checkpoint;
use crate::device::TokenEmbedding;
use crate::error::Result;

use super::Cpu;

/// A checkpoint's tensor of tokens' rows.
pub(crate) struct MappedTable {
    checkpoint: Arc<Checkpoint>,
    name: String,
}

impl MappedTable {
    /// # Errors
    /// There is no such tensor, or it has another shape.
    pub(super) fn new(checkpoint: &Arc<Checkpoint>, name: &str, shape: [usize; 2]) -> Result<Self> {
        checkpoint.rows(name, shape)?;
        Ok(Self { checkpoint: Arc::clone(checkpoint), name: name.to_owned() })
    }
}

/// The rows of all texts' tokens, `[tokens, width]`; those of `context`, `[replaced, width]`, stand for the tokens behind the first.
pub(super) fn embed(layer: &TokenEmbedding<Cpu>, texts: &[&[u32]], context: &[f32]) -> Vec<f32> {
    let width = layer.width;
    let replaced = 1..1 + context.len() / width;
    let mut x = vec![0.0; texts.iter().map(|text| text.len()).sum::<usize>() * width];
    let mut rows = x.chunks_exact_mut(width);
    for text in texts {
        for ((place, &id), row) in text.iter().enumerate().zip(rows.by_ref()) {
            if let Some(class) = layer.class.as_ref().filter(|class| class.id == id) {
                row.copy_from_slice(&class.row);
                continue;
            }
            if replaced.contains(&place) {
                row.copy_from_slice(&context[(place - 1) * width..place * width]);
            } else {
                layer.table.checkpoint.add_row(&layer.table.name, id as usize, row);
                if let Some(scale) = layer.scale {
                    row.iter_mut().for_each(|x| *x *= scale);
                }
            }
            let position = &layer.positions[place * width..(place + 1) * width];
            for values in layer.kind.as_deref().into_iter().chain([position]) {
                row.iter_mut().zip(values).for_each(|(x, v)| *x += v);
            }
        }
    }
    x
}
