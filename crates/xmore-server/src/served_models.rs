//! What is served: the encoders, where their pairs are, and the defaults of requests.

use std::sync::Arc;

use xmore::{
    Calibration, CaptionStore, Encoder, FittedWith, Method, MethodCalibration, OpenPairs, Pipeline,
    RetrievalOptions, Template, XmoreError,
};

use crate::options::PairsSource;

/// The encoders that a server answers with, xmore's own models or any others, and the pairs that they search.
pub struct ServedModels {
    /// Classifies; searches and chooses captions where no other encoder does.
    pub classify: Arc<dyn Encoder>,
    /// Searches the pairs' images, if another encoder does.
    pub search: Option<Arc<dyn Encoder>>,
    /// Chooses among the captions found, if another encoder does.
    pub rerank: Option<Arc<dyn Encoder>>,
    /// Where the pairs are, if there are any.
    pub pairs: Option<PairsSource>,
    /// How captions are retrieved unless a request says otherwise.
    pub retrieval: RetrievalOptions,
    /// Prompts unless a request says otherwise.
    pub templates: Vec<Template>,
    /// A text that retrieved captions are classified inside of.
    pub caption_template: Option<Template>,
    /// What scores are calibrated with, of requests that it was fitted for.
    pub calibration: Option<Calibration>,
}

impl ServedModels {
    /// One encoder without pairs, with the default prompt.
    pub fn new(classify: Arc<dyn Encoder>) -> Self {
        Self {
            classify,
            search: None,
            rerank: None,
            pairs: None,
            retrieval: RetrievalOptions::default(),
            templates: vec![Template::default()],
            caption_template: None,
            calibration: None,
        }
    }

    /// The different encoders, in the order of [`Pipeline::encoders`].
    pub(crate) fn encoders(&self) -> Vec<&dyn Encoder> {
        let all = [Some(&self.classify), self.search.as_ref(), self.rerank.as_ref()];
        all.into_iter().flatten().map(|encoder| &**encoder).collect()
    }

    /// Lengths of their embeddings.
    pub(crate) fn dims(&self) -> Vec<usize> {
        self.encoders().iter().map(|encoder| encoder.dim()).collect()
    }

    /// Name of the encoder that classifies.
    pub(crate) fn name(&self) -> String {
        self.classify.identity().to_string()
    }

    /// What was fitted for a method with what a request uses, or why nothing was; `None` where there is no calibration at all.
    pub(crate) fn calibration_for(
        &self,
        pipeline: &Pipeline,
        method: Method,
        templates: &[Template],
        options: RetrievalOptions,
    ) -> Option<Result<&MethodCalibration, XmoreError>> {
        let used = || FittedWith::of(pipeline, method, templates, options);
        Some(self.calibration.as_ref()?.for_use(method, &used()))
    }

    /// That a calibration was fitted with what is served: each of its methods that is possible here, of which there must be one. Nothing is
    /// asked while the pairs are away.
    pub(crate) fn check_calibration(&self, pipeline: &Pipeline) -> Result<(), XmoreError> {
        let Some(calibration) = &self.calibration else { return Ok(()) };
        if self.pairs.is_some() && pipeline.pairs().is_none() {
            return Ok(());
        }
        let possible: Vec<Method> =
            Method::ALL.into_iter().filter(|method| pipeline.allows(*method)).collect();
        let mut fitted = possible.iter().filter(|method| calibration.of(**method).is_ok()).peekable();
        if fitted.peek().is_none() {
            calibration.of(*possible.last().unwrap_or(&Method::ZeroShot))?;
        }
        for method in fitted {
            self.calibration_for(pipeline, *method, &self.templates, self.retrieval).transpose()?;
        }
        Ok(())
    }

    /// What query images go through, with these pairs.
    pub(crate) fn pipeline(
        &self,
        captions: Arc<CaptionStore>,
        pairs: Option<Arc<OpenPairs>>,
    ) -> Result<Pipeline, XmoreError> {
        let source = self.pairs.as_ref();
        Pipeline::builder(self.classify.clone())
            .search_encoder(self.search.clone())
            .rerank_encoder(self.rerank.clone())
            .pairs(pairs)
            .rows(source.and_then(|source| source.rows.clone()))
            .caption_filter(source.and_then(|source| source.caption_filter.clone()))
            .retrieval(self.retrieval)
            .templates(self.templates.clone())
            .caption_store(captions)
            .caption_template(self.caption_template.clone())
            .if_unreachable(source.map(|source| source.if_unreachable).unwrap_or_default())
            .build()
    }
}
