//! Label sets that are embedded, and the embedding of new ones: each once for all that wait for it, callers in turn.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::watch;
use xmore::{Classifier, Labels, Method, Template};

use super::fair_queue::{FairQueue, QueueLimits};
use super::label_cache::SharedCache;
use crate::api_error::{ApiError, ErrorCode};
use crate::caller::Caller;
use crate::metrics::Metrics;
use crate::options::Limits;
use crate::served_models::ServedModels;
use crate::snapshot::Snapshot;

/// Label sets that may wait to be embedded, of one caller and of all.
const WAITING_PER_CALLER: usize = 16;
const WAITING: usize = 64;
/// Kernel label sets, those used last, that are made ready for other pairs before these are served.
const RENEWED: usize = 16;

/// Bytes of a string beside its characters, and of a set beside its strings.
const PER_TEXT: usize = 64;
const PER_SET: usize = 1024;

/// What a classifier is made from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct LabelSpec {
    /// Different labels, two at least, with their own prompts and further names.
    pub(crate) labels: Arc<Labels>,
    /// Prompts.
    pub(crate) templates: Arc<[String]>,
    /// What it is prepared for.
    pub(crate) kind: Kind,
}

/// What must be made beside the labels' embeddings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    /// Nothing.
    Plain,
    /// Averaged templates.
    Templates,
    /// The kernel over the pairs.
    Kernel,
}

impl From<Method> for Kind {
    fn from(method: Method) -> Self {
        match method {
            Method::Templates => Self::Templates,
            Method::Kernel => Self::Kernel,
            Method::ZeroShot | Method::Captions | Method::Equal | Method::Xmore => Self::Plain,
        }
    }
}

/// A classifier, and the pairs that its kernel was prepared with.
#[derive(Clone)]
pub(crate) struct Prepared {
    pub(crate) classifier: Arc<Classifier>,
    pub(crate) snapshot: Arc<Snapshot>,
}

/// A label set under the pairs of one opening; of 0 where pairs do not matter.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    spec: LabelSpec,
    generation: u64,
}

impl Key {
    fn new(spec: LabelSpec, generation: u64) -> Self {
        let generation = if spec.kind == Kind::Kernel { generation } else { 0 };
        Self { spec, generation }
    }

    /// Bytes of the labels, prompts and further names themselves.
    fn text_bytes(&self) -> usize {
        let labels = &self.spec.labels;
        let own = labels.own_prompts().iter().chain(labels.synonyms()).flatten();
        let texts = labels.names().iter().chain(own).chain(&*self.spec.templates);
        PER_SET + texts.map(|text| text.len() + PER_TEXT).sum::<usize>()
    }
}

/// A classifier that is kept, and the pairs that its kernel was prepared with, if it is.
#[derive(Clone)]
struct Ready {
    classifier: Arc<Classifier>,
    pairs: Option<Arc<Snapshot>>,
}

impl Ready {
    /// One without a kernel goes with any pairs.
    fn with(self, snapshot: Arc<Snapshot>) -> Prepared {
        Prepared { classifier: self.classifier, snapshot: self.pairs.unwrap_or(snapshot) }
    }
}

/// The result of making a set; none while it is being made.
type Made = Option<Result<Ready, ApiError>>;

pub(super) struct LabelCache {
    models: Arc<ServedModels>,
    metrics: Arc<Metrics>,
    state: Mutex<State>,
}

struct State {
    ready: SharedCache<Key, Caller, Ready>,
    /// Sets that wait to be made or are being made.
    making: HashMap<Key, watch::Sender<Made>>,
    waiting: FairQueue<Caller, Work>,
    /// One set is made at a time: it uses every core, beside the batches.
    is_making: bool,
}

/// A set to be made.
struct Work {
    key: Key,
    snapshot: Arc<Snapshot>,
    caller: Caller,
}

impl LabelCache {
    pub(super) fn new(models: Arc<ServedModels>, limits: &Limits, metrics: Arc<Metrics>) -> Arc<Self> {
        let waiting =
            QueueLimits { per_caller: WAITING_PER_CALLER, items: WAITING, bytes: limits.buffered_bytes };
        let state = State {
            ready: SharedCache::new(limits.label_cache_bytes),
            making: HashMap::new(),
            waiting: FairQueue::new(waiting),
            is_making: false,
        };
        Arc::new(Self { models, metrics, state: Mutex::new(state) })
    }

    /// The set's classifier. A ready one is returned at once, whatever else waits. Another is made in its caller's turn, once for all that
    /// wait for it, even if all of them have disconnected.
    ///
    /// # Errors
    /// Those of embedding and asking the pairs; [`crate::api_error::ErrorCode::Overloaded`] where too many wait already.
    pub(super) async fn get(
        self: &Arc<Self>,
        spec: LabelSpec,
        snapshot: Arc<Snapshot>,
        caller: Caller,
    ) -> Result<Prepared, ApiError> {
        let key = Key::new(spec, snapshot.generation);
        let mut made = {
            let mut state = self.lock();
            let ready = state.ready.get(&key, caller, Instant::now()).cloned();
            self.metrics.label_set(ready.is_some());
            if let Some(ready) = ready {
                return Ok(ready.with(snapshot));
            }
            match state.making.get(&key) {
                Some(made) => made.subscribe(),
                None => {
                    self.begin(&mut state, Work { key: key.clone(), snapshot: snapshot.clone(), caller })?
                }
            }
        };
        let made = made.wait_for(Option::is_some).await.map_err(|error| ApiError::internal(&error))?.clone();
        Ok(made.unwrap_or_else(|| Err(ApiError::overloaded()))?.with(snapshot))
    }

