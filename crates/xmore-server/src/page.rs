//! The web page: files that are part of the binary.

use axum::Router;
use axum::extract::Path;
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::api_error::{ApiError, ErrorCode};
use crate::app::Shared;

/// Nothing but what this server gives, and nothing inline.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; \
                      form-action 'none'; base-uri 'none'; frame-ancestors 'none'";

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const JS: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

const INDEX: &[u8] = include_bytes!("../page/index.html");

/// Name, media type, content.
const ASSETS: &[(&str, &str, &[u8])] = &[
    ("answer.css", CSS, include_bytes!("../page/answer.css")),
    ("answer.js", JS, include_bytes!("../page/answer.js")),
    ("api.js", JS, include_bytes!("../page/api.js")),
    ("codec.js", JS, include_bytes!("../page/codec.js")),
    ("dialogs.js", JS, include_bytes!("../page/dialogs.js")),
    ("dom.js", JS, include_bytes!("../page/dom.js")),
    ("favicon.svg", SVG, include_bytes!("../page/favicon.svg")),
    ("image.js", JS, include_bytes!("../page/image.js")),
    ("labels.js", JS, include_bytes!("../page/labels.js")),
    ("main.js", JS, include_bytes!("../page/main.js")),
    ("permalink.js", JS, include_bytes!("../page/permalink.js")),
    ("search.js", JS, include_bytes!("../page/search.js")),
    ("style.css", CSS, include_bytes!("../page/style.css")),
    ("theme.js", JS, include_bytes!("../page/theme.js")),
    ("thumbs.js", JS, include_bytes!("../page/thumbs.js")),
    ("words.js", JS, include_bytes!("../page/words.js")),
];

/// The page's routes.
pub(crate) fn router() -> Router<Shared> {
    Router::new()
        .route("/", get(|headers: HeaderMap| async move { send(HTML, INDEX, POLICY, &headers) }))
        .route("/assets/{name}", get(asset))
}

async fn asset(Path(name): Path<String>, headers: HeaderMap) -> Result<Response, ApiError> {
    let found = ASSETS.iter().find(|(known, ..)| *known == name);
    let (_, kind, content) =
        found.ok_or_else(|| ApiError::new(ErrorCode::NotFound, "the page has no such file"))?;
    Ok(send(kind, content, POLICY, &headers))
}

/// A file that is part of the binary, unless the caller has it already.
pub(crate) fn send(
    kind: &'static str,
    content: &'static [u8],
    policy: &'static str,
    headers: &HeaderMap,
) -> Response {
    // Files change with the binary.
    let tag = format!("\"{}-{:x}\"", env!("CARGO_PKG_VERSION"), checksum(content));
    let fixed = [
        (CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        (CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy)),
        (HeaderName::from_static("x-content-type-options"), HeaderValue::from_static("nosniff")),
        (HeaderName::from_static("referrer-policy"), HeaderValue::from_static("no-referrer")),
    ];
    let known = headers.get(IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == tag.as_bytes());
    if known {
        return (StatusCode::NOT_MODIFIED, fixed, [(ETAG, tag)]).into_response();
    }
    (fixed, [(ETAG, tag), (CONTENT_TYPE, kind.to_owned())], content).into_response()
}

/// FNV-1a: distinguishes versions of our own files.
fn checksum(content: &[u8]) -> u64 {
    content
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_of_the_page_is_given_out() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("page");
        let mut files: Vec<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|file| file.unwrap().file_name().into_string().unwrap())
            .filter(|name| name != "index.html")
            .collect();
        files.sort();
        let given: Vec<&str> = ASSETS.iter().map(|(name, ..)| *name).collect();
        assert_eq!(given, files);
    }
}
