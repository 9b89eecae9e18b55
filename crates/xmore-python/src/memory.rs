//! Memories: opened, built, checked and searched, and their stored rows as arrays.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use numpy::{PyArray1, PyArray2, PyArrayMethods, PyReadonlyArray2};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};
use xmore::{
    BuildOptions, BuildOutcome, BuildReport, Encoder, OpenPairs, RemoteOptions, SkipLimit, XmoreError,
};
use xmore_files::WalkOptions;
use xmore_memory::SearchOptions;
use xmore_memory::ingest::{ColumnNames, InputFormat, SourceOptions};
use xmore_memory::store::{self, EmbeddingSet};

use crate::errors::OrRaise;
use crate::errors::classes::XmoreError as RaisedError;
use crate::job;
use crate::model::Model;
use crate::options;
use crate::progress::{Event, Progress};

/// Pairs that are held open: a memory, or a remote index.
#[pyclass(frozen, subclass, module = "xmore._native")]
pub(crate) struct Memory {
    pairs: Arc<OpenPairs>,
}

/// What a search gives for each query: ids, best first, and similarities.
type Found<'py> = Vec<(Bound<'py, PyArray1<u64>>, Bound<'py, PyArray1<f32>>)>;

#[pymethods]
impl Memory {
    /// Opens a memory's folder, or a remote index by its URL.
    #[new]
    fn new(py: Python<'_>, location: &str) -> PyResult<Self> {
        let opened = job::call(py, None, || OpenPairs::open(location, &RemoteOptions::default()))?;
        Ok(Self { pairs: Arc::new(opened.or_raise()?) })
    }

    /// The folder, or the URL without a password.
    #[getter]
    fn location(&self) -> String {
        self.pairs.location().into_owned()
    }

    /// Whether it is a folder of this machine.
    #[getter]
    fn is_local(&self) -> bool {
        self.pairs.memory().is_some()
    }

    /// Number of pairs, as far as it is known.
    #[getter]
    fn count(&self) -> Option<u64> {
        self.pairs.count()
    }

    /// Name, precision and fingerprint of the model whose embeddings they are, as far as it is known.
    #[getter]
    fn model_identity(&self) -> Option<(String, Option<String>, String)> {
        let identity = self.pairs.identity()?;
        Some((identity.name.clone(), identity.precision.clone(), identity.fingerprint.clone()))
    }

    /// Which way up its images were decoded.
    #[getter]
    fn orientation(&self) -> Option<&'static str> {
        self.pairs.orientation().map(xmore::Orientation::name)
    }

    /// Length of an embedding.
    #[getter]
    fn dim(&self) -> PyResult<usize> {
        Ok(self.local()?.dim())
    }

    /// The caption of a pair.
    fn caption(&self, id: u64) -> PyResult<&str> {
        self.local()?.caption(id).or_raise()
    }

    /// The image of a pair, as it was recorded.
    fn image_path(&self, id: u64) -> PyResult<&str> {
        self.local()?.image_path(id).or_raise()
    }

    /// The stored rows of the images (`by="image"`) or captions, part by part.
    fn stored_rows(slf: &Bound<'_, Self>, by: &str) -> PyResult<Vec<StoredRows>> {
        let modality = options::modality(by)?;
        let memory = slf.get();
        let rows = memory.local()?.primary().stored_rows(modality);
        let dim = memory.local()?.dim();
        Ok(rows
            .map(|(_, rows)| StoredRows {
                address: rows.as_ptr().expose_provenance(),
                rows: rows.len() / dim,
                dim,
                _owner: memory.pairs.clone(),
            })
            .collect())
    }

    /// The pairs nearest to embeddings, float `[n, dim]` of unit rows by `model`, or by the memory's own model.
    #[pyo3(signature = (queries, k, by, caption_filter, model))]
    fn search_embeddings<'py>(
        &self,
        py: Python<'py>,
        queries: &Bound<'py, PyAny>,
        k: usize,
        by: &str,
        caption_filter: Option<&str>,
        model: Option<&Bound<'py, Model>>,
    ) -> PyResult<Found<'py>> {
        let modality = options::modality(by)?;
        let pattern = caption_filter.map(options::pattern).transpose()?;
        let numpy = py.import("numpy")?;
        let queries = numpy.call_method1("ascontiguousarray", (queries, "float32"))?;
        let queries: PyReadonlyArray2<'_, f32> = queries.cast::<PyArray2<f32>>()?.try_readonly()?;
        let values = queries.as_slice()?;
        let memory = self.local()?;
        let model = model.map(|model| model.get().usable()).transpose()?;
        let set: &EmbeddingSet = match model {
            Some(model) => (model as &dyn Encoder).embedding_set(memory).or_raise()?,
            None => memory.primary(),
        };
        let found = job::call(py, None, || {
            let allowed =
                pattern.as_ref().map(|pattern| self.pairs.rows_with_caption(pattern)).transpose()?;
            let options = SearchOptions { n: k, rows: None, allowed: allowed.as_ref() };
            Ok::<_, XmoreError>(set.search_with(modality, values, &options)?)
        })?;
        let hits = found.or_raise()?.hits.into_iter();
        Ok(hits
            .map(|hits| {
                let ids = PyArray1::from_iter(py, hits.iter().map(|hit| hit.id));
                (ids, PyArray1::from_iter(py, hits.iter().map(|hit| hit.similarity)))
            })
            .collect())
    }
}

impl Memory {
    pub(crate) fn pairs(&self) -> Arc<OpenPairs> {
        self.pairs.clone()
    }

