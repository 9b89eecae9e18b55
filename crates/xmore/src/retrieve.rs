//! Cross-modal retrieval in two stages: image → image among the pairs, then image → text among their captions.
//!
//! METHOD: nearest neighbours of the query image among the images of the memory (128 of them); exact duplicates among their captions
//! dropped; captions scored by query image · caption; the best K kept. Both features are unit vectors here; the authors' code
//! leaves them unnormalised in the second stage. They search with one model, rank captions with another and classify with a
//! third ([`RetrievalModels`]); one for all is the default.

use std::collections::HashSet;
use std::ops::Range;

use rayon::prelude::*;
use xmore_clip::Embeddings;
use xmore_memory::retriever::Retriever;
use xmore_memory::store::{Column, Modality};
use xmore_memory::{Memory, RowSet, SearchOptions};

use crate::captions::CaptionStore;
use crate::error::{Result, XmoreError};
use crate::math::dot;
use crate::models::NamedModel;

/// How many pairs are looked at and how many captions are kept.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RetrievalOptions {
    /// Pairs of the first stage; the paper's 128.
    pub neighbours: usize,
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
            neighbours: 128,
            k: 16,
            query_duplicates_above: None,
            near_duplicates_above: None,
            ranking: Ranking::TwoStages,
        }
    }
}

impl RetrievalOptions {
    /// # Errors
    /// [`XmoreError::NoCaptionsAsked`] for K = 0, [`XmoreError::TooFewNeighbours`] if fewer pairs are looked at than kept.
    pub fn check(&self) -> Result<()> {
        if self.k == 0 {
            return Err(XmoreError::NoCaptionsAsked);
        }
        if self.neighbours < self.k {
            return Err(XmoreError::TooFewNeighbours { k: self.k, neighbours: self.neighbours });
        }
        Ok(())
    }
}

/// The models of the stages.
#[derive(Clone, Copy)]
pub struct RetrievalModels<'a> {
    /// Encodes the query image for image → image.
    pub search: &'a NamedModel,
    /// Encodes query image and captions for image → text.
    pub rerank: &'a NamedModel,
    /// Encodes captions and labels to classify them.
    pub classify: &'a NamedModel,
}

impl<'a> RetrievalModels<'a> {
    /// One model for all.
    pub fn one(model: &'a NamedModel) -> Self {
        Self { search: model, rerank: model, classify: model }
    }
}

/// Where the pairs are.
#[derive(Clone, Copy)]
pub enum Pairs<'a> {
    /// On this machine.
    Memory(&'a Memory),
    /// With an engine; captions whose embeddings it does not have are encoded here.
    Engine(&'a dyn Retriever),
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
    /// Row of the pair in the memory, or the engine's id.
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
    /// What the engine has to say, such as why it gave fewer pairs than asked for.
    pub note: Option<String>,
}

/// Pairs, models and options: all that retrieving needs but the queries.
#[derive(Clone)]
pub struct Retrieval<'a> {
    pairs: Pairs<'a>,
    models: RetrievalModels<'a>,
    options: RetrievalOptions,
    rows: Option<Range<u64>>,
    allowed: Option<&'a RowSet>,
    captions: Option<&'a CaptionStore>,
}

impl<'a> Retrieval<'a> {
    /// Checks that pairs, models and options fit each other.
    ///
    /// # Errors
    /// Those of [`RetrievalOptions::check`]; [`XmoreError::EmptyMemory`]; [`XmoreError::ModelMismatch`] for a memory without
    /// embeddings by one of the models, or an engine with those of another.
    pub fn new(pairs: Pairs<'a>, models: RetrievalModels<'a>, options: RetrievalOptions) -> Result<Self> {
        options.check()?;
        match pairs {
            Pairs::Memory(memory) => {
                models.search.column_of(memory)?.require(Modality::Image)?;
                models.rerank.column_of(memory)?.require(Modality::Text)?;
                models.classify.column_of(memory)?.require(Modality::Text)?;
            }
            Pairs::Engine(engine) => models.search.check_engine(engine)?,
        }
        Ok(Self { pairs, models, options, rows: None, allowed: None, captions: None })
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
    /// [`XmoreError::EngineFilter`]: engines are not asked for subsets.
    pub fn only(mut self, rows: Option<Range<u64>>, allowed: Option<&'a RowSet>) -> Result<Self> {
        if let Pairs::Engine(engine) = self.pairs
            && (rows.is_some() || allowed.is_some())
        {
            return Err(XmoreError::EngineFilter { location: engine.location().into_owned() });
        }
        (self.rows, self.allowed) = (rows, allowed);
        Ok(self)
    }

    /// Keeps embeddings of an engine's captions in this store.
    pub fn keeping_captions(mut self, store: &'a CaptionStore) -> Self {
        self.captions = Some(store);
        self
    }

    /// The options.
    pub fn options(&self) -> RetrievalOptions {
        self.options
    }

    /// The models.
    pub fn models(&self) -> RetrievalModels<'a> {
        self.models
    }

