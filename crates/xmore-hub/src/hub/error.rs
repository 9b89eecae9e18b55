//! Why a model cannot be had from the hub.

use std::path::PathBuf;

/// Why a model of the hub cannot be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HubError {
    /// No cache folder is known.
    #[error("no cache folder for models of the hub: set HF_HOME to a folder")]
    NoHome,
    /// An environment variable that makes no sense.
    #[error("{name} {reason}")]
    Setting {
        /// The variable.
        name: &'static str,
        /// What is wrong with it; never its value, which may be secret.
        reason: &'static str,
    },
    /// Not a repository's name.
    #[error("{repo:?} is no repository of the hub, expected org/name or org/name@revision: {reason}")]
    BadRepo {
        /// What was given.
        repo: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The model is not in the cache, and the network is not to be used.
    #[error(
        "model {name} is not in the cache {} (repository {repo}){}",
        cache.display(),
        if *offline { ", and HF_HUB_OFFLINE forbids the network" } else { "" }
    )]
    NotCached {
        /// The model.
        name: String,
        /// Where it is on the hub.
        repo: String,
        /// The cache folder.
        cache: PathBuf,
        /// Whether the user forbade the network.
        offline: bool,
    },
    /// The hub does not answer, or stopped doing so.
    #[error("cannot get {what} from {host}: {reason}")]
    Unreachable {
        /// The model.
        name: String,
        /// What was being fetched: a file of a repository.
        what: String,
        /// The hub's host, or the mirror's.
        host: Box<str>,
        /// What went wrong.
        reason: Box<str>,
        /// The cache folder.
        cache: PathBuf,
    },
    /// The hub refuses access: the repository is gated, private, or does not exist.
    #[error(
        "{host} refuses {what} (HTTP {status}{}): {token}. A gated model asks you to accept its terms on {host}/{repo} first; a \
         repository that does not exist is refused the same way, so check its name too",
        detail(message)
    )]
    Denied {
        /// The hub's host.
        host: String,
        /// What was asked for: the repository, or a file of it.
        what: String,
        /// The repository.
        repo: String,
        /// 401 or 403.
        status: u16,
        /// What the hub said.
        message: String,
        /// What to do about the token.
        token: &'static str,
    },
    /// No such repository, or no such revision of it.
    #[error(
        "{host} has no {what} (HTTP 404{}): check its name, and HF_ENDPOINT if you set it",
        detail(message)
    )]
    NotFound {
        /// The hub's host.
        host: String,
        /// Repository, revision or file.
        what: String,
        /// What the hub said.
        message: String,
    },
    /// The server answers, but not as a hub does.
    #[error("{url}: {reason}; expected a hub's answer (HF_ENDPOINT says which server is asked)")]
    Answer {
        /// What was asked for.
        url: String,
        /// What is wrong with the answer.
        reason: String,
    },
    /// The model's configuration, which is fetched first, shows that it cannot be read here.
    #[error("{0}. Its weights were not fetched")]
    Unsupported(Box<xmore_clip::ClipError>),
    /// A repository without a model in it that this program could open.
    #[error("{repo} has no model that can be read here: expected {expected}")]
    NoModel {
        /// The repository.
        repo: String,
        /// The files looked for.
        expected: String,
    },
    /// A configuration or index that names a file elsewhere, or is none.
    #[error("{}: {reason}. It is not used", path.display())]
    BadFile {
        /// The configuration.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A downloaded file is not what the hub announced.
    #[error(
        "{file} of {repo}: expected {expected}, found {found}. What was downloaded is deleted; run this again"
    )]
    NotAsExpected {
        /// The file.
        file: String,
        /// The repository.
        repo: String,
        /// Size or hash announced.
        expected: String,
        /// Size or hash of what came.
        found: String,
    },
    /// The operating system refused a file operation.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
}

impl HubError {
    /// Closure for `map_err` that names the action and the file.
    pub(super) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }
}

fn detail(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(", {message}") }
}
