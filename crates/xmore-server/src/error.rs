//! What can go wrong: at the start of a server, and in the answer to a request.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use axum::Json;
use axum::http::header::{CONNECTION, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use thiserror::Error;
use utoipa::ToSchema;
use xmore::{RetrievalError, XmoreError};
use xmore_clip::ClipError;
use xmore_files::image::ImageError;
use xmore_memory::MemoryError;

/// Characters of a message.
const MAX_CHARACTERS: usize = 400;

/// Why a server does not start, or cannot go on.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ServerError {
    /// Other machines would be served without a key.
    #[error("{addr} can be reached from other machines, and no API key is asked for")]
    OpenToOthers {
        /// The address.
        addr: SocketAddr,
    },
    /// A key that protects nothing.
    #[error("an API key is empty")]
    WeakKey,
    /// The address cannot be listened on.
    #[error("cannot listen on {addr}: {source}")]
    Listen {
        /// The address.
        addr: SocketAddr,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The folder of label sets, or one of its files, cannot be used.
    #[error("label sets in {}: {reason}", path.display())]
    LabelSets {
        /// The folder or file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// An origin that is not one.
    #[error("{origin:?} is not an origin: expected `*`, or a scheme and host such as https://example.org")]
    Origin {
        /// What was given.
        origin: String,
    },
    /// The process lacks something that it needs to run.
    #[error("cannot {action}: {source}")]
    Io {
        /// What was attempted.
        action: &'static str,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// Model, labels or method.
    #[error(transparent)]
    Xmore(#[from] XmoreError),
    /// The pairs.
    #[error(transparent)]
    Memory(#[from] MemoryError),
}

/// What kind of error, for programs. Each kind has one HTTP status.
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
    /// 422: the image behind the URL could not be fetched.
    Unfetchable,
    /// 429: as much is waiting as is taken; come back after `Retry-After`.
    Overloaded,
    /// 500: a fault of the server's.
    Internal,
    /// 503: the remote index does not answer.
    IndexUnreachable,
    /// 503: the answer took too long.
    Timeout,
    /// 503: as many connections are open as are taken.
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
        Self::new(ErrorCode::Overloaded, "as many requests are waiting as are taken; try again later")
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

    /// A fault of ours: its details go to the log, not to the caller.
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
            XmoreError::Memory(MemoryError::Unreachable { .. }) => {
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
