//! Retrieval wherever the pairs are: one trait over a memory on this machine and remote indexes on others.
//!
//! | where | [`Location`] | made by |
//! |---|---|---|
//! | a folder | `path/to/memory` | [`Memory::open`] |
//! | Milvus | `milvus://host:19530/collection` | [`Milvus`], filled by an [`Upload`] |
//! | PostgreSQL with pgvector | `postgres://user@host:5432/database/table` | `Pgvector`, filled by an [`Upload`] |
//! | clip-retrieval's `/knn-service` | `knn+http://host:1234?index=NAME` | [`Knn`] |

pub(crate) mod error;
mod local;
mod location;
#[cfg(feature = "remote")]
mod remote;

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;
use std::time::Duration;

pub use error::RemoteError;
pub use location::Location;
#[cfg(feature = "remote")]
pub use remote::{
    IndexKind, Knn, KnnAddress, Milvus, MilvusAddress, PairMetadata, RemoteLocation, Upload, UploadProgress,
    UploadReport,
};
#[cfg(feature = "pgvector")]
pub use remote::{Pgvector, PgvectorAddress};

use crate::error::Result;
use crate::search::VectorError;
#[cfg(doc)]
use crate::store::Memory;
use crate::store::ModelIdentity;

/// A pair that was found, with what cross-modal retrieval needs of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Neighbor {
    /// Id of the pair: its row in the memory, or the remote index's id.
    pub id: u64,
    /// Inner product of the query and the pair's image embedding; the cosine if both are unit vectors.
    pub similarity: f32,
    /// The caption.
    pub caption: String,
    /// The image's path or URL, as the remote index names it; empty where it names none.
    pub image_path: String,
    /// The caption's unit embedding, `[dim]`. `None` where the remote index has none: encode the caption.
    pub text_embedding: Option<Vec<f32>>,
}

/// The neighbors of one query.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Neighbors {
    /// At most as many as asked for, by falling similarity, equal ones by ascending id.
    pub pairs: Vec<Neighbor>,
    /// How many fewer these are than asked for, unless the remote index is known to hold no more.
    pub missing: usize,
    /// Why, in words for the user; also set where an upload to the remote index is incomplete.
    pub note: Option<String>,
}

/// Something that finds the pairs whose images are most similar to a query image.
pub trait Retriever: Send + Sync {
    /// The folder or URL, for messages.
    fn location(&self) -> Cow<'_, str>;

    /// Number of pairs, `None` where the remote index does not tell.
    ///
    /// # Errors
    /// [`RemoteError::Unreachable`] or [`RemoteError::Refused`].
    fn pairs(&self) -> Result<Option<u64>>;

    /// The model whose embeddings these are, `None` where the remote index does not tell. Queries of another model find
    /// nothing of meaning, so compare before the first search.
    fn identity(&self) -> Option<&ModelIdentity>;

    /// The `n` pairs whose images are most similar to each query: one answer for each row of `queries`, `[q, dim]`
    /// unit vectors row after row.
    ///
    /// # Errors
    /// [`VectorError::Length`], [`VectorError::QueryLength`] or [`VectorError::NotFinite`] for queries that are
    /// refused; [`RemoteError::Unreachable`] where a remote index does not answer even after retries;
    /// [`RemoteError::Refused`] where it answers, but refuses or makes no sense.
    fn nearest_images(&self, queries: &[f32], dim: usize, n: usize) -> Result<Vec<Neighbors>>;

    /// Whether [`nearest_images_in`](Self::nearest_images_in) can look at a range of ids.
    fn filters_rows(&self) -> bool {
        false
    }

    /// The same among the pairs whose ids are in `rows`, if there are any.
    ///
    /// # Errors
    /// As [`nearest_images`](Self::nearest_images); [`RemoteError::Refused`] for a range where
    /// [`filters_rows`](Self::filters_rows) is `false`.
    fn nearest_images_in(
        &self,
        queries: &[f32],
        dim: usize,
        n: usize,
        rows: Option<Range<u64>>,
    ) -> Result<Vec<Neighbors>> {
        match rows {
            None => self.nearest_images(queries, dim, n),
            Some(_) => Err(RemoteError::Refused {
                location: self.location().into_owned(),
                reason: "searches among some of the pairs only are not possible there".into(),
            }
            .into()),
        }
    }
}

