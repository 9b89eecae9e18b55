//! Cross-modal retrieval in two stages: image → image among the pairs, then image → text among their captions.
//!
//! METHOD: nearest neighbors of the query image among the images of the memory (128 of them); exact duplicates among their captions
//! dropped; captions scored by query image · caption; the best K kept. Both features are unit vectors here; the authors' code
//! leaves them unnormalized in the second stage. They search with one model, rank captions with another and classify with a
//! third ([`RetrievalModels`]); one for all is the default.

mod around;
mod open;

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use rayon::prelude::*;
use xmore_clip::Embeddings;
use xmore_memory::retriever::Retriever;
use xmore_memory::store::{EmbeddingSet, Modality};
use xmore_memory::{Hit, Memory, RowSet, SearchOptions};

use crate::captions::CaptionStore;
use crate::encoder::Encoder;
use crate::error::{Result, XmoreError};
use crate::math::dot;
pub(crate) use around::Neighborhood;
use around::RemoteTexts;
pub use open::OpenPairs;

/// How many pairs are looked at and how many captions are kept.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RetrievalOptions {
    /// Pairs of the first stage; the paper's 128.
    pub neighbors: usize,
    /// Captions kept, K; the paper's 16.
    pub k: usize,
    /// Pairs whose image is more similar to the query image than this are left out: they are the query itself, or copies of it.
    pub query_duplicates_above: Option<f32>,
    /// A caption more similar than this to one that is kept already is left out; exact duplicates always are.
    pub near_duplicates_above: Option<f32>,
    /// How captions are found and put in order.
    pub ranking: Ranking,
}

/// How captions are found and put in order before the first K are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ranking {
    /// The paper's two stages: pairs by their images, then their captions by the query image · caption.
    #[default]
    TwoStages,
    /// The first stage alone: captions in the order of their images.
    ByImage,
    /// Captions searched with the query image directly, over the whole memory.
    Direct,
}

impl Default for RetrievalOptions {
    fn default() -> Self {
        Self {
            neighbors: 128,
            k: 16,
            query_duplicates_above: None,
            near_duplicates_above: None,
            ranking: Ranking::TwoStages,
        }
    }
}

impl RetrievalOptions {
    /// # Errors
    /// [`XmoreError::NoCaptionsAsked`] for K = 0, [`XmoreError::TooFewNeighbors`] if fewer pairs are looked at than kept.
    pub fn check(&self) -> Result<()> {
        if self.k == 0 {
            return Err(XmoreError::NoCaptionsAsked);
        }
        if self.neighbors < self.k {
            return Err(XmoreError::TooFewNeighbors { k: self.k, neighbors: self.neighbors });
        }
        Ok(())
    }
}

impl RetrievalOptions {
    /// Whether a pair with an image this similar to the query image is left out as a copy of it.
    fn is_query(&self, image_similarity: f32) -> bool {
        self.query_duplicates_above.is_some_and(|limit| image_similarity > limit)
    }
}

/// The models of the stages.
#[derive(Clone)]
pub struct RetrievalModels {
    /// Encodes the query image for image → image.
    pub search: Arc<dyn Encoder>,
    /// Encodes query image and captions for image → text.
    pub rerank: Arc<dyn Encoder>,
    /// Encodes captions and labels to classify them.
    pub classify: Arc<dyn Encoder>,
}

impl RetrievalModels {
    /// One model for all.
    pub fn one(model: Arc<dyn Encoder>) -> Self {
        Self { search: model.clone(), rerank: model.clone(), classify: model }
    }
}

/// Embeddings of query images, `[queries, dim]`, by each model that needs one.
#[derive(Clone, Debug)]
pub struct Queries {
    /// By the model that classifies.
    pub classify: Embeddings,
    /// By the model that searches, if it is another.
    pub search: Option<Embeddings>,
    /// By the model that ranks captions, if it is another.
    pub rerank: Option<Embeddings>,
}

impl From<Embeddings> for Queries {
    fn from(classify: Embeddings) -> Self {
        Self { classify, search: None, rerank: None }
    }
}

