//! Why a server does not start, or cannot go on.

use std::net::SocketAddr;
use std::path::PathBuf;

use thiserror::Error;
use xmore::XmoreError;
use xmore_memory::MemoryError;

/// Why a server does not start, or cannot go on.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ServerError {
    /// Other machines would be served without a key.
    #[error("{addr} can be reached from other machines, and no API key is asked for")]
    OpenToOthers {
        /// The address.
        addr: SocketAddr,
    },
    /// A key that protects nothing.
    #[error("an API key is empty")]
    WeakKey,
    /// The address cannot be listened on.
    #[error("cannot listen on {addr}: {source}")]
    Listen {
        /// The address.
        addr: SocketAddr,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The folder of label sets, or one of its files, cannot be used.
    #[error("label sets in {}: {reason}", path.display())]
    LabelSets {
        /// The folder or file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// An origin that is not one.
    #[error("{origin:?} is not an origin: expected `*`, or a scheme and host such as https://example.org")]
    Origin {
        /// What was given.
        origin: String,
    },
    /// The process lacks something that it needs to run.
    #[error("cannot {action}: {source}")]
    Io {
        /// What was attempted.
        action: &'static str,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// Model, labels or method.
    #[error(transparent)]
    Xmore(#[from] XmoreError),
    /// The pairs.
    #[error(transparent)]
    Memory(#[from] MemoryError),
}
