//! JSON over HTTP with a remote index: bounded in time and size, tried again where that may help.

use std::time::Duration;

use ureq::Agent;
use ureq::http::{Response, StatusCode, Uri, header};

use super::RemoteOptions;
use super::retry::{AttemptError, Retry};
use crate::error::{MemoryError, Result};
use crate::retriever::RemoteError;

const CONNECT: Duration = Duration::from_secs(10);
/// Characters of a server's message that are shown.
const SHOWN: usize = 300;

/// Talks to one remote index.
pub(super) struct Client {
    agent: Agent,
    /// The remote index as the user named it.
    location: String,
    token: Option<String>,
    max_answer: u64,
}

impl Client {
    /// For the server at `url`, which the user knows as `location`.
    pub fn new(location: String, url: &str, options: &RemoteOptions) -> Self {
        let mut config = Agent::config_builder()
            .user_agent(concat!("xmore/", env!("CARGO_PKG_VERSION")))
            .http_status_as_error(false)
            // A redirected POST would become a GET without its body.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_resolve(Some(CONNECT))
            .timeout_connect(Some(CONNECT))
            .timeout_global(Some(options.timeout));
        // What is on this machine is not behind a proxy.
        if is_loopback(url) {
            config = config.proxy(None);
        }
        let (token, max_answer) = (options.token.clone(), options.max_answer);
        Self { agent: config.build().into(), location, token, max_answer }
    }

    pub fn location(&self) -> &str {
        &self.location
    }

    /// An error about what the remote index said.
    pub fn remote(&self, reason: impl Into<String>) -> MemoryError {
        RemoteError::Refused { location: self.location.clone(), reason: reason.into() }.into()
    }

    /// Sends a request (a POST if there is a body) until `read` can make something of a good answer's body.
    ///
    /// # Errors
    /// [`RemoteError::Unreachable`] if nothing came of it within `retry`, [`RemoteError::Refused`] if the server
    /// answered that it will not.
    pub fn call<T>(
        &self,
        url: &str,
        body: Option<&[u8]>,
        retry: Retry,
        read: impl Fn(Vec<u8>) -> std::result::Result<T, AttemptError>,
    ) -> Result<T> {
        retry.run(&self.location, || self.attempt(url, body).and_then(&read))
    }

    /// One request and its answer's body.
    fn attempt(&self, url: &str, body: Option<&[u8]>) -> std::result::Result<Vec<u8>, AttemptError> {
        let result = match body {
            Some(body) => {
                let mut post = self.agent.post(url).header(header::CONTENT_TYPE, "application/json");
                if let Some(token) = &self.token {
                    post = post.header(header::AUTHORIZATION, format!("Bearer {token}"));
                }
                post.send(body)
            }
            None => {
                let mut get = self.agent.get(url);
                if let Some(token) = &self.token {
                    get = get.header(header::AUTHORIZATION, format!("Bearer {token}"));
                }
                get.call()
            }
        };
        let mut response = result.map_err(|e| self.attempt_error(&e))?;
        let text = response.body_mut().with_config().limit(self.max_answer).read_to_vec();
        let status = response.status();
        if status.is_success() {
            return text.map_err(|e| self.attempt_error(&e));
        }
        let said = text.map(|text| shown(&text)).unwrap_or_default();
        let reason = format!("HTTP {status}{}{said}", if said.is_empty() { "" } else { ": " });
        Err(match status {
            StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT => AttemptError::Transient(reason, retry_after(&response)),
            status if status.is_server_error() => AttemptError::Failed(reason),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => AttemptError::Permanent(match self.token {
                Some(_) => format!("{reason}; the token in use does not give access"),
                None => format!("{reason}; it wants a token, and none was given"),
            }),
            status if status.is_redirection() => {
                let to = response.headers().get(header::LOCATION).and_then(|to| to.to_str().ok());
                AttemptError::Permanent(format!(
                    "{reason}; it moved to {:?}: use that address",
                    to.unwrap_or_default()
                ))
            }
            StatusCode::NOT_FOUND => {
                AttemptError::Permanent(format!("{reason} ({url}); is this the right server and port?"))
            }
            _ => AttemptError::Permanent(reason),
        })
    }

    fn attempt_error(&self, error: &ureq::Error) -> AttemptError {
        match error {
            ureq::Error::BodyExceedsLimit(limit) => AttemptError::Permanent(format!(
                "its answer is longer than {limit} bytes, the most that is read"
            )),
            ureq::Error::BadUri(_) | ureq::Error::Http(_) | ureq::Error::InvalidProxyUrl => {
                AttemptError::Permanent(error.to_string())
            }
            ureq::Error::HostNotFound => {
                AttemptError::Transient("the host's name cannot be resolved".into(), None)
            }
            ureq::Error::Io(e) => AttemptError::Transient(e.to_string(), None),
            other => AttemptError::Transient(other.to_string(), None),
        }
    }
}

/// The beginning of what a server said, on one line and without what a terminal would take for commands.
pub(super) fn shown(text: &[u8]) -> String {
    // A character is four bytes at most.
    let text = String::from_utf8_lossy(&text[..text.len().min(4 * SHOWN)]);
    let words = text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty());
    let mut shown = words.collect::<Vec<_>>().join(" ");
    if let Some((end, _)) = shown.char_indices().nth(SHOWN) {
        shown.truncate(end);
        shown.push('…');
    }
    shown
}

/// Reads an answer as JSON of a kind.
pub(super) fn parse<T: serde::de::DeserializeOwned>(text: &[u8]) -> std::result::Result<T, AttemptError> {
    serde_json::from_slice(text).map_err(|e| {
        AttemptError::Permanent(format!("its answer is not what was expected ({e}): {}", shown(text)))
    })
}

