//! `POST /v1/embed`: unit vectors of images and texts.

use axum::Json;
use axum::extract::{Request, State};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::queries::{answer, one_or_many, queries};
use super::{Item, Timings};
use crate::api_error::{ApiError, ErrorBody};
use crate::app::Shared;
use crate::batcher::{Done, Task};
use crate::input::{Call, ImageInput, Parameters, encode_values};

/// Images and texts to be embedded.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = EmbedRequest)]
pub(crate) struct EmbedBody {
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
    /// How embeddings are written.
    #[serde(default)]
    encoding: Encoding,
}

/// How embeddings are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Encoding {
    /// Arrays of numbers.
    #[default]
    Float,
    /// Little-endian f32 in base64.
    Base64,
}

impl Parameters for EmbedBody {
    const LISTS: &'static [(&'static str, bool)] = &[("texts", false)];
    const NUMBERS: &'static [&'static str] = &[];
    const FLAGS: &'static [&'static str] = &[];
    const STRINGS: &'static [&'static str] = &["text", "encoding"];

    fn images(&mut self) -> Vec<ImageInput> {
        one_or_many(&mut self.image, &mut self.images)
    }

    fn texts(&mut self) -> Vec<String> {
        one_or_many(&mut self.text, &mut self.texts)
    }
}

/// Embeddings.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EmbedResponse {
    /// The classifying model.
    model: String,
    /// Length of an embedding.
    dim: usize,
    /// One for each image, then one for each text, in the order given.
    results: Vec<Item<Embedded>>,
    /// How long it took.
    timings_ms: Timings,
}

/// One embedding.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Embedded {
    /// A unit vector.
    embedding: Vector,
    /// Whether a text was longer than the model reads.
    truncated: bool,
}

/// An embedding as it was asked for.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum Vector {
    /// Numbers.
    Float(Vec<f32>),
    /// Base64.
    Base64(String),
}

/// Embed images and texts with the classifying model.
#[utoipa::path(post, path = "/v1/embed", tag = "xmore",
    request_body(content(
        (EmbedBody = "application/json"), (super::ImageForm<EmbedBody> = "multipart/form-data"), (super::ImageBytes = "image/*"),
        (super::ImageBytes = "application/octet-stream"))),
    params(("encoding" = Option<Encoding>, Query, description = "With an image as the body")),
    responses((status = 200, body = EmbedResponse), (status = "4XX", body = ErrorBody), (status = "5XX", body = ErrorBody)))]
pub(crate) async fn embed(
    State(app): State<Shared>,
    request: Request,
) -> Result<Json<EmbedResponse>, ApiError> {
    let mut call = Call::<EmbedBody>::receive(&app, request).await?;
    let queries = queries(&app, &mut call).await?;
    let models = &app.batcher.models;
    let dim = models.classify.dim();
    let embedded = |done: Done| {
        // An embedding that was sent has those by the other encoders after it.
        let row = &done.embedding[..dim];
        let embedding = match call.parameters.encoding {
            Encoding::Float => Vector::Float(row.to_vec()),
            Encoding::Base64 => Vector::Base64(encode_values(row)),
        };
        Ok(Embedded { embedding, truncated: done.truncated })
    };
    let (results, timings_ms) = answer(&app, queries, &Task::Embed, call.deadline, embedded).await?;
    Ok(Json(EmbedResponse { model: models.name().to_owned(), dim, results, timings_ms }))
}
