//! Models by name: what the name stands for, where the files are, and which memory belongs to the model.
//!
//! [`ModelName`] understands what users of open_clip, CLIP_benchmark and clip-retrieval write; [`Hub`] has published weights in the
//! cache that those programs use too; [`NamedModel`] is the opened model.

mod digests;
mod hub;
mod names;
mod table;
mod verify;

use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use xmore_clip::{LoadOptions, Model, Precision, ResizeMode};
use xmore_files::image::Orientation;
use xmore_memory::Memory;
use xmore_memory::retriever::Retriever;
use xmore_memory::store::{Column, ModelIdentity};

use crate::error::{Result, XmoreError};
use crate::fetch::{Progress, cache, lite};
pub use hub::{Hub, HubError, RepoId};
pub use names::ModelName;
pub use table::{Architecture, Pretrained, pretrained};
pub use verify::{FileVerdict, VerifiedFile, present, verify};

/// The bundled model's name, and the default.
pub const LITE: &str = lite::NAME;

/// A model that knows the name it was asked for by.
pub struct NamedModel {
    name: String,
    model: Model,
    /// Whether every byte of its files was found to be what was recorded, in this process.
    checked: AtomicBool,
}

impl NamedModel {
    /// Opens a model that is on this machine; see [`ModelName`] for the names. Nothing is downloaded.
    ///
    /// # Errors
    /// Those of [`ModelName::parse`]; where files are missing, an error that says how to get them; those of [`Model::load_with`].
    pub fn open(name: &str) -> Result<Self> {
        Self::open_cached(&ModelName::parse(name, None)?)
    }

    /// Opens a model that is on this machine. Nothing is downloaded.
    ///
    /// # Errors
    /// As [`NamedModel::open`].
    pub fn open_cached(name: &ModelName) -> Result<Self> {
        match name.request() {
            Some(request) => Self::load(name, &Hub::from_env()?.require_cached(&request)?, Precision::F32),
            None => Self::load(name, &local(name)?, Precision::F32),
        }
    }

    /// Opens a model in the precision wanted, and fetches it before if it is one of the hub's that its cache does not have.
    ///
    /// # Errors
    /// As [`NamedModel::open`], and those of downloading: [`HubError`].
    pub fn open_or_fetch(name: &ModelName, precision: Precision, progress: Progress) -> Result<Self> {
        match name.request() {
            Some(request) => {
                let hub = Hub::from_env()?;
                let is_new = hub.cached(&request).is_none();
                let model = Self::load(name, &hub.cached_or_fetched(&request, progress)?, precision)?;
                if is_new {
                    model.record_files()?;
                }
                Ok(model)
            }
            None => Self::load(name, &local(name)?, precision),
        }
    }

    fn load(name: &ModelName, path: &Path, precision: Precision) -> Result<Self> {
        let mut options = LoadOptions::default();
        options.precision = precision;
        options.quick_gelu = name.quick_gelu();
        let model = Model::load_with(path, &options)?;
        if let ModelName::Checkpoint { architecture, path, .. } = name
            && architecture.embed_dim != model.dim()
        {
            return Err(XmoreError::OtherArchitecture {
                path: path.clone(),
                architecture: architecture.name,
                expected: architecture.embed_dim,
                found: model.dim(),
            });
        }
        let suffix = if precision == Precision::Int8 { " int8" } else { "" };
        Ok(Self { name: format!("{name}{suffix}"), model, checked: AtomicBool::new(false) })
    }

    /// The canonical name, such as `ViT-B-16,openai` where `ViT-B/16` was asked for.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The model, decoding images this way up.
    #[must_use]
    pub fn with_orientation(mut self, orientation: Orientation) -> Self {
        self.model.set_orientation(orientation);
        self
    }

    /// The model, making squares of images this way; that of its configuration if `None`.
    #[must_use]
    pub fn with_resize_mode(mut self, mode: Option<ResizeMode>) -> Self {
        if let Some(mode) = mode {
            self.model.set_resize_mode(mode);
        }
        self
    }

    /// What a memory built with it records.
    pub fn identity(&self) -> ModelIdentity {
        ModelIdentity {
            name: self.name.clone(),
            sha256: self.model.fingerprint().to_owned(),
            dim: self.model.dim(),
        }
    }

    /// Whether an identity is this model's.
    pub fn is(&self, identity: &ModelIdentity) -> bool {
        let ours = self.identity();
        (&ours.sha256, ours.dim) == (&identity.sha256, identity.dim)
    }

