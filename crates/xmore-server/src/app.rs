//! What all requests share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use tokio::sync::Semaphore;
use xmore::OpenPairs;

use crate::batcher::Batcher;
use crate::blocking::BlockingPool;
use crate::body::Budget;
use crate::error::ServerError;
use crate::fetch::Fetcher;
use crate::label_sets::LabelSets;
use crate::metrics::Metrics;
use crate::options::ServeOptions;
use crate::served_models::ServedModels;
use crate::snapshot::Snapshot;
use crate::thumbnails::Thumbnails;

/// The state of every handler.
pub(crate) type Shared = Arc<App>;

/// Label sets that are read or written at the same time.
const FILES: usize = 4;
/// Requests to open the pairs again that may be queued.
const RELOADS: usize = 8;

pub(crate) struct App {
    pub(crate) batcher: Arc<Batcher>,
    pub(crate) options: ServeOptions,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) budget: Budget,
    pub(crate) label_sets: LabelSets,
    /// Requests to open the pairs again that run or wait.
    pub(crate) reloads: Arc<Semaphore>,
    /// Reads and writes label sets.
    pub(crate) files: BlockingPool,
    pub(crate) thumbnails: Arc<Thumbnails>,
    /// Where fetching is switched on.
    pub(crate) fetcher: Option<Fetcher>,
    stopping: AtomicBool,
    /// Requests that were admitted and are not answered yet.
    admitted: Arc<AtomicUsize>,
}

impl App {
    /// Opens everything.
    pub(crate) fn open(
        models: ServedModels,
        pairs: Option<Arc<OpenPairs>>,
        options: ServeOptions,
    ) -> Result<Shared, ServerError> {
        let metrics = Arc::new(Metrics::new());
        let limits = &options.limits;
        Ok(Arc::new(Self {
            batcher: Batcher::open(models, pairs, limits, metrics.clone())?,
            budget: Budget::new(limits.buffered_bytes),
            label_sets: LabelSets::open(
                options.label_sets.as_deref(),
                options.save_label_sets,
                limits.labels,
            )?,
            reloads: Arc::new(Semaphore::new(RELOADS)),
            files: BlockingPool::new(FILES),
            thumbnails: Arc::new(Thumbnails::new(limits)),
            fetcher: options.fetch_urls.then(|| Fetcher::new(limits)),
            metrics,
            options,
            stopping: AtomicBool::new(false),
            admitted: Arc::default(),
        }))
    }

    /// Opens the pairs and reads the label sets again.
    ///
    /// # Errors
    /// Those of [`Batcher::reload`] and [`LabelSets::reload`]; what could not be read stays as it was.
    pub(crate) async fn reload(self: &Arc<Self>) -> Result<Arc<Snapshot>, ServerError> {
        let app = self.clone();
        let read = self.files.run(self.deadline(), move || app.label_sets.reload()).await;
        read.unwrap_or_else(|error| {
            Err(ServerError::Io {
                action: "read the label sets",
                source: std::io::Error::other(error.message),
            })
        })?;
        self.batcher.reload().await
    }

    /// When a request that has been received now must be answered.
    pub(crate) fn deadline(&self) -> Instant {
        Instant::now() + self.options.limits.timeout
    }

    /// From now on new requests are refused.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    /// A request was admitted; it is answered when the guard is dropped.
    pub(crate) fn begin_admitted(&self) -> Admitted {
        self.admitted.fetch_add(1, Ordering::SeqCst);
        Admitted(self.admitted.clone())
    }

    /// Requests that were admitted and are not answered yet.
    pub(crate) fn admitted(&self) -> usize {
        self.admitted.load(Ordering::SeqCst)
    }
}

/// A request that a stop waits for.
pub(crate) struct Admitted(Arc<AtomicUsize>);

impl Drop for Admitted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}
