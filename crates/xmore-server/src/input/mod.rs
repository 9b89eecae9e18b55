//! What a caller sends: images and parameters as JSON, as a form, or as an image file's bytes with parameters in the query string.

mod fields;
mod image;
mod labels;

use std::marker::PhantomData;
use std::time::Instant;

use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, Multipart, Request};
use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;
use serde::de::{self, Deserialize, DeserializeOwned, Deserializer, Visitor};
use tokio::sync::OwnedSemaphorePermit;

pub(crate) use self::image::{ImageInput, decode, encode_bytes, encode_values};
pub(crate) use self::labels::LabelsSchema;
use crate::api_error::{ApiError, ErrorCode};
use crate::app::App;
use crate::caller::Caller;
use fields::Fields;

/// Items of a list, whatever they are: their number is checked when all are there, and millions of empty ones fit into a request.
pub(crate) const MAX_ITEMS: usize = 100_000;

/// Reads a list or null, of a bounded number of items.
pub(crate) fn list<'de, D, T>(deserializer: D) -> Result<Option<Vec<T>>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    struct Items<T>(PhantomData<T>);
    impl<'de, T: Deserialize<'de>> Visitor<'de> for Items<T> {
        type Value = Option<Vec<T>>;

        fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
            f.write_str("a list")
        }

        fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
            Ok(None)
        }

        fn visit_seq<A: de::SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
            let mut items = Vec::new();
            while let Some(item) = seq.next_element()? {
                if items.len() == MAX_ITEMS {
                    return Err(de::Error::custom(format!("a list of more than {MAX_ITEMS} items")));
                }
                items.push(item);
            }
            Ok(Some(items))
        }
    }
    deserializer.deserialize_any(Items(PhantomData))
}

/// The same where null is no list.
pub(crate) fn some_list<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    list(deserializer)?.ok_or_else(|| de::Error::custom("null is no list"))
}

/// A request's body as JSON, which forms and query strings become too.
pub(crate) trait Parameters: DeserializeOwned {
    /// Names of parameters that are lists of strings, and whether they are labels, in any form that those are written in.
    const LISTS: &'static [(&'static str, bool)];
    /// Names of whole numbers.
    const NUMBERS: &'static [&'static str];
    /// Names of numbers with a fraction.
    const DECIMALS: &'static [&'static str] = &[];
    /// Names of flags.
    const FLAGS: &'static [&'static str];
    /// Names of strings.
    const STRINGS: &'static [&'static str];

    /// Takes the images out of it.
    fn images(&mut self) -> Vec<ImageInput>;

    /// Takes the texts out of it, where images and texts are asked for alike.
    fn texts(&mut self) -> Vec<String> {
        Vec::new()
    }
}

/// A request, understood.
pub(crate) struct Call<P> {
    pub(crate) parameters: P,
    pub(crate) images: Vec<ImageInput>,
    pub(crate) caller: Caller,
    /// When it must be answered.
    pub(crate) deadline: Instant,
    /// Its share of the bytes of all requests, until it is answered.
    _held: Option<OwnedSemaphorePermit>,
}

impl<P: Parameters> Call<P> {
    /// Receives and reads a request.
    ///
    /// # Errors
    /// Those of [`crate::body::Budget::receive`]; [`ErrorCode::UnsupportedMediaType`], [`ErrorCode::InvalidRequest`],
    /// [`ErrorCode::TooMany`].
    pub(crate) async fn receive(app: &App, request: Request) -> Result<Self, ApiError> {
        let limits = &app.options.limits;
        let (parts, body) = request.into_parts();
        let received = app.budget.receive(&parts, body, limits).await?;
        let (caller, deadline) = (Caller::of(&parts.extensions), app.deadline());
        let (mut parameters, mut images) = match Kind::of(&parts.headers)? {
            Kind::Json => (from_json::<P>(&received.bytes)?, Vec::new()),
            Kind::Image => {
                let mut fields = Fields::default();
                for (name, value) in form_urlencoded::parse(parts.uri.query().unwrap_or("").as_bytes()) {
                    fields.add::<P>(&name, &value)?;
                }
                let image = ImageInput::Bytes(received.bytes.clone());
                (fields.read()?, vec![image])
            }
            Kind::Form => {
                let request = Request::from_parts(parts, Body::from(received.bytes.clone()));
                form(request).await?
            }
        };
        let more = parameters.images();
        images.extend(more);
        if images.len() > limits.inputs {
            return Err(ApiError::new(
                ErrorCode::TooMany,
                format!("{} images; at most {} are taken at once", images.len(), limits.inputs),
            ));
        }
        Ok(Self { parameters, images, caller, deadline, _held: received.held })
    }
}

/// How a body is written.
enum Kind {
    Json,
    Form,
    Image,
}

impl Kind {
    fn of(headers: &HeaderMap) -> Result<Self, ApiError> {
        let given = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
        let essence = given.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
        match essence.as_str() {
            "application/json" => Ok(Self::Json),
            "multipart/form-data" => Ok(Self::Form),
            "application/octet-stream" => Ok(Self::Image),
            image if image.starts_with("image/") => Ok(Self::Image),
            _ => Err(ApiError::new(
                ErrorCode::UnsupportedMediaType,
                format!(
                    "content type {given:?}; expected application/json, multipart/form-data, or an image's such as image/jpeg or \
                     application/octet-stream"
                ),
            )),
        }
    }
}

/// Reads JSON.
pub(crate) fn from_json<P: DeserializeOwned>(bytes: &Bytes) -> Result<P, ApiError> {
    serde_json::from_slice(bytes)
        .map_err(|error| ApiError::invalid(format!("the JSON is not as expected: {error}")))
}

async fn form<P: Parameters>(request: Request) -> Result<(P, Vec<ImageInput>), ApiError> {
    let broken = |error: axum::extract::multipart::MultipartError| {
        ApiError::invalid(format!("the form is not as expected: {}", error.body_text()))
    };
    let mut form = Multipart::from_request(request, &())
        .await
        .map_err(|error| ApiError::invalid(format!("the form is not as expected: {}", error.body_text())))?;
    let (mut fields, mut images) = (Fields::default(), Vec::new());
    while let Some(field) = form.next_field().await.map_err(broken)? {
        let name = field.name().unwrap_or("").to_owned();
        let file = field.file_name().map(str::to_owned);
        let bytes = field.bytes().await.map_err(broken)?;
        if matches!(name.as_str(), "image" | "images" | "image[]" | "images[]" | "file" | "files") {
            images.push(ImageInput::Bytes(bytes));
        } else if let Some(file) = file {
            fields.add_file::<P>(&name, &bytes, &file)?;
        } else {
            let value = std::str::from_utf8(&bytes)
                .map_err(|_| ApiError::invalid(format!("the form's {name:?} is not UTF-8")))?;
            fields.add::<P>(&name, value)?;
        }
    }
    Ok((fields.read()?, images))
}
