//! Batches of requests: a queue of bounded length, one thread that takes batches from it, and the labels and pairs that are ready.
//!
//! One batch runs at a time, since it uses every core. A batch is what was queued during the one before; on an idle server a request is
//! its own batch at once.

mod batch_run;
mod fair_queue;
mod job;
mod label_cache;
mod labels;
mod large;
mod queue;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use image::RgbImage;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError, oneshot};
use xmore::{CaptionStore, IfUnreachable, OpenPairs, Opened};

pub(crate) use job::{Done, Input, Output, Task};
pub(crate) use labels::{Kind, LabelSpec, Prepared};

use crate::api_error::{ApiError, ErrorCode};
use crate::blocking::BlockingPool;
use crate::caller::Caller;
use crate::error::ServerError;
use crate::metrics::Metrics;
use crate::options::{Limits, PairsSource};
use crate::served_models::ServedModels;
use crate::snapshot::Snapshot;
use crate::times::Times;
use batch_run::BatchRun;
use job::Job;
use labels::LabelCache;
use large::LargeImages;
use queue::Queue;

/// Side of the blank image with which encoders are tried at the start, in pixels.
const WARM_UP_SIDE: u32 = 32;
/// Longest time to open the pairs again.
const OPENING: Duration = Duration::from_secs(600);

/// Encoders, pairs, labels and the queue of jobs.
pub(crate) struct Batcher {
    pub(crate) models: Arc<ServedModels>,
    pub(crate) limits: Limits,
    captions: Arc<CaptionStore>,
    snapshot: RwLock<Arc<Snapshot>>,
    /// One reload at a time.
    reloading: tokio::sync::Mutex<()>,
    queue: Arc<Queue<Job>>,
    large: LargeImages,
    /// Jobs that wait or run.
    slots: Arc<Semaphore>,
    labels: Arc<LabelCache>,
    /// Opens the pairs, which may be on a disk that does not answer: once at a time.
    opening: BlockingPool,
    metrics: Arc<Metrics>,
}

impl Batcher {
    /// Takes the opened pairs and tries every encoder, which loads its weights.
    pub(crate) fn open(
        models: ServedModels,
        pairs: Option<Arc<OpenPairs>>,
        limits: &Limits,
        metrics: Arc<Metrics>,
    ) -> Result<Arc<Self>, ServerError> {
        let models = Arc::new(models);
        // Without a cache folder, captions of a remote index are kept for this run only.
        let captions = Arc::new(CaptionStore::on_disk().unwrap_or_default());
        let snapshot = Snapshot::new(&models, captions.clone(), pairs, 1)?;
        models.check_calibration(&snapshot.pipeline)?;
        // Towers load when first used: before the first request.
        for encoder in models.encoders() {
            let blank = encoder.prepare(&RgbImage::new(WARM_UP_SIDE, WARM_UP_SIDE));
            let (image, text) =
                rayon::join(|| encoder.embed_images(&[blank]), || encoder.embed_texts(&["a photo"]));
            image?;
            text?;
        }
        Ok(Arc::new(Self {
            limits: limits.clone(),
            captions,
            snapshot: RwLock::new(Arc::new(snapshot)),
            reloading: tokio::sync::Mutex::new(()),
            queue: Arc::new(Queue::new()),
            large: LargeImages::new(limits),
            slots: Arc::new(Semaphore::new(limits.max_batch + limits.queue)),
            labels: LabelCache::new(models.clone(), limits, metrics.clone()),
            opening: BlockingPool::new(1),
            metrics,
            models,
        }))
    }

