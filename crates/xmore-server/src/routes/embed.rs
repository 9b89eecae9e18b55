//! `POST /v1/embed`: unit vectors of images and texts.

use axum::Json;
use axum::extract::{Request, State};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::queries::{one_or_many, queries, run};
use super::{Item, Timings, items};
use crate::app::Shared;
use crate::batcher::{Done, Task};
use crate::error::{ApiError, ErrorBody};
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
    let call = Call::<EmbedBody>::receive(&app, request).await?;
    let EmbedBody { text, texts, encoding, .. } = call.parameters;
    let texts = text.into_iter().chain(texts.into_iter().flatten());
    let all = queries(&app, call.images, texts, call.deadline).await?;
    let (results, times) = run(&app, all, &Task::Embed, call.deadline).await?;
    let embedded = |done: Done| {
        // Of an embedding that was given there are those by other models behind it.
        let row = &done.embedding[..app.batcher.backend.model.dim()];
        let embedding = match encoding {
            Encoding::Float => Vector::Float(row.to_vec()),
            Encoding::Base64 => Vector::Base64(encode_values(row)),
        };
        Ok(Embedded { embedding, truncated: done.truncated })
    };
    Ok(Json(EmbedResponse {
        model: app.batcher.backend.model.name().to_owned(),
        dim: app.batcher.backend.model.dim(),
        results: items(results.into_iter().map(|result| result.and_then(embedded)).collect())?,
        timings_ms: times.into(),
    }))
}
