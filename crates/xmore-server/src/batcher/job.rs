//! One image or text on its way through the encoder, and what is wanted of it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Bytes;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use xmore::{Classifier, Evidence, RetrievalOptions};
use xmore_clip::Pixels;
use xmore_memory::Hit;
use xmore_memory::store::Modality;

use crate::api_error::ApiError;
use crate::snapshot::Snapshot;
use crate::times::Times;

/// What is encoded, or was before.
#[derive(Clone, Debug)]
pub(crate) enum Input {
    /// An image file's bytes.
    Image(Bytes),
    /// An image that was decoded before, for each different encoder that needs it.
    Decoded(Vec<Option<Pixels>>),
    /// A text.
    Text(String),
    /// Embeddings by each different encoder.
    Rows(Vec<Vec<f32>>),
    /// An embedding by the encoder that a [`Task::Search`] searches with.
    Row(Vec<f32>),
}

/// What is wanted.
#[derive(Clone)]
pub(crate) enum Task {
    /// The classifying encoder's embedding.
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

impl Task {
    /// Whether it needs the embedding by one of the different encoders.
    pub(super) fn needs(&self, encoder: usize) -> bool {
        match self {
            Self::Embed => encoder == 0,
            Self::Classify { .. } => true,
            Self::Search { snapshot, modality, .. } => {
                snapshot.embedding_set(*modality).is_ok_and(|(_, searcher)| searcher == encoder)
            }
        }
    }
}

/// A place in the queue: one of those that bound it.
pub(super) type Slot = OwnedSemaphorePermit;

/// An input, what is wanted of it, and where its result is sent.
pub(super) struct Job {
    pub(super) input: Input,
    pub(super) task: Task,
    pub(super) reply: oneshot::Sender<Result<Done, ApiError>>,
    pub(super) queued: Instant,
    pub(super) deadline: Instant,
    /// How long its image took, where it was decoded before the batch.
    pub(super) decoded_in: Duration,
    /// Released when the job is dropped.
    pub(super) _slot: Slot,
}

impl Job {
    pub(super) fn answer(self, result: Result<Done, ApiError>) {
        // The caller may have closed its connection.
        let _ = self.reply.send(result);
    }
}

/// What came of a job.
#[derive(Debug)]
pub(crate) struct Done {
    /// What was wanted.
    pub(crate) output: Output,
    /// Unit embeddings by each different encoder that was needed, one after another.
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
