//! Models of the Hugging Face hub: its cache folder, shared with the Python programs, and its protocol.
//!
//! Everything is in the layout of the hub's own programs (`models--org--name/{blobs,refs,snapshots}`), so what one of them fetched the
//! others find. What a server names (files, commits, hashes) is checked before it becomes a path.

mod cache;
mod client;
mod download;
mod error;
mod repo;
mod select;
mod settings;
mod text_tower;

use std::cell::OnceCell;
use std::path::{Path, PathBuf};

pub(crate) use cache::is_etag;
pub use error::HubError;
pub use repo::RepoId;
use settings::Settings;

use crate::fetch::{FetchEvent, Progress};
use crate::license::{self, License};
use cache::RepoCache;
use client::Client;
use download::Remote;
use select::{Local, Selected};

/// Result of anything in this module.
pub type Result<T> = std::result::Result<T, HubError>;

/// The hub as the environment describes it: `HF_ENDPOINT`, `HF_HOME`, `HF_HUB_CACHE`, `HF_TOKEN`, `HF_HUB_OFFLINE`.
pub struct Hub {
    settings: Settings,
    client: OnceCell<Client>,
}

/// What is wanted of the hub.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// The model's name, as [`ModelName::parse`](crate::ModelName::parse) takes it.
    pub name: String,
    /// Where it is.
    pub repo: RepoId,
    /// The weights' file; empty for the usual names.
    pub file: &'static str,
    /// Whether weights without a configuration are enough.
    pub bare: bool,
    /// The activation, where the name has it.
    pub quick_gelu: Option<bool>,
    /// The license, where the name tells it.
    pub license: Option<License>,
}

impl Request {
    /// A request for a repository of which nothing else is known.
    pub(crate) fn of(name: &str, repo: RepoId) -> Self {
        Self { name: name.to_owned(), repo, file: "", bare: false, quick_gelu: None, license: None }
    }
}

impl Hub {
    /// Reads the environment; no network.
    ///
    /// # Errors
    /// [`HubError::Setting`] for a variable that makes no sense, [`HubError::NoHome`].
    pub fn from_env() -> Result<Self> {
        Ok(Self { settings: Settings::read(&|name| std::env::var_os(name))?, client: OnceCell::new() })
    }

    /// The cache folder, with one folder for each repository in it.
    pub fn cache_dir(&self) -> &Path {
        &self.settings.cache
    }

    /// The folder with a repository's files at the revision, if there is one, whatever of them is there. No network.
    pub(crate) fn snapshot(&self, repo: &RepoId) -> Option<PathBuf> {
        let cache = self.repo_cache(repo);
        Some(cache.snapshot(&cache.commit(repo.revision())?)).filter(|folder| folder.is_dir())
    }

    /// The path to load the model from, if the cache has all of it. No network.
    pub(crate) fn cached(&self, request: &Request) -> Option<PathBuf> {
        self.selected(request).filter(|found| found.configured).map(|found| found.path)
    }

    /// The same.
    ///
    /// # Errors
    /// [`HubError::NotCached`].
    pub(crate) fn require_cached(&self, request: &Request) -> Result<PathBuf> {
        self.usable(request).ok_or_else(|| HubError::NotCached {
            name: request.name.clone(),
            repo: request.repo.to_string(),
            cache: self.settings.cache.clone(),
            offline: self.settings.offline,
        })
    }

    /// The cached model, else the one fetched now.
    pub(crate) fn cached_or_fetched(&self, request: &Request, progress: Progress) -> Result<PathBuf> {
        if let Some(path) = self.cached(request) {
            return Ok(path);
        }
        if self.settings.offline {
            return self.require_cached(request);
        }
        let message = format!(
            "{} is not in {} yet: fetching {} from {}",
            request.name,
            self.settings.cache.display(),
            request.repo,
            self.settings.host()
        );
        progress(FetchEvent::Note { message: &message });
        self.fetch(request, progress)
    }

    /// Brings the model's files of the revision as the hub has it now into the cache. What is there already is kept; a download that
    /// was cut is continued. Where the hub cannot be reached, or is not to be asked, a cached model will do, with a note.
    pub(crate) fn fetch(&self, request: &Request, progress: Progress) -> Result<PathBuf> {
        if self.settings.offline {
            return self.require_cached(request);
        }
        match self.fetch_now(request, progress) {
            Err(error @ HubError::Unreachable { .. }) => match self.usable(request) {
                Some(path) => {
                    let host = self.settings.host();
                    let message =
                        format!("{host} cannot be reached; using what the cache has of {}", request.repo);
                    progress(FetchEvent::Note { message: &message });
                    Ok(path)
                }
                None => Err(error),
            },
            other => other,
        }
    }

    fn fetch_now(&self, request: &Request, progress: Progress) -> Result<PathBuf> {
        let client = match self.client.get() {
            Some(client) => client,
            None => {
                let client = Client::new(&self.settings)?;
                self.client.get_or_init(|| client)
            }
        };
        let cache = self.repo_cache(&request.repo);
        let listing = client.list(request)?;
        let known = listing.license.as_ref().or(request.license.as_ref());
        license::note(&request.name, known, progress);
        let root = &self.settings.cache;
        let mut remote = Remote { client, root, cache: &cache, listing: &listing, request, progress };
        let selected = select::select(&mut remote, request.file)?;
        // Last, so that a revision which is named is there.
        cache.write_ref(request.repo.revision(), &listing.commit)?;
        self.accept(request, selected).ok_or_else(|| HubError::NoModel {
            repo: request.repo.to_string(),
            expected: "open_clip_config.json or config.json beside its weights".into(),
        })
    }

    fn usable(&self, request: &Request) -> Option<PathBuf> {
        self.accept(request, self.selected(request)?)
    }

    fn accept(&self, request: &Request, selected: Selected) -> Option<PathBuf> {
        (selected.configured || request.bare).then_some(selected.path)
    }

    fn selected(&self, request: &Request) -> Option<Selected> {
        let cache = self.repo_cache(&request.repo);
        let dir = cache.snapshot(&cache.commit(request.repo.revision())?);
        select::select(&mut Local { dir, cache: &self.settings.cache }, request.file).ok()
    }

    fn repo_cache(&self, repo: &RepoId) -> RepoCache {
        RepoCache::new(&self.settings.cache, repo)
    }
}
