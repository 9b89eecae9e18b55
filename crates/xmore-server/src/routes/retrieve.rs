//! `POST /v1/retrieve`: the pairs nearest to images or texts.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use xmore_memory::Hit;
use xmore_memory::store::Modality;

use super::classify::run;
use super::{Item, Timings, inputs, items};
use crate::app::Shared;
use crate::engine::{Done, Input, Output, Task};
use crate::error::{ApiError, ErrorBody, ErrorCode};
use crate::input::{Call, ImageInput, Parameters};
use crate::options::Limits;
use crate::snapshot::Snapshot;

/// Most pairs of one query.
pub(crate) const MOST_PAIRS: usize = 10_000;

/// Most pairs of one answer to several queries: some 10 MB.
const MOST_IN_ALL: usize = 50_000;

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
    /// Pairs for each image or text; 16 unless told otherwise.
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
        self.image.take().into_iter().chain(self.images.take().into_iter().flatten()).collect()
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
    let call = Call::<RetrieveBody>::receive(&app, request).await?;
    let RetrieveBody { text, texts, n, modality, .. } = call.parameters;
    let n = n.unwrap_or(16);
    if n == 0 || n > MOST_PAIRS {
        let message = format!("n is {n}; expected 1 to {MOST_PAIRS}");
        return Err(ApiError::new(ErrorCode::InvalidParameter, message));
    }
    let mut queries = inputs(&app, call.images).await;
    queries.extend(self::texts(text.into_iter().chain(texts.into_iter().flatten()), &app.options.limits));
    check_count(queries.len(), app.options.limits.inputs)?;
    if queries.len() * n > MOST_IN_ALL {
        let message =
            format!("{n} pairs for each of {}; at most {MOST_IN_ALL} are given at once", queries.len());
        return Err(ApiError::new(ErrorCode::TooMany, message));
    }
    let snapshot = app.engine.snapshot();
    let (_, index) = snapshot.column(modality.into())?;
    let task = Task::Search { snapshot: snapshot.clone(), modality: modality.into(), n };
    let (results, times) = run(&app, queries, &task).await?;
    let found = |done: Done| Ok(FoundPairs { pairs: look_up(&snapshot, &hits(done)?)? });
    Ok(Json(RetrieveResponse {
        model: app.engine.backend.models()[index].name().to_owned(),
        generation: snapshot.generation,
        results: items(results.into_iter().map(|result| result.and_then(found)).collect())?,
        timings_ms: times.into(),
    }))
}

/// At least one input, and at most as many as are taken.
pub(crate) fn check_count(count: usize, most: usize) -> Result<(), ApiError> {
    match count {
        0 => Err(ApiError::invalid("no image or text: send `image`, `images`, `text` or `texts`")),
        count if count > most => {
            let message = format!("{count} images and texts; at most {most} are taken at once");
            Err(ApiError::new(ErrorCode::TooMany, message))
        }
        _ => Ok(()),
    }
}

/// Texts as the engine takes them; each may be too long by itself.
pub(crate) fn texts(
    all: impl Iterator<Item = String>,
    limits: &Limits,
) -> impl Iterator<Item = Result<Input, ApiError>> {
    all.map(|text| check_text(&text, limits).map(|()| Input::Text(text)))
}

/// # Errors
/// [`ErrorCode::InvalidParameter`] for a text that is longer than is taken.
pub(crate) fn check_text(text: &str, limits: &Limits) -> Result<(), ApiError> {
    let most = limits.text_bytes;
    if text.len() <= most {
        return Ok(());
    }
    let message = format!("a text of {} bytes; at most {most} are read", text.len());
    Err(ApiError::new(ErrorCode::InvalidParameter, message))
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
