//! Where pairs are, as users write it: a folder, or the URL of a remote index of one of the [kinds](KINDS) there are.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::{Arc, LazyLock};

#[cfg(feature = "pgvector")]
use super::pgvector;
use super::upload::{Target, Upload};
use super::{IndexKind, RemoteOptions, Retriever, knn, milvus};
use crate::error::{MemoryError, Result};
use crate::store::{Memory, ModelIdentity};

/// What pairs may be kept in beside a folder: another one is a folder here and a line.
const KINDS: &[&RemoteKind] = &[
    &milvus::KIND,
    #[cfg(feature = "pgvector")]
    &pgvector::KIND,
    &knn::KIND,
];

/// A kind of remote index that keeps pairs.
pub(super) struct RemoteKind {
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
pub(super) trait RemotePlace: fmt::Display + fmt::Debug + Send + Sync {
    /// Opens what was uploaded or made there before.
    fn open(&self, options: &RemoteOptions) -> Result<Box<dyn Retriever>>;

    /// Makes what a memory can be uploaded to, or opens it if it is there already.
    fn create(&self, _new: &NewIndex<'_>, _options: &RemoteOptions) -> Result<Box<dyn Target>> {
        Err(MemoryError::Location { text: self.to_string(), expected: &UPLOAD_FORMS })
    }
}

/// What is to be made for an upload.
pub(super) struct NewIndex<'a> {
    pub model: &'a ModelIdentity,
    /// Pairs that are to be uploaded.
    pub pairs: u64,
    pub kind: IndexKind,
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

/// Where pairs are.
#[derive(Debug, Clone)]
pub enum Location {
    /// A memory's folder.
    Local(PathBuf),
    /// A remote index's, by its URL.
    Remote(RemoteLocation),
}

/// Pairs that a remote index keeps.
#[derive(Clone)]
pub struct RemoteLocation(Arc<dyn RemotePlace>);

impl fmt::Debug for RemoteLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Location {
    type Err = MemoryError;

    /// Reads a location; whatever has no `://` is a path.
    ///
    /// # Errors
    /// [`MemoryError::Location`].
    fn from_str(text: &str) -> Result<Location> {
        let Some((scheme, rest)) = text.split_once("://") else {
            return match text {
                "" => Err(refused(text, &ANY_FORM)),
                path => Ok(Location::Local(path.into())),
            };
        };
        if let Some(kind) = KINDS.iter().find(|kind| kind.schemes.contains(&scheme)) {
            let place = (kind.parse)(scheme, rest).ok_or_else(|| refused(text, kind.form))?;
            return Ok(Location::Remote(RemoteLocation(place)));
        }
        match scheme {
            "http" | "https" => Err(refused(
                text,
                "knn+ before it for clip-retrieval's /knn-service, such as knn+http://HOST:PORT",
            )),
            _ => Err(refused(text, &ANY_FORM)),
        }
    }
}

impl Location {
    /// Whether this is a remote index that is reached over a network.
    pub fn is_remote(&self) -> bool {
        matches!(self, Location::Remote(_))
    }

    /// The URLs of remote indexes that a memory can be uploaded to.
    pub fn upload_forms() -> &'static str {
        &UPLOAD_FORMS
    }

    /// A location as it may be shown or kept in a log: without a password.
    pub fn shown(text: &str) -> String {
        match text.parse::<Location>() {
            Ok(location) => location.to_string(),
            Err(_) => without_login(text),
        }
    }

    /// Opens whatever is there. A remote index is asked once what it holds.
    ///
    /// # Errors
    /// Those of [`Memory::open`]; [`MemoryError::Unreachable`] and [`MemoryError::Remote`] of remote indexes.
    pub fn open(&self, options: &RemoteOptions) -> Result<Box<dyn Retriever>> {
        Ok(match self {
            Location::Local(path) => Box::new(Memory::open(path)?),
            Location::Remote(remote) => remote.0.open(options)?,
        })
    }

    /// Makes an empty index for a memory's pairs at a remote index, or opens it if it is there already.
    ///
    /// # Errors
    /// [`MemoryError::Location`] for a place that takes no uploads; [`MemoryError::Unreachable`]; [`MemoryError::Remote`] too
    /// for an index of another model or one that is not xmore's.
    pub fn create(&self, memory: &Memory, kind: IndexKind, options: &RemoteOptions) -> Result<Upload> {
        let Location::Remote(remote) = self else { return Err(refused(&self.to_string(), &UPLOAD_FORMS)) };
        let new = NewIndex { model: &memory.manifest().model, pairs: memory.len(), kind };
        remote.0.create(&new, options).map(Upload::new)
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Location::Local(path) => write!(f, "{}", path.display()),
            Location::Remote(remote) => write!(f, "{}", remote.0),
        }
    }
}

