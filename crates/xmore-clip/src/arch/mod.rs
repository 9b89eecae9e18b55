//! The architectures: a folder for each, from its configuration by way of its weights to its towers, and a row in [`ARCHITECTURES`].

mod chinese_clip;
mod clip;
mod convnext;
mod eva;
mod fastvit;
mod lite;
mod mobileclip;
mod naflex;
mod parts;
mod shared;
mod siglip;
mod timm_vit;

use std::path::{Path, PathBuf};

use serde_json::Value;

pub use lite::{LITE_FILES, LITE2_FILES};
pub(crate) use parts::{Facts, Head, HeadPerceptron, ImagePart, Opened, TextPart, TokenizerLoader};

use crate::checkpoint::Checkpoint;
use crate::error::{ClipError, Result};
use crate::options::LoadOptions;

/// Name of open_clip's configuration file in a model folder.
pub const CONFIG_FILE: &str = "open_clip_config.json";
/// The part of a folder of open_clip's for the small files that its configuration takes from other repositories: the `config.json` of
/// a text tower of transformers', and a tokenizer.
pub const TEXT_TOWER_FOLDER: &str = "hf_text";
/// transformers' configuration file.
pub(crate) const TRANSFORMERS_CONFIG: &str = "config.json";

/// A kind of model that can be loaded.
#[derive(Debug)]
pub struct Architecture {
    name: &'static str,
    summary: &'static str,
    /// Whether a file or folder holds such a model.
    detect: fn(&Found) -> bool,
    /// Reads what is known before the towers are loaded.
    open: fn(Found, &LoadOptions) -> Result<Opened>,
}

/// All architectures, in the order in which their `detect` is called.
///
/// The last one takes what no other does; its errors say what is missing.
pub static ARCHITECTURES: &[Architecture] = &[
    lite::ARCHITECTURE,
    siglip::ARCHITECTURE,
    naflex::ARCHITECTURE,
    eva::ARCHITECTURE,
    timm_vit::ARCHITECTURE,
    mobileclip::ARCHITECTURE,
    convnext::ARCHITECTURE,
    fastvit::ARCHITECTURE,
    chinese_clip::ARCHITECTURE,
    clip::ARCHITECTURE,
];

impl Architecture {
    /// Its short name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Its towers and the forms it is read in, in one line.
    pub fn summary(&self) -> &'static str {
        self.summary
    }
}

/// What a path holds, as far as it tells the architecture.
pub(crate) enum Found {
    /// A checkpoint file, whose tensors' names and shapes are known.
    File(Box<Checkpoint>),
    /// A folder with a configuration, which is read once for all rows.
    Folder { dir: PathBuf, form: ConfigForm, config: Value },
}

/// Whose configuration a model folder has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ConfigForm {
    OpenClip,
    Transformers,
}

impl ConfigForm {
    /// The configuration's file name.
    pub(crate) fn file_name(self) -> &'static str {
        match self {
            Self::OpenClip => CONFIG_FILE,
            Self::Transformers => TRANSFORMERS_CONFIG,
        }
    }
}

impl Found {
    fn read(path: &Path) -> Result<Self> {
        if path.is_file() {
            return Ok(Self::File(Box::new(Checkpoint::open(path)?)));
        }
        let forms = [ConfigForm::OpenClip, ConfigForm::Transformers];
        match forms.into_iter().find(|form| path.join(form.file_name()).is_file()) {
            Some(form) => {
                let config = shared::read_json(&path.join(form.file_name()))?;
                Ok(Self::Folder { dir: path.to_owned(), form, config })
            }
            None => Err(ClipError::MissingFile {
                dir: path.to_owned(),
                file: format!("{CONFIG_FILE} (or transformers' {TRANSFORMERS_CONFIG})"),
                named_by: None,
            }),
        }
    }

    /// The value at a JSON pointer of the configuration, if it is of that form and has one.
    pub(crate) fn value(&self, form: ConfigForm, pointer: &str) -> Option<&Value> {
        match self {
            Self::Folder { form: found, config, .. } if *found == form => config.pointer(pointer),
            _ => None,
        }
    }

    /// The folder, if its configuration is of that form.
    ///
    /// # Errors
    /// [`ClipError::Config`] or [`ClipError::Checkpoint`] if it is of another.
    pub(crate) fn folder(self, form: ConfigForm) -> Result<PathBuf> {
        match self {
            Self::Folder { dir, form: found, .. } if found == form => Ok(dir),
            Self::Folder { dir, form: found, .. } => {
                let message = format!("expected {} beside it", form.file_name());
                Err(ClipError::config(&dir.join(found.file_name()), message))
            }
            Self::File(checkpoint) => Err(ClipError::checkpoint(checkpoint.path(), "expected a folder")),
        }
    }

    /// The name of timm's image tower, if it is a folder with open_clip's configuration that names one.
    pub(crate) fn timm_model_name(&self) -> Option<&str> {
        self.value(ConfigForm::OpenClip, "/model_cfg/vision_cfg/timm_model_name")?.as_str()
    }

    /// transformers' `model_type`, if it is a folder with transformers' configuration.
    pub(crate) fn model_type(&self) -> Option<&str> {
        self.value(ConfigForm::Transformers, "/model_type")?.as_str()
    }
}

/// Finds the architecture of a model folder or checkpoint file and opens it.
pub(crate) fn open(path: &Path, options: &LoadOptions) -> Result<(&'static Architecture, Opened)> {
    let found = Found::read(path)?;
    for architecture in ARCHITECTURES {
        if (architecture.detect)(&found) {
            return Ok((architecture, (architecture.open)(found, options)?));
        }
    }
    unreachable!("the last architecture takes every model")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Model;

    /// The architecture of a fixture.
    fn of(fixture: &str) -> &'static str {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(fixture);
        Model::load(path).unwrap().architecture().name()
    }

    #[test]
    fn every_form_of_a_model_is_of_its_architecture() {
        assert_eq!(of("tiny"), "lite");
        for form in ["open_clip", "transformers"] {
            assert_eq!(of(&format!("clip/vit_gelu/{form}")), "clip", "{form}");
        }
        assert_eq!(of("clip/rn/openai.pt"), "clip");
    }

    #[test]
    fn each_row_has_a_name_of_its_own_and_the_last_takes_every_folder() {
        let names: std::collections::BTreeSet<_> = ARCHITECTURES.iter().map(Architecture::name).collect();
        assert_eq!(names.len(), ARCHITECTURES.len());
        assert!(ARCHITECTURES.iter().all(|row| !row.summary().is_empty()));
        let last = ARCHITECTURES.last().unwrap();
        for form in [ConfigForm::OpenClip, ConfigForm::Transformers] {
            assert!((last.detect)(&Found::Folder { dir: "nowhere".into(), form, config: Value::Null }));
        }
    }
}
