//! Models by their names: opened where they are on this machine, fetched where not, and checked against what was recorded of them.

use std::path::Path;

use xmore_clip::{LoadOptions, Model};
use xmore_hub::ModelName;
use xmore_hub::fetch::Progress;

use super::NamedModel;
use crate::encoder::Encoder;
use crate::error::Result;

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
        Self::open_cached_with(name, &LoadOptions::default())
    }

    /// The same with a choice of precision and device.
    ///
    /// # Errors
    /// As [`NamedModel::open_cached`].
    pub fn open_cached_with(name: &ModelName, options: &LoadOptions) -> Result<Self> {
        Self::load(name, &xmore_hub::locate(name)?, options)
    }

    /// Opens a model with a choice of precision and device, and fetches it before if it is one of the hub's that its cache does not have.
    ///
    /// # Errors
    /// Those of [`xmore_hub::locate_or_fetch`] and [`xmore_hub::load`].
    pub fn open_or_fetch(name: &ModelName, options: &LoadOptions, progress: Progress) -> Result<Self> {
        let located = xmore_hub::locate_or_fetch(name, progress)?;
        let model = Self::load(name, &located.path, options)?;
        if located.fetched {
            model.record_files()?;
        }
        Ok(model)
    }

    fn load(name: &ModelName, path: &Path, options: &LoadOptions) -> Result<Self> {
        let model = xmore_hub::load(name, path, options)?;
        Ok(Self::new(name.to_string(), model).with_precision(options.precision))
    }
}

/// Compares every byte of a model's files with what was recorded; files that have not been touched since are not read.
pub(super) fn check_files(model: &Model) -> Result<()> {
    Ok(xmore_hub::check(model)?)
}

/// Records the files as they are.
pub(super) fn record_files(model: &Model) -> Result<()> {
    Ok(xmore_hub::record(model)?)
}
