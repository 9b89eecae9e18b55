//! What every request passes: the checks of host, origin and key, the refusal during a stop, and what is counted and logged.

use std::time::Instant;

use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::http::header::{AUTHORIZATION, CONNECTION, CONTENT_TYPE, HOST, ORIGIN};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http_body_util::BodyExt;
use subtle::{ConditionallySelectable, ConstantTimeEq};

use crate::api_error::{ApiError, ErrorCode};
use crate::app::{App, Shared};
use crate::batcher::shutting_down;
use crate::body::UnreadBody;
use crate::caller::Caller;
use crate::options::ApiKey;

/// Bytes of a plain-text rejection that become an error's message.
const MAX_REJECTION: usize = 4096;

/// The middleware.
pub(crate) async fn check_request(State(app): State<Shared>, request: Request, next: Next) -> Response {
    let begin = Instant::now();
    let path = request.uri().path().to_owned();
    // Paths that are no route are counted together: a caller could invent any number of them.
    let route = request.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str).to_owned();
    let method = request.method().clone();
    let _counted = app.metrics.begin_request();
    let (mut request, unread) = UnreadBody::of(request);
    let mut response = match admit(&app, &path, &request) {
        Ok(key) => {
            if let Some(key) = key {
                request.extensions_mut().insert(Caller::Key(key));
            }
            // Admitted until it is answered: a stop waits for it.
            let _admitted = app.begin_admitted();
            shaped(next.run(request).await).await
        }
        Err(error) => {
            drop(request);
            error.into_response()
        }
    };
    let code = response.extensions().get::<ErrorCode>().copied();
    // A body that was too slow is not waited for again.
    let may_go_on = code != Some(ErrorCode::RequestTimeout);
    if !unread.finish(may_go_on, &app.options.limits).await {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    let code = code.map(|code| code.name());
    let (outcome, status) = (code.as_deref().unwrap_or("ok"), response.status().as_u16());
    let time = begin.elapsed();
    app.metrics.request(&route, outcome, status, time);
    tracing::debug!(%method, path, status, outcome, ms = time.as_millis(), "request");
    response
}

/// Whether a request is answered; the number of its key, where one is asked for.
fn admit(app: &App, path: &str, request: &Request) -> Result<Option<usize>, ApiError> {
    let headers = request.headers();
    check_host(app, headers)?;
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        check_origin(app, headers)?;
    }
    let key = if is_open(path) { None } else { check_key(&app.options.api_keys, headers)? };
    // Monitoring continues during a stop.
    if app.is_stopping() && !matches!(path, "/health" | "/readyz" | "/metrics") {
        return Err(shutting_down());
    }
    Ok(key)
}

/// Paths that need no key: they reveal nothing of the memory.
fn is_open(path: &str) -> bool {
    matches!(path, "/" | "/health" | "/readyz" | "/favicon.ico" | "/api-doc/openapi.json")
        || ["/assets/", "/docs"].iter().any(|prefix| path.starts_with(prefix))
}

/// Against DNS rebinding: a page of the web can have its own name resolve to this machine and then send requests as if it were served from
/// here. On a loopback address without keys, the host that was asked for must be this machine.
fn check_host(app: &App, headers: &HeaderMap) -> Result<(), ApiError> {
    if !app.options.is_local() || !app.options.api_keys.is_empty() {
        return Ok(());
    }
    let Some(host) = headers.get(HOST) else { return Ok(()) };
    let name = host.to_str().ok().map(name_of_host).unwrap_or_default();
    let address = name.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
    let known = name == "localhost"
        || name.ends_with(".localhost")
        || address.is_ok_and(|address| address.is_loopback())
        || app.options.hosts.iter().any(|host| host.eq_ignore_ascii_case(&name));
    if known {
        return Ok(());
    }
    Err(ApiError::new(
        ErrorCode::ForbiddenOrigin,
        format!("this server does not answer for host {name:?}: it is not one of its allowed hosts"),
    ))
}

/// A host header without its port.
fn name_of_host(host: &str) -> String {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) && !name.ends_with(':') => name,
        _ => host,
    };
    name.to_ascii_lowercase()
}

/// Against cross-site requests: a browser sends forms of any page to any server, so those of other origins are refused unless allowed.
fn check_origin(app: &App, headers: &HeaderMap) -> Result<(), ApiError> {
    let Some(origin) = headers.get(ORIGIN).map(|origin| origin.to_str().unwrap_or("")) else { return Ok(()) };
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or("");
    let own = origin.split_once("://").is_some_and(|(_, of_origin)| of_origin.eq_ignore_ascii_case(host));
    let allowed =
        app.options.origins.iter().any(|allowed| allowed == "*" || allowed.eq_ignore_ascii_case(origin));
    if own || allowed {
        return Ok(());
    }
    Err(ApiError::new(
        ErrorCode::ForbiddenOrigin,
        format!("this server does not answer pages of {origin:?}: it is not one of its allowed origins"),
    ))
}

