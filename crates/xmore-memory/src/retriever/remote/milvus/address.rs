//! `milvus://HOST:PORT/COLLECTION`: which collection of which server.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::super::address::{host_and_port, split_query};
use super::super::upload::Target;
use super::super::{NewIndex, RemoteKind, RemotePlace, parse_as};
use super::super::{RemoteOptions, Retriever};
use super::Milvus;
use crate::error::{MemoryError, Result};
#[cfg(doc)]
use crate::retriever::RemoteError;

/// Port of the RESTful API where none is given.
const PORT: u16 = 19530;
/// Port of Milvus's management API, on which collections are made.
const MANAGEMENT_PORT: u16 = 9091;
/// Longest name that Milvus takes.
const COLLECTION_NAME_MAX: usize = 255;

/// Milvus in the table of what pairs may be kept in.
pub(in super::super) const KIND: RemoteKind = RemoteKind {
    schemes: &["milvus"],
    short: "milvus://HOST:PORT/COLLECTION",
    form: "milvus://HOST:PORT/COLLECTION (Milvus listens on port 19530 by default), with \
        ?management=PORT where its management API is not on port 9091",
    takes_uploads: true,
    parse: |_, rest| Some(Arc::new(parse(rest)?)),
};

/// A collection of a Milvus server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MilvusAddress {
    /// Name or address; an IPv6 address with its brackets.
    pub host: String,
    /// Port of the RESTful API, 19530 by default.
    pub port: u16,
    /// Port of the management API, 9091 by default; used to make and to fill a collection, not to search.
    pub management: u16,
    /// Name of the collection.
    pub collection: String,
}

impl FromStr for MilvusAddress {
    type Err = MemoryError;

    /// Reads `milvus://HOST:PORT/COLLECTION`.
    ///
    /// # Errors
    /// [`RemoteError::Location`].
    fn from_str(text: &str) -> Result<Self> {
        parse_as(&KIND, text, |_, rest| parse(rest))
    }
}

impl fmt::Display for MilvusAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port, management, collection } = self;
        write!(f, "milvus://{host}:{port}/{collection}")?;
        if *management == MANAGEMENT_PORT { Ok(()) } else { write!(f, "?management={management}") }
    }
}

impl RemotePlace for MilvusAddress {
    fn open(&self, options: &RemoteOptions) -> Result<Box<dyn Retriever>> {
        Ok(Box::new(Milvus::open(self, options)?))
    }

    fn create(&self, new: &NewIndex<'_>, options: &RemoteOptions) -> Result<Box<dyn Target>> {
        Ok(Box::new(Milvus::create(self, new.model, new.pairs, new.kind, options)?))
    }
}

fn parse(rest: &str) -> Option<MilvusAddress> {
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
    valid.then(|| MilvusAddress {
        host,
        port: port.unwrap_or(PORT),
        management,
        collection: collection.to_owned(),
    })
}
