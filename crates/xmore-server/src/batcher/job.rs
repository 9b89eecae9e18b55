//! One image or text on its way through the encoder, and what is wanted of it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Bytes;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use xmore::{Classifier, Evidence, RetrievalOptions};
use xmore_clip::Pixels;
use xmore_memory::Hit;
use xmore_memory::store::Modality;

use crate::error::ApiError;
use crate::snapshot::Snapshot;

/// What is encoded, or was before.
#[derive(Clone, Debug)]
pub(crate) enum Input {
    /// An image file's bytes.
    Image(Bytes),
    /// An image that was decoded before, for each distinct model that needs it.
    Decoded(Vec<Option<Pixels>>),
    /// A text.
    Text(String),
    /// Embeddings by each distinct model.
    Rows(Vec<Vec<f32>>),
    /// An embedding by the model that a [`Task::Search`] searches with.
    Row(Vec<f32>),
}

/// What is wanted.
#[derive(Clone)]
pub(crate) enum Task {
    /// The classifying model's embedding.
    Embed,
    /// Evidence on an image.
    Classify {
        /// Labels, without pairs.
        classifier: Arc<Classifier>,
        /// The pairs that the kernel of the classifier was prepared with.
        snapshot: Arc<Snapshot>,
        /// How captions are retrieved.
        options: RetrievalOptions,
    },
    /// The nearest pairs.
    Search {
        /// The pairs.
        snapshot: Arc<Snapshot>,
        /// Whether their images or their captions are searched.
        modality: Modality,
        /// How many.
        n: usize,
    },
}

/// A place in the queue: one of those that bound it.
pub(super) type Slot = OwnedSemaphorePermit;

/// An input, what is wanted of it, and who waits.
pub(super) struct Job {
    pub(super) input: Input,
    pub(super) task: Task,
    pub(super) reply: oneshot::Sender<Result<Done, ApiError>>,
    pub(super) queued: Instant,
    pub(super) deadline: Instant,
    /// How long its image took, where it was decoded before the pass.
    pub(super) decoded_in: Duration,
    /// Given back when the job is dropped.
    pub(super) _slot: Slot,
}

impl Job {
    pub(super) fn answer(self, result: Result<Done, ApiError>) {
        // The caller may have left.
        let _ = self.reply.send(result);
    }
}

/// What came of a job.
#[derive(Debug)]
pub(crate) struct Done {
    /// What was wanted.
    pub(crate) output: Output,
    /// Unit embeddings by each distinct model that was needed, one behind another.
    pub(crate) embedding: Arc<[f32]>,
    /// Whether a text was cut to the model's context.
    pub(crate) truncated: bool,
    /// How long it took.
    pub(crate) times: Times,
}

/// By task.
#[derive(Debug)]
pub(crate) enum Output {
    /// The embedding alone.
    Embedding,
    /// For [`Task::Classify`].
    Evidence(Box<Evidence>),
    /// For [`Task::Search`].
    Hits(Vec<Hit>),
}

/// How long a batch's stages took, and the wait before.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Times {
    pub(crate) queue: Duration,
    pub(crate) decode: Duration,
    pub(crate) encode: Duration,
    pub(crate) search: Duration,
    pub(crate) ensemble: Duration,
}

impl Times {
    /// The larger of each.
    pub(crate) fn max(self, other: Self) -> Self {
        Self {
            queue: self.queue.max(other.queue),
            decode: self.decode.max(other.decode),
            encode: self.encode.max(other.encode),
            search: self.search.max(other.search),
            ensemble: self.ensemble.max(other.ensemble),
        }
    }
}
