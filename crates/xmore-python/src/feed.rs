//! From an iterable of Python's to a job: images are taken from it a few at a time, as the job encodes them, by the thread that waits.

use std::mem;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use pyo3::prelude::*;
use pyo3::types::PyIterator;
use xmore::GivenImage;

use crate::images::{self, ImageOptions, Images, NoImage};

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

/// Takes images from an iterable and hands them to a job.
pub(crate) struct Feeder<'py> {
    items: Bound<'py, PyIterator>,
    options: ImageOptions,
    batch_size: usize,
    on_error: OnError,
    /// Until all are handed over.
    batches: Option<SyncSender<Vec<GivenImage>>>,
    pending: Vec<GivenImage>,
    /// Images taken.
    pub(crate) taken: usize,
    /// For each image that was handed over, its index among those taken.
    pub(crate) given: Vec<usize>,
    /// The images that could not be read here, and why.
    pub(crate) failed: Vec<(usize, PyErr)>,
}

impl<'py> Feeder<'py> {
    /// A feeder, and what the job receives.
    pub(crate) fn new(
        images: Images<'py>,
        options: ImageOptions,
        batch_size: usize,
        on_error: OnError,
    ) -> (Self, Receiver<Vec<GivenImage>>) {
        let (send, receive) = sync_channel(BATCHES_AHEAD);
        let feeder = Self {
            items: images.items,
            options,
            batch_size,
            on_error,
            batches: Some(send),
            pending: Vec::new(),
            taken: 0,
            given: Vec::new(),
            failed: Vec::new(),
        };
        (feeder, receive)
    }

    /// Hands over what there is room for.
    pub(crate) fn feed(&mut self) -> PyResult<()> {
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
        while self.pending.len() < self.batch_size && bytes < BATCH_BYTES {
            let Some(item) = self.items.next().transpose()? else { return Ok(()) };
            let index = self.taken;
            self.taken += 1;
            match images::read(&item, &format!("images[{index}]"), self.options) {
                Ok(image) => {
                    bytes += size(&image);
                    self.pending.push(image);
                    self.given.push(index);
                }
                Err(NoImage::Unreadable(error)) if self.on_error != OnError::Raise => {
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