    /// Starts the thread that answers, which is returned, and those that decode large images. They end after [`Batcher::close`], when
    /// everything is answered.
    pub(crate) fn start(self: &Arc<Self>) -> Result<JoinHandle<()>, ServerError> {
        let start = |name: &str, work: fn(&Self)| {
            let batcher = self.clone();
            let thread = std::thread::Builder::new().name(name.to_owned());
            thread
                .spawn(move || work(&batcher))
                .map_err(|source| ServerError::Io { action: "start the batcher's threads", source })
        };
        for _ in 0..LargeImages::threads() {
            start("xmore-decoder", |batcher| batcher.large.work(&batcher.models, &batcher.queue))?;
        }
        start("xmore-encoder", Self::work)
    }

    fn work(&self) {
        let run = BatchRun { models: &self.models, max_pixels: self.limits.pixels };
        while let Some(batch) = self.queue.take(self.limits.max_batch) {
            let now = Instant::now();
            // Requests whose caller has disconnected are dropped; those that are too late are answered so.
            let (late, rest): (Vec<Job>, Vec<Job>) =
                batch.into_iter().filter(|job| !job.reply.is_closed()).partition(|job| job.deadline < now);
            late.into_iter().for_each(|job| job.answer(Err(ApiError::timeout())));
            if rest.is_empty() {
                continue;
            }
            let (count, oldest) = (rest.len(), rest.iter().map(|job| job.queued).min());
            // A panic in one batch does not end the server: its jobs are dropped, and so answered.
            match catch_unwind(AssertUnwindSafe(|| run.run(rest))) {
                Ok((times, large)) => {
                    large.into_iter().for_each(|job| self.large.push(job));
                    let queue = oldest.map(|oldest| now.saturating_duration_since(oldest));
                    self.metrics.batch(count, &Times { queue: queue.unwrap_or_default(), ..times });
                }
                Err(_) => tracing::error!("a batch of {count} inputs panicked; they are answered 500"),
            }
        }
    }

    /// Takes no more jobs; those that wait are still answered.
    pub(crate) fn close(&self) {
        self.large.close();
        self.queue.close();
    }

    /// The pairs as they are now.
    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Jobs that wait for a batch.
    pub(crate) fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// Answers several inputs, in their order. As many as a batch takes are queued together; where the queue is too full even for those, nothing is begun.
    ///
    /// # Errors
    /// [`ErrorCode::Overloaded`]; [`ErrorCode::Timeout`]. What is wrong with one input is in its place.
    pub(crate) async fn answer(
        &self,
        inputs: Vec<Input>,
        task: &Task,
        deadline: Instant,
    ) -> Result<Vec<Result<Done, ApiError>>, ApiError> {
        let most = self.limits.max_batch.min(self.limits.queue.max(1));
        let mut answers = Vec::with_capacity(inputs.len());
        let mut inputs = inputs.into_iter();
        while inputs.len() > 0 {
            let chunk: Vec<Input> = inputs.by_ref().take(most).collect();
            let slots = self.slots_for(chunk.len(), answers.is_empty(), deadline).await?;
            let replies = self.submit(chunk, slots, task, deadline);
            for reply in replies {
                let answer =
                    tokio::time::timeout_at(deadline.into(), reply).await.map_err(|_| ApiError::timeout())?;
                answers.push(answer.unwrap_or_else(|_| Err(ApiError::internal(&"a job was dropped"))));
            }
        }
        Ok(answers)
    }

    async fn slots_for(
        &self,
        count: usize,
        first: bool,
        deadline: Instant,
    ) -> Result<OwnedSemaphorePermit, ApiError> {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        let slots = self.slots.clone();
        if first {
            return slots.try_acquire_many_owned(count).map_err(|error| match error {
                TryAcquireError::NoPermits => ApiError::overloaded(),
                TryAcquireError::Closed => shutting_down(),
            });
        }
        // Part of the request is answered already: the rest waits for its slots.
        let slots = tokio::time::timeout_at(deadline.into(), slots.acquire_many_owned(count)).await;
        slots.map_err(|_| ApiError::timeout())?.map_err(|_| shutting_down())
    }

