//! What is wrong with a request: the one shape of an error over HTTP, its codes and their statuses.

use std::time::Duration;

use axum::Json;
use axum::http::header::{CONNECTION, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;
use xmore::{RetrievalError, XmoreError};
use xmore_clip::ClipError;
use xmore_files::image::ImageError;
use xmore_memory::MemoryError;

/// Characters of a message.
const MAX_CHARACTERS: usize = 400;

/// What kind of error, for programs: all codes of the API, flat as in its JSON. Each has one HTTP status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ErrorCode {
    /// 400: the request cannot be understood.
    InvalidRequest,
    /// 400: there is no such method.
    UnknownMethod,
    /// 401: a key is asked for.
    Unauthorized,
    /// 403: a page of another origin, or another name of this server, asks.
    ForbiddenOrigin,
    /// 403: what is asked for is switched off.
    Disabled,
    /// 404: there is no such thing.
    NotFound,
    /// 404: there is no such label set.
    UnknownLabelSet,
    /// 405: not with this HTTP method.
    MethodNotAllowed,
    /// 408: the request did not arrive in time.
    RequestTimeout,
    /// 413: the request is larger than is taken.
    BodyTooLarge,
    /// 413: more images, texts, labels or prompts than are taken at once.
    TooMany,
    /// 415: neither JSON, nor a form, nor an image.
    UnsupportedMediaType,
    /// 422: labels, templates or numbers that make no classification.
    InvalidParameter,
    /// 422: the image is broken or of a kind that is not read.
    UndecodableImage,
    /// 422: the image has more pixels than are decoded.
    TooManyPixels,
    /// 422: the method or path needs a memory, or one of another kind.
    NeedsMemory,
    /// 422: the image at the URL could not be fetched.
    Unfetchable,
    /// 429: too much is waiting; try again after `Retry-After`.
    Overloaded,
    /// 500: a fault of the server's.
    Internal,
    /// 503: the remote index does not answer.
    IndexUnreachable,
    /// 503: the answer took too long.
    Timeout,
    /// 503: too many connections are open.
    TooManyConnections,
    /// 503: the server is stopping.
    ShuttingDown,
}

impl ErrorCode {
    /// The HTTP status.
    pub fn status(self) -> StatusCode {
        match self {
            Self::InvalidRequest | Self::UnknownMethod => StatusCode::BAD_REQUEST,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::ForbiddenOrigin | Self::Disabled => StatusCode::FORBIDDEN,
            Self::NotFound | Self::UnknownLabelSet => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::RequestTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::BodyTooLarge | Self::TooMany => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::InvalidParameter
            | Self::UndecodableImage
            | Self::TooManyPixels
            | Self::NeedsMemory
            | Self::Unfetchable => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Overloaded => StatusCode::TOO_MANY_REQUESTS,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::IndexUnreachable | Self::Timeout | Self::TooManyConnections | Self::ShuttingDown => {
                StatusCode::SERVICE_UNAVAILABLE
            }
        }
    }

    /// Its name in JSON.
    pub(crate) fn name(self) -> String {
        serde_json::to_value(self).ok().and_then(|name| Some(name.as_str()?.to_owned())).unwrap_or_default()
    }

    fn retry_after(self) -> Option<Duration> {
        match self {
            Self::Overloaded | Self::Timeout | Self::TooManyConnections | Self::IndexUnreachable => {
                Some(Duration::from_secs(1))
            }
            Self::ShuttingDown => Some(Duration::from_secs(5)),
            _ => None,
        }
    }
}

/// The one shape of an error.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct ErrorBody {
    /// The error.
    pub error: ApiError,
}

/// What was wrong with a request.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct ApiError {
    /// For programs.
    pub code: ErrorCode,
    /// For people: what was found and what was expected.
    pub message: String,
}

