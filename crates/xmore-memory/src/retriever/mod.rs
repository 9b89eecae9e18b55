//! Retrieval wherever the pairs are: one trait over a memory on this machine and remote indexes on others.
//!
//! | where | [`Location`] | made by |
//! |---|---|---|
//! | a folder | `path/to/memory` | [`Memory::open`] |
//! | Milvus | `milvus://host:19530/collection` | [`Milvus`], filled by an [`Upload`] |
//! | PostgreSQL with pgvector | `postgres://user@host:5432/database/table` | `Pgvector`, filled by an [`Upload`] |
//! | clip-retrieval's `/knn-service` | `knn+http://host:1234?index=NAME` | [`Knn`] |

mod address;
mod http;
mod json;
mod knn;
mod label;
mod local;
mod location;
mod milvus;
#[cfg(feature = "pgvector")]
mod pgvector;
mod retry;
#[cfg(test)]
mod test_server;
mod upload;

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

pub use knn::{Knn, KnnAddress};
pub use location::{Location, RemoteLocation};
pub use milvus::{Milvus, MilvusAddress};
#[cfg(feature = "pgvector")]
pub use pgvector::{Pgvector, PgvectorAddress};
pub use upload::{IndexKind, PairMetadata, Upload, UploadProgress, UploadReport};

use crate::error::{MemoryError, Result};
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

/// What one query found.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Answer {
    /// At most as many as asked for, by falling similarity, equal ones by ascending id.
    pub neighbors: Vec<Neighbor>,
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
    /// [`MemoryError::Unreachable`] or [`MemoryError::Remote`].
    fn pairs(&self) -> Result<Option<u64>>;

    /// The model whose embeddings these are, `None` where the remote index does not tell. Queries of another model find
    /// nothing of meaning, so compare before the first search.
    fn identity(&self) -> Option<&ModelIdentity>;

    /// The `n` pairs whose images are most similar to each query: one answer for each row of `queries`, `[q, dim]`
    /// unit vectors row after row.
    ///
    /// # Errors
    /// [`MemoryError::Length`], [`MemoryError::QueryLength`] or [`MemoryError::NotFinite`] for queries that are
    /// refused; [`MemoryError::Unreachable`] where a remote index does not answer even after retries;
    /// [`MemoryError::Remote`] where it answers, but refuses or makes no sense.
    fn nearest_images(&self, queries: &[f32], dim: usize, n: usize) -> Result<Vec<Answer>>;

    /// Whether [`nearest_images_in`](Self::nearest_images_in) can look at a range of ids.
    fn filters_rows(&self) -> bool {
        false
    }

    /// The same among the pairs whose ids are in `rows`, if there are any.
    ///
    /// # Errors
    /// As [`nearest_images`](Self::nearest_images); [`MemoryError::Remote`] for a range where
    /// [`filters_rows`](Self::filters_rows) is `false`.
    fn nearest_images_in(
        &self,
        queries: &[f32],
        dim: usize,
        n: usize,
        rows: Option<Range<u64>>,
    ) -> Result<Vec<Answer>> {
        match rows {
            None => self.nearest_images(queries, dim, n),
            Some(_) => Err(MemoryError::Remote {
                location: self.location().into_owned(),
                reason: "searches among some of the pairs only are not possible there".into(),
            }),
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
        return Err(MemoryError::Length { what: "query", expected: model.dim, found: dim });
    }
    if dim == 0 || !queries.len().is_multiple_of(dim) {
        let model =
            expected.map_or_else(|| "the remote index's model".to_owned(), |model| model.name.clone());
        return Err(MemoryError::QueryLength { dim, found: queries.len(), model });
    }
    match queries.iter().position(|v| !v.is_finite()) {
        None => Ok(()),
        Some(at) => {
            let (row, position, value) = ((at / dim) as u64, at % dim, queries[at]);
            Err(MemoryError::NotFinite { what: "query", row, position, value })
        }
    }
}

