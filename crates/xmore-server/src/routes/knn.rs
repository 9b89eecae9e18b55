//! clip-retrieval's back end (`clip_back.py`, 2.45): its Python client and its front end work against a memory unchanged.
//!
//! What it has and a memory has not is left out: safety and aesthetic models, of which it too ignores the flags where none is loaded.

use std::sync::Arc;
use std::time::Instant;

use axum::Json;
use axum::extract::{Request, State};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use xmore_memory::Hit;
use xmore_memory::store::Modality;

use super::queries::{check_text, inputs, run};
use super::retrieve::{MAX_PAIRS, hits};
use crate::api_error::{ApiError, ErrorBody, ErrorCode};
use crate::app::{App, Shared};
use crate::batcher::{Input, Task};
use crate::input::{ImageInput, decode, encode_bytes, from_json};
use crate::snapshot::{Snapshot, no_pair};

/// Cosine above which two results are one to `deduplicate`; clip-retrieval's.
const SAME: f32 = 0.94;
/// Longest side of the pictures that come with metadata, in pixels.
const PICTURE: u32 = 512;
/// Pictures that are made for one answer at the same time.
const SIDE_BY_SIDE: usize = 32;
/// Bytes of pictures in one answer; later ones have none.
const PICTURE_BYTES: usize = 32 << 20;

/// What clip-retrieval's clients send; whatever else they send is ignored, as it is there.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct KnnRequest {
    /// A text to search with.
    #[serde(default)]
    text: Option<String>,
    /// An image file in base64 to search with.
    #[serde(default)]
    image: Option<String>,
    /// An image to be fetched, where that is switched on.
    #[serde(default)]
    image_url: Option<String>,
    /// An embedding to search with.
    #[serde(default, deserialize_with = "crate::input::list")]
    embedding_input: Option<Vec<f32>>,
    /// `image` searches images, anything else captions.
    modality: String,
    /// Results that come with metadata.
    #[schema(minimum = 0, maximum = 10000)]
    num_images: usize,
    /// Results; num_images by default.
    #[serde(default)]
    #[schema(minimum = 0, maximum = 10000)]
    num_result_ids: Option<usize>,
    /// Name of the index; null is the only one.
    indice_name: Option<String>,
    /// Leave out results whose embeddings are nearly those of one before.
    #[serde(default)]
    deduplicate: bool,
    /// The multilingual text encoder, which is not here.
    #[serde(default)]
    use_mclip: bool,
}

/// A result: metadata for the first `num_images`, id and similarity for all.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct KnnResult {
    #[serde(flatten)]
    metadata: Option<Metadata>,
    id: u64,
    similarity: f32,
}

/// A pair's metadata.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Metadata {
    image_path: String,
    caption: String,
    /// Where the image's name is a URL.
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<String>,
    /// A JPEG in base64, where the image is on this machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    image: Option<String>,
}

/// Search as clip-retrieval's back end does.
#[utoipa::path(post, path = "/knn-service", tag = "clip-retrieval", request_body = KnnRequest,
    responses((status = 200, body = Vec<KnnResult>), (status = "4XX", body = ErrorBody), (status = "5XX", body = ErrorBody)))]
pub(crate) async fn search(
    State(app): State<Shared>,
    request: Request,
) -> Result<Json<Vec<KnnResult>>, ApiError> {
    let (parts, body) = request.into_parts();
    let received = app.budget.receive(&parts, body, &app.options.limits).await?;
    let deadline = app.deadline();
    // Whatever its content type: the Python client sends none.
    let knn: KnnRequest = from_json(&received.bytes)?;
    check_index(&app, knn.indice_name.as_deref())?;
    let count = knn.num_result_ids.unwrap_or(knn.num_images);
    if count.max(knn.num_images) > MAX_PAIRS {
        let message = format!("{} results; at most {MAX_PAIRS} are given", count.max(knn.num_images));
        return Err(ApiError::new(ErrorCode::TooMany, message));
    }
    let modality = if knn.modality == "image" { Modality::Image } else { Modality::Text };
    let snapshot = app.batcher.snapshot();
    let (column, _) = snapshot.embedding_set(modality)?;
    let query = query(&app, &knn, column.dim(), deadline).await?;
    if count == 0 {
        return Ok(Json(Vec::new()));
    }
    let task = Task::Search { snapshot: snapshot.clone(), modality, n: count };
    let (mut results, _) = run(&app, vec![query], &task, deadline).await?;
    let found = hits(results.pop().unwrap_or_else(|| Err(ApiError::overloaded()))?)?;
    let found = if knn.deduplicate {
        let snapshot = snapshot.clone();
        let kept = tokio::task::spawn_blocking(move || {
            let (column, _) = snapshot.embedding_set(modality)?;
            Ok::<_, ApiError>(column.without_duplicates(modality, found, SAME)?)
        });
        kept.await.map_err(|error| ApiError::internal(&error))??
    } else {
        found
    };
    let with_metadata = found.len().min(knn.num_images);
    let ids = found[..with_metadata].iter().map(|hit| hit.id).collect();
    let mut metadata = look_up(&app, &snapshot, ids, deadline).await?.into_iter();
    let result = |hit: Hit| KnnResult { metadata: metadata.next(), id: hit.id, similarity: hit.similarity };
    Ok(Json(found.into_iter().map(result).collect()))
}