impl ApiError {
    pub(crate) fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        let mut message = message.into();
        // Messages quote what was sent, which may be megabytes.
        if let Some((end, _)) = message.char_indices().nth(MAX_CHARACTERS) {
            message.truncate(end);
            message.push('…');
        }
        Self { code, message }
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::InvalidRequest, message)
    }

    pub(crate) fn overloaded() -> Self {
        Self::new(ErrorCode::Overloaded, "too many requests are waiting; try again later")
    }

    pub(crate) fn timeout() -> Self {
        Self::new(ErrorCode::Timeout, "the answer took longer than the server allows; try again later")
    }

    pub(crate) fn needs_memory(what: &str) -> Self {
        Self::new(
            ErrorCode::NeedsMemory,
            format!("{what} needs a memory on the server's machine, and this server has none"),
        )
    }

    /// A fault of the server: its details are logged, not sent to the caller.
    pub(crate) fn internal(error: &dyn std::fmt::Display) -> Self {
        tracing::error!("{error}");
        Self::new(ErrorCode::Internal, "the server could not answer; its log says why")
    }
}

impl From<&XmoreError> for ApiError {
    fn from(error: &XmoreError) -> Self {
        let code = match error {
            XmoreError::Clip(ClipError::Image {
                source:
                    ImageError::TooManyPixels { .. }
                    | ImageError::SideTooLong { .. }
                    | ImageError::TooMuchMemory { .. },
                ..
            }) => ErrorCode::TooManyPixels,
            XmoreError::Clip(ClipError::Image { .. } | ClipError::PixelCount { .. }) => {
                ErrorCode::UndecodableImage
            }
            XmoreError::Clip(ClipError::Tokenize { .. } | ClipError::Tokens { .. })
            | XmoreError::Label(_)
            | XmoreError::MethodWithoutSigmoids { .. }
            | XmoreError::ModelWithoutSigmoids
            | XmoreError::UnknownScores { .. }
            | XmoreError::Retrieval(
                RetrievalError::NoCaptionsAsked | RetrievalError::TooFewNeighbors { .. },
            ) => ErrorCode::InvalidParameter,
            XmoreError::UnknownMethod { .. } => ErrorCode::UnknownMethod,
            XmoreError::MethodNeedsMemory { .. }
            | XmoreError::Retrieval(
                RetrievalError::KernelNeedsOneModel { .. }
                | RetrievalError::RemoteFilter { .. }
                | RetrievalError::EmptyMemory { .. },
            ) => ErrorCode::NeedsMemory,
            XmoreError::Memory(error) if error.is_unreachable() => {
                tracing::warn!("{error}");
                return Self::new(
                    ErrorCode::IndexUnreachable,
                    "the remote index does not answer; method zero-shot needs none",
                );
            }
            _ => return Self::internal(error),
        };
        Self::new(code, error.to_string())
    }
}

impl From<XmoreError> for ApiError {
    fn from(error: XmoreError) -> Self {
        Self::from(&error)
    }
}

impl From<ClipError> for ApiError {
    fn from(error: ClipError) -> Self {
        Self::from(XmoreError::from(error))
    }
}

impl From<MemoryError> for ApiError {
    fn from(error: MemoryError) -> Self {
        Self::from(XmoreError::from(error))
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let code = self.code;
        let mut response = (code.status(), Json(ErrorBody { error: self })).into_response();
        let headers = response.headers_mut();
        if let Some(after) = code.retry_after() {
            headers.insert(RETRY_AFTER, HeaderValue::from(after.as_secs()));
        }
        if code == ErrorCode::Unauthorized {
            headers.insert("www-authenticate", HeaderValue::from_static("Bearer realm=\"xmore\""));
        }
        // What was not read of the request must not be taken for the next one.
        if matches!(code, ErrorCode::BodyTooLarge | ErrorCode::RequestTimeout) {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response.extensions_mut().insert(code);
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_message_repeats_a_whole_request() {
        let long = ApiError::invalid("é".repeat(1_000_000));
        assert_eq!(long.message, "é".repeat(MAX_CHARACTERS) + "…");
        let short = ApiError::invalid("é".repeat(MAX_CHARACTERS));
        assert_eq!(short.message, "é".repeat(MAX_CHARACTERS));
    }
}
