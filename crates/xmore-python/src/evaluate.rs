//! Evaluation on labeled images: the figures of `xmore eval`.

use std::path::PathBuf;
use std::sync::Arc;

use pyo3::prelude::*;
use xmore::{CaptionStore, Classifier, Method, Pipeline, Queries, RetrievalOptions, Template, XmoreError};
use xmore_eval::{
    Dataset, DatasetFormat, DatasetOptions, EmbeddedDataset, EmbeddingCache, EvalError, EvalMethod,
    EvalOptions, EvalReport, OtherPrompts, Variant,
};

use crate::errors::classes::XmoreError as RaisedError;
use crate::errors::raised_by_evaluation;
use crate::job::{self, Job};
use crate::memory::Memory;
use crate::model::Model;
use crate::options;
use crate::progress::{Event, Progress};

/// What an evaluation is asked for.
struct Asked {
    folder: PathBuf,
    dataset: DatasetOptions,
    methods: Vec<EvalMethod>,
    options: EvalOptions,
    cache: EmbeddingCache,
}

/// Measures methods on labeled images; see `xmore.evaluate`. Returns the report as JSON.
#[pyfunction]
#[pyo3(signature = (model, folder, memory, methods, templates, k, neighbors, dataset_format, split, class_names, seed, bootstrap, cache, progress))]
#[expect(clippy::too_many_arguments, reason = "the choices of the Python function, by name there")]
pub(crate) fn evaluate(
    py: Python<'_>,
    model: &Bound<'_, Model>,
    folder: PathBuf,
    memory: Option<&Bound<'_, Memory>>,
    methods: Option<&Bound<'_, PyAny>>,
    templates: Option<&Bound<'_, PyAny>>,
    k: usize,
    neighbors: usize,
    dataset_format: &str,
    split: Option<String>,
    class_names: Option<PathBuf>,
    seed: u64,
    bootstrap: usize,
    cache: bool,
    progress: bool,
) -> PyResult<String> {
    let methods = match methods {
        Some(names) => options::texts("methods", names)?
            .iter()
            .map(|name| name.parse::<EvalMethod>().map_err(|error| raised_by_evaluation(&error)))
            .collect::<PyResult<_>>()?,
        None => Vec::new(),
    };
    let templates = options::templates(templates)?;
    let dataset = DatasetOptions {
        format: options::parsed::<DatasetFormat>("dataset_format", dataset_format)?,
        split,
        class_names,
        ..DatasetOptions::default()
    };
    let cache = match cache {
        true => EmbeddingCache::on_disk().map_err(|error| raised_by_evaluation(&error))?,
        false => EmbeddingCache::none(),
    };
    let options = EvalOptions { k, sweep: vec![k], seed, samples: bootstrap, ..EvalOptions::default() };
    let asked = Asked { folder, dataset, methods, options, cache };
    let encoder = model.get().encoder()?;
    let pairs = memory.map(|memory| memory.get().pairs());
    let progress = Progress::new(py, progress, "images")?;
    let report = job::run(
        py,
        model.get().threads_asked(),
        |job| {
            let pipeline = Pipeline::builder(encoder)
                .pairs(pairs)
                .retrieval(RetrievalOptions { k, neighbors, ..RetrievalOptions::default() })
                .templates(templates)
                .caption_store(Arc::new(CaptionStore::on_disk().unwrap_or_default()))
                .build()?;
            measure(&pipeline, &asked, job)
        },
        &mut |_, event| progress.show(event),
    )?;
    let report = report.map_err(|error| raised_by_evaluation(&error))?;
    serde_json::to_string(&report).map_err(|error| RaisedError::new_err(error.to_string()))
}

