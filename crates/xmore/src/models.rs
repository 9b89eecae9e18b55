//! Models by name: where they lie and which memory belongs to them.

use std::ops::Deref;
use std::path::{Path, PathBuf};

use xmore_clip::Model;
use xmore_memory::Memory;
use xmore_memory::store::ModelIdentity;

use crate::error::{Result, XmoreError};
use crate::fetch::{cache, lite};

/// The bundled model's name, and the default.
pub const LITE: &str = lite::NAME;

/// A model that knows the name it was asked for by.
pub struct NamedModel {
    name: String,
    model: Model,
}

impl NamedModel {
    /// Opens `lite` from the cache folder, or a model folder by `local-dir:PATH` or a path with a slash.
    ///
    /// # Errors
    /// [`XmoreError::UnknownModel`]; for `lite` an error that says what is missing and how to fetch it; those of [`Model::load`].
    pub fn open(name: &str) -> Result<Self> {
        let dir = match locate(name)? {
            Location::Lite(dir) => {
                lite::status(&dir).require_complete()?;
                lite::refresh_bundled(&dir, xmore_clip::LITE_FILES)?;
                dir
            }
            Location::Folder(dir) => dir,
        };
        Ok(Self { name: name.to_owned(), model: Model::load(dir)? })
    }

    /// The name it was opened by.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What a memory built with it records.
    pub fn identity(&self) -> ModelIdentity {
        ModelIdentity {
            name: self.name.clone(),
            sha256: self.model.fingerprint().to_owned(),
            dim: self.model.dim(),
        }
    }

    /// Checks that a memory holds pairs, and vectors of this very model.
    ///
    /// # Errors
    /// [`XmoreError::EmptyMemory`] or [`XmoreError::ModelMismatch`].
    pub fn check_memory(&self, memory: &Memory) -> Result<()> {
        if memory.is_empty() {
            return Err(XmoreError::EmptyMemory { dir: memory.dir().to_owned() });
        }
        let (theirs, ours) = (&memory.manifest().model, self.identity());
        if theirs.sha256 == ours.sha256 && theirs.dim == ours.dim {
            return Ok(());
        }
        let describe = |model: &ModelIdentity| {
            let hash: String = model.sha256.chars().take(12).collect();
            format!("{} ({hash})", model.name)
        };
        Err(XmoreError::ModelMismatch {
            dir: memory.dir().to_owned(),
            memory_model: describe(theirs),
            model: describe(&ours),
        })
    }
}

impl Deref for NamedModel {
    type Target = Model;

    fn deref(&self) -> &Model {
        &self.model
    }
}

/// Where a model of a name is, or would be once fetched.
pub enum Location {
    /// The bundled model's folder in the cache.
    Lite(PathBuf),
    /// A folder of the user's.
    Folder(PathBuf),
}

impl Location {
    /// The folder.
    pub fn dir(&self) -> &Path {
        match self {
            Location::Lite(dir) | Location::Folder(dir) => dir,
        }
    }
}

/// Tells what a model's name refers to, without opening it.
///
/// # Errors
/// [`XmoreError::UnknownModel`], or that no cache folder can be told.
pub fn locate(name: &str) -> Result<Location> {
    if name == LITE {
        return Ok(Location::Lite(cache::model_dir(&cache::home()?, LITE)));
    }
    match name.strip_prefix("local-dir:") {
        Some(path) => Ok(Location::Folder(path.into())),
        None if name.contains(std::path::is_separator) => Ok(Location::Folder(name.into())),
        None => Err(XmoreError::UnknownModel { name: name.to_owned() }),
    }
}
