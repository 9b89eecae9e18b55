//! Models: images and texts to embeddings.

use std::num::NonZeroUsize;
use std::sync::Arc;

use numpy::ndarray::{ArrayView3, Axis};
use numpy::{PyArray1, PyArrayMethods, PyReadonlyArray4, PyUntypedArrayMethods};
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use xmore::{
    DeviceChoice, Encoder, GivenImage, LoadOptions, ModelName, NamedModel, Pixels, XmoreError, encode_given,
    encode_texts,
};
use xmore_files::image::MAX_PIXELS;
use xmore_files::read_bounded;
use xmore_hub::Presence;
use xmore_memory::ingest::MAX_IMAGE_BYTES;

use crate::errors::OrRaise;
use crate::feed::{self, FeedOptions, OnError};
use crate::images::{self, ImageOptions};
use crate::job;
use crate::options;
use crate::progress::{Event, Progress};

/// Texts that are encoded between two looks at whether to go on.
const TEXTS_AT_A_TIME: usize = 1024;

/// Prepared images that are encoded together.
const IMAGES_AT_A_TIME: usize = 64;

/// An opened model.
#[pyclass(frozen, subclass, module = "xmore._native")]
pub(crate) struct Model {
    model: Arc<NamedModel>,
    threads: Option<NonZeroUsize>,
    precision: &'static str,
    /// The process that opened it, if it is on a GPU, whose state no fork has.
    gpu_process: Option<u32>,
}

/// A decoded image as a tower takes it.
type Prepared<'py> = Bound<'py, PyAny>;
/// Rows, the indices of images without one, and why they have none.
type EncodedImages<'py> = (Bound<'py, PyAny>, Vec<(usize, String)>);

