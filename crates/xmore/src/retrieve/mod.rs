//! Cross-modal retrieval in two stages: image → image among the pairs, then image → text among their captions.
//!
//! METHOD: nearest neighbors of the query image among the images of the pairs (128 of them); exact duplicates among their captions
//! dropped; captions scored by query image · caption; the best K kept. Both features are unit vectors here; the authors' code
//! leaves them unnormalized in the second stage. They search with one model, rank captions with another and classify with a
//! third ([`RetrievalModels`]); one for all is the default. Where the pairs are ([`OpenPairs`]) is a matter of `pairs`, `local` and `remote`.

mod candidates;
pub(crate) mod error;
mod found;
mod local;
mod open;
mod options;
mod pairs;
mod queries;
mod remote;

use std::ops::Range;
use std::sync::Arc;

use rayon::prelude::*;
use xmore_memory::store::{EmbeddingSet, Modality};
use xmore_memory::{Memory, RowSet};

use crate::captions::CaptionStore;
use crate::encoder::Encoder;
use crate::error::Result;
use crate::labels::Template;
use crate::math::dot;
use candidates::Candidates;
use found::CaptionRows;
pub(crate) use found::{FoundPairs, Neighborhood};
pub use open::OpenPairs;
pub use options::{Ranking, RetrievalOptions};
pub(crate) use pairs::PairFilter;
use pairs::PairSearch;
pub use queries::{Queries, RetrievalModels};

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
    filter: PairFilter,
    captions: Arc<CaptionStore>,
    caption_template: Option<Template>,
}

