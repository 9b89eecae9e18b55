//! Remote indexes: the table of the kinds there are, a folder for each, and what they share.

mod address;
mod http;
mod json;
mod knn;
mod label;
mod milvus;
#[cfg(feature = "pgvector")]
mod pgvector;
mod queries;
mod retry;
#[cfg(test)]
mod test_server;
mod upload;

use std::fmt;
use std::sync::{Arc, LazyLock};

pub use knn::{Knn, KnnAddress};
pub use milvus::{Milvus, MilvusAddress};
#[cfg(feature = "pgvector")]
pub use pgvector::{Pgvector, PgvectorAddress};
use queries::{for_each_query, sort};
use upload::Target;
pub use upload::{IndexKind, PairMetadata, Upload, UploadProgress, UploadReport};

use super::location::refused;
use super::{Neighbor, Neighbors, RemoteError, RemoteOptions, Retriever, check_queries};
use crate::error::Result;
use crate::store::{Memory, ModelIdentity};

/// What pairs may be kept in beside a folder: another one is a folder here and a line.
const KINDS: &[&RemoteKind] = &[
    &milvus::KIND,
    #[cfg(feature = "pgvector")]
    &pgvector::KIND,
    &knn::KIND,
];

/// A kind of remote index that keeps pairs.
struct RemoteKind {
    /// What its URLs begin with, before `://`.
    pub schemes: &'static [&'static str],
    /// Its URLs, for a list of all kinds.
    pub short: &'static str,
    /// Its URLs in full, for who got one wrong.
    pub form: &'static str,
    /// Whether a memory can be uploaded to it.
    pub takes_uploads: bool,
    /// Reads the scheme and what follows `://`.
    pub parse: fn(&str, &str) -> Option<Arc<dyn RemotePlace>>,
}

/// The address of a remote index; its `Display` and `Debug` never show a password.
trait RemotePlace: fmt::Display + fmt::Debug + Send + Sync {
    /// Opens what was uploaded or made there before.
    fn open(&self, options: &RemoteOptions) -> Result<Box<dyn Retriever>>;

    /// Makes what a memory can be uploaded to, or opens it if it is there already.
    fn create(&self, _new: &NewIndex<'_>, _options: &RemoteOptions) -> Result<Box<dyn Target>> {
        Err(RemoteError::Location { text: self.to_string(), expected: &UPLOAD_FORMS }.into())
    }
}

/// What is to be made for an upload.
struct NewIndex<'a> {
    pub model: &'a ModelIdentity,
    /// Pairs that are to be uploaded.
    pub pairs: u64,
    pub kind: IndexKind,
}

/// The forms of all locations.
pub(super) fn any_form() -> &'static str {
    &ANY_FORM
}

/// The forms of those that take uploads.
pub(super) fn upload_forms() -> &'static str {
    &UPLOAD_FORMS
}

static ANY_FORM: LazyLock<String> = LazyLock::new(|| forms(|_| true, "a folder, "));
static UPLOAD_FORMS: LazyLock<String> = LazyLock::new(|| forms(|kind| kind.takes_uploads, ""));

fn forms(wanted: impl Fn(&RemoteKind) -> bool, first: &str) -> String {
    let all: Vec<_> = KINDS.iter().filter(|kind| wanted(kind)).map(|kind| kind.short).collect();
    match all.split_last() {
        Some((last, [])) => format!("{first}{last}"),
        Some((last, others)) => format!("{first}{} or {last}", others.join(", ")),
        None => String::from("a folder"),
    }
}

/// Pairs that a remote index keeps.
#[derive(Clone)]
pub struct RemoteLocation(Arc<dyn RemotePlace>);

impl fmt::Debug for RemoteLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for RemoteLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl RemoteLocation {
    /// Reads a URL, `text`, of this scheme and with this after its `://`.
    pub(super) fn read(text: &str, scheme: &str, rest: &str) -> Result<RemoteLocation> {
        if let Some(kind) = KINDS.iter().find(|kind| kind.schemes.contains(&scheme)) {
            return match (kind.parse)(scheme, rest) {
                Some(place) => Ok(RemoteLocation(place)),
                None => Err(refused(text, kind.form)),
            };
        }
        Err(match scheme {
            "http" | "https" => refused(
                text,
                "knn+ before it for clip-retrieval's /knn-service, such as knn+http://HOST:PORT",
            ),
            _ => refused(text, any_form()),
        })
    }

    pub(super) fn open(&self, options: &RemoteOptions) -> Result<Box<dyn Retriever>> {
        self.0.open(options)
    }

    pub(super) fn create(&self, memory: &Memory, kind: IndexKind, options: &RemoteOptions) -> Result<Upload> {
        let new = NewIndex { model: &memory.manifest().model, pairs: memory.len(), kind };
        self.0.create(&new, options).map(Upload::new)
    }
}

/// Reads a whole URL of one kind.
fn parse_as<T>(kind: &RemoteKind, text: &str, parse: impl FnOnce(&str, &str) -> Option<T>) -> Result<T> {
    let parts = text.split_once("://").filter(|(scheme, _)| kind.schemes.contains(scheme));
    parts.and_then(|(scheme, rest)| parse(scheme, rest)).ok_or_else(|| refused(text, kind.form))
}
