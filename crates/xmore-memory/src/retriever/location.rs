//! Where pairs are, as users write it: a folder, or the URL of an engine.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::error::{MemoryError, Result};

/// Port of Milvus's management API, on which collections are made.
const MANAGEMENT_PORT: u16 = 9091;

/// Longest name that Milvus takes.
const COLLECTION_NAME_MAX: usize = 255;

const MILVUS_FORM: &str = "milvus://HOST:PORT/COLLECTION (Milvus listens on port 19530 by default), with \
    ?management=PORT where its management API is not on port 9091";
const KNN_FORM: &str = "knn+http://HOST:PORT, knn+http://HOST:PORT/PATH or knn+http://HOST:PORT?index=NAME, or the \
    same with knn+https";
const ANY_FORM: &str = "a folder, milvus://HOST:PORT/COLLECTION, or knn+http://HOST:PORT";

/// Where pairs are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// A memory's folder.
    Local(PathBuf),
    /// A collection of a Milvus server: `milvus://host:port/collection`.
    Milvus {
        /// Name or address; an IPv6 address with its brackets.
        host: String,
        /// Port of the RESTful API, 19530 by default.
        port: u16,
        /// Port of the management API, 9091 by default; used to make and to fill a collection, not to search.
        management: u16,
        /// Name of the collection.
        collection: String,
    },
    /// clip-retrieval's `/knn-service`: `knn+http://host:port[/path][?index=NAME]`.
    Knn {
        /// Address below which `/knn-service` is, such as `http://host:1234`, without a slash at its end.
        url: String,
        /// Name of the index; the service's first if `None`.
        index: Option<String>,
    },
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
                "" => Err(refused(text, ANY_FORM)),
                path => Ok(Location::Local(path.into())),
            };
        };
        match scheme {
            "milvus" => milvus(rest).ok_or_else(|| refused(text, MILVUS_FORM)),
            "knn+http" => knn("http", rest).ok_or_else(|| refused(text, KNN_FORM)),
            "knn+https" => knn("https", rest).ok_or_else(|| refused(text, KNN_FORM)),
            "http" | "https" => Err(refused(
                text,
                "knn+ before it for clip-retrieval's /knn-service, such as knn+http://HOST:PORT",
            )),
            _ => Err(refused(text, ANY_FORM)),
        }
    }
}

impl Location {
    /// Whether this is an engine that is reached over a network.
    pub fn is_remote(&self) -> bool {
        !matches!(self, Location::Local(_))
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Location::Local(path) => write!(f, "{}", path.display()),
            Location::Milvus { host, port, management, collection } => {
                write!(f, "milvus://{host}:{port}/{collection}")?;
                if *management == MANAGEMENT_PORT { Ok(()) } else { write!(f, "?management={management}") }
            }
            Location::Knn { url, index } => {
                write!(f, "knn+{url}")?;
                index.as_ref().map_or(Ok(()), |index| write!(f, "?index={}", percent_encode(index)))
            }
        }
    }
}

fn refused(text: &str, expected: &'static str) -> MemoryError {
    // A password in an address must not get into a log.
    let text = match text.split_once('@') {
        Some((before, after)) => {
            let scheme = before.split_once("://").map_or("", |(scheme, _)| scheme);
            format!("{scheme}://…@{after}")
        }
        None => text.to_owned(),
    };
    MemoryError::Location { text, expected }
}

fn milvus(rest: &str) -> Option<Location> {
    let (address, query) = split_query(rest);
    let (authority, collection) = address.split_once('/')?;
    let (host, port) = host_and_port(authority)?;
    let management = match query {
        None => MANAGEMENT_PORT,
        Some(query) => query.strip_prefix("management=")?.parse().ok().filter(|port| *port != 0)?,
    };
    let mut bytes = collection.bytes();
    let first = bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
    let valid = first
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && collection.len() <= COLLECTION_NAME_MAX;
    valid.then(|| Location::Milvus {
        host,
        port: port.unwrap_or(19530),
        management,
        collection: collection.to_owned(),
    })
}

