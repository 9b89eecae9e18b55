//! For operators: health, readiness, metrics, and opening the memory again.

use axum::Json;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use serde::Serialize;
use utoipa::ToSchema;

use crate::api_error::{ApiError, ErrorBody, ErrorCode};
use crate::app::Shared;
use crate::batcher::shutting_down;

/// The state of a server that works.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Status {
    /// `ok`.
    status: &'static str,
}

/// Whether the process answers at all.
#[utoipa::path(get, path = "/health", tag = "operation", responses((status = 200, body = Status)))]
pub(crate) async fn health() -> Json<Status> {
    Json(Status { status: "ok" })
}

/// Whether requests are taken: not any more once the server is stopping.
#[utoipa::path(get, path = "/readyz", tag = "operation", responses((status = 200, body = Status), (status = 503, body = ErrorBody)))]
pub(crate) async fn ready(State(app): State<Shared>) -> Result<Json<Status>, ApiError> {
    if app.is_stopping() { Err(shutting_down()) } else { Ok(Json(Status { status: "ok" })) }
}

/// Counters and histograms for Prometheus.
#[utoipa::path(get, path = "/metrics", tag = "operation",
    responses((status = 200, body = String, content_type = "application/openmetrics-text")))]
pub(crate) async fn metrics(State(app): State<Shared>) -> impl IntoResponse {
    let snapshot = app.batcher.snapshot();
    // A remote index is not asked for every scrape.
    let pairs = snapshot.pairs().and_then(xmore::OpenPairs::memory).map_or(0, xmore::Memory::len);
    let text = app.metrics.text(app.batcher.waiting(), pairs, snapshot.generation);
    ([(CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text)
}

/// What is served after a reload.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Reloaded {
    /// Counts openings.
    generation: u64,
    /// Pairs, as far as is known.
    pairs: Option<u64>,
}

/// Open the memory again, which may have grown, and read the label sets. No request is dropped: those that have begun keep the old one.
#[utoipa::path(post, path = "/v1/reload", tag = "operation",
    responses((status = 200, body = Reloaded), (status = "4XX", body = ErrorBody), (status = "5XX", body = ErrorBody)))]
pub(crate) async fn reload(State(app): State<Shared>) -> Result<Json<Reloaded>, ApiError> {
    let turn = app.reloads.clone().try_acquire_owned().map_err(|_| ApiError::overloaded())?;
    let of_task = app.clone();
    // It continues when the caller has disconnected or has waited as long as it may.
    let reloaded = tokio::spawn(async move {
        let _turn = turn;
        of_task.reload().await.map_err(|error| {
            tracing::error!("reload: {error}");
            ApiError::new(ErrorCode::NeedsMemory, format!("the memory served so far is kept: {error}"))
        })
    });
    let reloaded = tokio::time::timeout_at(app.deadline().into(), reloaded).await.map_err(|_| {
        let message = "the memory is still being opened; /v1/info has the generation that is served";
        ApiError::new(ErrorCode::Timeout, message)
    })?;
    let snapshot = reloaded.map_err(|error| ApiError::internal(&error))??;
    let pairs = snapshot.pairs().and_then(xmore::OpenPairs::count);
    Ok(Json(Reloaded { generation: snapshot.generation, pairs }))
}
