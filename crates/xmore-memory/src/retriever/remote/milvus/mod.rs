//! Pairs in a Milvus collection: made, filled and searched by this crate.
//!
//! Tested with the server 2.3.5, standalone. A collection has the fields `id` (int64, primary: the pair's row in the
//! memory), `vector` (the image embedding, inner product), `caption`, `image_path` and `text_embedding` (base64 of
//! float16), and a description that names the model. It has one shard; how a cluster spreads its segments is the
//! cluster's configuration.

mod address;
mod rest;
mod rows;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

pub(super) use self::address::KIND;
pub use self::address::MilvusAddress;
use self::rest::{Api, Description, ROWS_MAX, TEXT_MAX};
use super::label::{Label, incomplete, other_model};
use super::upload::{PairMetadata, Sent, Target, UploadProgress, UploadReport, upload};
use super::{IndexKind, Neighbors, RemoteOptions, Retriever, check_queries, for_each_query, sort};
use crate::error::{MemoryError, Result};
#[cfg(doc)]
use crate::retriever::RemoteError;
use crate::store::{Memory, ModelIdentity};

/// Pause between looks at something that takes a moment.
const POLL: Duration = Duration::from_millis(200);
/// Ids of one request for metadata.
const METADATA_IDS: usize = 1000;

/// A collection that holds a memory's pairs.
pub struct Milvus {
    api: Api,
    model: ModelIdentity,
    /// Pairs announced when the collection was made.
    announced: u64,
    /// Pairs that were there when last counted.
    pairs: AtomicU64,
    options: RemoteOptions,
}

impl Milvus {
    /// Opens a collection that [`create`](Self::create) made, for searching or for going on with an upload.
    ///
    /// # Errors
    /// [`RemoteError::Unreachable`]; [`RemoteError::Refused`] if there is no such collection, it is something else,
    /// or it cannot be loaded.
    pub fn open(address: &MilvusAddress, options: &RemoteOptions) -> Result<Milvus> {
        let api = Api::new(address, options);
        let Some(description) = api.describe(api.search)? else {
            return Err(api.remote(format!(
                "the server has no collection {:?}: make one by uploading a memory to it",
                api.collection
            )));
        };
        Self::opened(api, description, options)
    }

    fn opened(api: Api, description: Description, options: &RemoteOptions) -> Result<Milvus> {
        let label = Label::read(&description.description).map_err(|reason| {
            let collection = &api.collection;
            api.remote(format!("collection {collection:?} {reason}; choose another collection"))
        })?;
        wait_until_loaded(&api, description, options.timeout)?;
        let pairs = api.visible(api.search)?;
        Ok(Milvus {
            api,
            model: label.model,
            announced: label.pairs,
            pairs: pairs.into(),
            options: options.clone(),
        })
    }

    /// Makes an empty collection for a model's embeddings, or opens it if it is there already. `pairs` is how many
    /// are to be uploaded, so that searches can tell when an upload was not finished.
    ///
    /// # Errors
    /// As [`open`](Self::open); [`RemoteError::Refused`] too for a collection of another model, and for embeddings
    /// longer than the server can keep.
    pub fn create(
        address: &MilvusAddress,
        model: &ModelIdentity,
        pairs: u64,
        index: IndexKind,
        options: &RemoteOptions,
    ) -> Result<Milvus> {
        let api = Api::new(address, options);
        if model.dim == 0 || rows::encoded_len(model.dim) > TEXT_MAX {
            let dim = model.dim;
            return Err(
                api.remote(format!("embeddings of length {dim} do not fit into a text of {TEXT_MAX} bytes"))
            );
        }
        let found = match api.describe(api.upload)? {
            Some(found) => found,
            None => {
                let label = Label::new(model, pairs).to_json().map_err(|e| api.remote(e))?;
                api.create(&label, model.dim)?;
                poll(options.timeout, || api.describe(api.upload))?
                    .ok_or_else(|| api.remote("the collection that was made does not appear"))?
            }
        };
        if let Ok(label) = Label::read(&found.description) {
            if let Some(reason) = other_model(&api.name(), &label.model, model) {
                return Err(api.remote(reason));
            }
            // What an interrupted call may have left undone.
            if !found.has_index() {
                api.create_index(index)?;
            }
        }
        Self::opened(api, found, options)
    }

    /// What the collection has of some pairs, `None` for ids that are not there.
    ///
    /// # Errors
    /// [`RemoteError::Unreachable`] or [`RemoteError::Refused`].
    pub fn metadata(&self, ids: &[u64]) -> Result<Vec<Option<PairMetadata>>> {
        let mut known = HashMap::new();
        for ids in ids.chunks(METADATA_IDS) {
            for row in self.api.rows(ids, self.api.search)? {
                if let (Some(id), Some(caption)) = (row.id.value(), row.caption) {
                    let image_path = row.image_path.unwrap_or_default();
                    known.insert(id, PairMetadata { caption, image_path });
                }
            }
        }
        Ok(ids.iter().map(|id| known.get(id).cloned()).collect())
    }

