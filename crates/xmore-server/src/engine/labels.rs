//! Label sets that are embedded already: each is made once, by one request for all that wait, and the least recently used go first.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lru::LruCache;
use tokio::sync::{OnceCell, Semaphore};
use xmore::{Classifier, ClassifierOptions, Labels, Method, Template, XmoreError};

use crate::error::ApiError;
use crate::metrics::Metrics;
use crate::options::Backend;
use crate::snapshot::Snapshot;

/// Label sets that may wait to be embedded.
const MOST_WAITING: usize = 16;

/// Bytes of a string beside its characters, and of a set beside its strings.
const PER_TEXT: usize = 64;
const PER_SET: usize = 1024;

/// What a classifier is made of.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct LabelSpec {
    /// Different labels, two at least.
    pub(crate) labels: Arc<[String]>,
    /// Prompts.
    pub(crate) templates: Arc<[String]>,
    /// The method it must know.
    pub(crate) kind: Kind,
}

/// What must be made beside the labels' embeddings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    /// Nothing.
    Plain,
    /// Averaged templates.
    Templates,
    /// What the pairs know of the labels.
    Calibrated,
}

impl From<Method> for Kind {
    fn from(method: Method) -> Self {
        match method {
            Method::Templates => Self::Templates,
            Method::Calibrated => Self::Calibrated,
            Method::ZeroShot | Method::Captions | Method::Equal | Method::Xmore => Self::Plain,
        }
    }
}

/// A classifier, and the pairs that it is calibrated with.
#[derive(Clone)]
pub(crate) struct Prepared {
    pub(crate) classifier: Arc<Classifier<'static>>,
    pub(crate) snapshot: Arc<Snapshot>,
}

type Cell = Arc<OnceCell<Prepared>>;

/// A label set under the pairs of one opening; of 0 where pairs do not matter.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    spec: LabelSpec,
    generation: u64,
}

pub(super) struct LabelCache {
    cells: Mutex<LruCache<Key, (Cell, usize)>>,
    most_bytes: usize,
    /// One set is embedded at a time: it uses every core, beside the passes.
    turn: Arc<Semaphore>,
    /// Sets that wait or are embedded.
    room: Arc<Semaphore>,
}

impl LabelCache {
    pub(super) fn new(most_bytes: usize) -> Self {
        Self {
            cells: Mutex::new(LruCache::unbounded()),
            most_bytes,
            turn: Arc::new(Semaphore::new(1)),
            room: Arc::new(Semaphore::new(MOST_WAITING)),
        }
    }

    /// The set's classifier; made if need be, and that to its end even if nobody waits any more.
    pub(super) async fn get(
        &self,
        backend: &Arc<Backend>,
        spec: LabelSpec,
        snapshot: Arc<Snapshot>,
        metrics: &Arc<Metrics>,
    ) -> Result<Prepared, ApiError> {
        let cell = self.cell(backend, &spec, snapshot.generation);
        metrics.label_set(cell.initialized());
        if let Some(prepared) = cell.get() {
            // Only a calibrated one belongs to certain pairs.
            let snapshot = if spec.kind == Kind::Calibrated { prepared.snapshot.clone() } else { snapshot };
            return Ok(Prepared { classifier: prepared.classifier.clone(), snapshot });
        }
        let plain = (spec.kind == Kind::Calibrated).then(|| {
            let plain = LabelSpec { kind: Kind::Plain, ..spec.clone() };
            self.cell(backend, &plain, snapshot.generation)
        });
        let work = Work {
            backend: backend.clone(),
            spec,
            snapshot,
            plain,
            turn: self.turn.clone(),
            room: self.room.clone(),
        };
        let made = tokio::spawn(async move { cell.get_or_try_init(|| work.run()).await.cloned() });
        made.await.unwrap_or_else(|error| Err(ApiError::internal(&error)))
    }

    /// Makes the calibrated sets ready for other pairs.
    pub(super) async fn renew(
        &self,
        backend: &Arc<Backend>,
        snapshot: &Arc<Snapshot>,
        metrics: &Arc<Metrics>,
    ) {
        let known: Vec<LabelSpec> = {
            let cells = self.lock();
            let calibrated = cells.iter().filter(|(key, _)| key.spec.kind == Kind::Calibrated);
            calibrated.map(|(key, _)| key.spec.clone()).take(MOST_WAITING).collect()
        };
        for spec in known {
            if let Err(error) = self.get(backend, spec, snapshot.clone(), metrics).await {
                tracing::warn!("a label set was not made ready for the pairs now opened: {}", error.message);
            }
        }
    }

