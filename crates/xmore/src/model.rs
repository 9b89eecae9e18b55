//! An opened model with its name, and which memory belongs to it.

use std::ops::Deref;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use xmore_clip::{Model, Precision, ResizeMode};
use xmore_files::image::Orientation;
use xmore_hub::ModelName;
use xmore_hub::fetch::Progress;
use xmore_memory::Memory;
use xmore_memory::retriever::Retriever;
use xmore_memory::store::{Column, ModelIdentity};

use crate::error::{Result, XmoreError};

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
    /// Those of [`ModelName::parse`] and [`NamedModel::open_cached`].
    pub fn open(name: &str) -> Result<Self> {
        Self::open_cached(&ModelName::parse(name, None)?)
    }

    /// Opens a model that is on this machine. Nothing is downloaded.
    ///
    /// # Errors
    /// Those of [`xmore_hub::locate`] and [`xmore_hub::load`].
    pub fn open_cached(name: &ModelName) -> Result<Self> {
        Self::load(name, &xmore_hub::locate(name)?, Precision::F32)
    }

    /// Opens a model in the precision wanted, and fetches it before if it is one of the hub's that its cache does not have.
    ///
    /// # Errors
    /// Those of [`xmore_hub::locate_or_fetch`] and [`xmore_hub::load`].
    pub fn open_or_fetch(name: &ModelName, precision: Precision, progress: Progress) -> Result<Self> {
        let located = xmore_hub::locate_or_fetch(name, progress)?;
        let model = Self::load(name, &located.path, precision)?;
        if located.fetched {
            model.record_files()?;
        }
        Ok(model)
    }

    fn load(name: &ModelName, path: &Path, precision: Precision) -> Result<Self> {
        let model = xmore_hub::load(name, path, precision)?;
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
    /// Those of [`xmore_hub::check`].
    pub fn check_files(&self) -> Result<()> {
        if !self.checked.load(Ordering::Relaxed) {
            xmore_hub::check(&self.model)?;
            self.checked.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Records the model's files as they are now, as a new memory is built with them; fetched ones are checked instead.
    ///
    /// # Errors
    /// As [`NamedModel::check_files`].
    pub fn record_files(&self) -> Result<()> {
        xmore_hub::record(&self.model)?;
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