#[pymethods]
impl Model {
    /// Opens a model by its name; see `xmore.Model`.
    #[new]
    #[pyo3(signature = (name, pretrained, precision, threads, local_files_only, device, orientation, resize_mode, progress))]
    #[expect(clippy::too_many_arguments, reason = "the choices of the Python class, by name there")]
    fn new(
        py: Python<'_>,
        name: &str,
        pretrained: Option<&str>,
        precision: &str,
        threads: Option<usize>,
        local_files_only: bool,
        device: &str,
        orientation: &str,
        resize_mode: Option<&str>,
        progress: bool,
    ) -> PyResult<Self> {
        let threads = job::threads(threads)?;
        let precision = options::precision(precision)?;
        let mut load = LoadOptions::default();
        load.device = options::parsed::<DeviceChoice>("device", device)?;
        let orientation = options::orientation(orientation)?;
        let resize_mode = resize_mode.map(options::resize_mode).transpose()?;
        let progress = Progress::new(py, progress, "B")?;
        let opened = job::run(
            py,
            threads,
            |job| {
                let name = ModelName::parse(name, pretrained).map_err(XmoreError::from)?;
                let tell = |event: xmore_hub::fetch::FetchEvent<'_>| {
                    Event::of(event).into_iter().for_each(|event| job.tell(event));
                };
                if !local_files_only
                    && let (ModelName::Bundled(_), Presence::ToBeFetched(_)) =
                        (&name, xmore_hub::presence(&name)?)
                {
                    xmore_hub::fetch(&name, &tell)?;
                }
                let open = |precision| {
                    let mut load = load.clone();
                    load.precision = precision;
                    if local_files_only {
                        NamedModel::open_cached_with(&name, &load)
                    } else {
                        NamedModel::open_or_fetch(&name, &load, &tell)
                    }
                };
                match precision {
                    Some(precision) => Ok((open(precision)?, precision)),
                    None => NamedModel::open_auto(open).map(|(model, taken)| (model, taken.precision())),
                }
            },
            &mut |_, event| progress.show(event),
        )?;
        let (model, precision) = opened.or_raise()?;
        let model = model.with_orientation(orientation).with_resize_mode(resize_mode);
        let gpu_process = model.gpu().is_some().then(std::process::id);
        Ok(Self { model: Arc::new(model), threads, precision: precision.short_name(), gpu_process })
    }

    /// The canonical name, and the precision behind it if it is not float32.
    #[getter]
    fn name(&self) -> &str {
        self.model.name()
    }

    /// SHA-256 that identifies the model.
    #[getter]
    fn fingerprint(&self) -> &str {
        self.model.fingerprint()
    }

    /// Length of an embedding.
    #[getter]
    fn dim(&self) -> usize {
        self.model.dim()
    }

    /// exp(logit_scale): the factor on cosines before softmax or sigmoid.
    #[getter]
    fn logit_scale(&self) -> f32 {
        Encoder::logit_scale(&*self.model)
    }

    /// What is added to scaled cosines before a sigmoid; 0 in models that were trained with a softmax.
    #[getter]
    fn logit_bias(&self) -> f32 {
        Encoder::logit_bias(&*self.model)
    }

    /// Whether it was trained with a sigmoid of each pair, as SigLIP was.
    #[getter]
    fn trained_with_sigmoid(&self) -> bool {
        Encoder::trained_with_sigmoid(&*self.model)
    }

    /// The number format of its linear layers.
    #[getter]
    fn precision(&self) -> &'static str {
        self.precision
    }

    /// Threads that it computes on.
    #[getter]
    fn threads(&self) -> usize {
        job::thread_count(self.threads)
    }

    /// `cpu`, or a GPU's name.
    #[getter]
    fn device(&self) -> &str {
        xmore_clip::Model::device(&self.model)
    }

    /// Side of the square that the image tower takes, in pixels.
    #[getter]
    fn image_size(&self) -> u32 {
        self.model.preprocess().size()
    }

    /// Most tokens of a text.
    #[getter]
    fn context_length(&self) -> usize {
        xmore_clip::Model::context_length(&self.model)
    }

    /// Which way up images are decoded.
    #[getter]
    fn orientation(&self) -> &'static str {
        self.model.orientation().name()
    }

    /// The names of the two towers, image first.
    #[getter]
    fn tower_names(&self) -> [&str; 2] {
        self.model.tower_names()
    }

    /// Embeds images: unit rows, and the images that have none, with the reason.
    #[pyo3(signature = (images, batch_size, on_error, progress))]
    fn encode_image<'py>(
        &self,
        py: Python<'py>,
        images: &Bound<'py, PyAny>,
        batch_size: usize,
        on_error: &str,
        progress: bool,
    ) -> PyResult<EncodedImages<'py>> {
        let model = self.usable()?;
        let options = FeedOptions::new(ImageOptions::of(model), batch_size, on_error, progress)?;
        let (rows, fed) = feed::run(py, self.threads, images, options, |job, batches, encoded| {
            let mut rows = Vec::new();
            encode_given(&[model], batches, &|| job.stopped(), &mut |batch| {
                rows.extend_from_slice(batch.embeddings[0].as_slice());
                encoded.add(batch.kept, batch.failed, batch.end)
            })?;
            Ok(rows)
        })?;
        let dim = model.dim();
        let (rows, count) = match fed.on_error {
            OnError::Nan if !fed.without.is_empty() => {
                let mut all = vec![f32::NAN; fed.taken * dim];
                for (&place, row) in fed.places.iter().zip(rows.chunks_exact(dim)) {
                    all[place * dim..][..dim].copy_from_slice(row);
                }
                (all, fed.taken)
            }
            _ => (rows, fed.places.len()),
        };
        Ok((matrix(py, rows, count, dim, fed.single && count == 1)?, fed.without))
    }

    /// Embeds texts: unit rows, and how many texts were cut.
    #[pyo3(signature = (texts, template, progress))]
    fn encode_text<'py>(
        &self,
        py: Python<'py>,
        texts: &Bound<'py, PyAny>,
        template: Option<&str>,
        progress: bool,
    ) -> PyResult<(Bound<'py, PyAny>, usize)> {
        let model = self.usable()?;
        let single = texts.is_instance_of::<pyo3::types::PyString>();
        let mut texts = options::texts("texts", texts)?;
        if let Some(template) = template {
            let template = xmore::Template::new(template).or_raise()?;
            texts.iter_mut().for_each(|text| *text = template.apply(text));
        }
        let progress = Progress::new(py, progress, "texts")?;
        let count = texts.len();
        let encoded = job::run(
            py,
            self.threads,
            |job| {
                let (mut rows, mut truncated, mut done) = (Vec::with_capacity(count * model.dim()), 0, 0);
                for batch in texts.chunks(TEXTS_AT_A_TIME).take_while(|_| !job.stopped()) {
                    let encoded = encode_texts(model, batch, &mut |_| {})?;
                    rows.extend_from_slice(encoded.embeddings.as_slice());
                    truncated += encoded.truncated;
                    done += batch.len() as u64;
                    job.tell(Event::Done(done, Some(count as u64)));
                }
                Ok::<_, XmoreError>((rows, truncated))
            },
            &mut |_, event| progress.show(event),
        )?;
        let (rows, truncated) = encoded.or_raise()?;
        Ok((matrix(py, rows, count, model.dim(), single)?, truncated))
    }

    /// Embeds texts by their token ids, start and end included, without padding: unit rows.
    fn encode_tokens<'py>(&self, py: Python<'py>, tokens: Vec<Vec<u32>>) -> PyResult<Bound<'py, PyAny>> {
        let model = self.usable()?;
        let ids: Vec<&[u32]> = tokens.iter().map(Vec::as_slice).collect();
        let rows = job::call(py, self.threads, || model.encode_token_ids(&ids))?.or_raise()?;
        matrix(py, rows.as_slice().to_vec(), rows.len(), model.dim(), false)
    }

    /// Embeds images as [`Self::preprocess`] gives them, float32 `[n, 3, size, size]`: unit rows.
    fn encode_pixels<'py>(
        &self,
        py: Python<'py>,
        pixels: PyReadonlyArray4<'py, f32>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let model = self.usable()?;
        let (found, side) = (pixels.shape(), model.preprocess().size() as usize);
        if found[1..] != [3, side, side] {
            let message = format!("pixels: expected the shape [n, 3, {side}, {side}], found {found:?}");
            return Err(PyValueError::new_err(message));
        }
        let (images, count) = (pixels.as_array(), found[0]);
        let rows = job::call(py, self.threads, || {
            let mut rows = Vec::with_capacity(count * model.dim());
            for batch in images.axis_chunks_iter(Axis(0), IMAGES_AT_A_TIME) {
                // Channels first becomes channels last.
                let last =
                    |image: ArrayView3<'_, f32>| image.permuted_axes([1, 2, 0]).iter().copied().collect();
                let batch: Vec<_> = batch.outer_iter().map(|image| Pixels::new(last(image))).collect();
                rows.extend_from_slice(model.encode_images(&batch)?.as_slice());
            }
            Ok::<_, XmoreError>(rows)
        })?;
        matrix(py, rows.or_raise()?, count, model.dim(), false)
    }

    /// An image as the image tower takes it: float32 `[3, size, size]`, or patches `[patches, values]` of towers that take pictures of any
    /// aspect.
    fn preprocess<'py>(&self, py: Python<'py>, image: &Bound<'py, PyAny>) -> PyResult<Prepared<'py>> {
        let image = images::read(image, "image", ImageOptions::of(&self.model))?;
        let model = &*self.model;
        let pixels = job::call(py, self.threads, || prepare(model, image))?.or_raise()?;
        let values = pixels.as_slice();
        match pixels.grid() {
            Some(grid) => {
                let patches = (grid.rows * grid.columns) as usize;
                matrix(py, values.to_vec(), patches, values.len() / patches, false)
            }
            None => {
                let side = self.model.preprocess().size() as usize;
                // Channels last becomes channels first.
                let planes =
                    (0..3).flat_map(|channel| values.iter().skip(channel).step_by(3).copied()).collect();
                Ok(PyArray1::from_vec(py, planes).reshape([3, side, side])?.into_any())
            }
        }
    }

    /// Token ids of texts, start and end included, without padding.
    fn tokenize(&self, py: Python<'_>, texts: &Bound<'_, PyAny>) -> PyResult<Vec<Vec<u32>>> {
        let texts = options::texts("texts", texts)?;
        let model = &*self.model;
        let tokens = job::call(py, self.threads, || {
            texts
                .iter()
                .map(|text| Ok::<_, XmoreError>(xmore_clip::Model::tokenize(model, text)?.ids))
                .collect()
        })?;
        let tokens: Result<Vec<Vec<u32>>, XmoreError> = tokens;
        tokens.or_raise()
    }
}

