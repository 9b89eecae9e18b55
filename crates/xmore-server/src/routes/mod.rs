//! What can be asked, and which handler answers.

pub(crate) mod admin;
pub(crate) mod classify;
pub(crate) mod embed;
pub(crate) mod info;
pub(crate) mod knn;
pub(crate) mod label_sets;
pub(crate) mod pairs;
pub(crate) mod queries;
pub(crate) mod retrieve;

use axum::Router;
use axum::routing::{get, post};
use serde::Serialize;
use utoipa::ToSchema;

use crate::api_error::{ApiError, ErrorBody, ErrorCode};
use crate::app::Shared;
use crate::times::Times;

/// The API's routes.
pub(crate) fn router() -> Router<Shared> {
    Router::new()
        .route("/v1/classify", post(classify::classify))
        .route("/v1/retrieve", post(retrieve::retrieve))
        .route("/v1/embed", post(embed::embed))
        .route("/v1/info", get(info::info))
        .route("/v1/pairs/{id}", get(pairs::pair))
        .route("/v1/pairs/{id}/image", get(pairs::image))
        .route("/v1/label-sets", get(label_sets::list))
        .route(
            "/v1/label-sets/{name}",
            get(label_sets::read).put(label_sets::save).delete(label_sets::remove),
        )
        .route("/v1/reload", post(admin::reload))
        .route("/health", get(admin::health))
        .route("/readyz", get(admin::ready))
        .route("/metrics", get(admin::metrics))
        .route("/knn-service", post(knn::search))
        .route("/metadata", post(knn::metadata))
        .route("/indices-list", get(knn::indices))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
}

async fn not_found() -> ApiError {
    ApiError::new(ErrorCode::NotFound, "there is nothing here; /docs lists what there is")
}

async fn method_not_allowed() -> ApiError {
    ApiError::new(ErrorCode::MethodNotAllowed, "not with this HTTP method; /docs lists what there is")
}

/// What came of one of several inputs.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum Item<T> {
    /// The answer.
    Answer(T),
    /// What was wrong with this one; the others are answered.
    Error(ErrorBody),
}

impl<T> From<Result<T, ApiError>> for Item<T> {
    fn from(result: Result<T, ApiError>) -> Self {
        match result {
            Ok(answer) => Self::Answer(answer),
            Err(error) => Self::Error(ErrorBody { error }),
        }
    }
}

/// Items of an answer. An error of the only input is one of the request.
pub(crate) fn items<T>(mut results: Vec<Result<T, ApiError>>) -> Result<Vec<Item<T>>, ApiError> {
    // An error of the server, such as too much load, concerns all inputs.
    let of_all = |error: &ApiError| error.code.status().is_server_error();
    if let Some(at) = results.iter().position(|result| result.as_ref().is_err_and(of_all)) {
        return Err(results.swap_remove(at).err().unwrap_or_else(ApiError::overloaded));
    }
    if results.len() == 1 {
        return Ok(vec![Item::Answer(results.remove(0)?)]);
    }
    Ok(results.into_iter().map(Item::from).collect())
}

/// How long the stages took, in milliseconds: those of the batch that the request was part of.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub(crate) struct Timings {
    /// Waiting for the batch before.
    queue: f64,
    /// Images to pixels.
    decode: f64,
    /// Pixels and texts to embeddings.
    encode: f64,
    /// Embeddings to pairs.
    search: f64,
    /// Labels, captions and images to answers.
    ensemble: f64,
}

impl From<Times> for Timings {
    fn from(times: Times) -> Self {
        // Microseconds are enough.
        let ms = |time: std::time::Duration| (time.as_secs_f64() * 1e6).round() / 1e3;
        Self {
            queue: ms(times.queue),
            decode: ms(times.decode),
            encode: ms(times.encode),
            search: ms(times.search),
            ensemble: ms(times.ensemble),
        }
    }
}

/// An image file's bytes: JPEG, PNG, WebP, GIF, BMP, TIFF, PNM, ICO or QOI. Exif orientation is applied unless the server was started with
/// another choice.
#[derive(ToSchema)]
#[schema(value_type = String, format = Binary)]
#[allow(dead_code, reason = "a schema")]
pub(crate) struct ImageBytes(Vec<u8>);

/// A form: files, and the parameters of the JSON body as fields, lists between commas or repeated.
#[derive(ToSchema)]
#[allow(dead_code, reason = "a schema")]
pub(crate) struct ImageForm<P> {
    /// One file or several.
    #[schema(value_type = Vec<String>, format = Binary, required = false)]
    image: Vec<ImageBytes>,
    /// The parameters.
    #[serde(flatten)]
    parameters: P,
}
