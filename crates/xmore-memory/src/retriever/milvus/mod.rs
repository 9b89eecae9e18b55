//! Pairs in a Milvus collection: made, filled and searched by this crate.
//!
//! Tested with the server 2.3.5, standalone. A collection has the fields `id` (int64, primary: the pair's row in the
//! memory), `vector` (the image embedding, inner product), `caption`, `image_path` and `text_embedding` (base64 of
//! float16), and a description that names the model. It has one shard; how a cluster spreads its segments is the
//! cluster's configuration.

mod rest;
mod rows;
#[cfg(test)]
mod tests;
mod upload;

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use self::rest::{Api, Description, ROWS_MAX, TEXT_MAX};
pub use self::upload::{UploadProgress, UploadReport};
use super::{Answer, Location, RemoteOptions, Retriever, check_queries, for_each_query, sort};
#[cfg(doc)]
use crate::error::MemoryError;
use crate::error::Result;
use crate::store::ModelIdentity;

/// Version of the collection's form.
const FORM: u64 = 1;
/// Pause between looks at something that takes a moment.
const POLL: Duration = Duration::from_millis(200);
/// Ids of one request for metadata.
const METADATA_IDS: usize = 1000;

/// How a collection is indexed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MilvusIndex {
    /// Every row is compared: exact, as the search in a local memory is.
    #[default]
    Flat,
    /// What the server's `AUTOINDEX` is, HNSW unless configured: approximate, for collections too large to scan.
    Auto,
}

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

/// What a collection's description says, as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Label {
    xmore_memory: u64,
    model: ModelIdentity,
    pairs: u64,
}

impl Milvus {
    /// Opens a collection that [`create`](Self::create) made, for searching or for going on with an upload.
    ///
    /// # Errors
    /// [`MemoryError::Unreachable`]; [`MemoryError::Remote`] if there is no such collection, it is something else,
    /// or it cannot be loaded; [`MemoryError::Location`] for another kind of location.
    pub fn open(location: &Location, options: &RemoteOptions) -> Result<Milvus> {
        let api = Api::new(location, options)?;
        let Some(description) = api.describe(api.search)? else {
            return Err(api.remote(format!(
                "the server has no collection {:?}: make one by uploading a memory to it",
                api.collection
            )));
        };
        Self::opened(api, description, options)
    }

