//! Where pairs are, as users write it: a folder, or the URL of a remote index.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

#[cfg(feature = "remote")]
use super::remote::{IndexKind, RemoteLocation, Upload, any_form, upload_forms};
use super::{RemoteError, RemoteOptions, Retriever};
use crate::error::{MemoryError, Result};
use crate::store::Memory;

/// Where pairs are.
#[derive(Debug, Clone)]
pub enum Location {
    /// A memory's folder.
    Local(PathBuf),
    /// A remote index's, by its URL.
    #[cfg(feature = "remote")]
    Remote(RemoteLocation),
}

impl FromStr for Location {
    type Err = MemoryError;

    /// Reads a location; whatever has no `://` is a path.
    ///
    /// # Errors
    /// [`RemoteError::Location`].
    fn from_str(text: &str) -> Result<Location> {
        match text.split_once("://") {
            Some((scheme, rest)) => remote(text, scheme, rest),
            None if text.is_empty() => Err(refused(text, any_form())),
            None => Ok(Location::Local(text.into())),
        }
    }
}

#[cfg(feature = "remote")]
fn remote(text: &str, scheme: &str, rest: &str) -> Result<Location> {
    RemoteLocation::read(text, scheme, rest).map(Location::Remote)
}

#[cfg(not(feature = "remote"))]
fn remote(text: &str, _scheme: &str, _rest: &str) -> Result<Location> {
    Err(refused(text, "a folder: support for remote indexes was not compiled in"))
}

#[cfg(not(feature = "remote"))]
fn any_form() -> &'static str {
    "a folder"
}

impl Location {
    /// The folder, if the pairs are on this machine.
    pub fn folder(&self) -> Option<&Path> {
        match self {
            Location::Local(path) => Some(path),
            #[cfg(feature = "remote")]
            Location::Remote(_) => None,
        }
    }

    /// Whether this is a remote index that is reached over a network.
    pub fn is_remote(&self) -> bool {
        self.folder().is_none()
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
    /// Those of [`Memory::open`]; [`RemoteError::Unreachable`] and [`RemoteError::Refused`] of remote indexes.
    #[cfg_attr(not(feature = "remote"), expect(unused_variables, reason = "folders have no options"))]
    pub fn open(&self, options: &RemoteOptions) -> Result<Box<dyn Retriever>> {
        match self {
            Location::Local(path) => Ok(Box::new(Memory::open(path)?)),
            #[cfg(feature = "remote")]
            Location::Remote(remote) => remote.open(options),
        }
    }
}

#[cfg(feature = "remote")]
impl Location {
    /// The URLs of remote indexes that a memory can be uploaded to.
    pub fn upload_forms() -> &'static str {
        upload_forms()
    }

    /// Makes an empty index for a memory's pairs at a remote index, or opens it if it is there already.
    ///
    /// # Errors
    /// [`RemoteError::Location`] for a place that takes no uploads; [`RemoteError::Unreachable`]; [`RemoteError::Refused`] too
    /// for an index of another model or one that is not xmore's.
    pub fn create(&self, memory: &Memory, kind: IndexKind, options: &RemoteOptions) -> Result<Upload> {
        match self {
            Location::Local(_) => Err(refused(&self.to_string(), upload_forms())),
            Location::Remote(remote) => remote.create(memory, kind, options),
        }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Location::Local(path) => write!(f, "{}", path.display()),
            #[cfg(feature = "remote")]
            Location::Remote(remote) => write!(f, "{remote}"),
        }
    }
}

/// The error for a text that is no location.
pub(super) fn refused(text: &str, expected: &'static str) -> MemoryError {
    RemoteError::Location { text: without_login(text), expected }.into()
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

#[cfg(all(test, feature = "remote"))]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::retriever::remote::KnnAddress;

    #[test]
    fn every_form_is_read_and_written_again() {
        let milvus = r#"MilvusAddress { host: "h", port: 19530, management: 9091, collection: "pairs" }"#;
        let knn = |url: &str, index: Option<&str>| {
            format!("Remote({:?})", KnnAddress { url: url.into(), index: index.map(Into::into) })
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
            assert!(matches!(error, MemoryError::Remote(RemoteError::Location { .. })));
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

#[cfg(all(test, not(feature = "remote")))]
mod tests {
    use super::*;

    #[test]
    fn without_remote_indexes_a_url_is_refused_with_the_reason() {
        assert!(matches!("memory".parse(), Ok(Location::Local(_))));
        let message = "milvus://root:secret@h/a".parse::<Location>().unwrap_err().to_string();
        assert!(message.contains("not compiled in") && !message.contains("secret"), "{message}");
    }
}
