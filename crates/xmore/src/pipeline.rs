//! Everything between query images and answers, in one owned value: encoders, pairs, filter, retrieval options and prompts.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use image::RgbImage;
use rayon::prelude::*;
use regex::Regex;
use xmore_clip::{Embeddings, Pixels};
use xmore_files::image::MAX_PIXELS;
use xmore_files::read_bounded;
use xmore_memory::ingest::MAX_IMAGE_BYTES;
use xmore_memory::retriever::RemoteOptions;
use xmore_memory::store::Modality;
use xmore_memory::{MemoryError, RowSet};

use crate::answer::{Answer, AnswerOptions};
use crate::captions::CaptionStore;
use crate::classify::{Classifier, Evidence};
use crate::encode::{BATCH, EncodedBatch, encode_each};
use crate::encoder::Encoder;
use crate::error::{Result, XmoreError};
use crate::labels::{Labels, Template};
use crate::methods::Method;
use crate::partly_seen::PartlySeen;
use crate::retrieve::{OpenPairs, Queries, Retrieval, RetrievalModels, RetrievalOptions};

/// What to do while a remote index cannot be reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IfUnreachable {
    /// End with an error.
    #[default]
    Fail,
    /// Classify by the image alone.
    ZeroShot,
}

/// Pairs that were asked for, or why they are done without.
pub struct Opened {
    /// The pairs.
    pub pairs: Option<Arc<OpenPairs>>,
    /// Why there are none, where [`IfUnreachable::ZeroShot`] allows it.
    pub unreachable: Option<MemoryError>,
}

impl Opened {
    /// Opens a memory's folder, or a remote index by its URL.
    ///
    /// # Errors
    /// Those of [`OpenPairs::open`].
    pub fn open(location: &str, options: &RemoteOptions, if_unreachable: IfUnreachable) -> Result<Self> {
        match OpenPairs::open(location, options) {
            Ok(pairs) => Ok(Self { pairs: Some(Arc::new(pairs)), unreachable: None }),
            Err(error @ MemoryError::Unreachable { .. }) if if_unreachable == IfUnreachable::ZeroShot => {
                Ok(Self { pairs: None, unreachable: Some(error) })
            }
            Err(error) => Err(error.into()),
        }
    }
}

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
    pairs: Option<Arc<OpenPairs>>,
    rows: Option<Range<u64>>,
    allowed: Option<Arc<RowSet>>,
    captions: Arc<CaptionStore>,
    retrieval: Option<Retrieval>,
    options: RetrievalOptions,
    templates: Vec<Template>,
    if_unreachable: IfUnreachable,
}

/// Sets up a [`Pipeline`].
pub struct PipelineBuilder {
    classify: Arc<dyn Encoder>,
    search: Option<Arc<dyn Encoder>>,
    rerank: Option<Arc<dyn Encoder>>,
    pairs: Option<Arc<OpenPairs>>,
    rows: Option<Range<u64>>,
    caption_filter: Option<Regex>,
    captions: Option<Arc<CaptionStore>>,
    options: RetrievalOptions,
    templates: Vec<Template>,
    if_unreachable: IfUnreachable,
}

impl PipelineBuilder {
    /// The pairs that captions are retrieved from; without any, images are classified by themselves.
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

    /// Where embeddings of a remote index's captions are kept; in memory unless said otherwise.
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
        let mut parts = Parts {
            classify: self.classify,
            search: self.search,
            rerank: self.rerank,
            pairs: self.pairs,
            rows: self.rows,
            allowed: allowed.map(Arc::new),
            captions: self.captions.unwrap_or_default(),
            retrieval: None,
            options: self.options,
            templates: self.templates,
            if_unreachable: self.if_unreachable,
        };
        if let Some(pairs) = &parts.pairs {
            let retrieval = Retrieval::new(pairs.clone(), parts.models(), parts.options)?
                .with_filter(parts.rows.clone(), parts.allowed.clone())?
                .with_caption_store(parts.captions.clone());
            parts.retrieval = Some(retrieval);
        }
        Ok(Pipeline(Arc::new(parts)))
    }
}

impl Parts {
    fn models(&self) -> RetrievalModels {
        RetrievalModels {
            search: self.search.clone().unwrap_or_else(|| self.classify.clone()),
            rerank: self.rerank.clone().unwrap_or_else(|| self.classify.clone()),
            classify: self.classify.clone(),
        }
    }
}

