//! CoOp's learned prompts (Zhou et al. 2022, arXiv 2109.01134): context vectors from the authors' checkpoint, in front of each label.

use std::path::Path;

use xmore_clip::{Checkpoint, ClipError, Embeddings, Model};

use crate::error::{EvalError, Result};
use xmore::Labels;

/// Where the vectors are: CoOp saves its prompt learner alone, others the whole trainer.
const NAMES: [&str; 2] = ["ctx", "prompt_learner.ctx"];

/// Context vectors for all labels, `[tokens, width]`.
#[derive(Clone, Debug, PartialEq)]
pub struct CoopContext {
    vectors: Vec<f32>,
    width: usize,
}

impl CoopContext {
    /// Reads `model.pth.tar-50` of CoOp, or any checkpoint with a tensor `ctx` `[tokens, width]`. Nothing in it is executed.
    ///
    /// # Errors
    /// Those of [`Checkpoint::open`]; [`ClipError::MissingTensor`]; [`EvalError::Coop`] for vectors of each class of its own.
    pub fn read(path: &Path) -> Result<Self> {
        let checkpoint = Checkpoint::open(path)?;
        let name = NAMES.into_iter().find(|name| checkpoint.contains(name)).unwrap_or(NAMES[0]);
        let shape = checkpoint.shape(name).map(<[usize]>::to_vec);
        match shape.as_deref() {
            // Asked for by any shape, a tensor that is not there gives the error that names those that are.
            None => Err(checkpoint.tensor(name, &[]).map(drop).err().map_or_else(
                || EvalError::Coop { path: path.to_owned(), found: "nothing".to_owned() },
                |error: ClipError| error.into(),
            )),
            Some(&[_, width]) if width > 0 => {
                let vectors = checkpoint.tensor(name, shape.as_deref().unwrap_or_default())?.into_owned();
                Ok(Self { vectors, width })
            }
            Some(shape) => Err(EvalError::Coop { path: path.to_owned(), found: format!("{shape:?}") }),
        }
    }

    /// That a model takes such vectors, before there is more to do.
    ///
    /// # Errors
    /// As [`CoopContext::embed`].
    pub fn check(&self, model: &Model) -> Result<()> {
        model.encode_texts_with_context(&self.vectors, self.width, &["."])?;
        Ok(())
    }

    /// Unit label embeddings `[C, dim]` of the prompts "context label.", as CoOp makes them with the class at the end.
    ///
    /// # Errors
    /// Those of [`Model::encode_texts_with_context`].
    pub fn embed(&self, model: &Model, labels: &Labels) -> Result<Embeddings> {
        let prompts: Vec<String> = labels.names().iter().map(|name| format!("{name}.")).collect();
        Ok(model.encode_texts_with_context(&self.vectors, self.width, &prompts)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A safetensors file of one tensor of ones.
    fn checkpoint(dir: &Path, name: &str, shape: &[usize]) -> std::path::PathBuf {
        let values = shape.iter().product::<usize>();
        let header =
            format!(r#"{{"{name}":{{"dtype":"F32","shape":{shape:?},"data_offsets":[0,{}]}}}}"#, values * 4);
        let data = vec![1f32; values].iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
        let path = dir.join("ctx.safetensors");
        std::fs::write(&path, [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &data].concat())
            .unwrap();
        path
    }

    #[test]
    fn context_vectors_are_found_by_either_name() {
        let dir = tempfile::tempdir().unwrap();
        for name in NAMES {
            let context = CoopContext::read(&checkpoint(dir.path(), name, &[4, 8])).unwrap();
            assert_eq!((context.vectors.len(), context.width), (32, 8));
        }
        let error = CoopContext::read(&checkpoint(dir.path(), "ctx", &[3, 4, 8])).unwrap_err().to_string();
        assert!(error.contains("[3, 4, 8]") && error.contains("[tokens, width]"), "{error}");
        let error = CoopContext::read(&checkpoint(dir.path(), "other", &[4, 8])).unwrap_err().to_string();
        assert!(error.contains("ctx") && error.contains("other"), "{error}");
    }
}