impl Retrieval {
    /// Checks that pairs, models and options fit each other.
    ///
    /// # Errors
    /// [`XmoreError::Retrieval`](crate::XmoreError::Retrieval): options that contradict each other, an empty memory, pairs without
    /// embeddings by one of the models.
    pub fn new(pairs: Arc<OpenPairs>, models: RetrievalModels, options: RetrievalOptions) -> Result<Self> {
        options.check()?;
        pairs.index().check_models(&models)?;
        let captions = Arc::new(CaptionStore::in_memory());
        Ok(Self { pairs, models, options, filter: PairFilter::default(), captions, caption_template: None })
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
    /// [`RetrievalError::RemoteFilter`](crate::RetrievalError::RemoteFilter) for ids of a remote index that takes none, and for captions of any.
    pub fn with_filter(mut self, rows: Option<Range<u64>>, allowed: Option<Arc<RowSet>>) -> Result<Self> {
        self.filter = PairFilter { rows, allowed };
        self.pairs.index().check_filter(&self.filter)?;
        Ok(self)
    }

    /// Classifies the captions that are kept inside this template; without one as they are. They are then encoded here and kept in the
    /// caption store. Search and ranking, and what [`crate::Method::Kernel`] reads, stay with the captions themselves.
    #[must_use]
    pub fn with_caption_template(mut self, template: Option<Template>) -> Self {
        self.caption_template = template.filter(|template| !template.is_bare());
        self
    }

    /// Keeps embeddings of captions that are encoded here in this store.
    #[must_use]
    pub fn with_caption_store(mut self, store: Arc<CaptionStore>) -> Self {
        self.captions = store;
        self
    }

    /// The options.
    pub fn options(&self) -> RetrievalOptions {
        self.options
    }

    /// The text that retrieved captions are classified inside of, if that is more than the caption.
    pub fn caption_template(&self) -> Option<&Template> {
        self.caption_template.as_ref()
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

    /// The same, and for each query the `near` pairs that are nearest by their images under the classifying model; see
    /// [`Retrieval::neighborhoods`].
    pub(crate) fn retrieve_with(
        &self,
        queries: &Queries,
        near: usize,
    ) -> Result<Vec<(Retrieved, Neighborhood<'_>)>> {
        let (index, models, options) = (self.pairs.index(), &self.models, self.options);
        let direct = options.ranking == Ranking::Direct;
        let near = if near == 0 { 0 } else { index.neighborhood_size(near, options.neighbors) };
        // Where one model does both, one search serves the captions and the neighborhoods.
        let shared = !direct && near > 0 && index.one_search(models);
        let found = if direct {
            self.search(Modality::Text, &models.rerank, queries.rerank().as_slice(), options.neighbors)?
        } else {
            let n = if shared { near.max(options.neighbors) } else { options.neighbors };
            self.search(Modality::Image, &models.search, queries.search().as_slice(), n)?
        };
        let classify = index.caption_rows(&*models.classify, &found, &self.captions)?;
        let other_rerank = if models.rerank.is(models.classify.identity()) {
            None
        } else {
            Some(index.caption_rows(&*models.rerank, &found, &self.captions)?)
        };
        let rerank = other_rerank.as_ref().unwrap_or(&classify);
        let other_around = if shared || near == 0 {
            None
        } else {
            let around = self.search(Modality::Image, &models.classify, queries.classify.as_slice(), near)?;
            let rows = index.caption_rows(&*models.classify, &around, &self.captions)?;
            Some((around, rows))
        };
        let (around, around_rows) = other_around.as_ref().map_or((&found, &classify), |(a, rows)| (a, rows));
        // A search of captions does not tell how similar their images are.
        let images = if direct { Some(index.images(&*models.search)?) } else { None };
        let queries: Vec<(&[f32], &[f32])> = queries.rerank().rows().zip(queries.search().rows()).collect();
        let kept = queries
            .into_par_iter()
            .enumerate()
            .map(|(i, (query, image_query))| {
                let image_similarity = |index: usize| match images {
                    Some(images) => {
                        let mut image = vec![0.0; images.dim()];
                        images.image_embedding(found[i].id(index), &mut image)?;
                        Ok(dot(image_query, &image))
                    }
                    None => Ok(found[i].similarities[index]),
                };
                let retrieved = self.keep(query, &found[i], &rerank[i], &classify[i], image_similarity)?;
                let neighborhood =
                    Neighborhood::new(&around[i], &around_rows[i], near, |s| !options.is_query(s));
                // Similarities of captions do not tell which images are the query's.
                let copies = if direct && near == 0 { Vec::new() } else { self.copies(&around[i])? };
                Ok((retrieved, neighborhood.without_images(copies)))
            })
            .collect::<Result<_>>()?;
        self.inside_template(kept)
    }

    /// With the captions' embeddings inside the template, if there is one.
    fn inside_template<'a>(
        &self,
        mut kept: Vec<(Retrieved, Neighborhood<'a>)>,
    ) -> Result<Vec<(Retrieved, Neighborhood<'a>)>> {
        let Some(template) = &self.caption_template else { return Ok(kept) };
        let captions = kept.iter().flat_map(|(retrieved, _)| &retrieved.captions);
        let texts: Vec<String> = captions.map(|caption| template.apply(&caption.caption)).collect();
        let encoded = self
            .captions
            .embeddings(&*self.models.classify, &texts.iter().map(String::as_str).collect::<Vec<_>>())?;
        let mut rows = texts.iter().map(|text| &encoded[text.as_str()]);
        for (retrieved, _) in &mut kept {
            let rows = rows.by_ref().take(retrieved.captions.len());
            retrieved.embeddings = rows.flat_map(|row| row.iter().copied()).collect();
        }
        Ok(kept)
    }

    fn search(
        &self,
        modality: Modality,
        model: &Arc<dyn Encoder>,
        queries: &[f32],
        n: usize,
    ) -> Result<Vec<FoundPairs<'_>>> {
        self.pairs.index().search(&PairSearch { modality, model: &**model, queries, n, filter: &self.filter })
    }

    /// The images of a memory that are the query image itself, as the options say: each by its first row that may be looked at, with its
    /// embedding by the model that classifies.
    fn copies(&self, found: &FoundPairs<'_>) -> Result<Vec<(u64, Vec<f32>)>> {
        let mut copies: Vec<(u64, Vec<f32>)> = Vec::new();
        let Some((memory, set)) = self.local()? else { return Ok(copies) };
        for index in (0..found.len()).filter(|&index| self.options.is_query(found.similarities[index])) {
            let first = self.filter.first_of_image(memory, found.id(index))?;
            if copies.iter().all(|(row, _)| *row != first) {
                let mut embedding = vec![0.0; set.dim()];
                set.image_embedding(first, &mut embedding)?;
                copies.push((first, embedding));
            }
        }
        Ok(copies)
    }

    /// The second stage: the K captions kept of the pairs that a query found.
    fn keep(
        &self,
        query: &[f32],
        found: &FoundPairs<'_>,
        rerank: &CaptionRows<'_>,
        classify: &CaptionRows<'_>,
        image_similarity: impl Fn(usize) -> Result<f32>,
    ) -> Result<Retrieved> {
        let mut candidates = Candidates::new(self.options);
        for index in 0..found.len().min(self.options.neighbors) {
            let (caption, image_similarity) = (found.caption(index)?, image_similarity(index)?);
            if candidates.wants(caption, image_similarity) {
                let embedding = rerank.row(found, index, self.models.rerank.dim())?;
                let caption = RetrievedCaption {
                    id: found.id(index),
                    caption: caption.to_owned(),
                    image_path: found.image_path(index)?.to_owned(),
                    similarity: dot(query, &embedding),
                    image_similarity,
                };
                candidates.add(index, caption, embedding);
            }
        }
        let mut retrieved = Retrieved { note: found.note.clone(), ..Retrieved::default() };
        for (index, caption) in candidates.best() {
            retrieved.embeddings.extend(classify.row(found, index, self.models.classify.dim())?);
            retrieved.captions.push(caption);
        }
        Ok(retrieved)
    }

    /// The `near` pairs around each point of the classifying model's space, `[points, dim]`; of a remote index as many as it is asked for
    /// otherwise.
    ///
    /// # Errors
    /// As [`Retrieval::retrieve`]; that a memory has no images by the classifying model.
    pub(crate) fn neighborhoods(&self, points: &[f32], near: usize) -> Result<Vec<Neighborhood<'_>>> {
        let (index, model) = (self.pairs.index(), &self.models.classify);
        let near = index.neighborhood_size(near, self.options.neighbors);
        let found = self.search(Modality::Image, model, points, near)?;
        let rows = index.caption_rows(&**model, &found, &self.captions)?;
        Ok(found
            .iter()
            .zip(&rows)
            .map(|(found, rows)| Neighborhood::new(found, rows, near, |_| true))
            .collect())
    }

    /// The memory, if it is on this machine, and its embeddings by the classifying model.
    pub(crate) fn local(&self) -> Result<Option<(&Memory, &EmbeddingSet)>> {
        let memory = self.pairs.memory();
        memory.map(|memory| Ok((memory, self.models.classify.embedding_set(memory)?))).transpose()
    }

    /// Checks that [`crate::Method::Kernel`] is possible: labels are sent to the pairs' images, so one model must know both.
    ///
    /// # Errors
    /// That the memory has no images by the classifying model, or
    /// [`RetrievalError::KernelNeedsOneModel`](crate::RetrievalError::KernelNeedsOneModel).
    pub fn check_kernel(&self) -> Result<()> {
        self.pairs.index().check_kernel(&self.models)
    }

    /// Which pairs may be looked at.
    pub(crate) fn filter(&self) -> &PairFilter {
        &self.filter
    }

    /// The pairs.
    pub(crate) fn pairs(&self) -> &Arc<OpenPairs> {
        &self.pairs
    }
}