    /// Sends a memory's pairs that the collection has not; see [`Upload::run`](super::Upload::run).
    ///
    /// # Errors
    /// As there.
    pub fn upload(
        &self,
        memory: &Memory,
        mut progress: impl FnMut(UploadProgress) -> bool,
    ) -> Result<UploadReport> {
        upload(self, memory, &mut progress)
    }

    /// Removes the collection and all that is in it.
    ///
    /// # Errors
    /// [`RemoteError::Unreachable`] or [`RemoteError::Refused`].
    pub fn drop_collection(self) -> Result<()> {
        self.api.drop_collection()
    }

    fn ask(&self, query: &[f32], n: usize) -> Result<Neighbors> {
        let dim = query.len();
        let rows = self.api.nearest(query, n)?;
        let came = rows.len();
        let mut neighbors: Vec<_> = rows.into_iter().filter_map(|row| rows::neighbor(row, dim)).collect();
        sort(&mut neighbors);
        neighbors.truncate(n);
        let pairs = self.pairs.load(Ordering::Relaxed);
        let expected = usize::try_from(pairs).map_or(n, |pairs| pairs.min(n));
        let missing = expected.saturating_sub(neighbors.len());
        let incomplete = incomplete("collection", pairs, self.announced);
        let note = incomplete.or_else(|| {
            let found = neighbors.len();
            (missing > 0).then(|| {
                format!(
                    "{found} pairs instead of {expected}: {came} rows came, {} unusable",
                    came - found.min(came)
                )
            })
        });
        Ok(Neighbors { pairs: neighbors, missing, note })
    }
}

impl Retriever for Milvus {
    fn location(&self) -> Cow<'_, str> {
        self.api.location().into()
    }

    fn pairs(&self) -> Result<Option<u64>> {
        let pairs = self.api.visible(self.api.search)?;
        self.pairs.store(pairs, Ordering::Relaxed);
        Ok(Some(pairs))
    }

    fn identity(&self) -> Option<&ModelIdentity> {
        Some(&self.model)
    }

    fn nearest_images(&self, queries: &[f32], dim: usize, n: usize) -> Result<Vec<Neighbors>> {
        check_queries(queries, dim, self.identity())?;
        if n > ROWS_MAX {
            return Err(self.api.remote(format!("{n} neighbors are more than its {ROWS_MAX} for one query")));
        }
        for_each_query(queries, dim, self.options.parallel, |query| match n {
            0 => Ok(Neighbors::default()),
            n => self.ask(query, n),
        })
    }
}

impl Target for Milvus {
    fn name(&self) -> String {
        self.api.name()
    }

    fn model(&self) -> &ModelIdentity {
        &self.model
    }

    fn remote(&self, reason: String) -> MemoryError {
        self.api.remote(reason)
    }

    fn count(&self, ids: Option<Range<u64>>) -> Result<u64> {
        self.api.count(ids, self.api.upload)
    }

    fn metadata(&self, ids: &[u64]) -> Result<Vec<Option<PairMetadata>>> {
        Milvus::metadata(self, ids)
    }

    fn kept_text<'a>(&self, text: &'a str) -> Cow<'a, str> {
        rows::cut(text).0.into()
    }

    fn rows_of_request(&self, dim: usize) -> u64 {
        rows::rows_of_request(dim)
    }

    fn parallel(&self) -> usize {
        self.options.parallel
    }

    fn send(&self, memory: &Memory, range: Range<u64>) -> Result<Sent> {
        let request = rows::batch(memory, &self.api.collection, range.start, range.end)?;
        if request.sent.rows > 0 {
            self.api.upsert(&request.body)?;
        }
        Ok(request.sent)
    }

    /// Searches lag behind what was inserted by seconds: waits until they do not.
    fn finish(&self, present: u64) -> Result<()> {
        // Whether it is flushed now or by and by makes no difference to what is found.
        let _ = self.api.flush();
        let visible = poll(self.options.upload_retry_time, || {
            let visible = self.api.visible(self.api.upload)?;
            Ok((visible >= present).then_some(visible))
        })?;
        let visible =
            visible.ok_or_else(|| self.api.remote("the pairs that were sent do not become visible"))?;
        self.pairs.store(visible, Ordering::Relaxed);
        Ok(())
    }
}

/// Loads the collection if need be, and waits until it can be searched.
fn wait_until_loaded(api: &Api, found: Description, limit: Duration) -> Result<()> {
    if found.is_loaded() {
        return Ok(());
    }
    if !found.is_loading() {
        api.load()?;
    }
    let loaded = poll(limit, || {
        let found = api.describe(api.search)?;
        Ok(found.filter(Description::is_loaded).map(|_| ()))
    })?;
    loaded.ok_or_else(|| {
        let seconds = limit.as_secs();
        api.remote(format!(
            "collection {:?} is still not loaded after {seconds} s; try again later",
            api.collection
        ))
    })
}

/// Looks again and again until there is something, `None` if there is nothing until the deadline.
fn poll<T>(limit: Duration, mut look: impl FnMut() -> Result<Option<T>>) -> Result<Option<T>> {
    let start = Instant::now();
    loop {
        if let Some(found) = look()? {
            return Ok(Some(found));
        }
        if start.elapsed() + POLL > limit {
            return Ok(None);
        }
        std::thread::sleep(POLL);
    }
}
