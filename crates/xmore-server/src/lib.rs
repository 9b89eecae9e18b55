//! xmore as a service: an HTTP API and a web page over encoders and the pairs of a memory, and a drop-in back end for clip-retrieval's clients.
//!
//! 1. Say what is served: [`ServedModels`], with encoders of any kind.
//! 2. Say where and for whom: [`ServeOptions`], with [`Limits`].
//! 3. [`run`] it until a signal stops it.
//!
//! A request's path: `listen` accepts the connection, `middleware` asks for origin and key, a handler in `routes` reads the body
//! through `body` and `input`, the [batcher](self) takes its images in the next batch, and the handler shapes the answer. What
//! is wrong is an `ApiError` wherever it is found.

mod api_error;
mod app;
mod batcher;
mod blocking;
mod body;
mod caller;
mod error;
mod fetch;
mod input;
mod label_sets;
mod listen;
mod metrics;
mod middleware;
mod openapi;
mod openapi_fixups;
mod options;
mod page;
mod routes;
mod served_models;
mod signals;
mod snapshot;
mod thumbnails;
mod times;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::HeaderValue;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::middleware::from_fn_with_state;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::cors::{AllowHeaders, AllowMethods, AllowOrigin, CorsLayer};
use xmore::OpenPairs;

pub use api_error::{ApiError, ErrorBody, ErrorCode};
pub use error::ServerError;
pub use options::{ApiKey, Limits, PairsSource, ServeOptions};
pub use served_models::ServedModels;

use app::{App, Shared};
use listen::Listener;
use signals::Signals;

/// How long unfinished work may continue when everything is answered.
const LAST_WORK: Duration = Duration::from_secs(1);

/// Serves `pairs`, which were opened at the models' source, until SIGTERM or SIGINT, then answers the requests that it has accepted and
/// returns. SIGHUP opens the pairs again. `ready` is called with the address once requests are answered.
///
/// # Errors
/// Those of [`ServeOptions::check`], of the encoders, of listening, and of starting threads.
pub fn run(
    models: ServedModels,
    pairs: Option<Arc<OpenPairs>>,
    options: ServeOptions,
    ready: impl FnOnce(SocketAddr),
) -> Result<(), ServerError> {
    options.check()?;
    let cors = cors(&options.origins)?;
    let fail = |action| move |source| ServerError::Io { action, source };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(fail("start the server's threads"))?;
    let served = runtime.block_on(async {
        let addr = options.addr;
        // Before the models load: an address that is in use is an error at once.
        let socket = tokio::net::TcpListener::bind(addr)
            .await
            .map_err(|source| ServerError::Listen { addr, source })?;
        let addr = socket.local_addr().map_err(fail("learn the address"))?;
        let app = tokio::task::block_in_place(|| App::open(models, pairs, options))?;
        let encoder = app.batcher.start()?;
        let mut signals = Signals::listen(&app).map_err(fail("listen for signals"))?;
        let listener = Listener::new(app.clone(), router(app.clone(), cors));
        ready(addr);
        listener.serve(socket, signals.stop()).await;
        app.batcher.close();
        let ended = tokio::task::spawn_blocking(|| encoder.join());
        if tokio::time::timeout(LAST_WORK, ended).await.is_err() {
            tracing::warn!("the encoder did not end in time");
        }
        Ok(signals)
    });
    // Threads that are stuck in a read are abandoned.
    runtime.shutdown_timeout(LAST_WORK);
    served.map(drop)
}

fn router(app: Shared, cors: Option<CorsLayer>) -> Router {
    let mut router = routes::router()
        .merge(page::router())
        .merge(openapi::router())
        // The limits of `body` are the only ones; the framework's own is 2 MB for a form.
        .layer(DefaultBodyLimit::disable())
        .layer(CatchPanicLayer::custom(middleware::panicked))
        .layer(from_fn_with_state(app.clone(), middleware::check_request));
    if let Some(cors) = cors {
        router = router.layer(cors);
    }
    router.with_state(app)
}

/// What pages of other origins may do, if any may.
fn cors(origins: &[String]) -> Result<Option<CorsLayer>, ServerError> {
    if origins.is_empty() {
        return Ok(None);
    }
    let allowed = if origins.iter().any(|origin| origin == "*") {
        AllowOrigin::any()
    } else {
        let parse = |origin: &String| {
            let wrong = || ServerError::Origin { origin: origin.clone() };
            if !origin.contains("://") || origin.ends_with('/') {
                return Err(wrong());
            }
            HeaderValue::from_str(origin).map_err(|_| wrong())
        };
        AllowOrigin::list(origins.iter().map(parse).collect::<Result<Vec<_>, _>>()?)
    };
    Ok(Some(
        CorsLayer::new()
            .allow_origin(allowed)
            .allow_methods(AllowMethods::mirror_request())
            .allow_headers(AllowHeaders::mirror_request())
            .expose_headers([RETRY_AFTER, CONTENT_TYPE]),
    ))
}