    fn local(&self) -> PyResult<&xmore::Memory> {
        self.pairs.memory().ok_or_else(|| {
            let location = self.pairs.location();
            PyValueError::new_err(format!("{location} is a remote index: expected a memory on this machine"))
        })
    }
}

/// Stored rows of one part, mapped: numpy makes an array of them without a copy, which keeps the memory open.
#[pyclass(frozen, module = "xmore._native")]
pub(crate) struct StoredRows {
    address: usize,
    rows: usize,
    dim: usize,
    /// Maps them.
    _owner: Arc<OpenPairs>,
}

#[pymethods]
impl StoredRows {
    /// Where the rows are, for numpy: float16 `[rows, dim]`, read-only.
    #[getter(__array_interface__)]
    fn array_interface<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let interface = PyDict::new(py);
        interface.set_item("version", 3)?;
        interface.set_item("shape", (self.rows, self.dim))?;
        // A memory is not opened on a machine with another byte order.
        interface.set_item("typestr", "<f2")?;
        interface.set_item("data", (self.address, true))?;
        Ok(interface)
    }
}

/// Builds a memory or adds to it; see `xmore.Memory.build`. Returns what was done.
#[pyfunction]
#[pyo3(signature = (model, sources, path, mode, input_format, image_root, image_column, caption_column, include_hidden, max_skipped, progress))]
#[expect(clippy::too_many_arguments, reason = "the choices of the Python class, by name there")]
pub(crate) fn build_memory<'py>(
    py: Python<'py>,
    model: &Bound<'py, Model>,
    sources: Vec<PathBuf>,
    path: PathBuf,
    mode: &str,
    input_format: &str,
    image_root: Option<PathBuf>,
    image_column: Option<String>,
    caption_column: Option<String>,
    include_hidden: bool,
    max_skipped: &str,
    progress: bool,
) -> PyResult<Bound<'py, PyDict>> {
    let options = BuildOptions {
        mode: options::mode(mode)?,
        format: options::parsed::<InputFormat>("input_format", input_format)?,
        source: SourceOptions {
            image_root,
            columns: ColumnNames { image: image_column, caption: caption_column },
            walk: WalkOptions { include_hidden, ..WalkOptions::default() },
        },
        max_skipped: options::parsed::<SkipLimit>("max_skipped", max_skipped)?,
        ..BuildOptions::default()
    };
    let model = model.get();
    let encoder = model.usable()?;
    let progress = Progress::new(py, progress, "images")?;
    let report = job::run(
        py,
        model.threads_asked(),
        |job| {
            xmore::build_memory(encoder, &sources, &path, &options, &mut |at| {
                job.tell(Event::Done(at.done, Some(at.total)));
                !job.stopped()
            })
        },
        &mut |_, event| progress.show(event),
    )?;
    drop(progress);
    let report = report.or_raise()?;
    enough(&report, &path)?;
    summary(py, &report)
}

/// That a build gave a memory, and left out no more than is allowed.
fn enough(report: &BuildReport, path: &Path) -> PyResult<()> {
    let failed = report.skipped.failed();
    let example = report.skipped.examples.iter().find(|skipped| skipped.kind.is_failure());
    let example =
        example.map_or_else(String::new, |skipped| format!(", such as {}: {}", skipped.path, skipped.reason));
    let message = match report.outcome {
        BuildOutcome::NothingRead => format!(
            "none of {} could be read{example}: there is no memory in {}",
            report.things,
            path.display()
        ),
        BuildOutcome::FormerKept => format!(
            "{failed} of {} could not be read{example}: the former memory in {} was kept",
            report.things,
            path.display()
        ),
        _ if report.over_limit => format!(
            "{failed} of {} could not be read, more than is allowed{example}; the others are in the memory {}",
            report.things,
            path.display()
        ),
        _ => return Ok(()),
    };
    Err(RaisedError::new_err(message))
}

fn summary<'py>(py: Python<'py>, report: &BuildReport) -> PyResult<Bound<'py, PyDict>> {
    let summary = PyDict::new(py);
    summary.set_item("added", report.added)?;
    summary.set_item("present", report.present)?;
    summary.set_item("failed", report.skipped.failed())?;
    summary.set_item("things", report.things)?;
    summary.set_item("truncated", report.truncated)?;
    let examples =
        report.skipped.examples.iter().map(|skipped| format!("{}: {}", skipped.path, skipped.reason));
    summary.set_item("skipped", PyList::new(py, examples.collect::<Vec<_>>())?)?;
    let left_out = Some(&report.left_out).filter(|left_out| !left_out.is_empty()).map(ToString::to_string);
    let notes = report.notes.iter().map(ToString::to_string).chain(left_out);
    summary.set_item("notes", PyList::new(py, notes.collect::<Vec<_>>())?)?;
    Ok(summary)
}

/// Reads all of a memory and compares it with its checksums: what is wrong, as path, problem, and whether it can be made again from the rest.
#[pyfunction]
pub(crate) fn verify_memory(
    py: Python<'_>,
    path: PathBuf,
    progress: bool,
) -> PyResult<Vec<(PathBuf, String, bool)>> {
    let progress = Progress::new(py, progress, "parts")?;
    let report = job::run(
        py,
        None,
        |job| {
            store::verify(&path, &mut |done, total| {
                job.tell(Event::Done(done as u64, Some(total as u64)));
            })
        },
        &mut |_, event| progress.show(event),
    )?;
    let findings = report.or_raise()?.findings.into_iter();
    Ok(findings.map(|finding| (finding.path, finding.problem, finding.derived)).collect())
}
