//! What a [`Pipeline`] is set up from.

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use regex::Regex;

use super::{IfUnreachable, Parts, Pipeline};
use crate::captions::CaptionStore;
use crate::encoder::Encoder;
use crate::error::Result;
use crate::labels::Template;
use crate::retrieve::{OpenPairs, Retrieval, RetrievalModels, RetrievalOptions};

/// Sets up a [`Pipeline`].
pub struct PipelineBuilder {
    classify: Arc<dyn Encoder>,
    search: Option<Arc<dyn Encoder>>,
    rerank: Option<Arc<dyn Encoder>>,
    pairs: Option<Arc<OpenPairs>>,
    rows: Option<Range<u64>>,
    caption_filter: Option<Regex>,
    captions: Option<Arc<CaptionStore>>,
    caption_template: Option<Template>,
    options: RetrievalOptions,
    templates: Vec<Template>,
    if_unreachable: IfUnreachable,
}

impl PipelineBuilder {
    /// Begins with the encoder that classifies.
    pub(super) fn new(classify: Arc<dyn Encoder>) -> Self {
        Self {
            classify,
            search: None,
            rerank: None,
            pairs: None,
            rows: None,
            caption_filter: None,
            captions: None,
            caption_template: None,
            options: RetrievalOptions::default(),
            templates: vec![Template::default()],
            if_unreachable: IfUnreachable::default(),
        }
    }

    /// The pairs that captions are retrieved from; without any, images are classified by themselves. [`OpenPairs::search_on`] chooses what searches
    /// them.
    #[must_use]
    pub fn pairs(mut self, pairs: impl Into<Option<Arc<OpenPairs>>>) -> Self {
        self.pairs = pairs.into();
        self
    }

    /// Another encoder that searches the pairs' images.
    #[must_use]
    pub fn search_encoder(mut self, encoder: impl Into<Option<Arc<dyn Encoder>>>) -> Self {
        self.search = encoder.into();
        self
    }

    /// Another encoder that chooses among the captions found.
    #[must_use]
    pub fn rerank_encoder(mut self, encoder: impl Into<Option<Arc<dyn Encoder>>>) -> Self {
        self.rerank = encoder.into();
        self
    }

    /// Only pairs with these ids.
    #[must_use]
    pub fn rows(mut self, rows: impl Into<Option<Range<u64>>>) -> Self {
        self.rows = rows.into();
        self
    }

    /// Only pairs whose caption matches.
    #[must_use]
    pub fn caption_filter(mut self, pattern: impl Into<Option<Regex>>) -> Self {
        self.caption_filter = pattern.into();
        self
    }

    /// How captions are retrieved.
    #[must_use]
    pub fn retrieval(mut self, options: RetrievalOptions) -> Self {
        self.options = options;
        self
    }

    /// The prompts; several are averaged.
    #[must_use]
    pub fn templates(mut self, templates: Vec<Template>) -> Self {
        self.templates = templates;
        self
    }

    /// A text that retrieved captions are classified inside of; see [`Retrieval::with_caption_template`].
    #[must_use]
    pub fn caption_template(mut self, template: impl Into<Option<Template>>) -> Self {
        self.caption_template = template.into();
        self
    }

    /// Where embeddings of captions that are encoded here are kept; in memory unless said otherwise.
    #[must_use]
    pub fn caption_store(mut self, store: Arc<CaptionStore>) -> Self {
        self.captions = Some(store);
        self
    }

    /// What to do while a remote index cannot be reached.
    #[must_use]
    pub fn if_unreachable(mut self, what: IfUnreachable) -> Self {
        self.if_unreachable = what;
        self
    }

    /// Checks that the parts fit each other.
    ///
    /// # Errors
    /// Those of [`Retrieval::new`] and [`Retrieval::with_filter`]; [`RetrievalError::NoCaptionMatches`](crate::RetrievalError::NoCaptionMatches).
    pub fn build(self) -> Result<Pipeline> {
        self.options.check()?;
        // A filter has nothing to do where there are no pairs.
        let filter = self.caption_filter.as_ref().zip(self.pairs.as_ref());
        let allowed = filter.map(|(pattern, pairs)| pairs.rows_with_caption(pattern)).transpose()?;
        let caption_filter = filter.map(|(pattern, _)| pattern.to_string());
        let captions = self.captions.unwrap_or_default();
        let or_classify =
            |encoder: &Option<Arc<dyn Encoder>>| encoder.as_ref().unwrap_or(&self.classify).clone();
        let models = RetrievalModels {
            search: or_classify(&self.search),
            rerank: or_classify(&self.rerank),
            classify: self.classify.clone(),
        };
        let retrieval = match self.pairs {
            Some(pairs) => Some(
                Retrieval::new(pairs, models, self.options)?
                    .with_filter(self.rows, allowed.map(Arc::new))?
                    .with_caption_store(captions.clone())
                    .with_caption_template(self.caption_template),
            ),
            None => None,
        };
        Ok(Pipeline(Arc::new(Parts {
            classify: self.classify,
            search: self.search,
            rerank: self.rerank,
            retrieval,
            captions,
            caption_filter,
            pairs_digest: OnceLock::new(),
            templates: self.templates,
            if_unreachable: self.if_unreachable,
        })))
    }
}