impl Queries {
    /// Puts further queries behind these; they must be embedded by the same models.
    ///
    /// # Panics
    /// If a model's vectors differ in length.
    pub fn append(&mut self, next: Self) {
        self.classify.append(&next.classify);
        for (rows, next) in [(&mut self.search, &next.search), (&mut self.rerank, &next.rerank)] {
            if let (Some(rows), Some(next)) = (rows, next) {
                rows.append(next);
            }
        }
    }

    /// The queries of a range.
    pub fn slice(&self, range: Range<usize>) -> Self {
        let slice = |all: &Embeddings| {
            let dim = all.dim();
            Embeddings::new(all.as_slice()[range.start * dim..range.end * dim].to_vec(), dim)
        };
        Self {
            classify: slice(&self.classify),
            search: self.search.as_ref().map(slice),
            rerank: self.rerank.as_ref().map(slice),
        }
    }

    fn search(&self) -> &Embeddings {
        self.search.as_ref().unwrap_or(&self.classify)
    }

    fn rerank(&self) -> &Embeddings {
        self.rerank.as_ref().unwrap_or(&self.classify)
    }
}

/// A caption that was kept for a query image.
#[derive(Clone, Debug, PartialEq)]
pub struct RetrievedCaption {
    /// Row of the pair in the memory, or the remote index's id.
    pub id: u64,
    /// The caption.
    pub caption: String,
    /// The pair's image, as the memory names it.
    pub image_path: String,
    /// Cosine of the query image and the caption.
    pub similarity: f32,
    /// Cosine of the query image and the pair's image.
    pub image_similarity: f32,
}

/// The captions kept for one query, best first, and their unit embeddings `[captions, dim]`.
#[derive(Clone, Debug, Default)]
pub struct Retrieved {
    /// Captions by falling similarity, ties by id.
    pub captions: Vec<RetrievedCaption>,
    /// One row a caption, by the model that classifies; empty if there is none.
    pub embeddings: Vec<f32>,
    /// What the remote index has to say, such as why it gave fewer pairs than asked for.
    pub note: Option<String>,
}

/// Pairs, models and options: all that retrieving needs but the queries. Copies share all of it.
#[derive(Clone)]
pub struct Retrieval {
    pairs: Arc<OpenPairs>,
    models: RetrievalModels,
    options: RetrievalOptions,
    rows: Option<Range<u64>>,
    allowed: Option<Arc<RowSet>>,
    captions: Arc<CaptionStore>,
}

impl Retrieval {
    /// Checks that pairs, models and options fit each other.
    ///
    /// # Errors
    /// Those of [`RetrievalOptions::check`]; [`XmoreError::EmptyMemory`]; [`XmoreError::ModelMismatch`] for a memory without
    /// embeddings by one of the models, or a remote index with those of another.
    pub fn new(pairs: Arc<OpenPairs>, models: RetrievalModels, options: RetrievalOptions) -> Result<Self> {
        options.check()?;
        match &*pairs {
            OpenPairs::Memory(memory) => {
                models.search.embedding_set(memory)?.require(Modality::Image)?;
                models.rerank.embedding_set(memory)?.require(Modality::Text)?;
                models.classify.embedding_set(memory)?.require(Modality::Text)?;
            }
            OpenPairs::Remote(index) => models.search.check_remote(index.as_ref())?,
        }
        let captions = Arc::new(CaptionStore::in_memory());
        Ok(Self { pairs, models, options, rows: None, allowed: None, captions })
    }

    /// The same with other options.
    ///
    /// # Errors
    /// Those of [`RetrievalOptions::check`].
    pub fn with_options(&self, options: RetrievalOptions) -> Result<Self> {
        options.check()?;
        Ok(Self { options, ..self.clone() })
    }

    /// Looks only at pairs with ids in `rows` and in `allowed`.
    ///
    /// # Errors
    /// [`XmoreError::RemoteFilter`] for ids of a remote index that takes none, and for captions of any.
    pub fn with_filter(mut self, rows: Option<Range<u64>>, allowed: Option<Arc<RowSet>>) -> Result<Self> {
        if let OpenPairs::Remote(index) = &*self.pairs
            && (rows.is_some() && !index.filters_rows() || allowed.is_some())
        {
            return Err(XmoreError::RemoteFilter { location: index.location().into_owned() });
        }
        (self.rows, self.allowed) = (rows, allowed);
        Ok(self)
    }