    /// Drops what belongs to pairs that are no longer served.
    pub(super) fn forget_before(&self, generation: u64) {
        let mut cells = self.lock();
        let old: Vec<Key> = cells
            .iter()
            .filter(|(key, _)| key.generation != 0 && key.generation < generation)
            .map(|(key, _)| key.clone())
            .collect();
        for key in old {
            cells.pop(&key);
        }
    }

    fn cell(&self, backend: &Backend, spec: &LabelSpec, generation: u64) -> Cell {
        let generation = if spec.kind == Kind::Calibrated { generation } else { 0 };
        let key = Key { spec: spec.clone(), generation };
        let mut cells = self.lock();
        if let Some((cell, _)) = cells.get(&key) {
            return cell.clone();
        }
        let cell = Cell::default();
        // Templates are part of the key.
        let text: usize = spec.labels.iter().chain(&*spec.templates).map(|text| text.len() + PER_TEXT).sum();
        cells.put(
            key,
            (
                cell.clone(),
                PER_SET + text + spec.labels.len() * bytes_a_label(backend.model.dim(), spec.kind),
            ),
        );
        let mut bytes: usize = cells.iter().map(|(_, (_, bytes))| bytes).sum();
        while bytes > self.most_bytes && cells.len() > 1 {
            bytes -= cells.pop_lru().map_or(0, |(_, (_, bytes))| bytes);
        }
        cell
    }

    fn lock(&self) -> MutexGuard<'_, LruCache<Key, (Cell, usize)>> {
        self.cells.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Embeddings in f32; the calibrated method's own copies in f64.
fn bytes_a_label(dim: usize, kind: Kind) -> usize {
    match kind {
        Kind::Plain => 4 * dim,
        Kind::Templates => 8 * dim,
        Kind::Calibrated => 16 * dim,
    }
}

/// Making one set.
struct Work {
    backend: Arc<Backend>,
    spec: LabelSpec,
    snapshot: Arc<Snapshot>,
    /// Where its plain form is, or will be.
    plain: Option<Cell>,
    turn: Arc<Semaphore>,
    room: Arc<Semaphore>,
}

impl Work {
    async fn run(self) -> Result<Prepared, ApiError> {
        let _place = self.room.clone().try_acquire_owned().map_err(|_| ApiError::overloaded())?;
        let _turn = self.turn.clone().acquire_owned().await.map_err(|e| ApiError::internal(&e))?;
        let known = self.plain.as_ref().and_then(|cell| cell.get()).map(|plain| plain.classifier.clone());
        let snapshot = self.snapshot.clone();
        let plain = self.plain.clone();
        let made = tokio::task::spawn_blocking(move || self.make(known)).await;
        let (classifier, of_plain) = made.map_err(|error| ApiError::internal(&error))??;
        if let (Some(cell), Some(classifier)) = (plain, of_plain) {
            // Another may have been quicker; the two are equal.
            let _ = cell.set(Prepared { classifier, snapshot: snapshot.clone() });
        }
        Ok(Prepared { classifier, snapshot })
    }

    /// The classifier, and its plain form if that is new.
    #[allow(clippy::type_complexity, reason = "used once")]
    fn make(
        &self,
        known: Option<Arc<Classifier<'static>>>,
    ) -> Result<(Arc<Classifier<'static>>, Option<Arc<Classifier<'static>>>), XmoreError> {
        let plain = match known {
            Some(plain) => plain,
            None => {
                let options = ClassifierOptions {
                    templates: self.spec.templates.iter().map(Template::new).collect::<Result<_, _>>()?,
                    with_templates_method: self.spec.kind == Kind::Templates,
                };
                let labels = Labels::new(self.spec.labels.iter())?;
                Arc::new(Classifier::new(&self.backend.model, labels, None, &options)?)
            }
        };
        match (self.spec.kind, self.snapshot.retrieval(self.backend.retrieval)?) {
            (Kind::Calibrated, Some(retrieval)) => {
                let calibrated = plain.over(retrieval).calibrate()?.detached();
                Ok((Arc::new(calibrated), Some(plain)))
            }
            _ => Ok((plain, None)),
        }
    }
}