/// The number of the key that a request has, where one is asked for.
fn check_key(keys: &[ApiKey], headers: &HeaderMap) -> Result<Option<usize>, ApiError> {
    if keys.is_empty() {
        return Ok(None);
    }
    let Some(given) = given_key(headers) else {
        return Err(ApiError::new(
            ErrorCode::Unauthorized,
            "a key is needed: send `Authorization: Bearer KEY` or `X-Api-Key: KEY`",
        ));
    };
    // All are compared, in constant time.
    let mut known = u64::MAX;
    for (number, key) in (0..).zip(keys) {
        known.conditional_assign(&number, key.as_str().as_bytes().ct_eq(&given));
    }
    match usize::try_from(known) {
        Ok(number) if number < keys.len() => Ok(Some(number)),
        _ => Err(ApiError::new(ErrorCode::Unauthorized, "this key is not known here")),
    }
}

/// A bearer token, the password of basic authentication (which URLs can carry), or a header of its own.
fn given_key(headers: &HeaderMap) -> Option<Vec<u8>> {
    if let Some(key) = headers.get("x-api-key") {
        return Some(key.as_bytes().to_vec());
    }
    let (scheme, value) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    let value = value.trim();
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(value.as_bytes().to_vec());
    }
    if scheme.eq_ignore_ascii_case("basic") {
        let pair = STANDARD.decode(value).ok()?;
        let colon = pair.iter().position(|&b| b == b':')?;
        return Some(pair[colon + 1..].to_vec());
    }
    None
}

/// Gives the framework's own rejections the one shape of an error.
async fn shaped(response: Response) -> Response {
    let status = response.status();
    let is_error = status.is_client_error() || status.is_server_error();
    if !is_error || response.extensions().get::<ErrorCode>().is_some() {
        return response;
    }
    let text = response.headers().get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"text/"));
    let code = match status {
        StatusCode::NOT_FOUND => ErrorCode::NotFound,
        StatusCode::METHOD_NOT_ALLOWED => ErrorCode::MethodNotAllowed,
        StatusCode::PAYLOAD_TOO_LARGE => ErrorCode::BodyTooLarge,
        StatusCode::UNSUPPORTED_MEDIA_TYPE => ErrorCode::UnsupportedMediaType,
        status if status.is_client_error() => ErrorCode::InvalidRequest,
        _ => ErrorCode::Internal,
    };
    let body = http_body_util::Limited::new(response.into_body(), MAX_REJECTION);
    let message = match body.collect().await {
        Ok(body) if text => String::from_utf8_lossy(&body.to_bytes()).into_owned(),
        _ => String::new(),
    };
    let message = if message.is_empty() { "the request is not as expected".to_owned() } else { message };
    ApiError::new(code, message).into_response()
}

/// What a handler's panic is answered with.
pub(crate) fn panicked(_: Box<dyn std::any::Any + Send>) -> Response<Body> {
    ApiError::internal(&"a handler panicked").into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
            .collect::<HeaderMap>()
    }

    #[test]
    fn keys_are_read_from_three_headers() {
        let keys = [ApiKey::from("one"), ApiKey::from("two:2")];
        for (number, good) in [
            (0, headers(&[("authorization", "Bearer one")])),
            (1, headers(&[("authorization", "bearer  two:2")])),
            (0, headers(&[("x-api-key", "one")])),
            (1, headers(&[("authorization", &format!("Basic {}", STANDARD.encode("me:two:2")))])),
        ] {
            assert_eq!(check_key(&keys, &good), Ok(Some(number)), "{good:?}");
        }
        for bad in [
            headers(&[]),
            headers(&[("authorization", "Bearer on")]),
            headers(&[("authorization", "Bearer")]),
            headers(&[("authorization", "Basic ###")]),
            headers(&[("x-api-key", "")]),
        ] {
            assert_eq!(check_key(&keys, &bad).unwrap_err().code, ErrorCode::Unauthorized, "{bad:?}");
        }
        assert_eq!(check_key(&[], &headers(&[])), Ok(None));
    }

    #[test]
    fn hosts_lose_their_ports() {
        for (host, name) in [
            ("localhost:8765", "localhost"),
            ("LOCALHOST", "localhost"),
            ("127.0.0.1:1", "127.0.0.1"),
            ("[::1]:80", "[::1]"),
            ("[::1]", "[::1]"),
            ("a.example:x", "a.example:x"),
        ] {
            assert_eq!(name_of_host(host), name);
        }
    }
}
