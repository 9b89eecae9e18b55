//! What can be asked, and which handler answers.

pub(crate) mod admin;
pub(crate) mod classify;
pub(crate) mod embed;
pub(crate) mod info;
pub(crate) mod knn;
pub(crate) mod label_sets;
pub(crate) mod pairs;
pub(crate) mod retrieve;

use axum::Router;
use axum::routing::{get, post};
use serde::Serialize;
use utoipa::ToSchema;
use xmore_clip::Embeddings;

use crate::app::{App, Shared};
use crate::engine::{Input, Times};
use crate::error::{ApiError, ErrorBody, ErrorCode};
use crate::input::ImageInput;

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

/// Items of an answer. What is wrong with the only input is wrong with the request.
pub(crate) fn items<T>(mut results: Vec<Result<T, ApiError>>) -> Result<Vec<Item<T>>, ApiError> {
    // Whatever is a fault of the server's, or of the moment, is no answer.
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

/// Images as the engine takes them; each may be wrong by itself.
pub(crate) async fn inputs(app: &App, images: Vec<ImageInput>) -> Vec<Result<Input, ApiError>> {
    let mut inputs = Vec::with_capacity(images.len());
    for image in images {
        inputs.push(match image {
            ImageInput::Bytes(bytes) if bytes.is_empty() => {
                Err(ApiError::new(ErrorCode::UndecodableImage, "the image is empty"))
            }
            ImageInput::Bytes(bytes) => Ok(Input::Image(bytes)),
            ImageInput::Embedding(values) => unit(&values, &app.engine.backend.dims()),
            ImageInput::Pair(id) => {
                app.engine.snapshot().pair_embedding(id).map(|row| Input::Vector(row.into()))
            }
            ImageInput::Url(url) => match &app.fetcher {
                Some(fetcher) => fetcher.fetch(&url).await.map(Input::Image),
                None => Err(ApiError::new(
                    ErrorCode::Disabled,
                    "this server fetches no URLs; send the image itself, or start it with --fetch-urls",
                )),
            },
        });
    }
    inputs
}

/// Checks an embedding; one that is not of unit length is made so.
pub(crate) fn unit(values: &[f32], dims: &[usize]) -> Result<Input, ApiError> {
    let expected: usize = dims.iter().sum();
    let wrong = |message: String| Err(ApiError::new(ErrorCode::InvalidParameter, message));
    if values.len() != expected {
        return wrong(format!("an embedding of {} values, expected {expected}", values.len()));
    }
    let mut rest = values;
    let mut all = Vec::with_capacity(expected);
    for &dim in dims {
        let (row, behind) = rest.split_at(dim);
        rest = behind;
        let norm = row.iter().map(|&v| f64::from(v) * f64::from(v)).sum::<f64>().sqrt();
        if !norm.is_finite() || norm == 0.0 {
            return wrong(format!("an embedding of length {norm}, expected a unit vector"));
        }
        // Stored ones are rounded to 16 bits.
        if (norm - 1.0).abs() < 1e-3 {
            all.extend_from_slice(row);
        } else {
            all.extend(row.iter().map(|&v| (f64::from(v) / norm) as f32));
        }
    }
    Ok(Input::Vector(all.into()))
}

/// The classifying model's part of embeddings that lie behind one another.
pub(crate) fn of_classifier(app: &App, values: &[f32]) -> Embeddings {
    let dim = app.engine.backend.model.dim();
    Embeddings::new(values[..dim.min(values.len())].to_vec(), dim)
}

/// An image file's bytes: JPEG, PNG or WebP.
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
