//! Classification: labels that are ready for a model, with or without pairs.

use std::num::NonZeroUsize;
use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};
use xmore::{
    Answer as GivenAnswer, AnswerOptions, CaptionStore, Classifier as Prepared, GivenImage, Pipeline,
    QueryImage, RetrievalOptions, Scores, XmoreError,
};

use crate::answer::Answer;
use crate::errors::OrRaise;
use crate::feed::{self, FeedOptions, OnError};
use crate::images::{self, ImageOptions};
use crate::job;
use crate::memory::Memory;
use crate::model::Model;
use crate::options;

/// Labels, a model, and pairs if there are any.
#[pyclass(frozen, subclass, module = "xmore._native")]
pub(crate) struct Classifier {
    pipeline: Pipeline,
    prepared: Prepared,
    options: AnswerOptions,
    images: ImageOptions,
    labels: Arc<[String]>,
    threads: Option<NonZeroUsize>,
    model: Py<Model>,
}

/// An answer for each image, in order, and the images that have none, with the reason.
type Answers<'py> = (Bound<'py, PyList>, Vec<(usize, String)>);

#[pymethods]
impl Classifier {
    /// Makes labels ready; see `xmore.Classifier`.
    #[new]
    #[pyo3(signature = (model, labels, memory, method, templates, k, neighbors, caption_filter, scores, top, min_score, min_similarity))]
    #[expect(clippy::too_many_arguments, reason = "the choices of the Python class, by name there")]
    fn new(
        py: Python<'_>,
        model: Py<Model>,
        labels: &Bound<'_, PyAny>,
        memory: Option<&Bound<'_, Memory>>,
        method: &str,
        templates: Option<&Bound<'_, PyAny>>,
        k: usize,
        neighbors: usize,
        caption_filter: Option<&str>,
        scores: &str,
        top: usize,
        min_score: Option<f64>,
        min_similarity: Option<f32>,
    ) -> PyResult<Self> {
        let labels = options::labels(labels)?;
        let templates = options::templates(templates)?;
        let caption_filter = caption_filter.map(options::pattern).transpose()?;
        let scores: Scores = options::parsed("scores", scores)?;
        let encoder = model.get().encoder()?;
        let threads = model.get().threads_asked();
        let pairs = memory.map(|memory| memory.get().pairs());
        let retrieval = RetrievalOptions { k, neighbors, ..RetrievalOptions::default() };
        let made = job::call(py, threads, || {
            Pipeline::builder(encoder)
                .pairs(pairs)
                .caption_filter(caption_filter)
                .retrieval(retrieval)
                .templates(templates)
                // Without a cache folder, captions that are encoded here are kept by this classifier alone.
                .caption_store(Arc::new(CaptionStore::on_disk().unwrap_or_default()))
                .build()
        })?;
        let pipeline = made.or_raise()?;
        let method = options::method(method, &pipeline)?;
        scores.check(&**pipeline.encoder(), method).or_raise()?;
        let prepared = job::call(py, threads, || pipeline.classifier(labels, &[method]))?.or_raise()?;
        let options = AnswerOptions {
            scores,
            top,
            explain: true,
            min_score,
            min_similarity,
            ..AnswerOptions::new(method)
        };
        let images = ImageOptions::of(model.get().usable()?);
        let labels = prepared.labels().names().into();
        Ok(Self { pipeline, prepared, options, images, labels, threads, model })
    }

    /// The labels.
    #[getter]
    fn labels(&self) -> Vec<String> {
        self.labels.to_vec()
    }

    /// The labels with their own prompts and synonyms, as they can be given again.
    fn label_fields<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let labels = self.prepared.labels();
        let fields = PyList::empty(py);
        for ((name, prompts), synonyms) in
            labels.names().iter().zip(labels.own_prompts()).zip(labels.synonyms())
        {
            let label = PyDict::new(py);
            label.set_item("label", name)?;
            label.set_item("prompts", prompts)?;
            label.set_item("synonyms", synonyms)?;
            fields.append(label)?;
        }
        Ok(fields)
    }

    /// The method that answers.
    #[getter]
    fn method(&self) -> &'static str {
        self.options.method.name()
    }

    /// The prompts.
    #[getter]
    fn templates(&self) -> Vec<String> {
        self.pipeline.templates().iter().map(ToString::to_string).collect()
    }

    /// What the model cannot make of the labels.
    #[getter]
    fn warnings(&self) -> Vec<String> {
        self.prepared.warnings().iter().map(ToString::to_string).collect()
    }

    /// Classifies one image.
    fn classify(&self, py: Python<'_>, image: &Bound<'_, PyAny>) -> PyResult<Answer> {
        self.model.get().usable()?;
        let image = match images::read(image, "image", self.images)? {
            GivenImage::Path(path) => QueryImage::Path(path),
            GivenImage::Bytes { bytes, .. } => QueryImage::Bytes(bytes),
            GivenImage::Pixels(pixels) => QueryImage::Pixels(pixels),
        };
        let answers = job::call(py, self.threads, || {
            let answers = self.pipeline.classify(&self.prepared, &[image], &self.options)?;
            answers.into_iter().collect::<Result<Vec<_>, _>>()
        })?;
        let mut answers = answers.or_raise()?;
        Ok(Answer::new(answers.remove(0), self.labels.clone()))
    }

    /// Classifies images.
    #[pyo3(signature = (images, batch_size, on_error, progress))]
    fn classify_all<'py>(
        &self,
        py: Python<'py>,
        images: &Bound<'py, PyAny>,
        batch_size: usize,
        on_error: &str,
        progress: bool,
    ) -> PyResult<Answers<'py>> {
        self.model.get().usable()?;
        let options = FeedOptions::new(self.images, batch_size, on_error, progress)?;
        let (answers, fed) = feed::run(py, self.threads, images, options, |job, batches, encoded| {
            let (mut answers, mut ended) = (Vec::new(), Ok(()));
            self.pipeline.encode_given(batches, &|| job.stopped(), &mut |batch| {
                if let Some(queries) = &batch.queries {
                    match self.answers(queries) {
                        Ok(more) => answers.extend(more),
                        Err(error) => ended = Err(error),
                    }
                }
                encoded.add(batch.kept, batch.failed, batch.end) && ended.is_ok()
            })?;
            ended.map(|()| answers)
        })?;
        let mut by_place: Vec<Option<Answer>> = (0..fed.taken).map(|_| None).collect();
        for (&place, answer) in fed.places.iter().zip(answers) {
            by_place[place] = Some(Answer::new(answer, self.labels.clone()));
        }
        if fed.on_error == OnError::Skip {
            by_place.retain(Option::is_some);
        }
        let answers = by_place.into_iter().map(|answer| answer.map(|answer| Py::new(py, answer)).transpose());
        Ok((PyList::new(py, answers.collect::<PyResult<Vec<_>>>()?)?, fed.without))
    }
}

impl Classifier {
    fn answers(&self, queries: &xmore::Queries) -> Result<Vec<GivenAnswer>, XmoreError> {
        let evidence = self.prepared.evidence(queries)?;
        evidence.iter().map(|each| GivenAnswer::new(each, self.prepared.labels(), &self.options)).collect()
    }
}