    /// Keeps embeddings of a remote index's captions in this store.
    #[must_use]
    pub fn with_caption_store(mut self, store: Arc<CaptionStore>) -> Self {
        self.captions = store;
        self
    }

    /// The options.
    pub fn options(&self) -> RetrievalOptions {
        self.options
    }

    /// The models.
    pub fn models(&self) -> &RetrievalModels {
        &self.models
    }

    /// Retrieves captions for each query image.
    ///
    /// # Errors
    /// Those of reading the memory or asking the remote index, and of encoding a remote index's captions.
    pub fn retrieve(&self, queries: &Queries) -> Result<Vec<Retrieved>> {
        Ok(self.retrieve_with(queries, 0)?.into_iter().map(|(retrieved, _)| retrieved).collect())
    }

    /// The same, and for each query the `near` pairs that are nearest by their images under the classifying model.
    pub(crate) fn retrieve_with(
        &self,
        queries: &Queries,
        near: usize,
    ) -> Result<Vec<(Retrieved, Neighborhood<'_>)>> {
        match &*self.pairs {
            OpenPairs::Memory(memory) => self.in_memory(memory, queries, near),
            OpenPairs::Remote(index) => self.at_remote(index.as_ref(), queries),
        }
    }

    pub(crate) fn search_options(&self, n: usize) -> SearchOptions<'_> {
        SearchOptions { n, rows: self.rows.clone(), allowed: self.allowed.as_deref() }
    }

    fn in_memory<'a>(
        &'a self,
        memory: &'a Memory,
        queries: &Queries,
        near: usize,
    ) -> Result<Vec<(Retrieved, Neighborhood<'a>)>> {
        let models = &self.models;
        let (search, rerank) = (models.search.embedding_set(memory)?, models.rerank.embedding_set(memory)?);
        let classify = models.classify.embedding_set(memory)?;
        let neighbors = self.options.neighbors;
        let direct = self.options.ranking == Ranking::Direct;
        // Where one model does both, one search serves the captions and the neighborhoods.
        let shared = !direct && near > 0 && search.model() == classify.model();
        let found = if direct {
            rerank
                .search_with(Modality::Text, queries.rerank().as_slice(), &self.search_options(neighbors))?
                .hits
        } else {
            let n = if shared { near.max(neighbors) } else { neighbors };
            search.search_with(Modality::Image, queries.search().as_slice(), &self.search_options(n))?.hits
        };
        let around: Vec<Vec<Hit>> = if shared || near == 0 {
            vec![Vec::new(); found.len()]
        } else {
            let options = self.search_options(near);
            classify.search_with(Modality::Image, queries.classify.as_slice(), &options)?.hits
        };
        let rerank_queries: Vec<(&[f32], &[f32])> =
            queries.rerank().rows().zip(queries.search().rows()).collect();
        let text = |column: &EmbeddingSet, id: u64| -> Result<Vec<f32>> {
            let mut embedding = vec![0.0; column.dim()];
            column.text_embedding(id, &mut embedding)?;
            Ok(embedding)
        };
        rerank_queries
            .into_par_iter()
            .zip(found)
            .zip(around)
            .map(|(((query, image_query), hits), around)| {
                let mut candidates = Candidates::new(query, self.options);
                let mut image = vec![0.0; search.dim()];
                for hit in hits.iter().take(neighbors) {
                    let caption = memory.caption(hit.id)?;
                    let image_similarity = if direct {
                        search.image_embedding(hit.id, &mut image)?;
                        dot(image_query, &image)
                    } else {
                        hit.similarity
                    };
                    if candidates.wants(caption, image_similarity) {
                        let path = memory.image_path(hit.id)?;
                        candidates.add(hit.id, caption, path, image_similarity, text(rerank, hit.id)?);
                    }
                }
                let mut retrieved = Retrieved::default();
                for caption in candidates.best() {
                    retrieved.embeddings.extend(text(classify, caption.id)?);
                    retrieved.captions.push(caption);
                }
                let mut around = if shared { hits } else { around };
                around.retain(|hit| !self.options.is_query(hit.similarity));
                around.truncate(near);
                Ok((retrieved, Neighborhood::of_column(classify, around)))
            })
            .collect()
    }

    fn at_remote(
        &self,
        index: &dyn Retriever,
        queries: &Queries,
    ) -> Result<Vec<(Retrieved, Neighborhood<'_>)>> {
        if self.options.ranking == Ranking::Direct {
            return Err(XmoreError::RemoteRanking { location: index.location().into_owned() });
        }
        let search = queries.search();
        let answers = index.nearest_images_in(
            search.as_slice(),
            search.dim(),
            self.options.neighbors,
            self.rows.clone(),
        )?;
        let rerank_texts = RemoteTexts::encode(index, &answers, &*self.models.rerank, &self.captions)?;
        let classify_texts = RemoteTexts::encode(index, &answers, &*self.models.classify, &self.captions)?;
        let mut all_retrieved = Vec::with_capacity(answers.len());
        for (query, answer) in queries.rerank().rows().zip(&answers) {
            let mut candidates = Candidates::new(query, self.options);
            for n in &answer.neighbors {
                if candidates.wants(&n.caption, n.similarity) {
                    let embedding = rerank_texts.of(n).to_vec();
                    candidates.add(n.id, &n.caption, &n.image_path, n.similarity, embedding);
                }
            }
            let mut retrieved = Retrieved { note: answer.note.clone(), ..Retrieved::default() };
            for caption in candidates.best() {
                if let Some(n) = answer.neighbors.iter().find(|n| n.id == caption.id) {
                    retrieved.embeddings.extend(classify_texts.of(n));
                    retrieved.captions.push(caption);
                }
            }
            let around = answer.neighbors.iter().filter(|n| !self.options.is_query(n.similarity));
            all_retrieved.push((retrieved, classify_texts.neighborhood(around)));
        }
        Ok(all_retrieved)
    }

    /// The `n` pairs around each point of the classifying model's space, `[points, dim]`; of a remote index as many as it is asked for
    /// otherwise.
    ///
    /// # Errors
    /// As [`Retrieval::retrieve`]; [`XmoreError::Memory`] if the memory has no images by the classifying model.
    pub(crate) fn surround(&self, points: &[f32], n: usize) -> Result<Vec<Neighborhood<'_>>> {
        match &*self.pairs {
            OpenPairs::Memory(memory) => {
                let column = self.models.classify.embedding_set(memory)?;
                let found = column.search_with(Modality::Image, points, &self.search_options(n))?.hits;
                Ok(found.into_iter().map(|hits| Neighborhood::of_column(column, hits)).collect())
            }
            OpenPairs::Remote(index) => {
                let index = index.as_ref();
                let dim = self.models.classify.dim();
                let answers =
                    index.nearest_images_in(points, dim, self.options.neighbors, self.rows.clone())?;
                let texts = RemoteTexts::encode(index, &answers, &*self.models.classify, &self.captions)?;
                Ok(answers.iter().map(|answer| texts.neighborhood(answer.neighbors.iter())).collect())
            }
        }
    }

    /// The memory, if it is on this machine, and its embeddings by the classifying model.
    pub(crate) fn local(&self) -> Result<Option<(&Memory, &EmbeddingSet)>> {
        match &*self.pairs {
            OpenPairs::Memory(memory) => Ok(Some((memory, self.models.classify.embedding_set(memory)?))),
            OpenPairs::Remote(_) => Ok(None),
        }
    }

    /// Checks that [`crate::Method::Kernel`] is possible: labels are sent to the pairs' images, so one model must know both.
    ///
    /// # Errors
    /// That the memory has no images by the classifying model, or [`XmoreError::KernelNeedsOneModel`].
    pub fn check_kernel(&self) -> Result<()> {
        match &*self.pairs {
            OpenPairs::Memory(memory) => {
                Ok(self.models.classify.embedding_set(memory)?.require(Modality::Image)?)
            }
            OpenPairs::Remote(_) if self.models.classify.is(self.models.search.identity()) => Ok(()),
            OpenPairs::Remote(index) => {
                Err(XmoreError::KernelNeedsOneModel { location: index.location().into_owned() })
            }
        }
    }

    /// Whether a pair of the memory may be looked at.
    pub(crate) fn may_look_at(&self, id: u64) -> bool {
        self.rows.as_ref().is_none_or(|rows| rows.contains(&id))
            && self.allowed.as_ref().is_none_or(|allowed| allowed.contains(id))
    }
}

