//! `POST /v1/retrieve`: the pairs nearest to images or texts.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use xmore_memory::Hit;
use xmore_memory::store::Modality;

use super::queries::{answer, one_or_many, queries};
use super::{Item, Timings};
use crate::api_error::{ApiError, ErrorBody, ErrorCode};
use crate::app::Shared;
use crate::batcher::{Done, Output, Task};
use crate::input::{Call, ImageInput, Parameters};
use crate::snapshot::Snapshot;

/// Most pairs of one query.
pub(crate) const MAX_PAIRS: usize = 10_000;

/// Most pairs of one answer to several queries: some 10 MB.
const MAX_IN_ALL: usize = 50_000;

/// Images or texts, and what is looked for.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = RetrieveRequest)]
pub(crate) struct RetrieveBody {
    /// One image.
    #[serde(default)]
    image: Option<ImageInput>,
    /// Several images.
    #[serde(default, deserialize_with = "crate::input::list")]
    images: Option<Vec<ImageInput>>,
    /// One text.
    #[serde(default)]
    text: Option<String>,
    /// Several texts.
    #[serde(default, deserialize_with = "crate::input::list")]
    texts: Option<Vec<String>>,
    /// Pairs for each image or text; 16 by default.
    #[serde(default)]
    #[schema(minimum = 1, maximum = 10000)]
    n: Option<usize>,
    /// What is compared with the query.
    #[serde(default)]
    modality: SearchedModality,
}

/// What is compared with a query.
#[derive(Clone, Copy, Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum SearchedModality {
    /// The pairs' images.
    #[default]
    Image,
    /// The pairs' captions.
    Text,
}

impl From<SearchedModality> for Modality {
    fn from(modality: SearchedModality) -> Self {
        match modality {
            SearchedModality::Image => Self::Image,
            SearchedModality::Text => Self::Text,
        }
    }
}

impl Parameters for RetrieveBody {
    const LISTS: &'static [(&'static str, bool)] = &[("texts", false)];
    const NUMBERS: &'static [&'static str] = &["n"];
    const FLAGS: &'static [&'static str] = &[];
    const STRINGS: &'static [&'static str] = &["text", "modality"];

    fn images(&mut self) -> Vec<ImageInput> {
        one_or_many(&mut self.image, &mut self.images)
    }

    fn texts(&mut self) -> Vec<String> {
        one_or_many(&mut self.text, &mut self.texts)
    }
}

/// What was found.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RetrieveResponse {
    /// The model that searched.
    model: String,
    /// Which opening of the memory was asked.
    generation: u64,
    /// One for each image, then one for each text, in the order given.
    results: Vec<Item<FoundPairs>>,
    /// How long it took.
    timings_ms: Timings,
}

/// The pairs nearest to one query.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct FoundPairs {
    /// By falling similarity, equal ones by id.
    pairs: Vec<FoundPair>,
}

/// A pair that was found.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct FoundPair {
    /// Row of the pair in the memory.
    id: u64,
    /// Cosine of the query and the pair's image, or its caption.
    similarity: f32,
    /// The caption.
    caption: String,
    /// The image, as the memory names it.
    image_path: String,
}

/// Find the pairs nearest to images or texts.
#[utoipa::path(post, path = "/v1/retrieve", tag = "xmore",
    request_body(content(
        (RetrieveBody = "application/json"), (super::ImageForm<RetrieveBody> = "multipart/form-data"), (super::ImageBytes = "image/*"),
        (super::ImageBytes = "application/octet-stream"))),
    params(("n" = Option<usize>, Query, description = "With an image as the body"), ("modality" = Option<SearchedModality>, Query)),
    responses((status = 200, body = RetrieveResponse), (status = "4XX", body = ErrorBody), (status = "5XX", body = ErrorBody)))]
pub(crate) async fn retrieve(
    State(app): State<Shared>,
    request: Request,
) -> Result<Json<RetrieveResponse>, ApiError> {
    let mut call = Call::<RetrieveBody>::receive(&app, request).await?;
    let modality = call.parameters.modality.into();
    let n = call.parameters.n.unwrap_or(16);
    if n == 0 || n > MAX_PAIRS {
        let message = format!("n is {n}; expected 1 to {MAX_PAIRS}");
        return Err(ApiError::new(ErrorCode::InvalidParameter, message));
    }
    let queries = queries(&app, &mut call).await?;
    if queries.len() * n > MAX_IN_ALL {
        let message =
            format!("{n} pairs for each of {}; at most {MAX_IN_ALL} are given at once", queries.len());
        return Err(ApiError::new(ErrorCode::TooMany, message));
    }
    let snapshot = app.batcher.snapshot();
    let (_, index) = snapshot.embedding_set(modality)?;
    let task = Task::Search { snapshot: snapshot.clone(), modality, n };
    let found = |done: Done| Ok(FoundPairs { pairs: look_up(&snapshot, &hits(done)?)? });
    let (results, timings_ms) = answer(&app, queries, &task, call.deadline, found).await?;
    Ok(Json(RetrieveResponse {
        model: snapshot.pipeline.encoders()[index].identity().to_string(),
        generation: snapshot.generation,
        results,
        timings_ms,
    }))
}

/// What a search found.
pub(crate) fn hits(done: Done) -> Result<Vec<Hit>, ApiError> {
    match done.output {
        Output::Hits(hits) => Ok(hits),
        _ => Err(ApiError::internal(&"a search without hits")),
    }
}

fn look_up(snapshot: &Arc<Snapshot>, hits: &[Hit]) -> Result<Vec<FoundPair>, ApiError> {
    let memory = snapshot.memory("searching")?;
    let pair = |hit: &Hit| {
        Ok(FoundPair {
            id: hit.id,
            similarity: hit.similarity,
            caption: memory.caption(hit.id)?.to_owned(),
            image_path: memory.image_path(hit.id)?.to_owned(),
        })
    };
    hits.iter().map(pair).collect()
}