/// Reads a whole URL of one kind.
pub(super) fn parse_as<T>(
    kind: &RemoteKind,
    text: &str,
    parse: impl FnOnce(&str, &str) -> Option<T>,
) -> Result<T> {
    let parts = text.split_once("://").filter(|(scheme, _)| kind.schemes.contains(scheme));
    parts.and_then(|(scheme, rest)| parse(scheme, rest)).ok_or_else(|| refused(text, kind.form))
}

fn refused(text: &str, expected: &'static str) -> MemoryError {
    MemoryError::Location { text: without_login(text), expected }
}

/// The text without what may be a user and a password in it; the password may hold an @ itself.
fn without_login(text: &str) -> String {
    match text.rsplit_once('@') {
        Some((before, after)) if text.contains("://") => {
            let scheme = before.split_once("://").map_or("", |(scheme, _)| scheme);
            format!("{scheme}://…@{after}")
        }
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_form_is_read_and_written_again() {
        let milvus = r#"MilvusAddress { host: "h", port: 19530, management: 9091, collection: "pairs" }"#;
        let knn = |url: &str, index: Option<&str>| {
            format!("Remote({:?})", knn::KnnAddress { url: url.into(), index: index.map(Into::into) })
        };
        for (text, debug, written) in [
            ("memory", r#"Local("memory")"#.to_owned(), None),
            ("C:\\memory", r#"Local("C:\\memory")"#.to_owned(), None),
            ("milvus://h:19530/pairs", format!("Remote({milvus})"), None),
            ("milvus://h/pairs", format!("Remote({milvus})"), Some("milvus://h:19530/pairs")),
            (
                "milvus://[::1]:7/_a1?management=19091",
                r#"Remote(MilvusAddress { host: "[::1]", port: 7, management: 19091, collection: "_a1" })"#
                    .to_owned(),
                None,
            ),
            ("knn+http://h:1234", knn("http://h:1234", None), None),
            ("knn+https://h/deep/er/", knn("https://h/deep/er", None), Some("knn+https://h/deep/er")),
            ("knn+http://h:1/a/knn-service", knn("http://h:1/a", None), Some("knn+http://h:1/a")),
            ("knn+http://h:1/?index=laion_400m", knn("http://h:1", Some("laion_400m")), None),
            ("knn+http://h:1?index=a%20b%2F%C3%A9", knn("http://h:1", Some("a b/é")), None),
        ] {
            let read: Location = text.parse().unwrap();
            assert_eq!(format!("{read:?}"), debug, "{text}");
            assert_eq!(read.to_string(), written.unwrap_or(&text.replace("/?", "?")));
            assert_eq!(read.is_remote(), text.contains("://"));
        }
    }

    #[test]
    fn what_is_no_location_is_refused_with_the_form_that_is() {
        for (text, expected) in [
            ("", "a folder"),
            ("milvus://h:19530", "milvus://HOST:PORT/COLLECTION"),
            ("milvus://h:19530/", "COLLECTION"),
            ("milvus://h:19530/a-b", "COLLECTION"),
            ("milvus://h:19530/1a", "COLLECTION"),
            ("milvus://h:70000/a", "COLLECTION"),
            ("milvus://h:0/a", "COLLECTION"),
            ("milvus://:1/a", "COLLECTION"),
            ("milvus://[::g]:1/a", "COLLECTION"),
            ("milvus://h:1/a?port=3", "?management=PORT"),
            ("knn+http://", "knn+http://HOST:PORT"),
            ("knn+http://h:1/a b", "knn+http://HOST:PORT"),
            ("knn+http://h:1?index=%zz", "?index=NAME"),
            ("knn+http://h:1?name=x", "?index=NAME"),
            ("http://h:1234", "knn+ before it"),
            ("redis://h", "a folder"),
        ] {
            let error = text.parse::<Location>().unwrap_err();
            assert!(matches!(error, MemoryError::Location { .. }));
            let message = error.to_string();
            assert!(message.contains(expected) && message.contains(text), "{message}");
        }
        for text in ["milvus://root:secret@h:1/a", "redis://root:p@secret@h:1/a"] {
            let message = text.parse::<Location>().unwrap_err().to_string();
            assert!(!message.contains("secret"), "{message}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused_and_what_is_read_survives_being_written(text in "(milvus|postgres|knn\\+https?)?(://)?\\PC{0,30}") {
            if let Ok(location) = text.parse::<Location>() {
                let again: Location = location.to_string().parse().unwrap();
                prop_assert_eq!(again.to_string(), location.to_string());
            }
        }
    }
}
