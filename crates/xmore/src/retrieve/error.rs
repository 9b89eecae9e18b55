//! What is wrong between pairs, encoders and the options of retrieval.

use std::path::PathBuf;

use thiserror::Error;

/// Errors of retrieval that are neither a memory's nor a remote index's own.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RetrievalError {
    /// K = 0 captions asked for.
    #[error("k is 0: at least one caption is needed")]
    NoCaptionsAsked,
    /// Fewer neighbors than captions asked for.
    #[error("k is {k}, but only {neighbors} neighbors are looked at")]
    TooFewNeighbors {
        /// Captions asked for.
        k: usize,
        /// Neighbors looked at.
        neighbors: usize,
    },
    /// The memory holds nothing.
    #[error("the memory {} holds no pairs", dir.display())]
    EmptyMemory {
        /// The memory.
        dir: PathBuf,
    },
    /// The pairs have embeddings by other models only: their vectors mean nothing to this one.
    #[error("the memory {location} was built with model {memory_model}, but the model in use is {model}")]
    ModelMismatch {
        /// The memory's folder, or the remote index's URL.
        location: String,
        /// Whether it is a remote index.
        remote: bool,
        /// Names and fingerprints of the models whose embeddings it has.
        memory_model: String,
        /// Name and fingerprint of the model in use.
        model: String,
    },
    /// A remote index was asked for a part of its pairs that it cannot tell from the others.
    #[error(
        "{location} is a remote index: filters by caption work on a local memory only, filters by row there and in PostgreSQL"
    )]
    RemoteFilter {
        /// Its URL.
        location: String,
    },
    /// A filter by caption that leaves nothing.
    #[error("no caption of the memory matches {pattern}")]
    NoCaptionMatches {
        /// The regular expression.
        pattern: String,
    },
    /// A remote index was asked to search its captions.
    #[error(
        "{location} is a remote index: it is searched by images only; search captions directly in a local memory"
    )]
    RemoteRanking {
        /// Its URL.
        location: String,
    },
    /// A remote index is searched by another model than the one that classifies.
    #[error(
        "method xmore-kernel asks the remote index {location} about the labels, which takes one model for searching and classifying"
    )]
    KernelNeedsOneModel {
        /// Its URL.
        location: String,
    },
}