fn knn(scheme: &str, rest: &str) -> Option<Location> {
    let (address, query) = split_query(rest);
    let address = address.trim_end_matches('/');
    // The whole address of the service is as good as that of its server.
    let address = address.strip_suffix("/knn-service").unwrap_or(address);
    let (authority, path) =
        address.split_once('/').map_or((address, ""), |(authority, path)| (authority, path));
    host_and_port(authority)?;
    if !path.bytes().all(|b| b.is_ascii_graphic() && !b"\"<>\\^`{|}".contains(&b)) {
        return None;
    }
    let index = match query {
        None => None,
        Some(query) => Some(percent_decode(query.strip_prefix("index=")?)?).filter(|name| !name.is_empty()),
    };
    Some(Location::Knn { url: format!("{scheme}://{address}"), index })
}

fn split_query(text: &str) -> (&str, Option<&str>) {
    match text.split_once('?') {
        Some((address, query)) => (address, Some(query)),
        None => (text, None),
    }
}

/// A host, with brackets if it is an IPv6 address, and a port if there is one.
fn host_and_port(authority: &str) -> Option<(String, Option<u16>)> {
    let (host, port) = match authority.rfind(']') {
        Some(end) => (&authority[..=end], &authority[end + 1..]),
        None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
    };
    let port = match port {
        "" => None,
        port => Some(port.strip_prefix(':')?.parse().ok().filter(|port| *port != 0)?),
    };
    let valid = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b)),
    };
    valid.then(|| (host.to_owned(), port))
}

fn percent_decode(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => {
                let mut digit = || char::from(bytes.next()?).to_digit(16);
                out.push((digit()? * 16 + digit()?) as u8);
            }
            b'&' => return None,
            byte => out.push(byte),
        }
    }
    String::from_utf8(out).ok()
}

fn percent_encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(byte.into()),
            byte => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn knn(url: &str, index: Option<&str>) -> Location {
        Location::Knn { url: url.into(), index: index.map(Into::into) }
    }

    fn milvus(host: &str, port: u16, management: u16, collection: &str) -> Location {
        Location::Milvus { host: host.into(), port, management, collection: collection.into() }
    }

    #[test]
    fn every_form_is_read_and_written_again() {
        for (text, location, written) in [
            ("memory", Location::Local("memory".into()), None),
            ("C:\\memory", Location::Local("C:\\memory".into()), None),
            ("milvus://h:19530/pairs", milvus("h", 19530, 9091, "pairs"), None),
            ("milvus://h/pairs", milvus("h", 19530, 9091, "pairs"), Some("milvus://h:19530/pairs")),
            ("milvus://[::1]:7/_a1?management=19091", milvus("[::1]", 7, 19091, "_a1"), None),
            ("knn+http://h:1234", knn("http://h:1234", None), None),
            ("knn+https://h/deep/er/", knn("https://h/deep/er", None), Some("knn+https://h/deep/er")),
            ("knn+http://h:1/a/knn-service", knn("http://h:1/a", None), Some("knn+http://h:1/a")),
            ("knn+http://h:1/?index=laion_400m", knn("http://h:1", Some("laion_400m")), None),
            ("knn+http://h:1?index=a%20b%2F%C3%A9", knn("http://h:1", Some("a b/é")), None),
        ] {
            let read: Location = text.parse().unwrap();
            assert_eq!(read, location, "{text}");
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
        let message = "milvus://root:secret@h:1/a".parse::<Location>().unwrap_err().to_string();
        assert!(!message.contains("secret"), "{message}");
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused_and_what_is_read_survives_being_written(text in "(milvus|knn\\+https?)?(://)?\\PC{0,30}") {
            if let Ok(location) = text.parse::<Location>() {
                let again: Location = location.to_string().parse().unwrap();
                prop_assert_eq!(again, location);
            }
        }
    }
}
