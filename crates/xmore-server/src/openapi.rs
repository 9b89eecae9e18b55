//! The API described by itself: `/api-doc/openapi.json`, and `/docs` to read and try it, without a network.

use std::io::{Cursor, Read};
use std::sync::{LazyLock, OnceLock};

use axum::extract::Path;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use axum::{Json, Router};
use utoipa::OpenApi;
use utoipa_swagger_ui_vendored::SWAGGER_UI_VENDORED;
use zip::ZipArchive;

use crate::api_error::{ApiError, ErrorCode};
use crate::app::Shared;
use crate::openapi_fixups::Corrected;
use crate::page::send;
use crate::routes::{admin, classify, embed, info, knn, label_sets, pairs, retrieve};

/// The description.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "xmore",
        description = "Zero-shot image classification that looks things up (X-MoRe, arXiv 2308.15273). Every error has the shape \
                       {\"error\": {\"code\", \"message\"}}."
    ),
    modifiers(&Corrected),
    security((), ("key" = [])),
    tags((name = "xmore"), (name = "label sets"), (name = "operation"), (name = "clip-retrieval")),
    paths(
        classify::classify,
        retrieve::retrieve,
        embed::embed,
        info::info,
        pairs::pair,
        pairs::image,
        label_sets::list,
        label_sets::read,
        label_sets::save,
        label_sets::remove,
        admin::reload,
        admin::health,
        admin::ready,
        admin::metrics,
        knn::search,
        knn::metadata,
        knn::indices
    )
)]
struct Description;

/// Swagger UI writes styles into its elements.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; \
                      form-action 'none'; base-uri 'none'; frame-ancestors 'none'";

const INDEX: &str = r#"<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>xmore: API</title>
<link rel="icon" href="/assets/favicon.svg" type="image/svg+xml">
<link rel="stylesheet" href="/docs/swagger-ui.css">
<div id="swagger-ui"></div>
<script src="/docs/swagger-ui-bundle.js"></script>
<script src="/docs/start.js"></script>
</html>
"#;

/// Without the validator, which would ask another server.
const START: &str = r##"window.ui = SwaggerUIBundle({
  url: "/api-doc/openapi.json", dom_id: "#swagger-ui", deepLinking: true, validatorUrl: null, docExpansion: "list",
});
"##;

/// Swagger UI's files that are given out, and their media types.
const FILES: [(&str, &str); 2] = [
    ("swagger-ui.css", "text/css; charset=utf-8"),
    ("swagger-ui-bundle.js", "text/javascript; charset=utf-8"),
];

/// Made once: the macros build it piece by piece.
static DESCRIPTION: LazyLock<utoipa::openapi::OpenApi> = LazyLock::new(Description::openapi);

/// The description's routes.
pub(crate) fn router() -> Router<Shared> {
    Router::new()
        .route("/api-doc/openapi.json", get(|| async { Json(&*DESCRIPTION) }))
        .route("/docs", get(|| async { Redirect::permanent("/docs/") }))
        .route("/docs/", get(|headers: HeaderMap| async move { html(&headers) }))
        .route("/docs/{name}", get(file))
}

fn html(headers: &HeaderMap) -> Response {
    send("text/html; charset=utf-8", INDEX.as_bytes(), POLICY, headers)
}

async fn file(Path(name): Path<String>, headers: HeaderMap) -> Result<Response, ApiError> {
    if name == "start.js" {
        return Ok(send("text/javascript; charset=utf-8", START.as_bytes(), POLICY, &headers));
    }
    let missing = || ApiError::new(ErrorCode::NotFound, "the API's page has no such file");
    let at = FILES.iter().position(|(known, _)| *known == name).ok_or_else(missing)?;
    static UNPACKED: OnceLock<[Option<Vec<u8>>; 2]> = OnceLock::new();
    let unpacked = UNPACKED.get_or_init(|| FILES.map(|(name, _)| unpack(name)));
    let content = unpacked[at].as_deref().ok_or_else(missing)?;
    Ok(send(FILES[at].1, content, POLICY, &headers).into_response())
}

/// A file of Swagger UI's distribution, out of the archive that is part of the binary.
fn unpack(name: &str) -> Option<Vec<u8>> {
    let mut archive = ZipArchive::new(Cursor::new(SWAGGER_UI_VENDORED)).ok()?;
    let path = archive
        .file_names()
        .filter_map(Result::ok)
        .find(|path| path.ends_with(&format!("/dist/{name}")))?
        .into_owned();
    let mut content = Vec::new();
    archive.by_name(&path).ok()?.read_to_end(&mut content).ok()?;
    Some(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_of_the_page_are_in_the_archive() {
        for (name, _) in FILES {
            assert!(unpack(name).is_some_and(|content| content.len() > 100_000), "{name}");
        }
    }
}