    /// Puts a set into the queue.
    fn begin(self: &Arc<Self>, state: &mut State, work: Work) -> Result<watch::Receiver<Made>, ApiError> {
        let (key, caller, bytes) = (work.key.clone(), work.caller, work.key.text_bytes());
        for displaced in state.waiting.push(caller, work, bytes).map_err(|_| too_many_sets())? {
            if let Some(made) = state.making.remove(&displaced.key) {
                made.send_replace(Some(Err(too_many_sets())));
            }
        }
        let (made, receiver) = watch::channel(None);
        state.making.insert(key, made);
        if !std::mem::replace(&mut state.is_making, true) {
            tokio::spawn(self.clone().make_all());
        }
        Ok(receiver)
    }

    /// Makes sets one after another until none waits.
    async fn make_all(self: Arc<Self>) {
        while let Some(work) = self.next() {
            let (key, caller) = (work.key.clone(), work.caller);
            let cache = self.clone();
            let made = tokio::task::spawn_blocking(move || cache.make(work)).await;
            let made = made.map_err(|error| ApiError::internal(&error)).and_then(|made| made);
            let mut state = self.lock();
            if let Ok(ready) = &made {
                self.keep(&mut state, key.clone(), ready.clone(), caller);
            }
            if let Some(waiting) = state.making.remove(&key) {
                waiting.send_replace(Some(made));
            }
        }
    }

    fn next(&self) -> Option<Work> {
        let mut state = self.lock();
        let next = state.waiting.pop();
        state.is_making = next.is_some();
        next
    }

    /// Makes one set, and keeps its plain form if that is new.
    fn make(&self, work: Work) -> Result<Ready, ApiError> {
        let Work { key, snapshot, caller } = work;
        let plain_key = Key::new(LabelSpec { kind: Kind::Plain, ..key.spec.clone() }, 0);
        let known = match key.spec.kind {
            Kind::Kernel => self.lock().ready.peek(&plain_key).cloned(),
            Kind::Plain | Kind::Templates => None,
        };
        let plain = match known {
            Some(plain) => plain.classifier,
            None => {
                let templates: Vec<_> =
                    key.spec.templates.iter().map(Template::new).collect::<Result<_, _>>()?;
                let methods: &[Method] = match key.spec.kind {
                    Kind::Templates => &[Method::Templates],
                    Kind::Plain | Kind::Kernel => &[],
                };
                let labels = Labels::clone(&key.spec.labels);
                Arc::new(Classifier::new(&*self.models.classify, labels, None, &templates, methods)?)
            }
        };
        match (key.spec.kind, snapshot.retrieval(self.models.retrieval)?) {
            (Kind::Kernel, Some(retrieval)) => {
                let with_kernel = Arc::new(plain.over(retrieval).prepare_kernel()?.without_pairs());
                let mut state = self.lock();
                if state.ready.peek(&plain_key).is_none() {
                    self.keep(&mut state, plain_key, Ready { classifier: plain, pairs: None }, caller);
                }
                drop(state);
                Ok(Ready { classifier: with_kernel, pairs: Some(snapshot) })
            }
            _ => Ok(Ready { classifier: plain, pairs: None }),
        }
    }

    fn keep(&self, state: &mut State, key: Key, ready: Ready, caller: Caller) {
        let each = bytes_a_label(self.models.classify.dim(), key.spec.kind);
        let bytes = key.text_bytes() + key.spec.labels.names().len() * each;
        // A request that is being answered holds its classifier.
        let is_held = |ready: &Ready| Arc::strong_count(&ready.classifier) > 1;
        state.ready.put(key, ready, bytes, caller, Instant::now(), is_held);
    }

    /// Makes the sets with a kernel ready for other pairs.
    pub(super) async fn renew(self: &Arc<Self>, snapshot: &Arc<Snapshot>) {
        let known: Vec<LabelSpec> = {
            let state = self.lock();
            let with_kernel = state.ready.keys().filter(|key| key.spec.kind == Kind::Kernel);
            with_kernel.map(|key| key.spec.clone()).take(RENEWED).collect()
        };
        for spec in known {
            if let Err(error) = self.get(spec, snapshot.clone(), Caller::Server).await {
                tracing::warn!("a label set was not made ready for the pairs now opened: {}", error.message);
            }
        }
    }

    /// Removes the sets of pairs that are no longer served.
    pub(super) fn remove_before(&self, generation: u64) {
        self.lock().ready.remove_if(|key| key.generation != 0 && key.generation < generation);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn too_many_sets() -> ApiError {
    ApiError::new(
        ErrorCode::Overloaded,
        "too many new label sets wait to be embedded; try again later, or use labels that were used before",
    )
}

/// Embeddings in f32; the kernel method's own copies in f64.
fn bytes_a_label(dim: usize, kind: Kind) -> usize {
    match kind {
        Kind::Plain => 4 * dim,
        Kind::Templates => 8 * dim,
        Kind::Kernel => 16 * dim,
    }
}