    fn submit(
        &self,
        inputs: Vec<Input>,
        mut slots: OwnedSemaphorePermit,
        task: &Task,
        deadline: Instant,
    ) -> Vec<oneshot::Receiver<Result<Done, ApiError>>> {
        let queued = Instant::now();
        let (jobs, replies): (Vec<_>, Vec<_>) = inputs
            .into_iter()
            .map_while(|input| {
                let (reply, receiver) = oneshot::channel();
                let slot = slots.split(1)?;
                let job = Job {
                    input,
                    task: task.clone(),
                    reply,
                    queued,
                    deadline,
                    decoded_in: Duration::ZERO,
                    _slot: slot,
                };
                Some((job, receiver))
            })
            .unzip();
        self.queue.push(jobs);
        replies
    }

    /// The labels' classifier over the pairs as they are now: from the cache, or made in the caller's turn. It has no kernel where a remote
    /// index does not answer and zero-shot answers are allowed.
    ///
    /// # Errors
    /// Those of embedding and asking the pairs; [`ErrorCode::Overloaded`] where too many label sets wait to be embedded;
    /// [`ErrorCode::Timeout`], after which the work continues for callers that ask again.
    pub(crate) async fn prepare(
        self: &Arc<Self>,
        spec: LabelSpec,
        caller: Caller,
        deadline: Instant,
    ) -> Result<Prepared, ApiError> {
        let snapshot = self.snapshot();
        let get = |spec| {
            let prepared = self.labels.get(spec, snapshot.clone(), caller);
            tokio::time::timeout_at(deadline.into(), prepared)
        };
        let plain = LabelSpec { kind: Kind::Plain, ..spec.clone() };
        let tolerated = |source: &PairsSource| source.if_unreachable == IfUnreachable::ZeroShot;
        let without = self.models.pairs.as_ref().is_some_and(tolerated);
        let prepared = match get(spec).await {
            Ok(Err(error)) if error.code == ErrorCode::IndexUnreachable && without => get(plain).await,
            other => other,
        };
        prepared.map_err(|_| {
            ApiError::new(ErrorCode::Timeout, "these labels are still being embedded; ask again later")
        })?
    }

    /// Opens the pairs again. Requests that have begun keep the old ones; label sets in use are made ready for the new ones first.
    ///
    /// # Errors
    /// Those of opening; the old pairs stay.
    pub(crate) async fn reload(self: &Arc<Self>) -> Result<Arc<Snapshot>, ServerError> {
        let _one = self.reloading.lock().await;
        let generation = self.snapshot().generation + 1;
        let (models, captions) = (self.models.clone(), self.captions.clone());
        let opened = self.opening.run(Instant::now() + OPENING, move || {
            let opened = models.pairs.as_ref().map(PairsSource::open).transpose()?;
            Snapshot::new(&models, captions, opened.and_then(pairs_of), generation)
        });
        let opened = opened.await.unwrap_or_else(|error| {
            Err(ServerError::Io { action: "open the pairs", source: std::io::Error::other(error.message) })
        });
        let snapshot = Arc::new(opened?);
        snapshot.log_other_orientation();
        if let Err(error) = self.models.check_calibration(&snapshot.pipeline) {
            tracing::warn!("{error}; its scores are not calibrated any more");
        }
        self.labels.renew(&snapshot).await;
        *self.snapshot.write().unwrap_or_else(PoisonError::into_inner) = snapshot.clone();
        self.labels.remove_before(generation);
        Ok(snapshot)
    }
}

/// The pairs, or none where the absence of a remote index is tolerated, which is logged.
fn pairs_of(opened: Opened) -> Option<Arc<OpenPairs>> {
    if let Some(error) = opened.unreachable {
        tracing::warn!("{error}; answering zero-shot until a reload");
    }
    opened.pairs
}

/// That the server is stopping.
pub(crate) fn shutting_down() -> ApiError {
    ApiError::new(ErrorCode::ShuttingDown, "the server is stopping; ask another one, or later")
}
