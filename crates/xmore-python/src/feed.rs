//! From an iterable of Python's to a job: images are taken from it a few at a time, as the job encodes them, by the thread that waits.

use std::mem;
use std::num::NonZeroUsize;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use pyo3::prelude::*;
use pyo3::types::PyIterator;
use xmore::{GivenImage, XmoreError};

use crate::errors::{OrRaise, raised};
use crate::images::{self, ImageOptions, Images, NoImage};
use crate::job::{self, Job};
use crate::options;
use crate::progress::{Event, Progress};

/// Batches that wait for the job.
const BATCHES_AHEAD: usize = 2;
/// A batch with this many bytes of pixels and files is complete, however few they are.
const BATCH_BYTES: usize = 64 << 20;

/// What becomes of an image that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnError {
    /// It is raised.
    Raise,
    /// Its row is NaN.
    Nan,
    /// It has no row.
    Skip,
}

/// How the images of one call are taken.
#[derive(Clone, Copy)]
pub(crate) struct FeedOptions {
    images: ImageOptions,
    batch_size: usize,
    on_error: OnError,
    progress: bool,
}

impl FeedOptions {
    /// From a call's arguments.
    pub(crate) fn new(
        images: ImageOptions,
        batch_size: usize,
        on_error: &str,
        progress: bool,
    ) -> PyResult<Self> {
        let (on_error, batch_size) = (options::on_error(on_error)?, options::batch_size(batch_size)?);
        Ok(Self { images, batch_size, on_error, progress })
    }
}

/// What a job has made of the images that it was given so far.
pub(crate) struct Encoded<'a> {
    job: &'a Job<'a, Event>,
    on_error: OnError,
    kept: Vec<usize>,
    failed: Vec<(usize, XmoreError)>,
}

impl Encoded<'_> {
    /// Notes which images of a batch have a result and which have none, and how many were looked at; returns whether to go on.
    pub(crate) fn add(&mut self, kept: Vec<usize>, failed: Vec<(usize, XmoreError)>, end: usize) -> bool {
        self.kept.extend(kept);
        self.failed.extend(failed);
        self.job.tell(Event::Done(end as u64, None));
        self.on_error != OnError::Raise || self.failed.is_empty()
    }
}

/// What became of the images of a call.
pub(crate) struct Fed {
    /// For each result, the index of its image.
    pub(crate) places: Vec<usize>,
    /// The images without one, in order, and why.
    pub(crate) without: Vec<(usize, String)>,
    /// Images that were taken.
    pub(crate) taken: usize,
    /// Whether there was one image, not a list of one.
    pub(crate) single: bool,
    pub(crate) on_error: OnError,
}

/// Runs a job over the images of an object, which the waiting thread takes from it, and shows progress. `work` encodes the batches that it
/// receives, and notes in [`Encoded`] what became of each.
pub(crate) fn run<'py, R: Send>(
    py: Python<'py>,
    threads: Option<NonZeroUsize>,
    images: &Bound<'py, PyAny>,
    options: FeedOptions,
    work: impl FnOnce(&Job<'_, Event>, Receiver<Vec<GivenImage>>, &mut Encoded<'_>) -> Result<R, XmoreError>
    + Send,
) -> PyResult<(R, Fed)> {
    let images = Images::of(images)?;
    let (single, len, on_error) = (images.single, images.len, options.on_error);
    let (mut feeder, batches) = Feeder::new(images, options);
    let progress = Progress::new(py, options.progress, "images")?;
    let done = job::run(
        py,
        threads,
        |job| {
            let mut encoded = Encoded { job, on_error, kept: Vec::new(), failed: Vec::new() };
            let result = work(job, batches, &mut encoded)?;
            Ok::<_, XmoreError>((result, encoded.kept, encoded.failed))
        },
        &mut |_, event| {
            if let Some(Event::Done(done, _)) = event {
                progress.show(Some(Event::Done(done, len.map(|len| len as u64))))?;
            }
            feeder.feed()
        },
    )?;
    let (result, kept, failed) = done.or_raise()?;
    if let (OnError::Raise, Some((_, error))) = (on_error, failed.first()) {
        return Err(raised(error));
    }
    let place = |given: usize| feeder.given[given];
    let mut without: Vec<(usize, String)> = failed.iter().map(|(i, e)| (place(*i), e.to_string())).collect();
    without.extend(feeder.failed.iter().map(|(i, error)| (*i, error.value(py).to_string())));
    without.sort();
    let places = kept.into_iter().map(place).collect();
    Ok((result, Fed { places, without, taken: feeder.taken, single, on_error }))
}

/// Takes images from an iterable and hands them to a job.
struct Feeder<'py> {
    items: Bound<'py, PyIterator>,
    options: FeedOptions,
    /// Until all are handed over.
    batches: Option<SyncSender<Vec<GivenImage>>>,
    pending: Vec<GivenImage>,
    /// Images taken.
    taken: usize,
    /// For each image that was handed over, its index among those taken.
    given: Vec<usize>,
    /// The images that could not be read here, and why.
    failed: Vec<(usize, PyErr)>,
}

impl<'py> Feeder<'py> {
    /// A feeder, and what the job receives.
    fn new(images: Images<'py>, options: FeedOptions) -> (Self, Receiver<Vec<GivenImage>>) {
        let (send, receive) = sync_channel(BATCHES_AHEAD);
        let feeder = Self {
            items: images.items,
            options,
            batches: Some(send),
            pending: Vec::new(),
            taken: 0,
            given: Vec::new(),
            failed: Vec::new(),
        };
        (feeder, receive)
    }

    /// Hands over batches until the channel is full.
    fn feed(&mut self) -> PyResult<()> {
        while let Some(batches) = &self.batches {
            let batches = batches.clone();
            if self.pending.is_empty() {
                self.take_batch()?;
            }
            if self.pending.is_empty() {
                self.batches = None;
                break;
            }
            match batches.try_send(mem::take(&mut self.pending)) {
                Ok(()) => {}
                Err(TrySendError::Full(batch)) => {
                    self.pending = batch;
                    break;
                }
                // The job has ended early.
                Err(TrySendError::Disconnected(_)) => self.batches = None,
            }
        }
        Ok(())
    }

    fn take_batch(&mut self) -> PyResult<()> {
        let mut bytes = 0;
        while self.pending.len() < self.options.batch_size && bytes < BATCH_BYTES {
            let Some(item) = self.items.next().transpose()? else { return Ok(()) };
            let index = self.taken;
            self.taken += 1;
            match images::read(&item, &format!("images[{index}]"), self.options.images) {
                Ok(image) => {
                    bytes += size(&image);
                    self.pending.push(image);
                    self.given.push(index);
                }
                Err(NoImage::Unreadable(error)) if self.options.on_error != OnError::Raise => {
                    self.failed.push((index, error));
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

/// Bytes of an image that are in memory.
fn size(image: &GivenImage) -> usize {
    match image {
        GivenImage::Path(_) => 0,
        GivenImage::Bytes { bytes, .. } => bytes.len(),
        GivenImage::Pixels(pixels) => pixels.as_raw().len(),
    }
}