impl Pipeline {
    /// Begins with the encoder that classifies, and does everything else unless another one does.
    pub fn builder(classify: Arc<dyn Encoder>) -> PipelineBuilder {
        PipelineBuilder {
            classify,
            search: None,
            rerank: None,
            pairs: None,
            rows: None,
            caption_filter: None,
            captions: None,
            options: RetrievalOptions::default(),
            templates: vec![Template::default()],
            if_unreachable: IfUnreachable::default(),
        }
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
        self.0.pairs.as_ref()
    }

    /// Ids of the pairs that are looked at: a range, and those that the caption filter allows.
    pub fn filter(&self) -> (Option<Range<u64>>, Option<&RowSet>) {
        (self.0.rows.clone(), self.0.allowed.as_deref())
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

    /// Whether an error is a remote index's absence that is to be tolerated.
    pub fn is_tolerated(&self, error: &XmoreError) -> bool {
        self.0.if_unreachable == IfUnreachable::ZeroShot
            && matches!(error, XmoreError::Memory(MemoryError::Unreachable { .. }))
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
        encode_each(&self.encoders(), files, stop, &mut |batch| {
            let EncodedBatch { end, kept, failed, partly_seen, embeddings } = batch;
            let queries = (!kept.is_empty()).then(|| self.queries(embeddings));
            take(EncodedQueries { end, kept, failed, partly_seen, queries })
        })
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

/// An image to be classified.
#[derive(Clone, Debug)]
pub enum QueryImage {
    /// A file.
    Path(PathBuf),
    /// A file's bytes.
    Bytes(Vec<u8>),
    /// Decoded pixels, upright.
    Pixels(RgbImage),
    /// Unit embeddings by each of [`Pipeline::encoders`].
    Embeddings(Vec<Vec<f32>>),
}

/// An image on its way to its embeddings.
enum Prepared<'a> {
    /// As each of the encoders takes it, until it is taken.
    Pixels(Vec<Option<Pixels>>),
    /// Embedded already, by each of the encoders.
    Embedded(&'a [Vec<f32>]),
}

impl Prepared<'_> {
    fn take(&mut self, encoder: usize) -> Option<Pixels> {
        match self {
            Self::Pixels(each) => each[encoder].take(),
            Self::Embedded(_) => None,
        }
    }

    fn row(&self, encoder: usize) -> Option<&[f32]> {
        match self {
            Self::Pixels(_) => None,
            Self::Embedded(rows) => Some(&rows[encoder]),
        }
    }
}

impl QueryImage {
    fn prepare(&self, encoders: &[&dyn Encoder]) -> Result<Prepared<'_>> {
        let decode = |bytes: &[u8], name: &Path| {
            let pixels = |encoder: &&dyn Encoder| Ok(Some(encoder.load(bytes, name, MAX_PIXELS)?.pixels));
            Ok(Prepared::Pixels(encoders.iter().map(pixels).collect::<Result<_>>()?))
        };
        match self {
            Self::Path(path) => {
                let bytes =
                    read_bounded(path, MAX_IMAGE_BYTES).map_err(|e| XmoreError::io("read", path, e))?;
                decode(&bytes, path)
            }
            Self::Bytes(bytes) => decode(bytes, Path::new("image")),
            Self::Pixels(image) => {
                Ok(Prepared::Pixels(encoders.iter().map(|encoder| Some(encoder.prepare(image))).collect()))
            }
            Self::Embeddings(rows) => {
                let expected: Vec<usize> = encoders.iter().map(|encoder| encoder.dim()).collect();
                let found: Vec<usize> = rows.iter().map(Vec::len).collect();
                if expected != found {
                    return Err(XmoreError::EmbeddingLengths { expected, found });
                }
                Ok(Prepared::Embedded(rows))
            }
        }
    }
}

/// Photos encoded by every encoder that needs them.
#[derive(Default)]
pub struct EncodedQueries {
    /// Index of the first file behind them.
    pub end: usize,
    /// For each row, the index of its file.
    pub kept: Vec<usize>,
    /// For each file that gave no row, its index and why.
    pub failed: Vec<(usize, XmoreError)>,
    /// How many were looked at only in part.
    pub partly_seen: PartlySeen,
    /// The rows, if there are any.
    pub queries: Option<Queries>,
}

impl EncodedQueries {
    /// Number of rows.
    pub fn len(&self) -> usize {
        self.kept.len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// Puts those that come next behind these.
    pub fn append(&mut self, next: Self) {
        self.end = next.end;
        self.kept.extend(next.kept);
        self.failed.extend(next.failed);
        self.partly_seen += next.partly_seen;
        match (&mut self.queries, next.queries) {
            (Some(queries), Some(next)) => queries.append(next),
            (queries @ None, next) => *queries = next,
            (Some(_), None) => {}
        }
    }
}