fn retry_after<B>(response: &Response<B>) -> Option<Duration> {
    let seconds = response.headers().get(header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

fn is_loopback(url: &str) -> bool {
    let Ok(uri) = url.parse::<Uri>() else { return false };
    let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::super::test_server::{Reply, Server};
    use super::*;

    fn client(server: &Server, options: &RemoteOptions) -> Client {
        Client::new(server.url(), &server.url(), options)
    }

    fn call(server: &Server, options: &RemoteOptions) -> Result<Vec<u8>> {
        let url = format!("{}/x", server.url());
        client(server, options).call(&url, Some(b"{}"), Retry::of_search(options), Ok)
    }

    #[test]
    fn a_server_that_recovers_is_asked_again_and_told_to_wait_as_it_wishes() {
        let server = Server::start(|_, before| match before {
            0 => Reply::status(503),
            1 => Reply::status(429).with_header("Retry-After: 1"),
            2 => Reply::hang_up(),
            _ => Reply::json("[1]"),
        });
        let start = Instant::now();
        assert_eq!(call(&server, &RemoteOptions::default()).unwrap(), b"[1]");
        assert_eq!(server.seen().len(), 4);
        assert!(start.elapsed() >= Duration::from_millis(1_400), "{:?}", start.elapsed());
    }

    #[test]
    fn nobody_listening_is_unreachable_after_the_attempts_allowed() {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let options = RemoteOptions { attempts: 2, ..RemoteOptions::default() };
        let url = format!("http://127.0.0.1:{port}/");
        let client = Client::new(format!("milvus://127.0.0.1:{port}/x"), &url, &options);
        let error = client.call(&url, None, Retry::of_search(&options), Ok).unwrap_err();
        assert!(
            matches!(error, MemoryError::Remote(RemoteError::Unreachable { attempts: 2, .. })),
            "{error}"
        );
        assert!(error.to_string().contains(&format!("milvus://127.0.0.1:{port}/x")), "{error}");
    }

    #[test]
    fn a_silent_server_is_given_up_after_the_timeout() {
        let server = Server::start(|_, _| Reply::json("[]").after(Duration::from_secs(20)));
        let options =
            RemoteOptions { timeout: Duration::from_millis(200), attempts: 2, ..RemoteOptions::default() };
        let start = Instant::now();
        let error = call(&server, &options).unwrap_err();
        assert!(
            matches!(error, MemoryError::Remote(RemoteError::Unreachable { attempts: 2, .. })),
            "{error}"
        );
        assert!(start.elapsed() < Duration::from_secs(5));
    }

    #[test]
    fn answers_of_any_length_are_cut_off_at_the_limit_and_not_asked_for_again() {
        let server = Server::start(|_, _| Reply::json(&"1".repeat(100_000)));
        let options = RemoteOptions { max_answer: 1_000, ..RemoteOptions::default() };
        let error = call(&server, &options).unwrap_err();
        assert!(matches!(error, MemoryError::Remote(RemoteError::Refused { .. })), "{error}");
        assert!(error.to_string().contains("1000 bytes"), "{error}");
        assert_eq!(server.seen().len(), 1);
    }

    #[test]
    fn a_body_shorter_than_announced_is_asked_for_again() {
        let server = Server::start(|_, before| match before {
            0 => Reply::json("[1, 2, 3]").cut_to(4),
            _ => Reply::json("[1, 2, 3]"),
        });
        assert_eq!(call(&server, &RemoteOptions::default()).unwrap(), b"[1, 2, 3]");
    }

    #[test]
    fn refusals_are_final_and_say_what_to_do() {
        for (status, header, hint, times) in [
            (401, "", "wants a token", 1),
            (404, "", "right server", 1),
            (301, "Location: https://elsewhere.example/", "https://elsewhere.example/", 1),
            (400, "", "HTTP 400", 1),
            (500, "", "HTTP 500", 2),
        ] {
            let server = Server::start(move |_, _| Reply::status(status).with_header(header));
            let error = call(&server, &RemoteOptions::default()).unwrap_err();
            assert!(matches!(error, MemoryError::Remote(RemoteError::Refused { .. })), "{error}");
            assert!(error.to_string().contains(hint), "{error}");
            assert_eq!(server.seen().len(), times, "{status}");
        }
    }

    #[test]
    fn a_proxy_is_left_out_on_this_machine_only() {
        for url in ["http://localhost", "http://127.1.2.3:5/x", "http://[::1]:7/"] {
            assert!(is_loopback(url), "{url}");
        }
        for url in [
            "http://example.com",
            "http://localhost.example.com/",
            "http://10.0.0.1",
            "http://[::2]",
            "nonsense",
        ] {
            assert!(!is_loopback(url), "{url}");
        }
    }

    #[test]
    fn the_token_is_sent_and_never_shown() {
        let server = Server::start(|_, _| Reply::status(403));
        let options = RemoteOptions { token: Some("root:Milvus".into()), ..RemoteOptions::default() };
        let error = call(&server, &options).unwrap_err().to_string();
        assert!(error.contains("token") && !error.contains("root:Milvus"), "{error}");
        assert_eq!(server.seen()[0].header("authorization"), Some("Bearer root:Milvus"));
    }

    #[test]
    fn what_a_server_said_is_shown_on_one_line_and_in_part() {
        assert_eq!(shown(b" a\n\n b\t\x1b[2J"), "a b [2J");
        let long = shown("é".repeat(5_000).as_bytes());
        assert_eq!(long.chars().count(), SHOWN + 1);
    }
}