    /// Checks every byte of the model's files against what was recorded when it was fetched or first used with a memory. Files that have
    /// not been touched since are not read.
    ///
    /// # Errors
    /// [`XmoreError::ModelChanged`], [`XmoreError::Io`].
    pub fn check_files(&self) -> Result<()> {
        if !self.checked.load(Ordering::Relaxed) {
            verify::check(&self.model)?;
            self.checked.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Records the model's files as they are now, as a new memory is built with them; fetched ones are checked instead.
    ///
    /// # Errors
    /// As [`NamedModel::check_files`].
    pub fn record_files(&self) -> Result<()> {
        verify::record(&self.model)?;
        self.checked.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// The memory's embeddings by this very model.
    ///
    /// # Errors
    /// [`XmoreError::EmptyMemory`], [`XmoreError::ModelMismatch`], or those of [`NamedModel::check_files`].
    pub fn column_of<'a>(&self, memory: &'a Memory) -> Result<&'a Column> {
        if memory.is_empty() {
            return Err(XmoreError::EmptyMemory { dir: memory.dir().to_owned() });
        }
        let column = memory.column(&self.identity()).ok_or_else(|| {
            let models: Vec<&ModelIdentity> = memory.columns().iter().map(Column::model).collect();
            self.mismatch(memory.dir().display().to_string(), &models, "xmore memory embed")
        })?;
        self.check_files()?;
        Ok(column)
    }

    /// Checks that an engine's embeddings are this model's, as far as it tells.
    ///
    /// # Errors
    /// [`XmoreError::ModelMismatch`], or those of [`NamedModel::check_files`].
    pub fn check_engine(&self, engine: &dyn Retriever) -> Result<()> {
        match engine.identity() {
            Some(theirs) if !self.is(theirs) => {
                Err(self.mismatch(engine.location().into_owned(), &[theirs], "xmore memory upload"))
            }
            _ => self.check_files(),
        }
    }

    fn mismatch(&self, location: String, theirs: &[&ModelIdentity], command: &'static str) -> XmoreError {
        let describe = |model: &ModelIdentity| {
            let hash: String = model.sha256.chars().take(12).collect();
            format!("{} ({hash})", model.name)
        };
        XmoreError::ModelMismatch {
            location,
            memory_model: theirs.iter().map(|model| describe(model)).collect::<Vec<_>>().join(", "),
            model: describe(&self.identity()),
            command,
        }
    }
}

impl Deref for NamedModel {
    type Target = Model;

    fn deref(&self) -> &Model {
        &self.model
    }
}

/// How a model stands on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Presence {
    /// All of it is in this folder, or is this file.
    Ready(PathBuf),
    /// It can be fetched, and then will be below this folder.
    ToBeFetched(PathBuf),
    /// A path where nothing is.
    Missing(PathBuf),
}

/// Looks where a model is, by names and sizes of files alone.
///
/// # Errors
/// That no cache folder can be told, or a setting of the hub's that makes no sense.
pub fn presence(name: &ModelName) -> Result<Presence> {
    if let Some(path) = name.local_path() {
        let path = path.to_owned();
        return Ok(if path.exists() { Presence::Ready(path) } else { Presence::Missing(path) });
    }
    let Some(request) = name.request() else {
        let dir = cache::model_dir(&cache::home()?, LITE);
        let ready = lite::status(&dir).is_complete();
        return Ok(if ready { Presence::Ready(dir) } else { Presence::ToBeFetched(dir) });
    };
    let hub = Hub::from_env()?;
    Ok(match hub.cached(&request) {
        Some(path) => Presence::Ready(path),
        None => Presence::ToBeFetched(hub.cache_dir().to_owned()),
    })
}

/// Gets a model, or what is missing of it; returns its folder or file.
///
/// # Errors
/// Those of [`lite::fetch`] for the bundled model, else [`HubError`]; [`XmoreError::NoModelThere`] for a path where nothing is.
pub fn fetch(name: &ModelName, progress: Progress) -> Result<PathBuf> {
    match name.request() {
        Some(request) => {
            let path = Hub::from_env()?.fetch(&request, progress)?;
            NamedModel::load(name, &path, Precision::F32)?.record_files()?;
            Ok(path)
        }
        None if *name == ModelName::Lite => Ok(lite::fetch(xmore_clip::LITE_FILES, progress)?),
        None => local(name),
    }
}

/// Where a model is that the hub has nothing to do with.
fn local(name: &ModelName) -> Result<PathBuf> {
    let Some(path) = name.local_path() else {
        let dir = cache::model_dir(&cache::home()?, LITE);
        lite::status(&dir).require_complete()?;
        lite::refresh_bundled(&dir, xmore_clip::LITE_FILES)?;
        return Ok(dir);
    };
    if path.exists() {
        return Ok(path.to_owned());
    }
    let written = name.to_string();
    let hint = match written.parse::<RepoId>() {
        Ok(repo) if repo.name().contains('/') => {
            format!(". If a repository of the hub is meant, write hf-hub:{repo}")
        }
        _ => String::new(),
    };
    Err(XmoreError::NoModelThere { path: path.to_owned(), hint })
}

impl ModelName {
    /// What to ask the hub for, if it is one of its models.
    fn request(&self) -> Option<hub::Request> {
        let (file, bare) = match self {
            Self::Pretrained(entry) => (entry.file, entry.plain),
            _ => ("", false),
        };
        let (name, repo) = (self.to_string(), self.repo()?);
        Some(hub::Request { name, repo, file, bare, quick_gelu: self.quick_gelu() })
    }

    /// The activation, as far as the name tells it.
    fn quick_gelu(&self) -> Option<bool> {
        match self {
            Self::Pretrained(entry) => Some(entry.quick_gelu),
            Self::Checkpoint { quick_gelu, .. } => Some(*quick_gelu),
            _ => None,
        }
    }
}