/// What is searched with, in clip-retrieval's order of precedence.
async fn query(
    app: &App,
    knn: &KnnRequest,
    dim: usize,
    deadline: Instant,
) -> Result<Result<Input, ApiError>, ApiError> {
    if let Some(text) = knn.text.as_ref().filter(|text| !text.is_empty()) {
        if knn.use_mclip {
            let message = "there is no mclip here; send use_mclip false";
            return Err(ApiError::new(ErrorCode::InvalidParameter, message));
        }
        check_text(text, &app.options.limits)?;
        return Ok(Ok(Input::Text(text.clone())));
    }
    if let Some(image) = &knn.image {
        let bytes = decode(image).map_err(ApiError::invalid)?;
        return Ok(inputs(app, vec![ImageInput::Bytes(bytes.into())], deadline).await.remove(0));
    }
    if let Some(url) = &knn.image_url {
        return Ok(inputs(app, vec![ImageInput::Url(url.clone())], deadline).await.remove(0));
    }
    if let Some(values) = &knn.embedding_input {
        // As far as f32 goes: with longer ones similarities would be infinite.
        let square: f32 = values.iter().map(|value| value * value).sum();
        if values.len() != dim || !square.is_finite() {
            let message =
                format!("embedding_input has {} values; expected {dim} of a unit vector", values.len());
            return Err(ApiError::new(ErrorCode::InvalidParameter, message));
        }
        return Ok(Ok(Input::Row(values.clone())));
    }
    Err(ApiError::invalid("nothing to search with: send text, image, image_url or embedding_input"))
}

/// Ids whose metadata are wanted.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct MetadataRequest {
    /// Name of the index; null is the only one.
    #[serde(default)]
    indice_name: Option<String>,
    /// At most 10,000.
    #[serde(deserialize_with = "crate::input::some_list")]
    ids: Vec<u64>,
}

/// One id's metadata.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct MetadataOf {
    id: u64,
    metadata: Metadata,
}

/// Look up metadata as clip-retrieval's back end does.
#[utoipa::path(post, path = "/metadata", tag = "clip-retrieval", request_body = MetadataRequest,
    responses((status = 200, body = Vec<MetadataOf>), (status = "4XX", body = ErrorBody), (status = "5XX", body = ErrorBody)))]
pub(crate) async fn metadata(
    State(app): State<Shared>,
    request: Request,
) -> Result<Json<Vec<MetadataOf>>, ApiError> {
    let (parts, body) = request.into_parts();
    let received = app.budget.receive(&parts, body, &app.options.limits).await?;
    let MetadataRequest { indice_name, ids } = from_json(&received.bytes)?;
    check_index(&app, indice_name.as_deref())?;
    if ids.len() > MAX_PAIRS {
        let message = format!("{} ids; at most {MAX_PAIRS} are looked up", ids.len());
        return Err(ApiError::new(ErrorCode::TooMany, message));
    }
    let snapshot = app.batcher.snapshot();
    let metadata = look_up(&app, &snapshot, ids.clone(), app.deadline()).await?;
    let all = ids.into_iter().zip(metadata).map(|(id, metadata)| MetadataOf { id, metadata });
    Ok(Json(all.collect()))
}

/// The names of indices, of which there is one: the memory's.
#[utoipa::path(get, path = "/indices-list", tag = "clip-retrieval", responses((status = 200, body = Vec<String>)))]
pub(crate) async fn indices(State(app): State<Shared>) -> Json<Vec<String>> {
    Json(app.batcher.snapshot().index_name.iter().cloned().collect())
}

fn check_index(app: &App, name: Option<&str>) -> Result<(), ApiError> {
    let snapshot = app.batcher.snapshot();
    snapshot.memory("an index")?;
    match (name, &snapshot.index_name) {
        (Some(name), Some(index)) if name != index => {
            let message = format!("no index {name:?}; /indices-list has {index:?}");
            Err(ApiError::new(ErrorCode::NotFound, message))
        }
        _ => Ok(()),
    }
}

/// Metadata in the ids' order. Pictures are made side by side; one that cannot be made is left out.
async fn look_up(
    app: &Shared,
    snapshot: &Arc<Snapshot>,
    ids: Vec<u64>,
    deadline: Instant,
) -> Result<Vec<Metadata>, ApiError> {
    let memory = snapshot.memory("an index")?;
    if let Some(&id) = ids.iter().find(|&&id| !snapshot.shows(memory, id)) {
        return Err(no_pair(id));
    }
    let (mut all, mut bytes) = (Vec::with_capacity(ids.len()), 0);
    for some in ids.chunks(SIDE_BY_SIDE) {
        let mut pictures = Vec::with_capacity(some.len());
        for &id in some {
            let is_wanted = bytes <= PICTURE_BYTES && url_of(memory.image_path(id)?).is_none();
            pictures.push(is_wanted.then(|| {
                let (app, snapshot) = (app.clone(), snapshot.clone());
                tokio::spawn(async move { app.thumbnails.get(snapshot, id, PICTURE, deadline).await })
            }));
        }
        for (&id, picture) in some.iter().zip(pictures) {
            let jpeg = match picture {
                Some(picture) => match picture.await.map_err(|error| ApiError::internal(&error))? {
                    Err(error) if error.code == ErrorCode::Timeout => {
                        let message = "the pictures took longer than the server allows; ask for fewer";
                        return Err(ApiError::new(ErrorCode::Timeout, message));
                    }
                    picture => picture.ok(),
                },
                None => None,
            };
            bytes += jpeg.as_ref().map_or(0, |jpeg| jpeg.len());
            let image_path = memory.image_path(id)?;
            all.push(Metadata {
                image_path: image_path.to_owned(),
                caption: memory.caption(id)?.to_owned(),
                url: url_of(image_path).map(str::to_owned),
                image: jpeg.map(|jpeg| encode_bytes(&jpeg)),
            });
        }
    }
    Ok(all)
}

/// An image's name, if it is a URL.
fn url_of(image_path: &str) -> Option<&str> {
    ["http://", "https://"].iter().any(|scheme| image_path.starts_with(scheme)).then_some(image_path)
}