    /// Retrieves captions for each query image.
    ///
    /// # Errors
    /// Those of reading the memory or asking the engine, and of encoding an engine's captions.
    pub fn retrieve(&self, queries: &Queries) -> Result<Vec<Retrieved>> {
        match self.pairs {
            Pairs::Memory(memory) => self.in_memory(memory, queries),
            Pairs::Engine(engine) => self.at_engine(engine, queries),
        }
    }

    fn in_memory(&self, memory: &Memory, queries: &Queries) -> Result<Vec<Retrieved>> {
        let models = &self.models;
        let columns = [models.search, models.rerank, models.classify].map(|model| model.column_of(memory));
        let [search, rerank, classify] = columns;
        let (search, rerank, classify) = (search?, rerank?, classify?);
        let options =
            SearchOptions { n: self.options.neighbours, rows: self.rows.clone(), allowed: self.allowed };
        let direct = self.options.ranking == Ranking::Direct;
        let found = if direct {
            rerank.search_with(Modality::Text, queries.rerank().as_slice(), &options)?.hits
        } else {
            search.search_with(Modality::Image, queries.search().as_slice(), &options)?.hits
        };
        let rerank_queries: Vec<(&[f32], &[f32])> =
            queries.rerank().rows().zip(queries.search().rows()).collect();
        let text = |column: &Column, id: u64| -> Result<Vec<f32>> {
            let mut embedding = vec![0.0; column.dim()];
            column.text_embedding(id, &mut embedding)?;
            Ok(embedding)
        };
        rerank_queries
            .into_par_iter()
            .zip(found)
            .map(|((query, image_query), hits)| {
                let mut candidates = Candidates::new(query, self.options);
                let mut image = vec![0.0; search.dim()];
                for hit in hits {
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
                Ok(retrieved)
            })
            .collect()
    }

    fn at_engine(&self, engine: &dyn Retriever, queries: &Queries) -> Result<Vec<Retrieved>> {
        if self.options.ranking == Ranking::Direct {
            return Err(XmoreError::EngineRanking { location: engine.location().into_owned() });
        }
        let search = queries.search();
        let answers = engine.nearest_images(search.as_slice(), search.dim(), self.options.neighbours)?;
        // Embeddings that the engine stores are those of its own model.
        let stored = |model: &NamedModel| engine.identity().is_some_and(|theirs| model.is(theirs));
        let all = || answers.iter().flat_map(|answer| &answer.neighbours);
        let encoded = |model: &NamedModel| {
            let missing = all().filter(|n| !stored(model) || n.text_embedding.is_none());
            let captions: Vec<&str> = missing.map(|n| n.caption.as_str()).collect();
            match self.captions {
                Some(store) => store.embeddings(model, &captions),
                None => CaptionStore::in_memory().embeddings(model, &captions),
            }
        };
        let rerank = encoded(self.models.rerank)?;
        let classify = encoded(self.models.classify)?;
        let text = |neighbour: &xmore_memory::retriever::Neighbour,
                    model: &NamedModel,
                    encoded: &crate::captions::Encoded| {
            match &neighbour.text_embedding {
                Some(embedding) if stored(model) => embedding.clone(),
                _ => encoded[neighbour.caption.as_str()].to_vec(),
            }
        };
        let mut all_retrieved = Vec::with_capacity(answers.len());
        for (query, answer) in queries.rerank().rows().zip(&answers) {
            let mut candidates = Candidates::new(query, self.options);
            for n in &answer.neighbours {
                if candidates.wants(&n.caption, n.similarity) {
                    let embedding = text(n, self.models.rerank, &rerank);
                    candidates.add(n.id, &n.caption, &n.image_path, n.similarity, embedding);
                }
            }
            let mut retrieved = Retrieved { note: answer.note.clone(), ..Retrieved::default() };
            for caption in candidates.best() {
                if let Some(n) = answer.neighbours.iter().find(|n| n.id == caption.id) {
                    retrieved.embeddings.extend(text(n, self.models.classify, &classify));
                    retrieved.captions.push(caption);
                }
            }
            all_retrieved.push(retrieved);
        }
        Ok(all_retrieved)
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
        let copy = self.options.query_duplicates_above.is_some_and(|limit| image_similarity > limit);
        !copy && !self.seen.contains(caption) && self.seen.insert(caption.to_owned())
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