fn measure(pipeline: &Pipeline, asked: &Asked, job: &Job<'_, Event>) -> Result<EvalReport, EvalError> {
    let dataset = Dataset::read_with(&asked.folder, &asked.dataset)?;
    let methods = methods(pipeline, &dataset, &asked.methods)?;
    let (encoder, images) = (&**pipeline.encoder(), dataset.images.len() as u64);
    let found = asked.cache.images_until(
        encoder,
        &dataset.root,
        &dataset.images,
        &|| job.stopped(),
        &mut |done| job.tell(Event::Done(done as u64, Some(images))),
    )?;
    let (classifier, prompts) = classifier(pipeline, &asked.cache, &dataset, &methods)?;
    let queries = Queries::from(found.embeddings);
    let data = EmbeddedDataset { dataset: &dataset, queries, kept: found.kept };
    let options = EvalOptions { variants: variants(pipeline, &methods), methods, ..asked.options.clone() };
    let (report, _) = xmore_eval::evaluate(&data, &classifier, &prompts, &options, &mut |_, _| {})?;
    Ok(report)
}

/// The methods asked for, or those of `classify` and the dataset's own prompts that are possible.
fn methods(
    pipeline: &Pipeline,
    dataset: &Dataset,
    asked: &[EvalMethod],
) -> Result<Vec<EvalMethod>, EvalError> {
    let possible = |method: &EvalMethod| match method {
        EvalMethod::DatasetPrompts => !dataset.prompts.is_empty(),
        EvalMethod::Each(method) => pipeline.allows(*method),
        method => !method.needs_coop() && (!method.needs_memory() || pipeline.pairs().is_some()),
    };
    if asked.is_empty() {
        return Ok(EvalMethod::all().filter(possible).filter(|method| !method.depends_on_order()).collect());
    }
    if let Some(method) = asked.iter().find(|method| method.needs_memory() && pipeline.pairs().is_none()) {
        return Err(XmoreError::MethodNeedsMemory { method: method.name() }.into());
    }
    let without_prompts = asked
        .iter()
        .find(|method| method.needs_coop() || **method == EvalMethod::DatasetPrompts && !possible(method));
    if let Some(method) = without_prompts {
        return Err(EvalError::PromptsNotSetUp {
            method: method.name(),
            dataset: Some(dataset.name.clone()),
        });
    }
    if let (Some(retrieval), true) = (pipeline.retrieval(), asked.contains(&EvalMethod::Each(Method::Kernel)))
    {
        retrieval.check_kernel()?;
    }
    let mut seen = std::collections::HashSet::new();
    Ok(asked.iter().copied().filter(|method| seen.insert(*method)).collect())
}

fn classifier(
    pipeline: &Pipeline,
    cache: &EmbeddingCache,
    dataset: &Dataset,
    methods: &[EvalMethod],
) -> Result<(Classifier, OtherPrompts), EvalError> {
    let (encoder, names) = (&**pipeline.encoder(), &dataset.labels);
    let embed = |templates: &[Template]| cache.labels(encoder, names, templates);
    let own = embed(pipeline.templates())?;
    let templates = match (methods.contains(&EvalMethod::Each(Method::Templates)), pipeline.templates().len())
    {
        (false, _) => None,
        (true, 1) => Some(embed(&Template::imagenet())?),
        (true, _) => Some(own.clone()),
    };
    let with_dataset_prompts = methods.contains(&EvalMethod::DatasetPrompts);
    let prompts = OtherPrompts {
        dataset: with_dataset_prompts.then(|| embed(&dataset.prompts)).transpose()?,
        coop: None,
    };
    let retrieval = pipeline.retrieval().cloned();
    let classifier = Classifier::from_embeddings(encoder, names.clone(), own, templates, retrieval);
    if methods.contains(&EvalMethod::Each(Method::Kernel)) {
        return Ok((classifier.with_open_gate().prepare_kernel()?, prompts));
    }
    Ok((classifier, prompts))
}

/// What `xmore eval` measures beside: a memory without the queries' near-duplicates.
fn variants(pipeline: &Pipeline, methods: &[EvalMethod]) -> Vec<Variant> {
    let local = pipeline.pairs().is_some_and(|pairs| pairs.memory().is_some());
    match local && methods.iter().any(|method| method.needs_memory()) {
        true => vec![Variant::WithoutQueryDuplicates(RetrievalOptions::SAME_IMAGE)],
        false => Vec::new(),
    }
}
