//! `GET /v1/info`: what is served, and how much of anything is taken.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;
use xmore::{Encoder, Memory, Method};
use xmore_memory::retriever::Location;

use super::classify::default_method;
use super::label_sets::{ListedSet, listed};
use crate::api_error::ApiError;
use crate::app::Shared;

/// What a server serves and takes.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Info {
    /// Of xmore.
    version: &'static str,
    /// Classifies.
    model: ModelInfo,
    /// Searches images, if another does.
    search_model: Option<ModelInfo>,
    /// Chooses captions, if another does.
    rerank_model: Option<ModelInfo>,
    /// Null where there is none.
    memory: Option<MemoryInfo>,
    /// Methods that are possible here.
    methods: Vec<&'static str>,
    /// What each of them does.
    method_summaries: BTreeMap<&'static str, &'static str>,
    /// The one where none is named.
    default_method: &'static str,
    /// Unless a request says otherwise.
    retrieval: RetrievalInfo,
    /// Prompts unless a request says otherwise.
    templates: Vec<String>,
    /// Saved label sets.
    label_sets: Vec<ListedSet>,
    /// How much is taken.
    limits: LimitsInfo,
    /// What is switched on.
    features: Features,
}

/// A model.
#[derive(Debug, Serialize, ToSchema)]
struct ModelInfo {
    name: String,
    /// Identifies it among other models.
    fingerprint: String,
    /// Length of its embeddings.
    dim: usize,
    /// Side of the square that its image tower takes, in pixels; null where it does not tell.
    image_size: Option<u32>,
    /// exp(logit_scale).
    logit_scale: f32,
    /// What is added to scaled cosines before a sigmoid; 0 where the model was not trained with one.
    logit_bias: f32,
    /// What it computes on: `cpu`, or a GPU's name; null where it does not tell.
    device: Option<String>,
}

/// The pairs.
#[derive(Debug, Serialize, ToSchema)]
struct MemoryInfo {
    /// A folder or a remote index's URL.
    location: String,
    /// As far as is known.
    pairs: Option<u64>,
    /// Whether they are on this machine: searches, thumbnails and ids need that.
    local: bool,
    /// What searches them: `cpu`, or a GPU's name; null for a remote index.
    device: Option<String>,
    /// Counts openings.
    generation: u64,
    /// When they were opened, in seconds since 1970.
    opened: u64,
}

/// How captions are retrieved.
#[derive(Debug, Serialize, ToSchema)]
struct RetrievalInfo {
    k: usize,
    neighbors: usize,
}

/// What is taken.
#[derive(Debug, Serialize, ToSchema)]
struct LimitsInfo {
    /// Images and texts of one batch.
    max_batch: usize,
    /// Images and texts that may wait for the next one.
    queue: usize,
    body_bytes: usize,
    pixels: u64,
    /// Bytes that all images being decoded may take together.
    decode_bytes: u64,
    labels: usize,
    /// Labels times prompts.
    prompts: usize,
    images_per_request: usize,
    /// Bytes of one text, label or prompt.
    text_bytes: usize,
    timeout_seconds: u64,
}

/// What is switched on.
#[derive(Debug, Serialize, ToSchema)]
struct Features {
    fetch_urls: bool,
    save_label_sets: bool,
}

/// What is served, and how much of anything is taken.
#[utoipa::path(get, path = "/v1/info", tag = "xmore", responses((status = 200, body = Info)))]
pub(crate) async fn info(State(app): State<Shared>) -> Result<Json<Info>, ApiError> {
    let (models, limits) = (&app.batcher.models, &app.options.limits);
    let snapshot = app.batcher.snapshot();
    let model = |encoder: &Arc<dyn Encoder>| ModelInfo {
        name: encoder.identity().to_string(),
        fingerprint: encoder.identity().fingerprint.clone(),
        dim: encoder.dim(),
        image_size: encoder.image_size(),
        logit_scale: encoder.logit_scale(),
        logit_bias: encoder.logit_bias(),
        device: encoder.device().map(str::to_owned),
    };
    let memory = models.pairs.as_ref().zip(snapshot.pairs()).map(|(source, pairs)| MemoryInfo {
        location: Location::shown(&source.location),
        pairs: pairs.memory().map(Memory::len),
        local: pairs.memory().is_some(),
        device: pairs.memory().map(|_| pairs.gpu().unwrap_or("cpu").to_owned()),
        generation: snapshot.generation,
        opened: snapshot.opened.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_secs()),
    });
    let possible = |method: &Method| match method {
        Method::Kernel => snapshot.allows_kernel(),
        method => !method.needs_memory() || memory.is_some(),
    };
    Ok(Json(Info {
        version: env!("CARGO_PKG_VERSION"),
        model: model(&models.classify),
        search_model: models.search.as_ref().map(model),
        rerank_model: models.rerank.as_ref().map(model),
        methods: Method::ALL.iter().filter(|method| possible(method)).map(|method| method.name()).collect(),
        method_summaries: Method::ALL
            .iter()
            .filter(|method| possible(method))
            .map(|method| (method.name(), method.summary()))
            .collect(),
        default_method: default_method(&snapshot).name(),
        retrieval: RetrievalInfo { k: models.retrieval.k, neighbors: models.retrieval.neighbors },
        templates: models.templates.iter().map(ToString::to_string).collect(),
        label_sets: listed(&app)?,
        limits: LimitsInfo {
            max_batch: limits.max_batch,
            queue: limits.queue,
            body_bytes: limits.body_bytes,
            pixels: limits.pixels,
            decode_bytes: xmore_files::image::decode_memory(),
            labels: limits.labels,
            prompts: limits.prompts,
            images_per_request: limits.inputs,
            text_bytes: limits.text_bytes,
            timeout_seconds: limits.timeout.as_secs(),
        },
        features: Features { fetch_urls: app.fetcher.is_some(), save_label_sets: app.label_sets.may_save() },
        memory,
    }))
}
