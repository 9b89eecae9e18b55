//! Models by name: what a name means, where its files are, how they are fetched, and whether they have changed.
//!
//! [`ModelName`] understands what users of open_clip, CLIP_benchmark and clip-retrieval write; [`Hub`] has published weights in the
//! cache that those programs use too; the towers of those in [`lite`] are fetched by the user's own pip. [`load`] opens what [`locate`] found.

mod digests;
mod error;
pub mod fetch;
mod hub;
mod license;
pub mod lite;
mod names;
mod table;
mod verify;

use std::path::{Path, PathBuf};

use xmore_clip::{LoadOptions, Model};

pub use digests::sha256;
pub use error::{ModelError, Result};
use fetch::{Progress, cache};
pub use hub::{Hub, HubError, RepoId};
pub use license::{License, license};
use lite::BundledModel;
pub use names::ModelName;
pub use table::{Architecture, Family, Pretrained, families, pretrained};
pub use verify::{FileVerdict, VerifiedFile, check, present, record, verify};

/// The name of the default model, a bundled one.
pub const LITE: &str = "lite";

/// Where the files of a model are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Located {
    /// Its folder or file.
    pub path: PathBuf,
    /// Whether it was fetched by this call.
    pub fetched: bool,
}

/// Finds a model that is on this machine. Nothing is downloaded.
///
/// # Errors
/// Where files are missing, an error that says how to get them.
pub fn locate(name: &ModelName) -> Result<PathBuf> {
    match name.origin() {
        Origin::Hub(request) => Ok(Hub::from_env()?.require_cached(&request)?),
        Origin::Bundled(model) => bundled(model),
        Origin::Local(path) => local(name, path),
    }
}

/// Finds a model, and fetches it before if it is one of the hub's that its cache does not have.
///
/// # Errors
/// As [`locate`], and those of downloading: [`HubError`].
pub fn locate_or_fetch(name: &ModelName, progress: Progress) -> Result<Located> {
    match name.origin() {
        Origin::Hub(request) => {
            let hub = Hub::from_env()?;
            let fetched = hub.cached(&request).is_none();
            Ok(Located { path: hub.cached_or_fetched(&request, progress)?, fetched })
        }
        _ => Ok(Located { path: locate(name)?, fetched: false }),
    }
}

/// Opens the files at `path` as the model of that name, with the caller's choices but for the activation, which is the name's.
///
/// # Errors
/// Those of [`Model::load_with`]; [`ModelError::OtherArchitecture`] for a checkpoint that is not of the architecture named.
pub fn load(name: &ModelName, path: &Path, options: &LoadOptions) -> Result<Model> {
    let mut options = options.clone();
    options.quick_gelu = name.quick_gelu();
    let model = Model::load_with(path, &options)?;
    match name {
        ModelName::Checkpoint { architecture, path, .. } if architecture.embed_dim != model.dim() => {
            Err(ModelError::OtherArchitecture {
                path: path.clone(),
                architecture: architecture.name,
                expected: architecture.embed_dim,
                found: model.dim(),
            })
        }
        _ => Ok(model),
    }
}

/// Whether a model is on this machine.
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
/// That no cache folder is known, or a setting of the hub's that makes no sense.
pub fn presence(name: &ModelName) -> Result<Presence> {
    let (ready, path) = match name.origin() {
        Origin::Bundled(model) => {
            let dir = model.dir(&cache::home()?);
            (model.status(&dir).is_complete(), dir)
        }
        Origin::Hub(request) => {
            let hub = Hub::from_env()?;
            let cached = hub.cached(&request);
            (cached.is_some(), cached.unwrap_or_else(|| hub.cache_dir().to_owned()))
        }
        Origin::Local(path) if path.exists() => (true, path.to_owned()),
        Origin::Local(path) => return Ok(Presence::Missing(path.to_owned())),
    };
    Ok(if ready { Presence::Ready(path) } else { Presence::ToBeFetched(path) })
}

/// Gets a model, or what is missing of it; returns its folder or file.
///
/// # Errors
/// Those of [`BundledModel::fetch`](lite::BundledModel::fetch) for a bundled model, else [`HubError`]; [`ModelError::NoModelThere`] for a path where nothing is.
pub fn fetch(name: &ModelName, progress: Progress) -> Result<PathBuf> {
    match name.origin() {
        Origin::Hub(request) => {
            let path = Hub::from_env()?.fetch(&request, progress)?;
            record(&load(name, &path, &LoadOptions::default())?)?;
            Ok(path)
        }
        Origin::Bundled(model) => {
            license::note(model.name(), license(name).as_ref(), progress);
            Ok(model.fetch(progress)?)
        }
        Origin::Local(path) => local(name, path),
    }
}

/// The folder of a bundled model that was fetched.
fn bundled(model: &BundledModel) -> Result<PathBuf> {
    let dir = model.dir(&cache::home()?);
    model.status(&dir).require_complete()?;
    model.refresh(&dir)?;
    Ok(dir)
}

/// The user's own model at `path`.
fn local(name: &ModelName, path: &Path) -> Result<PathBuf> {
    if path.exists() {
        return Ok(path.to_owned());
    }
    let written = name.to_string();
    let repo = written.parse::<RepoId>().ok().filter(|repo| repo.name().contains('/'));
    Err(ModelError::NoModelThere { path: path.to_owned(), repo: repo.map(|repo| repo.to_string()) })
}

/// Where a model comes from.
enum Origin<'a> {
    Bundled(&'static BundledModel),
    /// What to ask the hub for.
    Hub(hub::Request),
    Local(&'a Path),
}

impl ModelName {
    fn origin(&self) -> Origin<'_> {
        let (repo, file, bare) = match self {
            Self::Bundled(model) => return Origin::Bundled(model),
            Self::Local(written) => return Origin::Local(names::written_path(written)),
            Self::Checkpoint { path, .. } => return Origin::Local(path),
            Self::Pretrained(entry) => (entry.repository(), entry.file, entry.plain),
            Self::Hub(repo) => (repo.clone(), "", false),
        };
        let (quick_gelu, license) = (self.quick_gelu(), license(self));
        Origin::Hub(hub::Request { name: self.to_string(), repo, file, bare, quick_gelu, license })
    }

    /// The activation, where the name has it.
    fn quick_gelu(&self) -> Option<bool> {
        match self {
            Self::Pretrained(entry) => Some(entry.quick_gelu),
            Self::Checkpoint { quick_gelu, .. } => Some(*quick_gelu),
            _ => None,
        }
    }
}
