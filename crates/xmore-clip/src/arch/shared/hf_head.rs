//! From the pooled row of a text tower of transformers' into the joint space, as open_clip has it behind such towers.

use std::path::Path;

use crate::arch::Head;
use crate::arch::shared::names::{perceptron_projection, projection};
use crate::checkpoint::Checkpoint;
use crate::device::Device;
use crate::error::{ClipError, Result};

/// Where open_clip's checkpoints have it.
const PROJECTION: &str = "text.proj";

/// The head, by its tensors' name.
#[derive(Clone, Copy)]
pub(crate) enum HfHead {
    None,
    Linear(&'static str),
    /// Two layers without biases, GELU between them.
    Perceptron(&'static str),
}

impl HfHead {
    /// By open_clip's name, from rows of `width` to rows of `dim`; `path` is the configuration.
    ///
    /// # Errors
    /// [`ClipError::Config`] for a name that is not known, or none where the widths differ.
    pub(crate) fn of(path: &Path, name: Option<&str>, width: usize, dim: usize) -> Result<Self> {
        match name {
            None if width == dim => Ok(Self::None),
            None => {
                let message = format!(
                    "text_cfg.hf_proj_type is null, but the tower's width is {width} and `embed_dim` {dim}"
                );
                Err(ClipError::config(path, message))
            }
            Some("linear") => Ok(Self::Linear(PROJECTION)),
            Some("mlp") => Ok(Self::Perceptron(PROJECTION)),
            Some(other) => {
                let message =
                    format!("text_cfg.hf_proj_type is {other:?}, expected \"linear\", \"mlp\" or null");
                Err(ClipError::config(path, message))
            }
        }
    }

    /// Takes its tensors.
    pub(crate) fn load<D: Device>(
        self,
        device: &D,
        checkpoint: &Checkpoint,
        width: usize,
        dim: usize,
    ) -> Result<Option<Head<D>>> {
        match self {
            Self::None => Ok(None),
            Self::Linear(name) => projection(device, checkpoint, name, width, dim).map(Some),
            Self::Perceptron(name) => perceptron_projection(device, checkpoint, name, width, dim).map(Some),
        }
    }
}