/// Asks for each query, `[q, dim]`, a few at a time. The first failure ends it.
fn for_each_query(
    queries: &[f32],
    dim: usize,
    parallel: usize,
    ask: impl Fn(&[f32]) -> Result<Answer> + Sync,
) -> Result<Vec<Answer>> {
    let count = queries.len() / dim;
    let answers: Vec<Mutex<Option<Result<Answer>>>> = (0..count).map(|_| Mutex::new(None)).collect();
    let (next, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
    let work = || {
        while !failed.load(Ordering::Relaxed) {
            let i = next.fetch_add(1, Ordering::Relaxed);
            let (Some(query), Some(slot)) = (queries.get(i * dim..(i + 1) * dim), answers.get(i)) else {
                break;
            };
            let answer = ask(query);
            failed.fetch_or(answer.is_err(), Ordering::Relaxed);
            *slot.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(answer);
        }
    };
    // Waiting for a server is no work for rayon's threads.
    thread::scope(|scope| {
        for _ in 1..parallel.min(count) {
            // With fewer threads it takes longer; this one asks too.
            if thread::Builder::new().spawn_scoped(scope, work).is_err() {
                break;
            }
        }
        work();
    });
    // Queries are taken in order, so whatever was left out comes after a failure.
    answers.into_iter().map_while(|slot| slot.into_inner().unwrap_or_else(|p| p.into_inner())).collect()
}

/// Puts neighbors into the order that answers have.
fn sort(neighbors: &mut [Neighbor]) {
    neighbors.sort_by(|a, b| b.similarity.total_cmp(&a.similarity).then(a.id.cmp(&b.id)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_come_in_the_order_of_the_queries_and_the_first_failure_ends_it() {
        let queries: Vec<f32> = (0..40).map(|i| i as f32).collect();
        let ask = |query: &[f32]| {
            thread::sleep(Duration::from_millis((query[0] as u64 * 7) % 5));
            Ok(Answer { missing: query[0] as usize, ..Answer::default() })
        };
        let answers = for_each_query(&queries, 2, 4, ask).unwrap();
        assert_eq!(
            answers.iter().map(|a| a.missing).collect::<Vec<_>>(),
            (0..40).step_by(2).collect::<Vec<_>>()
        );

        let asked = AtomicUsize::new(0);
        let failing = |query: &[f32]| {
            asked.fetch_add(1, Ordering::Relaxed);
            match query[0] {
                3.0 => Err(MemoryError::Remote { location: "x".into(), reason: "no".into() }),
                _ => Ok(Answer::default()),
            }
        };
        assert!(for_each_query(&queries, 1, 1, failing).is_err());
        assert_eq!(asked.load(Ordering::Relaxed), 4);
        assert!(for_each_query(&[], 3, 4, failing).unwrap().is_empty());
    }

    #[test]
    fn a_token_is_not_shown() {
        let options = RemoteOptions { token: Some("secret".into()), ..RemoteOptions::default() };
        assert!(!format!("{options:?}").contains("secret"));
    }

    #[test]
    fn queries_are_checked_before_anything_is_sent() {
        let model = ModelIdentity { name: "m".into(), sha256: String::new(), dim: 4 };
        check_queries(&[0.0; 8], 4, Some(&model)).unwrap();
        // Eight values are two queries of four, but not of a model of two.
        assert!(matches!(
            check_queries(&[0.0; 8], 2, Some(&model)),
            Err(MemoryError::Length { expected: 4, .. })
        ));
        assert!(matches!(check_queries(&[0.0; 7], 4, None), Err(MemoryError::QueryLength { .. })));
        assert!(matches!(check_queries(&[0.0; 7], 0, None), Err(MemoryError::QueryLength { .. })));
        let nan = [0.0, 0.0, 0.0, f32::NAN];
        assert!(matches!(
            check_queries(&nan, 2, None),
            Err(MemoryError::NotFinite { row: 1, position: 1, .. })
        ));
    }
}