    fn opened(api: Api, description: Description, options: &RemoteOptions) -> Result<Milvus> {
        let label = read_label(&description.description).map_err(|reason| {
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
    /// As [`open`](Self::open); [`MemoryError::Remote`] too for a collection of another model, and for embeddings
    /// longer than the server can keep.
    pub fn create(
        location: &Location,
        model: &ModelIdentity,
        pairs: u64,
        index: MilvusIndex,
        options: &RemoteOptions,
    ) -> Result<Milvus> {
        let api = Api::new(location, options)?;
        if model.dim == 0 || rows::encoded_len(model.dim) > TEXT_MAX {
            let dim = model.dim;
            return Err(
                api.remote(format!("embeddings of length {dim} do not fit into a text of {TEXT_MAX} bytes"))
            );
        }
        let found = match api.describe(api.upload)? {
            Some(found) => found,
            None => {
                let label = Label { xmore_memory: FORM, model: model.clone(), pairs };
                let label = serde_json::to_string(&label).map_err(|e| api.remote(e.to_string()))?;
                api.create(&label, model.dim)?;
                poll(options.timeout, || api.describe(api.upload))?
                    .ok_or_else(|| api.remote("the collection that was made does not appear"))?
            }
        };
        if let Ok(label) = read_label(&found.description) {
            check_model(&api, &label.model, model)?;
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
    /// [`MemoryError::Unreachable`] or [`MemoryError::Remote`].
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

    /// Removes the collection and all that is in it.
    ///
    /// # Errors
    /// [`MemoryError::Unreachable`] or [`MemoryError::Remote`].
    pub fn drop_collection(self) -> Result<()> {
        self.api.drop_collection()
    }

    fn ask(&self, query: &[f32], n: usize) -> Result<Answer> {
        let dim = query.len();
        let rows = self.api.nearest(query, n)?;
        let came = rows.len();
        let mut neighbours: Vec<_> = rows.into_iter().filter_map(|row| rows::neighbour(row, dim)).collect();
        sort(&mut neighbours);
        neighbours.truncate(n);
        let pairs = self.pairs.load(Ordering::Relaxed);
        let expected = usize::try_from(pairs).map_or(n, |pairs| pairs.min(n));
        let missing = expected.saturating_sub(neighbours.len());
        let incomplete = (pairs < self.announced).then(|| {
            format!(
                "the collection holds {pairs} of its memory's {} pairs: if its upload was not finished, the same upload \
                 again goes on",
                self.announced
            )
        });
        let note = incomplete.or_else(|| {
            let found = neighbours.len();
            (missing > 0).then(|| {
                format!(
                    "{found} pairs instead of {expected}: {came} rows came, {} unusable",
                    came - found.min(came)
                )
            })
        });
        Ok(Answer { neighbours, missing, note })
    }
}

/// Texts of a pair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PairMetadata {
    /// The caption.
    pub caption: String,
    /// The image's path.
    pub image_path: String,
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

    fn nearest_images(&self, queries: &[f32], dim: usize, n: usize) -> Result<Vec<Answer>> {
        check_queries(queries, dim, self.identity())?;
        if n > ROWS_MAX {
            return Err(self
                .api
                .remote(format!("{n} neighbours are more than its {ROWS_MAX} for one query")));
        }
        for_each_query(queries, dim, self.options.parallel, |query| match n {
            0 => Ok(Answer::default()),
            n => self.ask(query, n),
        })
    }
}

fn read_label(description: &str) -> std::result::Result<Label, String> {
    let label: Label = serde_json::from_str(description)
        .map_err(|_| "was not made by xmore: its description names no model".to_owned())?;
    match label.xmore_memory {
        FORM if label.model.dim > 0 => Ok(label),
        FORM => Err("has a damaged description".into()),
        form => Err(format!("has form {form}, and this version of xmore reads {FORM}: update xmore")),
    }
}

fn check_model(api: &Api, theirs: &ModelIdentity, ours: &ModelIdentity) -> Result<()> {
    if theirs.sha256 == ours.sha256 && theirs.dim == ours.dim {
        return Ok(());
    }
    let describe = |model: &ModelIdentity| {
        let hash: String = model.sha256.chars().take(12).collect();
        format!("{} ({hash}, {} values)", model.name, model.dim)
    };
    Err(api.remote(format!(
        "collection {:?} holds embeddings of model {}, the memory those of {}; choose another collection",
        api.collection,
        describe(theirs),
        describe(ours)
    )))
}

/// Loads the collection if need be, and waits until it can be searched.
fn wait_until_loaded(api: &Api, found: Description, patience: Duration) -> Result<()> {
    if found.is_loaded() {
        return Ok(());
    }
    if !found.is_loading() {
        api.load()?;
    }
    let loaded = poll(patience, || {
        let found = api.describe(api.search)?;
        Ok(found.filter(Description::is_loaded).map(|_| ()))
    })?;
    loaded.ok_or_else(|| {
        let seconds = patience.as_secs();
        api.remote(format!(
            "collection {:?} is still not loaded after {seconds} s; try again later",
            api.collection
        ))
    })
}

/// Looks again and again until there is something, `None` if there is nothing until the deadline.
fn poll<T>(patience: Duration, mut look: impl FnMut() -> Result<Option<T>>) -> Result<Option<T>> {
    let start = Instant::now();
    loop {
        if let Some(found) = look()? {
            return Ok(Some(found));
        }
        if start.elapsed() + POLL > patience {
            return Ok(None);
        }
        std::thread::sleep(POLL);
    }
}
