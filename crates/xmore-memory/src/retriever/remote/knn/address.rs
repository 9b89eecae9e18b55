//! `knn+http://HOST:PORT[/PATH][?index=NAME]`: which index of which service of clip-retrieval's.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::super::address::{host_and_port, percent_decode, percent_encode, split_query};
use super::super::{RemoteKind, RemotePlace, parse_as};
use super::super::{RemoteOptions, Retriever};
use super::Knn;
use crate::error::{MemoryError, Result};
#[cfg(doc)]
use crate::retriever::RemoteError;

/// clip-retrieval in the table of what pairs may be kept in.
pub(in super::super) const KIND: RemoteKind = RemoteKind {
    schemes: &["knn+http", "knn+https"],
    short: "knn+http://HOST:PORT[?index=NAME]",
    form: "knn+http://HOST:PORT, knn+http://HOST:PORT/PATH or knn+http://HOST:PORT?index=NAME, or the same with \
        knn+https",
    takes_uploads: false,
    parse: |scheme, rest| Some(Arc::new(parse(scheme, rest)?)),
};

/// An index behind clip-retrieval's `/knn-service`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnnAddress {
    /// Address below which `/knn-service` is, such as `http://host:1234`, without a slash at its end.
    pub url: String,
    /// Name of the index; the service's first if `None`.
    pub index: Option<String>,
}

impl FromStr for KnnAddress {
    type Err = MemoryError;

    /// Reads `knn+http://HOST:PORT[/PATH][?index=NAME]`.
    ///
    /// # Errors
    /// [`RemoteError::Location`].
    fn from_str(text: &str) -> Result<Self> {
        parse_as(&KIND, text, parse)
    }
}

impl fmt::Display for KnnAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "knn+{}", self.url)?;
        self.index.as_ref().map_or(Ok(()), |index| write!(f, "?index={}", percent_encode(index)))
    }
}

impl RemotePlace for KnnAddress {
    fn open(&self, options: &RemoteOptions) -> Result<Box<dyn Retriever>> {
        Ok(Box::new(Knn::open(self, options)?))
    }
}

fn parse(scheme: &str, rest: &str) -> Option<KnnAddress> {
    let scheme = scheme.strip_prefix("knn+")?;
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
    Some(KnnAddress { url: format!("{scheme}://{address}"), index })
}