impl Model {
    /// The model, where this process can compute with it.
    pub(crate) fn usable(&self) -> PyResult<&NamedModel> {
        match self.gpu_process {
            Some(process) if process != std::process::id() => Err(PyRuntimeError::new_err(
                "the model is on a GPU that another process has opened, which this one was forked from: open it here, or start \
                 processes by multiprocessing's method `spawn`",
            )),
            _ => Ok(&self.model),
        }
    }

    pub(crate) fn threads_asked(&self) -> Option<NonZeroUsize> {
        self.threads
    }

    /// The same as one of a pipeline's encoders.
    pub(crate) fn encoder(&self) -> PyResult<Arc<dyn Encoder>> {
        self.usable()?;
        Ok(self.model.clone())
    }
}

/// Reads, decodes and prepares an image.
fn prepare(model: &NamedModel, image: GivenImage) -> Result<Pixels, XmoreError> {
    let load = |bytes: &[u8], name: &std::path::Path| Ok(model.load(bytes, name, MAX_PIXELS)?.pixels);
    match image {
        GivenImage::Path(path) => {
            let read = read_bounded(&path, MAX_IMAGE_BYTES);
            let bytes =
                read.map_err(|source| XmoreError::Io { action: "read", path: path.clone(), source })?;
            load(&bytes, &path)
        }
        GivenImage::Bytes { bytes, name } => load(&bytes, &name),
        GivenImage::Pixels(pixels) => Ok(Encoder::prepare(model, &pixels)),
    }
}

/// Rows as a float32 array `[count, dim]`, or `[dim]` of a single one.
pub(crate) fn matrix(
    py: Python<'_>,
    rows: Vec<f32>,
    count: usize,
    dim: usize,
    single: bool,
) -> PyResult<Bound<'_, PyAny>> {
    let values = PyArray1::from_vec(py, rows);
    Ok(if single { values.into_any() } else { values.reshape([count, dim])?.into_any() })
}
