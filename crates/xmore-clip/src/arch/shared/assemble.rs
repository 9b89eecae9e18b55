//! A model of two parts that share one checkpoint.

use std::path::{Path, PathBuf};

use crate::arch::shared::file_name;
use crate::arch::shared::limits::check_dim_and_side;
use crate::arch::shared::preprocessor_config;
use crate::arch::{Facts, ImagePart, Opened, TextPart};
use crate::checkpoint::Checkpoint;
use crate::device::Place;
use crate::error::{ClipError, Result};
use crate::options::LoadOptions;
use crate::preprocess::{Preprocess, PreprocessConfig};

/// The first of these weights files that a folder has.
///
/// # Errors
/// [`ClipError::MissingFile`] if it has none; those of [`Checkpoint::open`].
pub(crate) fn open_weights(dir: &Path, candidates: &[&str]) -> Result<Checkpoint> {
    match candidates.iter().find(|file| dir.join(file).is_file()) {
        Some(file) => Checkpoint::open(dir.join(file)),
        None => {
            Err(ClipError::MissingFile { dir: dir.to_owned(), file: candidates.join(" or "), named_by: None })
        }
    }
}

/// What a model is made of.
pub(crate) struct Parts {
    /// Length of the joint embedding.
    pub(crate) dim: usize,
    pub(crate) preprocess: PreprocessConfig,
    pub(crate) image: ImagePart,
    pub(crate) text: TextPart,
    /// The configuration, where there is one.
    pub(crate) config: Option<PathBuf>,
}

/// Reads what the towers have in common and opens the device.
///
/// # Errors
/// Those of reading `logit_scale` and `logit_bias`, and of [`Place::open`].
pub(crate) fn assemble(checkpoint: &Checkpoint, parts: Parts, options: &LoadOptions) -> Result<Opened> {
    let Parts { dim, preprocess, image, text, config } = parts;
    check_dim_and_side(config.as_deref().unwrap_or(checkpoint.path()), dim, image.image_size)?;
    let scalar = |name: &str| {
        let shape: &[usize] = if checkpoint.shape(name) == Some(&[1]) { &[1] } else { &[] };
        Ok::<f32, ClipError>(checkpoint.tensor(name, shape)?[0])
    };
    let logit_bias = if checkpoint.contains("logit_bias") { scalar("logit_bias")? } else { 0.0 };
    let files = config.as_deref().into_iter().chain(checkpoint.files()).map(file_name).collect();
    let beside = if config.is_some() { beside(checkpoint, &text) } else { Vec::new() };
    let facts = Facts {
        dim,
        logit_scale: scalar("logit_scale")?.exp(),
        logit_bias,
        preprocess: Preprocess::new(image.image_size, preprocess),
        towers: [image.description, text.description],
        context_length: text.context_length,
        cleaning: text.cleaning,
        files,
        beside,
    };
    let operations = [image.operations, text.operations].concat();
    Ok(Opened {
        facts,
        place: Place::open(options, &operations)?,
        image: image.loader,
        text: text.loader,
        tokenizer: text.tokenizer,
    })
}

/// Files of a folder that are read beside configuration and weights.
fn beside(checkpoint: &Checkpoint, text: &TextPart) -> Vec<String> {
    let index = file_name(checkpoint.path());
    [index.as_str(), preprocessor_config::FILE, preprocessor_config::NESTED_FILE]
        .map(str::to_owned)
        .into_iter()
        .chain(text.beside.clone())
        .collect()
}
