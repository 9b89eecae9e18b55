//! Everything between query images and answers, in one owned value: encoders, pairs, filter, retrieval options and prompts.

mod builder;
mod encoded;
mod images;
mod opened;

use std::path::PathBuf;
use std::sync::mpsc::Receiver;
use std::sync::{Arc, OnceLock};

use rayon::prelude::*;
use xmore_clip::{Embeddings, Pixels};
use xmore_memory::SearchOptions;
use xmore_memory::store::Modality;

use crate::answer::{Answer, AnswerOptions};
use crate::captions::CaptionStore;
use crate::classify::Classifier;
use crate::encode::{BATCH, EncodedBatch, GivenImage, encode_each, encode_given};
use crate::encoder::Encoder;
use crate::error::{Result, XmoreError};
use crate::evidence::Evidence;
use crate::labels::{Labels, Template};
use crate::methods::Method;
use crate::retrieve::{OpenPairs, Queries, Retrieval};
pub use builder::PipelineBuilder;
pub use encoded::EncodedQueries;
use images::Prepared;
pub use images::QueryImage;
pub use opened::{IfUnreachable, Opened};

/// Encoders, pairs and options, shared by all copies: set up once, then asked from any thread.
///
/// ```no_run
/// use std::sync::Arc;
/// use xmore::{AnswerOptions, Labels, Method, NamedModel, OpenPairs, Pipeline, QueryImage};
///
/// let model = Arc::new(NamedModel::open("lite")?);
/// let pairs = Arc::new(OpenPairs::open("memory", &Default::default())?);
/// let pipeline = Pipeline::builder(model).pairs(pairs).build()?;
/// let classifier = pipeline.classifier(Labels::new(["cat", "dog"])?, &[Method::Xmore])?;
/// let options = AnswerOptions::new(Method::Xmore);
/// for answer in pipeline.classify(&classifier, &[QueryImage::Path("photo.jpg".into())], &options)? {
///     println!("{:?}", answer?.label);
/// }
/// # Ok::<(), xmore::XmoreError>(())
/// ```
#[derive(Clone)]
pub struct Pipeline(Arc<Parts>);

struct Parts {
    classify: Arc<dyn Encoder>,
    search: Option<Arc<dyn Encoder>>,
    rerank: Option<Arc<dyn Encoder>>,
    /// If there are pairs.
    retrieval: Option<Retrieval>,
    captions: Arc<CaptionStore>,
    /// The caption filter as it was given, if there are pairs.
    caption_filter: Option<String>,
    /// What identifies the pairs, once it was asked for.
    pairs_digest: OnceLock<String>,
    templates: Vec<Template>,
    if_unreachable: IfUnreachable,
}

impl Pipeline {
    /// Begins with the encoder that classifies, and does everything else unless another one does.
    pub fn builder(classify: Arc<dyn Encoder>) -> PipelineBuilder {
        PipelineBuilder::new(classify)
    }

    /// The encoder that classifies.
    pub fn encoder(&self) -> &Arc<dyn Encoder> {
        &self.0.classify
    }

    /// The different encoders of a query image: the one that classifies, then those that search and choose captions, if they are others.
    pub fn encoders(&self) -> Vec<&dyn Encoder> {
        let parts = &*self.0;
        [Some(&parts.classify), parts.search.as_ref(), parts.rerank.as_ref()]
            .into_iter()
            .flatten()
            .map(|encoder| &**encoder)
            .collect()
    }

    /// Index among [`Pipeline::encoders`] of the one that searches images or captions.
    pub fn searcher(&self, modality: Modality) -> usize {
        match modality {
            Modality::Image => usize::from(self.0.search.is_some()),
            Modality::Text if self.0.rerank.is_some() => 1 + usize::from(self.0.search.is_some()),
            Modality::Text => 0,
        }
    }

    /// The pairs, if there are any.
    pub fn pairs(&self) -> Option<&Arc<OpenPairs>> {
        self.0.retrieval.as_ref().map(Retrieval::pairs)
    }

    /// The prompts; several are averaged.
    pub fn templates(&self) -> &[Template] {
        &self.0.templates
    }

    /// What identifies the pairs: of a memory a digest of what it holds, of a remote index its URL.
    pub(crate) fn pairs_digest(&self) -> Option<&str> {
        let pairs = self.pairs()?;
        Some(self.0.pairs_digest.get_or_init(|| match pairs.memory() {
            Some(memory) => format!("sha256:{}", memory.manifest().digest()),
            None => pairs.location().into_owned(),
        }))
    }