/// Limits of time and size towards a remote index.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RemoteOptions {
    /// Longest time for one request, its answer included.
    pub timeout: Duration,
    /// How often one request of a search is tried before the remote index counts as unreachable.
    pub attempts: u32,
    /// How long one request of an upload is tried again: long enough for a remote index to start anew.
    pub upload_retry_time: Duration,
    /// Most bytes of one answer.
    pub max_answer: u64,
    /// Most requests at the same time.
    pub parallel: usize,
    /// Sent as `Authorization: Bearer TOKEN` where set, over plain HTTP except for `knn+https`. Milvus takes
    /// `user:password` or an API key. The password of a PostgreSQL server, where the address has none.
    pub token: Option<String>,
}

impl Default for RemoteOptions {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(30),
            attempts: 4,
            upload_retry_time: Duration::from_secs(180),
            max_answer: 64 << 20,
            parallel: 4,
            token: None,
        }
    }
}

impl fmt::Debug for RemoteOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteOptions")
            .field("timeout", &self.timeout)
            .field("attempts", &self.attempts)
            .field("upload_retry_time", &self.upload_retry_time)
            .field("max_answer", &self.max_answer)
            .field("parallel", &self.parallel)
            // A token in a log is a leak.
            .field("token", &self.token.as_ref().map(|_| "…"))
            .finish()
    }
}

/// Opens whatever is at a location; see [`Location::open`].
///
/// # Errors
/// As there.
pub fn open(location: &Location, options: &RemoteOptions) -> Result<Box<dyn Retriever>> {
    location.open(options)
}

/// Checks a batch of queries, `[q, dim]`, against a remote index's embedding length where that is known.
fn check_queries(queries: &[f32], dim: usize, expected: Option<&ModelIdentity>) -> Result<()> {
    if let Some(model) = expected
        && model.dim != dim
    {
        return Err(VectorError::Length { what: "query", expected: model.dim, found: dim }.into());
    }
    if dim == 0 || !queries.len().is_multiple_of(dim) {
        let model = expected.map_or_else(|| "the remote index's model".to_owned(), ToString::to_string);
        return Err(VectorError::QueryLength { dim, found: queries.len(), model }.into());
    }
    match queries.iter().position(|v| !v.is_finite()) {
        None => Ok(()),
        Some(at) => {
            let (row, position, value) = ((at / dim) as u64, at % dim, queries[at]);
            Err(VectorError::NotFinite { what: "query", row, position, value }.into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::MemoryError;
    use crate::search::VectorError;

    #[test]
    fn a_token_is_not_shown() {
        let options = RemoteOptions { token: Some("secret".into()), ..RemoteOptions::default() };
        assert!(!format!("{options:?}").contains("secret"));
    }

    #[test]
    fn queries_are_checked_before_anything_is_sent() {
        let model = ModelIdentity::new("m", String::new(), 4);
        check_queries(&[0.0; 8], 4, Some(&model)).unwrap();
        // Eight values are two queries of four, but not of a model of two.
        assert!(matches!(
            check_queries(&[0.0; 8], 2, Some(&model)),
            Err(MemoryError::Vector(VectorError::Length { expected: 4, .. }))
        ));
        assert!(matches!(
            check_queries(&[0.0; 7], 4, None),
            Err(MemoryError::Vector(VectorError::QueryLength { .. }))
        ));
        assert!(matches!(
            check_queries(&[0.0; 7], 0, None),
            Err(MemoryError::Vector(VectorError::QueryLength { .. }))
        ));
        let nan = [0.0, 0.0, 0.0, f32::NAN];
        assert!(matches!(
            check_queries(&nan, 2, None),
            Err(MemoryError::Vector(VectorError::NotFinite { row: 1, position: 1, .. }))
        ));
    }
}
