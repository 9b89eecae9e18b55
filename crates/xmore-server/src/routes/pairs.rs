//! The memory's pairs: captions, and small pictures for a page.

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::IntoResponse;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::api_error::{ApiError, ErrorBody, ErrorCode};
use crate::app::Shared;
use crate::snapshot::no_pair;
use crate::thumbnails::SIZES;

/// A pair of the memory.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Pair {
    id: u64,
    caption: String,
    /// The image, as the memory names it.
    image_path: String,
}

/// How large a picture may be.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PictureSize {
    /// Longest side in pixels.
    #[serde(default = "default_size")]
    size: u32,
}

fn default_size() -> u32 {
    160
}

/// Look a pair up.
#[utoipa::path(get, path = "/v1/pairs/{id}", tag = "xmore", params(("id" = u64, Path)),
    responses((status = 200, body = Pair), (status = "4XX", body = ErrorBody)))]
pub(crate) async fn pair(State(app): State<Shared>, Path(id): Path<String>) -> Result<Json<Pair>, ApiError> {
    let snapshot = app.batcher.snapshot();
    let memory = snapshot.memory("looking up a pair")?;
    let id = parse(&id)?;
    if !snapshot.shows(memory, id) {
        return Err(no_pair(id));
    }
    let (caption, image_path) = (memory.caption(id)?.to_owned(), memory.image_path(id)?.to_owned());
    Ok(Json(Pair { id, caption, image_path }))
}

/// A pair's image as a JPEG of limited size, where the file that the memory names is still there.
#[utoipa::path(get, path = "/v1/pairs/{id}/image", tag = "xmore", params(("id" = u64, Path),
        ("size" = Option<u32>, Query, minimum = 16, maximum = 1024, description = "Longest side in pixels")),
    responses((status = 200, body = super::ImageBytes, content_type = "image/jpeg"), (status = "4XX", body = ErrorBody),
        (status = "5XX", body = ErrorBody)))]
pub(crate) async fn image(
    State(app): State<Shared>,
    Path(id): Path<String>,
    size: Result<Query<PictureSize>, axum::extract::rejection::QueryRejection>,
) -> Result<impl IntoResponse, ApiError> {
    let Query(PictureSize { size }) = size.map_err(|error| ApiError::invalid(error.body_text()))?;
    if !SIZES.contains(&size) {
        let message = format!("size is {size}; expected {} to {}", SIZES.start(), SIZES.end());
        return Err(ApiError::new(ErrorCode::InvalidParameter, message));
    }
    let jpeg = app.thumbnails.get(app.batcher.snapshot(), parse(&id)?, size, app.deadline()).await?;
    // A pair keeps its image as long as the memory is the same; a rebuilt one is seen within the hour.
    Ok(([(CONTENT_TYPE, "image/jpeg"), (CACHE_CONTROL, "private, max-age=3600")], jpeg))
}

fn parse(id: &str) -> Result<u64, ApiError> {
    id.parse().map_err(|_| ApiError::invalid(format!("the id {id:?} is not a whole number")))
}