    /// The caption filter, if there are pairs.
    pub(crate) fn caption_filter(&self) -> Option<&str> {
        self.0.caption_filter.as_deref()
    }

    /// How a memory's rows are searched for the `n` best: those that the filters leave.
    pub fn search_options(&self, n: usize) -> SearchOptions<'_> {
        self.0.retrieval.as_ref().map_or(SearchOptions::new(n), |retrieval| retrieval.filter().options(n))
    }

    /// Whether the filters leave the pair of an id.
    pub fn looks_at(&self, id: u64) -> bool {
        self.0.retrieval.as_ref().is_some_and(|retrieval| retrieval.filter().contains(id))
    }

    /// The store of a remote index's captions.
    pub fn caption_store(&self) -> &CaptionStore {
        &self.0.captions
    }

    /// Retrieval with the pipeline's own options, if there are pairs.
    pub fn retrieval(&self) -> Option<&Retrieval> {
        self.0.retrieval.as_ref()
    }

    /// Whether a method is possible: whether there are pairs if it needs them, and they are embedded by the models that it needs.
    pub fn allows(&self, method: Method) -> bool {
        match (&self.0.retrieval, method) {
            (Some(retrieval), Method::Kernel) => retrieval.check_kernel().is_ok(),
            (retrieval, _) => retrieval.is_some() || !method.needs_memory(),
        }
    }

    /// The method that answers where none is named: [`Method::Kernel`] with pairs where it is possible, else [`Method::Xmore`];
    /// [`Method::ZeroShot`] without pairs.
    pub fn default_method(&self) -> Method {
        match &self.0.retrieval {
            Some(_) if self.allows(Method::Kernel) => Method::Kernel,
            Some(_) => Method::Xmore,
            None => Method::ZeroShot,
        }
    }

    /// Whether an error is a remote index's absence that is to be tolerated.
    pub fn is_tolerated(&self, error: &XmoreError) -> bool {
        self.0.if_unreachable == IfUnreachable::ZeroShot
            && matches!(error, XmoreError::Memory(error) if error.is_unreachable())
    }

    /// Makes labels ready for methods: prompts are embedded, and what [`Method::Templates`] and [`Method::Kernel`] need besides is made if
    /// they are among the methods.
    ///
    /// # Errors
    /// [`XmoreError::MethodNeedsMemory`], unless pairs may be away; those of the text tower, and of reading the pairs.
    pub fn classifier(&self, labels: Labels, methods: &[Method]) -> Result<Classifier> {
        if self.0.retrieval.is_none()
            && self.0.if_unreachable == IfUnreachable::Fail
            && let Some(method) = methods.iter().find(|method| method.needs_memory())
        {
            return Err(XmoreError::MethodNeedsMemory { method: method.name() });
        }
        let retrieval = self.0.retrieval.clone();
        Classifier::new(&*self.0.classify, labels, retrieval, &self.0.templates, methods)
    }

    /// Embeddings of query images by each of [`Pipeline::encoders`], in their order.
    ///
    /// # Panics
    /// If there is not one for each.
    pub fn queries(&self, by_encoder: Vec<Embeddings>) -> Queries {
        let mut by_encoder = by_encoder.into_iter();
        let mut next = || by_encoder.next().expect("embeddings by each encoder");
        let classify = next();
        let search = self.0.search.as_ref().map(|_| next());
        let rerank = self.0.rerank.as_ref().map(|_| next());
        Queries { classify, search, rerank }
    }

    /// Encodes image files in order with every encoder that needs them, and hands them over batch by batch; see [`encode_each`].
    ///
    /// # Errors
    /// As [`encode_each`].
    pub fn encode_each(
        &self,
        files: &[PathBuf],
        stop: &(dyn Fn() -> bool + Sync),
        take: &mut dyn FnMut(EncodedQueries) -> bool,
    ) -> Result<()> {
        encode_each(&self.encoders(), files, stop, &mut |batch| take(self.encoded(batch)))
    }

    /// The same for images that another thread hands over; see [`encode_given`].
    ///
    /// # Errors
    /// As [`encode_each`].
    pub fn encode_given(
        &self,
        batches: Receiver<Vec<GivenImage>>,
        stop: &(dyn Fn() -> bool + Sync),
        take: &mut dyn FnMut(EncodedQueries) -> bool,
    ) -> Result<()> {
        encode_given(&self.encoders(), batches, stop, &mut |batch| take(self.encoded(batch)))
    }

    fn encoded(&self, batch: EncodedBatch) -> EncodedQueries {
        let EncodedBatch { end, kept, failed, partly_seen, embeddings } = batch;
        let queries = (!kept.is_empty()).then(|| self.queries(embeddings));
        EncodedQueries { end, kept, failed, partly_seen, queries }
    }

    /// Classifies images in batches, each with the answer that it has alone. An image that cannot be read has an error in its place.
    ///
    /// # Errors
    /// Those of the encoders and of retrieving, which concern all images; [`XmoreError::MethodNotPrepared`].
    pub fn classify(
        &self,
        classifier: &Classifier,
        images: &[QueryImage],
        options: &AnswerOptions,
    ) -> Result<Vec<Result<Answer>>> {
        let evidence = self.evidence(classifier, images)?;
        let answer = |evidence: Evidence| Answer::new(&evidence, classifier.labels(), options);
        Ok(evidence.into_iter().map(|evidence| evidence.and_then(answer)).collect())
    }

    /// Classifies images as they come: batches are taken from `images` when their answers are asked for, and each answer is the one that the
    /// image has alone. An image that cannot be read has an error in its place; after an error that concerns all images there are no further
    /// answers.
    ///
    /// Reading images does not wait for answers with [`Pipeline::encode_each`].
    pub fn classify_stream<'a, I>(
        &'a self,
        classifier: &'a Classifier,
        images: I,
        options: &'a AnswerOptions,
    ) -> impl Iterator<Item = Result<Answer>> + 'a
    where
        I: IntoIterator<Item = QueryImage>,
        I::IntoIter: 'a,
    {
        let mut images = images.into_iter();
        let mut failed = false;
        std::iter::from_fn(move || {
            let batch: Vec<QueryImage> = images.by_ref().take(if failed { 0 } else { BATCH }).collect();
            if batch.is_empty() {
                return None;
            }
            let answers = self.classify(classifier, &batch, options);
            failed = answers.is_err();
            Some(answers.unwrap_or_else(|error| vec![Err(error)]))
        })
        .flatten()
    }

    /// The evidence on images; see [`Pipeline::classify`].
    ///
    /// # Errors
    /// As [`Pipeline::classify`].
    pub fn evidence(&self, classifier: &Classifier, images: &[QueryImage]) -> Result<Vec<Result<Evidence>>> {
        let encoders = self.encoders();
        let mut rows: Vec<Vec<f32>> = vec![Vec::new(); encoders.len()];
        let mut failed: Vec<Option<XmoreError>> = Vec::with_capacity(images.len());
        for batch in images.chunks(BATCH) {
            let mut prepared: Vec<Result<Prepared>> =
                batch.par_iter().map(|image| image.prepare(&encoders)).collect();
            for (index, encoder) in encoders.iter().enumerate() {
                let pixels: Vec<Pixels> =
                    prepared.iter_mut().flatten().filter_map(|image| image.take(index)).collect();
                let embedded = if pixels.is_empty() { None } else { Some(encoder.embed_images(&pixels)?) };
                let mut embedded = embedded.iter().flat_map(Embeddings::rows);
                for image in prepared.iter().flatten() {
                    let row = image.row(index).or_else(|| embedded.next());
                    rows[index].extend(row.expect("a row for each image that was prepared"));
                }
            }
            failed.extend(prepared.into_iter().map(Result::err));
        }
        let by_encoder =
            rows.into_iter().zip(&encoders).map(|(rows, encoder)| Embeddings::new(rows, encoder.dim()));
        let queries = self.queries(by_encoder.collect());
        let evidence = match classifier.evidence(&queries) {
            Err(error) if self.is_tolerated(&error) => classifier.with_retrieval(None).evidence(&queries)?,
            other => other?,
        };
        let mut evidence = evidence.into_iter();
        let each = failed.into_iter().map(|failed| match failed {
            Some(error) => Err(error),
            None => Ok(evidence.next().expect("one for each image that was read")),
        });
        Ok(each.collect())
    }
}