/// The second stage of one query.
struct Candidates<'q> {
    query: &'q [f32],
    options: RetrievalOptions,
    seen: HashSet<String>,
    candidates: Vec<(RetrievedCaption, Vec<f32>)>,
}

impl<'q> Candidates<'q> {
    fn new(query: &'q [f32], options: RetrievalOptions) -> Self {
        Self { query, options, seen: HashSet::new(), candidates: Vec::new() }
    }

    /// Whether the caption is new and its image is not the query itself.
    fn wants(&mut self, caption: &str, image_similarity: f32) -> bool {
        !self.options.is_query(image_similarity)
            && !self.seen.contains(caption)
            && self.seen.insert(caption.to_owned())
    }

    fn add(&mut self, id: u64, caption: &str, image_path: &str, image_similarity: f32, embedding: Vec<f32>) {
        let caption = RetrievedCaption {
            id,
            caption: caption.to_owned(),
            image_path: image_path.to_owned(),
            similarity: dot(self.query, &embedding),
            image_similarity,
        };
        self.candidates.push((caption, embedding));
    }

    /// The K best, best first, ties by id.
    fn best(mut self) -> Vec<RetrievedCaption> {
        let order = |(a, _): &(RetrievedCaption, _), (b, _): &(RetrievedCaption, _)| {
            b.similarity.total_cmp(&a.similarity).then(a.id.cmp(&b.id))
        };
        // Offered they are in the order of their images.
        if self.options.ranking != Ranking::ByImage {
            self.candidates.sort_by(order);
        }
        let mut kept: Vec<(RetrievedCaption, Vec<f32>)> = Vec::with_capacity(self.options.k);
        for candidate in self.candidates {
            let near = |limit: f32| kept.iter().any(|(_, embedding)| dot(embedding, &candidate.1) > limit);
            if self.options.near_duplicates_above.is_some_and(near) {
                continue;
            }
            kept.push(candidate);
            if kept.len() == self.options.k {
                break;
            }
        }
        kept.into_iter().map(|(caption, _)| caption).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(options: RetrievalOptions, offered: &[(u64, &str, f32, [f32; 2])]) -> Vec<u64> {
        let mut candidates = Candidates::new(&[1.0, 0.0], options);
        for (id, caption, image_similarity, embedding) in offered {
            if candidates.wants(caption, *image_similarity) {
                candidates.add(*id, caption, "", *image_similarity, embedding.to_vec());
            }
        }
        candidates.best().into_iter().map(|c| c.id).collect()
    }

    #[test]
    fn captions_are_ranked_and_duplicates_left_out() {
        let offered = [
            (7, "the query itself", 0.9999, [1.0, 0.0]),
            (3, "a", 0.9, [0.6, 0.8]),
            (4, "a", 0.8, [0.6, 0.8]),
            (9, "b", 0.7, [0.8, 0.6]),
            (2, "nearly b", 0.6, [0.8, 0.6]),
            (5, "c", 0.5, [0.0, 1.0]),
        ];
        let all = RetrievalOptions { k: 10, ..Default::default() };
        assert_eq!(
            ids(all, &offered),
            [7, 2, 9, 3, 5],
            "by similarity, equal ones by id, the first of equal texts"
        );
        let strict =
            RetrievalOptions { query_duplicates_above: Some(0.99), near_duplicates_above: Some(0.97), ..all };
        assert_eq!(ids(strict, &offered), [2, 3, 5]);
        assert_eq!(ids(RetrievalOptions { k: 2, ..all }, &offered), [7, 2]);
        let by_image = RetrievalOptions { ranking: Ranking::ByImage, ..all };
        assert_eq!(ids(by_image, &offered), [7, 3, 9, 2, 5], "as offered, duplicates left out");
    }
}
