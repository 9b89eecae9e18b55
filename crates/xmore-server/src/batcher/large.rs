//! Images that take long to decode: they are decoded in threads of their own, so that no batch waits for them, and then queued again.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::Instant;

use super::job::{Input, Job};
use super::queue::Queue;
use crate::api_error::{ApiError, ErrorCode};
use crate::options::Limits;
use crate::served_models::ServedModels;

/// Pixels above which an image is large.
pub(super) const LARGE: u64 = 16_000_000;
/// Large images that may wait to be decoded.
const WAITING: usize = 16;
/// Threads that decode them, where there are enough cores.
const THREADS: usize = 2;

/// The queue of large images.
pub(super) struct LargeImages {
    waiting: Queue<Job>,
    max_pixels: u64,
}

impl LargeImages {
    pub(super) fn new(limits: &Limits) -> Self {
        Self { waiting: Queue::new(), max_pixels: limits.pixels }
    }

    /// How many threads should [`work`](Self::work).
    pub(super) fn threads() -> usize {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        THREADS.min(cores / 2).max(1)
    }

    /// Takes a job with a large image; answers it with an error where too many wait.
    pub(super) fn push(&self, job: Job) {
        if self.waiting.len() < WAITING {
            self.waiting.push([job]);
        } else {
            let message = "too many large images wait to be decoded; try again later";
            job.answer(Err(ApiError::new(ErrorCode::Overloaded, message)));
        }
    }

    /// Decodes images until [`close`](Self::close), and passes them on.
    pub(super) fn work(&self, models: &ServedModels, decoded: &Queue<Job>) {
        while let Some(jobs) = self.waiting.take(1) {
            for job in jobs {
                if job.reply.is_closed() {
                    continue;
                }
                if job.deadline < Instant::now() {
                    job.answer(Err(ApiError::timeout()));
                    continue;
                }
                match catch_unwind(AssertUnwindSafe(|| self.decode(models, job))) {
                    Ok(Some(job)) => decoded.push([job]),
                    Ok(None) => {}
                    Err(_) => tracing::error!("decoding a large image panicked; it is answered 500"),
                }
            }
        }
    }

    /// Ends the threads when nothing is left.
    pub(super) fn close(&self) {
        self.waiting.close();
    }

    /// The job with its image decoded for each encoder that needs it; none where it was answered.
    fn decode(&self, models: &ServedModels, mut job: Job) -> Option<Job> {
        let Input::Image(bytes) = &job.input else { return Some(job) };
        let begin = Instant::now();
        let mut pixels = Vec::new();
        for (index, encoder) in models.encoders().iter().enumerate() {
            if !job.task.needs(index) {
                pixels.push(None);
                continue;
            }
            match encoder.load(bytes, Path::new("image"), self.max_pixels) {
                Ok(loaded) => pixels.push(Some(loaded.pixels)),
                Err(error) => {
                    job.answer(Err(error.into()));
                    return None;
                }
            }
        }
        job.input = Input::Decoded(pixels);
        job.decoded_in = begin.elapsed();
        Some(job)
    }
}
